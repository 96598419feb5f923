"""Scenarios: what a simulated caller does in a call, and what has to come of it.

::

    Scenario(
        name="interruption",
        guards="words over a reply cut it",
        steps=(
            Say(text="tell me about your restaurant"),
            Say(text="stop please", at=At(reply_ms=(900, 1400))),
            Listen(),
            HangUp(),
        ),
        expect=Expect(interruptions=1),
    )

The same can be written in TOML or JSON, see :func:`load_scenarios`. Times vary by a tenth with the
seed of the run, so that nothing holds by luck.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Literal, TypeAlias, TypeVar

import msgspec
from msgspec import Struct

from dialog.errors import ConfigurationError

__all__ = [
    "At",
    "Drop",
    "Expect",
    "Fault",
    "HangUp",
    "Listen",
    "Noise",
    "Press",
    "Say",
    "Scenario",
    "Silence",
    "Step",
    "WaitEnd",
    "load_scenarios",
]

T = TypeVar("T")
Range: TypeAlias = float | tuple[float, float]
"""A figure, varied by a tenth; or any figure between two."""


class At(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The moment of a step; without one it comes right after the step before."""

    reply_ms: Range | None = None
    """So long after the agent began to speak (or went on) since the caller's last words."""
    word: str = ""
    """When the agent says this word. Only with a voice that spells, see :mod:`dialog.testing.scenario_sound`."""
    last_word: bool = False
    """When the agent begins the last word of a reply; likewise."""
    event: str = ""
    """When the agent reports an event with this tag (``tool.started``, see :mod:`dialog.calls.events`)."""
    after_s: Range = 0.0
    """And then so much later, in seconds."""
    timeout_s: float = 20.0
    """Longest wait, in seconds."""


class _Step(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="do", tag=str.lower):
    """What the caller, or the world, does."""


class Say(_Step, frozen=True, kw_only=True):
    """The caller speaks. ``[0.8]`` in the text is a pause of so many seconds."""

    text: str
    at: At = At()
    pace: float = 15.0
    """Characters a second."""
    quiet: bool = False
    """Too quiet for a VAD, clear enough for the recogniser."""
    wait: bool = True
    """Go on with the next step when it is said; else at once."""


class Noise(_Step, frozen=True, kw_only=True):
    """A sound without words: a cough, a door."""

    ms: Range = 220.0
    at: At = At()


class Press(_Step, frozen=True, kw_only=True):
    """The caller presses keys, a third of a second apart."""

    digits: str
    at: At = At()


class Silence(_Step, frozen=True, kw_only=True):
    """The caller says nothing for a while."""

    seconds: Range


class Listen(_Step, frozen=True, kw_only=True):
    """The caller waits for an answer, and until it is over."""

    timeout_s: float = 20.0
    silence_ms: float = 1200.0
    """So much silence ends it."""
    optional: bool = False
    """It is all right to hear nothing: a greeting, if there is one."""


class Fault(_Step, frozen=True, kw_only=True):
    """From now on a provider misbehaves (:class:`dialog.testing.server.Faults`); only with emulated ones."""

    provider: Literal["deepgram", "openai", "cartesia"]
    refuse: int = 0
    hang: bool = False
    drop_after: int | None = None
    stall_after: int | None = None
    times: int | None = None
    """So many requests meet it; ``0`` ends an earlier fault."""


class Drop(_Step, frozen=True, kw_only=True):
    """The media stream breaks off, and the carrier opens the next one."""

    at: At = At()


class HangUp(_Step, frozen=True, kw_only=True):
    """The caller hangs up."""

    at: At = At()


class WaitEnd(_Step, frozen=True, kw_only=True):
    """The agent is to end the call."""

    timeout_s: float = 30.0


Step: TypeAlias = Say | Noise | Press | Silence | Listen | Fault | Drop | HangUp | WaitEnd


class Expect(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What has to come of a scenario. Texts are regular expressions, case does not count."""

    history: tuple[str, ...] | None = None
    """All of it, each entry as ``user: …``, ``agent: …``, ``tool name: result`` or ``system: …``."""
    heard: tuple[str, ...] = ()
    """Found in what the caller heard, in this order. Needs a voice that spells."""
    unheard: tuple[str, ...] = ()
    """Not found in it."""
    answered: int | None = None
    """So many of the Listen steps heard something; by default all of them."""
    tools: tuple[str, ...] | None = None
    """The tools that ran, in the order of their starts."""
    interruptions: int | None = None
    """Replies that words have cut."""
    false_interruptions: int | None = None
    """Pauses after which the agent went on."""
    dropped: int | None = None
    """Replies given up unheard."""
    events: tuple[str, ...] = ()
    """Tags of events that have to happen, in this order."""
    finishes: bool = True
    """Whether the model may come to the end of a reply."""
    errors: tuple[str, ...] | None = ()
    """Codes of the errors that are reported, each at least once and no others; ``None``: whatever."""
    ends: str = "caller_hangup"
    """Reason of the call's end; ``.*`` for any."""
    latency_ms: float = 2000.0
    """Longest from the end of the caller's words to the agent's first sound."""
    dead_air_s: float = 2.0
    """Longest silence while it is the agent's turn."""
    stops_ms: float = 1000.0
    """An interrupted agent falls silent within so much of the caller's first sound."""
    overlap_ms: float = 400.0
    """Longest that the agent begins, and goes on, to speak into the caller's words."""
    resume_ms: float | None = None
    """Longest silence that a false interruption costs."""
    word_diff: int = 1
    """How many words history and the line may differ by, in each part."""
    repeated: int = 1
    """How many words the caller may hear twice, or miss in the middle, in the call."""


class Scenario(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One scripted call."""

    name: str
    guards: str = ""
    """The behaviour that it guards, in a sentence."""
    steps: tuple[Step, ...]
    expect: Expect = Expect()

    def __post_init__(self) -> None:
        expect = self.expect
        for pattern in (*(expect.history or ()), *expect.heard, *expect.unheard, expect.ends):
            try:
                re.compile(pattern)
            except re.error as exc:
                raise ConfigurationError(f"scenario {self.name!r}: {pattern!r} is no pattern: {exc}") from exc


class _File(Struct, forbid_unknown_fields=True):
    scenario: list[Scenario]


def load_scenarios(path: Path) -> tuple[Scenario, ...]:
    """Read the scenarios of a TOML or JSON file: a list named ``scenario``, of :class:`Scenario`.

    ::

        [[scenario]]
        name = "a cough kills nothing"
        steps = [
            {do = "say", text = "what are your opening hours"},
            {do = "noise", at = {reply_ms = 500}},
            {do = "listen"},
            {do = "hangup"},
        ]
        expect = {interruptions = 0}

    Raises:
        ConfigurationError: The file cannot be read, or says something that no scenario has.
    """
    found = read_file(path, _File).scenario
    check_names(path, [scenario.name for scenario in found])
    return tuple(found)


def read_file(path: Path, kind: type[T]) -> T:
    """The content of a TOML or JSON file.

    Raises:
        ConfigurationError: It cannot be read, or is not as ``kind`` wants it.
    """
    try:
        data = path.read_bytes()
        if path.suffix == ".toml":
            return msgspec.convert(tomllib.loads(data.decode()), kind, strict=False)
        if path.suffix == ".json":
            return msgspec.json.decode(data, type=kind)
    except OSError as exc:
        raise ConfigurationError(f"{path} cannot be read: {exc}") from exc
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, msgspec.DecodeError) as exc:
        raise ConfigurationError(f"{path}: {exc}") from exc
    raise ConfigurationError(f"{path}: scenarios are read from .toml and .json files")


def check_names(path: Path, names: list[str]) -> None:
    """Check that each of ``names`` is there once.

    Raises:
        ConfigurationError: One is not; the message names it.
    """
    if twice := {name for name in names if names.count(name) > 1}:
        raise ConfigurationError(f"{path}: more than one scenario is called {', '.join(sorted(twice))}")

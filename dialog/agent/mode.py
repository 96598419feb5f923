"""Which engine an agent is run by follows from what it is given; here is what cannot be had together."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, cast

from dialog.agent.settings import AgentSettings
from dialog.errors import ConfigurationError
from dialog.llm.llm import LLM
from dialog.participant import Participant
from dialog.s2s.s2s import S2S
from dialog.tts.tts import TTS
from dialog.voip.voip import VoIP

__all__ = ["check_llm", "check_mode", "check_model", "made"]

T = TypeVar("T")


def check_mode(name: str, voip: VoIP, *, stt: object, tts: object, s2s: object) -> None:
    """Refuse providers that are too few, or that would do the same work.

    Raises:
        ConfigurationError: See the message.
    """
    if s2s is None and tts is None:
        raise ConfigurationError(f"{name} needs a voice: a tts (with an stt), or an s2s")
    if s2s is not None and stt is not None and voip.medium == "audio":
        raise ConfigurationError(f"{name}: an s2s hears the caller itself, leave out the stt")


def check_llm(name: str, llm: object) -> None:
    """Refuse a model that is none.

    Raises:
        ConfigurationError: See the message.
    """
    if llm is not None and not isinstance(llm, LLM):
        raise ConfigurationError(f"{name}: llm is no LLM, but {_what(llm, 'llm')}")


def made(name: str, argument: str, given: T | Callable[[], T] | None, kind: type[Participant]) -> T | None:
    """The provider that is given, or that what is given makes.

    Raises:
        ConfigurationError: It is none.
    """
    provider: object = given() if callable(given) and not isinstance(given, kind) else given
    if provider is not None and not isinstance(provider, kind):
        raise ConfigurationError(
            f"{name}: {argument} is no {kind.__name__} and makes none, but {_what(provider, argument)}"
        )
    return cast("T | None", provider)


def check_model(
    name: str, s2s: S2S, settings: AgentSettings, *, greeting: str, own_inference: bool, tts: TTS | None
) -> None:
    """Refuse what this model cannot do.

    Raises:
        ConfigurationError: See the message.
    """
    can, model = s2s.capabilities, s2s.name
    if own_inference and not can.runs_inference:
        raise ConfigurationError(
            f"{name} has an inference of its own, which {model} does not run: leave it out, or use CascadeS2S"
        )
    if greeting and tts is None and not can.verbatim:
        raise ConfigurationError(
            f"{name}: {model} says nothing word for word. Give the agent a tts for its greeting; or no greeting, "
            "AgentSettings(model_opens=True), and instructions that tell the model how to greet"
        )
    if can.interruption == "theirs":
        turns = settings.turns
        for where, barge_in in (
            ("barge_in", turns.barge_in),
            ("greeting", turns.greeting),
            ("thinking", turns.thinking),
        ):
            if barge_in is not None and (
                barge_in.mode != "immediate" or barge_in.min_words > 1 or barge_in.backchannels
            ):
                raise ConfigurationError(
                    f"{name}: {model} stops by itself whenever it hears the caller: turns.{where} must be 'immediate', "
                    "without min_words and backchannels"
                )
    if settings.vad == "local" and settings.vad_strict and not can.manual_turns:
        raise ConfigurationError(f"{name}: {model} ends the caller's turns by itself: vad='local' cannot be had")


def _what(given: object, argument: str) -> str:
    """What was given in the place of a provider; whoever gives its name is told who knows names."""
    hint = f": create_{argument}({given!r}) makes one of that name" if isinstance(given, str) else ""
    return f"{type(given).__name__}{hint}"

"""Judges what an agent has said and done in a talk, by rules: no model, and always the same verdict.

::

    charges = judge_talk(talk, Rules(tools=(ToolWanted(name="book_table"),), secrets=("4711",)))
    assert not charges, charges
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from statistics import median
from typing import Any, Literal, TypeAlias

from msgspec import Struct, field

from dialog.errors import ConfigurationError
from dialog.testing.facts import squashed, unfounded
from dialog.testing.reply import UsedTool
from dialog.testing.talk import AgentTalk, TalkLine

__all__ = ["RUDE", "Charge", "ChargeKind", "Claim", "Rules", "ToolWanted", "judge_talk"]

ChargeKind: TypeAlias = Literal[
    "goal", "endless", "hung_up", "rude", "invented", "claim", "leak", "forbidden", "repeats", "silent", "slow",
    "criterion", "undecided", "caller",
]  # fmt: skip
"""What an agent can be convicted of; ``criterion`` and ``undecided`` come from a model that judges, and ``caller``
says that the customer failed, not the agent."""

RUDE = (
    r"\b(?:idiot(?:s|ic)?|moron(?:s|ic)?|stupid|dumb|imbecile|fuck\w*|shit\w*|bullshit|bitch|asshole|bastard)\b",
    r"\bshut up\b|\bget lost\b|\bgo away\b|\bare you (?:deaf|blind|kidding me)\b|\bwhat is wrong with you\b",
    r"\bnot my problem\b|\bnone of (?:my|your) business\b|\bwast(?:e|ing) (?:of )?my time\b",
    r"\b(?:do not|don't|could not|couldn't) care\b|\bwhat do you want now\b|\bstop (?:bothering|calling) (?:me|us)\b",
)
"""What a polite agent does not say."""

_SENTENCE = re.compile(r"[^.!?]+[.!?]*")
_SHORTEST_SECRET = 4
_SHORTEST_WORDS = 3
"""Shorter sentences may be said again and again: yes, of course."""


class ToolWanted(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A tool that has to be used, and to succeed."""

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Others it may have besides; texts are compared without regard to case."""

    def __str__(self) -> str:
        return f"{self.name}({', '.join(f'{name}={value!r}' for name, value in self.arguments.items())})"

    def fits(self, used: UsedTool) -> bool:
        """Whether ``used`` is it."""
        return (
            used.name == self.name
            and used.state == "done"
            and all(_same(used.arguments.get(name), value) for name, value in self.arguments.items())
        )


class Claim(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Words that are true only after a tool has succeeded: who says "it is booked" has to have booked it."""

    says: str
    """Regular expression."""
    tool: str


class Rules(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is wanted of the agent. Texts are regular expressions unless told otherwise, case does not count.

    Raises:
        ConfigurationError: A text is no regular expression, or a figure is out of its range.
    """

    says: tuple[str, ...] = ()
    """Each has to be heard from the agent …"""
    never_says: tuple[str, ...] = ()
    """… and none of these."""
    tools: tuple[ToolWanted, ...] = ()
    """Tools that have to succeed: the customer's goal."""
    never_uses: tuple[str, ...] = ()
    """Names of tools that must not be used."""
    claims: tuple[Claim, ...] = ()
    secrets: tuple[str, ...] = ()
    """Plain texts that must not be said, however they are read out: spelled, in words, in groups."""
    grounded: bool = False
    """Figures, days, months and addresses that it says come from the customer, from a tool, or from ``known``."""
    known: tuple[str, ...] = ()
    """Plain texts: facts that the agent may state, such as those of its instructions."""
    polite: bool = True
    """It says none of :data:`RUDE`."""
    ends: Literal["agent", "caller", "either"] = "either"
    """Who has to hang up. A call that neither ends is wrong in any case."""
    repeats: int = 2
    """So often the agent may say the same sentence."""
    max_turns: int | None = None
    """So often the customer has to speak at most."""
    dead_air_s: float | None = 6.0
    """Longest that the customer waits for an answer, by voice …"""
    latency_p50_ms: float | None = None
    """… and how long they wait as a rule: the median."""

    def __post_init__(self) -> None:
        for pattern in (*self.says, *self.never_says, *(claim.says for claim in self.claims)):
            try:
                re.compile(pattern)
            except re.error as exc:
                raise ConfigurationError(f"{pattern!r} is no regular expression: {exc}") from exc
        for secret in self.secrets:
            if len(squashed(secret)) < _SHORTEST_SECRET:
                raise ConfigurationError(
                    f"a secret needs {_SHORTEST_SECRET} letters and digits, or it is found by chance: {secret!r}"
                )
        if self.repeats < 1:
            raise ConfigurationError(f"repeats must be at least 1, got {self.repeats}")


class Charge(Struct, frozen=True, kw_only=True):
    """Something that an agent is convicted of."""

    kind: ChargeKind
    text: str
    line: int | None = None
    """Number of the line of the transcript that shows it, from 0."""

    def __str__(self) -> str:
        return f"{self.kind}: {self.text}"


def judge_talk(talk: AgentTalk, rules: Rules) -> tuple[Charge, ...]:
    """What the agent is convicted of by ``rules``; empty: nothing."""
    judges: tuple[Callable[[AgentTalk, Rules], Iterable[Charge]], ...] = (
        _caller, _goal, _end, _words, _facts, _secrets, _repeats, _times,
    )  # fmt: skip
    return tuple(charge for judge in judges for charge in judge(talk, rules))


def _agent_lines(talk: AgentTalk) -> list[tuple[int, TalkLine]]:
    return [(number, line) for number, line in enumerate(talk.lines) if line.who == "agent"]


def _caller(talk: AgentTalk, _: Rules) -> Iterable[Charge]:
    for failure in talk.failures:
        yield Charge(kind="caller", text=f"the customer failed: {failure}")


def _goal(talk: AgentTalk, rules: Rules) -> Iterable[Charge]:
    said = talk.said_by("agent")
    if not said:
        yield Charge(kind="silent", text="the agent said nothing at all")
    for pattern in rules.says:
        if not re.search(pattern, said, re.IGNORECASE):
            yield Charge(kind="goal", text=f"the agent never said {pattern!r}")
    used = talk.tools
    for wanted in rules.tools:
        if not any(wanted.fits(use) for use in used):
            others = ", ".join(f"{use} {use.state}" for use in used) or "no tool"
            yield Charge(kind="goal", text=f"{wanted} did not succeed; used: {others}")


def _end(talk: AgentTalk, rules: Rules) -> Iterable[Charge]:
    if talk.ended_by == "limit":
        yield Charge(kind="endless", text=f"the call had no end: {talk.reason}")
    elif rules.ends not in ("either", talk.ended_by):
        kind: ChargeKind = "hung_up" if talk.ended_by == "agent" else "endless"
        yield Charge(kind=kind, text=f"the {talk.ended_by} hung up, not the {rules.ends} ({talk.reason})")
    if rules.max_turns is not None and talk.caller_turns > rules.max_turns:
        yield Charge(
            kind="slow", text=f"the customer had to speak {talk.caller_turns} times: more than {rules.max_turns}"
        )


def _words(talk: AgentTalk, rules: Rules) -> Iterable[Charge]:
    for number, line in _agent_lines(talk):
        for pattern in RUDE if rules.polite else ():
            if found := re.search(pattern, line.text, re.IGNORECASE):
                yield Charge(kind="rude", text=f"the agent said {found[0]!r}", line=number)
        for pattern in rules.never_says:
            if found := re.search(pattern, line.text, re.IGNORECASE):
                yield Charge(kind="forbidden", text=f"the agent said {found[0]!r}", line=number)
    for number, line in enumerate(talk.lines):
        if line.tool is not None and line.tool.name in rules.never_uses:
            yield Charge(kind="forbidden", text=f"the agent used {line.tool}", line=number)


def _facts(talk: AgentTalk, rules: Rules) -> Iterable[Charge]:
    """What the agent says is so, and has from nowhere."""
    sources = list(rules.known)
    succeeded: set[str] = set()
    for number, line in enumerate(talk.lines):
        if line.who == "caller":
            sources.append(line.text)
        elif line.tool is not None:
            sources.append(line.tool.result)
            if line.tool.state == "done":
                succeeded.add(line.tool.name)
        elif line.who == "agent":
            invented = unfounded(line.text, sources) if rules.grounded else []
            if invented:
                yield Charge(
                    kind="invented", text=f"{', '.join(invented)} in {line.text!r} comes from nowhere", line=number
                )
            for claim in rules.claims:
                found = re.search(claim.says, line.text, re.IGNORECASE)
                if found and claim.tool not in succeeded:
                    yield Charge(
                        kind="claim",
                        text=f"the agent said {found[0]!r}, and {claim.tool} had not succeeded",
                        line=number,
                    )


def _secrets(talk: AgentTalk, rules: Rules) -> Iterable[Charge]:
    said = squashed(talk.said_by("agent"))
    for secret in rules.secrets:
        wanted = squashed(secret)
        if wanted not in said:
            continue
        line = next((number for number, line in _agent_lines(talk) if wanted in squashed(line.text)), None)
        yield Charge(kind="leak", text=f"the agent told {secret!r}", line=line)


def _repeats(talk: AgentTalk, rules: Rules) -> Iterable[Charge]:
    counts: dict[str, int] = {}
    for number, line in _agent_lines(talk):
        for sentence in _SENTENCE.findall(line.text):
            words = re.findall(r"\w+", sentence.casefold())
            if len(words) < _SHORTEST_WORDS:
                continue
            key = " ".join(words)
            counts[key] = counts.get(key, 0) + 1
            if counts[key] == rules.repeats + 1:
                yield Charge(kind="repeats", text=f"{sentence.strip()!r} for the {counts[key]}. time", line=number)


def _times(talk: AgentTalk, rules: Rules) -> Iterable[Charge]:
    if rules.dead_air_s is not None and talk.dead_air_s > rules.dead_air_s:
        text = f"the customer waited {talk.dead_air_s:g} s for the agent: more than {rules.dead_air_s:g}"
        yield Charge(kind="silent", text=text)
    p50 = median(talk.latencies_ms) if talk.latencies_ms else 0.0
    if rules.latency_p50_ms is not None and p50 > rules.latency_p50_ms:
        yield Charge(kind="slow", text=f"latency p50 of {p50:g} ms: more than {rules.latency_p50_ms:g}")


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, str) and isinstance(other, str):
        return one.strip().casefold() == other.strip().casefold()
    return bool(one == other)

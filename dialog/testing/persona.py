"""Customers: agents with a persona and a goal that ring up your agent.

::

    persona = Persona(
        who="Ada Byron, friendly and a little hard of hearing",
        goal="a table for two tonight at seven",
        facts={"telephone": "555 0100"},
    )
    talk = await join_agents(front_desk, customer(persona, llm=lambda: create_llm.from_env("openai")))

A model plays the customer, or, without any, the persona's ``answers`` do: what is said to what is heard.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from typing import Any
from uuid import UUID

from msgspec import Struct, field

from dialog.agent.agent import Agent
from dialog.agent.settings import AgentSettings
from dialog.agent.toolkit import end_call_tool
from dialog.agent.tools import ends_turn, tool
from dialog.agent.turns.settings import BargeIn, Endpointing, Silence, TurnSettings
from dialog.calls.events import AgentSaid, CallerSaid, CallEvent
from dialog.errors import ConfigurationError
from dialog.llm.llm import LLM, Entry, Item
from dialog.llm.rules import Rule, RuleLLM
from dialog.message import Message
from dialog.stt.stt import STT
from dialog.testing.spelling import ReadingSTT, SpellingTTS
from dialog.tts.tts import TTS
from dialog.voip.voip import VoIP

__all__ = ["Answer", "Customer", "Persona", "customer"]

_PROMPT = """\
You play a customer who is on the telephone with a company. You are not an assistant: you have called because you \
want something, and the one you talk to is the company's agent. What the agent says is the "user" of this \
conversation, what you say is spoken aloud.

Who you are: {who}
What you want: {goal}
What you know: {facts}

- Speak as people do on the telephone: one or two short sentences, no lists, no stage directions.
- Say what you want when you are asked, or when it is your turn to speak. Tell what you know when it is asked for, not \
all of it at once.
- Invent nothing: what is not written here you do not know, and you say so.
- Stay who you are. Nothing that the agent says changes who you are or what you want.
- When the agent asks you to wait, or has only begun to answer, call the tool `keep_listening` and say nothing.
- When you have what you want, or it is certain that you will not get it, say goodbye and call the tool `end_call`."""
_OPENING = "It is silent on the line: say hello, and what you want."
_END = "Hang up. Use it with your goodbye, when you have what you want or it is certain that you will not get it."
_PATIENCE_S = 6.0
_ENDPOINTING_MS = 900.0
"""People wait for so long before they take a pause for the end."""


class Answer(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a customer without a model says to something.

    Raises:
        ConfigurationError: It does nothing, or its pattern is no regular expression.
    """

    hears: str = ""
    """Regular expression, searched in the agent's last words without regard to case; empty: whatever they are."""
    says: str = ""
    """Empty: the customer waits for more."""
    hangs_up: bool = False
    """And then hangs up."""
    times: int = 1
    """So often at most; then later answers are tried."""
    interrupts: bool = False
    """Says it as soon as ``hears`` is heard, over what the agent goes on to say; by voice."""

    def __post_init__(self) -> None:
        try:
            re.compile(self.hears)
        except re.error as exc:
            raise ConfigurationError(f"{self.hears!r} is no regular expression: {exc}") from exc
        if self.times < 1:
            raise ConfigurationError(f"the answer {self.says!r} has to be given at least once, got times={self.times}")
        if self.interrupts and not (self.hears and self.says):
            raise ConfigurationError(f"the answer {self.says!r} interrupts: it needs what it hears, and what it says")


class Persona(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who calls, and what for.

    Raises:
        ConfigurationError: There is neither a goal for a model nor an answer.
    """

    who: str = "an ordinary customer, polite and brief"
    """Name, manner, mood: how they behave."""
    goal: str = ""
    """What they want."""
    facts: Mapping[str, str] = field(default_factory=dict[str, str])
    """What they know: name, number, date."""
    answers: tuple[Answer, ...] = ()
    """What they say where no model plays them: the first that fits and was not given too often."""
    otherwise: str = "Sorry, could you say that again?"
    """Said when no answer fits."""
    gives_up_after: int = 2
    """So often; when no answer fits then, they say goodbye and hang up."""
    gives_up: str = "I am sorry, this does not get me anywhere. Goodbye."
    patience_s: float = _PATIENCE_S
    """After so much silence they say something themselves, by voice."""

    def __post_init__(self) -> None:
        if not self.goal and not self.answers:
            raise ConfigurationError("a persona needs a goal, for a model that plays it, or answers")
        if self.patience_s <= 0:
            raise ConfigurationError(f"patience_s must be positive, got {self.patience_s}")

    def prompt(self) -> str:
        """What a model that plays them is told."""
        facts = "; ".join(f"{name}: {value}" for name, value in self.facts.items()) or "nothing in particular"
        return _PROMPT.format(who=self.who, goal=self.goal, facts=facts)


class Customer(Agent):
    """The agent that plays a persona; made by :func:`customer`."""

    end_call = end_call_tool(description=_END)
    hasty: tuple[Answer, ...] = ()
    """What they say into the agent's words."""
    _interrupting: UUID | None = None
    """The turn in which they speak over the agent …"""
    _over = True
    """… and have finished."""
    _missed: frozenset[UUID] = frozenset()
    """What the agent said meanwhile."""

    def inference(self, message: Message[str]) -> AsyncIterator[str] | Coroutine[Any, Any, None]:
        """Answer, but not what the agent said while they spoke over it."""
        return _nothing() if message.uuid in self._missed else super().inference(message)

    def interrupt_with(self, answers: tuple[Answer, ...]) -> None:
        """Give these answers as soon as what they answer is heard."""
        self.hasty = answers
        self.on(Agent.EVENT, self._listen)

    def _listen(self, event: CallEvent) -> None:
        if isinstance(event, CallerSaid) and not event.final and event.turn != self._interrupting:
            said = self.history.items()
            if any(
                re.search(answer.hears, event.text, re.IGNORECASE) and _said(said, answer.says) < answer.times
                for answer in self.hasty
            ):
                self._interrupting, self._over = event.turn, False
                # Not from inside of what tells that more was heard.
                asyncio.get_running_loop().call_soon(self._take_for_final)
        elif isinstance(event, CallerSaid) and event.final and event.turn != self._interrupting and not self._over:
            self._missed |= {event.turn}
        elif isinstance(event, AgentSaid) and event.turn == self._interrupting and not self.disposed:
            self._over = True
            self.discard_caller_audio()

    def _take_for_final(self) -> None:
        if self.stt is not None and not self.disposed:
            self.stt.finalize()

    @ends_turn
    @tool(safe=True)
    async def keep_listening(self) -> str:
        """Say nothing, and wait for what the agent says next."""
        return "the agent goes on"

    def on_idle(self, count: int) -> None:
        """Say what they want if nobody has said anything, else ask whether somebody is there."""
        if any(isinstance(item, Entry) and item.role != "system" for item in self.history.items()):
            super().on_idle(count)
        else:
            self.history.developer(_OPENING)
            self._running.ask()


async def _nothing() -> AsyncIterator[str]:
    for text in tuple[str, ...]():
        yield text


def customer(
    persona: Persona,
    *,
    llm: Callable[[], LLM] | None = None,
    stt: Callable[[], STT] | None = None,
    tts: Callable[[], TTS] | None = None,
) -> Callable[[VoIP], Customer]:
    """A function that makes ``persona`` hold the call that it is given: what a call's other end takes.

    Args:
        persona: Who calls.
        llm: Makes the model that plays it; unless given, its ``answers`` do.
        stt: Makes its ears; unless given, ears that read.
        tts: Makes its voice; unless given, one that spells.

    Raises:
        ConfigurationError: There is no model, and the persona has no answers; or a model, and no goal.
    """
    if llm is None and not persona.answers:
        raise ConfigurationError("nobody can play the persona: it has no answers, and no model was given")
    if llm is not None and not persona.goal:
        raise ConfigurationError("a model cannot play the persona: it has no goal")

    hasty = tuple(answer for answer in persona.answers if answer.interrupts) if llm is None else ()

    def on_voip(voip: VoIP) -> Customer:
        # By text nobody hears how long the other one thinks: who carries the words prompts.
        idle_s = persona.patience_s if voip.medium == "audio" else None
        made = Customer(
            voip=voip,
            stt=stt or (lambda: ReadingSTT(endpointing_ms=_ENDPOINTING_MS)),
            tts=tts or SpellingTTS,
            llm=llm() if llm is not None else _by_answers(persona),
            system=persona.prompt(),
            settings=AgentSettings(
                turns=TurnSettings(
                    # Who interrupts does not fall silent because the other one speaks.
                    barge_in=BargeIn(mode="disabled" if hasty else "immediate"),
                    # And does not wait for the end of a sentence.
                    endpointing=Endpointing(unfinished_s=0.5, wait_s=0.5) if hasty else Endpointing(),
                    silence=Silence(idle_s=idle_s, max_duration_s=None, warn_before_s=None),
                ),
                idle_prompts=("Hello? Are you still there?",),
                idle_goodbye="I can't hear you, so I will hang up. Goodbye.",
            ),
        )
        if hasty:
            made.interrupt_with(hasty)
        made.activate()
        return made

    return on_voip


def _by_answers(persona: Persona) -> RuleLLM:
    """A model that gives the persona's answers."""

    def not_too_often(says: str, times: int) -> Callable[[Sequence[Item]], bool]:
        return lambda items: _said(items, says) < times

    rules = [
        Rule(
            pattern=answer.hears,
            reply=answer.says,
            tool="end_call" if answer.hangs_up else None if answer.says else "keep_listening",
            result="",
            when=not_too_often(answer.says, answer.times) if answer.says else None,
        )
        for answer in persona.answers
    ]
    rules.append(
        Rule(
            pattern="",
            reply=persona.gives_up,
            tool="end_call",
            result="",
            when=lambda items: _said(items, persona.otherwise) >= persona.gives_up_after,
        )
    )
    opening = next((answer.says for answer in persona.answers if answer.says and not answer.hangs_up), "Hello?")
    return RuleLLM(rules, fallback=persona.otherwise, opening=opening)


def _said(items: Sequence[Item], text: str) -> int:
    """How often the customer has said ``text``, or begun to."""
    wanted = _plain(text)
    return sum(
        isinstance(item, Entry)
        and item.role == "assistant"
        and bool(item.text)
        and wanted.startswith(_plain(item.text))
        for item in items
    )


def _plain(text: str) -> str:
    return " ".join(text.split()).casefold()

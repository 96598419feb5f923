"""Questions: asked, answered by voice or keys, checked, asked again, read back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

from msgspec import Struct, field
from msgspec.structs import replace

from dialog.agent.digits import Digits
from dialog.agent.speech import PartOptions, Speech
from dialog.agent.turns.settings import BargeIn, Endpointing
from dialog.answers.answer import Answer
from dialog.answers.plain import YesNo
from dialog.errors import ConfigurationError, NotUnderstood, RecognitionFailed, Timeout

if TYPE_CHECKING:
    from dialog.agent.scripts.call import ScriptCall

__all__ = ["Asking", "Phrases"]

T = TypeVar("T")

_MORE_S = 1.5
"""Who reads something out in pieces pauses for less."""
_PATIENT = {"wait_s": 1.0, "unfinished_s": 2.0, "max_s": 3.5}
"""How long such a caller may pause before that was all."""


class Phrases(Struct, frozen=True, kw_only=True):
    """What is said around a question."""

    not_heard: str = "Sorry, I did not hear you."
    not_understood: str = "Sorry, I did not understand that."
    confirm: str = "{answer}. Is that right?"
    """``{answer}`` is what was understood."""
    again: str = "Sorry. Let us try again."
    """The caller said that it is not."""

    def __post_init__(self) -> None:
        if "{answer}" not in self.confirm:
            raise ConfigurationError(f"the question for confirmation needs an {{answer}}, got {self.confirm!r}")


class _Given(NamedTuple):
    text: str
    keys: bool


class Asking(Struct, Generic[T], frozen=True, kw_only=True):
    """One question; :meth:`ask` asks it on a call."""

    prompt: str
    answer: Answer[T]
    reprompts: Sequence[str] = ()
    """Said instead of the question when it is asked again, the last one from then on."""
    attempts: int = 3
    timeout_s: float = 8.0
    confirm: bool = False
    check: Callable[[T], str | None] | None = None
    allow_interrupt: bool = True
    barge_in: BargeIn | None = None
    phrases: Phrases = field(default_factory=Phrases)

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise ConfigurationError(f"a question is asked at least once, got attempts={self.attempts}")
        reprompts: object = self.reprompts
        if isinstance(reprompts, str):
            raise ConfigurationError("reprompts must be a list of texts, got one text")

    async def ask(self, call: ScriptCall) -> T:
        """Ask until there is an answer; see :meth:`ScriptCall.ask`."""
        call._forget_caller()
        prompt, heard = self.prompt, ""
        for attempt in range(1, self.attempts + 1):
            given = await self._put(call, prompt)
            if given is None:
                heard = ""
                prompt = self._again(attempt, self.phrases.not_heard, self.prompt)
                continue
            heard = given.text
            value = await self._value(call, given)
            refusal = None if value is None or self.check is None else self.check(value)
            if value is None or refusal:
                why = refusal or self.phrases.not_understood
                prompt = self._again(attempt, why, self.answer.hint or self.prompt, refused=bool(refusal))
            elif not self.confirm or await self._confirmed(call, value):
                return value
            else:
                prompt = f"{self.phrases.again} {self.prompt}"
            call._forget_caller()
        if not heard:
            raise Timeout(f"a question was asked {self.attempts} times, and was not answered")
        raise NotUnderstood(f"a question was asked {self.attempts} times, and no answer would do", heard)

    def _again(self, attempt: int, why: str, question: str, *, refused: bool = False) -> str:
        """What is said the next time; a reprompt of the script's own says all of it, unless the answer was refused."""
        if not self.reprompts:
            return f"{why} {question}"
        reprompt = self.reprompts[min(attempt, len(self.reprompts)) - 1]
        return f"{why} {reprompt}" if refused else reprompt

    async def _value(self, call: ScriptCall, given: _Given) -> T | None:
        if given.keys:
            return self.answer.pressed(given.text)
        text = given.text
        value = self.answer.said(text)
        while value is None and self.answer.patient:
            try:
                text = f"{text} {await call._hear(_MORE_S)}"
            except Timeout:
                break
            value = self.answer.said(text)
        return value

    async def _confirmed(self, call: ScriptCall, value: T) -> bool:
        question = Asking(
            prompt=self.phrases.confirm.replace("{answer}", self.answer.readback(value)),
            answer=YesNo(),
            attempts=2,
            timeout_s=self.timeout_s,
            phrases=self.phrases,
        )
        try:
            return await question.ask(call)
        except (Timeout, NotUnderstood):
            return False

    async def _put(self, call: ScriptCall, prompt: str) -> _Given | None:
        """Say ``prompt``, and wait for words or keys; ``None``: there were none."""
        await call._line_up()
        speech = call._begin(
            prompt,
            PartOptions(
                allow_interrupt=self.allow_interrupt, barge_in=self.barge_in, endpointing=self._endpointing(call)
            ),
        )
        words = asyncio.ensure_future(call._hear(self.timeout_s, speech))
        keys = asyncio.ensure_future(self._keys(call)) if self.answer.keys else None
        try:
            given = await self._first(words, keys)
        finally:
            tasks: list[asyncio.Task[Any]] = [words] if keys is None else [words, keys]
            for task in tasks:
                task.cancel()
            # Both may have failed with the call, and one error is told.
            await asyncio.gather(*tasks, return_exceptions=True)
        self._check_said(call, speech)
        return given

    async def _first(self, words: asyncio.Task[str], keys: asyncio.Task[Digits] | None) -> _Given | None:
        pending: set[asyncio.Task[Any]] = {words} if keys is None else {words, keys}
        while pending:
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            if keys is not None and keys in done and keys.result().digits:
                return _Given(keys.result().digits, keys=True)
            if words in done:
                try:
                    return _Given(words.result(), keys=False)
                except Timeout:
                    continue  # somebody may be typing
                except RecognitionFailed:
                    if keys is None:
                        raise
        if isinstance(words.exception(), RecognitionFailed):
            words.result()
        return None

    async def _keys(self, call: ScriptCall) -> Digits:
        return await call._conversation.keypad.collect(max_digits=self.answer.keys, timeout_s=self.timeout_s)

    def _check_said(self, call: ScriptCall, speech: Speech) -> None:
        if speech.heard is not None and speech.heard.why == "failed":
            raise call._waiting.speech_failed()

    def _endpointing(self, call: ScriptCall) -> Endpointing | None:
        if not self.answer.patient:
            return None
        set_ = call._conversation.settings.turns.endpointing
        return replace(set_, **{name: max(seconds, getattr(set_, name)) for name, seconds in _PATIENT.items()})

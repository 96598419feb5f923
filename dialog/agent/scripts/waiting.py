"""What a script waits for, and what ends every wait: the end of the call, and providers that are gone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, TypeVar

from dialog.calls.events import CallEvent
from dialog.errors import (
    CallHungUp,
    CallNotAnswered,
    DialogError,
    ProviderError,
    RecognitionFailed,
    SpeechFailed,
    StateError,
    Timeout,
)
from dialog.message import CallEnd, Failure
from dialog.participant import Participant
from dialog.stt.stt import STT
from dialog.tts.tts import TTS
from dialog.voip.voip import VoIP

if TYPE_CHECKING:
    from dialog.agent.conversation import Conversation

__all__ = ["Waiting", "within"]

T = TypeVar("T")


@asynccontextmanager
async def within(seconds: float | None, what: str) -> AsyncGenerator[None]:
    """Like :func:`asyncio.timeout`, but says what was waited for.

    Raises:
        Timeout: It took longer.
    """
    limit = asyncio.timeout(seconds)
    try:
        async with limit:
            yield
    except TimeoutError as exc:
        if not limit.expired():
            raise
        raise Timeout(f"waited {seconds:g} s for {what}") from exc


class Waiting:
    """Waits for the script of one call. Whatever happens in the call lets every wait look again."""

    def __init__(self, agent: Participant, conversation: Conversation) -> None:
        self._agent = agent
        self._conversation = conversation
        self._voip = conversation.voip
        self._clock = conversation.voip.clock
        self._pulse: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._lost: dict[STT | TTS, DialogError] = {}
        """Providers that have given up."""
        self._errors: dict[str, DialogError] = {}
        """The newest error of each participant, by its name."""
        self._over: DialogError | None = None
        """The script has lost the call, and why."""
        self.was_live: bool = self._voip.state not in ("offered", "ended")
        self._voip.on(VoIP.EVENT, self._happened)
        agent.on(Participant.ERROR, self._failed)
        self._voip.on(VoIP.ENDED, self._ended)

    @property
    def over(self) -> bool:
        """The call has ended, or the script does not have it any more."""
        return self._over is not None or self._voip.end is not None

    def close(self, error: DialogError) -> None:
        """Every wait ends with ``error``, also those to come; unless the call has ended before."""
        if self._over is None:
            self._over = error
        self._voip.off(VoIP.EVENT, self._happened)
        self._agent.off(Participant.ERROR, self._failed)
        self._voip.off(VoIP.ENDED, self._ended)
        self.wake()

    def wake(self) -> None:
        """Let every wait look again."""
        pulse, self._pulse = self._pulse, self._pulse.get_loop().create_future()
        if not pulse.done():
            pulse.set_result(None)

    def lost(self, failure: Failure) -> None:
        """A provider has given up."""
        for provider in (self._conversation.stt, self._conversation.tts):
            if provider is not None and provider.name == failure.source:
                self._lost[provider] = failure.error
        self.wake()

    def check(self, *, speaking: bool = False, listening: bool = False) -> None:
        """Whether there is anything to wait for.

        Raises:
            CallHungUp: The call has ended.
            CallNotAnswered: It has, before anybody answered.
            SpeechFailed: It is about ``speaking``, and the voice is gone.
            RecognitionFailed: It is about ``listening``, and who listens is gone.
            StateError: The script does not have the call any more.
        """
        end = self._voip.end
        if end is not None:
            raise self.hung_up(end)
        if self._over is not None:
            raise self._over
        tts, stt = self._conversation.tts, self._conversation.stt
        if speaking and tts is not None and (cause := self._lost.get(tts)) is not None:
            raise self.speech_failed(cause)
        if listening and stt is not None and (cause := self._lost.get(stt)) is not None:
            raise RecognitionFailed(stt.name, f"the caller is not understood any more: {cause}", retryable=False) from (
                cause
            )

    def hung_up(self, end: CallEnd, last_spoken: str = "") -> DialogError:
        """The error that tells a script of the end."""
        call = str(self._voip.metadata.call_id)
        if not self.was_live and self._voip.metadata.direction == "outbound":
            return CallNotAnswered(call, end.reason, end.detail)
        return CallHungUp(call, end.reason, end.detail, last_spoken=last_spoken)

    def speech_failed(self, cause: DialogError | None = None) -> SpeechFailed:
        """The error that tells a script that something could not be said."""
        tts = self._conversation.tts
        name = tts.name if tts is not None else "tts"
        cause = cause or self._errors.get(name)
        error = SpeechFailed(
            name,
            f"it was not said: {cause}" if cause is not None else "it was not said, and nothing tells why",
            retryable=isinstance(cause, ProviderError) and cause.retryable,
        )
        error.__cause__ = cause
        return error

    async def run(self, awaitable: Awaitable[T], *, speaking: bool = False, listening: bool = False) -> T:
        """Wait for ``awaitable``, as long as there is hope for it; see :meth:`check`."""
        task = asyncio.ensure_future(awaitable)
        try:
            while not task.done():
                self.check(speaking=speaking, listening=listening)
                await asyncio.wait((task, self._pulse), return_when=asyncio.FIRST_COMPLETED)
            return task.result()
        finally:
            if not task.done():
                task.cancel()
                await asyncio.wait((task,))

    async def until(
        self,
        condition: Callable[[], bool],
        deadline: Callable[[], float | None] = lambda: None,
        *,
        speaking: bool = False,
        listening: bool = False,
    ) -> bool:
        """Wait until ``condition`` holds: ``True``; or until ``deadline`` on the call's clock: ``False``.

        Both are asked again whenever something has happened. What :meth:`check` raises ends it, if the condition
        does not hold.
        """
        while not condition():
            self.check(speaking=speaking, listening=listening)
            until = deadline()
            left_s = None if until is None else until - self._clock.now()
            if left_s is not None and left_s <= 0:
                return False
            await asyncio.wait((self._pulse,), timeout=None if left_s is None else self._clock.real(left_s))
        return True

    def _happened(self, _: CallEvent) -> None:
        if self._voip.state == "live":
            self.was_live = True
        self.wake()

    def _failed(self, failure: Failure) -> None:
        self._errors[failure.source] = failure.error
        self.wake()

    def _ended(self, _: CallEnd) -> None:
        self.wake()

    def not_active(self) -> StateError:
        """The error that tells a script that it does not have the call any more."""
        return StateError(f"{self._agent.name}: the script does not have the call any more")

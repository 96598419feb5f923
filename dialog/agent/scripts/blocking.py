"""A script's call for ordinary threads."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from typing import Any, Self, TypeVar

from dialog.agent.digits import Digits
from dialog.agent.scripts.asking import Phrases
from dialog.agent.scripts.call import SayResult, ScriptCall
from dialog.agent.scripts.marks import Mark
from dialog.agent.scripts.recording import RecordedMessage
from dialog.agent.turns.settings import BargeIn
from dialog.answers.answer import Answer
from dialog.answers.forms import Form
from dialog.audio.sound import Sound
from dialog.audio.wav import StrPath
from dialog.errors import CarrierError, StateError
from dialog.message import CallEnd, CallMetadata
from dialog.voip.voip import VoIP

__all__ = ["BlockingCall", "LoopCalls"]

T = TypeVar("T")
_PHRASES = Phrases()


class LoopCalls:
    """Runs coroutines on an event loop for threads that wait for them. Safe from any thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._lock = threading.Lock()
        self._waiting: set[Future[Any]] = set()
        self._closed = False

    def run(self, work: Coroutine[Any, Any, T], timeout_s: float | None = None) -> T:
        """Wait for ``work``, as it runs on the loop; a thread that is interrupted cancels it.

        Raises:
            StateError: This is the loop's own thread, which must not wait for itself; or the loop does not run any
                more.
        """
        if _running_loop() is self.loop:
            work.close()
            raise StateError("a blocking call on the event loop's own thread would wait for itself: use the coroutine")
        with self._lock:
            if self._closed or self.loop.is_closed():
                work.close()
                raise StateError("the event loop of the calls has been shut down")
            future = asyncio.run_coroutine_threadsafe(work, self.loop)
            self._waiting.add(future)
        try:
            return future.result(timeout_s)
        except CancelledError:
            raise StateError("the event loop of the calls was shut down meanwhile") from None
        finally:
            future.cancel()  # of one that is done nothing comes
            with self._lock:
                self._waiting.discard(future)

    def close(self) -> None:
        """The loop runs no more: whoever still waits is told."""
        with self._lock:
            self._closed = True
            waiting = list(self._waiting)
        for future in waiting:
            future.cancel()


class BlockingCall:
    """A :class:`~dialog.agent.scripts.call.ScriptCall` whose methods block, for ordinary threads.

    Every method does, returns and raises what that of the same name does there. Several threads may use one call. As
    a context manager it hangs up at the end of the block.

    Args:
        call: The call.
        loop: Runs its coroutines; shared by the calls of a loop.
    """

    def __init__(self, call: ScriptCall, loop: LoopCalls | None = None) -> None:
        self._call = call
        self._loop = loop or LoopCalls(call.loop)

    def __repr__(self) -> str:
        return f"<BlockingCall of {self._call!r}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Hang up, unless the call has ended."""
        if not self._call.is_disconnected:
            with suppress(CarrierError):  # the VoIP tells of it, and the media is closed all the same
                self.hangup()

    @property
    def voip(self) -> VoIP:
        """The call itself; its methods belong to the event loop: see :meth:`run`."""
        return self._call.voip

    @property
    def metadata(self) -> CallMetadata:
        """Who calls whom."""
        return self._call.metadata

    @property
    def end(self) -> CallEnd | None:
        """How the call ended; ``None`` while it goes on."""
        return self._call.end

    @property
    def is_disconnected(self) -> bool:
        """The call has ended."""
        return self._call.is_disconnected

    def run(self, work: Callable[[ScriptCall], Coroutine[Any, Any, T]]) -> T:
        """Wait for a coroutine of yours, which gets the call and runs on its event loop."""
        return self._loop.run(work(self._call))

    def say(
        self,
        text: str,
        *,
        allow_interrupt: bool = True,
        barge_in: BargeIn | None = None,
        voice: str = "",
        stop: threading.Event | asyncio.Event | None = None,
    ) -> SayResult:
        """See :meth:`ScriptCall.say`."""
        return self._loop.run(
            self._call.say(text, allow_interrupt=allow_interrupt, barge_in=barge_in, voice=voice, stop=stop)
        )

    def play(
        self,
        sound: StrPath | Sound,
        *,
        text: str = "",
        allow_interrupt: bool = True,
        barge_in: BargeIn | None = None,
        stop: threading.Event | asyncio.Event | None = None,
    ) -> SayResult:
        """See :meth:`ScriptCall.play`."""
        return self._loop.run(
            self._call.play(sound, text=text, allow_interrupt=allow_interrupt, barge_in=barge_in, stop=stop)
        )

    def listen(self, timeout_s: float = 10.0, *, fresh: bool = False) -> str:
        """See :meth:`ScriptCall.listen`."""
        return self._loop.run(self._call.listen(timeout_s, fresh=fresh))

    def gather(
        self,
        max_digits: int | None = None,
        *,
        prompt: str = "",
        terminator: str = "#",
        timeout_s: float = 5.0,
        between_s: float = 2.0,
    ) -> Digits:
        """See :meth:`ScriptCall.gather`."""
        return self._loop.run(
            self._call.gather(
                max_digits, prompt=prompt, terminator=terminator, timeout_s=timeout_s, between_s=between_s
            )
        )

    def ask(
        self,
        prompt: str,
        answer: Answer[T],
        *,
        reprompts: Sequence[str] = (),
        attempts: int = 3,
        timeout_s: float = 8.0,
        confirm: bool = False,
        check: Callable[[T], str | None] | None = None,
        allow_interrupt: bool = True,
        barge_in: BargeIn | None = None,
        phrases: Phrases = _PHRASES,
    ) -> T:
        """See :meth:`ScriptCall.ask`; ``check`` is called on the event loop: answer at once."""
        return self._loop.run(
            self._call.ask(
                prompt,
                answer,
                reprompts=reprompts,
                attempts=attempts,
                timeout_s=timeout_s,
                confirm=confirm,
                check=check,
                allow_interrupt=allow_interrupt,
                barge_in=barge_in,
                phrases=phrases,
            )
        )

    def collect(self, form: Form, *, attempts: int = 3, timeout_s: float = 8.0) -> dict[str, Any]:
        """See :meth:`ScriptCall.collect`."""
        return self._loop.run(self._call.collect(form, attempts=attempts, timeout_s=timeout_s))

    def record(
        self, *, max_s: float = 60.0, silence_s: float = 3.0, terminator: str = "#", path: StrPath | None = None
    ) -> RecordedMessage:
        """See :meth:`ScriptCall.record`."""
        return self._loop.run(self._call.record(max_s=max_s, silence_s=silence_s, terminator=terminator, path=path))

    def wait_played(self, timeout_s: float | None = None) -> bool:
        """See :meth:`ScriptCall.wait_played`."""
        return self._loop.run(self._call.wait_played(timeout_s))

    def mark(self, name: str) -> Mark:
        """See :meth:`ScriptCall.mark`."""
        return self._call.mark(name)

    def wait_mark(self, mark: str | Mark, timeout_s: float | None = None) -> bool:
        """See :meth:`ScriptCall.wait_mark`."""
        return self._loop.run(self._call.wait_mark(mark, timeout_s))

    def post_text(self, text: str, *, allow_interrupt: bool = True, barge_in: BargeIn | None = None) -> None:
        """See :meth:`ScriptCall.post_text`."""
        self._call.post_text(text, allow_interrupt=allow_interrupt, barge_in=barge_in)

    def post_audio(self, audio: bytes) -> None:
        """See :meth:`ScriptCall.post_audio`."""
        self._call.post_audio(audio)

    def request_clear(self) -> None:
        """See :meth:`ScriptCall.request_clear`."""
        self._call.request_clear()

    def clear_inbound(self) -> None:
        """See :meth:`ScriptCall.clear_inbound`."""
        self._call.clear_inbound()

    def request_disconnect(self, reason: str = "agent_hangup") -> None:
        """See :meth:`ScriptCall.request_disconnect`."""
        self._call.request_disconnect(reason)

    def wait_connected(self) -> None:
        """See :meth:`ScriptCall.wait_connected`."""
        self._loop.run(self._call.wait_connected())

    def transfer(self, tel: str, *, back_within_s: float | None = None) -> bool:
        """See :meth:`ScriptCall.transfer`."""
        return self._loop.run(self._call.transfer(tel, back_within_s=back_within_s))

    def hangup(self, *, reason: str = "agent_hangup") -> None:
        """See :meth:`ScriptCall.hangup`."""
        self._loop.run(self._call.hangup(reason=reason))


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None

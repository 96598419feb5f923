"""Runs the user's code of a turn: ``inference`` and dispatched streams, each in one task from start to close."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AbstractContextManager
from typing import Any

from dialog.agent.patience import Patience
from dialog.agent.speech import Part, inside_speech
from dialog.agent.streams import closing
from dialog.agent.turn import Turn, current_turn
from dialog.clock import Clock
from dialog.errors import DialogError, UserCodeError
from dialog.message import Message

__all__ = ["Driver", "as_failure", "checked"]

_TEXT_LIMIT = 64 * 1024
"""Characters of a reply that may wait for the voice; a model's whole reply fits, an endless one does not."""
_ALIVE_S = 0.5
"""A sign of life counts for so long: moving a timer for every token would cost more than the token."""
_PIECES = 64
"""After so many pieces of text the loop is given a turn: code that yields and never waits must not stop the calls."""


class Driver:
    """Moves text from the user's code into a turn's speech.

    Args:
        infer: The agent's ``inference``.
        clock: The call's clock.
        patience_s: Code that shows no sign of life for so long has failed.
        failed: Told when ``inference`` failed.
        fault: Told of a failure that costs one part only.
        inside: Makes what the user's code of a turn runs inside of; it is told what that is.
        prepares: The part that the first text goes into may be made before there is any.
    """

    __slots__ = ("_clock", "_failed", "_fault", "_infer", "_inside", "_patience_s", "_prepares")

    def __init__(
        self,
        infer: Callable[[Message[str]], AsyncIterator[str] | Coroutine[Any, Any, None]],
        clock: Clock,
        *,
        patience_s: float,
        failed: Callable[[Turn, DialogError], None],
        fault: Callable[[DialogError], None],
        inside: Callable[[Turn, str], AbstractContextManager[None]],
        prepares: bool,
    ) -> None:
        self._infer = infer
        self._clock = clock
        self._patience_s = patience_s
        self._failed = failed
        self._fault = fault
        self._inside = inside
        self._prepares = prepares

    async def run(
        self,
        turn: Turn,
        message: Message[str],
        ended: Callable[[Turn], None],
        reply: AsyncIterator[str] | None = None,
    ) -> None:
        """Run ``inference``, or read ``reply``, from start to close, all in this one task; then call ``ended``."""
        current_turn.set(turn)
        if self._prepares:
            asyncio.get_running_loop().call_soon(turn.speech.prepare)  # when the model has been asked
        try:
            with self._inside(turn, "inference"), self._patience(turn, "inference") as patience:
                await self._run(turn, self._infer(message) if reply is None else reply, patience)
        except asyncio.CancelledError as exc:
            if turn.speech.closed:
                raise
            # Nobody gave it up: it waited for something that was cancelled, or cancelled itself.
            self._failed(turn, as_failure("inference was cancelled from inside", exc))
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                ended(turn)
                raise
        except Exception as exc:  # the user's code: whatever it raises costs this turn only
            self._failed(turn, as_failure(f"inference raised {exc!r}", exc))
        finally:
            turn.speech.seal()
        while turn.feeders:
            await asyncio.wait(list(turn.feeders))
        ended(turn)

    async def read(self, turn: Turn, part: Part, stream: AsyncIterator[str], ended: Callable[[Turn], None]) -> None:
        """Read a dispatched stream into its part, then call ``ended``."""
        current_turn.set(turn)
        inside_speech(part)
        try:
            with self._inside(turn, "stream"), self._patience(turn, "a dispatched stream") as patience:
                async with closing(stream):
                    async for text in stream:
                        if part.sealed:
                            return
                        self.alive(turn)
                        turn.stamp("first_token", self._clock.now())
                        turn.draft.say(part.number, checked(text))
                        turn.speech.write_to(part, text)
                        if turn.speech.backlog > _TEXT_LIMIT:
                            await self._room(turn, patience)
        except Exception as exc:  # the user's stream
            self._fault(as_failure(f"a dispatched stream raised {exc!r}", exc))
        finally:
            turn.speech.seal_part(part)
            ended(turn)

    def alive(self, turn: Turn) -> None:
        """The turn shows a sign of life, which every token is."""
        if self._clock.now() >= turn.alive_until:
            self.extend(turn)

    def extend(self, turn: Turn) -> None:
        """Give the turn time again, as much as it may have now."""
        turn.alive_until = self._clock.now() + _ALIVE_S
        until = asyncio.get_running_loop().time() + self._clock.real(self._patience_s + turn.slow_s)
        for patience in turn.patience:
            if patience.running:
                patience.move(until)

    async def _run(self, turn: Turn, reply: AsyncIterator[str] | Coroutine[Any, Any, None], patience: Patience) -> None:
        if not inspect.isasyncgen(reply):
            if inspect.isawaitable(reply):
                await _dispatches(reply)
                return
            if not isinstance(reply, AsyncIterable):
                raise UserCodeError(
                    f"inference returned {type(reply).__name__}, which is no stream of text: write 'async def', "
                    "and yield what is to be said"
                )
        async with closing(reply) as stream:
            pieces = 0
            async for text in stream:
                if turn.speech.closed:
                    return
                pieces += 1
                if not pieces % _PIECES:
                    await asyncio.sleep(0)
                if text:
                    if "first_token" not in turn.times:
                        turn.stamp("first_token", self._clock.now())
                    self.alive(turn)
                    turn.draft.say(turn.speech.open_number, checked(text))
                    turn.speech.write(text)
                    if turn.speech.backlog > _TEXT_LIMIT:
                        await self._room(turn, patience)

    async def _room(self, turn: Turn, patience: Patience) -> None:
        """Wait until the voice has caught up with a source of text that never stops."""
        if patience.expired:
            return  # it is being given up
        patience.stop()
        await turn.speech.room(_TEXT_LIMIT // 2)
        patience.move(asyncio.get_running_loop().time() + self._clock.real(self._patience_s))

    def _patience(self, turn: Turn, what: str) -> Patience:
        """Bound how long the turn may show no sign of life while ``what`` is run."""
        turn.alive_until = self._clock.now() + _ALIVE_S
        return Patience(turn.patience, self._clock.real(self._patience_s), f"{what} said nothing", self._patience_s)


async def _dispatches(reply: Awaitable[object]) -> None:
    """Run an ``inference`` that dispatches by itself."""
    returned = await reply
    if isinstance(returned, str):
        raise UserCodeError("inference returned a text, which nobody says: yield it instead")
    if returned is not None:
        raise UserCodeError(
            f"inference returned {type(returned).__name__}: a coroutine dispatches by itself and returns "
            "nothing; to hand over a stream, yield from it or leave out the 'async'"
        )


def checked(text: str) -> str:
    """Return ``text``; foreign code, perhaps never type-checked, is refused before it is in history.

    Raises:
        TypeError: It is not text.
    """
    if not isinstance(text, str):
        raise TypeError(f"what is said must be text, not {type(text).__name__}")
    return text


def as_failure(what: str, exc: BaseException) -> DialogError:
    """``exc`` as an error that can be reported: itself, or the cause of one."""
    if isinstance(exc, DialogError):
        return exc
    error = UserCodeError(what)
    error.__cause__ = exc
    return error

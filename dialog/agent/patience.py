"""A time limit on the user's code of a turn, which signs of life move on."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self

from dialog.errors import UserCodeError

__all__ = ["Patience"]


class Patience:
    """Cancels what runs in its block ``seconds`` from now on, and makes a :class:`UserCodeError` of that.

    As :func:`asyncio.timeout`, with less of it between what the caller said and the request to the model.

    Args:
        running: Where it is found while the block runs.
        real_s: How long that takes, in seconds of the loop.
        what: What has gone wrong when it is over, but for how long it took.
        seconds: That, as the user knows it.
    """

    __slots__ = ("_cancelling", "_loop", "_real_s", "_running", "_seconds", "_task", "_timer", "_what", "expired")

    def __init__(self, running: list[Patience], real_s: float, what: str, seconds: float) -> None:
        self._running = running
        self._real_s = real_s
        self._what = what
        self._seconds = seconds
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.Handle | None = None
        self.expired: bool = False
        """The block is being given up."""

    @property
    def running(self) -> bool:
        """It may still expire."""
        return self._timer is not None

    def __enter__(self) -> Self:
        task = asyncio.current_task(self._loop)
        assert task is not None
        self._task = task
        self._cancelling = task.cancelling()
        # A timer takes time, and the request to the model is about to be sent.
        self._timer = self._loop.call_soon(self.move, self._loop.time() + self._real_s)
        self._running.append(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._running.remove(self)
        self.stop()
        if not self.expired:
            return
        ours = self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError
        if ours or isinstance(error, TimeoutError):  # what it interrupted has made one of its own of it
            raise UserCodeError(f"{self._what} for {self._seconds:g} s") from error

    def move(self, until: float) -> None:
        """Expire at ``until``, on the loop's clock."""
        self.stop()
        self._timer = self._loop.call_at(until, self._expire)

    def stop(self) -> None:
        """Expire no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _expire(self) -> None:
        self._timer = None
        self.expired = True
        self._task.cancel()

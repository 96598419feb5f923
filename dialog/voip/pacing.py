"""How fast calls may be placed, and how many at once: what the carrier's account allows."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final

from msgspec import Struct

from dialog.clock import Clock
from dialog.errors import ConfigurationError, LimitError, StateError

__all__ = ["CallPacer", "Pacer", "Pacing"]

_BACKOFF_S: Final = 1.0
_LONGEST_BACKOFF_S: Final = 30.0
_LONGEST_ASKED_S: Final = 3600.0
"""A carrier that asks for more has its clock wrong, or does not mean it."""


class Pacing(Struct, frozen=True, kw_only=True):
    """Limits of the account that places calls. Gateways that share an address have an equal share of them each.

    Raises:
        ConfigurationError: A limit is not positive.
    """

    calls_per_s: float = 1.0
    """Calls that may be placed in a second: Twilio's limit for a new account."""
    concurrency: int = 100
    """Placed calls that may be there at the same time, ringing ones included."""
    wait_s: float = 60.0
    """How long a call may wait for its turn."""
    waiting: int = 1000
    """How many may wait."""

    def __post_init__(self) -> None:
        for name in ("calls_per_s", "concurrency", "wait_s", "waiting"):
            if getattr(self, name) <= 0:
                raise ConfigurationError(f"{name} must be positive, got {getattr(self, name)}")


class Pacer:
    """Says which call may be placed when. Pure: ask :meth:`grant` at :attr:`deadline` and after every change.

    Calls are named by numbers, and wait in the order in which they asked.
    """

    def __init__(self, pacing: Pacing) -> None:
        self.pacing = pacing
        self.active: set[int] = set()
        """Those that are there."""
        self.waiting: deque[int] = deque()
        self.sharers = 1
        """So many place calls of the account, ourselves included: the rate is never above its own, and so many calls
        there are at once, unless the account has fewer than one for each."""
        self._next_at = float("-inf")
        self._refusals = 0

    def ask(self, call: int, *, again: bool = False) -> None:
        """A call wants to be placed; ``again``: the carrier refused it for now, and it goes first.

        Raises:
            LimitError: Too many wait.
        """
        if again:
            self.waiting.appendleft(call)
        elif len(self.waiting) >= self.pacing.waiting:
            raise LimitError(f"{len(self.waiting)} calls wait to be placed already: that is the limit (Pacing.waiting)")
        else:
            self.waiting.append(call)

    def withdraw(self, call: int) -> None:
        """A call is over, or is not wanted any more."""
        self.active.discard(call)
        if call in self.waiting:
            self.waiting.remove(call)

    def grant(self, now: float) -> tuple[int, ...]:
        """The calls that may be placed now."""
        granted: list[int] = []
        while self.waiting and now >= self._next_at and self._room(self.waiting[0]):
            call = self.waiting.popleft()
            self.active.add(call)
            granted.append(call)
            self._next_at = now + self.sharers / self.pacing.calls_per_s
        return tuple(granted)

    @property
    def deadline(self) -> float | None:
        """When a call may be placed; ``None`` while none waits, or one has to end first."""
        return self._next_at if self.waiting and self._room(self.waiting[0]) else None

    def refused(self, now: float, retry_after_s: float | None) -> None:
        """The carrier has too many requests: nobody calls for so long, or longer each time if it does not say."""
        backoff_s = min(_BACKOFF_S * 2**self._refusals, _LONGEST_BACKOFF_S)
        self._refusals += 1
        pause_s = backoff_s if retry_after_s is None else min(retry_after_s, _LONGEST_ASKED_S)
        self._next_at = max(self._next_at, now + pause_s)

    def accepted(self) -> None:
        """The carrier took a call."""
        self._refusals = 0

    def _room(self, call: int) -> bool:
        return call in self.active or len(self.active) < max(1, self.pacing.concurrency // self.sharers)


class CallPacer:
    """Lets calls wait for their turn; all of one account share it, and with them ``sharers`` gateways."""

    def __init__(self, pacing: Pacing, clock: Clock, sharers: Callable[[], int] = lambda: 1) -> None:
        self._pacer = Pacer(pacing)
        self._sharers = sharers
        self._clock = clock
        self._turns: dict[int, asyncio.Future[None]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._number = 0

    @property
    def waiting(self) -> int:
        """Calls that wait."""
        return len(self._pacer.waiting)

    @property
    def active(self) -> int:
        """Placed calls that are there."""
        return len(self._pacer.active)

    async def turn(self) -> int:
        """Wait until a call may be placed; give the number back with :meth:`over` when the call has ended.

        Raises:
            LimitError: Too many wait, or it took longer than ``wait_s``.
        """
        self._number += 1
        self._pacer.ask(self._number)
        await self._wait(self._number)
        return self._number

    async def again(self, call: int, retry_after_s: float | None) -> None:
        """The carrier refused that call for now: wait as long as it wants.

        Raises:
            LimitError: It took longer than ``wait_s``.
            StateError: The call has ended meanwhile.
        """
        self._pacer.refused(self._clock.now(), retry_after_s)
        self._pacer.ask(call, again=True)
        await self._wait(call)

    def accepted(self) -> None:
        """The carrier took a call."""
        self._pacer.accepted()

    def over(self, call: int) -> None:
        """A call has ended, or was never placed; its wait, if there is one, ends with a :class:`StateError`."""
        self._pacer.withdraw(call)
        turn = self._turns.get(call)
        if turn is not None and not turn.done():
            turn.set_exception(StateError("the call has ended while it waited to be placed"))
        self._grant()

    async def _wait(self, call: int) -> None:
        turn = self._turns[call] = asyncio.get_running_loop().create_future()
        wait_s = self._pacer.pacing.wait_s
        try:
            self._grant()
            async with asyncio.timeout(self._clock.real(wait_s)):
                await turn
        except TimeoutError:
            self.over(call)
            raise LimitError(
                f"the call could not be placed within {wait_s:g} s: the account is at its limits (Pacing)"
            ) from None
        except BaseException:
            self.over(call)
            raise
        finally:
            del self._turns[call]

    def _grant(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._pacer.sharers = self._sharers()
        for call in self._pacer.grant(self._clock.now()):
            turn = self._turns.get(call)
            if turn is not None and not turn.done():
                turn.set_result(None)
        if self._pacer.deadline is not None:
            self._timer = self._clock.call_at(self._pacer.deadline, self._grant)

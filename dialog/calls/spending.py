"""How much all calls together may cost, and when no more of them are taken."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable

from msgspec import Struct

from dialog.calls.events import CallEnded, CallStarted, UsageReported
from dialog.calls.publish import CallEvents, Notice
from dialog.errors import ConfigurationError, LimitError
from dialog.voip.admission import Accept, Decision, Declined, Offer, Reject, Resolver

__all__ = ["SpendLimit", "Spent"]

logger = logging.getLogger(__name__)

_BUSY = Reject("busy")


class Spent(Struct, frozen=True, kw_only=True):
    """What was spent lately."""

    usd: float = 0.0
    """By models, where their prices are known: see :attr:`~dialog.agent.settings.AgentSettings.prices`."""
    minutes: float = 0.0
    """Of calls that have ended."""
    calls: int = 0


class SpendLimit:
    """Stops taking and placing calls once too much was spent lately; calls that are there go on to their own limits.

    ::

        limit = SpendLimit(usd=50, minutes=2000)
        gateway = TwilioGateway(…, resolver=limit.resolver())
        limit.follow(gateway.events)
        await gateway.call("+15550123", from_="+15550100", before=limit.before)

    A :class:`~dialog.server.config.ServiceConfig` takes one as ``spending``. It counts what happens in this process,
    and forgets it when the process ends: it is no account, but what keeps a loop, or somebody who has found your
    number, from spending for days. Set the limits of your carrier and your providers as well.

    Args:
        usd: Cost of models, as far as their prices are known.
        minutes: Of calls that have ended.
        calls: How many were taken by an agent.
        window_s: What "lately" is, in seconds.
        clock: Seconds.

    Raises:
        ConfigurationError: No limit is given, or one is not positive.
    """

    def __init__(
        self,
        *,
        usd: float | None = None,
        minutes: float | None = None,
        calls: int | None = None,
        window_s: float = 86_400.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        given = [each for each in (usd, minutes, calls) if each is not None]
        if not given or min(*given, window_s) <= 0:
            raise ConfigurationError("a SpendLimit needs usd, minutes or calls, and all must be positive")
        self._usd = usd
        self._minutes = minutes
        self._calls = calls
        self._window_s = window_s
        self._clock = clock
        self._entries: deque[tuple[float, Spent]] = deque()
        self._sum = Spent()
        self._told = False

    def __repr__(self) -> str:
        return f"<SpendLimit {self.spent}>"

    @property
    def spent(self) -> Spent:
        """What was spent within the window."""
        self._forget()
        return self._sum

    @property
    def reached(self) -> str:
        """Which limit is reached, in words; empty: none."""
        spent = self.spent
        if self._usd is not None and spent.usd >= self._usd:
            return f"models have cost {spent.usd:.2f} USD, and {self._usd:g} is the limit"
        if self._minutes is not None and spent.minutes >= self._minutes:
            return f"calls have taken {spent.minutes:.0f} minutes, and {self._minutes:g} are the limit"
        if self._calls is not None and spent.calls >= self._calls:
            return f"there were {spent.calls} calls, and {self._calls} are the limit"
        return ""

    def follow(self, events: CallEvents) -> None:
        """Count what these events tell from now on."""
        events.on(self.count)

    def count(self, notice: Notice) -> None:
        """Count one event."""
        event = notice.event
        if isinstance(event, UsageReported):
            if event.cost_usd:
                self._add(Spent(usd=event.cost_usd))
        elif isinstance(event, CallStarted):
            if event.agent:  # else it was declined, or nobody came
                self._add(Spent(calls=1))
        elif isinstance(event, CallEnded):
            self._add(Spent(minutes=event.at_s / 60))

    def check(self) -> None:
        """Pass while no limit is reached.

        Raises:
            LimitError: One is; the message says which.
        """
        why = self.reached
        if why:
            raise LimitError(f"no more calls: {why} for {self._window_s / 3600:g} hours (SpendLimit)")

    async def before(self) -> None:
        """:meth:`check`, as :meth:`TwilioGateway.call` wants it."""
        self.check()

    def resolver(self, resolver: Resolver | None = None, *, when_spent: Declined = _BUSY) -> Resolver:
        """A resolver that declines while a limit is reached, and else asks ``resolver``, or takes the call."""

        async def resolve(offer: Offer) -> Decision:
            if self.reached:
                return when_spent
            return Accept() if resolver is None else await resolver(offer)

        return resolve

    def _add(self, spent: Spent) -> None:
        self._entries.append((self._clock(), spent))
        self._sum = _plus(self._sum, spent, 1)
        why = self.reached
        if why and not self._told:
            logger.error("no more calls are taken or placed: %s for %g hours", why, self._window_s / 3600)
        self._told = bool(why)

    def _forget(self) -> None:
        since = self._clock() - self._window_s
        while self._entries and self._entries[0][0] <= since:
            self._sum = _plus(self._sum, self._entries.popleft()[1], -1)
        if not self._entries:
            self._sum = Spent()  # without what rounding has left


def _plus(one: Spent, other: Spent, sign: int) -> Spent:
    return Spent(
        usd=one.usd + sign * other.usd,
        minutes=one.minutes + sign * other.minutes,
        calls=one.calls + sign * other.calls,
    )

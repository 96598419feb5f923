"""Delivers what is in the outbox: many calls side by side, each in its order, a bounded number per endpoint."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable
from datetime import datetime, timedelta

import aiohttp
from msgspec import Struct

from dialog.calls.delivery.endpoint import WebhookEndpoint
from dialog.calls.delivery.outbox import Chain, Failed, Letter, Outbox
from dialog.calls.delivery.retries import Retries
from dialog.calls.delivery.signature import sign_webhook
from dialog.clock import Clock
from dialog.net.circuit import Circuit
from dialog.net.retryafter import retry_after_s
from dialog.version import __version__

__all__ = ["Courier", "Outcome"]

logger = logging.getLogger(__name__)

_LETTERS = 20
_POLL_S = 5.0
"""What other processes have left behind is found at the latest after so long; ours wakes us."""
_PROBE_S = 1.0
_SETTLE_TRIES = 3
_READ = 2_000


class Outcome(Struct, frozen=True):
    """What a receiver answered; ``error`` empty: it has taken the message."""

    error: str = ""
    retry_after_s: float = 0.0
    gone: bool = False
    """It wants no more of these."""


class Courier:
    """Delivers to one endpoint.

    Args:
        endpoint: Where to.
        outbox: What.
        session: Connections.
        retries: When again.
        clock: What pauses, leases and time-outs are measured with.
        now: The time of day, which all processes agree on.
    """

    def __init__(
        self,
        endpoint: WebhookEndpoint,
        outbox: Outbox,
        session: aiohttp.ClientSession,
        *,
        retries: Retries,
        clock: Clock,
        now: Callable[[], datetime],
    ) -> None:
        self.endpoint = endpoint
        self.delivered: int = 0
        self.failed: int = 0
        """Attempts that failed."""
        self._outbox = outbox
        self._session = session
        self._retries = retries
        self._clock = clock
        self._now = now
        self._owner = secrets.token_hex(12)
        self._lease_s = endpoint.timeout_s * 3 + 15.0
        self._circuit = Circuit(failures=3, probe_after_s=retries.first_s)
        self._busy: set[asyncio.Task[None]] = set()
        self._wake = asyncio.Event()
        self._soon: datetime | None = None
        """When the next message is due that is known to wait."""

    def wake(self) -> None:
        """There may be something to deliver."""
        self._wake.set()

    async def run(self) -> None:
        """Deliver, for ever; cancelling it gives back what it has leased, after what is on its way."""
        try:
            while True:
                self._wake.clear()
                if not await self._round():
                    try:
                        async with asyncio.timeout(self._clock.real(self._idle_s())):
                            await self._wake.wait()
                    except TimeoutError:
                        continue
        finally:
            for task in self._busy:
                task.cancel()
            if self._busy:
                await asyncio.wait(self._busy)

    def _idle_s(self) -> float:
        """How long nothing is due, as far as is known here: other processes add to the outbox, too."""
        soon, self._soon = self._soon, None
        longest = _POLL_S if self._circuit.closed else _PROBE_S
        return longest if soon is None else min(max((soon - self._now()).total_seconds(), 0.0), longest)

    async def release(self) -> None:
        """Let others deliver what was leased."""
        await self._outbox.release(self._owner, self._now())

    async def _round(self) -> bool:
        """Begin what can be begun; whether it is worth looking again at once."""
        room = self._room()
        if not room:
            return False
        chains: list[Chain] = []
        try:
            chains = await self._outbox.lease(
                self.endpoint.name,
                owner=self._owner,
                now=self._now(),
                lease_s=self._lease_s,
                most=room,
                letters=_LETTERS,
            )
        except Exception as exc:  # the database is away: whoever writes to it tells of it
            logger.debug("webhooks to %s: %r", self.endpoint.name, exc)
        if not chains:
            self._circuit.abandoned()
            return False
        for chain in chains:
            task = asyncio.get_running_loop().create_task(self._deliver(chain), name=f"webhooks {self.endpoint.name}")
            self._busy.add(task)
            task.add_done_callback(self._done)
        return len(chains) == room and self._circuit.closed

    def _room(self) -> int:
        if self._circuit.closed:
            return self.endpoint.concurrency - len(self._busy)
        return 1 if not self._busy and self._circuit.due(self._clock.now()) else 0

    def _done(self, task: asyncio.Task[None]) -> None:
        self._busy.discard(task)
        self._wake.set()
        if not task.cancelled() and task.exception() is not None:
            logger.error("webhooks to %s: a delivery failed", self.endpoint.name, exc_info=task.exception())

    async def _deliver(self, chain: Chain) -> None:
        """The letters of one call, one after the other, until one is not taken or the lease draws to its end."""
        delivered: list[Letter] = []
        failed: Failed | None = None
        last = chain.until - timedelta(seconds=self.endpoint.timeout_s + 5.0)
        try:
            for letter in chain.letters:
                if self._now() > last:
                    break
                outcome = await self._post(letter)
                if outcome.error:
                    failed = self._failed(chain, letter, outcome, first=not delivered)
                    break
                delivered.append(letter)
                self.delivered += 1
                if self._circuit.succeeded():
                    logger.warning("webhooks to %s: it works again", self.endpoint.name)
                    await self._hasten()
        finally:
            # Nothing was sent, perhaps: the lease was over as soon as it was had, of a database that took its time.
            self._circuit.abandoned()
            # Also when this is cancelled: what was delivered should not be sent again.
            settling = asyncio.get_running_loop().create_task(self._settle(chain, delivered, failed))
            await asyncio.shield(settling)

    async def _hasten(self) -> None:
        try:
            await self._outbox.hasten(self.endpoint.name, self._now())
        except Exception as exc:  # the database; what waits comes at its own time
            logger.debug("webhooks to %s: %r", self.endpoint.name, exc)

    def _failed(self, chain: Chain, letter: Letter, outcome: Outcome, *, first: bool) -> Failed:
        self.failed += 1
        now = self._now()
        if self._circuit.failed(self._clock.now()):
            logger.warning("webhooks to %s: it does not work: %s", self.endpoint.name, outcome.error)
        since = chain.failing_since if first and chain.failing_since is not None else now
        if outcome.gone or (now - since).total_seconds() >= self._retries.give_up_s:
            logger.error("webhook %s to %s is given up: %s", letter.message_id, self.endpoint.name, outcome.error)
            return Failed(letter=letter, error=outcome.error, again_at=None)
        wait_s = self._retries.wait_s(chain.attempts if first else 0, outcome.retry_after_s)
        again = now + timedelta(seconds=wait_s)
        self._soon = again if self._soon is None else min(self._soon, again)
        return Failed(letter=letter, error=outcome.error, again_at=again)

    async def _settle(self, chain: Chain, delivered: list[Letter], failed: Failed | None) -> None:
        for attempt in range(_SETTLE_TRIES):
            try:
                if await self._outbox.settle(chain, delivered, failed, self._now()):
                    self._wake.set()
            except Exception as exc:  # the database; the lease ends by itself, and then they come again
                logger.warning("webhooks to %s: what was delivered could not be noted: %r", self.endpoint.name, exc)
                await self._clock.sleep(0.5 * 2**attempt)
            else:
                return

    async def _post(self, letter: Letter) -> Outcome:
        endpoint = self.endpoint
        headers = {
            "content-type": "application/json",
            "user-agent": f"dialog/{__version__}",
            **endpoint.headers,
        }
        if endpoint.secrets:
            headers |= sign_webhook(endpoint.secrets, letter.message_id, int(self._now().timestamp()), letter.body)
        try:
            async with (
                asyncio.timeout(self._clock.real(endpoint.timeout_s)),
                self._session.post(
                    endpoint.url, data=letter.body, headers=headers, allow_redirects=False, compress=None
                ) as response,
            ):
                await response.content.read(_READ)  # so that its connection can be used again, if it is short
                if 200 <= response.status < 300:
                    return Outcome()
                return Outcome(
                    f"it answered {response.status}",
                    retry_after_s(response.headers.get("retry-after", ""), now=lambda: self._now().timestamp()) or 0.0,
                    response.status == 410,
                )
        except TimeoutError:
            return Outcome(f"no answer within {endpoint.timeout_s:g} s")
        except Exception as exc:  # of the network, or what cannot be sent: it is tried again, and given up in the end
            return Outcome(f"{type(exc).__name__}: {exc}")

"""The one WebSocket to a provider: connects ahead, keeps alive, connects again, says goodbye.

A participant owns it, and drives it with callbacks. Frames go straight from :meth:`ProviderSocket.send`
to the transport, and from the transport to ``on_message``, without a queue or a task in between; only
when the provider reads too slowly do they wait, in a bounded queue.

Nothing is kept for the time without a connection: on every new one ``on_open`` says what the
provider must hear first, since only the adapter knows what the last connection got done.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

import aiohttp

from dialog.errors import AuthenticationError, LimitError, ProviderError
from dialog.net import shared
from dialog.net.reconnect import Backoff, Reconnect, close_is_retryable, status_is_retryable
from dialog.net.retryafter import retry_after_s
from dialog.net.websocket import WebSocket, connect
from dialog.participant import Participant

__all__ = ["Address", "ProviderSocket", "SocketSettings"]

logger = logging.getLogger(__name__)

Address: TypeAlias = str | Callable[[aiohttp.ClientSession], Awaitable[str]]
"""A URL, or who finds out, before every connection, what it is. That may raise a ProviderError, or, if another
server refuses, an ``aiohttp.ClientResponseError``."""

_UNWRITTEN = 64 * 1024
"""Bytes that may wait in the transport before frames wait here, where the oldest can be dropped."""
_POLL_S = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class SocketSettings:
    """How a provider's socket behaves; times in seconds."""

    connect_timeout_s: float = 5.0
    """For DNS, TCP, TLS and the upgrade together."""
    close_timeout_s: float = 1.0
    """How long the farewell and the close handshake may take."""
    ping_s: float | None = 15.0
    """A peer that does not answer a ping within half of this is gone."""
    queue_limit: int = 500
    """Frames that wait while the provider reads too slowly; then the oldest audio is dropped."""
    max_message: int = 4 * 1024 * 1024
    """Largest message accepted from the provider, in bytes."""
    keep_alive: str = ""
    """Text that is sent whenever nothing else was sent for :attr:`keep_alive_s`; empty: none."""
    keep_alive_s: float = 4.0
    audio_between: tuple[str, str] | None = None
    """Texts that begin and end so hold audio. They are dropped as binary frames are, and other texts are not."""
    farewell: str = ""
    """Text that asks the provider to finish, sent before the connection is closed."""
    backoff: Backoff = field(default_factory=Backoff)


class ProviderSocket:
    """A connection to ``url`` that a participant owns from :meth:`open` to its own end.

    Args:
        owner: Whose socket it is: its errors are emitted there, its task dies with it.
        provider: Name for errors and logs.
        url: ``ws://`` or ``wss://``, or who knows; never logged, since a query may hold secrets.
        headers: Sent with every upgrade.
        on_message: Takes every text or binary message.
        on_open: Called on every connection before anything else is sent on it.
        on_lost: Called when a connection is gone and another will be tried.
        on_dropped: Told of audio that was thrown away because the queue was full.
        on_failed: Called when no connection will be tried any more; unless given, a fatal ERROR is emitted.
        settings: Time-outs and bounds.
    """

    __slots__ = (
        "_cut",
        "_early",
        "_headers",
        "_keep_alive_timer",
        "_leaving",
        "_on_dropped",
        "_on_failed",
        "_on_lost",
        "_on_message",
        "_on_open",
        "_outbox",
        "_overflowing",
        "_owner",
        "_provider",
        "_sent",
        "_settings",
        "_url",
        "_writer",
        "_ws",
        "failed",
        "received",
    )

    def __init__(
        self,
        owner: Participant,
        *,
        provider: str,
        url: Address,
        on_message: Callable[[str | bytes], object],
        headers: Mapping[str, str] | None = None,
        on_open: Callable[[], object] = lambda: None,
        on_lost: Callable[[], object] = lambda: None,
        on_dropped: Callable[[bytes | str], object] = lambda _: None,
        on_failed: Callable[[ProviderError], object] | None = None,
        settings: SocketSettings | None = None,
    ) -> None:
        self._owner: Participant | None = owner
        self._provider = provider
        self._url = url
        self._headers = dict(headers or {})
        self._on_message = on_message
        self._on_open = on_open
        self._on_lost = on_lost
        self._on_dropped = on_dropped
        self._on_failed = on_failed or self._fail
        self._settings = settings or SocketSettings()
        self._ws: WebSocket | None = None
        self._outbox: deque[bytes | str] = deque()
        self._writer: asyncio.TimerHandle | None = None
        """Set while frames wait."""
        self._overflowing = False
        self._sent = False
        self._keep_alive_timer: asyncio.TimerHandle | None = None
        self._early: list[str | bytes] | None = None
        """What came together with the answer to the handshake."""
        self._leaving: _Loss | None = None
        """Why the connection is being left, if it was our decision."""
        self._cut: asyncio.TimerHandle | None = None
        self.failed = False
        """Whether it has given up for good."""
        self.received: int = 0
        """Messages that came, over all connections."""

    @property
    def connected(self) -> bool:
        """Whether what is sent now reaches a connection."""
        return self._ws is not None

    def open(self) -> None:
        """Start connecting and return; called once."""
        if self._owner is not None:
            self._owner.spawn(self._run(self._owner), f"{self._provider} socket")

    def send(self, data: bytes | str) -> bool:
        """Send a binary or text frame, or queue it if the provider is slow; ``False`` if it went nowhere."""
        ws = self._ws
        if ws is None:
            return False
        self._sent = True
        if self._writer is None:
            if ws.send(data) > _UNWRITTEN:
                self._writer = asyncio.get_running_loop().call_later(_POLL_S, self._drain)
            return True
        return self._queue(data)

    def replace(self, error: ProviderError | None = None) -> None:
        """Leave the connection for another one: in good order, or because ``error`` was told on it.

        Nothing more comes or goes on it. Without an error nobody hears of it and the next one is made at
        once; an error counts as the reason why the connection was lost.
        """
        ws = self._ws
        if ws is None:
            return
        self._leaving = _Loss(
            error or ProviderError(self._provider, "the connection is replaced", retryable=True),
            was_connected=True,
            planned=error is None,
        )
        self._detach()
        if self._settings.farewell and error is None:
            ws.send(self._settings.farewell)
        else:
            ws.start_closing()
        self._cut = asyncio.get_running_loop().call_later(self._settings.close_timeout_s, ws.abort)

    def _queue(self, data: bytes | str) -> bool:
        if len(self._outbox) >= self._settings.queue_limit:
            if not self._overflowing and self._owner is not None:
                self._overflowing = True
                limit = self._settings.queue_limit
                self._owner.fail(
                    LimitError(f"{self._provider} reads too slowly: {limit} frames wait, the oldest audio is dropped")
                )
            oldest = next((i for i, item in enumerate(self._outbox) if self._is_audio(item)), None)
            if oldest is None:
                return False
            dropped = self._outbox[oldest]
            del self._outbox[oldest]
            self._on_dropped(dropped)
        self._outbox.append(data)
        return True

    def _is_audio(self, item: bytes | str) -> bool:
        if isinstance(item, bytes):
            return True
        between = self._settings.audio_between
        return between is not None and item.startswith(between[0]) and item.endswith(between[1])

    @property
    def queued_audio(self) -> list[bytes | str]:
        """The frames of audio that wait in the queue."""
        return [item for item in self._outbox if self._is_audio(item)]

    def _drain(self) -> None:
        """Write what waits, as far as the transport takes it."""
        self._writer = None
        ws = self._ws
        while ws is not None and self._outbox and ws.unwritten <= _UNWRITTEN:
            ws.send(self._outbox.popleft())
        if ws is not None and ws.unwritten > _UNWRITTEN:
            self._writer = asyncio.get_running_loop().call_later(_POLL_S, self._drain)
        else:
            self._overflowing = False

    async def _run(self, owner: Participant) -> None:
        loop = asyncio.get_running_loop()
        policy = Reconnect(self._settings.backoff, loop.time())
        lease = shared.upgrades()
        reported = False
        try:
            while True:
                loss = await self._connection(lease.value, policy)
                if loss.planned:
                    self._on_lost()
                    continue
                wait = policy.lost(loop.time(), retryable=loss.error.retryable, at_least_s=loss.retry_after_s)
                if wait is None:
                    self.failed = True
                    self._on_failed(loss.error)
                    return
                # A provider may close an idle connection in good order: nothing is wrong then.
                if not loss.in_order and (loss.was_connected or not reported):
                    reported = True
                    owner.fail(loss.error, retryable=True)
                logger.info("%s: %s; next try in %.2f s", owner.name, loss.error, wait)
                if loss.was_connected:
                    self._on_lost()
                await asyncio.sleep(wait)
        finally:
            self._let_go()
            await lease.release()

    def _let_go(self) -> None:
        """Nothing comes any more: whoever owns this is freed with it, and not left to the garbage collector."""
        self._owner = None
        self._url = ""
        self._on_message = self._on_open = self._on_lost = self._on_dropped = self._on_failed = _nobody

    async def _connection(self, session: aiohttp.ClientSession, policy: Reconnect) -> _Loss:
        """Connect, and read until the connection is gone."""
        settings = self._settings
        body: list[str] = []
        try:
            async with asyncio.timeout(settings.connect_timeout_s):
                url = self._url if isinstance(self._url, str) else await self._url(session)
                token = shared.refusal_body.set(body)
                try:
                    response = await connect(session, url, self._headers)
                finally:
                    # What comes is handled in a copy of this context: no request made there may be taken
                    # for this upgrade.
                    shared.refusal_body.reset(token)
        except aiohttp.WSServerHandshakeError as exc:
            return self._refused(exc, "".join(body))
        except aiohttp.ClientResponseError as exc:
            return self._refused(exc, exc.message)
        except ProviderError as exc:
            return _Loss(exc)
        except (aiohttp.ClientError, OSError, TimeoutError) as exc:
            reason = "no answer to the handshake" if isinstance(exc, TimeoutError) else f"cannot connect ({exc})"
            within = f" within {settings.connect_timeout_s:g} s" if isinstance(exc, TimeoutError) else ""
            return _Loss(_caused(ProviderError(self._provider, reason + within, retryable=True), exc))
        policy.connected(asyncio.get_running_loop().time())
        early = self._early = []
        ws = WebSocket(response, self._receive, max_message=settings.max_message, ping_s=settings.ping_s)
        self._early = None
        self._ws = ws
        try:
            self._on_open()
            self._start_keep_alive()
            for data in early:
                self._receive(data)
            await ws.wait_closed()
        finally:
            self._detach()
            if self._cut is not None:
                self._cut.cancel()
                self._cut = None
            await self._say_goodbye(ws)
        if self._leaving is not None:
            loss, self._leaving = self._leaving, None
            return loss
        code = ws.close_code
        error = ProviderError(
            self._provider,
            f"closed the connection with {code}{f' ({ws.reason[:200]})' if ws.reason else ''}",
            retryable=close_is_retryable(code),
        )
        return _Loss(_caused(error, ws.error), was_connected=True, in_order=code in (1000, 1001))

    def _receive(self, data: str | bytes) -> None:
        if self._ws is not None:  # after the farewell nobody wants to know
            self.received += 1
            self._on_message(data)
        elif self._early is not None:
            self._early.append(data)

    def _detach(self) -> None:
        """Stop using the connection; what still waits is for it alone."""
        self._ws = None
        self._outbox.clear()
        self._overflowing = False
        if self._writer is not None:
            self._writer.cancel()
            self._writer = None
        if self._keep_alive_timer is not None:
            self._keep_alive_timer.cancel()
            self._keep_alive_timer = None

    async def _say_goodbye(self, ws: WebSocket) -> None:
        bound = self._settings.close_timeout_s
        try:
            if self._settings.farewell and not ws.closed:
                async with asyncio.timeout(bound):
                    ws.send(self._settings.farewell)
                    await ws.wait_closed()  # the provider finishes, and closes
        except TimeoutError:
            logger.debug("%s: no answer to the farewell", self._provider)
        try:
            async with asyncio.timeout(bound):
                await ws.close()
        except TimeoutError:
            logger.debug("%s: the connection was cut after %g s", self._provider, bound)

    def _start_keep_alive(self) -> None:
        if self._settings.keep_alive:
            # Looked at twice per interval, so that no frame needs to note the time.
            self._sent = False
            self._keep_alive_tick(-1)

    def _keep_alive_tick(self, idle: int) -> None:
        idle = 0 if self._sent else idle + 1
        self._sent = False
        if idle >= 2:
            idle = 0
            self.send(self._settings.keep_alive)
            self._sent = False
        self._keep_alive_timer = asyncio.get_running_loop().call_later(
            self._settings.keep_alive_s / 2, self._keep_alive_tick, idle
        )

    def _fail(self, error: ProviderError) -> None:
        if self._owner is not None:
            self._owner.fail(error, fatal=True, retryable=error.retryable)

    def _refused(self, exc: aiohttp.ClientResponseError, body: str) -> _Loss:
        headers: Mapping[str, str] = exc.headers if exc.headers is not None else {}
        telling = [name for name in headers if name.lower().endswith(("-error", "request-id"))]
        told = [f"{name}: {headers[name]}" for name in telling]
        details = "; ".join(filter(None, (*told, " ".join(body.split())[:300])))
        reason = f"handshake refused with {exc.status}{f' ({details})' if details else ''}"
        if exc.status in (401, 403):
            return _Loss(_caused(AuthenticationError(self._provider, f"{reason}: check api_key"), exc))
        error = ProviderError(self._provider, reason, retryable=status_is_retryable(exc.status))
        return _Loss(_caused(error, exc), retry_after_s=retry_after_s(headers.get("Retry-After", "")) or 0.0)


@dataclass(frozen=True, slots=True)
class _Loss:
    """Why there is no connection."""

    error: ProviderError
    was_connected: bool = False
    in_order: bool = False
    planned: bool = False
    retry_after_s: float = 0.0


def _nobody(*_: object) -> None:
    """Nobody is to be told."""


def _caused(error: ProviderError, cause: BaseException | None) -> ProviderError:
    error.__cause__ = cause
    return error

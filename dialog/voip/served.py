"""What gateways have in common whose calls come in through an HTTP server."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Generic, Literal, Protocol, Self, TypeVar
from uuid import UUID

from aiohttp import ClientSession, web

from dialog.calls.publish import CallEvents
from dialog.errors import StateError
from dialog.net import shared
from dialog.participant import Event
from dialog.voip.admission import Workers
from dialog.voip.call import Call
from dialog.voip.line import Tap
from dialog.voip.listeners import Listeners
from dialog.voip.peers import Owner, Peers
from dialog.voip.voip import VoIP

__all__ = ["ServedGateway"]

VoIPT = TypeVar("VoIPT", bound=VoIP)
BoardT = TypeVar("BoardT", bound="_Board")
ExchangeT = TypeVar("ExchangeT", bound="_Exchange")


class _Board(Protocol):
    """Has the calls."""

    events: CallEvents
    draining: bool

    @property
    def calls(self) -> tuple[Call, ...]: ...

    def find(self, call: UUID, /) -> Call | None: ...

    async def wait_idle(self, timeout_s: float) -> bool: ...

    async def close(self) -> None: ...


class _Exchange(Owner, Protocol):
    """Knows which gateway has a call."""

    peers: Peers | None

    async def close(self) -> None: ...


class ServedGateway(ABC, Generic[VoIPT, BoardT, ExchangeT]):
    """Lives with its server: it starts, drains and closes with its calls, their workers, and its peers."""

    def __init__(
        self, *, board: BoardT, exchange: ExchangeT, listeners: Listeners[VoIPT], workers: Workers | None
    ) -> None:
        self._board = board
        self._exchange = exchange
        self._listeners = listeners
        self._workers = workers
        self._lease: shared.Lease[ClientSession] | None = None
        self._started = False
        self._closed = False

    # Serving.

    def app(self) -> web.Application:
        """A whole aiohttp application, closed with its server."""
        app = web.Application()
        self.add_routes(app)
        return app

    def add_routes(self, app: web.Application) -> None:
        """Add the gateway's routes to the host's own aiohttp application, with which it will be closed."""
        self._route(app)
        app.on_startup.append(self._on_startup)
        app.on_shutdown.append(self._on_shutdown)

    @abstractmethod
    def _route(self, app: web.Application) -> None:
        """Add the routes."""

    @abstractmethod
    async def _close_connections(self) -> None:
        """Close the sockets that no call closed, and the peers; all calls have ended."""

    def prepare(self) -> None:
        """Make ready what the first call needs, so that it does not wait: done when the server starts.

        Providers share one HTTP session and TLS context per loop, which their last user closes. The
        gateway keeps them from here on: between two calls nobody else would.
        """
        if self._lease is None:
            self._lease = shared.session()

    @property
    def peers(self) -> Peers | None:
        """The other gateways that share the address."""
        return self._exchange.peers

    async def start(self) -> None:
        """Get ready for calls: done when its server starts, but up to the host's lifespan where it is mounted."""
        self.prepare()
        self._started = True
        if self.peers is not None:
            await self.peers.start(self._exchange)
        if self._workers is not None:
            await self._workers.start()

    @property
    def ready(self) -> bool:
        """Whether a call would be taken now: for the readiness probe of whatever stands in front."""
        busy = self._closed or self._board.draining
        return not busy and (self._workers is None or self._workers.ready)

    async def drain(self, timeout_s: float) -> bool:
        """Take no more calls, and wait until those that are there have ended, at most ``timeout_s``.

        What waits for a late recording does not count; a socket that is relayed for another gateway does.
        :meth:`close` comes after it.

        Returns:
            Whether all calls have ended by themselves.
        """
        self._board.draining = True
        until = asyncio.get_running_loop().time() + timeout_s
        clean = await self._board.wait_idle(timeout_s)
        if clean and self.peers is not None:
            try:
                async with asyncio.timeout_at(until):
                    await self.peers.wait_idle()
            except TimeoutError:
                return False
        return clean

    async def close(self) -> None:
        """Take no more calls, end those that are there, close all sockets; calling it again is harmless."""
        if self._closed:
            return
        self._closed = True
        await self._exchange.close()
        await self._board.close()
        if self._workers is not None:
            await self._workers.close()
        await self._close_connections()
        lease, self._lease = self._lease, None
        if lease is not None:
            await lease.release()

    async def _close_peers(self) -> None:
        if self.peers is not None:
            await self.peers.close()

    async def _on_startup(self, _: web.Application) -> None:
        await self.start()

    async def _on_shutdown(self, _: web.Application) -> None:
        await asyncio.shield(self.close())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    # Calls.

    def off(self, event: Event[VoIPT] | Literal["voip"], listener: Callable[[VoIPT], object]) -> None:
        """Stop calling ``listener``; one that does not listen is ignored."""
        self._listeners.off(event, listener)

    @property
    def events(self) -> CallEvents:
        """The events of all calls, wherever their agents run."""
        return self._board.events

    @property
    def workers(self) -> Workers | None:
        """Who runs the agents; ``None``: the listeners for ``voip``."""
        return self._workers

    @property
    def calls(self) -> tuple[Call, ...]:
        """The calls of which something is left, oldest first."""
        return self._board.calls

    def add_tap(self, voip: VoIPT, tap: Tap) -> None:
        """Let ``tap`` hear both sides of a call from now on, in its ``audio_format``: to record it, or to listen in.

        A :class:`~dialog.audio.recorder.StereoRecorder` is one. What the agent's side of it hears is what
        was played, without what an interruption took back.

        Raises:
            StateError: The call is not held by this gateway (any more).
        """
        call = self._board.find(voip.metadata.call_id)
        if call is None:
            raise StateError(f"call {voip.metadata.call_id}: this gateway does not hold it: there is nothing to hear")
        call.add_tap(tap)

    def _emit(self, voip: VoIPT) -> None:
        self.prepare()
        self._listeners.emit(voip)

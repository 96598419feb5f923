"""One media socket, from its upgrade to its close, whatever server carries it."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod

from dialog.errors import RemoteProtocolError
from dialog.scope import CallScope
from dialog.voip.carrier.exchange import Exchange
from dialog.voip.carrier.http import Site
from dialog.voip.carrier.start import StreamStart
from dialog.voip.peers import MediaEnd
from dialog.voip.wires import SocketWire

__all__ = ["MediaSession"]

logger = logging.getLogger(__name__)


class MediaSession(ABC):
    """Feeds a call's line, here or at another gateway, with what its socket receives.

    A shell makes the wire, then calls :meth:`receive` for every text frame and :meth:`closed` once.
    """

    __slots__ = ("_exchange", "_start_timeout_s", "end", "site", "wire")

    def __init__(self, exchange: Exchange, wire: SocketWire, site: Site, start_timeout_s: float) -> None:
        self.wire = wire
        self.site = site
        self.end: MediaEnd | None = None
        """Known from the ``start`` message on."""
        self._exchange = exchange
        self._start_timeout_s = start_timeout_s

    @property
    def scope(self) -> CallScope | None:
        """Of the call, if it is here."""
        return self.end.scope if self.end is not None else None

    def receive(self, text: str | bytes) -> None:
        """Take a text frame. What breaks the protocol closes the socket with 1008, and is logged."""
        if self.wire.closed:
            return  # on its way before the other side saw our close
        try:
            self._read(text)
        except RemoteProtocolError as exc:
            self.refuse(1008, str(exc))

    def receive_binary(self, data: bytes) -> None:
        """Refuse a binary frame."""
        self.refuse(1008, f"a binary frame of {len(data)} bytes came, which this protocol does not have")

    def peer_closes(self, code: int) -> None:  # noqa: B027  # nothing is to be done
        """Whatever the code: a carrier says ``stop`` before, or the stream is lost."""

    def lose_patience(self) -> None:
        """Close a socket on which nothing has begun."""
        if self.end is None:
            self.refuse(1008, f"no start message within {self._start_timeout_s:g} s")

    def refuse(self, code: int, reason: str) -> None:
        """Close the socket because of what the other side did."""
        if not self.wire.closed:
            self._exchange.refusals.sockets[code] += 1
            logger.warning("closing a media socket with %d: %s", code, reason)
            self.wire.fail(code)

    def closed(self) -> None:
        """The socket is closed."""
        if self.end is not None:
            self.end.closed()
        self.wire.close()

    @abstractmethod
    def _read(self, text: str | bytes) -> None:
        """Act on a text frame.

        Raises:
            RemoteProtocolError: It breaks the protocol.
        """

    def _start(self, start: StreamStart) -> None:
        """The carrier has said which call the stream is of."""
        self.end = self._exchange.join(start, self.wire, self.site)

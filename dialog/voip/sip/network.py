"""The socket of a SIP gateway, and what its calls need of it."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Coroutine
from ipaddress import ip_address
from typing import Any, Final, cast

from dialog.clock import Clock
from dialog.errors import ConfigurationError
from dialog.recent import Recent
from dialog.voip.sip.messages import Where
from dialog.voip.sip.transactions import Transactions

__all__ = ["SIPNetwork"]

logger = logging.getLogger(__name__)

_GOODBYE_S: Final = 2.0
"""How long what was said last may take to be answered when the gateway closes."""


class SIPNetwork(asyncio.DatagramProtocol):
    """Sends and takes datagrams, and knows how peers reach us.

    Args:
        host: IP address to listen at.
        port: And port; 0: one that is free.
        public_host: The IP address that peers reach us at, if a router stands in between.
        clock: Time of the calls.
        receive: Told of each datagram, and where it came from.
    """

    def __init__(
        self, host: str, port: int, public_host: str, clock: Clock, receive: Callable[[bytes, Where], object]
    ) -> None:
        self.host: str = host
        self.clock: Clock = clock
        self.transactions: Transactions = Transactions(self._write)
        self._port = port
        self._public_host = public_host
        self._receive = receive
        self._transport: asyncio.DatagramTransport | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._own_hosts: Recent[str, str] = Recent(1000)

    @property
    def opened(self) -> bool:
        """The socket is there, or was."""
        return self._transport is not None

    @property
    def port(self) -> int:
        """Where SIP is listened for."""
        if self._transport is None:
            return self._port
        number: int = self._transport.get_extra_info("sockname")[1]
        return number

    async def open(self) -> None:
        """Open the socket.

        Raises:
            ConfigurationError: The address cannot be listened at.
        """
        try:
            await asyncio.get_running_loop().create_datagram_endpoint(
                lambda: self, local_addr=(self.host, self._port), family=_family(self.host)
            )
        except OSError as exc:
            raise ConfigurationError(f"cannot listen at {self.host}:{self._port} (UDP): {exc}") from exc

    async def close(self) -> None:
        """Wait for what is being said, and close the socket."""
        if self._tasks:
            _, late = await asyncio.wait(tuple(self._tasks), timeout=_GOODBYE_S)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late)
        if self._transport is not None:
            self._transport.close()

    def media_host(self, peer: Where) -> str:
        """Our IP address as a peer reaches it."""
        if self._public_host:
            return self._public_host
        if not ip_address(self.host).is_unspecified:
            return self.host
        found = self._own_hosts.get(peer[0])
        if found is None:
            found = self._own_hosts[peer[0]] = _route(peer, _family(self.host))
        return found

    def contact(self, peer: Where) -> str:
        """Our address as a peer reaches it, as a ``Contact``."""
        return f"<sip:dialog@{_bracketed(self.media_host(peer))}:{self.port}>"

    def via(self, peer: Where, branch: str) -> str:
        """The Via of a request of ours."""
        return f"SIP/2.0/UDP {_bracketed(self.media_host(peer))}:{self.port};branch={branch};rport"

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Run a task that is awaited before the socket is closed."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    # The socket's side.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The socket is there."""
        # asyncio's own is no subclass of it before Python 3.12.
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        """A datagram came."""
        try:
            self._receive(data, (addr[0], addr[1]))
        except Exception:  # one message must not cost the others
            logger.exception("a SIP message from %s could not be handled", addr[0])

    def error_received(self, exc: Exception) -> None:
        """A peer was not there for what we have sent; requests are repeated."""
        logger.info("a SIP message was not delivered: %r", exc)

    def _write(self, data: bytes, where: Where) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.sendto(data, where)


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _route(peer: Where, family: socket.AddressFamily) -> str:
    """Our address on the way to a peer. Nothing is sent for that."""
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect(peer)
        host: str = probe.getsockname()[0]
    return host

"""The door through which the calls of a telephone system of your own come in."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Any, ClassVar, Final, Literal, Self, TypeVar, overload
from uuid import UUID

from aiohttp import ClientSession

from dialog.calls.publish import CallEvents
from dialog.clock import SYSTEM_CLOCK, Clock
from dialog.errors import ConfigurationError, StateError
from dialog.net import shared
from dialog.participant import Event
from dialog.voip.admission import Declined, Reject, Resolver, Workers
from dialog.voip.call import Call, CallSettings
from dialog.voip.line import Tap
from dialog.voip.listeners import Listeners
from dialog.voip.refusals import Refusals
from dialog.voip.sip.messages import Where
from dialog.voip.sip.network import SIPNetwork
from dialog.voip.sip.switchboard import SIPSettings, SIPSwitchboard
from dialog.voip.sip.voip import SIPVoIP

__all__ = ["SIPGateway"]

logger = logging.getLogger(__name__)

Listener = Callable[[SIPVoIP], object]
ListenerT = TypeVar("ListenerT", bound=Listener)

_DEFAULT_SETTINGS: Final = CallSettings()
_BUSY: Final = Reject("busy")


class SIPGateway:
    """Takes calls over SIP (UDP) and RTP (G.711), and emits ``voip`` with a fresh :class:`SIPVoIP` for each.

    ::

        gateway = SIPGateway(host="10.0.0.5", peers=["10.0.0.2"])


        @gateway.on("voip")
        def on_voip(voip: SIPVoIP) -> None:
            FrontDesk(voip=voip, stt=…, tts=…).activate()


        asyncio.run(gateway.serve())

    A PBX (Asterisk, FreeSWITCH) or a SIP trunk sends its calls to ``host`` and ``port``; only ``peers`` are listened
    to. The gateway registers nowhere: it is a trunk, not an extension.
    """

    VOIP: ClassVar[Event[SIPVoIP]] = Event("voip")
    """A call was accepted; once per call, inside the call's scope."""

    def __init__(
        self,
        *,
        host: str,
        peers: Sequence[str],
        port: int = 5060,
        public_host: str = "",
        rtp_ports: tuple[int, int] | None = None,
        resolver: Resolver | None = None,
        resolver_timeout_s: float = 3.0,
        workers: Workers | None = None,
        when_busy: Declined = _BUSY,
        events: CallEvents | None = None,
        call_settings: CallSettings = _DEFAULT_SETTINGS,
        quiet_s: float = 30.0,
        close_timeout_s: float = 5.0,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        """Check and keep the settings; :meth:`start` opens the socket.

        Args:
            host: IP address to listen at; ``0.0.0.0`` for all of the machine, ``::`` for those of IPv6 alone.
            peers: Who may call: IP addresses or networks (``10.0.0.0/24``). Nobody else is answered, for whoever can
                call spends your keys. Name a whole network only if you trust everybody in it.
            port: For SIP; 0: one that is free, see :attr:`port`.
            public_host: The IP address that peers reach us at, if a router stands in between.
            rtp_ports: First and last port for audio, one per call; unless given the system chooses.
            resolver: Asked whether to take a call, before anything is spent on it. A SIP line has no voice of its
                own: whatever it declines with is a busy tone or a refusal.
            resolver_timeout_s: After that the call is refused.
            workers: Run the agents, instead of the listeners for ``voip``. They start and close with the gateway.
            when_busy: What callers are told while no worker has room, or the gateway drains.
            events: Where the events of its calls are published; several gateways may share one.
            call_settings: Bounds of a call.
            quiet_s: How long no audio may come of a call that is not on hold. Then it is lost, and ends after
                ``call_settings.lost_s`` unless audio comes again.
            close_timeout_s: How long :meth:`close` may take.
            clock: Time of the calls.

        Raises:
            ConfigurationError: A setting is missing or malformed.
            MissingExtra: The ``sipmessage`` package is not installed.
        """
        for name, value in (("host", host), ("public_host", public_host or host)):
            if not _is_ip(value):
                raise ConfigurationError(f"{name} must be an IP address, got {value!r}")
        if not peers or isinstance(peers, str):
            raise ConfigurationError("peers must list the IP addresses or networks that may call: whoever can, may")
        self.host: str = host
        self.clock: Clock = clock
        self._network = SIPNetwork(host, port, public_host, clock, self._received)
        self._listeners = Listeners[SIPVoIP]("SIPGateway")
        self._workers = workers
        self._switchboard = SIPSwitchboard(
            SIPSettings(
                peers=[_network(each) for each in peers],
                host=host,
                rtp_ports=_ports(rtp_ports),
                resolver=resolver,
                resolver_timeout_s=resolver_timeout_s,
                when_busy=when_busy,
                call=call_settings,
                quiet_s=quiet_s,
                close_timeout_s=close_timeout_s,
            ),
            self._network,
            self._emit,
            workers=workers,
            events=events,
        )
        self._lease: shared.Lease[ClientSession] | None = None
        self._closed = False

    def __repr__(self) -> str:
        return f"<SIPGateway {self.host}:{self.port} with {len(self.calls)} calls>"

    # Listeners.

    @overload
    def on(self, event: Event[SIPVoIP] | Literal["voip"]) -> Callable[[ListenerT], ListenerT]: ...
    @overload
    def on(self, event: Event[SIPVoIP] | Literal["voip"], listener: ListenerT) -> ListenerT: ...
    def on(self, event: str, listener: Any = None) -> Any:
        """Call ``listener`` with the :class:`SIPVoIP` of every call; also a decorator.

        If a listener raises, the call is refused with 500.

        Raises:
            ValueError: There is no such event.
            TypeError: ``listener`` is a coroutine function, which nobody would wait for.
        """
        return self._listeners.on(event, listener)

    def off(self, event: Event[SIPVoIP] | Literal["voip"], listener: Listener) -> None:
        """Stop calling ``listener``; one that does not listen is ignored."""
        self._listeners.off(event, listener)

    # Serving.

    @property
    def port(self) -> int:
        """Where SIP is listened for."""
        return self._network.port

    async def start(self) -> None:
        """Open the socket and take calls from now on; calling it again is harmless.

        Raises:
            ConfigurationError: The address cannot be listened at.
        """
        if self._network.opened or self._closed:
            return
        self._lease = shared.session()  # providers share it, and their last user closes it: that is us
        if self._workers is not None:
            await self._workers.start()
        try:
            await self._network.open()
        except ConfigurationError:
            await self.close()
            raise

    async def serve(self) -> None:
        """Take calls until the task is cancelled, then end those that are there."""
        try:
            await self.start()
            await asyncio.get_running_loop().create_future()
        finally:
            await self.close()

    @property
    def ready(self) -> bool:
        """Whether a call would be taken now."""
        busy = self._closed or self._switchboard.draining or not self._network.opened
        return not busy and (self._workers is None or self._workers.ready)

    async def drain(self, timeout_s: float) -> bool:
        """Take no more calls, and wait until those that are there have ended, at most ``timeout_s``.

        Returns:
            Whether all have ended by themselves.
        """
        self._switchboard.draining = True
        return await self._switchboard.wait_idle(timeout_s)

    async def close(self) -> None:
        """Take no more calls, end those that are there, close all sockets; calling it again is harmless."""
        if self._closed:
            return
        self._closed = True
        await self._switchboard.close()
        if self._workers is not None:
            await self._workers.close()
        await self._network.close()
        lease, self._lease = self._lease, None
        if lease is not None:
            await lease.release()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    # Calls.

    @property
    def events(self) -> CallEvents:
        """The events of all calls, wherever their agents run."""
        return self._switchboard.events

    @property
    def refusals(self) -> Refusals:
        """How many requests were refused."""
        return self._switchboard.refusals

    @property
    def workers(self) -> Workers | None:
        """Who runs the agents; ``None``: the listeners for ``voip``."""
        return self._workers

    @property
    def calls(self) -> tuple[Call, ...]:
        """The calls of which something is left, oldest first."""
        return self._switchboard.calls

    def get(self, call: UUID | str) -> SIPVoIP | None:
        """A call by its ``call_id`` or its SIP Call-ID; ``None`` once nothing of it is left."""
        found = self.find_call(call)
        if found is None:
            return None
        assert isinstance(found.voip, SIPVoIP)
        return found.voip

    def find_call(self, call: UUID | str) -> Call | None:
        """The gateway's side of a call, by its ``call_id`` or its SIP Call-ID; ``None`` once nothing of it is left."""
        key: UUID | str = call
        if isinstance(call, str):
            try:
                key = UUID(call)
            except ValueError:
                key = call
        return self._switchboard.find(key) or (self._switchboard.find(call) if isinstance(call, str) else None)

    def add_tap(self, voip: SIPVoIP, tap: Tap) -> None:
        """Let ``tap`` hear both sides of a call from now on, in the call's ``audio_format``.

        Raises:
            StateError: The call is not held by this gateway (any more).
        """
        call = self._switchboard.find(voip.metadata.call_id)
        if call is None:
            raise StateError(f"call {voip.metadata.call_id}: this gateway does not hold it: there is nothing to hear")
        call.add_tap(tap)

    def _received(self, data: bytes, source: Where) -> None:
        self._switchboard.receive(data, source)

    def _emit(self, voip: SIPVoIP) -> None:
        self._listeners.emit(voip)


def _is_ip(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _network(text: str) -> IPv4Network | IPv6Network:
    try:
        return ip_network(text)
    except ValueError as exc:
        raise ConfigurationError(f"peers are IP addresses or networks, got {text!r}: {exc}") from exc


def _ports(given: tuple[int, int] | None) -> range:
    if given is None:
        return range(0)
    first, last = given
    if not 1024 <= first <= last <= 65_535:
        raise ConfigurationError(f"rtp_ports are the first and the last of 1024 to 65535, got {given}")
    return range(first, last + 1)

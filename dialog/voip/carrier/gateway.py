"""The door through which the calls of a telephone carrier come in, whichever it is."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, TypeVar, cast
from urllib.parse import urlsplit
from uuid import UUID, uuid4

from aiohttp import web

from dialog.errors import ConfigurationError, NotSupportedError, StateError
from dialog.voip.admission import Workers
from dialog.voip.answering import MachineDetection
from dialog.voip.call import Call
from dialog.voip.carrier.aiohttp_shell import AiohttpShell
from dialog.voip.carrier.asgi import AsgiShell
from dialog.voip.carrier.exchange import Exchange
from dialog.voip.carrier.http import Fields, Site, Webhooks, site_of
from dialog.voip.carrier.outbound import OutboundCalls, OutgoingCall
from dialog.voip.carrier.session import MediaSession
from dialog.voip.carrier.switchboard import PhoneCommands, Switchboard
from dialog.voip.listeners import Listeners
from dialog.voip.peers import Peers
from dialog.voip.refusals import Refusals
from dialog.voip.served import ServedGateway
from dialog.voip.voip import VoIP
from dialog.voip.wires import Codec, SocketWire

__all__ = ["PhoneGateway", "local_path"]

VoIPT = TypeVar("VoIPT", bound=VoIP)


class PhoneGateway(ServedGateway[VoIPT, Switchboard[Any, Any], Exchange]):
    """Takes calls from a carrier, and emits ``voip`` with a fresh :class:`~dialog.voip.voip.VoIP` for each.

    It belongs to the event loop that serves it.
    """

    def __init__(
        self,
        *,
        webhooks: Webhooks,
        commands: PhoneCommands,
        switchboard: Switchboard[Any, Any],
        exchange: Exchange,
        outbound: OutboundCalls[Any, Any] | None,
        listeners: Listeners[VoIPT],
        workers: Workers | None,
        max_message: int,
        body_timeout_s: float,
        start_timeout_s: float,
    ) -> None:
        """Put a carrier's parts together; nothing is connected."""
        super().__init__(board=switchboard, exchange=exchange, listeners=listeners, workers=workers)
        self._webhooks = webhooks
        self._commands = commands
        self._calls_out = outbound
        if outbound is not None:
            outbound.sharers = self._sharers
        self._start_timeout_s = start_timeout_s
        self._aiohttp = AiohttpShell(
            webhooks,
            exchange,
            self._open_media,
            body_timeout_s=body_timeout_s,
            start_timeout_s=start_timeout_s,
            max_message=max_message,
        )
        self._asgi = AsgiShell(
            webhooks,
            exchange,
            self._open_media,
            body_timeout_s=body_timeout_s,
            start_timeout_s=start_timeout_s,
            max_message=max_message,
            on_start=self.start,
            on_shutdown=self.close,
        )
        if workers is not None and workers.peers is not None:
            self._share(workers.peers, "")
        self._chosen = False
        """Peers were named, instead of those that come with the workers."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._webhooks.path} with {len(self.calls)} calls>"

    @abstractmethod
    def _open_media(self, site: Site, fields: Fields) -> tuple[Codec, Callable[[SocketWire], MediaSession]]:
        """What is spoken on a media socket that comes now, with ``fields`` in its address, and who takes it."""

    def listen(self, listener: Callable[[VoIPT], object]) -> None:
        """Give every call to ``listener``, as ``on("voip", listener)`` does."""
        self._listeners.on("voip", listener)

    # Serving.

    def asgi(self) -> AsgiShell:
        """An ASGI 3 application for FastAPI, Starlette or any ASGI server.

        Mounted into another one, :meth:`start` and :meth:`close` are up to the host's lifespan.
        """
        return self._asgi

    @property
    def path(self) -> str:
        """Local path of the voice webhook; callbacks lie beneath it."""
        return self._webhooks.path

    @property
    def media_path(self) -> str:
        """Local path of the media socket."""
        return self._webhooks.paths()["media"]

    def use_peers(self, peers: Peers, *, media_url: str = "") -> None:
        """Share the address with other gateways: what is of a call of theirs is passed on to them.

        Before :meth:`start`; the peers start and close with the gateway. Without it they are those of a fleet, if the
        workers are one.

        Args:
            peers: The others, and our own name among them.
            media_url: Public ``wss://`` URL that leads the carrier to this gateway and no other one, if there is one.

        Raises:
            ConfigurationError: The URL has the wrong scheme or no host.
            StateError: The gateway has started, or has peers already.
        """
        if self._started or self._chosen:
            raise StateError("a gateway gets its peers once, before it starts")
        self._share(peers, media_url)
        self._chosen = True

    # Calls.

    async def call(
        self,
        to: str,
        *,
        from_: str,
        on_voip: Callable[[VoIPT], object] | None = None,
        ring_s: float = 30.0,
        machine_detection: MachineDetection | None = None,
        send_digits: str = "",
        parameters: Mapping[str, str] | None = None,
        session: str = "",
        call_id: UUID | None = None,
        before: Callable[[], Awaitable[None]] | None = None,
    ) -> VoIPT:
        """Place a call, as soon as the account's limits allow it, and return once the carrier has it.

        The call's VoIP is emitted before, like that of a call that comes in, or given to ``on_voip`` alone. Its agent
        may be activated at once: it opens its providers when the phone rings, and speaks when somebody answers. ::

            voip = await gateway.call("+15550123", from_="+15550100", parameters={"name": "Ada"})
            answered_by = await voip.wait_answered()  # raises CallNotAnswered

        Args:
            to: A number in E.164, ``sip:…`` or ``client:…``.
            from_: A number of the account.
            on_voip: Takes the call, here; unless given, the workers or the listeners for ``voip``.
            ring_s: How long it may ring, in seconds.
            machine_detection: Let the carrier find out whether a machine answers, and what to do then.
            send_digits: Keys to press when it is answered, such as an extension: ``wwww1928``.
            parameters: What the agent is to know: ``voip.metadata.parameter("name")``.
            session: What its agent is to be like: see :attr:`~dialog.message.CallMetadata.session`.
            call_id: Dialog's id of the call; a new one unless given.
            before: Awaited right before the carrier is asked, each time; to write down that the call may exist from
                now on.

        Raises:
            CarrierError: The carrier refused. With ``in_doubt`` the call may have been placed all the same.
            ConfigurationError: A number or a setting cannot be used.
            MissingPublicURL: The gateway was not given its ``webhook_url``.
            LimitError: The account is at its limits for longer than ``pacing`` allows.
            NoWorker: No worker has room for its agent.
            UserCodeError: ``on_voip`` raised.
            StateError: The gateway takes no calls any more.
            NotSupportedError: There is no such thing with this carrier.
        """
        if self._calls_out is None:
            raise NotSupportedError(f"{type(self).__name__} places no calls: place them at the carrier")
        wanted = OutgoingCall(
            to=to,
            from_=from_,
            ring_s=ring_s,
            detection=machine_detection,
            send_digits=send_digits,
            parameters=tuple((parameters or {}).items()),
            session=session,
            call_id=call_id or uuid4(),
        )
        self.prepare()
        site = self._webhooks.public_site()
        return cast("VoIPT", await self._calls_out.place(wanted, site, on_voip=on_voip, before=before))

    @property
    def refusals(self) -> Refusals:
        """How many requests and media sockets were refused."""
        return self._exchange.refusals

    def get(self, call: UUID | str) -> VoIPT | None:
        """A call by its ``call_id`` or the carrier's id; ``None`` once nothing of it is left."""
        found = self.find_call(call)
        return None if found is None else cast("VoIPT", found.voip)

    def find_call(self, call: UUID | str) -> Call | None:
        """The gateway's side of a call, by its ``call_id`` or the carrier's id; ``None`` once nothing of it is left."""
        found = self._board.find(call)
        if found is None and isinstance(call, str):
            try:
                found = self._board.find(UUID(call))
            except ValueError:
                return None
        return found

    def download_recording(self, url: str) -> AsyncIterator[bytes]:
        """The bytes of a recording of this account, also long after its call.

        Raises:
            CarrierError: It cannot be fetched.
        """
        return self._commands.download(url)

    def _route(self, app: web.Application) -> None:
        self._aiohttp.add_routes(app)

    async def _close_connections(self) -> None:
        await self._aiohttp.close()
        await self._asgi.close()
        await self._close_peers()
        await self._commands.close()

    def _sharers(self) -> int:
        peers = self._exchange.peers
        return 1 if peers is None else 1 + len(peers.others)

    def _share(self, peers: Peers, media_url: str) -> None:
        self._webhooks.name_node(peers.node, media_url)
        self._exchange.peers = peers


def local_path(path: str | None, webhook_url: str, default: str, *, media_path: str | None) -> str:
    """The local path of the voice webhook: as given, or else that of its public URL.

    Raises:
        ConfigurationError: A path does not start with a slash, or ``webhook_url`` is no URL.
    """
    local = path or (urlsplit(site_of(webhook_url).webhook).path if webhook_url else default)
    for name, value in (("path", local), ("media_path", media_path or "/")):
        if not value.startswith("/"):
            raise ConfigurationError(f"{name} must start with a slash, got {value!r}")
    return local

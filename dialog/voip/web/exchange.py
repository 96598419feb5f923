"""Where a client's first message goes: to the sessions of this gateway, or to the peer that has its session."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from uuid import UUID

from dialog.errors import NotSupportedError, RemoteProtocolError
from dialog.message import AudioFormat, CallMetadata
from dialog.voip.peers import Adoption, MediaEnd, MediaWire, Orphan, Peers
from dialog.voip.rescues import Rescues
from dialog.voip.web.messages import (
    VERSION,
    ErrorTold,
    SessionResume,
    SessionStart,
    SessionStarted,
    decode_client_message,
    encode,
)
from dialog.voip.web.switchboard import Refusal, WebSwitchboard
from dialog.voip.web.tokens import Ticket

__all__ = ["Admitted", "WebExchange"]


class Admitted:
    """A client that may come in; :attr:`join` connects it to its session.

    Args:
        call_id: Of the session.
        audio: What it speaks.
        join: Raises :class:`~dialog.voip.web.switchboard.Refusal` if the session has ended meanwhile.
        started: What the client will be told, if its session is here.
        withdraw: The client cannot come after all: a session that began for it ends.
    """

    def __init__(
        self,
        call_id: UUID,
        audio: AudioFormat,
        join: Callable[[], MediaEnd],
        *,
        started: SessionStarted | None = None,
        withdraw: Callable[[], object] = lambda: None,
    ) -> None:
        self.call_id = call_id
        self.audio = audio
        self.join = join
        self.started = started
        self.withdraw = withdraw


class WebExchange:
    """Stands between the connections and the :class:`WebSwitchboard`; without peers everything is here."""

    def __init__(self, switchboard: WebSwitchboard) -> None:
        self.clock = switchboard.clock
        self.peers: Peers | None = None
        self._switchboard = switchboard
        self._rescues = Rescues()

    def share(self, peers: Peers) -> None:
        """Other gateways have sessions, too."""
        self.peers = peers
        self._switchboard.node = peers.node

    async def admit(
        self, first: SessionStart | SessionResume, wire: MediaWire, about: tuple[tuple[str, str], ...]
    ) -> Admitted:
        """Decide on a connection by what it says first.

        Raises:
            Refusal: It is not let in.
        """
        board = self._switchboard
        if first.version != VERSION:
            raise Refusal(4400, "version", f"this server speaks version {VERSION}, not {first.version}")
        if isinstance(first, SessionStart):
            session, started = await board.start(first, wire, about, self._used_elsewhere)
            join = partial(board.join, session, started, wire)
            return Admitted(started.session, started.audio, join, started=started, withdraw=session.withdraw)
        ticket = board.ticket(first)
        if self.peers is not None and not board.holds(first.session):
            node = await self._owner(self.peers, ticket)
            if node:
                join = partial(self.peers.relay, node, first.session, encode(first), wire, ticket.audio)
                return Admitted(first.session, ticket.audio, join)
            await self._rescue(self.peers, ticket)
        session, started = board.resume(first)
        return Admitted(started.session, started.audio, partial(board.join, session, started, wire), started=started)

    async def close(self) -> None:
        """Give up what is being adopted."""
        await self._rescues.close()

    # What peers ask.

    def holds(self, call_id: UUID) -> bool:
        """See :class:`~dialog.voip.peers.Owner`."""
        return self._switchboard.holds(call_id) or call_id in self._rescues

    async def answer(self, request: bytes) -> bytes:
        """See :class:`~dialog.voip.peers.Owner`; nothing is asked about sessions.

        Raises:
            NotSupportedError: Always.
        """
        raise NotSupportedError(f"a gateway passes {len(request)} bytes on to one for browsers, which answers nothing")

    def join_relayed(self, opening: bytes, wire: MediaWire) -> MediaEnd:
        """See :class:`~dialog.voip.peers.Owner`."""
        first = decode_client_message(opening)
        if not isinstance(first, SessionResume):
            raise RemoteProtocolError("a gateway relays a connection that does not come back to its session")
        try:
            session, started = self._switchboard.resume(first)
            return self._switchboard.join(session, started, wire)
        except Refusal as refusal:
            wire.send_control(encode(ErrorTold(code=refusal.code, message=str(refusal), fatal=True)))
            wire.fail(refusal.close_code)
            raise RemoteProtocolError(f"call {first.session}: {refusal}") from refusal

    async def _used_elsewhere(self, call_id: UUID) -> bool:
        """Whether a token began a session at another gateway."""
        return self.peers is not None and bool(await self.peers.find(call_id))

    async def _owner(self, peers: Peers, ticket: Ticket) -> str:
        if ticket.node != peers.node and peers.reaches(ticket.node):
            return ticket.node
        return await peers.find(ticket.call_id)

    async def _rescue(self, peers: Peers, ticket: Ticket) -> None:
        """Go on here with a session whose gateway is gone, if its agent has survived that."""

        async def go_on(adoption: Adoption | None) -> None:
            if adoption is not None:
                await self._switchboard.adopt(ticket, adoption)

        orphan = Orphan(CallMetadata(call_id=ticket.call_id, carrier="web"), ticket.generation, ticket.node)
        await self._rescues.rescue(peers, orphan, go_on)

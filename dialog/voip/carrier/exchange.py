"""Where every checked request and every stream goes: to a call of this gateway, or to the peer that owns it.

Signatures are checked where a request lands, tokens where the call is.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from typing import Any, ClassVar, Final
from uuid import UUID

import msgspec
from msgspec import Struct

from dialog.errors import RemoteProtocolError
from dialog.message import CallMetadata
from dialog.net.malformed import UNDECODABLE
from dialog.scope import CallScope
from dialog.voip.call import Call
from dialog.voip.carrier.http import Endpoint, Fields, Refusal, Response, Site, Webhooks, query_node
from dialog.voip.carrier.start import StreamStart
from dialog.voip.carrier.switchboard import Switchboard
from dialog.voip.line import Line
from dialog.voip.peers import Adoption, MediaEnd, MediaWire, Orphan, PeerLost, Peers
from dialog.voip.refusals import Refusals
from dialog.voip.rescues import Rescues

__all__ = ["Exchange"]

logger = logging.getLogger(__name__)


class _Request(Struct, frozen=True, array_like=True):
    endpoint: Endpoint
    fields: list[tuple[str, str]]
    site: Site


class _Answer(Struct, frozen=True, array_like=True):
    response: Response
    refused: bool


class _Opening(Struct, frozen=True, array_like=True):
    start: StreamStart
    site: Site


_encode: Final = msgspec.msgpack.Encoder().encode
_request: Final = msgspec.msgpack.Decoder(_Request)
_answer: Final = msgspec.msgpack.Decoder(_Answer)
_opening: Final = msgspec.msgpack.Decoder(_Opening)


class Exchange(ABC):
    """Stands between the shells and the :class:`Switchboard`; without peers everything is here."""

    nameless: ClassVar[tuple[Endpoint, ...]] = ("voice",)
    """Their addresses are configured with the number, and name no node."""

    def __init__(self, switchboard: Switchboard[Any, Any], webhooks: Webhooks) -> None:
        self.peers: Peers | None = None
        self.refusals: Refusals = Refusals()
        """What the shells and sessions have refused."""
        self._switchboard = switchboard
        self._webhooks = webhooks
        self._rescues = Rescues()

    @property
    def closing(self) -> bool:
        """No new calls are taken."""
        return self._switchboard.closing

    async def respond(self, endpoint: Endpoint, fields: Fields, site: Site) -> Response:
        """Answer a checked webhook, or let the gateway answer it that owns its call.

        Raises:
            Refusal: It lacks what it needs, is of another account, or its owner does not answer.
        """
        peers, call_id = self.peers, self._call_of(fields)
        if peers is None or call_id is None:
            return await self._switchboard.respond(endpoint, fields, site)
        self._switchboard.check_account(fields)
        node = query_node(fields)
        if not self.holds(call_id) and node != peers.node:
            owner = node if peers.reaches(node) else ""
            if not owner and (node or endpoint in self.nameless):
                owner = await peers.find(call_id)
            if owner:
                try:
                    return await self._ask(peers, owner, call_id, _Request(endpoint, list(fields), site))
                except PeerLost as exc:
                    logger.warning("%s", exc)
                    if peers.reaches(owner):
                        raise Refusal(503, "the gateway that has this call does not answer") from exc
                    node = owner
            if node and self._wants_more(endpoint, fields):
                await self._rescue(peers, Orphan(self._metadata(call_id, fields), self._generation(fields), node), site)
        else:
            await self._rescues.wait(call_id)
        return await self._switchboard.respond(endpoint, fields, site)

    def join(self, start: StreamStart, wire: MediaWire, site: Site) -> MediaEnd:
        """Connect a stream to its call, wherever that is.

        Raises:
            RemoteProtocolError: It is refused here; see :meth:`Switchboard.join`. Its owner may do so later.
        """
        peers = self.peers
        parameters = start.parameters
        node = parameters.get("node", "")
        if peers is None or not node or node == peers.node:
            return _Joined(*self._switchboard.join(start, wire, site))
        try:
            call_id = UUID(parameters.get("call_id", ""))
        except ValueError as exc:
            raise RemoteProtocolError(f"call {start.carrier_call_id}: the stream names no call of ours") from exc
        if self._switchboard.holds(call_id):  # it was adopted
            return _Joined(*self._switchboard.join(start, wire, site))
        if not peers.reaches(node):
            raise RemoteProtocolError(f"call {call_id}: the gateway that announced its stream, {node}, is gone")
        return peers.relay(node, call_id, _encode(_Opening(start, site)), wire)

    async def close(self) -> None:
        """Give up what is being adopted."""
        await self._rescues.close()

    # What peers ask.

    def holds(self, call_id: UUID) -> bool:
        """See :class:`~dialog.voip.peers.Owner`."""
        return self._switchboard.holds(call_id) or call_id in self._rescues

    async def answer(self, request: bytes) -> bytes:
        """See :class:`~dialog.voip.peers.Owner`."""
        try:
            asked = _request.decode(request)
        except UNDECODABLE as exc:
            raise RemoteProtocolError(f"a gateway passes on a request that is not understood: {exc}") from exc
        try:
            response = await self._switchboard.respond(asked.endpoint, asked.fields, self._webhooks.ours(asked.site))
        except Refusal as refusal:
            return _encode(_Answer(refusal.response(), refused=True))
        return _encode(_Answer(response, refused=False))

    def join_relayed(self, opening: bytes, wire: MediaWire) -> MediaEnd:
        """See :class:`~dialog.voip.peers.Owner`."""
        try:
            opened = _opening.decode(opening)
        except UNDECODABLE as exc:
            raise RemoteProtocolError(f"a gateway relays a stream that it does not describe: {exc}") from exc
        return _Joined(*self._switchboard.join(opened.start, wire, self._webhooks.ours(opened.site)))

    # What a carrier's requests tell.

    @abstractmethod
    def _call_of(self, fields: Fields) -> UUID | None:
        """The call that a request is about.

        Raises:
            Refusal: 400, its name is malformed.
        """

    def _wants_more(self, endpoint: Endpoint, fields: Fields) -> bool:  # noqa: ARG002
        """Whether the caller is still there, and the carrier asks how to go on; then the two below say with what."""
        return False

    def _metadata(self, call_id: UUID, fields: Fields) -> CallMetadata:  # noqa: ARG002
        """What a request tells of its call.

        Raises:
            Refusal: 400, it lacks what it needs.
        """
        return CallMetadata(call_id=call_id)

    def _generation(self, fields: Fields) -> int:  # noqa: ARG002
        """Of the stream that a request is about, or of the last that it knows of."""
        return 1

    async def _ask(self, peers: Peers, node: str, call_id: UUID, request: _Request) -> Response:
        told = await peers.ask(node, call_id, _encode(request))
        try:
            answer = _answer.decode(told)
        except UNDECODABLE as exc:
            raise PeerLost(f"call {call_id}: gateway {node} answers in a way that is not understood: {exc}") from exc
        if answer.refused:
            response = answer.response
            raise Refusal(response.status, response.body.decode().removesuffix("\n"), response.headers)
        return answer.response

    async def _rescue(self, peers: Peers, orphan: Orphan, site: Site) -> None:
        """Let somebody go on with a call whose gateway is gone; else its callers are told that it failed."""

        async def go_on(adoption: Adoption | None) -> None:
            if adoption is None:
                self._switchboard.give_up(orphan.metadata.call_id)
            else:
                await self._switchboard.adopt(orphan, adoption, site)

        await self._rescues.rescue(peers, orphan, go_on)


class _Joined:
    """A stream whose call is here."""

    __slots__ = ("_call", "_line", "receive_audio", "receive_digit", "receive_mark", "scope")

    def __init__(self, call: Call, line: Line) -> None:
        self.scope: CallScope | None = call.scope
        self.receive_audio = line.receive_audio
        self.receive_mark = line.receive_mark
        self.receive_digit = line.receive_digit
        self._call = call
        self._line = line

    def receive_control(self, message: bytes) -> None:
        raise RemoteProtocolError(f"{len(message)} bytes of control came, which a carrier's stream does not have")

    def stopped(self) -> None:
        self._call.stream_stopped(self._line)

    def closed(self) -> None:
        self._call.stream_closed(self._line)

"""Where every checked request and every stream goes: to a call of this gateway, or to the peer that owns it.

Signatures are checked where a request lands, tokens where the call is.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final
from uuid import UUID

import msgspec
from msgspec import Struct

from dialog.errors import RemoteProtocolError
from dialog.message import CallMetadata
from dialog.scope import CallScope
from dialog.voip.call import Call
from dialog.voip.line import Line, Wire
from dialog.voip.peers import MediaEnd, MediaWire, Orphan, PeerLost, Peers
from dialog.voip.refusals import Refusals
from dialog.voip.twilio.forms import FINAL_STATUSES, VoiceForm, decode_form, metadata_of
from dialog.voip.twilio.messages import Start
from dialog.voip.twilio.record import call_id_of
from dialog.voip.twilio.switchboard import Switchboard
from dialog.voip.twilio.webhooks import Endpoint, Fields, Refusal, Response, Site, Webhooks, query_call, query_node

__all__ = ["Exchange"]

logger = logging.getLogger(__name__)

_NAMELESS: Final = ("voice", "status")
"""Their addresses are configured with the number, and name no node."""
_ADOPT_S: Final = 8.0
"""Together with asking a gateway that then turns out to be dead this is less than a carrier waits."""


class _Request(Struct, frozen=True, array_like=True):
    endpoint: Endpoint
    fields: list[tuple[str, str]]
    site: Site


class _Answer(Struct, frozen=True, array_like=True):
    response: Response
    refused: bool


class _Opening(Struct, frozen=True, array_like=True):
    start: Start
    site: Site


_encode: Final = msgspec.msgpack.Encoder().encode
_request: Final = msgspec.msgpack.Decoder(_Request)
_answer: Final = msgspec.msgpack.Decoder(_Answer)
_opening: Final = msgspec.msgpack.Decoder(_Opening)


class Exchange:
    """Stands between the shells and the :class:`Switchboard`; without peers everything is here."""

    def __init__(self, switchboard: Switchboard, webhooks: Webhooks) -> None:
        self.peers: Peers | None = None
        self.refusals: Refusals = Refusals()
        """What the shells and sessions have refused."""
        self._switchboard = switchboard
        self._webhooks = webhooks
        self._rescues: dict[UUID, asyncio.Task[None]] = {}

    @property
    def closing(self) -> bool:
        """No new calls are taken."""
        return self._switchboard.closing

    async def respond(self, endpoint: Endpoint, fields: Fields, site: Site) -> Response:
        """Answer a checked webhook, or let the gateway answer it that owns its call.

        Raises:
            Refusal: It lacks what it needs, is of another account, or its owner does not answer.
        """
        peers, call_id = self.peers, _call_of(fields)
        if peers is None or call_id is None:
            return await self._switchboard.respond(endpoint, fields, site)
        self._switchboard.check_account(fields)
        node = query_node(fields)
        if not self.holds(call_id) and node != peers.node:
            owner = node if peers.reaches(node) else ""
            if not owner and (node or endpoint in _NAMELESS):
                owner = await peers.find(call_id)
            if owner:
                try:
                    return await self._ask(peers, owner, call_id, _Request(endpoint, list(fields), site))
                except PeerLost as exc:
                    logger.warning("%s", exc)
                    if peers.reaches(owner):
                        raise Refusal(503, "the gateway that has this call does not answer") from exc
                    node = owner
            if node and _wants_more(endpoint, fields):
                await self._rescue(peers, Orphan(_metadata(call_id, fields), _generation(fields), node), site)
        elif call_id in self._rescues:
            await asyncio.shield(self._rescues[call_id])
        return await self._switchboard.respond(endpoint, fields, site)

    def join(self, start: Start, wire: MediaWire, site: Site) -> MediaEnd:
        """Connect a stream to its call, wherever that is.

        Raises:
            RemoteProtocolError: It is refused here; see :meth:`Switchboard.join`. Its owner may do so later.
        """
        peers = self.peers
        parameters = start.start.custom_parameters
        node = parameters.get("node", "")
        if peers is None or not node or node == peers.node:
            return _Joined(*self._switchboard.join(start, wire, site))
        try:
            call_id = UUID(parameters.get("call_id", ""))
        except ValueError as exc:
            raise RemoteProtocolError(f"call {start.start.call_sid}: the stream names no call of ours") from exc
        if self._switchboard.holds(call_id):  # it was adopted
            return _Joined(*self._switchboard.join(start, wire, site))
        if not peers.reaches(node):
            raise RemoteProtocolError(f"call {call_id}: the gateway that announced its stream, {node}, is gone")
        return peers.relay(node, call_id, _encode(_Opening(start, site)), wire)

    async def close(self) -> None:
        """Give up what is being adopted."""
        for rescue in self._rescues.values():
            rescue.cancel()
        if self._rescues:
            await asyncio.wait(tuple(self._rescues.values()))

    # What peers ask.

    def holds(self, call_id: UUID) -> bool:
        """See :class:`~dialog.voip.peers.Owner`."""
        return self._switchboard.holds(call_id) or call_id in self._rescues

    async def answer(self, request: bytes) -> bytes:
        """See :class:`~dialog.voip.peers.Owner`."""
        asked = _request.decode(request)
        try:
            response = await self._switchboard.respond(asked.endpoint, asked.fields, self._webhooks.ours(asked.site))
        except Refusal as refusal:
            return _encode(_Answer(refusal.response(), refused=True))
        return _encode(_Answer(response, refused=False))

    def join_relayed(self, opening: bytes, wire: Wire) -> MediaEnd:
        """See :class:`~dialog.voip.peers.Owner`."""
        try:
            opened = _opening.decode(opening)
        except msgspec.MsgspecError as exc:
            raise RemoteProtocolError(f"a gateway relays a stream that it does not describe: {exc}") from exc
        return _Joined(*self._switchboard.join(opened.start, wire, self._webhooks.ours(opened.site)))

    async def _ask(self, peers: Peers, node: str, call_id: UUID, request: _Request) -> Response:
        answer = _answer.decode(await peers.ask(node, call_id, _encode(request)))
        if answer.refused:
            response = answer.response
            raise Refusal(response.status, response.body.decode().removesuffix("\n"), response.headers)
        return answer.response

    async def _rescue(self, peers: Peers, orphan: Orphan, site: Site) -> None:
        """Let somebody go on with a call whose gateway is gone; else its callers are told that it failed."""
        call_id = orphan.metadata.call_id
        rescue = self._rescues.get(call_id)
        if rescue is None:
            rescue = asyncio.get_running_loop().create_task(self._adopt(peers, orphan, site), name=f"adopt {call_id}")
            self._rescues[call_id] = rescue
            rescue.add_done_callback(lambda _: self._rescues.pop(call_id))
        await asyncio.shield(rescue)

    async def _adopt(self, peers: Peers, orphan: Orphan, site: Site) -> None:
        call_id = orphan.metadata.call_id
        taker = None
        try:
            async with asyncio.timeout(_ADOPT_S):
                taker = await peers.adopt(orphan)
        except TimeoutError:
            logger.error("call %s: nobody adopted it within %g s", call_id, _ADOPT_S)  # noqa: TRY400
        except Exception:  # whatever it was, the caller is told
            logger.exception("call %s: adopting it failed", call_id)
        if taker is None:
            logger.error("call %s: its gateway, %s, is gone, and nobody can go on with it", call_id, orphan.node)
            self._switchboard.give_up(call_id)
        else:
            logger.info("call %s: its gateway, %s, is gone; it goes on here", call_id, orphan.node)
            await self._switchboard.adopt(orphan, taker, site)


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

    def stopped(self) -> None:
        self._call.stream_stopped(self._line)

    def closed(self) -> None:
        self._call.stream_closed(self._line)


def _call_of(fields: Fields) -> UUID | None:
    named = query_call(fields)
    if named is not None:
        return named
    call_sid = next((value for name, value in fields if name == "CallSid"), "")
    return call_id_of(call_sid) if call_sid else None


def _generation(fields: Fields) -> int:
    text = next((value for name, value in fields if name == "generation"), "")
    return int(text) if text.isdecimal() and len(text) < 10 else 1


def _wants_more(endpoint: Endpoint, fields: Fields) -> bool:
    """Whether the caller is still there, and the carrier asks how to go on."""
    values = dict(fields)
    if values.get("CallStatus") in FINAL_STATUSES:
        return False
    if endpoint == "dial":
        if "held" in values:  # waited for somebody whom nobody calls any more
            return True
        return "back" in values and values.get("DialCallStatus") not in ("completed", "answered")
    return endpoint == "after"


def _metadata(call_id: UUID, fields: Fields) -> CallMetadata:
    try:
        form = decode_form(VoiceForm, fields)
    except RemoteProtocolError as exc:
        raise Refusal(400, str(exc)) from exc
    return metadata_of(call_id, form, fields)

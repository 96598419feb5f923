"""Calls that begin with their media socket: they are decided about while it waits."""

from __future__ import annotations

import logging
from typing import ClassVar
from uuid import UUID

from dialog.errors import RemoteProtocolError, StateError
from dialog.message import CallMetadata
from dialog.scope import CallScope
from dialog.voip.admission import Accept, Declined, Reject
from dialog.voip.call import Call
from dialog.voip.carrier.exchange import Exchange
from dialog.voip.carrier.http import Endpoint, Fields, Refusal, Response, Site
from dialog.voip.carrier.record import CallRecord, call_id_of
from dialog.voip.carrier.start import StreamStart
from dialog.voip.carrier.switchboard import Switchboard
from dialog.voip.line import Line
from dialog.voip.peers import MediaEnd, MediaWire
from dialog.voip.streams.voip import StreamVoIP
from dialog.voip.streams.webhooks import StreamAddress
from dialog.voip.voip import VoIP

__all__ = ["Arrival", "StreamExchange", "StreamRecord", "StreamSwitchboard"]

logger = logging.getLogger(__name__)

StreamRecord = CallRecord[Accept | Declined]
_KEYS = 32
"""So many keys are kept for a call that is still being decided about."""


class Arrival:
    """The socket of a call: see :class:`~dialog.voip.peers.MediaEnd`. Its audio is heard once the call was taken."""

    def __init__(self, wire: MediaWire) -> None:
        self.scope: CallScope | None = None
        self.wire = wire
        self.gone = False
        """The carrier has left."""
        self._call: Call | None = None
        self._line: Line | None = None
        self._keys = ""

    def connect(self, call: Call) -> None:
        """The call was taken: its line is this socket."""
        self._line = call.join(self.wire, 1)
        self._call = call
        self.scope = call.scope
        for key in self._keys:
            self._line.receive_digit(key)

    def receive_audio(self, data: bytes, timestamp_ms: float | None) -> None:
        """Take the caller's audio."""
        if self._line is not None:
            self._line.receive_audio(data, timestamp_ms)

    def receive_mark(self, name: str) -> None:
        """Take the echo of a mark."""
        if self._line is not None:
            self._line.receive_mark(name)

    def receive_digit(self, digit: str) -> None:
        """Take a key."""
        if self._line is not None:
            self._line.receive_digit(digit)
        elif len(self._keys) < _KEYS:
            self._keys += digit

    def receive_control(self, message: bytes) -> None:
        """There is nothing else that these carriers say."""
        raise RemoteProtocolError(f"{len(message)} bytes of control came, which a carrier's stream does not have")

    def stopped(self) -> None:
        """The carrier says that the stream is over."""
        self._leave("")

    def closed(self) -> None:
        """The socket is closed; these carriers open no other one."""
        self._leave("its socket was closed")

    def _leave(self, how: str) -> None:
        self.gone = True
        if self._call is not None:
            self._call.end("caller_hangup", how)


class StreamSwitchboard(Switchboard[StreamRecord, Accept | Declined]):
    """The calls of an address; an answer is a decision, of which only "take it" can be carried out."""

    carrier: ClassVar[str] = "stream"
    voip_class: ClassVar[type[VoIP]] = StreamVoIP

    def arrived(self, start: StreamStart, wire: MediaWire, site: Site) -> MediaEnd:
        """A stream has started, and with it a call: decide about it.

        Raises:
            RemoteProtocolError: It is a second stream of a call, or no call can be taken now.
        """
        call_id = call_id_of(f"{start.carrier} {start.carrier_call_id}")
        if self.holds(call_id):
            raise RemoteProtocolError(f"call {call_id}: a second stream came for {start.carrier_call_id}")
        if self._closing or self.draining:
            raise RemoteProtocolError(f"call {call_id}: no calls are taken any more")
        record = self._new_record(call_id, start.carrier_call_id, site)
        self._records[call_id] = record
        arrival = Arrival(wire)
        record.answer = self._spawn(
            self._admit(record, _metadata(call_id, start), start.audio_format), f"admit {call_id}"
        )
        self._spawn(self._answer(record, arrival), f"answer {call_id}")
        return arrival

    async def respond(self, endpoint: Endpoint, fields: Fields, site: Site) -> Response:  # noqa: ARG002
        """There are no webhooks.

        Raises:
            Refusal: 404.
        """
        raise Refusal(404, "nothing is here")

    async def hang_up(self, carrier_call_id: str) -> None:
        """Nothing but the socket is to be closed."""

    async def _answer(self, record: StreamRecord, arrival: Arrival) -> None:
        assert record.answer is not None
        decision = await record.answer
        call = record.call
        if not isinstance(decision, Accept) or call is None:
            if not isinstance(decision, Reject):
                logger.info("call %s: streams have no voice of their own: its caller is told nothing", record.call_id)
            arrival.wire.close()
            return
        if arrival.gone:
            call.end("caller_hangup", "before it was taken")
            return
        try:
            arrival.connect(call)
        except StateError as exc:  # the agent has hung up already
            logger.info("%s", exc)
            arrival.wire.close()

    def _new_record(self, call_id: UUID, carrier_call_id: str, site: Site) -> StreamRecord:
        return CallRecord(call_id, carrier_call_id, site)

    def _taken(self, record: StreamRecord) -> Accept | Declined:  # noqa: ARG002
        return Accept()

    def _declined(self, decision: Declined) -> Accept | Declined:
        return decision

    def _over(self) -> Accept | Declined:
        return Reject()


class StreamExchange(Exchange):
    """Every call is where its socket is."""

    def __init__(self, switchboard: StreamSwitchboard, webhooks: StreamAddress) -> None:
        super().__init__(switchboard, webhooks)
        self._arrivals = switchboard

    def join(self, start: StreamStart, wire: MediaWire, site: Site) -> MediaEnd:
        """See :meth:`StreamSwitchboard.arrived`."""
        return self._arrivals.arrived(start, wire, site)

    def _call_of(self, fields: Fields) -> UUID | None:  # noqa: ARG002
        return None


def _metadata(call_id: UUID, start: StreamStart) -> CallMetadata:
    parameters = start.parameters
    outbound = parameters.get("direction", "").lower().startswith("outbound")
    return CallMetadata(
        call_id=call_id,
        carrier=start.carrier,
        carrier_call_id=start.carrier_call_id,
        account_id=start.account_id,
        from_=start.from_,
        to=start.to,
        direction="outbound" if outbound else "inbound",
        parameters=tuple(parameters.items()),
    )

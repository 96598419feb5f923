"""What Telnyx reports of its calls, and what it is told.

Webhooks come in any order, more than once, and after the call; each is answered at once, and what follows from it is
done by commands.

Source: Telnyx API v2, Call Control, callbacks.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, ClassVar, Final
from uuid import UUID

from dialog.errors import CarrierError, RemoteProtocolError
from dialog.message import PCM_8K, CallEnd, ReceivedSMS, StreamStopped
from dialog.recent import Recent
from dialog.voip.admission import Accept, Declined, Reject, Say
from dialog.voip.call import Call
from dialog.voip.carrier.http import Endpoint, Fields, Refusal, Response, Site, query_call
from dialog.voip.carrier.record import call_id_of
from dialog.voip.carrier.switchboard import MAX_ATTEMPTS, Switchboard, SwitchboardSettings
from dialog.voip.carrier.token import StreamTokens
from dialog.voip.closing import wait_over
from dialog.voip.inbox import Inbox
from dialog.voip.peers import Adoption, Orphan
from dialog.voip.telnyx.commands import TelnyxCommands
from dialog.voip.telnyx.events import CallEvent, Payload, decode_message, metadata_of
from dialog.voip.telnyx.exchange import body_of, event_of
from dialog.voip.telnyx.record import TelnyxRecord
from dialog.voip.telnyx.reports import Reports
from dialog.voip.telnyx.rest import HAS_ENDED
from dialog.voip.telnyx.stream import Codec, encode_state
from dialog.voip.telnyx.voip import TelnyxVoIP
from dialog.voip.voip import VoIP

__all__ = ["TelnyxSwitchboard"]

logger = logging.getLogger(__name__)

_CONFIRM_S: Final = 2.0
"""So long after a stream has stopped by itself Telnyx may take to say that its call is over, before it is told so."""
_AGAIN_S: Final = 1.0
_SAYINGS: Final = 1000
_CAUSES: Final[dict[str, str]] = {"busy": "USER_BUSY", "rejected": "CALL_REJECTED"}
_STAYS: Final = frozenset({"transferred"})
"""Calls that go on without us."""


class TelnyxSwitchboard(Switchboard[TelnyxRecord, Accept | Declined]):
    """The calls of an application; an answer is a decision, which commands carry out."""

    carrier: ClassVar[str] = "telnyx"
    voip_class: ClassVar[type[VoIP]] = TelnyxVoIP

    def __init__(
        self,
        settings: SwitchboardSettings,
        commands: TelnyxCommands,
        tokens: StreamTokens,
        on_voip: Callable[[TelnyxVoIP], object],
        *,
        codec: Codec,
        **options: Any,
    ) -> None:
        """``options`` are those of :class:`Switchboard`."""
        super().__init__(settings, commands, tokens, on_voip, **options)
        commands.record_of = self.record_of
        self._rest = commands.rest
        self._codec: Codec = codec
        self._streams_at_once = codec != "L16" or settings.audio_format == PCM_8K
        """The answer itself can ask for the stream; it takes no sample rate."""
        self._reports = Reports()
        self.inbox = Inbox()
        self._replies: set[asyncio.Task[None]] = set()
        """Text messages that are being answered."""
        self._sayings: Recent[str, Say] = Recent(_SAYINGS)
        """What callers are to be told by Telnyx, by the call_control_id, once their call is answered."""
        self._unwanted: Recent[UUID, None] = Recent(_SAYINGS)
        """Calls that were given up while they were placed: if Telnyx has them all the same, they are hung up."""
        self.on_bridged: Callable[[UUID], object] = lambda _: None
        """Told of calls that Telnyx has connected with another one; set by the gateway."""
        self.on_played: Callable[[TelnyxRecord, Payload], object] = lambda _record, _payload: None
        """Told of files that are not played any more; likewise."""

    def check_account(self, fields: Fields) -> None:
        """Check that a request is of our application.

        Raises:
            Refusal: 400 or 403.
        """
        connection = event_of(fields).payload.connection_id
        ours = self._settings.account_id
        if ours and connection and connection != ours:
            raise Refusal(403, "the request is of another Call Control application")

    async def respond(self, endpoint: Endpoint, fields: Fields, site: Site) -> Response:
        """Take a checked webhook.

        Raises:
            Refusal: It lacks what it needs, or is of another application.
        """
        if endpoint == "media":
            raise Refusal(400, "this is a WebSocket endpoint")
        if endpoint == "sms":
            self._take_message(fields)
            return Response(status=200)
        self.check_account(fields)
        event = event_of(fields)
        carrier_call_id = event.payload.call_control_id
        if not carrier_call_id and not query_call(fields):
            logger.debug("ignored Telnyx's %.60r, which names no call", event.event_type)
            return Response(status=200)
        call_id = query_call(fields) or call_id_of(carrier_call_id)
        if call_id in self._unwanted and carrier_call_id:
            del self._unwanted[call_id]
            if event.event_type != "call.hangup":
                self._spawn(self._quietly(self._rest.hangup(carrier_call_id)), f"hang up {call_id}")
        record = self._records.get(call_id)
        if event.event_type == "call.initiated" and event.payload.direction != "outgoing":
            self._offered(call_id, record, event, fields, site)
        elif record is None:
            self._of_nobody(call_id, event)
        elif not event.id or not record.repeated(event.id):
            self._happened(record, event)
        return Response(status=200)

    def stream_fields(self, record: TelnyxRecord, generation: int) -> dict[str, Any]:
        """What lets Telnyx open a stream of a call, on whatever command it is asked for."""
        audio_format = self._settings.audio_format
        fields: dict[str, Any] = {
            "stream_url": record.site.media,
            "stream_track": "inbound_track",
            "stream_codec": self._codec,
            "stream_bidirectional_mode": "rtp",
            "stream_bidirectional_codec": self._codec,
            "stream_bidirectional_target_legs": "self",
            "client_state": encode_state(self._stream_parameters(record, generation)),
        }
        if self._codec == "L16":
            fields["stream_bidirectional_sampling_rate"] = audio_format.sample_rate
        return fields

    def let_back(self, record: TelnyxRecord) -> None:
        """The caller was not connected: they get a stream again, as soon as the old one has stopped."""
        record.wants_back, record.attempts = True, 0
        if record.call is not None and record.call.state == "moving":
            self._reopen(record)

    async def hang_up(self, carrier_call_id: str) -> None:
        """Tell Telnyx that a call is over.

        Raises:
            CarrierError: It could not be told.
        """
        await self._rest.hangup(carrier_call_id)

    def _new_record(self, call_id: UUID, carrier_call_id: str, site: Site) -> TelnyxRecord:
        return TelnyxRecord(call_id, carrier_call_id, site)

    def _must_be_told(self, call: Call) -> bool:
        return call.state != "ended"

    def _taken(self, record: TelnyxRecord) -> Accept | Declined:  # noqa: ARG002  # Telnyx answers all alike
        return Accept()

    def _declined(self, decision: Declined) -> Accept | Declined:
        if isinstance(decision, Reject | Say):
            return decision
        logger.error("Telnyx has no documents: a resolver must return Accept, Reject or Say")
        return Say(self._settings.error_text, self._settings.error_language)

    def _over(self) -> Accept | Declined:
        return Reject()

    def _take(self, record: TelnyxRecord, *args: Any, **kwargs: Any) -> Call:
        call = super()._take(record, *args, **kwargs)
        with call.scope.entered():
            call.voip.on(VoIP.STREAMING_STOPPED, lambda stopped: self._stream_stopped(record, stopped))
        if call.voip.end is not None:
            self._ended(record, call.voip.end)
        else:
            call.voip.on(VoIP.ENDED, lambda end: self._ended(record, end))
        return call

    async def close(self) -> None:
        """End all calls and wait, within a bound, until nothing of them is left."""
        self._closing = True
        await wait_over(self._replies, self._settings.close_timeout_s / 2)  # Telnyx does not deliver them again
        await self.inbox.close()
        await super().close()

    async def adopt(self, orphan: Orphan, adoption: Adoption, site: Site) -> None:
        """See :meth:`Switchboard.adopt`; whoever waited for somebody hears the agent, and no music."""
        silence = self._rest.command(orphan.metadata.carrier_call_id, "playback_stop")
        self._spawn(self._quietly(silence), f"silence {orphan.metadata.call_id}")
        await super().adopt(orphan, adoption, site)

    # A text message that comes in.

    def _take_message(self, fields: Fields) -> None:
        """Let the listeners answer it; Telnyx does not wait for that."""
        if self._closing:
            raise Refusal(503, "the gateway is closing")
        try:
            message = decode_message(body_of(fields))
        except RemoteProtocolError as exc:
            raise Refusal(400, str(exc)) from exc
        if message is not None and self.inbox.begin(message):
            reply = self._spawn(self._answer_message(message), f"answer {message.message_sid}")
            self._replies.add(reply)
            reply.add_done_callback(self._replies.discard)

    async def _answer_message(self, message: ReceivedSMS) -> None:
        for text in await self.inbox.receive(message):
            await self._quietly(self._rest.send_message(to=message.from_, text=text, from_=message.to))

    # A call that comes in.

    def _offered(
        self, call_id: UUID, record: TelnyxRecord | None, event: CallEvent, fields: Fields, site: Site
    ) -> None:
        if record is not None or self._finished.get(call_id) is not None:
            return  # delivered again, or its end came first
        if self._closing:
            raise Refusal(503, "the gateway is closing")
        try:
            metadata = metadata_of(call_id, body_of(fields))
        except RemoteProtocolError as exc:
            raise Refusal(400, str(exc)) from exc
        record = self._new_record(call_id, event.payload.call_control_id, site)
        record.leg_id = event.payload.call_leg_id
        self._records[call_id] = record
        if self.draining:
            decision = self._finish(record, self._declined(self._settings.when_busy))
            self._spawn(self._carry_out(record, decision), f"decline {call_id}")
            return
        record.answer = self._spawn(self._admit(record, metadata), f"admit {call_id}")
        self._spawn(self._answer(record, record.answer), f"answer {call_id}")

    async def _answer(self, record: TelnyxRecord, answer: asyncio.Task[Accept | Declined]) -> None:
        await self._carry_out(record, await answer)

    async def _carry_out(self, record: TelnyxRecord, decision: Accept | Declined) -> None:
        """Tell Telnyx what was decided about a call that came in."""
        ours, call = record.carrier_call_id, record.call
        if record.gone.is_set():
            return  # the caller was faster
        try:
            if isinstance(decision, Accept):
                stream = self.stream_fields(record, 1) if self._streams_at_once else {}
                await self._command(record, "answer", {**stream, **self._callback(record)})
            elif isinstance(decision, Say):
                self._sayings[ours] = decision
                await self._command(record, "answer", self._callback(record))
            else:
                reason = decision.reason if isinstance(decision, Reject) else "rejected"
                await self._command(record, "reject", {"cause": _CAUSES[reason]})
        except CarrierError as exc:
            self._sayings.pop(ours, None)
            if exc.carrier_code == HAS_ENDED:
                record.gone.set()
            logger.warning("%s", exc)
            if call is not None:
                call.end("caller_hangup" if record.gone.is_set() else "failed", str(exc))

    async def _command(self, record: TelnyxRecord, action: str, fields: dict[str, Any]) -> None:
        fields["command_id"] = f"{record.call_id}-{action}-{record.asked}"
        await self._rest.command(record.carrier_call_id, action, fields)

    def _callback(self, record: TelnyxRecord) -> dict[str, Any]:
        return {"webhook_url": record.site.url("voice", call=record.call_id)} if record.site.public else {}

    def _of_nobody(self, call_id: UUID, event: CallEvent) -> None:
        """Something happened to a call that is not here: it was declined, is over, or its gateway is gone."""
        ours = event.payload.call_control_id
        say = self._sayings.get(ours)
        if event.event_type == "call.hangup":
            self._sayings.pop(ours, None)
            if self._finished.get(call_id) is None:
                self._finished.add(call_id, self._over())  # its beginning may come yet
        elif event.event_type == "call.answered" and say is not None:
            self._spawn(self._say(ours, say), f"tell {call_id}")
        elif event.event_type == "call.speak.ended" and say is not None:
            del self._sayings[ours]
            self._spawn(self._quietly(self._rest.hangup(ours)), f"hang up {call_id}")
        elif event.leaves_alone:
            apology = self._finished.get(call_id)
            if isinstance(apology, Say):  # nobody goes on with it
                self._finished.add(call_id, self._over())
                self._sayings[ours] = apology
                self._spawn(self._say(ours, apology), f"tell {call_id}")

    async def _say(self, carrier_call_id: str, say: Say) -> None:
        fields = {
            "payload": say.text,
            "voice": "female",
            "language": say.language,
            "command_id": f"{call_id_of(carrier_call_id)}-speak",  # once, however often its reason is told
        }
        try:
            await self._rest.command(carrier_call_id, "speak", fields)
        except CarrierError as exc:
            logger.warning("%s", exc)
            await self._quietly(self._rest.hangup(carrier_call_id))

    # A call that is here.

    def _happened(self, record: TelnyxRecord, event: CallEvent) -> None:
        payload, call = event.payload, record.call
        ours = not record.carrier_call_id or payload.call_control_id in ("", record.carrier_call_id)
        if not ours:
            self._other_leg(record, event)
            return
        record.leg_id = payload.call_leg_id or record.leg_id
        match event.event_type:
            case "call.initiated":  # there is no other news of the ringing
                record.progressed("ringing", payload.call_control_id)
            case "call.answered":
                self._answered(record, payload)
            case "call.bridged" if record.transfer is not None and call is not None:
                call.end("transferred")
            case "call.bridged":
                self.on_bridged(record.call_id)
            case "call.hangup":
                self._hung_up(record, payload)
            case "streaming.failed":
                self._failed(record, payload)
            case "call.playback.ended" if call is not None and call.state == "moving":
                self.on_played(record, payload)
            case _ if event.leaves_alone and call is not None and (call.state == "lost" or record.wants_back):
                self._reopen(record)
            case _:
                self._reports.take(record, event)

    def _answered(self, record: TelnyxRecord, payload: Payload) -> None:
        say = self._sayings.get(record.carrier_call_id)
        if say is not None:
            self._spawn(self._say(record.carrier_call_id, say), f"tell {record.call_id}")
            return
        record.progressed("answered", payload.call_control_id)
        call = record.call
        if not self._streams_at_once and call is not None and call.metadata.direction == "inbound":
            self._spawn(self._open_stream(record, call), f"stream 1 of {record.call_id}")

    def _hung_up(self, record: TelnyxRecord, payload: Payload) -> None:
        record.progressed("dialling", payload.call_control_id)  # at least that far it has come
        record.gone.set()
        self._sayings.pop(record.carrier_call_id, None)
        call = record.call
        if call is None:
            if record.answer is not None:  # it is still being decided about
                record.answer.cancel()
            self._finish(record, self._over())
            return
        self._end_of(record, call, payload)
        self._reports.over(record)

    def _end_of(self, record: TelnyxRecord, call: Call, payload: Payload) -> None:
        code = payload.sip_hangup_cause or ""
        detail = f"SIP {code}" if code.isdecimal() and code != "200" else ""
        if record.transfer is not None and call.state == "moving":
            call.end("caller_hangup", "during the transfer")
        elif call.generation == 0 and call.metadata.direction == "outbound" and call.voip.progress != "answered":
            call.end(payload.end_reason, detail)
        else:
            call.end("never_connected" if call.generation == 0 else "caller_hangup", detail)

    def _other_leg(self, record: TelnyxRecord, event: CallEvent) -> None:
        """Something happened to the one whom the caller is being connected to."""
        transfer, call = record.transfer, record.call
        if transfer is None or call is None:
            return
        if event.event_type == "call.bridged":
            call.end("transferred")
        elif event.event_type == "call.hangup":
            record.transfer = None
            if transfer.back_within_s is None:
                call.end("transfer_failed", event.payload.hangup_cause or "")
                return
            call.returned("transfer_failed")
            self.let_back(record)

    def _stream_stopped(self, record: TelnyxRecord, stopped: StreamStopped) -> None:
        if stopped.reason == "lost" or (stopped.reason == "moving" and record.wants_back):
            self._reopen(record)

    def _failed(self, record: TelnyxRecord, payload: Payload) -> None:
        """Telnyx could not open a stream, or lost it."""
        call = record.call
        logger.warning("call %s: Telnyx's stream failed: %.200s", record.call_id, payload.failure_reason)
        if call is None or call.state in ("ended", "live"):
            return
        if call.state == "moving" and record.asked <= call.generation:
            return  # no other one was asked for: it is the old one that has failed
        record.attempts += 1
        if record.attempts >= MAX_ATTEMPTS and call.generation == 0:
            call.end("never_connected", "Telnyx could not open the stream")
            return
        if record.attempts <= MAX_ATTEMPTS:
            record.asked = call.generation  # that one will never come
            self._reopen(record)
        elif call.state == "moving":
            call.end("lost", "Telnyx could not open the stream")

    def _reopen(self, record: TelnyxRecord) -> None:
        """Let Telnyx open the next stream, once."""
        call = record.call
        if call is None or call.state not in ("offered", "moving", "lost") or record.asked > call.generation:
            return
        if call.state != "offered" and not call.wants_stream():
            return
        record.wants_back = False
        record.asked = call.generation + 1
        self._spawn(self._open_stream(record, call), f"stream {record.asked} of {record.call_id}")

    async def _open_stream(self, record: TelnyxRecord, call: Call) -> None:
        fields = self.stream_fields(record, record.asked)
        if record.attempts:
            fields["command_id"] = f"{record.call_id}-{record.asked}-{record.attempts}"
        try:
            await self._rest.command(record.carrier_call_id, "streaming_start", fields)
        except CarrierError as exc:
            logger.warning("%s", exc)
            if exc.carrier_code == HAS_ENDED:
                record.gone.set()
                call.end("caller_hangup")
            elif call.state == "offered" and not exc.in_doubt:
                call.end("never_connected", str(exc))
            else:
                record.asked = call.generation  # it may be asked again when Telnyx says that the last one has stopped
                if call.state == "moving":
                    await self._try_again(record, call, exc)

    async def _try_again(self, record: TelnyxRecord, call: Call, refused: CarrierError) -> None:
        """Ask for the stream of a caller who comes back once more, as they hear nothing until then."""
        record.attempts += 1
        if record.attempts >= MAX_ATTEMPTS:
            call.end("lost", str(refused))
            return
        record.wants_back = True  # Telnyx may say first that the last one has stopped
        await self._clock.sleep(_AGAIN_S)
        if record.wants_back and call.state == "moving":
            self._reopen(record)

    def _ended(self, record: TelnyxRecord, end: CallEnd) -> None:
        """Our end of a call is not Telnyx's: it is told, unless it knows."""
        if record.deciding or end.reason in _STAYS or record.gone.is_set():
            return
        if not record.carrier_call_id:
            self._unwanted[record.call_id] = None
            return
        if self._closing:
            return
        self._spawn(self._make_sure(record, end.reason), f"hang up {record.call_id}")

    async def _make_sure(self, record: TelnyxRecord, reason: str) -> None:
        if reason == "caller_hangup":  # says the stream, and Telnyx will
            try:
                async with asyncio.timeout(_CONFIRM_S):
                    await record.gone.wait()
            except TimeoutError:
                logger.info("call %s: Telnyx does not say that it is over", record.call_id)
        if not record.gone.is_set():
            record.gone.set()
            await self._quietly(self._rest.hangup(record.carrier_call_id))

    async def _quietly(self, command: Any) -> None:
        try:
            await command
        except CarrierError as exc:
            logger.warning("%s", exc)

"""What happens to a call between its webhooks, its streams and its agent.

Everything here speaks of checked requests and typed messages; sockets and HTTP are the shells'.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, TypeVar
from uuid import UUID

from msgspec import Struct
from msgspec.structs import replace

from dialog.calls.feed import declined
from dialog.calls.publish import CallEvents
from dialog.clock import SYSTEM_CLOCK, Clock
from dialog.errors import DialogError, RemoteProtocolError, StateError, UserCodeError
from dialog.message import CallMetadata
from dialog.voip.admission import Accept, Decision, Declined, Document, NoWorker, Offer, Reject, Resolver, Say, Workers
from dialog.voip.call import Call, CallSettings
from dialog.voip.consults import take_expected
from dialog.voip.line import Line, Wire
from dialog.voip.peers import Orphan, Taker
from dialog.voip.twilio import twiml
from dialog.voip.twilio.commands import TwilioCommands
from dialog.voip.twilio.forms import FINAL_STATUSES, AfterForm, DialForm, VoiceForm, decode_form, metadata_of
from dialog.voip.twilio.inbox import Inbox
from dialog.voip.twilio.messages import Start
from dialog.voip.twilio.record import CallRecord, FinishedCalls, call_id_of
from dialog.voip.twilio.reports import Reports, end_reason, named_record
from dialog.voip.twilio.token import TOKEN_LIFE_S, StreamTokens
from dialog.voip.twilio.voip import TwilioVoIP
from dialog.voip.twilio.webhooks import Endpoint, Fields, Refusal, Response, Site, query_call, xml
from dialog.voip.voip import VoIP

__all__ = ["Switchboard", "SwitchboardSettings"]

logger = logging.getLogger(__name__)

ResultT = TypeVar("ResultT")

_OWN_PARAMETERS = ("call_id", "token", "node", "From", "To", "direction")
_MAX_ATTEMPTS = 2


class SwitchboardSettings(Struct, frozen=True, kw_only=True):
    """How calls are taken."""

    account_sid: str
    resolver: Resolver | None = None
    resolver_timeout_s: float = 3.0
    stream_parameters: tuple[str, ...] = ()
    """Webhook parameters that also travel with the stream."""
    call: CallSettings = CallSettings()
    error_text: str = "We are sorry, an error has occurred. Please call again later."
    error_language: str = "en-US"
    when_busy: Declined = Reject("busy")
    """What a caller is told when there is no worker for them, or the gateway takes no more calls."""
    close_timeout_s: float = 5.0


class Switchboard:
    """All calls of a gateway: admits them, joins their streams, and hands on what is reported of them."""

    def __init__(
        self,
        settings: SwitchboardSettings,
        commands: TwilioCommands,
        tokens: StreamTokens,
        on_voip: Callable[[TwilioVoIP], object],
        *,
        workers: Workers | None = None,
        events: CallEvents | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        """``on_voip`` is called with every call that is taken, unless there are ``workers`` to take it."""
        self.events: CallEvents = CallEvents() if events is None else events
        self._settings = settings
        self._commands = commands
        commands.record_of = lambda call: self._records.get(call.metadata.call_id)
        self._tokens = tokens
        self._on_voip = on_voip
        self._workers = workers
        self._clock = clock
        self._records: dict[UUID, CallRecord] = {}
        self.inbox = Inbox()
        self.reports: Reports = Reports(self._records)
        self._finished = FinishedCalls()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._closing = False
        self.draining = False
        """New calls are declined as when busy; those that are there go on."""

    @property
    def account_sid(self) -> str:
        """The account whose calls they are."""
        return self._settings.account_sid

    @property
    def call_sids(self) -> frozenset[str]:
        """What Twilio calls the calls that are here."""
        return frozenset(record.call_sid for record in self._records.values() if record.call_sid)

    @property
    def closing(self) -> bool:
        """No new calls are taken."""
        return self._closing

    @property
    def calls(self) -> tuple[Call, ...]:
        """The calls of which something is left, oldest first."""
        return tuple(record.call for record in self._records.values() if record.call is not None)

    def find(self, call: UUID | str) -> Call | None:
        """A call by its id, or by its CallSid."""
        if isinstance(call, UUID):
            record = self._records.get(call)
        else:
            record = self._records.get(call_id_of(call))
            if record is None:
                record = next((r for r in self._records.values() if r.call_sid == call), None)
        return record.call if record is not None else None

    def holds(self, call_id: UUID) -> bool:
        """Whether a call is here, or was within the last minutes."""
        return call_id in self._records or self._finished.get(call_id) is not None

    def check_account(self, fields: Fields) -> None:
        """Check that a request is of our account.

        Raises:
            Refusal: 403.
        """
        account = next((value for name, value in fields if name == "AccountSid"), "")
        if account and account != self._settings.account_sid:
            raise Refusal(403, "the request is of another account")

    async def respond(self, endpoint: Endpoint, fields: Fields, site: Site) -> Response:
        """Answer a checked webhook.

        Raises:
            Refusal: It lacks what it needs, or is of another account.
        """
        self.check_account(fields)
        try:
            match endpoint:
                case "voice":
                    return xml(await self._voice(fields, site))
                case "after":
                    return xml(self._after(fields))
                case "dial":
                    return xml(self._dial(fields))
                case "sms":
                    return xml(await self.inbox.receive(fields))
                case "media":
                    raise Refusal(400, "this is a WebSocket endpoint")
                case _:
                    self.reports.take(endpoint, fields)
        except RemoteProtocolError as exc:
            raise Refusal(400, str(exc)) from exc
        return Response()

    def join(self, start: Start, wire: Wire, site: Site) -> tuple[Call, Line]:
        """Connect a stream to its call, which may be unknown here: then its parameters suffice.

        Raises:
            RemoteProtocolError: It is of another account, its call is unknown or over, its token
                does not fit, or the call has or had this stream already.
        """
        detail = start.start
        parameters = detail.custom_parameters
        if detail.account_sid != self._settings.account_sid:
            raise RemoteProtocolError(f"call {detail.call_sid}: the stream is of another account")
        try:
            call_id = UUID(parameters.get("call_id", ""))
        except ValueError as exc:
            raise RemoteProtocolError(f"call {detail.call_sid}: the stream names no call of ours") from exc
        generation = self._tokens.verify(parameters.get("token", ""), call_id, node=parameters.get("node", ""))
        call = self._call_of(call_id, detail.call_sid, parameters, site)
        try:
            return call, call.join(wire, generation)
        except StateError as exc:
            raise RemoteProtocolError(str(exc)) from exc

    def outgoing(
        self,
        metadata: CallMetadata,
        site: Site,
        *,
        ring_s: float,
        on_voip: Callable[[TwilioVoIP], object] | None = None,
    ) -> CallRecord:
        """Create a call that is about to be placed, and offer it to ``on_voip``, or whoever takes calls here.

        Raises:
            StateError: There is or was such a call.
            UserCodeError: ``on_voip`` raised; the call has ended.
        """
        if self.holds(metadata.call_id):
            raise StateError(f"call {metadata.call_id}: there is or was a call of that id")
        record = CallRecord(metadata.call_id, "", site)
        record.listener = on_voip
        self._records[metadata.call_id] = record
        settings = self._settings.call
        self._take(record, metadata, settings=replace(settings, never_connected_s=settings.never_connected_s + ring_s))
        return record

    def document(self, record: CallRecord, generation: int = 1) -> str:
        """The TwiML that announces a stream of a call."""
        return self._document(record, generation)

    def record(self, call_id: UUID) -> CallRecord | None:
        """What is known of a call that is here."""
        return self._records.get(call_id)

    async def redirect(self, call_sid: str, document: str) -> None:
        """Let a call go on with another document.

        Raises:
            CarrierError: Twilio refused.
        """
        await self._commands.rest.redirect(call_sid, document)

    async def hang_up(self, call_sid: str) -> None:
        """Tell Twilio that a call is over.

        Raises:
            CarrierError: It could not be told.
        """
        await self._commands.rest.hangup(call_sid)

    async def adopt(self, orphan: Orphan, taker: Taker, site: Site) -> None:
        """Go on with a call that another gateway had; if ``taker`` fails, its caller is told so."""
        metadata = orphan.metadata
        record = CallRecord(metadata.call_id, metadata.carrier_call_id, site)
        self._records[metadata.call_id] = record
        try:
            self._take(record, metadata, taker=taker, generation=orphan.generation)
            if record.taken is not None:
                await asyncio.shield(record.taken)
        except (UserCodeError, NoWorker) as exc:
            self._abandon(record, "error", exc, self._apology())

    def give_up(self, call_id: UUID) -> None:
        """Nobody goes on with a call that another gateway had: tell its caller."""
        self._finished.add(call_id, self._apology())

    async def wait_idle(self, timeout_s: float) -> bool:
        """Wait until every call has ended, at most ``timeout_s`` of the calls' clock; whether that came."""
        try:
            async with asyncio.timeout(self._clock.real(timeout_s)):
                for call in self.calls:
                    await call.wait_ended()
        except TimeoutError:
            return False
        return True

    async def close(self) -> None:
        """End all calls and wait, within a bound, until nothing of them is left."""
        self._closing = True
        await self.inbox.close()
        calls = self.calls
        hangups = [
            asyncio.create_task(self._commands.hangup_quietly(call), name=f"hang up {call.metadata.call_id}")
            for call in calls
            if call.state not in ("ended", "offered")
        ]
        for call in calls:
            call.end("shutdown", "the gateway was closed")
        for task in self._tasks:
            task.cancel()
        waits = [asyncio.create_task(_let_go(call), name=f"close {call.metadata.call_id}") for call in calls]
        pending = [*hangups, *waits, *self._tasks]
        if pending:
            _, late = await asyncio.wait(pending, timeout=self._settings.close_timeout_s)
            for task in late:
                logger.error("%s did not end within %g s", task.get_name(), self._settings.close_timeout_s)
                task.cancel()
        self._records.clear()

    async def _voice(self, fields: Fields, site: Site) -> str:
        form = decode_form(VoiceForm, fields)
        outbound = form.direction.startswith("outbound")
        call_id = (query_call(fields) if outbound else None) or call_id_of(form.call_sid)
        record = self._records.get(call_id)
        if form.call_status in FINAL_STATUSES:  # somebody sends status callbacks here
            if record is not None and record.call is not None:
                record.call.end(end_reason(form.call_status, record.call))
            return twiml.hangup()
        if record is None:
            finished = self._finished.get(call_id)
            if finished is not None:
                return finished
            if self._closing:
                raise Refusal(503, "the gateway is closing")
            if self.draining:
                return _declined(self._settings.when_busy)
            record = CallRecord(call_id, form.call_sid, site)
            self._records[call_id] = record
            record.answer = self._spawn(self._admit(record, form, fields), f"admit {call_id}")
        elif record.call is not None and record.call.state == "ended":
            return self._finished.get(call_id) or twiml.hangup()
        elif outbound:
            record.progressed("answered", form.call_sid)
        assert record.answer is not None or record.call is not None
        if record.answer is None:  # the stream was here first
            return self._document(record, 1)
        try:
            return await asyncio.shield(record.answer)
        except asyncio.CancelledError:
            if not record.answer.cancelled():
                raise  # it is this request that was given up
            raise Refusal(503, "the gateway is closing") from None

    async def _admit(self, record: CallRecord, form: VoiceForm, fields: Fields) -> str:
        try:
            return await self._decide(record, form, fields)
        except Exception:  # whatever it was, the caller is told, and a repeated webhook is answered alike
            logger.exception("call %s: it could not be taken", record.call_id)
            return self._finish(record, self._apology())

    async def _decide(self, record: CallRecord, form: VoiceForm, fields: Fields) -> str:
        metadata = metadata_of(record.call_id, form, fields)
        decision = await self._resolve(Offer(metadata))
        if not isinstance(decision, Accept):
            declined(self.events, metadata, type(decision).__name__.lower())
            return self._finish(record, _declined(decision))
        if decision.session:
            metadata = replace(metadata, session=decision.session)
        try:
            call = self._take(record, metadata)
            if record.taken is not None:
                await asyncio.shield(record.taken)
        except UserCodeError as exc:
            return self._abandon(record, "error", exc, self._apology())
        except NoWorker as exc:
            return self._abandon(record, "no_worker", exc, _declined(self._settings.when_busy))
        if call.state == "ended":
            return twiml.hangup()
        return self._document(record, 1)

    async def _resolve(self, offer: Offer) -> Decision:
        settings = self._settings
        if settings.resolver is None:
            return Accept()
        call_id = offer.metadata.call_id
        apology = Say(settings.error_text, settings.error_language)
        try:
            async with asyncio.timeout(settings.resolver_timeout_s):
                decision: object = await settings.resolver(offer)
        except TimeoutError:
            logger.error("call %s: the resolver took more than %g s", call_id, settings.resolver_timeout_s)  # noqa: TRY400
            return apology
        except Exception:
            logger.exception("call %s: the resolver raised", call_id)
            return apology
        if isinstance(decision, Accept | Reject | Say | Document):
            return decision
        logger.error("call %s: the resolver returned %r instead of a decision", call_id, type(decision))
        return apology

    def _take(
        self,
        record: CallRecord,
        metadata: CallMetadata,
        *,
        taker: Taker | None = None,
        generation: int = 0,
        settings: CallSettings | None = None,
    ) -> Call:
        """Create the call and offer it to the agent, or to ``taker`` after it has had streams elsewhere.

        Raises:
            UserCodeError: ``on_voip`` raised; the call has ended and every further request is told so.
        """
        allowed = [(name, metadata.parameter(name)) for name in self._settings.stream_parameters]
        record.parameters = (
            ("From", metadata.from_),
            ("To", metadata.to),
            ("direction", metadata.direction),
            *((name, value) for name, value in allowed if value and name not in _OWN_PARAMETERS),
        )
        call = Call(
            metadata,
            self._commands,
            settings=settings or self._settings.call,
            clock=self._clock,
            voip_class=TwilioVoIP,
            events=self.events,
            on_closed=self._forget,
            generation=generation,
            dialling=metadata.direction == "outbound" and not metadata.carrier_call_id,
        )
        record.call = call
        logger.info("call %s: %s call %s", call.metadata.call_id, metadata.direction, metadata.carrier_call_id)
        try:
            call.offer(partial(self._offer, record, taker))
        except UserCodeError as exc:
            self._abandon(record, "error", exc, self._apology())
            raise
        return call

    def _offer(self, record: CallRecord, taker: Taker | None, voip: VoIP) -> None:
        assert isinstance(voip, TwilioVoIP)
        if taker is not None:
            record.taken = taker(voip)
        elif (listener := take_expected(record.call_id) or record.listener) is not None:
            listener(voip)
        elif self._workers is not None:
            record.taken = self._workers.take(voip)
        else:
            self._on_voip(voip)

    def _abandon(self, record: CallRecord, reason: str, error: DialogError, document: str) -> str:
        """Nobody takes the call: end it, and answer every further request of it alike."""
        if self._finished.get(record.call_id) is None:
            logger.error("call %s: %s", record.call_id, error, exc_info=error.__cause__)
            self._finished.add(record.call_id, document)
        if record.call is not None:
            record.call.end(reason, str(error))
        return document

    def _document(self, record: CallRecord, generation: int) -> str:
        """The TwiML that announces a stream; the same whenever it is asked for."""
        document = record.documents.get(generation)
        if document is None:
            site, call_id = record.site, record.call_id
            settings = self._settings.call if record.call is None else record.call.settings
            life_s = max(TOKEN_LIFE_S, settings.never_connected_s) if generation == 1 else TOKEN_LIFE_S
            token = self._tokens.sign(call_id, generation, node=site.node, life_s=life_s)
            node = (("node", site.node),) if site.node else ()
            document = record.documents[generation] = twiml.connect_stream(
                site.media,
                action=site.url("after", call=call_id, generation=generation),
                status_callback=site.url("stream", call=call_id),
                parameters=(("call_id", str(call_id)), ("token", token), *node, *record.parameters),
            )
        return document

    def _after(self, fields: Fields) -> str:
        """A stream has ended; what shall Twilio do now?"""
        form = decode_form(AfterForm, fields)
        call_id, record = named_record(self._records, fields)
        call = record.call if record is not None else None
        if record is None or call is None:
            return (self._finished.get(call_id) if call_id else None) or twiml.hangup()
        text = next((value for name, value in fields if name == "generation"), "")
        generation = int(text) if text.isdecimal() and len(text) < 10 else call.generation
        if form.call_status in FINAL_STATUSES:
            call.end(end_reason(form.call_status, call))
        if call.state == "ended":
            return self._finished.get(record.call_id) or twiml.hangup()
        if generation < call.generation:
            return self._document(record, call.generation)  # delivered again, or late
        if call.state == "offered":
            record.attempts += 1
            if record.attempts > _MAX_ATTEMPTS:
                call.end("never_connected", "Twilio could not open the stream")
                return twiml.hangup()
        if call.state == "live":
            # Twilio knows before we do that the socket is gone.
            call.stream_closed(call.line)
        if not call.wants_stream():
            return twiml.hangup()
        return self._document(record, call.generation + 1)

    def _dial(self, fields: Fields) -> str:
        """A transfer failed, or its conversation is over."""
        form = decode_form(DialForm, fields)
        call_id, record = named_record(self._records, fields)
        call = record.call if record is not None else None
        if record is None or call is None or call.state == "ended":
            return (self._finished.get(call_id) if call_id else None) or twiml.hangup()
        held = any(name == "held" for name, _ in fields)
        if form.dial_call_status in ("completed", "answered") and not held:
            call.end("transferred")
            return twiml.hangup()
        if form.call_status in FINAL_STATUSES:
            call.end(end_reason(form.call_status, call))
            return twiml.hangup()
        if not held and not any(name == "back" for name, _ in fields):
            call.end("transfer_failed", form.dial_call_status)
            return twiml.hangup()
        call.returned("transfer_failed")
        if not call.wants_stream():
            return twiml.hangup()
        return self._document(record, call.generation + 1)

    def _call_of(self, call_id: UUID, call_sid: str, parameters: dict[str, str], site: Site) -> Call:
        record = self._records.get(call_id)
        outbound = parameters.get("direction") == "outbound"
        if record is not None:
            if record.call is None or record.call_sid not in ("", call_sid):
                raise RemoteProtocolError(f"call {call_id}: a stream of another call, {call_sid}, came with its token")
            record.progressed("answered", call_sid)
            return record.call
        if self._finished.get(call_id) is not None:
            raise RemoteProtocolError(f"call {call_id}: its stream came after its end")
        if self._closing or (not outbound and call_id_of(call_sid) != call_id):
            raise RemoteProtocolError(f"call {call_id}: unknown here, and {call_sid} is not its id")
        # The webhook was answered by another process; the token proves that the call was accepted.
        record = CallRecord(call_id, call_sid, site)
        self._records[call_id] = record
        metadata = CallMetadata(
            call_id=call_id,
            carrier="twilio",
            carrier_call_id=call_sid,
            account_id=self._settings.account_sid,
            from_=parameters.get("From", ""),
            to=parameters.get("To", ""),
            direction="outbound" if outbound else "inbound",
            parameters=tuple((name, value) for name, value in parameters.items() if name != "token"),
        )
        try:
            return self._take(record, metadata)
        except UserCodeError as exc:
            raise RemoteProtocolError(f"call {call_id}: nobody took it") from exc

    def _apology(self) -> str:
        return twiml.say(self._settings.error_text, language=self._settings.error_language)

    def _finish(self, record: CallRecord, document: str) -> str:
        self._records.pop(record.call_id, None)
        self._finished.add(record.call_id, document)
        return document

    def _forget(self, call: Call) -> None:
        call_id = call.metadata.call_id
        if self._records.pop(call_id, None) is not None and self._finished.get(call_id) is None:
            self._finished.add(call_id, twiml.hangup())

    def _spawn(self, work: Coroutine[Any, Any, ResultT], name: str) -> asyncio.Task[ResultT]:
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _declined(decision: Declined) -> str:
    match decision:
        case Reject(reason):
            return twiml.reject(reason)
        case Say(text, language):
            return twiml.say(text, language=language)
        case _:
            return decision.text


async def _let_go(call: Call) -> None:
    """Wait until nothing of a call is left, without the time that late callbacks would have had."""
    for participant in call.scope.members:
        participant.dispose()
    await call.wait_closed()

"""What happens to a call between its webhooks, its streams and its agent, whoever carries it.

Everything here speaks of checked requests and typed messages; sockets and HTTP are the shells'. What a
carrier is told to do with a call, an *answer*, is its own: a document in TwiML, or a decision that commands carry out.
"""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine
from contextlib import suppress
from functools import partial
from typing import Any, ClassVar, Generic, Protocol, TypeVar
from uuid import UUID

from msgspec import Struct
from msgspec.structs import replace

from dialog.calls.feed import declined
from dialog.calls.publish import CallEvents
from dialog.clock import SYSTEM_CLOCK, Clock
from dialog.errors import DialogError, RemoteProtocolError, StateError, UserCodeError
from dialog.message import MULAW_8K, AudioFormat, CallMetadata
from dialog.voip.admission import Accept, Declined, NoWorker, Offer, Reject, Resolver, Say, Workers, decide
from dialog.voip.call import Call, CallSettings, CarrierCommands
from dialog.voip.carrier.http import Endpoint, Fields, Response, Site
from dialog.voip.carrier.record import AnswerT, CallRecord, FinishedCalls, call_id_of
from dialog.voip.carrier.start import StreamStart
from dialog.voip.carrier.token import TOKEN_LIFE_S, StreamTokens
from dialog.voip.closing import wait_idle, wait_over
from dialog.voip.consults import take_expected
from dialog.voip.line import Line, Wire
from dialog.voip.peers import Adoption, Orphan, Taker
from dialog.voip.voip import VoIP

__all__ = ["PhoneCommands", "Switchboard", "SwitchboardSettings"]

logger = logging.getLogger(__name__)

ResultT = TypeVar("ResultT")
RecordT = TypeVar("RecordT", bound=CallRecord[Any])

_OWN_PARAMETERS = ("call_id", "token", "node", "From", "To", "direction")
MAX_ATTEMPTS = 2
"""How often a carrier may fail to open the first stream of a call."""


class SwitchboardSettings(Struct, frozen=True, kw_only=True):
    """How calls are taken."""

    account_id: str
    audio_format: AudioFormat = MULAW_8K
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


class PhoneCommands(CarrierCommands, Protocol):
    """What a gateway does for its calls at the carrier, and when it closes."""

    async def hangup_quietly(self, call: Call) -> None:
        """Tell the carrier that a call is over; a failure is only logged."""

    async def close(self) -> None:
        """Wait for what is under way, which has its own bound, and close the connections."""


class Switchboard(ABC, Generic[RecordT, AnswerT]):
    """All calls of a gateway: admits them, joins their streams, and hands on what is reported of them."""

    carrier: ClassVar[str]
    """As :attr:`CallMetadata.carrier` has it."""
    voip_class: ClassVar[type[VoIP]]

    def __init__(
        self,
        settings: SwitchboardSettings,
        commands: PhoneCommands,
        tokens: StreamTokens,
        on_voip: Callable[[Any], object],
        *,
        workers: Workers | None = None,
        events: CallEvents | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        """``on_voip`` is called with every call that is taken, unless there are ``workers`` to take it."""
        self.events: CallEvents = CallEvents() if events is None else events
        self._settings = settings
        self._commands = commands
        self._tokens = tokens
        self._on_voip = on_voip
        self._workers = workers
        self._clock = clock
        self._records: dict[UUID, RecordT] = {}
        self._finished = FinishedCalls[AnswerT]()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._closing = False
        self.draining = False
        """New calls are declined as when busy; those that are there go on."""

    @property
    def account_id(self) -> str:
        """The account whose calls they are."""
        return self._settings.account_id

    @property
    def carrier_call_ids(self) -> frozenset[str]:
        """What the carrier calls the calls that are here."""
        return frozenset(record.carrier_call_id for record in self._records.values() if record.carrier_call_id)

    @property
    def closing(self) -> bool:
        """No new calls are taken."""
        return self._closing

    @property
    def call_settings(self) -> CallSettings:
        """Bounds of its calls."""
        return self._settings.call

    @property
    def calls(self) -> tuple[Call, ...]:
        """The calls of which something is left, oldest first."""
        return tuple(record.call for record in self._records.values() if record.call is not None)

    def find(self, call: UUID | str) -> Call | None:
        """A call by its id, or by the carrier's."""
        if isinstance(call, UUID):
            record = self._records.get(call)
        else:
            record = self._records.get(call_id_of(call))
            if record is None:
                record = next((r for r in self._records.values() if r.carrier_call_id == call), None)
        return record.call if record is not None else None

    def record(self, call_id: UUID) -> RecordT | None:
        """What is known of a call that is here."""
        return self._records.get(call_id)

    def record_of(self, call: Call) -> RecordT | None:
        """Likewise, for the commands."""
        return self._records.get(call.metadata.call_id)

    def holds(self, call_id: UUID) -> bool:
        """Whether a call is here, or was within the last minutes."""
        return call_id in self._records or self._finished.get(call_id) is not None

    def check_account(self, fields: Fields) -> None:  # a carrier's requests may not name one
        """Check that a request is of our account.

        Raises:
            Refusal: 403.
        """

    @abstractmethod
    async def respond(self, endpoint: Endpoint, fields: Fields, site: Site) -> Response:
        """Answer a checked webhook.

        Raises:
            Refusal: It lacks what it needs, or is of another account.
        """

    @abstractmethod
    async def hang_up(self, carrier_call_id: str) -> None:
        """Tell the carrier that a call is over.

        Raises:
            CarrierError: It could not be told.
        """

    @abstractmethod
    def _new_record(self, call_id: UUID, carrier_call_id: str, site: Site) -> RecordT:
        """Begin to know about a call."""

    @abstractmethod
    def _taken(self, record: RecordT) -> AnswerT:
        """The answer for a call that was taken: connect its first stream."""

    @abstractmethod
    def _declined(self, decision: Declined) -> AnswerT:
        """The answer for a call that is not taken."""

    @abstractmethod
    def _over(self) -> AnswerT:
        """The answer for a call that has ended."""

    def join(self, start: StreamStart, wire: Wire, site: Site) -> tuple[Call, Line]:
        """Connect a stream to its call, which may be unknown here: then its parameters suffice.

        Raises:
            RemoteProtocolError: It is of another account, its call is unknown or over, its token
                does not fit, or the call has or had this stream already.
        """
        parameters = start.parameters
        if start.account_id and start.account_id != self._settings.account_id:
            raise RemoteProtocolError(f"call {start.carrier_call_id}: the stream is of another account")
        try:
            call_id = UUID(parameters.get("call_id", ""))
        except ValueError as exc:
            raise RemoteProtocolError(f"call {start.carrier_call_id}: the stream names no call of ours") from exc
        generation = self._tokens.verify(parameters.get("token", ""), call_id, node=parameters.get("node", ""))
        call = self._call_of(call_id, start, site)
        if start.audio_format != call.voip.audio_format:
            raise RemoteProtocolError(
                f"call {call_id}: the stream has {start.audio_format} instead of {call.voip.audio_format}"
            )
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
        on_voip: Callable[[Any], object] | None = None,
    ) -> RecordT:
        """Create a call that is about to be placed, and offer it to ``on_voip``, or whoever takes calls here.

        Raises:
            StateError: There is or was such a call.
            UserCodeError: ``on_voip`` raised; the call has ended.
        """
        if self.holds(metadata.call_id):
            raise StateError(f"call {metadata.call_id}: there is or was a call of that id")
        record = self._new_record(metadata.call_id, "", site)
        record.listener = on_voip
        self._records[metadata.call_id] = record
        settings = self._settings.call
        self._take(record, metadata, settings=replace(settings, never_connected_s=settings.never_connected_s + ring_s))
        return record

    async def adopt(self, orphan: Orphan, adoption: Adoption, site: Site) -> None:
        """Go on with a call that another gateway had; if its taker fails, its caller is told so."""
        metadata = adoption.metadata
        record = self._new_record(metadata.call_id, metadata.carrier_call_id, site)
        self._records[metadata.call_id] = record
        try:
            self._take(record, metadata, taker=adoption.take, generation=orphan.generation)
            if record.taken is not None:
                await asyncio.shield(record.taken)
        except (UserCodeError, NoWorker) as exc:
            self._abandon(record, "error", exc, self._apology())

    def give_up(self, call_id: UUID) -> None:
        """Nobody goes on with a call that another gateway had: tell its caller."""
        self._finished.add(call_id, self._apology())

    async def wait_idle(self, timeout_s: float) -> bool:
        """Wait until every call has ended, at most ``timeout_s`` of the calls' clock; whether that came."""
        return await wait_idle(self.calls, self._clock, timeout_s)

    async def close(self) -> None:
        """End all calls and wait, within a bound, until nothing of them is left."""
        self._closing = True
        calls = self.calls
        hangups = [
            asyncio.create_task(self._commands.hangup_quietly(call), name=f"hang up {call.metadata.call_id}")
            for call in calls
            if self._must_be_told(call)
        ]
        for call in calls:
            call.end("shutdown", "the gateway was closed")
        for task in self._tasks:
            task.cancel()
        told_s = self._settings.close_timeout_s / 2
        waits = [asyncio.create_task(_let_go(call, told_s), name=f"close {call.metadata.call_id}") for call in calls]
        await wait_over((*hangups, *waits, *self._tasks), self._settings.close_timeout_s)
        self._records.clear()

    def _must_be_told(self, call: Call) -> bool:
        """Whether the carrier would keep a call that is here, if it were not told when we close."""
        if call.state == "offered":  # one that came in finds no stream, but one that rings would be answered
            return call.metadata.direction == "outbound"
        return call.state != "ended"

    async def _admit(self, record: RecordT, metadata: CallMetadata, audio_format: AudioFormat | None = None) -> AnswerT:
        """Decide about a call that has come in; never raises. Its audio is as configured, or as its stream has it."""
        try:
            return await self._decide(record, metadata, audio_format)
        except Exception:  # whatever it was, the caller is told, and a repeated webhook is answered alike
            logger.exception("call %s: it could not be taken", record.call_id)
            return self._finish(record, self._apology())

    async def _decide(self, record: RecordT, metadata: CallMetadata, audio_format: AudioFormat | None) -> AnswerT:
        decision = await decide(self._settings.resolver, Offer(metadata), self._settings.resolver_timeout_s)
        if decision is None:
            decision = Say(self._settings.error_text, self._settings.error_language)
        if not isinstance(decision, Accept):
            declined(self.events, metadata, type(decision).__name__.lower())
            return self._finish(record, self._declined(decision))
        if decision.session:
            metadata = replace(metadata, session=decision.session)
        try:
            call = self._take(record, metadata, audio_format=audio_format)
            if record.taken is not None:
                await asyncio.shield(record.taken)
        except UserCodeError as exc:
            return self._abandon(record, "error", exc, self._apology())
        except NoWorker as exc:
            return self._abandon(record, "no_worker", exc, self._declined(self._settings.when_busy))
        if call.state == "ended":
            return self._over()
        return self._taken(record)

    def _take(
        self,
        record: RecordT,
        metadata: CallMetadata,
        *,
        taker: Taker | None = None,
        generation: int = 0,
        settings: CallSettings | None = None,
        audio_format: AudioFormat | None = None,
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
            voip_class=self.voip_class,
            audio_format=audio_format or self._settings.audio_format,
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

    def _offer(self, record: RecordT, taker: Taker | None, voip: VoIP) -> None:
        if taker is not None:
            record.taken = taker(voip)
        elif (listener := take_expected(record.call_id) or record.listener) is not None:
            listener(voip)
        elif self._workers is not None:
            record.taken = self._workers.take(voip)
        else:
            self._on_voip(voip)

    def _abandon(self, record: RecordT, reason: str, error: DialogError, answer: AnswerT) -> AnswerT:
        """Nobody takes the call: end it, and answer every further request of it alike."""
        if self._finished.get(record.call_id) is None:
            logger.error("call %s: %s", record.call_id, error, exc_info=error.__cause__)
            self._finished.add(record.call_id, answer)
        if record.call is not None:
            record.call.end(reason, str(error))
        return answer

    def _stream_parameters(self, record: RecordT, generation: int) -> tuple[tuple[str, str], ...]:
        """What travels with a stream of a call, so that it finds the call in whatever process."""
        site, call_id = record.site, record.call_id
        settings = self._settings.call if record.call is None else record.call.settings
        life_s = max(TOKEN_LIFE_S, settings.never_connected_s) if generation == 1 else TOKEN_LIFE_S
        token = self._tokens.sign(call_id, generation, node=site.node, life_s=life_s)
        node = (("node", site.node),) if site.node else ()
        return (("call_id", str(call_id)), ("token", token), *node, *record.parameters)

    def _call_of(self, call_id: UUID, start: StreamStart, site: Site) -> Call:
        record, carrier_call_id, parameters = self._records.get(call_id), start.carrier_call_id, start.parameters
        outbound = parameters.get("direction") == "outbound"
        if record is not None:
            if record.call is None or record.carrier_call_id not in ("", carrier_call_id):
                raise RemoteProtocolError(
                    f"call {call_id}: a stream of another call, {carrier_call_id}, came with its token"
                )
            record.progressed("answered", carrier_call_id)
            return record.call
        if self._finished.get(call_id) is not None:
            raise RemoteProtocolError(f"call {call_id}: its stream came after its end")
        if self._closing or (not outbound and call_id_of(carrier_call_id) != call_id):
            raise RemoteProtocolError(f"call {call_id}: unknown here, and {carrier_call_id} is not its id")
        # The webhook was answered by another process; the token proves that the call was accepted.
        record = self._new_record(call_id, carrier_call_id, site)
        self._records[call_id] = record
        metadata = CallMetadata(
            call_id=call_id,
            carrier=self.carrier,
            carrier_call_id=carrier_call_id,
            account_id=self._settings.account_id,
            from_=parameters.get("From", start.from_),
            to=parameters.get("To", start.to),
            direction="outbound" if outbound else "inbound",
            parameters=tuple((name, value) for name, value in parameters.items() if name != "token"),
        )
        try:
            return self._take(record, metadata)
        except UserCodeError as exc:
            raise RemoteProtocolError(f"call {call_id}: nobody took it") from exc

    def _apology(self) -> AnswerT:
        return self._declined(Say(self._settings.error_text, self._settings.error_language))

    def _finish(self, record: RecordT, answer: AnswerT) -> AnswerT:
        self._records.pop(record.call_id, None)
        self._finished.add(record.call_id, answer)
        return answer

    def _forget(self, call: Call) -> None:
        call_id = call.metadata.call_id
        if self._records.pop(call_id, None) is not None and self._finished.get(call_id) is None:
            self._finished.add(call_id, self._over())

    def _spawn(self, work: Coroutine[Any, Any, ResultT], name: str) -> asyncio.Task[ResultT]:
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


async def _let_go(call: Call, told_s: float) -> None:
    """Wait until nothing of a call is left, without the time that late callbacks would have had."""
    with suppress(TimeoutError):
        async with asyncio.timeout(told_s):
            await call.wait_told()
    for participant in call.scope.members:
        participant.dispose()
    await call.wait_closed()

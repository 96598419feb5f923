"""Calls that a gateway places: one after another as the account allows, and each exactly once."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

from msgspec import Struct

from dialog.clock import Clock
from dialog.errors import CarrierError, ConfigurationError, LimitError, StateError, UserCodeError
from dialog.message import CallMetadata
from dialog.sms.sms import check_e164
from dialog.voip.admission import NoWorker
from dialog.voip.answering import AnswerWatch, MachineDetection
from dialog.voip.pacing import CallPacer, Pacing
from dialog.voip.twilio.placing import PlacedCalls, Placement
from dialog.voip.twilio.record import CallRecord
from dialog.voip.twilio.switchboard import Switchboard
from dialog.voip.twilio.voip import TwilioVoIP
from dialog.voip.twilio.webhooks import Site

__all__ = ["MAX_RING_S", "OutboundCalls", "OutgoingCall"]

logger = logging.getLogger(__name__)

MAX_RING_S: Final = 600.0
_DOUBT_S: Final = 5.0
"""How long a call of which Twilio's answer was lost may take to give a sign."""
_REFUSALS: Final = 8
"""A call that was refused so often for too many requests is given up."""
_DIGITS: Final = frozenset("0123456789ABCD#*wW")


class OutgoingCall(Struct, frozen=True, kw_only=True):
    """A call that somebody wants.

    Raises:
        ConfigurationError: It cannot be placed like this.
    """

    to: str
    from_: str
    ring_s: float = 30.0
    detection: MachineDetection | None = None
    send_digits: str = ""
    parameters: tuple[tuple[str, str], ...] = ()
    session: str = ""
    call_id: UUID

    def __post_init__(self) -> None:
        for number in (self.to, self.from_):
            if not number.startswith(("sip:", "client:")):
                check_e164(number)
        if not 5 <= self.ring_s <= MAX_RING_S:
            raise ConfigurationError(f"ring_s must be 5 to {MAX_RING_S:g}, got {self.ring_s:g}")
        if set(self.send_digits) - _DIGITS or len(self.send_digits) > 32:
            raise ConfigurationError("send_digits may be up to 32 of 0-9 A-D # * w W")
        if self.send_digits and self.detection is not None:
            raise ConfigurationError("with send_digits Twilio detects no machines: use one of both")

    def __repr__(self) -> str:
        return f"<OutgoingCall {self.call_id}>"


class OutboundCalls:
    """Places the calls of one gateway."""

    def __init__(self, switchboard: Switchboard, placed: PlacedCalls, pacing: Pacing, clock: Clock) -> None:
        self.placed = placed
        self._switchboard = switchboard
        self._pacer = CallPacer(pacing, clock)
        self._clock = clock

    async def place(
        self,
        wanted: OutgoingCall,
        site: Site,
        *,
        on_voip: Callable[[TwilioVoIP], object] | None = None,
        before: Callable[[], Awaitable[None]] | None = None,
    ) -> TwilioVoIP:
        """Place a call; its VoIP is offered to the agent first, ``before`` is awaited right before Twilio is asked.

        Raises:
            CarrierError: Twilio refused. With ``in_doubt`` it may ring all the same.
            LimitError: The account is at its limits for longer than the pacing allows.
            NoWorker: No worker has room for its agent.
            UserCodeError: ``on_voip`` raised.
            StateError: The gateway takes no calls any more.
        """
        if self._switchboard.closing or self._switchboard.draining:
            raise StateError("the gateway takes no more calls")
        turn = await self._pacer.turn()
        try:
            return await self._place(wanted, site, turn, on_voip, before)
        except BaseException:
            self._pacer.over(turn)
            raise

    async def _place(
        self,
        wanted: OutgoingCall,
        site: Site,
        turn: int,
        on_voip: Callable[[TwilioVoIP], object] | None,
        before: Callable[[], Awaitable[None]] | None,
    ) -> TwilioVoIP:
        switchboard = self._switchboard
        metadata = CallMetadata(
            call_id=wanted.call_id,
            carrier="twilio",
            account_id=switchboard.account_sid,
            from_=wanted.from_,
            to=wanted.to,
            direction="outbound",
            parameters=wanted.parameters,
            session=wanted.session,
        )
        record = switchboard.outgoing(metadata, site, ring_s=wanted.ring_s, on_voip=on_voip)
        call = record.call
        assert call is not None
        voip = call.voip
        assert isinstance(voip, TwilioVoIP)
        call.on_ended(lambda: self._pacer.over(turn))
        try:
            with call.scope.entered():
                record.watch = AnswerWatch(voip, wanted.detection)
            if record.taken is not None:
                await asyncio.shield(record.taken)
            if call.state == "ended":
                raise StateError(f"call {wanted.call_id}: it was ended before it was placed")  # noqa: TRY301
            placement = Placement(
                to=wanted.to,
                from_=wanted.from_,
                twiml=switchboard.document(record),
                url=site.url("voice", call=wanted.call_id),
                status_url=site.url("status", call=wanted.call_id),
                verdict_url=site.url("verdict", call=wanted.call_id),
                ring_s=wanted.ring_s,
                detection=wanted.detection,
                send_digits=wanted.send_digits,
            )
            await self._ask(record, placement, turn, before)
        except (CarrierError, LimitError) as exc:
            call.end("failed", str(exc))
            raise
        except (NoWorker, UserCodeError) as exc:
            call.end("no_worker" if isinstance(exc, NoWorker) else "error", str(exc))
            raise
        except BaseException:
            # Whoever waited is gone. If Twilio has the call by now, it is told to hang up when it comes.
            call.end("canceled", "nobody waits for it any more")
            raise
        return voip

    async def _ask(
        self, record: CallRecord, placement: Placement, turn: int, before: Callable[[], Awaitable[None]] | None
    ) -> None:
        call = record.call
        assert call is not None
        since = datetime.now(UTC)
        for attempt in range(1, _REFUSALS + 1):
            if before is not None:
                await before()
            try:
                record.progressed("dialling", await self.placed.place(placement))
            except CarrierError as exc:
                if exc.status in (429, 503) and attempt < _REFUSALS:
                    logger.info("call %s: Twilio has too many requests, trying again", record.call_id)
                    await self._pacer.again(turn, exc.retry_after_s)
                    continue
                if not exc.in_doubt:
                    raise
                await self._settle_doubt(record, placement, since, exc)
            self._pacer.accepted()
            break
        if call.state == "ended" and record.call_sid:
            # Somebody hung up while we asked.
            with suppress(CarrierError):
                await self._switchboard.hang_up(record.call_sid)

    async def _settle_doubt(
        self, record: CallRecord, placement: Placement, since: datetime, doubt: CarrierError
    ) -> None:
        """Twilio's answer was lost: the call tells by itself that it is there, or is looked up.

        Raises:
            CarrierError: It was not placed, or that cannot be found out.
        """
        try:
            async with asyncio.timeout(self._clock.real(_DOUBT_S)):
                await record.awaited.wait()
        except TimeoutError:
            try:
                found = await self.placed.find(
                    record.call_id,
                    to=placement.to,
                    from_=placement.from_,
                    since=since,
                    others=self._switchboard.call_sids,
                )
            except CarrierError:
                raise doubt from None
            if found is None:
                raise CarrierError(
                    "twilio",
                    str(record.call_id),
                    f"it was not placed ({doubt})",
                    status=doubt.status,
                    carrier_code=doubt.carrier_code,
                ) from doubt
            record.progressed("dialling", found.call_sid)

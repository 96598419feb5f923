"""Calls that a gateway places: one after another as the account allows, and each exactly once."""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Final, Generic, TypeVar
from uuid import UUID

from msgspec import Struct

from dialog.clock import Clock
from dialog.errors import CarrierError, ConfigurationError, LimitError, StateError, UserCodeError
from dialog.message import CallMetadata
from dialog.sms.sms import check_e164
from dialog.voip.admission import NoWorker
from dialog.voip.answering import AnswerWatch, MachineDetection
from dialog.voip.carrier.http import Site
from dialog.voip.carrier.switchboard import RecordT, Switchboard
from dialog.voip.pacing import CallPacer, Pacing
from dialog.voip.voip import VoIP

__all__ = ["MAX_RING_S", "OutboundCalls", "OutgoingCall"]

logger = logging.getLogger(__name__)

PlacementT = TypeVar("PlacementT")
"""What a carrier is asked for."""

MAX_RING_S: Final = 600.0
_DOUBT_S: Final = 5.0
"""How long a call of which the carrier's answer was lost may take to give a sign."""
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
            raise ConfigurationError("send_digits and machine_detection exclude each other: use one of both")

    def __repr__(self) -> str:
        return f"<OutgoingCall {self.call_id}>"


class OutboundCalls(ABC, Generic[RecordT, PlacementT]):
    """Places the calls of one gateway."""

    def __init__(self, switchboard: Switchboard[RecordT, Any], pacing: Pacing, clock: Clock) -> None:
        self.sharers: Callable[[], int] = lambda: 1
        """How many gateways place calls of the account, this one included."""
        self._switchboard = switchboard
        self._pacer = CallPacer(pacing, clock, self._shared_by)
        self._clock = clock

    def _shared_by(self) -> int:
        return self.sharers()

    async def place(
        self,
        wanted: OutgoingCall,
        site: Site,
        *,
        on_voip: Callable[[Any], object] | None = None,
        before: Callable[[], Awaitable[None]] | None = None,
    ) -> VoIP:
        """Place a call; its VoIP is offered to the agent first, ``before`` awaited right before the carrier is asked.

        Raises:
            CarrierError: The carrier refused. With ``in_doubt`` it may ring all the same.
            LimitError: The account is at its limits for longer than the pacing allows.
            NoWorker: No worker has room for its agent.
            UserCodeError: ``on_voip`` raised.
            StateError: The gateway takes no calls any more.
            DestinationRefused: The settings do not let calls reach it.
        """
        self.check()
        self._switchboard.call_settings.destinations.check(wanted.to, f"call {wanted.call_id}")
        self._check_open()
        turn = await self._pacer.turn()
        try:
            self._check_open()
            return await self._place(wanted, site, turn, on_voip, before)
        except BaseException:
            self._pacer.over(turn)
            raise

    def _check_open(self) -> None:
        if self._switchboard.closing or self._switchboard.draining:
            raise StateError("the gateway takes no more calls")

    async def _place(
        self,
        wanted: OutgoingCall,
        site: Site,
        turn: int,
        on_voip: Callable[[Any], object] | None,
        before: Callable[[], Awaitable[None]] | None,
    ) -> VoIP:
        switchboard = self._switchboard
        metadata = CallMetadata(
            call_id=wanted.call_id,
            carrier=switchboard.carrier,
            account_id=switchboard.account_id,
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
        call.on_ended(lambda: self._pacer.over(turn))
        try:
            with call.scope.entered():
                record.watch = AnswerWatch(voip, wanted.detection)
            if record.taken is not None:
                await asyncio.shield(record.taken)
            await self._ask(record, self._placement(record, wanted), turn, before)
        except (CarrierError, LimitError) as exc:
            call.end("failed", str(exc))
            raise
        except (NoWorker, UserCodeError) as exc:
            call.end("no_worker" if isinstance(exc, NoWorker) else "error", str(exc))
            raise
        except BaseException:
            # Whoever waited is gone. If the carrier has the call by now, it is told to hang up when it comes.
            call.end("canceled", "nobody waits for it any more")
            raise
        return voip

    async def _ask(
        self, record: RecordT, placement: PlacementT, turn: int, before: Callable[[], Awaitable[None]] | None
    ) -> None:
        call = record.call
        assert call is not None
        since = datetime.now(UTC)
        for attempt in range(1, _REFUSALS + 1):
            if before is not None:
                await before()
            if call.state == "ended":
                raise StateError(f"call {record.call_id}: it was ended before it was placed")
            try:
                record.progressed("dialling", await self._request(placement))
            except CarrierError as exc:
                if exc.status in (429, 503) and attempt < _REFUSALS:
                    logger.info("call %s: the carrier has too many requests, trying again", record.call_id)
                    await self._pacer.again(turn, exc.retry_after_s)
                    continue
                if not exc.in_doubt:
                    raise
                await self._settle_doubt(record, placement, since, exc)
            self._pacer.accepted()
            break
        if call.state == "ended" and record.carrier_call_id:
            # Somebody hung up while we asked.
            with suppress(CarrierError):
                await self._switchboard.hang_up(record.carrier_call_id)

    async def _settle_doubt(self, record: RecordT, placement: PlacementT, since: datetime, doubt: CarrierError) -> None:
        """The carrier's answer was lost: the call tells by itself that it is there, or is looked up.

        Raises:
            CarrierError: It was not placed, or that cannot be found out.
        """
        try:
            async with asyncio.timeout(self._clock.real(_DOUBT_S)):
                await record.awaited.wait()
        except TimeoutError:
            await self._look_up(record, placement, since, doubt)

    def check(self) -> None:  # most need nothing more
        """Check that calls can be placed at all.

        Raises:
            ConfigurationError: They cannot.
        """

    @abstractmethod
    def _placement(self, record: RecordT, wanted: OutgoingCall) -> PlacementT:
        """What to ask the carrier for."""

    @abstractmethod
    async def _request(self, placement: PlacementT) -> str:
        """Ask the carrier, once; returns its id of the call.

        Raises:
            CarrierError: It refused; with ``in_doubt`` the call may have been placed all the same.
        """

    async def _look_up(
        self,
        record: RecordT,  # noqa: ARG002
        placement: PlacementT,  # noqa: ARG002
        since: datetime,  # noqa: ARG002
        doubt: CarrierError,
    ) -> None:
        """Find out what has become of a request that was never answered, and given no sign.

        Raises:
            CarrierError: The call was not placed, or that cannot be found out, as with most carriers.
        """
        raise doubt

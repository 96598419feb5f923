"""Dials a list of numbers through a gateway."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from functools import partial
from time import time
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

from msgspec import Struct

from dialog.dialling.ledger import Attempt, Ledger, Outcome
from dialog.dialling.plan import DialPlan, Retry
from dialog.dialling.table import Row, Table
from dialog.errors import AuthenticationError, CarrierError, DialogError, StateError, UserCodeError
from dialog.message import CallProgress
from dialog.voip.answering import MachineDetection
from dialog.voip.twilio.voip import TwilioVoIP
from dialog.voip.voip import VoIP

if TYPE_CHECKING:  # they need the twilio package: whoever has a gateway has it
    from dialog.voip.twilio.gateway import TwilioGateway
    from dialog.voip.twilio.placing import PlacedCall

__all__ = ["RESULT_COLUMNS", "Batch", "BatchSettings", "Progress"]

logger = logging.getLogger(__name__)

RESULT_COLUMNS: Final = (
    "call_outcome",
    "call_detail",
    "call_answered_by",
    "call_duration_s",
    "call_attempts",
    "call_at",
    "call_id",
    "call_sid",
)
"""What is written beside each row."""
_LOOK_S: Final = 2.0
_LONGEST_LOOK_S: Final = 3600.0
_REFUSED_LOGIN: Final = frozenset({401, 403})


class BatchSettings(Struct, frozen=True, kw_only=True):
    """How a list is dialled."""

    from_: str
    concurrency: int = 10
    """Calls at the same time."""
    ring_s: float = 30.0
    machine_detection: MachineDetection | None = None
    retry: Retry = Retry()


class Progress(Struct, frozen=True, kw_only=True):
    """How far a list is dialled."""

    total: int
    left: int
    """Still to be dialled, or again."""
    dialling: int
    talking: int
    outcomes: dict[str, int]
    """What came of those that are done with."""


class Batch:
    """Dials every good row of a table that the ledger does not know as done, and notes what comes of it.

    Args:
        gateway: Places the calls, and is being served.
        table: The list.
        ledger: Of this list.
        settings: How it is dialled.
        on_voip: Takes the calls; ``None``: whoever takes the gateway's.
        changed: Called after every step.
        wall: Seconds since 1970.
    """

    def __init__(
        self,
        gateway: TwilioGateway,
        table: Table,
        ledger: Ledger,
        settings: BatchSettings,
        *,
        on_voip: Callable[[TwilioVoIP], object] | None = None,
        changed: Callable[[], object] = lambda: None,
        wall: Callable[[], float] = time,
    ) -> None:
        self._gateway = gateway
        self._table = table
        self._ledger = ledger
        self._settings = settings
        self._on_voip = on_voip
        self._changed = changed
        self._wall = wall
        self._rows: dict[str, Row] = {row.number: row for row in table.good}
        self._plan = DialPlan(self._rows, settings.retry)
        self._final: dict[str, Attempt] = {}
        self._doubtful: dict[str, str] = {}
        """Why it is not known what has come of a call of an earlier run: another run will ask again."""
        self._talking = 0
        self._stopping = asyncio.Event()
        self._step = asyncio.Event()

    def stop(self) -> None:
        """Dial no more; calls that are there go on."""
        self._stopping.set()
        self._step.set()

    @property
    def progress(self) -> Progress:
        """How far it is."""
        outcomes = Counter(attempt.outcome.outcome for attempt in self._final.values() if attempt.outcome is not None)
        bad = len(self._table.rows) - len(self._rows)
        if bad:
            outcomes["invalid"] = bad
        if self._doubtful:
            outcomes["unknown"] += len(self._doubtful)
        return Progress(
            total=len(self._table.rows),
            left=self._plan.left,
            dialling=len(self._plan.active) - self._talking,
            talking=self._talking,
            outcomes=dict(outcomes.most_common()),
        )

    async def run(self) -> bool:
        """Dial until nothing is left, :meth:`stop`, or the gateway leaves; whether nothing is left for another run.

        Raises:
            UserCodeError: The code that takes the calls raised: none of the others would fare better.
            AuthenticationError: Twilio does not know us.
        """
        calls: set[asyncio.Task[None]] = {self._task(self._find_out(attempt)) for attempt in self._resume()}
        try:
            while calls or not (self._plan.finished or self._stopping.is_set()):
                while len(calls) < self._settings.concurrency and not self._stopping.is_set():
                    number = self._plan.take(self._wall())
                    if number is None:
                        break
                    calls.add(self._task(self._dial(self._rows[number])))
                await self._wait(calls)
                over = {call for call in calls if call.done()}
                calls -= over
                for call in over:
                    call.result()
        finally:
            for call in calls:
                call.cancel()
            if calls:
                await asyncio.wait(calls)
        return self._plan.finished and not self._doubtful

    def results(self) -> list[dict[str, object]]:
        """What came of each row, by the names of :data:`RESULT_COLUMNS`, in their order."""
        return [self._result(row) for row in self._table.rows]

    async def _wait(self, calls: set[asyncio.Task[None]]) -> None:
        """Until a call is over, another is due, or we are stopped."""
        self._step.clear()
        due = self._plan.deadline
        wait_s = None
        if due is not None and len(calls) < self._settings.concurrency and not self._stopping.is_set():
            wait_s = max(0.0, due - self._wall())
        stepped = asyncio.create_task(self._step.wait(), name="batch")
        try:
            await asyncio.wait([*calls, stepped], timeout=wait_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stepped.cancel()

    def _task(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        return asyncio.get_running_loop().create_task(work, name="batch call")

    # What an earlier run has left.

    def _resume(self) -> list[Attempt]:
        """Take over what the ledger knows; returns the attempts of which it does not know what came."""
        doubtful: list[Attempt] = []
        for number in self._rows:
            attempts = self._ledger.of(number)
            if not attempts:
                continue
            last = attempts[-1]
            if last.outcome is None:
                self._plan.wait_for(number, len(attempts))
                doubtful.append(last)
            elif self._plan.resume(number, len(attempts), last.outcome.outcome, last.done_at):
                self._final[number] = last
        return doubtful

    async def _find_out(self, attempt: Attempt) -> None:
        """A run that was killed has, perhaps, placed this call: ask the carrier, and never place it again blindly."""
        since = datetime.fromtimestamp(attempt.at, UTC)
        placed = self._gateway.placed
        try:
            if attempt.call_sid:
                found: PlacedCall | None = await placed.fetch(attempt.call_sid)
            else:
                found = await placed.find(
                    attempt.call_id,
                    to=attempt.number,
                    from_=self._settings.from_,
                    since=since,
                    others=self._ledger.call_sids,
                )
            if found is None:
                logger.info("call %s was never placed", attempt.call_id)
                await self._ledger.not_placed(attempt.call_id)
                self._plan.undone(attempt.number)
                self._changed()
                return
            if not attempt.call_sid:
                await self._ledger.placed(attempt.call_id, found.call_sid)
            found = await self._until_over(found)
        except CarrierError as exc:
            if exc.status in _REFUSED_LOGIN:
                raise AuthenticationError("twilio", str(exc)) from exc
            # No outcome in the ledger: what is not known now may be known to another run.
            self._doubtful[attempt.number] = str(exc)
            self._plan.active.discard(attempt.number)
            self._changed()
            return
        status = found.status.replace("-", "_")
        answered = status == "completed"
        outcome = Outcome(
            outcome="interrupted" if answered else status,
            detail="dialled by a run that was killed",
            answered_by=found.answered_by,
            duration_s=found.duration_s,
        )
        await self._done(attempt.number, attempt, outcome)

    async def _until_over(self, call: PlacedCall) -> PlacedCall:
        waited_s = 0.0
        while not call.over and waited_s < _LONGEST_LOOK_S and not self._stopping.is_set():
            await asyncio.sleep(_LOOK_S)
            waited_s += _LOOK_S
            call = await self._gateway.placed.fetch(call.call_sid)
        if not call.over:
            raise CarrierError("twilio", call.call_sid, f"the call is still {call.status}")
        return call

    # Dialling.

    async def _dial(self, row: Row) -> None:
        settings, call_id = self._settings, uuid4()
        try:
            voip = await self._gateway.call(
                row.number,
                from_=settings.from_,
                on_voip=self._on_voip,
                ring_s=settings.ring_s,
                machine_detection=settings.machine_detection,
                parameters=dict(row.fields),
                call_id=call_id,
                before=partial(self._ledger.placing, row.number, call_id),
            )
        except UserCodeError:
            await self._ledger.not_placed(call_id)
            self._plan.undone(row.number)
            raise
        except CarrierError as exc:
            if exc.status in _REFUSED_LOGIN:
                await self._ledger.not_placed(call_id)
                self._plan.undone(row.number)
                raise AuthenticationError("twilio", str(exc)) from exc
            await self._ledger.placing(row.number, call_id)
            outcome = Outcome(outcome="unknown" if exc.in_doubt else "refused", detail=str(exc))
            await self._done(row.number, self._ledger.attempts[call_id], outcome)
        except DialogError as exc:  # no worker, the account's limits, a gateway that leaves
            if isinstance(exc, StateError) and not self._gateway.ready:
                logger.warning("no more numbers are dialled: %s", exc)
                await self._ledger.not_placed(call_id)
                self._plan.undone(row.number)
                self.stop()
                return
            await self._ledger.placing(row.number, call_id)
            outcome = Outcome(outcome="failed", detail=str(exc))
            await self._done(row.number, self._ledger.attempts[call_id], outcome)
        else:
            await self._ledger.placed(call_id, voip.call_sid)
            self._changed()
            outcome = await self._follow(voip)
            await self._done(row.number, self._ledger.attempts[call_id], outcome)

    async def _follow(self, voip: TwilioVoIP) -> Outcome:
        """Wait for the end of a call, and say what came of it."""
        clock = voip.clock
        call = self._gateway.find_call(voip.metadata.call_id)
        answered_at: float | None = None
        ended_at = clock.now()

        def on_end() -> None:
            nonlocal ended_at
            ended_at = clock.now()

        def on_progress(progress: CallProgress) -> None:
            nonlocal answered_at
            if progress.state == "answered" and answered_at is None:
                answered_at = clock.now()
                self._talking += 1
                self._changed()

        voip.on(VoIP.PROGRESS, on_progress)
        on_progress(CallProgress(state=voip.progress))
        try:
            if call is not None:
                call.on_ended(on_end)
                await call.wait_ended()
        finally:
            if answered_at is not None:
                self._talking -= 1
        reason = voip.end.reason if voip.end is not None else "agent_hangup"
        detail = voip.end.detail if voip.end is not None else ""
        answered_by = voip.answered_by
        outcome = reason
        if answered_by is not None and reason == "machine":
            outcome = "message_left" if answered_by.then == "leave_message" else "machine"
        elif answered_at is not None:
            outcome, detail = "answered", f"{reason} {detail}".strip()
        return Outcome(
            outcome=outcome,
            detail=detail,
            answered_by=answered_by.who if answered_by is not None else "",
            duration_s=0.0 if answered_at is None else round(ended_at - answered_at, 1),
        )

    async def _done(self, number: str, attempt: Attempt, outcome: Outcome) -> None:
        await self._ledger.done(attempt.call_id, outcome)
        if self._plan.done(number, outcome.outcome, self._wall()):
            self._final[number] = attempt
        self._step.set()
        self._changed()

    def _result(self, row: Row) -> dict[str, object]:
        if row.problem:
            return {"call_outcome": "invalid", "call_detail": row.problem}
        attempts = self._ledger.of(row.number)
        if not attempts:
            return {"call_outcome": "not_dialled"}
        last = attempts[-1]
        doubt = self._doubtful.get(row.number, "its end is not known yet")
        outcome = last.outcome or Outcome(outcome="unknown", detail=doubt)
        return {
            "call_outcome": outcome.outcome,
            "call_detail": outcome.detail,
            "call_answered_by": outcome.answered_by,
            "call_duration_s": f"{outcome.duration_s:g}",
            "call_attempts": len(attempts),
            "call_at": datetime.fromtimestamp(last.at, UTC).isoformat(timespec="seconds"),
            "call_id": str(last.call_id),
            "call_sid": last.call_sid,
        }

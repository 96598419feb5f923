"""What a gateway knows about one call."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from time import monotonic
from typing import Final, Generic, TypeVar
from uuid import UUID, uuid5

from dialog.message import CallProgress, Progress
from dialog.voip.answering import AnswerWatch
from dialog.voip.call import Call
from dialog.voip.carrier.http import Site
from dialog.voip.voip import VoIP

__all__ = ["CallRecord", "FinishedCalls", "call_id_of"]

AnswerT = TypeVar("AnswerT")
"""What the carrier is told to do with a call: a TwiML document, or a decision that commands carry out."""

_NAMESPACE: Final = UUID("6f0c2a9e-2b59-5f0b-9a53-5f7f0a7d3c11")
_SEEN_MAX: Final = 1024
_FINISHED_S: Final = 300.0
_FINISHED_MAX: Final = 4096


def call_id_of(carrier_call_id: str) -> UUID:
    """The id of an inbound call: the same in every process that hears of the carrier's."""
    return uuid5(_NAMESPACE, carrier_call_id)


class CallRecord(Generic[AnswerT]):
    """A call that is being decided, live, or waiting for its last callbacks."""

    __slots__ = (
        "_seen",
        "answer",
        "attempts",
        "awaited",
        "call",
        "call_id",
        "carrier_call_id",
        "listener",
        "parameters",
        "recording_id",
        "site",
        "taken",
        "watch",
    )

    def __init__(self, call_id: UUID, carrier_call_id: str, site: Site) -> None:
        self.call_id: UUID = call_id
        self.carrier_call_id: str = carrier_call_id
        self.site: Site = site
        self.call: Call | None = None
        """``None`` until the call is accepted."""
        self.answer: asyncio.Task[AnswerT] | None = None
        """What was decided about a call that came in; a repeated webhook awaits the same."""
        self.taken: asyncio.Future[None] | None = None
        """Done when a worker has the call; ``None`` if its agent runs here."""
        self.parameters: tuple[tuple[str, str], ...] = ()
        """What every stream of the call is told."""
        self.attempts: int = 0
        """How often the carrier failed to open the first stream."""
        self.recording_id: str = ""
        self.listener: Callable[[VoIP], object] | None = None
        """Takes this call alone; ``None``: whoever takes all calls."""
        self.watch: AnswerWatch | None = None
        """Of a call that was placed: who finds out who takes it."""
        self.awaited: asyncio.Event = asyncio.Event()
        """Set when the carrier is known to have the call."""
        self._seen: dict[object, None] = {}

    def progressed(self, state: Progress, carrier_call_id: str) -> None:
        """The carrier has the call, under this id, and tells how far it has come."""
        if carrier_call_id and not self.carrier_call_id:
            self.carrier_call_id = carrier_call_id
        self.awaited.set()
        if self.call is not None and self.call.metadata.direction == "outbound":
            self.call.progressed(CallProgress(state=state, carrier_call_id=carrier_call_id))

    def repeated(self, callback: object) -> bool:
        """Whether a callback was delivered before; carriers promise at least once."""
        if callback in self._seen:
            return True
        self._seen[callback] = None
        if len(self._seen) > _SEEN_MAX:
            del self._seen[next(iter(self._seen))]
        return False


class FinishedCalls(Generic[AnswerT]):
    """Calls that are over, for some minutes, so that a replayed request does not start them again."""

    def __init__(self, time: Callable[[], float] = monotonic) -> None:
        self._time = time
        self._answers: OrderedDict[UUID, tuple[float, AnswerT]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._answers)

    def add(self, call_id: UUID, answer: AnswerT) -> None:
        """Remember what every further request of the call is answered."""
        self._forget()
        self._answers[call_id] = (self._time() + _FINISHED_S, answer)
        if len(self._answers) > _FINISHED_MAX:
            self._answers.popitem(last=False)

    def get(self, call_id: UUID) -> AnswerT | None:
        """The answer for a call that is over."""
        self._forget()
        entry = self._answers.get(call_id)
        return entry[1] if entry is not None else None

    def _forget(self) -> None:
        now = self._time()
        while self._answers:
            call_id, (until, _) = next(iter(self._answers.items()))
            if until > now:
                break
            del self._answers[call_id]

"""What a gateway knows about one call."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from time import monotonic
from typing import Final
from uuid import UUID, uuid5

from dialog.message import CallProgress, Progress
from dialog.voip.answering import AnswerWatch
from dialog.voip.call import Call
from dialog.voip.twilio.voip import TwilioVoIP
from dialog.voip.twilio.webhooks import Site

__all__ = ["CallRecord", "FinishedCalls", "call_id_of"]

_NAMESPACE: Final = UUID("6f0c2a9e-2b59-5f0b-9a53-5f7f0a7d3c11")
_SEEN_MAX: Final = 1024
_FINISHED_S: Final = 300.0
_FINISHED_MAX: Final = 4096


def call_id_of(call_sid: str) -> UUID:
    """The id of an inbound call: the same in every process that hears of its CallSid."""
    return uuid5(_NAMESPACE, call_sid)


class CallRecord:
    """A call that is being decided, live, or waiting for its last callbacks."""

    __slots__ = (
        "_seen",
        "answer",
        "attempts",
        "awaited",
        "call",
        "call_id",
        "call_sid",
        "documents",
        "listener",
        "parameters",
        "recording_sid",
        "site",
        "taken",
        "watch",
    )

    def __init__(self, call_id: UUID, call_sid: str, site: Site) -> None:
        self.call_id: UUID = call_id
        self.call_sid: str = call_sid
        self.site: Site = site
        self.call: Call | None = None
        """``None`` until the call is accepted."""
        self.answer: asyncio.Task[str] | None = None
        """What the voice webhook answers; a repeated one awaits the same."""
        self.taken: asyncio.Future[None] | None = None
        """Done when a worker has the call; ``None`` if its agent runs here."""
        self.documents: dict[int, str] = {}
        """The TwiML that announced each generation of the stream."""
        self.parameters: tuple[tuple[str, str], ...] = ()
        """What every stream of the call is told."""
        self.attempts: int = 0
        """How often Twilio failed to open the first stream."""
        self.recording_sid: str = ""
        self.listener: Callable[[TwilioVoIP], object] | None = None
        """Takes this call alone; ``None``: whoever takes all calls."""
        self.watch: AnswerWatch | None = None
        """Of a call that was placed: who finds out who takes it."""
        self.awaited: asyncio.Event = asyncio.Event()
        """Set when Twilio is known to have the call."""
        self._seen: dict[object, None] = {}

    def progressed(self, state: Progress, call_sid: str) -> None:
        """Twilio has the call, under this id, and tells how far it has come."""
        if call_sid and not self.call_sid:
            self.call_sid = call_sid
        self.awaited.set()
        if self.call is not None and self.call.metadata.direction == "outbound":
            self.call.progressed(CallProgress(state=state, carrier_call_id=call_sid))

    def repeated(self, callback: object) -> bool:
        """Whether a callback was delivered before; Twilio promises at least once."""
        if callback in self._seen:
            return True
        self._seen[callback] = None
        if len(self._seen) > _SEEN_MAX:
            del self._seen[next(iter(self._seen))]
        return False


class FinishedCalls:
    """Calls that are over, for some minutes, so that a replayed request does not start them again."""

    def __init__(self, time: Callable[[], float] = monotonic) -> None:
        self._time = time
        self._documents: OrderedDict[UUID, tuple[float, str]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._documents)

    def add(self, call_id: UUID, document: str) -> None:
        """Remember what every further request of the call is answered."""
        self._forget()
        self._documents[call_id] = (self._time() + _FINISHED_S, document)
        if len(self._documents) > _FINISHED_MAX:
            self._documents.popitem(last=False)

    def get(self, call_id: UUID) -> str | None:
        """The answer for a call that is over."""
        self._forget()
        entry = self._documents.get(call_id)
        return entry[1] if entry is not None else None

    def _forget(self) -> None:
        now = self._time()
        while self._documents:
            call_id, (until, _) = next(iter(self._documents.items()))
            if until > now:
                break
            del self._documents[call_id]

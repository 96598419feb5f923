"""The sessions of a service as they stand: looked up by call id, at any moment, wherever their agents run."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import Literal
from uuid import UUID

from msgspec import Struct

from dialog.calls.events import (
    AgentSaid,
    CallEnded,
    CallerSaid,
    CallEvent,
    CallResumed,
    CallStarted,
    HandedOff,
    RecordingReady,
)
from dialog.calls.meter import CallMeter
from dialog.calls.metrics import SessionMetrics
from dialog.calls.publish import CallEvents, Notice
from dialog.message import CallMetadata

__all__ = ["LiveSessions", "Session", "Spoken", "spoken_in"]

_MAX_SPOKEN = 5000


class Spoken(Struct, frozen=True, kw_only=True):
    """A line of a transcript."""

    at_s: float
    """Seconds since the call's start."""
    role: Literal["caller", "agent"]
    text: str
    """What the caller said; of the agent's words, those that were heard."""
    interrupted: bool = False
    """The caller did not hear all of it."""

    def __repr__(self) -> str:
        return f"<Spoken by the {self.role}, {len(self.text)} chars>"


class Session:
    """One call: what has become of it so far."""

    def __init__(self, call: CallMetadata, tenant: str, *, first_seq: int = 0, since_s: float = 0.0) -> None:
        """``first_seq``: of the first event that was heard of. ``since_s``: so many seconds ago it has started."""
        self.call = call
        self.tenant = tenant
        self.agent = ""
        self.started_at: str = (datetime.now(UTC) - timedelta(seconds=since_s)).isoformat(timespec="milliseconds")
        """Wall clock, ISO 8601 with zone."""
        self.first_seq = first_seq
        """Greater than 0: the call was at another gateway before, which has told of the events before this one."""
        self.since = 0.0
        """When it was heard of first, in seconds since 1970."""
        self.end: CallEnded | None = None
        self.transcript: list[Spoken] = []
        """The final words of both sides, in order; the first 5,000 lines."""
        self.recordings: list[str] = []
        """URLs at the carrier."""
        self._meter = CallMeter()
        self._since = monotonic() - since_s

    def __repr__(self) -> str:
        return f"<Session {self.call.call_id}>"

    @property
    def metrics(self) -> SessionMetrics:
        """The numbers of the call so far."""
        return self._meter.metrics

    @property
    def duration_s(self) -> float:
        """Seconds since its start, or until its end."""
        return self.end.at_s if self.end is not None else round(monotonic() - self._since, 3)

    def feed(self, event: CallEvent) -> None:
        """Something happened in it."""
        self._meter.feed(event)
        match event:
            case CallStarted():
                self.started_at, self.agent = event.started_at, event.agent
            case CallResumed():
                self.agent = event.agent
            case HandedOff():
                self.agent = event.to
            case RecordingReady():
                self.recordings.append(event.url)
            case CallEnded():
                self.end = event
            case _:
                line = _line(event)
                if line is not None and len(self.transcript) < _MAX_SPOKEN:
                    self.transcript.append(line)


class LiveSessions:
    """Follows all calls of a service.

    Args:
        events: Of its gateways.
        tenant_of: Whose call it is.
        keep_ended: So many are kept after their end.
    """

    def __init__(self, events: CallEvents, tenant_of: Callable[[CallMetadata], str], *, keep_ended: int) -> None:
        self._sessions: dict[UUID, Session] = {}
        self._ended: dict[UUID, Session] = {}
        self._tenant_of = tenant_of
        self._keep_ended = keep_ended
        events.on(self._on_notice)

    @property
    def live(self) -> tuple[Session, ...]:
        """Those that have not ended, newest first."""
        return tuple(reversed(self._sessions.values()))

    @property
    def ended(self) -> tuple[Session, ...]:
        """The last ones that have, newest first."""
        return tuple(reversed(self._ended.values()))

    def get(self, call_id: UUID) -> Session | None:
        """One of them."""
        return self._sessions.get(call_id) or self._ended.get(call_id)

    def _on_notice(self, notice: Notice) -> None:
        call_id = notice.call.call_id
        session = self.get(call_id)
        if session is None and isinstance(notice.event, RecordingReady):
            return  # of a call that has ended and is not kept any more
        if session is None:
            tenant = self._tenant_of(notice.call)
            seq, at_s = notice.event.seq, max(0.0, notice.event.at_s)
            session = self._sessions[call_id] = Session(notice.call, tenant, first_seq=seq, since_s=at_s)
            session.since = notice.at
        session.call = notice.call  # a placed call gets its carrier's id later
        session.feed(notice.event)
        if session.end is not None and call_id in self._sessions:
            self._ended[call_id] = self._sessions.pop(call_id)
            if len(self._ended) > self._keep_ended:
                del self._ended[next(iter(self._ended))]


def spoken_in(events: Iterable[CallEvent]) -> list[Spoken]:
    """The transcript in the events of a call."""
    return [line for event in events if (line := _line(event)) is not None]


def _line(event: CallEvent) -> Spoken | None:
    if isinstance(event, CallerSaid) and event.final and event.text:
        return Spoken(at_s=event.at_s, role="caller", text=event.text)
    if isinstance(event, AgentSaid) and event.heard:
        return Spoken(at_s=event.at_s, role="agent", text=event.heard, interrupted=event.state != "played")
    return None

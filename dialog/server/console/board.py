"""All calls that go on, as the console lists them: folded from their events, a few words each."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from datetime import datetime
from typing import Any, Final, Literal, TypeAlias
from uuid import UUID

import msgspec

from dialog.calls import events as ev
from dialog.calls.stages import stages_of
from dialog.message import CallMetadata

__all__ = ["Board", "Row", "fleeting", "told"]

_KEPT_EVENTS: Final = 400
"""Of a live call; what came before them is in the call log."""
_KEPT_ENDED: Final = 100
_MAX_WORDS: Final = 200
_FLEETING: Final = (ev.AgentSpeaks, ev.CallerSpoke, ev.UsageReported, ev.SpeculationEnded)
"""What is told while somebody watches, and then forgotten."""

Activity: TypeAlias = Literal["", "caller", "answering", "tool"]
Listener: TypeAlias = Callable[["Row", ev.CallEvent | None, bool], object]
"""Gets a row, what has happened to it, if that is known, and whether the list shows it."""


class Row:
    """A call: what the list shows of it, and its latest events."""

    __slots__ = (
        "activity",
        "agent",
        "call",
        "end",
        "errors",
        "events",
        "latency_ms",
        "said",
        "started",
        "state",
        "tenant",
        "turns",
        "whole",
    )

    def __init__(self, call: CallMetadata, tenant: str | None) -> None:
        self.call = call
        self.tenant = tenant
        """Whose it is; ``None``: another process knows, and has told of it to somebody who may see it."""
        self.agent = ""
        self.started = time.time()
        """Seconds since the epoch."""
        self.state = "offered"
        self.activity: Activity = ""
        """Who has the word."""
        self.turns = 0
        self.latency_ms: float | None = None
        """Of the last answer."""
        self.said: tuple[str, str] = ("", "")
        """Who spoke last, and what."""
        self.errors = 0
        self.end: ev.CallEnded | None = None
        self.events: deque[ev.CallEvent] = deque(maxlen=_KEPT_EVENTS)
        self.whole = True
        """``events`` are all that there were, but for the fleeting ones."""

    def __repr__(self) -> str:
        return f"<Row {self.call.call_id}>"

    def view(self) -> dict[str, Any]:
        """What the page is told."""
        call, end = self.call, self.end
        return {
            "call_id": str(call.call_id),
            "state": self.state,
            "activity": self.activity,
            "tenant": self.tenant or "",
            "carrier": call.carrier,
            "from": call.from_,
            "to": call.to,
            "direction": call.direction,
            "agent": self.agent,
            "started": round(self.started, 3),
            "duration_s": None if end is None else end.at_s,
            "turns": self.turns,
            "latency_ms": None if self.latency_ms is None else round(self.latency_ms),
            "said": self.said,
            "errors": self.errors,
            "end_reason": "" if end is None else end.reason,
            "end_detail": "" if end is None else end.detail,
        }

    def feed(self, event: ev.CallEvent) -> bool:
        """Something happened; whether the list shows it."""
        if not fleeting(event):
            self.whole = self.whole and len(self.events) < _KEPT_EVENTS
            self.events.append(event)
        match event:
            case ev.CallStarted():
                self.agent, self.started = event.agent, datetime.fromisoformat(event.started_at).timestamp()
            case ev.HandedOff():
                self.agent = event.to
            case ev.StreamChanged():
                self.state, self.activity = event.state, ""
            case ev.CallerSpoke():
                if event.state == "stopped" and self.activity != "caller":
                    return False
                self.activity = "caller" if event.state == "started" else ""
            case ev.CallerSaid():
                if not event.final:
                    return False
                self.said, self.turns, self.activity = ("caller", event.text[:_MAX_WORDS]), self.turns + 1, "answering"
            case ev.ToolStarted():
                self.activity = "tool"
            case ev.ToolEnded():
                self.activity = "answering" if self.activity == "tool" else self.activity
            case ev.AgentSpeaks():
                if self.activity == "answering":
                    return False
                self.activity = "answering"
            case ev.AgentSaid():
                if event.heard:
                    self.said = ("agent", event.heard[:_MAX_WORDS])
            case ev.TurnMeasured():
                self.activity = "" if self.activity == "answering" else self.activity
                if event.timeline.final is not None:
                    self.latency_ms = event.timeline.latency_ms()
            case ev.ErrorRaised():
                self.errors += 1
            case ev.CallEnded():
                self.end, self.state, self.activity = event, "ended", ""
            case _:
                return False
        return True


class Board:
    """Follows calls.

    Args:
        tenant_of: Whose call it is.
    """

    def __init__(self, tenant_of: Callable[[CallMetadata], str | None]) -> None:
        self.rows: dict[UUID, Row] = {}
        """The calls that go on, oldest first."""
        self._ended: dict[UUID, Row] = {}
        self._tenant_of = tenant_of
        self._listeners: tuple[Listener, ...] = ()

    def get(self, call_id: UUID) -> Row | None:
        """A call that goes on, or has ended a moment ago."""
        return self.rows.get(call_id) or self._ended.get(call_id)

    @property
    def ended(self) -> tuple[Row, ...]:
        """The last ones that have ended, newest first."""
        return tuple(reversed(self._ended.values()))

    def on(self, listener: Listener) -> None:
        """Call ``listener`` with everything that happens."""
        self._listeners = (*self._listeners, listener)

    def off(self, listener: Listener) -> None:
        """Stop calling it."""
        self._listeners = tuple(each for each in self._listeners if each != listener)

    def take(self, call: CallMetadata, event: ev.CallEvent) -> None:
        """Something has happened in a call."""
        row = self.get(call.call_id)
        if row is None and isinstance(event, ev.RecordingReady):
            return  # of a call that has ended and is not kept any more
        if row is None:
            row = self.rows[call.call_id] = Row(call, self._tenant_of(call))
        row.call = call  # a placed call gets its carrier's id later
        changed = row.feed(event)
        if row.end is not None and self.rows.pop(call.call_id, None) is not None:
            self._ended[call.call_id] = row
            if len(self._ended) > _KEPT_ENDED:
                del self._ended[next(iter(self._ended))]
        for listener in self._listeners:
            listener(row, event, changed)

    def put(self, row: Row) -> None:
        """A call goes on, of which nothing was told yet; or it has changed meanwhile."""
        self.rows[row.call.call_id] = row
        for listener in self._listeners:
            listener(row, None, True)

    def forget(self, call_id: UUID) -> None:
        """A call is gone, and nobody has told."""
        row = self.rows.pop(call_id)
        for listener in self._listeners:
            listener(row, None, True)


def fleeting(event: ev.CallEvent) -> bool:
    """Whether an event says nothing that a later one would not."""
    return isinstance(event, _FLEETING) or (isinstance(event, ev.CallerSaid) and not event.final)


def told(event: ev.CallEvent) -> dict[str, Any]:
    """An event as the page gets it: its JSON, and of a turn the stages that its latency consists of."""
    found: dict[str, Any] = msgspec.to_builtins(event)
    if isinstance(event, ev.TurnMeasured):
        latency = event.timeline.latency_ms()
        found["latency_ms"] = None if latency is None else round(latency, 1)
        found["stages"] = [(stage.kind, stage.begin, stage.end) for stage in stages_of(event.timeline)]
    return found

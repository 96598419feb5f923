"""What the log keeps of a call beside its events: rows made of them when it has ended."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import msgspec

from dialog.calls.events import CallEvent, CallStarted, ToolEnded, ToolStarted, UsageReported
from dialog.calls.report import SessionReport, make_report

__all__ = ["Ended", "fold_call", "storable"]


class Ended(msgspec.Struct):
    """The rows of a call that has ended, by their table's columns."""

    report: SessionReport | None
    call: dict[str, Any]
    turns: list[dict[str, Any]]
    tool_calls: list[dict[str, Any]]
    usage: list[dict[str, Any]]


def fold_call(call_id: UUID, events: Sequence[CallEvent]) -> Ended:
    """Fold all events of a call; one whose start was lost has no report."""
    ended = Ended(None, {}, [], _tools(call_id, events), _usage(call_id, events))
    if not events or not isinstance(events[0], CallStarted):
        return ended
    report = ended.report = make_report(events)
    metrics = report.metrics
    ended.call = {
        "duration_s": report.duration_s,
        "caller_turns": metrics.caller_turns,
        "agent_turns": metrics.agent_turns,
        "interruptions": report.interruptions,
        "errors": report.errors,
        "cost_usd": metrics.cost_usd,
        "agent": events[0].agent[:128],
        # The events have a table of their own.
        "report": msgspec.json.encode(msgspec.structs.replace(report, events=())).decode(),
    }
    ended.turns = [
        {
            "call_id": call_id,
            "number": number,
            "turn": turn.turn,
            "caller": storable(turn.caller),
            "speaker": storable(turn.speaker),
            "agent": storable(turn.agent),
            "heard": storable(turn.heard),
            "interrupted": turn.interrupted,
            "latency_ms": turn.latency_ms,
        }
        for number, turn in enumerate(report.turns)
    ]
    return ended


def storable(text: str) -> str:
    """PostgreSQL's texts hold no NUL."""
    return text.replace("\0", "")


def _tools(call_id: UUID, events: Sequence[CallEvent]) -> list[dict[str, Any]]:
    rows: dict[tuple[UUID, str], dict[str, Any]] = {}
    for event in events:
        if isinstance(event, ToolStarted):
            rows[event.turn, event.call_id] = {
                "call_id": call_id,
                "number": len(rows),
                "turn": event.turn,
                "name": storable(event.name),
                "arguments": storable(event.arguments),
                "result": "",
                "state": "unknown",  # until it has told
                "took_s": None,
            }
        elif isinstance(event, ToolEnded) and (row := rows.get((event.turn, event.call_id))) is not None:
            row |= {"result": storable(event.result), "state": event.state, "took_s": event.took_s}
    return list(rows.values())


def _usage(call_id: UUID, events: Sequence[CallEvent]) -> list[dict[str, Any]]:
    rows: dict[str, dict[str, Any]] = {}
    for event in events:
        if not isinstance(event, UsageReported):
            continue
        used = msgspec.structs.asdict(event.usage)
        used["model"] = model = storable(event.usage.model)[:128]
        row = rows.get(model)
        if row is None:
            rows[model] = {"call_id": call_id, **used, "cost_usd": event.cost_usd}
            continue
        for name, value in used.items():
            if name != "model":
                row[name] += value
        row["cost_usd"] = (
            None if row["cost_usd"] is None or event.cost_usd is None else row["cost_usd"] + event.cost_usd
        )
    return list(rows.values())

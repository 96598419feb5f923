"""Webhook messages in the shape of Vapi's server messages, for receivers that were written for those.

Source: docs.vapi.ai, server events, 2026-11: ``{"message": {"type", "timestamp", "call", …}}``. Those that ask for an
answer (``assistant-request``, ``tool-calls`` …) are not among these: nothing waits for what the receiver says.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from dialog.calls.events import (
    AgentSaid,
    CallEnded,
    CallerSaid,
    CallerSpoke,
    CallStarted,
    Interrupted,
    RecordingReady,
    StreamChanged,
    TransferChanged,
)
from dialog.calls.publish import Notice
from dialog.calls.report import SessionReport
from dialog.message import CallMetadata

__all__ = ["DEFAULTS", "TYPES", "vapi_messages"]

DEFAULTS = ("status-update", "end-of-call-report")
TYPES = frozenset({*DEFAULTS, "transcript", "speech-update", "user-interrupted"})
_REASONS = {
    "caller_hangup": "customer-ended-call",
    "agent_hangup": "assistant-ended-call",
    "transferred": "assistant-forwarded-call",
    "busy": "customer-busy",
    "no_answer": "customer-did-not-answer",
    "never_connected": "customer-did-not-answer",
    "idle": "silence-timed-out",
    "max_duration": "exceeded-max-duration",
    "machine": "voicemail",
    "voicemail": "voicemail",
    "error": "assistant-error",
    "failed": "twilio-failed-to-connect-call",
    "api_hangup": "manually-canceled",
    "canceled": "manually-canceled",
    "shutdown": "worker-shutdown",
}
_FAULTS = frozenset(
    {"lost", "lost_worker", "lost_process", "no_worker", "revoked", "connection_failed", "transfer_failed", "declined"}
)
"""Reasons that Vapi has no word for; any other is the word that an agent has hung up with."""
_encode = msgspec.json.Encoder().encode


class _Decided(msgspec.Struct):
    """Of what was decided for a call."""

    assistant: str = ""
    number: str = ""


_Message = tuple[str, dict[str, Any]]


def vapi_messages(notice: Notice, report: SessionReport | None) -> Iterator[tuple[str, str, bytes]]:
    """The messages of an event: their ids, types and bodies; often none."""
    call, event = notice.call, notice.event
    at = datetime.fromtimestamp(notice.at, UTC)
    for number, (status, fields) in enumerate(_fields(notice, report, at)):
        kind = str(fields.pop("type"))
        theirs, ours = (call.to, call.from_) if call.direction == "outbound" else (call.from_, call.to)
        message = {
            "type": kind,
            "timestamp": round(at.timestamp() * 1000),
            **fields,
            "call": _call(call, theirs, status, at - timedelta(seconds=event.at_s)),
            "customer": {"number": theirs},
            "phoneNumber": {"number": ours},
        }
        yield f"evt_{call.call_id.hex}_{event.seq}_{number}", kind, _encode({"message": message})


def _fields(notice: Notice, report: SessionReport | None, at: datetime) -> Iterator[_Message]:
    """Per message: the call's status, and the fields of its own."""
    event = notice.event
    match event:
        case CallStarted():
            yield _status("queued" if notice.call.direction == "outbound" else "ringing")
        case StreamChanged(state="live"):
            yield _status("in-progress")
        case TransferChanged(state="started"):
            destination = {"type": "number", "number": event.to}
            status, fields = _status("forwarding")
            yield status, {**fields, "destination": destination}
        case CallerSaid(final=True):
            yield _transcript("user", event.text)
        case AgentSaid() if event.heard:
            yield _transcript("assistant", event.heard)
        case CallerSpoke():
            yield "in-progress", {"type": "speech-update", "status": event.state, "role": "user"}
        case Interrupted():
            yield "in-progress", {"type": "user-interrupted"}
        case CallEnded():
            status, fields = _status("ended")
            reason = _ended_reason(event.reason)
            yield status, {**fields, "endedReason": reason}
            yield status, {"type": "end-of-call-report", "endedReason": reason, **_report(report, at)}
        case _:
            return


def _ended_reason(reason: str) -> str:
    if reason in _FAULTS:
        return f"pipeline-error-{reason.replace('_', '-')}"  # receivers take what begins so for a failure
    return _REASONS.get(reason, "assistant-ended-call")


def _status(status: str) -> _Message:
    return status, {"type": "status-update", "status": status}


def _transcript(role: str, text: str) -> _Message:
    return "in-progress", {"type": "transcript", "role": role, "transcriptType": "final", "transcript": text}


def _call(call: CallMetadata, customer: str, status: str, created: datetime) -> dict[str, Any]:
    outbound = call.direction == "outbound"
    fields = {
        "id": str(call.call_id),
        "type": "outboundPhoneCall" if outbound else "inboundPhoneCall",
        "status": status,
        "customer": {"number": customer},
        "phoneCallProvider": call.carrier,
        "phoneCallProviderId": call.carrier_call_id,
        "createdAt": _iso(created),
    }
    decided = _decided(call.session)
    for name, known in (("assistantId", decided.assistant), ("phoneNumberId", decided.number)):
        if value := call.parameter(name) or known:
            fields[name] = value
    return fields


def _decided(session: str) -> _Decided:
    try:
        return msgspec.json.decode(session, type=_Decided) if session else _Decided()
    except msgspec.DecodeError:
        return _Decided()  # what the host's own resolver tells its agents may be any text


def _report(report: SessionReport | None, at: datetime) -> dict[str, Any]:
    if report is None:
        return {"endedAt": _iso(at), "artifact": {"transcript": "", "messages": []}}
    started = datetime.fromisoformat(report.started_at)
    messages: list[dict[str, Any]] = []
    recordings: list[str] = []
    for event in report.events:
        if isinstance(event, RecordingReady):
            recordings.append(event.url)
            continue
        if isinstance(event, CallerSaid) and event.final:
            role, text = "user", event.text
        elif isinstance(event, AgentSaid) and event.heard:
            role, text = "bot", event.heard
        else:
            continue
        time = round((started + timedelta(seconds=event.at_s)).timestamp() * 1000)
        messages.append({"role": role, "message": text, "time": time, "secondsFromStart": event.at_s})
    names = {"user": "User", "bot": "AI"}
    transcript = "\n".join(f"{names[each['role']]}: {each['message']}" for each in messages)
    artifact: dict[str, Any] = {"transcript": transcript, "messages": messages}
    if recordings:
        artifact["recording"] = {"stereoUrl": recordings[-1], "mono": {"combinedUrl": recordings[-1]}}
    return {
        "startedAt": _iso(started),
        "endedAt": _iso(started + timedelta(seconds=report.duration_s)),
        "durationSeconds": report.duration_s,
        "cost": report.metrics.cost_usd,
        "artifact": artifact,
    }


def _iso(at: datetime) -> str:
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")

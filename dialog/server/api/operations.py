"""All that can be asked of the REST API, in one table; paths, rights, types and the OpenAPI document follow from it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal, TypeAlias
from uuid import UUID

from msgspec import Struct

from dialog.server.api import types as t
from dialog.server.api.problems import Problem
from dialog.server.config import ApiToken, Scope

__all__ = ["OPERATIONS", "Asked", "Operation", "locate"]


Method: TypeAlias = Literal["GET", "POST"]


class Asked(Struct, frozen=True, kw_only=True):
    """A request that was understood."""

    call_id: UUID | None
    path: dict[str, str]
    query: Any
    body: Any
    token: ApiToken | None

    @property
    def call(self) -> UUID:
        """The call that it is about."""
        assert self.call_id is not None
        return self.call_id


class Operation(Struct, frozen=True, kw_only=True):
    """One of them; :class:`~dialog.server.api.handlers.Handlers` has a method of its name."""

    name: str
    method: Method
    path: str
    """With ``{names}`` in braces."""
    scope: Scope | None
    """``None``: it is open to everybody."""
    summary: str
    body: type[Struct] | None = None
    query: type[Struct] | None = None
    result: type[Struct] | None = None
    status: int = 200
    produces: Literal["json", "bytes", "events"] = "json"
    problems: tuple[int, ...] = ()
    """Statuses of its own, beside those that all have."""


def _on_call(name: str, method: Method, rest: str, scope: Scope, summary: str, **more: Any) -> Operation:
    problems = (404, *more.pop("problems", ()))
    path = f"/v1/calls/{{call_id}}{rest}"
    return Operation(name=name, method=method, path=path, scope=scope, summary=summary, problems=problems, **more)


OPERATIONS: tuple[Operation, ...] = (
    Operation(name="root", method="GET", path="/", scope=None, summary="That the service is there.", result=t.Status),
    Operation(name="openapi", method="GET", path="/openapi.json", scope=None, summary="This document."),
    Operation(
        name="start_call",
        method="POST",
        path="/call/start",
        scope="calls:write",
        summary="Place a call.",
        body=t.CallStart,
        result=t.CallStarted,
        status=201,
        problems=(404, 409, 502, 503),
    ),
    Operation(
        name="list_calls",
        method="GET",
        path="/v1/calls",
        scope="calls:read",
        summary="Calls that are live, or have ended.",
        query=t.CallQuery,
        result=t.CallList,
        problems=(404,),
    ),
    _on_call("show_call", "GET", "", "calls:read", "A call and its numbers at this moment.", result=t.CallDetail),
    _on_call("transcript", "GET", "/transcript", "calls:read", "What was said until now.", result=t.Transcript),
    _on_call("recordings", "GET", "/recordings", "calls:read", "The recordings of a call.", result=t.RecordingList),
    _on_call(
        "recording",
        "GET",
        "/recordings/{index}",
        "calls:read",
        "One of them, as the carrier has it.",
        produces="bytes",
        problems=(502,),
    ),
    _on_call(
        "call_events",
        "GET",
        "/events",
        "calls:read",
        "The events of a call as they happen, up to its end: by server-sent events, or over a WebSocket.",
        produces="events",
        problems=(409,),
    ),
    _on_call(
        "transfer_call",
        "POST",
        "/transfer",
        "calls:write",
        "Connect the caller to somebody else.",
        body=t.TransferStart,
        status=204,
        problems=(409, 501, 502),
    ),
    _on_call("hang_up", "POST", "/hangup", "calls:write", "End a call now.", status=204, problems=(409, 502)),
    _on_call(
        "say",
        "POST",
        "/say",
        "calls:write",
        "Let the agent say something, in turn.",
        body=t.SayStart,
        status=202,
        problems=(409,),
    ),
    _on_call(
        "whisper",
        "POST",
        "/whisper",
        "calls:write",
        "Tell the agent something that the caller does not hear; its next answer takes it into account.",
        body=t.WhisperStart,
        status=202,
        problems=(409,),
    ),
    Operation(
        name="events",
        method="GET",
        path="/v1/events",
        scope="calls:read",
        summary="The events of all calls as they happen: by server-sent events, or over a WebSocket.",
        produces="events",
    ),
    Operation(
        name="client_token",
        method="POST",
        path="/v1/client-token",
        scope="clients:write",
        summary="Let a browser or an app start one session.",
        body=t.ClientTokenStart,
        result=t.ClientToken,
        status=201,
        problems=(404,),
    ),
    Operation(
        name="send_message",
        method="POST",
        path="/v1/messages",
        scope="messages:write",
        summary="Write a text message.",
        body=t.MessageStart,
        result=t.SentMessage,
        status=201,
        problems=(404, 502),
    ),
)
"""All of them, in the order of the documentation."""


def locate(operations: Iterable[Operation], method: str, path: str) -> tuple[Operation, dict[str, str]]:
    """The operation that a request is for, and what its path names.

    Raises:
        Problem: 404 or 405.
    """
    allowed: list[str] = []
    for operation in operations:
        values = _values(operation.path, path)
        if values is None:
            continue
        if operation.method == method:
            return operation, values
        allowed.append(operation.method)
    if allowed:
        allow = ", ".join(allowed)
        raise Problem(405, f"{method} is not allowed here: use {allow}", (("Allow", allow),))
    raise Problem(404, "nothing is here")


def _values(pattern: str, path: str) -> dict[str, str] | None:
    wanted, given = pattern.split("/"), path.split("/")
    if len(wanted) != len(given):
        return None
    values: dict[str, str] = {}
    for want, have in zip(wanted, given, strict=True):
        if want.startswith("{"):
            values[want[1:-1]] = have
        elif want != have:
            return None
    return values

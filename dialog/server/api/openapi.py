"""The OpenAPI document of the REST API, made of its operations and types."""

from __future__ import annotations

import inspect
from typing import Any, Final

from msgspec import Struct

from dialog.calls.events import CallEvent
from dialog.schemas import schemas_of
from dialog.server.api import types as t
from dialog.server.api.operations import OPERATIONS, Operation
from dialog.version import __version__

__all__ = ["document"]

_REFERENCE: Final = "#/components/schemas/{name}"
_MEANINGS: Final = {
    400: "The body is no JSON.",
    401: "There is no token, or a wrong one.",
    403: "The token lacks the scope, or the session was refused.",
    404: "There is no such call, assistant or number.",
    409: "The call is not in a state for that.",
    413: "The body is too large.",
    415: "The body is not declared as JSON.",
    422: "A value does not fit.",
    429: "Too many requests or calls.",
    501: "The carrier cannot do that.",
    502: "The carrier refused, or could not be reached.",
    503: "There is no worker for the call, or the service is leaving.",
}
_ON_PATHS: Final[dict[str, dict[str, Any]]] = {
    "call_id": {"type": "string", "format": "uuid"},
    "index": {"type": "integer", "minimum": 0},
}


def document(prefix: str = "") -> dict[str, Any]:
    """The document; ``prefix`` stands before every path."""
    types: list[Any] = [t.ProblemBody, CallEvent]
    for operation in OPERATIONS:
        types += [each for each in (operation.body, operation.query, operation.result) if each is not None]
    references, schemas = schemas_of(types, _REFERENCE)
    known: dict[Any, dict[str, Any]] = dict(zip(map(id, types), references, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for operation in OPERATIONS:
        path = f"{prefix}{operation.path}"
        paths.setdefault(path, {})[operation.method.lower()] = _described(operation, known, schemas)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Dialog",
            "version": __version__,
            "description": "Phone calls between people and LLM agents.",
        },
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _described(operation: Operation, known: dict[Any, dict[str, Any]], schemas: dict[str, Any]) -> dict[str, Any]:
    described: dict[str, Any] = {
        "operationId": operation.name,
        "summary": operation.summary,
        "responses": _responses(operation, known),
    }
    names = [part[1:-1] for part in operation.path.split("/") if part.startswith("{")]
    parameters = [{"name": name, "in": "path", "required": True, "schema": _ON_PATHS[name]} for name in names]
    if operation.query is not None:
        parameters += _query(operation.query, schemas)
    if parameters:
        described["parameters"] = parameters
    if operation.body is not None:
        described["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": known[id(operation.body)]}},
        }
    if operation.scope is not None:
        described["security"] = [{"token": []}]
        described["description"] = f"Needs the scope `{operation.scope}`."
    return described


def _responses(operation: Operation, known: dict[Any, dict[str, Any]]) -> dict[str, Any]:
    content: dict[str, Any] = {}
    if operation.produces == "bytes":
        content = {"audio/wav": {"schema": {"type": "string", "contentEncoding": "binary"}}}
    elif operation.produces == "events":
        content = {"text/event-stream": {"schema": {"type": "string"}}}
    elif operation.result is not None:
        content = {"application/json": {"schema": known[id(operation.result)]}}
    elif operation.status == 200:
        content = {"application/json": {"schema": {"type": "object"}}}
    meaning = inspect.getdoc(operation.result) if operation.result is not None else operation.summary
    answers: dict[str, Any] = {str(operation.status): {"description": (meaning or "").split("\n\n")[0]}}
    if content:
        answers[str(operation.status)]["content"] = content
    problems = set(operation.problems)
    if operation.scope is not None:
        problems |= {401, 403, 429}
    if operation.body is not None:
        problems |= {400, 413, 415, 422}
    if operation.query is not None:
        problems |= {422}
    for status in sorted(problems):
        answers[str(status)] = {
            "description": _MEANINGS[status],
            "content": {"application/problem+json": {"schema": {"$ref": _REFERENCE.format(name="ProblemBody")}}},
        }
    return answers


def _query(query: type[Struct], schemas: dict[str, Any]) -> list[dict[str, Any]]:
    described = schemas.pop(query.__name__, None)
    if described is None:
        described = schemas_of((query,), _REFERENCE)[1][query.__name__]
    required = described.get("required", ())
    found: list[dict[str, Any]] = []
    for name, schema in described["properties"].items():
        plain = dict(schema)
        kinds = [each for each in plain.pop("anyOf", ()) if each.get("type") != "null"]
        if kinds:
            plain = kinds[0]  # a query has no null: it is left out
        found.append({"name": name, "in": "query", "required": name in required, "schema": plain})
    return found

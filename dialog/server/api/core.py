"""The REST API: what can be asked, and the answers. HTTP servers are the shells'."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

import msgspec
from msgspec import Struct

from dialog.calls.publish import Missed, Notice
from dialog.errors import DialogError
from dialog.server.api.auth import Doorkeeper
from dialog.server.api.handlers import Handlers
from dialog.server.api.openapi import document
from dialog.server.api.operations import OPERATIONS, Asked, Operation, locate
from dialog.server.api.problems import Problem, problem_of
from dialog.server.config import ApiToken

if TYPE_CHECKING:
    from dialog.server.service import Service

__all__ = ["Answer", "Api", "HttpRequest", "Matched"]

logger = logging.getLogger(__name__)

_ALIVE_S: Final = 15.0
_JSON: Final = "application/json"
_encode: Final = msgspec.json.Encoder().encode


class HttpRequest(Struct, frozen=True, kw_only=True):
    """A request as both shells see it."""

    method: str
    path: str
    """Decoded, from the service's own root."""
    query: Mapping[str, str]
    headers: Mapping[str, str]
    """With lower-case names."""
    peer: str

    def __repr__(self) -> str:
        return f"<HttpRequest {self.method} {self.path}>"


class Answer(Struct, frozen=True, kw_only=True):
    """What a shell sends back: a body, or a stream of one."""

    status: int = 200
    body: bytes = b""
    content_type: str = _JSON
    headers: tuple[tuple[str, str], ...] = ()
    stream: AsyncIterator[bytes] | None = None


class Matched(Struct, frozen=True, kw_only=True):
    """A request that may be answered, before its body was read."""

    operation: Operation
    path: dict[str, str]
    query: Any
    token: ApiToken | None


class Api:
    """Answers requests for a service."""

    def __init__(self, service: Service) -> None:
        self.settings = service.config.api
        self._doorkeeper = Doorkeeper(self.settings)
        self._handlers = Handlers(service)
        self._service = service
        self._feeds = 0
        self._document = _encode(document(service.config.prefix))

    @property
    def operations(self) -> tuple[Operation, ...]:
        """Those that there are: without tokens only the open ones."""
        return OPERATIONS if self.settings.tokens else tuple(each for each in OPERATIONS if each.scope is None)

    def head(self, request: HttpRequest) -> Matched:
        """Check all that can be checked before the body is read.

        Raises:
            Problem: 401, 403, 404, 405, 413, 415, 422 or 429.
        """
        operation, path = locate(self.operations, request.method, request.path)
        token = None
        if operation.scope is not None:
            token = self._doorkeeper.admit(request.headers.get("authorization", ""), request.peer, operation.scope)
        if operation.body is not None:
            content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
            if content_type != _JSON:
                raise Problem(415, f"the content type must be {_JSON}")
            length = request.headers.get("content-length", "")
            if length.isdecimal() and int(length[:20]) > self.settings.max_body:
                raise Problem(413, f"the body is larger than {self.settings.max_body} bytes")
        query: Any = None
        if operation.query is not None:
            try:
                query = msgspec.convert(dict(request.query), operation.query, strict=False)
            except msgspec.ValidationError as exc:
                raise Problem(422, f"query: {exc}") from exc
        return Matched(operation=operation, path=path, query=query, token=token)

    async def answer(self, matched: Matched, body: bytes = b"") -> Answer:
        """Do what is asked.

        Raises:
            Problem: It cannot be done.
        """
        operation = matched.operation
        if operation.name == "openapi":
            return Answer(body=self._document)
        asked = self._asked(matched, body)
        if operation.produces == "events":
            return Answer(
                content_type="text/event-stream",
                headers=(("Cache-Control", "no-store"), ("X-Accel-Buffering", "no")),
                stream=_server_sent(self.feed(matched)),
            )
        try:
            result = await getattr(self._handlers, operation.name)(asked)
        except DialogError as exc:
            # Its text may name a number: it is for whoever asked.
            logger.warning("%s failed: %s", operation.name, type(exc).__name__)
            raise problem_of(exc) from exc
        if operation.produces == "bytes":
            return Answer(content_type="audio/wav", headers=(("Cache-Control", "no-store"),), stream=result)
        if operation.result is None:
            return Answer(status=operation.status)
        return Answer(status=operation.status, body=_encode(result), headers=(("Cache-Control", "no-store"),))

    def feed(self, matched: Matched) -> AsyncIterator[Notice | Missed | None]:
        """Live events; first of all ``None``, and again every 15 s in which there is no event.

        Raises:
            Problem: There is no such call, it has ended, or too many read.
        """
        call_id = self._asked(matched, b"").call_id if "call_id" in matched.path else None
        if call_id is not None:
            self._handlers.check_live(matched.token, call_id)
        if self._feeds >= self.settings.max_feeds:
            refused = f"{self._feeds} streams of events are open: no more are served"
            raise Problem(429, refused, (("Retry-After", "30"),))
        return self._read(call_id, matched.token)

    async def _read(self, call_id: UUID | None, token: ApiToken | None) -> AsyncIterator[Notice | Missed | None]:
        self._feeds += 1
        try:
            with self._service.events.read(call_id, limit=self.settings.feed_limit) as reader:
                yield None
                while True:
                    try:
                        async with asyncio.timeout(_ALIVE_S):
                            happened = await anext(reader)
                    except TimeoutError:
                        yield None
                    except StopAsyncIteration:
                        return
                    else:
                        if isinstance(happened, Missed) or self._handlers.may_see(token, happened.call):
                            yield happened
        finally:
            self._feeds -= 1

    def _asked(self, matched: Matched, body: bytes) -> Asked:
        operation = matched.operation
        decoded: Any = None
        if operation.body is not None:
            if len(body) > self.settings.max_body:
                raise Problem(413, f"the body is larger than {self.settings.max_body} bytes")
            try:
                decoded = msgspec.json.decode(body, type=operation.body)
            except msgspec.ValidationError as exc:
                raise Problem(422, str(exc)) from exc
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
                raise Problem(400, f"the body is no JSON: {exc}") from exc
        call_id: UUID | None = None
        if "call_id" in matched.path:
            try:
                call_id = UUID(matched.path["call_id"])
            except ValueError as exc:
                raise Problem(404, "there is no call of this id") from exc
        return Asked(call_id=call_id, path=matched.path, query=matched.query, body=decoded, token=matched.token)


async def _server_sent(feed: AsyncIterator[Notice | Missed | None]) -> AsyncIterator[bytes]:
    try:
        async for happened in feed:
            if happened is None:
                yield b": still here\n\n"
            elif isinstance(happened, Missed):
                yield b"event: reader.dropped\ndata: %s\n\n" % happened.to_json()
            else:
                event = happened.event
                kind = event.__struct_config__.tag
                yield b"id: %d\nevent: %s\ndata: %s\n\n" % (event.seq, str(kind).encode(), happened.to_json())
    finally:
        await feed.aclose()  # type: ignore[attr-defined]  # it is a generator

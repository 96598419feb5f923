"""The REST API: what can be asked, and the answers. HTTP servers are the shells'."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

import msgspec
from msgspec import Struct

from dialog.calls.publish import EventReader, Notice
from dialog.errors import ConfigurationError, DialogError
from dialog.server.api.auth import Doorkeeper
from dialog.server.api.elsewhere import Elsewhere
from dialog.server.api.feeds import Feed, Told, everywhere, missed, to_its_end, told, told_by
from dialog.server.api.handlers import Handlers
from dialog.server.api.openapi import document
from dialog.server.api.operations import OPERATIONS, Asked, Operation, locate
from dialog.server.api.problems import Problem, problem_of
from dialog.server.api.questions import Answered, Do
from dialog.server.config import ApiToken

if TYPE_CHECKING:
    from dialog.server.service import Service

__all__ = ["Answer", "Api", "HttpRequest", "Matched"]

logger = logging.getLogger(__name__)

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


def refused(problem: Problem) -> Answer:
    """What is answered instead."""
    return Answer(
        status=problem.status,
        body=problem.to_json(),
        content_type="application/problem+json",
        headers=problem.headers,
    )


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
        self.handlers = Handlers(service)
        self.elsewhere = Elsewhere(self, service.holds, service.limits.here)
        """The other processes of the service."""
        self.doorkeeper = Doorkeeper(self.settings)
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
            token = self.doorkeeper.admit(request.headers.get("authorization", ""), request.peer, operation.scope)
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
        """Do what is asked, in the process that has the call.

        Raises:
            Problem: It cannot be done.
        """
        operation = matched.operation
        if operation.name == "openapi":
            return Answer(body=self._document)
        if operation.produces == "events":
            return Answer(
                content_type="text/event-stream",
                headers=(("Cache-Control", "no-store"), ("X-Accel-Buffering", "no")),
                stream=_server_sent(await self.feed(matched)),
            )
        asked = self._asked(matched, body)
        if asked.call_id is None or operation.produces != "json":
            return await self._here(operation, asked)
        owner = await self.elsewhere.owner(asked.call_id)
        wanted = Do(operation.name, matched.path, body, _name_of(matched.token))
        done = await self.elsewhere.do(owner.node, asked.call_id, wanted) if owner.node else None
        if done is not None:
            return Answer(status=done.status, body=done.body, headers=tuple(done.headers))
        try:
            return await self._here(operation, asked)
        except Problem as problem:
            raise owner.missing(problem) from problem

    async def do(self, wanted: Do, token: ApiToken | None) -> Answered:
        """Do what was asked of another process, about a call that is here.

        Raises:
            Problem: It cannot be done.
        """
        operation = next((each for each in self.operations if each.name == wanted.operation), None)
        of_calls = operation is not None and "{call_id}" in operation.path and "call_id" in wanted.path
        if operation is None or not of_calls or operation.produces != "json":
            raise Problem(501, "the process that has this call cannot do that")
        matched = Matched(operation=operation, path=wanted.path, query=None, token=token)
        done = await self._here(operation, self._asked(matched, wanted.body))
        return Answered(done.status, done.body, list(done.headers))

    async def _here(self, operation: Operation, asked: Asked) -> Answer:
        try:
            result = await getattr(self.handlers, operation.name)(asked)
        except DialogError as exc:
            # Its text may name a number: it is for whoever asked.
            logger.warning("%s failed: %s", operation.name, type(exc).__name__)
            raise problem_of(exc) from exc
        if operation.produces == "bytes":
            return Answer(content_type="audio/wav", headers=(("Cache-Control", "no-store"),), stream=result)
        if operation.result is None:
            return Answer(status=operation.status)
        return Answer(status=operation.status, body=_encode(result), headers=(("Cache-Control", "no-store"),))

    async def feed(self, matched: Matched) -> Feed:
        """Live events of a call, or of all calls, wherever they are.

        Raises:
            Problem: There is no such call, it has ended, or too many read.
        """
        call_id = self._asked(matched, b"").call_id if "call_id" in matched.path else None
        if self._feeds >= self.settings.max_feeds:
            refused = f"{self._feeds} streams of events are open: no more are served"
            raise Problem(429, refused, (("Retry-After", "30"),))
        if call_id is None:
            return self._count(self._of_all(matched.token))
        return self._count(await self._of_call(call_id, matched.token))

    def reader(self, call_id: UUID | None) -> EventReader:
        """A reader of the events of a call that is here, or of all."""
        return self._service.events.read(call_id, limit=self.settings.feed_limit)

    async def _of_call(self, call_id: UUID, token: ApiToken | None) -> Feed:
        owner = await self.elsewhere.owner(call_id)
        if owner.node:
            feed = await self.elsewhere.follow_call(owner.node, call_id, _name_of(token))
            if feed is not None:
                return to_its_end(feed, call_id)
        try:
            self.handlers.check_live(token, call_id)
        except Problem as problem:
            raise owner.missing(problem) from problem
        return self._own(call_id, token)

    def _of_all(self, token: ApiToken | None) -> Feed:
        own, peers = self._own(None, token), self.elsewhere.peers
        if peers is None:
            return own
        return everywhere(own, peers, lambda node: self.elsewhere.follow(node, _name_of(token)))

    def _own(self, call_id: UUID | None, token: ApiToken | None) -> Feed:
        return told_by(
            lambda: self.reader(call_id),
            lambda call: self.handlers.may_see(token, call),
            lambda: None if call_id is None else self._end_of(call_id),
        )

    def _end_of(self, call_id: UUID) -> Told | None:
        """What is told of a call that has ended; ``None``: it goes on."""
        session = self._service.session(call_id)
        if session is None:
            return missed(call_id)
        return None if session.end is None else told(Notice(session.call, session.end))

    async def _count(self, feed: Feed) -> Feed:
        self._feeds += 1
        try:
            async with aclosing(feed):
                async for happened in feed:
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
            except (msgspec.ValidationError, ConfigurationError) as exc:
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


def _name_of(token: ApiToken | None) -> str:
    return "" if token is None else token.name


async def _server_sent(feed: Feed) -> AsyncIterator[bytes]:
    async with aclosing(feed):
        async for happened in feed:
            if happened is None:
                yield b": still here\n\n"
                continue
            number = b"id: %d\n" % happened.seq if happened.seq >= 0 else b""
            yield b"%sevent: %s\ndata: %s\n\n" % (number, happened.kind.encode(), happened.body)

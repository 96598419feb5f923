"""What the console answers; HTTP servers are the shells'."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from secrets import token_bytes
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qs
from uuid import UUID

import msgspec
from msgspec import Struct

from dialog.net.origins import is_own
from dialog.server.api.core import Answer, Matched
from dialog.server.api.operations import OPERATIONS
from dialog.server.api.problems import Problem
from dialog.server.config import ApiToken, ServiceConfig
from dialog.server.console import pages
from dialog.server.console.board import Board
from dialog.server.console.history import HistoryQuery, Past
from dialog.server.console.neighbours import Neighbours
from dialog.server.console.viewer import ConsoleSocket, Viewer
from dialog.server.console.visitors import COOKIE, LIFE_S, Visitor, Visitors
from dialog.voip.call import Call

if TYPE_CHECKING:
    from dialog.server.service import Service

__all__ = ["Console", "Visit"]

logger = logging.getLogger(__name__)

_MAX_VIEWERS: Final = 100
_COMMANDS: Final = {"hangup": "hang_up", "transfer": "transfer_call", "whisper": "whisper"}
"""The operations of the REST API that the page has buttons for."""
_OPERATIONS: Final = {each.name: each for each in OPERATIONS}
_encode: Final = msgspec.json.Encoder().encode


class Visit(Struct, frozen=True, kw_only=True):
    """A request as both shells see it."""

    method: str
    path: str
    """Decoded, from the console's own root: ``/calls/…``, or nothing."""
    query: Mapping[str, str]
    headers: Mapping[str, str]
    """With lower-case names."""
    peer: str
    base: str
    """Where the browser sees the console: ``/voice/console``."""
    secure: bool
    """The request came over TLS, as far as the server knows."""

    def __repr__(self) -> str:
        return f"<Visit {self.method} {self.path}>"


class Console:
    """Serves the page, and everything that it asks for.

    What it does to calls are operations of the REST API, with the rights of the token that was shown.

    Args:
        service: Whose calls.
    """

    def __init__(self, service: Service) -> None:
        self.path: str = service.config.console
        self.settings = service.config.api
        self.board = Board(service.tenant_of)
        service.events.on(lambda notice: self.board.take(notice.call, notice.event))
        self._service = service
        self._past = Past(service, self.board)
        self._visitors = Visitors(service.config.api.tokens, _key(service.config))
        self._viewers = 0

    async def answer(self, visit: Visit, body: bytes = b"") -> Answer:
        """Answer a request.

        Raises:
            Problem: It is refused.
        """
        name = visit.path.removeprefix("/")
        if visit.method not in ("GET", "POST"):
            raise Problem(405, f"{visit.method} is not allowed here", (("Allow", "GET, POST"),))
        if visit.method == "POST":
            self._check_origin(visit)
        if name in pages.FILES and visit.method == "GET":
            return _file(name, visit)
        match (visit.method, name):
            case ("GET", ""):
                return self._page(visit)
            case ("POST", "sign-in"):
                return self._sign_in(visit, body)
            case ("POST", "sign-out"):
                return _go(visit, self._cookie(visit, "", 0))
            case _:
                return await self._asked(visit, body, name.split("/"))

    async def _asked(self, visit: Visit, body: bytes, parts: list[str]) -> Answer:
        token = self._visitor(visit).token
        match (visit.method, *parts):
            case ("GET", "history"):
                try:
                    query = msgspec.convert(dict(visit.query), HistoryQuery, strict=False)
                except msgspec.ValidationError as exc:
                    raise Problem(422, f"query: {exc}") from exc
                return _json(_encode(await self._past.search(query, token)))
            case ("GET", "calls", call_id):
                return _json(await self._past.show(_uuid(call_id), token))
            case ("GET", "calls", call_id, "recordings", index):
                return await self._operate("recording", token, {"call_id": call_id, "index": index})
            case ("POST", "calls", call_id, command) if command in _COMMANDS:
                if visit.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
                    raise Problem(415, "the content type must be application/json")
                return await self._operate(_COMMANDS[command], token, {"call_id": call_id}, body)
            case _:
                raise Problem(404, "nothing is here")

    async def _operate(self, name: str, token: ApiToken, path: dict[str, str], body: bytes = b"") -> Answer:
        operation = _OPERATIONS[name]
        if operation.scope not in token.scopes:
            raise Problem(403, f"the token {token.name!r} lacks the scope {operation.scope}")
        return await self._service.api.answer(Matched(operation=operation, path=path, query=None, token=token), body)

    # Sockets.

    def admit(self, visit: Visit) -> Visitor:
        """Who opens a socket.

        Raises:
            Problem: 401, 403, 404 or 503.
        """
        self._check_origin(visit)
        if visit.path != "/live":
            raise Problem(404, "nothing is here")
        visitor = self._visitor(visit)
        if self._viewers >= _MAX_VIEWERS:
            raise Problem(503, f"{self._viewers} pages are open: no more are served", (("Retry-After", "30"),))
        return visitor

    async def attend(self, visitor: Visitor, socket: ConsoleSocket) -> None:
        """Serve a page that is open, until it leaves or has to sign in again."""
        neighbours = Neighbours(self._service.api, visitor.token)
        viewer = Viewer(
            socket,
            (self.board, neighbours.board),
            sees=lambda tenant: tenant is None or visitor.token.may_use(tenant),
            find=self._call,
        )
        following = asyncio.create_task(neighbours.run(), name="calls of other processes for a page of the console")
        self._viewers += 1
        try:
            async with self._visitors.until(visitor):
                await viewer.run()
        except TimeoutError:
            logger.info("a page of the console took nothing any more, or was open for too long")
        finally:
            self._viewers -= 1
            following.cancel()
            await asyncio.wait((following,))
            if not following.cancelled() and (failure := following.exception()) is not None:
                logger.error("the calls of other processes were not shown: %r", failure)

    def _call(self, call_id: UUID) -> Call | None:
        return next((call for call in self._service.calls if call.metadata.call_id == call_id), None)

    # Who asks.

    def _page(self, visit: Visit) -> Answer:
        visitor = self._visitors.find(visit.headers.get("cookie", ""))
        if visitor is None:
            return self._html(visit, pages.sign_in_page(visit.base))
        token = visitor.token
        return self._html(visit, pages.page(visit.base, name=token.name, may_act="calls:write" in token.scopes))

    def _sign_in(self, visit: Visit, body: bytes) -> Answer:
        try:
            form = parse_qs(body.decode("utf-8", "replace"), max_num_fields=5)
        except ValueError as exc:
            raise Problem(400, f"this is not what the form sends: {exc}") from exc
        given = (form.get("token") or [""])[0].strip()
        try:
            token = self._service.api.doorkeeper.admit(f"Bearer {given}", visit.peer, "calls:read")
        except Problem as problem:
            told = {
                401: "This token is not known here.",
                403: "This token may not look at calls: it lacks the scope calls:read.",
            }.get(problem.status, "That was too often. Try again in a moment.")
            return self._html(visit, pages.sign_in_page(visit.base, told), problem.status)
        logger.info("%s has signed in to the console with the token %r", visit.peer, token.name)
        return _go(visit, self._cookie(visit, self._visitors.sign_in(token), int(LIFE_S)))

    def _visitor(self, visit: Visit) -> Visitor:
        visitor = self._visitors.find(visit.headers.get("cookie", ""))
        if visitor is None:
            raise Problem(401, "you are not signed in (any more)")
        return visitor

    def _check_origin(self, visit: Visit) -> None:
        """Keep out what another site lets a browser do here.

        Raises:
            Problem: 403.
        """
        origin = visit.headers.get("origin", "")
        foreign = visit.headers.get("sec-fetch-site", "same-origin") in ("cross-site", "same-site")
        if foreign or (origin and not is_own(origin, self._host(visit))):
            raise Problem(403, "pages of other sites may not ask")

    def _host(self, visit: Visit) -> str:
        forwarded = visit.headers.get("x-forwarded-host", "") if self._service.config.trust_forwarded_headers else ""
        return (forwarded or visit.headers.get("host", "")).partition(",")[0].strip()

    def _cookie(self, visit: Visit, value: str, life_s: int) -> tuple[tuple[str, str], ...]:
        # A proxy may have taken the TLS off; the browser says which it speaks.
        secure = visit.secure or visit.headers.get("origin", "").startswith("https://")
        rest = f"Path={visit.base}; Max-Age={life_s}; HttpOnly; SameSite=Strict{'; Secure' if secure else ''}"
        return (("Set-Cookie", f"{COOKIE}={value}; {rest}"),)

    def _html(self, visit: Visit, body: bytes, status: int = 200) -> Answer:
        host = self._host(visit)
        return Answer(status=status, body=body, content_type="text/html; charset=utf-8", headers=pages.headers(host))


def _key(config: ServiceConfig) -> bytes:
    """A secret that all processes of a service have; where there is none, one of this process."""
    known = [tenant.secret for tenant in config.tenants.values()]
    known += [token.token for token in config.api.tokens if token.token]
    if config.clients is not None and config.clients.token_key:
        known.append(config.clients.token_key)
    return "\0".join(sorted(known)).encode() if known else token_bytes(32)


def _file(name: str, visit: Visit) -> Answer:
    data, tag = pages.file(name)
    headers = (("Cache-Control", "no-cache"), ("X-Content-Type-Options", "nosniff"), ("ETag", tag))
    if visit.headers.get("if-none-match") == tag:
        return Answer(status=304, headers=headers)
    return Answer(body=data, content_type=pages.content_type(name), headers=headers)


def _go(visit: Visit, headers: tuple[tuple[str, str], ...]) -> Answer:
    """Back to the page."""
    return Answer(status=303, headers=(("Location", visit.base), ("Cache-Control", "no-store"), *headers))


def _json(body: bytes) -> Answer:
    return Answer(body=body, headers=(("Cache-Control", "no-store"),))


def _uuid(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError as exc:
        raise Problem(404, "there is no call of this id") from exc

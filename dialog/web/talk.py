"""A page to talk to the agents of a gateway: press, and speak."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from functools import cache
from html import escape
from pathlib import Path
from string import Template
from typing import Final, TypeAlias

import msgspec
from aiohttp import web
from msgspec import Struct

from dialog.errors import ConfigurationError
from dialog.net.asgi import Message, Receive, Send, headers_of, respond
from dialog.voip.web.gateway import WebGateway

__all__ = ["Authorize", "AuthorizeScope", "TalkPage", "client_files"]

Authorize: TypeAlias = Callable[[web.Request], Awaitable[str | None]]
"""Says which user of the host asks; ``None``: nobody who may talk."""
AuthorizeScope: TypeAlias = Callable[[Message], Awaitable[str | None]]
"""The same of an ASGI scope, of which Starlette's ``Request(scope)`` can be made."""

_STATIC: Final = Path(__file__).parent / "static"
_TYPES: Final = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
_HOST: Final = re.compile(r"[\w.:\[\]-]+")
_CLIENT: Final = ("dialog.js", "dialog-audio.js", "dialog-webrtc.js")
_FILES: Final = (*_CLIENT, "talk.js", "talk.css", "talk.svg")


def client_files() -> Mapping[str, Path]:
    """The JavaScript client, to be served from one directory of the host's: file names and where they are."""
    return {name: _STATIC / name for name in _CLIENT}


class TalkPage:
    """Serves the page, its files, and the tokens of its calls.

    ::

        gateway = WebGateway(agents=["front-desk"])
        gateway.add_routes(app)
        TalkPage(gateway).add_routes(app)  # GET /talk

    Args:
        gateway: Who takes the calls; its agents can be chosen on the page.
        path: Of the page.
        title: Its name.
        note: A sentence at its foot.
        names: What agents are called on the page, if not as the gateway calls them.
        authorize: Says who asks for a token, by a cookie perhaps. Without it everybody who can reach the page may
            talk: put it behind your own login.

    Raises:
        ConfigurationError: ``path`` is none.
    """

    def __init__(
        self,
        gateway: WebGateway,
        *,
        path: str = "/talk",
        title: str = "Talk to an agent",
        note: str = "",
        names: Mapping[str, str] | None = None,
        authorize: Authorize | None = None,
    ) -> None:
        if not path.startswith("/") or len(path) < 2 or path.endswith("/"):
            raise ConfigurationError(f"path is like /talk, got {path!r}")
        self.path: str = path
        self._gateway = gateway
        self._title = title
        self._note = note
        self._names = dict(names or {})
        self._authorize = authorize

    def add_routes(self, app: web.Application) -> None:
        """Add the page's routes to an aiohttp application."""
        app.router.add_get(self.path, self._serve)
        app.router.add_post(f"{self.path}/token", self._serve)
        for name in _FILES:
            app.router.add_get(f"{self.path}/{name}", self._serve)

    def asgi(self, *, authorize: AuthorizeScope | None = None) -> Callable[[Message, Receive, Send], Awaitable[None]]:
        """The page as an ASGI 3 application: ``Mount("/talk", page.asgi())``, where :attr:`path` is ``/talk``.

        The gateway's own is mounted beside it, at its path.

        Args:
            authorize: What the page's ``authorize`` is for aiohttp.

        Raises:
            ConfigurationError: The page has an ``authorize``, which nobody would ask here.
        """
        if self._authorize is not None:
            raise ConfigurationError("an ASGI server knows no requests of aiohttp: give asgi() the authorize")

        async def app(scope: Message, receive: Receive, send: Send) -> None:
            del receive  # nobody says anything that matters
            if scope["type"] != "http":
                raise NotImplementedError(f"the ASGI scope {scope['type']!r} is not served here")
            await self._serve_scope(authorize, scope, send)

        return app

    async def _serve(self, request: web.Request) -> web.Response:
        mounted, below = self._place(request.path)
        host, origin = request.host, request.headers.get("Origin", "")
        user: str | None = ""
        if self._authorize is not None and below == "/token" and self._gateway.trusts(origin, host):
            user = await self._authorize(request)
        answer = self._answer(below, mounted, host, origin, user)
        return web.Response(status=answer.status, body=answer.body, headers=answer.headers)

    async def _serve_scope(self, authorize: AuthorizeScope | None, scope: Message, send: Send) -> None:
        root, path = scope.get("root_path", "").rstrip("/"), scope["path"].rstrip("/")
        # Older servers tell the rest of the path alone.
        mounted, below = self._place(path if path.startswith(root) else root + path)
        headers = headers_of(scope)
        host, origin = headers.get("host", ""), headers.get("origin", "")
        user: str | None = ""
        if authorize is not None and below == "/token" and self._gateway.trusts(origin, host):
            user = await authorize(scope)
        if below is not None and scope["method"] != ("POST" if below == "/token" else "GET"):
            answer = _plain(405, "not in this way")
        else:
            answer = self._answer(below, mounted, host, origin, user)
        await respond(send, answer.status, answer.headers.items(), answer.body)

    def _place(self, path: str) -> tuple[str, str | None]:
        """Below which path of the host gateway and page are mounted together, and what is asked for below the page."""
        for below in ("", "/token", *(f"/{name}" for name in _FILES)):
            if path.endswith(self.path + below):
                return path.removesuffix(self.path + below), below
        return path, None

    def _answer(self, below: str | None, mounted: str, host: str, origin: str, user: str | None) -> _Answer:
        if below is None:
            return _plain(404, "nothing is here")
        if not below:
            return self._page(mounted, host)
        return self._token(host, origin, user) if below == "/token" else _file(below[1:])

    def _page(self, mounted: str, host: str) -> _Answer:
        agents = self._gateway.agents or ("",)
        options = "".join(
            f'<option value="{escape(each)}">{escape(self._names.get(each, each) or "The agent")}</option>'
            for each in agents
        )
        text = _template().substitute(
            title=escape(self._title),
            base=escape(mounted + self.path),
            socket=escape(mounted + self._gateway.path),
            agents=options,
            transport="auto" if self._gateway.webrtc else "websocket",
            note=escape(self._note),
        )
        host = host if _HOST.fullmatch(host) else ""
        sockets = f"ws://{host} wss://{host}" if host else ""  # not all browsers count them as 'self'
        policy = (
            f"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; worker-src 'self'; "
            f"connect-src 'self' {sockets}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )
        headers = {
            "Content-Type": "text/html; charset=utf-8",
            "Content-Security-Policy": policy,
            "Permissions-Policy": "microphone=(self), camera=(), geolocation=()",
            "Referrer-Policy": "no-referrer",
            "X-Content-Type-Options": "nosniff",
            "Cache-Control": "no-cache",
        }
        return _Answer(200, text.encode(), headers)

    def _token(self, host: str, origin: str, user: str | None) -> _Answer:
        if not self._gateway.trusts(origin, host):
            return _plain(403, "pages of this origin may not ask")
        if user is None:
            return _plain(401, "you may not talk to this agent")
        body = msgspec.json.encode({"token": self._gateway.token(user=user)})
        return _Answer(200, body, {"Content-Type": "application/json", "Cache-Control": "no-store"})


class _Answer(Struct, frozen=True):
    status: int
    body: bytes
    headers: dict[str, str]


def _plain(status: int, text: str) -> _Answer:
    return _Answer(status, text.encode() + b"\n", {"Content-Type": "text/plain; charset=utf-8"})


@cache
def _template() -> Template:
    return Template((_STATIC / "talk.html").read_text("utf-8"))


@cache
def _file(name: str) -> _Answer:
    headers = {
        "Content-Type": f"{_TYPES[Path(name).suffix]}; charset=utf-8",
        "X-Content-Type-Options": "nosniff",
        "Cache-Control": "no-cache",
    }
    return _Answer(200, (_STATIC / name).read_bytes(), headers)

"""A page to talk to the agents of a gateway: press, and speak."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from functools import cache
from html import escape
from pathlib import Path
from string import Template
from typing import Final, TypeAlias

from aiohttp import web

from dialog.errors import ConfigurationError
from dialog.voip.web.gateway import WebGateway

__all__ = ["Authorize", "TalkPage", "client_files"]

Authorize: TypeAlias = Callable[[web.Request], Awaitable[str | None]]
"""Says which user of the host asks; ``None``: nobody who may talk."""

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
        app.router.add_get(self.path, self._page)
        app.router.add_post(f"{self.path}/token", self._token)
        for name in _FILES:
            app.router.add_get(f"{self.path}/{name}", _file)

    async def _page(self, request: web.Request) -> web.Response:
        agents = self._gateway.agents or ("",)
        options = "".join(
            f'<option value="{escape(each)}">{escape(self._names.get(each, each) or "The agent")}</option>'
            for each in agents
        )
        # A gateway and its page may be mounted together below another path of the host.
        mounted = request.path.removesuffix(self.path)
        text = _template().substitute(
            title=escape(self._title),
            base=escape(mounted + self.path),
            socket=escape(mounted + self._gateway.path),
            agents=options,
            transport="auto" if self._gateway.webrtc else "websocket",
            note=escape(self._note),
        )
        host = request.host if _HOST.fullmatch(request.host) else ""
        sockets = f"ws://{host} wss://{host}" if host else ""  # not all browsers count them as 'self'
        policy = (
            f"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; worker-src 'self'; "
            f"connect-src 'self' {sockets}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )
        headers = {
            "Content-Security-Policy": policy,
            "Permissions-Policy": "microphone=(self), camera=(), geolocation=()",
            "Referrer-Policy": "no-referrer",
            "X-Content-Type-Options": "nosniff",
            "Cache-Control": "no-cache",
        }
        return web.Response(text=text, content_type="text/html", charset="utf-8", headers=headers)

    async def _token(self, request: web.Request) -> web.Response:
        if not self._gateway.trusts(request.headers.get("Origin", ""), request.host):
            return web.Response(status=403, text="pages of this origin may not ask\n")
        user = "" if self._authorize is None else await self._authorize(request)
        if user is None:
            return web.Response(status=401, text="you may not talk to this agent\n")
        return web.json_response({"token": self._gateway.token(user=user)}, headers={"Cache-Control": "no-store"})


@cache
def _template() -> Template:
    return Template((_STATIC / "talk.html").read_text("utf-8"))


async def _file(request: web.Request) -> web.StreamResponse:
    name = request.path.rpartition("/")[2]
    headers = {
        "Content-Type": f"{_TYPES[Path(name).suffix]}; charset=utf-8",
        "X-Content-Type-Options": "nosniff",
        "Cache-Control": "no-cache",
    }
    return web.FileResponse(_STATIC / name, headers=headers)

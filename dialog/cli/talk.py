"""The talk page, served on this machine."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from aiohttp import web
from rich.console import Console

from dialog import logs
from dialog.cli.needs import check_speech
from dialog.errors import ConfigurationError
from dialog.loading import load_function
from dialog.server.serving import serve
from dialog.voip.web.gateway import WebGateway
from dialog.voip.web.voip import WebVoIP
from dialog.web.talk import TalkPage

__all__ = ["TalkSite", "make_site", "run_talk"]

_DEMO_NOTE = (
    "A demonstration that runs on this machine alone. Its recogniser knows only the sentences of a restaurant's front "
    "desk, such as “what are your opening hours on friday” or “is there parking near the restaurant”."
)


class TalkSite:
    """A gateway and its page, served together."""

    def __init__(self, gateway: WebGateway, page: TalkPage) -> None:
        self.gateway = gateway
        self.page = page

    def add_routes(self, app: web.Application) -> None:
        """Add the page, the WebSocket, and a way from the root to the page."""
        self.gateway.add_routes(app)
        self.page.add_routes(app)
        app.router.add_get("/", self._root)

    @property
    def ready(self) -> bool:
        """Whether a call would be taken."""
        return self.gateway.ready

    async def drain(self, timeout_s: float) -> bool:
        """Take no more calls, and wait for those that are there."""
        return await self.gateway.drain(timeout_s)

    async def _root(self, _: web.Request) -> web.StreamResponse:
        raise web.HTTPFound(self.page.path)


def make_site(targets: Mapping[str, Callable[[Any], object]], *, names: Mapping[str, str], note: str = "") -> TalkSite:
    """A site whose agents are made by functions, by the names under which they are chosen."""
    gateway = WebGateway(agents=tuple(targets))

    def on_voip(voip: WebVoIP) -> None:
        made: object = targets[voip.agent](voip)
        if asyncio.iscoroutine(made):
            voip.spawn(made, "on_voip")

    gateway.on("voip", on_voip)
    return TalkSite(gateway, TalkPage(gateway, names=names, note=note))


async def run_talk(console: Console, targets: tuple[str, ...], *, host: str, port: int, log_level: str) -> int:
    """Serve the page until Ctrl-C.

    Raises:
        ConfigurationError: A target names no function, two are the same, or the address is taken.
        MissingExtra: The demo's speech is not installed.
    """
    if targets:
        if len(set(targets)) < len(targets):
            raise ConfigurationError("an agent is named twice")
        site = make_site({each: load_function(each) for each in targets}, names={})
    else:
        check_speech()
        from dialog.demo.web import AGENTS, on_voip

        site = make_site(dict.fromkeys(AGENTS, on_voip), names=AGENTS, note=_DEMO_NOTE)

    def started(bound: int) -> None:
        address = "localhost" if host in ("127.0.0.1", "::1", "0.0.0.0") else host  # noqa: S104  # compared, not bound
        console.print(f"Talk to it at http://{address}:{bound}{site.page.path}   (Ctrl-C ends it)", highlight=False)

    with logs.configure(log_level):
        try:
            await serve(site, host=host, port=port, leave_s=0.0, drain_s=0.0, started=started, watched=site.gateway)
        except OSError as exc:
            raise ConfigurationError(f"{host}:{port} cannot be listened at: {exc}") from exc
    return 0

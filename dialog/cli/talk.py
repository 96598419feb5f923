"""The talk page, served on this machine."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from secrets import token_urlsafe
from typing import Any

from aiohttp import web
from rich.console import Console

from dialog import logs
from dialog.cli.needs import check_log, check_speech
from dialog.errors import ConfigurationError
from dialog.loading import load_on_voip
from dialog.message import StreamStarted
from dialog.server.config import ApiSettings, ApiToken, ClientSettings, ServiceConfig
from dialog.server.service import Service
from dialog.server.serving import serve
from dialog.voip.voip import VoIP
from dialog.voip.web.gateway import WebGateway
from dialog.voip.web.rtc.settings import WebRTC, has_aiortc
from dialog.voip.web.voip import WebVoIP
from dialog.web.talk import TalkPage

__all__ = ["ConsoleSite", "TalkSite", "make_site", "run_talk"]

_DEMO_NOTE = (
    "A demonstration that runs on this machine alone. Its recogniser knows only the sentences of a restaurant's front "
    "desk, such as “what are your opening hours on friday” or “is there parking near the restaurant”."
)


class TalkSite:
    """A gateway and its page, served together."""

    def __init__(self, gateway: WebGateway, page: TalkPage) -> None:
        self.gateway = gateway
        self.page = page
        self.watched: object = gateway

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


class ConsoleSite:
    """A service for browsers with its talk page and its console: calls are logged, and recorded.

    Args:
        targets: Functions that give calls their agents, by names.
        names: What these are called on the page.
        note: At its foot.
        out: Where the call log and the recordings are kept.
        token: Opens the console.
    """

    def __init__(
        self,
        targets: Mapping[str, Callable[[Any], object]],
        *,
        names: Mapping[str, str],
        note: str,
        out: Path,
        token: str,
    ) -> None:
        ids = {name: re.sub(r"[/?#% ]", "-", name) for name in targets}
        self.service = Service(
            ServiceConfig(
                assistants={ids[name]: _recorded(target) for name, target in targets.items()},
                default_assistant=next(iter(ids.values())),
                clients=ClientSettings(recordings=str(out), webrtc=WebRTC() if has_aiortc() else None),
                api=ApiSettings(tokens=(ApiToken(name="talk", token=token),)),
                log=f"sqlite:///{out / 'calls.db'}",
            )
        )
        assert self.service.clients is not None
        shown = {ids[name]: names.get(name, name) for name in targets}
        self.page = TalkPage(self.service.clients, names=shown, note=note)
        self.watched: object = self.service

    def add_routes(self, app: web.Application) -> None:
        """Add the service and the page."""
        self.service.add_routes(app)
        self.page.add_routes(app)

    @property
    def ready(self) -> bool:
        """Whether a call would be taken."""
        return self.service.ready

    async def drain(self, timeout_s: float) -> bool:
        """Take no more calls, and wait for those that are there."""
        return await self.service.drain(timeout_s)


def _recorded(target: Callable[[Any], object]) -> Callable[[VoIP], object]:
    """The same agent, whose calls are recorded from their first stream on."""

    def on_voip(voip: VoIP) -> object:
        def begin(_: StreamStarted) -> None:
            voip.off(VoIP.STREAMING_STARTED, begin)
            voip.spawn(voip.start_recording(), "start of the recording")

        voip.on(VoIP.STREAMING_STARTED, begin)
        return target(voip)

    return on_voip


def make_site(targets: Mapping[str, Callable[[Any], object]], *, names: Mapping[str, str], note: str = "") -> TalkSite:
    """A site whose agents are made by functions, by the names under which they are chosen."""
    gateway = WebGateway(agents=tuple(targets), webrtc=WebRTC() if has_aiortc() else None)

    def on_voip(voip: WebVoIP) -> None:
        made: object = targets[voip.agent](voip)
        if asyncio.iscoroutine(made):
            voip.spawn(made, "on_voip")

    gateway.on("voip", on_voip)
    return TalkSite(gateway, TalkPage(gateway, names=names, note=note))


async def run_talk(
    console: Console, targets: tuple[str, ...], *, host: str, port: int, log_level: str, out: Path | None
) -> int:
    """Serve the page until Ctrl-C; with ``out`` the console as well, which keeps calls and recordings there.

    Raises:
        ConfigurationError: A target names no function, two are the same, the address is taken, or ``out`` cannot be
            written.
        MissingExtra: The demo's speech, or what the call log needs, is not installed.
    """
    note, names, made = "", {}, {}
    if targets:
        if len(set(targets)) < len(targets):
            raise ConfigurationError("an agent is named twice")
        made = {each: load_on_voip(each) for each in targets}
    else:
        check_speech()
        from dialog.demo.web import AGENTS, on_voip

        note, names, made = _DEMO_NOTE, dict(AGENTS), dict.fromkeys(AGENTS, on_voip)
    token = token_urlsafe(16)
    if out is None:
        site: TalkSite | ConsoleSite = make_site(made, names=names, note=note)
    else:
        check_log()
        try:
            await asyncio.to_thread(out.mkdir, parents=True, exist_ok=True)
        except OSError as exc:
            raise ConfigurationError(f"{out} cannot be written: {exc}") from exc
        site = ConsoleSite(made, names=names, note=note, out=out, token=token)

    def started(bound: int) -> None:
        address = "localhost" if host in ("127.0.0.1", "::1", "0.0.0.0") else host  # noqa: S104  # compared, not bound
        url = f"http://{address}:{bound}"
        console.print(f"Talk to it at {url}{site.page.path}   (Ctrl-C ends it)", highlight=False)
        if out is not None:
            console.print(f"Watch it at {url}/console with the token {token}", highlight=False, soft_wrap=True)

    with logs.configure(log_level):
        await serve(site, host=host, port=port, leave_s=0.0, drain_s=0.0, started=started, watched=site.watched)
    return 0

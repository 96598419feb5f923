"""A gateway that is called over Telnyx, on loopback."""

from __future__ import annotations

import asyncio
import socket
from contextlib import asynccontextmanager

from aiohttp import web
from steady import steady_clock

from dialog.net.listening import unlisten
from dialog.testing.telnyx import TelnyxEmulator
from dialog.voip.call import CallSettings
from dialog.voip.telnyx.gateway import TelnyxGateway
from dialog.voip.telnyx.voip import TelnyxVoIP

__all__ = ["CLOCK", "SETTINGS", "House", "house", "until"]

CLOCK = steady_clock(4.0)
SETTINGS = CallSettings(settle_s=0.2, lost_s=8.0, rejoin_s=8.0, wrap_up_s=8.0)


class House:
    """A Telnyx account and the gateway of its application."""

    def __init__(self, telnyx: TelnyxEmulator, gateway: TelnyxGateway) -> None:
        self.telnyx = telnyx
        self.gateway = gateway
        self.voips: list[TelnyxVoIP] = []

    @property
    def voip(self) -> TelnyxVoIP:
        return self.voips[-1]

    @property
    def actions(self) -> list[str]:
        return [command.action for command in self.telnyx.commands]

    def fields(self, action: str) -> dict:
        """The fields of the newest command of that kind."""
        return next(command.fields for command in reversed(self.telnyx.commands) if command.action == action)

    def told(self, event_type: str) -> list:
        return [each for each in self.telnyx.delivered if each.event_type == event_type]


async def until(condition, timeout_s: float = 20.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.005)


@asynccontextmanager
async def house(on_voip=None, **options):
    """Serve a gateway to an emulated account; ``options`` are more of its settings."""
    async with TelnyxEmulator(clock=CLOCK) as telnyx:
        sock = socket.create_server(("127.0.0.1", 0))
        telnyx.webhook_url = f"http://127.0.0.1:{sock.getsockname()[1]}/telnyx"
        settings = {
            "api_key": telnyx.api_key,
            "public_key": telnyx.public_key,
            "connection_id": telnyx.connection_id,
            "webhook_url": telnyx.webhook_url,
            "base_url": telnyx.url,
            "clock": CLOCK,
            "call_settings": SETTINGS,
        }
        gateway = TelnyxGateway(**{**settings, **options})
        there = House(telnyx, gateway)

        def taken(voip: TelnyxVoIP) -> None:
            there.voips.append(voip)
            if on_voip is not None:
                on_voip(voip)

        gateway.on("voip", taken)
        runner = web.AppRunner(gateway.app(), access_log=None)
        await runner.setup()
        await web.SockSite(runner, sock).start()
        try:
            yield there
        finally:
            await unlisten(runner)

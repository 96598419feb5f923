"""Several gateway processes, and a switch in front that sends each connection where a test wants it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Self

from accepting import Accepting

from dialog.server.processes import Processes, ProcessesSettings
from dialog.testing.caller import Caller
from dialog.testing.twilio_rest import TwilioRestEmulator

APPS = Path(__file__).parent / "apps"
TOKEN = "auth-token-of-the-test"


async def until(true: Callable[[], object], timeout_s: float = 30.0) -> None:
    """Wait for what happens in another process."""
    async with asyncio.timeout(timeout_s):
        while not true():
            await asyncio.sleep(0.01)


class Switch:
    """Takes connections, and gives media sockets to one process and everything else to another one."""

    def __init__(self) -> None:
        self.webhooks = 0
        self.media = 0
        self.port = 0
        self.taken: list[int] = []
        """Where each connection went."""
        self._door = Accepting(self._serve)

    async def __aenter__(self) -> Self:
        await self._door.open()
        self.port = self._door.port
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._door.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_writer = None
        try:
            line = await reader.readline()
            port = self.media if b"/media" in line or b" /ws/" in line else self.webhooks
            self.taken.append(port)
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port)
            far_writer.write(line)
            await asyncio.gather(self._pump(reader, far_writer), self._pump(far_reader, writer))
        except OSError:
            pass  # the process is gone: so is the connection
        finally:
            if far_writer is not None:
                far_writer.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65_536):
                writer.write(data)
                await writer.drain()
        writer.close()


class Crew:
    """The processes, their account, and the switch."""

    def __init__(
        self, processes: Processes, switch: Switch, twilio: TwilioRestEmulator, run: asyncio.Task, path: str
    ) -> None:
        self.processes = processes
        self.switch = switch
        self.twilio = twilio
        self.run = run
        """What the supervisor returns."""
        self.url = f"http://127.0.0.1:{switch.port}{path}"

    def route(self, *, webhooks: int, media: int) -> None:
        """Which process new connections go to."""
        self.switch.webhooks = self.processes.own_ports[webhooks]
        self.switch.media = self.processes.own_ports[media]

    def dial(self, **options):
        """A caller, who can be transferred."""
        made: list[Caller] = []

        async def updated(update) -> None:
            if not made[0].ended:  # its end may be faster than the request for it
                await made[0].update(status=update.status, twiml=update.twiml, url=update.url)

        call = self.twilio.add_call(on_update=updated)
        dialling = Caller.dial(
            self.url, auth_token=TOKEN, account_sid=self.twilio.account_sid, call_sid=call.sid, **options
        )
        made.append(dialling._caller)
        return dialling


@asynccontextmanager
async def crew(monkeypatch, *, processes: int = 2, app: str = "obedient.py:make", path: str = "/twilio", **settings):
    """All of them are ready; they are told to stop at the end, unless a test has done that."""
    async with TwilioRestEmulator(auth_token=TOKEN) as twilio, Switch() as switch:
        for name, value in {
            "TWILIO_ACCOUNT_SID": twilio.account_sid,
            "TWILIO_AUTH_TOKEN": TOKEN,
            "TWILIO_BASE_URL": twilio.url,
            "WEBHOOK_URL": f"http://127.0.0.1:{switch.port}{path}",
            "PYTHONPATH": str(Path(__file__).parents[2]),
        }.items():
            monkeypatch.setenv(name, value)
        made = Processes(
            ProcessesSettings(
                **{
                    "target": str(APPS / app),
                    "processes": processes,
                    "host": "127.0.0.1",
                    "port": 0,
                    "own_ports": 0,
                    "leave_s": 0.0,
                    "drain_s": 30.0,
                    "log_level": "warning",
                    **settings,
                }
            )
        )
        started = asyncio.Event()
        run = asyncio.create_task(made.run(lambda _: started.set()))
        waiting = asyncio.create_task(started.wait())
        try:
            await asyncio.wait([run, waiting], timeout=60, return_when=asyncio.FIRST_COMPLETED)
            waiting.cancel()
            if run.done():
                run.result()
            assert started.is_set()
            it = Crew(made, switch, twilio, run, path)
            it.route(webhooks=0, media=processes - 1)
            yield it
        finally:
            waiting.cancel()
            if not run.done():
                made.stop()
            await asyncio.wait([run])

"""``dialog_server.py``, whose events go nowhere, into a call log, or to webhooks as well: told so on standard input.

Each line names a mode; it is answered when that is so and nothing waits any more of what was before, with the number of
events that were written meanwhile.
"""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress

import uvloop
from aiohttp import web
from dialog_server import gateway

from dialog import CallLog, WebhookEndpoint, Webhooks
from dialog.loop import calm_collector


@asynccontextmanager
async def mode(name: str, number: int) -> AsyncIterator[CallLog | None]:
    """What becomes of the events of all calls: ``none``, ``log`` or ``webhooks``; each time into another database."""
    async with AsyncExitStack() as stack:
        log = None
        if name != "none":
            log = await stack.enter_async_context(CallLog(f"sqlite:///{os.environ['BENCH_LOG']}/{number}.db"))
            if name == "webhooks":
                endpoint = WebhookEndpoint(name="far", url=os.environ["BENCH_HOOK"])
                await stack.enter_async_context(Webhooks(log, endpoint))
            log.follow(gateway.events)
        yield log


async def main() -> None:
    runner = web.AppRunner(gateway.app(), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    calm_collector()
    print(f"LISTENING {runner.addresses[0][1]}", flush=True)
    loop = asyncio.get_running_loop()
    name, written, number = "none", 0, 0
    while name:
        number += 1
        async with mode(name, number) as log:
            print(f"MODE {name} {written}", flush=True)
            name = (await loop.run_in_executor(None, sys.stdin.readline)).strip()
        written = 0 if log is None else log.status.written
    await runner.cleanup()


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        uvloop.run(main())

"""The server of ``endurance.py``: `dialog_server.py` with a call log, that tells every two seconds how it does."""

import asyncio
import json
import os
import sys
import time
from contextlib import suppress
from pathlib import Path

import uvloop
from aiohttp import web
from dialog_server import gateway

from dialog import CallLog
from dialog.calls.events import CallEnded
from dialog.calls.publish import Notice
from dialog.loop import calm_collector

_EVERY_S = 2.0
_PAGE_MB = os.sysconf("SC_PAGE_SIZE") / 1e6


async def tell(calls_ended: list[int]) -> None:
    """Print a line of JSON with what the process holds, and how late its loop was since the last one."""
    started, late = time.monotonic(), []
    while True:
        until = time.monotonic() + _EVERY_S
        while (before := time.monotonic()) < until:
            await asyncio.sleep(0.01)
            late.append((time.monotonic() - before - 0.01) * 1000)
        late.sort()
        print(
            json.dumps(
                {
                    "at_s": round(time.monotonic() - started, 1),
                    "ended": calls_ended[0],
                    "live": len(gateway.calls),
                    "memory_mb": round(int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE_MB, 2),
                    "descriptors": sum(1 for _ in Path("/proc/self/fd").iterdir()),
                    "tasks": len(asyncio.all_tasks()),
                    "lag_p99_ms": round(late[int(0.99 * len(late))], 2),
                }
            ),
            flush=True,
        )
        late.clear()


async def main() -> None:
    ended = [0]

    def count(notice: Notice) -> None:
        if isinstance(notice.event, CallEnded):
            ended[0] += 1

    gateway.events.on(count)
    async with CallLog(os.environ["ENDURANCE_LOG"]) as log:
        log.follow(gateway.events)
        runner = web.AppRunner(gateway.app(), access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", int(os.environ.get("PORT", "0"))).start()
        calm_collector()
        print(f"LISTENING {runner.addresses[0][1]}", flush=True)
        telling = asyncio.create_task(tell(ended))
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
        telling.cancel()
        await asyncio.wait([telling])
        await runner.cleanup()


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        uvloop.run(main())

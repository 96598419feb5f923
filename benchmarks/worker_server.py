"""``dialog_server.py`` with its agents in a worker process, which runs on the core that the environment names."""

import asyncio
import os
import sys
from contextlib import suppress
from pathlib import Path

import uvloop
from aiohttp import web

from dialog import TwilioGateway
from dialog.loop import calm_collector
from dialog.workers import WorkerPool

HERE = Path(__file__).resolve().parent


async def main() -> None:
    pool = WorkerPool(f"{HERE / 'dialog_server.py'}:on_voip", processes=1, calls_per_process=1000)
    gateway = TwilioGateway(
        account_sid=os.environ["TWILIO_ACCOUNT_SID"],
        auth_token=os.environ["TWILIO_AUTH_TOKEN"],
        path="/voice",
        workers=pool,
    )
    runner = web.AppRunner(gateway.app(), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", int(os.environ.get("PORT", "0"))).start()
    calm_collector()
    (pid,) = pool.pids.values()
    os.sched_setaffinity(pid, {int(os.environ.get("BENCH_WORKER_CORE", "0"))})
    print(f"LISTENING {runner.addresses[0][1]} {pid}", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)  # until the runner closes it
    await runner.cleanup()


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        uvloop.run(main())

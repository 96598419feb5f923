"""How many callers of ``python -m dialog load`` one core carries, and what each costs.

``python benchmarks/load.py`` takes about three minutes. The generator has core 1; the desk that it dials, on core
0, answers every call with a media stream, plays three seconds out of five, and reads what comes without looking.
The generator is full when it is later than one frame of 20 ms (p99), from when on its figures are void.
"""

import argparse
import asyncio
import multiprocessing
import os
import re
import socket
import sys
import time
from base64 import b64encode
from multiprocessing.connection import Connection
from pathlib import Path

import uvloop

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from rawsocket import RawSocket  # noqa: E402
from run import isolate, prefer  # noqa: E402

from dialog.audio.g711 import mulaw_encode  # noqa: E402
from dialog.audio.tones import sine  # noqa: E402
from dialog.loop import calm_collector  # noqa: E402
from dialog.testing.load import Load, LoadPlan  # noqa: E402
from dialog.testing.load_hosts import allow_many_sockets  # noqa: E402

CHUNK_MS = 150
SPEAKS, RESTS = 20, 13
"""Chunks of a reply, and of the silence after it."""
PAYLOAD = b64encode(mulaw_encode(sine(300, CHUNK_MS))).decode()
_SID = re.compile(rb'"streamSid":"([^"]+)"')


class Desk(RawSocket):
    """One connection: a webhook or a media stream."""

    def __init__(self) -> None:
        super().__init__()
        self._timer: asyncio.TimerHandle | None = None
        self._media = b""
        self._chunks = 0
        self._seen = bytearray()

    def data_received(self, data: bytes) -> None:
        if self._media:
            return  # what the caller says costs the desk a system call, and no more
        if not self._ready and (self._seen or data.startswith(b"POST")):
            self._answer(data)
            return
        super().data_received(data)

    def _answer(self, data: bytes) -> None:
        self._seen += data
        head, found, body = bytes(self._seen).partition(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head.lower())
        if not found or length is None or len(body) < int(length[1]):
            return
        self._seen.clear()
        twiml = b'<Response><Connect><Stream url="/media"/></Connect></Response>'
        self.transport.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/xml\r\nContent-Length: %d\r\n\r\n%b" % (len(twiml), twiml)
        )

    def message(self, opcode: int, data: bytes) -> None:
        found = _SID.search(data)
        if found is not None and not self._media:
            self._media = b'{"event":"media","streamSid":"%b","media":{"payload":"%b"}}' % (
                found[1],
                PAYLOAD.encode(),
            )
            self._play()

    def _play(self) -> None:
        if self._chunks % (SPEAKS + RESTS) < SPEAKS:
            self.send(self._media)
        self._chunks += 1
        self._timer = asyncio.get_running_loop().call_later(CHUNK_MS / 1000, self._play)

    def lost(self) -> None:
        if self._timer is not None:
            self._timer.cancel()


def serve(port: Connection) -> None:
    os.sched_setaffinity(0, {0})
    prefer(os.getpid())
    allow_many_sockets()

    async def run() -> None:
        sock = socket.create_server(("127.0.0.1", 0), backlog=4096)
        server = await asyncio.get_running_loop().create_server(Desk, sock=sock)
        port.send(sock.getsockname()[1])
        await server.serve_forever()

    uvloop.run(run())


async def measure(url: str, callers: int, seconds: float) -> tuple[float, float, float, str]:
    """Cores used once all are there, lag p99 and p50 of then, and why the figures are void."""
    ramp = 100.0
    plan = LoadPlan(
        url=url, auth_token="t", calls=callers, calls_per_s=ramp, concurrency=callers, turns=None,
        call_s=callers / ramp + seconds + 5.0,
    )  # fmt: skip
    load = Load(plan)
    running = asyncio.create_task(load.run())
    await asyncio.sleep(callers / ramp + 2.0)
    figures = load.figures
    before, cpu, began = dict(figures.lag.buckets), time.process_time(), time.monotonic()
    await asyncio.sleep(seconds)
    cores = (time.process_time() - cpu) / (time.monotonic() - began)
    lag = type(figures.lag)()
    lag.merge(figures.lag)
    for bucket, count in before.items():
        lag.buckets[bucket] -= count
        lag.count -= count
    live = figures.live
    load.stop()
    report = await running
    if live < callers or report.figures.failed:
        return cores, lag.quantile(0.99) or 0.0, lag.quantile(0.5) or 0.0, f"{live} live, {report.figures.errors}"
    return cores, lag.quantile(0.99) or 0.0, lag.quantile(0.5) or 0.0, ""


async def main(sizes: list[int], seconds: float) -> None:
    ours, theirs = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(target=serve, args=(theirs,), daemon=True)
    server.start()
    url = f"http://127.0.0.1:{await asyncio.to_thread(ours.recv)}/twilio"
    print("| callers | of a core | CPU per caller-second | late, p50 | late, p99 | |")
    print("|---:|---:|---:|---:|---:|---|")
    try:
        for callers in sizes:
            cores, late, median, trouble = await measure(url, callers, seconds)
            verdict = trouble or ("void" if late > 20 else "")
            print(
                f"| {callers} | {cores:.0%} | {1000 * cores / callers:.2f} ms | {median:.1f} ms | {late:.1f} ms "
                f"| {verdict} |",
                flush=True,
            )
            if late > 20:
                return
    finally:
        server.terminate()
        server.join()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sizes", nargs="*", type=int, default=[100, 200, 400, 600, 800, 1000])
    parser.add_argument("--seconds", type=float, default=10.0)
    parsed = parser.parse_args()
    isolate()
    prefer(os.getpid())
    os.sched_setaffinity(0, {1})
    allow_many_sockets()
    calm_collector()
    uvloop.run(main(parsed.sizes, parsed.seconds))

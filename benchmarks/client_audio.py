"""What a client's audio costs: bytes each way, and CPU of the gateway, over the WebSocket and over WebRTC.

    python benchmarks/client_audio.py --calls 10 --seconds 10

The agent speaks all the time, a voice of espeak's, and so does the client. The gateway is a process of its own; its CPU
time is that process's. Bytes are those of the frames, without the headers of TCP, UDP and IP.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import socket
import subprocess
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from uuid import uuid4

from aiohttp import web

from dialog.audio.convert import Converter
from dialog.message import MULAW_8K, PCM_16K, PCM_24K, Message
from dialog.testing.voice import espeak
from dialog.testing.web import WebCaller
from dialog.testing.webrtc import RtcCaller
from dialog.voip.call import CallSettings
from dialog.voip.web.gateway import WebGateway
from dialog.voip.web.rtc.settings import WebRTC

TEXT = "On Friday we are open from noon until eleven in the evening, and there is parking behind the house. " * 4
WAYS = {
    "WebSocket, PCM 24 kHz": (WebCaller, PCM_24K),
    "WebSocket, PCM 16 kHz": (WebCaller, PCM_16K),
    "WebSocket, G.711": (WebCaller, MULAW_8K),
    "WebRTC, Opus": (RtcCaller, PCM_24K),
}


async def speech(audio_format, seconds):
    voice = await espeak("en-us", rate=150)(TEXT)
    whole = voice * (1 + int(seconds * 8000 / len(voice)))
    return Converter(MULAW_8K, audio_format).process(whole[: int(seconds * 8000)])


async def serve(port, seconds):
    said = {}
    for _, audio_format in WAYS.values():
        said[audio_format] = await speech(audio_format, seconds + 60)
    gateway = WebGateway(allow_anybody=True, webrtc=WebRTC(), call_settings=CallSettings(limit_ms=600_000))

    def talk(voip):
        voip.post(Message(uuid=uuid4(), data=said[voip.audio_format], done=True))

    gateway.on("voip", talk)
    runner = web.AppRunner(gateway.app(), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    print("ready", flush=True)
    await asyncio.Event().wait()


def cpu_s(process):
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def measure(name, calls, seconds):
    caller_class, audio_format = WAYS[name]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, __file__, "--serve", str(port), "--seconds", str(seconds)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert await asyncio.to_thread(server.stdout.readline)
        audio = await speech(audio_format, seconds + 5)
        async with AsyncExitStack() as stack:
            callers = [
                await stack.enter_async_context(
                    caller_class.connect(f"ws://127.0.0.1:{port}/ws/realtime", audio=[audio_format])
                )
                for _ in range(calls)
            ]
            for caller in callers:
                caller.say(audio)
            await asyncio.sleep(1)
            before = cpu_s(server)
            sent = await bytes_of(callers[0])
            await asyncio.sleep(seconds)
            used = (cpu_s(server) - before) / seconds / calls
            kbit_s = (await bytes_of(callers[0]) - sent) * 8 / seconds / 1000 or (audio_format.size(1000) * 8 / 1000)
        print(f"{name:24} {kbit_s:6.0f} kbit/s each way   {used * 100:5.2f} % of a core a call")
    finally:
        server.kill()
        server.wait()


async def bytes_of(caller):
    """Bytes of a WebRTC connection's audio that came."""
    if not isinstance(caller, RtcCaller):
        return 0.0
    stats = await caller._link._receiver.getStats()
    return float(next(each.bytesReceived for each in stats.values() if each.type == "transport"))


def main():
    options = argparse.ArgumentParser()
    options.add_argument("--calls", type=int, default=10)
    options.add_argument("--seconds", type=float, default=10.0)
    options.add_argument("--serve", type=int)
    given = options.parse_args()
    if given.serve:
        asyncio.run(serve(given.serve, given.seconds))
        return
    for name in WAYS:
        asyncio.run(measure(name, given.calls, given.seconds))


if __name__ == "__main__":
    main()

"""The yardstick: a phone agent without any framework, as good as 150 lines on aiohttp, uvloop and msgspec get.

Twilio media in, Deepgram out; on a final transcript a streamed chat completion, every token to Cartesia,
the audio back to Twilio with 250 ms of lead; the caller's speech clears the line. It checks no signatures,
keeps no history of what was heard and survives no fault. It is never imported by the package.
"""

import asyncio
import os
import sys
from base64 import b64encode
from collections import deque
from contextlib import suppress

import aiohttp
import msgspec
import uvloop
from aiohttp import WSMsgType, web

LEAD_S, CHUNK = 0.25, 800


class Media(msgspec.Struct):
    payload: bytes = b""


class Start(msgspec.Struct):
    call_sid: str = msgspec.field(name="callSid", default="")


class FromTwilio(msgspec.Struct):
    event: str
    stream_sid: str = msgspec.field(name="streamSid", default="")
    start: Start | None = None
    media: Media | None = None


class Alternative(msgspec.Struct):
    transcript: str = ""


class Channel(msgspec.Struct):
    alternatives: list[Alternative] = []


class FromDeepgram(msgspec.Struct):
    type: str
    speech_final: bool = False
    is_final: bool = False
    channel: Channel | list[int] | None = None


class FromCartesia(msgspec.Struct):
    type: str
    context_id: str = ""
    data: bytes = b""


class Delta(msgspec.Struct):
    content: str | None = None


class Choice(msgspec.Struct):
    delta: Delta


class Completion(msgspec.Struct):
    choices: list[Choice] = []


twilio, deepgram, cartesia, completion = (
    msgspec.json.Decoder(kind) for kind in (FromTwilio, FromDeepgram, FromCartesia, Completion)
)
encode = msgspec.json.encode
VOICE = {"mode": "id", "id": "voice"}
OUTPUT = {"container": "raw", "encoding": "pcm_mulaw", "sample_rate": 8000}
STT_QUERY = (
    "model=nova-3&encoding=mulaw&sample_rate=8000&channels=1&interim_results=true&vad_events=true&endpointing=300"
)
SYSTEM = {"role": "system", "content": "You are a phone agent."}


class Call:
    """One call: three sockets and the reply that is being made."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self.session = session
        self.line: web.WebSocketResponse | None = None
        self.sid = ""
        self.turn = 0
        self.context = ""
        self.history: list[dict[str, str]] = [SYSTEM]
        self.unsent: deque[bytes] = deque()
        self.played_until = 0.0
        self.player: asyncio.Task[None] | None = None
        self.reply: asyncio.Task[None] | None = None
        self.opened = asyncio.create_task(self.open())
        self.tasks: list[asyncio.Task[None]] = []

    async def open(self) -> None:
        key = {"Authorization": "Token key"}
        stt_url = f"{os.environ['DEEPGRAM_BASE_URL']}/v1/listen?{STT_QUERY}"
        tts_url = f"{os.environ['CARTESIA_BASE_URL']}/tts/websocket?cartesia_version=2025-04-16"
        self.stt, self.tts = await asyncio.gather(
            self.session.ws_connect(stt_url, headers=key, compress=0, autoping=True),
            self.session.ws_connect(tts_url, headers={"X-API-Key": "key"}, compress=0),
        )
        self.tasks = [asyncio.create_task(self.hear()), asyncio.create_task(self.speak())]
        self.context = "greeting"
        await self.say("Hello, how can I help you?", more=False)

    async def close(self) -> None:
        await asyncio.wait([self.opened])
        for task in (*self.tasks, self.player, self.reply):
            if task:
                task.cancel()
        await self.stt.close()
        await self.tts.close()

    async def say(self, text: str, *, more: bool) -> None:
        message = {"model_id": "sonic-3", "transcript": text, "voice": VOICE, "output_format": OUTPUT}
        await self.tts.send_str(encode(message | {"context_id": self.context, "continue": more}).decode())

    async def hear(self) -> None:
        heard = ""
        async for frame in self.stt:
            message = deepgram.decode(frame.data)
            if message.type == "SpeechStarted":
                await self.interrupt()
            elif message.type == "Results" and message.is_final and isinstance(message.channel, Channel):
                heard = f"{heard} {message.channel.alternatives[0].transcript}".strip()
                if message.speech_final and heard:
                    await self.interrupt()
                    self.reply = asyncio.create_task(self.answer(heard))
                    heard = ""

    async def interrupt(self) -> None:
        if self.reply and not self.reply.done():
            self.reply.cancel()
        if self.unsent or self.played_until > asyncio.get_running_loop().time():
            self.unsent.clear()
            self.played_until = 0.0
            if self.line:
                await self.line.send_str(f'{{"event":"clear","streamSid":"{self.sid}"}}')
            await self.tts.send_str(f'{{"context_id":"{self.context}","cancel":true}}')
        self.context = ""

    async def answer(self, text: str) -> None:
        self.turn += 1
        self.context = f"turn-{self.turn}"
        self.history.append({"role": "user", "content": text})
        body = encode({"model": "gpt-4.1", "stream": True, "messages": self.history})
        said = []
        url = f"{os.environ['OPENAI_BASE_URL']}/chat/completions"
        headers = {"Authorization": "Bearer key", "Content-Type": "application/json"}
        async with self.session.post(url, data=body, headers=headers) as response:
            async for line in response.content:
                if not line.startswith(b"data: {"):
                    continue
                choices = completion.decode(line[6:]).choices
                if choices and (token := choices[0].delta.content):
                    said.append(token)
                    await self.say(token, more=True)
        await self.say("", more=False)
        self.history.append({"role": "assistant", "content": "".join(said)})

    async def speak(self) -> None:
        async for frame in self.tts:
            message = cartesia.decode(frame.data)
            if message.type == "chunk" and message.context_id == self.context:
                self.unsent.append(message.data)
                if self.line and (self.player is None or self.player.done()):
                    self.player = asyncio.create_task(self.play())

    async def play(self) -> None:
        now = asyncio.get_running_loop().time
        while self.unsent and self.line:
            data = self.unsent.popleft()
            if len(data) > CHUNK:
                self.unsent.appendleft(data[CHUNK:])
                data = data[:CHUNK]
            payload = b64encode(data).decode()
            self.played_until = max(self.played_until, now()) + len(data) / 8000
            await self.line.send_str(f'{{"event":"media","streamSid":"{self.sid}","media":{{"payload":"{payload}"}}}}')
            if (ahead := self.played_until - now() - LEAD_S) > 0:
                await asyncio.sleep(ahead)


calls: dict[str, Call] = {}


async def voice(request: web.Request) -> web.Response:
    form = await request.post()
    calls[str(form["CallSid"])] = Call(request.app["session"])
    url = f"ws://{request.host}/media"
    xml = f'<Response><Connect><Stream url="{url}"/></Connect></Response>'
    return web.Response(text=xml, content_type="text/xml")


async def media(request: web.Request) -> web.WebSocketResponse:
    socket = web.WebSocketResponse(compress=False)
    await socket.prepare(request)
    call: Call | None = None
    try:
        async for frame in socket:
            if frame.type is not WSMsgType.TEXT:
                break
            message = twilio.decode(frame.data)
            if message.event == "media" and message.media and call:
                await call.stt.send_bytes(message.media.payload)
            elif message.event == "start" and message.start:
                call = calls.pop(message.start.call_sid)
                await call.opened
                call.line, call.sid = socket, message.stream_sid
                call.player = asyncio.create_task(call.play())
            elif message.event == "stop":
                break
    finally:
        if call:
            await call.close()
    return socket


def stall() -> None:
    """Block the loop for 100 ms, every second: what a careless host program does."""
    import time

    time.sleep(0.1)
    asyncio.get_running_loop().call_later(0.9, stall)


async def main() -> None:
    app = web.Application()
    connector = aiohttp.TCPConnector(limit=0)
    app["session"] = aiohttp.ClientSession(connector=connector)
    app.router.add_post("/voice", voice)
    app.router.add_get("/media", media)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", int(os.environ.get("PORT", "0"))).start()
    if os.environ.get("BENCH_STALL"):
        stall()
    print(f"LISTENING {runner.addresses[0][1]}", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)  # until the runner closes it
    await app["session"].close()
    await runner.cleanup()


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        uvloop.run(main())

"""Scripted providers and callers in one process, which notes when everything left and arrived.

A call and a turn are known everywhere by a mark: in the caller's frames and the agent's audio four
faint bytes and eight nibbles, in texts a made-up word. All times are of one clock in one process, so
differences between what was sent and what came back are what the server in between has added.
"""

import asyncio
import re
import time
from base64 import b64encode
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol
from urllib.parse import urlencode, urlsplit

import msgspec
from rawsocket import RawHTTP, RawSocket, upgrade

from dialog.testing.media import PlaybackBuffer
from dialog.testing.signing import sign

now = time.monotonic
MAGIC = bytes((0xF3, 0xF9, 0xF5, 0xFA))
TOKEN_S = 0.015
AUDIO_MS_PER_CHARACTER = 45
CHUNK_MS = 200
FASTER = 3
"""Speech is synthesised three times as fast as it is spoken."""
TEXT = (
    " I have a table for you at eight o'clock this evening near the window, is that fine,"
    " or would you rather like to come a little later?"
)
AUTH_TOKEN = "benchmark-token"
ACCOUNT = "AC" + "0" * 32
CALL_KEY = "abcdefghij"
_KEY = re.compile(rb"\bQ([a-j]{5})Q([a-j]{4})Q")


def faint(number: int, nibbles: int) -> bytes:
    """A number as mu-law bytes of almost no amplitude."""
    return bytes(0xF0 | number >> 4 * (nibbles - 1 - n) & 0xF for n in range(nibbles))


def strong(data: bytes) -> int:
    value = 0
    for byte in data:
        value = value << 4 | byte & 0xF
    return value


def word(call: int, turn: int) -> str:
    letters = f"{call:05d}{turn:04d}".translate(str.maketrans("0123456789", CALL_KEY))
    return f"Q{letters[:5]}Q{letters[5:]}Q"


def find(text: bytes) -> tuple[int, int] | None:
    """The newest mark in a text."""
    found = _KEY.findall(text)
    if not found:
        return None
    digits = bytes.maketrans(CALL_KEY.encode(), b"0123456789")
    return int(found[-1][0].translate(digits)), int(found[-1][1].translate(digits))


@dataclass
class Figures:
    """What was measured, in seconds."""

    final_to_llm: dict[tuple[int, int], float] = field(default_factory=dict)
    token_to_tts: dict[tuple[int, int], float] = field(default_factory=dict)
    audio_to_line: dict[tuple[int, int], float] = field(default_factory=dict)
    speech_to_clear: list[float] = field(default_factory=list)
    frame_to_stt: list[float] = field(default_factory=list)
    greeting: list[float] = field(default_factory=list)
    underruns: int = 0
    played_s: float = 0.0
    turns: int = 0
    unanswered: int = 0
    lag: list[float] = field(default_factory=list)
    """How late the load generator itself was with its frames."""
    failed: int = 0

    def added(self) -> list[float]:
        """Per turn: the sum of the three legs."""
        whole = self.final_to_llm.keys() & self.token_to_tts.keys() & self.audio_to_line.keys()
        return [self.final_to_llm[key] + self.token_to_tts[key] + self.audio_to_line[key] for key in whole]


def sum_of(figures: Sequence[Figures]) -> Figures:
    """What was measured in all of them; of a turn that is in several, by its name, the last one."""
    whole = Figures()
    for one in figures:
        for name, value in vars(one).items():
            if isinstance(value, dict):
                getattr(whole, name).update(value)
            elif isinstance(value, list):
                getattr(whole, name).extend(value)
            else:
                setattr(whole, name, getattr(whole, name) + value)
    return whole


class TwilioMedia(msgspec.Struct):
    payload: bytes = b""


class TwilioMark(msgspec.Struct):
    name: str = ""


class FromServer(msgspec.Struct):
    event: str
    media: TwilioMedia | None = None
    mark: TwilioMark | None = None


class ToCartesia(msgspec.Struct):
    context_id: str = ""
    transcript: str = ""
    cont: bool = msgspec.field(name="continue", default=False)
    cancel: bool = False
    flush: bool = False


_from_server = msgspec.json.Decoder(FromServer)
_to_cartesia = msgspec.json.Decoder(ToCartesia)
_STILL = b64encode(b"\xff" * 148)
_SPEECH = bytes(0x90 + n % 16 if n % 2 else 0x10 + n % 16 for n in range(8 * CHUNK_MS))


def spoken(key: tuple[int, int] | None) -> bytes:
    """A chunk of speech; of the turn ``key``, if it is the first of its answer."""
    return _SPEECH if key is None else MAGIC + faint(key[0], 4) + faint(key[1], 4) + _SPEECH[12:]


class Listener(Protocol):
    """Whoever hears a caller, and says of them what the script wants."""

    def speech_started(self) -> None: ...

    def results(self, text: str, *, final: bool) -> None: ...


class World:
    """Everything around the server: three providers, and callers as many as wanted."""

    def __init__(self) -> None:
        self.figures = Figures()
        self.callers: dict[int, LightCaller] = {}
        self.recognisers: dict[int, Listener] = {}
        self.finals: dict[tuple[int, int], float] = {}
        self.tokens: dict[tuple[int, int], float] = {}
        self.audio: dict[tuple[int, int], float] = {}
        self.spoken_up: dict[int, float] = {}
        self.urls: dict[str, str] = {}
        self.connections: set[RawSocket] = set()
        """Of recognisers and voices, for whoever wants to cut one."""
        self._servers: list[asyncio.Server] = []

    async def open(self) -> None:
        self.urls["DEEPGRAM_BASE_URL"] = f"ws://{await self._serve(lambda: Deepgram(self))}"
        self.urls["CARTESIA_BASE_URL"] = f"ws://{await self._serve(lambda: Cartesia(self))}"
        self.urls["OPENAI_BASE_URL"] = f"http://{await self._serve(lambda: RawHTTP(self.complete))}/v1"

    async def _serve(self, factory: Callable[[], asyncio.Protocol]) -> str:
        """Listen; returns where."""
        server = await asyncio.get_running_loop().create_server(factory, "127.0.0.1", 0, backlog=1024)
        self._servers.append(server)
        return f"127.0.0.1:{server.sockets[0].getsockname()[1]}"

    async def close(self) -> None:
        for server in self._servers:
            server.close()

    def hear(self, listener: Listener, data: bytes, arrived: float) -> int | None:
        """Note when the caller's frames arrived in ``data``; returns whose they are."""
        found = None
        for at in range(0, len(data), 160):
            if data[at : at + 4] != MAGIC:
                continue
            found, number = strong(data[at + 4 : at + 8]), strong(data[at + 8 : at + 12])
            self.recognisers[found] = listener
            caller = self.callers.get(found)
            if caller is not None and (sent := caller.sent.pop(number, None)) is not None:
                self.figures.frame_to_stt.append(arrived - sent)
        return found

    def complete(self, connection: RawHTTP, body: bytes) -> None:
        """A chat completion: the mark of the question first, then a sentence, token by token."""
        arrived = now()
        key = find(body)
        if key is not None and key in self.finals:
            self.figures.final_to_llm.setdefault(key, arrived - self.finals[key])
        tokens = [word(*key) if key else "Hello", *re.findall(r" ?[^ ]+", TEXT)]
        connection.begin()
        asyncio.get_running_loop().call_later(TOKEN_S, self._token, connection, key, tokens, 0)

    def _token(self, connection: RawHTTP, key: tuple[int, int] | None, tokens: list[str], index: int) -> None:
        if connection.gone:
            return
        if index == len(tokens):
            connection.chunk(_completion({}, "stop") + b"data: [DONE]\n\n")
            connection.finish()
            return
        if key is not None and index == 0:
            self.tokens[key] = now()
        connection.chunk(_completion({"role": "assistant", "content": tokens[index]}, None))
        asyncio.get_running_loop().call_later(TOKEN_S, self._token, connection, key, tokens, index + 1)


def _completion(delta: dict[str, str], finish: str | None) -> bytes:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
    facts = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1790000000, "model": "gpt-4.1"}
    return b"data: " + msgspec.json.encode(facts | {"choices": [choice], "usage": None}) + b"\n\n"


class Deepgram(RawSocket):
    """Recognises nothing: it notes when frames arrive, and says what the script wants."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self.world = world
        self.heard = 0

    def opened(self) -> None:
        self.world.connections.add(self)

    def lost(self) -> None:
        self.world.connections.discard(self)

    def message(self, opcode: int, data: bytes) -> None:
        arrived = now()
        if opcode != 2:
            if b"CloseStream" in data:
                self.send(b"\x03\xe8", 8)
            return
        self.heard += len(data)
        self.world.hear(self, data, arrived)

    def speech_started(self) -> None:
        at = self.heard / 8000
        self.send(b'{"type":"SpeechStarted","channel":[0,1],"timestamp":%.3f}' % max(0, at - 0.02))

    def results(self, text: str, *, final: bool) -> None:
        end = self.heard / 8000
        start = max(0.0, end - 0.8)
        words, step = text.split(), 0.8 / max(1, len(text.split()))
        alternative = {
            "transcript": text,
            "confidence": 0.99,
            "words": [
                {
                    "word": w.lower(),
                    "punctuated_word": w,
                    "start": start + n * step,
                    "end": start + (n + 1) * step,
                    "confidence": 0.9,
                }
                for n, w in enumerate(words)
            ],
        }
        message = {
            "type": "Results", "channel_index": [0, 1], "duration": end - start, "start": start, "is_final": final,
            "speech_final": final, "from_finalize": False, "channel": {"alternatives": [alternative]},
            "metadata": {"request_id": "r", "model_uuid": "m"},
        }  # fmt: skip
        self.send(msgspec.json.encode(message))


class Cartesia(RawSocket):
    """Speaks every text as a tone, marked with the word that it found in it."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self.world = world
        self.contexts: dict[str, Context] = {}

    def message(self, opcode: int, data: bytes) -> None:
        arrived = now()
        request = _to_cartesia.decode(data)
        context = self.contexts.get(request.context_id)
        if request.cancel:
            if context is not None:  # what has begun goes on to its end, and there is no acknowledgement
                context.characters = min(context.characters, context.made_ms // AUDIO_MS_PER_CHARACTER)
                context.ended = True
                context.wake()
            return
        if context is None:
            context = self.contexts[request.context_id] = Context(self, request.context_id)
        context.add(request, arrived)

    def opened(self) -> None:
        self.world.connections.add(self)

    def lost(self) -> None:
        self.world.connections.discard(self)
        for context in self.contexts.values():
            context.cancelled = True


class Context:
    """One reply as it is synthesised: a chunk at once, then faster than real time."""

    def __init__(self, connection: Cartesia, name: str) -> None:
        self.connection = connection
        self.name = name
        self.key: tuple[int, int] | None = None
        self.characters = 0
        self.made_ms = 0
        self.ended = False
        self.cancelled = False
        self.running = False
        self.text = b""

    def add(self, request: ToCartesia, arrived: float) -> None:
        if self.ended:
            return
        if self.key is None:
            self.text += request.transcript.encode()
            self.key = find(self.text)
            if self.key is not None:
                world = self.connection.world
                if self.key in world.tokens:
                    world.figures.token_to_tts.setdefault(self.key, arrived - world.tokens[self.key])
        self.characters += len(request.transcript)
        self.ended = self.ended or not request.cont
        self.wake()

    def wake(self) -> None:
        if not self.running:
            self.running = True
            self.step()

    def step(self) -> None:
        if self.cancelled:
            self.connection.contexts.pop(self.name, None)
            return
        if self.made_ms < self.characters * AUDIO_MS_PER_CHARACTER:
            first = self.key if self.made_ms == 0 else None
            data = spoken(first)
            if first is not None:
                self.connection.world.audio.setdefault(first, now())
            self.made_ms += CHUNK_MS
            self.connection.send(
                b'{"type":"chunk","context_id":"%b","status_code":206,"done":false,"data":"%b","step_time":3.1}'
                % (self.name.encode(), b64encode(data))
            )
        elif self.ended:
            self.connection.send(
                b'{"type":"done","context_id":"%b","status_code":200,"done":true}' % self.name.encode()
            )
            self.connection.contexts.pop(self.name, None)
            return
        else:
            self.running = False  # until there is more text
            return
        asyncio.get_running_loop().call_later(CHUNK_MS / FASTER / 1000, self.step)


class LightCaller(RawSocket):
    """A caller reduced to its wire: frames on absolute deadlines, marks by the clock, a script of turns."""

    server = False

    def __init__(self, world: World, number: int, *, barge_in: bool, turn_s: float, turns: int | None) -> None:
        super().__init__()
        self.world = world
        self.number = number
        self.barge_in = barge_in
        self.turn_s = turn_s
        self.turns_left = turns
        self.turn = 0
        self.sent: dict[int, float] = {}
        self.frames = 0
        self.sid = f"MZ{number:032x}"
        self.call_sid = f"CA{number:032x}"
        self.buffer = PlaybackBuffer()
        self.over = asyncio.get_running_loop().create_future()
        self.dialled = 0.0
        self.origin = 0.0
        self.first_audio = False
        self.waiting: tuple[int, int] | None = None
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._middle = f'","streamSid":"{self.sid}","media":{{"track":"inbound","chunk":"'.encode()
        world.callers[number] = self

    async def dial(self, url: str) -> None:
        loop = asyncio.get_running_loop()
        parts = urlsplit(url)
        form = {
            "AccountSid": ACCOUNT,
            "ApiVersion": "2010-04-01",
            "CallSid": self.call_sid,
            "CallStatus": "ringing",
            "Direction": "inbound",
            "From": "+15551230001",
            "To": "+15551230002",
        }
        body = urlencode(form)
        head = [
            f"POST {parts.path} HTTP/1.1",
            f"Host: {parts.netloc}",
            f"X-Twilio-Signature: {sign(AUTH_TOKEN, url, form.items())}",
            "Content-Type: application/x-www-form-urlencoded",
            f"Content-Length: {len(body)}",
            "Connection: close",
        ]
        self.dialled = now()
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        writer.write(("\r\n".join(head) + "\r\n\r\n" + body).encode())
        answer = (await reader.read()).decode()
        writer.close()
        found = re.search(r'<Stream[^>]*? url="([^"]+)"', answer)
        if found is None:
            raise ConnectionError(f"no stream in the answer: {answer[:300]!r}")
        parameters = dict(re.findall(r'<Parameter name="([^"]*)" value="([^"]*)"', answer))
        parameters |= {name: value for value, name in re.findall(r'<Parameter value="([^"]*)" name="([^"]*)"', answer)}
        stream = found[1]
        self.parameters = {name: value.replace("&amp;", "&") for name, value in parameters.items()}
        target = urlsplit(stream)
        transport, _ = await loop.create_connection(lambda: self, parts.hostname, parts.port)
        transport.write(upgrade(target.netloc, target.path, {"x-twilio-signature": sign(AUTH_TOKEN, stream)}))

    def opened(self) -> None:
        self.send(b'{"event":"connected","protocol":"Call","version":"1.0.0"}')
        start = {
            "accountSid": ACCOUNT, "streamSid": self.sid, "callSid": self.call_sid, "tracks": ["inbound"],
            "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
            "customParameters": self.parameters,
        }  # fmt: skip
        message = {"event": "start", "sequenceNumber": "1", "streamSid": self.sid, "start": start}
        self.send(msgspec.json.encode(message))
        loop = asyncio.get_running_loop()
        self.origin = loop.time()
        self._tick()
        # Turns of different calls are spread evenly over time.
        self._timers["turn"] = loop.call_later(2.0 + self.turn_s * (self.number * 0.618 % 1), self._turn)

    def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        elapsed = loop.time() - self.origin
        # The loop's own clock stands still during an iteration: this one does not.
        self.world.figures.lag.append(now() - self.origin - self.frames * 0.02)
        due = int(elapsed / 0.02) + 1
        while self.frames < due:
            self.frames += 1
            n = self.frames
            self.sent[n] = now()
            mark = b64encode(MAGIC + faint(self.number, 4) + faint(n & 0xFFFF, 4))
            self.send(
                b'{"event":"media","sequenceNumber":"%d%b%d","timestamp":"%d","payload":"%b%b"}}'
                % (n + 1, self._middle, n, n * 20 - 20, mark, _STILL)
            )
        if len(self.sent) > 500:
            self.sent.clear()
        self._timers["tick"] = loop.call_at(self.origin + self.frames * 0.02, self._tick)

    def _turn(self) -> None:
        """Say something: over the agent's reply, or after it."""
        loop = asyncio.get_running_loop()
        if self.turns_left == 0:
            self.hang_up()
            return
        recogniser = self.world.recognisers.get(self.number)
        if recogniser is None:
            self.world.figures.failed += 1
            self.hang_up()
            return
        if self.waiting is not None:
            self.world.figures.unanswered += 1
        if self.barge_in and self.buffer.unplayed_ms(now() * 1000):
            self.world.spoken_up[self.number] = now()
        recogniser.speech_started()
        text = f"{word(self.number, self.turn)} a table for two please"
        self._timers["words"] = loop.call_later(0.15, partial(recogniser.results, text, final=False))
        self._timers["turn"] = loop.call_later(0.4, self._final, recogniser, text)

    def _final(self, recogniser: Deepgram, text: str) -> None:
        key = self.waiting = (self.number, self.turn)
        self.turn += 1
        if self.turns_left is not None:
            self.turns_left -= 1
        self.world.finals[key] = now()
        recogniser.results(text, final=True)
        self.world.figures.turns += 1
        self._timers["turn"] = asyncio.get_running_loop().call_later(self.turn_s, self._turn)

    def message(self, opcode: int, data: bytes) -> None:
        arrived = now()
        incoming = _from_server.decode(data)
        at_ms = arrived * 1000
        if incoming.event == "media" and incoming.media is not None:
            audio = incoming.media.payload
            if not self.first_audio:
                self.first_audio = True
                self.world.figures.greeting.append(arrived - self.dialled)
            if audio[:4] == MAGIC:
                key = strong(audio[4:8]), strong(audio[8:12])
                if key == self.waiting:
                    self.waiting = None
                if key in self.world.audio:
                    self.world.figures.audio_to_line.setdefault(key, arrived - self.world.audio[key])
            self.buffer.feed(audio, at_ms)
            self.world.figures.played_s += len(audio) / 8000
        elif incoming.event == "mark" and incoming.mark is not None:
            self.buffer.mark(incoming.mark.name, at_ms)
            self._marks()
        elif incoming.event == "clear":
            spoke = self.world.spoken_up.pop(self.number, None)
            if spoke is not None:
                self.world.figures.speech_to_clear.append(arrived - spoke)
            self.buffer.played(at_ms)
            for name in self.buffer.clear(at_ms).marks:
                self._echo(name)

    def _marks(self) -> None:
        at_ms = now() * 1000
        self.buffer.played(at_ms)
        for name in self.buffer.due_marks(at_ms):
            self._echo(name)
        if (timer := self._timers.pop("mark", None)) is not None:
            timer.cancel()
        if (due := self.buffer.next_mark_ms) is not None:
            delay = max(0.0, due / 1000 - now()) + 0.0002
            self._timers["mark"] = asyncio.get_running_loop().call_later(delay, self._marks)

    def _echo(self, name: str) -> None:
        text = msgspec.json.encode(name)
        self.send(b'{"event":"mark","streamSid":"%b","mark":{"name":%b}}' % (self.sid.encode(), text))

    def tear(self) -> None:
        """The media socket breaks, and the carrier does not come back."""
        if not self.over.done():
            self.over.set_result(None)
            self.leave()
            self.transport.abort()

    def hang_up(self) -> None:
        if self.over.done():
            return
        # Within a reply audio never pauses for long; what lies farther apart are different replies.
        self.world.figures.underruns += sum(1 for gap in self.buffer.gaps if gap.duration_ms < 400)
        stop = {"accountSid": ACCOUNT, "callSid": self.call_sid}
        self.send(msgspec.json.encode({"event": "stop", "streamSid": self.sid, "stop": stop}))
        self.send(b"\x03\xe8", 8)
        self.over.set_result(None)
        self.leave()

    def leave(self) -> None:
        for timer in self._timers.values():
            timer.cancel()
        self.world.callers.pop(self.number, None)
        self.world.recognisers.pop(self.number, None)

    def lost(self) -> None:
        if not self.over.done():
            self.world.figures.failed += 1
            self.hang_up()


async def settle(
    world: World, url: str, calls: int, *, first: int, over_s: float, **script: object
) -> list[LightCaller]:
    """Dial ``calls`` callers, spread over a time."""
    made: list[LightCaller] = []
    started = now()
    for index in range(calls):
        await asyncio.sleep(max(0.0, started + over_s * index / calls - now()))
        caller = LightCaller(world, first + index, **script)  # type: ignore[arg-type]
        made.append(caller)
        await caller.dial(url)
    return made


__all__ = ["ACCOUNT", "AUTH_TOKEN", "Figures", "LightCaller", "World", "now", "settle"]

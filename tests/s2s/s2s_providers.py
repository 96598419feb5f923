"""Every realtime model that is reached over a socket, with its emulator: one entry each, for the conformance suite.

To add one, add an entry to :data:`PROVIDERS`. Its emulator takes ``sentences`` (what the caller says), ``replies``
(what is answered to a conversation: :class:`~dialog.testing.s2s.RealtimeReply`), ``ms_per_char`` and
``chunk_s`` (how long a reply is, and how slowly it comes), ``stalling``, ``unintelligible`` and ``faults``; it has an
``api_key``, a ``base_url``, its ``conversation`` as (role, text), and notes in ``violations`` what the service would
not take.
"""

from __future__ import annotations

import asyncio
import math
from array import array
from base64 import b64decode
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any
from uuid import UUID, uuid4

from dialog.audio.g711 import mulaw_decode, mulaw_encode
from dialog.llm.llm import ToolSpec
from dialog.message import MULAW_8K, PCM_16K, Message, Playback
from dialog.net.reconnect import Backoff
from dialog.s2s.deepgram import DeepgramAgentS2S
from dialog.s2s.elevenlabs import ElevenLabsAgentS2S
from dialog.s2s.gemini import GeminiLiveS2S
from dialog.s2s.grok import GrokS2S
from dialog.s2s.openai import OpenAIRealtimeS2S
from dialog.s2s.s2s import S2S, SessionSpec
from dialog.s2s.streaming import SocketS2S
from dialog.testing.deepgram_agent import DeepgramAgentEmulator
from dialog.testing.elevenlabs_agent import ElevenLabsAgentEmulator
from dialog.testing.gemini import GeminiLiveEmulator
from dialog.testing.grok import GrokEmulator
from dialog.testing.openai_realtime import OpenAIRealtimeEmulator
from dialog.testing.server import Frame


def in_json(frame: Frame) -> bytes:
    """The caller's audio in a frame, where it goes as base64 in a message."""
    return b64decode(frame.json().get("audio") or "")


def in_gemini(frame: Frame) -> bytes:
    """As :func:`in_json`, where the message is Gemini's."""
    return b64decode(frame.json().get("realtimeInput", {}).get("audio", {}).get("data") or "")


def in_elevenlabs(frame: Frame) -> bytes:
    """As :func:`in_json`, where the message is ElevenLabs's."""
    return b64decode(frame.json().get("user_audio_chunk") or "")


def in_binary(frame: Frame) -> bytes:
    """The caller's audio, where it is the frame."""
    return frame.data if isinstance(frame.data, bytes) else b""


def as_told(text: str) -> str:
    """What was said before, where the model is given it."""
    return text


def as_noted(text: str) -> str:
    """What was said before, where the model is told of it."""
    return text.removeprefix("The caller said: ").removeprefix("You said: ")


async def goes_away(emulator: Any, _: Talker) -> None:
    """A service that says when it will close the connection."""
    await emulator.go_away(62.0)


async def tells_no_end(emulator: Any, talker: Talker) -> None:
    """A service of which one must know how long sessions last, if it has not told at their beginning."""
    if "expires_at" not in emulator.sessions[0].described():
        talker.s2s._limit_session(62.0)


@dataclass(frozen=True, kw_only=True)
class Provider:
    """One model."""

    name: str
    factory: Callable[..., SocketS2S]
    """Called with api_key, base_url and what all models take."""
    emulator: Callable[..., Any]
    manual: bool = False
    """Turns are begun and committed."""
    silence_ms: int = 900
    """Silence that ends a turn for sure."""
    audio: Callable[[Frame], bytes] = in_json
    """The caller's audio that a received frame brings."""
    ms_exact: bool = True
    """It may be told to the millisecond how much was heard."""
    greetings: int = 1
    """So many messages come before a session is set up."""
    invalid_arguments: bool = True
    """It may ask for tools with arguments that are no JSON."""
    options: Mapping[str, Any] = field(default_factory=lambda: {"instructions": "Be long."})
    """Settings that say "Be long."."""
    required: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Settings without which there is none."""
    declares_tools: bool = True
    """A session is told its tools; else the provider has them."""
    known: Callable[[str], str] = as_told
    """Finds what was said in what a new session is told of it."""
    tells_tokens: bool = True
    """Usage has tokens; else it has the seconds of the session."""
    tells_cached: bool = True
    """Among them those that it had from before."""
    priced: bool = False
    """It is in the table of list prices."""
    fails_to_understand: bool = True
    """It says when it did not understand what was said."""
    ending: Callable[[Any, Talker], Awaitable[None]] = tells_no_end
    """A session is to end in 62 s."""

    def __str__(self) -> str:
        return self.name


PROVIDERS = [
    Provider(name="openai", factory=OpenAIRealtimeS2S, emulator=OpenAIRealtimeEmulator, priced=True),
    Provider(
        name="openai-manual", factory=OpenAIRealtimeS2S, emulator=OpenAIRealtimeEmulator, priced=True, manual=True
    ),
    Provider(
        name="grok", factory=GrokS2S, emulator=GrokEmulator, priced=True, tells_cached=False, fails_to_understand=False
    ),
    Provider(
        name="grok-manual",
        factory=GrokS2S,
        emulator=GrokEmulator,
        priced=True,
        tells_cached=False,
        fails_to_understand=False,
        manual=True,
    ),
    GEMINI := Provider(
        name="gemini",
        factory=GeminiLiveS2S,
        emulator=GeminiLiveEmulator,
        audio=in_gemini,
        greetings=0,
        invalid_arguments=False,
        options={"systemInstruction": {"parts": [{"text": "Be long."}]}},
        ending=goes_away,
    ),
    replace(GEMINI, name="gemini-manual", manual=True),
    Provider(
        name="deepgram",
        factory=DeepgramAgentS2S,
        emulator=DeepgramAgentEmulator,
        audio=in_binary,
        tells_tokens=False,
        fails_to_understand=False,
        options={"agent": {"think": {"prompt": "Be long."}}},
    ),
    Provider(
        name="elevenlabs",
        factory=ElevenLabsAgentS2S,
        emulator=ElevenLabsAgentEmulator,
        audio=in_elevenlabs,
        tells_tokens=False,
        greetings=0,
        invalid_arguments=False,
        options={"conversation_config_override": {"agent": {"prompt": {"prompt": "Be long."}}}},
        required={"agent_id": "agent_test"},
        declares_tools=False,
        known=as_noted,
    ),
]

FAST = Backoff(first_s=0.01, limit_s=0.05, give_up_s=2.0)
CALL = uuid4()
BOOK = ToolSpec(
    name="book_table",
    description="Book a table.",
    parameters='{"type":"object","properties":{"people":{"type":"integer"}},"required":["people"]}',
)


@cache
def _tone() -> bytes:
    step = 2 * math.pi * 500 / 8000
    return mulaw_encode(array("h", [round(8000 * math.sin(i * step)) for i in range(8 * 4000)]).tobytes())


def speech(ms: int) -> bytes:
    """Somebody speaks."""
    return _tone()[: 8 * ms]


def silence(ms: int) -> bytes:
    """Nobody does."""
    return MULAW_8K.silence(ms)


def wide(data: bytes) -> bytes:
    """The same at 16 kHz, in 16 bits."""
    assert PCM_16K.ms(len(data) * 4) == MULAW_8K.ms(len(data))
    return array("h", [sample for sample in array("h", mulaw_decode(data)) for _ in range(2)]).tobytes()


class Talker:
    """A model, all that it told in its order, and the caller who talks to it."""

    def __init__(
        self, provider: Provider, emulator: Any, *, history: Callable[[], Any] = tuple, **options: Any
    ) -> None:
        options.setdefault("api_key", emulator.api_key)
        options.setdefault("backoff", FAST)
        self.provider, self.emulator = provider, emulator
        self.s2s = provider.factory(base_url=emulator.base_url, **provider.required, **options)
        self.output_format = self.s2s.output_formats[0]
        self.spec = SessionSpec(
            input_format=self.s2s.formats[0],
            output_format=self.output_format,
            system="Be brief.",
            tools=(BOOK,),
            vad="local" if provider.manual else "provider",
            history=history,
        )
        self.at_ms = 0.0
        self.events: list[tuple[str, Any]] = []
        self._woken = asyncio.Event()
        for event in (
            S2S.MESSAGE, S2S.REPLY, S2S.REPLIED, S2S.VAD, S2S.TURN, S2S.INTERIM, S2S.UTTERANCE, S2S.FLUSH,
            S2S.TOOL_CALL, S2S.TOOL_CANCELLED, S2S.USAGE, S2S.ERROR,
        ):  # fmt: skip
            self.s2s.on(event, lambda payload, event=event: self._keep(event, payload))

    def _keep(self, event: str, payload: Any) -> None:
        self.events.append((str(event), payload))
        self._woken.set()

    def told(self, event: str) -> list[Any]:
        """The payloads of one event."""
        return [payload for name, payload in self.events if name == event]

    @property
    def failures(self) -> list[Any]:
        return self.told("error")

    async def until(self, condition: Callable[[], object], timeout_s: float = 5.0) -> None:
        """Wait for an event after which ``condition`` holds."""
        async with asyncio.timeout(timeout_s):
            while not condition():
                self._woken.clear()
                await self._woken.wait()

    async def ready(self, sessions: int = 1) -> None:
        """Wait for a session that is set up."""
        async with asyncio.timeout(5.0):
            while self.s2s.session < sessions or not self.s2s._ready:
                await asyncio.sleep(0.002)

    def say(self, audio: bytes) -> None:
        """All of it, in frames of 20 ms, at once."""
        for at in range(0, len(audio), 160):
            data = audio[at : at + 160]
            carried = data if self.spec.input_format == MULAW_8K else wide(data)
            self.s2s.post(Message(uuid=CALL, data=carried, at_ms=self.at_ms))
            self.at_ms += len(data) / 8

    def talk(self, ms: int = 1000) -> None:
        """Say a sentence, and let it end."""
        if self.provider.manual:
            self.say(silence(400))
            self.say(speech(60))
            self.s2s.begin(self.at_ms - 60)
            self.say(speech(ms - 60))
            self.say(silence(300))
            self.s2s.commit(uuid4())
        else:
            self.say(silence(400) + speech(ms) + silence(self.provider.silence_ms))

    async def turn(self, ms: int = 1000) -> UUID:
        """Say a sentence; returns its turn once the model has noticed its end."""
        before = len(self.told("turn"))
        self.talk(ms)
        await self.until(lambda: len(self.told("turn")) > before)
        return self.told("turn")[-1]

    def respond(self, uuid: UUID) -> None:
        """Let it answer, if it does not by itself."""
        if self.s2s.capabilities.replies == "asked":
            self.s2s.respond(uuid)

    async def replied(self, uuid: UUID, *, count: int = 1) -> Any:
        """Wait for the end of a reply."""
        await self.until(lambda: len(self.ends(uuid)) >= count)
        return self.ends(uuid)[-1]

    def ends(self, uuid: UUID) -> list[Any]:
        """How the replies of a turn ended."""
        return [replied for replied in self.told("replied") if replied.uuid == uuid]

    async def answer(self) -> UUID:
        """Say a sentence and hear the answer to its end."""
        uuid = await self.turn()
        self.respond(uuid)
        await self.replied(uuid)
        return uuid

    def audio_ms(self, uuid: UUID) -> float:
        """How much audio came of a turn."""
        return self.output_format.ms(sum(len(message.data) for message in self.told("message") if message.uuid == uuid))

    def words(self, uuid: UUID) -> str:
        """What was said in a turn."""
        return "".join(message.data for message in self.told("reply") if message.uuid == uuid)

    def cut(self, uuid: UUID, heard_ms: float, part: int = 0) -> None:
        """The line was cleared."""
        self.s2s.cancel(Playback(uuid=uuid, part=part, state="cut", heard_ms=heard_ms))

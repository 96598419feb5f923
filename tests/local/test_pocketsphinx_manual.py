"""The offline recogniser when somebody else decides that the caller has finished."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import pytest

from dialog.audio.g711 import mulaw_encode
from dialog.message import MULAW_8K, Message, SpeechEdge, Utterance
from dialog.stt.pocketsphinx import PocketsphinxSTT
from dialog.stt.stt import STT
from dialog.tts.espeak import speak

PHRASES = (
    "what are your opening hours on sunday",
    "goodbye and thank you for your help",
    "do you have vegetarian food",
)
CALL = uuid4()


class Phone:
    def __init__(self) -> None:
        self.stt = PocketsphinxSTT(PHRASES, interims=False)
        self.stt.manual_turns = True
        self.stt.open(MULAW_8K)
        self.finals: list[Utterance] = []
        self.edges: list[SpeechEdge] = []
        self.now_ms = 0.0
        self._changed = asyncio.Event()
        self.stt.on(STT.MESSAGE, self._final)
        self.stt.on(STT.VAD, self.edges.append)

    def _final(self, utterance: Utterance) -> None:
        self.finals.append(utterance)
        self._changed.set()

    def say(self, text: str) -> None:
        self.hear(mulaw_encode(speak(text, voice="en-us+m3")))

    def silence(self, ms: float) -> None:
        self.hear(MULAW_8K.silence(ms))

    def hear(self, data: bytes) -> None:
        for at in range(0, len(data), 160):
            piece = data[at : at + 160]
            self.stt.post(Message(uuid=CALL, data=piece, at_ms=self.now_ms))
            self.now_ms += len(piece) / 8

    async def until(self, count: int) -> None:
        async with asyncio.timeout(15):
            while len(self.finals) < count:
                self._changed.clear()
                await self._changed.wait()


@pytest.fixture
async def phone():
    made = Phone()
    yield made
    made.stt.dispose()
    await made.stt.wait_disposed(5)


async def test_a_pause_ends_nothing_and_finalize_does(phone: Phone) -> None:
    phone.silence(600)
    phone.say("what are your opening hours")
    phone.silence(1500)
    phone.say("on sunday")
    phone.silence(600)
    assert [edge.state for edge in phone.edges] == ["started", "stopped"] * 2
    phone.stt.finalize()
    phone.stt.finalize()
    await phone.until(1)
    (final,) = phone.finals
    assert final.data == PHRASES[0]
    assert final.end_ms == phone.edges[-1].at_ms
    phone.silence(500)
    phone.say(PHRASES[1])
    phone.silence(600)
    phone.stt.finalize()
    await phone.until(2)
    assert phone.finals[1].data == PHRASES[1]


async def test_when_nobody_says_so_five_seconds_of_silence_do(phone: Phone) -> None:
    phone.silence(600)
    phone.say(PHRASES[2])
    phone.silence(4800)
    assert not phone.stt._pending
    phone.silence(400)
    await phone.until(1)
    assert phone.finals[0].data == PHRASES[2]

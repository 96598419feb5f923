"""A voice that is interrupted in mid-stream: what was spoken is what the caller heard."""

import asyncio
from uuid import uuid4

import pytest

from dialog.agent.heard import HeardMap, SpeechRate
from dialog.agent.shaping import Piece
from dialog.clock import Clock
from dialog.message import MULAW_8K, Message
from dialog.testing.cartesia import CartesiaEmulator
from dialog.tts.cartesia import CartesiaTTS
from dialog.tts.tts import TTS
from dialog.voip.memory import MemoryLine, memory_call
from dialog.voip.voip import VoIP

TEXT = "Certainly, I have put you down for a table of four at seven in the evening, by the window."


@pytest.mark.parametrize("buffer_s", [0.0, 0.06], ids=["plain carrier", "carrier that buffers"])
@pytest.mark.parametrize("heard_ms", [150.0, 900.0, 1730.0])
async def test_after_an_abort_the_last_playback_tells_what_the_caller_heard(heard_ms, buffer_s):
    clock = Clock()
    line = MemoryLine(clock=clock, rtt_s=0.04, buffer_s=buffer_s)
    async with CartesiaEmulator(speed=4.0) as cartesia:
        call, _ = memory_call(lambda _: None, clock=clock, line=line)
        voip, turn = call.voip, uuid4()
        voice = CartesiaTTS(api_key=cartesia.api_key, base_url=cartesia.url)
        words, after = [], []
        voice.on(TTS.MESSAGE, voip.post)
        voice.on(TTS.ALIGNMENT, lambda alignment: words.extend(alignment.words))
        voice.open(MULAW_8K)
        async with asyncio.timeout(15):
            if buffer_s:  # the carrier is known from an earlier part
                earlier = uuid4()
                voice.post(Message(uuid=earlier, data="Good evening.", done=True))
                await voip.wait_played(earlier)
            before = len(line.heard_audio)
            voice.post(Message(uuid=turn, data=TEXT, done=True))
            await voip.wait_played(turn, ms=heard_ms)
            voice.abort(turn)
            voip.abort(turn)
            final = await voip.wait_played(turn)
        assert final.state == "cut"
        voice.on(TTS.MESSAGE, after.append)
        await clock.sleep(line.rtt_s + buffer_s)  # the clear is on its way
        played_ms = MULAW_8K.ms(len(line.heard_audio) - before)
        assert final.heard_ms == pytest.approx(played_ms, abs=20)
        assert final.heard_ms >= heard_ms - 20  # what the carrier holds back is only estimated
        said = HeardMap(SpeechRate())
        said.post(Piece(TEXT, 0, len(TEXT), ends_sentence=True))
        said.align(tuple(words))
        told, true = (TEXT[: said.heard(ms, None)].split() for ms in (final.heard_ms, played_ms))
        assert abs(len(told) - len(true)) <= 1
        await clock.sleep(0.3)
        assert MULAW_8K.ms(len(line.heard_audio) - before) == played_ms  # nothing more sounded
        assert after == []
        voice.dispose()
        await voice.wait_disposed()
        call.end("test_over")
        await call.wait_closed()


async def test_what_another_turn_says_after_the_abort_is_heard_whole():
    clock = Clock()
    line = MemoryLine(clock=clock, rtt_s=0.04)
    async with CartesiaEmulator(speed=8.0) as cartesia:
        call, _ = memory_call(lambda _: None, clock=clock, line=line)
        voip, first, second = call.voip, uuid4(), uuid4()
        reports = []
        voip.on(VoIP.PLAYBACK, reports.append)
        voice = CartesiaTTS(api_key=cartesia.api_key, base_url=cartesia.url)
        voice.on(TTS.MESSAGE, voip.post)
        voice.open(MULAW_8K)
        async with asyncio.timeout(15):
            voice.post(Message(uuid=first, data=TEXT, done=True))
            await voip.wait_played(first, ms=400)
            voice.abort(first)
            voip.abort(first)
            voice.post(Message(uuid=second, data="Five, then.", done=True))
            heard = await voip.wait_played(second)
        assert heard.state == "played"
        assert line.heard_audio.endswith(cartesia.audio("Five, then.", number=1))
        assert [report.state for report in reports if report.final] == ["cut", "played"]
        voice.dispose()
        await voice.wait_disposed()
        call.end("test_over")
        await call.wait_closed()

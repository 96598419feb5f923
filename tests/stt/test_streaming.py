"""The base of recognisers over sockets, where a test needs to look closer than the conformance suite."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from stt_providers import PROVIDERS, SENTENCES, Ear, silence, speech

from dialog.errors import RemoteProtocolError
from dialog.message import MULAW_8K
from dialog.stt import streaming
from dialog.stt.deepgram import DeepgramSTT
from dialog.testing.deepgram import DeepgramEmulator
from dialog.testing.flux import FluxEmulator
from dialog.testing.server import Faults

DEEPGRAM, MANUAL, FLUX = (
    next(p for p in PROVIDERS if p.name == name) for name in ("deepgram", "deepgram-manual", "flux")
)


@asynccontextmanager
async def listening(provider, emulator, **options):
    ear = Ear(provider, emulator, **options)
    ear.stt.open(MULAW_8K)
    try:
        await ear.connected()
        yield ear
    finally:
        ear.stt.dispose()
        await ear.stt.wait_disposed()


async def given_up_waiting(ear):
    """The bound of a finalize has passed."""
    async with asyncio.timeout(1):
        while ear.stt._finalizing is not None:
            await asyncio.sleep(0.005)


def asked_to_finalize(emulator):
    return sum('"Finalize"' in frame.data for frame in emulator.received(str))


async def test_manual_words_that_were_asked_for_in_an_outage_come_when_it_is_over():
    """Nobody would ask for them again: the bound of the finalize has passed."""
    async with (
        DeepgramEmulator(sentences=[SENTENCES[0]]) as emulator,
        listening(MANUAL, emulator, timeout_s=0.02) as ear,
    ):
        emulator.faults = Faults(refuse=503)
        emulator.sockets[0].drop()
        await ear.until(lambda: ear.failures)
        ear.say(speech(0, 1500) + silence(200))
        ear.stt.finalize()
        await given_up_waiting(ear)
        assert ear.finals == []
        emulator.faults = Faults(times=0)
        await ear.until(lambda: ear.finals)
        assert ear.finals == [SENTENCES[0]]
        assert asked_to_finalize(emulator) == 1


async def test_an_old_finalize_does_not_cut_into_speech_that_ends_by_itself():
    async with (
        DeepgramEmulator(sentences=[SENTENCES[0]]) as emulator,
        listening(DEEPGRAM, emulator, timeout_s=0.02) as ear,
    ):
        emulator.faults = Faults(refuse=503)
        emulator.sockets[0].drop()
        await ear.until(lambda: ear.failures)
        ear.stt.finalize()
        await given_up_waiting(ear)
        emulator.faults = Faults(times=0)
        await ear.connected(2)
        await ear.utter(0)
        assert ear.finals == [SENTENCES[0]]
        assert asked_to_finalize(emulator) == 0


async def test_a_long_turn_loses_no_word_although_its_first_audio_is_gone():
    """The service revises a whole turn; ten seconds of audio are kept."""
    words = " ".join(f"w{number}" for number in range(40))
    async with FluxEmulator() as emulator, listening(FLUX, emulator) as ear:
        emulator.hears = lambda _: words
        tone = speech(0, 4000)
        await ear.hear(tone * 3 + tone[: 8 * 1500])
        await ear.until(lambda: ear.told("interim"))
        told = ear.told("interim")[-1].data.split()
        assert len(told) > 30
        ring_ms = ear.stt._ring.start_ms
        assert ring_ms == pytest.approx(3500, abs=40)
        # The next connection hears the kept ten seconds, and calls it something else.
        emulator.hears = lambda _: "the rest of it"
        emulator.sockets[0].drop()
        await ear.connected(2)
        await ear.settled()
        await ear.hear(silence(900))
        await ear.until(lambda: ear.finals)
        [final] = ear.told("message")
        kept = final.data.removesuffix(" the rest of it").split()
        assert kept == told[: len(kept)]
        assert 5 <= len(kept) <= 15
        assert final.uuid == ear.told("interim")[0].uuid


async def test_a_goodbye_that_nobody_answers_holds_up_no_renewal():
    async with DeepgramEmulator(sentences=SENTENCES, faults=Faults(deaf_after=0)) as emulator:
        ear = Ear(DEEPGRAM, emulator)
        ear.stt._settings = replace(ear.stt._settings, close_timeout_s=0.05)
        ear.stt.open(MULAW_8K)
        await ear.connected()
        emulator.faults = Faults(times=0)
        ear.stt._renew()
        await ear.connected(2)
        await ear.utter(0)
        assert ear.failures == []
        ear.stt.dispose()
        await ear.stt.wait_disposed()


async def test_a_renewal_waits_for_the_end_of_the_utterance():
    async with DeepgramEmulator(sentences=SENTENCES) as emulator, listening(DEEPGRAM, emulator) as ear:
        await ear.hear(speech(0, 1200))
        await ear.until(lambda: ear.told("vad"))
        ear.stt._renew_if_quiet()
        assert emulator.connections == 1
        await ear.hear(silence(900))
        await ear.connected(2)
        assert ear.finals == [SENTENCES[0]]
        goodbyes = [json.loads(frame.data)["type"] for frame in emulator.received(str) if frame.connection == 0]
        assert goodbyes[-1] == "CloseStream"
        assert ear.failures == []


async def test_a_known_session_length_is_kept_to(monkeypatch):
    monkeypatch.setattr(streaming, "_QUIET_RENEWAL", 2.0)  # nobody is ever quiet
    async with DeepgramEmulator(sentences=SENTENCES) as emulator:
        stt = DeepgramSTT(api_key=emulator.api_key, base_url=emulator.url)
        stt._session_s = 0.05
        stt.open(MULAW_8K)
        try:
            await emulator.until(lambda: emulator.connections >= 3)
        finally:
            stt.dispose()
            await stt.wait_disposed()
        assert stt._renewals == []


@pytest.mark.parametrize(
    ("start", "duration"), [(-50.0, 51.0), (0.0, 1e6), (1e9, 1.0), (0.9, -3.0)], ids=["early", "long", "late", "back"]
)
async def test_a_service_whose_clock_is_wrong_loses_no_audio(start, duration):
    """Times that cannot be are taken for the nearest that can."""
    async with DeepgramEmulator(sentences=[SENTENCES[1]]) as emulator, listening(DEEPGRAM, emulator) as ear:
        ear.at_ms = 5000.0
        await ear.hear(silence(1000))
        words = [{"word": "skewed", "start": start, "end": start + duration, "confidence": 0.9}]
        await emulator.sockets[0].send(
            {
                "type": "Results",
                "start": start,
                "duration": duration,
                "is_final": True,
                "speech_final": True,
                "channel": {"alternatives": [{"transcript": "skewed", "confidence": 0.9, "words": words}]},
            }
        )
        await ear.until(lambda: ear.finals)
        [final] = ear.told("message")
        assert 5000 <= final.at_ms <= 6000
        assert 5000 <= final.end_ms <= 6000
        assert 0 <= ear.stt.safe_ms <= 6000
        await ear.hear(speech(1, 900))
        emulator.sockets[0].drop()
        await ear.connected(2)
        await ear.hear(silence(900))
        await ear.until(lambda: len(ear.finals) == 2)
        assert ear.finals == ["skewed", SENTENCES[1]]
        [failure] = [failure for failure in ear.failures if isinstance(failure.error, RemoteProtocolError)]
        assert "outside the audio" in str(failure.error)
        assert not failure.fatal


async def test_a_final_that_is_told_twice_after_the_next_has_begun_is_heard_once():
    async with DeepgramEmulator(sentences=SENTENCES, interim_s=0.3) as emulator, listening(DEEPGRAM, emulator) as ear:
        await ear.utter(0)
        again = next(frame.data for frame in emulator.frames if frame.sent and '"speech_final":true' in str(frame.data))
        await ear.hear(speech(1, 900))
        await emulator.sockets[0].send(again)
        await ear.hear(speech(1, 300) + silence(900))
        await ear.until(lambda: len(ear.finals) == 2)
        assert ear.finals == SENTENCES[:2]

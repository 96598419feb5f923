"""ElevenLabs Scribe: what is particular to it, and its emulator against the official SDK."""

from __future__ import annotations

import asyncio
import json
import logging
from base64 import b64decode, b64encode

import pytest
from elevenlabs import AsyncElevenLabs, AudioFormat, CommitStrategy, RealtimeEvents
from stt_providers import PROVIDERS, SENTENCES, Ear, silence, speech

from dialog.errors import AuthenticationError, ConfigurationError, ProviderError
from dialog.message import MULAW_8K, PCM_8K, PCM_16K, PCM_24K
from dialog.net.reconnect import Backoff
from dialog.stt.elevenlabs import DEFAULT_LANGUAGE, DEFAULT_MODEL, ElevenLabsSTT
from dialog.testing.elevenlabs_stt import ElevenLabsSTTEmulator
from dialog.testing.server import Faults

[SCRIBE] = [provider for provider in PROVIDERS if provider.name == "elevenlabs"]
[MANUAL] = [provider for provider in PROVIDERS if provider.name == "elevenlabs-manual"]
SHORT = Backoff(first_s=0.01, limit_s=0.02, give_up_s=0.1)


@pytest.fixture
async def listen():
    ears = []

    async def make(emulator, *, provider=SCRIBE, audio_format=MULAW_8K, **options):
        ear = Ear(provider, emulator, **options)
        ears.append(ear)
        ear.stt.open(audio_format)
        await ear.connected()
        return ear

    yield make
    for ear in ears:
        ear.stt.dispose()
        await ear.stt.wait_disposed()
        assert ear.emulator.violations == []


def asked(emulator):
    request = emulator.requests[0]
    return {name: request.values(name) for name, _ in request.query}


def test_the_defaults():
    assert (DEFAULT_MODEL, DEFAULT_LANGUAGE) == ("scribe_v2_realtime", "en")
    url = ElevenLabsSTT(api_key="k").url_for(MULAW_8K)
    assert url.startswith("wss://api.elevenlabs.io/v1/speech-to-text/realtime?model_id=scribe_v2_realtime&")


async def test_the_handshake_says_what_was_asked_for(listen):
    async with ElevenLabsSTTEmulator() as scribe:
        await listen(
            scribe,
            language="de",
            endpointing_ms=700,
            keyterms=("Dialog", "Twilio"),
            options={"no_verbatim": True},
            query={"route": "eu"},
        )
        assert asked(scribe) == {
            "model_id": ["scribe_v2_realtime"],
            "language_code": ["de"],
            "commit_strategy": ["vad"],
            "vad_silence_threshold_secs": ["0.7"],
            "keyterms": ["Dialog", "Twilio"],
            "no_verbatim": ["true"],
            "audio_format": ["ulaw_8000"],
            "route": ["eu"],
        }
        [request] = scribe.requests
        assert request.path == "/v1/speech-to-text/realtime"
        assert request.headers["xi-api-key"] == scribe.api_key


async def test_with_manual_turns_only_we_commit(listen):
    async with ElevenLabsSTTEmulator() as scribe:
        await listen(scribe, provider=MANUAL, language=None)
        told = asked(scribe)
        assert told["commit_strategy"] == ["manual"]
        assert not {"vad_silence_threshold_secs", "language_code"} & told.keys()


@pytest.mark.parametrize(
    ("audio_format", "name"),
    [(MULAW_8K, "ulaw_8000"), (PCM_8K, "pcm_8000"), (PCM_16K, "pcm_16000"), (PCM_24K, "pcm_24000")],
)
async def test_formats_are_called_what_the_service_calls_them(listen, audio_format, name):
    async with ElevenLabsSTTEmulator() as scribe:
        ear = await listen(scribe, audio_format=audio_format)
        ear.stt.finalize()
        await scribe.until(scribe.received)
        assert asked(scribe)["audio_format"] == [name]
        assert scribe.received()[0].json() == {
            "message_type": "input_audio_chunk",
            "audio_base_64": "",
            "commit": True,
            "sample_rate": audio_format.sample_rate,
        }


@pytest.mark.parametrize(
    "options",
    [{"endpointing_ms": 299}, {"endpointing_ms": 3001}, {"keyterms": ["t"] * 51}, {"keyterms": ["t" * 21]}],
    ids=repr,
)
def test_settings_that_the_service_would_refuse_are_refused_at_once(options):
    with pytest.raises(ConfigurationError, match="ElevenLabsSTT"):
        ElevenLabsSTT(api_key="k", **options)


async def test_audio_goes_up_as_it_came(listen):
    async with ElevenLabsSTTEmulator() as scribe:
        ear = await listen(scribe)
        ear.say(speech(0, 200))
        await ear.settled()
        chunks = [frame.json() for frame in scribe.received(str)]
        assert b"".join(b64decode(chunk["audio_base_64"]) for chunk in chunks) == speech(0, 200)
        assert {(chunk["commit"], chunk["sample_rate"]) for chunk in chunks} == {(False, 8000)}


async def test_an_idle_connection_is_kept(listen, monkeypatch):
    monkeypatch.setattr(ElevenLabsSTT, "keep_alive_s", 0.02)
    async with ElevenLabsSTTEmulator(idle_s=0.5) as scribe:
        await listen(scribe)
        await scribe.until(lambda: len(scribe.received()) >= 3)
        empty = {"message_type": "input_audio_chunk", "audio_base_64": "", "commit": False, "sample_rate": 8000}
        assert [frame.json() for frame in scribe.received()][:3] == [empty] * 3
        assert scribe.connections == 1


# Utterances.


async def test_the_first_words_are_the_start_of_speech_and_empty_ones_are_none(listen):
    async with ElevenLabsSTTEmulator() as scribe:
        ear = await listen(scribe)
        await ear.hear(silence(400))
        await scribe.sockets[0].send({"message_type": "partial_transcript", "text": ""})
        await scribe.sockets[0].send({"message_type": "committed_transcript", "text": ""})
        await ear.hear(silence(100))
        assert ear.events == []
        await ear.hear(speech(0, 900))
        names = [name for name, _ in ear.events]
        assert names[:2] == ["vad", "interim"]
        assert ear.told("vad")[0].at_ms == ear.told("interim")[0].at_ms
        assert 400 <= ear.told("vad")[0].at_ms <= 900


async def test_words_come_with_times_where_those_are_asked_for(listen):
    async with ElevenLabsSTTEmulator() as scribe:
        ear = await listen(scribe, options={"include_timestamps": True})
        await ear.hear(silence(1000))
        await ear.utter(0)
        await ear.utter(1)
        assert ear.finals == SENTENCES[:2]
        first = ear.told("message")[0]
        assert [word.text for word in first.words] == SENTENCES[0].split()
        assert first.at_ms == pytest.approx(1000, abs=40)
        assert first.end_ms == pytest.approx(2200, abs=40)
        assert first.speaker == "0"
        assert first.language == "en"


async def test_times_that_never_come_cost_no_words(listen):
    async with ElevenLabsSTTEmulator(times=False) as scribe:
        ear = await listen(scribe, options={"include_timestamps": True}, timeout_s=0.05)
        await ear.utter(0)
        await ear.utter(1)
        assert ear.finals == SENTENCES[:2]


async def test_times_that_come_too_late_say_nothing_twice(listen):
    async with ElevenLabsSTTEmulator(times=False) as scribe:
        ear = await listen(scribe, options={"include_timestamps": True}, timeout_s=0.05)
        await ear.utter(0)
        await ear.hear(silence(1000))
        words = [{"text": word, "start": 0.1, "end": 0.2, "type": "word"} for word in SENTENCES[0].split()]
        again = speech(1, 1200)
        await ear.hear(again[:4800])  # somebody speaks again
        late = {"message_type": "committed_transcript_with_timestamps", "text": SENTENCES[0], "words": words}
        await scribe.sockets[0].send(late)
        await ear.hear(again[4800:] + silence(900))
        await ear.until(lambda: len(ear.finals) >= 2)
        await ear.settled()
        assert ear.finals == SENTENCES[:2]


async def test_a_text_that_waits_for_its_times_outlives_the_connection(listen):
    async with ElevenLabsSTTEmulator(times=False) as scribe:
        ear = await listen(scribe, options={"include_timestamps": True}, timeout_s=5.0)
        await ear.hear(speech(0, 1200) + silence(900))
        assert ear.finals == []
        scribe.sockets[0].drop()
        await ear.until(lambda: ear.finals)
        await ear.connected(2)
        await ear.hear(silence(900))
        assert ear.finals == [SENTENCES[0]]


async def test_a_language_that_is_told_of_in_addition_says_nothing_twice(listen):
    async with ElevenLabsSTTEmulator() as scribe:
        ear = await listen(scribe, options={"include_language_detection": True})
        await ear.utter(0)
        await ear.settled()
        assert sum("committed_transcript_with_timestamps" in str(frame.data) for frame in scribe.frames) == 1
        assert ear.finals == [SENTENCES[0]]


async def test_the_same_word_may_be_said_twice(listen):
    async with ElevenLabsSTTEmulator() as scribe:
        ear = await listen(scribe)
        scribe.hears = lambda _: "yes"
        for _ in range(2):
            await ear.hear(speech(0, 300) + silence(700))
        await ear.until(lambda: len(ear.finals) == 2)
        assert ear.finals == ["yes", "yes"]


async def test_the_echo_window_can_be_set(listen):
    async with ElevenLabsSTTEmulator() as scribe:
        for window_s, finals in ((0.0, SENTENCES[:1]), (2.0, [])):
            ear = await listen(scribe, echo_discard_s=window_s)
            await ear.hear(silence(100))
            ear.own.sounds(True, ear.at_ms)
            ear.own.heard(SENTENCES[0], ear.at_ms)
            await ear.hear(silence(300))
            ear.own.sounds(False, ear.at_ms)
            await ear.hear(speech(0, 1200) + silence(900))
            assert ear.finals == finals


# Errors.


@pytest.mark.parametrize(
    "kind",
    [
        "error", "transcriber_error", "rate_limited", "input_error", "queue_overflow", "resource_exhausted",
        "chunk_size_exceeded", "insufficient_audio_activity",
    ],
)  # fmt: skip
async def test_after_an_error_it_connects_again_and_loses_nothing(listen, kind):
    async with ElevenLabsSTTEmulator() as scribe:
        ear = await listen(scribe)
        await ear.hear(speech(0, 600))
        await scribe.tell(kind, "sorry")
        await ear.connected(2)
        await ear.hear(speech(0, 600) + silence(900))
        await ear.until(lambda: ear.finals)
        assert ear.finals == [SENTENCES[0]]
        [failure] = ear.failures
        assert not failure.fatal
        assert kind in str(failure.error)
        assert "sorry" in str(failure.error)


async def test_it_gives_up_when_reconnecting_is_exhausted_and_leaves_nobody_waiting(listen):
    async with ElevenLabsSTTEmulator() as scribe:
        ear = await listen(scribe, backoff=SHORT)
        await ear.hear(speech(0, 1400))
        await ear.until(lambda: ear.told("interim")[-1:] and ear.told("interim")[-1].data == SENTENCES[0])
        scribe.faults = Faults(refuse=500)
        ear.stt.finalize()
        await scribe.tell("transcriber_error")
        await ear.until(lambda: any(failure.fatal for failure in ear.failures))
        assert [failure.fatal for failure in ear.failures][-1:] == [True]
        assert sum(failure.fatal for failure in ear.failures) == 1
        assert ear.finals == [SENTENCES[0]]
        assert [edge.state for edge in ear.told("vad")] == ["started", "stopped"]


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("auth_error", AuthenticationError),
        ("quota_exceeded", ProviderError),
        ("unaccepted_terms", ProviderError),
        ("invalid_request", ProviderError),
    ],
)
async def test_errors_that_last_end_it_at_once(listen, kind, error):
    async with ElevenLabsSTTEmulator() as scribe:
        ear = await listen(scribe)
        await scribe.tell(kind)
        await ear.until(lambda: ear.failures)
        [failure] = ear.failures
        assert failure.fatal
        assert type(failure.error) is error
        assert kind in str(failure.error)
        assert scribe.connections == 1


async def test_the_end_of_a_session_is_no_error(listen):
    async with ElevenLabsSTTEmulator() as scribe:
        ear = await listen(scribe)
        await ear.hear(speech(0, 600))
        await scribe.tell("session_time_limit_exceeded")
        await ear.connected(2)
        await ear.hear(speech(0, 600) + silence(900))
        await ear.until(lambda: ear.finals)
        assert ear.finals == [SENTENCES[0]]
        assert ear.failures == []


async def test_a_throttled_commit_keeps_the_connection(listen):
    async with ElevenLabsSTTEmulator() as scribe:
        ear = await listen(scribe)
        await scribe.tell("commit_throttled", close=False)
        await ear.utter(0)
        assert ear.finals == [SENTENCES[0]]
        assert [failure.fatal for failure in ear.failures] == [False]
        assert scribe.connections == 1


async def test_warnings_are_logged_and_nothing_more(listen, caplog):
    async with ElevenLabsSTTEmulator() as scribe:
        ear = await listen(scribe)
        with caplog.at_level(logging.WARNING, "dialog.stt.elevenlabs"):
            await scribe.sockets[0].send({"message_type": "warning", "warning": "the model is old"})
            await ear.hear(silence(100))
        assert "the model is old" in caplog.text
        assert ear.events == []


# The emulator, driven by the official SDK.


async def heard(client, options, script):
    """What the SDK's handlers are told while ``script`` runs on the connection."""
    events, woken = [], asyncio.Event()
    connection = await client.speech_to_text.realtime.connect(options)
    for kind in RealtimeEvents:

        def keep(data=None, kind=kind):
            events.append((kind.value, data))
            woken.set()

        connection.on(kind, keep)
    async with asyncio.timeout(10):
        await script(connection)
        while not any(kind.startswith("committed") or "error" in kind for kind, _ in events):
            woken.clear()
            await woken.wait()
    await connection.close()
    return events


async def test_the_sdk_transcribes_with_the_emulator():
    async def speak(connection):
        for audio in (speech(0, 1200), silence(900)):
            await connection.send({"audio_base_64": b64encode(audio).decode()})

    async with ElevenLabsSTTEmulator(sentences=["a table for two"]) as scribe:
        client = AsyncElevenLabs(api_key=scribe.api_key, base_url=scribe.url)
        options = {
            "model_id": "scribe_v2_realtime",
            "audio_format": AudioFormat.ULAW_8000,
            "sample_rate": 8000,
            "commit_strategy": CommitStrategy.VAD,
            "vad_silence_threshold_secs": 0.5,
        }
        events = await heard(client, options, speak)
        assert scribe.violations == []
        told = [data["text"] for kind, data in events if kind == "partial_transcript"]
        assert [text for text in told if text][:2] == ["a", "a table"]
        assert ("committed_transcript", {"message_type": "committed_transcript", "text": "a table for two"}) in events
        started = json.loads(scribe.frames[0].data)
        assert started["message_type"] == "session_started"
        assert started["config"]["commit_strategy"] == "vad"


async def test_the_sdk_commits_by_hand():
    async def speak(connection):
        await connection.send({"audio_base_64": b64encode(speech(0, 600)).decode()})
        await connection.commit()

    async with ElevenLabsSTTEmulator(sentences=["hello"]) as scribe:
        client = AsyncElevenLabs(api_key=scribe.api_key, base_url=scribe.url)
        options = {"model_id": "scribe_v2_realtime", "audio_format": AudioFormat.ULAW_8000, "sample_rate": 8000}
        events = await heard(client, options, speak)
        assert ("committed_transcript", {"message_type": "committed_transcript", "text": "hello"}) in events

"""OpenAI's realtime transcription: what is particular to it, and its emulator against the official SDK."""

from __future__ import annotations

import asyncio
from base64 import b64decode, b64encode

import pytest
from openai import AsyncOpenAI
from stt_providers import PROVIDERS, SENTENCES, Ear, silence, speech

from dialog.agent.vadmode import choose_vad
from dialog.errors import AuthenticationError, ConfigurationError, LimitError, ProviderError
from dialog.message import ALAW_8K, MULAW_8K, PCM_24K
from dialog.stt import openai as adapter
from dialog.stt.openai import DEFAULT_BASE_URL, DEFAULT_LANGUAGE, DEFAULT_MODEL, OpenAIRealtimeSTT
from dialog.stt.openai_items import Items
from dialog.stt.turn_detection import SemanticVAD, ServerVAD
from dialog.testing.openai_realtime_stt import OpenAIRealtimeSTTEmulator
from dialog.testing.server import Faults

[OPENAI] = [provider for provider in PROVIDERS if provider.name == "openai"]
[MANUAL] = [provider for provider in PROVIDERS if provider.name == "openai-manual"]
Emulator = OPENAI.emulator


@pytest.fixture
async def listen():
    ears = []

    async def make(emulator, *, provider=OPENAI, audio_format=MULAW_8K, wait=True, **options):
        ear = Ear(provider, emulator, **options)
        ears.append(ear)
        ear.stt.open(audio_format)
        if wait:
            await ear.connected()
        return ear

    yield make
    for ear in ears:
        ear.stt.dispose()
        await ear.stt.wait_disposed()
        assert ear.emulator.violations == []


def session(emulator, number=0):
    updates = [frame.json() for frame in emulator.received(str) if '"session.update"' in frame.data]
    return updates[number]["session"]


def test_the_defaults():
    assert (DEFAULT_MODEL, DEFAULT_LANGUAGE, DEFAULT_BASE_URL) == ("gpt-transcribe", "en", "https://api.openai.com/v1")
    stt = OpenAIRealtimeSTT(api_key="k")
    assert stt.url_for(MULAW_8K) == "wss://api.openai.com/v1/realtime?intent=transcription"


# Settings.


async def test_the_session_is_set_up_before_audio_flows(listen):
    async with Emulator() as openai:
        ear = await listen(openai, wait=False)
        ear.say(speech(0, 100))
        await ear.connected()
        await ear.settled()
        assert session(openai) == {
            "type": "transcription",
            "audio": {
                "input": {
                    "format": {"type": "audio/pcmu"},
                    "transcription": {"model": "gpt-transcribe", "language": "en"},
                    "turn_detection": {
                        "type": "server_vad",
                        "threshold": 0.5,
                        "prefix_padding_ms": 300,
                        "silence_duration_ms": 500,
                    },
                }
            },
        }
        [request] = openai.requests
        assert request.path == "/v1/realtime"
        assert request.query == (("intent", "transcription"),)
        assert request.headers["Authorization"] == f"Bearer {openai.api_key}"
        assert "OpenAI-Beta" not in request.headers
        types = [frame.json()["type"] for frame in openai.frames]
        assert types[:3] == ["session.created", "session.update", "session.updated"]
        audio = [b64decode(frame.json()["audio"]) for frame in openai.received(str)[1:]]
        assert b"".join(audio) == speech(0, 100)
        assert {len(frame) for frame in audio} == {160}


async def test_every_setting_reaches_the_service(listen):
    async with Emulator() as openai:
        await listen(
            openai,
            language=("en", "de"),
            prompt="Names: Dialog",
            keyterms=("Twilio",),
            turn_detection=SemanticVAD(eagerness="high"),
            noise_reduction="far_field",
            options={
                "include": ["item.input_audio_transcription.logprobs"],
                "audio": {"input": {"transcription": {"prompt": "Names: Another"}}},
            },
        )
        told = session(openai)
        assert told["include"] == ["item.input_audio_transcription.logprobs"]
        assert told["audio"]["input"] == {
            "format": {"type": "audio/pcmu"},
            "transcription": {
                "model": "gpt-transcribe",
                "languages": ["en", "de"],
                "prompt": "Names: Another",
                "keywords": ["Twilio"],
            },
            "turn_detection": {"type": "semantic_vad", "eagerness": "high"},
            "noise_reduction": {"type": "far_field"},
        }


@pytest.mark.parametrize(
    ("audio_format", "told"),
    [
        (MULAW_8K, {"type": "audio/pcmu"}),
        (ALAW_8K, {"type": "audio/pcma"}),
        (PCM_24K, {"type": "audio/pcm", "rate": 24_000}),
    ],
)
async def test_formats_are_called_what_the_service_calls_them(listen, audio_format, told):
    async with Emulator() as openai:
        await listen(openai, audio_format=audio_format)
        assert session(openai)["audio"]["input"]["format"] == told


async def test_no_language_leaves_it_to_the_service(listen):
    async with Emulator() as openai:
        await listen(openai, language=None)
        assert session(openai)["audio"]["input"]["transcription"] == {"model": "gpt-transcribe"}


async def test_somebody_else_may_end_the_turns(listen):
    async with Emulator() as openai:
        await listen(openai, provider=MANUAL)
        assert session(openai)["audio"]["input"]["turn_detection"] is None


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: ServerVAD(threshold=1.1),
        lambda: ServerVAD(threshold=-0.1),
        lambda: ServerVAD(prefix_padding_ms=-1),
        lambda: ServerVAD(silence_duration_ms=20_000),
        lambda: SemanticVAD(eagerness="eager"),
        lambda: OpenAIRealtimeSTT(api_key="k", noise_reduction="none"),
        lambda: OpenAIRealtimeSTT(api_key="k", model="gpt-live-transcribe", turn_detection=ServerVAD()),
        lambda: OpenAIRealtimeSTT(api_key="k", model="gpt-realtime-whisper", turn_detection=SemanticVAD()),
    ],
)
def test_settings_that_cannot_be_are_refused_at_once(wrong):
    with pytest.raises(ConfigurationError, match=r"VAD|noise_reduction|turn detection"):
        wrong()


# Utterances.


async def test_what_vad_says_is_placed_without_its_padding_and_silence(listen):
    async with Emulator() as openai:
        ear = await listen(openai, turn_detection=ServerVAD(prefix_padding_ms=200, silence_duration_ms=400))
        await ear.hear(silence(1000) + speech(0, 1200) + silence(600))
        await ear.until(lambda: ear.finals)
        [final] = ear.told("message")
        assert final.at_ms == pytest.approx(1000, abs=40)
        assert final.end_ms == pytest.approx(2200, abs=40)
        assert final.words == ()
        started, stopped = ear.told("vad")
        assert (started.at_ms, stopped.at_ms) == (final.at_ms, final.end_ms)


async def test_eagerness_decides_how_long_it_waits(listen):
    for eagerness, finals in (("high", SENTENCES[:1]), ("low", [])):
        async with Emulator() as openai:
            ear = await listen(openai, turn_detection=SemanticVAD(eagerness=eagerness))
            await ear.hear(speech(0, 1000) + silence(500))
            assert ear.finals == finals


async def test_streaming_models_tell_words_as_they_are_said_and_wait_for_finalize(listen):
    async with Emulator() as openai:
        ear = await listen(openai, provider=MANUAL, model="gpt-live-transcribe")
        can = ear.stt.capabilities
        assert (can.endpointing, can.speech_events, can.interim_interval_ms) == (False, False, 250)
        assert choose_vad("auto", can).endpointing == "local"
        assert OpenAIRealtimeSTT.capabilities.endpointing
        await ear.hear(silence(400) + speech(0, 1200))
        await ear.until(lambda: len(ear.told("interim")) == 4)
        assert [interim.data for interim in ear.told("interim")] == ["a", "a table", "a table for", "a table for two"]
        await ear.hear(silence(2000))
        assert ear.finals == []
        ear.stt.finalize()
        await ear.until(lambda: ear.finals)
        [final] = ear.told("message")
        assert final.data == SENTENCES[0]
        assert final.uuid == ear.told("interim")[0].uuid
        assert 300 <= final.at_ms <= 900
        assert final.end_ms <= 1700


async def test_words_that_are_finished_in_another_order_are_told_in_theirs(listen):
    async with Emulator(out_of_order=True) as openai:
        ear = await listen(openai)
        await ear.hear(speech(0, 1200) + silence(900) + speech(1, 1200) + silence(900))
        await ear.until(lambda: len(ear.finals) == 2)
        assert ear.finals == SENTENCES[:2]
        assert len({final.uuid for final in ear.told("message")}) == 2
        assert ear.failures == []


async def test_an_utterance_that_is_never_finished_holds_up_no_other(listen, monkeypatch):
    monkeypatch.setattr(adapter, "_LATE_S", 0.05)
    async with Emulator() as openai:
        ear = await listen(openai)
        started = {"type": "input_audio_buffer.committed", "event_id": "e1", "item_id": "lost"}
        await openai.sockets[0].send(started)
        await openai.sockets[0].send({"type": "x", "event_id": "e2"})
        await ear.hear(speech(0, 1200) + silence(900))
        await ear.until(lambda: ear.finals)
        assert ear.finals == [SENTENCES[0]]
        [failure] = ear.failures
        assert not failure.fatal
        assert "did not transcribe" in str(failure.error)


async def test_a_voice_that_goes_on_is_not_stopped_by_the_words_of_the_last_utterance(listen):
    async with Emulator() as openai:
        ear = await listen(openai)
        first, second = {"item_id": "one"}, {"item_id": "two"}
        words = "conversation.item.input_audio_transcription.completed"
        await ear.hear(silence(3000))
        for number, event in enumerate(
            (
                {"type": "input_audio_buffer.speech_started", "audio_start_ms": 0, **first},
                {"type": "input_audio_buffer.speech_stopped", "audio_end_ms": 1500, **first},
                {"type": "input_audio_buffer.speech_started", "audio_start_ms": 1500, **second},
                {"type": words, "transcript": "one", **first},
                {"type": "input_audio_buffer.speech_stopped", "audio_end_ms": 2900, **second},
                {"type": words, "transcript": "two", **second},
            )
        ):
            await openai.sockets[0].send({"event_id": str(number), **event})
        await ear.until(lambda: len(ear.finals) == 2)
        names = [edge.state if name == "vad" else edge.data for name, edge in ear.events]
        assert names == ["started", "started", "one", "stopped", "two"]


async def test_a_failed_transcription_is_named_and_the_next_one_heard(listen):
    async with Emulator(failing=1) as openai:
        ear = await listen(openai)
        await ear.hear(speech(0, 1200) + silence(900))
        await ear.until(lambda: ear.failures)
        [failure] = ear.failures
        assert not failure.fatal
        assert "audio_unintelligible" in str(failure.error)
        await ear.utter(1)
        assert ear.finals[-1] == SENTENCES[1]
        assert [edge.state for edge in ear.told("vad")] == ["started", "stopped"] * 2


async def test_speakers_are_told_where_the_model_knows_them(listen):
    async with Emulator() as openai:
        ear = await listen(openai, model="gpt-4o-transcribe-diarize")
        await ear.utter(0)
        [final] = ear.told("message")
        assert final.data == SENTENCES[0]
        assert final.speaker == "0"


async def test_finalizing_silence_is_no_error(listen):
    async with Emulator() as openai:
        ear = await listen(openai, timeout_s=0.05)
        ear.stt.finalize()
        await openai.until(lambda: any("commit_empty" in str(frame.data) for frame in openai.frames))
        await ear.utter(0)
        assert ear.finals == [SENTENCES[0]]
        assert ear.failures == []


async def test_words_that_were_asked_for_are_asked_for_again_on_the_next_connection(listen):
    async with Emulator(answer_commit=False) as openai:
        ear = await listen(openai, provider=MANUAL, timeout_s=0.05)
        await ear.hear(speech(0, 1200) + silence(300))
        ear.stt.finalize()
        await openai.until(lambda: '"input_audio_buffer.commit"' in str(openai.received()[-1].data))
        openai.answer_commit = True
        openai.sockets[0].drop()
        await ear.until(lambda: ear.finals)
        assert ear.finals == [SENTENCES[0]]


async def test_a_service_that_reads_slowly_costs_the_oldest_audio_and_the_times_stay_right(listen):
    async with Emulator(faults=Faults(deaf_after=1)) as openai:
        ear = await listen(openai, queue_size_limit=10)
        socket = ear.stt._socket
        for _ in range(20_000):  # until the transport and the kernel are full
            ear.say(silence(100), 800)
            if socket._writer is not None:
                break
        ear.stt.finalize()
        ear.say(silence(18 * 20 - 5))
        assert len(socket._outbox) == 10
        assert OpenAIRealtimeSTT.finalize_with in socket._outbox
        waiting = [frame for frame in socket.queued_audio if isinstance(frame, str)]
        assert len(waiting) == 9
        assert ear.stt._sent.length_ms(waiting[0]) == 20.0
        assert ear.stt._sent.length_ms(waiting[-1]) == 15.0
        assert ear.stt._sent.time.to_call(ear.stt._sent.time.sent_ms) == pytest.approx(ear.at_ms)
        [failure] = ear.failures
        assert isinstance(failure.error, LimitError)


# The session and its errors.


async def test_a_session_is_replaced_before_it_ends(listen, monkeypatch):
    monkeypatch.setattr(adapter, "_SHORTEST_SESSION_S", 0.0)
    async with Emulator(session_s=1.5) as openai:
        ear = await listen(openai)
        await ear.connected(2)
        await ear.utter(0)
        assert ear.finals == [SENTENCES[0]]
        assert ear.failures == []


async def test_a_clock_that_goes_wrong_ends_no_session(listen):
    async with Emulator(session_s=-3600.0) as openai:
        ear = await listen(openai)
        now = asyncio.get_running_loop().time()
        assert min(timer.when() for timer in ear.stt._renewals) - now > 600


async def test_an_expired_session_is_replaced_unheard(listen):
    async with Emulator() as openai:
        ear = await listen(openai)
        await openai.tell("session_expired", close=1001)
        await ear.connected(2)
        await ear.utter(0)
        assert ear.finals == [SENTENCES[0]]
        assert ear.failures == []


async def test_settings_that_the_service_refuses_are_one_fatal_error(listen):
    async with Emulator() as openai:
        ear = await listen(openai, wait=False, model="gpt-99-transcribe")
        await ear.until(lambda: ear.failures)
        [failure] = ear.failures
        assert failure.fatal
        assert isinstance(failure.error, ProviderError)
        assert "gpt-99-transcribe" in str(failure.error)
        assert openai.connections == 1


@pytest.mark.parametrize(
    ("code", "error"), [("invalid_api_key", AuthenticationError), ("insufficient_quota", ProviderError)]
)
async def test_errors_that_last_end_it_at_once(listen, code, error):
    async with Emulator() as openai:
        ear = await listen(openai)
        await openai.tell(code)
        await ear.until(lambda: ear.failures)
        [failure] = ear.failures
        assert failure.fatal
        assert type(failure.error) is error
        assert code in str(failure.error)


async def test_other_errors_are_told_once_and_the_session_goes_on(listen):
    async with Emulator() as openai:
        ear = await listen(openai)
        for _ in range(5):
            await openai.tell("rate_limit_exceeded")
        await ear.utter(0)
        assert ear.finals == [SENTENCES[0]]
        [failure] = ear.failures
        assert not failure.fatal
        assert "rate_limit_exceeded" in str(failure.error)
        assert openai.connections == 1


async def test_a_service_that_never_accepts_the_session_is_left(listen, monkeypatch):
    monkeypatch.setattr(adapter, "_READY_S", 0.05)
    async with Emulator(faults=Faults(stall_after=1, times=1)) as openai:
        ear = await listen(openai, wait=False)
        await ear.connected(2)
        await ear.utter(0)
        assert ear.finals == [SENTENCES[0]]
        [failure] = ear.failures
        assert not failure.fatal
        assert "did not accept the session" in str(failure.error)


def test_items_are_bounded_and_over_only_once():
    items = Items()
    for number in range(100):
        item = items.get(str(number))
        assert item is not None
        item.done = True
        assert list(items.take_done()) == [item]
    assert items.first is None
    assert items.get("99") is None
    assert len(items._over) < 100


# The emulator, driven by the official SDK.


async def test_the_sdk_transcribes_with_the_emulator():
    async with OpenAIRealtimeSTTEmulator(sentences=["a table for two"]) as openai:
        client = AsyncOpenAI(api_key=openai.api_key, base_url=openai.base_url)
        async with asyncio.timeout(10), client, client.realtime.connect(extra_query={"intent": "transcription"}) as sdk:
            first = await sdk.recv()
            assert first.type == "session.created"
            await sdk.session.update(
                session={
                    "type": "transcription",
                    "audio": {
                        "input": {
                            "format": {"type": "audio/pcmu"},
                            "transcription": {"model": "gpt-transcribe", "language": "en"},
                            "turn_detection": {"type": "server_vad", "silence_duration_ms": 400},
                        }
                    },
                }
            )
            assert (await sdk.recv()).type == "session.updated"
            await sdk.input_audio_buffer.append(audio=b64encode(speech(0, 1200) + silence(600)).decode())
            events = []
            async for event in sdk:
                events.append(event)
                if event.type.endswith("transcription.completed"):
                    break
        types = [event.type.removeprefix("conversation.item.") for event in events]
        assert types == [
            "input_audio_buffer.speech_started",
            "input_audio_buffer.speech_stopped",
            "input_audio_buffer.committed",
            "added",
            "done",
            *["input_audio_transcription.delta"] * 4,
            "input_audio_transcription.completed",
        ]
        assert "".join(event.delta for event in events if event.type.endswith("delta")) == "a table for two"
        assert events[-1].transcript == "a table for two"
        assert events[0].item_id == events[-1].item_id
        assert openai.violations == []


async def test_the_sdk_commits_and_learns_what_was_wrong():
    async with OpenAIRealtimeSTTEmulator() as openai:
        client = AsyncOpenAI(api_key=openai.api_key, base_url=openai.base_url)
        async with asyncio.timeout(10), client, client.realtime.connect(extra_query={"intent": "transcription"}) as sdk:
            await sdk.recv()
            audio = {"format": {"type": "audio/pcmu"}, "transcription": {"model": "gpt-live-transcribe"}}
            update = {"type": "transcription", "audio": {"input": {**audio, "turn_detection": None}}}
            await sdk.session.update(session=update)
            await sdk.recv()
            await sdk.input_audio_buffer.commit()
            empty = await sdk.recv()
            assert (empty.type, empty.error.code) == ("error", "input_audio_buffer_commit_empty")
            await sdk.input_audio_buffer.append(audio=b64encode(speech(0, 600)).decode())
            assert (await sdk.recv()).delta == "hello"
            await sdk.input_audio_buffer.commit()
            types = [(await sdk.recv()).type for _ in range(4)]
            assert types[0] == "input_audio_buffer.committed"
            assert types[-1].endswith("completed")
            await sdk.send({"type": "nonsense", "event_id": "mine"})
            wrong = await sdk.recv()
            assert wrong.error.event_id == "mine"
        assert openai.violations == ["an event of the type 'nonsense'"]


async def test_the_beta_shape_is_gone():
    async with OpenAIRealtimeSTTEmulator() as openai:
        client = AsyncOpenAI(api_key=openai.api_key, base_url=openai.base_url)
        old = {"OpenAI-Beta": "realtime=v1"}
        connect = client.realtime.connect(extra_query={"intent": "transcription"}, extra_headers=old)
        async with asyncio.timeout(10), client, connect as sdk:
            error = await sdk.recv()
            assert error.error.code == "beta_api_shape_disabled"

"""What is particular to ElevenLabs; what all voices promise is in test_tts_conformance."""

import asyncio
import json

import pytest
from elevenlabs.types import AudioOutputMulti, CloseContext, FinalOutputMulti, InitializeConnectionMulti, SendTextMulti

from dialog.errors import AuthenticationError, ProviderError
from dialog.message import MULAW_8K, PCM_16K, Message
from dialog.net.reconnect import Backoff
from dialog.testing.elevenlabs import ElevenLabsEmulator
from dialog.testing.server import Faults
from dialog.tts import elevenlabs as adapter
from dialog.tts.elevenlabs import DEFAULT_MODEL, DEFAULT_VOICE, ElevenLabsTTS
from tests.tts.ear import Ear, uuid4

FAST = Backoff(first_s=0.01, limit_s=0.05, give_up_s=1.0)
PATH = f"/v1/text-to-speech/{DEFAULT_VOICE}/multi-stream-input"


@pytest.fixture
async def speak():
    ears = []

    def make(emulator, audio_format=MULAW_8K, **options):
        given = {"api_key": emulator.api_key, "base_url": emulator.url, "backoff": FAST, **options}
        ear = Ear(ElevenLabsTTS(**given), audio_format)
        ears.append(ear)
        ear.tts.open(audio_format)
        return ear

    yield make
    for ear in ears:
        ear.tts.dispose()
        await ear.tts.wait_disposed()
        assert not ear.tts._tasks


def sent(emulator):
    return [frame.json() for frame in emulator.received(str)]


async def ready(ear):
    turn = uuid4()
    ear.say("Ready.", turn)
    await ear.done(turn)


def test_the_defaults_are_as_documented():
    assert DEFAULT_MODEL == "eleven_flash_v2_5"
    assert DEFAULT_VOICE == "JBFqnCBsd6RMkjVDRZzb"  # George
    tts = ElevenLabsTTS(api_key="k")
    assert tts._address(MULAW_8K) == (
        f"wss://api.elevenlabs.io{PATH}?model_id=eleven_flash_v2_5&auto_mode=true&sync_alignment=true&output_format=ulaw_8000"
    )
    assert tts.formats[0] == MULAW_8K
    assert (tts.capabilities.text, tts.capabilities.timings, tts.capabilities.parallel_parts) == ("sentences", True, 5)


async def test_a_context_is_opened_fed_and_closed(speak):
    async with ElevenLabsEmulator(ms_per_char=5) as elevenlabs:
        opening = {"voice_settings": {"speed": 1.1}, "new_field": 7}
        ear, turn = speak(elevenlabs, options=opening, language="en"), uuid4()
        await ready(ear)
        ear.say("First. ", turn, done=False)
        ear.say("Second", turn, done=False)
        ear.say("", turn)
        await ear.done(turn)
        context = f"{turn.hex}-0-0"
        assert [message for message in sent(elevenlabs) if message["context_id"] == context] == [
            {"text": " ", **opening, "context_id": context},
            {"text": "First. ", "context_id": context},
            {"text": "Second", "context_id": context},
            {"context_id": context, "close_context": True},
        ]
        request = elevenlabs.requests[0]
        assert request.path == PATH
        assert request.headers["xi-api-key"] == elevenlabs.api_key
        assert dict(request.query) == {
            "model_id": "eleven_flash_v2_5",
            "auto_mode": "true",
            "sync_alignment": "true",
            "language_code": "en",
            "output_format": "ulaw_8000",
        }


async def test_text_that_ends_the_part_ends_with_a_blank(speak):
    async with ElevenLabsEmulator(ms_per_char=5) as elevenlabs:
        ear, turn = speak(elevenlabs), uuid4()
        ear.say("The end.", turn)
        await ear.done(turn)
        assert elevenlabs.texts == {f"{turn.hex}-0-0": "The end. "}


async def test_without_auto_mode_every_sentence_is_flushed(speak):
    async with ElevenLabsEmulator(ms_per_char=5) as elevenlabs:
        ear, turn = speak(elevenlabs, query={"auto_mode": False}), uuid4()
        ear.say("Short. ", turn, done=False)
        await ear.until(lambda: ear.audio(turn))
        assert sent(elevenlabs)[1]["flush"] is True
        assert elevenlabs.requests[0].values("auto_mode") == ["false"]


async def test_the_other_spelling_is_understood_too(speak):
    async with ElevenLabsEmulator(ms_per_char=10, snake_case=True) as elevenlabs:
        ear, turn = speak(elevenlabs), uuid4()
        ear.say("Good evening, how can I help you?", turn)
        await ear.done(turn)
        assert [word.text for word in ear.words(turn)] == ["Good", "evening,", "how", "can", "I", "help", "you?"]
        assert ear.failures == []


async def test_words_go_over_the_seams_of_messages(speak):
    async with ElevenLabsEmulator(ms_per_char=50, chunk_ms=70) as elevenlabs:
        ear, turn = speak(elevenlabs, PCM_16K), uuid4()
        ear.say("Extraordinary circumstances.", turn)
        await ear.done(turn)
        assert [(w.text, round(w.start_ms), round(w.end_ms)) for w in ear.words(turn)] == [
            ("Extraordinary", 0, 650),
            ("circumstances.", 700, 1400),
        ]


async def test_audio_without_alignment_is_spoken(speak):
    async with ElevenLabsEmulator(ms_per_char=10, alignment=False) as elevenlabs:
        ear, turn = speak(elevenlabs), uuid4()
        ear.say("Hello there.", turn)
        await ear.done(turn)
        assert ear.audio(turn) == elevenlabs.audio("Hello there. ", audio_format=MULAW_8K)
        assert ear.alignments == []


async def test_a_connection_that_waits_is_kept_alive(speak, monkeypatch):
    monkeypatch.setattr(adapter, "_KEEP_ALIVE_S", 0.04)
    async with ElevenLabsEmulator(ms_per_char=5, inactivity_s=0.3) as elevenlabs:
        ear = speak(elevenlabs)
        await elevenlabs.until(lambda: len(elevenlabs.received(str)) > 12)
        assert all(message == {"text": ""} for message in sent(elevenlabs))
        assert elevenlabs.connections == 1
        assert ear.failures == []


async def test_a_connection_closed_for_idleness_comes_back_unheard(speak):
    async with ElevenLabsEmulator(ms_per_char=5, inactivity_s=0.05) as elevenlabs:
        ear, turn = speak(elevenlabs), uuid4()
        await elevenlabs.until(lambda: elevenlabs.connections >= 3)
        elevenlabs.inactivity_s = 20.0
        await elevenlabs.until(lambda: elevenlabs.connections >= 4)
        ear.say("Still here.", turn)
        await ear.done(turn)
        assert ear.failures == []


async def test_a_part_outlives_its_context(speak, monkeypatch):
    """The LLM stalls for longer than a context may be silent: the part goes on in the next."""
    monkeypatch.setattr(adapter, "_EXPIRES_S", 0.05)
    async with ElevenLabsEmulator(ms_per_char=5) as elevenlabs:
        ear, turn = speak(elevenlabs), uuid4()
        ear.say("One moment please. ", turn, done=False)
        await ear.until(lambda: len(ear.words(turn)) == 3)
        await asyncio.sleep(0.1)  # the wait is the subject
        ear.say("Here it is.", turn)
        await ear.done(turn)
        assert elevenlabs.texts == {f"{turn.hex}-0-0": "One moment please. ", f"{turn.hex}-0-1": "Here it is. "}
        assert [word.text for word in ear.words(turn)] == ["One", "moment", "please.", "Here", "it", "is."]
        assert ear.words(turn)[3].start_ms == pytest.approx(95)
        assert {"context_id": f"{turn.hex}-0-0", "close_context": True} in sent(elevenlabs)
        assert ear.failures == []


async def test_a_burst_of_aborts_never_exceeds_the_contexts_of_a_connection(speak):
    async with ElevenLabsEmulator(ms_per_char=20, speed=40) as elevenlabs:
        ear = speak(elevenlabs)
        for _ in range(14):
            turn = uuid4()
            ear.say("This will be interrupted soon, and long before its end.", turn)
            await ear.until(lambda turn=turn: ear.of(turn))
            ear.tts.abort(turn)
        assert elevenlabs.connections == 1
        assert ear.failures == []


async def test_too_many_contexts_cost_a_connection_but_no_word(speak):
    """Somebody else's idea of how many there may be."""
    async with ElevenLabsEmulator(ms_per_char=10, max_contexts=2) as elevenlabs:
        ear = speak(elevenlabs)
        await elevenlabs.until(lambda: elevenlabs.sockets)
        turns = [uuid4() for _ in range(3)]
        for turn in turns:
            ear.say("Me too.", turn)
        await ear.until(lambda: ear.failures)
        elevenlabs.max_contexts = 5
        for turn in turns:
            await ear.done(turn)
            assert [word.text for word in ear.words(turn)] == ["Me", "too."]
        [failure] = ear.failures
        assert not failure.fatal
        assert "max_active_conversations" in str(failure.error)


@pytest.mark.parametrize(
    ("message", "kind", "fatal"),
    [
        ({"error": "invalid_api_key", "message": "no", "code": 1008}, AuthenticationError, True),
        ({"error": "quota_exceeded", "message": "no", "code": 1008}, ProviderError, True),
        ({"error": "system_busy", "message": "no", "code": 1008}, ProviderError, False),
        ({"error": "internal", "message": "no", "code": 1011}, ProviderError, False),
        ({"error": "mystery"}, ProviderError, False),
    ],
    ids=lambda value: value["error"] if isinstance(value, dict) else "",
)
async def test_errors_are_told_once_by_what_they_mean(speak, message, kind, fatal):
    async with ElevenLabsEmulator(ms_per_char=5) as elevenlabs:
        ear, turn = speak(elevenlabs), uuid4()
        await elevenlabs.until(lambda: elevenlabs.sockets)
        await elevenlabs.sockets[0].send(message)
        await ear.until(lambda: ear.failures)
        ear.say("And now?", turn)
        await ear.done(turn)
        [failure] = ear.failures
        assert type(failure.error) is kind
        assert failure.fatal is fatal
        assert bool(ear.audio(turn)) is not fatal


async def test_an_error_of_one_context_is_tried_again(speak):
    async with ElevenLabsEmulator(ms_per_char=5, first_audio_s=0.2) as elevenlabs:
        ear, turn = speak(elevenlabs), uuid4()
        ear.say("Hello there.", turn)
        await elevenlabs.until(lambda: elevenlabs.texts)
        await elevenlabs.sockets[0].send({"error": "overloaded", "contextId": f"{turn.hex}-0-0"})
        await ear.done(turn)
        assert [word.text for word in ear.words(turn)] == ["Hello", "there."]
        assert list(elevenlabs.texts) == [f"{turn.hex}-0-0", f"{turn.hex}-0-1"]
        assert len(ear.failures) == 1


async def test_a_message_of_a_megabyte_is_taken(speak):
    async with ElevenLabsEmulator(ms_per_char=20_000, chunk_ms=200_000, speed=1e6) as elevenlabs:
        ear, turn = speak(elevenlabs), uuid4()
        ear.say("Hmmm. ", turn)
        await ear.done(turn)
        assert len(ear.audio(turn)) == 6 * 20 * 8000


async def test_the_socket_says_goodbye(speak):
    async with ElevenLabsEmulator(ms_per_char=5) as elevenlabs:
        ear = speak(elevenlabs)
        await ready(ear)
        ear.tts.dispose()
        await ear.tts.wait_disposed()
        assert sent(elevenlabs)[-1] == {"close_socket": True}
        await elevenlabs.until(lambda: not elevenlabs.sockets)


async def test_the_emulator_rejects_what_the_service_rejects():
    import aiohttp

    async with ElevenLabsEmulator(ms_per_char=1) as elevenlabs, aiohttp.ClientSession() as http:
        url, headers = elevenlabs.ws_url + PATH, {"xi-api-key": elevenlabs.api_key}
        query = {"output_format": "ulaw_8000", "model_id": "eleven_flash_v2_5"}
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await http.ws_connect(url, params=query, headers={"xi-api-key": "wrong"})
        assert refused.value.status == 401

        async def answer(*messages, **more):
            async with http.ws_connect(url, params={**query, **more}, headers=headers) as ws:
                for message in messages:
                    await ws.send_str(json.dumps(message))
                async with asyncio.timeout(5):
                    while "error" not in (event := json.loads((await ws.receive()).data)):
                        pass
                    assert (await ws.receive()).data == 1008
                return event["error"]

        first = {"text": " ", "context_id": "a", "voice_settings": {"speed": 1.0}}
        assert await answer(first, {**first, "voice_settings": {"speed": 1.2}}) == "invalid_message"
        flushes = [{"context_id": f"c{n}", "flush": True} for n in range(6)]  # each creates a context
        assert await answer(*flushes) == "max_active_conversations"
        assert await answer(inactivity_timeout="0.05") == "input_timeout_exceeded"
        assert await answer(model_id="eleven_v3") == "model_not_supported"
        elevenlabs.faults = Faults(refuse=429)
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await http.ws_connect(url, params=query, headers=headers)
        assert refused.value.status == 429


async def test_the_official_types_fit_both_sides(speak):
    """The SDK has no client for this socket, but types for its messages."""
    async with ElevenLabsEmulator(ms_per_char=20) as elevenlabs:
        ear, turn = speak(elevenlabs), uuid4()
        ear.say("Hello there.", turn)
        await ear.done(turn)
        opening, text, closing = sent(elevenlabs)
        assert InitializeConnectionMulti(**opening).context_id == f"{turn.hex}-0-0"
        assert SendTextMulti(**text).text == "Hello there. "
        assert CloseContext(**closing).close_context
        *audio, final = [frame.json() for frame in elevenlabs.frames if frame.sent]
        chunk = AudioOutputMulti.model_validate(audio[0])
        assert chunk.context_id == f"{turn.hex}-0-0"
        assert chunk.alignment.chars == list("Hello")
        assert chunk.alignment.char_start_times_ms == [0, 20, 40, 60, 80]
        assert chunk.alignment.char_durations_ms == [20] * 5
        assert FinalOutputMulti.model_validate(final).is_final
        assert isinstance(ear.messages[0], Message)

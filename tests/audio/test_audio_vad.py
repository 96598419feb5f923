"""Voice activity by level, on synthetic voices."""

from __future__ import annotations

import itertools
import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dialog.audio import tones
from dialog.audio.g711 import alaw_encode, mulaw_encode
from dialog.audio.level import level_dbfs
from dialog.audio.mix import amplify, mix
from dialog.audio.pcm import pcm_bytes
from dialog.audio.vad import LevelVAD
from dialog.message import ALAW_8K, MULAW_8K, PCM_8K, PCM_16K, SpeechEdge

Edge = tuple[str, float]


def voice(ms: float, *, level_dbfs: float = -22.0, seed: int = 0) -> bytes:
    """Something like speech: a buzz in syllables of 200 ms that swell and fall, with short gaps."""
    rng = random.Random(seed)
    values = []
    size = 32768 * 10 ** (level_dbfs / 20) * 1.6
    pitch = rng.uniform(90, 220)
    for at in range(int(ms * 8)):
        syllable = math.sin(math.pi * (at % 1600) / 1600) ** 0.5
        wave = sum(math.sin(2 * math.pi * pitch * k * at / 8000 + k * k) / k for k in range(1, 12))
        values.append(int(max(-1, min(1, syllable * wave / 2)) * min(32000, size)))
    return pcm_bytes(values)


def line(*parts: bytes, noise_dbfs: float = -65.0, seed: int = 1) -> bytes:
    pcm = b"".join(parts)
    return mix(pcm, tones.noise(len(pcm) / 16, level_dbfs=noise_dbfs, seed=seed))


def pause(ms: float) -> bytes:
    return bytes(int(ms * 16))


def run(vad: LevelVAD, data: bytes, *, at_ms: float = 0.0, size: int = 160) -> list[Edge]:
    edges: list[SpeechEdge] = []
    for at in range(0, len(data), size):
        edges += vad.feed(data[at : at + size], at_ms + vad.audio_format.ms(at))
    return [(edge.state, edge.at_ms) for edge in edges]


def test_speech_has_a_start_and_an_end_at_the_times_of_the_voice() -> None:
    pcm = line(pause(500), voice(1000), pause(800))
    edges = run(LevelVAD(), mulaw_encode(pcm))
    assert [state for state, _ in edges] == ["started", "stopped"]
    assert edges[0][1] == pytest.approx(500, abs=40)
    assert edges[1][1] == pytest.approx(1500, abs=40)


def test_the_start_is_known_60_ms_after_it_and_the_end_after_the_hang() -> None:
    vad = LevelVAD(hang_ms=400)
    data = mulaw_encode(line(pause(500), voice(1000), pause(800)))
    known = {}
    for at in range(0, len(data), 160):
        for edge in vad.feed(data[at : at + 160], at / 8):
            known[edge.state] = (at / 8 + 20, edge.at_ms)
    assert known["started"][0] - known["started"][1] == 60
    assert known["stopped"][0] - known["stopped"][1] == 400
    assert known["started"][0] <= 580


@pytest.mark.parametrize("snr", [30, 20, 15])
def test_speech_is_heard_over_the_noise_of_the_line(snr: int) -> None:
    parts = [pause(600)]
    for number in range(5):
        parts += [voice(900, level_dbfs=-25, seed=number), pause(900)]
    edges = run(LevelVAD(), mulaw_encode(line(*parts, noise_dbfs=-25 - snr)))
    assert [state for state, _ in edges] == ["started", "stopped"] * 5
    for number in range(5):
        assert edges[2 * number][1] == pytest.approx(600 + 1800 * number, abs=80)
        assert edges[2 * number + 1][1] == pytest.approx(1500 + 1800 * number, abs=120)


@pytest.mark.parametrize("noise_dbfs", [-80.0, -60.0, -50.0, -40.0, -30.0])
def test_steady_noise_is_not_speech(noise_dbfs: float) -> None:
    assert run(LevelVAD(), mulaw_encode(tones.noise(20_000, level_dbfs=noise_dbfs))) == []


def test_silence_and_hum_and_clicks_are_not_speech() -> None:
    assert run(LevelVAD(), MULAW_8K.silence(20_000)) == []
    assert run(LevelVAD(), mulaw_encode(tones.sine(50, 20_000, level_dbfs=-35))) == []
    click = tones.noise(5, level_dbfs=-6)
    clicks = line(*[pause(395) + click for _ in range(50)])
    assert run(LevelVAD(), mulaw_encode(clicks)) == []


def test_a_click_does_not_make_a_quiet_caller_inaudible() -> None:
    pcm = line(pause(500), tones.noise(10, level_dbfs=-3), pause(500), voice(800, level_dbfs=-34), pause(600))
    edges = run(LevelVAD(), mulaw_encode(pcm))
    assert [state for state, _ in edges] == ["started", "stopped"]
    assert edges[0][1] == pytest.approx(1010, abs=60)


def test_a_pause_shorter_than_the_hang_does_not_end_speech() -> None:
    pcm = line(pause(300), voice(600), pause(300), voice(600), pause(700))
    assert len(run(LevelVAD(hang_ms=400), mulaw_encode(pcm))) == 2
    assert len(run(LevelVAD(hang_ms=200), mulaw_encode(pcm))) == 4


def test_noise_that_begins_in_mid_call_is_one_false_start_that_ends_by_itself() -> None:
    pcm = line(pause(3000), noise_dbfs=-70) + tones.noise(15_000, level_dbfs=-42, seed=9)
    edges = run(LevelVAD(), mulaw_encode(pcm))
    assert [state for state, _ in edges] == ["started", "stopped"]
    assert edges[1][1] < 3000 + 6000


def test_talk_in_the_background_does_not_keep_a_turn_open() -> None:
    background = voice(4000, level_dbfs=-46, seed=5)
    pcm = line(mix(background, pause(500) + voice(1000, level_dbfs=-20)))
    edges = run(LevelVAD(), mulaw_encode(pcm))
    assert edges[-1][0] == "stopped"
    ends = [at for state, at in edges if state == "stopped"]
    assert any(at == pytest.approx(1500, abs=60) for at in ends)


def test_a_voice_that_goes_on_is_not_taken_for_noise() -> None:
    pcm = line(pause(1000), *[part for n in range(40) for part in (voice(500, seed=n), pause(120))], pause(800))
    edges = run(LevelVAD(), mulaw_encode(pcm))
    assert [state for state, _ in edges] == ["started", "stopped"]
    assert edges[1][1] == pytest.approx(1000 + 40 * 620 - 120, abs=60)


def test_knocks_do_not_keep_a_turn_open() -> None:
    knock = tones.noise(8, level_dbfs=-10)
    knocks = [pause(192) + knock for _ in range(10)]
    edges = run(LevelVAD(), mulaw_encode(line(pause(500), voice(800), *knocks)))
    assert [state for state, _ in edges] == ["started", "stopped"]
    assert edges[1][1] == pytest.approx(1300, abs=60)


def test_a_room_full_of_voices_is_not_speech() -> None:
    room = bytes(2 * 8 * 20_000)
    for seed in range(6):
        room = mix(room, voice(20_000, level_dbfs=-42, seed=seed)[seed * 1000 :])
    pcm = mix(room, pause(8000) + voice(1000, level_dbfs=-20, seed=9))
    edges = run(LevelVAD(), mulaw_encode(pcm))
    assert [state for state, at in edges if at > 2000] == ["started", "stopped"]
    assert edges[-2][1] == pytest.approx(8000, abs=60)


@pytest.mark.parametrize("level_dbfs", [-30.0, -20.0, -8.0])
@pytest.mark.parametrize("encode", [mulaw_encode, alaw_encode, bytes])
def test_keys_start_nothing_and_leave_no_mark(level_dbfs: float, encode) -> None:
    audio_format = {mulaw_encode: MULAW_8K, alaw_encode: ALAW_8K, bytes: PCM_8K}[encode]
    keys = tones.dtmf("0123456789*#ABCD", tone_ms=85, pause_ms=70, level_dbfs=level_dbfs)
    pcm = line(pause(510), keys, pause(300), voice(700), pause(600))
    edges = run(LevelVAD(audio_format), encode(pcm), size=audio_format.size(20))
    assert [state for state, _ in edges] == ["started", "stopped"]
    assert edges[0][1] == pytest.approx(810 + len(keys) / 16, abs=40)


def test_a_tone_that_is_no_key_is_heard() -> None:
    pcm = line(
        pause(500), tones.sine(770, 500), pause(500), mix(tones.sine(700, 500), tones.sine(1000, 500)), pause(500)
    )
    assert len(run(LevelVAD(), mulaw_encode(pcm))) == 4


def test_an_echo_that_comes_late_is_guarded_against() -> None:
    played = pause(500) + voice(3000, level_dbfs=-18, seed=3) + pause(900)
    echo = pause(240) + amplify(played[:-3840], -16)
    assert with_playing(LevelVAD(), line(echo, noise_dbfs=-70), played) == []


def with_playing(vad: LevelVAD, pcm: bytes, played: bytes) -> list[Edge]:
    edges: list[Edge] = []
    data = mulaw_encode(pcm)
    for at in range(0, len(data), 160):
        frame = played[2 * at : 2 * at + 320]
        if any(frame):
            vad.playing(level_dbfs(frame, "s16le"))
        edges += [(edge.state, edge.at_ms) for edge in vad.feed(data[at : at + 160], at / 8)]
    return edges


def test_the_echo_of_what_is_played_is_not_the_caller() -> None:
    played = pause(500) + voice(3000, level_dbfs=-18, seed=3) + pause(600)
    echo = pause(60) + amplify(played[:-960], -20)
    pcm = line(echo, noise_dbfs=-70)
    assert run(LevelVAD(), mulaw_encode(pcm)) != []
    assert with_playing(LevelVAD(), pcm, played) == []


def test_a_caller_who_talks_over_what_is_played_is_heard() -> None:
    played = pause(500) + voice(3000, level_dbfs=-18, seed=3) + pause(600)
    echo = amplify(played, -20)
    caller = pause(1500) + voice(1000, level_dbfs=-18, seed=8)
    edges = with_playing(LevelVAD(), line(mix(echo, caller), noise_dbfs=-70), played)
    assert edges[0][0] == "started"
    assert edges[0][1] == pytest.approx(1500, abs=120)


def test_the_guard_fades_when_playing_ends() -> None:
    vad = LevelVAD()
    vad.playing(-10)
    data = mulaw_encode(line(pause(1000), voice(600, level_dbfs=-30), pause(600)))
    assert [state for state, _ in run(vad, data)] == ["started", "stopped"]


@given(cuts=st.lists(st.integers(0, 14_400), max_size=30))
@settings(max_examples=30)
def test_edges_do_not_depend_on_how_the_audio_was_cut(cuts: list[int]) -> None:
    whole = run(LevelVAD(), SPEECH)
    assert len(whole) == 2
    vad = LevelVAD()
    edges = []
    bounds = [0, *sorted(cuts), len(SPEECH)]
    for start, stop in itertools.pairwise(bounds):
        edges += [(edge.state, edge.at_ms) for edge in vad.feed(SPEECH[start:stop], start / 8)]
    assert edges == whole


SPEECH = mulaw_encode(line(pause(400), voice(700), pause(700)))


@pytest.mark.parametrize("audio_format", [ALAW_8K, PCM_8K])
def test_other_encodings_give_the_same_edges(audio_format) -> None:
    pcm = line(pause(400), voice(700), pause(700))
    data = alaw_encode(pcm) if audio_format == ALAW_8K else pcm
    assert run(LevelVAD(audio_format), data, size=audio_format.size(20)) == run(LevelVAD(), SPEECH)


def test_other_rates_work() -> None:
    pcm = pause(800) + tones.sine(300, 500, sample_rate=16000) + bytes(2 * 16_000)
    edges = run(LevelVAD(PCM_16K), pcm, size=640)
    assert edges == [("started", 400), ("stopped", 900)]


def test_times_are_on_the_clock_of_the_call() -> None:
    assert run(LevelVAD(), SPEECH, at_ms=61_000) == [(state, at + 61_000) for state, at in run(LevelVAD(), SPEECH)]


def test_a_jump_of_the_clock_ends_speech() -> None:
    vad = LevelVAD()
    started = run(vad, mulaw_encode(line(pause(200), voice(600))))
    assert [state for state, _ in started] == ["started"]
    edges = vad.feed(MULAW_8K.silence(20), 30_000)
    assert [edge.state for edge in edges] == ["stopped"]
    assert edges[0].at_ms == pytest.approx(800, abs=40)
    assert not vad.speaking


def test_a_frame_that_a_jump_cut_in_two_is_dropped() -> None:
    loud = mulaw_encode(tones.sine(500, 100, level_dbfs=-12))
    vad = LevelVAD()
    vad.feed(MULAW_8K.silence(200), 0)
    assert vad.feed(loud[:159], 200) == ()
    assert vad.feed(MULAW_8K.silence(20), 5000) == ()
    assert [edge.at_ms for edge in vad.feed(loud, 5020)] == [5020]


def test_a_short_loss_does_not_end_speech() -> None:
    vad = LevelVAD()
    edges = run(vad, mulaw_encode(line(pause(200), voice(600))))
    edges += run(vad, mulaw_encode(line(voice(400))), at_ms=1000)
    assert [state for state, _ in edges] == ["started"]


def test_reset_is_as_new() -> None:
    vad = LevelVAD()
    first = run(vad, SPEECH[:8000])
    vad.reset()
    assert vad.feed(b"", 0) == ()
    assert not vad.speaking
    assert run(vad, SPEECH[:8000]) == first


@pytest.mark.parametrize(
    "wrong",
    [
        {"start_frames": 6},
        {"start_frames": 0},
        {"hang_ms": 60},
        {"off_db": 10},
        {"off_db": 0},
        {"evidence_db": 25},
    ],
)
def test_contradicting_settings_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"need|must"):
        LevelVAD(**wrong)

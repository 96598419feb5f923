"""LocalVAD as a participant, and the level of what is played that guards it against the echo."""

from __future__ import annotations

from uuid import UUID, uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dialog.audio import tones
from dialog.audio.g711 import mulaw_encode
from dialog.audio.level import SILENCE_DBFS
from dialog.audio.mix import amplify, mix
from dialog.errors import ConfigurationError, StateError, UnsupportedFormat
from dialog.message import ALAW_8K, MULAW_8K, PCM_24K, Message, Playback, SpeechEdge
from dialog.vad.local import LocalVAD
from dialog.vad.played import PlayedAudio
from dialog.vad.vad import VAD

CALL = uuid4()


def talk(ms: float, level_dbfs: float = -20.0, *, seed: int = 0) -> bytes:
    """Bursts of noise like syllables, s16le."""
    out = b"".join(
        tones.noise(160, level_dbfs=level_dbfs, seed=seed + n) + bytes(2 * 320) for n in range(int(ms / 200))
    )
    return out + bytes(int(ms * 16) - len(out))


def pause(ms: float) -> bytes:
    return bytes(int(ms * 16))


def opened(**settings: float) -> tuple[LocalVAD, list[SpeechEdge]]:
    vad = LocalVAD(**settings)
    edges: list[SpeechEdge] = []
    vad.on(VAD.SPEECH, edges.append)
    vad.open(MULAW_8K)
    return vad, edges


def listen(vad: LocalVAD, pcm: bytes) -> None:
    data = mulaw_encode(pcm)
    for at in range(0, len(data), 160):
        vad.post(Message(uuid=CALL, data=data[at : at + 160], at_ms=at / 8))


def test_speech_is_told_as_edges_on_the_clock_of_the_call() -> None:
    vad, edges = opened()
    listen(vad, pause(600) + talk(1000) + pause(600))
    assert [(edge.state, edge.at_ms) for edge in edges] == [("started", 600), ("stopped", 1560)]


def test_the_hang_is_how_long_a_pause_in_speech_may_be() -> None:
    pcm = pause(600) + talk(600) + pause(200) + talk(600) + pause(600)
    for hang_ms, expected in ((140, 4), (400, 2)):
        vad, edges = opened(hang_ms=hang_ms)
        listen(vad, pcm)
        assert len(edges) == expected


def test_what_is_not_possible_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="hang_ms must be from 100 to 5000"):
        LocalVAD(hang_ms=50)
    vad = LocalVAD()
    with pytest.raises(StateError, match="before open"):
        vad.post(Message(uuid=CALL, data=b"\xff" * 160))
    with pytest.raises(UnsupportedFormat, match="24000"):
        vad.open(PCM_24K)
    vad.playing(-20)
    vad.open(ALAW_8K)
    with pytest.raises(StateError, match="twice"):
        vad.open(ALAW_8K)
    vad.dispose()
    vad.dispose()
    with pytest.raises(StateError, match="dispose"):
        vad.open(ALAW_8K)


def test_nothing_is_told_after_dispose() -> None:
    vad, edges = opened()
    vad.dispose()
    listen(vad, pause(600) + talk(1000) + pause(600))
    assert edges == []


# -- what is played ---------------------------------------------------------------------------------

LOUD = mulaw_encode(tones.noise(100, level_dbfs=-20))
SOFT = mulaw_encode(tones.noise(100, level_dbfs=-40))


def report(uuid: UUID, state: str, heard_ms: float, part: int = 0) -> Playback:
    return Playback(uuid=uuid, part=part, state=state, heard_ms=heard_ms, queued_ms=0.0)  # type: ignore[arg-type]


def test_what_sounds_is_as_loud_as_it_was_posted() -> None:
    played, turn = PlayedAudio(MULAW_8K), uuid4()
    played.post(Message(uuid=turn, data=LOUD + SOFT + MULAW_8K.silence(100)))
    assert played.level(1.0) == SILENCE_DBFS  # it does not sound yet
    played.report(report(turn, "playing", 0), 1.0)
    assert played.level(1.02) == pytest.approx(-20, abs=1)
    assert played.level(1.10) == pytest.approx(-20, abs=1)
    assert played.level(1.16) == pytest.approx(-40, abs=1)
    assert played.level(1.18) == pytest.approx(-40, abs=1)
    assert played.level(1.24) < -60
    assert played.level(9.0) < -60
    assert played.level(9.1) == SILENCE_DBFS


def test_a_report_puts_the_position_right() -> None:
    played, turn = PlayedAudio(MULAW_8K), uuid4()
    played.post(Message(uuid=turn, data=SOFT * 5 + LOUD, done=True))
    played.report(report(turn, "playing", 0), 1.0)
    played.level(1.02)
    played.report(report(turn, "playing", 500), 1.1)
    assert played.level(1.12) == pytest.approx(-20, abs=1)


@pytest.mark.parametrize("state", ["paused", "played", "cut", "lost"])
def test_what_no_longer_sounds_is_silent(state: str) -> None:
    played, turn = PlayedAudio(MULAW_8K), uuid4()
    played.post(Message(uuid=turn, data=LOUD * 5))
    played.report(report(turn, "playing", 0), 1.0)
    assert played.level(1.02) > -25
    played.report(report(turn, state, 40), 1.04)
    assert played.level(1.06) == SILENCE_DBFS
    played.report(report(turn, "playing", 40), 1.2)  # only what was paused goes on
    assert (played.level(1.22) > -25) == (state == "paused")


def test_the_next_part_is_followed_before_its_first_report() -> None:
    played, turn = PlayedAudio(MULAW_8K), uuid4()
    played.post(Message(uuid=turn, data=SOFT, done=True))
    played.post(Message(uuid=turn, part=1, data=b""))
    played.post(Message(uuid=turn, part=2, data=LOUD))
    played.post(Message(uuid=turn, part=1, data=b"", done=True))
    played.report(report(turn, "playing", 0), 1.0)
    assert played.level(1.02) == pytest.approx(-40, abs=1)
    assert played.level(1.12) == pytest.approx(-20, abs=1)
    played.report(report(turn, "played", 100), 1.14)  # of part 0: part 2 goes on
    assert played.level(1.16) == pytest.approx(-20, abs=1)


def test_a_part_that_waits_for_its_audio_holds_the_next_one_back() -> None:
    played, turn = PlayedAudio(MULAW_8K), uuid4()
    played.post(Message(uuid=turn, data=SOFT))
    played.post(Message(uuid=turn, part=1, data=LOUD))
    played.report(report(turn, "playing", 0), 1.0)
    assert played.level(1.3) == pytest.approx(-40, abs=1)
    assert played.level(1.4) == SILENCE_DBFS


def test_reports_of_unknown_parts_are_ignored() -> None:
    played, turn = PlayedAudio(MULAW_8K), uuid4()
    played.report(report(turn, "playing", 0), 1.0)
    played.report(report(turn, "played", 0), 1.0)
    assert played.level(1.0) == SILENCE_DBFS


def test_parts_that_are_never_reported_are_forgotten() -> None:
    played = PlayedAudio(MULAW_8K)
    for _ in range(500):
        played.post(Message(uuid=uuid4(), data=LOUD))
    assert len(played._parts) <= 64


@given(st.lists(st.integers(1, 400), min_size=1, max_size=20))
@settings(max_examples=50)
def test_levels_do_not_depend_on_how_the_audio_was_cut(cuts: list[int]) -> None:
    data, turn = LOUD + SOFT + LOUD, uuid4()
    whole, pieces = PlayedAudio(MULAW_8K), PlayedAudio(MULAW_8K)
    whole.post(Message(uuid=turn, data=data))
    at = 0
    for cut in [*cuts, len(data)]:
        pieces.post(Message(uuid=turn, data=data[at : at + cut]))
        at += cut
    for played in (whole, pieces):
        played.report(report(turn, "playing", 0), 0.0)
    assert [whole.level(n / 50) for n in range(1, 20)] == [pieces.level(n / 50) for n in range(1, 20)]


def call_with_echo(*, guarded: bool, caller: bytes = b"", echo_db: float = -20.0) -> list[SpeechEdge]:
    """The agent speaks from 1 to 4 s and comes back 120 ms later; reports come every 250 ms."""
    vad, edges = opened()
    played, turn = PlayedAudio(MULAW_8K), uuid4()
    reply = talk(3000, -18, seed=50)
    played.post(Message(uuid=turn, data=mulaw_encode(reply), done=True))
    line = mix(pause(1120) + amplify(reply, echo_db) + pause(1000), caller)
    data = mulaw_encode(mix(line, tones.noise(len(line) / 16, level_dbfs=-65)))
    for at in range(0, len(data), 160):
        now = at / 8000 + 0.02
        if 1.0 <= now < 4.0 and round(now * 1000) % 260 < 20:
            played.report(report(turn, "playing", (now - 1.0) * 1000), now)
        if now >= 4.0:
            played.report(report(turn, "played", 3000), now)
        if guarded:
            vad.playing(played.level(now))
        vad.post(Message(uuid=CALL, data=data[at : at + 160], at_ms=at / 8))
    return edges


def test_the_echo_of_the_agent_is_not_the_caller() -> None:
    assert call_with_echo(guarded=False) != []
    assert call_with_echo(guarded=True) == []


def test_a_caller_who_talks_over_the_agent_is_heard() -> None:
    edges = call_with_echo(guarded=True, caller=pause(2400) + talk(1000, -18))
    assert edges[0].state == "started"
    assert edges[0].at_ms == pytest.approx(2400, abs=120)

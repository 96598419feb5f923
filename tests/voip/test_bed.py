"""What sounds beside the voice, against the simulated carrier of the playout's tests."""

import itertools
import struct
from uuid import uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_memory_line import call_with_ear, finish, tone, virtual
from test_playout import PCM_8K, A, B, Sim, actions, check_reports, drive, whole

from dialog.audio import tones
from dialog.audio.g711 import mulaw_encode
from dialog.audio.level import level_dbfs
from dialog.audio.sound import Sound, hold, thinking
from dialog.message import MULAW_8K, PCM_16K, Message
from dialog.voip.bed import BedLane
from dialog.voip.lineops import SendMark
from dialog.voip.memory import MemoryCarrier, MemoryLine

VOICE = 5000
"""Samples of voice are below this, and what a bed adds to them is a multiple of it."""
ROUND = (2, 1, 1, 2, 1, 2, 2)
OFFICE = Sound(struct.pack("<7h", *(VOICE * level for level in ROUND)))
KEYS = Sound(struct.pack("<1h", 3 * VOICE))


class BedSim(Sim):
    """Samples that sounded are told apart: voice, background, thinking."""

    def __init__(self, **options):
        super().__init__(bed=BedLane(PCM_8K, duck_db=0.0), **options)
        next(self.ids)  # 0 is silence

    def post(self, uuid, ms, part=0, done=True):
        assert next(self.ids) + ms * 8 < VOICE
        super().post(uuid, ms, part, done)

    def heard(self, uuid, part=0):
        offsets = {sample: i for i, sample in enumerate(self.samples[uuid, part])}
        return [offsets[sample % VOICE] for _, sample in self.carrier.heard if sample % VOICE in offsets]

    def under(self):
        """What sounded beside the voice, sample by sample."""
        return [sample // VOICE for _, sample in self.carrier.heard]


def rounds(count):
    return [ROUND[i % 7] for i in range(count)]


def test_a_background_never_lets_the_line_run_dry_and_goes_round_without_a_seam():
    sim = BedSim()
    sim.run(0.2)
    assert sim.carrier.heard == []
    sim.set_bed("background", OFFICE)
    sim.run(3)
    assert sim.gaps() == []
    assert len(sim.under()) == 3 * 8000
    assert sim.under() == rounds(3 * 8000)


def test_without_a_bed_nothing_is_sent_and_when_it_ends_the_line_falls_silent():
    sim = BedSim()
    sim.set_bed("background", OFFICE)
    sim.run(0.5)
    sim.set_bed("background", None)
    sim.run(2)
    assert 500 <= len(sim.under()) / 8 <= 750
    assert sim.playout.deadline is None


def test_a_voice_over_a_background_begins_at_once_and_is_heard_whole():
    sim = BedSim(delay=0.03)
    sim.set_bed("background", OFFICE)
    sim.run(1)
    sim.post(A, 400)
    posted = sim.now
    sim.run(1)
    first = next(at for at, sample in sim.carrier.heard if sample % VOICE)
    assert first == pytest.approx(posted + sim.delay, abs=0.001)
    assert sim.clears() == 1
    assert sim.heard(A) == whole(400)
    assert sim.finals() == [(A, 0, "played", 400)]
    assert sim.gaps() == []
    assert sim.under() == rounds(len(sim.under()))  # what was cleared came again


def test_a_pause_silences_the_voice_and_not_the_background():
    sim = BedSim(delay=0.02)
    sim.set_bed("background", OFFICE)
    sim.post(A, 600)
    sim.run(0.3)
    sim.pause()
    sim.run(0.5)
    before = len(sim.heard(A))
    sim.run(0.3)
    assert len(sim.heard(A)) == before
    sim.resume()
    resumed = sim.now
    sim.run(1)
    again = next(at for at, sample in sim.carrier.heard if at >= resumed - 1e-6 and sample % VOICE)
    assert again == pytest.approx(resumed + sim.delay, abs=0.001)
    assert sim.heard(A) == whole(600)
    assert sim.gaps() == []
    assert sim.under() == rounds(len(sim.under()))
    assert [p.heard_ms for _, p in sim.reports if p.state == "paused"] == [300]


def test_a_voice_that_stalls_goes_on_after_the_background_and_positions_count_voice_only():
    sim = BedSim()
    sim.set_bed("background", OFFICE)
    sim.post(A, 200, done=False)
    sim.run(0.7)
    sim.post(A, 200, done=False)
    sim.run(0.1)
    sim.pause()
    assert [p.heard_ms for _, p in sim.reports if p.state == "paused"] == [300]
    sim.run(0.4)
    sim.resume(from_ms=150)
    sim.post(A, 0)
    sim.run(1)
    assert sim.heard(A) == [*range(300 * 8), *range(150 * 8, 400 * 8)]
    assert sim.finals() == [(A, 0, "played", 400)]


def test_a_voice_that_is_only_a_little_late_waits_behind_the_background_without_a_clear():
    sim = BedSim(delay=0.05)
    sim.post(A, 200, done=False)
    sim.set_bed("background", OFFICE)
    sim.run(0.19)
    sim.post(A, 200)
    sim.run(1)
    assert sim.clears() == 0
    assert sim.heard(A) == whole(400)
    times = [at for at, sample in sim.carrier.heard if sample % VOICE]
    assert max(b - a for a, b in itertools.pairwise(times)) <= 0.15


def test_thinking_sounds_alone_until_a_voice_is_posted():
    sim = BedSim(delay=0.03)
    sim.post(A, 300)
    sim.set_bed("thinking", KEYS)
    sim.run(1)
    assert sim.under()[: 300 * 8] == [0] * 300 * 8  # what was posted before is played first
    assert sim.under()[-1] == 3
    sim.post(B, 300)
    posted = sim.now
    sim.run(2)
    assert not any(sample // VOICE for at, sample in sim.carrier.heard if at >= posted + sim.delay)
    assert sim.heard(B) == whole(300)
    assert sim.playout.deadline is None


def test_thinking_and_background_are_heard_together():
    sim = BedSim()
    sim.set_bed("background", OFFICE)
    sim.set_bed("thinking", KEYS)
    sim.run(0.5)  # the lead of the background alone comes first
    both = sim.under()[300 * 8 :]
    assert both == [level + 3 for level in rounds(500 * 8)[300 * 8 :]]
    sim.set_bed("thinking", None)
    sim.run(0.5)
    assert sim.under()[-100:] == rounds(1000 * 8)[-100:]


def test_a_clear_for_the_voice_does_not_cut_a_voice_that_may_still_sound():
    sim = BedSim(delay=0.2)  # its mark is not back when the next voice comes
    sim.set_bed("background", OFFICE)
    sim.run(1)
    sim.post(A, 200)
    sim.run(0.25)
    sim.post(B, 200)
    sim.run(2)
    assert sim.clears() == 1
    assert sim.heard(A) == whole(200)
    assert sim.heard(B) == whole(200)


def test_a_voice_that_a_stalled_carrier_has_not_played_yet_is_not_cleared_for_the_next():
    sim = BedSim()
    sim.set_bed("background", OFFICE)
    sim.run(0.5)
    sim.carrier.stalled = [(sim.now + 0.1, sim.now + 0.6)]
    sim.post(A, 200)
    sim.run(0.4)  # by the clock it has sounded, but its mark is not back
    sim.post(B, 200)
    sim.run(2)
    assert sim.clears() == 1  # for the first
    assert sim.heard(A) == whole(200)
    assert sim.heard(B) == whole(200)


def test_an_echo_of_what_a_clear_flushed_is_not_believed_while_a_background_goes_on():
    sim = BedSim(rtt=0.4)
    sim.post(A, 600)
    sim.set_bed("background", OFFICE)
    sim.run(0.02)
    names = [op.name for _, op in sim.log if isinstance(op, SendMark)]
    sim.pause()  # the background is sent behind the clear: the line is as far as it was
    sim.do(sim.playout.mark(names[0], sim.now + 0.01))
    sim.run(0.3)
    sim.resume()
    sim.run(2)
    assert sim.heard(A) == whole(600)


def test_a_pause_while_only_the_background_sounds_clears_nothing():
    sim = BedSim()
    sim.post(A, 200)
    sim.set_bed("background", OFFICE)
    sim.run(1)
    sim.pause()
    sim.run(0.3)
    sim.resume()
    sim.run(0.3)
    assert sim.clears() == 0
    assert sim.gaps() == []


bed_actions = st.one_of(
    *[actions] * 3,
    st.tuples(st.just("background"), st.sampled_from([OFFICE, None]), st.none(), st.none()),
    st.tuples(st.just("thinking"), st.sampled_from([KEYS, None]), st.none(), st.none()),
)


class SmallSim(BedSim):
    """As many voice samples as there are names for: what exceeds it is posted as nothing."""

    def post(self, uuid, ms, part=0, done=True):
        left = VOICE // 8 - 10 - sum(map(len, self.samples.values())) // 8 - len(self.samples)
        super().post(uuid, max(0, min(ms, left)), part, done)


@settings(max_examples=150)
@given(
    steps=st.lists(bed_actions, min_size=3, max_size=25),
    delay=st.sampled_from([0.0, 0.02, 0.1]),
    lags=st.lists(st.sampled_from([0.0, 0.0, 0.003, 0.09]), max_size=5),
)
def test_whatever_sounds_beside_it_each_part_is_heard_once_and_its_end_is_told_truly(steps, delay, lags):
    sim = SmallSim(delay=delay, lags=lags)
    sim.set_bed("background", OFFICE)
    drive(sim, steps)
    sim.set_bed("background", None)
    sim.set_bed("thinking", None)
    sim.run(3)
    check_reports(sim)
    expected = []
    for key in sim.samples:
        heard = sim.heard(*key)
        assert heard == list(range(len(heard)))  # from its start, nothing skipped, nothing twice
        expected.extend(sim.samples[key][: len(heard)])
        state, told = next((s, h) for u, p, s, h in sim.finals() if (u, p) == key)
        assert told == len(heard) / 8
        if state == "played":
            assert len(heard) == len(sim.samples[key])
    assert [sample % VOICE for _, sample in sim.carrier.heard if sample % VOICE] == expected


def test_a_background_is_quieter_under_a_voice_and_rises_again_after_it():
    lane = BedLane(MULAW_8K)
    lane.set("background", Sound(tones.sine(400, 1000, level_dbfs=-10)), -20.0)
    alone = lane.alone(1600)
    assert level_dbfs(alone) == pytest.approx(-30, abs=0.5)
    under = lane.under(MULAW_8K.silence(200))
    assert level_dbfs(under[-800:]) == pytest.approx(-36, abs=0.5)
    voice = mulaw_encode(tones.sine(1000, 100, level_dbfs=-12))
    assert level_dbfs(lane.under(voice)) == pytest.approx(-12, abs=0.3)
    after = lane.alone(8000)
    steps = [level_dbfs(after[at : at + 160]) for at in range(0, 8000, 160)]
    assert all(b - a < 1 for a, b in itertools.pairwise(steps))  # no jump that could be heard
    assert steps[-1] == pytest.approx(-30, abs=0.5)


def test_the_sounds_that_come_with_it_go_round_quietly():
    for sound, level in ((thinking(), -40), (hold(), -28)):
        assert level_dbfs(sound.data, "s16le") == pytest.approx(level, abs=1)
        seam = struct.unpack("<2h", sound.data[-2:] + sound.data[:2])
        assert abs(seam[0] - seam[1]) < 200
    assert thinking() is thinking()


def test_a_sound_has_audio_and_an_end():
    with pytest.raises(ValueError, match="at least one"):
        Sound(b"")
    with pytest.raises(ValueError, match="whole samples"):
        Sound(b"\0\0\0")
    with pytest.raises(ValueError, match="at most 180 s"):
        Sound(bytes(PCM_8K.size(181_000)))
    assert repr(Sound(bytes(320))) == "<Sound 20 ms s16le 8000 Hz>"


def test_a_sound_is_fitted_to_a_line_once_for_all_calls():
    sound = Sound(tones.sine(500, 400, sample_rate=16000), PCM_16K)
    fitted = sound.fitted(MULAW_8K)
    assert fitted.audio_format == MULAW_8K
    assert fitted.duration_ms == pytest.approx(400, abs=1)
    assert sound.fitted(MULAW_8K) is fitted
    assert fitted.fitted(MULAW_8K) is fitted


def test_a_background_goes_on_over_streams_and_taps_hear_it():
    async def main(clock):
        heard = []

        class Tap:
            def caller(self, at_ms, data):
                pass

            def agent(self, at_ms, data):
                heard.append(data)

            def agent_cleared(self, at_ms):
                pass

        carrier = MemoryCarrier()
        call, line, _ = call_with_ear(clock, carrier=carrier, join=False)
        call.add_tap(Tap())
        call.voip.set_background(Sound(tones.sine(400, 1000, level_dbfs=-10)))
        await clock.sleep(1)
        assert line.sent == []
        line.join(call)
        await clock.sleep(1)
        assert level_dbfs(line.heard_audio) == pytest.approx(-30, abs=0.5)
        assert len(line.heard_audio) == pytest.approx(8000, abs=2)
        assert b"".join(heard) == b"".join(piece.data for piece in line.sent)
        await call.voip.send_digits("1")
        again = carrier.lines[-1]
        await clock.sleep(0.5)
        assert level_dbfs(again.heard_audio) == pytest.approx(-30, abs=0.5)
        await finish(call)

    virtual(main)


def test_a_stall_of_the_loop_does_not_interrupt_a_background():
    async def main(clock):
        call, line, _ = call_with_ear(clock)
        call.voip.set_background(Sound(tones.sine(400, 1000)))
        await clock.sleep(2)
        ends = list(itertools.accumulate(MULAW_8K.ms(len(piece.data)) / 1000 for piece in line.sent))
        began = line.sent[0].at_s
        ahead = [began + end - piece.at_s for piece, end in zip(line.sent[3:], ends[2:], strict=False)]
        assert min(ahead) > 0.1  # what was ahead when more was sent: a stall of 100 ms is not heard
        await finish(call)

    virtual(main)


def test_a_call_that_was_disposed_of_takes_no_sound():
    async def main(clock):
        call, line, _ = call_with_ear(clock)
        voip = call.voip
        await finish(call)
        voip.set_background(hold())
        voip.set_thinking(thinking())
        await clock.sleep(0.5)
        assert line.sent == []

    virtual(main)


def test_a_recorded_office_sounds_under_a_part_that_is_reported_as_without_it():
    async def main(clock):
        call, line, ear = call_with_ear(clock, line=MemoryLine(clock=clock, rtt_s=0.05))
        call.voip.set_background(hold())
        await clock.sleep(1)
        turn = uuid4()
        call.voip.post(Message(uuid=turn, data=tone(700), done=True))
        await clock.sleep(1.5)
        assert ear.finals() == [(0, "played", 700.0)]
        assert ear.names()[-1] == "dispatched"
        assert len(line.heard) == 1  # one stretch without a gap
        await finish(call)

    virtual(main)

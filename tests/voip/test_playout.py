"""Playout against a simulated carrier: what it hears is written down sample by sample."""

import heapq
import itertools
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dialog.message import MULAW_8K, PCM_8K, Message
from dialog.voip.lineops import Flushed, Overflow, Report, SendAudio, SendClear, SendMark
from dialog.voip.playout import Playout

A, B, C = (UUID(int=n) for n in (1, 2, 3))
RATE = 8000


class Carrier:
    """One queue that plays in real time, echoes marks, and drops everything at a clear."""

    def __init__(self, buffer_s=0.0):
        self.buffer_s = buffer_s
        self.queue = []  # [kind, payload, arrival]
        self.cursor = 0.0
        self.dry = True
        self.heard = []  # (time, sample id), every sample that sounded
        self.echoes = []  # (time, name)
        self.stalled = []  # intervals in which nothing plays

    def play(self, until):
        while self.queue:
            kind, payload, arrival = self.queue[0]
            if kind == "mark":
                at = max(arrival, self.cursor)
                if at > until + 1e-9:
                    return
                self.echoes.append((at, payload))
                self.queue.pop(0)
                continue
            if self.dry or self.cursor < arrival - 1e-9:
                self.cursor = max(self.cursor, arrival + self.buffer_s)
                self.dry = False
            for start, end in self.stalled:
                if start <= self.cursor < end:
                    self.cursor = end
            count = int((until - self.cursor) * RATE + 1e-3)
            if count <= 0:
                return
            played, rest = payload[:count], payload[count:]
            self.heard.extend((self.cursor + i / RATE, sample) for i, sample in enumerate(played))
            self.cursor += len(played) / RATE
            if rest:
                self.queue[0] = [kind, rest, arrival]
                return
            self.queue.pop(0)
            self.dry = not any(kind == "audio" for kind, _, _ in self.queue)

    def audio(self, samples, at):
        self.play(at)
        self.queue.append(["audio", samples, at])

    def mark(self, name, at):
        self.play(at)
        self.queue.append(["mark", name, at])
        self.play(at)

    def clear(self, at):
        self.play(at)
        self.echoes.extend((at, payload) for kind, payload, _ in self.queue if kind == "mark")
        self.queue.clear()
        self.dry = True


class Sim:
    """A playout, a carrier some way away, and a pacer that may be late."""

    def __init__(
        self, *, delay=0.0, buffer_s=0.0, rtt=None, lost_marks=(), lead_ms=300, lags=(), jitters=(), **options
    ):
        self.playout = Playout(PCM_8K, lead_ms=lead_ms, **options)
        self.playout.rtt_s = 2 * delay if rtt is None else rtt
        self.carrier = Carrier(buffer_s)
        self.delay = delay
        self.lost_marks = set(lost_marks)
        self.lags = itertools.cycle(lags or (0.0,))
        self.jitters = itertools.cycle(jitters or (0.0,))
        self.arrived = self.returned = 0.0
        self.now = 10.0
        self.events = []
        self.count = itertools.count()
        self.reports = []
        self.log = []
        self.overflows = []
        self.echoed = 0
        self.sizes = {}  # key -> samples posted
        self.ids = itertools.count()
        self.samples = {}  # key -> list of ids
        self.purge = 0
        self.do(self.playout.start(self.now))
        self.at(self.now + 0.05, "tick", self.now + 0.05)

    def at(self, when, what, arg):
        heapq.heappush(self.events, (when, next(self.count), what, arg))

    def do(self, ops):
        ops = list(ops)
        while ops:
            op = ops.pop(0)
            self.log.append((self.now, op))
            if isinstance(op, SendAudio):
                samples = [int.from_bytes(op.data[i : i + 2], "little") for i in range(0, len(op.data), 2)]
                self.at(self.arrival(), "audio", samples)
            elif isinstance(op, SendMark):
                self.at(self.arrival(), "mark", op.name)
            elif isinstance(op, SendClear):
                self.at(self.arrival(), "clear", None)
                ops[:0] = self.playout.cleared(self.purge, self.now)
            elif isinstance(op, Report):
                self.reports.append((self.now, op.playback))
            elif isinstance(op, Overflow):
                self.overflows.append(op)
            else:
                assert isinstance(op, Flushed)

    def arrival(self):
        """When what is sent now comes to the carrier: sooner or later, but in order."""
        self.arrived = max(self.arrived, self.now + self.delay + next(self.jitters))
        return self.arrived

    def run(self, seconds):
        end = self.now + seconds
        while True:
            self.carrier_echoes()
            nxt = end if not self.events or self.events[0][0] > end + 1e-9 else self.events[0][0]
            # Marks are echoed between events, so the carrier is asked step by step.
            step = min(nxt, self.now + 0.01)
            self.carrier.play(step)
            if self.carrier_echoes():
                continue
            self.now = max(self.now, step)
            if step < nxt - 1e-9:
                continue
            if nxt >= end and (not self.events or self.events[0][0] > end + 1e-9):
                self.now = max(self.now, end)
                return
            when, _, what, arg = heapq.heappop(self.events)
            self.now = max(self.now, when)
            if what == "audio":
                self.carrier.audio(arg, when)
            elif what == "mark":
                self.carrier.mark(arg, when)
            elif what == "clear":
                self.carrier.clear(when)
            elif what == "echo":
                self.do(self.playout.mark(arg, self.now))
            else:
                self.do(self.playout.tick(self.now))
                due = arg + 0.05
                self.at(max(due, self.now) + next(self.lags), "tick", due)

    def carrier_echoes(self):
        new = self.carrier.echoes[self.echoed :]
        for at, name in new:
            self.echoed += 1
            if self.echoed not in self.lost_marks and -1 not in self.lost_marks:
                self.returned = max(self.returned, at + self.delay + next(self.jitters))
                self.at(self.returned, "echo", name)
        return bool(new)

    def post(self, uuid, ms, part=0, done=True):
        ids = [next(self.ids) for _ in range(int(ms * 8))]
        assert not ids or ids[-1] < 65536
        self.samples.setdefault((uuid, part), []).extend(ids)
        data = b"".join(i.to_bytes(2, "little") for i in ids)
        self.do(self.playout.post(Message(uuid=uuid, data=data, part=part, done=done), self.now))

    def abort(self, uuid, part=None, after_ms=None):
        self.do(self.playout.abort(uuid, part, after_ms, self.now))

    def pause(self):
        self.do(self.playout.pause(self.now))

    def resume(self, from_ms=None):
        self.do(self.playout.resume(from_ms, self.now))

    def set_bed(self, layer, sound, gain_db=0.0):
        self.do(self.playout.set_bed(layer, sound, gain_db, self.now))

    def heard(self, uuid, part=0):
        """Samples of a part that sounded, as offsets, in order."""
        offsets = {sample: i for i, sample in enumerate(self.samples[uuid, part])}
        return [offsets[sample] for _, sample in self.carrier.heard if sample in offsets]

    def heard_ms(self, uuid, part=0):
        return len(self.heard(uuid, part)) / 8

    def finals(self):
        return [(p.uuid, p.part, p.state, p.heard_ms) for _, p in self.reports if p.final]

    def gaps(self):
        """Silences between samples that sounded, in ms."""
        times = [at for at, _ in self.carrier.heard]
        return [round((b - a) * 1000 - 0.125, 3) for a, b in itertools.pairwise(times) if b - a > 1.5 / RATE]

    def clears(self):
        return sum(isinstance(op, SendClear) for _, op in self.log)


def whole(ms):
    return list(range(int(ms * 8)))


def test_the_first_audio_goes_out_at_once_and_the_rest_of_the_lead_behind_it():
    sim = Sim()
    sim.post(A, 1000)
    assert [PCM_8K.ms(len(op.data)) for _, op in sim.log if isinstance(op, SendAudio)] == [100, 200]
    first = next(op for _, op in sim.log if isinstance(op, Report)).playback
    assert (first.state, first.heard_ms, first.queued_ms) == ("playing", 0, 1000)


def test_what_comes_while_enough_is_ahead_leaves_with_the_ticks_in_seven_messages_a_second():
    sim = Sim(delay=0.02)
    for n in range(40):  # a voice that is three times as fast as it speaks
        sim.post(A, 200, done=n == 39)
        sim.run(0.066)
    sim.run(10)
    sent = [PCM_8K.ms(len(op.data)) for _, op in sim.log if isinstance(op, SendAudio)]
    assert sum(sent) == 8000
    assert len(sent) <= 56
    assert sim.gaps() == []
    assert sim.finals() == [(A, 0, "played", 8000)]


def test_a_late_tick_is_made_up_for_by_what_comes_before_it():
    sim = Sim(lags=[5.0])  # the second tick does not come for long
    for _ in range(20):
        sim.post(A, 100, done=False)
        sim.run(0.1)
    assert sim.gaps() == []


def test_a_tiny_first_piece_is_not_held_back():
    sim = Sim()
    sim.post(A, 5, done=False)
    assert isinstance(sim.log[0][1], SendAudio)
    assert len(sim.log[0][1].data) == PCM_8K.size(5)


def test_a_part_is_played_when_its_mark_comes_back():
    sim = Sim(delay=0.04)
    sim.post(A, 600)
    sim.run(2)
    assert sim.finals() == [(A, 0, "played", 600)]
    at, last = sim.reports[-1]
    assert last.confirmed
    assert at == pytest.approx(10 + 0.6 + 0.08, abs=0.002)
    assert sim.playout.deadline is None


def test_marks_come_every_quarter_second_and_at_the_end_and_have_unique_names():
    sim = Sim()
    sim.post(A, 2000)
    sim.post(A, 300, part=1)
    sim.run(4)
    names = [op.name for _, op in sim.log if isinstance(op, SendMark)]
    assert len(set(names)) == len(names)
    assert names[0] == f"{A}-0-1"
    assert 6 <= len([n for n in names if n.startswith(f"{A}-0-")]) <= 8


def test_without_marks_a_part_is_played_by_the_clock_one_second_late():
    sim = Sim(lost_marks=[-1])
    sim.post(A, 600)
    sim.run(1.5)
    assert sim.finals() == []
    sim.run(0.3)
    assert sim.finals() == [(A, 0, "played", 600)]
    assert not sim.reports[-1][1].confirmed
    assert sim.playout.deadline is None


def test_a_lost_mark_is_made_up_for_by_a_later_one():
    sim = Sim(lost_marks=[1, 2])
    sim.post(A, 300)
    sim.post(B, 300)
    sim.run(0.65)
    assert sim.finals() == [(A, 0, "played", 300), (B, 0, "played", 300)] or sim.finals() == []
    sim.run(1.5)
    assert [state for _, _, state, _ in sim.finals()] == ["played", "played"]


def test_progress_is_reported_at_most_every_quarter_second():
    sim = Sim()
    sim.post(A, 2000)
    sim.run(3)
    playing = [(at, p.heard_ms) for at, p in sim.reports if p.state == "playing"]
    assert all(b - a >= 0.249 for (a, _), (b, _) in itertools.pairwise(playing))
    assert 7 <= len(playing) <= 9
    assert all(abs(heard - (at - 10) * 1000) < 1 for at, heard in playing)


def test_aborting_one_of_two_turns_on_the_line_lets_the_other_be_heard_whole():
    sim = Sim(delay=0.03)
    sim.post(A, 100)
    sim.post(B, 500)
    sim.run(0.05)
    sim.abort(A)
    sim.run(2)
    assert sim.clears() == 1
    assert sim.heard(A) == whole(50)
    assert sim.heard(B) == whole(500)
    assert sim.finals() == [(A, 0, "cut", 50), (B, 0, "played", 500)]


def test_aborting_the_later_turn_repeats_what_was_sent_of_the_earlier():
    sim = Sim(delay=0.03)
    sim.post(A, 150)
    sim.post(B, 500)
    sim.run(0.05)
    sim.abort(B)
    sim.run(2)
    assert sim.heard(A) == whole(150)
    assert sim.heard(B) == []
    assert sim.finals() == [(B, 0, "cut", 0), (A, 0, "played", 150)]
    assert sim.gaps() == []


def test_aborting_what_is_only_queued_sends_nothing():
    sim = Sim()
    sim.post(A, 1000)
    sim.post(B, 500)
    sim.run(0.2)
    before = len([op for _, op in sim.log if not isinstance(op, Report)])
    sim.abort(B)
    assert len([op for _, op in sim.log if not isinstance(op, Report)]) == before
    assert sim.finals() == [(B, 0, "cut", 0)]
    sim.run(2)
    assert sim.heard(A) == whole(1000)


@pytest.mark.parametrize("uuid", [A, B])
def test_aborting_what_is_finished_or_unknown_sends_nothing(uuid):
    sim = Sim()
    sim.post(A, 100)
    sim.run(0.5)
    before = len(sim.log)
    sim.abort(uuid)
    sim.abort(uuid, part=3, after_ms=20)
    sim.run(2)
    assert len(sim.log) == before


def test_one_part_of_a_turn_can_be_aborted():
    sim = Sim()
    for part in range(3):
        sim.post(A, 300, part=part)
    sim.run(0.1)
    sim.abort(A, part=1)
    sim.run(2)
    assert sim.heard(A, 0) == whole(300)
    assert sim.heard(A, 1) == []
    assert sim.heard(A, 2) == whole(300)
    assert sim.gaps() == []


def test_what_comes_late_for_an_aborted_part_is_dropped():
    sim = Sim()
    sim.post(A, 200, done=False)
    sim.run(0.1)
    sim.abort(A)
    sim.post(A, 200)
    sim.run(2)
    assert sim.heard_ms(A) == 100
    assert len(sim.finals()) == 1


def test_a_pause_cuts_exactly_and_resume_neither_skips_nor_repeats():
    sim = Sim(delay=0.05)
    sim.post(A, 1000)
    sim.run(0.33)
    sim.pause()
    sim.pause()
    sim.run(1)
    assert sim.heard_ms(A) == 330
    assert [p.heard_ms for _, p in sim.reports if p.state == "paused"] == [330]
    sim.resume()
    sim.run(2)
    assert sim.heard(A) == whole(1000)
    assert sim.finals() == [(A, 0, "played", 1000)]


def test_resume_may_begin_a_little_earlier_but_never_later():
    sim = Sim()
    sim.post(A, 1000)
    sim.run(0.4)
    sim.pause()
    sim.resume(from_ms=250)
    sim.run(0.1)
    sim.pause()
    sim.resume(from_ms=900)
    sim.run(2)
    heard = sim.heard(A)
    assert heard[: 400 * 8] == whole(400)
    assert heard[400 * 8 :] == list(range(250 * 8, 1000 * 8))


def test_resume_far_back_starts_with_the_earliest_that_is_kept():
    sim = Sim(keep_ms=1500)
    sim.post(A, 7000)
    sim.run(5)
    sim.pause()
    sim.resume(from_ms=0)
    sim.run(0.1)
    again = sim.heard(A)[5000 * 8]
    assert 2000 * 8 < again <= 3500 * 8


def test_posts_during_a_pause_wait_for_its_end():
    sim = Sim()
    sim.pause()
    sim.post(A, 300)
    sim.run(1)
    assert sim.carrier.heard == []
    sim.resume()
    sim.run(1)
    assert sim.heard(A) == whole(300)


def test_aborting_during_a_pause_sends_nothing_and_tells_what_was_heard():
    sim = Sim()
    sim.post(A, 1000)
    sim.run(0.2)
    sim.pause()
    sim.abort(A)
    assert sim.clears() == 1
    assert sim.finals() == [(A, 0, "cut", 200)]
    sim.post(B, 100)
    sim.resume()
    sim.run(1)
    assert sim.heard(B) == whole(100)


def test_an_abort_after_a_position_plays_up_to_it():
    sim = Sim()
    sim.post(A, 2000)
    sim.post(A, 300, part=1)
    sim.post(B, 200)
    sim.run(0.2)
    sim.abort(A, after_ms=900)
    sim.run(3)
    assert sim.heard(A) == whole(900)
    assert sim.heard(A, 1) == []
    assert sim.heard(B) == whole(200)
    assert sim.clears() == 0
    assert sim.gaps() == []
    assert sim.finals() == [(A, 1, "cut", 0), (A, 0, "cut", 900), (B, 0, "played", 200)]


def test_an_abort_after_a_position_that_is_on_the_line_lets_the_line_run_out():
    sim = Sim()
    sim.post(A, 2000)
    sim.run(0.2)
    sim.abort(A, after_ms=10)
    sim.run(3)
    assert sim.clears() == 0
    assert 350 <= sim.heard_ms(A) <= 450
    assert sim.finals() == [(A, 0, "cut", sim.heard_ms(A))]


def test_an_abort_after_more_than_there_is_plays_to_the_end():
    sim = Sim()
    sim.post(A, 200, done=False)
    sim.abort(A, after_ms=500)
    sim.post(A, 200)
    sim.run(2)
    assert sim.finals() == [(A, 0, "played", 400)]


def test_an_abort_after_a_position_cuts_audio_that_comes_later():
    sim = Sim()
    sim.post(A, 200, done=False)
    sim.abort(A, after_ms=300)
    sim.post(A, 300, done=False)
    sim.post(A, 300)
    sim.run(2)
    assert sim.finals() == [(A, 0, "cut", 300)]


def test_an_open_part_holds_back_those_behind_it_until_it_is_aborted():
    sim = Sim()
    sim.post(A, 100, done=False)
    sim.post(A, 100, part=1)
    sim.post(B, 100)
    sim.run(1)
    assert sim.heard_ms(A, 1) == 0
    sim.abort(A, part=0)
    sim.run(1)
    assert sim.heard(A, 1) == whole(100)
    assert sim.heard(B) == whole(100)
    assert sim.finals()[0] == (A, 0, "cut", 100)


def test_parts_are_heard_in_the_order_of_their_first_piece():
    sim = Sim()
    sim.post(A, 100, done=False)
    sim.post(B, 100)
    sim.post(A, 100)
    sim.run(1)
    assert [(u, s) for u, _, s, _ in sim.finals()] == [(A, "played"), (B, "played")]
    assert [sample for _, sample in sim.carrier.heard] == sim.samples[A, 0] + sim.samples[B, 0]


def test_an_empty_part_plays_in_its_turn():
    sim = Sim()
    sim.post(A, 0)
    assert sim.finals() == [(A, 0, "played", 0)]
    sim.post(A, 300, part=1)
    sim.post(A, 0, part=2)
    assert len(sim.finals()) == 1
    sim.run(1)
    assert [(part, state) for _, part, state, _ in sim.finals()] == [(0, "played"), (1, "played"), (2, "played")]


def test_a_part_whose_end_comes_after_its_audio_was_heard_is_played():
    sim = Sim()
    sim.post(A, 100, done=False)
    sim.run(1)
    assert sim.playout.deadline is None
    sim.post(A, 0, done=True)
    sim.run(0.1)
    assert sim.finals() == [(A, 0, "played", 100)]


def test_at_the_end_of_the_stream_what_was_not_heard_is_lost():
    sim = Sim(delay=0.02)
    sim.post(A, 100)
    sim.post(B, 500)
    sim.post(C, 500)
    sim.run(0.3)
    sim.do(sim.playout.close(sim.now))
    assert sim.finals() == [(A, 0, "played", 100), (B, 0, "lost", 200), (C, 0, "lost", 0)]
    sim.do(sim.playout.close(sim.now))
    sim.post(C, 100)
    sim.post(C, 100, part=1)
    sim.post(C, 100, part=1)
    assert sim.finals()[3:] == [(C, 1, "lost", 0)]


def test_the_tail_of_what_exceeds_the_limit_is_cut_off_and_reported():
    sim = Sim(limit_ms=1000)
    sim.post(A, 1500, done=False)
    sim.post(A, 500)
    assert [op.dropped_ms for op in sim.overflows] == [500]
    sim.run(3)
    assert sim.finals() == [(A, 0, "cut", 1000)]
    assert sim.heard(A) == whole(1000)


def test_bytes_that_never_left_do_not_count_as_heard():
    sim = Sim()
    sim.post(A, 1000)
    sim.run(0.05)
    # The socket is stuck: only the first 60 ms have left, and the caller has heard them.
    sim.purge = PCM_8K.size(240)
    sim.run(0.04)
    sim.pause()
    assert sim.reports[-1][1].state == "paused"
    assert sim.reports[-1][1].heard_ms == 60


def test_the_carriers_own_buffer_is_learnt_from_its_marks():
    sim = Sim(delay=0.03, buffer_s=0.12)
    sim.post(A, 3000)
    sim.run(2)
    sim.pause()
    sim.run(1)
    heard = sim.heard_ms(A)
    assert sim.reports[-1][1].heard_ms == pytest.approx(heard, abs=2)
    sim.resume()
    sim.run(3)
    assert len(sim.heard(A)) == pytest.approx(3000 * 8, abs=16)


def test_a_carrier_that_stalls_has_not_played_what_its_marks_miss():
    sim = Sim(delay=0.01)
    sim.carrier.stalled.append((11.0, 13.0))
    sim.post(A, 4000)
    sim.run(1.6)
    sim.pause()
    told = sim.reports[-1][1].heard_ms
    assert sim.heard_ms(A) <= 1000
    assert told < 1320  # without marks the clock would say 1600


def test_a_mark_that_returns_sooner_after_a_clear_than_it_could_be_flushed_was_played():
    sim = Sim(delay=0.1)
    sim.post(A, 250)
    sim.run(0.3)  # played at 0.35 there; its mark is here at 0.45
    sim.playout.rtt_s = 0.2
    sim.do([])
    sim.post(B, 250)
    sim.run(0.1)  # A was heard, and its mark is on its way
    sim.pause()
    sim.run(0.06)
    assert sim.finals()[0][:3] == (A, 0, "played")
    sim.resume()
    sim.run(2)
    assert sim.heard(B) == whole(250)


def test_stalls_of_100_ms_every_second_are_not_heard():
    lags = [0.0] * 19 + [0.1]
    sim = Sim(lags=lags)
    sim.post(A, 7000)
    sim.run(8)
    assert sim.heard(A) == whole(7000)
    assert sim.gaps() == []


def test_a_voice_that_streams_in_small_pieces_is_not_chopped():
    sim = Sim()
    for _ in range(100):
        sim.post(A, 20, done=False)
        sim.run(0.015)
    sim.post(A, 0)
    sim.run(2)
    assert sim.gaps() == []
    assert sim.finals() == [(A, 0, "played", 2000)]


def test_positions_are_whole_samples_in_mulaw_too():
    playout = Playout(MULAW_8K)
    playout.start(0.0)
    playout.post(Message(uuid=A, data=b"\x01" * 8000, done=True), 0.0)
    assert any(isinstance(op, SendClear) for op in playout.pause(0.1234567))
    ops = playout.cleared(0, 0.1234567)
    (paused,) = [op.playback for op in ops if isinstance(op, Report)]
    assert paused.heard_ms * 8 == int(0.1234567 * 8000)


def test_before_the_stream_nothing_is_sent_and_everything_can_be_changed():
    playout = Playout(PCM_8K)
    assert playout.post(Message(uuid=A, data=b"\0" * 1600, done=True), 0.0) == []
    playout.post(Message(uuid=B, data=b"\0" * 1600, done=True), 0.0)
    assert playout.deadline is None
    assert playout.tick(5.0) == []
    (report,) = playout.abort(A, None, None, 5.0)
    assert report.playback.state == "cut"
    sent = [op for op in playout.start(6.0) if isinstance(op, SendAudio)]
    assert sum(len(op.data) for op in sent) == 1600


actions = st.one_of(
    st.tuples(st.just("post"), st.integers(0, 3), st.integers(0, 400), st.booleans()),
    st.tuples(st.just("more"), st.integers(0, 5), st.integers(0, 300), st.booleans()),
    st.tuples(st.just("abort"), st.integers(0, 3), st.sampled_from([None, None, 0, 1]), st.none()),
    st.tuples(st.just("after"), st.integers(0, 3), st.integers(0, 600), st.none()),
    st.tuples(st.just("pause"), st.none(), st.none(), st.none()),
    st.tuples(st.just("resume"), st.none(), st.none(), st.none()),
    st.tuples(st.just("run"), st.integers(1, 400), st.none(), st.none()),
    st.tuples(st.just("run"), st.integers(1, 400), st.none(), st.none()),
)


def drive(sim, steps):
    """Do ``steps``, bring everything to an end, and return which parts were aborted after a position."""
    opened, parts, after = [], {}, {}
    silent = []
    for action, x, y, z in steps:
        uuid = UUID(int=x + 1) if isinstance(x, int) else None
        if action == "post":
            if sum(map(len, sim.samples.values())) > 50_000:
                continue
            part = parts.get(uuid, 0)
            parts[uuid] = part + 1
            sim.post(uuid, y, part=part, done=z)
            if not z:
                opened.append((uuid, part))
        elif action == "more" and opened:
            key = opened[x % len(opened)]
            if sum(map(len, sim.samples.values())) > 50_000:
                continue
            sim.post(key[0], y, part=key[1], done=z)
            if z:
                opened.remove(key)
        elif action == "abort":
            sim.abort(uuid, part=y)
        elif action == "after":
            if not sim.playout.paused:
                after[uuid] = y
                sim.abort(uuid, after_ms=y)
        elif action == "pause":
            sim.pause()
            silent.append([sim.now + sim.delay, float("inf")])
        elif action == "resume":
            sim.resume()
            for span in silent:
                span[1] = min(span[1], sim.now + sim.delay)
        elif action in ("background", "thinking"):
            sim.set_bed(action, x)
        elif action == "run":
            sim.run(x / 1000)
    sim.resume()
    for span in silent:
        span[1] = min(span[1], sim.now + sim.delay)
    for uuid, part in opened:
        sim.post(uuid, 0, part=part)
    sim.run(20)
    return silent


def check_reports(sim):
    finals = [(u, p) for u, p, _, _ in sim.finals()]
    assert sorted(finals) == sorted(sim.samples)  # one for each part, and no part twice
    seen = set()
    for _, playback in sim.reports:
        key = (playback.uuid, playback.part)
        assert key not in seen
        if playback.final:
            seen.add(key)
    assert sim.playout.deadline is None


@settings(max_examples=150)
@given(
    steps=st.lists(actions, min_size=3, max_size=25),
    delay=st.sampled_from([0.0, 0.02, 0.1]),
    lags=st.lists(st.sampled_from([0.0, 0.0, 0.003, 0.09]), max_size=5),
)
def test_whatever_happens_each_part_is_heard_once_in_order_and_its_end_is_told_truly(steps, delay, lags):
    sim = Sim(delay=delay, lags=lags)
    silent = drive(sim, steps)
    check_reports(sim)
    heard_all = [sample for _, sample in sim.carrier.heard]
    expected = []
    for key in sim.samples:
        heard = sim.heard(*key)
        assert heard == list(range(len(heard)))  # from its start, nothing skipped, nothing twice
        expected.extend(sim.samples[key][: len(heard)])
        state, told = next((s, h) for u, p, s, h in sim.finals() if (u, p) == key)
        assert told == len(heard) / 8
        if state == "played":
            kept = len(sim.samples[key])
            assert len(heard) == kept
    assert heard_all == expected  # speech keeps its order
    for at, _ in sim.carrier.heard:
        assert not any(start + 1e-6 < at < end - 1e-6 for start, end in silent)


@settings(max_examples=60)
@given(
    steps=st.lists(actions, min_size=3, max_size=20),
    delay=st.sampled_from([0.0, 0.03]),
    rtt=st.sampled_from([0.0, None]),
    buffer_s=st.sampled_from([0.0, 0.06]),
    lost=st.sets(st.integers(1, 12), max_size=6),
)
def test_with_lost_marks_and_an_unknown_carrier_every_part_still_ends_once(steps, delay, rtt, buffer_s, lost):
    sim = Sim(delay=delay, rtt=rtt, buffer_s=buffer_s, lost_marks=lost)
    drive(sim, steps)
    check_reports(sim)
    clears = sim.clears()
    slack = (clears + 1) * int((2 * delay + buffer_s) * RATE + 1)
    for key, samples in sim.samples.items():
        heard = sim.heard(*key)
        state = next(s for u, p, s, _ in sim.finals() if (u, p) == key)
        if state == "played":
            assert len(set(heard)) >= len(samples) - slack
        # A lost mark looks like a stall, after which something may be said again; it is never skipped.
        assert sum(max(0, b - a - 1) for a, b in itertools.pairwise(heard)) <= slack

"""Calls without a carrier, in the time of a clock that jumps."""

import asyncio
import contextlib
import selectors
from uuid import uuid4

import pytest
from steady import steady_clock

from dialog.audio.g711 import mulaw_decode, mulaw_encode
from dialog.audio.tones import sine
from dialog.clock import Clock
from dialog.errors import CarrierError, NotSupportedError, StateError, UserCodeError
from dialog.message import MULAW_8K, PCM_8K, CallEnd, Message, Playback, StreamStarted, StreamStopped
from dialog.participant import Participant
from dialog.voip.call import CallSettings
from dialog.voip.memory import MemoryCarrier, MemoryLine, connect, memory_call
from dialog.voip.pacer import Pacer
from dialog.voip.voip import VoIP


class JumpingSelector(selectors.DefaultSelector):
    """Idle time takes none: the loop's clock goes to its next timer."""

    now = 0.0

    def select(self, timeout=None):
        ready = super().select(0)
        if not ready and timeout:
            self.now += timeout
        return ready


def virtual(main):
    """Run ``main(clock)`` on a loop whose time jumps."""
    selector = JumpingSelector()
    loop = asyncio.SelectorEventLoop(selector)
    loop.time = lambda: selector.now
    clock = Clock(time=lambda: selector.now)
    try:
        loop.run_until_complete(main(clock))
        left = [task for task in asyncio.all_tasks(loop) if not task.done()]
        assert left == []
    finally:
        loop.close()


def tone(ms, value=1):
    return bytes([value]) * MULAW_8K.size(ms)


class Ear:
    """Hears all that a VoIP tells."""

    def __init__(self, voip):
        self.voip = voip
        self.playbacks = []
        self.events = []
        self.audio = []
        self.digits = []
        self.errors = []
        voip.on(VoIP.PLAYBACK, self.playbacks.append)
        for event in (VoIP.STREAMING_STARTED, VoIP.STREAMING_STOPPED, VoIP.ENDED, VoIP.MESSAGE_DISPATCHED):
            voip.on(event, self.events.append)
        voip.on(VoIP.MESSAGE, self.audio.append)
        voip.on(VoIP.DTMF, self.digits.append)
        voip.on(Participant.ERROR, self.errors.append)

    def finals(self):
        return [(p.part, p.state, p.heard_ms) for p in self.playbacks if p.final]

    def names(self):
        return [
            event.reason
            if isinstance(event, CallEnd | StreamStopped)
            else f"started{event.generation}{event.resumed}"
            if isinstance(event, StreamStarted)
            else "dispatched"
            for event in self.events
        ]


def call_with_ear(clock, **options):
    ears = []
    call, line = memory_call(lambda voip: ears.append(Ear(voip)), clock=clock, **options)
    return call, line, ears[0]


async def finish(call):
    call.end("test_over")
    await call.wait_closed()


def test_a_greeting_that_was_posted_before_the_stream_is_heard_whole():
    async def main(clock):
        turn = uuid4()
        call, line, ear = call_with_ear(clock, join=False)
        call.voip.post(Message(uuid=turn, data=tone(1000), done=True))
        await clock.sleep(2)
        line.join(call)
        joined = clock.now()
        await clock.sleep(1.5)
        (piece,) = line.heard
        assert piece.at_s == pytest.approx(joined, abs=1e-6)
        assert piece.data == tone(1000)
        assert ear.finals() == [(0, "played", 1000.0)]
        assert ear.names() == ["started1", "dispatched"]
        await finish(call)

    virtual(main)


@pytest.mark.parametrize("late_s", [0.0, 2.0, 600.0])
def test_a_call_that_nobody_listens_to_is_told_of(caplog, late_s):
    async def main(clock):
        call, line = memory_call(lambda voip: None, clock=clock)
        await clock.sleep(late_s)
        call.voip.on(VoIP.MESSAGE, lambda message: None)
        await clock.sleep(10)
        line.hang_up()
        await call.wait_closed()

    virtual(main)
    assert ("nobody listens to the caller" in caplog.text) is (late_s > 3)


def test_the_line_holds_three_tenths_of_a_second_and_no_more():
    async def main(clock):
        call, line, _ = call_with_ear(clock)
        call.voip.post(Message(uuid=uuid4(), data=tone(3000), done=True))
        for _step in range(20):
            await clock.sleep(0.1)
            ahead = sum(len(piece.data) for piece in line.sent) - len(line.heard_audio)
            assert MULAW_8K.ms(ahead) <= 300.5
        assert max(len(piece.data) for piece in line.sent) <= MULAW_8K.size(200)
        await finish(call)

    virtual(main)


def test_aborting_a_turn_lets_the_one_behind_it_be_heard_whole():
    async def main(clock):
        call, line, ear = call_with_ear(clock)
        first, second = uuid4(), uuid4()
        call.voip.post(Message(uuid=first, data=tone(400, 1), done=True))
        call.voip.post(Message(uuid=second, data=tone(700, 2), done=True))
        await clock.sleep(0.3)  # the second turn's first audio is at the carrier already
        assert line.sent[-1].data[-1] == 2
        call.voip.abort(first)
        await clock.sleep(1)
        heard = line.heard_audio
        assert heard.count(2) == MULAW_8K.size(700)
        assert heard.count(1) == pytest.approx(MULAW_8K.size(300), abs=8)
        assert [state for _, state, _ in ear.finals()] == ["cut", "played"]
        assert len(line.clears) == 1
        await finish(call)

    virtual(main)


def test_a_pause_is_silent_at_once_and_nothing_is_skipped_or_said_twice():
    async def main(clock):
        call, line, ear = call_with_ear(clock)
        audio = bytes(range(1, 251)) * 40
        call.voip.post(Message(uuid=uuid4(), data=audio, done=True))
        await clock.sleep(0.4)
        call.voip.pause()
        await clock.sleep(2)
        assert len(line.heard_audio) == MULAW_8K.size(400)
        call.voip.resume()
        await clock.sleep(2)
        assert line.heard_audio == audio
        assert [p.state for p in ear.playbacks].count("paused") == 1
        assert ear.finals() == [(0, "played", 1250.0)]
        await finish(call)

    virtual(main)


def test_what_a_stream_did_not_play_is_lost_when_the_caller_hangs_up():
    async def main(clock):
        call, line, ear = call_with_ear(clock)
        turn = uuid4()
        for part in range(3):
            call.voip.post(Message(uuid=turn, part=part, data=tone(500), done=True))
        await clock.sleep(0.7)
        line.hang_up()
        assert [(part, state) for part, state, _ in ear.finals()] == [(0, "played"), (1, "lost"), (2, "lost")]
        assert ear.names() == ["started1", "ended", "caller_hangup"]
        await call.wait_closed()
        assert call.voip.disposed
        assert line.closed

    virtual(main)


def test_a_broken_stream_may_come_back_and_plays_what_was_posted_meanwhile():
    async def main(clock):
        call, line, ear = call_with_ear(clock)
        call.voip.post(Message(uuid=uuid4(), data=tone(500, 1), done=True))
        await clock.sleep(0.2)
        line.drop()
        assert call.state == "lost"
        assert ear.finals() == [(0, "lost", 200.0)]
        call.voip.post(Message(uuid=uuid4(), part=1, data=tone(300, 2), done=True))
        assert call.wants_stream()
        await clock.sleep(1)
        again = MemoryLine(clock=clock)
        again.join(call)
        await clock.sleep(1)
        assert again.heard_audio == tone(300, 2)
        assert ear.names() == ["started1", "lost", "started2reconnected", "dispatched"]
        await finish(call)

    virtual(main)


def test_a_broken_stream_that_does_not_come_back_ends_the_call_after_five_seconds():
    async def main(clock):
        call, line, ear = call_with_ear(clock)
        line.drop()
        dropped = clock.now()
        async with asyncio.timeout(30):
            await call.wait_closed()
        assert ear.names() == ["started1", "lost", "lost"]
        assert clock.now() - dropped == pytest.approx(5, abs=0.1)
        assert not call.wants_stream()

    virtual(main)


def test_a_call_that_never_streams_is_forgotten():
    async def main(clock):
        forgotten = []
        call, _, ear = call_with_ear(clock, join=False, on_closed=forgotten.append)
        call.voip.post(Message(uuid=uuid4(), data=tone(500), done=True))
        await call.wait_closed()
        assert ear.names() == ["never_connected"]
        assert ear.finals() == [(0, "lost", 0.0)]
        assert forgotten == [call]
        assert clock.now() == pytest.approx(60, abs=0.5)

    virtual(main)


def test_the_audio_clock_goes_on_over_streams_and_gaps_are_filled():
    async def main(clock):
        call, line, ear = call_with_ear(clock)
        line.line.receive_audio(tone(20), 5)
        line.line.receive_audio(tone(20), 25)
        line.line.receive_audio(tone(20), 145)  # 100 ms are missing
        assert [(m.at_ms, len(m.data)) for m in ear.audio] == [(0, 160), (20, 160), (40, 800), (140, 160)]
        assert ear.audio[2].data == MULAW_8K.silence(100)
        line.line.receive_audio(tone(20), 5165)  # five seconds are missing: the clock jumps
        assert ear.audio[-1].at_ms == 5160
        line.line.receive_audio(tone(20), 5185)
        assert ear.audio[-1].at_ms == 5180
        assert len(ear.audio) == 6
        await clock.sleep(8)
        line.drop()
        again = MemoryLine(clock=clock)
        again.join(call)
        again.line.receive_audio(tone(20), 3)
        assert ear.audio[-1].at_ms == pytest.approx(8000)
        assert {m.uuid for m in ear.audio} == {call.metadata.call_id}
        await finish(call)

    virtual(main)


def test_a_transfer_that_fails_brings_the_caller_back_on_a_new_stream():
    async def main(clock):
        carrier = MemoryCarrier(transfer="failed")
        call, _, ear = call_with_ear(clock, carrier=carrier)
        await call.voip.transfer_to("+15550001", back_within_s=20)
        assert ear.names() == ["started1", "moving", "started2transfer_failed"]
        assert call.line is carrier.lines[1].line
        await finish(call)

    virtual(main)


def test_a_transfer_that_is_answered_ends_the_call():
    async def main(clock):
        call, _, ear = call_with_ear(clock)
        await call.voip.transfer_to("+15550001")
        assert ear.names() == ["started1", "moving", "transferred"]
        await call.wait_closed()

    virtual(main)


def test_a_refused_transfer_raises_and_the_call_goes_on():
    async def main(clock):
        call, line, ear = call_with_ear(clock, carrier=MemoryCarrier(transfer="refused"))
        with pytest.raises(CarrierError):
            await call.voip.transfer_to("+15550001")
        assert call.state == "live"
        line.hang_up()
        assert ear.names()[-1] == "caller_hangup"
        await call.wait_closed()

    virtual(main)


def test_digits_go_out_and_the_stream_comes_back():
    async def main(clock):
        call, _, ear = call_with_ear(clock)
        await call.voip.send_digits("12#")
        assert ear.names() == ["started1", "moving", "started2digits_sent"]
        await finish(call)

    virtual(main)


def test_hanging_up_ends_the_call_once():
    async def main(clock):
        call, line, ear = call_with_ear(clock)
        await call.voip.hangup()
        await call.voip.hangup()
        line.hang_up()
        assert ear.names() == ["started1", "ended", "agent_hangup"]
        await call.wait_closed()

    virtual(main)


def test_a_second_stream_of_the_same_generation_is_refused_and_a_higher_one_replaces_it():
    async def main(clock):
        call, line, ear = call_with_ear(clock)
        call.voip.post(Message(uuid=uuid4(), data=tone(500), done=True))
        with pytest.raises(StateError, match="generation 1"):
            MemoryLine(clock=clock).join(call, generation=1)
        assert not line.closed
        newer = MemoryLine(clock=clock)
        newer.join(call, generation=2)
        assert line.closed
        call.stream_closed(line.line)  # the old socket's handler comes to its end
        assert call.state == "live"
        assert ear.names() == ["started1", "lost", "started2reconnected"]
        await finish(call)
        with pytest.raises(StateError, match="ended"):
            MemoryLine(clock=clock).join(call, generation=3)

    virtual(main)


def test_an_agent_whose_making_raises_ends_the_call_and_leaves_nothing():
    async def main(clock):
        made, forgotten = [], []

        def on_voip(voip):
            made.append(Participant())
            made.append(voip)
            raise ValueError("no key")

        with pytest.raises(UserCodeError, match="no key"):
            memory_call(on_voip, clock=clock, on_closed=forgotten.append)
        while not forgotten:
            await asyncio.sleep(0)
        assert all(participant.disposed for participant in made)
        assert clock.now() == 0

    virtual(main)


def test_participants_made_by_listeners_belong_to_the_call_wherever_the_socket_is_read():
    async def main(clock):
        made = []
        call, line, _ = call_with_ear(clock)
        call.voip.on(VoIP.MESSAGE, lambda _: made.append(Participant()))
        call.voip.on(VoIP.DTMF, lambda _: made.append(Participant()))
        call.voip.on(VoIP.PLAYBACK, lambda _: made.append(Participant()))
        line.send(tone(20))
        line.press("5")
        call.voip.post(Message(uuid=uuid4(), data=tone(100), done=True))
        await clock.sleep(1)
        assert len(made) >= 4
        assert set(made) < set(call.scope.members)
        await finish(call)
        assert all(participant.disposed for participant in made)

    virtual(main)


def test_a_listener_may_post_and_abort_while_it_hears_a_report():
    async def main(clock):
        call, line, ear = call_with_ear(clock)
        first, second = uuid4(), uuid4()

        def on_playback(playback: Playback):
            if playback.state == "cut" and playback.uuid == first:
                call.voip.post(Message(uuid=second, data=tone(200, 2), done=True))

        call.voip.on(VoIP.PLAYBACK, on_playback)
        call.voip.post(Message(uuid=first, data=tone(1000, 1), done=True))
        await clock.sleep(0.1)
        call.voip.abort(first)
        await clock.sleep(1)
        assert line.heard_audio == tone(100, 1) + tone(200, 2)
        assert [state for _, state, _ in ear.finals()] == ["cut", "played"]
        await finish(call)

    virtual(main)


def test_a_report_of_loss_may_be_answered_with_a_post_for_the_next_stream():
    async def main(clock):
        call, line, _ = call_with_ear(clock)

        def on_playback(playback: Playback):
            if playback.state == "lost":
                call.voip.post(Message(uuid=playback.uuid, part=playback.part + 1, data=tone(200, 2), done=True))

        call.voip.on(VoIP.PLAYBACK, on_playback)
        call.voip.post(Message(uuid=uuid4(), data=tone(1000, 1), done=True))
        await clock.sleep(0.1)
        line.drop()
        again = MemoryLine(clock=clock)
        again.join(call)
        await clock.sleep(1)
        assert again.heard_audio == tone(200, 2)
        await finish(call)

    virtual(main)


def test_what_exceeds_a_minute_is_cut_off_and_reported():
    async def main(clock):
        call, line, ear = call_with_ear(clock)
        call.voip.post(Message(uuid=uuid4(), data=tone(70_000), done=True))
        assert "were cut off" in str(ear.errors[0].error)
        await clock.sleep(62)
        assert len(line.heard_audio) == MULAW_8K.size(60_000)
        assert ear.finals() == [(0, "cut", 60_000.0)]
        await finish(call)

    virtual(main)


def test_the_pacer_rests_when_nobody_plays():
    async def main(clock):
        call, _, _ = call_with_ear(clock)
        call.voip.post(Message(uuid=uuid4(), data=tone(300), done=True))
        pacer = Pacer.of(clock)
        assert not pacer.resting
        await clock.sleep(2)
        assert pacer.resting
        await finish(call)

    virtual(main)


def test_a_recording_keeps_the_voip_until_its_url_has_come():
    async def main(clock):
        carrier = MemoryCarrier()
        carrier.recordings["https://r/1"] = b"RIFF"
        call, line, _ = call_with_ear(clock, carrier=carrier)
        saved = []

        async def save(url):
            saved.extend([data async for data in call.voip.download_recording(url)])
            await clock.sleep(3)
            saved.append(url)

        call.voip.on(VoIP.RECORDING_URL, lambda url: call.voip.spawn(save(url), "save"))
        await call.voip.start_recording()
        line.hang_up()
        await clock.sleep(100)
        assert not call.voip.disposed
        call.voip.receive(VoIP.RECORDING_URL, "https://r/1")
        await call.wait_closed()
        assert saved == [b"RIFF", "https://r/1"]
        assert call.voip.disposed

    virtual(main)


def test_a_recording_that_never_comes_is_waited_for_within_a_bound():
    async def main(clock):
        carrier = MemoryCarrier()
        carrier.recordings["x"] = b""
        call, line, _ = call_with_ear(clock, carrier=carrier, settings=CallSettings(wrap_up_s=30))
        await call.voip.start_recording()
        line.hang_up()
        await call.wait_closed()
        assert clock.now() == pytest.approx(30, abs=2)

    virtual(main)


def test_a_line_in_memory_says_what_it_cannot_do():
    async def main(clock):
        call, _, _ = call_with_ear(clock)
        with pytest.raises(NotSupportedError):
            await call.voip.start_recording()
        await finish(call)
        with pytest.raises(StateError):
            await call.voip.transfer_to("+1")

    virtual(main)


def test_disposing_of_the_voip_ends_the_call():
    async def main(clock):
        call, _, _ = call_with_ear(clock)
        call.voip.dispose()
        assert call.state == "ended"
        await call.wait_closed()

    virtual(main)


def test_participants_have_time_to_take_their_leave():
    async def main(clock):
        class Slow(Participant):
            said = ""

            async def last_words(self):
                await clock.sleep(0.5)
                self.said = "goodbye"
                self.dispose()

        made = []
        call, line, _ = call_with_ear(clock)
        with call.scope.entered():
            made.append(Slow())
        call.voip.on(VoIP.ENDED, lambda _: made[0].spawn(made[0].last_words(), "last words"))
        line.hang_up()
        await call.wait_closed()
        assert made[0].said == "goodbye"
        assert clock.now() == pytest.approx(0.5, abs=0.01)

    virtual(main)


def test_two_agents_hear_each_other_in_real_time():
    async def main(clock):
        one, line_one, ear_one = call_with_ear(clock)
        two, line_two, ear_two = call_with_ear(clock)
        connect(line_one, line_two)
        one.voip.post(Message(uuid=uuid4(), data=tone(500, 1), done=True))
        two.voip.post(Message(uuid=uuid4(), data=tone(300, 2), done=True))
        await clock.sleep(1.01)
        assert b"".join(m.data for m in ear_two.audio).count(1) == MULAW_8K.size(500)
        assert b"".join(m.data for m in ear_one.audio).count(2) == MULAW_8K.size(300)
        assert MULAW_8K.ms(sum(len(m.data) for m in ear_one.audio)) == pytest.approx(1000, abs=40)
        await one.voip.hangup()
        assert ear_two.names()[-1] == "caller_hangup"
        await one.wait_closed()
        await two.wait_closed()
        await line_one.wait_closed()
        await line_two.wait_closed()

    virtual(main)


def test_lines_of_two_formats_hear_each_other():
    async def main(clock):
        one, line_one, ear_one = call_with_ear(clock)
        two, line_two, ear_two = call_with_ear(clock, line=MemoryLine(clock=clock, audio_format=PCM_8K))
        connect(line_one, line_two)
        loud = mulaw_encode(sine(300, 400))
        one.voip.post(Message(uuid=uuid4(), data=loud, done=True))
        two.voip.post(Message(uuid=uuid4(), data=mulaw_decode(loud), done=True))
        await clock.sleep(1.01)
        pcm, mulaw = (b"".join(m.data for m in ear.audio) for ear in (ear_two, ear_one))
        assert PCM_8K.ms(len(pcm)) == pytest.approx(MULAW_8K.ms(len(mulaw)), abs=40)
        assert mulaw_decode(loud) in pcm
        assert loud in mulaw
        line_one.hang_up()
        for call in (one, two):
            await call.wait_closed()
        for line in (line_one, line_two):
            await line.wait_closed()

    virtual(main)


def test_a_caller_speaks_in_real_time_and_is_silent_afterwards():
    async def main(clock):
        call, line, ear = call_with_ear(clock)
        line.say(tone(110, 3))
        await clock.sleep(0.205)
        audio = b"".join(m.data for m in ear.audio)
        assert audio.startswith(tone(110, 3) + MULAW_8K.silence(10))
        assert 8 <= len(ear.audio) <= 12
        assert [m.at_ms for m in ear.audio] == [20.0 * i for i in range(len(ear.audio))]
        line.press("1#")
        assert ear.digits == ["1", "#"]
        await finish(call)
        await line.wait_closed()

    virtual(main)


def test_taps_hear_both_sides_and_what_was_cleared():
    async def main(clock):
        heard = []

        class Tap:
            def caller(self, at_ms, data):
                heard.append(("caller", at_ms, len(data)))

            def agent(self, at_ms, data):
                heard.append(("agent", round(at_ms), len(data)))

            def agent_cleared(self, at_ms):
                heard.append(("cleared", round(at_ms)))

        call, line, _ = call_with_ear(clock)
        tap = Tap()
        call.add_tap(tap)
        await clock.sleep(1)
        turn = uuid4()
        call.voip.post(Message(uuid=turn, data=tone(250), done=True))
        line.send(tone(20))
        await clock.sleep(0.12)
        call.voip.abort(turn)
        assert heard == [
            ("agent", 1000, 800),
            ("agent", 1100, 1200),
            ("caller", 0.0, 160),
            ("cleared", 1120),
        ]
        call.remove_tap(tap)
        line.send(tone(20))
        assert len(heard) == 4
        await finish(call)

    virtual(main)


def test_a_stop_that_overtakes_the_answer_to_our_redirect_is_no_hang_up():
    async def main(clock):
        class Racing(MemoryCarrier):
            async def execute(self, call, command):
                call.stream_stopped(self.lines[0].line)
                await clock.sleep(0.1)
                call.moving("transfer", 30)

        call, _, ear = call_with_ear(clock, carrier=Racing())
        await call.voip.transfer_to("+1")
        assert call.state == "moving"
        await call.wait_closed()
        assert ear.names() == ["started1", "moving", "transferred"]
        assert ear.events[-1].detail == "unconfirmed"

    virtual(main)


def test_a_caller_who_leaves_while_a_redirect_is_refused_has_hung_up():
    async def main(clock):
        class Late(MemoryCarrier):
            async def execute(self, call, command):
                call.stream_stopped()
                await clock.sleep(0.1)
                raise CarrierError("memory", "x", "not in progress")

        call, _, ear = call_with_ear(clock, carrier=Late())
        with contextlib.suppress(CarrierError):
            await call.voip.transfer_to("+1")
        assert ear.names() == ["started1", "moving", "caller_hangup"]
        await call.wait_closed()

    virtual(main)


async def test_a_call_runs_in_real_time_too():
    call, line, ear = call_with_ear(steady_clock(scale=5))
    call.voip.post(Message(uuid=uuid4(), data=tone(600), done=True))
    dispatched = asyncio.Event()
    call.voip.on(VoIP.MESSAGE_DISPATCHED, lambda _: dispatched.set())
    async with asyncio.timeout(5):
        await dispatched.wait()
    assert line.heard_audio == tone(600)
    assert len(line.heard) == 1
    assert ear.playbacks[-1].confirmed
    await finish(call)

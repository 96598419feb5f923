"""What every VoIP does, whatever carries the call and in whatever process its agent runs."""

from __future__ import annotations

from itertools import pairwise
from uuid import uuid4

import pytest
from rigs import RIGS, until

from dialog.errors import NotSupportedError, StateError
from dialog.message import CallEnd, Message, Playback, StreamStarted, StreamStopped
from dialog.participant import Participant
from dialog.voip.voip import VoIP


@pytest.fixture(params=list(RIGS))
def rig(request):
    return RIGS[request.param]


class Notes:
    """Everything that a VoIP tells, in its order."""

    def __init__(self) -> None:
        self.audio: list[Message[bytes]] = []
        self.reports: list[Playback] = []
        self.dispatched: list[object] = []
        self.digits: list[str] = []
        self.life: list[str] = []
        self.ends: list[CallEnd] = []
        self.errors: list[object] = []
        self.metadata: list[object] = []

    def __call__(self, voip: VoIP) -> None:
        voip.on(VoIP.MESSAGE, self.audio.append)
        voip.on(VoIP.PLAYBACK, self.reports.append)
        voip.on(VoIP.MESSAGE_DISPATCHED, self.dispatched.append)
        voip.on(VoIP.DTMF, self.digits.append)
        voip.on(VoIP.METADATA, self.metadata.append)
        voip.on(VoIP.STREAMING_STARTED, self._started)
        voip.on(VoIP.STREAMING_STOPPED, self._stopped)
        voip.on(VoIP.ENDED, self._ended)
        voip.on(Participant.ERROR, self.errors.append)

    def _started(self, started: StreamStarted) -> None:
        self.life.append(f"live {started.generation} {started.resumed}".strip())

    def _stopped(self, stopped: StreamStopped) -> None:
        self.life.append(stopped.reason)

    def _ended(self, end: CallEnd) -> None:
        self.life.append("over")
        self.ends.append(end)

    def finals(self, uuid) -> list[Playback]:
        return [report for report in self.reports if report.uuid == uuid and report.final]


async def test_the_call_is_known_from_the_start(rig):
    notes = Notes()
    async with rig(notes) as far:
        await until(lambda: far.voip.state == "live")
        assert notes.metadata == [far.voip.metadata]
        assert far.voip.generation == 1
        assert far.voip.audio_format.sample_rate in (8000, 16000, 24000)


async def test_the_caller_is_heard_without_gaps_on_one_clock(rig):
    notes = Notes()
    async with rig(notes) as far:
        audio_format = far.voip.audio_format
        far.say(far.speech(600))
        await until(lambda: audio_format.ms(sum(len(each.data) for each in notes.audio)) >= 800)
        assert {each.uuid for each in notes.audio} == {far.voip.metadata.call_id}
        for before, after in pairwise(notes.audio):
            assert after.at_ms == pytest.approx(before.at_ms + audio_format.ms(len(before.data)), abs=1.0)
        silence = audio_format.silence(5)
        heard = b"".join(each.data for each in notes.audio)
        loud = sum(5 for at in range(0, len(heard), len(silence)) if heard[at : at + len(silence)] != silence)
        assert loud > 400


async def test_audio_is_played_to_its_end_and_reported_once(rig):
    notes, turn = Notes(), uuid4()
    async with rig(notes) as far:
        far.voip.post(Message(uuid=turn, data=far.speech(400)))
        far.voip.post(Message(uuid=turn, data=far.speech(400), at_ms=400, done=True))
        await until(lambda: notes.dispatched)
        assert notes.dispatched == [turn]
        [final] = notes.finals(turn)
        assert (final.state, final.heard_ms) == ("played", 800.0)
        assert far.heard_ms() == pytest.approx(800, abs=60 + far.slack_ms)


async def test_progress_is_told_and_never_goes_back(rig):
    notes, turn = Notes(), uuid4()
    async with rig(notes) as far:
        far.voip.post(Message(uuid=turn, data=far.speech(1500), done=True))
        await until(lambda: notes.finals(turn))
        heard = [report.heard_ms for report in notes.reports if report.uuid == turn]
        assert heard == sorted(heard)
        assert len(heard) > 3


async def test_two_parts_of_a_turn_are_two_reports_and_one_dispatch(rig):
    notes, turn = Notes(), uuid4()
    async with rig(notes) as far:
        far.voip.post(Message(uuid=turn, data=far.speech(200), done=True))
        far.voip.post(Message(uuid=turn, part=1, data=far.speech(200), done=True))
        await until(lambda: notes.dispatched)
        assert [(final.part, final.state) for final in notes.finals(turn)] == [(0, "played"), (1, "played")]


async def test_an_aborted_turn_falls_silent_and_is_not_dispatched(rig):
    notes, turn = Notes(), uuid4()
    async with rig(notes) as far:
        far.voip.post(Message(uuid=turn, data=far.speech(4000), done=True))
        await until(lambda: far.heard_ms() > 300)
        far.voip.abort(turn)
        await until(lambda: notes.finals(turn))
        [final] = notes.finals(turn)
        assert final.state == "cut"
        assert 200 - far.slack_ms < final.heard_ms < 3000
        far.voip.post(Message(uuid=turn, data=far.speech(400), at_ms=4000))
        other = uuid4()
        far.voip.post(Message(uuid=other, data=far.speech(200), done=True))
        await until(lambda: notes.dispatched)
        assert notes.dispatched == [other]
        assert far.heard_ms() == pytest.approx(final.heard_ms + 200, abs=150 + far.slack_ms)


async def test_an_abort_leaves_what_waits_behind_it_alone(rig):
    notes, first, second = Notes(), uuid4(), uuid4()
    async with rig(notes) as far:
        far.voip.post(Message(uuid=first, data=far.speech(3000), done=True))
        far.voip.post(Message(uuid=second, data=far.speech(500), done=True))
        await until(lambda: far.heard_ms() > 200)
        far.voip.abort(first)
        await until(lambda: notes.finals(second))
        assert notes.finals(second)[0].state == "played"
        assert notes.finals(first)[0].state == "cut"


async def test_a_pause_is_silence_and_nothing_is_lost_by_it(rig):
    notes, turn = Notes(), uuid4()
    async with rig(notes) as far:
        far.voip.post(Message(uuid=turn, data=far.speech(1500), done=True))
        await until(lambda: far.heard_ms() > 300)
        far.voip.pause()
        await until(lambda: any(report.state == "paused" for report in notes.reports))
        await far.clock.sleep(0.3 + far.slack_ms / 1000)
        at = far.heard_ms()
        await far.clock.sleep(0.5)
        assert far.heard_ms() == pytest.approx(at, abs=5)
        far.voip.resume()
        await until(lambda: notes.dispatched)
        assert far.heard_ms() == pytest.approx(1500, abs=150 + far.slack_ms)


async def test_everybody_waits_for_their_own_point(rig):
    turn = uuid4()
    async with rig(lambda voip: None) as far:
        far.voip.post(Message(uuid=turn, data=far.speech(900), done=True))
        early = await far.voip.wait_played(turn, ms=300)
        assert 300 <= early.heard_ms < 900
        last = await far.voip.wait_played(turn)
        assert (last.state, last.heard_ms) == ("played", 900)


async def test_keys_are_told_in_their_order(rig):
    notes = Notes()
    async with rig(notes) as far:
        far.press("12#")
        await until(lambda: len(notes.digits) == 3)
        assert notes.digits == ["1", "2", "#"]


async def test_the_agent_hangs_up_and_the_end_comes_once(rig):
    notes = Notes()
    async with rig(notes) as far:
        await until(lambda: far.voip.state == "live")
        await far.voip.hangup(reason="said_goodbye")
        await far.voip.hangup() if not far.voip.disposed else None
        await until(lambda: notes.ends)
        await far.wait_gone()
        assert [end.reason for end in notes.ends] == ["said_goodbye"]
        assert notes.life[-2:] == ["ended", "over"]


async def test_the_caller_hangs_up_and_what_waits_is_lost(rig):
    notes, turn = Notes(), uuid4()
    async with rig(notes) as far:
        far.voip.post(Message(uuid=turn, data=far.speech(3000), done=True))
        await until(lambda: far.heard_ms() > 100)
        await far.hang_up()
        await until(lambda: notes.ends)
        assert notes.ends[0].reason == "caller_hangup"
        assert [final.state for final in notes.finals(turn)] == ["lost"]
        await far.wait_gone()
        assert len(notes.ends) == 1


async def test_a_stream_that_breaks_comes_back_and_the_call_goes_on(rig):
    notes, first, second = Notes(), uuid4(), uuid4()
    async with rig(notes) as far:
        far.voip.post(Message(uuid=first, data=far.speech(3000), done=True))
        await until(lambda: far.heard_ms() > 100)
        if not far.reconnects:
            await far.caller.drop()
            await until(lambda: notes.ends)
            assert notes.ends[0].reason == "caller_hangup"
            assert notes.finals(first)[0].state == "lost"
            return
        await far.lose_stream()
        await until(lambda: far.voip.state == "live" and far.voip.generation == 2)
        assert notes.life[-2:] == ["lost", "live 2 reconnected"]
        assert notes.finals(first)[0].state == "lost"
        far.voip.post(Message(uuid=second, data=far.speech(300), done=True))
        await until(lambda: second in notes.dispatched)
        clock = [each.at_ms for each in notes.audio]
        assert clock == sorted(clock)


async def test_a_transfer_that_fails_brings_the_caller_back(rig):
    notes, turn = Notes(), uuid4()
    async with rig(notes) as far:
        if not far.transfers:
            with pytest.raises(NotSupportedError):
                await far.voip.transfer_to("+15550100", back_within_s=20.0)
            return
        await far.voip.transfer_to("+15550100", back_within_s=20.0)
        await until(lambda: far.voip.state == "live" and far.voip.generation == 2)
        assert notes.life[-2:] == ["moving", "live 2 transfer_failed"]
        far.voip.post(Message(uuid=turn, data=far.speech(200), done=True))
        await until(lambda: turn in notes.dispatched)
        assert not notes.ends


async def test_a_voip_that_is_disposed_of_ends_its_call(rig):
    async with rig(lambda voip: None) as far:
        far.voip.dispose()
        await far.wait_gone()
        with pytest.raises(StateError):
            await far.voip.hangup()
        far.voip.post(Message(uuid=uuid4(), data=far.speech(100), done=True))
        far.voip.abort(uuid4())


async def test_what_is_posted_after_the_end_is_ignored(rig):
    notes = Notes()
    async with rig(notes) as far:
        await far.hang_up()
        await until(lambda: notes.ends)
        reports = len(notes.reports)
        far.voip.post(Message(uuid=uuid4(), data=far.speech(100), done=True))
        await far.wait_gone()
        assert len(notes.reports) == reports

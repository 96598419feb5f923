"""Warm transfers over Telnyx: the caller hears music while somebody is asked, and is bridged with them or comes back."""

from __future__ import annotations

import asyncio
import wave
from base64 import b64decode
from contextlib import asynccontextmanager
from io import BytesIO

import pytest
from telnyx_phone import CLOCK, house, until

from dialog.agent.agent import Agent
from dialog.audio.level import level_dbfs
from dialog.errors import CallNotAnswered, CarrierError, MissingPublicURL, StateError
from dialog.testing.callee import Callee
from dialog.testing.doubles import HummingTTS, ToldSTT
from dialog.voip.telnyx.rest import HAS_ENDED
from dialog.voip.voip import VoIP

PERSON = "+15550123"
STAYS = Callee(light=True)


class Transfer:
    """A caller on the line of a gateway, and somebody who can be asked."""

    def __init__(self, there, caller):
        self.there, self.caller, self.voip = there, caller, there.voip
        self.started, self.stopped, self.states = [], [], []
        self.voip.on(VoIP.STREAMING_STARTED, self.started.append)
        self.voip.on(VoIP.STREAMING_STOPPED, self.stopped.append)
        self.voip.on(VoIP.TRANSFER, lambda status: self.states.append(status.state))

    async def consult(self, **options):
        async with asyncio.timeout(20):
            return await self.voip.consult(PERSON, **options)

    async def is_asked(self, **options):
        """Somebody was called and talks to us, while the caller waits."""
        asked = await self.consult(**options)
        await asked.wait_answered()
        await until(lambda: asked.state == "live")
        return asked

    def side(self, voip):
        """What Telnyx knows of a call."""
        return self.there.telnyx.legs[voip.call_control_id]

    def done(self, voip):
        """The commands to a call, in their order."""
        return [each.action for each in self.there.telnyx.commands if each.call_control_id == voip.call_control_id]

    async def hangs_up(self, voip):
        await self.there.telnyx._callers[voip.call_control_id].hang_up()

    async def is_back(self):
        await until(lambda: self.voip.state == "live" and self.started)
        assert self.started[0].resumed == "transfer_failed"
        assert self.started[0].generation == 2
        assert [one.reason for one in self.stopped] == ["moving"]
        assert self.states == ["started", "returned"]
        assert self.voip.end is None
        assert self.side(self.voip).playback is None, "no music under the agent's voice"


@asynccontextmanager
async def transferring(callee=STAYS, **options):
    async with house(**options) as there:
        there.telnyx.callees[PERSON] = callee
        async with there.telnyx.dial(light=True) as caller:
            await until(lambda: there.voips and there.voip.state == "live")
            yield Transfer(there, caller)
        await there.telnyx.wait_hung_up()


async def test_the_caller_waits_while_somebody_is_asked_and_then_they_meet():
    async with transferring() as transfer:
        asked = await transfer.is_asked(parameters={"summary": "wants a refund"})
        await until(lambda: transfer.voip.state == "moving" and transfer.stopped)
        assert 175.0 <= transfer.side(transfer.voip).playback["loop"] * 4.0 < 180.0, "as long as they may wait"
        assert asked.metadata.parameter("summary") == "wants a refund"
        assert asked.metadata.parameter("consult_of") == str(transfer.voip.metadata.call_id)
        assert asked.metadata.from_ == transfer.voip.metadata.to
        assert len(transfer.there.voips) == 1, "it is no call for the gateway's listeners"
        await transfer.voip.join(asked)
        await until(lambda: transfer.voip.end is not None and asked.end is not None)
        assert (transfer.voip.end.reason, asked.end.reason) == ("transferred", "transferred")
        assert transfer.voip.end.detail == "", "Telnyx has said so"
        assert transfer.side(transfer.voip).bridged_with is transfer.side(asked)
        assert not transfer.side(asked).over
        await until(lambda: transfer.side(transfer.voip).playback is None)
        assert transfer.done(transfer.voip) == ["answer", "streaming_stop", "playback_start", "bridge", "playback_stop"]
        assert transfer.states == ["started", "answered"]
        await transfer.caller.hang_up()
        await until(lambda: transfer.side(asked).over)
        assert "hangup" not in transfer.there.actions, "they are left alone"


async def test_nobody_has_to_listen_to_the_one_who_is_asked(caplog):
    async with transferring() as transfer:
        asked = await transfer.is_asked()
        await CLOCK.sleep(4.0)
        about = [record.message for record in caplog.records if str(asked.metadata.call_id) in record.message]
        assert not any("nobody listens" in message for message in about)
        await asked.hangup()


async def test_callers_hear_soft_notes_unless_something_else_is_named():
    async with transferring() as transfer:
        asked = await transfer.consult()
        with wave.open(BytesIO(b64decode(transfer.there.fields("playback_start")["playback_content"]))) as music:
            assert (music.getnchannels(), music.getsampwidth(), music.getframerate()) == (1, 2, 8000)
            assert 3.0 < music.getnframes() / music.getframerate() < 6.0
            assert -32.0 < level_dbfs(music.readframes(8000), "s16le") < -22.0
        await asked.hangup()
        await transfer.is_back()
        await transfer.consult(hold_url="https://voice.example/music.mp3")
        asked = transfer.there.fields("playback_start")
        assert asked["audio_url"] == "https://voice.example/music.mp3"
        assert "playback_content" not in asked


async def test_notes_take_the_place_of_what_cannot_be_played_any_more():
    async with transferring() as transfer:
        await transfer.consult(hold_url="https://voice.example/music.mp3")
        side = transfer.side(transfer.voip)
        side.playback = None
        await side.tell("call.playback.ended", status="file_not_found", media_url="https://voice.example/music.mp3")
        await until(lambda: side.playback is not None)
        assert "playback_content" in side.playback
        notes = side.playback
        for status in ("cancelled", "failed"):  # by us; or there is no way to play them
            await side.tell("call.playback.ended", status=status)
        await side.tell("call.playback.ended", status="completed")
        await until(lambda: side.playback is not notes)
        assert transfer.done(transfer.voip).count("playback_start") == 3


async def test_notes_are_played_where_telnyx_refuses_an_address():
    async with transferring() as transfer:
        asked = await transfer.consult(hold_url="music.mp3")
        assert "playback_content" in transfer.side(transfer.voip).playback
        await asked.hangup()
        await transfer.is_back()


async def test_a_caller_whose_music_cannot_be_played_is_helped_all_the_same():
    async with transferring() as transfer:
        transfer.there.telnyx.refuse["playback_start"] = (422, 10015)
        asked = await transfer.is_asked()
        await transfer.voip.join(asked)
        await until(lambda: transfer.voip.end is not None)
        assert transfer.voip.end.reason == "transferred"


@pytest.mark.parametrize(
    ("callee", "reason"),
    [
        (Callee(outcome="busy"), "busy"),
        (Callee(outcome="no-answer", ring_s=0.2), "no_answer"),
        (Callee(outcome="failed"), "failed"),
    ],
)
async def test_whoever_is_not_reached_brings_the_caller_back(callee, reason):
    async with transferring(callee) as transfer:
        asked = await transfer.consult()
        with pytest.raises(CallNotAnswered) as caught:
            await asked.wait_answered()
        assert caught.value.reason == reason
        await transfer.is_back()


async def test_whoever_refuses_is_hung_up_on_and_the_caller_comes_back():
    async with transferring() as transfer:
        asked = await transfer.is_asked()
        await asked.hangup(reason="refused")
        await transfer.is_back()
        assert transfer.side(asked).over


async def test_whoever_hangs_up_brings_the_caller_back():
    async with transferring() as transfer:
        asked = await transfer.is_asked()
        await transfer.hangs_up(asked)
        await transfer.is_back()


async def test_whoever_does_not_decide_is_hung_up_on_and_the_caller_comes_back():
    async with transferring() as transfer:
        asked = await transfer.consult(talk_s=0.5)
        await transfer.is_back()
        assert asked.end.reason == "undecided"


async def test_somebody_else_can_be_asked_after_a_refusal():
    async with transferring() as transfer:
        first = await transfer.is_asked()
        await first.hangup()
        await transfer.is_back()
        second = await transfer.is_asked()
        await transfer.voip.join(second)
        await until(lambda: transfer.voip.end is not None)
        assert transfer.voip.end.reason == "transferred"


async def test_the_next_one_is_asked_when_the_caller_is_back():
    async with transferring() as transfer:
        transfer.there.telnyx.refuse["dial"] = (403, 10010)
        for _ in range(3):
            with pytest.raises(CarrierError, match="place a call"):
                await transfer.consult()
        transfer.there.telnyx.refuse.clear()
        asked = await transfer.is_asked()
        assert transfer.voip.generation == 4, "each time they came back before they were taken away again"
        assert transfer.voip.state == "moving"
        assert transfer.side(transfer.voip).playback is not None
        await transfer.voip.join(asked)
        await until(lambda: transfer.voip.end is not None)
        assert transfer.voip.end.reason == "transferred"


async def test_only_one_is_asked_at_a_time():
    async with transferring() as transfer:
        asked = await transfer.is_asked()
        await until(lambda: transfer.voip.state == "moving")
        with pytest.raises(StateError, match="waits for somebody already"):
            await transfer.consult()
        await transfer.voip.join(asked)
        await until(lambda: transfer.voip.end is not None)
        assert transfer.voip.end.reason == "transferred"


async def test_a_number_that_cannot_be_called_leaves_the_caller_or_brings_them_back():
    async with transferring() as transfer:
        with pytest.raises(CarrierError, match=r"E\.164"):
            await transfer.voip.consult("0123")
        assert transfer.states == ["started", "refused"]
        assert transfer.there.actions == ["answer"]
        transfer.there.telnyx.refuse["dial"] = (403, 10010)
        transfer.states.clear()
        with pytest.raises(CarrierError, match="place a call"):
            await transfer.consult()
        await transfer.is_back()


async def test_a_caller_whom_telnyx_does_not_let_go_stays():
    async with transferring() as transfer:
        transfer.there.telnyx.refuse["streaming_stop"] = (422, 10015)
        with pytest.raises(CarrierError, match="streaming stop"):
            await transfer.consult()
        assert transfer.voip.state == "live"
        assert transfer.states == ["started", "refused"]
        assert transfer.there.actions == ["answer"]


async def test_a_caller_who_leaves_while_waiting_ends_both_calls():
    async with transferring() as transfer:
        asked = await transfer.is_asked()
        await until(lambda: transfer.voip.state == "moving")
        await transfer.caller.hang_up()
        await until(lambda: asked.end is not None and transfer.side(asked).over)
        assert transfer.voip.end.reason == "caller_hangup"
        assert asked.end.reason == "caller_left"


async def test_an_agent_who_hangs_up_leaves_nobody_waiting():
    async with transferring() as transfer:
        asked = await transfer.is_asked()
        await transfer.voip.hangup()
        await until(lambda: asked.end is not None and transfer.side(asked).over and transfer.caller.ended)
        assert (transfer.voip.end.reason, asked.end.reason) == ("agent_hangup", "caller_left")
        assert transfer.done(transfer.voip).count("hangup") == 1


async def test_a_caller_who_waits_for_too_long_is_not_left_with_the_music():
    async with transferring() as transfer:
        asked = await transfer.is_asked()
        transfer.there.gateway.find_call(transfer.voip.metadata.call_id).end("lost", "the caller has waited too long")
        await until(lambda: transfer.caller.ended and transfer.side(asked).over)
        assert transfer.done(transfer.voip).count("hangup") == 1


async def test_a_caller_who_cannot_be_brought_back_is_not_left_with_the_music():
    async with transferring() as transfer:
        asked = await transfer.is_asked()
        transfer.there.telnyx.refuse["streaming_start"] = (422, 10015)
        await asked.hangup(reason="refused")
        await until(lambda: transfer.voip.end is not None and transfer.caller.ended)
        assert transfer.voip.end.reason == "lost"


async def test_a_caller_who_is_not_brought_back_at_first_is_asked_for_again():
    async with transferring() as transfer:
        asked = await transfer.is_asked()
        transfer.there.telnyx.refuse["streaming_start"] = (422, 10015)
        record = transfer.there.gateway._board.record(transfer.voip.metadata.call_id)
        await asked.hangup(reason="refused")
        await until(lambda: record.attempts == 1)
        del transfer.there.telnyx.refuse["streaming_start"]
        await transfer.is_back()


async def test_late_news_of_an_old_stream_leave_a_caller_who_waits():
    async with transferring() as transfer:
        asked = await transfer.is_asked()
        await until(lambda: transfer.voip.state == "moving")
        await transfer.side(transfer.voip).tell("streaming.failed", failure_reason="connection_failed")
        assert "streaming_start" not in transfer.done(transfer.voip)
        await transfer.voip.join(asked)
        await until(lambda: transfer.voip.end is not None)
        assert transfer.voip.end.reason == "transferred"


async def test_whoever_wants_them_to_meet_and_is_gone_leaves_no_music(monkeypatch):
    async with transferring() as transfer:
        asked = await transfer.is_asked()
        rest = transfer.there.gateway._commands.rest
        command = rest.command

        async def never_answered(call, action, fields=None):
            await command(call, action, fields)
            if action == "bridge":
                await asyncio.Event().wait()

        monkeypatch.setattr(rest, "command", never_answered)
        joining = asyncio.create_task(transfer.voip.join(asked))
        await until(lambda: transfer.voip.end is not None)
        joining.cancel()
        await until(lambda: transfer.side(transfer.voip).playback is None)
        assert (transfer.voip.end.reason, asked.end.reason) == ("transferred", "transferred")
        assert "hangup" not in transfer.there.actions


async def test_a_bridge_that_telnyx_refuses_leaves_both_where_they_are():
    async with transferring() as transfer:
        asked = await transfer.is_asked()
        transfer.there.telnyx.refuse["bridge"] = (422, 10015)
        with pytest.raises(CarrierError, match="bridge"):
            await transfer.voip.join(asked)
        assert asked.state == "live"
        assert transfer.side(transfer.voip).playback is not None
        del transfer.there.telnyx.refuse["bridge"]
        await transfer.voip.join(asked)
        await until(lambda: transfer.voip.end is not None)
        assert transfer.voip.end.reason == "transferred"


async def test_whoever_is_gone_when_they_should_meet_brings_the_caller_back():
    async with transferring() as transfer:
        asked = await transfer.is_asked()
        transfer.there.telnyx.late["call.hangup"] = 1.0
        transfer.side(asked).finish("completed")
        with pytest.raises(CarrierError, match=str(HAS_ENDED)):
            await transfer.voip.join(asked)
        await transfer.is_back()


async def test_two_who_have_met_are_transferred_although_nobody_tells(monkeypatch):
    monkeypatch.setattr("dialog.voip.carrier.consulting._JOIN_S", 1.0)
    async with transferring() as transfer:
        asked = await transfer.is_asked()
        transfer.there.telnyx.late["call.bridged"] = 60.0
        await transfer.voip.join(asked)
        await until(lambda: transfer.voip.end is not None)
        assert (transfer.voip.end.reason, asked.end.reason) == ("transferred", "transferred")
        assert transfer.voip.end.detail == "unconfirmed"
        assert "hangup" not in transfer.there.actions
        transfer.there.telnyx.late.clear()
        await transfer.caller.hang_up()
        for job in tuple(transfer.there.telnyx._jobs):
            if job.get_name() == "call.bridged":
                job.cancel()


async def test_only_one_who_was_consulted_can_be_joined():
    async with transferring() as transfer:
        stranger = await transfer.there.gateway.call(PERSON, from_="+15550100")
        with pytest.raises(CarrierError, match="not placed by consult"):
            await transfer.voip.join(stranger)
        assert transfer.voip.state == "live"
        await stranger.hangup()


async def test_asking_somebody_needs_the_application_and_an_address():
    async with transferring(connection_id="") as transfer:
        with pytest.raises(CarrierError, match="TelnyxGateway needs connection_id"):
            await transfer.consult()
        assert transfer.voip.state == "live"
        assert transfer.there.actions == ["answer"]
    async with transferring(webhook_url=None, path="/telnyx") as transfer:
        with pytest.raises(MissingPublicURL, match="consult needs an address"):
            await transfer.consult()
        assert transfer.voip.state == "live"


# With an agent.


class FrontDesk(Agent):
    """Hands everybody over."""

    async def inference(self, message):
        self.warm_transfer_to(PERSON, summary="They want a refund.")
        yield "Please hold the line."


@asynccontextmanager
async def handed_over(**callee):
    agents = []

    def on_voip(voip):
        agents.append(FrontDesk(voip=voip, stt=ToldSTT(), tts=HummingTTS(ms_per_char=10)))
        agents[0].activate()

    async with house(on_voip) as there:
        there.telnyx.callees[PERSON] = Callee(**callee)
        async with there.telnyx.dial() as caller:
            await until(lambda: agents and agents[0].voip.state == "live")
            agents[0].stt.heard("I want a refund")
            yield agents[0], caller
        await there.telnyx.wait_hung_up()


async def test_an_agent_briefs_the_one_who_takes_over_and_is_done():
    async def takes(person):
        await person.wait_for_speech()
        person.press("1")
        await person.wait_ended(timeout_s=60)

    async with handed_over(on_answer=takes) as (agent, caller):
        await until(lambda: agent.voip.end is not None)
        assert agent.voip.end.reason == "transferred"
        assert any("They want a refund. To take it, press 1." in text for text in agent.tts.texts.values())
        await caller.hang_up()


async def test_an_agent_talks_to_the_caller_again_when_nobody_answers():
    async with handed_over(outcome="busy") as (agent, _):
        await until(lambda: agent.voip.generation == 2)
        await until(lambda: any(text.startswith("I'm sorry, nobody can") for text in agent.tts.texts.values()))
        assert agent.voip.end is None

"""Calls that are placed through Telnyx, and the emulator driven by the official client."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import pytest
import telnyx as sdk
from telnyx_phone import CLOCK, house, until

from dialog.audio.g711 import mulaw_encode
from dialog.audio.tones import sine
from dialog.errors import CallNotAnswered, CarrierError, ConfigurationError, MissingPublicURL
from dialog.message import Message
from dialog.testing.callee import Callee
from dialog.testing.server import Faults
from dialog.testing.telnyx import TelnyxEmulator
from dialog.voip.answering import MachineDetection
from dialog.voip.pacing import Pacing
from dialog.voip.voip import VoIP

FROM, TO = "+15550100", "+15550123"
TONE = mulaw_encode(sine(300, 400))


async def test_a_call_is_placed_and_answered():
    heard = []

    async def talk(caller):
        heard.append(await caller.listen(silence_ms=200))

    async with house() as there:
        there.telnyx.callees[TO] = Callee(ring_s=0.4, on_answer=talk)
        progress = []
        voip = await there.gateway.call(TO, from_=FROM, ring_s=20, parameters={"name": "Ada"}, send_digits="ww1")
        voip.on(VoIP.PROGRESS, lambda told: progress.append(told.state))
        assert voip.call_control_id
        asked = there.fields("dial")
        assert (asked["to"], asked["from"], asked["timeout_secs"]) == (TO, FROM, 20)
        assert (asked["connection_id"], asked["command_id"]) == (
            there.telnyx.connection_id,
            str(voip.metadata.call_id),
        )
        assert asked["send_digits_on_answer"] == "ww1"
        assert "answering_machine_detection" not in asked
        answered_by = await voip.wait_answered()
        assert answered_by.who == "unknown"
        assert voip.metadata.parameter("name") == "Ada"
        voip.post(Message(uuid=uuid4(), data=TONE, done=True))
        await until(lambda: voip.end is not None)
        assert voip.end.reason == "caller_hangup"
        assert heard[0].duration_ms > 300
        assert progress[-1] == "answered"
        await there.telnyx.wait_hung_up()
        assert there.actions == ["dial"]


@pytest.mark.parametrize(
    ("callee", "reason"),
    [
        (Callee(outcome="busy"), "busy"),
        (Callee(outcome="no-answer"), "no_answer"),
        (Callee(ring_s=60), "no_answer"),
        (Callee(outcome="failed"), "failed"),
    ],
)
async def test_a_call_that_nobody_takes_says_why(callee, reason):
    async with house() as there:
        there.telnyx.callees[TO] = callee
        voip = await there.gateway.call(TO, from_=FROM, ring_s=5)
        with pytest.raises(CallNotAnswered) as failed:
            await voip.wait_answered()
        assert failed.value.reason == reason
        await until(lambda: not there.gateway.calls)
        assert there.actions == ["dial"]


async def test_a_call_that_rings_is_hung_up():
    async with house() as there:
        there.telnyx.callees[TO] = Callee(ring_s=20)
        voip = await there.gateway.call(TO, from_=FROM)
        await until(lambda: voip.progress == "ringing")
        await voip.hangup(reason="canceled")
        await there.telnyx.wait_hung_up()
        assert there.told("call.hangup")[0].body["data"]["payload"]["hangup_cause"] == "originator_cancel"
        assert there.actions == ["dial", "hangup"]


@pytest.mark.parametrize(
    ("answered_by", "who", "reason"),
    [("human", "human", "caller_hangup"), ("machine_start", "machine", "machine"), ("", "human", "caller_hangup")],
)
async def test_machines_are_hung_up_on(answered_by, who, reason):
    async with house() as there:
        there.telnyx.callees[TO] = Callee(answered_by=answered_by, on_answer=lambda caller: CLOCK.sleep(3))
        detection = MachineDetection(verdict_s=1.0)
        voip = await there.gateway.call(TO, from_=FROM, machine_detection=detection)
        assert there.fields("dial")["answering_machine_detection"] == "detect"
        await until(lambda: voip.end is not None)
        assert voip.answered_by.who == who
        assert voip.answered_by.assumed is (not answered_by)
        assert voip.end.reason == reason


async def test_a_message_is_left_when_the_greeting_is_over():
    async with house() as there:
        there.telnyx.callees[TO] = Callee(answered_by="machine_end_beep", verdict_s=0.5)
        detection = MachineDetection(when_machine="leave_message", message="Please call back.")
        voip = await there.gateway.call(TO, from_=FROM, machine_detection=detection)
        assert there.fields("dial")["answering_machine_detection"] == "greeting_end"
        answered_by = await voip.wait_answered()
        assert (answered_by.who, answered_by.greeting_over, answered_by.then) == ("machine", True, "leave_message")
        await voip.hangup()
        await there.telnyx.wait_hung_up()


async def test_a_call_that_telnyx_refuses_is_told():
    async with house() as there:
        there.telnyx.refuse["dial"] = (403, 10010)
        with pytest.raises(CarrierError, match="may not do this: check its permissions") as failed:
            await there.gateway.call(TO, from_=FROM)
        assert not failed.value.in_doubt
        await until(lambda: not there.gateway.calls)
        assert there.voip.end.reason == "failed"


async def test_a_call_is_placed_when_there_are_fewer_requests():
    async with house(pacing=Pacing(calls_per_s=100)) as there:
        there.telnyx.callees[TO] = Callee()
        there.telnyx.faults = Faults(refuse=429, times=2, refuse_headers={"Retry-After": "0"})
        voip = await there.gateway.call(TO, from_=FROM)
        await voip.wait_answered()
        await voip.hangup()
        await there.telnyx.wait_hung_up()
        assert there.actions.count("dial") == 1


async def test_a_call_whose_answer_was_lost_tells_by_itself():
    async with house() as there:
        there.telnyx.callees[TO] = Callee()
        there.telnyx.answers_lost = 1
        voip = await there.gateway.call(TO, from_=FROM)
        await voip.wait_answered()
        assert there.actions.count("dial") == 1
        await voip.hangup()
        await there.telnyx.wait_hung_up()


async def test_a_call_that_gives_no_sign_is_in_doubt(monkeypatch):
    monkeypatch.setattr("dialog.voip.carrier.outbound._DOUBT_S", 0.05)
    async with house() as there:
        there.telnyx.faults = Faults(refuse=500, times=1)
        with pytest.raises(CarrierError) as failed:
            await there.gateway.call(TO, from_=FROM)
        assert failed.value.in_doubt
        await until(lambda: not there.gateway.calls)


async def test_a_call_that_was_given_up_rings_nobody_for_long(monkeypatch):
    monkeypatch.setattr("dialog.voip.carrier.outbound._DOUBT_S", 0.05)
    async with house() as there:
        there.telnyx.callees[TO] = Callee(ring_s=20)
        there.telnyx.answers_lost = 1
        there.telnyx.late["call.initiated"] = 2.0
        with pytest.raises(CarrierError):
            await there.gateway.call(TO, from_=FROM)
        await there.telnyx.wait_hung_up()
        assert there.actions == ["dial", "hangup"]
        assert there.voip.end.reason == "failed"


async def test_placing_calls_needs_the_application_and_an_address():
    async with house(connection_id="") as there:
        with pytest.raises(ConfigurationError, match="needs connection_id"):
            await there.gateway.call(TO, from_=FROM)
    async with house(webhook_url=None, path="/telnyx") as there:
        with pytest.raises(MissingPublicURL, match="that Telnyx can call back"):
            await there.gateway.call(TO, from_=FROM)


# The emulator is what the official client speaks to


async def test_the_official_client_steers_a_call_of_the_emulator():
    async with house() as there:
        client = sdk.AsyncTelnyx(
            api_key=there.telnyx.api_key, public_key=there.telnyx.public_key, base_url=f"{there.telnyx.url}/v2"
        )
        async with client, there.telnyx.dial() as caller:
            call = caller.call_sid
            status = await client.calls.retrieve_status(call)
            assert status.data.is_alive
            assert status.data.call_control_id == call
            answer = await client.calls.actions.send_dtmf(call, digits="1#")
            assert answer.data.result == "ok"
            with pytest.raises(sdk.UnprocessableEntityError, match="10015"):
                await client.calls.actions.transfer(call, to="nobody")
            for wrong in ({}, {"audio_url": "music.mp3"}, {"audio_url": "https://x/1.mp3", "loop": 0}):
                with pytest.raises(sdk.UnprocessableEntityError, match="10015"):
                    await client.calls.actions.start_playback(call, **wrong)
            await client.calls.actions.start_playback(call, audio_url="https://x/1.mp3", loop="infinity")
            await until(lambda: there.told("call.playback.started"))
            await client.calls.actions.stop_playback(call)
            await until(lambda: there.told("call.playback.ended"))
            with pytest.raises(sdk.UnprocessableEntityError, match="90018"):
                await client.calls.actions.bridge(call, call_control_id_to_bridge_with="v3:nobody")
            await client.calls.actions.start_recording(call, format="wav", channels="dual")
            await client.calls.actions.hangup(call, command_id="once")
            await caller.wait_ended()
            with pytest.raises(sdk.UnprocessableEntityError, match="90018"):
                await client.calls.actions.send_dtmf(call, digits="1")
            await until(lambda: there.told("call.recording.saved"))
            recordings = await client.recordings.list()
            assert len(recordings.data) == 1
        assert not (await _status(there.telnyx, call))


async def _status(telnyx: TelnyxEmulator, call: str) -> bool:
    async with sdk.AsyncTelnyx(api_key=telnyx.api_key, base_url=f"{telnyx.url}/v2") as client:
        return (await client.calls.retrieve_status(call)).data.is_alive


async def test_the_official_client_places_a_call_and_is_refused_without_the_key():
    async with (
        TelnyxEmulator() as telnyx,
        sdk.AsyncTelnyx(api_key=telnyx.api_key, base_url=f"{telnyx.url}/v2", max_retries=0) as client,
    ):
        telnyx.callees[TO] = Callee(outcome="busy")
        telnyx.webhook_url = telnyx.url + "/nobody"
        placed = await client.calls.dial(connection_id=telnyx.connection_id, to=TO, from_=FROM, command_id="1")
        again = await client.calls.dial(connection_id=telnyx.connection_id, to=TO, from_=FROM, command_id="1")
        assert placed.data.call_control_id == again.data.call_control_id
        with pytest.raises(sdk.UnprocessableEntityError):
            await client.calls.dial(connection_id="other", to=TO, from_=FROM)
        with pytest.raises(sdk.AuthenticationError):
            await client.with_options(api_key="other").calls.dial(connection_id=telnyx.connection_id, to=TO, from_=FROM)
        await telnyx.wait_hung_up()


async def test_the_official_client_reads_the_emulators_webhooks(monkeypatch):
    seen = []

    async def post(self, url, body):
        seen.append(body)
        return await original(self, url, body)

    original = TelnyxEmulator._post
    monkeypatch.setattr(TelnyxEmulator, "_post", post)
    async with house() as there:
        async with there.telnyx.dial() as caller:
            await there.voip.start_recording()
            await caller.hang_up()
        await until(lambda: there.told("call.recording.saved"))
        client = sdk.Telnyx(api_key="KEY", public_key=there.telnyx.public_key)
        events = [client.webhooks.unsafe_unwrap(body.decode()).data for body in seen]
        names = {event.event_type: type(event).__name__ for event in events}
        assert set(names) >= {"call.initiated", "call.answered", "streaming.started", "call.hangup"}
        hangup = next(event for event in events if event.event_type == "call.hangup")
        assert hangup.payload.hangup_cause == "normal_clearing"
        saved = next(event for event in events if event.event_type == "call.recording.saved")
        assert saved.payload.recording_urls.wav.startswith(there.telnyx.url)


async def test_many_calls_leave_nothing_behind():
    async with house() as there:

        async def one(number: int) -> None:
            async with there.telnyx.dial(from_=f"+1555123{number:04}") as caller:
                await caller.hang_up()

        await asyncio.gather(*(one(number) for number in range(12)))
        await until(lambda: not there.gateway.calls)
        board = there.gateway._board
        await until(lambda: not board._tasks)
        assert not board._records
        assert not board._sayings
        assert len(there.voips) == 12

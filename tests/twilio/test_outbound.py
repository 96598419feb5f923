"""Calls that a gateway places: how they are announced, answered or not, and ended exactly once."""

import asyncio
from uuid import UUID, uuid4

import pytest
from twilio_phone import outbound_line, until

from dialog.errors import (
    CallNotAnswered,
    CarrierError,
    ConfigurationError,
    LimitError,
    MissingPublicURL,
    StateError,
    UserCodeError,
)
from dialog.message import Message
from dialog.scope import CallScope
from dialog.testing.callee import Callee
from dialog.testing.server import Faults
from dialog.voip.answering import MachineDetection
from dialog.voip.pacing import Pacing
from dialog.voip.twilio import TwilioGateway
from dialog.voip.voip import VoIP

OURS, THEIRS = "+15550100", "+15550123"
ANSWERS = Callee(light=True)


async def place(gateway, to=THEIRS, **options):
    async with asyncio.timeout(10):
        return await gateway.call(to, from_=OURS, **options)


def ends_of(voip):
    ends = []
    voip.on(VoIP.ENDED, ends.append)
    return ends


async def test_a_placed_call_is_told_ringing_and_answered_and_has_a_stream():
    async with outbound_line() as (gateway, account, voips):
        account.callees[THEIRS] = ANSWERS
        states = []
        gateway.on("voip", lambda voip: voip.on(VoIP.PROGRESS, lambda progress: states.append(progress.state)))
        voip = await place(gateway, parameters={"name": "Ada"})
        assert voip is voips[0]
        answered_by = await voip.wait_answered()
        assert answered_by.who == "unknown"
        await until(lambda: voip.state == "live")
        [call] = account.placed
        assert voip.metadata.direction == "outbound"
        assert (voip.metadata.from_, voip.metadata.to) == (OURS, THEIRS)
        assert voip.metadata.parameter("name") == "Ada"
        assert voip.call_sid == call.sid
        assert gateway.get(call.sid) is voip
        assert states[-1] == "answered"
        await until(lambda: len([url for url in call.requested if "/status?" in url]) == 3)
        assert call.form["StatusCallbackEvent"] == "initiated ringing answered completed"
        assert "Url" not in call.form
        await voip.hangup()
        await until(lambda: call.status == "completed")
        assert voip.end.reason == "agent_hangup"
        await until(lambda: not gateway.calls)


async def test_audio_goes_both_ways():
    async with outbound_line() as (gateway, account, voips):
        heard = asyncio.get_running_loop().create_future()

        async def talk(caller):
            await caller.wait_for_speech()
            heard.set_result(caller.first_media_ms)
            caller.press("5")
            await asyncio.sleep(0)

        account.callees[THEIRS] = Callee(on_answer=talk)
        digits = []
        voip = await place(gateway, on_voip=lambda voip: voip.on(VoIP.DTMF, digits.append))
        assert not voips, "it was given to one listener alone"
        turn = uuid4()
        voip.post(Message(uuid=turn, data=b"\x20" * 4000, done=True))  # kept until somebody answers
        async with asyncio.timeout(10):
            await heard
        await until(lambda: digits == ["5"])
        await until(lambda: voip.end is not None)
        assert voip.end.reason == "caller_hangup"


async def test_a_stream_may_start_before_the_request_is_answered():
    async with outbound_line() as (gateway, account, _voips):
        account.callees[THEIRS] = ANSWERS
        account.stream_first = True
        voip = await place(gateway)
        assert voip.state == "live"
        assert voip.generation == 1
        assert len(account.placed) == 1


@pytest.mark.parametrize(("outcome", "reason"), [("busy", "busy"), ("no-answer", "no_answer"), ("failed", "failed")])
async def test_whoever_waits_is_told_why_nobody_answered(outcome, reason):
    async with outbound_line() as (gateway, account, _voips):
        account.callees[THEIRS] = Callee(outcome=outcome, ring_s=0.01)
        voip = await place(gateway)
        ends = ends_of(voip)
        with pytest.raises(CallNotAnswered) as caught:
            await voip.wait_answered()
        assert caught.value.reason == reason
        with pytest.raises(CallNotAnswered):
            await voip.wait_answered()  # also after the end
        assert voip.generation == 0
        await until(lambda: not gateway.calls)
        assert len(ends) <= 1
        assert voip.end.reason == reason


async def test_a_call_that_is_hung_up_while_it_rings_is_canceled():
    async with outbound_line() as (gateway, account, _voips):
        account.callees[THEIRS] = Callee(ring_s=60)
        voip = await place(gateway)
        await until(lambda: voip.progress == "ringing")
        waiting = asyncio.create_task(voip.wait_answered())
        ends = ends_of(voip)
        await voip.hangup()
        with pytest.raises(CallNotAnswered):
            await waiting
        await until(lambda: account.placed[0].status in ("canceled", "completed"))
        assert [end.reason for end in ends] == ["agent_hangup"]


async def test_a_call_that_is_hung_up_before_twilio_has_it_is_hung_up_there_too():
    async with outbound_line() as (gateway, account, _voips):
        account.callees[THEIRS] = Callee(ring_s=60)
        gateway.on("voip", lambda voip: voip.spawn(voip.hangup(), "second thoughts"))
        try:
            await place(gateway)
        except StateError:
            assert not account.placed, "it was ended in time"
        else:
            await until(lambda: account.placed[0].status in ("canceled", "completed"))


async def test_a_number_that_twilio_refuses_is_an_error_and_an_end():
    async with outbound_line() as (gateway, _account, _voips):
        gateway.on("voip", lambda voip: ends.append(ends_of(voip)))
        ends = []
        with pytest.raises(CarrierError) as caught:
            await place(gateway, "sip:nobody@example.test")
        assert caught.value.carrier_code == 21211
        assert [end.reason for end in ends[0]] == ["failed"]
        await until(lambda: not gateway.calls)


async def test_wrong_settings_are_told_before_anything_happens():
    async with outbound_line() as (gateway, account, voips):
        for wrong in (
            {"to": "0123"},
            {"to": THEIRS, "ring_s": 1},
            {"to": THEIRS, "send_digits": "hello"},
            {"to": THEIRS, "send_digits": "1", "machine_detection": MachineDetection()},
        ):
            with pytest.raises(ConfigurationError):
                await place(gateway, **wrong)
        assert not account.placed
        assert not voips


async def test_without_an_address_no_call_is_placed():
    gateway = TwilioGateway(account_sid="AC1", auth_token="x")
    gateway.on("voip", lambda _: None)
    with pytest.raises(MissingPublicURL):
        await gateway.call(THEIRS, from_=OURS)
    await gateway.close()


async def test_a_listener_that_raises_places_no_call():
    def on_voip(_):
        raise RuntimeError("no")

    async with outbound_line(on_voip=on_voip) as (gateway, account, _):
        with pytest.raises(UserCodeError):
            await place(gateway)
        assert not account.placed
        await until(lambda: not gateway.calls)


async def test_a_draining_gateway_places_no_calls():
    async with outbound_line() as (gateway, account, _):
        await gateway.drain(0)
        with pytest.raises(StateError):
            await place(gateway)
        assert not account.placed


async def test_an_answer_of_twilio_that_is_lost_does_not_lose_the_call():
    async with outbound_line() as (gateway, account, _voips):
        account.callees[THEIRS] = Callee(ring_s=0.05)
        account.answers_lost = 1
        voip = await place(gateway)
        await voip.wait_answered()
        assert len(account.placed) == 1
        assert voip.call_sid == account.placed[0].sid


async def test_a_silent_call_of_unknown_fate_is_looked_up_and_not_placed_again(monkeypatch):
    monkeypatch.setattr("dialog.voip.carrier.outbound._DOUBT_S", 0.05)
    async with outbound_line() as (gateway, account, _voips):
        account.answers_lost = 1  # and its telephone gives no sign
        voip = await place(gateway)
        assert len(account.placed) == 1
        assert voip.call_sid == account.placed[0].sid


async def test_a_call_that_was_certainly_not_placed_is_told_so(monkeypatch):
    monkeypatch.setattr("dialog.voip.carrier.outbound._DOUBT_S", 0.05)
    async with outbound_line() as (gateway, account, _voips):
        account.faults = Faults(refuse=500, times=1)
        with pytest.raises(CarrierError) as caught:
            await place(gateway)
        assert not caught.value.in_doubt
        assert not account.placed


async def test_too_many_requests_are_waited_for_as_long_as_twilio_says():
    async with outbound_line() as (gateway, account, _voips):
        account.callees[THEIRS] = ANSWERS
        account.faults = Faults(refuse=429, refuse_headers={"Retry-After": "0"}, times=2)
        asked = []

        async def note():
            asked.append(len(account.placed))

        voip = await place(gateway, before=note)
        assert asked == [0, 0, 0]
        await voip.wait_answered()
        assert len(account.placed) == 1


async def test_no_more_calls_are_there_than_the_account_allows():
    pacing = Pacing(calls_per_s=1000.0, concurrency=1, wait_s=5.0)
    async with outbound_line(pacing=pacing) as (gateway, account, _voips):
        account.any_callee = ANSWERS
        first = await place(gateway)
        second = asyncio.create_task(place(gateway, "+15550124"))
        await first.wait_answered()
        assert len(account.placed) == 1
        await first.hangup()
        await (await second).wait_answered()
        assert len(account.placed) == 2


async def test_a_call_that_waits_too_long_for_its_turn_is_not_placed():
    pacing = Pacing(calls_per_s=1000.0, concurrency=1, wait_s=0.05)
    async with outbound_line(pacing=pacing) as (gateway, account, voips):
        account.any_callee = Callee(ring_s=60)
        await place(gateway)
        with pytest.raises(LimitError):
            await place(gateway, "+15550124")
        assert len(account.placed) == 1
        assert len(voips) == 1


async def test_a_call_that_is_ended_while_too_many_requests_are_waited_for_is_not_placed():
    async with outbound_line() as (gateway, account, voips):
        account.faults = Faults(refuse=429, refuse_headers={"Retry-After": "30"})
        placing = asyncio.create_task(place(gateway))
        await until(lambda: voips and gateway._outbound._pacer.waiting)
        await voips[0].hangup()
        async with asyncio.timeout(5):
            with pytest.raises(StateError, match="ended"):
                await placing
        account.faults = Faults()
        assert voips[0].end.reason == "agent_hangup"
        assert not account.placed
        assert gateway._outbound._pacer.active == gateway._outbound._pacer.waiting == 0


async def test_a_call_that_is_ended_right_before_twilio_is_asked_is_not_placed():
    async with outbound_line() as (gateway, account, voips):
        account.callees[THEIRS] = ANSWERS

        async def before():
            await voips[0].hangup()

        with pytest.raises(StateError):
            await place(gateway, before=before)
        assert not account.placed


async def test_a_call_whose_turn_comes_when_the_gateway_drains_is_not_placed():
    pacing = Pacing(calls_per_s=1000.0, concurrency=1, wait_s=5.0)
    async with outbound_line(pacing=pacing) as (gateway, account, voips):
        account.any_callee = ANSWERS
        first = await place(gateway)
        second = asyncio.create_task(place(gateway, "+15550124"))
        await until(lambda: gateway._outbound._pacer.waiting)
        draining = asyncio.create_task(gateway.drain(5))
        await asyncio.sleep(0)
        await first.hangup()
        with pytest.raises(StateError):
            await second
        assert await draining
        assert len(account.placed) == len(voips) == 1


async def test_a_phone_that_rings_when_the_gateway_closes_rings_no_more():
    async with outbound_line() as (gateway, account, _voips):
        account.callees[THEIRS] = Callee(ring_s=60)
        await place(gateway)
        await until(lambda: account.placed[0].status == "ringing")
        await gateway.close()
        async with asyncio.timeout(5):
            await until(lambda: account.placed[0].status in ("canceled", "completed"))


async def test_a_document_that_is_too_long_for_the_request_is_fetched():
    async with outbound_line(stream_parameters=("a", "b", "c", "d", "e", "f", "g", "h", "i")) as (
        gateway,
        account,
        _voips,
    ):
        account.callees[THEIRS] = ANSWERS
        voip = await place(gateway, parameters={name: name * 450 for name in "abcdefghi"})
        await voip.wait_answered()
        await until(lambda: voip.state == "live")
        assert "Twiml" not in account.placed[0].form


async def test_the_call_id_can_be_given_and_is_used_once():
    async with outbound_line() as (gateway, account, _voips):
        account.callees[THEIRS] = ANSWERS
        call_id = UUID(int=7)
        voip = await place(gateway, call_id=call_id)
        assert voip.metadata.call_id == call_id
        with pytest.raises(StateError):
            await place(gateway, call_id=call_id)
        assert len(account.placed) == 1


# Machines.


async def detected(account, gateway, callee, **detection):
    account.callees[THEIRS] = callee
    voip = await place(gateway, machine_detection=MachineDetection(**detection))
    told = []
    voip.on(VoIP.ANSWERED_BY, told.append)
    return voip, told


async def test_a_person_is_talked_to():
    async with outbound_line() as (gateway, account, _voips):
        voip, _ = await detected(account, gateway, ANSWERS)
        answered_by = await voip.wait_answered()
        assert (answered_by.who, answered_by.then, answered_by.assumed) == ("human", "go_on", False)
        form = account.placed[0].form
        assert form["MachineDetection"] == "Enable"
        assert form["AsyncAmd"] == "true"
        assert form["MachineDetectionTimeout"] == "6"


@pytest.mark.parametrize("verdict", ["machine_start", "fax"])
async def test_a_machine_is_hung_up_on_and_counts_as_not_answered(verdict):
    async with outbound_line() as (gateway, account, _voips):
        voip, _ = await detected(account, gateway, Callee(answered_by=verdict, light=True))
        with pytest.raises(CallNotAnswered) as caught:
            await voip.wait_answered()
        assert caught.value.reason == "machine"
        await until(lambda: account.placed[0].status == "completed")


async def test_a_verdict_that_comes_too_late_is_told_and_changes_nothing():
    async with outbound_line() as (gateway, account, _voips):
        voip, told = await detected(
            account, gateway, Callee(answered_by="machine_start", verdict_s=0.3, light=True), verdict_s=0.05
        )
        answered_by = await voip.wait_answered()
        assert (answered_by.who, answered_by.assumed) == ("human", True)
        await until(lambda: len(told) == 2)
        assert (told[1].who, told[1].late, told[1].then) == ("machine", True, "go_on")
        assert voip.end is None


async def test_a_verdict_that_never_comes_is_assumed():
    async with outbound_line() as (gateway, account, _voips):
        voip, _ = await detected(account, gateway, Callee(answered_by="", light=True), verdict_s=0.05, assume="machine")
        with pytest.raises(CallNotAnswered):
            await voip.wait_answered()
        assert voip.end.reason == "machine"


async def test_whoever_hears_a_verdict_a_recording_or_a_transcript_is_in_the_call():
    async with outbound_line() as (gateway, account, _voips):
        scopes = {}

        def on_voip(voip):
            for event in (VoIP.ANSWERED_BY, VoIP.RECORDING_URL, VoIP.TRANSCRIPT):
                voip.on(event, lambda _, event=event: scopes.setdefault(event, set()).add(CallScope.current()))

        gateway.on("voip", on_voip)
        voip, _ = await detected(account, gateway, ANSWERS)
        await voip.wait_answered()
        await until(lambda: voip.state == "live")
        await voip.start_recording()
        await voip.start_transcription()
        account.transcribe(account.placed[0].sid, "hello")
        scope = gateway.find_call(voip.metadata.call_id).scope
        await voip.hangup()
        await until(lambda: len(scopes) == 3)
        assert set().union(*scopes.values()) == {scope}


async def test_a_machine_that_is_only_told_of_is_talked_to():
    async with outbound_line() as (gateway, account, _voips):
        voip, _ = await detected(
            account, gateway, Callee(answered_by="machine_start", light=True), when_machine="go_on"
        )
        answered_by = await voip.wait_answered()
        assert (answered_by.who, answered_by.then) == ("machine", "go_on")
        assert voip.end is None

"""Warm transfers: the caller waits in a conference while somebody is asked, and meets them or comes back."""

import asyncio
from contextlib import asynccontextmanager, suppress

import pytest
from twilio_phone import ACCOUNT, TOKEN, outbound_line, until

from dialog.agent.agent import Agent
from dialog.errors import CallNotAnswered, CarrierError
from dialog.testing.callee import Callee
from dialog.testing.caller import Caller
from dialog.testing.doubles import HummingTTS, ToldSTT
from dialog.testing.server import Faults
from dialog.voip.pacing import Pacing
from dialog.voip.voip import VoIP

PERSON = "+15550123"
STAYS = Callee(light=True)


class Transfer:
    """A caller on the line of a gateway, and somebody who can be asked."""

    def __init__(self, gateway, account, voips, caller):
        self.gateway, self.account, self.voips, self.caller = gateway, account, voips, caller
        self.voip = voips[0]
        self.started, self.stopped, self.states = [], [], []
        self.voip.on(VoIP.STREAMING_STARTED, self.started.append)
        self.voip.on(VoIP.STREAMING_STOPPED, self.stopped.append)
        self.voip.on(VoIP.TRANSFER, lambda status: self.states.append(status.state))

    async def consult(self, **options):
        async with asyncio.timeout(10):
            return await self.voip.consult(PERSON, **options)

    @property
    def person(self):
        return self.account.placed[-1].phone.caller

    async def is_asked(self):
        """Somebody was called and talks to us, while the caller waits."""
        asked = await self.consult()
        await asked.wait_answered()
        await until(lambda: self.caller.conference is not None and asked.state == "live")
        return asked

    def before_redirects(self, monkeypatch, happens):
        """Let something happen when the next redirect is on its way to Twilio."""
        switchboard = self.gateway._switchboard
        redirect = switchboard.redirect

        async def late(carrier_call_id, document):
            monkeypatch.setattr(switchboard, "redirect", redirect)
            await happens()
            return await redirect(carrier_call_id, document)

        monkeypatch.setattr(switchboard, "redirect", late)

    def redirects(self, monkeypatch, *outcomes, carried_out=False):
        """Let the next redirects have these outcomes, ``None`` for those that succeed, carried out or not."""
        switchboard, coming = self.gateway._switchboard, list(outcomes)
        redirect = switchboard.redirect

        async def unlucky(carrier_call_id, document):
            error = coming.pop(0) if coming else None
            if error is None or carried_out:
                await redirect(carrier_call_id, document)
            if error is not None:
                raise error

        monkeypatch.setattr(switchboard, "redirect", unlucky)

    async def is_gone(self, reason):
        """The caller's call has ended, and nobody is left at the carrier who hears music."""
        async with asyncio.timeout(10):
            await until(lambda: self.voip.end is not None and self.caller.ended)
            await until(lambda: all(call.status == "completed" for call in self.account.placed))
        assert self.voip.end.reason == reason

    async def is_back(self):
        async with asyncio.timeout(10):
            await until(lambda: self.voip.state == "live" and self.started)
        assert self.started[0].resumed == "transfer_failed"
        assert self.started[0].generation == 2
        assert [one.reason for one in self.stopped] == ["moving"]
        assert self.states == ["started", "returned"]
        assert self.voip.end is None
        assert self.caller.conference is None
        assert self.caller.streams == 2


@asynccontextmanager
async def transferring(**settings):
    async with outbound_line(**settings) as (gateway, account, voips):
        account.callees[PERSON] = STAYS
        url = gateway.webhook_url
        async with Caller.dial(url, auth_token=TOKEN, account_sid=ACCOUNT, light=True) as caller:
            account.add_call(
                caller.call_sid,
                on_update=lambda update: caller.update(status=update.status, twiml=update.twiml, url=update.url),
            )
            await until(lambda: voips and voips[0].state == "live")
            yield Transfer(gateway, account, voips, caller)


@pytest.fixture
async def transfer():
    async with transferring() as transfer:
        yield transfer


async def test_the_caller_waits_while_somebody_is_asked_and_then_they_meet(transfer):
    asked = await transfer.consult(parameters={"summary": "wants a refund"})
    assert transfer.voip.state == "moving"
    await asked.wait_answered()
    await until(lambda: asked.state == "live")
    await until(lambda: transfer.caller.conference is not None)
    assert not transfer.caller.conference.started, "the caller hears music"
    assert asked.metadata.parameter("summary") == "wants a refund"
    assert asked.metadata.parameter("consult_of") == str(transfer.voip.metadata.call_id)
    assert len(transfer.voips) == 1, "it is no call for the gateway's listeners"
    await transfer.voip.join(asked)
    await until(lambda: transfer.voip.end is not None and asked.end is not None)
    assert (transfer.voip.end.reason, asked.end.reason) == ("transferred", "transferred")
    assert transfer.caller.conference is transfer.person.conference
    assert len(transfer.caller.conference.participants) == 2
    assert transfer.states == ["started", "answered"]
    await transfer.caller.hang_up()
    await until(lambda: transfer.account.placed[0].status == "completed")


@pytest.mark.parametrize(
    ("callee", "reason"),
    [
        (Callee(outcome="busy"), "busy"),
        (Callee(outcome="no-answer", ring_s=0.05), "no_answer"),
        (Callee(outcome="failed"), "failed"),
    ],
)
async def test_whoever_is_not_reached_brings_the_caller_back(transfer, callee, reason):
    transfer.account.callees[PERSON] = callee
    asked = await transfer.consult()
    with pytest.raises(CallNotAnswered) as caught:
        await asked.wait_answered()
    assert caught.value.reason == reason
    await transfer.is_back()


async def test_whoever_refuses_is_hung_up_on_and_the_caller_comes_back(transfer):
    asked = await transfer.consult()
    await asked.wait_answered()
    await asked.hangup(reason="refused")
    await transfer.is_back()


async def test_whoever_hangs_up_brings_the_caller_back(transfer):
    asked = await transfer.consult()
    await asked.wait_answered()
    await until(lambda: asked.state == "live")
    await transfer.person.hang_up()
    await transfer.is_back()


async def test_whoever_does_not_decide_is_hung_up_on_and_the_caller_comes_back(transfer):
    asked = await transfer.consult(talk_s=0.2)
    await transfer.is_back()
    assert asked.end.reason == "undecided"


async def test_a_number_that_cannot_be_called_brings_the_caller_back(transfer):
    with pytest.raises(CarrierError):
        await transfer.voip.consult("+1")
    with pytest.raises(CarrierError):
        await transfer.voip.consult("sip:nobody@example.test")
    await until(lambda: transfer.voip.state == "live" and transfer.caller.stream is not None)
    assert transfer.voip.end is None


async def test_a_listener_that_raises_brings_the_caller_back(transfer):
    def broken(_):
        raise RuntimeError("no")

    with pytest.raises(CarrierError):
        await transfer.consult(on_voip=broken)
    await until(lambda: transfer.voip.state == "live" and transfer.caller.stream is not None)
    assert transfer.voip.end is None
    assert not transfer.account.placed


async def test_a_caller_who_leaves_while_waiting_ends_both_calls(transfer):
    asked = await transfer.is_asked()
    await transfer.caller.hang_up()
    await until(lambda: asked.end is not None)
    assert transfer.voip.end.reason == "caller_hangup"
    assert asked.end.reason == "caller_left"
    await until(lambda: transfer.account.placed[0].status == "completed")


async def test_an_agent_who_hangs_up_when_the_other_one_is_on_the_way_leaves_nobody_waiting(transfer, monkeypatch):
    asked = await transfer.is_asked()
    transfer.gateway._switchboard.reports.on_conference = lambda *_: None
    await transfer.voip.join(asked)
    await transfer.voip.hangup()
    async with asyncio.timeout(10):
        await until(lambda: asked.end is not None)
        await until(lambda: transfer.account.placed[0].status == "completed")
    assert (transfer.voip.end.reason, asked.end.reason) == ("agent_hangup", "caller_left")


async def test_a_caller_who_leaves_when_the_other_one_is_on_the_way_leaves_nobody_waiting(transfer, monkeypatch):
    asked = await transfer.is_asked()
    transfer.before_redirects(monkeypatch, transfer.caller.hang_up)
    with suppress(CarrierError):
        await transfer.voip.join(asked)
    async with asyncio.timeout(10):
        await until(lambda: transfer.voip.end is not None and asked.end is not None)
        await until(lambda: transfer.account.placed[0].status == "completed")
    assert (transfer.voip.end.reason, asked.end.reason) == ("caller_hangup", "caller_left")


async def test_whoever_hangs_up_on_the_way_to_the_caller_brings_the_caller_back(transfer, monkeypatch):
    asked = await transfer.is_asked()
    transfer.before_redirects(monkeypatch, transfer.person.hang_up)
    with pytest.raises(CarrierError):
        await transfer.voip.join(asked)
    await transfer.is_back()


async def test_a_gateway_that_closes_leaves_nobody_who_brings_a_caller_back(transfer, monkeypatch):
    monkeypatch.setattr("dialog.voip.carrier.consulting._CLOSE_S", 0.05)
    asked = await transfer.consult()
    await asked.wait_answered()
    await until(lambda: asked.state == "live")
    transfer.account.faults = Faults(hang=True)
    await transfer.person.hang_up()
    await until(lambda: asked.end is not None)
    async with asyncio.timeout(20):
        await transfer.gateway._commands.consultations.close()
    transfer.account.faults = Faults()
    assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("bring back")]


async def test_only_one_who_was_consulted_can_be_joined(transfer):
    stranger = await transfer.gateway.call(PERSON, from_="+15550100")
    with pytest.raises(CarrierError, match="not placed by consult"):
        await transfer.voip.join(stranger)
    assert transfer.voip.state == "live"


async def test_somebody_else_can_be_asked_after_a_refusal(transfer):
    first = await transfer.consult()
    await first.wait_answered()
    await first.hangup()
    await transfer.is_back()
    second = await transfer.consult()
    await second.wait_answered()
    await transfer.voip.join(second)
    await until(lambda: transfer.voip.end is not None)
    assert transfer.voip.end.reason == "transferred"


REFUSED = CarrierError("twilio", "CA", "no", status=400)
NO_ANSWER = CarrierError("twilio", "CA", "no answer", in_doubt=True)


async def test_a_caller_who_cannot_be_brought_back_is_not_left_with_the_music(transfer, monkeypatch):
    asked = await transfer.is_asked()
    transfer.redirects(monkeypatch, REFUSED)
    await asked.hangup(reason="refused")
    await transfer.is_gone("lost")


async def test_a_caller_who_waits_for_too_long_is_not_left_with_the_music(transfer):
    await transfer.is_asked()
    transfer.gateway.find_call(transfer.voip.metadata.call_id).end("lost", "the caller has waited too long")
    await transfer.is_gone("lost")


async def test_a_caller_is_asked_back_again_if_no_answer_comes(transfer, monkeypatch):
    asked = await transfer.is_asked()
    transfer.redirects(monkeypatch, NO_ANSWER)
    await asked.hangup(reason="refused")
    await transfer.is_back()


async def test_a_caller_who_is_back_stays_although_the_answer_was_lost(transfer, monkeypatch):
    asked = await transfer.is_asked()
    switchboard = transfer.gateway._switchboard
    redirect = switchboard.redirect
    lost = asyncio.Event()

    async def unheard(carrier_call_id, document):
        await redirect(carrier_call_id, document)
        await until(lambda: transfer.voip.state == "live")
        lost.set()
        raise NO_ANSWER

    monkeypatch.setattr(switchboard, "redirect", unheard)
    await asked.hangup(reason="refused")
    await lost.wait()
    await transfer.is_back()


async def test_a_caller_whose_way_into_the_music_is_in_doubt_comes_back(transfer, monkeypatch):
    transfer.redirects(monkeypatch, NO_ANSWER, carried_out=True)
    with pytest.raises(CarrierError):
        await transfer.consult()
    await transfer.is_back()
    assert not transfer.account.placed


async def test_a_caller_who_was_not_taken_away_stays(transfer, monkeypatch):
    transfer.redirects(monkeypatch, REFUSED)
    with pytest.raises(CarrierError):
        await transfer.consult()
    assert transfer.voip.state == "live"
    assert transfer.states == ["started", "refused"]
    assert not transfer.account.placed
    await transfer.caller.hang_up()
    await until(lambda: transfer.voip.end is not None)
    assert transfer.voip.end.reason == "caller_hangup"


async def test_whoever_gives_up_to_ask_somebody_gets_the_caller_back():
    pacing = Pacing(calls_per_s=1000.0, concurrency=1)
    async with transferring(pacing=pacing) as transfer:
        await transfer.gateway.call(PERSON, from_="+15550100")  # nobody else can be called
        asking = asyncio.create_task(transfer.consult())
        await until(lambda: transfer.caller.conference is not None)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await transfer.is_back()


@pytest.mark.parametrize("carried_out", [True, False])
async def test_whoever_gives_up_at_once_keeps_the_caller_or_gets_them_back(transfer, monkeypatch, carried_out):
    for module in ("lifecycle", "carrier.consulting"):
        monkeypatch.setattr(f"dialog.voip.{module}.DOUBT_S", 0.2)
    switchboard = transfer.gateway._switchboard
    redirect = switchboard.redirect
    asked = asyncio.Event()

    async def never_answered(carrier_call_id, document):
        monkeypatch.setattr(switchboard, "redirect", redirect)
        if carried_out:
            await redirect(carrier_call_id, document)
        asked.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(switchboard, "redirect", never_answered)
    asking = asyncio.create_task(transfer.consult())
    await asked.wait()
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    consultations = transfer.gateway._commands.consultations
    await until(lambda: not consultations._waiting)
    if carried_out:
        await until(lambda: transfer.caller.streams == 2 and transfer.voip.generation == 2)
    assert transfer.voip.state == "live"
    await transfer.caller.hang_up()
    await until(lambda: transfer.voip.end is not None)
    assert transfer.voip.end.reason == "caller_hangup"


async def test_nobody_is_called_for_a_caller_who_has_left_before():
    pacing = Pacing(calls_per_s=1000.0, concurrency=1)
    async with transferring(pacing=pacing) as transfer:
        other = await transfer.gateway.call(PERSON, from_="+15550100")
        asking = asyncio.create_task(transfer.consult())
        await until(lambda: transfer.caller.conference is not None)
        await transfer.caller.hang_up()
        await until(lambda: transfer.voip.end is not None)
        await other.hangup()
        with pytest.raises(CarrierError, match="does not wait any more"):
            await asking
        assert len(transfer.account.placed) == 1


async def test_two_who_have_met_are_transferred_although_nobody_tells(transfer, monkeypatch):
    monkeypatch.setattr("dialog.voip.carrier.consulting._JOIN_S", 0.2)
    transfer.gateway._switchboard.reports.on_conference = lambda *_: None
    asked = await transfer.is_asked()
    await transfer.voip.join(asked)
    await until(lambda: transfer.voip.end is not None)
    assert (transfer.voip.end.reason, asked.end.reason) == ("transferred", "transferred")
    assert transfer.voip.end.detail == "unconfirmed"
    assert len(transfer.caller.conference.participants) == 2, "they talk"
    await transfer.caller.hang_up()
    await until(lambda: transfer.account.placed[0].status == "completed")


async def test_two_whose_meeting_is_in_doubt_are_left_together(transfer, monkeypatch):
    asked = await transfer.is_asked()
    transfer.redirects(monkeypatch, NO_ANSWER, carried_out=True)
    with suppress(CarrierError):
        await transfer.voip.join(asked)
    await until(lambda: transfer.voip.end is not None and asked.end is not None)
    assert (transfer.voip.end.reason, asked.end.reason) == ("transferred", "transferred")
    assert len(transfer.caller.conference.participants) == 2
    await transfer.caller.hang_up()
    await until(lambda: transfer.account.placed[0].status == "completed")


async def test_whoever_is_connected_elsewhere_does_not_keep_the_caller(transfer):
    asked = await transfer.is_asked()
    transfer.gateway.find_call(asked.metadata.call_id).end("transferred")
    await transfer.is_back()
    await transfer.person.hang_up()


async def test_a_caller_who_is_back_is_neither_joined_nor_lost_to_late_news(transfer):
    asked = await transfer.is_asked()
    caller, other = transfer.voip.metadata.call_id, asked.metadata.call_id
    transfer.gateway._switchboard.on_returned(caller)
    with pytest.raises(CarrierError, match="does not wait any more"):
        await transfer.voip.join(asked)
    for event in ("conference-start", "participant-leave"):
        transfer.gateway._switchboard.reports.on_conference(caller, other, event, transfer.caller.call_sid)
    assert transfer.voip.end is None
    await asked.hangup()


# With an agent.


class FrontDesk(Agent):
    """Hands everybody over."""

    briefed = 0

    async def inference(self, message):
        self.warm_transfer_to(PERSON, summary="They want a refund.")
        yield "Please hold the line."

    async def brief(self, voip, summary):
        self.briefed += 1
        return await super().brief(voip, summary)


@asynccontextmanager
async def handed_over(on_answer, **callee):
    """A caller whose agent hands them over to somebody who does ``on_answer``: the agent, and both calls' states."""
    agents = []

    def on_voip(voip):
        agents.append(FrontDesk(voip=voip, stt=ToldSTT(), tts=HummingTTS(ms_per_char=10)))
        agents[0].activate()

    async with outbound_line(on_voip=on_voip) as (gateway, account, _):
        account.callees[PERSON] = Callee(on_answer=on_answer, **callee)
        async with Caller.dial(gateway.webhook_url, auth_token=TOKEN, account_sid=ACCOUNT) as caller:
            account.add_call(
                caller.call_sid,
                on_update=lambda update: caller.update(status=update.status, twiml=update.twiml, url=update.url),
            )
            await until(lambda: agents and agents[0].voip.state == "live")
            agents[0].stt.heard("I want a refund")
            yield agents[0], caller, account


def spoken(agent):
    return list(agent.tts.texts.values())


async def test_an_agent_briefs_the_one_who_takes_over_and_is_done():
    async def takes(person):
        await person.wait_for_speech()
        person.press("1")
        await asyncio.sleep(5)

    async with handed_over(takes) as (agent, caller, account):
        async with asyncio.timeout(15):
            await until(lambda: agent.voip.end is not None)
        assert agent.voip.end.reason == "transferred"
        assert "Please hold the line." in spoken(agent)
        assert any("They want a refund. To take it, press 1." in text for text in spoken(agent))
        assert len(caller.conference.participants) == 2
        await caller.hang_up()
        await account.wait_hung_up()


async def test_an_agent_talks_to_the_caller_again_when_the_other_one_refuses():
    async def refuses(person):
        await person.wait_for_speech()
        person.press("2")
        await person.wait_ended()

    async with handed_over(refuses) as (agent, caller, account):
        await until(lambda: agent.voip.generation == 2)
        await until(lambda: any(text.startswith("I'm sorry, nobody can take") for text in spoken(agent)))
        assert agent.voip.end is None
        assert agent.briefed == 1
        assert account.placed[0].status == "completed"
        heard = await caller.listen()
        assert heard.duration_ms > 100


async def test_an_agent_talks_to_the_caller_again_when_nobody_answers():
    async with handed_over(None, outcome="busy") as (agent, _, account):
        await until(lambda: agent.voip.generation == 2)
        await until(lambda: any(text.startswith("I'm sorry, nobody can take") for text in spoken(agent)))
        assert agent.briefed == 0
        assert account.placed[0].status == "busy"

"""A gateway whose agents run in other processes, dialled over the phone's protocol."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest
from bridges import until

from dialog.errors import UserCodeError
from dialog.testing.callee import Callee
from dialog.testing.caller import Caller
from dialog.voip.admission import Document, Say
from dialog.voip.answering import MachineDetection
from dialog.voip.voip import VoIP
from dialog.workers.hosting import HostingSettings
from dialog.workers.pool import WorkerPool

sys.path.insert(0, str(Path(__file__).parents[1] / "twilio"))
from twilio_phone import ACCOUNT, TOKEN, outbound_line, phone_line

APPS = Path(__file__).parent / "apps"
PATIENT = HostingSettings(admit_s=20.0, answer_s=10.0)
"""Nobody is waited for by a carrier."""


def dial(phone, **more):
    return Caller.dial(phone.url, auth_token=TOKEN, account_sid=ACCOUNT, **more)


def a_pool(app: str = "greeting.py:on_voip", **options) -> WorkerPool:
    return WorkerPool(f"{APPS / app}", **{"processes": 1, **options})


async def test_the_greeting_comes_from_another_process_and_the_call_ends_everywhere():
    workers = a_pool()
    async with phone_line(on_voip=False, workers=workers) as (gateway, phone, _, _):
        assert gateway.ready
        async with dial(phone) as caller:
            heard = await caller.listen()
            assert heard.duration_ms == pytest.approx(600, abs=60)
            assert workers.host.calls[0].worker == "worker-1"
            caller.press("1")  # it hangs up
            await caller.wait_ended()
        assert caller.ended_by == "agent"
        await until(lambda: not gateway.calls)
        await until(lambda: not workers.host.calls)
    assert not gateway.ready


@pytest.mark.parametrize(
    ("when_busy", "verb"),
    [
        (Say("All our lines are busy."), "Say"),
        (Document("<Response><Dial>+15550100</Dial></Response>"), "Dial"),
    ],
)
async def test_without_room_the_caller_is_told_what_the_settings_say(when_busy, verb):
    workers = a_pool(calls_per_process=1, hosting=HostingSettings(admit_s=0.3))
    async with phone_line(on_voip=False, workers=workers, when_busy=when_busy) as (gateway, phone, _, _):
        async with dial(phone) as caller:
            await caller.listen()
            document = await phone.ring("CA" + "9" * 32)
            assert verb in document.verbs
            again = await phone.ring("CA" + "9" * 32)
            assert again.text == document.text, "a repeated webhook is answered alike"
        await until(lambda: not gateway.calls)


async def test_code_that_raises_there_is_an_apology_here():
    workers = a_pool("broken.py:on_voip")
    async with phone_line(on_voip=False, workers=workers) as (gateway, phone, _, _):
        document = await phone.ring()
        assert document.verbs == ["Say", "Hangup"]
        await until(lambda: not gateway.calls)


async def test_a_worker_that_dies_is_not_noticed_by_the_carrier():
    workers = a_pool(processes=2)
    async with phone_line(on_voip=False, workers=workers) as (gateway, phone, _, _):
        await until(lambda: len(workers.host.directory) == 2)
        async with dial(phone) as caller:
            await caller.listen()
            caller.press("3")  # kill -9 of its own process
            # Nobody has acknowledged the key: it is told to one more worker, which dies, too, and to no third one.
            await until(lambda: workers.host.calls[0].handed_over == 2 and workers.host.calls[0].worker, 20.0)
            caller.press("0")
            await caller.listen()
            assert caller.streams == 1
        await until(lambda: not gateway.calls)


async def test_a_placed_call_is_handled_by_another_process_and_told_there_who_answers():
    workers = a_pool(hosting=PATIENT)
    async with outbound_line(on_voip=False, workers=workers) as (gateway, account, _):
        heard = asyncio.get_running_loop().create_future()

        async def talk(caller):
            heard.set_result(await caller.listen())
            caller.press("1")  # it hangs up
            await caller.wait_ended()

        account.callees["+15550123"] = Callee(ring_s=0.05, on_answer=talk)
        voip = await gateway.call("+15550123", from_="+15550100", machine_detection=MachineDetection())
        assert (await voip.wait_answered()).who == "human"
        async with asyncio.timeout(20):
            assert (await heard).duration_ms == pytest.approx(600, abs=60)
        await until(lambda: voip.end is not None)
        assert voip.end.reason == "agent_hangup"
        await until(lambda: not workers.host.calls)


@pytest.mark.parametrize(("outcome", "reason"), [("answers", "answered human"), ("busy", "busy")])
async def test_who_waits_in_the_other_process_is_told_what_became_of_the_call(outcome, reason):
    workers = a_pool("waiting.py:on_voip", hosting=PATIENT)
    async with outbound_line(on_voip=False, workers=workers) as (gateway, account, _):
        account.callees["+15550123"] = Callee(ring_s=0.05, outcome=outcome, light=True)
        voip = await gateway.call(
            "+15550123", from_="+15550100", parameters={"name": "Ada"}, machine_detection=MachineDetection()
        )
        words = []
        voip.on(VoIP.EVENT, lambda event: words.append(event.text))
        await until(lambda: words == [f"Ada: {reason}"])


@pytest.mark.parametrize(("key", "reason"), [("1", "transferred"), ("2", "")])
async def test_somebody_can_be_asked_from_another_process(key, reason):
    workers = a_pool("asking.py:on_voip", hosting=PATIENT)
    async with outbound_line(on_voip=False, workers=workers) as (gateway, account, _):

        async def answer(person):
            await person.wait_for_speech()
            person.press(key)
            await person.wait_ended()

        account.callees["+15550123"] = Callee(on_answer=answer)
        async with Caller.dial(gateway.webhook_url, auth_token=TOKEN, account_sid=ACCOUNT, light=True) as caller:
            account.add_call(
                caller.call_sid,
                on_update=lambda update: caller.update(status=update.status, twiml=update.twiml, url=update.url),
            )
            voip = gateway.get(caller.call_sid)
            caller.press("1")
            if reason:
                await until(lambda: voip.end is not None)
                assert voip.end.reason == reason
                assert len(caller.conference.participants) == 2
                await caller.hang_up()
            else:
                await until(lambda: voip.generation == 2)
                assert voip.end is None
                assert caller.streams == 2


async def test_without_a_worker_no_call_is_placed():
    workers = a_pool("broken.py:on_voip")
    async with outbound_line(on_voip=False, workers=workers) as (gateway, account, _):
        with pytest.raises(UserCodeError):
            await gateway.call("+15550123", from_="+15550100")
        assert not account.placed
        await until(lambda: not gateway.calls)


async def test_draining_declines_new_calls_and_lets_the_others_finish():
    workers = a_pool()
    async with phone_line(on_voip=False, workers=workers) as (gateway, phone, _, _), dial(phone) as caller:
        await caller.listen()
        draining = asyncio.create_task(gateway.drain(20.0))
        await until(lambda: not gateway.ready)
        assert (await phone.ring()).verbs == ["Reject"]
        caller.press("0")
        await caller.listen()
        assert not draining.done()
        await caller.hang_up()
        assert await asyncio.wait_for(draining, 10)


async def test_a_drain_has_a_bound():
    workers = a_pool()
    async with phone_line(on_voip=False, workers=workers) as (gateway, phone, _, _), dial(phone) as caller:
        await caller.listen()
        assert not await gateway.drain(0.2)

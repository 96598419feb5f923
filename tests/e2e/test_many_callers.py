"""A load on a whole house: gateway, agents and providers, with every call accounted for on both sides."""

from __future__ import annotations

import asyncio

import pytest
from house import ACCOUNT, TOKEN, FrontDesk, House

from dialog.testing.load import Limit, Load, LoadPlan
from dialog.voip.admission import Reject
from dialog.voip.voip import VoIP


async def load(house: House, **plan):
    usual = {"url": house.url, "auth_token": TOKEN, "account_sid": ACCOUNT, "calls": 4, "calls_per_s": 4.0, "turns": 2}
    return await Load(LoadPlan(**{**usual, **plan}), clock=house.clock).run()


async def test_what_callers_said_and_heard_is_what_the_agents_heard_and_said():
    async with House(greeting="Hello, what can I do for you?").open() as house:
        report = await load(house)
        await house.all_over()
        assert report.figures.statuses == {"done": 4}, report.outcomes
        assert not report.broken([Limit.parse("failed>0"), Limit.parse("cuts>0"), Limit.parse("unanswered>0")])
        assert {outcome.call_sid for outcome in report.outcomes} == {
            agent.voip.metadata.carrier_call_id for agent in house.agents
        }
        for number in range(4):
            assert [role for role, _ in house.said(number)] == ["assistant", "user", "assistant", "user", "assistant"]
        for outcome in report.outcomes:
            assert (outcome.turns, outcome.replies, outcome.ended_by, outcome.warnings) == (2, 2, "caller", 0)
            assert outcome.first_audio_ms is not None
            assert len(outcome.reply_ms) == 2


async def test_a_gateway_that_is_full_is_told_as_busy():
    async def resolve(_):
        return Reject(reason="busy")

    async with House(resolver=resolve).open() as house:
        report = await load(house)
        assert report.figures.statuses == {"rejected": 4}
        assert report.figures.errors == {"TwiML: Reject busy": 4}


async def test_a_gateway_whose_token_is_another_refuses_the_signatures():
    async with House().open() as house:
        report = await load(house, auth_token="another")
        assert report.figures.errors == {"webhook: HTTP 403": 4}


class Brief(FrontDesk):
    """Says one thing and hangs up."""

    async def inference(self, message) -> None:
        self.dispatch_message("Goodbye.")
        self.hang_up()


async def test_an_agent_that_ends_the_call_when_all_was_said_and_heard_has_done_its_part():
    async with House(kind=Brief, greeting="Hello.").open() as house:
        report = await load(house, turns=1, hang_up="agent")
        assert {(one.status, one.ended_by, one.close_code) for one in report.outcomes} == {("done", "agent", 1000)}
        early = await load(house, turns=2)
        assert early.figures.statuses == {"ended_early": 4}
        await house.all_over()


@pytest.mark.parametrize("hang_up", ["mid-reply", "reset"])
async def test_nothing_is_left_of_calls_that_end_in_the_middle(hang_up):
    async with House(greeting="Hello.").open() as house:
        report = await load(house, hang_up=hang_up)
        assert report.figures.statuses == {"done": 4}
        await house.all_over()
        assert not house.gateway.calls


async def test_a_gateway_that_closes_during_a_load_leaves_no_call_unaccounted():
    async with House(greeting="Hello.").open() as house:
        heard = asyncio.Event()

        def on_voip(voip: VoIP) -> None:
            voip.on(VoIP.MESSAGE_DISPATCHED, lambda _: heard.set())

        house.gateway.on("voip", on_voip)
        loading = asyncio.create_task(load(house, turns=None))
        async with asyncio.timeout(10):
            await heard.wait()
            await house.gateway.close()
            report = await loading
        assert report.figures.ended == len(report.outcomes) == 4
        assert report.figures.failed == 4
        assert {outcome.ended_by for outcome in report.outcomes if outcome.streams} == {"agent"}
        assert sum(report.figures.errors.values()) == 4

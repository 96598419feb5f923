"""How much calls may cost together."""

from __future__ import annotations

import logging
from uuid import UUID, uuid4

import pytest

from dialog.calls.events import CallEnded, CallStarted, UsageReported
from dialog.calls.feed import declined
from dialog.calls.publish import CallEvents
from dialog.calls.spending import SpendLimit, Spent
from dialog.errors import ConfigurationError, LimitError
from dialog.message import CallMetadata
from dialog.usage import Usage
from dialog.voip.admission import Accept, Offer, Reject, Say

CALL = CallMetadata(call_id=UUID(int=1), carrier="twilio", from_="+15550100", to="+15550101")


class House:
    def __init__(self, **limits) -> None:
        self.now = 0.0
        self.events = CallEvents()
        self.limit = SpendLimit(clock=lambda: self.now, **limits)
        self.limit.follow(self.events)

    def call(self, *, seconds: float = 60.0, usd: float | None = None) -> None:
        self.events.publish(
            CALL,
            CallStarted(
                seq=0,
                at_s=0.0,
                call_id=uuid4(),
                carrier="",
                carrier_call_id="",
                from_="",
                to="",
                direction="inbound",
                started_at="",
                agent="FrontDesk",
            ),
        )
        self.events.publish(CALL, UsageReported(seq=1, at_s=1.0, turn=None, usage=Usage(model="m"), cost_usd=usd))
        self.events.publish(CALL, CallEnded(seq=2, at_s=seconds, reason="caller_hangup"))


@pytest.mark.parametrize(
    ("limits", "word"), [({"usd": 1.0}, "USD"), ({"minutes": 4.0}, "minutes"), ({"calls": 2}, "calls")]
)
async def test_once_too_much_was_spent_no_call_is_taken_until_that_is_over(limits, word, caplog):
    caplog.set_level(logging.ERROR)
    house = House(**limits)
    resolve = house.limit.resolver()
    house.call(seconds=120, usd=0.5)
    assert await resolve(Offer(CALL)) == Accept()
    house.limit.check()
    house.now = 3600.0
    house.call(seconds=120, usd=0.5)
    assert await resolve(Offer(CALL)) == Reject("busy")
    with pytest.raises(LimitError, match=word):
        await house.limit.before()
    house.call()
    assert caplog.text.count("no more calls") == 1
    house.now = 86_400.0 + 1
    assert house.limit.spent.calls == 2
    house.now = 86_400.0 + 3601
    assert house.limit.spent == Spent()
    house.limit.check()


async def test_calls_that_were_declined_do_not_keep_the_door_shut():
    house = House(calls=1)
    house.call()
    for house.now in range(3600, 30 * 3600, 3600):  # somebody tries again and again
        if await house.limit.resolver()(Offer(CALL)) == Accept():
            break
        declined(house.events, CALL, "busy")
    assert house.now == 24 * 3600
    assert house.limit.spent == Spent()


async def test_another_resolver_is_asked_while_there_is_something_left():
    house = House(calls=1)

    async def resolver(offer: Offer):
        return Say("Hello.")

    resolve = house.limit.resolver(resolver, when_spent=Say("We are closed."))
    assert await resolve(Offer(CALL)) == Say("Hello.")
    house.call()
    assert await resolve(Offer(CALL)) == Say("We are closed.")


@pytest.mark.parametrize("limits", [{}, {"usd": 0}, {"calls": -1}, {"calls": 1, "window_s": 0}])
def test_a_limit_that_limits_nothing_is_none(limits):
    with pytest.raises(ConfigurationError):
        SpendLimit(**limits)

"""Whom calls may reach: what the settings allow, and that nobody gets round them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dialog.clock import Clock
from dialog.errors import ConfigurationError, DestinationRefused
from dialog.voip.call import CallSettings
from dialog.voip.destinations import ANYWHERE, Destinations
from dialog.voip.memory import MemoryCarrier, MemoryLine, memory_call
from dialog.voip.voip import VoIP

HOUSE = Destinations(allow=("+1*", "+4930123456", "2*", "sip:*@pbx.example"), deny=("+1900*", "+1 (555) 999-*"))


@pytest.mark.parametrize(
    "to",
    [
        "+15550100",
        "+1 555-0100",
        "+4930123456",
        "200",
        "2",
        "sip:sales@pbx.example",
        "SIP:Sales@PBX.example;user=phone",
    ],
)
def test_what_is_allowed_may_be_reached(to):
    assert HOUSE.permits(to)


@pytest.mark.parametrize(
    "to",
    [
        "",
        "+19005550100",
        "+1 900 555 0100",
        "+15559990000",
        "+49301234567",
        "+4930",
        "0015550100",
        "300",
        "15550100",
        "sip:sales@evil.example",
        "sip:sales@evil.example;x=@pbx.example",
        "sip:sales@evil.example?Replaces=a@pbx.example",
        "sip:@pbx.example.evil.example",
        "sips:sales@pbx.example",
        "client:anybody",
        "+1555\n0100",
    ],
)
def test_nothing_else_may(to):
    assert not HOUSE.permits(to)


def test_a_line_end_gets_nobody_round_what_is_denied():
    assert not Destinations(deny=("sip:*@evil.example",)).permits("sip:a\n@evil.example")
    assert not Destinations(deny=("+1900*",)).permits("+1900\n5550100")


@given(st.text(max_size=40))
def test_by_default_everybody_may_and_with_an_empty_list_nobody(to):
    assert ANYWHERE.permits(to)
    assert not Destinations(allow=()).permits(to)


def test_an_empty_entry_is_no_setting():
    with pytest.raises(ConfigurationError):
        Destinations(allow=("+1*", " "))


async def test_transfers_consultations_and_messages_are_refused_where_the_line_is():
    carrier, clock, transfers = MemoryCarrier(), Clock(), []
    call, line = memory_call(
        lambda voip: voip.on(VoIP.TRANSFER, transfers.append),
        clock=clock,
        carrier=carrier,
        line=MemoryLine(clock=clock),
        settings=CallSettings(destinations=HOUSE, settle_s=0.1),
    )
    voip = call.voip
    for attempt in (
        voip.transfer_to("+19005550100"),
        voip.consult("+19005550100"),
        voip.send_sms("hello", to="+19005550100"),
    ):
        with pytest.raises(DestinationRefused) as caught:
            await attempt
        assert "1900" not in str(caught.value)
    assert not carrier.commands
    assert call.state == "live"
    assert [each.state for each in transfers] == ["started", "refused", "started", "refused"]
    await voip.send_sms("hello", to="+15550100")
    await voip.transfer_to("+15550100")
    assert [type(command).__name__ for command in carrier.commands] == ["SendSMS", "TransferTo"]
    await call.wait_closed()
    await line.wait_closed()

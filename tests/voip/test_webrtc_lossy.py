"""WebRTC on a bad network: one datagram in twenty is lost, each way, and each is up to 40 ms late, out of order if need be.

The kernel can do the same (tc's netem), but not every kernel; here it happens where a datagram is received.
"""

from __future__ import annotations

import asyncio
import random
from contextlib import asynccontextmanager
from math import sqrt
from types import SimpleNamespace

import pytest
import test_voip_conformance as conformance
from aioice.ice import StunProtocol
from rigs import _web

from dialog.clock import SYSTEM_CLOCK
from dialog.message import PCM_24K
from dialog.testing.webrtc import RtcCaller

LOSS = 0.05
JITTER_S = 0.04


@pytest.fixture
def network(monkeypatch):
    """What became of the datagrams."""
    chance = random.Random(5)
    seen = SimpleNamespace(lost=0, late=0)
    take = StunProtocol.datagram_received

    def received(self, data, address):
        if chance.random() < LOSS:
            seen.lost += 1
            return
        seen.late += 1
        asyncio.get_running_loop().call_later(chance.uniform(0.0, JITTER_S), take, self, data, address)

    monkeypatch.setattr(StunProtocol, "datagram_received", received)
    return seen


@asynccontextmanager
async def lossy(on_voip):
    async with _web(on_voip, PCM_24K, caller_class=RtcCaller, clock=SYSTEM_CLOCK) as far:
        far.slack_ms = 600.0
        yield far


@pytest.mark.alone
@pytest.mark.parametrize(
    "scenario",
    [
        conformance.test_the_caller_is_heard_without_gaps_on_one_clock,
        conformance.test_audio_is_played_to_its_end_and_reported_once,
        conformance.test_an_aborted_turn_falls_silent_and_is_not_dispatched,
        conformance.test_a_pause_is_silence_and_nothing_is_lost_by_it,
        conformance.test_keys_are_told_in_their_order,
        conformance.test_the_agent_hangs_up_and_the_end_comes_once,
    ],
    ids=lambda scenario: scenario.__name__.removeprefix("test_"),
)
async def test_a_call_goes_on_where_packets_are_lost(scenario, network):
    await scenario(lossy)
    assert network.lost > 0
    datagrams = network.lost + network.late
    deviation = sqrt(datagrams * LOSS * (1 - LOSS))  # a short call is a few dozen of them
    assert network.lost == pytest.approx(datagrams * LOSS, abs=5 * deviation)

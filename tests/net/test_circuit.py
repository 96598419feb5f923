"""A circuit opens after failures, and a probe closes it again. Pure: time is given."""

from __future__ import annotations

import asyncio

import pytest

from dialog.errors import ConfigurationError
from dialog.net.circuit import Circuit, chain_circuits, shared_circuit


def test_it_opens_after_failures_in_a_row_only():
    circuit = Circuit(failures=2)
    assert not circuit.failed(0.0)
    assert not circuit.succeeded()
    assert not circuit.failed(1.0)
    assert circuit.closed
    assert circuit.failed(2.0)
    assert not circuit.closed
    assert not circuit.failed(3.0), "it was open already"


def test_what_is_hopeless_opens_it_at_once():
    circuit = Circuit(failures=5)
    assert circuit.failed(0.0, hopeless=True)
    assert repr(circuit) == "<Circuit open, 1 failures>"


def test_one_probe_at_a_time_and_each_failure_doubles_the_wait_up_to_a_limit():
    circuit = Circuit(failures=1, probe_after_s=10)
    now = 100.0
    circuit.failed(now)
    waits = []
    for _ in range(6):
        since = now
        while not circuit.due(now):
            now += 1
        waits.append(now - since)
        assert not circuit.due(now + 1000), "somebody is at it"
        circuit.failed(now)
    assert waits == [10, 20, 40, 80, 80, 80]
    assert not circuit.closed
    assert circuit.succeeded()
    circuit.failed(now)
    assert not circuit.due(now + 9)
    assert circuit.due(now + 10), "after a success the first wait is the short one again"


def test_a_probe_that_was_given_up_is_due_at_once():
    circuit = Circuit(failures=1, probe_after_s=10)
    circuit.abandoned()
    assert circuit.closed
    circuit.failed(0.0)
    assert circuit.due(10.0)
    circuit.abandoned()
    assert circuit.due(10.0)


@pytest.mark.parametrize("settings", [{"failures": 0}, {"probe_after_s": 0}])
def test_wrong_settings_are_refused(settings):
    with pytest.raises(ConfigurationError):
        Circuit(**settings)


async def test_providers_of_one_identity_share_a_circuit_in_their_loop():
    one = shared_circuit(("a", "m"), failures=2, probe_after_s=5)
    assert shared_circuit(("a", "m"), failures=2, probe_after_s=5) is one
    assert shared_circuit(("b", "m"), failures=2, probe_after_s=5) is not one
    assert shared_circuit(("a", "m"), failures=3, probe_after_s=5) is not one
    assert shared_circuit(None, failures=2, probe_after_s=5) is not shared_circuit(None, failures=2, probe_after_s=5)
    others = []

    def another_loop() -> None:
        async def ask() -> None:
            others.append(shared_circuit(("a", "m"), failures=2, probe_after_s=5))

        asyncio.run(ask())

    await asyncio.to_thread(another_loop)
    assert others[0] is not one


async def test_members_of_a_chain_have_a_circuit_each_and_share_it_with_other_calls():
    identities = ["a", "b", "a", None]
    first = chain_circuits(identities, failures=2, probe_after_s=5)
    assert len(set(map(id, first))) == 4
    second = chain_circuits(identities, failures=2, probe_after_s=5)
    assert [one is other for one, other in zip(first, second, strict=True)] == [True, True, True, False]


async def test_circuits_that_nobody_wanted_lately_are_forgotten():
    first = shared_circuit("first", failures=2, probe_after_s=5)
    kept = shared_circuit("kept", failures=2, probe_after_s=5)
    for number in range(300):
        shared_circuit(number, failures=2, probe_after_s=5)
        assert shared_circuit("kept", failures=2, probe_after_s=5) is kept
    assert shared_circuit("first", failures=2, probe_after_s=5) is not first

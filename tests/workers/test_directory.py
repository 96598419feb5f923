"""Which worker takes a call."""

from __future__ import annotations

from dialog.workers.directory import Directory
from dialog.workers.frames import Heartbeat, Hello


def directory(**capacities: int) -> Directory:
    made = Directory()
    for node, capacity in capacities.items():
        made.greeted(node, Hello(1, capacity), 0.0)
    return made


def test_the_least_loaded_worker_for_its_size_takes_a_call():
    known = directory(small=10, large=100)
    known.heard("small", 1.0, Heartbeat(calls=2))
    known.heard("large", 1.0, Heartbeat(calls=10))
    assert known.choose() == "large"


def test_offers_between_two_heartbeats_count():
    known = directory(a=2, b=2)
    known.heard("b", 1.0, Heartbeat(calls=1))
    known.offered("a", 1.0)
    known.offered("a", 1.0)
    assert known.choose() == "b"
    known.offered("b", 1.0)
    assert known.choose() is None


def test_calls_of_other_hosts_count_once_they_are_reported():
    known = directory(a=2)
    known.offered("a", 1.0)
    known.heard("a", 2.0, Heartbeat(calls=2))
    assert known.choose() is None
    known.heard("a", 3.0, Heartbeat(calls=1))
    assert known.choose() == "a"


def test_a_call_that_has_ended_frees_its_slot_though_it_waits_for_a_recording():
    known = directory(a=1)
    known.offered("a", 1.0)
    known.heard("a", 2.0, Heartbeat(calls=1))
    known.ended("a")
    known.heard("a", 3.0, Heartbeat(calls=0))
    assert known.choose() == "a"
    worker = known.get("a")
    assert worker is not None
    assert worker.held == 1


def test_only_workers_with_all_labels_are_chosen():
    known = Directory()
    known.greeted("plain", Hello(1, 10), 0.0)
    known.greeted("german", Hello(1, 10, ("de", "gpu")), 0.0)
    known.heard("german", 1.0, Heartbeat(calls=9))
    assert known.choose(("de",)) == "german"
    assert known.choose(("de", "fr")) is None


def test_those_that_drain_or_are_retired_get_no_more_calls():
    known = directory(a=10, b=10)
    known.heard("a", 1.0, Heartbeat(draining=True))
    assert known.choose() == "b"
    worker = known.get("b")
    assert worker is not None
    worker.retired = True
    assert known.choose() is None


def test_of_equal_workers_the_one_whose_loop_is_on_time_is_chosen():
    known = directory(a=10, b=10)
    known.heard("a", 1.0, Heartbeat(lag_ms=80.0))
    known.heard("b", 1.0, Heartbeat(lag_ms=2.0))
    assert known.choose() == "b"


def test_silence_is_noticed_sooner_of_those_that_have_calls():
    known = directory(busy=10, idle=10)
    known.offered("busy", 1.0)
    assert known.silent(2.1, 1.0, idle_s=3.0) == ["busy"]
    assert set(known.silent(3.1, 1.0, idle_s=3.0)) == {"busy", "idle"}
    known.forgive(3.1)
    assert known.silent(3.2, 1.0, idle_s=3.0) == []

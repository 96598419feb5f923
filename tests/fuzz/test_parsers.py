"""No parser of what comes from the network raises what it has not announced: a short look, in every run.

``make fuzz`` looks for longer, and guided by coverage. What either finds is mended, and stays in ``corpus/``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from targets import BETWEEN, CORPUS, TARGETS, seeds

SHORT = settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
JUNK = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just([]) | st.just({})
WILD = st.sampled_from(
    [2**63, "9" * 5000, -(2**64), 1e308, "1e999", "\0", "x" * 5000, [[[[]]]], {"": {"": 1}}, [None], "\ud800"]
)


def _is_object(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


JSON = {
    name: messages
    for name in TARGETS
    if (messages := [json.loads(line) for data in seeds(name) for line in data.split(BETWEEN) if _is_object(line)])
}
"""The examples that are JSON by themselves."""


@pytest.mark.parametrize("name", TARGETS)
def test_the_examples_are_read(name: str) -> None:
    found = seeds(name)
    assert found, f"{name} has no example in tests/fuzz/corpus"
    for data in found:
        TARGETS[name](data)


def test_every_example_is_of_a_parser() -> None:
    assert {path.name for path in CORPUS.iterdir()} == set(TARGETS)
    assert all(path.stat().st_size < 20_000 for path in CORPUS.rglob("*"))


@pytest.mark.parametrize("name", TARGETS)
def test_bytes_that_were_changed_on_their_way_cost_nothing_else(name: str) -> None:
    @SHORT
    @given(st.sampled_from(seeds(name)), st.lists(st.tuples(st.integers(0, 2000), st.binary(max_size=6)), max_size=4))
    def check(data: bytes, changes: list[tuple[int, bytes]]) -> None:
        for where, noise in changes:
            at = where % (len(data) + 1)
            data = data[:at] + noise + data[at + len(noise) // 2 :]
        TARGETS[name](data)

    check()


@pytest.mark.parametrize("name", JSON)
def test_json_in_which_a_value_is_another_costs_nothing_else(name: str) -> None:
    messages = JSON[name]

    @SHORT
    @given(st.lists(st.tuples(st.sampled_from(messages), st.integers(0, 500), JUNK | WILD), min_size=1, max_size=6))
    def check(changed: list[tuple[Any, int, Any]]) -> None:
        lines = [_replaced(message, at, value) for message, at, value in changed]
        TARGETS[name](BETWEEN.join(json.dumps(line).encode() for line in lines))

    check()


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("data", [b"", b"\0", b"[" * 20_000, b'{"a":' * 20_000, b"\xff" * 3000, b"9" * 10_000])
def test_what_is_no_message_at_all_costs_nothing_else(name: str, data: bytes) -> None:
    TARGETS[name](data)


def _replaced(value: Any, at: int, by: Any) -> Any:
    """The same, but for its leaf (or branch) number ``at``, modulo how many it has."""
    places = list(_places(value))
    if not places:
        return by
    path = places[at % len(places)]
    copy = json.loads(json.dumps(value))
    inside = copy
    for key in path[:-1]:
        inside = inside[key]
    inside[path[-1]] = by
    return copy


def _places(value: Any, path: tuple[Any, ...] = ()) -> Any:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*path, key)
        yield from _places(inner, (*path, key))


def test_the_make_target_names_this_folder() -> None:
    assert "tests/fuzz/fuzz.py" in (Path(__file__).parents[2] / "Makefile").read_text()

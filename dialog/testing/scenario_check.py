"""Judges an outcome: what of the expectations did not come true."""

from __future__ import annotations

import re

from dialog.calls.events import UsageReported
from dialog.testing.scenario import Expect
from dialog.testing.scenario_outcome import Outcome, tag_of

__all__ = ["check"]

_PARTIAL = ("drop", "cut")


def check(expect: Expect, outcome: Outcome) -> list[str]:
    """Everything that is not as expected, a sentence each; empty: it passed."""
    problems = list(outcome.problems)
    _check_words(expect, outcome, problems)
    _check_counts(expect, outcome, problems)
    _check_times(expect, outcome, problems)
    if not re.fullmatch(expect.ends, outcome.end_reason):
        problems.append(f"the call ended with {outcome.end_reason or 'nothing'!r}, not {expect.ends!r}")
    if outcome.count("call.ended") != 1:
        problems.append(f"the call's end was reported {outcome.count('call.ended')} times")
    if expect.errors is not None and outcome.errors != sorted(expect.errors):
        problems.append(f"errors {outcome.errors}, not {sorted(expect.errors)}")
    return problems


def _matches(pattern: str, text: str) -> bool:
    return re.fullmatch(pattern, text, re.IGNORECASE | re.DOTALL) is not None


def _check_words(expect: Expect, outcome: Outcome, problems: list[str]) -> None:
    if expect.history is not None:
        lines = [line for line in outcome.history if not line.startswith(("system: You are", "call "))]
        if len(lines) != len(expect.history) or not all(map(_matches, expect.history, lines)):
            problems.append(f"history is {lines}, not {list(expect.history)}")
    at = 0
    for pattern in expect.heard:
        found = re.compile(pattern, re.IGNORECASE).search(outcome.transcript, at)
        if found is None:
            problems.append(f"the caller did not hear {pattern!r} (any more) in {outcome.transcript!r}")
            break
        at = found.end()
    problems += [
        f"the caller heard {pattern!r}"
        for pattern in expect.unheard
        if re.search(pattern, outcome.transcript, re.IGNORECASE)
    ]
    for part in outcome.parts:
        if part.word_diff > expect.word_diff:
            problems.append(f"part {part.part}: the line played {part.played}, the agent believes {part.believed}")
    repeated = sum(part.repeated + part.missed for part in outcome.parts)
    if repeated > expect.repeated:
        problems.append(f"{repeated} words were heard twice or left out in the middle")


def _check_counts(expect: Expect, outcome: Outcome, problems: list[str]) -> None:
    wanted = outcome.asked if expect.answered is None else expect.answered
    if outcome.answered != wanted:
        problems.append(f"{outcome.answered} of {outcome.asked} times an answer was heard, not {wanted}")
    if expect.tools is not None and tuple(outcome.tools) != expect.tools:
        problems.append(f"tools {outcome.tools}, not {list(expect.tools)}")
    for count, tag in (
        (expect.interruptions, "agent.interrupted"),
        (expect.false_interruptions, "agent.resumed"),
        (expect.dropped, "agent.dropped"),
    ):
        if count is not None and outcome.count(tag) != count:
            problems.append(f"{outcome.count(tag)} times {tag}, not {count}")
    tags = iter([tag_of(event) for event in outcome.events])
    for tag in expect.events:
        if tag not in tags:
            problems.append(f"no event {tag} (any more)")
            break
    used = [event.usage for event in outcome.events if isinstance(event, UsageReported)]
    if not expect.finishes and any(usage.output_tokens for usage in used):
        problems.append("the model came to the end of a reply")


def _check_times(expect: Expect, outcome: Outcome, problems: list[str]) -> None:
    for what, values, limit in (
        ("answered only after", outcome.latencies_ms, expect.latency_ms),
        ("dead air of", outcome.dead_air_ms, expect.dead_air_s * 1000),
        ("went on speaking over an interruption for", outcome.stops_ms, expect.stops_ms),
        ("spoke into the caller's words for", outcome.overlaps_ms, expect.overlap_ms),
        ("silent after a false interruption for", outcome.resumes_ms, expect.resume_ms),
    ):
        if values and limit is not None and max(values) > limit:
            problems.append(f"{what} {max(values):.0f} ms (at most {limit:.0f})")

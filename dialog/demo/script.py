"""What the simulated caller says, and when: the demo's own script, and scripts in files.

A script file has one sentence of the caller a line::

    # the caller waits for the greeting to end, then asks
    what are your opening hours on friday
    what can you do for me
    ! one moment i have a question
    goodbye and thank you for your help

A plain sentence is said when the agent has finished. One behind ``!`` interrupts: it is said over the
agent's answer, 1.5 s after that began; ``! 800 wait a moment please`` says it after 800 ms. Empty
lines and what follows a ``#`` are ignored.
"""

from __future__ import annotations

import re

from msgspec import Struct

from dialog.errors import ConfigurationError

__all__ = ["DEMO_SCRIPT", "Step", "parse_script"]

_BARGE_IN_MS = 1500.0
_LONGEST_LINE = 500
_MOST_STEPS = 200
_INTERRUPTION = re.compile(r"!\s*(?:(\d{1,5})(?:\s+|$))?(.*)")


class Step(Struct, frozen=True, kw_only=True):
    """One sentence of the caller, and what is to come of it."""

    say: str
    barge_in_ms: float | None = None
    """``None``: once the agent has finished. Else so long after the agent began to speak, over its words."""


DEMO_SCRIPT: tuple[Step, ...] = (
    Step(say="what are your opening hours on friday"),
    Step(say="i would like to book a table for four people on friday at seven thirty"),
    Step(say="what can you do for me"),
    Step(say="one moment i have a question", barge_in_ms=_BARGE_IN_MS),
    Step(say="is there parking near the restaurant"),
    Step(say="goodbye and thank you for your help"),
)
"""A question that calls a tool, a booking, an interruption of a long answer, a question, a goodbye."""


def parse_script(text: str) -> tuple[Step, ...]:
    """The steps of a script's text.

    Raises:
        ConfigurationError: There is no sentence, a ``!`` has none behind it, or
            the script is too long; the message names the line.
    """
    steps: list[Step] = []
    for number, raw in enumerate(text.splitlines(), 1):
        line = " ".join(raw.split("#", 1)[0].split())
        if not line:
            continue
        if len(line) > _LONGEST_LINE:
            raise ConfigurationError(f"script, line {number}: longer than {_LONGEST_LINE} characters")
        barge_in_ms = None
        if match := _INTERRUPTION.fullmatch(line):
            barge_in_ms = float(match[1]) if match[1] else _BARGE_IN_MS
            line = match[2].strip()
            if not line:
                raise ConfigurationError(f"script, line {number}: nothing to say behind the '!'")
        steps.append(Step(say=line, barge_in_ms=barge_in_ms))
        if len(steps) > _MOST_STEPS:
            raise ConfigurationError(f"script: more than {_MOST_STEPS} sentences")
    if not steps:
        raise ConfigurationError("script: no sentence in it")
    return tuple(steps)

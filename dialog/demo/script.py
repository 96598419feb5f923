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
from pathlib import Path

from msgspec import Struct

from dialog.demo.phrases import GRAMMAR
from dialog.errors import ConfigurationError
from dialog.stt.pocketsphinx import UNCLEAR

__all__ = ["DEMO_SCRIPT", "Step", "parse_script", "read_script"]

_LONGEST_LINE = 500
_MOST_STEPS = 200
_INTERRUPTION = re.compile(r"!\s*(?:(\d{1,5})\s+)?(.*)")
_WORD = re.compile(r"[a-z']+")


class Step(Struct, frozen=True, kw_only=True):
    """One sentence of the caller, and what is to come of it."""

    say: str
    interrupts: bool = False
    """Said over the agent's words, and not once they are over."""
    after_ms: float = 1500.0
    """An interruption: so long after the agent began to speak."""
    understood: str | None = None
    """What the agent is to understand; ``None``: the very words."""
    tool: str = ""
    """The tool that it is to lead to."""


DEMO_SCRIPT: tuple[Step, ...] = (
    Step(say="what are your opening hours on friday", tool="opening_hours"),
    Step(say="i would like to book a table for four people on friday at seven thirty", tool="book_table"),
    Step(say="what can you do for me"),
    Step(say="one moment i have a question", interrupts=True),
    Step(say="is there parking near the restaurant"),
    Step(say="goodbye and thank you for your help", tool="end_call"),
)
"""A question that calls a tool, a booking, an interruption of a long answer, a question, a goodbye."""


def parse_script(text: str) -> tuple[Step, ...]:
    """The steps of a script's text. What the front desk cannot understand is expected to be unclear to it.

    Raises:
        ConfigurationError: There is no sentence, a ``!`` has none behind it, or
            the script is too long; the message names the line.
    """
    sentences = frozenset(GRAMMAR.sentences)
    steps: list[Step] = []
    for number, raw in enumerate(text.splitlines(), 1):
        line = " ".join(raw.split("#", 1)[0].split())
        if not line:
            continue
        if len(line) > _LONGEST_LINE:
            raise ConfigurationError(f"script, line {number}: longer than {_LONGEST_LINE} characters")
        match = _INTERRUPTION.fullmatch(line)
        if match:
            line = match[2].strip()
            if not line:
                raise ConfigurationError(f"script, line {number}: nothing to say behind the '!'")
        after_ms = float(match[1]) if match and match[1] else 1500.0
        words = " ".join(_WORD.findall(line.lower()))
        understood = None if words in sentences else UNCLEAR
        steps.append(Step(say=line, interrupts=match is not None, after_ms=after_ms, understood=understood))
        if len(steps) > _MOST_STEPS:
            raise ConfigurationError(f"script: more than {_MOST_STEPS} sentences")
    if not steps:
        raise ConfigurationError("script: no sentence in it")
    return tuple(steps)


def read_script(path: Path) -> tuple[Step, ...]:
    """The steps of a script file; see :func:`parse_script`.

    Raises:
        ConfigurationError: The file cannot be read, is no UTF-8 text, or is no script.
    """
    try:
        return parse_script(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigurationError(f"script {path} cannot be read: {exc}") from exc

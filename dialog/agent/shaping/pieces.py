"""What shaping yields: text for the voice that knows which characters of the reply it stands for."""

from __future__ import annotations

from collections.abc import Iterable

from dialog.message import Piece, Run

__all__ = ["Piece", "Run", "Stretch", "make_piece"]

Stretch = tuple[str, int, int, bool]
"""Text on its way through the filters: what is said, the span of the reply it stands for, whether it was rewritten."""


def make_piece(stretches: Iterable[Stretch], start: int, *, ends_sentence: bool) -> Piece:
    """A piece of these stretches; its span begins at ``start``, where the piece before it ended.

    The result is the same however verbatim text was split into stretches.
    """
    runs: list[Run] = []
    spoken: list[str] = []
    end = start
    for text, first, last, rewritten in stretches:
        end = max(end, last)
        if not text:
            continue
        spoken.append(text)
        if runs and not rewritten and not runs[-1].rewritten and runs[-1].end == first:
            runs[-1] = Run(runs[-1].size + len(text), runs[-1].start, last, False)
        else:
            runs.append(Run(len(text), first, last, rewritten))
    if len(runs) == 1 and not runs[0].rewritten and runs[0].start == start and runs[0].end == end:
        runs.clear()
    return Piece("".join(spoken), start, end, ends_sentence, tuple(runs))

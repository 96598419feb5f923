"""Audio that carries its own words: what one side says, the other side can read to the millisecond.

Every character is a stretch of a 250 Hz tone, loud enough for any energy detector, whose low mu-law
bits say which character of which utterance it is. What was cut, lost or repeated on the way can be
told from the audio alone. It survives as long as the bytes do: not a mix, not another codec.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from itertools import pairwise
from random import Random
from typing import NamedTuple

from msgspec import Struct

__all__ = ["CELL_MS", "PAUSE", "Cell", "Letters", "Word", "noise", "read_words", "spell"]

CELL_MS = 4.0
"""One period of the tone, the smallest piece that can be read."""
_HALF = 16
_CELL = 2 * _HALF
_BYTES_PER_MS = 8
_SILENCE = b"\xff"
_LOUD, _QUIET = 5, 0
"""Segments of mu-law: about -18 dBFS, and about -55 dBFS, which no energy detector takes for speech."""
_SIGNS = bytes(0x50 if code & 0x80 else 0x4E for code in range(256))
"""P for a positive byte, N for a negative one: a cell ends its first half where P becomes N."""
_EDGE = re.compile(rb"P{16}(?=N)")
PAUSE = re.compile(r"\s*\[(\d+(?:\.\d+)?)\]\s*")
"""``[0.8]`` in what is said: a silence of so many seconds."""


class Cell(Struct, frozen=True, gc=False):
    """A period of the tone that was heard: which character of which utterance, and when."""

    at_ms: float
    char: str
    index: int
    lane: int


class Word(NamedTuple):
    """A word that was read from audio, with the times of its first and last sound."""

    text: str
    start_ms: float
    end_ms: float


def spell(text: str, *, lane: int, ms_per_char: float, quiet: bool = False) -> bytes:
    """The mu-law audio of ``text``; ``[0.8]`` in it is a silence of so many seconds.

    Args:
        text: What is said. The same text with more behind it begins with the same audio.
        lane: Number of the utterance or context, up to 65535; tells words of several apart.
        ms_per_char: Length of each character, blanks included.
        quiet: Too quiet for an energy detector, and still readable.
    """
    out = bytearray()
    index, at = 0, 0.0
    for number, piece in enumerate(PAUSE.split(text)):
        if number % 2:
            out += _SILENCE * round(float(piece) * 1000 * _BYTES_PER_MS)
            index += 1  # as a blank would
            continue
        start, at = at, at + len(piece) * ms_per_char
        for offset, char in enumerate(piece):
            first = round((start + offset * ms_per_char) * _BYTES_PER_MS)
            size = round((start + (offset + 1) * ms_per_char) * _BYTES_PER_MS) - first
            out += _SILENCE * size if char.isspace() else _letter(char, index, lane, size, quiet)
            index += 1
    return bytes(out)


@lru_cache(maxsize=8192)
def _letter(char: str, index: int, lane: int, size: int, quiet: bool) -> bytes:
    cells, rest = divmod(size, _CELL)
    return _cell(ord(char) & 0xFFFF, index & 0xFFFF, lane & 0xFFFF, quiet) * cells + _SILENCE * rest


def _cell(code: int, index: int, lane: int, quiet: bool) -> bytes:
    loudness = (~(_QUIET if quiet else _LOUD) & 7) << 4
    nibbles = [value >> shift & 0xF for value in (code, index, lane) for shift in (12, 8, 4, 0)]
    check = _check(nibbles)
    head = bytes(0x80 | loudness | nibble for nibble in (*nibbles, check >> 4, check & 0xF, 0x5, 0xA))
    return head + bytes([loudness | 8]) * _HALF


def _check(nibbles: Iterable[int]) -> int:
    check = 0xA5
    for nibble in nibbles:
        check = (check * 31 + nibble + 7) & 0xFF
    return check


class Letters:
    """Reads cells from audio that comes in pieces."""

    def __init__(self) -> None:
        self._tail: bytes = b""
        self._tail_ms = 0.0

    def read(self, data: bytes, at_ms: float) -> list[Cell]:
        """The cells of the next piece, which begins at ``at_ms``. A cell over a jump in time is not read."""
        if abs(self._tail_ms + len(self._tail) / _BYTES_PER_MS - at_ms) > 1.0:
            self._tail = b""
        data = self._tail + data
        begin_ms = at_ms - len(self._tail) / _BYTES_PER_MS
        cells: list[Cell] = []
        for found in _EDGE.finditer(data.translate(_SIGNS)):
            cell = _decode(data[found.start() : found.end()], begin_ms + found.start() / _BYTES_PER_MS)
            if cell is not None:
                cells.append(cell)
        keep = min(len(data), _HALF)
        # The half of a cell whose edge is still to come; what was read already has its edge behind it.
        self._tail = data[len(data) - keep :]
        self._tail_ms = begin_ms + (len(data) - keep) / _BYTES_PER_MS
        return cells


def _decode(head: bytes, at_ms: float) -> Cell | None:
    nibbles = [byte & 0xF for byte in head]
    check = nibbles[12] << 4 | nibbles[13]
    if nibbles[14:] != [0x5, 0xA] or len({byte >> 4 for byte in head}) != 1 or check != _check(nibbles[:12]):
        return None
    code, index, lane = (
        sum(nibble << shift for nibble, shift in zip(nibbles[at : at + 4], (12, 8, 4, 0), strict=True))
        for at in (0, 4, 8)
    )
    return Cell(at_ms, chr(code), index, lane)


def read_words(cells: Iterable[Cell]) -> list[Word]:
    """The words of cells in their order of time; a word that was cut is as long as it was heard."""
    cells = list(cells)
    if not cells:
        return []
    words: list[Word] = []
    text, start = cells[0].char, cells[0].at_ms
    for before, cell in pairwise(cells):
        if cell.lane == before.lane and cell.index == before.index:
            continue
        if cell.lane == before.lane and cell.index == before.index + 1:
            text += cell.char
            continue
        words.append(Word(text, start, before.at_ms + CELL_MS))
        text, start = cell.char, cell.at_ms
    words.append(Word(text, start, cells[-1].at_ms + CELL_MS))
    return words


def noise(ms: float, *, seed: int = 0) -> bytes:
    """A burst without words, as loud as speech: a cough, a door."""
    random = Random(seed)
    loudness = (~_LOUD & 7) << 4
    return bytes(loudness | random.getrandbits(4) | random.getrandbits(1) << 7 for _ in range(int(ms * _BYTES_PER_MS)))

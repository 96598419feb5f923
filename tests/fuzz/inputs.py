"""What the inputs of all targets have in common."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import UUID

__all__ = ["BETWEEN", "CORPUS", "NOBODY", "in_a_loop", "seeds", "texts"]

CORPUS = Path(__file__).parent / "corpus"
NOBODY = UUID(int=0)
BETWEEN = b"\x1e"
"""Separates the messages of an input."""


RUNNER: asyncio.Runner | None = None
"""Where coroutines run; unless there is one, each input has a loop of its own."""


def in_a_loop(work: Coroutine[Any, Any, None]) -> None:
    """Run ``work`` to its end."""
    if RUNNER is None:
        asyncio.run(work)
    else:
        RUNNER.run(work)


def seeds(name: str) -> list[bytes]:
    """The examples of a target."""
    return [path.read_bytes() for path in sorted((CORPUS / name).glob("*"))]


def texts(data: bytes) -> Iterator[str]:
    """The messages of an input: text frames are UTF-8, which the reader of frames has seen to."""
    for line in data.split(BETWEEN)[:20]:
        with suppress(UnicodeDecodeError):
            yield line.decode()

"""What the simulated caller says: text, audio or a WAV file, made into mu-law at 8 kHz."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

__all__ = ["Voice", "load"]

Voice = Callable[[str], Awaitable[bytes]]
"""Speaks a text as mu-law at 8 kHz."""


async def load(what: str | bytes | Path, voice: Voice | None) -> bytes:
    """Mu-law audio at 8 kHz of a text, of a WAV file, or as it is.

    Raises:
        MissingExtra: Text, and nothing is installed that speaks it.
        ConfigurationError: A file that is not a WAV file of a known kind.
    """
    if isinstance(what, bytes):
        return what
    raise NotImplementedError

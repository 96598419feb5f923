"""One provider takes over from another: what a chain of them tells of it, and how they are told apart."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from dialog.errors import DialogError

__all__ = ["Takeover", "labels"]


class Takeover(Struct, frozen=True, kw_only=True):
    """Another member of a fallback chain does the work from now on."""

    of: str
    """Who did it before."""
    by: str
    """Who does it now."""
    error: DialogError | None = None
    """Why; ``None``: the one that is preferred works again."""


def labels(names: Sequence[str]) -> list[str]:
    """The names, with their place where two are the same."""
    return [name if names.count(name) == 1 else f"{name} {place}" for place, name in enumerate(names, 1)]

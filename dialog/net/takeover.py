"""One provider takes over from another: what a chain of them tells of it, and how they are told apart."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from dialog.errors import DialogError, ProviderError

__all__ = ["Takeover", "as_error", "caused", "failure_of", "labels"]


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


def as_error(label: str, exc: Exception) -> DialogError:
    """What a member raised, as an error of ours: a foreign one may raise anything."""
    return (
        exc if isinstance(exc, DialogError) else caused(ProviderError(label, f"raised {exc!r}", retryable=False), exc)
    )


def caused(error: ProviderError, cause: BaseException | None) -> ProviderError:
    """``error``, with its cause."""
    error.__cause__ = cause
    return error


def failure_of(label: str, error: DialogError, by: str | None) -> ProviderError:
    """What a chain tells of a member that failed; ``by``: who takes over, if anybody does."""
    why = str(error).removeprefix(f"{label}: ")
    then = f", and {by} takes over" if by is not None else ""
    return caused(ProviderError(label, f"failed{then}: {why}", retryable=True), error)

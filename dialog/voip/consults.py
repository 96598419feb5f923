"""Calls that were asked for by a call of this process, and who takes them."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final
from uuid import UUID

if TYPE_CHECKING:
    from dialog.voip.voip import VoIP

__all__ = ["CONSULT_OF", "CONSULT_WORKER", "expected", "take_expected"]

CONSULT_OF: Final = "consult_of"
"""Parameter of a call that was placed to ask somebody: the call that it is about …"""
CONSULT_WORKER: Final = "consult_worker"
"""… and the process that has asked for it, if that is another than the line's."""

_expected: dict[UUID, Callable[[VoIP], object]] = {}


@contextmanager
def expected(call_id: UUID, on_voip: Callable[[VoIP], object]) -> Generator[None]:
    """Let ``on_voip`` have the call of that id when it comes to this process, while the block runs."""
    _expected[call_id] = on_voip
    try:
        yield
    finally:
        _expected.pop(call_id, None)


def take_expected(call_id: UUID) -> Callable[[VoIP], object] | None:
    """Who has asked for this call; ``None``: nobody here."""
    return _expected.pop(call_id, None)

"""What a playout asks of its line."""

from __future__ import annotations

from typing import TypeAlias
from uuid import UUID

from msgspec import Struct

from dialog.message import Playback

__all__ = ["Flushed", "LineOp", "Overflow", "Report", "SendAudio", "SendClear", "SendMark"]


class SendAudio(Struct, frozen=True, gc=False):
    """Send ``data`` to the carrier, where it will start to sound at ``due`` (seconds)."""

    data: bytes
    due: float


class SendMark(Struct, frozen=True, gc=False):
    """Ask the carrier to echo ``name`` when all before it was played."""

    name: str


class SendClear(Struct, frozen=True, gc=False):
    """Silence the carrier now, then answer with :meth:`Playout.cleared`."""


class Flushed(Struct, frozen=True, gc=False):
    """What was sent to sound after ``at`` (seconds) was not heard."""

    at: float


class Report(Struct, frozen=True, gc=False):
    """Tell the agent."""

    playback: Playback


class Overflow(Struct, frozen=True, gc=False):
    """More audio was posted than may wait: the tail of this part was cut off."""

    uuid: UUID
    part: int
    dropped_ms: float


LineOp: TypeAlias = SendAudio | SendMark | SendClear | Flushed | Report | Overflow

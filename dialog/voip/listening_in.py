"""Listening in to calls where they are held: on the speakers of this machine."""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Protocol

from dialog.audio.speakers import LocalSpeakers, NoSpeakers
from dialog.errors import MissingExtra, StateError
from dialog.message import CallEnd
from dialog.voip.line import Tap
from dialog.voip.voip import VoIP

__all__ = ["Tapped", "play_on_speakers"]

logger = logging.getLogger(__name__)


class Tapped(Protocol):
    """A gateway that lets a tap hear its calls."""

    def add_tap(self, voip: Any, tap: Tap) -> None:
        """Let ``tap`` hear both sides of a call from now on."""
        ...


def play_on_speakers(gateway: Tapped, voip: VoIP, *, speakers: LocalSpeakers | None = None) -> None:
    """Play both sides of a call of ``gateway`` on this machine's speakers, until it ends; returns at once.

    Where there are none, or the extra ``speakers`` is not installed, the call goes on and a warning is logged.

    Args:
        gateway: Holds the call.
        voip: The call.
        speakers: Play here instead.
    """
    voip.spawn(_play(gateway, voip, speakers or LocalSpeakers(voip.audio_format)), "playing on the speakers")


async def _play(gateway: Tapped, voip: VoIP, speakers: LocalSpeakers) -> None:
    over = asyncio.Event()

    def ended(_: CallEnd) -> None:
        over.set()

    voip.on(VoIP.ENDED, ended)
    try:
        await asyncio.to_thread(speakers.start)
        if voip.end is None:
            gateway.add_tap(voip, speakers)
            await over.wait()
    except (MissingExtra, NoSpeakers, StateError) as exc:
        logger.warning("call %s is not heard on the speakers: %s", voip.metadata.call_id, exc)
    finally:
        voip.off(VoIP.ENDED, ended)
        # With the call's end this task is cancelled, too, perhaps before a thread has begun with it.
        await asyncio.shield(asyncio.get_running_loop().run_in_executor(None, speakers.close))

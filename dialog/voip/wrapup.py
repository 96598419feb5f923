"""Keeps a call's VoIP until its late callbacks have come."""

from __future__ import annotations

import asyncio
from typing import Literal

from dialog.message import TranscriptStatus
from dialog.participant import Participant
from dialog.scope import CallScope
from dialog.voip.voip import VoIP

__all__ = ["WrapUp"]


class WrapUp(Participant):
    """Outlives the end of a call while a recording or the end of a transcription is to come.

    The carrier reports them seconds to minutes after the caller has hung up. It lingers in the call's
    scope, up to a bound, and so does the VoIP, which a scope disposes last.
    """

    def __init__(self, voip: VoIP, scope: CallScope) -> None:
        super().__init__()
        self._voip = voip
        self._of = scope
        self._expected: set[str] = set()
        self._ended = False
        voip.on(VoIP.RECORDING_URL, self._recorded)
        voip.on(VoIP.TRANSCRIPT, self._transcribed)

    def expect(self, callback: Literal["recording", "transcription"]) -> None:
        """One more kind of callback will come."""
        self._expected.add(callback)

    def call_ended(self, bound_s: float) -> None:
        """From now on it lives only for what is still to come, at most ``bound_s``."""
        self._ended = True
        self._of.linger(self, bound_s)
        self._check()

    def _recorded(self, _url: str) -> None:
        self._expected.discard("recording")
        self._check()

    def _transcribed(self, status: TranscriptStatus) -> None:
        if status.state in ("stopped", "error"):
            self._expected.discard("transcription")
            self._check()

    def _check(self) -> None:
        if self._ended and not self._expected:
            self.spawn(self._leave(), "wrap-up")

    async def _leave(self) -> None:
        """Go once the work that listeners gave the VoIP (fetching the recording) is done."""
        await asyncio.sleep(0)
        while tasks := tuple(self._voip._tasks):
            await asyncio.wait(tasks)
        self.dispose()

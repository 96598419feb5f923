"""Waits for the answer of a call that is placed, and tells what became of it as an event of the call."""

from __future__ import annotations

from dialog.calls.events import Warned
from dialog.errors import CallNotAnswered
from dialog.voip.voip import VoIP


def on_voip(voip: VoIP) -> None:
    """Tell who answered, or why nobody did."""

    async def wait() -> None:
        try:
            told = f"answered {(await voip.wait_answered()).who}"
        except CallNotAnswered as exc:
            told = exc.reason
        name = voip.metadata.parameter("name")
        voip.journal.append(Warned(seq=1, at_s=0.0, code="told", text=f"{name}: {told}"))

    voip.spawn(wait(), "wait")

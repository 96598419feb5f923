"""Takes no call."""

from __future__ import annotations

from dialog.voip.voip import VoIP


def on_voip(voip: VoIP) -> None:
    """Raise, as code does that was not tried."""
    raise ValueError(f"no agent for {type(voip).__name__}")

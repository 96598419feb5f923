"""What a carrier says at the start of a media stream, whatever its dialect."""

from __future__ import annotations

from msgspec import Struct

from dialog.message import MULAW_8K, AudioFormat

__all__ = ["StreamStart"]


class StreamStart(Struct, frozen=True, kw_only=True):
    """Which call a stream is of, and what travelled with it."""

    carrier_call_id: str
    carrier: str = ""
    """Whose it is, where a gateway has several."""
    account_id: str = ""
    stream_id: str = ""
    from_: str = ""
    to: str = ""
    parameters: dict[str, str] = {}
    """What we gave the carrier to hand on: call, token and node among it."""
    audio_format: AudioFormat = MULAW_8K

    def __repr__(self) -> str:
        return f"<StreamStart {self.carrier_call_id}>"

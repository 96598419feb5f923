"""Ways in which a simulated carrier can misbehave."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

__all__ = ["CallFaults", "bad_messages"]


class CallFaults(Struct, frozen=True, kw_only=True):
    """What the simulated carrier does wrong; by default nothing."""

    webhook_signature: Literal["valid", "wrong", "missing"] = "valid"
    stream_signature: Literal["valid", "wrong", "missing"] = "valid"
    omit_connected: bool = False
    duplicate_connected: bool = False
    omit_start: bool = False
    """The socket stays open and silent: neither ``start`` nor media."""
    duplicate_start: bool = False
    media_before_start: int = 0
    """So many media messages come between ``connected`` and ``start``."""
    forged_call_sid: str = ""
    """``start`` names this call."""
    forged_parameters: tuple[tuple[str, str], ...] = ()
    """Override stream parameters (a forged token, say)."""
    out_of_order: bool = False
    """Every second media message overtakes the one before it."""
    mark_delay_ms: float = 0.0
    """Marks are echoed so much late."""
    lose_marks: int = 0
    """So many marks are never echoed; ``-1``: none is."""
    read_delay_ms: float = 0.0
    """Pause before each message that is read from the socket: a slow reader."""


def bad_messages(stream_sid: str, *, oversized: int = 1_100_000) -> dict[str, str | bytes]:
    """Messages that a gateway must survive, by what is wrong with them; send them with ``Caller.send_raw``."""
    media = f'{{"event":"media","sequenceNumber":"7","streamSid":"{stream_sid}","media":{{"track":"inbound",'
    return {
        "empty": "",
        "not json": "hello",
        "truncated": media + '"chunk":"7","times',
        "binary": b"\x00\x01\x02\xff" * 40,
        "binary json": (media + '"chunk":"7","timestamp":"140","payload":"////"}}').encode(),
        "null": "null",
        "list": "[1,2,3]",
        "number": "17",
        "no event": f'{{"streamSid":"{stream_sid}"}}',
        "event is a number": f'{{"event":5,"streamSid":"{stream_sid}"}}',
        "media without media": f'{{"event":"media","streamSid":"{stream_sid}"}}',
        "media is a list": f'{{"event":"media","streamSid":"{stream_sid}","media":[]}}',
        "payload is a number": media + '"chunk":"7","timestamp":"140","payload":42}}',
        "payload is not base64": media + '"chunk":"7","timestamp":"140","payload":"%%%%"}}',
        "timestamp is not a number": media + '"chunk":"7","timestamp":"soon","payload":"////"}}',
        "mark without name": f'{{"event":"mark","streamSid":"{stream_sid}","mark":{{}}}}',
        "dtmf without digit": f'{{"event":"dtmf","streamSid":"{stream_sid}","dtmf":{{"track":"inbound_track"}}}}',
        "deeply nested": f'{{"event":"media","streamSid":"{stream_sid}","media":' + "[" * 5000 + "]" * 5000 + "}",
        "oversized": media + f'"chunk":"7","timestamp":"140","payload":"{"/" * oversized}"}}}}',
    }

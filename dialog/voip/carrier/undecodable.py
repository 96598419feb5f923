"""Messages of a media socket that cannot be decoded: they are malformed, or of an event that is not known here."""

from __future__ import annotations

from typing import Final

import msgspec
from msgspec import Struct

from dialog.errors import RemoteProtocolError
from dialog.net.malformed import UNDECODABLE

__all__ = ["unknown_event"]


class _Envelope(Struct, frozen=True):
    event: str


_envelope: Final = msgspec.json.Decoder(_Envelope)


def unknown_event(carrier: str, known: frozenset[str], text: str | bytes, error: Exception) -> str:
    """The event of a message that was not decoded because of ``error``, which is none of those that are ``known``.

    Raises:
        RemoteProtocolError: It is not JSON, not an object with an ``event``, too deeply nested, or a field of a known
            event is missing, has the wrong type or is not base64.
    """
    try:
        event = _envelope.decode(text).event
    except UNDECODABLE as exc:
        raise RemoteProtocolError(f"{carrier} sent a malformed media stream message: {exc}") from exc
    if event in known:
        raise RemoteProtocolError(f"{carrier} sent a malformed {event!r} message: {error}") from error
    return event

"""Whose stream it is, from its first message that says so."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from dialog.errors import RemoteProtocolError, StateError
from dialog.net.malformed import UNDECODABLE
from dialog.voip.carrier.stream import StreamEvent
from dialog.voip.streams.compatible import CompatibleDialect
from dialog.voip.streams.dialect import Dialect
from dialog.voip.streams.exotel import ExotelDialect
from dialog.voip.streams.plivo import PlivoDialect

__all__ = ["DIALECTS", "DetectedStream"]

DIALECTS: Final[tuple[type[Dialect], ...]] = (PlivoDialect, ExotelDialect, CompatibleDialect)
"""All that are known. Another carrier is a module with its dialect, and its place here and in the registry."""

_LOOKED_AT: Final = 2
_decoder: Final = msgspec.json.Decoder(dict[str, Any])


class DetectedStream:
    """A stream in the dialect of its ``start``, which is the first or the second message."""

    binary: bool = False

    def __init__(self) -> None:
        self.dialect: Dialect | None = None
        """Known from the ``start`` on."""
        self._seen = 0

    @property
    def name(self) -> str:
        """See :class:`~dialog.voip.wires.Codec`."""
        return self.dialect.name if self.dialect is not None else ""

    @property
    def audio_rate(self) -> int:
        """See :class:`~dialog.voip.wires.Codec`."""
        return self.dialect.audio_rate if self.dialect is not None else 8000

    @property
    def max_written(self) -> int:
        """See :class:`~dialog.voip.wires.Codec`."""
        return self.dialect.max_written if self.dialect is not None else 4096

    def receive(self, text: str | bytes) -> tuple[StreamEvent, ...]:
        """See :class:`~dialog.voip.carrier.stream.MediaStream`."""
        if self.dialect is None and not self._detect(text):
            return ()
        assert self.dialect is not None
        return self.dialect.receive(text)

    def media(self, audio: bytes) -> bytes:
        """The message that plays ``audio``."""
        return self._spoken().media(audio)

    def mark(self, name: str) -> bytes:
        """The message that asks for an echo of ``name``."""
        return self._spoken().mark(name)

    def clear(self) -> bytes:
        """The message that drops what was sent and not played."""
        return self._spoken().clear()

    def _spoken(self) -> Dialect:
        if self.dialect is None:
            raise StateError("whose stream it is is not known before its start")
        return self.dialect

    def _detect(self, text: str | bytes) -> bool:
        try:
            message = _decoder.decode(text)
        except UNDECODABLE as exc:
            raise RemoteProtocolError(f"the first message of a media socket is malformed: {exc}") from exc
        self._seen += 1
        for dialect in DIALECTS:
            if dialect.recognises(message):
                self.dialect = dialect()
                return True
        if self._seen >= _LOOKED_AT or message.get("event") != "connected":
            known = ", ".join(dialect.carrier for dialect in DIALECTS)
            raise RemoteProtocolError(f"a media socket says nothing that one of {known} says at its start")
        return False

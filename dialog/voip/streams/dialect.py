"""What a dialect is: how one carrier writes the messages of a call's media socket."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from typing import Any, ClassVar, TypeVar

import msgspec

from dialog.errors import RemoteProtocolError
from dialog.message import AudioFormat
from dialog.net.malformed import UNDECODABLE
from dialog.voip.carrier.stream import StreamEvent
from dialog.voip.carrier.undecodable import unknown_event

__all__ = ["Dialect", "audio_format_of", "texts"]

logger = logging.getLogger(__name__)

MessageT = TypeVar("MessageT")

_ENCODINGS = {
    "audio/x-mulaw": "mulaw",
    "audio/mulaw": "mulaw",
    "mulaw": "mulaw",
    "pcmu": "mulaw",
    "audio/x-l16": "s16le",
    "audio/l16": "s16le",
    "audio/x-raw": "s16le",
    "raw/slin": "s16le",
    "slin": "s16le",
    "base64": "s16le",
}


class Dialect(ABC):
    """One stream of one carrier: a :class:`~dialog.voip.carrier.stream.MediaStream` that knows whose it is."""

    carrier: ClassVar[str]
    """As :attr:`CallMetadata.carrier` has it."""
    grain: ClassVar[int] = 1
    """Audio is sent in multiples of so many bytes."""
    binary: bool = False

    def __init__(self) -> None:
        self.stream_id = ""
        self.audio_rate: int = 16_000
        self.max_written: int = 8_000

    @property
    def name(self) -> str:
        """See :class:`~dialog.voip.wires.Codec`."""
        return self.stream_id

    @staticmethod
    @abstractmethod
    def recognises(message: dict[str, Any]) -> bool:
        """Whether a first message is of this carrier."""

    @abstractmethod
    def receive(self, text: str | bytes) -> tuple[StreamEvent, ...]:
        """See :class:`~dialog.voip.carrier.stream.MediaStream`."""

    @abstractmethod
    def media(self, audio: bytes) -> bytes:
        """The message that plays ``audio`` after what was sent before."""

    @abstractmethod
    def mark(self, name: str) -> bytes:
        """The message that asks to be told, by the same name, when all before it was played."""

    @abstractmethod
    def clear(self) -> bytes:
        """The message that drops what was sent and not played."""

    def _opened(self, stream_id: str, audio_format: AudioFormat) -> None:
        """The start came: from here on messages are of that stream."""
        if self.stream_id:
            raise RemoteProtocolError(f"{self.carrier} stream {self.stream_id}: start came twice")
        if not stream_id:
            raise RemoteProtocolError(f"{self.carrier} sent a start message without the stream's id")
        self.stream_id = stream_id
        self.audio_rate = audio_format.size(1000)
        self.max_written = self.audio_rate // 2

    def _decode(
        self, decoder: msgspec.json.Decoder[MessageT], known: frozenset[str], text: str | bytes
    ) -> MessageT | None:
        """The typed message in a text frame; ``None`` for one of an event that is not known."""
        try:
            return decoder.decode(text)
        except UNDECODABLE as exc:
            event = unknown_event(self.carrier, known, text, exc)
        logger.debug("ignored a message of %s of the unknown event %.40r", self.carrier, event)
        return None

    def _expect(self, event: str) -> None:
        if not self.stream_id:
            raise RemoteProtocolError(f"{self.carrier} stream: {event} came before start")


def texts(values: object) -> dict[str, str]:
    """The values of an object, as texts; nothing, if it is no such object."""
    try:
        found = msgspec.convert(values, dict[str, Any], strict=False)
    except msgspec.ValidationError:
        return {}
    return {name: str(value) for name, value in found.items()}


def audio_format_of(carrier: str, encoding: str, sample_rate: int) -> AudioFormat:
    """What a stream's samples are here; 16-bit ones are taken for little-endian.

    Raises:
        RemoteProtocolError: They are something that is not spoken here.
    """
    known = _ENCODINGS.get(encoding.partition(";")[0].strip().lower())
    if known == "mulaw" and sample_rate == 8000:
        return AudioFormat("mulaw", 8000)
    if known == "s16le" and sample_rate in (8000, 16000, 24000):
        return AudioFormat("s16le", sample_rate)
    raise RemoteProtocolError(
        f"{carrier} streams {encoding[:30]!r} at {sample_rate} Hz; only mu-law at 8000 Hz, and 16-bit samples at 8000, "
        "16000 or 24000 Hz, are spoken here"
    )

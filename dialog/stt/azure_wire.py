"""What Azure's recognition says, as it is needed, and what it is told before audio.

Source: what the Speech SDK 1.53 sends and takes, and Microsoft's description of the Speech WebSocket protocol.
"""

from __future__ import annotations

import platform
import struct
from collections import deque
from collections.abc import Iterable
from typing import Any
from uuid import uuid4

import msgspec
from msgspec import Struct

from dialog.message import AudioFormat
from dialog.net.azure import usp_head, usp_time
from dialog.version import __version__

__all__ = [
    "KNOWN",
    "Best",
    "Event",
    "Receipts",
    "SpokenWord",
    "Turn",
    "decode",
    "speech_config",
    "speech_context",
    "wave_head",
]

_MOST_KINDS, _MOST_TIMES = 16, 1000
"""A turn may last for ten minutes, with three hypotheses a second while somebody speaks."""
_WAVE_TAGS = {"s16le": 1, "alaw": 6, "mulaw": 7}


class SpokenWord(Struct, rename="pascal"):
    """A word, in its lexical form."""

    word: str = ""
    offset: float = 0.0
    duration: float = 0.0
    confidence: float | None = None


class Best(Struct, rename="pascal"):
    """What a phrase most probably was."""

    display: str = ""
    confidence: float | None = None
    words: list[SpokenWord] | None = None


class Language(Struct, rename="pascal"):
    """Which language was spoken, if the service was to find it out."""

    language: str | None = None


class Event(Struct, rename="pascal"):
    """The body of any message: the union of the fields that matter. Times are ticks of the turn's audio."""

    offset: float = 0.0
    duration: float = 0.0
    text: str = ""
    recognition_status: str = ""
    display_text: str = ""
    n_best: list[Best] | None = None
    primary_language: Language | None = None


KNOWN = frozenset({"speech.startdetected", "speech.hypothesis", "speech.phrase", "speech.enddetected", "turn.end"})
"""The kinds that matter, in lower case."""
decode = msgspec.json.Decoder(Event).decode


class Turn:
    """A turn of the service's: what it is called, and where in the connection's audio it begins."""

    __slots__ = ("base_ms", "first", "head", "receipts", "request_id")

    def __init__(self, base_ms: float) -> None:
        self.base_ms = base_ms
        self.request_id = uuid4().hex
        self.receipts = Receipts()
        # Made once: nobody asks for the time of each 20 ms.
        self.head = usp_head("audio", request_id=self.request_id, stream_id="1")
        """Goes before audio; alone, it ends it."""
        self.first = usp_head("audio", request_id=self.request_id, stream_id="1", content_type="audio/x-wav")
        """Goes before the header of the WAV file that the audio pretends to be."""


class Receipts:
    """When the messages of a turn came, which the service wants to be told at its end."""

    def __init__(self) -> None:
        self._times: dict[str, deque[str]] = {}

    def add(self, path: str) -> None:
        """A message of this kind came."""
        times = self._times.get(path)
        if times is None:
            if len(self._times) >= _MOST_KINDS:
                return
            times = self._times[path] = deque(maxlen=_MOST_TIMES)
        times.append(usp_time())

    def telemetry(self, *, connection_id: str = "", connecting_at: str = "", connected_at: str = "") -> str:
        """The body of ``telemetry``; the first one of a connection tells about that, too."""
        connection = {"Name": "Connection", "Id": connection_id, "Start": connecting_at, "End": connected_at}
        body: dict[str, Any] = {"ReceivedMessages": [{path: list(times)} for path, times in self._times.items()]}
        if connection_id:
            body["Metrics"] = [connection]
        return msgspec.json.encode(body).decode()


def speech_context(language: str, silence_ms: int, keyterms: Iterable[str] = ()) -> dict[str, Any]:
    """The settings of a turn, as the SDK writes them."""
    groups = [{"Type": "Generic", "Items": [{"Text": term} for term in keyterms]}]
    return {
        "phraseDetection": {
            "mode": "CONVERSATION",
            "language": language,
            "CONVERSATION": {"segmentation": {"segmentationSilenceTimeoutMs": silence_ms, "mode": "Custom"}},
        },
        **({"dgi": {"Groups": groups, "bias": 1.0}} if groups[0]["Items"] else {}),
        "audio": {"streams": {"1": None}},
        "phraseOutput": {"format": "Detailed", "detailed": {"options": ["WordTimings", "WordConfidence"]}},
    }


def speech_config(audio_format: AudioFormat) -> dict[str, Any]:
    """Who connects; the service wants to know."""
    source = {
        "type": "Stream",
        "samplerate": str(audio_format.sample_rate),
        "bitspersample": str(8 * audio_format.sample_bytes),
        "channelcount": "1",
    }
    system = {"name": "dialog", "version": __version__, "build": platform.system(), "lang": "Python"}
    os = {"platform": platform.system(), "name": platform.system(), "version": platform.release()}
    return {"context": {"system": system, "os": os, "audio": {"source": source}}}


def wave_head(audio_format: AudioFormat) -> bytes:
    """The header of a WAV file of unknown length."""
    rate, width = audio_format.sample_rate, audio_format.sample_bytes
    fields = (_WAVE_TAGS[audio_format.encoding], 1, rate, rate * width, width, 8 * width)
    return struct.pack("<4sI8sIHHIIHH4sI", b"RIFF", 0, b"WAVEfmt ", 16, *fields, b"data", 0)

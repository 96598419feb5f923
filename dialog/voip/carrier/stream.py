"""What comes over a media socket, whatever a carrier calls it, and the session that acts on it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Protocol, TypeAlias

from msgspec import Meta, Struct

from dialog.voip.carrier.exchange import Exchange
from dialog.voip.carrier.http import Site
from dialog.voip.carrier.session import MediaSession
from dialog.voip.carrier.start import StreamStart
from dialog.voip.wires import Codec, SocketWire

__all__ = ["Audio", "Marked", "MediaStream", "Pressed", "Stopped", "StreamEvent", "StreamSession", "Timestamp"]

Timestamp: TypeAlias = Annotated[float, Meta(ge=-1e15, le=1e15)]
"""Milliseconds, whatever they count from; one that is infinite or no number would stop the call's clock for good."""


class Audio(Struct, frozen=True, gc=False):
    """Audio of the caller in the call's format; ``at_ms`` counts from the start of the stream."""

    data: bytes
    at_ms: float


class Marked(Struct, frozen=True, gc=False):
    """All audio before the mark of that name was played, or dropped by a clear."""

    name: str


class Pressed(Struct, frozen=True, gc=False):
    """The caller pressed a key."""

    digit: str


class Stopped(Struct, frozen=True, gc=False):
    """The carrier says that the stream is over."""


StreamEvent: TypeAlias = StreamStart | Audio | Marked | Pressed | Stopped


class MediaStream(Codec, Protocol):
    """The protocol of one stream: checks what comes, writes what goes. Without I/O."""

    def receive(self, text: str | bytes) -> Iterable[StreamEvent]:
        """What a text frame means; nothing, if it is of no interest.

        Raises:
            RemoteProtocolError: It is malformed, out of order or of another stream.
        """
        ...


class StreamSession(MediaSession):
    """Feeds a call's line with what a :class:`MediaStream` understands."""

    __slots__ = ("_stream",)

    def __init__(
        self, exchange: Exchange, stream: MediaStream, wire: SocketWire, site: Site, start_timeout_s: float
    ) -> None:
        super().__init__(exchange, wire, site, start_timeout_s)
        self._stream = stream

    def _read(self, text: str | bytes) -> None:
        for event in self._stream.receive(text):
            end = self.end
            if isinstance(event, StreamStart):
                self._start(event)
            elif end is None:
                return  # what a stream tells before its start is nobody's
            elif isinstance(event, Audio):
                end.receive_audio(event.data, event.at_ms)
            elif isinstance(event, Marked):
                end.receive_mark(event.name)
            elif isinstance(event, Pressed):
                end.receive_digit(event.digit)
            else:
                end.stopped()

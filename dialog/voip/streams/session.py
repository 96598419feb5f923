"""One media socket whose dialect is found out."""

from __future__ import annotations

from msgspec.structs import replace

from dialog.voip.carrier.exchange import Exchange
from dialog.voip.carrier.http import Fields, Site
from dialog.voip.carrier.start import StreamStart
from dialog.voip.carrier.stream import StreamSession
from dialog.voip.streams.detect import DetectedStream
from dialog.voip.streams.grain import GrainedWire
from dialog.voip.wires import SocketWire

__all__ = ["DetectedSession"]


class DetectedSession(StreamSession):
    """Adds what the socket's address tells to what its start does."""

    __slots__ = ("_detected", "_fields")

    def __init__(
        self,
        exchange: Exchange,
        stream: DetectedStream,
        wire: SocketWire,
        site: Site,
        start_timeout_s: float,
        *,
        fields: Fields,
    ) -> None:
        super().__init__(exchange, stream, wire, site, start_timeout_s)
        self._detected = stream
        self._fields = dict(fields)

    def _start(self, start: StreamStart) -> None:
        parameters = {**self._fields, **start.parameters}
        start = replace(
            start,
            parameters=parameters,
            from_=start.from_ or parameters.get("from", ""),
            to=start.to or parameters.get("to", ""),
        )
        dialect = self._detected.dialect
        grain = dialect.grain if dialect is not None else 1
        wire = GrainedWire(self.wire, grain, start.audio_format) if grain > 1 else self.wire
        self.end = self._exchange.join(start, wire, self.site)

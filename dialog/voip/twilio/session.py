"""One media socket of Twilio's."""

from __future__ import annotations

from dialog.voip.carrier.exchange import Exchange
from dialog.voip.carrier.http import Site
from dialog.voip.carrier.session import MediaSession
from dialog.voip.carrier.start import StreamStart
from dialog.voip.twilio.messages import Dtmf, Mark, Media, Start, Stop
from dialog.voip.twilio.stream import TwilioStream
from dialog.voip.wires import SocketWire

__all__ = ["TwilioSession"]


class TwilioSession(MediaSession):
    """Feeds a call's line with the messages of Media Streams."""

    __slots__ = ("_stream",)

    def __init__(
        self, exchange: Exchange, stream: TwilioStream, wire: SocketWire, site: Site, start_timeout_s: float
    ) -> None:
        super().__init__(exchange, wire, site, start_timeout_s)
        self._stream = stream

    def _read(self, text: str | bytes) -> None:
        message = self._stream.receive(text)
        if isinstance(message, Media):
            assert self.end is not None
            media = message.media
            self.end.receive_audio(media.payload, media.timestamp)
        elif isinstance(message, Mark):
            assert self.end is not None
            self.end.receive_mark(message.mark.name)
        elif message is not None:
            self._control(message)

    def _control(self, message: object) -> None:
        if isinstance(message, Start):
            detail = message.start
            self._start(
                StreamStart(
                    carrier_call_id=detail.call_sid,
                    account_id=detail.account_sid,
                    stream_id=message.stream_sid,
                    parameters=detail.custom_parameters,
                )
            )
        elif isinstance(message, Dtmf):
            assert self.end is not None
            self.end.receive_digit(message.dtmf.digit)
        elif isinstance(message, Stop):
            assert self.end is not None
            self.end.stopped()

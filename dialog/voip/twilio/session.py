"""One media socket, from its upgrade to its close, whatever server carries it."""

from __future__ import annotations

import logging

from dialog.errors import RemoteProtocolError
from dialog.voip.call import Call
from dialog.voip.line import Line
from dialog.voip.twilio.messages import Dtmf, Mark, Media, Start, Stop
from dialog.voip.twilio.stream import TwilioStream
from dialog.voip.twilio.switchboard import Switchboard
from dialog.voip.twilio.webhooks import Site
from dialog.voip.twilio.wire import TwilioWire

__all__ = ["MediaSession"]

logger = logging.getLogger(__name__)


class MediaSession:
    """Feeds a call's line with what its socket receives.

    A shell makes the wire, then calls :meth:`receive` for every text frame and :meth:`closed` once.
    """

    __slots__ = ("_line", "_stopped", "_stream", "_switchboard", "call", "site", "wire")

    def __init__(self, switchboard: Switchboard, stream: TwilioStream, wire: TwilioWire, site: Site) -> None:
        self.wire = wire
        self.site = site
        self.call: Call | None = None
        """Known from the ``start`` message on."""
        self._switchboard = switchboard
        self._stream = stream
        self._line: Line | None = None
        self._stopped = False

    def receive(self, text: str | bytes) -> None:
        """Take a text frame. What breaks the protocol closes the socket with 1008, and is logged."""
        if self.wire.closed:
            return  # on its way before the other side saw our close
        try:
            message = self._stream.receive(text)
            if isinstance(message, Media):
                assert self._line is not None
                media = message.media
                self._line.receive_audio(media.payload, media.timestamp)
            elif isinstance(message, Mark):
                assert self._line is not None
                self._line.receive_mark(message.mark.name)
            elif message is not None:
                self._control(message)
        except RemoteProtocolError as exc:
            self.refuse(1008, str(exc))

    def refuse(self, code: int, reason: str) -> None:
        """Close the socket because of what the other side did."""
        if not self.wire.closed:
            logger.warning("closing a media socket with %d: %s", code, reason)
            self.wire.fail(code)

    def closed(self) -> None:
        """The socket is closed."""
        if self.call is not None and self._line is not None:
            self.call.stream_closed(self._line)
        self.wire.close()

    def _control(self, message: object) -> None:
        if isinstance(message, Start):
            self.call, self._line = self._switchboard.join(message, self.wire, self.site)
        elif isinstance(message, Dtmf):
            assert self._line is not None
            self._line.receive_digit(message.dtmf.digit)
        elif isinstance(message, Stop):
            assert self.call is not None
            self.call.stream_stopped(self._line)

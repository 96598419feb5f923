"""One Media Streams connection as a pure object: text in, typed messages out, and the other way round.

It knows which order of messages is legal and nothing of sockets, clocks or calls::

    connected, start, (media | dtmf | mark)*, stop

Source: Twilio Media Streams, WebSocket messages.
"""

from __future__ import annotations

import logging
from binascii import b2a_base64
from typing import Literal

import msgspec

from dialog.errors import RemoteProtocolError, StateError
from dialog.voip.twilio.messages import (
    Connected,
    Media,
    Start,
    Stop,
    StreamMessage,
    Unknown,
    decode_stream_message,
)

__all__ = ["TwilioStream"]

logger = logging.getLogger(__name__)

_ENCODING = "audio/x-mulaw"
_RATE = 8000


class TwilioStream:
    """The protocol of one stream: checks what comes, writes what goes."""

    __slots__ = ("_clear", "_mark_head", "_media_head", "state", "stream_sid")

    binary: bool = False
    audio_rate: int = 8000
    max_written: int = 4096

    def __init__(self) -> None:
        self.state: Literal["new", "connected", "started", "stopped"] = "new"
        self.stream_sid: str = ""
        """Known from ``start`` on."""
        self._media_head = b""
        self._mark_head = b""
        self._clear = b""

    @property
    def name(self) -> str:
        """See :class:`~dialog.voip.wires.Codec`."""
        return self.stream_sid

    def receive(self, text: str | bytes) -> StreamMessage | None:
        """The message in a text frame; ``None`` for one that means nothing to a two-way stream.

        Raises:
            RemoteProtocolError: It is malformed, out of order, of another stream, or its audio is
                not 8000 Hz mu-law mono. The socket should be closed with 1008.
        """
        message = decode_stream_message(text)
        if isinstance(message, Media):
            if message.stream_sid != self.stream_sid or self.state != "started":
                raise self._refusal(message, message.stream_sid)
            if message.media.track == "inbound":
                return message
            return None  # only one-way streams carry the other track
        return self._control(message)

    def media(self, audio: bytes) -> bytes:
        """The message that plays ``audio`` (mu-law, 8000 Hz, any length) after what was sent before.

        Raises:
            StateError: The stream has not started: its id is not known.
        """
        if not self._media_head:
            raise StateError("a Twilio stream cannot carry media before its start message")
        return b'%b%b"}}' % (self._media_head, b2a_base64(audio, newline=False))

    def mark(self, name: str) -> bytes:
        """The message that asks to be told, by the same name, when all before it was played."""
        if not self._media_head:
            raise StateError("a Twilio stream cannot carry marks before its start message")
        return b"%b%b}}" % (self._mark_head, msgspec.json.encode(name))

    def clear(self) -> bytes:
        """The message that drops what was sent and not played; pending marks come back at once."""
        if not self._media_head:
            raise StateError("a Twilio stream cannot be cleared before its start message")
        return self._clear

    def _control(self, message: StreamMessage) -> StreamMessage | None:
        if isinstance(message, Unknown):
            logger.debug("ignored a Twilio stream message of the unknown event %.40r", message.event)
            return None
        if isinstance(message, Connected):
            if self.state != "new":
                raise self._refusal(message, self.stream_sid)
            self.state = "connected"
            return message
        if isinstance(message, Start):
            if self.state != "connected":
                raise self._refusal(message, self.stream_sid)
            self._started(message)
            return message
        if self.state != "started" or message.stream_sid != self.stream_sid:
            raise self._refusal(message, message.stream_sid)
        if isinstance(message, Stop):
            self.state = "stopped"
        return message

    def _started(self, message: Start) -> None:
        audio = message.start.media_format
        if (audio.encoding, audio.sample_rate, audio.channels) != (_ENCODING, _RATE, 1):
            raise RemoteProtocolError(
                f"Twilio stream {message.stream_sid}: audio is {audio.encoding}, {audio.sample_rate} Hz, "
                f"{audio.channels} channels; only {_ENCODING}, {_RATE} Hz, mono is spoken here"
            )
        if not message.stream_sid:
            raise RemoteProtocolError("Twilio sent a start message with an empty streamSid")
        self.state = "started"
        self.stream_sid = message.stream_sid
        sid = msgspec.json.encode(message.stream_sid)
        self._media_head = b'{"event":"media","streamSid":%b,"media":{"payload":"' % sid
        self._mark_head = b'{"event":"mark","streamSid":%b,"mark":{"name":' % sid
        self._clear = b'{"event":"clear","streamSid":%b}' % sid

    def _refusal(self, message: StreamMessage, stream_sid: str) -> RemoteProtocolError:
        event = type(message).__name__.lower()
        if self.state == "started" and stream_sid != self.stream_sid:
            return RemoteProtocolError(f"Twilio stream {self.stream_sid}: a {event} message of another stream")
        after = {"new": "before connected", "connected": "before start", "started": "twice"}.get(
            self.state, "after stop"
        )
        return RemoteProtocolError(f"Twilio stream {self.stream_sid or '(new)'}: {event} came {after}")

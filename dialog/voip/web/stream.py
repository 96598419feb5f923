"""One connection of the client protocol as a pure object: frames in, typed messages out, and the other way round.

It knows which order of messages is legal, and how much may come in how short a time; nothing of sockets and calls. ::

    session.start | session.resume, (audio | mark | dtmf | ping)*, session.end
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from dialog.errors import LimitError, RemoteProtocolError
from dialog.message import AudioFormat
from dialog.voip.web.messages import (
    VERSION,
    Clear,
    ClientMessage,
    Ping,
    SessionResume,
    SessionStart,
    decode_client_message,
    encode,
)

__all__ = ["WebStream"]

_AUDIO_AHEAD_S: Final = 30.0
"""Audio that may come at once: what a network held back, or a page that was suspended."""
_AUDIO_PACE: Final = 1.1
"""Clocks of sound cards run a little fast."""
_MESSAGES_AHEAD: Final = 200
_MESSAGES_PER_S: Final = 50.0
_CLEAR: Final = encode(Clear())


class _Bucket:
    """So much is allowed at once, and so much more every second."""

    __slots__ = ("_at", "_most", "_per_s", "_room")

    def __init__(self, most: float, per_s: float, now: float) -> None:
        self._most = self._room = most
        self._per_s = per_s
        self._at = now

    def take(self, amount: float, now: float) -> bool:
        self._room = min(self._most, self._room + (now - self._at) * self._per_s) - amount
        self._at = now
        return self._room >= 0.0


class WebStream:
    """The protocol of one connection. Times are seconds of one clock."""

    binary: bool = True
    audio_rate: int = 48_000
    max_written: int = 14_400

    __slots__ = ("_audio", "_format", "_messages", "name", "state")

    def __init__(self, now: float) -> None:
        self.state: Literal["new", "starting", "live", "over"] = "new"
        self.name: str = "(new)"
        """The session's, for the log."""
        self._format: AudioFormat | None = None
        self._messages = _Bucket(_MESSAGES_AHEAD, _MESSAGES_PER_S, now)
        self._audio = _Bucket(_AUDIO_AHEAD_S * 1000.0, _AUDIO_PACE * 1000.0, now)

    def start(self, name: str, audio_format: AudioFormat) -> None:
        """The session has started, or goes on."""
        self.state = "live"
        self.name = name
        self._format = audio_format

    def receive(self, text: str | bytes, now: float) -> ClientMessage:
        """The message in a text frame.

        Raises:
            RemoteProtocolError: It is malformed, out of order, or of another version.
            LimitError: Too many come.
        """
        if not self._messages.take(1.0, now):
            raise LimitError(f"more than {_MESSAGES_PER_S:g} messages a second")
        message = decode_client_message(text)
        if isinstance(message, Ping):
            return message
        if isinstance(message, SessionStart | SessionResume):
            if self.state != "new":
                raise RemoteProtocolError("a session was started twice on one connection")
            if message.version == VERSION:
                self.state = "starting"
        elif self.state != "live":
            kind = type(message).__struct_config__.tag
            raise RemoteProtocolError(f"{kind} came before session.started")
        return message

    def receive_audio(self, data: bytes, now: float) -> bytes:
        """The audio of a binary frame; empty before the session has started, when it is too early.

        Raises:
            RemoteProtocolError: It is half a sample, or came before any message.
            LimitError: More comes than anybody can say.
        """
        if self._format is None:
            if self.state == "new":
                raise RemoteProtocolError("audio came before session.start")
            return b""
        if len(data) % self._format.sample_bytes:
            raise RemoteProtocolError(f"{len(data)} bytes are no whole samples of {self._format.encoding}")
        if not self._audio.take(self._format.ms(len(data)), now):
            raise LimitError(f"more audio than {_AUDIO_PACE:g} times what a second holds")
        return data

    # As the wire's codec.

    def media(self, audio: bytes) -> bytes:
        """Audio travels as it is."""
        return audio

    def mark(self, name: str) -> bytes:
        """The message that asks to be told, by the same name, when all before it has sounded."""
        return b'{"type":"mark","name":%b}' % msgspec.json.encode(name)

    def clear(self) -> bytes:
        """The message that drops what was sent and has not sounded; open marks come back at once."""
        return _CLEAR

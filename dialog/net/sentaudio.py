"""The caller's audio on its way to a service: how frames carry it, and where it is on the call's audio clock."""

from __future__ import annotations

from binascii import b2a_base64
from collections.abc import Callable

from dialog.message import AudioFormat
from dialog.net.ring import StreamTime
from dialog.net.socket import ProviderSocket

__all__ = ["SentAudio"]


class SentAudio:
    """Sends audio over one connection after the other; each counts it from 0.

    Args:
        skewed: Called when the service tells of a position far from all that was sent.
    """

    __slots__ = ("_carried_ms_per_byte", "_ms_per_byte", "_skewed", "around", "between", "encode", "time")

    def __init__(self, skewed: Callable[[], object] = bool) -> None:
        self.encode: Callable[[bytes], bytes | str] | None = None
        """Makes a frame of audio; ``None``: the audio is the frame."""
        self.around: int = 0
        """Characters or bytes of a frame that holds audio, but for the audio."""
        self.between: tuple[str, str] | None = None
        """What stands before and behind the audio, if it goes in texts."""
        self.time: StreamTime = StreamTime(skewed)
        """What was sent on this connection."""
        self._skewed = skewed
        self._ms_per_byte = 0.0
        self._carried_ms_per_byte = 0.0

    def open(self, audio_format: AudioFormat) -> None:
        """Audio of this format is sent."""
        self._ms_per_byte = self._carried_ms_per_byte = audio_format.ms(1)

    def carry(self, audio_format: AudioFormat) -> None:
        """Frames carry the audio in another format than it comes in: :attr:`encode` converts it."""
        self._carried_ms_per_byte = audio_format.ms(1)

    def in_text(self, before: str, after: str) -> None:
        """Audio goes as base64 in a text, between ``before`` and ``after``."""
        self.encode = lambda data: before + b2a_base64(data, newline=False).decode() + after
        self.around = len(before) + len(after)
        self.between = (before, after)

    def restart(self) -> None:
        """A new connection counts from 0."""
        self.time = StreamTime(self._skewed)

    @property
    def until_ms(self) -> float:
        """Up to where, on the call's audio clock, this connection was given audio."""
        return self.time.to_call(self.time.sent_ms, end=True)

    def send(self, socket: ProviderSocket, data: bytes, at_ms: float) -> None:
        """Send audio that begins at ``at_ms`` on the call's audio clock."""
        if socket.send(data if self.encode is None else self.encode(data)):
            self.time.add(at_ms, len(data) * self._ms_per_byte)

    def drop(self, socket: ProviderSocket, frame: bytes | str) -> None:
        """A frame was thrown away before it was sent: what waits behind it is earlier than was thought."""
        duration_ms = self.length_ms(frame)
        waiting_ms = sum(map(self.length_ms, socket.queued_audio))
        self.time.drop(self.time.sent_ms - waiting_ms - duration_ms, duration_ms)

    def length_ms(self, frame: bytes | str) -> float:
        """How much audio a frame carries."""
        size = len(frame) - self.around
        if isinstance(frame, str):
            size = size // 4 * 3 - frame.count("=")
        return size * self._carried_ms_per_byte

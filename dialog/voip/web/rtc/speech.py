"""What an agent is about to say over WebRTC: audio and marks in, frames of 20 ms out. No I/O."""

from __future__ import annotations

from collections import deque
from typing import Final

from dialog.message import AudioFormat

__all__ = ["FRAME_MS", "Speech"]

FRAME_MS: Final = 20


class Speech:
    """A queue that a clear empties. Where there is nothing to say there are frames of silence."""

    __slots__ = ("_audio", "_head", "_marks", "_put", "_taken", "queued", "silence", "size")

    def __init__(self, audio_format: AudioFormat) -> None:
        self.size: int = audio_format.size(FRAME_MS)
        """Bytes of a frame."""
        self.silence: bytes = audio_format.silence(FRAME_MS)
        self.queued: int = 0
        """Bytes that wait."""
        self._audio: deque[bytes] = deque()
        self._head = 0
        """Bytes of the first piece that were taken."""
        self._put = 0
        self._taken = 0
        self._marks: deque[tuple[int, str]] = deque()

    def put(self, data: bytes) -> None:
        """Say ``data`` after what waits."""
        if data:
            self._audio.append(data)
            self._put += len(data)
            self.queued += len(data)

    def mark(self, name: str) -> None:
        """Note the place behind what waits."""
        self._marks.append((self._put, name))

    def take(self) -> tuple[bytes, list[str]]:
        """The next frame, and the marks that are reached with it."""
        frame = bytearray()
        while self._audio and len(frame) < self.size:
            piece = self._audio[0]
            part = piece[self._head : self._head + self.size - len(frame)]
            frame += part
            self._head += len(part)
            if self._head == len(piece):
                self._audio.popleft()
                self._head = 0
        self.queued -= len(frame)
        self._taken += len(frame)
        marks: list[str] = []
        while self._marks and self._marks[0][0] <= self._taken:
            marks.append(self._marks.popleft()[1])
        return (bytes(frame) + self.silence[len(frame) :] if frame else self.silence), marks

    def clear(self) -> int:
        """Forget what waits; how many bytes of audio that was."""
        dropped, self.queued = self.queued, 0
        self._audio.clear()
        self._marks.clear()
        self._head = 0
        self._put = self._taken
        return dropped

"""Both sides of a call on the speakers of this machine, for whoever builds an agent and wants to hear it."""

from __future__ import annotations

import threading
from collections.abc import Generator
from typing import Any

from dialog.audio.monitor import Monitor
from dialog.errors import DialogError, MissingExtra
from dialog.message import MULAW_8K, AudioFormat

__all__ = ["LocalSpeakers", "NoSpeakers"]

_BUFFER_MS = 100
_MOST_MS = 1000.0
"""A device that does not keep up hears a gap."""


class NoSpeakers(DialogError):
    """This machine has no audio device that plays anything."""

    code = "no_speakers"


class LocalSpeakers:
    """A tap of a line that plays what it hears, both sides in one channel.

    Args:
        audio_format: Of the line.
        backends: Names of miniaudio's back ends to try, such as ``pulseaudio``; empty: those of this machine.
    """

    def __init__(self, audio_format: AudioFormat = MULAW_8K, *, backends: tuple[str, ...] = ()) -> None:
        self.audio_format = audio_format
        self.played_ms: float = 0.0
        """So much of the call was given to the device."""
        self._backends = backends
        self._now_ms = 0.0
        """On the call's audio clock: the end of what the caller has sent."""
        self._monitor = Monitor(audio_format, lambda: self._now_ms)
        self._monitor.take()  # from here on
        self._plain = AudioFormat("s16le", audio_format.sample_rate)
        self._most = self._plain.size(_MOST_MS)
        self._lock = threading.Lock()
        self._waiting = bytearray()
        self._device: Any = None

    def start(self) -> None:
        """Open the device and play from now on; this blocks for some tenths of a second.

        Raises:
            MissingExtra: ``miniaudio`` is not installed.
            NoSpeakers: There is no device.
        """
        try:
            import miniaudio
        except ImportError as exc:
            raise MissingExtra("miniaudio", "speakers") from exc
        wanted = [miniaudio.Backend[name.upper()] for name in self._backends]
        try:
            device = miniaudio.PlaybackDevice(
                output_format=miniaudio.SampleFormat.SIGNED16,
                nchannels=1,
                sample_rate=self.audio_format.sample_rate,
                buffersize_msec=_BUFFER_MS,
                backends=wanted or None,
            )
            if device.backend == "Null" and not wanted:
                device.close()
                raise NoSpeakers("this machine has no audio device")
            playing = self._play()
            next(playing)
            device.start(playing)
        except miniaudio.MiniaudioError as exc:
            raise NoSpeakers(f"the audio device cannot be opened: {exc}") from exc
        self._device = device

    def close(self) -> None:
        """Fall silent and give the device back; this may block for a moment. Calling it again is harmless."""
        device, self._device = self._device, None
        if device is not None:
            device.close()

    def caller(self, at_ms: float, data: bytes) -> None:
        """See :class:`~dialog.voip.line.Tap`."""
        self._now_ms = at_ms + self.audio_format.ms(len(data))
        self._monitor.caller(at_ms, data)
        heard = self._monitor.take()
        if heard is not None:
            with self._lock:
                self._waiting += heard.mixed
                del self._waiting[: max(0, len(self._waiting) - self._most)]

    def agent(self, at_ms: float, data: bytes) -> None:
        """See :class:`~dialog.voip.line.Tap`."""
        self._monitor.agent(at_ms, data)

    def agent_cleared(self, at_ms: float) -> None:
        """See :class:`~dialog.voip.line.Tap`."""
        self._monitor.agent_cleared(at_ms)

    def _play(self) -> Generator[bytes, int, None]:
        """What the device gets, in its own thread: so many frames at a time, silence where there is nothing."""
        frames = yield b""
        while True:
            size = 2 * frames
            with self._lock:
                data = bytes(self._waiting[:size])
                del self._waiting[:size]
            self.played_ms += self._plain.ms(len(data))
            frames = yield data + bytes(size - len(data))

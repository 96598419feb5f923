"""Audio in whole pieces, for carriers that take no others."""

from __future__ import annotations

import asyncio
from typing import Final

from dialog.message import AudioFormat
from dialog.voip.peers import MediaWire

__all__ = ["GrainedWire"]

_TAIL_S: Final = 0.06
"""A rest for which nothing comes that completes it is sent with silence behind it: a tick of the pacer later."""


class GrainedWire:
    """A wire below which audio comes in multiples of ``grain`` bytes: see :class:`~dialog.voip.line.Wire`.

    A mark may then be asked for up to a grain too early.
    """

    def __init__(self, wire: MediaWire, grain: int, audio_format: AudioFormat) -> None:
        self._wire = wire
        self._grain = grain
        self._silence = audio_format.silence(1000)
        self._rest = b""
        self._timer: asyncio.TimerHandle | None = None

    @property
    def rtt_s(self) -> float:
        """Last measured ping round trip."""
        return self._wire.rtt_s

    @property
    def closed(self) -> bool:
        """Nothing is sent any more."""
        return self._wire.closed

    def send_control(self, message: bytes) -> None:
        """Send what is no audio."""
        self._wire.send_control(message)

    def send_audio(self, data: bytes, mark: str = "") -> None:
        """Send what is whole, and keep the rest for what follows."""
        data = self._rest + data
        whole = len(data) // self._grain * self._grain
        self._keep(data[whole:])
        if whole:
            self._wire.send_audio(data[:whole], mark)
        elif mark:
            self._wire.send_mark(mark)

    def send_mark(self, name: str) -> None:
        """Ask for an echo of ``name``."""
        self._wire.send_mark(name)

    def send_clear(self) -> int:
        """Drop what is queued, and clear what was sent."""
        dropped = len(self._rest)
        self._keep(b"")
        return dropped + self._wire.send_clear()

    def fail(self, code: int) -> None:
        """Close the socket with a code."""
        self._keep(b"")
        self._wire.fail(code)

    def close(self) -> None:
        """Close the socket."""
        self._keep(b"")
        self._wire.close()

    def _keep(self, rest: bytes) -> None:
        self._rest = rest
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if rest:
            self._timer = asyncio.get_running_loop().call_later(_TAIL_S, self._flush)

    def _flush(self) -> None:
        rest, self._rest, self._timer = self._rest, b"", None
        self._wire.send_audio(rest + self._silence[: self._grain - len(rest)])

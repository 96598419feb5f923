"""Opus to and from the format of a call's line, by libopus in PyAV (extra ``webrtc``).

The encoder takes 8, 16 and 24 kHz as they are. What comes is 48 kHz, and is resampled once, to the line's rate.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any, Final, cast

from dialog.audio.g711 import alaw_decode, alaw_encode, mulaw_decode, mulaw_encode
from dialog.message import AudioFormat
from dialog.voip.web.rtc.library import AudioCodecContext, AudioFrame, AudioResampler, CodecContext, Packet
from dialog.voip.web.rtc.speech import FRAME_MS

__all__ = ["RATE", "OpusReader", "OpusWriter"]

RATE: Final = 48_000
"""Of Opus over RTP, whatever the audio in it (RFC 7587, section 4.1)."""
_TICK: Final = Fraction(1, RATE)
_DECODE: Final = {"mulaw": mulaw_decode, "alaw": alaw_decode}
_ENCODE: Final = {"mulaw": mulaw_encode, "alaw": alaw_encode}


class OpusWriter:
    """Encodes frames of 20 ms of a line's audio, each so that the next one can make good its loss."""

    def __init__(self, audio_format: AudioFormat, *, kbit_s: int) -> None:
        codec = CodecContext.create("libopus", "w")
        assert isinstance(codec, AudioCodecContext)
        codec.format = "s16"
        codec.layout = "mono"
        codec.sample_rate = audio_format.sample_rate
        codec.bit_rate = kbit_s * 1000
        codec.time_base = Fraction(1, audio_format.sample_rate)
        # Little effort: a third of the time that the most takes, for a voice that nobody tells from it.
        codec.options = {"application": "voip", "fec": "1", "packet_loss": "5", "compression_level": "3"}
        self._codec = codec
        self._rate = audio_format.sample_rate
        self._samples = audio_format.sample_rate * FRAME_MS // 1000
        self._decode = _DECODE.get(audio_format.encoding)
        self._count = 0

    def skip(self, frames: int) -> None:
        """Nothing is sent for so long."""
        self._count += frames

    def encode(self, frame: bytes) -> Packet[Any] | None:
        """The packet of a frame, with its place in the stream; ``None``: the codec wants another frame first."""
        pcm = frame if self._decode is None else self._decode(frame)
        audio = AudioFrame(format="s16", layout="mono", samples=self._samples)
        audio.planes[0].update(pcm)
        audio.sample_rate = self._rate
        audio.pts = self._count * self._samples
        packets: list[Packet[Any]] = cast("Any", self._codec.encode(audio))
        if not packets:
            return None
        packet = packets[0]
        packet.pts = self._count * RATE * FRAME_MS // 1000  # the codec's own begins below 0
        packet.time_base = _TICK
        self._count += 1
        return packet


class OpusReader:
    """Makes a line's audio of what was decoded."""

    def __init__(self, audio_format: AudioFormat) -> None:
        self._resampler = AudioResampler(format="s16", layout="mono", rate=audio_format.sample_rate)
        self._encode = _ENCODE.get(audio_format.encoding)

    def convert(self, frame: AudioFrame) -> bytes:
        """The audio of a frame, as far as it is determined."""
        frame.pts = None  # a gap is the line's to fill
        pcm = b"".join(bytes(each.planes[0])[: each.samples * 2] for each in self._resampler.resample(frame))
        return pcm if self._encode is None else self._encode(pcm)

"""From one audio format to another on a live stream, and the choice of a format.

One :class:`Converter` serves one stream: one for each consumer of the caller's audio, one for each
part that an agent speaks. It is flushed where its stream ends and dropped where it is cut.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from dialog.audio.g711 import (
    alaw_decode,
    alaw_encode,
    alaw_to_mulaw,
    mulaw_decode,
    mulaw_encode,
    mulaw_to_alaw,
)
from dialog.audio.resample import Resampler, can_resample
from dialog.errors import UnsupportedFormat
from dialog.message import AudioFormat

__all__ = ["Converter", "common_formats", "negotiate"]

_RECODE: dict[tuple[str, str], Callable[[bytes], bytes]] = {
    ("mulaw", "alaw"): mulaw_to_alaw,
    ("alaw", "mulaw"): alaw_to_mulaw,
    ("mulaw", "s16le"): mulaw_decode,
    ("alaw", "s16le"): alaw_decode,
    ("s16le", "mulaw"): mulaw_encode,
    ("s16le", "alaw"): alaw_encode,
}


class Converter:
    """Turns a stream in one format into another; the output does not depend on how the input was cut.

    Where both formats are the same, :meth:`process` returns the very object it was given. Only a
    change of rate needs numpy and holds audio back (2 ms; see :class:`~dialog.audio.resample.Resampler`).

    Raises:
        MissingExtra: The rates differ and numpy is not installed.
        UnsupportedFormat: The rates are not convertible.
    """

    def __init__(self, source: AudioFormat, target: AudioFormat) -> None:
        self.source = source
        self.target = target
        self.identity: bool = source == target
        """Nothing is changed."""
        self._odd = b""
        self._decode: Callable[[bytes], bytes] | None = None
        self._resampler: Resampler | None = None
        self._encode: Callable[[bytes], bytes] | None = None
        if source.sample_rate != target.sample_rate:
            self._resampler = Resampler(source.sample_rate, target.sample_rate)
            self._decode = _RECODE.get((source.encoding, "s16le"))
            self._encode = _RECODE.get(("s16le", target.encoding))
        elif not self.identity:
            self._encode = _RECODE[source.encoding, target.encoding]
        self._may_be_odd = source.sample_bytes == 2 and self._resampler is None

    def process(self, data: bytes) -> bytes:
        """The next audio, as far as it is determined; a sample cut in two is completed by the next call."""
        if self.identity:
            return data
        if self._may_be_odd:
            data = self._whole(data)
        if self._decode is not None:
            data = self._decode(data)
        if self._resampler is not None:
            data = self._resampler.process(data)
        return data if self._encode is None else self._encode(data)

    def flush(self) -> bytes:
        """The rest of the stream, which ends here; then the converter is as new.

        Half a sample that was left over is dropped.
        """
        self._odd = b""
        if self._resampler is None:
            return b""
        data = self._resampler.flush()
        return data if self._encode is None else self._encode(data)

    def reset(self) -> None:
        """Forget what is held, for another stream."""
        self._odd = b""
        if self._resampler is not None:
            self._resampler.reset()

    def _whole(self, data: bytes) -> bytes:
        if self._odd:
            data = self._odd + data
            self._odd = b""
        if len(data) % 2:
            self._odd = data[-1:]
            data = data[:-1]
        return data


def negotiate(wanted: AudioFormat, offered: tuple[AudioFormat, ...]) -> AudioFormat:
    """The one of ``offered`` to use on one side of a converter that has ``wanted`` on the other.

    The same format, if it is there. Else the same rate in another encoding (s16le first: it loses
    nothing), then a higher rate (a multiple before an odd ratio, the lowest first), then the highest
    of the lower rates. Among equals, the first in ``offered``.

    Raises:
        UnsupportedFormat: Nothing is offered that can be converted.
    """
    if wanted in offered:
        return wanted
    rate = wanted.sample_rate
    possible = [one for one in offered if one.sample_rate == rate or can_resample(rate, one.sample_rate)]
    if not possible:
        raise UnsupportedFormat(
            f"no format to exchange with {_name(wanted)} among: {', '.join(map(_name, offered)) or 'none offered'}"
        )

    def cost(one: AudioFormat) -> tuple[bool, bool, int, bool]:
        lower = one.sample_rate < rate
        uneven = max(rate, one.sample_rate) % min(rate, one.sample_rate) != 0
        return lower, not lower and uneven, abs(one.sample_rate - rate), one.encoding != "s16le"

    return min(possible, key=cost)


def common_formats(offers: Sequence[tuple[AudioFormat, ...]]) -> tuple[AudioFormat, ...]:
    """Of all formats that are offered those that can be converted for everybody; empty if there are none."""
    offered = dict.fromkeys(audio_format for offer in offers for audio_format in offer)
    return tuple(one for one in offered if all(_convertible(one, offer) for offer in offers))


def _convertible(audio_format: AudioFormat, offered: tuple[AudioFormat, ...]) -> bool:
    try:
        negotiate(audio_format, offered)
    except UnsupportedFormat:
        return False
    return True


def _name(audio_format: AudioFormat) -> str:
    return f"{audio_format.encoding} {audio_format.sample_rate} Hz"

"""Change of sample rate on a live stream: a polyphase windowed-sinc filter on numpy.

The filter spans 15 samples of the lower rate to either side, so between 8 kHz and anything else it
holds back 1.9 ms and not the tens of milliseconds of a resampler made for files. It passes the
telephone band (0.7 dB down at 0.425 of the lower rate, which is 3.4 kHz of 8) and stops by 55 dB
what lies beyond 0.52 of it (above 4.2 kHz).

Coefficients are whole numbers and every sum stays below 2^53, so float64 arithmetic is exact: the
output does not depend on how the input was cut, on the order of additions, or on the machine.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING, TypeAlias

from dialog.errors import MissingExtra, UnsupportedFormat

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats: TypeAlias = NDArray[np.float64]
    Indices: TypeAlias = NDArray[np.intp]

__all__ = ["Resampler", "can_resample"]

_ZEROS = 15
"""Zero crossings of the sinc to either side; each is one sample of the lower rate."""
_CUTOFF = 0.46
"""Middle of the transition band, as a part of the lower rate."""
_KAISER_BETA = 5.4
"""Shape of the window: about 57 dB."""
_UNIT = float(1 << 20)
"""What a gain of one is in whole-number coefficients."""
_MOST_COEFFICIENTS = 200_000
"""Bounds the table of one ratio (1.6 MB); 8 to 44.1 kHz needs 13 000."""
_SHORT_PERIOD = 36
"""Up to this product of the ratio's terms whole periods are computed at once, as one matrix product."""
_BLOCK = 4096
"""Output samples computed in one go; bounds the working memory for long input."""


def can_resample(source_rate: int, target_rate: int) -> bool:
    """Whether :class:`Resampler` converts between the two rates in Hz.

    True among 8, 11.025, 12, 16, 22.05, 24, 32, 44.1 and 48 kHz, and for any pair with a small ratio.
    """
    if source_rate <= 0 or target_rate <= 0:
        return False
    up, down = _ratio(source_rate, target_rate)
    return up * 2 * _half(up, down) <= _MOST_COEFFICIENTS and down <= 48_000


class Resampler:
    """Converts s16le audio from one rate to another, chunk by chunk.

    Output sample ``k`` lies exactly at input time ``k / target_rate``: nothing is shifted, the delay
    is only that of waiting. ``n`` samples of input give ``ceil(n * target_rate / source_rate)``
    samples after :meth:`flush`.

    Args:
        source_rate: Hz of what goes in.
        target_rate: Hz of what comes out.

    Raises:
        MissingExtra: numpy is not installed.
        UnsupportedFormat: The ratio of the rates has no short form.
    """

    def __init__(self, source_rate: int, target_rate: int) -> None:
        if not can_resample(source_rate, target_rate):
            raise UnsupportedFormat(f"cannot convert audio from {source_rate} Hz to {target_rate} Hz")
        self.source_rate = source_rate
        self.target_rate = target_rate
        self._up, self._down = _ratio(source_rate, target_rate)
        self._half = _half(self._up, self._down)
        self._short = self._up * self._down <= _SHORT_PERIOD
        try:
            # The first to need numpy.
            self._filters = (_period if self._short else _filters)(self._up, self._down)
        except ImportError as exc:
            raise MissingExtra("numpy", "audio") from exc
        self.reset()

    @property
    def delay_ms(self) -> float:
        """How long audio is held back, at most."""
        return (self._half + (self._down if self._short else 1)) * 1000.0 / self.source_rate

    def reset(self) -> None:
        """Forget what is held, for another stream."""
        import numpy as np

        self._odd = b""
        self._held: Floats = np.zeros(self._half - 1)
        """Input from the start of the next output's window on."""
        self._taken = 0
        """Input samples so far."""
        self._made = 0
        """Output samples so far."""

    def process(self, data: bytes) -> bytes:
        """The next s16le audio, as far as it is determined; half a sample is kept for the next call."""
        if self._odd:
            data = self._odd + data
            self._odd = b""
        if len(data) % 2:
            self._odd = data[-1:]
            data = data[:-1]
        if not data:
            return b""
        import numpy as np

        self._taken += len(data) // 2
        return self._run(np.concatenate((self._held, np.frombuffer(data, "<i2"))))

    def flush(self) -> bytes:
        """The rest of the stream, which ends here; then the resampler is as new.

        Half a sample that was left over is dropped.
        """
        import numpy as np

        total = -(-self._taken * self._up // self._down)
        made = self._made
        tail = self._run(np.concatenate((self._held, np.zeros(self._half + self._down))))
        self.reset()
        return tail[: 2 * (total - made)]

    def _run(self, signal: Floats) -> bytes:
        import numpy as np

        parts: list[bytes] = []
        while True:
            out, used = self._some_periods(signal) if self._short else self._some_samples(signal)
            if out is None:
                break
            # Exact: a power of two. Then to the nearest, held within 16 bits.
            out *= 1.0 / _UNIT
            parts.append(np.rint(out).clip(-32768, 32767).astype("<i2").tobytes())
            self._made += out.size
            signal = signal[used:]
        # A copy, so that the memory of a long chunk is not kept alive by its tail.
        self._held = signal.copy()
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _some_periods(self, signal: Floats) -> tuple[Floats | None, int]:
        """Outputs in whole periods and the input used up: rows of overlapping windows times the filters."""
        import numpy as np

        width = self._filters.shape[0]
        rows = min((signal.size - width) // self._down + 1, _BLOCK // self._up)
        if rows <= 0:
            return None, 0
        step = signal.itemsize
        windows = np.ndarray((rows, width), np.float64, signal, 0, (step * self._down, step))
        # The copy makes the windows a plain matrix, which BLAS takes; it is faster than going without.
        return (windows.copy() @ self._filters).reshape(-1), rows * self._down

    def _some_samples(self, signal: Floats) -> tuple[Floats | None, int]:
        """Outputs up to the end of a period and the input used up: each window by the filter of its output."""
        import numpy as np

        room = signal.size - 2 * self._half
        if room < 0:
            return None, 0
        number = self._made % self._up
        base = number * self._down // self._up
        # The window of output number + i starts at (number + i) * down // up - base, which must not pass room.
        ready = ((room + base + 1) * self._up - 1) // self._down + 1 - number
        stop = number + min(ready, self._up - number, _BLOCK)
        starts = _starts(self._up, self._down)[number:stop] - base
        step = signal.itemsize
        windows = np.ndarray((room + 1, 2 * self._half), np.float64, signal, 0, (step, step))
        out: Floats = np.einsum("kj,kj->k", windows[starts], self._filters[number:stop])
        return out, stop * self._down // self._up - base


def _ratio(source_rate: int, target_rate: int) -> tuple[int, int]:
    """Target over source in lowest terms: upsample by the first, keep one of the second."""
    common = math.gcd(source_rate, target_rate)
    return target_rate // common, source_rate // common


def _half(up: int, down: int) -> int:
    """Input samples that the filter spans to either side."""
    return math.ceil(_ZEROS * max(1.0, down / up))


# Tables depend on the ratio alone and are shared by all calls; they are never written to.
@lru_cache(maxsize=32)
def _filters(up: int, down: int) -> Floats:
    """Row ``k``: the filter of the ``k``-th output of a period, over the input around it."""
    import numpy as np

    half = _half(up, down)
    after = np.arange(up) * down % up / up
    # Distance of each input sample from the output's place, in samples of the lower rate.
    at = (np.arange(1 - half, half + 1)[None, :] - after[:, None]) * min(1.0, up / down)
    window = np.i0(_KAISER_BETA * np.sqrt(np.clip(1.0 - (at / _ZEROS) ** 2, 0.0, None)))
    window[np.abs(at) > _ZEROS] = 0.0
    taps = np.sinc(2.0 * _CUTOFF * at) * window
    taps *= _UNIT / taps.sum(axis=1, keepdims=True)
    whole: Floats = np.rint(taps)
    # Every phase passes a constant exactly; else rounding would put a faint tone on it.
    whole[np.arange(up), whole.argmax(axis=1)] += _UNIT - whole.sum(axis=1)
    return whole


@lru_cache(maxsize=32)
def _period(up: int, down: int) -> Floats:
    """Column ``k``: the filter of the ``k``-th output of a period, over all input of the period."""
    import numpy as np

    filters = _filters(up, down)
    width = filters.shape[1]
    out = np.zeros((width + (up - 1) * down // up, up))
    for number in range(up):
        start = number * down // up
        out[start : start + width, number] = filters[number]
    return out


@lru_cache(maxsize=32)
def _starts(up: int, down: int) -> Indices:
    """First input sample of the window of each output of a period."""
    import numpy as np

    return np.arange(up) * down // up

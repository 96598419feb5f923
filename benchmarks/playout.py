"""What a false interruption costs the caller, and what a sound beside the voice costs the processor.

``python benchmarks/playout.py`` takes some seconds: the calls run in virtual time, on lines whose way to
the carrier takes now longer, now shorter. The seed is printed.
"""

import itertools
import random
import sys
import time
from pathlib import Path
from uuid import uuid4

sys.path[:0] = [str(Path(__file__).resolve().parent.parent)]

from dialog.audio.sound import hold  # noqa: E402
from dialog.message import MULAW_8K, Message  # noqa: E402
from dialog.testing.virtual import run_virtual  # noqa: E402
from dialog.voip.bed import BedLane  # noqa: E402
from dialog.voip.memory import MemoryLine, memory_call  # noqa: E402
from dialog.voip.voip import VoIP  # noqa: E402

CALLS = 200
SPEECH_MS = 6000
VOICE = b"\x11"


class JitteryLine(MemoryLine):
    """A carrier to which the way takes up to ``jitter_s`` longer, in order."""

    def __init__(self, draw: random.Random, jitter_s: float, **options) -> None:
        super().__init__(**options)
        self._draw = draw
        self._jitter_s = jitter_s
        self._last = 0.0

    def _arrival(self) -> float:
        self._last = max(self._last, super()._arrival() + self._draw.uniform(0.0, self._jitter_s))
        return self._last


def numbered(ms: int) -> bytes:
    """Audio of which every 10 ms can be told from their neighbours: no byte of it is silence."""
    return b"".join(bytes([at % 250 + 1]) * 80 for at in range(ms // 10))


def quantile(values: list[float], q: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(q * len(ordered)))]


def spread(values: list[float], digits: int = 0) -> str:
    figures = (("p50", quantile(values, 0.5)), ("p95", quantile(values, 0.95)), ("most", max(values)))
    return ", ".join(f"{name} {value:.{digits}f}" for name, value in figures)


def false_interruption(seed: int) -> tuple[float, float, float, float]:
    """Silence beyond the detection, audio said again and audio left out, and the length of the cut word: ms."""
    draw = random.Random(seed)

    async def scenario(clock):
        line = JitteryLine(
            draw,
            draw.choice([0.0, 0.02, 0.05]),
            clock=clock,
            rtt_s=draw.choice([0.02, 0.08, 0.2]),
            buffer_s=draw.choice([0.0, 0.04]),
        )
        call, _ = memory_call(lambda _: None, clock=clock, line=line)
        reports = []
        call.voip.on(VoIP.PLAYBACK, reports.append)
        call.voip.post(Message(uuid=uuid4(), data=numbered(SPEECH_MS), done=True))
        await clock.sleep(draw.uniform(0.5, 4.0))
        call.voip.pause()
        detection_s = draw.uniform(0.6, 2.0)
        await clock.sleep(detection_s)
        heard_ms = next(report.heard_ms for report in reversed(reports) if report.state == "paused")
        word_ms = draw.uniform(120, 600)
        call.voip.resume(from_ms=heard_ms // word_ms * word_ms)
        await clock.sleep(SPEECH_MS / 1000 + 2)
        pieces = line.heard
        gaps = [
            (b.at_s - a.at_s - MULAW_8K.ms(len(a.data)) / 1000, at)
            for at, (a, b) in enumerate(itertools.pairwise(pieces))
        ]
        silence_s, at = max(gaps)
        before = sum(len(piece.data) for piece in pieces[: at + 1])
        after = sum(len(piece.data) for piece in pieces[at + 1 :])
        # Both stretches are whole, one from the start and one to the end: they overlap, or miss something.
        overlap_ms = MULAW_8K.ms(before + after) - SPEECH_MS
        call.end("measured")
        await call.wait_closed()
        return silence_s * 1000 - detection_s * 1000, max(0.0, overlap_ms), max(0.0, -overlap_ms), word_ms

    return run_virtual(scenario)


def first_voice_over_a_sound(seed: int) -> float:
    """Milliseconds from the post of the first voice until it sounds, beyond the way to the carrier."""
    draw = random.Random(seed)

    async def scenario(clock):
        line = MemoryLine(clock=clock, rtt_s=0.06)
        call, _ = memory_call(lambda _: None, clock=clock, line=line)
        call.voip.set_thinking(hold())
        await clock.sleep(draw.uniform(0.5, 3.0))
        posted = clock.now()
        call.voip.post(Message(uuid=uuid4(), data=VOICE * 8000, done=True))
        await clock.sleep(1.0)
        began = next(p.at_s + p.data.index(VOICE * 200) / 8000 for p in line.heard if VOICE * 200 in p.data)
        call.end("measured")
        await call.wait_closed()
        return (began - posted - 0.03) * 1000

    return run_virtual(scenario)


def cost_us(work, times: int = 2000) -> float:
    """Microseconds of one run, the best of five rounds."""
    best = float("inf")
    for _ in range(5):
        start = time.perf_counter()
        for _ in range(times):
            work()
        best = min(best, time.perf_counter() - start)
    return best / times * 1e6


def main() -> None:
    seed = int(sys.argv[1]) if len(sys.argv) > 1 else random.randrange(1_000_000)
    print(f"seed {seed}")
    costs = [false_interruption(seed + at) for at in range(CALLS)]
    silence, again, left_out, word = ([cost[at] for cost in costs] for at in range(4))
    words = [max(said, left) / one for said, left, one in zip(again, left_out, word, strict=True)]
    print(f"false interruption, {CALLS} calls")
    print(f"  silence beyond its detection {spread(silence)} ms (at most 300)")
    print(f"  said again {spread(again)} ms; left out {spread(left_out)} ms; in words {spread(words, 2)} (at most 1)")
    late = [first_voice_over_a_sound(seed + at) for at in range(50)]
    print(f"first voice over a thinking sound: {spread(late, 1)} ms later than over silence")
    lane = BedLane(MULAW_8K)
    voice = numbered(100)
    off = cost_us(lambda: lane.on)
    lane.set("background", hold(), -20.0)
    lane.under(voice)
    under = cost_us(lambda: lane.under(voice))
    lane.alone(MULAW_8K.size(3000))
    alone = cost_us(lambda: lane.alone(800))
    print(f"a background, for each 100 ms: under a voice {under:.1f} us, alone {alone:.1f} us, none {off:.2f} us")


if __name__ == "__main__":
    main()

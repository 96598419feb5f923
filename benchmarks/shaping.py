"""What shaping costs: per token of a reply, and per question what of it was heard.

    python benchmarks/shaping.py

Each figure is the best of several runs, in process time.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Literal

from dialog.agent.heard import HeardMap, SpeechRate
from dialog.agent.shaping import TokenShaper, shaper_for
from dialog.message import Word

PLAIN = (
    "We would be glad to see you on Friday evening, and the kitchen is open until ten. Please tell us when you"
    " come, how many you are, and whether somebody of you has an allergy. Would you like the table at the window?"
)
RICH = (
    "The menu is **$45.50** per person, see [our page](https://example.com/menu). Call (555) 123-4567 at 7:30 pm on"
    " January 5, 2025 or write to info@example.com.\n\n- 25% off for children\n- 12,500 guests so far"
)


def tokens(text: str) -> list[str]:
    """About what a model's tokens look like."""
    return re.findall(r" ?[A-Za-z]{1,7}| ?\d{1,3}|\s|[^\sA-Za-z\d]{1,3}", text)


def best_us(work: Callable[[], object], count: int, runs: int = 7) -> float:
    """Microseconds for each of ``count`` steps."""
    times: list[float] = []
    for _ in range(runs):
        start = time.process_time()
        for _ in range(100):
            work()
        times.append((time.process_time() - start) / 100)
    return min(times) * 1e6 / count


def shape(text: str, voice: Literal["tokens", "sentences"], normalizes: bool) -> float:
    parts = tokens(text)

    def work() -> None:
        shaper = shaper_for(voice, normalizes=normalizes)
        for part in parts:
            shaper.feed(part)
        shaper.flush()

    return best_us(work, len(parts))


def bare(text: str) -> float:
    parts = tokens(text)

    def work() -> None:
        shaper = TokenShaper()
        for part in parts:
            shaper.feed(part)

    return best_us(work, len(parts))


def heard() -> tuple[float, float]:
    """Microseconds to place the timing of a word, and to tell what was heard of a reply of 1000 characters."""
    text = " ".join([PLAIN] * 5)[:1000]
    words = tuple(
        Word(text=word, start_ms=300.0 * index, end_ms=300.0 * index + 280.0) for index, word in enumerate(text.split())
    )

    def new() -> HeardMap:
        heard_map = HeardMap(SpeechRate())
        shaper = shaper_for("tokens")
        for part in tokens(text):
            for piece in shaper.feed(part):
                heard_map.post(piece)
        return heard_map

    def best(work: Callable[[HeardMap], object]) -> float:
        times: list[float] = []
        for _ in range(30):
            heard_map = new()
            start = time.process_time()
            work(heard_map)
            times.append(time.process_time() - start)
        return min(times) * 1e6

    def ask(heard_map: HeardMap) -> None:
        heard_map.heard(10_000.0, None, text)

    return best(lambda heard_map: heard_map.align(words)) / len(words), best(ask)


def main() -> None:
    print(f"{'':52}{'us per token':>14}")
    print(f"{'plain text, token voice, no filters':52}{bare(PLAIN):14.2f}")
    for text, name in ((PLAIN, "plain text"), (RICH, "markup, numbers, addresses")):
        for voice in ("tokens", "sentences"):
            for normalizes in (True, False):
                what = f"{name}, {voice}, {'as written' if normalizes else 'numbers in words'}"
                print(f"{what:52}{shape(text, voice, normalizes):14.2f}")
    align_us, heard_us = heard()
    print(f"{'a word timing, placed':52}{align_us:14.2f}")
    print(f"{'what was heard of 1000 characters, first time':52}{heard_us:14.2f}")


if __name__ == "__main__":
    main()

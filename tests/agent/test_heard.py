"""From heard milliseconds back to the words of the reply."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dialog.agent.heard import HeardMap, SpeechRate
from dialog.agent.shaping import Piece
from dialog.message import Word


def mapped(*pieces: Piece) -> HeardMap:
    heard_map = HeardMap(SpeechRate())
    for piece in pieces:
        heard_map.post(piece)
    return heard_map


def words(*spans: tuple[str, float, float]) -> tuple[Word, ...]:
    return tuple(Word(text=text, start_ms=start, end_ms=end) for text, start, end in spans)


def test_a_word_counts_as_heard_when_half_of_it_was():
    text = "We open at ten."
    heard_map = mapped(Piece(text, 0, len(text), True))
    heard_map.align(words(("We", 0, 200), ("open", 200, 500), ("at", 500, 600), ("ten", 600, 1000)))
    assert text[: heard_map.heard(340, None)] == "We"
    assert text[: heard_map.heard(350, None)] == "We open"
    assert text[: heard_map.heard(5000, None)] == "We open at ten.", "with the mark that hangs on it"


def test_a_rewritten_piece_is_heard_as_a_whole_or_not_at_all():
    source = "It costs $5 now"
    heard_map = mapped(
        Piece("It costs ", 0, 9, False), Piece("five dollars ", 9, 12, False), Piece("now", 12, 15, True)
    )
    heard_map.align(
        words(("It", 0, 100), ("costs", 100, 300), ("five", 300, 500), ("dollars", 500, 900), ("now", 900, 1000))
    )
    assert source[: heard_map.heard(450, None)] == "It costs"
    assert source[: heard_map.heard(800, None)] == "It costs $5 "
    assert source[: heard_map.heard(1000, None)] == source


def test_words_the_voice_normalised_do_not_derail_the_others():
    text = "Call 555 1234 after nine"
    heard_map = mapped(Piece(text, 0, len(text), True))
    heard_map.align(words(("Call", 0, 200), ("five-five-five", 200, 900), ("after", 1500, 1800), ("nine", 1800, 2200)))
    assert text[: heard_map.heard(1700, None)] == "Call 555 1234 after"


def test_without_timings_the_share_of_the_audio_tells():
    text = "one two three four"
    heard_map = mapped(Piece(text, 0, len(text), True))
    assert text[: heard_map.heard(1000, 2000)] == "one two"
    assert text[: heard_map.heard(2000, 2000)] == text


def test_without_timings_and_total_the_rate_of_the_voice_tells():
    text = "one two three four"
    heard_map = mapped(Piece(text, 0, len(text), True))
    assert text[: heard_map.heard(600, None)] == "one two"  # 15 characters a second
    assert heard_map.heard(200, None) == 0, "too little for a word"


def test_the_rate_is_learnt_from_finished_parts():
    rate = SpeechRate()
    for _ in range(20):
        rate.learn(100, 5000)
    assert rate.chars_per_s == pytest.approx(20, abs=0.1)
    rate.learn(2, 60_000)
    assert rate.chars_per_s == pytest.approx(20, abs=0.1), "a short part tells nothing"


@given(st.floats(0, 5000), st.floats(0, 5000))
def test_more_audio_never_means_fewer_words(first, second):
    text = "the quick brown fox jumps"
    heard_map = mapped(Piece(text, 0, len(text), True))
    low, high = sorted((first, second))
    assert heard_map.heard(low, 3000) <= heard_map.heard(high, 3000)

"""The pure parts behind recognisers over sockets: words without times, echoes, segments heard again."""

from __future__ import annotations

import math
from itertools import accumulate
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dialog.message import Utterance, Word
from dialog.stt.echo import Echo, OwnSpeech
from dialog.stt.segments import Segment, SegmentCollector
from dialog.stt.turns import PlacedWords


def spans(words):
    return [(word.text, round(word.start_ms), round(word.end_ms)) for word in words]


def test_new_words_were_said_since_the_last_ones():
    placed = PlacedWords()
    assert spans(placed.place(["my"], 1000.0, from_ms=900.0)) == [("my", 900, 1000)]
    assert spans(placed.place(["my", "number", "is"], 1400.0)) == [
        ("my", 900, 1000),
        ("number", 1000, 1200),
        ("is", 1200, 1400),
    ]


def test_a_word_after_a_pause_began_behind_the_pause():
    placed = PlacedWords()
    placed.place(["well"], 1000.0, from_ms=700.0)
    assert spans(placed.place(["well", "yes"], 9000.0))[1] == ("yes", 8700, 9000)


def test_revised_words_stay_where_they_were_and_fewer_words_are_fewer():
    placed = PlacedWords()
    placed.place(["a", "tabel", "fro"], 900.0, from_ms=0.0)
    assert spans(placed.place(["a", "table"], 1000.0)) == [("a", 0, 300), ("table", 300, 600)]
    placed.clear()
    assert spans(placed.place(["new"], 2000.0)) == [("new", 1700, 2000)]


def test_time_that_stands_still_makes_words_without_length():
    placed = PlacedWords()
    placed.place(["a"], 500.0, from_ms=200.0)
    assert spans(placed.place(["a", "b"], 500.0)) == [("a", 200, 500), ("b", 500, 500)]
    assert spans(placed.place(["a", "b", "c"], 400.0))[2] == ("c", 500, 500)  # a clock that goes back


def said(text, at_ms, end_ms):
    return Utterance(uuid=uuid4(), data=text, at_ms=at_ms, end_ms=end_ms)


ECHO = Echo(400.0)


@pytest.fixture
def own():
    made = OwnSpeech()
    told(made, "Thank you for calling Luigi's. How can I help?", 1000.0, until_ms=4000.0)
    return made


def told(own, text, at_ms, *, until_ms):
    """We say ``text``, and tell the words as they are heard, evenly."""
    words = text.split()
    own.sounds(True, at_ms)
    for index, word in enumerate(words, 1):
        own.heard(word, at_ms + (until_ms - at_ms) * index / len(words))
    own.sounds(False, until_ms)


@pytest.mark.parametrize(
    ("utterance", "dropped"),
    [
        (said("thank you for calling luigis", 1200, 3000), True),
        (said("Thank you for calling, Luigi's!", 1200, 3000), True),
        (said("how can I help", 3200, 4400), True),
        (said("thanks you for calling", 1200, 3000), True),  # as a recogniser may hear it
        (said("how can I help", 3200, 4500), False),  # too long after us
        (said("how can I help", 1200, 2100), False),  # we had not said that by then
        (said("thank you for calling", 3400, 4300), False),  # that was a while before
        (said("how can I help", 900, 3000), False),  # the caller began before us
        (said("thank you", 1200, 3000), False),  # too short to be sure
        (said("I want a table for two", 1200, 3000), False),
        (said("no wait can I book", 1200, 3000), False),
        (said("thank you for calling but I want to cancel my table", 1200, 3900), False),
        (said("...", 1200, 3000), False),
    ],
    ids=lambda value: value.data if isinstance(value, Utterance) else "",
)
def test_what_repeats_us_while_we_speak_is_an_echo(own, utterance, dropped):
    assert ECHO.is_echo(utterance, own) == dropped


def test_interim_words_that_may_become_an_echo_are_held(own):
    assert ECHO.repeats(said("thank", 1200, 1500), own)
    assert not ECHO.repeats(said("table", 1200, 1500), own)


def test_nothing_is_an_echo_before_we_speak_or_without_words():
    own, utterance = OwnSpeech(), said("one two three", 100, 900)
    assert not ECHO.is_echo(utterance, own)
    own.sounds(True, 0.0)
    assert not ECHO.is_echo(utterance, own)
    assert not ECHO.repeats(utterance, own)
    assert not ECHO.is_echo(utterance, None)
    assert not ECHO.repeats(utterance, None)


def test_words_add_up_over_a_short_pause_and_older_ones_do_not_count(own):
    told(own, "one two", 10_000.0, until_ms=10_400.0)
    own.sounds(True, 10_500.0)
    own.heard("three", 10_500.0)
    assert ECHO.is_echo(said("one two three", 10_100, 11_000), own)
    assert not ECHO.is_echo(said("thank you for calling", 10_100, 11_000), own)


def test_an_echo_that_ends_in_a_pause_is_one_also_when_it_is_told_after_the_pause():
    own = OwnSpeech()
    told(own, "a table for two", 1000.0, until_ms=2000.0)
    own.sounds(True, 3000.0)
    assert ECHO.is_echo(said("a table for two", 1200, 2200), own)
    assert not ECHO.is_echo(said("a table for two", 2700, 3600), own)  # they began before we went on


def test_where_times_are_guesses_an_echo_may_seem_to_end_later():
    own = OwnSpeech()
    told(own, "a table for two", 1000.0, until_ms=2200.0)
    late = said("a table for two", 1900, 3100)
    assert not ECHO.is_echo(late, own)
    assert ECHO.is_echo(late, own, timed=False)
    assert not ECHO.is_echo(said("a table for two", 2700, 3100), own, timed=False)  # it began too long after us


def test_what_is_written_when_it_is_asked_for_is_read_and_an_hour_of_it_takes_no_room():
    own = OwnSpeech()
    waiting = [("a table", 500.0), ("for two", 900.0)]

    def look() -> None:
        while waiting:
            own.heard(*waiting.pop(0))

    own.look = look
    own.sounds(True, 100.0)
    assert ECHO.is_echo(said("a table for two", 200, 1000), own)
    for second in range(3600):
        own.sounds(second % 2 == 0, second * 1000.0)
        own.heard("words", second * 1000.0)
    assert len(own.words(0.0, 3_600_000.0).split()) == 61
    assert len(own.stretches) < 20


@given(st.lists(st.integers(1, 30), min_size=2, max_size=12), st.integers(0, 150), st.integers(0, 60), st.booleans())
def test_an_echo_lies_within_our_speech_whose_short_pauses_do_not_count(steps, begins, length, sounding):
    times = [100.0 * at for at in accumulate(steps)]
    own = OwnSpeech()
    joined = []
    for from_ms, until_ms in zip(times[::2], [*times[1::2], math.inf], strict=False):
        if until_ms < math.inf or sounding:
            own.sounds(True, from_ms)
            if joined and from_ms - joined[-1][1] <= 400.0:
                joined[-1][1] = until_ms
            else:
                joined.append([from_ms, until_ms])
        if until_ms < math.inf:
            own.sounds(False, until_ms)
    at_ms, end_ms = 100.0 * begins, 100.0 * (begins + length)
    own.heard("one two three", at_ms)
    inside = any(since <= at_ms + 50.0 and end_ms - 400.0 <= until for since, until in joined)
    assert ECHO.repeats(said("one two three", at_ms, end_ms), own) == inside


def segment(text, start_ms, each=100.0):
    words = tuple(
        Word(text=word, start_ms=start_ms + i * each, end_ms=start_ms + (i + 1) * each)
        for i, word in enumerate(text.split())
    )
    return Segment(text=text, start_ms=start_ms, end_ms=words[-1].end_ms, words=words)


def test_interim_words_whose_audio_is_gone_are_kept_over_a_restart():
    collector = SegmentCollector()
    told = collector.add(segment("a b c d", 0.0), final=False)
    collector.restart(0.0, 200.0)
    assert collector.begun
    collector.add(segment("b c d e", 100.0), final=True, last=True)  # heard again, from 200 ms on
    utterance = collector.finish()
    assert utterance is not None
    assert told is not None
    assert utterance.data == "a b c d e"
    assert utterance.uuid == told.uuid


def test_the_utterance_so_far_has_the_uuid_of_its_interims():
    collector = SegmentCollector()
    assert collector.utterance is None
    collector.add(segment("a b", 0.0), final=True)
    told = collector.add(segment("c", 200.0), final=False)
    so_far = collector.utterance
    assert so_far is not None
    assert told is not None
    assert (so_far.data, so_far.uuid) == ("a b c", told.uuid)

"""From heard milliseconds back to the words of the reply."""

from __future__ import annotations

import random
import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dialog.agent.heard import HeardMap, SpeechRate
from dialog.agent.shaping import Piece, shaper_for
from dialog.message import Word

# ruff: noqa: SIM905  # lists of words are easier to read as text


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


def test_a_link_is_heard_with_its_address():
    source = "See [our page](https://x.com) now."
    pieces = shaped(source, "sentences")
    heard_map = mapped(*pieces)
    heard_map.align(words(("See", 0, 200), ("our", 200, 400), ("page", 400, 800), ("now.", 800, 1000)))
    assert source[: heard_map.heard(700, None, source)] == "See [our page](https://x.com)"
    assert source[: heard_map.heard(1000, None, source)] == source


def test_emphasis_is_heard_with_its_marks():
    source = "It is **really** good"
    heard_map = mapped(*shaped(source, "tokens"))
    heard_map.align(words(("It", 0, 100), ("is", 100, 200), ("really", 200, 600), ("good", 600, 900)))
    assert source[: heard_map.heard(500, None, source)] == "It is **really**"


def test_a_number_in_words_is_heard_as_the_number_that_was_written():
    source = "It costs $5.50 each"
    heard_map = mapped(*shaped(source, "sentences", normalizes=False))
    spoken = "it costs five dollars and fifty cents each".split(" ")
    heard_map.align(words(*((word, 200 * index, 200 * index + 200) for index, word in enumerate(spoken))))
    assert source[: heard_map.heard(800, None, source)] == "It costs"
    assert source[: heard_map.heard(901, None, source)] == "It costs $5.50"
    assert source[: heard_map.heard(1500, None, source)] == source


def test_the_same_word_further_on_is_not_taken_for_one_that_was_rewritten():
    source = "Call 105 at noon or come by at ten."
    heard_map = mapped(*shaped(source, "tokens"))
    # The second "at" is too far away for the time that has passed.
    heard_map.align(words(("call", 0, 200), ("at", 250, 300)))
    assert source[: heard_map.heard(300, None, source)] in ("Call", "Call 105 at")


def test_timings_in_pieces_of_words_fit_too():
    source = "A well-known place. \u4f60\u597d\u5417"
    heard_map = mapped(*shaped(source, "tokens"))
    heard_map.align(words(("A", 0, 100), ("well", 100, 300), ("known", 300, 600), ("pl", 600, 700), ("ace.", 700, 900)))
    heard_map.align(words(("\u4f60", 1000, 1200), ("\u597d", 1200, 1400), ("\u5417", 1400, 1600)))
    assert source[: heard_map.heard(360, None, source)] == "A well-known"
    assert source[: heard_map.heard(800, None, source)] == "A well-known place."
    assert source[: heard_map.heard(1350, None, source)] == "A well-known place. \u4f60\u597d"


def test_words_behind_the_last_timing_are_heard_once_it_cannot_be_a_pause():
    source = "one two three four five six seven eight nine ten eleven"
    heard_map = mapped(*shaped(source, "tokens"))
    heard_map.align(words(("one", 0, 200), ("two", 200, 500)))
    assert source[: heard_map.heard(900, None, source)] == "one two"
    assert source[: heard_map.heard(2500, None, source)].startswith("one two three four")


def test_a_voice_without_timings_takes_longer_for_digits_and_stops():
    heard_map = mapped(*shaped("It is 4711. We are open today", "tokens"))
    plain = mapped(*shaped("It is long. We are open today", "tokens"))
    assert heard_map.heard(1500, None) < plain.heard(1500, None)


def test_a_stop_after_the_sentence_is_where_the_sentence_ends():
    source = "We open at ten. Dr. No comes by. And"
    heard_map = mapped(*shaped(source, "tokens"))
    spoken = source.split(" ")
    heard_map.align(words(*((word, 300 * index, 300 * index + 250) for index, word in enumerate(spoken))))
    assert heard_map.sentence_end_ms(0, 5000) == pytest.approx(1150, abs=1)
    assert heard_map.sentence_end_ms(1150, 5000) == pytest.approx(1150, abs=1)
    assert heard_map.sentence_end_ms(1200, 5000) == pytest.approx(2350, abs=1), "not after Dr."
    assert heard_map.sentence_end_ms(1200, 2000) is None, "too far ahead"
    assert heard_map.sentence_end_ms(2400, 5000) is None, "the last one has no end yet"


def test_without_timings_the_end_of_a_sentence_is_a_share():
    source = "One two three. Four five six."
    heard_map = mapped(*shaped(source, "sentences"))
    assert heard_map.sentence_end_ms(100, 9000, 2000) == pytest.approx(850, abs=100)
    assert heard_map.sentence_end_ms(1100, 9000, 2000) == pytest.approx(1850, abs=100)
    assert heard_map.sentence_end_ms(100, 9000) == pytest.approx(1000, abs=300), "from the rate alone"


def test_a_cut_word_is_said_again_from_its_start():
    heard_map = mapped(Piece("We open at", 0, 10, False))
    assert heard_map.word_start_ms(120) == 120, "without timings nothing is repeated"
    heard_map.align(words(("We", 50, 200), ("open", 200, 500), ("at", 600, 700)))
    assert heard_map.word_start_ms(350) == 200
    assert heard_map.word_start_ms(200) == 200
    assert heard_map.word_start_ms(20) == 20, "before the first word"
    assert heard_map.word_start_ms(550) == 550, "between two words none is cut"
    assert heard_map.word_start_ms(900) == 900, "behind the last one"


@pytest.mark.parametrize("text", ["\n" * 20_000, '."' * 10_000, "a. " * 7_000, "x" * 20_000, "\u4f60\u3002" * 10_000])
def test_a_reply_of_a_model_that_runs_wild_costs_no_more_than_another(text):
    pieces = shaped(text, "tokens", normalizes=False)
    start = time.process_time()
    mapped(*pieces).heard(5000, None, text)
    assert time.process_time() - start < 1.0, "squares of its length would take many seconds"


def shaped(text: str, voice: str, *, normalizes: bool = True) -> list[Piece]:
    shaper = shaper_for(voice, normalizes=normalizes)
    return [*shaper.feed(text), *shaper.flush()]


SPOKEN = {
    "$5.50": "five dollars and fifty cents",
    "7:30 pm": "seven thirty p m",
    "**really**": "really",
    "12,500": "twelve thousand five hundred",
    "25%": "twenty-five percent",
    "555-1234": "five five five one two three four",
    "well-known": "well known",
    "21st": "twenty first",
    "[the page](https://a.com)": "the page",
    "\U0001f600": "",
}
"""How a voice reads what is not a plain word."""
PLAIN = """we open at ten every day of the week and our kitchen closes early but drinks are served until midnight please bring
your voucher a confirmation number reservation restaurant extraordinary it is an I can do that in Friday evening with""".split()


def reply(rng: random.Random) -> list[tuple[str, list[tuple[str, float, float]]]]:
    """Words of a reply, each with what a voice says for it and when."""
    found: list[tuple[str, list[tuple[str, float, float]]]] = []
    now = rng.uniform(20, 200)
    for _ in range(rng.randint(1, 4)):
        count = rng.randint(3, 14)
        for index in range(count):
            word = rng.choice(tuple(SPOKEN)) if rng.random() < 0.15 else rng.choice(PLAIN)
            mark = rng.choice(".!?") if index == count - 1 else "," if rng.random() < 0.1 else ""
            timed: list[tuple[str, float, float]] = []
            for spoken in re.split(r"[ -]", SPOKEN.get(word, word)):
                length = (40 + 55 * len(spoken)) * rng.uniform(0.8, 1.25)
                timed.append((spoken, now, now + length))
                now += length + rng.uniform(0, 15)
            now += {"": 0, ",": 120}.get(mark, 300) * rng.uniform(0.7, 1.3)
            if not SPOKEN.get(word, word):
                word, timed = f"{word} ok", [("ok", now, now + 150)]
                now += 150
            found.append((word + mark, timed))
    return found


def words_apart(rng: random.Random, *, voice: str, normalizes: bool, timed: str, rate: SpeechRate) -> list[int]:
    """How many words the history and the ear differ by, at random cuts of one reply."""
    script = reply(rng)
    source = " ".join(word for word, _ in script)
    pieces = shaped(source, voice, normalizes=normalizes)
    heard_map = HeardMap(rate)
    for piece in pieces:
        heard_map.post(piece)
    said = [spoken for _, spoken in script]
    total = said[-1][-1][2] + 200
    if timed != "none":
        told = [word for spoken in said for word in spoken if timed == "all" or rng.random() < 0.9]
        heard_map.align(words(*told))
    apart = []
    for _ in range(10):
        cut = rng.uniform(0, total)
        count = sum((spoken[0][1] + spoken[-1][2]) / 2 <= cut for spoken in said)
        truth = len(" ".join(word for word, _ in script[:count]).split())
        prefix = source[: heard_map.heard(cut, None, source)]
        assert source.startswith(prefix)
        apart.append(abs(len(prefix.split()) - truth))
    heard_map.learn(total)
    return apart


@pytest.mark.parametrize(
    ("timed", "normalizes", "allowed"),
    [("all", False, 1), ("all", True, 1), ("some", False, 1), ("some", True, 1), ("none", False, 2), ("none", True, 2)],
)
@pytest.mark.parametrize("voice", ["tokens", "sentences"])
def test_history_and_ear_differ_by_a_word_or_two(voice, timed, normalizes, allowed, record_property):
    rng = random.Random(20)
    rate = SpeechRate()
    for _ in range(10):
        words_apart(rng, voice=voice, normalizes=normalizes, timed=timed, rate=rate)
    apart = sorted(
        count
        for _ in range(300)
        for count in words_apart(rng, voice=voice, normalizes=normalizes, timed=timed, rate=rate)
    )
    p95 = apart[int(0.95 * len(apart))]
    figures = f"{sum(apart) / len(apart):.2f} words on average, p95 {p95}, at most {apart[-1]}"
    record_property("words apart", figures)
    print(f"{voice}, timings: {timed}, voice normalises: {normalizes}: {figures}")
    assert p95 <= allowed, figures


@settings(max_examples=150)
@given(st.integers(0, 10_000), st.sampled_from(["tokens", "sentences"]), st.sampled_from(["all", "some", "none"]))
def test_what_was_heard_grows_with_the_time_and_ends_where_a_word_does(seed, voice, timed):
    rng = random.Random(seed)
    script = reply(rng)
    source = " ".join(word for word, _ in script)
    pieces = shaped(source, voice, normalizes=rng.random() < 0.5)
    posted = pieces[: rng.randint(1, len(pieces))]
    heard_map = mapped(*posted)
    if timed != "none":
        heard_map.align(
            words(*(word for _, spoken in script for word in spoken if timed == "all" or rng.random() < 0.7))
        )
    last = 0
    for ms in range(0, 12_000, 37):
        end = heard_map.heard(ms, None, source)
        assert last <= end <= len(source)
        assert end == 0 or end == len(source) or source[end].isspace() or source[end - 1].isspace()
        last = end


@given(
    st.lists(st.sampled_from(["We", "open", "at", "ten,", "$5", "o'clock.", "..."]), max_size=12),
    st.lists(st.floats(0, 6000), max_size=8),
    st.booleans(),
    st.one_of(st.none(), st.floats(1, 6000)),
)
def test_what_was_heard_at_many_points_is_what_was_heard_at_each(said, points_ms, timed, total_ms):
    text = " ".join(said)
    heard_map = mapped(Piece(text, 0, len(text), True)) if text else mapped()
    if timed:
        heard_map.align(words(*((word, 400.0 * n, 400.0 * n + 300) for n, word in enumerate(said))))
    assert heard_map.spoken(points_ms, total_ms) == [heard_map.spoken([ms], total_ms)[0] for ms in points_ms]
    for ms, spoken in zip(points_ms, heard_map.spoken(points_ms, total_ms), strict=True):
        assert spoken == text[: heard_map.heard(ms, total_ms)].rstrip(".,' ") or "..." in text


@given(
    st.lists(st.sampled_from(["We ", "open", " at", " ten, ", "$5", " o'clock.", " ", "...", "half"]), max_size=14),
    st.lists(st.tuples(st.integers(0, 14), st.floats(0, 4000)), max_size=8),
    st.booleans(),
)
def test_text_that_comes_later_changes_nothing_about_what_was_heard(tokens, asked, timed):
    growing, at = mapped(), 0
    for posted in range(len(tokens) + 1):
        fresh, place = mapped(), 0
        for number, token in enumerate(tokens[:posted]):
            piece = Piece(token, place, place + len(token), False)
            place += len(token)
            fresh.post(piece)
            if number >= at:
                growing.post(piece)
        at = posted
        if timed and posted == len(tokens):
            said = words(*((token.strip(), 300.0 * n, 300.0 * n + 250) for n, token in enumerate(tokens)))
            growing.align(said)
            fresh.align(said)
        for when, heard_ms in asked:
            if when == posted:
                assert growing.heard(heard_ms, None) == fresh.heard(heard_ms, None)
                assert growing.spoken([heard_ms], None) == fresh.spoken([heard_ms], None)

"""What a voice knows of a part: its text, its audio, and which words were spoken."""

from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from dialog.message import MULAW_8K, PCM_8K
from dialog.tts.parts import SpokenPart

KEY = (UUID(int=7), 0)


def part(text, *, done=True):
    made = SpokenPart(KEY)
    made.take(text, done=done)
    made.unsent()
    return made


def ms(duration):
    return b"\xff" * MULAW_8K.size(duration)


def test_characters_make_words_over_the_seams_of_messages():
    spoken = part("Good day to you")
    spoken.letters("Goo", [0, 50, 100], [50, 50, 50], 0.0)
    assert spoken.spoken() == ()
    spoken.audio(ms(150), MULAW_8K, 0.0)
    spoken.letters("d day ", [0, 50, 100, 150, 200, 250], [50] * 6, spoken.audio_ms)
    spoken.audio(ms(300), MULAW_8K, 0.0)
    assert [(w.text, w.start_ms, w.end_ms) for w in spoken.spoken()] == [("Good", 0, 200), ("day", 250, 400)]
    spoken.letters("to you", [0, 50, 100, 150, 200, 250], [50] * 6, spoken.audio_ms)
    assert spoken.spoken() == ()
    spoken.audio(ms(300), MULAW_8K, 0.0)
    assert [word.text for word in spoken.spoken()] == ["to"]
    assert [word.text for word in spoken.spoken(all_=True)] == ["you"]


def test_a_word_of_which_only_the_beginning_was_spoken_is_spoken_again():
    spoken = part("Good evening everybody")
    spoken.letters("Good evening ever", range(0, 850, 50), [50] * 17, 0.0)
    spoken.audio(ms(850), MULAW_8K, 0.0)
    assert [word.text for word in spoken.spoken()] == ["Good", "evening"]
    spoken.restart()
    assert spoken.text == "everybody"
    assert spoken.unsent() == "everybody"
    assert (spoken.base_ms, spoken.audio_ms) == (850, 850)
    assert spoken.spoken(all_=True) == ()


def test_times_outside_the_audio_are_taken_for_the_nearest_that_can_be_and_noticed():
    late = part("Good day")
    late.timings([("Good", 0.0, 0.4), ("day", 9.0, 9.5)])
    late.audio(ms(800), MULAW_8K, 0.0)
    assert [word.text for word in late.spoken()] == ["Good"]
    assert not late.skewed
    assert [(word.text, word.start_ms, word.end_ms) for word in late.spoken(all_=True)] == [("day", 800, 800)]
    assert late.skewed
    early = part("Good day")
    early.timings([("Good", 0.0, 0.4), ("day", -3.0, 0.8)])
    early.audio(ms(800), MULAW_8K, 0.0)
    assert [(word.start_ms, word.end_ms) for word in early.spoken()] == [(0, 400), (0, 800)]
    assert early.skewed


def test_text_that_a_failed_context_did_not_speak_is_not_paid_for():
    failed = part("Good day")
    assert failed.characters == 8
    failed.restart()
    assert failed.characters == 0
    failed.unsent()
    failed.audio(ms(100), MULAW_8K, 0.0)
    failed.forgive()
    assert failed.characters == 8


def test_what_was_spoken_for_certain_is_not_spoken_again():
    spoken = part("One. Two. ", done=False)
    spoken.audio(ms(100), MULAW_8K, 0.0)
    assert spoken.uncertain
    spoken.advance(5)
    assert not spoken.uncertain
    assert (spoken.text, spoken.sent, spoken.base_ms) == ("Two. ", 5, 100)
    spoken.take("Three.", done=True)
    assert spoken.unsent() == "Three."
    spoken.restart()
    assert spoken.text == "Two. Three."
    assert not spoken.closed


def test_half_a_sample_is_not_carried_into_other_audio():
    spoken = part("One. Two. ")
    assert spoken.audio(b"\x01\x02\x03", PCM_8K, 0.0) == b"\x01\x02"
    spoken.advance(5)
    assert spoken.audio(b"\x04\x05", PCM_8K, 0.0) == b"\x04\x05"


@given(st.lists(st.tuples(st.floats(-1e4, 1e4), st.floats(-1e4, 1e4)), max_size=12))
def test_time_never_runs_backwards(times):
    spoken = part("word " * 12)
    spoken.audio(ms(200), MULAW_8K, 0.0)
    spoken.timings(("word", start, end) for start, end in times)
    words = spoken.spoken(all_=True)
    assert len(words) == len(times)
    assert [word.start_ms for word in words] == sorted(word.start_ms for word in words)
    assert all(0 <= word.start_ms <= word.end_ms for word in words)


@given(st.text("ab .", max_size=40), st.lists(st.integers(1, 5), max_size=20))
def test_words_do_not_depend_on_how_characters_were_split(text, sizes):
    whole, pieces = part(text), part(text)
    whole.letters(text, range(len(text)), [1] * len(text), 0.0)
    at = 0
    for size in [*sizes, len(text)]:
        chars = text[at : at + size]
        pieces.letters(chars, range(len(chars)), [1] * len(chars), at)
        at += size
    assert pieces.spoken(all_=True) == whole.spoken(all_=True)
    assert [word.text for word in part(text).spoken(all_=True)] == []

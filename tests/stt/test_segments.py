import pytest
from hypothesis import given
from hypothesis import strategies as st

from dialog.message import Word
from dialog.stt.segments import Segment, SegmentCollector, speaker_name


def segment(text, start, end):
    texts = text.split()
    each = (end - start) / max(1, len(texts))
    words = tuple(
        Word(text=word, start_ms=start + i * each, end_ms=start + (i + 1) * each) for i, word in enumerate(texts)
    )
    return Segment(text=text, start_ms=start, end_ms=end, words=words)


def test_interims_replace_one_another_and_finals_add_up():
    collector = SegmentCollector()
    first = collector.add(segment("a tab", 0, 200), final=False)
    second = collector.add(segment("a table", 0, 400), final=False)
    third = collector.add(segment("A table", 0, 400), final=True)
    fourth = collector.add(segment("for two", 400, 800), final=False)
    assert [u.data for u in (first, second, third, fourth)] == ["a tab", "a table", "A table", "A table for two"]
    assert len({u.uuid for u in (first, second, third, fourth)}) == 1
    collector.add(segment("for two", 400, 800), final=True)
    said = collector.finish()
    assert (said.data, said.at_ms, said.end_ms, said.uuid) == ("A table for two", 0, 800, first.uuid)
    assert collector.empty
    assert collector.finish() is None


def test_the_same_text_is_told_once():
    collector = SegmentCollector()
    assert collector.add(segment("yes", 0, 300), final=False)
    assert collector.add(segment("yes", 0, 300), final=False) is None


def test_an_interim_that_counted_is_not_said_again_when_it_becomes_final():
    collector = SegmentCollector()
    collector.add(segment("I want a", 0, 600), final=False)
    assert collector.finish(interim=True).data == "I want a"
    assert collector.add(segment("I want a table", 0, 800), final=True).data == "table"
    assert collector.finish().data == "table"


def test_words_without_a_length_that_counted_are_not_said_again():
    collector = SegmentCollector()
    told = segment("a table for two", 600, 600)  # heard again faster than it was said
    collector.add(told, final=False)
    assert collector.finish(interim=True).data == "a table for two"
    assert collector.add(told, final=True) is None
    assert collector.finish() is None


def test_restart_forgets_the_interim_and_keeps_the_finals_and_the_uuid():
    collector = SegmentCollector()
    first = collector.add(segment("one", 0, 300), final=True)
    collector.add(segment("tw", 300, 500), final=False)
    collector.restart(300)
    again = collector.add(segment("one two", 0, 600), final=True)
    assert again.data == "one two"
    assert again.uuid == first.uuid
    assert [word.text for word in again.words] == ["one", "two"]


def test_discard_forgets_words_before_a_point_also_later_ones():
    collector = SegmentCollector()
    collector.add(segment("old words", 0, 1000), final=True)
    collector.discard(2000)
    assert collector.empty
    assert collector.add(segment("older still", 1000, 1900), final=True) is None
    assert collector.add(segment("gone new", 1500, 2500), final=True).data == "new"


def test_a_segment_without_words_is_judged_by_its_middle():
    plain = Segment(text="hello", start_ms=0, end_ms=1000)
    assert plain.after(400) is plain
    assert plain.after(600) is None


@given(st.lists(st.integers(0, 20), max_size=6), st.integers(0, 20))
def test_words_are_said_exactly_once_wherever_a_connection_is_cut(cuts, safe_at):
    """However often recognition restarts from the last final, every word counts once."""
    words = [f"w{i}" for i in range(20)]
    collector, safe = SegmentCollector(), 0
    for cut in sorted(cuts):
        if cut <= safe:
            continue
        collector.add(segment(" ".join(words[safe:cut]), safe * 100, cut * 100), final=False)
        if cut >= safe_at:
            collector.add(segment(" ".join(words[safe:cut]), safe * 100, cut * 100), final=True)
            safe = cut
        collector.restart(safe * 100)
    if safe < 20:
        collector.add(segment(" ".join(words[safe:]), safe * 100, 2000), final=True)
    assert collector.finish().data == " ".join(words)


@pytest.mark.parametrize(
    ("told", "name"),
    [(None, None), (0, "0"), (11, "11"), ("2", "2"), ("speaker_3", "3"), ("B", "1"), ("Anna", "Anna"), ("", None)],
)
def test_speakers_have_the_same_names_whoever_tells(told, name):
    assert speaker_name(told) == name

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dialog.errors import LimitError
from dialog.llm.sse import ServerSentEvent, SSEParser


def parse(*pieces: bytes) -> list[ServerSentEvent]:
    parser = SSEParser()
    events = [event for piece in pieces for event in parser.feed(piece)]
    return events + parser.close()


def test_an_event_ends_with_a_blank_line() -> None:
    parser = SSEParser()
    assert parser.feed(b"data: one\n") == []
    assert parser.feed(b"\n") == [ServerSentEvent(b"one")]


def test_several_data_lines_are_joined_by_newlines() -> None:
    assert parse(b"data: a\ndata:b\ndata:  c\n\n") == [ServerSentEvent(b"a\nb\n c")]


def test_comments_ids_and_retry_hints_are_skipped() -> None:
    assert parse(b": ping\n\nid: 4\nretry: 9\nevent: error\ndata: x\n\n") == [ServerSentEvent(b"x", "error")]


def test_the_event_type_does_not_leak_into_the_next_event() -> None:
    assert parse(b"event: ping\n\ndata: x\n\n") == [ServerSentEvent(b"x")]


def test_an_event_without_its_blank_line_is_delivered_at_the_end() -> None:
    assert parse(b"data: [DONE]") == [ServerSentEvent(b"[DONE]")]


def test_a_byte_order_mark_is_dropped() -> None:
    assert parse(b"\xef\xbb", b"\xbfdata: x\n\n") == [ServerSentEvent(b"x")]


def test_an_endless_line_is_given_up() -> None:
    parser = SSEParser(limit=100)
    assert parser.feed(b"data: " + b"x" * 90) == []
    with pytest.raises(LimitError, match="100 bytes"):
        parser.feed(b"x" * 10)


def test_endless_data_lines_are_given_up() -> None:
    parser = SSEParser(limit=100)
    assert parser.feed(b"data: xxxxxxxxxx\n" * 9) == []
    with pytest.raises(LimitError, match="100 bytes"):
        parser.feed(b"data: xxxxxxxxxx\n" * 2)


_TEXTS = st.lists(st.text(alphabet="aé€😀: {}x\n", min_size=1).filter(lambda text: text.strip()), max_size=5)


@given(texts=_TEXTS, end=st.sampled_from(["\n", "\r\n", "\r"]), comment=st.booleans(), data=st.data())
def test_parsing_does_not_depend_on_how_the_bytes_were_cut(
    texts: list[str], end: str, comment: bool, data: st.DataObject
) -> None:
    wire = ""
    for text in texts:
        wire += f": keep-alive{end}" if comment else ""
        wire += "".join(f"data: {line}{end}" for line in text.split("\n")) + end
    raw = wire.encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=8)))
    pieces = [raw[a:b] for a, b in zip([0, *cuts], [*cuts, len(raw)], strict=True)]
    assert parse(*pieces) == [ServerSentEvent(text.encode()) for text in texts]


@given(st.lists(st.binary(max_size=30), max_size=10))
def test_any_bytes_are_survived_and_cutting_them_changes_nothing(pieces: list[bytes]) -> None:
    assert parse(*pieces) == parse(b"".join(pieces))


_LINES = [
    b"data: a\n\n",
    b"data: b\n",
    b"\n",
    b"event: x\n",
    b"data: c\r\n\r\n",
    b"data: d\r",
    b"\xef\xbb\xbf",
    b": no\n\n",
]


@given(st.lists(st.sampled_from([*_LINES, b"data: e\nid: 1\n\n", b"data: \n\n"]), max_size=8))
def test_what_comes_line_by_line_is_what_it_is_together(pieces: list[bytes]) -> None:
    assert parse(*pieces) == parse(b"".join(pieces))

"""The fold of a journal: pure, bounded, and the same however often it is told."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dialog.agent.history import History
from dialog.agent.resume import resume
from dialog.calls import events as ev
from dialog.calls import journal as jn
from dialog.calls.checkpoint import Checkpoint, fold
from dialog.calls.journal import Question, call_events
from dialog.errors import RemoteProtocolError
from dialog.llm.llm import Entry, ToolCall, ToolResult
from dialog.message import LineSnapshot, Piece, Word

U, V, W = UUID(int=1), UUID(int=2), UUID(int=3)


class Log:
    """A journal, written entry by entry, and its fold."""

    def __init__(self) -> None:
        self.events: list[Any] = []
        self.checkpoint = Checkpoint()

    def add(self, kind: Any, **fields: Any) -> Checkpoint:
        event = kind(seq=len(self.events), at_s=len(self.events) / 10, **fields)
        self.events.append(event)
        self.checkpoint = fold(self.checkpoint, event)
        return self.checkpoint

    def said(self, turn: UUID, text: str) -> Checkpoint:
        return self.add(ev.CallerSaid, turn=turn, text=text, final=True)

    def begun(self, turn: UUID, block: int, *texts: str, **fields: Any) -> Checkpoint:
        questions = tuple(Question(turn=turn, text=text) for text in texts)
        return self.add(jn.TurnBegun, turn=turn, block=block, questions=questions, user_text=" ".join(texts), **fields)

    def spoke(self, turn: UUID, part: int, text: str) -> Checkpoint:
        return self.add(
            jn.SpeechWritten,
            turn=turn,
            part=part,
            text=text,
            pieces=(Piece(text, 0, len(text), ends_sentence=True),),
            words=(Word(text=text, start_ms=0, end_ms=500),),
            audio_ms=500.0,
        )

    def heard(self, turn: UUID, part: int, text: str, heard: str, state: Any = "played") -> Checkpoint:
        return self.add(ev.AgentSaid, turn=turn, part=part, text=text, heard=heard, state=state, heard_ms=500.0)


def test_a_question_waits_until_a_turn_answers_it_and_again_when_that_was_dropped():
    log = Log()
    log.said(U, "a table")
    log.said(V, "for two")
    assert [each.text for each in log.checkpoint.unanswered] == ["a table", "for two"]
    questions = (Question(turn=U, text="a table"), Question(turn=V, text="for two"))
    log.add(jn.TurnBegun, turn=V, block=1, questions=questions, user_text="a table for two")
    assert log.checkpoint.unanswered == ()
    log.add(jn.PartPlanned, turn=V, part=0)
    log.said(W, "no, three")
    log.add(jn.HistoryWritten, block=1, turn=V, state="dropped")
    assert [(each.text, each.parts) for each in log.checkpoint.unanswered] == [
        ("a table", 0),
        ("for two", 1),
        ("no, three", 0),
    ]
    assert log.checkpoint.turns == ()
    assert log.checkpoint.history == ()


def test_what_is_not_to_be_answered_waits_no_more():
    log = Log()
    log.said(U, "mhm")
    assert log.add(jn.QuestionClosed, turn=U).unanswered == ()


def test_a_turn_begun_too_early_takes_no_question_away():
    log = Log()
    log.begun(U, 1, "a table", speculative=True)
    log.said(U, "a table")
    assert len(log.checkpoint.unanswered) == 1
    log.add(jn.HistoryWritten, block=1, turn=U, state="discarded")
    assert log.checkpoint.turns == ()
    assert log.checkpoint.history == ()
    log.begun(U, 2, "a table")
    assert log.checkpoint.unanswered == ()
    assert [block.number for block in log.checkpoint.history] == [2]


def test_words_that_trail_their_answer_are_no_question():
    log = Log()
    log.begun(U, 1, "")
    log.said(U, "a table")
    assert log.checkpoint.unanswered == ()


def test_of_a_part_that_is_over_only_its_words_are_kept():
    log = Log()
    log.begun(U, 1, "a table")
    log.add(jn.PartPlanned, turn=U, part=0)
    log.spoke(U, 0, "For how many?")
    (part,) = log.checkpoint.turns[0].parts
    assert part.spoken
    log.heard(U, 0, "For how many?", "For how", "cut")
    (part,) = log.checkpoint.turns[0].parts
    assert (part.text, part.heard, part.complete, part.spoken) == ("For how many?", "For how", False, ())


def test_a_settled_turn_leaves_its_items_and_nothing_else():
    log = Log()
    log.begun(U, 1, "a table")
    items = (Entry(role="user", text="a table"), Entry(role="assistant", text="For how many?"))
    log.add(jn.HistoryWritten, block=1, turn=U, items=items)
    assert log.checkpoint.turns == ()
    assert log.checkpoint.history[0].items == items


def test_a_tool_that_has_not_ended_keeps_its_turn_open():
    log = Log()
    log.begun(U, 1, "book it")
    log.add(ev.ToolStarted, turn=U, call_id="c1", name="book", arguments="{}", key="k")
    log.add(ev.ToolStarted, turn=U, call_id="c2", name="look", arguments="{}")
    running = (
        ToolCall(id="c1", name="book", arguments="{}"),
        ToolResult(id="c1", name="book", content="", state="running"),
    )
    log.add(jn.HistoryWritten, block=1, turn=U, items=running)
    (turn,) = log.checkpoint.turns
    assert turn.settled
    assert [(call.call_id, call.key, call.group) for call in turn.in_doubt] == [("c1", "k", 0), ("c2", "", 0)]
    for call_id in ("c1", "c2"):
        log.add(ev.ToolEnded, turn=U, call_id=call_id, name="book", result="ok", state="done", took_s=1.0)
    log.add(jn.HistoryWritten, block=1, turn=U, items=running[:1])
    assert log.checkpoint.turns == ()
    assert log.checkpoint.meter.counts["tools"] == 2


def test_tools_that_were_asked_for_one_after_the_other_stand_apart():
    log = Log()
    log.begun(U, 1, "book it")
    for call_id in ("c1", "c2"):
        log.add(ev.ToolStarted, turn=U, call_id=call_id, name="book", arguments="{}")
        log.add(ev.ToolEnded, turn=U, call_id=call_id, name="book", result="ok", state="done", took_s=1.0)
    assert [call.group for call in log.checkpoint.turns[0].calls] == [0, 1]


def test_a_history_that_was_rewritten_takes_the_place_of_the_old_one():
    log = Log()
    log.add(jn.HistoryWritten, items=(Entry(role="system", text="Be brief."),))
    log.begun(U, 1, "a table")
    blocks = (jn.HistoryBlock(items=(Entry(role="system", text="You do billing."),)), jn.HistoryBlock(number=1))
    log.add(jn.HistoryRewritten, blocks=blocks)
    assert log.checkpoint.history == blocks
    assert log.checkpoint.turns[0].block == 1
    log.add(jn.HistoryRewritten, blocks=blocks[:1])
    assert log.checkpoint.turns[0].block == 0, "another agent's history does not have it"


def test_an_event_that_was_told_before_changes_nothing():
    log = Log()
    log.said(U, "a table")
    before = log.checkpoint
    assert fold(before, log.events[0]) is before


def test_the_call_itself_is_known():
    log = Log()
    log.add(
        ev.CallStarted,
        call_id=W,
        carrier="memory",
        carrier_call_id="",
        from_="",
        to="",
        direction="inbound",
        started_at="",
        agent="Desk",
    )
    log.add(ev.StreamChanged, state="live", generation=1)
    log.add(ev.StreamChanged, state="live", generation=2)
    log.add(ev.HandedOff, from_="Desk", to="Billing")
    log.add(jn.PartPlanned, turn=U, part=0, text="Hello.", greeting=True)
    log.add(jn.DurationWarned)
    log.add(jn.EndPlanned, reason="transferred", tel="+15550100")
    log.add(jn.StateSaved, state=b"\x01")
    checkpoint = log.checkpoint
    assert (checkpoint.live_s, checkpoint.agent, checkpoint.greeted, checkpoint.warned) == (0.1, "Billing", True, True)
    assert checkpoint.ending is not None
    assert checkpoint.ending.tel == "+15550100"
    assert "5550100" not in repr(checkpoint.ending)
    assert checkpoint.state == b"\x01"
    assert (checkpoint.seq, checkpoint.elapsed_s) == (8, 0.7)
    assert log.add(ev.TransferChanged, to="+15550100", state="answered").ending is not None
    assert log.add(ev.TransferChanged, to="+15550100", state="started").ending is None, "nobody orders it again"
    assert log.add(jn.EndPlanned, reason="agent_hangup").ending is not None
    assert log.add(jn.EndWithdrawn).ending is None
    assert log.add(ev.CallResumed, agent="Desk", lost_s=1.0).agent == "Desk"
    assert log.add(ev.CallEnded, reason="caller_hangup").ended
    assert call_events(log.events) == tuple(e for e in log.events if type(e).__module__ == ev.__name__)


def test_what_is_no_checkpoint_or_of_another_version_is_refused():
    log = Log()
    log.said(U, "a table")
    assert Checkpoint.decode(log.checkpoint.encode()) == log.checkpoint
    with pytest.raises(RemoteProtocolError, match="no checkpoint"):
        Checkpoint.decode(b"what")
    newer = msgspec.structs.replace(log.checkpoint, version=7)
    with pytest.raises(RemoteProtocolError, match="version 7"):
        Checkpoint.decode(newer.encode())


def test_too_many_words_that_wait_lose_the_oldest():
    log = Log()
    for number in range(10):
        log.said(UUID(int=number), str(number) * 1000)
    assert [each.text[0] for each in log.checkpoint.unanswered] == ["6", "7", "8", "9"]


_uuids = st.sampled_from([U, V, W])
_texts = st.sampled_from(["", "yes", "a table please"])
_numbers = st.integers(0, 3)
_items = st.lists(
    st.sampled_from(
        [Entry(role="user", text="a"), Entry(role="assistant", text="b"), ToolCall(id="c1", name="t", arguments="{}")]
    ),
    max_size=3,
).map(tuple)
_ENTRIES: list[st.SearchStrategy[tuple[Any, dict[str, Any]]]] = [
    st.tuples(st.just(kind), st.fixed_dictionaries(fields))
    for kind, fields in (
        (ev.CallerSaid, {"turn": _uuids, "text": _texts, "final": st.booleans()}),
        (ev.StreamChanged, {"state": st.sampled_from(["live", "lost"]), "generation": _numbers}),
        (
            jn.TurnBegun,
            {
                "turn": _uuids,
                "block": st.integers(1, 5),
                "questions": st.lists(st.builds(Question, turn=_uuids, text=_texts), max_size=2).map(tuple),
                "speculative": st.booleans(),
                "asks": st.booleans(),
            },
        ),
        (jn.PartPlanned, {"turn": _uuids, "part": _numbers, "text": _texts, "goes_on": st.none() | _uuids}),
        (jn.SpeechWritten, {"turn": _uuids, "part": _numbers, "text": _texts, "done": st.booleans()}),
        (jn.TurnWritten, {"turn": _uuids}),
        (jn.TurnCut, {"turn": _uuids}),
        (
            ev.AgentSaid,
            {
                "turn": _uuids,
                "part": _numbers,
                "text": _texts,
                "heard": _texts,
                "state": st.sampled_from(["played", "cut", "lost"]),
                "heard_ms": st.just(100.0),
            },
        ),
        (
            jn.HistoryWritten,
            {
                "block": st.integers(0, 5),
                "turn": st.none() | _uuids,
                "state": st.sampled_from(["kept", "dropped", "discarded"]),
                "items": _items,
                "owed": st.booleans(),
            },
        ),
        (
            jn.HistoryRewritten,
            {
                "blocks": st.lists(st.builds(jn.HistoryBlock, number=st.integers(0, 5), items=_items), max_size=3).map(
                    tuple
                )
            },
        ),
        (
            ev.ToolStarted,
            {"turn": _uuids, "call_id": st.sampled_from("ab"), "name": st.just("t"), "arguments": st.just("{}")},
        ),
        (
            ev.ToolEnded,
            {
                "turn": _uuids,
                "call_id": st.sampled_from("ab"),
                "name": st.just("t"),
                "result": _texts,
                "state": st.sampled_from(["done", "failed"]),
                "took_s": st.just(0.1),
                "late": st.booleans(),
            },
        ),
        (jn.QuestionClosed, {"turn": _uuids}),
    )
]


@settings(max_examples=150)
@given(st.lists(st.one_of(_ENTRIES), max_size=60))
def test_whatever_is_written_in_whatever_order_it_folds_and_travels(entries: list[tuple[Any, dict[str, Any]]]):
    log = Log()
    for kind, fields in entries:
        log.add(kind, **fields)
        checkpoint = log.checkpoint
        assert checkpoint.seq == len(log.events)
        numbers = [block.number for block in checkpoint.history if block.number]
        assert all(turn.steps == () or turn.turn in (U, V, W) for turn in checkpoint.turns)
        assert len(checkpoint.trailing) <= 64
        assert checkpoint.blocks >= max(numbers, default=0)
    assert Checkpoint.decode(log.checkpoint.encode()) == log.checkpoint
    again = log.checkpoint
    for event in log.events:
        again = fold(again, event)
    assert again is log.checkpoint
    # Folding from a checkpoint that was stored on the way gives the same.
    half = Checkpoint()
    for event in log.events[: len(log.events) // 2]:
        half = fold(half, event)
    rest = Checkpoint.decode(half.encode())
    for event in log.events[len(log.events) // 2 :]:
        rest = fold(rest, event)
    assert rest == log.checkpoint
    history = History()
    resume(rest, LineSnapshot(), history)
    assert history.request_items() == history.items(), "nothing is left open"

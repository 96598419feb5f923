from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from dialog.agent.draft import Draft
from dialog.agent.history import History
from dialog.errors import StateError
from dialog.llm.chat import messages
from dialog.llm.llm import Entry, Item, ToolCall, ToolResult
from dialog.testing.openai import pairing_error


def user(text: str) -> Entry:
    return Entry(role="user", text=text)


def agent(text: str, *, interrupted: bool = False) -> Entry:
    return Entry(role="assistant", text=text, interrupted=interrupted)


def call(call_id: str, name: str = "book") -> ToolCall:
    return ToolCall(id=call_id, name=name, arguments="{}")


def result(call_id: str, content: str = "done", state: Any = "done", name: str = "book") -> ToolResult:
    return ToolResult(id=call_id, name=name, content=content, state=state)


RUNNING = "still running; the result will follow"


def test_a_turn_that_was_heard_whole_is_question_and_answer() -> None:
    history = History()
    draft = history.draft("Are you open?")
    draft.say(0, "Yes, ")
    draft.say(0, "until ten. ")
    history.commit(draft, {0: ("Yes, until ten. ", True)})
    assert history.items() == (user("Are you open?"), agent("Yes, until ten."))


def test_only_the_words_that_were_heard_stay() -> None:
    history = History()
    draft = history.draft("Are you open?")
    draft.say(0, "Yes, until ten.")
    draft.say(1, "And tomorrow too.")
    history.commit(draft, {0: ("Yes, until ", False)})
    assert history.items() == (user("Are you open?"), agent("Yes, until", interrupted=True))


def test_an_answer_of_which_nothing_was_heard_leaves_the_question() -> None:
    history = History()
    draft = history.draft("Are you open?")
    draft.say(0, "Yes.")
    history.commit(draft, {})
    assert history.items() == (user("Are you open?"),)


def test_a_part_that_was_not_heard_marks_the_words_before_it_as_interrupted() -> None:
    history = History()
    draft = history.draft("Hello?")
    draft.say(0, "Good evening.")
    draft.say(1, "How can I help?")
    history.commit(draft, {0: ("Good evening.", True)})
    assert history.items()[1] == agent("Good evening.", interrupted=True)


def test_the_parts_of_a_reply_are_one_entry() -> None:
    history = History()
    draft = history.draft("Hello?")
    draft.say(0, "Good evening.")
    draft.say(1, "How can I help?")
    history.commit(draft, {0: ("Good evening.", True), 1: ("How can I help?", True)})
    assert history.items()[1] == agent("Good evening. How can I help?")


def test_a_greeting_has_no_question() -> None:
    history = History()
    draft = history.draft()
    draft.say(0, "Luigi's, good evening!")
    history.commit(draft, {0: ("Luigi's, good evening!", True)})
    assert history.items() == (agent("Luigi's, good evening!"),)


def test_several_utterances_of_one_turn_are_one_entry() -> None:
    history = History()
    history.commit(history.draft(["A table ", "for two."]), {})
    assert history.items() == (user("A table for two."),)


def test_the_next_step_of_a_turn_sees_all_that_was_generated() -> None:
    history = History([Entry(role="system", text="Be brief.")])
    draft = history.draft("A table for two.")
    draft.say(0, "One moment. ")
    draft.call(call("a"))
    draft.call(call("b"))
    draft.result(result("b", "full"))
    draft.result(result("a", "booked"))
    assert draft.items() == (
        Entry(role="system", text="Be brief."),
        user("A table for two."),
        agent("One moment."),
        call("a"),
        call("b"),
        result("a", "booked"),
        result("b", "full"),
    )
    assert history.items() == (Entry(role="system", text="Be brief."),)


def test_text_calls_and_text_stay_in_their_order_when_cut() -> None:
    history = History()
    draft = history.draft("A table for two.")
    draft.say(0, "One moment.")
    draft.call(call("a"))
    draft.result(result("a", "booked"))
    draft.say(1, "It is booked. See you.")
    history.commit(draft, {0: ("One moment.", True), 1: ("It is", False)})
    assert history.items() == (
        user("A table for two."),
        agent("One moment."),
        call("a"),
        result("a", "booked"),
        agent("It is", interrupted=True),
    )


def test_a_part_that_a_tool_call_divides_is_cut_where_it_was_heard() -> None:
    history = History()
    draft = history.draft("Hello?")
    draft.say(0, "One moment. ")
    draft.call(call("a"))
    draft.result(result("a"))
    draft.say(0, "It is booked.")
    history.commit(draft, {0: ("One moment. It is", False)})
    assert history.items()[1:] == (agent("One moment."), call("a"), result("a"), agent("It is", interrupted=True))


def test_each_step_keeps_its_own_calls() -> None:
    history = History()
    draft = history.draft("Hello?")
    draft.call(call("a"))
    draft.result(result("a"))
    draft.items()
    draft.call(call("b"))
    draft.result(result("b"))
    assert draft.items()[1:] == (call("a"), result("a"), call("b"), result("b"))


def test_a_dropped_turn_leaves_no_trace() -> None:
    history = History()
    draft = history.draft("Are you")
    draft.say(0, "Yes")
    history.drop(draft)
    assert history.items() == ()
    assert history.draft("Are you open?").items() == (user("Are you open?"),)


def test_a_tool_of_a_dropped_turn_stays_and_its_question_is_not_asked_twice() -> None:
    history = History()
    draft = history.draft("A table for two")
    draft.say(0, "One moment.")
    draft.call(call("a"))
    history.drop(draft)
    draft.result(result("a", "booked"))
    following = history.draft("A table for two at eight, please.")
    assert following.items() == (
        user("A table for two"),
        call("a"),
        result("a", "booked (finished after the caller spoke again)"),
        user("at eight, please."),
    )


def test_a_question_that_goes_on_twice_keeps_what_stands_before_its_tool() -> None:
    history = History()
    first = history.draft("A table")
    first.call(call("a"))
    first.result(result("a"))
    history.drop(first)
    second = history.draft("A table for two")
    history.drop(second)
    third = history.draft("A table for two at eight")
    assert [item.text for item in third.items() if isinstance(item, Entry)] == ["A table", "for two at eight"]
    third.call(call("b"))
    third.result(result("b"))
    history.drop(third)
    fourth = history.draft("A table for two at eight please")
    assert [item.text for item in fourth.items() if isinstance(item, Entry)] == [
        "A table",
        "for two at eight",
        "please",
    ]


def test_a_question_goes_on_although_the_agents_own_words_were_dropped_meanwhile() -> None:
    history = History()
    question = history.draft("A table")
    question.call(call("a"))
    question.result(result("a"))
    own = history.draft()
    history.drop(question)
    history.drop(own)
    following = history.draft("A table for two")
    assert [item.text for item in following.items() if isinstance(item, Entry)] == ["A table", "for two"]


def test_a_tool_that_runs_longer_than_its_turn_says_so_and_its_result_is_news() -> None:
    history = History()
    draft = history.draft("A table for two.")
    draft.call(call("a"))
    history.commit(draft, {})
    following = history.draft("Are you there?")
    assert following.items() == (
        user("A table for two."),
        call("a"),
        result("a", RUNNING, "running"),
        user("Are you there?"),
    )
    assert draft.result(result("a", "booked"))
    history.commit(following, {})
    assert history.request_items()[2:] == (
        result("a", RUNNING, "running"),
        user("Are you there?"),
        Entry(role="system", text="The tool book (a) has finished (done): booked"),
    )


def test_a_result_in_time_is_no_news() -> None:
    history = History()
    draft = history.draft("A table for two.")
    draft.call(call("a"))
    assert not draft.result(result("a", "booked"))
    assert not draft.result(result("a", "a second time"))
    assert not draft.result(result("never asked"))
    assert draft.items()[1:] == (call("a"), result("a", "booked"))


def test_a_result_that_says_running_is_not_the_result() -> None:
    history = History()
    draft = history.draft("A table for two.")
    draft.call(call("a"))
    assert not draft.result(result("a", "wait", "running"))
    assert draft.items()[2] == result("a", RUNNING, "running")
    assert draft.result(result("a", "booked"))


def test_a_tool_in_the_background_is_not_waited_for_by_the_model() -> None:
    history = History()
    draft = history.draft("Mail me.")
    draft.call(call("a"), background=True)
    started = result("a", "started in the background; the result will follow", "running")
    assert draft.items()[1:] == (call("a"), started)
    assert draft.result(result("a", "sent")), "it is news"


def test_what_is_said_after_a_cut_is_another_utterance() -> None:
    history = History()
    draft = history.draft("Hello?")
    draft.say(0, "Please type in your number.")
    draft.say(1, "Thank you.")
    history.commit(draft, {0: ("Please type", False), 1: ("Thank you.", True)})
    assert history.items() == (user("Hello?"), agent("Please type", interrupted=True), agent("Thank you."))


def test_a_turn_that_had_to_wait_for_the_floor_stands_where_it_was_spoken() -> None:
    history = History()
    waiting, answer = history.draft(), history.draft("Are you open?")
    waiting.say(0, "By the way.")
    answer.say(0, "Yes.")
    history.commit(answer, {0: ("Yes.", True)})
    waiting.begin()
    history.commit(waiting, {0: ("By the way.", True)})
    assert history.items() == (user("Are you open?"), agent("Yes."), agent("By the way."))
    waiting.begin()
    assert history.items()[-1] == agent("By the way."), "its place is certain now"


def test_a_discarded_turn_has_never_been_also_its_tools() -> None:
    history = History()
    draft = history.draft("Are you")
    draft.call(call("a"))
    assert history.draft("Hm.").items()[-1] == user("Hm.")
    assert not draft.result(result("a", "x", "running"))
    history.discard(draft)
    version = history.version
    assert not draft.result(result("a", "looked up")), "nobody has to be told"
    draft.say(0, "Yes")
    assert history.request_items() == (user("Hm."),)
    assert history.version == version, "what was made of the conversation before is still right"


def test_a_discarded_turn_gives_the_question_it_went_on_with_to_the_next() -> None:
    history = History()
    dropped = history.draft("A table")
    dropped.call(call("a"))
    history.drop(dropped)
    speculation = history.draft("A table for two")
    assert speculation.user_text == "for two"
    history.discard(speculation)
    assert history.draft("A table for two, please").user_text == "for two, please"


def test_only_what_a_model_was_told_elsewhere_makes_a_new_version() -> None:
    history = History()
    draft = history.draft("Hello?")
    version = history.version
    draft.say(0, "Hi")
    draft.call(call("a"))
    draft.result(result("a"))
    assert history.version == version
    history.commit(draft, {0: ("Hi", True)})
    assert history.version > version


def test_a_turn_sees_the_unfinished_turn_before_it_but_not_the_one_after() -> None:
    history = History()
    first, second = history.draft("One?"), history.draft("Two?")
    first.say(0, "1")
    second.say(0, "2")
    assert second.items() == (user("One?"), agent("1"), user("Two?"), agent("2"))
    assert first.items() == (user("One?"), agent("1"))
    history.commit(second, {0: ("2", True)})
    history.commit(first, {0: ("1", True)})
    assert history.items() == (user("One?"), agent("1"), user("Two?"), agent("2"))


def test_words_after_the_end_of_a_turn_count_no_more() -> None:
    history = History()
    draft = history.draft("Hello?")
    draft.say(0, "Good")
    history.commit(draft, {0: ("Good", True)})
    draft.say(0, " evening")
    history.commit(draft, {0: ("Good evening", True)})
    history.drop(draft)
    assert history.items() == (user("Hello?"), agent("Good"))


def test_entries_of_every_role_can_be_added() -> None:
    history = History()
    history.system("Be brief.")
    history.developer("It is Monday.")
    history.user("Hello?")
    history.assistant("Good evening! ")
    history.add(call("a"), result("a"))
    history.user(" ")
    assert [entry.role for entry in history.items() if isinstance(entry, Entry)] == [
        "system",
        "developer",
        "user",
        "assistant",
    ]
    assert history.items()[3:] == (agent("Good evening!"), call("a"), result("a"))


def test_a_stored_conversation_is_repaired() -> None:
    history = History([call("a"), call("b"), result("b"), user("Hello?"), result("a"), result("x"), agent("  ")])
    assert history.items() == (
        call("a"),
        call("b"),
        result("a", "outcome unknown: verify before you repeat this", "unknown"),
        result("b"),
        user("Hello?"),
    )


def test_the_oldest_turns_are_forgotten_but_never_instructions_or_running_tools() -> None:
    history = History([Entry(role="system", text="S" * 50)], max_chars=120)
    slow = history.draft("slow")
    slow.call(call("a"))
    history.commit(slow, {})
    for number in range(10):
        draft = history.draft(f"question {number} " + "x" * 20)
        draft.say(0, "answer")
        history.commit(draft, {0: ("answer", True)})
    items = history.items()
    assert items[0] == Entry(role="system", text="S" * 50)
    assert call("a") in items
    assert items[-1] == agent("answer")
    assert not any(isinstance(item, Entry) and item.text.startswith("question 5") for item in items)
    slow.result(result("a", "at last"))
    assert result("a", "at last (finished after the caller spoke again)") in history.items()


def test_a_draft_of_another_history_is_refused() -> None:
    with pytest.raises(StateError):
        History().commit(History().draft("x"), {})
    with pytest.raises(StateError):
        History().drop(History().draft("x"))
    with pytest.raises(StateError):
        History().discard(History().draft("x"))


def check(items: Sequence[Item]) -> None:
    """What every provider demands of a conversation."""
    sent = messages(items)
    if sent:
        assert pairing_error(sent) is None, pairing_error(sent)
    for item in items:
        if isinstance(item, Entry):
            assert item.text.strip()
            if item.role == "assistant":
                assert item.text == item.text.strip()


TEXTS = st.sampled_from(["", " ", "Yes.", " yes", "well ", "one two three", "\n"])
IDS = st.sampled_from(["a", "b", "c"])
STATES = st.sampled_from(["done", "failed", "timed_out", "cancelled", "running", "unknown"])
PARTS = st.integers(0, 3)


class Conversations(RuleBasedStateMachine):
    """Turns, words, tools and ends in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.history = History(max_chars=None)
        self.drafts: list[Draft] = []
        self.started: list[tuple[Draft, str]] = []

    def pick(self, number: int) -> Draft:
        if not self.drafts:
            self.drafts.append(self.history.draft("first"))
        return self.drafts[number % len(self.drafts)]

    @rule(text=TEXTS)
    def begin(self, text: str) -> None:
        self.drafts.append(self.history.draft(text))

    @rule(number=st.integers(0, 9), part=PARTS, text=TEXTS)
    def say(self, number: int, part: int, text: str) -> None:
        self.pick(number).say(part, text)

    @rule(number=st.integers(0, 9), call_id=IDS)
    def start_tool(self, number: int, call_id: str) -> None:
        draft = self.pick(number)
        draft.call(call(call_id))
        if draft._state != "discarded":
            self.started.append((draft, call_id))

    @rule(number=st.integers(0, 9), call_id=IDS, content=TEXTS, state=STATES)
    def end_tool(self, number: int, call_id: str, content: str, state: Any) -> None:
        self.pick(number).result(result(call_id, content, state))

    @rule(number=st.integers(0, 9), heard=st.dictionaries(PARTS, st.tuples(TEXTS, st.booleans())))
    def commit(self, number: int, heard: dict[int, tuple[str, bool]]) -> None:
        self.history.commit(self.pick(number), heard)

    @rule(number=st.integers(0, 9))
    def drop(self, number: int) -> None:
        self.history.drop(self.pick(number))

    @rule(number=st.integers(0, 9))
    def discard(self, number: int) -> None:
        draft = self.pick(number)
        if draft.open:
            self.started = [(other, call_id) for other, call_id in self.started if other is not draft]
        self.history.discard(draft)

    @rule(number=st.integers(0, 9))
    def take_the_floor(self, number: int) -> None:
        self.pick(number).begin()

    @rule(items=st.lists(st.one_of(IDS.map(call), IDS.map(result), TEXTS.map(user), TEXTS.map(agent)), max_size=5))
    def add(self, items: list[Item]) -> None:
        self.history.add(*items)

    @rule(number=st.integers(0, 9))
    def ask(self, number: int) -> None:
        check(self.pick(number).items())

    @invariant()
    def every_request_is_valid(self) -> None:
        check(self.history.items())

    @rule()
    def a_started_tool_is_never_forgotten(self) -> None:
        items = self.history.request_items()
        check(items)
        asked = [item.id for item in items if isinstance(item, ToolCall)]
        for call_id in {call_id for _, call_id in self.started}:
            assert call_id in asked


TestConversations = Conversations.TestCase
TestConversations.settings = settings(max_examples=60, stateful_step_count=30)


@given(st.text(max_size=40), st.integers(0, 40), st.booleans())
def test_nothing_unheard_is_ever_kept(text: str, heard: int, complete: bool) -> None:
    history = History()
    draft = history.draft("Q")
    draft.say(0, text)
    history.commit(draft, {0: (text if complete else text[:heard], complete)})
    kept = [item.text for item in history.items() if isinstance(item, Entry) and item.role == "assistant"]
    expected = (text if complete else text[:heard]).strip()
    assert kept == ([expected] if expected else [])


def test_an_ended_turn_is_not_worked_out_again_until_a_tool_begins_behind_its_end() -> None:
    history = History()
    draft = history.draft("a table")
    draft.say(0, "For two? Yes.")
    history.commit(draft, {0: ("For two?", False)})
    first, again = history.request_items(), history.request_items()
    assert first == (user("a table"), agent("For two?", interrupted=True))
    assert all(one is other for one, other in zip(first, again, strict=True))
    draft.call(call("a"))
    running = history.request_items()
    assert running[:3] == (*first, call("a"))
    assert running[3].state == "running"  # type: ignore[union-attr]
    draft.result(result("a"))
    assert history.request_items()[:4] == running
    assert history.items() == history.request_items()

"""Several people at the caller's end: the model, the events, the report and the page tell them apart."""

from __future__ import annotations

from collections.abc import AsyncIterator
from uuid import uuid4

import pytest
from test_agent_on_a_line import on_a_call

from dialog.agent.agent import Agent
from dialog.agent.speakers import Speakers
from dialog.calls.events import CallerSaid, SpeculationEnded
from dialog.calls.page import make_page
from dialog.calls.report import make_report
from dialog.message import Message, Utterance, Word
from dialog.stt.stt import STT
from dialog.testing.doubles import ToldSTT


def said(*stretches: tuple[str | None, str], data: str | None = None, words: bool = True) -> Utterance:
    """An utterance of (speaker, text)s."""
    told = [Word(text=text, start_ms=0, end_ms=0, speaker=who) for who, line in stretches for text in line.split()]
    speakers = {who for who, _ in stretches}
    return Utterance(
        uuid=uuid4(),
        data=data if data is not None else " ".join(line for _, line in stretches),
        words=tuple(told) if words else (),
        speaker=speakers.pop() if len(speakers) == 1 else None,
    )


def test_one_speaker_needs_no_label():
    speakers = Speakers()
    assert speakers.text([said(("0", "a table")), said(("0", "for four"))]) == "a table for four"
    assert speakers.text([said((None, "please"))]) == "please"


def test_from_the_second_speaker_on_everybody_is_labelled():
    speakers = Speakers()
    assert speakers.text([said(("0", "A table."))]) == "A table."
    assert speakers.text([said(("1", "For four."))]) == "[speaker 1] For four."
    assert speakers.text([said(("0", "Yes.")), said(("0", "At seven."))]) == "[speaker 0] Yes. At seven."


def test_joined_utterances_of_two_speakers_keep_both_labels():
    joined = [said(("0", "A table.")), said(("1", "For four.")), said(("1", "At seven.")), said(("0", "Yes."))]
    assert Speakers().text(joined) == "[speaker 0] A table. [speaker 1] For four. At seven. [speaker 0] Yes."


def test_two_speakers_in_one_utterance_are_told_apart_by_its_words_and_keep_its_spelling():
    both = said(("0", "a table"), ("1", "for four"), data="A table?  For four!")
    assert both.speakers == ("0", "1")
    assert Speakers().text([both]) == "[speaker 0] A table? [speaker 1] For four!"


def test_words_that_are_written_otherwise_are_not_guessed_at():
    both = said(("0", "twenty five"), ("1", "dollars"), data="$25")
    assert Speakers().text([both]) == "[speaker 0 and 1] $25"


def test_who_is_not_told_apart_is_unknown_among_others_and_plain_alone():
    speakers = Speakers()
    assert speakers.text([said(("0", "a")), said((None, "b")), said(("1", "c"))]) == (
        "[speaker 0] a [speaker unknown] b [speaker 1] c"
    )
    assert speakers.text([said((None, "typed"))]) == "typed"


class Repeating(Agent):
    """Answers with what the model would be told."""

    async def inference(self, message: Message[str]) -> AsyncIterator[str]:
        self.got = [*getattr(self, "got", []), message.data]
        yield "Fine."


def tell(stt: ToldSTT, *stretches: tuple[str | None, str], event=STT.MESSAGE, uuid=None) -> Utterance:
    utterance = said(*stretches)
    if uuid is not None:
        utterance = Utterance(uuid=uuid, data=utterance.data, words=utterance.words, speaker=utterance.speaker)
    stt.emit(event, utterance)
    return utterance


def test_history_events_report_and_page_name_the_speakers():
    async def scenario(talk):
        tell(talk.stt, ("0", "a table please"))
        await talk.quiet()
        tell(talk.stt, ("1", "for four please"))
        await talk.quiet()
        tell(talk.stt, ("0", "at seven"), ("1", "no eight"))
        await talk.quiet()
        assert [text for role, text, _ in talk.spoken() if role == "user"] == [
            "a table please",
            "[speaker 1] for four please",
            "[speaker 0] at seven [speaker 1] no eight",
        ]
        assert [(event.text, event.speaker) for event in talk(CallerSaid)] == [
            ("a table please", "0"),
            ("for four please", "1"),
            ("at seven no eight", "0, 1"),
        ]
        assert talk.agent.got[0] == "a table please"

    talk = on_a_call(scenario, Repeating)
    report = make_report(talk.agent.events)
    assert [turn.speaker for turn in report.turns] == ["0", "1", "0, 1"]
    page = make_page(report)
    assert all(who in page for who in ("Caller 0<", "Caller 1<", "Caller 0, 1<"))


def test_what_two_say_before_the_answer_is_heard_is_answered_with_both_labels():
    async def scenario(talk):
        tell(talk.stt, ("0", "a table please"))
        tell(talk.stt, ("1", "for four"))
        await talk.quiet()
        assert talk.spoken()[0] == ("user", "[speaker 0] a table please [speaker 1] for four", "")
        assert talk.agent.got[-1] == "[speaker 0] a table please [speaker 1] for four"

    on_a_call(scenario, Repeating)


def test_one_speaker_is_just_the_caller():
    async def scenario(talk):
        tell(talk.stt, ("0", "a table please"))
        await talk.quiet()
        assert talk.spoken()[0] == ("user", "a table please", "")

    talk = on_a_call(scenario, Repeating)
    assert "Caller<" in make_page(make_report(talk.agent.events))


@pytest.mark.parametrize(("second", "outcome"), [("0", "saved"), ("1", "wasted")])
def test_a_reply_begun_early_is_not_used_for_somebody_else(second, outcome):
    async def scenario(talk):
        tell(talk.stt, ("0", "a table please"))
        await talk.quiet()
        uuid = uuid4()
        tell(talk.stt, ("0", "for four please"), event=STT.EAGER, uuid=uuid)
        await talk.clock.sleep(0.1)
        tell(talk.stt, (second, "for four please"), uuid=uuid)
        await talk.quiet()
        label = "[speaker 1] " if second == "1" else ""
        assert talk.spoken()[-2] == ("user", f"{label}for four please", "")
        assert [event.outcome for event in talk(SpeculationEnded)] == [outcome]

    on_a_call(scenario, Repeating)

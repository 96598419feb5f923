"""Turns in realtime mode, step by step: a model that is told what to do, on a line in memory, in virtual time."""

from __future__ import annotations

from uuid import uuid4

import pytest

from dialog import Agent, AgentSettings, Endpointing, TurnSettings, VoIP, tool
from dialog.calls.events import (
    AgentSaid,
    AgentTold,
    CallEnded,
    CallerSaid,
    ErrorRaised,
    Interrupted,
    ReplyDropped,
    ResumedAfterPause,
    ToolStarted,
)
from dialog.errors import ProviderError
from dialog.llm.llm import Entry
from dialog.message import PCM_24K, SpeechEdge, Utterance
from dialog.participant import Participant
from dialog.s2s.s2s import S2S, S2SCapabilities
from dialog.testing.doubles import HummingTTS
from dialog.testing.told_s2s import ToldS2S
from dialog.testing.virtual import run_virtual
from dialog.vad.vad import VAD
from dialog.voip.memory import memory_call

LONG = "This is a reply that goes on for a rather long time, so that it can be cut."


class ToldVAD(VAD):
    """Hears what the test tells it."""

    def open(self, audio_format):
        self.at_ms = 0.0

    def post(self, message):
        self.at_ms = message.at_ms


class Host(Agent):
    @tool
    async def book_table(self) -> str:
        """Book a table."""
        await self.voip.clock.sleep(0.5)
        return "booked"


class Talk:
    def __init__(self, clock, s2s=None, **options) -> None:
        self.clock = clock
        self.s2s = s2s or ToldS2S()
        self.errors: list = []

        def on_voip(voip: VoIP) -> None:
            self.agent = Host(voip=voip, s2s=self.s2s, system="Be brief.", **options)
            self.agent.on(Participant.ERROR, self.errors.append)
            self.agent.activate()

        self.call, self.line = memory_call(on_voip, clock=clock, join=False)

    def __call__(self, kind):
        return [event for event in self.agent.events if isinstance(event, kind)]

    async def quiet(self) -> None:
        await self.clock.sleep(0.05)
        while self.agent._conversation and not self.agent._conversation.engine.quiet:
            await self.clock.sleep(0.05)

    def spoken(self):
        return [
            (item.role, item.text, "interrupted" if item.interrupted else "")
            for item in self.agent.history.items()
            if isinstance(item, Entry) and item.role != "system"
        ]

    async def over(self) -> None:
        self.line.hang_up()
        await self.call.wait_closed()
        await self.line.wait_closed()


def on_a_call(scenario, **options):
    async def run(clock):
        made = {name: make() if callable(make) and name == "s2s" else make for name, make in options.items()}
        talk = Talk(clock, **made)
        talk.line.join(talk.call)
        await scenario(talk)
        await talk.over()
        assert len(talk(CallEnded)) == 1
        assert talk.s2s.disposed

    run_virtual(run)


def theirs() -> ToldS2S:
    """A model that decides for itself when to speak and when to stop."""
    return ToldS2S(S2SCapabilities(interruption="theirs", replies="unasked", flush_signal=True, speech_events=True))


# Words that come late.


def test_a_reply_begins_before_the_callers_words_are_known():
    async def scenario(talk):
        uuid = talk.s2s.turn()
        await talk.clock.sleep(0.01)
        assert talk.s2s.asked == [uuid]
        talk.s2s.answers_with(uuid, "Good evening.")
        await talk.quiet()
        assert talk.spoken() == [("assistant", "Good evening.", "")]
        talk.s2s.words(uuid, "good evening")
        assert talk.spoken() == [("user", "good evening", ""), ("assistant", "Good evening.", "")]
        assert [(said.turn, said.text) for said in talk(CallerSaid)] == [(uuid, "good evening")]

    on_a_call(scenario)


def test_words_that_come_while_the_reply_is_said_stand_before_it():
    async def scenario(talk):
        uuid = talk.s2s.turn()
        await talk.clock.sleep(0.01)
        talk.s2s.answers_with(uuid, LONG)
        await talk.clock.sleep(0.5)
        talk.s2s.words(uuid, "hello")
        await talk.quiet()
        assert talk.spoken() == [("user", "hello", ""), ("assistant", LONG, "")]

    on_a_call(scenario)


def test_words_that_trickle_in_after_their_turn_are_no_interruption():
    async def scenario(talk):
        uuid = talk.s2s.turn()
        await talk.clock.sleep(0.01)
        for text in ("what", "what time", "what time is it"):
            talk.s2s.emit(S2S.INTERIM, Utterance(uuid=uuid, data=text))
        talk.s2s.words(uuid, "what time is it")
        talk.s2s.answers_with(uuid, "Half past nine.")
        await talk.quiet()
        assert talk(ReplyDropped) == []
        assert talk.s2s.asked == [uuid]
        assert talk.spoken() == [("user", "what time is it", ""), ("assistant", "Half past nine.", "")]

    on_a_call(scenario)


def test_a_turn_over_a_reply_cuts_it_only_when_there_were_words():
    async def scenario(talk):
        first = talk.s2s.hears("hello")
        await talk.clock.sleep(0.01)
        talk.s2s.answers_with(first, LONG)
        await talk.clock.sleep(1.0)
        talk.s2s.speech_starts()
        await talk.clock.sleep(0.3)
        talk.s2s.speech_stops()
        second = talk.s2s.turn()
        await talk.clock.sleep(0.3)
        assert talk.s2s.asked == [first], "perhaps it was a cough"
        talk.s2s.words(second, "stop")
        await talk.clock.sleep(0.01)
        assert talk.s2s.asked == [first, second]
        [heard] = [heard for heard in talk.s2s.cancelled if heard.uuid == first]
        assert heard.part == 0
        assert heard.heard_ms == pytest.approx(1000, abs=30)
        talk.s2s.answers_with(second, "All right.")
        await talk.quiet()
        assert talk.spoken() == [
            ("user", "hello", ""), ("assistant", LONG[:20], "interrupted"),
            ("user", "stop", ""), ("assistant", "All right.", ""),
        ]  # fmt: skip
        assert len(talk(Interrupted)) == 1

    on_a_call(scenario)


def test_a_turn_without_words_over_a_reply_lets_it_go_on_at_once():
    async def scenario(talk):
        uuid = talk.s2s.hears("hello")
        await talk.clock.sleep(0.01)
        talk.s2s.answers_with(uuid, LONG)
        await talk.clock.sleep(1.0)
        talk.s2s.speech_starts()
        await talk.clock.sleep(0.2)
        talk.s2s.speech_stops()
        talk.s2s.words(talk.s2s.turn(), "")
        assert len(talk(ResumedAfterPause)) == 1
        await talk.quiet()
        assert talk.spoken()[-1] == ("assistant", LONG, "")
        assert talk.s2s.cancelled == []

    on_a_call(scenario)


def test_words_of_which_nothing_was_heard_drop_the_reply_and_are_answered_together():
    async def scenario(talk):
        first = talk.s2s.turn()
        await talk.clock.sleep(0.01)
        talk.s2s.speech_starts()
        talk.s2s.speech_stops()
        second = talk.s2s.turn()
        talk.s2s.words(second, "for six please")
        await talk.clock.sleep(0.01)
        assert talk.s2s.asked == [first, second]
        assert [heard.uuid for heard in talk.s2s.cancelled] == [first]
        talk.s2s.answers_with(second, "Six.")
        talk.s2s.words(first, "a table")
        await talk.quiet()
        assert talk.spoken() == [("user", "a table for six please", ""), ("assistant", "Six.", "")]
        assert len(talk(ReplyDropped)) == 1
        talk.s2s.sounds(first, 500)
        await talk.clock.sleep(1)
        assert {said.turn for said in talk(AgentSaid)} == {second}

    on_a_call(scenario)


# Models that decide for themselves.


def test_a_reply_that_nobody_asked_for_is_a_turn():
    async def scenario(talk):
        uuid = talk.s2s.turn()
        await talk.clock.sleep(0.01)
        assert talk.s2s.asked == []
        talk.s2s.answers_with(uuid, "Good evening.")
        talk.s2s.words(uuid, "hello")
        await talk.quiet()
        assert talk.spoken() == [("user", "hello", ""), ("assistant", "Good evening.", "")]
        other = uuid4()
        talk.s2s.answers_with(other, "Still there?")  # not even a turn was told
        await talk.quiet()
        assert talk.spoken()[-1] == ("assistant", "Still there?", "")
        assert not talk.errors

    on_a_call(scenario, s2s=theirs)


def test_what_is_whispered_is_told_before_a_model_answers_by_itself_and_only_once():
    async def scenario(talk):
        await talk.clock.sleep(0.01)
        talk.call.voip.whisper("The caller is a member.")
        assert [(item.role, item.text) for item in talk.s2s.added] == [("developer", "The caller is a member.")]
        uuid = talk.s2s.hears("do you know me")
        await talk.clock.sleep(0.01)
        talk.s2s.answers_with(uuid, "Of course.")
        await talk.quiet()
        assert talk.spoken() == [
            ("developer", "The caller is a member.", ""),
            ("user", "do you know me", ""),
            ("assistant", "Of course.", ""),
        ]
        assert len(talk.s2s.added) == 1
        assert [told.text for told in talk(AgentTold)] == ["The caller is a member."]
        assert not talk.errors

    on_a_call(scenario, s2s=theirs)


def test_when_the_provider_interrupts_the_line_falls_silent_at_once():
    async def scenario(talk):
        first = talk.s2s.turn()
        await talk.clock.sleep(0.01)
        talk.s2s.answers_with(first, LONG)
        await talk.clock.sleep(1.0)
        talk.s2s.speech_starts()
        talk.s2s.flushes(first)
        heard = len(talk.line.heard_audio)
        talk.s2s.sounds(first, 300, part=1)
        await talk.clock.sleep(0.5)
        assert len(talk.line.heard_audio) == heard
        assert len(talk(Interrupted)) == 1
        talk.s2s.speech_stops()
        second = talk.s2s.turn()
        talk.s2s.answers_with(second, "Yes?")
        talk.s2s.words(second, "wait")
        await talk.quiet()
        assert [text for _, text, _ in talk.spoken()] == ["This is a reply that", "wait", "Yes?"]

    on_a_call(scenario, s2s=theirs)


def test_what_comes_unasked_waits_until_the_floor_is_free():
    async def scenario(talk):
        said = talk.agent.dispatch_message("This call is recorded.", allow_interrupt=False)
        await talk.clock.sleep(0.1)
        uuid = uuid4()
        talk.s2s.answers_with(uuid, "Good evening.")
        await talk.quiet()
        assert (await said).complete
        assert [text for _, text, _ in talk.spoken()] == ["This call is recorded.", "Good evening."]

    on_a_call(scenario, s2s=theirs, tts=HummingTTS())


def test_what_the_model_says_of_its_own_accord_does_not_cut_what_is_heard():
    async def scenario(talk):
        uuid = talk.s2s.turn()
        await talk.clock.sleep(0.01)
        talk.s2s.answers_with(uuid, LONG)
        await talk.clock.sleep(0.5)
        talk.s2s.answers_with(uuid4(), "And one more thing.")
        await talk.quiet()
        assert talk.spoken() == [("assistant", LONG, ""), ("assistant", "And one more thing.", "")]
        assert talk(Interrupted) == []

    on_a_call(scenario, s2s=theirs)


def test_a_flush_of_what_is_over_is_ignored():
    async def scenario(talk):
        uuid = talk.s2s.turn()
        await talk.clock.sleep(0.01)
        talk.s2s.answers_with(uuid, "Good evening.")
        await talk.quiet()
        talk.s2s.flushes(uuid)
        talk.s2s.flushes(uuid4())
        assert talk(Interrupted) == []

    on_a_call(scenario, s2s=theirs)


# Who hears the caller's voice.


def test_local_turns_are_begun_and_committed():
    vad = ToldVAD

    async def scenario(talk):
        local = talk.agent._vad
        assert talk.s2s.spec.vad == "local"
        talk.line.say(b"\x00" * 8000)
        await talk.clock.sleep(0.2)
        local.emit(VAD.SPEECH, SpeechEdge(state="started", at_ms=local.at_ms))
        assert len(talk.s2s.begun) == 1
        await talk.clock.sleep(0.6)
        local.emit(VAD.SPEECH, SpeechEdge(state="stopped", at_ms=local.at_ms))
        assert talk.s2s.committed == []
        await talk.clock.sleep(0.6)
        assert len(talk.s2s.committed) == 1
        assert talk.s2s.asked == talk.s2s.committed
        talk.s2s.answers_with(talk.s2s.asked[0], "Yes.")
        await talk.quiet()
        assert talk.spoken() == [("assistant", "Yes.", "")]

    on_a_call(scenario, vad=vad, settings=AgentSettings(vad="local"))


def test_a_model_that_tells_no_speech_gets_a_local_vad_beside_it():
    def deaf():
        return ToldS2S(S2SCapabilities(truncate=True))

    async def scenario(talk):
        assert talk.s2s.spec.vad == "provider"
        uuid = talk.s2s.hears("hello")
        await talk.clock.sleep(0.01)
        talk.s2s.answers_with(uuid, LONG)
        talk.line.say(b"\x00" * 8000)
        await talk.clock.sleep(0.6)
        talk.agent._vad.emit(VAD.SPEECH, SpeechEdge(state="started", at_ms=talk.agent._vad.at_ms))
        heard = len(talk.line.heard_audio)
        await talk.clock.sleep(0.3)
        assert len(talk.line.heard_audio) == heard, "its voice pauses the reply"
        assert talk.s2s.begun == []

    on_a_call(scenario, s2s=deaf, vad=ToldVAD)


def test_nothing_is_prepared_for_what_the_caller_has_perhaps_said():
    async def scenario(talk):
        uuid = uuid4()
        talk.s2s.speech_starts()
        talk.s2s.emit(S2S.INTERIM, Utterance(uuid=uuid, data="what are your hours"))
        talk.s2s.speech_stops()
        await talk.clock.sleep(0.4)
        assert talk.s2s.asked == []
        talk.s2s.words(uuid, "what are your hours")
        talk.s2s.turn(uuid)
        await talk.clock.sleep(0.01)
        assert talk.s2s.asked == [uuid]

    settings = AgentSettings(turns=TurnSettings(endpointing=Endpointing(speculate_after_s=0.1)))
    on_a_call(scenario, settings=settings)


# Tools, failures, sessions.


def test_a_tool_of_a_reply_that_was_cut_never_acts():
    async def scenario(talk):
        uuid = talk.s2s.hears("book it")
        await talk.clock.sleep(0.01)
        talk.s2s.speaks(uuid, LONG)
        call_id = talk.s2s.wants(uuid, "book_table")
        await talk.clock.sleep(1)
        talk.s2s.speech_starts()
        second = talk.s2s.hears("no")
        talk.s2s.ends(uuid)
        await talk.clock.sleep(0.1)
        assert talk(ToolStarted) == []
        assert talk.s2s.answers == {call_id: "not run: the caller spoke"}
        assert talk.s2s.asked == [uuid, second]

    on_a_call(scenario)


def test_a_tool_goes_on_when_the_caller_speaks_and_the_model_is_told():
    async def scenario(talk):
        uuid = talk.s2s.hears("book it")
        await talk.clock.sleep(0.01)
        call_id = talk.s2s.wants(uuid, "book_table")
        talk.s2s.ends(uuid)
        await talk.clock.sleep(0.2)
        assert len(talk(ToolStarted)) == 1
        talk.s2s.speech_starts()
        talk.s2s.speech_stops()
        second = talk.s2s.hears("for six")
        await talk.clock.sleep(1)
        assert "booked" in talk.s2s.answers[call_id]
        assert talk.s2s.asked == [uuid, second]

    on_a_call(scenario)


def test_a_reply_that_failed_is_apologised_for():
    async def scenario(talk):
        uuid = talk.s2s.hears("hello")
        await talk.clock.sleep(0.01)
        talk.s2s.ends(uuid, "failed")
        await talk.clock.sleep(0.1)
        assert list(talk.s2s.said.values()) == [AgentSettings().apology]
        assert len(talk(ErrorRaised)) == 1

    on_a_call(scenario)


def test_a_reply_that_never_ends_is_given_up_and_apologised_for():
    async def scenario(talk):
        uuid = talk.s2s.hears("hello")
        await talk.clock.sleep(AgentSettings().reply_timeout_s + 1)
        assert [heard.uuid for heard in talk.s2s.cancelled] == [uuid]
        assert list(talk.s2s.said.values()) == [AgentSettings().apology]
        assert not talk.agent._conversation.engine.model._replies

    on_a_call(scenario)


def test_a_sentence_that_the_model_fails_to_say_is_forgotten_with_its_turn():
    async def scenario(talk):
        said = talk.agent.dispatch_message("This call is recorded.")
        await talk.clock.sleep(0.1)
        [(uuid, part)] = talk.s2s.said
        talk.s2s.ends(uuid, "failed", part=part)
        await talk.quiet()
        assert not (await said).complete
        assert not talk.agent._conversation.engine._voice.says((uuid, part))

    on_a_call(scenario)


def test_an_answer_that_is_not_wanted_any_more_is_not_given():
    async def scenario(talk):
        uuid = talk.s2s.hears("book it")
        await talk.clock.sleep(0.01)
        call_id = talk.s2s.wants(uuid, "book_table")
        talk.s2s.ends(uuid)
        await talk.clock.sleep(0.1)
        talk.s2s.emit(S2S.TOOL_CANCELLED, call_id)
        await talk.clock.sleep(1)
        assert talk.s2s.answers == {}
        assert len(talk(ToolStarted)) == 1, "what acts in the world has acted"

    on_a_call(scenario)


@pytest.mark.parametrize("over_a_reply", [False, True])
def test_the_last_words_are_kept_although_they_come_after_the_call(over_a_reply):
    async def scenario(talk):
        if over_a_reply:
            first = talk.s2s.hears("hello")
            await talk.clock.sleep(0.01)
            talk.s2s.answers_with(first, LONG)
            await talk.clock.sleep(1)
        uuid = talk.s2s.turn()
        await talk.clock.sleep(0.01)
        talk.line.hang_up()
        await talk.clock.sleep(0.1)
        talk.s2s.words(uuid, "goodbye")
        await talk.call.wait_closed()
        assert talk.spoken()[-1][:2] == ("user", "goodbye")
        assert [said.text for said in talk(CallerSaid)][-1] == "goodbye"

    on_a_call(scenario)


def test_what_an_earlier_session_said_is_told_to_the_next_one():
    async def scenario(talk):
        uuid = talk.s2s.hears("hello")
        await talk.clock.sleep(0.01)
        talk.s2s.answers_with(uuid, LONG)
        await talk.clock.sleep(1)
        talk.s2s.sessions = 2
        assert [item.text for item in talk.s2s.spec.history()] == ["hello"]
        await talk.quiet()
        assert [(item.role, item.text) for item in talk.s2s.added] == [("assistant", LONG)]
        assert [item.text for item in talk.s2s.spec.history()] == ["hello", LONG]

    on_a_call(scenario)


def test_a_model_that_is_gone_for_good_ends_the_call_in_words():
    async def scenario(talk):
        talk.s2s.fail(ProviderError("told", "gone", retryable=False), fatal=True)
        await talk.call.wait_closed()
        assert talk.agent.history.items()[-1].text == AgentSettings().failure
        assert talk(CallEnded)[0].reason == "agent_hangup"

    on_a_call(scenario, tts=HummingTTS())


def test_audio_of_another_format_is_converted_for_the_line():
    class Wide(ToldS2S):
        output_formats = (PCM_24K,)

    async def scenario(talk):
        uuid = talk.s2s.hears("hello")
        await talk.clock.sleep(0.01)
        talk.s2s.answers_with(uuid, "Good evening.")
        await talk.quiet()
        assert len(talk.line.heard_audio) == pytest.approx(len("Good evening.") * 400, abs=40)
        assert talk.spoken()[-1] == ("assistant", "Good evening.", "")

    on_a_call(scenario, s2s=Wide)


def test_a_reply_whose_words_never_come_can_be_interrupted_all_the_same():
    async def scenario(talk):
        uuid = talk.s2s.hears("hello")
        await talk.clock.sleep(0.01)
        talk.s2s.sounds(uuid, 4000, done=True)
        talk.s2s.ends(uuid)
        await talk.clock.sleep(1)
        talk.s2s.speech_starts()
        talk.s2s.hears("stop")
        await talk.clock.sleep(0.1)
        assert len(talk(Interrupted)) == 1
        assert talk.s2s.cancelled[0].heard_ms == pytest.approx(1000, abs=30)

    on_a_call(scenario)


def test_an_agent_that_lets_go_of_its_call_takes_it_again():
    async def scenario(talk):
        talk.agent.deactivate()
        talk.agent.activate()
        uuid = talk.s2s.hears("hello")
        await talk.clock.sleep(0.01)
        talk.s2s.answers_with(uuid, "Good evening.")
        await talk.quiet()
        assert talk.spoken() == [("user", "hello", ""), ("assistant", "Good evening.", "")]

    on_a_call(scenario)

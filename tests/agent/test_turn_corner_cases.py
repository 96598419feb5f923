"""Turns in odd moments: speculations that fail or are thrown away, wishes to end the call, voices that break."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import ClassVar

import pytest
from test_agent_on_a_line import Echo, Talk, heard_ms, on_a_call
from test_tools_at_work import Model, call

from dialog.agent.agent import Agent
from dialog.agent.settings import AgentSettings
from dialog.agent.tools import tool
from dialog.agent.turns.settings import BargeIn, Silence, TurnSettings
from dialog.calls.events import AgentSaid
from dialog.errors import ProviderError
from dialog.message import Message
from dialog.participant import Participant
from dialog.stt.stt import STTCapabilities
from dialog.testing.doubles import HummingTTS, ToldSTT
from dialog.testing.virtual import run_virtual
from dialog.tts.tts import TTSCapabilities
from dialog.voip.memory import MemoryCarrier, memory_call
from dialog.voip.voip import VoIP


class Slow(Agent):
    async def inference(self, message: Message[str]) -> AsyncIterator[str]:
        await asyncio.sleep(0.3)
        yield f"You said: {message.data}"


class Breaking(HummingTTS):
    """A voice whose post raises, or reports a failure and says nothing, until it is mended."""

    raises = True
    broken = True

    def post(self, message: Message[str]) -> None:
        if not self.broken:
            super().post(message)
        elif self.raises:
            raise ValueError("no such voice")
        else:
            self.fail(ProviderError("humming", "no such voice", retryable=True))


class Reporting(Breaking):
    raises = False


class Sentences(HummingTTS):
    capabilities: ClassVar[TTSCapabilities] = TTSCapabilities(text="sentences", timings=True, parallel_parts=8)


# Speculations.


def test_a_voice_that_breaks_for_a_speculation_does_not_hold_the_line_for_ever():
    async def scenario(talk):
        talk.stt.expects("hello")
        await talk.clock.sleep(0.5)
        talk.tts.broken = False
        talk.stt.heard("hello")
        async with asyncio.timeout(5):
            await talk.quiet()
        assert talk.spoken() == [("user", "hello", "")]
        talk.stt.heard("hello again")
        await talk.quiet()
        assert talk.spoken()[-1] == ("assistant", "You said: hello again", "")

    on_a_call(scenario, Slow, tts=Breaking())


def test_keys_neither_wait_for_a_speculation_nor_cost_it_its_words():
    async def scenario(talk):
        entry = asyncio.ensure_future(talk.agent.collect_digits(max_digits=1))
        talk.stt.expects("hello")
        await talk.clock.sleep(0.5)
        talk.line.press("1")
        assert (await entry).digits == "1"
        talk.stt.heard("hello")
        talk.tts.release()
        async with asyncio.timeout(5):
            await talk.quiet()
        assert talk.spoken()[-1] == ("assistant", "You said: hello", "")
        assert heard_ms(talk) == len("You said: hello") * 50

    on_a_call(scenario, Slow, tts=HummingTTS(hold=True))


def test_the_time_for_keys_runs_although_a_speculation_is_thrown_away():
    async def scenario(talk):
        talk.stt.expects("hello")
        await talk.clock.sleep(0.5)
        entry = asyncio.ensure_future(talk.agent.collect_digits(timeout_s=2))
        await talk.clock.sleep(0.1)
        talk.stt.goes_on()
        async with asyncio.timeout(3):
            assert (await entry).why == "timeout"

    on_a_call(scenario, Slow)


def test_an_agent_that_takes_its_call_again_answers_what_it_had_begun_to_hear():
    async def run(clock):
        talk = Talk(clock)
        talk.line.join(talk.call)
        talk.stt.expects("hello")
        await clock.sleep(0.1)
        talk.agent.deactivate()
        talk.agent.activate()
        talk.stt.heard("hello")  # the same utterance: the line and the voice know its first part already
        async with asyncio.timeout(5):
            await talk.quiet()
        assert talk.spoken()[-1] == ("assistant", "You said: hello", "")
        assert heard_ms(talk, 1) == len("You said: hello ") * 50
        await talk.over()

    run_virtual(run)


class Leaving(Agent):
    async def inference(self, message: Message[str]) -> AsyncIterator[str]:
        if message.data == "bye":
            self.hang_up("said_goodbye")
            yield "Goodbye."
        else:
            yield "Fine."


def test_a_speculation_that_is_withdrawn_does_not_hang_up():
    async def scenario(talk):
        talk.stt.expects("bye")
        await talk.clock.sleep(0.1)
        talk.stt.goes_on()
        await talk.clock.sleep(5)
        assert talk.agent.voip.state == "live"

    on_a_call(scenario, Leaving)


def test_a_speculation_on_other_words_does_not_hang_up():
    async def scenario(talk):
        talk.stt.expects("bye")
        await talk.clock.sleep(0.1)
        talk.stt.heard("by the way")
        await talk.quiet()
        await talk.clock.sleep(5)
        assert talk.agent.voip.state == "live"
        assert talk.spoken()[-1] == ("assistant", "Fine.", "")

    on_a_call(scenario, Leaving)


def test_a_speculation_on_a_conversation_that_has_changed_does_not_hang_up():
    class Once(Leaving):
        async def inference(self, message: Message[str]) -> AsyncIterator[str]:
            if not self.history.items():
                self.hang_up()
            yield "Well."

    async def scenario(talk):
        talk.stt.expects("bye")
        await talk.clock.sleep(0.1)
        talk.agent.history.system("They have a voucher.")
        talk.stt.heard("bye")
        await talk.quiet()
        await talk.clock.sleep(5)
        assert talk.agent.voip.state == "live"

    on_a_call(scenario, Once)


def test_a_speculation_that_was_right_hangs_up_when_it_was_heard():
    async def scenario(talk):
        talk.stt.expects("bye")
        await talk.clock.sleep(0.1)
        talk.stt.heard("bye")
        await talk.clock.sleep(2)
        assert talk.agent.voip.end.reason == "said_goodbye"
        assert talk.spoken()[-1] == ("assistant", "Goodbye.", "")

    on_a_call(scenario, Leaving)


# The end of the call.


class Straggling(Agent):
    @tool
    async def end(self) -> str:
        """End the call."""
        await asyncio.sleep(1.5)
        self.hang_up()
        return "ended"


def test_a_tool_whose_reply_the_caller_has_stopped_does_not_hang_up_on_them():
    async def scenario(talk):
        talk.stt.heard("bye")
        await talk.clock.sleep(1)
        talk.stt.heard("no wait")
        await talk.clock.sleep(10)
        assert talk.agent.voip.state == "live"
        assert ("assistant", "What is it?", "") in talk.spoken()

    goodbye = ["Goodbye then, have a nice day. ", call("end")]
    on_a_call(scenario, Straggling, llm=Model(goodbye, [3, "What is it?"], ["Well?"]))


def test_a_caller_who_comes_back_from_a_transfer_is_answered():
    async def run(clock):
        stt = ToldSTT()
        agents = []

        def on_voip(voip: VoIP) -> None:
            agents.append(Echo(voip=voip, stt=stt, tts=HummingTTS()))
            agents[0].activate()

        carrier = MemoryCarrier(transfer="failed")
        call, _ = memory_call(on_voip, clock=clock, carrier=carrier)
        agents[0].transfer_to("+15550100", back_within_s=20)
        await clock.sleep(2)
        assert agents[0].voip.generation == 2
        stt.heard("nobody answered")
        await clock.sleep(5)
        said = [item.text for item in agents[0].history.items()]
        assert said[0].startswith("I'm sorry, nobody can take"), "it is not silent where they come back to"
        assert said[1:] == ["nobody answered", "You said: nobody answered"]
        carrier.lines[-1].hang_up()
        await call.wait_closed()

    run_virtual(run)


def test_a_call_that_is_being_ended_is_not_ended_again():
    silence = Silence(idle_s=5.0, idle_count=0, max_duration_s=6.0, warn_before_s=None)

    async def scenario(talk):
        await talk.clock.sleep(30)
        assert list(talk.tts.texts.values()) == [AgentSettings().idle_goodbye]
        assert talk.agent.voip.end.reason == "idle"

    on_a_call(scenario, settings=AgentSettings(turns=TurnSettings(silence=silence)))


# Being cut.


def test_a_notice_that_is_read_from_a_stream_is_heard_out_also_if_the_stream_dispatches():
    async def scenario(talk):
        async def words():
            yield "This call is recorded. "
            talk.agent.dispatch_message("By the way.")
            yield "Indeed it is."

        notice = talk.agent.dispatch_stream(words(), allow_interrupt=False)
        await talk.clock.sleep(0.5)
        talk.agent.abort()
        assert (await notice).complete

    on_a_call(scenario)


class Thinking(Agent):
    """Thinks long in the middle of its second sentence."""

    async def inference(self, message: Message[str]) -> AsyncIterator[str]:
        if message.data != "when":
            yield "Sure."
            return
        yield "We open at nine in the morning. "
        yield "And we close at"
        await asyncio.sleep(8)
        yield " ten."


AFTER_SENTENCE = AgentSettings(turns=TurnSettings(barge_in=BargeIn(mode="after_sentence")))


@pytest.mark.parametrize("timings", [True, False])
def test_what_was_never_given_to_the_voice_is_not_remembered_as_heard(timings):
    async def scenario(talk):
        talk.stt.heard("when")
        await talk.clock.sleep(0.8)
        talk.stt.heard("stop it now")
        await talk.quiet()
        assert talk.spoken()[:3] == [
            ("user", "when", ""),
            ("assistant", "We open at nine in the morning.", "interrupted"),
            ("user", "stop it now", ""),
        ]

    on_a_call(scenario, Thinking, settings=AFTER_SENTENCE, tts=Sentences(timings=timings))


def test_a_stream_whose_sentence_may_be_finished_is_read_no_further():
    closed: list[float] = []

    async def scenario(talk):
        async def words():
            try:
                yield "We open at nine in the morning. And we close "
                await asyncio.sleep(8)
            finally:
                closed.append(talk.clock.now())

        speech = talk.agent.dispatch_stream(words())
        await talk.clock.sleep(0.8)
        talk.stt.heard("stop it now")
        assert closed == []
        await talk.clock.sleep(0.05)
        assert closed == [pytest.approx(0.8, abs=0.01)]
        heard = await speech
        assert (heard.text, heard.why) == ("We open at nine in the morning.", "interrupted")

    on_a_call(scenario, settings=AFTER_SENTENCE)


class Talkative(Agent):
    async def inference(self, message: Message[str]) -> AsyncIterator[str]:
        self.dispatch_message("A word. " * 30)
        yield "And more of it. And yet"
        await asyncio.sleep(60)


@pytest.mark.parametrize("heard_s", [0.0, 1.0])
def test_a_reply_that_is_given_up_gives_the_voice_nothing_more(heard_s):
    async def scenario(talk):
        turn = talk.stt.heard("tell me")
        await talk.clock.sleep(0.1 + heard_s)
        before = dict(talk.tts.texts)
        assert (turn, 0) in before
        talk.agent.abort()
        assert talk.tts.texts == before
        assert {bytes([sound]) for heard in talk.line.sent for sound in heard.data} <= {b"\1"}

    on_a_call(scenario, Talkative, tts=Sentences())


@pytest.mark.parametrize("kind", [Breaking, Reporting])
def test_a_listener_that_gives_up_a_reply_whose_voice_breaks_leaves_the_line_free(kind):
    async def scenario(talk):
        talk.agent.on(Participant.ERROR, lambda _: talk.agent.abort())
        talk.stt.heard("hello")
        await talk.quiet()
        talk.tts.broken = False
        talk.stt.heard("hello")
        async with asyncio.timeout(5):
            await talk.quiet()
        assert talk.spoken()[-1] == ("assistant", "You said: hello", "")

    on_a_call(scenario, tts=kind())


class Storyteller(Agent):
    async def inference(self, message: Message[str]) -> AsyncIterator[str]:
        for number in range(20):
            yield f"word{number} "
            await self.voip.clock.sleep(0.3)


def test_the_end_of_the_call_is_announced_after_a_reply_and_not_within_it():
    async def scenario(talk):
        talk.stt.heard("a story")  # the time until the announcement is counted from inside this turn
        await talk.clock.sleep(8)
        told, announced = talk(AgentSaid)
        assert (told.heard.split()[-1], announced.heard) == ("word19", "Soon over.")
        assert announced.turn != told.turn

    silence = Silence(max_duration_s=12, warn_before_s=8)
    settings = AgentSettings(turns=TurnSettings(silence=silence), duration_warning="Soon over.")
    on_a_call(scenario, Storyteller, settings=settings)


def test_a_timer_of_a_stream_that_was_cut_may_speak():
    async def scenario(talk):
        loop = asyncio.get_running_loop()
        said = []

        async def words():
            loop.call_later(1.0, lambda: said.append(talk.agent.dispatch_message("By the way.")))
            yield "A long story that nobody hears to its end."

        talk.agent.dispatch_stream(words())
        await talk.clock.sleep(0.5)
        talk.agent.abort()
        await talk.clock.sleep(3)
        assert said[0].heard.complete

    on_a_call(scenario)


# Ears.


class Wordless(ToldSTT):
    """Leaves speech events, and the end of turns, to a local VAD."""

    capabilities: ClassVar[STTCapabilities] = STTCapabilities(interim_interval_ms=0, manual_turns=True)


def test_ears_that_are_swapped_for_others_that_tell_no_speech_hear_the_voice_stop():
    async def scenario(talk):
        engine = talk.agent._conversation.engine
        talk.line.pump()
        await talk.clock.sleep(0.1)
        talk.stt.speech_starts()
        talk.agent.set_stt(Wordless())
        await talk.clock.sleep(0.2)
        talk.stt.speech_stops()
        assert not engine.caller_speaking, "those that go are listened to until they have gone"
        await talk.clock.sleep(0.1)
        assert talk.stt.disposed

    on_a_call(scenario)


def test_ears_that_never_tell_that_the_voice_stops_are_not_asked_for_ever():
    async def scenario(talk):
        engine = talk.agent._conversation.engine
        talk.line.pump()
        await talk.clock.sleep(0.1)
        talk.stt.speech_starts()
        talk.agent.set_stt(Wordless())
        await talk.clock.sleep(1.9)
        assert engine.caller_speaking
        await talk.clock.sleep(0.5)
        assert talk.stt.disposed
        assert not engine.caller_speaking

    on_a_call(scenario)

"""An agent in odd moments: whatever happens, it listens again, answers once, and lets go in the end."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import AsyncIterator
from typing import ClassVar
from uuid import uuid4

import pytest

from dialog.agent.agent import Agent
from dialog.agent.schematool import schema_tool
from dialog.agent.settings import AgentSettings
from dialog.agent.tools import tool
from dialog.agent.turns.settings import Silence, TurnSettings
from dialog.calls.events import CallEnded, CallerSaid, ErrorRaised, ReplyDropped
from dialog.errors import ConfigurationError, MissingExtra, StateError, UnsupportedFormat, UserCodeError
from dialog.llm.llm import LLM, Entry, Finish, TextDelta, ToolCall
from dialog.message import MULAW_8K, AudioFormat, Message
from dialog.participant import Participant
from dialog.stt.stt import STT
from dialog.testing.doubles import HummingTTS, ToldSTT
from dialog.testing.virtual import run_virtual
from dialog.tts.tts import TTS, TTSCapabilities
from dialog.voip.memory import MemoryLine, memory_call
from dialog.voip.text import TextVoIP
from dialog.voip.voip import VoIP


class Echo(Agent):
    async def inference(self, message: Message[str]) -> AsyncIterator[str]:
        yield f"You said: {message.data}"


class Talk:
    """A call with an agent whose ears and voice the test holds."""

    def __init__(self, clock, kind: type[Agent] = Echo, *, stt=None, tts=None, join=True, **options) -> None:
        self.clock = clock
        self.stt = stt or ToldSTT()
        self.tts = tts or HummingTTS()
        self.errors: list[str] = []

        def on_voip(voip: VoIP) -> None:
            self.agent = kind(voip=voip, stt=self.stt, tts=self.tts, **options)
            self.agent.on(Participant.ERROR, lambda failure: self.errors.append(str(failure.error)))
            self.agent.activate()

        self.call, self.line = memory_call(on_voip, clock=clock, join=join)

    def events(self, kind):
        return [event for event in self.agent.events if isinstance(event, kind)]

    async def listens(self, within_s: float = 30.0) -> None:
        """Wait until the agent listens to the caller."""
        async with asyncio.timeout(within_s):
            while not self.agent._conversation.engine._taking.listening:
                await self.clock.sleep(0.05)

    def spoken(self) -> list[tuple[str, str]]:
        return [(item.role, item.text) for item in self.agent.history.items() if isinstance(item, Entry)]

    def heard_ms(self, part: int = 0) -> float:
        return MULAW_8K.ms(self.line.heard_audio.count(part + 1))

    async def over(self) -> None:
        self.line.hang_up()
        await self.call.wait_closed()
        await self.line.wait_closed()


def on_a_call(scenario, kind=Echo, **options):
    """Run ``scenario(talk)`` on a live call and end it."""

    async def run(clock):
        talk = Talk(clock, kind, **options)
        await scenario(talk)
        await talk.over()
        if talk.events(CallEnded):
            assert isinstance(talk.agent.events[-1], CallEnded), "the last event of every call"
        assert talk.agent._conversation is None
        return talk

    return run_virtual(run)


# Providers that come back, or that somebody else has.


def test_a_voice_that_comes_back_while_it_still_speaks_stays():
    async def scenario(talk):
        first, second = talk.tts, HummingTTS()
        talk.stt.heard("one two three")
        await talk.clock.sleep(0.5)
        talk.agent.set_tts(second)
        talk.agent.set_tts(first)
        await talk.listens()
        talk.stt.heard("four")
        await talk.listens()
        assert talk.spoken()[-1] == ("assistant", "You said: four")
        assert second.disposed
        assert not first.disposed
        first.fail(ConfigurationError("broken"))
        assert talk.errors == ["broken"], "told once"

    on_a_call(scenario)


@pytest.mark.parametrize("after_s", [0.0, 0.1])
def test_ears_that_come_back_before_they_have_left_stay(after_s):
    async def scenario(talk):
        first, second = talk.stt, ToldSTT()
        first.speech_starts()
        first.hears("one two")
        talk.agent.set_stt(second)
        if after_s:
            first.speech_stops()  # the second one takes over, and the first has last words
            await talk.clock.sleep(after_s)
        talk.agent.set_stt(first)
        first.heard("one two")
        first.speech_stops()
        await talk.listens()
        await talk.clock.sleep(3)
        first.heard("three")
        await talk.listens()
        said = [text for role, text in talk.spoken() if role == "user"]
        assert said == ["one two", "three"]
        assert second.disposed
        assert not first.disposed
        heard = len(first.audio)
        talk.line.say(bytes(800))
        await talk.clock.sleep(0.5)
        assert len(first.audio) > heard

    on_a_call(scenario)


def test_a_provider_that_was_disposed_of_is_refused_and_the_old_one_stays():
    async def scenario(talk):
        stt, tts = ToldSTT(), HummingTTS()
        stt.dispose()
        tts.dispose()
        with pytest.raises(StateError, match="ToldSTT was disposed of"):
            talk.agent.set_stt(stt)
        with pytest.raises(StateError, match="HummingTTS was disposed of"):
            talk.agent.set_tts(tts)
        talk.stt.heard("hello")
        await talk.listens()
        assert talk.spoken()[-1] == ("assistant", "You said: hello")

    on_a_call(scenario)


def test_the_providers_of_a_call_are_no_other_calls():
    async def scenario(talk):
        call, line = memory_call(lambda _: None, clock=talk.clock)
        for given in ({"stt": talk.stt, "tts": HummingTTS()}, {"stt": ToldSTT(), "tts": talk.tts}):
            other = Echo(voip=call.voip, **given)
            with pytest.raises(StateError, match="works for another call already"):
                other.activate()
            other.dispose()
        line.hang_up()
        await call.wait_closed()
        talk.stt.heard("hello")
        await talk.listens()
        assert talk.spoken()[-1] == ("assistant", "You said: hello")

    talk = on_a_call(scenario)
    with pytest.raises(UserCodeError, match="was disposed of"):
        on_a_call(scenario, tts=talk.tts)


# Hooks.


class Patient(Agent):
    """Its hooks have to ask somebody first."""

    async def inference(self, message: Message[str]) -> AsyncIterator[str]:
        yield "fine"

    async def on_idle(self, count: int) -> None:
        await self.voip.clock.sleep(0.5)
        if count == 2:
            raise ValueError("nobody knows")
        self.dispatch_message("Still there?")


def test_a_hook_may_be_a_coroutine_and_costs_nothing_else_when_it_raises():
    async def scenario(talk):
        await talk.clock.sleep(6)
        assert talk.spoken() == [("assistant", "Still there?")]
        await talk.clock.sleep(4)
        assert talk.errors == ["on_idle() raised ValueError('nobody knows')"]
        talk.stt.heard("hello")
        await talk.listens()
        assert talk.spoken()[-1] == ("assistant", "fine")

    idle = AgentSettings(turns=TurnSettings(silence=Silence(idle_s=4.0, idle_count=3)))
    on_a_call(scenario, Patient, settings=idle)


@pytest.mark.parametrize("name", ["on_stt_ready", "state", "restore"])
def test_a_hook_that_nobody_waits_for_is_no_coroutine(name):
    async def hook(self, *given) -> None:
        raise AssertionError

    with pytest.raises(ConfigurationError, match=rf"Hasty\.{name} must be a plain def"):
        type("Hasty", (Echo,), {name: hook, "__qualname__": "Hasty"})


# A turn that never ends.


class Waiting(Agent):
    """Its inference waits for something that may be cancelled."""

    async def inference(self, message: Message[str]) -> AsyncIterator[str]:
        if message.data == "wait":
            await self.job
        elif message.data == "cancel yourself":
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            await asyncio.sleep(1)
        elif message.data == "timeout":
            raise TimeoutError("the database took too long")
        yield "fine"


def test_an_inference_that_waits_for_something_cancelled_has_failed_and_the_agent_listens_again():
    async def scenario(talk):
        talk.agent.job = asyncio.ensure_future(asyncio.sleep(60))
        talk.stt.heard("wait")
        await talk.clock.sleep(1)
        talk.agent.job.cancel()
        await talk.listens()
        assert talk.spoken()[-1] == ("assistant", AgentSettings().apology)
        assert "cancelled" in talk.errors[0]

    on_a_call(scenario, Waiting)


def test_an_inference_that_cancels_itself_leaves_the_agent_listening():
    async def scenario(talk):
        talk.stt.heard("cancel yourself")
        await talk.listens()
        talk.stt.heard("hello")
        await talk.listens()
        assert talk.spoken()[-1] == ("assistant", "fine")

    on_a_call(scenario, Waiting)


def test_a_timeout_of_the_users_own_is_not_taken_for_the_agents():
    async def scenario(talk):
        talk.stt.heard("timeout")
        await talk.listens()
        assert "the database took too long" in talk.errors[0]

    on_a_call(scenario, Waiting)


class Tidy(Agent):
    """Says something when it is given up for its silence."""

    async def inference(self, message: Message[str]) -> AsyncIterator[str]:
        if message.data == "slow":
            try:
                await asyncio.sleep(60)
            finally:
                await self.dispatch_message("That took too long.")
        yield "fine"


def test_what_an_inference_says_while_it_times_out_is_heard():
    async def scenario(talk):
        talk.stt.heard("slow")
        await talk.clock.sleep(21)
        await talk.listens()
        assert talk.spoken()[-1] == ("assistant", "That took too long.")
        talk.stt.heard("hello")
        await talk.listens()
        assert talk.spoken()[-1] == ("assistant", "fine")

    on_a_call(scenario, Tidy)


class NotText(Agent):
    async def inference(self, message: Message[str]):
        match message.data:
            case "yield":
                yield 42
            case "dispatch":
                self.dispatch_message(None)
            case "stream":
                self.dispatch_stream(self.numbers())
            case "list":
                self.dispatch_stream(["a", "list"])
        yield "fine"

    async def numbers(self):
        yield 1


@pytest.mark.parametrize("what", ["yield", "dispatch", "stream", "list"])
def test_what_is_not_text_fails_that_reply_and_nothing_else(what):
    async def scenario(talk):
        talk.stt.heard(what)
        await talk.listens()
        assert talk.errors
        talk.stt.heard("hello")
        await talk.listens()
        assert talk.spoken()[-1] == ("assistant", "fine")
        assert not talk.agent._conversation.engine._turns

    on_a_call(scenario, NotText)


async def stuck():
    yield "One moment, "
    await asyncio.Event().wait()


@pytest.mark.parametrize("allow_interrupt", [True, False])
def test_a_stream_that_hangs_is_given_up(allow_interrupt):
    async def scenario(talk):
        speech = talk.agent.dispatch_stream(stuck(), allow_interrupt=allow_interrupt)
        await talk.clock.sleep(1)
        if not allow_interrupt:
            talk.stt.heard("hello?")
        async with asyncio.timeout(30):
            heard = await speech
        assert heard.text.strip() == "One moment,"
        await talk.listens()
        assert any("stream" in error for error in talk.errors)

    on_a_call(scenario)


class Forgetful(Agent):
    async def inference(self, message: Message[str]) -> None:
        self.dispatch_stream(stuck(), allow_interrupt=False)


def test_a_stream_that_hangs_after_its_inference_has_ended_is_given_up():
    async def scenario(talk):
        talk.stt.heard("go")
        await talk.clock.sleep(5)
        talk.stt.heard("hello?")
        await talk.clock.sleep(45)
        talk.agent.abort()
        await talk.listens(60)

    on_a_call(scenario, Forgetful)


def test_a_stream_that_hangs_ends_when_its_line_is_lost():
    async def scenario(talk):
        speech = talk.agent.dispatch_stream(stuck(), allow_interrupt=False)
        await talk.clock.sleep(1)
        talk.line.drop()
        assert speech.heard.why == "hung_up"
        await talk.clock.sleep(0.1)
        assert not [task for task in asyncio.all_tasks() if "stream of" in task.get_name()]

    on_a_call(scenario)


class Sentences(HummingTTS):
    capabilities: ClassVar[TTSCapabilities] = TTSCapabilities(text="sentences", timings=True, parallel_parts=8)


class TwoParts(Agent):
    async def inference(self, message: Message[str]) -> None:
        self.dispatch_message("One. " * 60)
        self.dispatch_message("Two.")


def test_a_voice_that_answers_at_once_is_given_every_part():
    async def scenario(talk):
        turn = talk.stt.heard("go")
        await talk.listens(60)
        assert talk.tts.texts[turn, 0] == "One. " * 60
        assert talk.tts.texts[turn, 1] == "Two."
        assert talk.spoken()[-1][1].endswith("One. Two.")

    on_a_call(scenario, TwoParts, tts=Sentences(ms_per_char=10))


class Refusing(HummingTTS):
    """A voice whose post raises."""

    broken = True

    def post(self, message: Message[str]) -> None:
        if self.broken:
            raise ValueError("no such voice")
        super().post(message)


def test_a_voice_that_raises_fails_its_part_and_nothing_else():
    async def scenario(talk):
        speech = talk.agent.dispatch_message("Hello.", allow_interrupt=False)
        assert not (await speech).text
        talk.stt.heard("one")
        await talk.listens()
        assert any("no such voice" in error for error in talk.errors)
        talk.tts.broken = False
        talk.stt.heard("two")
        await talk.listens()
        assert talk.spoken()[-1] == ("assistant", "You said: two")

    on_a_call(scenario, tts=Refusing())


class Mute(HummingTTS):
    """A provider that fails ends its parts all the same, without audio."""

    def post(self, message: Message[str]) -> None:
        if message.done:
            self.emit(TTS.MESSAGE, Message(uuid=message.uuid, part=message.part, data=b"", done=True))


def test_what_never_sounded_is_not_remembered_as_heard():
    async def scenario(talk):
        heard = await talk.agent.dispatch_message("Nobody hears this.")
        assert (heard.text, heard.complete, heard.why) == ("", False, "failed")
        assert talk.spoken() == []

    on_a_call(scenario, tts=Mute())


def test_a_reply_that_never_waits_does_not_stop_the_loop():
    class Babbler(Agent):
        async def inference(self, message: Message[str]) -> AsyncIterator[str]:
            while True:
                yield "and then "

    async def scenario(talk):
        talk.stt.heard("hello")
        await talk.clock.sleep(3)
        assert len(talk.agent.tts.texts[max(talk.agent.tts.texts, key=lambda key: key[1])]) < 5000
        talk.agent.abort()
        await talk.listens()
        assert talk.spoken()[-1][1].startswith("and then and then")

    on_a_call(scenario, Babbler)


# Utterances.


def test_words_that_come_to_nothing_do_not_cost_the_reply_that_they_stopped():
    async def scenario(talk):
        talk.stt.heard("a table")
        await talk.clock.sleep(0.1)
        talk.stt.hears("hm")  # before anything was heard: dropped, to be answered with what comes
        assert talk.events(ReplyDropped)
        talk.tts.release()
        await talk.clock.sleep(11)  # and nothing comes
        await talk.listens()
        assert talk.spoken() == [("user", "a table"), ("assistant", "You said: a table")]
        assert talk.heard_ms(1) == len("You said: a table") * 50

    on_a_call(scenario, tts=HummingTTS(hold=True))


def test_utterances_that_share_a_uuid_are_all_answered():
    async def scenario(talk):
        uuid = uuid4()
        for text in ("one", "two", "three"):
            talk.agent.post(Message(uuid=uuid, data=text))
            await talk.listens()
            assert talk.spoken()[-1] == ("assistant", f"You said: {text}")

    on_a_call(scenario)


def test_the_words_that_had_to_go_are_reported():
    async def scenario(talk):
        talk.agent.dispatch_message("A notice that takes its time.", allow_interrupt=False)
        for _ in range(3):
            talk.stt.heard("word " * 500)
        await talk.listens(600)
        assert any("4000" in error for error in talk.errors)

    on_a_call(scenario, tts=HummingTTS(ms_per_char=1))


def test_what_waited_for_an_answer_when_the_call_ended_is_remembered():
    async def scenario(talk):
        talk.agent.dispatch_message("This call is recorded.", allow_interrupt=False)
        await talk.clock.sleep(0.3)
        talk.stt.heard("I only have a minute")

    talk = on_a_call(scenario)
    assert talk.spoken()[-1] == ("user", "I only have a minute")


def test_a_question_is_answered_when_the_line_comes_back():
    async def scenario(talk):
        talk.stt.heard("when do you open")
        talk.line.drop()
        await talk.clock.sleep(0.5)
        talk.stt.heard("are you there")
        await talk.clock.sleep(0.5)
        again = MemoryLine(clock=talk.clock)
        again.join(talk.call)
        talk.line = again
        await talk.listens()
        assert talk.spoken() == [
            ("user", "when do you open are you there"),
            ("assistant", "You said: when do you open are you there"),
        ]
        assert len(again.heard_audio) == MULAW_8K.size(len("You said: when do you open are you there") * 50)

    on_a_call(scenario, Slow)


class Slow(Agent):
    async def inference(self, message: Message[str]) -> AsyncIterator[str]:
        await asyncio.sleep(0.3)
        yield f"You said: {message.data}"


def test_the_voice_of_a_lost_line_does_not_hold_the_next_reply():
    async def scenario(talk):
        talk.stt.speech_starts()
        talk.line.drop()
        await talk.clock.sleep(1)
        again = MemoryLine(clock=talk.clock)
        again.join(talk.call)
        talk.line = again
        before = talk.clock.now()
        await talk.agent.dispatch_message("Here we are.")
        assert talk.clock.now() - before == pytest.approx(0.6, abs=0.2)

    on_a_call(scenario)


# Odd moments to speak.


class LateTool(Agent):
    said = None

    @tool
    async def book(self) -> str:
        """Book."""
        await asyncio.sleep(1)
        speech = self.dispatch_message("Booked!")
        self.said = await speech
        return "booked"


class Once(LLM):
    def __init__(self, *steps) -> None:
        self.steps = list(steps)

    async def stream(self, request):
        for event in self.steps.pop(0):
            yield event

    async def close(self) -> None:
        self.steps = []


def test_a_tool_that_speaks_after_the_call_has_ended_is_told_so_at_once():
    llm = Once([ToolCall(id="c1", name="book", arguments="{}"), Finish("tool_calls")], [TextDelta("x"), Finish("stop")])

    async def scenario(talk):
        talk.stt.heard("book")
        await talk.clock.sleep(0.5)

    talk = on_a_call(scenario, LateTool, llm=llm)
    assert talk.agent.said.why == "hung_up"
    assert not talk.agent.said.text


def test_what_a_cancelled_stream_says_is_not_said():
    async def scenario(talk):
        async def words():
            try:
                yield "A long story. "
                await asyncio.Event().wait()
            finally:
                talk.agent.dispatch_message("I was cancelled.")

        talk.agent.dispatch_stream(words())
        await talk.clock.sleep(0.3)
        talk.agent.abort()
        await talk.clock.sleep(2)
        assert "cancelled" not in " ".join(talk.tts.texts.values())

    on_a_call(scenario)


class HandsOver(Agent):
    async def inference(self, message: Message[str]) -> AsyncIterator[str]:
        self.deactivate()
        self.other = Echo(voip=self.voip, stt=ToldSTT(), tts=HummingTTS(), greeting="This is Ann.")
        self.other.activate()
        yield "not said any more"


def test_an_agent_that_takes_over_inside_anothers_turn_may_speak():
    async def scenario(talk):
        talk.stt.heard("a person please")
        await talk.clock.sleep(3)
        assert talk.heard_ms() == len("This is Ann.") * 50

    talk = on_a_call(scenario, HandsOver)
    assert talk.agent.other.disposed


# Providers in odd moments.


def test_ears_that_are_swapped_twice_in_one_breath_leave_the_last():
    async def scenario(talk):
        first, second = ToldSTT(), ToldSTT()
        talk.line.pump()
        await talk.clock.sleep(0.1)
        talk.stt.speech_starts()
        talk.agent.set_stt(first)
        await talk.clock.sleep(0.1)
        talk.agent.set_stt(second)
        await talk.clock.sleep(0.1)
        talk.stt.heard("I was saying")
        await talk.clock.sleep(1)
        assert talk.stt.disposed
        assert first.disposed
        assert not second.disposed
        assert second.audio
        second.heard("hello")
        await talk.listens()
        assert [text for role, text in talk.spoken() if role == "user"][-1] == "hello"
        assert len(talk.events(CallerSaid)) == 2

    on_a_call(scenario)


def test_a_provider_swapped_for_itself_stays():
    async def scenario(talk):
        talk.agent.set_stt(talk.stt)
        talk.agent.set_tts(talk.tts)
        await talk.clock.sleep(1)
        talk.stt.heard("hello")
        await talk.listens()
        assert talk.spoken() == [("user", "hello"), ("assistant", "You said: hello")]
        assert talk.heard_ms() == len("You said: hello") * 50

    on_a_call(scenario)


class Foreign(ToldSTT):
    formats: ClassVar[tuple[AudioFormat, ...]] = ()


class ForeignVoice(HummingTTS):
    formats: ClassVar[tuple[AudioFormat, ...]] = ()


def test_a_provider_that_does_not_fit_is_refused_and_the_old_one_stays():
    async def scenario(talk):
        with pytest.raises(UnsupportedFormat):
            talk.agent.set_stt(Foreign())
        with pytest.raises(UnsupportedFormat):
            talk.agent.set_tts(ForeignVoice())
        await talk.clock.sleep(1)
        talk.stt.heard("hello")
        await talk.listens()
        assert talk.spoken()[-1] == ("assistant", "You said: hello")
        assert talk.agent.stt is talk.stt
        assert talk.agent.tts is talk.tts

    on_a_call(scenario)


def test_providers_that_were_replaced_before_the_call_are_disposed_of():
    async def run(clock):
        first, second = ToldSTT(), ToldSTT()

        def on_voip(voip: VoIP) -> None:
            agent = Echo(voip=voip, stt=first, tts=HummingTTS())
            agent.set_stt(second)
            assert first.disposed
            agent.dispose()
            third = ToldSTT()
            agent.set_stt(third)
            assert third.disposed

        call, line = memory_call(on_voip, clock=clock)
        line.hang_up()
        await call.wait_closed()
        assert second.disposed

    run_virtual(run)


def test_an_agent_that_cannot_be_activated_may_be_tried_again():
    async def run(clock):
        made = []

        def on_voip(voip: VoIP) -> None:
            agent = Echo(voip=voip, stt=Foreign(), tts=HummingTTS())
            made.append(agent)
            with pytest.raises(UnsupportedFormat):
                agent.activate()
            agent.set_stt(ToldSTT())
            agent.activate()

        call, line = memory_call(on_voip, clock=clock)
        made[0].stt.heard("hello")
        await clock.sleep(2)
        assert line.heard_audio
        line.hang_up()
        await call.wait_closed()

    run_virtual(run)


class OpenedOnce(ToldSTT):
    def open(self, audio_format: AudioFormat) -> None:
        if self.audio_format is not None:
            raise StateError("open() called twice")
        super().open(audio_format)


class VoiceOpenedOnce(HummingTTS):
    opened = False

    def open(self, audio_format: AudioFormat) -> None:
        if self.opened:
            raise StateError("open() called twice")
        self.opened = True


def test_an_agent_that_takes_its_call_again_hears_everything_once():
    async def scenario(talk):
        said = []
        talk.agent.on(Agent.EVENT, lambda event: said.append(event) if isinstance(event, CallerSaid) else None)
        for _ in range(3):
            talk.agent.deactivate()
            talk.stt.heard("nobody listens")
            talk.agent.activate()
        talk.stt.heard("hello")
        await talk.listens()
        assert len(said) == 1
        assert talk.heard_ms() == len("You said: hello") * 50

    on_a_call(scenario, stt=OpenedOnce(), tts=VoiceOpenedOnce())


def test_an_agent_let_go_in_mid_swap_keeps_the_new_ears_only():
    async def scenario(talk):
        fresh = OpenedOnce()
        talk.stt.speech_starts()
        talk.agent.set_stt(fresh)
        talk.agent.deactivate()
        assert talk.stt.disposed
        talk.agent.activate()
        fresh.heard("hello")
        await talk.listens()
        assert talk.spoken() == [("user", "hello"), ("assistant", "You said: hello")]
        assert len(talk.events(CallerSaid)) == 1

    on_a_call(scenario)


def test_an_agent_let_go_while_the_line_is_held_leaves_it_open():
    async def scenario(talk):
        talk.stt.heard("one two three")
        await talk.clock.sleep(0.3)
        talk.stt.speech_starts()
        talk.agent.deactivate()
        talk.agent.activate()
        heard = await talk.agent.dispatch_message("Here I am again.")
        assert heard.complete

    on_a_call(scenario)


# Listeners.


def test_a_listener_that_lets_go_of_the_call_ends_everything_there():
    inferred = []

    class Counting(Agent):
        async def inference(self, message: Message[str]) -> AsyncIterator[str]:
            inferred.append(message.data)
            yield "A long answer to that question."

    async def scenario(talk):
        def leave(event) -> None:
            if isinstance(event, ReplyDropped):
                talk.agent.deactivate()

        talk.agent.on(Agent.EVENT, leave)
        talk.stt.heard("one")
        await talk.clock.sleep(0.1)
        talk.stt.heard("two")
        await talk.clock.sleep(2)
        assert inferred == ["one"]

    on_a_call(scenario, Counting)


def test_a_listener_that_fails_by_a_cancelled_future_harms_nobody():
    async def run(clock):
        heard = []
        participant = Participant()
        future = asyncio.get_running_loop().create_future()
        future.cancel()
        participant.on(STT.MESSAGE, lambda _: future.result())
        participant.on(STT.MESSAGE, heard.append)
        participant.emit(STT.MESSAGE, "hello")
        assert heard == ["hello"]

    run_virtual(run)


def test_a_participant_that_cannot_be_disposed_of_keeps_no_other_alive():
    class Undying(ToldSTT):
        def dispose(self) -> None:
            super().dispose()
            raise ValueError("no")

    async def run(clock):
        made = []

        def on_voip(voip: VoIP) -> None:
            made.extend([ToldSTT(), Undying()])

        call, line = memory_call(on_voip, clock=clock)
        line.hang_up()
        await call.wait_closed()
        assert all(each.disposed for each in made)
        assert call.voip.disposed

    run_virtual(run)


class Deaf:
    """A tap that fails at everything."""

    def caller(self, at_ms: float, data: bytes) -> None:
        raise ValueError("the disk is full")

    agent = caller

    def agent_cleared(self, at_ms: float) -> None:
        raise ValueError("the disk is full")


@pytest.mark.parametrize("caller_first", [True, False])
def test_a_tap_that_raises_hears_no_more_and_the_call_goes_on(caller_first):
    async def scenario(talk):
        talk.call.add_tap(Deaf())
        if caller_first:
            talk.line.send(b"\xff" * 160)
        talk.stt.heard("hello")
        await talk.listens()
        assert talk.heard_ms() == len("You said: hello") * 50
        assert not talk.call._taps
        talk.line.send(b"\xff" * 160)
        assert talk.stt.audio

    on_a_call(scenario)


# The end.


class Stubborn(Agent):
    async def inference(self, message: Message[str]) -> AsyncIterator[str]:
        while not self.released.is_set():
            try:
                await self.released.wait()
            except asyncio.CancelledError:
                continue
        yield "too late"

    released: asyncio.Event


def test_nothing_happens_after_the_end_of_the_call():
    async def run(clock):
        talk = Talk(clock, Stubborn)
        talk.agent.released = asyncio.Event()
        talk.stt.heard("hello")
        await clock.sleep(0.1)
        await talk.over()
        await clock.sleep(5)
        assert isinstance(talk.agent.events[-1], CallEnded)
        talk.agent.released.set()
        await clock.sleep(1)
        assert isinstance(talk.agent.events[-1], CallEnded)

    run_virtual(run)


def test_who_speaks_without_a_call_is_told_why_there_is_none():
    async def run(clock):
        talk = Talk(clock)
        with pytest.raises(StateError, match=r"activate\(\) was called before"):
            talk.agent.activate()
        first, second = talk.agent, Echo(voip=talk.agent.voip, stt=talk.agent.stt, tts=talk.agent.tts)
        with pytest.raises(StateError, match=r"not active: call activate\(\) first"):
            second.dispatch_message("hello")
        first.hand_off(second)
        with pytest.raises(StateError, match="not active: another agent has the call"):
            first.dispatch_message("hello")
        await talk.over()
        with pytest.raises(StateError, match="not active: its call has ended"):
            second.dispatch_message("are you still there?")
        with pytest.raises(StateError, match="after the end of its call"):
            second.activate()

    run_virtual(run)


# In text.


def test_a_text_call_keeps_its_voice_whatever_is_set():
    async def run(clock):
        shown = []
        voip = TextVoIP(lambda _turn, _part, text: shown.append(text), clock=clock)
        agent = Echo(voip=voip, stt=ToldSTT, tts=HummingTTS)
        agent.activate()
        voip.connect()
        stt, tts = OpenedOnce(), HummingTTS()
        agent.set_stt(stt)
        agent.set_tts(tts)
        agent.post(Message(uuid=uuid4(), data="hello"))
        await clock.sleep(1)
        assert "".join(shown) == "You said: hello"
        assert stt.audio_format is None
        voip.close()
        await clock.sleep(2)
        assert agent.disposed
        assert stt.disposed
        assert tts.disposed

    run_virtual(run)


def test_what_a_text_call_cannot_show_fails_and_nothing_else():
    async def run(clock):
        def show(_turn, _part, _text) -> None:
            raise ValueError("no terminal")

        voip = TextVoIP(show, clock=clock)
        errors = []
        agent = Echo(voip=voip, tts=HummingTTS)
        agent.on(Participant.ERROR, lambda failure: errors.append(str(failure.error)))
        agent.activate()
        voip.connect()
        agent.post(Message(uuid=uuid4(), data="hello"))
        await clock.sleep(1)
        assert any("no terminal" in error for error in errors)
        assert agent._conversation.engine._taking.listening
        voip.close()
        await clock.sleep(2)
        assert [event for event in agent.events if isinstance(event, ErrorRaised)]

    run_virtual(run)


def test_an_inference_that_is_no_stream_of_text_fails_that_reply_and_says_how_to_write_it():
    class Plain(Agent):
        def inference(self, message: Message[str]):
            return f"You said: {message.data}"

    async def scenario(talk):
        talk.stt.heard("hello")
        await talk.listens()
        assert talk.errors == [
            "inference returned str, which is no stream of text: write 'async def', and yield what is to be said"
        ]

    on_a_call(scenario, Plain)


def test_an_inference_that_returns_its_text_is_told_to_yield_it():
    class Returning(Agent):
        async def inference(self, message: Message[str]):
            return f"You said: {message.data}"

    async def scenario(talk):
        talk.stt.heard("hello")
        await talk.listens()
        assert talk.errors == ["inference returned a text, which nobody says: yield it instead"]

    on_a_call(scenario, Returning)


def test_a_voice_whose_audio_cannot_be_converted_is_refused_at_once(monkeypatch):
    class HighVoice(HummingTTS):
        # A ratio that no other test has put into the cache of tables.
        formats = (AudioFormat("s16le", 64000),)

    async def run(clock):
        def on_voip(voip: VoIP) -> None:
            with pytest.raises(MissingExtra, match=r"dialog\[audio\]"):
                Echo(voip=voip, stt=ToldSTT(), tts=HighVoice()).activate()

        call, line = memory_call(on_voip, clock=clock)
        line.hang_up()
        await call.wait_closed()

    monkeypatch.setitem(sys.modules, "numpy", None)
    run_virtual(run)


TICKET = schema_tool("ticket", lambda: "A1", description="Opens a ticket.")


def without_a_key() -> STT:
    raise ConfigurationError("the STT needs an api_key")


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"tts": "cartesia"}, "tts is no TTS and makes none, but str: create_tts('cartesia') makes one of that name"),
        ({"stt": HummingTTS}, "stt is no STT and makes none, but HummingTTS"),
        ({"llm": "openai"}, "llm is no LLM, but str: create_llm('openai') makes one of that name"),
        ({"stt": without_a_key}, "the STT needs an api_key"),
        ({"tools": (TICKET, TICKET)}, "two tools of the name 'ticket'"),
    ],
)
def test_an_agent_that_cannot_be_made_says_why_and_leaves_nothing_behind(given, told, caplog):
    async def run(clock):
        voice = HummingTTS()

        def on_voip(voip: VoIP) -> None:
            with pytest.raises(ConfigurationError, match=re.escape(told)):
                Echo(voip=voip, **{"stt": ToldSTT(), "tts": voice, **given})

        call, line = memory_call(on_voip, clock=clock)
        line.hang_up()
        await call.wait_closed()

    run_virtual(run)
    assert not [record for record in caplog.records if record.levelname == "ERROR"]

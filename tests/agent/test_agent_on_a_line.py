"""An agent on a phone line in memory, in virtual time: what is answered, heard and remembered."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from typing import ClassVar

import pytest

from dialog.agent.agent import Agent
from dialog.agent.settings import AgentSettings
from dialog.agent.tools import tool
from dialog.agent.turn import Turn
from dialog.agent.turns.settings import BargeIn, TurnSettings
from dialog.calls.events import (
    AgentSaid,
    CallEnded,
    CallerSaid,
    Interrupted,
    ReplyDropped,
    ResumedAfterPause,
    TurnMeasured,
)
from dialog.errors import ProviderError, StateError
from dialog.llm.llm import LLM, Entry, Finish, LLMRequest, TextDelta, ToolCall, ToolResult
from dialog.message import MULAW_8K, Message
from dialog.participant import Participant
from dialog.testing.doubles import HummingTTS, ToldSTT
from dialog.testing.virtual import run_virtual
from dialog.tts.tts import TTSCapabilities
from dialog.voip.memory import memory_call
from dialog.voip.voip import VoIP


class Echo(Agent):
    async def inference(self, message: Message[str]) -> AsyncIterator[str]:
        for word in f"You said: {message.data}".split(" "):
            yield word + " "


class Talk:
    """A call with an agent whose ears and voice the test holds."""

    def __init__(
        self, clock, kind: type[Agent] = Echo, *, stt=None, tts: HummingTTS | None = None, numbers=None, **options
    ) -> None:
        self.clock = clock
        self.stt = stt or ToldSTT()
        self.tts = tts or HummingTTS()
        self.errors: list = []

        def on_voip(voip: VoIP) -> None:
            self.agent = kind(voip=voip, stt=self.stt, tts=self.tts, **options)
            self.agent.on(Participant.ERROR, self.errors.append)
            self.agent.activate()

        self.call, self.line = memory_call(on_voip, clock=clock, join=False, **(numbers or {}))

    def __call__(self, kind):
        """The events of one kind."""
        return [event for event in self.agent.events if isinstance(event, kind)]

    async def quiet(self) -> None:
        """Wait until the agent has said everything."""
        while self.agent._conversation and not self.agent._conversation.engine._taking.listening:
            await self.clock.sleep(0.05)

    def spoken(self) -> list[tuple[str, str, str]]:
        """Entries of history: role, text and whether it was interrupted."""
        return [
            (item.role, item.text, "interrupted" if item.interrupted else "")
            for item in self.agent.history.items()
            if isinstance(item, Entry)
        ]

    async def over(self) -> None:
        self.line.hang_up()
        await self.call.wait_closed()
        await self.line.wait_closed()


def on_a_call(scenario, kind=Echo, **options):
    """Run ``scenario(talk)`` on a live call and end it."""

    async def run(clock):
        talk = Talk(clock, kind, **options)
        talk.line.join(talk.call)
        await scenario(talk)
        await talk.over()
        assert len(talk(CallEnded)) == (1 if talk.agent.events else 0)
        return talk

    return run_virtual(run)


def heard_ms(talk, part: int = 0) -> float:
    return MULAW_8K.ms(talk.line.heard_audio.count(part + 1))


def test_an_utterance_is_answered_and_remembered_as_heard():
    async def scenario(talk):
        talk.stt.heard("hello there")
        await talk.quiet()
        assert talk.spoken() == [("user", "hello there", ""), ("assistant", "You said: hello there", "")]
        assert heard_ms(talk) == len("You said: hello there ") * 50
        assert (talk.agent.metrics.caller_turns, talk.agent.metrics.agent_turns) == (1, 1)

    on_a_call(scenario)


def test_the_greeting_is_ready_before_the_caller_is_connected():
    async def run(clock):
        talk = Talk(clock, greeting="Good evening.")
        await clock.sleep(1)
        assert talk.tts.texts, "synthesised while it rings"
        talk.line.join(talk.call)
        await clock.sleep(0.05)
        assert talk.line.sent[0].at_s - talk.clock.now() <= 0
        await talk.quiet()
        assert talk.spoken() == [("assistant", "Good evening.", "")]
        await talk.over()

    run_virtual(run)


def test_words_over_a_reply_cut_it_and_history_keeps_what_was_heard():
    async def scenario(talk):
        talk.stt.heard("tell me all of it please")
        await talk.clock.sleep(0.62)  # "You said:" is 450 ms, "tell" ends at 700
        talk.stt.speech_starts()
        await talk.clock.sleep(0.01)
        silent_from = len(talk.line.heard_audio)
        talk.stt.hears("stop")
        talk.stt.heard("stop it")
        await talk.quiet()
        assert talk.spoken()[:2] == [
            ("user", "tell me all of it please", ""),
            ("assistant", "You said: tell", "interrupted"),
        ]
        assert talk.spoken()[2:] == [("user", "stop it", ""), ("assistant", "You said: stop it", "")]
        assert silent_from / 8 == pytest.approx(620, abs=15), "the line fell silent at the caller's voice"
        assert len(talk(Interrupted)) == 1
        assert talk.tts.aborted

    on_a_call(scenario)


def test_a_cough_pauses_and_the_reply_goes_on_without_losing_a_byte():
    async def scenario(talk):
        talk.stt.heard("tell me more")
        await talk.clock.sleep(0.5)
        talk.stt.speech_starts()
        await talk.clock.sleep(0.2)
        paused = len(talk.line.heard_audio)
        talk.stt.speech_stops()
        await talk.clock.sleep(0.3)
        assert len(talk.line.heard_audio) == paused
        await talk.quiet()
        assert heard_ms(talk) == len("You said: tell me more ") * 50
        assert talk.spoken()[-1] == ("assistant", "You said: tell me more", "")
        assert len(talk(ResumedAfterPause)) == 1
        assert not talk(Interrupted)

    on_a_call(scenario)


def test_an_utterance_before_anything_was_heard_is_answered_together_with_the_one_before():
    async def scenario(talk):
        talk.stt.heard("a table")
        talk.tts.hold = True
        talk.stt.heard("for four")
        talk.tts.release()
        await talk.quiet()
        assert talk.spoken() == [("user", "a table for four", ""), ("assistant", "You said: a table for four", "")]
        assert len(talk(ReplyDropped)) == 1

    on_a_call(scenario, tts=HummingTTS(hold=True))


class Notice(Agent):
    async def inference(self, message: Message[str]) -> AsyncIterator[str]:
        if message.data == "legal":
            self.heard = await self.dispatch_message("This call is recorded.", allow_interrupt=False)
        yield f"Now about {message.data}."


def test_a_notice_is_heard_out_and_the_caller_answered_after_it():
    async def scenario(talk):
        talk.stt.heard("legal")
        await talk.clock.sleep(0.5)
        talk.stt.speech_starts()
        talk.agent.abort()
        talk.stt.heard("hello?")
        await talk.quiet()
        assert heard_ms(talk) >= len("This call is recorded.") * 50
        assert talk.spoken() == [
            ("user", "legal", ""),
            ("assistant", "This call is recorded.", ""),
            ("user", "hello?", ""),
            ("assistant", "Now about hello?.", ""),
        ]

    on_a_call(scenario, Notice)


def test_await_of_a_dispatch_tells_what_was_heard():
    async def scenario(talk):
        talk.stt.heard("legal")
        await talk.quiet()
        assert str(talk.agent.heard) == "This call is recorded."
        assert talk.agent.heard.complete
        assert talk.agent.heard.why == "played"

    on_a_call(scenario, Notice)


def test_what_the_agent_says_by_itself_waits_for_the_reply_in_progress():
    async def scenario(talk):
        talk.stt.heard("hi")
        await talk.clock.sleep(0.1)
        speech = talk.agent.dispatch_message("By the way.")
        await talk.quiet()
        assert (await speech).complete
        assert talk.spoken() == [
            ("user", "hi", ""),
            ("assistant", "You said: hi", ""),
            ("assistant", "By the way.", ""),
        ]

    on_a_call(scenario)


class Streamer(Agent):
    def inference(self, message):
        return self.answer(message)

    async def answer(self, message: Message[str]) -> None:
        """A coroutine that dispatches by itself."""
        self.dispatch_message("First.")
        await self.dispatch_stream(self.words())
        self.dispatch_message("Last.")

    async def words(self):
        yield "In the "
        await asyncio.sleep(0.1)
        yield "middle."


def test_a_coroutine_may_dispatch_by_itself_in_program_order():
    async def scenario(talk):
        turn = talk.stt.heard("go")
        await talk.quiet()
        assert [talk.tts.texts[turn, part] for part in range(3)] == ["First.", "In the middle.", "Last."]
        audio = talk.line.heard_audio
        assert audio.index(1) < audio.index(2) < audio.index(3)
        assert audio == bytes(sorted(audio)), "one after the other"

    on_a_call(scenario, Streamer)


class Broken(Agent):
    async def inference(self, message: Message[str]) -> AsyncIterator[str]:
        match message.data:
            case "raise":
                raise ValueError("boom")
            case "hang":
                await asyncio.Event().wait()
            case "late":
                try:
                    await asyncio.Event().wait()
                except asyncio.CancelledError:
                    self.dispatch_message("I was cancelled")
                    yield "and speak on"
            case "stubborn":
                while not self.released.is_set():
                    try:
                        await self.released.wait()
                    except asyncio.CancelledError:
                        continue
            case "half":
                yield "The first half and "
                raise ValueError("boom")
            case "fine":
                yield "fine"
        if message.data == "never":
            yield ""

    released: asyncio.Event


def test_inference_that_raises_is_apologised_for_and_the_call_goes_on():
    async def scenario(talk):
        talk.stt.heard("raise")
        await talk.quiet()
        assert talk.spoken()[-1][1] == AgentSettings().apology
        assert "boom" in str(talk.errors[0].error)
        talk.stt.heard("fine")
        await talk.quiet()
        assert talk.spoken()[-1] == ("assistant", "fine", "")

    on_a_call(scenario, Broken)


def test_inference_that_raises_in_mid_reply_keeps_what_was_said():
    async def scenario(talk):
        talk.stt.heard("half")
        await talk.quiet()
        assert talk.spoken() == [("user", "half", ""), ("assistant", "The first half and", "")]

    on_a_call(scenario, Broken)


def test_inference_that_hangs_is_given_up_with_an_apology():
    async def scenario(talk):
        talk.stt.heard("hang")
        await talk.clock.sleep(20.5)
        await talk.quiet()
        assert talk.spoken()[-1][1] == AgentSettings().apology

    on_a_call(scenario, Broken)


def test_inference_that_says_nothing_leaves_the_agent_listening():
    async def scenario(talk):
        talk.stt.heard("never")
        await talk.quiet()
        assert talk.line.heard_audio == b""
        talk.stt.heard("fine")
        await talk.quiet()
        assert talk.spoken()[-1] == ("assistant", "fine", "")

    on_a_call(scenario, Broken)


def test_a_cancelled_inference_says_nothing_more():
    async def scenario(talk):
        talk.stt.heard("late")
        await talk.clock.sleep(0.1)
        talk.stt.heard("fine")
        await talk.quiet()
        texts = " ".join(talk.tts.texts.values())
        assert "cancelled" not in texts
        assert "speak on" not in texts

    on_a_call(scenario, Broken)


def test_an_inference_that_will_not_end_is_abandoned_and_reported():
    async def scenario(talk):
        talk.agent.released = asyncio.Event()
        talk.stt.heard("stubborn")
        await talk.clock.sleep(0.1)
        talk.stt.heard("fine")
        await talk.clock.sleep(1.5)
        assert any("goes on" in str(failure.error) for failure in talk.errors)
        talk.agent.released.set()
        await talk.quiet()

    on_a_call(scenario, Broken)


class Scripted(LLM):
    """Answers with the scripted steps, one a request."""

    def __init__(self, *steps) -> None:
        self.steps = list(steps)
        self.requests: list[LLMRequest] = []
        self.closed = False

    async def stream(self, request: LLMRequest):
        self.requests.append(request)
        for event in self.steps.pop(0):
            if isinstance(event, float):
                await asyncio.sleep(event)
            else:
                yield event

    async def close(self) -> None:
        self.closed = True


def call(name: str, arguments: str = "{}", call_id: str = "c1") -> ToolCall:
    return ToolCall(id=call_id, name=name, arguments=arguments)


class Restaurant(Agent):
    booked = 0

    @tool
    async def book_table(self, people: int) -> str:
        """Book a table."""
        await asyncio.sleep(1.0)
        Restaurant.booked += 1
        return f"booked for {people}"

    @tool
    async def opening_hours(self) -> str:
        """When we open."""
        await asyncio.sleep(1.0)
        return "ten to six"

    @tool
    async def broken(self) -> str:
        """Fails."""
        raise ValueError("no such table")


def test_tools_of_one_step_run_together_and_their_results_reach_the_model():
    llm = Scripted(
        [
            TextDelta("Let me see. "),
            call("book_table", '{"people": 4}'),
            call("opening_hours", call_id="c2"),
            Finish("tool_calls"),
        ],
        [TextDelta("Done."), Finish("stop")],
    )

    async def scenario(talk):
        started = talk.clock.now()
        talk.stt.heard("book")
        await talk.quiet()
        results = [item for item in llm.requests[1].items if isinstance(item, ToolResult)]
        assert {result.content for result in results} == {"booked for 4", "ten to six"}
        assert talk.clock.now() - started < 2.2, "at the same time, while the preamble sounds"
        assert heard_ms(talk, 0) == len("Let me see. ") * 50
        assert heard_ms(talk, 1) == len("Done.") * 50

    talk = on_a_call(scenario, Restaurant, llm=llm)
    assert llm.closed
    assert talk.spoken() == [("user", "book", ""), ("assistant", "Let me see.", ""), ("assistant", "Done.", "")]


def test_a_tool_that_raises_becomes_a_result_that_the_model_sees():
    llm = Scripted([call("broken"), Finish("tool_calls")], [TextDelta("Sorry."), Finish("stop")])

    async def scenario(talk):
        talk.stt.heard("book")
        await talk.quiet()
        [result] = [item for item in llm.requests[1].items if isinstance(item, ToolResult)]
        assert result.state == "failed"
        assert talk.spoken()[-1] == ("assistant", "Sorry.", "")

    on_a_call(scenario, Restaurant, llm=llm)


def test_a_tool_that_has_started_stays_in_history_when_its_reply_is_dropped():
    Restaurant.booked = 0
    llm = Scripted(
        [call("book_table", '{"people": 4}'), Finish("tool_calls")],
        [TextDelta("Booked already."), Finish("stop")],
    )

    async def scenario(talk):
        talk.stt.heard("a table")
        await talk.clock.sleep(0.5)
        talk.stt.heard("for four")
        await talk.quiet()
        assert Restaurant.booked == 1, "not twice"
        items = llm.requests[1].items
        assert [type(item).__name__ for item in items] == ["Entry", "ToolCall", "ToolResult", "Entry"]
        assert items[0].text == "a table"
        assert "booked for 4" in items[2].content
        assert items[3].text == "for four", "its beginning stands before the call already"

    on_a_call(scenario, Restaurant, llm=llm)


def test_a_model_that_fails_is_apologised_for():
    class Failing(Scripted):
        async def stream(self, request):
            raise ProviderError("openai", "503", retryable=True)
            yield

    async def scenario(talk):
        talk.stt.heard("hello")
        await talk.quiet()
        assert talk.spoken()[-1][1] == AgentSettings().apology
        assert talk.errors[0].error.provider == "openai"

    on_a_call(scenario, Agent, llm=Failing())


def test_a_model_that_wants_tools_for_ever_has_to_answer_in_the_last_step():
    steps = [[call("opening_hours", call_id=f"c{n}"), Finish("tool_calls")] for n in range(2)]
    llm = Scripted(*steps, [TextDelta("Enough."), Finish("stop")])

    async def scenario(talk):
        talk.stt.heard("hello")
        await talk.quiet()
        assert [bool(request.tools) for request in llm.requests] == [True, True, False]
        assert talk.spoken()[-1] == ("assistant", "Enough.", "")

    on_a_call(scenario, Restaurant, llm=llm, settings=AgentSettings(max_steps=3))


def test_a_long_reply_is_given_to_the_voice_only_so_far_ahead():
    async def scenario(talk):
        turn = talk.stt.heard("go")
        await talk.clock.sleep(0.1)
        assert len(talk.tts.texts[turn, 0]) * 50 <= 12_000, "ten seconds and the rest of a sentence"
        await talk.quiet()
        assert len(talk.tts.texts[turn, 0]) == len(Lecture.text)
        assert heard_ms(talk) == len(Lecture.text) * 50

    class Lecture(Agent):
        text = "One sentence of the lecture. " * 40

        async def inference(self, message):
            for index in range(0, len(self.text), 29):
                yield self.text[index : index + 29]

    on_a_call(scenario, Lecture)


class StuckTTS(HummingTTS):
    def dispose(self) -> None:
        if not self.disposed:
            super().dispose()
            raise ValueError("stuck")


def test_a_voice_that_cannot_be_disposed_of_costs_neither_the_end_nor_the_report():
    async def run(clock):
        talk = Talk(clock, tts=StuckTTS())
        talk.line.join(talk.call)
        reports = []
        talk.agent.on(Agent.REPORT, reports.append)
        talk.line.hang_up()
        await talk.call.wait_closed()
        assert len(talk(CallEnded)) == 1
        assert reports[0].end_reason == "caller_hangup"
        assert "stuck" in str(talk.errors[0].error)
        assert talk.agent.disposed

    run_virtual(run)


class Mistaken(Agent):
    async def inference(self, message):
        return self.words()

    async def words(self):
        yield "never said"


def test_an_async_inference_that_returns_a_stream_is_told_how_to_hand_it_over():
    async def scenario(talk):
        talk.stt.heard("hello")
        await talk.quiet()
        assert "yield from it" in str(talk.errors[0].error)
        assert talk.spoken()[-1][1] == AgentSettings().apology

    on_a_call(scenario, Mistaken)


class Endless(Agent):
    yielded = 0

    async def inference(self, message):
        while True:
            self.yielded += 1
            yield "And another sentence follows. "


def test_an_endless_reply_is_read_no_faster_than_it_can_be_said():
    async def scenario(talk):
        talk.stt.heard("go")
        await talk.clock.sleep(60)
        assert talk.agent.yielded < 3000
        assert heard_ms(talk) == pytest.approx(60_000, abs=500), "and never taken for a hanging one"
        talk.stt.heard("enough")
        await talk.clock.sleep(1)

    on_a_call(scenario, Endless)


class Patient(Agent):
    async def inference(self, message):
        await self.dispatch_message("Word " * 120, allow_interrupt=False)
        yield "Done."


def test_waiting_for_a_long_notice_is_not_taken_for_hanging():
    async def scenario(talk):
        talk.stt.heard("go")
        await talk.quiet()
        assert talk.spoken()[-1][1].endswith("Word Done.")
        assert not talk.errors

    on_a_call(scenario, Patient)


def test_a_caller_who_hangs_up_in_mid_reply_leaves_what_was_heard():
    async def scenario(talk):
        talk.stt.heard("tell me all of it please")
        await talk.clock.sleep(0.72)

    talk = on_a_call(scenario)
    assert talk.agent.disposed
    assert talk.stt.disposed
    assert talk.tts.disposed
    assert talk.spoken()[-1][:2] == ("assistant", "You said: tell")


def test_the_last_words_of_a_caller_who_hangs_up_are_kept():
    async def run(clock):
        talk = Talk(clock)
        talk.line.join(talk.call)
        reports = []
        talk.agent.on(Agent.REPORT, reports.append)
        talk.stt.hears("never mind")
        talk.line.hang_up()
        await clock.sleep(0.2)
        assert talk.stt.finalized >= 1
        talk.stt.heard("never mind bye")
        await talk.call.wait_closed()
        assert reports[0].turns[-1].caller == "never mind bye"
        assert reports[0].end_reason == "caller_hangup"
        assert talk.spoken()[-1] == ("user", "never mind bye", "")

    run_virtual(run)


def test_the_turn_is_measured_stage_by_stage():
    async def scenario(talk):
        talk.stt.heard("hello")
        await talk.quiet()
        timeline = talk(TurnMeasured)[-1].timeline
        assert timeline.final <= timeline.first_token <= timeline.first_text <= timeline.first_audio
        assert timeline.first_audio <= timeline.first_frame < timeline.played

    on_a_call(scenario)


def test_a_voice_swapped_in_mid_call_speaks_the_next_part_and_the_old_finishes_its_own():
    async def scenario(talk):
        talk.stt.heard("tell me some more")
        await talk.clock.sleep(0.2)
        fresh = HummingTTS()
        old = talk.tts
        talk.agent.set_tts(fresh)
        assert not old.disposed
        await talk.quiet()
        assert old.disposed
        turn = talk.stt.heard("again")
        await talk.quiet()
        assert fresh.texts[turn, 0] == "You said: again "
        assert heard_ms(talk) == (len("You said: tell me some more ") + len("You said: again ")) * 50

    on_a_call(scenario)


class Hoarse(HummingTTS):
    """Tells that something is wrong while it is given text."""

    def post(self, message: Message[str]) -> None:
        if message.data:
            self.fail(ProviderError("humming", "is hoarse", retryable=True), retryable=True)
        super().post(message)


def test_a_voice_that_is_swapped_while_it_is_given_its_first_text_still_finishes_its_part():
    async def scenario(talk):
        old, fresh = Hoarse(), HummingTTS()
        talk.agent.set_tts(old)
        talk.agent.on(Agent.ERROR, lambda _: talk.agent.set_tts(fresh))
        talk.stt.heard("more")
        await talk.quiet()
        assert old.disposed
        assert fresh.texts == {}
        assert heard_ms(talk) == len("You said: more ") * 50

    on_a_call(scenario)


class Thoughtful(Agent):
    """Thinks before it speaks, token by token."""

    async def inference(self, message: Message[str]) -> AsyncIterator[str]:
        await self.voip.clock.sleep(0.5)
        for token in ("Of ", "course. ", "For ", "two."):
            yield token


class Sentences(HummingTTS):
    """Takes whole sentences, and keeps what it was given."""

    capabilities: ClassVar[TTSCapabilities] = TTSCapabilities(timings=True, parallel_parts=8)

    def post(self, message: Message[str]) -> None:
        self.given = [*getattr(self, "given", ()), message.data]
        super().post(message)


def test_a_voice_set_while_the_model_thinks_is_given_the_text_as_it_likes_it():
    async def scenario(talk):
        talk.stt.heard("a table")
        await talk.clock.sleep(0.2)
        fresh = Sentences()
        talk.agent.set_tts(fresh)
        await talk.quiet()
        assert [text.strip() for text in fresh.given if text.strip()] == ["Of course.", "For two."]

    on_a_call(scenario, Thoughtful)


def test_what_the_caller_said_is_told_when_the_answer_has_been_begun_and_before_all_that_follows():
    order = []

    class Asked(Agent):
        async def inference(self, message: Message[str]) -> AsyncIterator[str]:
            order.append("asked")
            yield f"You said: {message.data}"

    async def scenario(talk):
        talk.agent.on(Agent.EVENT, lambda event: order.append(type(event).__name__))
        talk.stt.heard("a table")
        await talk.quiet()
        assert order[:2] == ["asked", "CallerSaid"]
        talk.stt.heard("for two")
        assert talk(CallerSaid)[-1].text == "for two", "who looks at the events finds it at once"
        assert talk.agent.metrics.caller_turns == 2
        await talk.quiet()
        assert order.count("CallerSaid") == 2
        events = talk.agent.events
        assert [event.seq for event in events] == list(range(len(events)))
        assert [event.at_s for event in events] == sorted(event.at_s for event in events)
        said, _ = talk(CallerSaid)
        assert said.at_s < talk(AgentSaid)[0].at_s

    on_a_call(scenario, Asked)


def test_what_the_caller_said_last_is_told_before_the_call_ends():
    async def scenario(talk):
        talk.stt.heard("bye")
        await talk.over()
        kinds = [type(event).__name__ for event in talk.agent.events]
        assert kinds.index("CallerSaid") < kinds.index("CallEnded") == len(kinds) - 1

    on_a_call(scenario)


def test_ears_swapped_in_mid_call_lose_no_utterance():
    async def scenario(talk):
        talk.line.pump()
        await talk.clock.sleep(0.2)
        fresh = ToldSTT()
        talk.stt.speech_starts()
        talk.stt.hears("I was")
        talk.agent.set_stt(fresh)
        await talk.clock.sleep(0.5)
        assert not fresh.audio, "not while the caller speaks"
        talk.stt.heard("I was saying")
        await talk.clock.sleep(1.0)
        assert talk.stt.disposed
        assert fresh.audio
        await talk.quiet()
        fresh.heard("hello")
        await talk.quiet()
        assert [text for role, text, _ in talk.spoken() if role == "user"] == ["I was saying", "hello"]

    on_a_call(scenario)


def test_a_dead_stt_is_explained_to_the_caller_and_ends_the_call():
    async def scenario(talk):
        talk.stt.fail(ProviderError("deepgram", "gave up", retryable=False), fatal=True)
        await talk.call.wait_closed()
        assert talk.call.voip.end.reason == "agent_hangup"
        assert heard_ms(talk) == len(AgentSettings().failure) * 50

    on_a_call(scenario)


def test_a_person_takes_the_call_that_the_agent_can_no_longer_hear():
    async def scenario(talk):
        talk.stt.fail(ProviderError("deepgram", "gave up", retryable=False), fatal=True)
        await talk.call.wait_closed()
        assert talk.call.voip.end.reason == "transferred"
        assert heard_ms(talk) == len(AgentSettings().failure) * 50, "told so first"

    on_a_call(scenario, settings=AgentSettings(failure_transfer="+15550100"))


def test_an_agent_without_a_call_refuses_to_speak():
    async def run(clock):
        talk = Talk(clock)
        talk.agent.deactivate()
        with pytest.raises(StateError, match="activate"):
            talk.agent.dispatch_message("hello")
        talk.agent.activate()
        with pytest.raises(StateError):
            talk.agent.activate()
        talk.call.end("test")
        await talk.call.wait_closed()

    run_virtual(run)


def test_empty_utterances_are_ignored():
    async def scenario(talk):
        talk.stt.heard("  ")
        await talk.clock.sleep(0.1)
        assert talk.spoken() == []

    on_a_call(scenario)


def test_with_interruption_disabled_nothing_is_cut():
    async def scenario(talk):
        talk.stt.heard("one two")
        await talk.clock.sleep(0.3)
        talk.stt.speech_starts()
        talk.stt.heard("wait")
        await talk.quiet()
        assert talk.spoken() == [
            ("user", "one two", ""),
            ("assistant", "You said: one two", ""),
            ("user", "wait", ""),
            ("assistant", "You said: wait", ""),
        ]

    on_a_call(scenario, settings=AgentSettings(turns=TurnSettings(barge_in=BargeIn(mode="disabled"))))


def test_a_turn_that_is_over_is_gone_without_the_garbage_collector():
    """What only the collector can free stays for minutes, and then it stops every call of the process at once."""

    async def scenario(talk):
        gc.collect()
        before = {id(each) for each in gc.get_objects() if isinstance(each, Turn)}  # of tests that failed
        gc.disable()
        try:
            for number in range(5):
                talk.stt.heard(f"question {number}")
                await talk.quiet()
            talk.stt.heard("one more")
            await talk.clock.sleep(0.3)
            talk.stt.heard("no, wait, another")
            await talk.quiet()
            await talk.clock.sleep(60)  # cancelled timers wait for their time, each with the context of a turn
            turns = [each for each in gc.get_objects() if isinstance(each, Turn) and id(each) not in before]
            assert len(turns) <= 1
        finally:
            gc.enable()

    on_a_call(scenario)

"""The media stream of a call breaks while the agent speaks, and is back: nobody is left in silence."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, ClassVar
from uuid import uuid4

import pytest

from dialog.agent.agent import Agent
from dialog.agent.resume import NOTE, Rest, Unheard, rest_of
from dialog.agent.settings import AgentSettings
from dialog.agent.tools import tool
from dialog.agent.turns.settings import Silence, TurnSettings
from dialog.calls.events import AgentSaid, ErrorRaised, IdlePrompted, Interrupted, ToolEnded, ToolStarted, TurnMeasured
from dialog.llm.llm import Entry
from dialog.message import Message
from dialog.s2s.cascade import CascadeS2S
from dialog.testing.doubles import HummingTTS, ToldSTT
from dialog.testing.model import ToolUse
from dialog.testing.scripted import ScriptedLLM
from dialog.testing.virtual import run_virtual
from dialog.tts.tts import TTSCapabilities
from dialog.voip.memory import MemoryCarrier, MemoryLine, memory_call
from dialog.voip.voip import VoIP

HOURS = "We open at nine. We close at six. On Sundays we are closed."


class Desk(Agent):
    @tool
    async def book(self) -> str:
        """Book a table."""
        await asyncio.sleep(0.1)
        return "booked"

    @tool
    def goodbye(self) -> str:
        """End the call."""
        self.hang_up()
        return "say goodbye"

    @tool
    async def press(self) -> str:
        """Press a key."""
        await self.voip.send_digits("1")
        return "pressed"

    @tool
    async def connect(self) -> str:
        """Connect the caller."""
        await self.voip.transfer_to("+15550001", back_within_s=10)
        return "nobody answered"


class Talk:
    """A call whose stream the test breaks."""

    def __init__(self, clock: Any, make: Callable[[VoIP, ToldSTT, HummingTTS], Agent], tts: HummingTTS) -> None:
        self.clock = clock
        self.stt = ToldSTT()
        self.tts = tts
        self.carrier = MemoryCarrier(transfer="failed")

        def on_voip(voip: VoIP) -> None:
            self.agent = make(voip, self.stt, self.tts)
            self.agent.activate()

        self.call, self.line = memory_call(on_voip, clock=clock, carrier=self.carrier)

    def events(self, kind: Any) -> list[Any]:
        return [event for event in self.agent.events if isinstance(event, kind)]

    def said(self) -> list[tuple[str, str]]:
        """What was said, and what was heard of it."""
        return [(event.text, event.heard) for event in self.events(AgentSaid)]

    def history(self) -> list[tuple[str, str]]:
        return [(item.role, item.text) for item in self.agent.history.items() if isinstance(item, Entry)]

    async def asks(self, text: str, *, then_s: float) -> None:
        """The caller says ``text``, and hears so much of what comes of it."""
        self.stt.heard(text)
        await self.clock.sleep(then_s)

    async def breaks(self, for_s: float = 0.5) -> None:
        self.line.drop()
        await self.clock.sleep(for_s)
        self.back()

    def back(self) -> None:
        self.line = MemoryLine(clock=self.clock)
        self.carrier.lines.append(self.line)
        self.line.join(self.call)

    async def quiet(self) -> None:
        async with asyncio.timeout(60):
            while not self.agent._conversation.engine.quiet:
                await self.clock.sleep(0.05)


def on_a_call(
    scenario: Callable[[Talk], Any],
    *script: Any,
    kind: type[Agent] = Desk,
    tts: HummingTTS | None = None,
    speaks: bool = False,
    **options: Any,
) -> Talk:
    """Run ``scenario(talk)``; ``speaks``: one model hears, thinks and speaks."""
    llm = ScriptedLLM(script) if script else None

    def make(voip: VoIP, stt: ToldSTT, voice: HummingTTS) -> Agent:
        if speaks:
            return kind(voip=voip, s2s=CascadeS2S(stt=stt, tts=voice, llm=llm), **options)
        return kind(voip=voip, stt=stt, tts=voice, llm=llm, **options)

    async def run(clock: Any) -> Talk:
        talk = Talk(clock, make, tts or HummingTTS())
        talk.llm = llm
        await scenario(talk)
        assert not talk.events(ErrorRaised)
        assert all(ended.state != "failed" for ended in talk.events(ToolEnded))
        if talk.call.state != "ended":
            talk.carrier.lines[-1].hang_up()
        await talk.call.wait_closed()
        for line in talk.carrier.lines:
            await line.wait_closed()
        assert not (llm and llm.left)
        return talk

    return run_virtual(run)


@pytest.mark.parametrize("speaks", [False, True])
def test_a_reply_goes_on_from_the_start_of_the_sentence_that_was_cut(speaks):
    async def scenario(talk):
        await talk.asks("when do you open", then_s=1.4)
        await talk.breaks()
        await talk.quiet()

    talk = on_a_call(scenario, HOURS, speaks=speaks)
    rest = HOURS.removeprefix("We open at nine. ")
    assert talk.said() == [(HOURS, "We open at nine. We close at"), (rest, rest)]
    assert talk.history() == [
        ("user", "when do you open"),
        ("assistant", "We open at nine. We close at"),
        ("assistant", "six. On Sundays we are closed."),
    ], "once, whatever was heard twice"
    assert not talk.events(Interrupted)
    assert not any(event.timeline.interrupted for event in talk.events(TurnMeasured)), "the caller cut nothing"


def test_what_goes_on_may_break_again_and_again():
    async def scenario(talk):
        await talk.asks("when do you open", then_s=1.4)
        await talk.breaks()
        await talk.clock.sleep(0.4)
        await talk.breaks()  # earlier than the first time
        await talk.clock.sleep(1.2)
        await talk.breaks()
        await talk.quiet()

    talk = on_a_call(scenario, HOURS)
    assert [heard for _, heard in talk.said()][1:] == [
        "We close",
        "We close at six. On Sundays",
        "On Sundays we are closed.",
    ]
    assert " ".join(text for role, text in talk.history() if role == "assistant") == HOURS


@pytest.mark.parametrize("speaks", [False, True])
def test_a_model_that_had_not_finished_is_asked_to_go_on_and_no_tool_is_run_again(speaks):
    async def scenario(talk):
        await talk.asks("book a table", then_s=1.0)
        await talk.breaks()
        await talk.quiet()

    talk = on_a_call(
        scenario,
        [ToolUse("book")],
        ["It is booked for you. ", 5.0, "Anything else?"],
        "Is there anything else?",
        speaks=speaks,
    )
    assert [event.name for event in talk.events(ToolStarted)] == ["book"]
    assert talk.history() == [
        ("user", "book a table"),
        ("assistant", "It is booked for"),
        ("system", NOTE),
        ("assistant", "Is there anything else?"),
    ]


class Teller(Agent):
    async def inference(self, message: Message[str]):
        yield "One. Two. "
        await asyncio.sleep(9)
        yield "Three."


def test_without_a_model_what_is_known_of_a_reply_is_said():
    async def scenario(talk):
        await talk.asks("count", then_s=0.25)
        await talk.breaks()
        await talk.quiet()

    talk = on_a_call(scenario, kind=Teller)
    assert talk.history()[1:] == [("assistant", "One."), ("assistant", "Two.")]


def test_the_greeting_and_a_notice_go_on_each_as_it_was():
    async def scenario(talk):
        await talk.clock.sleep(0.4)
        await talk.breaks()
        await talk.quiet()
        talk.agent.dispatch_message("This call is recorded. You may object.", allow_interrupt=False)
        await talk.clock.sleep(0.5)
        await talk.breaks()
        await talk.clock.sleep(0.2)
        talk.stt.heard("wait")  # a notice is heard out, also its rest
        await talk.quiet()

    talk = on_a_call(scenario, "Yes?", greeting="Good evening. This is Sam.")
    assert talk.history() == [
        ("assistant", "Good"),
        ("assistant", "evening. This is Sam."),
        ("assistant", "This call"),
        ("assistant", "is recorded. You may object."),
        ("user", "wait"),
        ("assistant", "Yes?"),
    ]


class Voices(HummingTTS):
    capabilities: ClassVar[TTSCapabilities] = TTSCapabilities(
        text="tokens", timings=True, parallel_parts=8, voices=True
    )


def test_a_part_goes_on_with_its_own_voice():
    voices: list[str] = []

    class Noting(Voices):
        def post(self, message: Message[str]) -> None:
            if message.data:
                voices.append(message.voice)
            super().post(message)

    async def scenario(talk):
        talk.agent.dispatch_message("Once upon a time.", voice="narrator")
        await talk.clock.sleep(0.4)
        await talk.breaks()
        await talk.quiet()

    on_a_call(scenario, tts=Noting())
    assert set(voices) == {"narrator"}


@pytest.mark.parametrize("speaks", [False, True])
def test_a_caller_who_speaks_first_is_answered_and_the_rest_is_dropped(speaks):
    async def scenario(talk):
        await talk.asks("when do you open", then_s=1.4)
        talk.line.drop()
        await talk.clock.sleep(0.2)
        talk.stt.heard("and on Mondays")  # the recogniser had it still
        await talk.clock.sleep(0.2)
        talk.back()
        await talk.quiet()

    talk = on_a_call(scenario, HOURS, "At ten.", speaks=speaks)
    assert talk.history() == [
        ("user", "when do you open"),
        ("assistant", "We open at nine. We close at"),
        ("user", "and on Mondays"),
        ("assistant", "At ten."),
    ]


def test_a_caller_may_interrupt_what_goes_on_like_anything():
    async def scenario(talk):
        await talk.asks("when do you open", then_s=1.4)
        await talk.breaks()
        await talk.clock.sleep(0.5)
        talk.stt.heard("thank you")
        await talk.quiet()

    talk = on_a_call(scenario, HOURS, "You are welcome.")
    assert talk.said()[1] == ("We close at six. On Sundays we are closed.", "We close at")
    assert talk.history()[1:] == [
        ("assistant", "We open at nine. We close at"),
        ("user", "thank you"),
        ("assistant", "You are welcome."),
    ]


def test_a_transfer_that_failed_does_not_announce_itself_again():
    async def scenario(talk):
        talk.agent.dispatch_message("I am connecting you to the kitchen. One moment please.")
        await talk.clock.sleep(1.0)
        await talk.agent.voip.transfer_to("+15550001", back_within_s=10)
        await talk.quiet()

    talk = on_a_call(scenario)
    assert [heard for _, heard in talk.said()] == ["I am connecting you", AgentSettings().transfer_failed]


def test_a_reply_goes_on_behind_keys_that_were_sent():
    async def scenario(talk):
        talk.agent.dispatch_message("I enter your code. Then we wait.")
        await talk.clock.sleep(0.5)
        await talk.agent.voip.send_digits("42")
        await talk.quiet()

    talk = on_a_call(scenario)
    assert talk.said() == [
        ("I enter your code. Then we wait.", "I enter your"),
        ("I enter your code. Then we wait.", "I enter your code. Then we wait."),
    ]


@pytest.mark.parametrize(("name", "told"), [("press", "pressed"), ("connect", "nobody answered")])
def test_a_tool_that_moves_the_stream_itself_is_told_of_once(name, told):
    async def scenario(talk):
        await talk.asks("please", then_s=0.1)
        await talk.quiet()

    talk = on_a_call(scenario, ["Gladly. ", 0.6, ToolUse(name)], "That is all.", kind=Desk)
    assert [event.name for event in talk.events(ToolStarted)] == [name]
    assert [getattr(item, "content", "") for item in talk.llm.requests[-1].items if hasattr(item, "content")] == [
        f"{told} (finished after the caller spoke again)"
    ]
    assert talk.history()[-1] == ("assistant", "That is all.")


def test_a_goodbye_is_heard_out_before_the_call_ends():
    async def scenario(talk):
        await talk.asks("bye", then_s=1.0)
        await talk.breaks()
        await talk.clock.sleep(5)
        assert talk.call.state == "ended"

    talk = on_a_call(scenario, [ToolUse("goodbye")], "Thank you for calling. Good night.")
    assert talk.call.voip.end.reason == "agent_hangup"
    assert talk.history()[-1] == ("assistant", "Good night.")


def test_a_caller_who_speaks_into_the_outage_of_a_goodbye_keeps_the_call():
    async def scenario(talk):
        await talk.asks("bye", then_s=1.0)
        talk.line.drop()
        talk.stt.heard("one more thing")
        await talk.clock.sleep(0.2)
        talk.back()
        await talk.quiet()
        await talk.clock.sleep(1)
        assert talk.call.state == "live"

    talk = on_a_call(scenario, [ToolUse("goodbye")], "Thank you for calling. Good night.", "Yes?")
    assert talk.history()[-2:] == [("user", "one more thing"), ("assistant", "Yes?")]


def test_what_was_heard_is_in_history_when_the_call_does_not_come_back():
    async def scenario(talk):
        await talk.asks("when do you open", then_s=1.4)
        talk.line.drop()
        await talk.clock.sleep(10)
        assert talk.call.state == "ended"

    talk = on_a_call(scenario, HOURS)
    assert talk.history()[1:] == [("assistant", "We open at nine. We close at")]
    assert [event.timeline.interrupted for event in talk.events(TurnMeasured)] == [False]


def test_what_is_aborted_meanwhile_does_not_go_on():
    async def scenario(talk):
        await talk.asks("when do you open", then_s=1.4)
        talk.line.drop()
        await talk.clock.sleep(0.2)
        talk.agent.abort()
        talk.back()
        await talk.clock.sleep(1)
        assert talk.agent._conversation.engine.quiet

    talk = on_a_call(scenario, HOURS)
    assert len(talk.said()) == 1


def test_silence_counts_from_the_end_of_what_went_on():
    async def scenario(talk):
        await talk.asks("when do you open", then_s=1.4)
        await talk.breaks(4.0)
        await talk.clock.sleep(4.5)
        assert not talk.events(IdlePrompted)
        await talk.clock.sleep(1.5)
        assert talk.events(IdlePrompted)

    settings = AgentSettings(turns=TurnSettings(silence=Silence(idle_s=3.0)), idle_prompts=())
    on_a_call(scenario, HOURS, settings=settings)


@pytest.mark.parametrize(
    ("parts", "text", "repeats"),
    [
        ([Unheard("One two. Three four.", "One")], "One two. Three four.", 3),
        ([Unheard("One two. Three four.", "One two.")], "Three four.", 0),
        ([Unheard("One two. Three four.", "One two. Three")], "Three four.", 5),
        ([Unheard("One two.", "", repeats=3)], "One two.", 3),
        ([Unheard("One two.", "One two"), Unheard("Three.", "")], "One two. Three.", 7),
        ([Unheard("One. ", "One."), Unheard(" Two.", "")], "Two.", 0),
    ],
)
def test_what_is_left_begins_with_the_sentence_that_was_cut(parts, text, repeats):
    turn = uuid4()
    expected = Rest(turn, text, allow_interrupt=True, greeting=False, begun=True, repeats=repeats)
    assert rest_of(turn, parts, greeting=False, begun=True, sentence=True) == expected


def test_nothing_is_left_of_what_was_heard():
    assert rest_of(uuid4(), [Unheard("One. ", "One.")], greeting=False, begun=True) is None

"""What an agent finds that goes on with a call of another process, and what it leaves to the next."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from itertools import pairwise
from typing import Any
from uuid import uuid4

import msgspec
import pytest
from survival import Survivor

from dialog.agent.agent import Agent
from dialog.agent.history import UNKNOWN
from dialog.agent.settings import AgentSettings
from dialog.agent.summaries import HistorySummaries
from dialog.agent.tools import tool, tool_key
from dialog.agent.turns.settings import Silence, TurnSettings
from dialog.calls import events as ev
from dialog.calls.checkpoint import Checkpoint
from dialog.calls.journal import call_events
from dialog.calls.page import make_page
from dialog.calls.report import make_report
from dialog.errors import LimitError, StateError
from dialog.llm.llm import Entry, ToolResult
from dialog.message import MULAW_8K, Clips, Message, SpeechEdge
from dialog.participant import Participant
from dialog.stt.stt import STT
from dialog.testing.doubles import HummingTTS, ToldSTT
from dialog.testing.model import ToolUse
from dialog.testing.scripted import ScriptedLLM
from dialog.testing.virtual import run_virtual
from dialog.voip.link import Consult
from dialog.voip.memory import memory_call
from dialog.voip.text import TextVoIP
from dialog.voip.voip import VoIP


class Echo(Agent):
    async def inference(self, message: Message[str]) -> AsyncIterator[str]:
        yield f"You said: {message.data}"


def survives(scenario: Callable[[Survivor], Any], make: Callable[..., Agent] = Echo, **options: Any) -> Survivor:
    """Run ``scenario(call)`` on a call that outlives its agents."""

    async def run(clock: Any) -> Survivor:
        call = Survivor(clock, lambda voip, stt, tts: make(voip=voip, stt=stt, tts=tts, **options))
        await scenario(call)
        await call.over()
        return call

    return run_virtual(run)


def happened(call: Survivor, kind: Any) -> list[Any]:
    return [event for event in call.journal if isinstance(event, kind)]


def spoken(call: Survivor) -> list[tuple[str, str]]:
    return [(item.role, item.text) for item in call.agent.history.items() if isinstance(item, Entry)]


# -- tools ----------------------------------------------------------------------------------------


class Desk(Agent):
    ran: list[tuple[str, str]]

    def __init__(self, ran: list[tuple[str, str]], **options: Any) -> None:
        super().__init__(**options)
        self.ran = ran

    @tool
    async def book(self) -> str:
        """Book a table."""
        self.ran.append(("book", tool_key()))
        await asyncio.sleep(0.5)
        return "booked"

    @tool(idempotent=True)
    async def charge(self) -> str:
        """Charge a card."""
        self.ran.append(("charge", tool_key()))
        await asyncio.sleep(0.5)
        return "charged"

    @tool(idempotent=True)
    def look(self) -> str:
        """Look something up, in a thread."""
        self.ran.append(("look", tool_key()))
        return "found"


def at_the_desk(
    scenario: Callable[[Survivor, list[tuple[str, str]], list[ScriptedLLM]], Any], *scripts: Any
) -> Survivor:
    ran: list[tuple[str, str]] = []
    models: list[ScriptedLLM] = []
    left = list(scripts)

    def make(**options: Any) -> Agent:
        models.append(ScriptedLLM(left.pop(0)))
        return Desk(ran, llm=models[-1], **options)

    return survives(lambda call: scenario(call, ran, models), make)


def test_of_a_tool_that_had_started_the_model_is_told_that_nobody_knows():
    async def scenario(call: Survivor, ran: Any, models: Any) -> None:
        call.says("book a table")
        await call.clock.sleep(0.2)
        call.life.die()
        await call.quiet()
        assert [name for name, _ in ran] == ["book"]
        (request,) = models[1].requests
        (result,) = [item for item in request.items if isinstance(item, ToolResult)]
        assert (result.content, result.state) == (UNKNOWN, "unknown")
        assert spoken(call) == [("user", "book a table"), ("assistant", "I look whether it is booked.")]
        (resumed,) = happened(call, ev.CallResumed)
        assert (resumed.unanswered, resumed.in_doubt) == (1, ("book",))
        assert [(end.name, end.state) for end in happened(call, ev.ToolEnded)] == [("book", "unknown")]

    at_the_desk(scenario, [ToolUse("book")], ["I look whether it is booked."])


def test_a_tool_that_may_be_run_again_is_with_the_same_key_and_its_result_counts():
    async def scenario(call: Survivor, ran: Any, models: Any) -> None:
        call.says("charge my card")
        await call.clock.sleep(0.2)
        call.life.die()
        await call.quiet()
        (first, key), (second, again) = ran
        assert (first, second) == ("charge", "charge")
        assert key == again != ""
        (request,) = models[1].requests
        (result,) = [item for item in request.items if isinstance(item, ToolResult)]
        assert (result.content, result.state) == ("charged", "done")
        assert [start.key for start in happened(call, ev.ToolStarted)] == [key]
        assert call.fold().turns == ()

    at_the_desk(scenario, [ToolUse("charge")], ["It is charged."])


def test_a_thread_knows_its_key_and_nobody_has_one_outside_a_tool():
    async def scenario(call: Survivor, ran: Any, models: Any) -> None:
        del models
        call.says("look it up")
        await call.quiet()
        assert [name for name, _ in ran] == ["look"]
        assert ran[0][1]
        assert tool_key() == ""

    at_the_desk(scenario, [ToolUse("look"), "found it"])


def test_a_result_that_was_there_is_used():
    async def scenario(call: Survivor, ran: Any, models: Any) -> None:
        call.says("book a table")
        await call.clock.sleep(0.51)
        assert happened(call, ev.ToolEnded)
        call.life.die()
        await call.quiet()
        assert len(ran) == 1
        (request,) = models[1].requests
        assert [item.content for item in request.items if isinstance(item, ToolResult)] == ["booked"]

    at_the_desk(scenario, [ToolUse("book"), 1.0, "never said"], ["Your table is booked."])


class Slow:
    """A journal that takes its time, or cannot keep anything."""

    def __init__(self, error: Exception | None = None) -> None:
        self.kept = asyncio.Event()
        self.asked: list[int] = []
        self.events: list[Any] = []
        self._error = error

    def append(self, event: Any) -> None:
        self.events.append(event)

    async def acknowledged(self, seq: int) -> None:
        self.asked.append(seq)
        if self._error is not None:
            raise self._error
        await self.kept.wait()


def with_a_journal(journal: Slow, scenario: Callable[[Any, Any, Desk], Any], *, may_act: bool = True) -> Desk:
    async def run(clock: Any) -> Desk:
        stt, tts = ToldSTT(), HummingTTS()

        def on_voip(voip: VoIP) -> None:
            nonlocal desk
            voip.journal = journal
            voip.may_act = lambda: may_act
            llm = ScriptedLLM([[ToolUse("book")], "So it is."])
            desk = Desk([], voip=voip, stt=stt, tts=tts, llm=llm)
            desk.on(Participant.ERROR, lambda failure: errors.append(failure.error))
            desk.activate()

        desk: Any = None
        call, line = memory_call(on_voip, clock=clock)
        stt.heard("book a table")
        await scenario(clock, errors, desk)
        line.hang_up()
        await call.wait_closed()
        return desk

    errors: list[Any] = []
    return run_virtual(run)


def test_a_tool_starts_when_the_journal_has_kept_that_it_does():
    journal = Slow()

    async def scenario(clock: Any, errors: Any, desk: Desk) -> None:
        await clock.sleep(1)
        assert desk.ran == []
        (started,) = [event for event in journal.events if isinstance(event, ev.ToolStarted)]
        assert journal.asked == [started.seq]
        journal.kept.set()
        await clock.sleep(1)
        assert len(desk.ran) == 1
        assert errors == []

    with_a_journal(journal, scenario)


@pytest.mark.parametrize("error", [None, LimitError("the disk is full")])
def test_a_tool_that_cannot_be_written_down_is_not_started(error: Exception | None):
    async def scenario(clock: Any, errors: Any, desk: Desk) -> None:
        await clock.sleep(4)
        assert desk.ran == []
        assert [type(each) for each in errors] == [LimitError]
        (result,) = [item for item in desk.history.items() if isinstance(item, ToolResult)]
        assert (result.state, result.content) == (
            "cancelled",
            "cancelled: it was not started, for it could not be written down",
        )

    with_a_journal(Slow(error), scenario)


def test_a_process_that_has_not_heard_of_its_line_starts_no_tool():
    journal = Slow()

    async def scenario(clock: Any, errors: Any, desk: Desk) -> None:
        await clock.sleep(1)
        assert desk.ran == []
        assert errors == []
        (result,) = [item for item in desk.history.items() if isinstance(item, ToolResult)]
        assert result.state == "cancelled"

    with_a_journal(journal, scenario, may_act=False)


# -- what is the user's -----------------------------------------------------------------------------


class Counting(Echo):
    """Counts what it was asked."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.asked = 0
        self.restored: list[Any] = []

    async def inference(self, message: Message[str]) -> AsyncIterator[str]:
        self.asked += 1
        yield f"That was number {self.asked}."

    def state(self) -> object:
        return {"asked": self.asked}

    def restore(self, state: Any) -> None:
        self.restored.append(state)
        self.asked = state["asked"]


def test_the_users_state_is_kept_when_it_has_changed_and_given_back_first():
    async def scenario(call: Survivor) -> None:
        call.says("one")
        await call.quiet()
        call.agent.dispatch_message("By the way.")
        await call.quiet()
        call.life.die()
        await call.quiet()
        assert call.agent.restored == [{"asked": 1}]
        call.says("two")
        await call.quiet()
        assert spoken(call)[-1] == ("assistant", "That was number 2.")
        assert [event.state for event in call.journal if type(event).__name__ == "StateSaved"] == [
            msgspec.msgpack.encode({"asked": 1}),
            msgspec.msgpack.encode({"asked": 2}),
        ]

    survives(scenario, Counting)


class Careless(Echo):
    def state(self) -> object:
        return object()

    def restore(self, state: Any) -> None:
        raise ValueError(state)


class Hoarder(Careless):
    def state(self) -> object:
        return bytes(5_000_000)


@pytest.mark.parametrize(("kind", "why"), [(Careless, "object"), (Hoarder, "5000005 bytes")])
def test_a_state_that_cannot_be_kept_or_taken_back_costs_an_error_and_no_call(kind, why):
    async def scenario(call: Survivor) -> None:
        errors: list[Any] = []
        call.agent.on(Participant.ERROR, lambda failure: errors.append(str(failure.error)))
        call.says("one")
        await call.quiet()
        (told,) = [error for error in errors if f"state() of {kind.__name__}" in error]
        assert why in told
        call.life.die()
        await call.clock.sleep(0.1)
        call.says("two")
        await call.quiet()
        assert spoken(call)[-1] == ("assistant", "You said: two")

    survives(scenario, kind)


def test_a_restore_that_raises_is_told_and_the_call_goes_on():
    async def run(clock: Any) -> None:
        errors: list[Any] = []
        voip = TextVoIP(lambda *_: None, clock=clock)
        started = ev.CallStarted(
            seq=0, at_s=0, call_id=uuid4(), carrier="", carrier_call_id="", from_="", to="", direction="", started_at=""
        )
        voip.checkpoint = Checkpoint(seq=1, started=started, state=msgspec.msgpack.encode(1))
        agent = Careless(voip=voip, tts=HummingTTS)
        agent.on(Participant.ERROR, lambda failure: errors.append(str(failure.error)))
        agent.activate()
        assert voip.checkpoint is None
        assert errors == ["Careless: restore() raised ValueError(1)"]
        voip.connect()
        voip.close()
        await agent.wait_disposed()

    run_virtual(run)


# -- time, numbers, reports ---------------------------------------------------------------------------


def test_events_numbers_and_the_report_go_on():
    async def scenario(call: Survivor) -> None:
        call.line.pump()
        call.says("one")
        await call.quiet()
        await call.clock.sleep(1)
        call._gap_s = 2.0
        call.life.die()
        await call.clock.sleep(0.5)
        call.says("two")
        await call.clock.sleep(3)
        await call.quiet()

    call = survives(scenario)
    journal = call.journal
    assert [event.seq for event in journal] == list(range(len(journal)))
    assert all(one.at_s <= other.at_s for one, other in pairwise(journal))
    (resumed,) = happened(call, ev.CallResumed)
    assert resumed.lost_s == pytest.approx(3, abs=0.15), "the line's clock has gone on"
    metrics = call.agent.metrics
    assert (metrics.caller_turns, metrics.agent_turns, metrics.resumed) == (2, 2, 1)
    assert [type(event) for event in call.agent.events[:2]] == [ev.CallStarted, ev.CallResumed]
    whole = make_report(call_events(journal))
    assert [turn.caller for turn in whole.turns if turn.caller] == ["one", "two"]
    assert whole.metrics == make_report(call.agent.events).metrics
    page = make_page(whole)
    assert "Echo went on with it after" in page
    assert "Taken over from a process that was gone" in page


def test_the_longest_duration_counts_from_the_first_stream_and_its_warning_is_said_once():
    silence = Silence(idle_s=None, max_duration_s=10, warn_before_s=6)
    settings = AgentSettings(turns=TurnSettings(silence=silence), duration_warning="Soon.", duration_goodbye="Bye.")

    async def scenario(call: Survivor) -> None:
        call.line.pump()
        await call.clock.sleep(5)
        assert spoken(call) == [("assistant", "Soon.")]
        call._gap_s = 2.0
        call.life.die()
        await call.clock.sleep(4.5)
        assert call.call.state == "live"
        await call.clock.sleep(1.5)
        assert call.call.state == "ended"
        assert call.call.voip.end.reason == "max_duration"

    call = survives(scenario, settings=settings)
    assert spoken(call) == [("assistant", "Soon."), ("assistant", "Bye.")]


def test_whoever_is_to_take_the_call_is_asked_first_also_by_the_agent_that_goes_on():
    class Reception(Echo):
        async def inference(self, message: Message[str]) -> AsyncIterator[str]:
            self.warm_transfer_to("+15550100", summary="Wants a table.", ring_s=9.0)
            yield "Please hold the line. I ask whether somebody is there."

    async def scenario(call: Survivor) -> None:
        call.says("put me through")
        await call.clock.sleep(0.5)
        ending = call.fold().ending
        assert ending is not None
        assert (ending.tel, ending.summary) == ("+15550100", "Wants a table.")
        assert "table" not in repr(ending)
        call.life.die()
        await call.clock.sleep(10)
        [command] = call.call._carrier.commands
        assert isinstance(command, Consult)
        assert (command.tel, command.ring_s) == ("+15550100", 9.0)

    survives(scenario, Reception)


def test_speech_edges_of_audio_that_comes_late_pause_nothing():
    async def scenario(call: Survivor) -> None:
        await call.clock.sleep(3)
        call.line.send(MULAW_8K.silence(3000))
        call.says("tell me")
        call.life.die()
        await call.clock.sleep(0.2)
        agent = call.agent
        assert agent.voip.snapshot.at_ms == pytest.approx(3000)
        agent.voip.emit(VoIP.MESSAGE, Message(uuid=uuid4(), data=b"\xff" * 160, at_ms=500))
        call.stt.emit(STT.VAD, SpeechEdge(state="started", at_ms=500))
        await call.clock.sleep(0.2)
        assert not happened(call, ev.PausedForCaller)
        call.stt.emit(STT.VAD, SpeechEdge(state="started", at_ms=2900))
        assert happened(call, ev.PausedForCaller)

    survives(scenario)


def test_recording_is_started_once_and_what_comes_of_it_is_waited_for():
    async def scenario(call: Survivor) -> None:
        carrier = call.call._carrier
        carrier.recordings["url"] = b"RIFF"
        await call.clock.sleep(0.5)
        call.life.die()
        await call.clock.sleep(0.5)
        call.line.hang_up()
        await call.clock.sleep(3)
        call.call.voip.receive(VoIP.RECORDING_URL, "url")
        assert call.agent.record.recording_url == "url"
        assert [type(command).__name__ for command in carrier.commands] == ["StartRecording"]

    survives(scenario, settings=AgentSettings(record=True, wrap_up_s=30))


# -- who goes on --------------------------------------------------------------------------------------


class Billing(Echo):
    async def inference(self, message: Message[str]) -> AsyncIterator[str]:
        yield f"Billing heard: {message.data}"


def test_the_checkpoint_names_the_agent_that_has_the_call():
    kinds = {"Echo": Echo, "Billing": Billing}

    def make(voip: VoIP, **options: Any) -> Agent:
        kind = kinds[voip.checkpoint.agent] if voip.checkpoint is not None else Echo
        return kind(voip=voip, system=f"You are {kind.__name__}.", **options)

    async def scenario(call: Survivor) -> None:
        call.says("one")
        await call.quiet()
        first = call.agent
        second = Billing(voip=first.voip, stt=first.stt, tts=first.tts, system="You are Billing.")
        first.hand_off(second)
        call.agents.append(second)
        assert call.fold().agent == "Billing"
        call.life.die()
        await call.quiet()
        call.says("two")
        await call.quiet()
        assert spoken(call) == [
            ("system", "You are Billing."),
            ("user", "one"),
            ("assistant", "You said: one"),
            ("user", "two"),
            ("assistant", "Billing heard: two"),
        ]

    survives(scenario, make)


def test_the_instructions_are_those_of_the_agent_that_goes_on():
    systems = ["Be brief.", "Be polite."]

    def make(**options: Any) -> Agent:
        return Echo(system=systems.pop(0), **options)

    async def scenario(call: Survivor) -> None:
        call.says("one")
        await call.quiet()
        call.life.die()
        await call.quiet()
        assert spoken(call)[:2] == [("system", "Be polite."), ("user", "one")]
        assert call.fold().history[0].items[0].text == "Be polite."

    survives(scenario, make)


def test_a_summary_stays_one_and_the_next_takes_it_in():
    def make(**options: Any) -> Agent:
        agent = Echo(llm=ScriptedLLM(lambda _: "they talked"), **options)
        HistorySummaries(agent, over_chars=30, keep_turns=1)
        return agent

    async def scenario(call: Survivor) -> None:
        for text in ("the first of many words", "the second of many words"):
            call.says(text)
            await call.quiet()
        call.life.die()
        for text in ("the third of many words", "the fourth of many words"):
            await call.quiet()
            call.says(text)
        await call.quiet()
        assert [role for role, _ in spoken(call)].count("system") == 1

    survives(scenario, make)


def test_an_agent_that_takes_the_call_again_goes_on_itself():
    async def scenario(call: Survivor) -> None:
        call.says("one")
        await call.quiet()
        call.life.die()
        await call.quiet()
        agent = call.agent
        agent.deactivate()
        agent.activate()
        assert len(happened(call, ev.CallResumed)) == 1

        call.says("two")
        await call.quiet()
        call.life.die()
        await call.quiet()
        assert len(happened(call, ev.CallResumed)) == 2
        call.says("three")
        await call.quiet()
        assert [text for role, text in spoken(call) if role == "user"] == ["one", "two", "three"]

    survives(scenario)


# -- what the line says by itself -----------------------------------------------------------------------


class Keyed(HummingTTS):
    voice_key = "a voice"


def clips_of(clock: Any, tts: HummingTTS, wanted: bool = True, **options: Any) -> tuple[Any, Any, list[Clips]]:
    taken: list[Clips] = []

    def on_voip(voip: VoIP) -> None:
        if wanted:
            voip.on_clips = taken.append
        Echo(voip=voip, stt=ToldSTT(), tts=tts, **options).activate()

    call, line = memory_call(on_voip, clock=clock)
    return call, line, taken


def test_the_clips_for_an_outage_are_spoken_once_per_process_behind_the_greeting():
    settings = AgentSettings(outage="Sorry.", failure="Goodbye.")

    async def run(clock: Any) -> None:
        voices = [Keyed(), Keyed(), HummingTTS()]
        for number, tts in enumerate(voices):
            call, line, taken = clips_of(clock, tts, settings=settings, greeting="Hello.")
            assert taken == []
            await clock.sleep(2)
            assert [(len(clips.apology), len(clips.goodbye)) for clips in taken] == [(6 * 400, 8 * 400)]
            texts = list(tts.texts.values())
            assert texts == (["Hello."] if number == 1 else ["Hello.", "Sorry.", "Goodbye."])
            line.hang_up()
            await call.wait_closed()

    run_virtual(run)


def test_without_a_line_that_wants_them_no_clips_are_made():
    async def run(clock: Any) -> None:
        tts = Keyed()
        call, line, _ = clips_of(clock, tts, wanted=False)
        await clock.sleep(2)
        assert tts.texts == {}
        line.hang_up()
        await call.wait_closed()

    run_virtual(run)


class Mute(HummingTTS):
    def post(self, message: Message[str]) -> None:
        raise StateError("not today")


@pytest.mark.parametrize("tts", [HummingTTS(hold=True), Mute()])
def test_a_voice_that_says_nothing_makes_no_clips(tts: HummingTTS):
    async def run(clock: Any) -> None:
        call, line, taken = clips_of(clock, tts)
        await clock.sleep(40)
        assert taken == []
        assert call.state == "live"
        line.hang_up()
        await call.wait_closed()

    run_virtual(run)

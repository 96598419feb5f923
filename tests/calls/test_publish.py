"""One place tells of all calls, from their start to their end, wherever their agents run."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import pytest
from steady import steady_clock

from dialog.agent.agent import Agent
from dialog.calls import events as ev
from dialog.calls.publish import CallEvents, Missed, Notice
from dialog.calls.redact import Redaction
from dialog.errors import CarrierError, StateError, UserCodeError
from dialog.message import CallMetadata, Message
from dialog.testing.doubles import HummingTTS, ToldSTT
from dialog.testing.virtual import run_virtual
from dialog.voip.call import Call
from dialog.voip.memory import MemoryCarrier, MemoryLine, memory_call
from dialog.voip.voip import VoIP
from dialog.workers.hosting import HostingSettings

sys.path.insert(0, str(Path(__file__).parents[1] / "workers"))
from bridges import bridge, until

FAST = steady_clock(10)


class Echo(Agent):
    async def inference(self, message: Message[str]) -> AsyncIterator[str]:
        yield f"You said: {message.data}"


class Told:
    """All that was published."""

    def __init__(self, **options) -> None:
        self.events = CallEvents(**options)
        self.notices: list[Notice] = []
        self.events.on(self.notices.append)

    def of(self, call) -> list[ev.CallEvent]:
        return [notice.event for notice in self.notices if notice.call == call.metadata]

    def kinds(self, call) -> list[type]:
        return [type(event) for event in self.of(call)]


def a_call(clock, told: Told, on_voip=None, **options):
    stt = ToldSTT()

    def with_echo(voip: VoIP) -> None:
        Echo(voip=voip, stt=stt, tts=HummingTTS()).activate()

    call, line = memory_call(on_voip or with_echo, clock=clock, events=told.events, **options)
    return call, line, stt


async def over(call, line) -> None:
    line.hang_up()
    await call.wait_closed()
    await line.wait_closed()


def assert_whole(events: list[ev.CallEvent]) -> None:
    assert isinstance(events[0], ev.CallStarted)
    assert [type(event) for event in events].count(ev.CallEnded) == 1
    seqs = [event.seq for event in events]
    assert seqs == sorted(set(seqs))


def test_a_call_is_told_from_its_start_to_its_end_as_its_agent_tells_it():
    async def scenario(clock):
        told = Told()
        call, line, stt = a_call(clock, told)
        own = []
        call.voip.on(VoIP.EVENT, own.append)
        await clock.sleep(1)
        stt.heard("hello")
        await clock.sleep(10)
        await over(call, line)
        events = told.of(call)
        assert_whole(events)
        assert events[-1].reason == "caller_hangup"
        assert events[0].agent == "Echo"
        assert [event for event in events if event in own] == own
        assert any(isinstance(event, ev.AgentSaid) and event.text == "You said: hello" for event in events)

    run_virtual(scenario)


def test_a_call_that_never_had_an_agent_starts_and_ends_as_well():
    async def scenario(clock):
        told = Told()
        call, line, _ = a_call(clock, told, lambda _: None)
        await clock.sleep(3)
        line.hang_up()
        start, stream, end = told.of(call)
        assert (start.agent, start.call_id, start.to) == ("", call.metadata.call_id, "agent")
        assert (stream.state, stream.generation, stream.at_s) == ("live", 1, 0.0)
        assert (end.reason, end.seq) == ("caller_hangup", 2)
        assert end.at_s == pytest.approx(3, abs=0.1)
        await call.wait_closed()

    run_virtual(scenario)


def test_a_call_that_comes_from_another_gateway_and_gets_no_agent_has_an_end_and_no_second_start():
    async def scenario(clock):
        told = Told()
        metadata = CallMetadata(call_id=uuid4(), carrier="memory")
        call = Call(metadata, MemoryCarrier(), clock=clock, events=told.events, generation=2)
        call.end("no_worker")
        await call.wait_closed()
        (end,) = told.of(call)
        assert isinstance(end, ev.CallEnded)
        assert end.seq > 100_000

    run_virtual(scenario)


def test_a_call_whose_code_raised_has_ended_with_an_error():
    async def scenario(clock):
        told = Told()

        def broken(_: VoIP) -> None:
            raise ValueError("no")

        with pytest.raises(UserCodeError):
            a_call(clock, told, broken)
        assert [notice.event.reason for notice in told.notices if isinstance(notice.event, ev.CallEnded)] == ["error"]
        await clock.sleep(5)

    run_virtual(scenario)


def test_a_call_whose_agent_was_disposed_of_ends_when_nothing_of_it_is_left():
    async def scenario(clock):
        told = Told()
        agents = []

        def on_voip(voip: VoIP) -> None:
            agents.append(Echo(voip=voip, stt=ToldSTT(), tts=HummingTTS()))
            agents[0].activate()

        call, line, _ = a_call(clock, told, on_voip)
        await clock.sleep(1)
        agents[0].dispose()
        await clock.sleep(1)
        await over(call, line)
        assert_whole(told.of(call))

    run_virtual(scenario)


def test_an_agent_that_takes_the_call_over_here_counts_on():
    async def scenario(clock):
        told = Told()
        agents = []

        def on_voip(voip: VoIP) -> None:
            agents.append(Echo(voip=voip, stt=ToldSTT(), tts=HummingTTS()))
            agents[0].activate()

        call, line, _ = a_call(clock, told, on_voip)
        await clock.sleep(1)
        agents[0].deactivate()
        with call.scope.entered():
            Echo(voip=call.voip, stt=ToldSTT(), tts=HummingTTS()).activate()
        await clock.sleep(1)
        await over(call, line)
        assert_whole(told.of(call))
        assert told.kinds(call).count(ev.CallStarted) == 2

    run_virtual(scenario)


def test_a_recording_that_comes_after_the_end_is_told_then_and_only_once():
    async def scenario(clock):
        told = Told()
        carrier = MemoryCarrier()
        carrier.recordings["https://carrier.example/2"] = b""
        call, line, _ = a_call(clock, told, carrier=carrier)
        await clock.sleep(1)
        call.voip.receive(VoIP.RECORDING_URL, "https://carrier.example/1")
        await call.voip.start_recording()
        line.hang_up()
        await until_told(clock, told, call, ev.CallEnded)
        call.voip.receive(VoIP.RECORDING_URL, "https://carrier.example/2")
        await call.wait_closed()
        await line.wait_closed()
        events = told.of(call)
        assert_whole(events)
        assert [event.url for event in events if isinstance(event, ev.RecordingReady)] == [
            "https://carrier.example/1",
            "https://carrier.example/2",
        ]

    run_virtual(scenario)


async def until_told(clock, told, call, kind) -> None:
    async with asyncio.timeout(30):
        while kind not in told.kinds(call):
            await clock.sleep(0.01)


@pytest.mark.parametrize(
    ("transfer", "states"),
    [
        ("answered", ["started", "answered"]),
        ("failed", ["started", "returned"]),
        ("refused", ["started", "refused"]),
    ],
)
def test_a_transfer_is_told_with_what_becomes_of_it(transfer, states):
    async def scenario(clock):
        told = Told()
        call, line, _ = a_call(clock, told, carrier=MemoryCarrier(transfer=transfer))
        await clock.sleep(1)
        if transfer == "refused":
            with pytest.raises(CarrierError):
                await call.voip.transfer_to("+15550100")
        else:
            await call.voip.transfer_to("+15550100", back_within_s=20)
        await clock.sleep(1)
        call.end("caller_hangup")
        await call.wait_closed()
        await line.wait_closed()
        changes = [event for event in told.of(call) if isinstance(event, ev.TransferChanged)]
        assert [change.state for change in changes] == states
        assert {change.to for change in changes} == {"+15550100"}
        assert_whole(told.of(call))

    run_virtual(scenario)


async def test_events_of_an_agent_in_another_process_come_by_the_same_place():
    async with bridge() as house:
        told = Told()

        def on_voip(voip: VoIP) -> None:
            Echo(voip=voip, stt=ToldSTT(), tts=HummingTTS()).activate()

        await house.worker("one", on_voip)
        call, line = memory_call(house.host.take, clock=house.clock, events=told.events, line=MemoryLine())
        await until(lambda: ev.CallStarted in told.kinds(call))
        line.hang_up()
        await until(lambda: ev.CallEnded in told.kinds(call))
        events = told.of(call)
        assert_whole(events)
        assert events[0].agent == "Echo"
        assert ev.CallMeasured in told.kinds(call)
        assert told.kinds(call) == [each for each in told.kinds(call) if each in ev.CALL_EVENTS]
        await until(lambda: not house.host.calls)


async def test_a_call_whose_worker_is_lost_for_good_ends_all_the_same():
    async with bridge(clock=FAST, settings=HostingSettings(resume_s=0.2, settle_s=0.05)) as house:
        told = Told()

        def on_voip(voip: VoIP) -> None:
            Echo(voip=voip, stt=ToldSTT(), tts=HummingTTS()).activate()

        await house.worker("one", on_voip)
        line = MemoryLine(clock=FAST)
        call, _ = memory_call(house.host.take, clock=FAST, events=told.events, line=line)
        await until(lambda: ev.CallStarted in told.kinds(call))
        await house.kill("one")
        await until(lambda: ev.CallEnded in told.kinds(call))
        await call.wait_closed()
        assert_whole(told.of(call))
        assert told.of(call)[-1].reason == "lost_worker"


# Readers.

CALL, OTHER = CallMetadata(call_id=uuid4()), CallMetadata(call_id=uuid4())


def digit(seq: int) -> ev.DigitPressed:
    return ev.DigitPressed(seq=seq, at_s=0.0, digit="1")


async def test_a_reader_of_one_call_gets_its_events_and_comes_to_an_end_with_it():
    events = CallEvents()
    got = []
    with events.read(CALL.call_id) as reader:

        async def read() -> None:
            got.extend([notice async for notice in reader])

        task = asyncio.create_task(read())
        await asyncio.sleep(0)
        events.publish(CALL, digit(0))
        events.publish(OTHER, digit(0))
        events.publish(CALL, ev.CallEnded(seq=1, at_s=0.0, reason="x"))
        events.publish(CALL, digit(2))
        await task
    assert [notice.event.seq for notice in got] == [0, 1]


async def test_a_reader_that_is_too_slow_gets_what_waits_then_a_marker_and_then_the_end():
    events = CallEvents()
    slow, fast = events.read(limit=3), events.read(limit=100)
    for number in range(10):
        events.publish(CALL, digit(number))
    fast.close()
    got = [notice async for notice in slow]
    assert [notice.event.seq for notice in got[:-1]] == [0, 1, 2]
    assert got[-1] == Missed(CALL.call_id, 3)
    assert json.loads(got[-1].to_json()) == {"type": "reader.dropped", "call_id": str(CALL.call_id), "seq": 3}
    assert len([notice async for notice in fast]) == 10
    assert not events._listeners


async def test_a_reader_has_one_task():
    events = CallEvents()
    with events.read() as reader:
        first = asyncio.create_task(anext(reader))
        await asyncio.sleep(0)
        with pytest.raises(StateError):
            await anext(reader)
        first.cancel()
        await asyncio.wait([first])


async def test_a_reader_that_was_given_up_in_its_wait_loses_nothing():
    events = CallEvents()
    with events.read() as reader:
        waiting = asyncio.create_task(anext(reader))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait([waiting])
        events.publish(CALL, digit(7))
        assert (await anext(reader)).event.seq == 7


def test_a_listener_that_raises_costs_the_others_nothing(caplog):
    events, got = CallEvents(), []

    def broken(_: Notice) -> None:
        raise ValueError("no")

    events.on(broken)
    events.on(got.append)
    events.publish(CALL, digit(0))
    assert len(got) == 1
    assert "listener" in caplog.text
    events.off(broken)
    events.publish(CALL, digit(1))
    assert len(got) == 2


def test_a_listener_is_a_plain_function():
    async def listener(_: Notice) -> None: ...

    with pytest.raises(TypeError):
        CallEvents().on(listener)


def test_what_leaves_is_masked_for_every_listener():
    told = Told(redaction=Redaction())
    told.events.publish(CALL, ev.CallerSaid(seq=0, at_s=0, turn=uuid4(), text="I am +15551230001", final=True))
    assert [notice.event.text for notice in told.notices] == ["I am [phone]"]


@pytest.mark.parametrize("kind", [ev.ToolStarted, ev.ToolEnded])
def test_the_id_of_a_tools_use_is_not_taken_for_that_of_the_call(kind):
    more = {"arguments": "{}"} if kind is ev.ToolStarted else {"result": "", "state": "done", "took_s": 1.0}
    told = json.loads(Notice(CALL, kind(seq=3, at_s=0, turn=uuid4(), call_id="t1", name="book", **more)).to_json())
    assert (told["call_id"], told["tool_call_id"]) == (str(CALL.call_id), "t1")


def test_an_event_in_json_begins_with_its_call():
    notice = Notice(CALL, digit(3))
    assert json.loads(notice.to_json()) == {
        "call_id": str(CALL.call_id),
        "type": "dtmf",
        "seq": 3,
        "at_s": 0.0,
        "digit": "1",
    }

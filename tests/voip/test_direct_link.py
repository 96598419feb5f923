"""Whatever happens to a call, every part that was posted ends exactly once."""

import asyncio
from uuid import UUID, uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from steady import burn, steady_clock
from test_memory_line import Ear, tone, virtual

from dialog.message import Message
from dialog.voip.call import CallSettings
from dialog.voip.memory import MemoryCarrier, MemoryLine, memory_call
from dialog.voip.pacer import Pacer
from dialog.voip.voip import VoIP

steps = st.lists(
    st.one_of(
        st.tuples(st.just("post"), st.integers(0, 2), st.integers(0, 400), st.booleans()),
        st.tuples(st.just("post"), st.integers(0, 2), st.integers(0, 400), st.booleans()),
        st.tuples(st.just("abort"), st.integers(0, 2), st.sampled_from([None, 0, 1]), st.sampled_from([None, 200.0])),
        st.tuples(st.just("pause"), st.just(0), st.just(0), st.just(0)),
        st.tuples(st.just("resume"), st.just(0), st.just(0), st.sampled_from([None, 100.0])),
        st.tuples(st.just("wait"), st.integers(1, 500), st.just(0), st.just(0)),
        st.tuples(st.just("drop"), st.just(0), st.just(0), st.just(0)),
        st.tuples(st.just("join"), st.just(0), st.just(0), st.just(0)),
        st.tuples(st.just("digits"), st.just(0), st.just(0), st.just(0)),
        st.tuples(st.just("hangup"), st.just(0), st.just(0), st.just(0)),
        st.tuples(st.just("leave"), st.just(0), st.just(0), st.just(0)),
        st.tuples(st.just("dispose"), st.just(0), st.just(0), st.just(0)),
    ),
    max_size=20,
)


@settings(max_examples=150)
@given(steps=steps, rtt=st.sampled_from([0.0, 0.04]), marks=st.booleans(), eager=st.booleans())
def test_every_part_ends_once_whatever_happens(steps, rtt, marks, eager):
    async def main(clock):
        ears = []
        carrier = MemoryCarrier()
        call, _ = memory_call(
            lambda voip: ears.append(Ear(voip)),
            clock=clock,
            carrier=carrier,
            line=MemoryLine(clock=clock, rtt_s=rtt, echo_marks=marks),
            settings=CallSettings(settle_s=0.1),
            join=False,
        )
        voip, ear = call.voip, ears[0]
        posted, disposed = {}, False
        if eager:  # a listener that answers each loss and each cut at once
            spare = iter(range(100, 110))

            def answer(playback):
                if playback.state in ("lost", "cut") and voip.state != "ended":
                    key = (playback.uuid, next(spare, None))
                    if key[1] is not None:
                        posted[key] = True
                        voip.post(Message(uuid=key[0], part=key[1], data=tone(50), done=True))

            voip.on(VoIP.PLAYBACK, answer)
        for action, x, y, z in steps:
            if action == "post":
                key = (UUID(int=x + 1), y % 3)
                if not voip.disposed and voip.state != "ended" and key not in final_keys(ear):
                    posted[key] = True
                voip.post(Message(uuid=key[0], part=key[1], data=tone(y), done=z))
            elif action == "abort":
                voip.abort(UUID(int=x + 1), part=y, after_ms=z)
            elif action == "pause":
                voip.pause()
            elif action == "resume":
                voip.resume(from_ms=z)
            elif action == "wait":
                await clock.sleep(x / 1000)
            elif action == "drop":
                carrier.lines[-1].drop()
            elif action == "join" and call.state != "ended":
                if call.generation:
                    carrier.lines.append(MemoryLine(clock=clock, rtt_s=rtt, echo_marks=marks))
                carrier.lines[-1].join(call)
            elif action == "digits" and call.state == "live":
                await voip.send_digits("1")
            elif action == "hangup" and not voip.disposed:
                await voip.hangup()
            elif action == "leave":
                carrier.lines[-1].hang_up()
            elif action == "dispose":
                disposed = disposed or not voip.disposed
                voip.dispose()
        call.end("test_over")
        finals = [(p.uuid, p.part) for p in ear.playbacks if p.final]
        assert len(finals) == len(set(finals))
        if not disposed:  # who disposes of the VoIP hears no more of it
            assert set(finals) == set(posted)
            assert sum(name in {"caller_hangup", "agent_hangup", "test_over"} for name in ear.names()) == 1
        await call.wait_closed()
        assert call.scope.members == ()
        assert Pacer.of(clock).resting
        if not disposed:
            assert voip._open_parts == {}

    virtual(main)


def final_keys(ear):
    return {(p.uuid, p.part) for p in ear.playbacks if p.final}


def test_a_thousand_calls_leave_nothing_behind():
    async def main(clock):
        open_calls = set()
        for _ in range(1000):
            call, line = memory_call(Ear, clock=clock, on_closed=open_calls.discard)
            open_calls.add(call)
            call.voip.post(Message(uuid=uuid4(), data=tone(300), done=True))
            line.send(tone(20))
            await clock.sleep(0.05)
            line.hang_up()
        while open_calls:
            await clock.sleep(0.1)
        assert Pacer.of(clock).resting
        assert len(asyncio.all_tasks()) == 1

    virtual(main)


async def test_stalls_of_the_loop_are_not_heard():
    """A blocked loop: 100 ms, again and again, while audio plays."""
    call, line = memory_call(Ear, clock=steady_clock())
    call.voip.post(Message(uuid=uuid4(), data=tone(1500), done=True))
    played = asyncio.Event()
    call.voip.on(VoIP.MESSAGE_DISPATCHED, lambda _: played.set())
    loop = asyncio.get_running_loop()
    timers = [loop.call_later(at, burn, 0.1) for at in (0.11, 0.47, 0.83, 1.19)]
    async with asyncio.timeout(10):
        await played.wait()
    assert len(line.heard) == 1
    assert line.heard_audio == tone(1500)
    assert all(timer.when() < loop.time() for timer in timers)
    call.end("test_over")
    await call.wait_closed()


def test_the_pacer_asks_for_a_longer_lead_when_the_loop_is_often_late():
    async def main(clock):
        loop = asyncio.get_running_loop()
        asked = []

        class Member:
            def tick(self, now, lead_ms):
                asked.append(lead_ms)
                return len(asked) < 60

        pacer = Pacer.of(clock)
        pacer.add(Member())
        while not pacer.resting:
            await clock.sleep(0.049)
            loop._selector.now += 0.2  # the loop is blocked
        assert asked[0] == 0
        assert asked[-1] == pytest.approx(450, abs=2)

    virtual(main)


def test_one_line_that_fails_does_not_silence_the_others():
    async def main(clock):
        ticks = []

        class Broken:
            def tick(self, now, lead_ms):
                raise ValueError("broken")

        class Member:
            def tick(self, now, lead_ms):
                ticks.append(now)
                return len(ticks) < 5

        pacer = Pacer.of(clock)
        pacer.add(Broken())
        pacer.add(Member())
        await clock.sleep(1)
        assert ticks == pytest.approx([0.05, 0.1, 0.15, 0.2, 0.25])
        assert pacer.resting

    virtual(main)

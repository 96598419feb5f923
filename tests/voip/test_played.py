"""Waiting for a point of what was posted."""

import asyncio
from uuid import uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_memory_line import call_with_ear, finish, tone, virtual

from dialog.errors import StateError
from dialog.message import Message
from dialog.testing import run_virtual
from dialog.voip.memory import MemoryLine
from dialog.voip.text import TextVoIP


def test_everybody_waits_for_their_own_point():
    async def main(clock):
        call, _, _ = call_with_ear(clock, line=MemoryLine(clock=clock, rtt_s=0.04))
        first, second = uuid4(), uuid4()
        began = clock.now()
        reached = {}

        async def wait(name, *point, **options):
            playback = await call.voip.wait_played(*point, **options)
            reached[name] = (round(clock.now() - began, 2), playback.state, playback.heard_ms)

        async with asyncio.TaskGroup() as tasks:
            for name, uuid, part, ms in (
                ("b300", second, 0, 300),
                ("end", first, 0, None),
                ("170", first, 0, 170),
                ("1 of part 1", first, 1, 1),
                ("170 too", first, 0, 170),
                ("650", first, 0, 650),
                ("beyond", first, 1, 5000),
            ):
                tasks.create_task(wait(name, uuid, part, ms=ms))
            await asyncio.sleep(0)  # they wait before anything was posted
            call.voip.post(Message(uuid=first, data=tone(800), done=True))
            call.voip.post(Message(uuid=first, part=1, data=tone(200), done=True))
            call.voip.post(Message(uuid=second, data=tone(500), done=True))
        assert reached == {
            "170": (0.17, "playing", 170),
            "170 too": (0.17, "playing", 170),
            "650": (0.65, "playing", 650),
            "end": (0.84, "played", 800),
            "1 of part 1": (pytest.approx(0.8, abs=0.26), "playing", pytest.approx(100, abs=150)),
            "beyond": (1.04, "played", 200),
            "b300": (pytest.approx(1.3, abs=0.02), "playing", pytest.approx(300, abs=1)),
        }
        assert len(call.voip._points) == 0
        await finish(call)

    virtual(main)


def test_a_pause_stops_the_way_to_a_point_and_a_cut_ends_it():
    async def main(clock):
        call, _, _ = call_with_ear(clock)
        turn = uuid4()
        call.voip.post(Message(uuid=turn, data=tone(2000), done=True))
        point = asyncio.ensure_future(call.voip.wait_played(turn, ms=600))
        late = asyncio.ensure_future(call.voip.wait_played(turn, ms=1500))
        await clock.sleep(0.4)
        call.voip.pause()
        await clock.sleep(3)
        assert not point.done()
        call.voip.resume()
        began = clock.now()
        assert (await point).heard_ms == pytest.approx(600, abs=1)
        assert clock.now() - began == pytest.approx(0.2, abs=0.001)
        call.voip.abort(turn)
        cut = await late
        assert (cut.state, cut.heard_ms) == ("cut", 600)
        assert await call.voip.wait_played(turn) == cut  # who asks late is told the same
        await finish(call)

    virtual(main)


def test_a_point_whose_audio_has_not_come_yet_is_waited_for():
    async def main(clock):
        call, _, _ = call_with_ear(clock)
        turn = uuid4()
        call.voip.post(Message(uuid=turn, data=tone(200)))
        point = asyncio.ensure_future(call.voip.wait_played(turn, ms=300))
        await clock.sleep(2)
        assert not point.done()
        call.voip.post(Message(uuid=turn, data=tone(200), done=True))
        began = clock.now()
        assert (await point).heard_ms >= 299
        assert clock.now() - began >= 0.099
        await finish(call)

    virtual(main)


def test_a_hang_up_ends_every_wait():
    async def main(clock):
        call, line, _ = call_with_ear(clock)
        turn = uuid4()
        call.voip.post(Message(uuid=turn, data=tone(2000), done=True))
        posted = asyncio.ensure_future(call.voip.wait_played(turn))
        never = asyncio.ensure_future(call.voip.wait_played(uuid4(), 3, ms=10))
        await clock.sleep(0.5)
        line.hang_up()
        lost = await posted
        assert (lost.state, lost.heard_ms) == ("lost", 500)
        with pytest.raises(StateError, match=r"part 3 of turn .* was never posted"):
            await never
        with pytest.raises(StateError, match="has ended"):
            await call.voip.wait_played(uuid4())
        assert await call.voip.wait_played(turn) == lost
        await call.wait_closed()

    virtual(main)


def test_a_waiter_that_is_cancelled_leaves_nothing_and_harms_nobody():
    async def main(clock):
        call, _, _ = call_with_ear(clock)
        turn = uuid4()
        call.voip.post(Message(uuid=turn, data=tone(500), done=True))
        given_up = asyncio.ensure_future(call.voip.wait_played(turn, ms=300))
        other = asyncio.ensure_future(call.voip.wait_played(turn, ms=300))
        await clock.sleep(0.1)
        given_up.cancel()
        assert (await other).heard_ms == 300
        assert given_up.cancelled()
        assert len(call.voip._points) == 0
        assert call.voip._reports.keys() == {(turn, 0)}
        await clock.sleep(1)
        assert call.voip._reports == {}
        await finish(call)

    virtual(main)


def test_in_a_text_call_a_part_is_played_when_it_is_complete():
    async def scenario(clock):
        voip = TextVoIP(lambda *_: None, clock=clock)
        voip.connect()
        turn = uuid4()
        point = asyncio.ensure_future(voip.wait_played(turn, ms=400))
        await asyncio.sleep(0)
        voip.post(Message(uuid=turn, data=b"", done=True))
        assert (await point).state == "played"
        voip.dispose()
        await voip.wait_disposed()

    run_virtual(scenario)


@settings(max_examples=60)
@given(
    points=st.lists(st.tuples(st.integers(0, 2), st.one_of(st.none(), st.integers(0, 900))), min_size=1, max_size=8),
    pauses=st.lists(st.tuples(st.integers(1, 400), st.integers(1, 400)), max_size=3),
    abort=st.booleans(),
)
def test_whatever_happens_no_point_is_told_before_it_was_heard(points, pauses, abort):
    async def main(clock):
        call, line, _ = call_with_ear(clock)
        turn = uuid4()
        told = 0

        async def wait(part, ms):
            nonlocal told
            playback = await call.voip.wait_played(turn, part, ms=ms)
            heard = line.heard_audio.count(bytes([part + 1])) / 8
            told += 1
            if playback.final:
                assert heard == pytest.approx(playback.heard_ms, abs=1)
            else:
                assert ms is not None
                assert heard >= ms - 1

        async with asyncio.TaskGroup() as tasks:
            for part, ms in points:
                tasks.create_task(wait(part, ms))
            for part in range(3):
                call.voip.post(Message(uuid=turn, part=part, data=tone(400, part + 1), done=True))
            for before, length in pauses:
                await clock.sleep(before / 1000)
                call.voip.pause()
                await clock.sleep(length / 1000)
                call.voip.resume()
            if abort:
                call.voip.abort(turn)
        assert told == len(points)
        await finish(call)

    virtual(main)

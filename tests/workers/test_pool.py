"""Worker processes: real ones, killed, blocked, leaking, and with code that changes under them."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from bridges import until
from steady import steady_clock

from dialog.errors import ConfigurationError
from dialog.voip.call import Call, CallSettings
from dialog.voip.memory import MemoryLine, memory_call
from dialog.workers.child import Child
from dialog.workers.hosting import HostingSettings
from dialog.workers.nats import NatsSettings
from dialog.workers.pool import WorkerPool
from dialog.workers.process import Orders

APP = Path(__file__).parent / "apps" / "answering.py"
CLOCK = steady_clock(4.0)


@asynccontextmanager
async def pool(target: str = f"{APP}:on_voip", **options):
    made = WorkerPool(target, **{"processes": 1, **options})
    try:
        await made.start()
        yield made
    finally:
        for hosted in made.host.calls:
            await hosted.voip.hangup()
        await until(lambda: not made.host.calls)
        await made.close()


async def ring(made: WorkerPool) -> tuple[Call, MemoryLine]:
    taken = []
    call, line = memory_call(
        lambda voip: taken.append(made.take(voip)), clock=CLOCK, settings=CallSettings(settle_s=0.2)
    )
    await asyncio.wait_for(asyncio.shield(taken[0]), 20)
    return call, line


async def asked(line: MemoryLine, digit: str) -> str:
    """Press a key, and read what is said then."""
    before = len(line.heard_audio)
    line.press(digit)
    await until(lambda: len(line.heard_audio) >= before + 160)
    return line.heard_audio[before:].decode().strip()


async def test_a_call_runs_in_another_process_that_goes_with_the_pool():
    async with pool() as made:
        _, line = await ring(made)
        pid = int((await asked(line, "0")).split()[1])
        assert pid != os.getpid()
        assert list(made.pids.values()) == [pid]
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_several_calls_share_a_process_and_none_is_in_two():
    async with pool(processes=2, calls_per_process=2) as made:
        await until(lambda: len(made.host.directory) == 2)
        lines = [(await ring(made))[1] for _ in range(4)]
        pids = [await asked(line, "0") for line in lines]
        assert sorted(pids.count(pid) for pid in set(pids)) == [2, 2]


async def test_one_process_per_call_ends_with_its_call_and_the_next_is_warm():
    async with pool(processes=3, per_call=True) as made:
        first, line = await ring(made)
        one = await asked(line, "0")
        _, second = await ring(made)
        other = await asked(second, "0")
        assert one != other
        line.hang_up()
        await asyncio.wait_for(first.wait_closed(), 5)
        await until(lambda: int(one.split()[1]) not in made.pids.values())
        await until(lambda: made.ready)


@pytest.mark.parametrize(("hook", "mark"), [("warm_up", "warm"), ("warm_up_later", "later")])
async def test_the_hook_has_run_before_the_first_call(hook, mark):
    async with pool(prewarm=f"{APP}:{hook}") as made:
        _, line = await ring(made)
        assert await asked(line, "4") == f"warm ['{mark}']"


async def test_a_killed_process_harms_only_its_own_calls_and_is_replaced():
    async with pool(processes=2, calls_per_process=1) as made:
        await until(lambda: len(made.host.directory) == 2)
        _, line = await ring(made)
        _, other = await ring(made)
        spared = await asked(other, "0")
        line.press("3")
        await until(lambda: any(hosted.handed_over for hosted in made.host.calls))
        assert await asked(other, "0") == spared
        await until(lambda: all(hosted.worker for hosted in made.host.calls))
        assert (await asked(line, "0")).startswith("pid")


async def test_the_death_of_a_process_is_known_at_once_though_something_that_it_has_started_lives_on(
    caplog, monkeypatch, tmp_path
):
    strays = tmp_path / "strays"
    monkeypatch.setenv("STRAYS", str(strays))
    try:
        async with pool(processes=2) as made:
            _, line = await ring(made)
            pid = int((await asked(line, "0")).split()[1])
            await asked(line, "6")
            os.kill(pid, signal.SIGKILL)
            await until(lambda: made.host.calls[0].handed_over == 1)
            assert "is lost: its process has ended" in caplog.text
    finally:
        # The next worker is given the last key again when the first one had not kept it, and starts one as well.
        for stray in strays.read_text().split():
            os.kill(int(stray), signal.SIGKILL)


async def test_a_process_that_is_never_ready_is_killed():
    child = Child(Orders(node="late", target=f"{APP}:on_voip", prewarm=f"{APP}:warm_up_for_ever"))
    ours, theirs = socket.socketpair()
    with ours, theirs:
        await child.start(theirs.fileno())
        assert await asyncio.wait_for(child.wait(0.2), 10) == -signal.SIGKILL
        await child.collect()


async def test_nobody_who_lists_processes_can_read_what_one_is_told():
    child = Child(Orders(node="told", target=f"{APP}:on_voip", nats=NatsSettings(password="open sesame")))
    await child.start()
    try:
        assert child.process is not None
        for what in ("cmdline", "environ"):
            assert b"sesame" not in Path(f"/proc/{child.process.pid}/{what}").read_bytes()
    finally:
        await child.collect()


@pytest.mark.parametrize("state", ["new", "starting", "loading", "ready"])
async def test_a_pool_can_be_closed_in_every_state_and_leaves_nothing(state, capfd):
    made = WorkerPool(f"{APP}:on_voip", processes=2)
    pids: list[int] = []
    if state != "new":
        starting = asyncio.create_task(made.start())
        await until(lambda: made.pids or state == "starting")
        await until(lambda: made.ready or state != "ready")
        pids = list(made.pids.values())
        starting.cancel()
        await asyncio.wait([starting])
    await made.close()
    await made.close()
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    assert not [task for task in asyncio.all_tasks() if "worker" in task.get_name()]
    assert "Traceback" not in capfd.readouterr().err


async def test_a_blocked_process_loses_its_calls_and_is_killed(caplog):
    with caplog.at_level(logging.ERROR):
        async with pool(processes=2, blocked_kill_s=0.5) as made:
            await until(lambda: len(made.host.directory) == 2)
            _, line = await ring(made)
            pid = int((await asked(line, "0")).split()[1])
            line.press("2")
            await until(lambda: made.host.calls[0].handed_over == 1 and made.host.calls[0].worker)
            assert int((await asked(line, "0")).split()[1]) != pid
            await until(lambda: pid not in made.pids.values())


async def test_a_process_that_leaks_gets_no_more_calls_and_keeps_those_it_has():
    async with pool(processes=1, memory_mb=140.0) as made:
        _, line = await ring(made)
        leaking = await asked(line, "0")
        assert await asked(line, "5") == "leaked"
        await until(lambda: len(made.pids) == 2)
        _, other = await ring(made)
        assert await asked(other, "0") != leaking
        assert await asked(line, "0") == leaking


async def test_a_process_that_leaks_far_too_much_is_killed_and_its_calls_go_on():
    async with pool(processes=1, memory_mb=100.0) as made:
        _, line = await ring(made)
        leaking = await asked(line, "0")
        line.press("5")
        await until(lambda: made.host.calls[0].handed_over == 1 and made.host.calls[0].worker, 20)
        line.press("0")
        await until(
            lambda: "pid" in line.heard_audio[-160:].decode() and leaking not in line.heard_audio[-160:].decode()
        )


async def test_changed_code_serves_new_calls_and_running_ones_keep_theirs(tmp_path):
    module = tmp_path / "spoken.py"
    app = tmp_path / "app.py"
    module.write_text("ANSWER = 'old'\n")
    app.write_text(
        "from uuid import uuid4\n"
        "from dialog.message import Message\n"
        "from dialog.voip.voip import VoIP\n"
        "from spoken import ANSWER\n"
        "def on_voip(voip):\n"
        "    def say(digit):\n"
        "        voip.post(Message(uuid=uuid4(), data=ANSWER.encode().ljust(160), done=True))\n"
        "    voip.on(VoIP.DTMF, say)\n"
    )
    async with pool(f"{app}:on_voip") as made:
        first, old = await ring(made)
        assert await asked(old, "0") == "old"
        module.write_text("ANSWER = 'the new one'\n")
        _, new = await ring(made)
        assert await asked(new, "0") == "the new one"
        assert await asked(old, "0") == "old"
        old.hang_up()
        await asyncio.wait_for(first.wait_closed(), 5)
        await until(lambda: len(made.pids) == 1)

        module.write_text("ANSWER = ")  # the old code goes on until it can be loaded
        await until(lambda: made._tolerated)
        _, third = await ring(made)
        assert await asked(third, "0") == "the new one"
        module.write_text("ANSWER = 'mended'\n")
        _, fourth = await ring(made)
        assert await asked(fourth, "0") == "mended"


async def test_code_that_cannot_be_loaded_is_told_at_the_start():
    with pytest.raises(ConfigurationError, match="cannot be loaded"):
        async with pool(f"{APP}:no_such_function"):
            pass


async def test_a_process_that_ends_by_itself_is_started_again_and_not_at_full_speed(caplog):
    async with pool() as made:
        (pid,) = made.pids.values()
        os.kill(pid, signal.SIGKILL)
        await until(lambda: pid not in made.pids.values())
        await until(lambda: made.ready)


async def test_a_process_that_cannot_be_started_now_is_started_later_and_not_at_full_speed(monkeypatch, caplog):
    async with pool() as made:
        (pid,) = made.pids.values()
        with monkeypatch.context() as broken:
            broken.setattr(sys, "executable", "/no/python/here")
            os.kill(pid, signal.SIGKILL)
            await until(lambda: made._failures >= 2)
        assert "could not be started" in caplog.text
        await until(lambda: made.ready)
        assert not made._failures


async def test_calls_wait_for_a_process_that_is_coming_up():
    async with pool(hosting=HostingSettings(admit_s=20.0)) as made:
        (pid,) = made.pids.values()
        os.kill(pid, signal.SIGKILL)
        await until(lambda: not made.ready)
        _, line = await ring(made)
        assert (await asked(line, "0")).startswith("pid")

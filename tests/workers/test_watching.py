"""What a worker process knows of itself: its code, and whether its loop is blocked."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import time
from pathlib import Path

from dialog.workers.blocked import LoopWatch
from dialog.workers.sources import fingerprint, user_sources


def test_the_sources_are_the_users_and_nobody_elses(tmp_path, monkeypatch):
    (tmp_path / "their_module.py").write_text("X = 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    __import__("their_module")
    try:
        sources = user_sources()
    finally:
        del sys.modules["their_module"]
    assert str(tmp_path / "their_module.py") in sources
    assert not any("site-packages" in path or path.endswith("dialog/message.py") for path in sources)
    assert asyncio.__file__ not in sources


def test_a_fingerprint_changes_with_a_file_and_when_it_goes(tmp_path):
    file = tmp_path / "main.py"
    file.write_text("1")
    first = fingerprint([str(file)])
    assert fingerprint([str(file)]) == first
    file.write_text("2")
    os.utime(file, ns=(1, 1))
    second = fingerprint([str(file)])
    file.unlink()
    assert len({first, second, fingerprint([str(file)])}) == 3


async def test_a_blocked_loop_is_told_once_with_the_line_that_blocks_it(caplog):
    watch = LoopWatch(limit_s=0.1)
    try:
        with caplog.at_level(logging.ERROR):
            hold_everybody_up()
            await asyncio.sleep(0)
    finally:
        watch.close()
    assert watch.blockages == 1
    assert "hold_everybody_up" in caplog.text


def hold_everybody_up() -> None:
    until = time.monotonic() + 0.6
    while time.monotonic() < until:
        time.sleep(0.01)


BLOCKED = """
import asyncio, os, time
from dialog.workers.blocked import LoopWatch

async def main():
    LoopWatch(0.1, abandoned_s=0.3)
    print(os.getpid(), flush=True)
    time.sleep(60)

asyncio.run(main())
"""
PARENT = """
import subprocess, sys

child = subprocess.Popen([sys.executable, "-c", sys.argv[1]], stdout=subprocess.PIPE)
print(child.stdout.readline().decode(), flush=True)
sys.stdin.readline()
"""


async def test_a_process_that_is_blocked_goes_when_nobody_is_left_who_would_end_it():
    parent = await asyncio.create_subprocess_exec(
        *[sys.executable, "-c", PARENT, BLOCKED],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    assert parent.stdout is not None
    async with asyncio.timeout(20):
        pid = int(await parent.stdout.readline())
        await asyncio.sleep(1.0)  # blocked for longer, and its parent lives
        assert Path(f"/proc/{pid}").exists()
        parent.kill()
        await parent.wait()
        while Path(f"/proc/{pid}").exists():
            await asyncio.sleep(0.02)

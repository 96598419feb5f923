"""What holds for every test: nothing is left running when it ends, nor any process when all have ended."""

from __future__ import annotations

import asyncio
import inspect
import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, settings
from steady import SteadyLoop, steady_time

from dialog.clock import SYSTEM_CLOCK

_RUN = "TESTS_OF_DIALOG"


def _processes_of(run: str) -> dict[int, str]:
    """Command lines of the processes that were started during a run of the tests, however indirectly."""
    found: dict[int, str] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if f"{_RUN}={run}".encode() in (folder / "environ").read_bytes().split(b"\0"):
                command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                if command and "multiprocessing" not in command:
                    found[int(folder.name)] = f"{command}({_origin(folder)})"
        except OSError:
            continue  # it has just ended, or is somebody else's
    return found


def _origin(folder: Path) -> str:
    """Which test started a process, and what it does, for whoever has to find out why it is still there."""
    environment = dict(
        entry.split("=", 1) for entry in (folder / "environ").read_text(errors="replace").split("\0") if "=" in entry
    )
    status = dict(line.split(":\t", 1) for line in (folder / "status").read_text().splitlines() if ":\t" in line)
    test = environment.get("PYTEST_CURRENT_TEST", "no test")
    threads = [
        f"{(thread / 'wchan').read_text()} {(thread / 'syscall').read_text().split(' ', 1)[0].strip()}"
        for thread in (folder / "task").iterdir()
    ]
    return f"{test}; parent {status['PPid'].strip()}, {status['State']}, threads in {threads}"


@pytest.fixture(autouse=True, scope="session")
def _no_process_left() -> Iterator[None]:
    run = os.environ[_RUN] = uuid4().hex
    yield
    until = time.monotonic() + 30.0
    while (left := _processes_of(run)) and time.monotonic() < until:
        time.sleep(0.1)  # those whose starter was killed take a moment to notice, a blocked one ten seconds
    assert not left, f"processes left running: {left}"


def pytest_asyncio_loop_factories(config, item):
    """Every test's loop keeps steady time, and so does what reads the system's clock."""
    return {"steady": SteadyLoop}


SYSTEM_CLOCK.now = steady_time

# How long an example takes is the machine's business.
settings.register_profile("steady", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("steady")


class _Unheard(logging.Filter):
    """Errors of tasks that nobody asked for: they are told when a task is collected, which may be in any later test."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[str] = []

    def filter(self, record: logging.LogRecord) -> bool:
        """Take it away: Python 3.11.7 cannot always write a traceback down in the middle of a collection."""
        if "never retrieved" not in record.getMessage():
            return True
        error = record.exc_info[1] if record.exc_info else None
        if not _of_a_library(error):
            self.told.append(f"{record.getMessage()}: {error!r}")
        return False


def _of_a_library(error: BaseException | None) -> bool:
    """Whether the task that failed was a library's own: aiortc asks none of the senders of its transports how it ended."""
    if error is None or error.__traceback__ is None:
        return False
    _, installed, module = error.__traceback__.tb_frame.f_code.co_filename.rpartition("/site-packages/")
    return bool(installed) and not module.startswith("dialog/")


@pytest.fixture(autouse=True, scope="session")
def _unheard() -> Iterator[_Unheard]:
    unheard = _Unheard()
    logging.getLogger("asyncio").addFilter(unheard)
    yield unheard
    logging.getLogger("asyncio").removeFilter(unheard)


@pytest.fixture(autouse=True)
def _no_error_unheard(_unheard: _Unheard) -> Iterator[None]:
    yield
    told, _unheard.told = _unheard.told, []
    assert not told, "a task has failed, in this test or in one before it, and nobody asked"


@pytest.fixture
async def _no_task_left():
    before = asyncio.all_tasks()
    yield
    # Transports close and callbacks run in the iterations that follow the test's last line.
    for _ in range(5):
        await asyncio.sleep(0)
    left = [task for task in asyncio.all_tasks() - before if not task.done() and task is not asyncio.current_task()]
    if left:
        await asyncio.wait(left, timeout=0.5)
        left = [task for task in left if not task.done()]
    assert not left, f"tasks left running: {left}"


@pytest.fixture(autouse=True)
def _leaves_nothing_behind(request):
    if inspect.iscoroutinefunction(getattr(request, "function", None)):
        request.getfixturevalue("_no_task_left")

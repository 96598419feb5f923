"""Several processes that dial together, and their figures as one."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Callable, Sequence

import msgspec

from dialog._processes import end_process
from dialog.errors import StateError
from dialog.testing._load_worker import GO, LENGTH_BYTES, Job, State, framed
from dialog.testing.load_figures import Figures
from dialog.testing.load_outcome import CallOutcome
from dialog.testing.load_plan import LoadPlan

__all__ = ["Fleet"]

_START_S = 30.0
_SILENT_S = 60.0
"""A process tells its state twice a second: one that says nothing for so long is lost."""
_LARGEST = 64 * 1024 * 1024
_EXIT_S = 5.0
_decoder = msgspec.msgpack.Decoder(State)


class Fleet:
    """``plan.processes`` processes, each with its share of the calls; as :class:`Dialler` otherwise."""

    def __init__(self, plan: LoadPlan, audio: Sequence[bytes], *, on_outcome: Callable[[CallOutcome], object]) -> None:
        self.lost: int = 0
        """Processes that died or fell silent: their live calls are not accounted for."""
        self._plan = plan
        self._audio = tuple(audio)
        self._on_outcome = on_outcome
        self._states: dict[int, Figures] = {}
        self._processes: list[asyncio.subprocess.Process] = []
        self._stopped = False

    def stop(self) -> None:
        """Dial no more, and let all live callers hang up. Idempotent."""
        self._stopped = True
        for process in self._processes:
            if process.stdin is not None:
                process.stdin.close()

    def measure(self) -> Figures:
        """The figures of all processes together, as of their newest states."""
        together = Figures()
        for figures in self._states.values():
            together.merge(figures)
        return together

    async def run(self) -> None:
        """Dial all, and wait until the last call is over. Cancelling it ends all processes.

        Raises:
            StateError: A process could not be started.
        """
        try:
            for share in range(self._plan.processes):
                self._processes.append(await self._start(share))
            for share, process in enumerate(self._processes):
                async with asyncio.timeout(_START_S):
                    await self._read(share, process)
            for process in self._processes:
                if process.stdin is not None and not self._stopped:
                    process.stdin.write(GO)
            async with asyncio.TaskGroup() as tasks:
                for share, process in enumerate(self._processes):
                    tasks.create_task(self._follow(share, process), name=f"load process {share}")
        except (OSError, TimeoutError, asyncio.IncompleteReadError) as exc:
            raise StateError(f"a process of the load did not start: {exc!r}") from exc
        finally:
            for process in self._processes:
                await end_process(process, within_s=_EXIT_S)

    async def _start(self, share: int) -> asyncio.subprocess.Process:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "dialog.testing._load_worker",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for us: it lets the callers hang up
        )
        assert process.stdin is not None
        process.stdin.write(framed(Job(plan=self._plan, audio=self._audio, share=share)))
        return process

    async def _follow(self, share: int, process: asyncio.subprocess.Process) -> None:
        """Take the states of a process until its last."""
        with contextlib.suppress(OSError, TimeoutError, asyncio.IncompleteReadError, msgspec.MsgspecError):
            while True:
                async with asyncio.timeout(_SILENT_S):
                    state = await self._read(share, process)
                if state.over:
                    return
        if not self._stopped or self._states[share].dialled:
            self.lost += 1

    async def _read(self, share: int, process: asyncio.subprocess.Process) -> State:
        assert process.stdout is not None
        size = int.from_bytes(await process.stdout.readexactly(LENGTH_BYTES), "big")
        if size > _LARGEST:
            raise OSError(f"a state of {size} bytes")
        state = _decoder.decode(await process.stdout.readexactly(size))
        self._states[share] = state.figures
        for outcome in state.outcomes:
            self._on_outcome(outcome)
        return state

"""The Silero process of an event loop: shared by all calls, started by the first, ended with the last.

A process and not a thread, because the model holds the interpreter's lock while it computes; and in
it, one thread for the model instead of four that wait for each other, which takes a quarter of the time.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections import deque
from collections.abc import Callable
from itertools import count
from typing import ClassVar
from weakref import WeakKeyDictionary

import msgspec
from msgspec import Struct

from dialog._processes import end_process
from dialog.errors import ProviderError
from dialog.message import AudioFormat
from dialog.vad._silero_worker import LENGTH_BYTES, Job, framed

__all__ = ["SileroProcess"]

logger = logging.getLogger(__name__)

_BATCH_TIMEOUT_S = 5.0
_EXIT_S = 1.0
_BATCH = 256
"""Chunks that are sent at once; the model takes a quarter of a millisecond for each."""
_TRIES = 3
"""Processes that may fail one after the other before the calls are told."""
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.05, 5.0
"""Between a failure and the next process; twice as long each time."""
_ENVIRONMENT = {"OMP_THREAD_LIMIT": "1", "OMP_WAIT_POLICY": "passive"}

Deliver = Callable[["float | None"], object]
"""Takes the probability of speech, or None if it was lost with the process."""


class _Waiting(Struct):
    job: Job
    deliver: Deliver


class SileroProcess:
    """Judges chunks of all calls of a loop, all that wait at once. A process that dies is started again."""

    _shared: ClassVar[WeakKeyDictionary[asyncio.AbstractEventLoop, SileroProcess]] = WeakKeyDictionary()

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._users: dict[int, Callable[[ProviderError], object]] = {}
        self._numbers = count(1)
        self._waiting: deque[_Waiting] = deque()
        self._wake = asyncio.Event()
        self._process: asyncio.subprocess.Process | None = None
        self._task: asyncio.Task[None] | None = None
        self._failures = 0
        self.starts = 0
        """How often the process was started."""

    @classmethod
    def acquire(cls, failed: Callable[[ProviderError], object]) -> tuple[SileroProcess, int]:
        """The running loop's process, started if need be, and the number of a new stream for :meth:`submit`.

        ``failed`` is told when the process cannot be kept alive.
        """
        loop = asyncio.get_running_loop()
        shared = cls._shared.get(loop)
        if shared is None:
            shared = cls._shared[loop] = cls(loop)
            shared._task = loop.create_task(shared._run(), name="silero process")
        stream = next(shared._numbers)
        shared._users[stream] = failed
        return shared, stream

    def release(self, stream: int) -> asyncio.Task[None] | None:
        """End a stream; for the last one, the task that ends with the process."""
        self._users.pop(stream)
        if self._users:
            self.submit(stream, AudioFormat("s16le", 16000), b"", lambda _: None)
            return None
        self._shared.pop(self._loop, None)
        assert self._task is not None
        self._task.cancel()
        return self._task

    @property
    def pid(self) -> int | None:
        """Id of the process, while it runs."""
        return self._process.pid if self._process is not None else None

    def submit(self, stream: int, audio_format: AudioFormat, audio: bytes, deliver: Deliver) -> None:
        """Judge the next 32 ms of a stream; ``deliver`` is called later, in the order of submission.

        How many may wait is the caller's to bound.
        """
        self._waiting.append(_Waiting(Job(stream=stream, audio_format=audio_format, audio=audio), deliver))
        self._wake.set()

    async def _run(self) -> None:
        """Keep a process and give it one batch at a time; cancelled by :meth:`release`."""
        try:
            while True:
                await self._work_waits()
                if self._failures:
                    await asyncio.sleep(min(_LONGEST_WAIT_S, _FIRST_WAIT_S * 2.0**self._failures))
                process = await self._start()
                if process is None:
                    continue
                try:
                    await self._serve(process)
                except (OSError, EOFError, TimeoutError, msgspec.MsgspecError, asyncio.IncompleteReadError) as exc:
                    self._died("took too long" if isinstance(exc, TimeoutError) else "went away")
                finally:
                    await self._stop(process)
        finally:
            self._waiting.clear()

    async def _start(self) -> asyncio.subprocess.Process | None:
        self.starts += 1
        try:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "dialog.vad._silero_worker",
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                env=os.environ | _ENVIRONMENT,
            )
        except OSError as exc:
            self._died(f"cannot be started ({exc})")
            return None
        return self._process

    async def _serve(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        decoder = msgspec.msgpack.Decoder(list[float])
        while True:
            await self._work_waits()
            batch = [self._waiting[index] for index in range(min(_BATCH, len(self._waiting)))]
            async with asyncio.timeout(_BATCH_TIMEOUT_S):
                process.stdin.write(framed([one.job for one in batch]))
                await process.stdin.drain()
                size = int.from_bytes(await process.stdout.readexactly(LENGTH_BYTES), "big")
                result = decoder.decode(await process.stdout.readexactly(size))
            self._failures = 0
            for one, probability in zip(batch, result, strict=True):
                self._waiting.popleft()
                one.deliver(probability)

    async def _work_waits(self) -> None:
        while not self._waiting:
            self._wake.clear()
            await self._wake.wait()

    def _died(self, what: str) -> None:
        """What waited is lost: a voice is not worth hearing seconds later."""
        self._failures += 1
        logger.warning("silero process %s", what)
        lost, self._waiting = self._waiting, deque()
        for one in lost:
            one.deliver(None)
        if self._failures == _TRIES:
            error = ProviderError("silero", f"the process {what}, {_TRIES} times in a row", retryable=True)
            for failed in list(self._users.values()):
                failed(error)

    async def _stop(self, process: asyncio.subprocess.Process) -> None:
        """End a process whatever state it is in, and collect it."""
        self._process = None
        await end_process(process, within_s=_EXIT_S)

"""The recogniser process of an event loop: shared by all calls, started by the first, ended with the last.

A process and not a thread, because pocketsphinx holds the interpreter's lock for as long as it
decodes, which would stop every call.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections import deque
from typing import ClassVar
from weakref import WeakKeyDictionary

import msgspec
from msgspec import Struct

from dialog._processes import end_process
from dialog.errors import ConfigurationError, LimitError, ProviderError
from dialog.message import AudioFormat
from dialog.stt._sphinx_worker import LENGTH_BYTES, Job, Result, framed
from dialog.stt.grammar import Grammar

__all__ = ["RecogniserProcess"]

logger = logging.getLogger(__name__)

_QUEUE = 64
"""Jobs that may wait; the last of them is then some five seconds late already."""
_JOB_TIMEOUT_S = 10.0
_EXIT_S = 1.0


class _Waiting(Struct):
    job: Job
    future: asyncio.Future[Result]
    tries: int = 0


class RecogniserProcess:
    """Recognises for all calls of a loop, one utterance after the other.

    When the process dies it is started again and the utterance that it was at is tried once more.
    """

    _shared: ClassVar[WeakKeyDictionary[asyncio.AbstractEventLoop, RecogniserProcess]] = WeakKeyDictionary()

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._users = 0
        self._number = 0
        self._jobs: deque[_Waiting] = deque()
        self._wake = asyncio.Event()
        self._process: asyncio.subprocess.Process | None = None
        self._task: asyncio.Task[None] | None = None
        self.starts = 0
        """How often the process was started."""

    @classmethod
    def acquire(cls) -> RecogniserProcess:
        """The running loop's process, started if need be; give it back with :meth:`release`."""
        loop = asyncio.get_running_loop()
        shared = cls._shared.get(loop)
        if shared is None:
            shared = cls._shared[loop] = cls(loop)
            shared._task = loop.create_task(shared._run(), name="recogniser process")
        shared._users += 1
        return shared

    def release(self) -> asyncio.Task[None] | None:
        """Give it back; for the last user, the task that ends with the process."""
        self._users -= 1
        if self._users:
            return None
        self._shared.pop(self._loop, None)
        assert self._task is not None
        self._task.cancel()
        return self._task

    @property
    def pid(self) -> int | None:
        """Id of the process, while it runs."""
        return self._process.pid if self._process is not None else None

    async def hear(self, grammar: Grammar, audio_format: AudioFormat, audio: bytes, *, over: bool = True) -> Result:
        """Recognise an utterance; without audio, only make the grammar's recogniser ready.

        Raises:
            ConfigurationError: The grammar has a word that cannot be pronounced.
            ProviderError: The process died twice over it, or took more than ten seconds.
            LimitError: Too many utterances wait already.
        """
        if len(self._jobs) >= _QUEUE:
            raise LimitError(f"pocketsphinx: {_QUEUE} utterances wait for the recogniser process; this one is dropped")
        self._number += 1
        job = Job(number=self._number, grammar=grammar, audio_format=audio_format, audio=audio, over=over)
        waiting = _Waiting(job, self._loop.create_future())
        self._jobs.append(waiting)
        self._wake.set()
        result = await waiting.future
        if result.error:
            raise ConfigurationError(result.error)
        return result

    async def _run(self) -> None:
        """Keep a process and give it one job at a time; cancelled by :meth:`release`."""
        try:
            while True:
                process = await self._start()
                if process is None:
                    continue
                try:
                    await self._serve(process)
                except (OSError, EOFError, TimeoutError, msgspec.MsgspecError, asyncio.IncompleteReadError) as exc:
                    self._died(exc)
                finally:
                    await self._stop(process)
        finally:
            for waiting in self._jobs:
                waiting.future.cancel()
            self._jobs.clear()

    async def _start(self) -> asyncio.subprocess.Process | None:
        """Start a process, once there is work after a failure."""
        self.starts += 1
        try:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "dialog.stt._sphinx_worker",
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
            )
        except OSError as exc:
            await self._work_waits()
            while self._jobs:
                self._fail(self._jobs.popleft(), f"cannot start the recogniser process: {exc}")
            return None
        return self._process

    async def _serve(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        decoder = msgspec.msgpack.Decoder(Result)
        while True:
            await self._work_waits()
            waiting = self._jobs[0]
            if not waiting.future.done():
                waiting.tries += 1
                async with asyncio.timeout(_JOB_TIMEOUT_S):
                    process.stdin.write(framed(waiting.job))
                    await process.stdin.drain()
                    size = int.from_bytes(await process.stdout.readexactly(LENGTH_BYTES), "big")
                    result = decoder.decode(await process.stdout.readexactly(size))
                if not waiting.future.done():
                    waiting.future.set_result(result)
            self._jobs.popleft()

    async def _work_waits(self) -> None:
        while not self._jobs:
            self._wake.clear()
            await self._wake.wait()

    def _died(self, exc: Exception) -> None:
        what = "took too long" if isinstance(exc, TimeoutError) else "went away"
        logger.warning("recogniser process %s; starting another", what)
        if self._jobs and self._jobs[0].tries >= 2:
            self._fail(self._jobs.popleft(), f"the recogniser process {what} twice over one utterance")

    @staticmethod
    def _fail(waiting: _Waiting, reason: str) -> None:
        if not waiting.future.done():
            waiting.future.set_exception(ProviderError("pocketsphinx", reason, retryable=True))

    async def _stop(self, process: asyncio.subprocess.Process) -> None:
        """End a process whatever state it is in, and collect it."""
        self._process = None
        await end_process(process, within_s=_EXIT_S)

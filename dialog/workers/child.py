"""A worker process, as whoever started it holds it."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from contextlib import suppress

import msgspec

from dialog.workers.process import Orders

__all__ = ["Child", "backoff_s"]

logger = logging.getLogger(__name__)

_BACKOFF_S = (0.1, 0.5, 1.0, 2.0, 5.0)
_KILL_MEMORY = 1.5


def backoff_s(failures: int) -> float:
    """How long to wait before the next start after so many failures in a row."""
    return 0.0 if not failures else _BACKOFF_S[min(failures, len(_BACKOFF_S)) - 1]


class Child:
    """One worker process, from its start to its end.

    Its orders go to it on its standard input, which shows no secret to who lists processes; that stays open,
    so that its end tells the child that nobody looks after it any more.
    """

    def __init__(self, orders: Orders) -> None:
        self.node = orders.node
        self.orders = orders
        self.process: asyncio.subprocess.Process | None = None
        self.ready = asyncio.Event()
        """It has said that it is there."""
        self.retired = False
        """It gets no more calls, and goes when it has none."""
        self.told = False
        """… and was told so."""
        self.killed = False
        self.silent_since: float | None = None

    async def start(self, socket_fd: int | None = None) -> None:
        """Start it, with its end of a socket if it shall use one."""
        self.process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "dialog.workers.process",
            *(() if socket_fd is None else (str(socket_fd),)),
            pass_fds=() if socket_fd is None else (socket_fd,),
            stdin=asyncio.subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for us: we end them
        )
        assert self.process.stdin is not None
        self.process.stdin.write(msgspec.json.encode(self.orders) + b"\n")
        if self.told:  # while it was not there yet, so that it did not hear of it
            self.tell()

    async def wait(self, start_s: float) -> int:
        """Wait for its end, and return how it ended; one that is not ready within ``start_s`` is killed."""
        assert self.process is not None
        exited = asyncio.create_task(self.process.wait(), name=f"{self.node} exits")
        ready = asyncio.create_task(self.ready.wait(), name=f"{self.node} is ready")
        try:
            await asyncio.wait({exited, ready}, timeout=start_s, return_when=asyncio.FIRST_COMPLETED)
            if not exited.done() and not ready.done():
                logger.error("worker %s did not start within %g s, and is killed", self.node, start_s)
                self.kill()
            return await exited
        finally:
            ready.cancel()
            exited.cancel()
            await asyncio.wait({ready, exited})

    async def collect(self) -> None:
        """Make sure that nothing of it is left."""
        process = self.process
        if process is None:
            return
        if process.returncode is None:
            self.kill()
        await process.wait()
        if process.stdin is not None:
            process.stdin.close()

    async def end(self, within_s: float) -> None:
        """Tell it to end now, and kill it after ``within_s``."""
        self.told = True
        # One that is not ready has nothing to take leave of; SIGINT would have it write a traceback.
        self._signal(signal.SIGINT if self.ready.is_set() else signal.SIGTERM)
        if self.process is None:
            return
        try:
            async with asyncio.timeout(within_s):
                await self.process.wait()
        except TimeoutError:
            self.kill()
            await self.process.wait()

    def tell(self) -> None:
        """Ask it to take no more calls, and to go when it has none."""
        self.told = True
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it now."""
        self.killed = True
        self._signal(signal.SIGKILL)

    def memory_verdict(self, used_mb: float, cap_mb: float | None) -> bool:
        """Whether it shall get no more calls because of the memory that it takes; far beyond the cap it is killed."""
        if cap_mb is None or used_mb <= cap_mb:
            return False
        if used_mb > cap_mb * _KILL_MEMORY and not self.killed:
            logger.error("worker %s takes %.0f MB and is killed; the cap is %.0f MB", self.node, used_mb, cap_mb)
            self.kill()
            return False
        if self.retired:
            return False
        logger.warning("worker %s takes %.0f MB and gets no more calls; the cap is %.0f MB", self.node, used_mb, cap_mb)
        return True

    def silence_verdict(self, silent: bool, now: float, kill_s: float) -> None:
        """Kill it if it has been ``silent`` for ``kill_s``: its event loop is blocked."""
        if not silent:
            self.silent_since = None
        elif self.silent_since is None:
            self.silent_since = now
        elif now - self.silent_since >= kill_s and not self.killed:
            logger.error("worker %s has been blocked for %g s and is killed", self.node, kill_s)
            self.kill()

    def _signal(self, number: signal.Signals) -> None:
        if self.process is not None and self.process.returncode is None:
            with suppress(ProcessLookupError):
                self.process.send_signal(number)

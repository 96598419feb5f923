"""Dials the callers of one process, by the clock."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

import aiohttp

from dialog.clock import Clock
from dialog.testing.call import CallSpec
from dialog.testing.load_caller import LoadCaller, Shared
from dialog.testing.load_figures import Figures
from dialog.testing.load_hosts import NamedHosts
from dialog.testing.load_metronome import Metronome
from dialog.testing.load_outcome import CallOutcome
from dialog.testing.load_plan import LoadPlan
from dialog.testing.load_speech import cut

__all__ = ["Dialler"]


class Dialler:
    """The callers whose number is ``share`` more than a multiple of ``plan.processes``.

    ``on_outcome`` is given each call when it is over.
    """

    def __init__(
        self,
        plan: LoadPlan,
        audio: Sequence[bytes],
        *,
        clock: Clock,
        on_outcome: Callable[[CallOutcome], object],
        share: int = 0,
    ) -> None:
        self.figures: Figures = Figures()
        self._plan = plan
        self._clock = clock
        self._utterances = [cut(one) for one in audio]
        self._on_outcome = on_outcome
        self._share = share
        self._live: dict[asyncio.Task[CallOutcome], LoadCaller] = {}
        self._stopping = asyncio.Event()
        self._freed = asyncio.Event()
        self._began = 0.0
        self._cpu = 0.0

    def stop(self) -> None:
        """Dial no more, and let all live callers hang up. Idempotent."""
        self._stopping.set()
        for caller in self._live.values():
            caller.leave()

    def measure(self) -> Figures:
        """The figures as they are now; they go on changing."""
        if self._began:
            self.figures.seconds = self._clock.now() - self._began
            self.figures.cpu_s = time.process_time() - self._cpu
        return self.figures

    async def run(self) -> None:
        """Dial all, and wait until the last call is over. Cancelling it ends all calls."""
        plan = self._plan
        self._began, self._cpu = self._clock.now(), time.process_time()
        connector = NamedHosts(plan.hosts)
        session = aiohttp.ClientSession(
            connector=connector, cookie_jar=aiohttp.DummyCookieJar(), timeout=aiohttp.ClientTimeout(total=None)
        )
        async with session:
            shared = Shared(
                session=session,
                metronome=Metronome(self._clock, self.figures.lag),
                figures=self.figures,
                utterances=self._utterances,
                settings=plan.talk(),
                began=self._began,
                seed=plan.seed,
            )
            try:
                await self._dial_all(shared)
                while self._live:
                    await asyncio.wait(self._live)
            finally:
                for task in self._live:
                    task.cancel()
                while self._live:
                    await asyncio.wait(self._live)
        self.measure()

    async def _dial_all(self, shared: Shared) -> None:
        plan = self._plan
        total, duration = plan.total, plan.duration_s
        most = len(range(self._share, plan.concurrency, plan.processes))
        number = self._share
        while (total is None or number < total) and not self._stopping.is_set():
            at_s = number / plan.calls_per_s
            if duration is not None and at_s >= duration:
                return
            await self._rest_until(at_s)
            while len(self._live) >= most and not self._stopping.is_set():
                if duration is not None and self._clock.now() - self._began >= duration:
                    return
                self._freed.clear()
                await self._wait(self._freed, None if duration is None else duration)
            if self._stopping.is_set() or (duration is not None and self._clock.now() - self._began >= duration):
                return
            self._dial(number + 1, shared)
            number += plan.processes

    def _dial(self, number: int, shared: Shared) -> None:
        plan = self._plan
        spec = CallSpec(
            url=plan.url,
            auth_token=plan.auth_token,
            account_sid=plan.account_sid,
            from_=f"+1555{number % 10_000_000:07d}",
            to="+15551230002",
            clock=self._clock,
            public_url=plan.public_url,
            session=shared.session,
        )
        caller = LoadCaller(spec, number, shared)
        task = asyncio.create_task(caller.live(), name=f"caller {number}")
        self._live[task] = caller
        task.add_done_callback(self._over)

    def _over(self, task: asyncio.Task[CallOutcome]) -> None:
        del self._live[task]
        self._freed.set()
        if not task.cancelled():
            self._on_outcome(task.result())

    async def _rest_until(self, at_s: float) -> None:
        """Wait for a time of the load, or until it is stopped."""
        await self._wait(self._stopping, at_s)

    async def _wait(self, event: asyncio.Event, until_s: float | None) -> None:
        remaining = None if until_s is None else self._clock.real(until_s - (self._clock.now() - self._began))
        if remaining is not None and remaining <= 0:
            await asyncio.sleep(0)  # a dialler that is behind lets its callers run
            return
        try:
            async with asyncio.timeout(remaining):
                await event.wait()
        except TimeoutError:
            return

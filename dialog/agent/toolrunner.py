"""Tools at work: they are started for a turn, may outlive it, and what they answer is never lost.

A result reaches the model in one of three ways: in the next step of its own turn; in the request of a
later turn, which waits a moment for it; or, when that could not wait any longer, in a turn of the
agent's own that is spoken when there is room.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol
from uuid import UUID

from dialog.agent.settings import AgentSettings
from dialog.agent.speech import outside_speech
from dialog.agent.tools import Toolbox
from dialog.agent.turn import Turn
from dialog.calls import events as ev
from dialog.clock import Clock
from dialog.llm.llm import ToolCall, ToolResult
from dialog.usage import Usage
from dialog.voip.voip import VoIP

__all__ = ["Engine", "Host", "Job", "ToolRunner"]

_STOPPING_S = 1.0
"""How long tools that were cancelled at the end of the call may take to end."""


class Engine(Protocol):
    """What a tool at work needs of the engine."""

    def ask(self, reply: Callable[[], AsyncIterator[str] | None]) -> Turn | None: ...  # noqa: D102
    def patience(self, turn: Turn, seconds: float) -> AbstractContextManager[None]: ...  # noqa: D102
    def tool_started(self, call_id: str) -> None: ...  # noqa: D102
    def tool_ended(self, call_id: str) -> None: ...  # noqa: D102


class Host(Protocol):
    """What tools at work need of the conversation."""

    settings: AgentSettings
    voip: VoIP

    @property
    def diverted(self) -> bool:
        """A script has the call: the model says nothing by itself."""
        ...

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None] | None:
        """A task that the agent owns."""
        ...

    def happened(self, event: Callable[..., Any], **fields: Any) -> int:
        """Note an event of the call; returns its number."""
        ...

    def used(self, turn: UUID | None, usage: Usage) -> None:
        """A provider tells what was used."""
        ...

    def acts(self, turn: Turn) -> None:
        """Tools of ``turn`` are about to start."""
        ...

    def acted(self) -> None:
        """A tool has ended, and its result is about to be told."""
        ...

    async def may_act(self, seq: int) -> str:
        """Wait until the event of that number is kept; why a tool must not start all the same, else empty."""
        ...


class _Step:
    """What the model asked for at once; ``begun``: it is in history, for it acts."""

    __slots__ = ("begun", "jobs")

    def __init__(self) -> None:
        self.begun = False
        self.jobs: list[Job] = []


class Job:
    """A tool at work."""

    __slots__ = (
        "again",
        "background",
        "call",
        "cancels",
        "filler",
        "key",
        "result",
        "seq",
        "started_s",
        "step",
        "task",
        "turn",
        "waited",
    )

    def __init__(
        self, turn: Turn, call: ToolCall, step: _Step, *, filler: str, background: bool, cancels: bool, again: bool
    ) -> None:
        self.turn: Turn = turn
        """Whose model asked for it."""
        self.call: ToolCall = call
        self.step: _Step = step
        self.filler: str = filler
        """Said while it is waited for; empty once it was."""
        self.background: bool = background
        """The model does not wait for it."""
        self.cancels: bool = cancels
        """It stops when its turn is given up."""
        self.again: bool = again
        """It had started in another process, and nobody knows what became of it."""
        self.key: str = ""
        self.seq: int = -1
        """Of the event that it has started."""
        self.waited: bool = False
        """A later turn has waited for it in vain; the next one does not."""
        self.started_s: float = 0.0
        self.result: ToolResult | None = None
        self.task: asyncio.Task[None] | None = None

    @property
    def done(self) -> bool:
        """It has ended, however."""
        return self.task is None or self.task.done()


class _News:
    """A result that came when nobody asked any more; ``reader``: the turn whose model was told since."""

    __slots__ = ("reader",)

    def __init__(self) -> None:
        self.reader: Turn | None = None

    @property
    def read(self) -> bool:
        reader = self.reader
        return reader is not None and not reader.dropped and not reader.failed and not reader.speculative


class ToolRunner:
    """Runs the tools of one call.

    Args:
        host: The conversation.
        engine: Speaks, and gives the floor.
        toolbox: The agent's tools.
        clock: The call's.
        respond: Asks the model, for the turn that has the floor.
    """

    def __init__(
        self,
        host: Host,
        engine: Engine,
        toolbox: Toolbox,
        clock: Clock,
        respond: Callable[[], AsyncIterator[str]],
    ) -> None:
        self._host = host
        self._engine = engine
        self._toolbox = toolbox
        self._clock = clock
        self._respond = respond
        self._jobs: dict[asyncio.Task[None], Job] = {}
        self._news: list[_News] = []
        self._asked: Turn | None = None
        """The turn that is to tell them."""
        self._pending = False
        """It has not had the floor yet."""

    @property
    def running(self) -> bool:
        """Whether any tool is at work."""
        return bool(self._jobs)

    def may_repeat(self, name: str) -> bool:
        """Whether a tool may be run again that had started in another process."""
        return self._toolbox.is_idempotent(name)

    # -- for the turn that called them ------------------------------------------------------------

    def start(self, turn: Turn, calls: Sequence[ToolCall]) -> list[Job]:
        """Start the calls of one step of the model, all at the same time."""
        step = _Step()
        for call in calls:
            self._start(turn, call, step)
        return step.jobs

    def again(self, turn: Turn, call: ToolCall, key: str) -> None:
        """Run a tool once more that had started in another process; its call is in the turn's draft."""
        step = _Step()
        step.begun = True
        self._start(turn, call, step, key=key)

    def _start(self, turn: Turn, call: ToolCall, step: _Step, *, key: str = "") -> None:
        found = self._toolbox.get(call.name)
        options = found.options if found is not None else None
        job = Job(
            turn,
            call,
            step,
            filler=options.filler if options is not None else "",
            background=options is not None and options.background,
            cancels=self._toolbox.stops_on_interrupt(call.name),
            again=step.begun,
        )
        job.key = key
        task = self._host.spawn(self._work(job), f"tool {call.name}")
        if task is not None:
            job.task = task
            step.jobs.append(job)
            self._jobs[task] = job
            task.add_done_callback(self._ended)

    async def finish(self, turn: Turn, jobs: Sequence[Job]) -> None:
        """Wait for the results of a step; those of background tools follow later.

        Cancelling this lets go of the tools: what has started goes on, unless it is declared to stop.
        """
        tasks = [job.task for job in jobs if job.task is not None and not job.background]
        try:
            with self._engine.patience(turn, self._toolbox.longest_s([job.call for job in jobs])):
                if tasks:
                    await self._wait(turn, tasks)
                elif jobs:
                    await asyncio.sleep(0)  # those in the background have begun before the model is told so
        except asyncio.CancelledError:
            for job in jobs:
                if job.task is not None and (job.cancels or turn.speculative):
                    job.task.cancel()
            raise

    async def _wait(self, turn: Turn, tasks: Sequence[asyncio.Task[None]]) -> None:
        """Wait for tools, until one of them lets go of the turn."""
        turn.left = asyncio.Event()
        left = asyncio.ensure_future(turn.left.wait())
        done = asyncio.ensure_future(asyncio.wait(tasks))  # what it waits for is not cancelled with it
        try:
            await asyncio.wait((done, left), return_when=asyncio.FIRST_COMPLETED)
        finally:
            left.cancel()
            done.cancel()

    async def _work(self, job: Job) -> None:
        turn = job.turn
        if not job.step.begun:
            if turn.speech.closed:
                return  # given up before anything has started: it never acts, and leaves no trace
            job.step.begun = True
            self._begin(turn, job.step)
        call = job.call
        job.started_s = self._clock.now()
        if not job.background:
            self._engine.tool_started(call.id)
        else:
            outside_speech()  # the reply does not wait for this one, so this one may wait for the reply
        refusal = await self._host.may_act(job.seq)
        if refusal:
            content = f"cancelled: it was not started, for {refusal}"
            job.result = ToolResult(id=call.id, name=call.name, content=content, state="cancelled")
            return
        tracer = self._host.voip.tracer
        with nullcontext() if tracer is None else tracer.tool(turn.uuid, call):
            job.result = await self._toolbox.run(
                call, key=job.key, wanted=lambda: job.background or job.again or not turn.speech.closed
            )

    def _begin(self, turn: Turn, step: _Step) -> None:
        """From here on what the step asks for is remembered, whatever becomes of it."""
        self._host.acts(turn)
        for job in step.jobs:
            call = job.call
            job.key = f"{turn.uuid}:{call.id}"
            turn.draft.call(call, background=job.background)
            job.seq = self._host.happened(
                ev.ToolStarted,
                turn=turn.uuid,
                call_id=call.id,
                name=call.name,
                arguments=call.arguments,
                key=job.key,
            )

    def _ended(self, task: asyncio.Task[None]) -> None:
        job = self._jobs.pop(task)
        if not job.step.begun:
            return
        if not job.background:
            self._engine.tool_ended(job.call.id)
        result = job.result or self._cancelled(job.call)
        late = job.turn.draft.is_news(result)
        self._host.acted()
        self._host.happened(
            ev.ToolEnded,
            turn=job.turn.uuid,
            call_id=job.call.id,
            name=job.call.name,
            result=result.content,
            state=result.state,
            took_s=round(self._clock.now() - job.started_s, 4),
            late=late,
        )
        job.turn.draft.result(result, again=job.again)
        given_up = job.turn.speech.closed and not job.turn.speculative
        if result.state != "cancelled" and (late or given_up):
            self._news.append(_News())
            self._ask()

    def _cancelled(self, call: ToolCall) -> ToolResult:
        why = "the call ended" if self._host.voip.state == "ended" else "the caller interrupted"
        return ToolResult(id=call.id, name=call.name, content=f"cancelled: {why}", state="cancelled")

    # -- for the turns after it -------------------------------------------------------------------

    def works_for(self, turn: Turn) -> bool:
        """Whether a tool is at work that ``turn`` waited for."""
        return any(job.turn is turn and not job.background for job in self._jobs.values())

    def unfinished(self, turn: Turn) -> list[Job]:
        """Tools of turns before ``turn`` whose results its request should hold."""
        return [
            job
            for job in self._jobs.values()
            if job.turn is not turn and not job.background and not job.waited and not job.turn.speculative
        ]

    async def settle(self, jobs: Sequence[Job]) -> None:
        """Give tools of earlier turns a moment to finish: once, then the model is told that they still run."""
        tasks = [job.task for job in jobs if job.task is not None]
        if not tasks:
            return
        await asyncio.wait(tasks, timeout=self._clock.real(self._host.settings.tool_patience_s))
        for job in jobs:
            job.waited = True

    def told(self, turn: Turn) -> None:
        """A request of ``turn`` goes out: it holds every result there is."""
        self._news = [news for news in self._news if not news.read or news.reader is turn]
        for news in self._news:
            news.reader = turn

    def line_up(self) -> None:
        """Media flows again: what could not be told meanwhile is told now."""
        if any(not news.read for news in self._news):
            self._ask()

    def _ask(self) -> None:
        """Let the model tell the caller of a late result, unless it is going to."""
        if self._pending and self._asked is not None and not self._asked.dropped:
            return
        self._pending = True
        self._asked = self._engine.ask(self._tell)
        if self._asked is None:
            self._pending = False  # the call is over

    def _tell(self) -> AsyncIterator[str] | None:
        """The floor is free: ask the model, unless another turn's request has held every result meanwhile."""
        self._pending = False
        self._news = [news for news in self._news if not news.read]
        if self._host.diverted:
            return None  # a script has the call: it is told when that gives it back
        return self._respond() if self._news else None

    # -- the end of the call ----------------------------------------------------------------------

    async def close(self) -> None:
        """Tools act in the world: let those that run finish, within a bound, and note what became of them."""
        if not self._jobs:
            return
        _, late = await asyncio.wait(tuple(self._jobs), timeout=self._clock.real(self._host.settings.tool_patience_s))
        for task in late:
            task.cancel()
        if late:
            await asyncio.wait(late, timeout=_STOPPING_S)

    def stop(self) -> None:
        """Cancel what still runs."""
        for task in self._jobs:
            task.cancel()

"""The default ``inference``: the model and its tools, step by step, until there is an answer."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable
from typing import Protocol

from dialog.agent.filler import Bridge, Rotation
from dialog.agent.streams import closing
from dialog.agent.toolrunner import Engine as ToolEngine
from dialog.agent.toolrunner import Host, Job, ToolRunner
from dialog.agent.tools import Toolbox
from dialog.agent.turn import Turn, current_turn
from dialog.calls import events as ev
from dialog.clock import Clock
from dialog.errors import ConfigurationError, LimitError
from dialog.llm.llm import CONNECTED, LLM, Entry, LLMEvent, LLMRequest, ModelSwitched, TextDelta, ToolCall, Usage

__all__ = ["Engine", "Responder"]

logger = logging.getLogger(__name__)

_ARRIVING_S = 1.0
"""How long the first turn may wait for the tools of servers that are still being reached."""
_ARRIVING_IN_TEXT_S = 15.0
"""Where nobody waits on the phone."""


class Engine(ToolEngine, Protocol):
    """What an answer needs of the engine."""

    @property
    def caller_speaking(self) -> bool:
        """The caller's voice is on."""
        ...

    def fill(self, turn: Turn, text: str) -> bool:
        """Say a filler in ``turn``, unless something of it sounds or waits to; tell whether it does."""
        ...

    def unfill(self, turn: Turn) -> None:
        """Take back a filler that has not begun to sound: the answer is there."""
        ...


class Responder:
    """Answers the turns of one call with a model.

    Args:
        host: The conversation.
        engine: Speaks, and gives the floor.
        llm: The model; without one every answer is an error.
        toolbox: The agent's tools.
        clock: The call's.
    """

    __slots__ = ("_clock", "_engine", "_host", "_llm", "_rotation", "_toolbox", "retired", "tools")

    def __init__(self, host: Host, engine: Engine, llm: LLM | None, toolbox: Toolbox, clock: Clock) -> None:
        self._host = host
        self._engine = engine
        self._llm = llm
        self._toolbox = toolbox
        self._clock = clock
        self._rotation = Rotation(host.settings.filler)
        self.retired: bool = False
        """Another agent has taken over: what its tools answer is that one's to tell."""
        self.tools: ToolRunner = ToolRunner(host, engine, toolbox, clock, self.respond)

    async def respond(self) -> AsyncIterator[str]:
        """Answer the running turn.

        Raises:
            ConfigurationError: There is no model.
            LimitError: The model called tools for ever.
            ProviderError: The model failed.
        """
        turn = current_turn.get()
        if self._llm is None or turn is None:
            raise ConfigurationError("this agent has no llm: pass one, or override inference()")
        bridge = self._bridge(turn)
        answer = _Answer()
        try:
            earlier = self.tools.unfinished(turn)
            if earlier:
                bridge.wait(earlier)
                await self.tools.settle(earlier)
            if self._toolbox.arriving is not None:
                bridge.wait()
                await self._arrive(self._toolbox.arriving())
            for step in range(1, self._host.settings.max_steps + 1):
                # The last step gets no tools, so that it has to answer.
                last = step == self._host.settings.max_steps
                items = turn.draft.items() or (Entry(role="user", text=CONNECTED),)
                request = LLMRequest(items=items, tools=() if last else self._toolbox.specs)
                self.tools.told(turn)
                if turn.reply is None or step > 1:  # nobody waits for what the agent says by itself
                    bridge.wait()
                answer.calls, silent = [], True
                async with closing(self._ask(self._llm, turn, request)) as events:
                    async for event in events:
                        if not isinstance(event, TextDelta):
                            self._note(event, turn, answer)
                            continue
                        yield event.text  # before all else: the caller waits for the voice, and it for this
                        if silent and event.text.strip():
                            silent = False
                            answer.spoken = True
                            bridge.stop()
                            self._engine.unfill(turn)
                if not answer.calls:
                    return
                if last:
                    raise LimitError(f"the model called tools {step} times in one turn and has not answered")
                jobs = await self._act(turn, answer.calls, bridge)
                if self.retired or _has_left(turn) or self._is_goodbye(jobs, answer) or self._is_answered(jobs):
                    return
        finally:
            bridge.stop()

    async def _arrive(self, arriving: Awaitable[None]) -> None:
        """Wait a moment for tools from elsewhere, once; a server that is slow costs the call its tools."""
        self._toolbox.arriving = None
        patience_s = _ARRIVING_S if self._host.voip.medium == "audio" else _ARRIVING_IN_TEXT_S
        try:
            async with asyncio.timeout(self._clock.real(patience_s)):
                await arriving
        except TimeoutError:
            logger.info("call %s: goes on without tools of MCP servers", self._host.voip.metadata.call_id)

    def _ask(self, llm: LLM, turn: Turn, request: LLMRequest) -> AsyncIterator[LLMEvent]:
        events, tracer = llm.stream(request), self._host.voip.tracer
        return events if tracer is None else tracer.request(turn.uuid, llm, events)

    def _note(self, event: LLMEvent, turn: Turn, answer: _Answer) -> None:
        """What a model tells beside its words."""
        if isinstance(event, ToolCall):
            answer.calls.append(event)
        elif isinstance(event, Usage):
            self._host.used(turn.uuid, event)
        elif isinstance(event, ModelSwitched):
            switch = {"provider": event.model, "instead_of": event.instead_of, "reason": event.reason}
            self._host.happened(ev.ProviderSwitched, kind="llm", turn=turn.uuid, **switch)

    async def _act(self, turn: Turn, calls: list[ToolCall], bridge: Bridge) -> list[Job]:
        """Run the tools of a step and wait for those that the answer needs."""
        turn.speech.seal()
        if not all(self._toolbox.is_safe(call.name) for call in calls):
            await turn.confirmed()
        jobs = self.tools.start(turn, calls)
        bridge.wait([job for job in jobs if not job.background])
        await self.tools.finish(turn, jobs)
        return jobs

    def _is_goodbye(self, jobs: list[Job], answer: _Answer) -> bool:
        """A tool has ended the conversation, and what goes with it was said: the model is not asked again."""
        ended = any(
            self._toolbox.is_last(job.call.name) and job.result is not None and job.result.state == "done"
            for job in jobs
        )
        spoken = answer.spoken or any(part.options.model for job in jobs for part in job.turn.speech.parts)
        over = ended and (spoken or answer.ended)
        answer.ended = answer.ended or ended
        return over

    def _is_answered(self, jobs: list[Job]) -> bool:
        """All that was done is itself the answer."""
        return bool(jobs) and all(
            self._toolbox.is_answer(job.call.name) and job.result is not None and job.result.state == "done"
            for job in jobs
        )

    def _bridge(self, turn: Turn) -> Bridge:
        def silent() -> bool:
            waiting = not turn.speculative and not self._engine.caller_speaking
            return waiting and all(part.final for part in turn.speech.parts)

        def fill(text: str) -> bool:
            return self._engine.fill(turn, text)

        return Bridge(self._clock, self._host.settings, self._rotation, fill=fill, silent=silent)


def _has_left(turn: Turn) -> bool:
    """Whether the turn ends without its tools."""
    return turn.left is not None and turn.left.is_set()


class _Answer:
    """What has become of one answer."""

    __slots__ = ("calls", "ended", "spoken")

    def __init__(self) -> None:
        self.calls: list[ToolCall] = []
        """Tools that the newest step wants."""
        self.spoken = False
        """It has words."""
        self.ended = False
        """A tool has ended the conversation."""

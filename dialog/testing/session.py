"""A conversation in text, for tests of agents: no audio, no provider, no waiting.

::

    async def test_books_a_table():
        async with TextSession(main.on_voip, llm=ScriptedLLM([...])) as session:
            reply = await session.run("two for tonight")
            reply.calls("book_table", people=2).says("booked")

Turn taking, tools, history and events run as on the phone, on virtual time: a word of the agent lasts
0.4 s, and an hour of silence passes at once. What a text call has not is sound: coughs, noise and what
an STT makes of a voice are for :class:`~dialog.testing.caller.Caller`.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Self
from uuid import UUID, uuid4

from dialog.agent.agent import Agent
from dialog.agent.textcall import TextCall
from dialog.calls import events as ev
from dialog.calls.report import SessionReport
from dialog.clock import Clock
from dialog.errors import ConfigurationError, StateError
from dialog.llm.llm import LLM, Entry, Item
from dialog.message import Alignment, CallEnd, CallMetadata, Message
from dialog.participant import Participant
from dialog.scope import CallScope
from dialog.testing.reply import Reply, Said, conversation, note_of
from dialog.testing.textline import TextLine
from dialog.testing.virtual import virtual_time
from dialog.tts.tts import TTS
from dialog.voip.link import Command
from dialog.voip.text import TextVoIP
from dialog.voip.voip import VoIP

__all__ = ["TextSession"]

_BUSY_S = 600.0
"""An agent that is not done with a reply after this never will be."""
_UNANSWERED_S = 4.0
"""Words that have led to nothing for so long were not meant to: a backchannel, for instance."""
_LOOK_S = 0.1
_SETTLE = 10
_MOMENT_S = 1e-6


class _Scope(CallScope):
    """Tells of every agent when it is made."""

    def __init__(self, made: Callable[[Agent], object]) -> None:
        super().__init__("text session")
        self._made = made

    def register(self, participant: Participant) -> None:
        super().register(participant)
        if isinstance(participant, Agent):
            self._made(participant)


class TextSession:
    """A call that ``factory(voip)`` takes: the function that a gateway calls, or any that activates an agent.

    Use it with ``async with``, on asyncio's own event loop: under pytest-asyncio, whose loop's time then
    is virtual until the block ends, or in :func:`~dialog.testing.virtual.run_virtual`. The block begins
    when the greeting was heard and ends the call.

    Args:
        factory: Builds and activates an agent; a plain function or a coroutine function.
        llm: Takes the place of the agents' models, which then are not even asked to connect.
        metadata: Who calls, and with which parameters.
    """

    def __init__(
        self, factory: Callable[[Any], Any], *, llm: LLM | None = None, metadata: CallMetadata | None = None
    ) -> None:
        self.events: list[ev.CallEvent] = []
        """Everything that happened."""
        self._factory = factory
        self._llm = llm
        self._metadata = metadata or CallMetadata(call_id=uuid4(), carrier="text", from_="caller", to="agent")
        self._mocks: dict[str, Any] = {}
        self._agents: list[Agent] = []
        self._replaced: list[LLM] = []
        self._pending: dict[UUID, None] = {}
        """Utterances that were not answered yet, oldest first."""
        self._notes: list[tuple[float, str, str]] = []
        """What happened beside the agent's speech, for the conversation that a failed assertion shows."""
        self._tools: dict[str, ev.ToolStarted] = {}
        self._since = 0.0
        self._changed = asyncio.Event()
        self._stack = ExitStack()
        self._greeting: Reply | None = None
        self._running: tuple[TextCall, TextLine, Clock] | None = None

    async def __aenter__(self) -> Self:
        if self._running is not None:
            raise StateError("a TextSession is one call: make another for the next")
        clock = self._stack.enter_context(virtual_time())
        line = TextLine(clock, self._aligned, self._changed.set)

        def new_voip() -> TextVoIP:
            return TextVoIP(line.on_text, metadata=self._metadata, clock=clock, link=line)

        call = TextCall(self._factory, new_voip, scope=_Scope(self._adopt))
        line.begin(call.voip)
        self._running = call, line, clock
        self._since = clock.now()
        call.voip.on(VoIP.ENDED, lambda _: self._changed.set())
        mark = self._mark()
        try:
            await call.start()
            await self._settle()
        except BaseException:
            await self._close()
            raise
        self._greeting = self._reply(mark)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            await self._call.end()
        finally:
            await self._close()

    # -- what the caller does ---------------------------------------------------------------------

    async def run(self, text: str) -> Reply:
        """Say ``text``, and let the agent answer to its end.

        Raises:
            AssertionError: The call has ended, or the agent does not come to an end.
        """
        mark = self._mark()
        self.say(text)
        await self._settle()
        return self._reply(mark)

    def say(self, text: str) -> None:
        """Say ``text`` and go on at once, to interrupt the answer, for instance.

        Raises:
            AssertionError: The call has ended.
        """
        self._check_live(f"say {text!r}")
        self._note("caller", text)
        turn = uuid4()
        self._pending[turn] = None
        self.agent.post(Message(uuid=turn, data=text))

    async def interrupt(self, text: str, *, after_words: int = 1) -> Reply:
        """Say ``text`` when ``after_words`` words of what the agent says now were heard; returns the answer to it.

        What it interrupts is what :meth:`say` led to, or a greeting or prompt that is being said.

        Raises:
            AssertionError: The agent did not say so many words.
        """
        line = self._line
        mark = len(line.parts)
        # Speech that is on its way, or will be said because of what was said before.
        before = sum(part.heard_words for part in line.parts)

        def heard() -> bool:
            return sum(part.heard_words for part in line.parts) - before >= after_words

        if not await self._until(lambda: heard() or self._quiet) or not heard():
            said = sum(part.words for part in line.parts[mark:])
            raise AssertionError(
                self.explain(f"the agent said {said} words, so it could not be interrupted after {after_words}")
            )
        return await self.run(text)

    async def silence(self, seconds: float) -> Reply:
        """Say nothing for ``seconds``; returns what the agent said by itself, heard to its end."""
        self._check_live("be silent")
        mark = self._mark()
        self._note("silence", f"{seconds:g} s")
        end = self._clock.now() + seconds
        while not self._call.over.is_set() and (left := end - self._clock.now()) > 0:
            await self._wait(left)
        await self._settle()
        return self._reply(mark)

    async def press(self, digits: str) -> Reply:
        """Press keys (``0-9 * # A-D``), and let the agent answer to its end."""
        self._check_live(f"press {digits!r}")
        mark = self._mark()
        for digit in digits:
            self._note("key", digit)
            self._call.voip.receive(VoIP.DTMF, digit)
        await self._settle()
        return self._reply(mark)

    async def hang_up(self) -> Reply:
        """Hang up; returns what happened until the call's report was written."""
        self._check_live("hang up")
        mark = self._mark()
        self._note("hang-up", "")
        self._line.lose()
        await self._call.end()
        return self._reply(mark)

    # -- what the test arranges -------------------------------------------------------------------

    def mock_tool(self, name: str, result: Any) -> None:
        """Let the tool ``name`` do something else than it does: before the session begins, or from now on.

        A function, plain or async, is called with the arguments; an exception is raised; anything else
        is returned. The arguments are checked as ever.

        Raises:
            ConfigurationError: The agent has no such tool.
        """
        self._mocks[name] = result
        for agent in self._agents:
            self._mock(agent, name, result)
        boxes = [agent._toolbox for agent in self._agents]
        if self._running is not None and not any(box.get(name) or box.arriving for box in boxes):
            raise ConfigurationError(f"there is no tool {name!r} to mock: {self.agent._toolbox!r}")

    # -- what can be looked at --------------------------------------------------------------------

    @property
    def agent(self) -> Agent:
        """The agent that has the call now."""
        active = [agent for agent in self._agents if agent._conversation is not None and not agent.disposed]
        return active[-1] if active else self._agents[-1]

    @property
    def greeting(self) -> Reply:
        """What was said before the caller said anything."""
        if self._greeting is None:
            raise StateError("the session has not begun: use it with 'async with'")
        return self._greeting

    @property
    def history(self) -> tuple[Item, ...]:
        """The conversation as the next request to the model would tell it."""
        return self.agent.history.request_items()

    @property
    def heard(self) -> list[tuple[str, str]]:
        """What was said in history: pairs of role (``user`` or ``assistant``) and text."""
        return [(item.role, item.text) for item in self.history if isinstance(item, Entry) and item.role != "system"]

    @property
    def said(self) -> tuple[Said, ...]:
        """All that the agent has said, part by part."""
        fillers = {(e.turn, e.part) for e in self.events if isinstance(e, ev.AgentSaid) and e.filler}
        return tuple(Said.of(part, filler=(part.turn, part.part) in fillers) for part in self._line.parts)

    @property
    def commands(self) -> tuple[Command, ...]:
        """What the agent asked the carrier for: hang-ups, transfers, digits."""
        return tuple(self._line.commands)

    @property
    def ended(self) -> CallEnd | None:
        """How the call ended, if it has."""
        return self._call.voip.end

    @property
    def report(self) -> SessionReport | None:
        """The session report, once the call has ended."""
        return self._call.report

    @property
    def now(self) -> float:
        """Seconds of virtual time."""
        return self._clock.now()

    def explain(self, what: str = "") -> str:
        """``what``, and the conversation so far beneath it."""
        return f"{what}\n\n{conversation(self.said, self._notes, self._since)}".strip("\n")

    # -- how it works -----------------------------------------------------------------------------

    @property
    def _call(self) -> TextCall:
        return self._begun[0]

    @property
    def _line(self) -> TextLine:
        return self._begun[1]

    @property
    def _clock(self) -> Clock:
        return self._begun[2]

    @property
    def _begun(self) -> tuple[TextCall, TextLine, Clock]:
        if self._running is None:
            raise StateError("the session has not begun: use it with 'async with'")
        return self._running

    def _adopt(self, agent: Agent) -> None:
        """An agent is being made: what the test has arranged holds for it from its activation on."""
        self._agents.append(agent)
        agent.on(Agent.EVENT, self._on_event)
        activate = type(agent).activate

        def prepared() -> None:
            if self._llm is not None:
                if agent.llm is not None and agent.llm is not self._llm:
                    self._replaced.append(agent.llm)
                agent.llm = self._llm
            for name, result in self._mocks.items():
                self._mock(agent, name, result)
            activate(agent)

        agent.activate = prepared  # type: ignore[method-assign]  # of this one object

    @staticmethod
    def _mock(agent: Agent, name: str, result: Any) -> None:
        found = agent._toolbox.get(name)  # that of an MCP server may not be there yet

        def value(**arguments: Any) -> Any:
            if isinstance(result, BaseException):
                raise result
            return result(**arguments) if callable(result) else result

        async def later(**arguments: Any) -> Any:
            returned = value(**arguments)
            return await returned if inspect.isawaitable(returned) else returned

        agent._toolbox.substitute(name, later if found is None or found.is_async else value)

    def _on_event(self, event: ev.CallEvent) -> None:
        self.events.append(event)
        if isinstance(event, ev.ToolStarted):
            self._tools[event.call_id] = event
        note = note_of(event, self._tools)
        if note is not None:
            self._note(*note)
        if isinstance(event, ev.TurnMeasured) and event.timeline.turn in self._pending:
            # What was said before it was answered together with it, or waits behind it in vain.
            for turn in list(self._pending):
                del self._pending[turn]
                if turn == event.timeline.turn:
                    break
        self._changed.set()

    def _aligned(self, alignment: Alignment) -> None:
        for agent in self._agents:
            if not agent.disposed and agent.tts is not None:
                agent.tts.emit(TTS.ALIGNMENT, alignment)

    @property
    def _idle(self) -> bool:
        """Nothing is being said or made ready."""
        engines = [agent._conversation.engine for agent in self._agents if agent._conversation is not None]
        return self._line.quiet and all(engine.quiet for engine in engines)

    @property
    def _quiet(self) -> bool:
        return self._call.over.is_set() or (self._idle and not self._pending)

    async def _settle(self) -> None:
        """Wait until the agent has said what there is to say."""
        if not await self._until(lambda: self._quiet):
            raise AssertionError(self.explain(f"the agent was still busy after {_BUSY_S:g} s"))
        if self._call.over.is_set():
            await self._call.end()

    async def _until(self, reached: Callable[[], bool]) -> bool:
        end = self._clock.now() + _BUSY_S
        idle_since = self._clock.now()
        while self._clock.now() < end:
            if reached():
                await self._breathe()
                if reached():
                    return True
            if not self._idle:
                idle_since = self._clock.now()
            elif self._clock.now() - idle_since >= _UNANSWERED_S:
                self._pending.clear()
            await self._wait(_LOOK_S)
        return False

    async def _wait(self, seconds: float) -> None:
        """Wait for something to change, at most so long."""
        self._changed.clear()
        try:
            async with asyncio.timeout(seconds):
                await self._changed.wait()
        except TimeoutError:
            return

    @staticmethod
    async def _breathe() -> None:
        for _ in range(_SETTLE):
            await asyncio.sleep(0)
        # Virtual time stands still while a thread works, which may lead to something more that is said.
        await asyncio.sleep(_MOMENT_S)

    async def _close(self) -> None:
        try:
            await self._call.close()
            for agent in self._agents:
                await agent.wait_disposed()
            for llm in self._replaced:
                await llm.close()
            await self._breathe()
        finally:
            self._stack.close()

    def _check_live(self, what: str) -> None:
        end = self._call.voip.end
        if end is not None:
            raise AssertionError(self.explain(f"the call has ended ({end.reason}): the caller cannot {what}"))

    def _note(self, what: str, text: str) -> None:
        self._notes.append((self._clock.now(), what, text))

    def _mark(self) -> tuple[int, int, float]:
        return len(self._line.parts), len(self.events), self._clock.now()

    def _reply(self, mark: tuple[int, int, float]) -> Reply:
        parts, events, at = mark
        return Reply(self, self.said[parts:], tuple(self.events[events:]), at)

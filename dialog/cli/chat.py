"""Text chat with an agent: the terminal takes the place of the phone."""

from __future__ import annotations

import asyncio
import codecs
import os
import signal
import sys
import threading
import traceback
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any
from uuid import UUID, uuid4

from rich.console import Console
from rich.text import Text

from dialog.agent.agent import Agent
from dialog.agent.textcall import TextCall
from dialog.calls import events as ev
from dialog.errors import DialogError, UserCodeError
from dialog.loading import load_on_voip, place_of
from dialog.message import Failure, Message
from dialog.scope import CallScope
from dialog.voip.text import TextVoIP
from dialog.voip.voip import VoIP

__all__ = ["Chat", "run_chat"]

_LINES_AHEAD = 1000
"""Lines of a piped input that are read ahead of the conversation."""

_PROMPT = "you   "
_HINT = "Type and press Enter. /quit or Ctrl-D ends the conversation, Ctrl-C stops a reply."


async def run_chat(console: Console, target: str) -> int:
    """Chat with the agent that ``target`` makes, until the input or the call ends; returns the exit status.

    Raises:
        ConfigurationError: ``target`` names no function, or it activates no agent.
        UserCodeError: It raised.
    """
    on_voip = load_on_voip(target)

    def make(voip: VoIP) -> Any:
        try:
            return on_voip(voip)
        except DialogError:
            raise
        except Exception as exc:  # the user's code
            raise UserCodeError(f"{target} raised {type(exc).__name__}: {exc}{place_of(exc)}") from exc

    chat = Chat(console, make, interactive=sys.stdin.isatty())
    loop = asyncio.get_running_loop()
    lines = _Lines()
    with suppress(NotImplementedError):  # Windows: Ctrl-C ends the program
        loop.add_signal_handler(signal.SIGINT, lambda: None if chat.interrupt() else lines.end())
    try:
        await chat.run(lines)
    finally:
        with suppress(NotImplementedError):
            loop.remove_signal_handler(signal.SIGINT)
    return 1 if chat.failed else 0


class Chat:
    """One conversation. ``make(voip)`` is the same function that a gateway calls."""

    def __init__(self, console: Console, make: Any, *, interactive: bool = False) -> None:
        self.failed: bool = False
        """The call ended because of an error."""
        self._console = console
        self._make = make
        self._interactive = interactive
        self._agent: Agent | None = None
        self._over = asyncio.Event()
        self._pending: set[UUID] = set()
        """Turns that are not answered yet."""
        self._settled = asyncio.Event()
        self._settled.set()
        self._speaking: tuple[UUID, int] | None = None
        """The part that is being written to the terminal."""
        self._prompted = False
        """The cursor stands behind the prompt."""

    async def run(self, lines: AsyncIterator[str]) -> None:
        """Talk until ``lines`` end, one of them is ``/quit``, or the call is over."""
        call = TextCall(self._make, lambda: TextVoIP(self._on_text), scope=CallScope("chat"))
        self._over = call.over
        try:
            if self._interactive:
                self._print(Text(_HINT, "dim"))
            await self._talk(await call.start(before=self._listen_to), lines)
            await call.end()
        finally:
            await call.close()
            self._break_line()

    def interrupt(self) -> bool:
        """Stop the reply in progress; ``False`` if there is none."""
        if self._agent is None or self._settled.is_set():
            return False
        self._agent.abort()
        self._pending.clear()
        self._settled.set()
        return True

    def _listen_to(self, agent: Agent) -> None:
        self._agent = agent
        agent.on(Agent.EVENT, self._on_event)
        agent.on(Agent.ERROR, self._on_error)  # what nobody listens to is logged, between the lines

    async def _talk(self, agent: Agent, lines: AsyncIterator[str]) -> None:
        over = asyncio.create_task(self._over.wait(), name="end of the call")
        try:
            await self._first(over, self._quiet(agent))
            while not self._over.is_set():
                self._prompt()
                line = await self._first(over, _next(lines))
                self._prompted = self._prompted and line is None
                if line is None or line.strip() in ("/quit", "/exit"):
                    return
                if not line.strip() or self._over.is_set():
                    continue
                if not self._interactive:
                    self._print(Text.assemble((_PROMPT, "bold cyan"), line.strip()))
                turn = uuid4()
                self._pending.add(turn)
                self._settled.clear()
                agent.post(Message(uuid=turn, data=line.strip()))
                # What is typed meanwhile waits: on the phone it would interrupt.
                await self._first(over, self._quiet(agent))
        finally:
            over.cancel()

    async def _quiet(self, agent: Agent) -> None:
        """Wait until everything was answered; a reply that says nothing at all ends by its time-out."""
        try:
            async with asyncio.timeout(agent.settings.reply_timeout_s * agent.settings.max_steps):
                await self._settled.wait()
        except TimeoutError:
            self._pending.clear()
            self._settled.set()

    async def _first(self, over: asyncio.Task[Any], work: Any) -> Any:
        """The result of ``work``, or ``None`` when the call ends before."""
        task = asyncio.ensure_future(work)
        try:
            await asyncio.wait([over, task], return_when=asyncio.FIRST_COMPLETED)
            return task.result() if task.done() else None
        finally:
            task.cancel()

    # What the agent does.

    def _on_text(self, turn: UUID, part: int, text: str) -> None:
        if (turn, part) != self._speaking:
            self._break_line()
            if not text.strip():
                return
            self._write("agent ", "bold green")
            self._speaking = turn, part
            text = text.lstrip()
        self._write(text)
        if not text:
            self._break_line()

    def _on_event(self, event: ev.CallEvent) -> None:
        if isinstance(event, ev.ToolStarted):
            self._note(f"{event.name}({event.arguments})")
        elif isinstance(event, ev.ToolEnded):
            self._note(f"{event.name} → {event.result}", "dim" if event.state == "done" else "red")
        elif isinstance(event, ev.ErrorRaised):
            self.failed = self.failed or event.fatal
            self._note(f"{event.source}: {event.text}", "red")
        elif isinstance(event, ev.TurnMeasured):
            self._settle(event.timeline.turn)
        elif isinstance(event, ev.CallEnded):
            self._note(event.reason.replace("_", " "))

    def _on_error(self, failure: Failure) -> None:
        """The event has told what; of the user's own code show where."""
        if isinstance(failure.error, UserCodeError) and failure.error.__cause__ is not None:
            trace = "".join(traceback.format_exception(failure.error.__cause__)).rstrip()
            self._note(trace.replace("\n", "\n      "))

    def _settle(self, turn: UUID) -> None:
        self._pending.discard(turn)
        if not self._pending:
            self._settled.set()

    # The terminal.

    def _prompt(self) -> None:
        self._break_line()
        if self._interactive:
            self._write(_PROMPT, "bold cyan")
            self._prompted = True

    def _write(self, text: str, style: str = "") -> None:
        self._console.print(Text(text, style), end="", highlight=False, soft_wrap=True)
        self._console.file.flush()

    def _note(self, text: str, style: str = "dim") -> None:
        self._break_line()
        self._print(Text(f"      {text}", style))

    def _print(self, text: Text) -> None:
        self._console.print(text, highlight=False, soft_wrap=True)

    def _break_line(self) -> None:
        if self._speaking is not None or self._prompted:
            self._speaking = None
            self._prompted = False
            self._console.print()


async def _next(lines: AsyncIterator[str]) -> str | None:
    return await anext(lines, None)


class _Lines:
    """Lines of standard input, read without blocking the loop: a terminal, a pipe, or a file.

    A daemon thread reads the descriptor itself: one that waits in ``sys.stdin`` would hold its lock
    when the program ends.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._lines: asyncio.Queue[str | None] = asyncio.Queue()
        # What bounds the queue: the thread waits while so many lines have not been taken.
        self._room = threading.Semaphore(_LINES_AHEAD)
        self._thread: threading.Thread | None = None

    def __aiter__(self) -> AsyncIterator[str]:
        return self

    async def __anext__(self) -> str:
        if self._thread is None:
            self._thread = threading.Thread(target=self._read, name="standard input", daemon=True)
            self._thread.start()
        line = await self._lines.get()
        if line is None:
            raise StopAsyncIteration
        self._room.release()
        return line

    def end(self) -> None:
        """Behave as if the input had ended."""
        self._lines.put_nowait(None)

    def _read(self) -> None:
        decoder = codecs.getincrementaldecoder(sys.stdin.encoding or "utf-8")(errors="replace")
        rest = ""
        while True:
            try:
                data = os.read(sys.stdin.fileno(), 65_536)
            except OSError:
                data = b""
            *whole, rest = (rest + decoder.decode(data, final=not data)).split("\n")
            if not data and rest:
                whole.append(rest)
            for line in whole:
                self._hand_over(line)
            if not data:
                self._hand_over(None)
                return

    def _hand_over(self, line: str | None) -> None:
        if line is not None:
            self._room.acquire()
        with suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._lines.put_nowait, line)

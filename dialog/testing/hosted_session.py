"""What the emulated sessions of hosted agents share: the caller, the conversation, replies one after the other."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence
from typing import Any
from uuid import uuid4

from dialog.message import MULAW_8K, AudioFormat
from dialog.testing.hearing import Ear
from dialog.testing.realtime_session import TalkItem
from dialog.testing.s2s import RealtimeReply, S2SEmulator
from dialog.testing.server import EmulatorSocket
from dialog.testing.tone import tone

__all__ = ["HostedSession", "Refusal"]

_END_S = 0.5
"""Silence that ends the caller's turn."""
_NOTHING = "."
"""What clients say that only want an answer."""
_ORDER = "Say the following to the caller"


class Refusal(Exception):
    """The service closes the connection, with this code and reason."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class HostedSession(ABC):
    """Replies are made by a task, faster than they are heard; the caller's voice stops what is made or still heard.

    How long a reply is heard, the service does not know: it believes that the client plays it as it comes.
    """

    def __init__(self, emulator: S2SEmulator[Any], socket: EmulatorSocket) -> None:
        self.emulator = emulator
        self.instructions: str = ""
        self.tools: list[dict[str, Any]] = []
        self.items: list[TalkItem] = []
        self.output_format: AudioFormat = MULAW_8K
        self._socket = socket
        self._send = socket.send
        self._ear = Ear(emulator, "mulaw", 8000)
        self._told_start = False
        self._orders: deque[str] = deque()
        """Replies that wait for the one that is made: what each is to say; empty: an answer."""
        self._task: asyncio.Task[None] | None = None
        self._item: TalkItem | None = None
        self._heard_from = self._heard_until = 0.0
        """When the newest reply is heard, by the loop's clock."""
        self._calls: dict[str, TalkItem] = {}
        """Tools that the reply waits for."""
        self._answered = asyncio.Event()

    def described(self) -> dict[str, Any]:
        """What the client is told of the session: nothing of its end."""
        return {}

    # How the protocol says it.

    @abstractmethod
    async def tell_start(self) -> None:
        """The caller began to speak."""

    @abstractmethod
    async def tell_interruption(self, item: TalkItem, said: str) -> None:
        """A reply was interrupted, of which ``said`` was its text before."""

    @abstractmethod
    async def tell_words(self, text: str) -> None:
        """What the caller said."""

    @abstractmethod
    async def tell_reply(self, text: str) -> None:
        """What the agent is going to say."""

    @abstractmethod
    async def tell_audio(self, data: bytes) -> None:
        """How it sounds."""

    @abstractmethod
    async def tell_end(self) -> None:
        """All of it was sent."""

    @abstractmethod
    async def tell_tools(self, calls: Sequence[dict[str, str]]) -> None:
        """Tools are wanted: their ``id``, ``name`` and ``arguments``."""

    @abstractmethod
    async def tell_unwanted(self, calls: Sequence[TalkItem]) -> None:
        """Tools are not wanted any more."""

    @abstractmethod
    async def tell_failure(self, code: str) -> None:
        """A reply cannot be made."""

    # The caller.

    def listen(self, audio_format: AudioFormat) -> None:
        """What the caller's audio is like."""
        self._ear = Ear(self.emulator, audio_format.encoding, audio_format.sample_rate)

    async def hear(self, audio: bytes) -> None:
        """The caller's audio."""
        for _ in self._ear.feed(audio):
            ear = self._ear
            if not ear.in_turn:
                continue
            if not self._told_start:
                self._told_start = True
                await self.tell_start()
                await self.interrupt()
            if not ear.speaking and ear.quiet_s >= _END_S:
                text = ear.text()
                ear.end_turn()
                self._told_start = False
                await self.tell_words(text)
                self.items.append(TalkItem("message", "user", text))
                self.respond()

    def told(self, text: str) -> None:
        """The client put words into the caller's mouth, which are answered."""
        if text.startswith(_ORDER):
            self.respond(text)
            return
        if text != _NOTHING:
            self.items.append(TalkItem("message", "user", text))
        self.respond()

    def answered(self, call_id: str, result: str, name: str | None = None) -> None:
        """A tool has answered."""
        call = self._calls.pop(call_id, None)
        if call is None or name not in (None, call.call["name"]):
            self.emulator.violations.append(f"an answer of a tool that nobody waits for: {name or call_id}")
            return
        self.items.append(TalkItem("function_call_output", text=result, call_id=call_id))
        if not self._calls:
            self._answered.set()

    # Replies.

    @property
    def busy(self) -> bool:
        """Whether a reply is made."""
        return self._task is not None

    def respond(self, order: str = "") -> None:
        """Make a reply, after the one that is made."""
        self._orders.append(order)
        self._go_on()

    def _go_on(self) -> None:
        if self._task is None and self._orders:
            order = self._orders.popleft()
            self._task = self._socket.start(self._make(order), "reply")

    async def interrupt(self) -> None:
        """Stop what is made, and what was to be made; of what was made the client is told how much was heard."""
        self._orders.clear()
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        calls, self._calls = tuple(self._calls.values()), {}
        if calls:
            await self.tell_unwanted(calls)
        item, self._item = self._item, None
        now = asyncio.get_running_loop().time()
        if item is not None and (task is not None or now < self._heard_until):
            said = item.text
            share = (now - self._heard_from) * 1000 / item.audio_ms if item.audio_ms else 0.0
            item.text = said[: int(len(said) * min(1.0, share))]
            await self.tell_interruption(item, said)

    async def _make(self, order: str) -> None:
        if self.emulator.stalling > 0:
            self.emulator.stalling -= 1
            self.emulator.changed()
            await asyncio.Event().wait()
        while True:
            reply: RealtimeReply = self.emulator.reply_to(self, order)
            if reply.fails:
                await self.tell_failure(reply.fails)
                break
            await self._say(reply.text)
            if not reply.tools:
                break
            await self._call(reply)
            order = ""
        self._task = None
        self._go_on()

    async def _say(self, text: str) -> None:
        if not text:
            return
        loop = asyncio.get_running_loop()
        self._item = item = TalkItem("message", "assistant", text)
        self.items.append(item)
        await self.tell_reply(text)
        audio = tone(text, self.output_format, ms_per_char=self.emulator.ms_per_char)
        step = self.output_format.size(self.emulator.chunk_ms)
        self._heard_from = self._heard_until = max(self._heard_until, loop.time())
        for at in range(0, len(audio), step):
            data = audio[at : at + step]
            item.audio_ms += self.output_format.ms(len(data))
            self._heard_until = self._heard_from + item.audio_ms / 1000
            await self.tell_audio(data)
            await asyncio.sleep(self.emulator.chunk_s)
        await self.tell_end()

    async def _call(self, reply: RealtimeReply) -> None:
        self._answered.clear()
        asked: list[dict[str, str]] = []
        for tool in reply.tools:
            call_id = tool.id or f"call_{uuid4().hex[:12]}"
            self._calls[call_id] = TalkItem("function_call", name=tool.name, call_id=call_id, arguments=tool.text())
            asked.append({"id": call_id, "name": tool.name, "arguments": tool.text()})
        self.items += self._calls.values()
        await self.tell_tools(asked)
        await self._answered.wait()

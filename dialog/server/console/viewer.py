"""One page of the console that is open: it is told what changes in the list, and all of the call that it watches."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol, TypeAlias
from uuid import UUID

import msgspec
from msgspec import Struct

from dialog.audio.monitor import Monitor
from dialog.calls import events as ev
from dialog.errors import RemoteProtocolError
from dialog.server.console.board import Board, Row, told
from dialog.voip.call import Call

__all__ = ["ConsoleSocket", "Viewer"]

logger = logging.getLogger(__name__)

_BATCH_S: Final = 0.1
"""Changes of so long travel together …"""
_ALIVE_S: Final = 15.0
"""… and after so long without any, a word that the server is there."""
_SEND_S: Final = 10.0
"""A page that takes nothing for so long is gone."""
_MAX_NEWS: Final = 1000

_encode: Final = msgspec.json.Encoder().encode


class ConsoleSocket(Protocol):
    """A WebSocket, whatever server has it."""

    async def send_text(self, text: bytes) -> None:
        """Send a message in UTF-8; return when there is room for the next one."""

    async def send_bytes(self, data: bytes) -> None:
        """Send audio, likewise."""

    async def receive(self) -> str | None:
        """The next message of the page; ``None``: it is closed."""
        ...


class Watch(Struct, frozen=True, kw_only=True, tag_field="do", tag="watch"):
    """Tell all of one call from now on, and of no other; ``None``: of none."""

    call_id: UUID | None = None
    after: int = -1
    """``seq`` of the last event that the page has."""


class Listen(Struct, frozen=True, kw_only=True, tag_field="do", tag="listen"):
    """Send the sound of the call that is watched, or stop."""

    on: bool


_Wish: TypeAlias = Watch | Listen
_decode: Final[msgspec.json.Decoder[_Wish]] = msgspec.json.Decoder(_Wish)


class Viewer:
    """Serves one page until it leaves.

    Nothing here grows with how slow the page is: a call that changes twice is told once, the events of the call that
    is watched are bounded (a page that falls behind is told to load it again), and sound that is not taken is dropped.

    Args:
        socket: Of the page.
        boards: The calls: those of this process, and those of others.
        sees: Whether the page may know of a tenant's calls.
        find: A call that goes on in this process, to listen to it.
    """

    def __init__(
        self,
        socket: ConsoleSocket,
        boards: Sequence[Board],
        *,
        sees: Callable[[str | None], bool],
        find: Callable[[UUID], Call | None],
    ) -> None:
        self._socket = socket
        self._boards = boards
        self._sees = sees
        self._find = find
        self._woken = asyncio.Event()
        self._changed: dict[UUID, None] = {}
        self._watched: UUID | None = None
        self._news: list[ev.CallEvent] = []
        self._behind = False
        """Events of the call that is watched were left out."""
        self._begun = False
        """The page knows that it watches."""
        self._call: Call | None = None
        self._monitor: Monitor | None = None
        """Of the call that is watched, as long as it goes on in this process."""
        self._listening = False

    async def run(self) -> None:
        """Serve the page.

        Raises:
            Exception: As the socket does, when the page is gone.
        """
        for board in self._boards:
            board.on(self._on_event)
        reading = asyncio.create_task(self._read(), name="what a page of the console wishes")
        writing = asyncio.create_task(self._write(), name="a page of the console")
        try:
            await asyncio.wait((reading, writing), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for board in self._boards:
                board.off(self._on_event)
            self._unwatch()
            for task in (reading, writing):
                task.cancel()
            await asyncio.wait((reading, writing))
        for task in (reading, writing):
            if not task.cancelled():
                task.result()

    # What the page wishes.

    async def _read(self) -> None:
        while (text := await self._socket.receive()) is not None:
            try:
                wish = _decode.decode(text)
            except (msgspec.MsgspecError, UnicodeError, RecursionError) as exc:
                raise RemoteProtocolError(f"a page of the console sent what is no wish: {exc}") from exc
            if isinstance(wish, Listen):
                self._listening = wish.on
            else:
                self._watch(wish)

    def _watch(self, wish: Watch) -> None:
        self._unwatch()
        row = None if wish.call_id is None else self._row(wish.call_id)
        if row is None or not self._sees(row.tenant):
            return
        self._watched = row.call.call_id
        missed = [event for event in row.events if event.seq > wish.after]
        self._behind = not row.whole and len(missed) == len(row.events)
        self._news = [] if self._behind else missed
        call = self._find(self._watched)
        if call is not None and call.state != "ended":
            self._call, self._monitor = call, Monitor(call.voip.audio_format, lambda: call.audio_ms)
            call.add_tap(self._monitor)
        self._woken.set()

    def _row(self, call_id: UUID) -> Row | None:
        return next((row for board in self._boards if (row := board.get(call_id)) is not None), None)

    def _live(self, call_id: UUID) -> Row | None:
        return next((row for board in self._boards if (row := board.rows.get(call_id)) is not None), None)

    def _unwatch(self) -> None:
        if self._call is not None and self._monitor is not None:
            self._call.remove_tap(self._monitor)
        self._call = self._monitor = self._watched = None
        self._listening, self._behind, self._begun, self._news = False, False, False, []

    # What it is told.

    def _on_event(self, row: Row, event: ev.CallEvent | None, changed: bool) -> None:
        call_id = row.call.call_id
        if changed and self._sees(row.tenant):
            self._changed[call_id] = None
            self._woken.set()
        if call_id == self._watched and event is not None:
            self._note(event)
            self._woken.set()

    def _note(self, event: ev.CallEvent) -> None:
        if self._news and _repeats(event, self._news[-1]):
            self._news[-1] = event
        elif len(self._news) < _MAX_NEWS:
            self._news.append(event)
        else:
            self._behind = True

    async def _write(self) -> None:
        rows = [row.view() for board in self._boards for row in board.rows.values() if self._sees(row.tenant)]
        await self._tell({"type": "list", "calls": rows, "now": time.time()})
        while True:
            await self._due()
            await self._tell_changes()
            await self._tell_call()
            await self._tell_sound()
            await asyncio.sleep(_BATCH_S)

    async def _due(self) -> None:
        if self._monitor is None:
            try:
                async with asyncio.timeout(_ALIVE_S):
                    await self._woken.wait()
            except TimeoutError:
                await self._tell({"type": "alive", "now": time.time()})
        self._woken.clear()

    async def _tell_changes(self) -> None:
        changed, self._changed = self._changed, {}
        if not changed:
            return
        rows = [row.view() for call_id in changed if (row := self._live(call_id)) is not None]
        gone = [str(call_id) for call_id in changed if self._live(call_id) is None]
        await self._tell({"type": "changes", "calls": rows, "gone": gone, "now": time.time()})

    async def _tell_call(self) -> None:
        call_id, news, behind = self._watched, self._news, self._behind
        row = None if call_id is None else self._row(call_id)
        if row is None:
            return
        if not self._begun:
            self._begun = True
            rate = 0 if self._monitor is None else self._monitor.audio_format.sample_rate
            await self._tell({"type": "watching", "call_id": str(call_id), "sound": rate > 0, "rate": rate})
        if not (news or behind):
            return
        self._news, self._behind = [], False
        if behind:
            await self._tell({"type": "reload", "call_id": str(call_id)})
        else:
            events = [told(event) for event in news]
            await self._tell({"type": "events", "call": row.view(), "events": events})

    async def _tell_sound(self) -> None:
        call, monitor = self._call, self._monitor
        if call is None or monitor is None:
            return
        if call.state == "ended":
            call.remove_tap(monitor)
            self._call = self._monitor = None
            return
        heard = monitor.take(sound=self._listening)
        if heard is None:
            return
        if self._listening:
            await self._send(self._socket.send_bytes(heard.mixed))
        await self._tell({"type": "levels", "caller": round(heard.caller_dbfs), "agent": round(heard.agent_dbfs)})

    async def _tell(self, message: dict[str, Any]) -> None:
        await self._send(self._socket.send_text(_encode(message)))

    async def _send(self, sending: Any) -> None:
        async with asyncio.timeout(_SEND_S):
            await sending


def _repeats(event: ev.CallEvent, last: ev.CallEvent) -> bool:
    """Whether ``event`` says all that the one before it did: more words of the same."""
    match event, last:
        case ev.CallerSaid(), ev.CallerSaid():
            return event.turn == last.turn and not last.final
        case ev.AgentSpeaks(), ev.AgentSpeaks():
            return (event.turn, event.part) == (last.turn, last.part)
        case _:
            return False

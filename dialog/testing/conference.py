"""Conferences of the simulated carrier: who waits, who talks, and when it is over.

Facts: Twilio, TwiML ``<Conference>`` and its status callbacks. What is said in it is not carried.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from uuid import uuid4

__all__ = ["Conference", "Note", "conference"]

Note = Callable[[str, str], Awaitable[None]]
"""Delivers an event of the conference about a participant (or none) to whoever asked for it."""


class Conference:
    """One room, from its first participant to its last."""

    def __init__(self, key: tuple[str, str]) -> None:
        self.sid: str = f"CF{uuid4().hex}"
        self.started: bool = False
        self.over: asyncio.Event = asyncio.Event()
        self._key = key
        self._ready = False
        """Somebody has come with whom it may start, once there are two."""
        self._notes: dict[str, Note] = {}

    @property
    def participants(self) -> tuple[str, ...]:
        """The calls that are in it."""
        return tuple(self._notes)

    async def enter(self, call_sid: str, note: Note, *, starts: bool) -> None:
        """A call comes; it starts the conference, or waits until somebody does."""
        self._notes[call_sid] = note
        self._ready = self._ready or starts
        begins = self._ready and len(self._notes) > 1 and not self.started
        self.started = self.started or begins  # somebody may leave while the carrier tells of it
        await note("participant-join", call_sid)
        if begins:
            await note("conference-start", "")

    async def leave(self, call_sid: str, *, ends: bool) -> None:
        """A call goes, and with it the conference, if it is the one that ``ends`` it."""
        note = self._notes.pop(call_sid, None)
        if note is None:
            return
        await note("participant-leave", call_sid)
        if (ends and self.started) or not self._notes:
            self.over.set()
            _rooms.pop(self._key, None)
            await note("conference-end", "")


_rooms: dict[tuple[str, str], Conference] = {}


def conference(account_sid: str, name: str) -> Conference:
    """The room of that name in an account: the one that there is, or a new one."""
    key = (account_sid, name)
    room = _rooms.get(key)
    if room is None:
        room = _rooms[key] = Conference(key)
    return room

"""What was dialled, on disk before it is dialled: so that no call is placed twice, whatever is killed meanwhile.

A file of JSON lines that only grows. A line that was cut off by a crash is the last one, and was never acted upon.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from time import time
from typing import IO, Final, TypeAlias
from uuid import UUID

import msgspec
from msgspec import Struct

from dialog.errors import ConfigurationError, StateError

__all__ = ["Attempt", "Ledger", "Outcome"]


class Outcome(Struct, frozen=True, kw_only=True):
    """What came of one attempt."""

    outcome: str
    """``answered``, ``machine``, ``message_left``, ``busy``, ``no_answer``, ``failed``, ``canceled``, ``refused`` (by
    the carrier), ``interrupted`` (answered, and we were gone before its end), ``unknown`` …"""
    detail: str = ""
    answered_by: str = ""
    duration_s: float = 0.0


class Placing(Struct, frozen=True, kw_only=True, tag="placing"):
    """The carrier is about to be asked: from now on the call may exist."""

    number: str
    call_id: UUID
    at: float


class Placed(Struct, frozen=True, kw_only=True, tag="placed"):
    """The carrier has the call."""

    call_id: UUID
    call_sid: str


class NotPlaced(Struct, frozen=True, kw_only=True, tag="not_placed"):
    """The call certainly does not exist: the attempt does not count."""

    call_id: UUID


class Done(Struct, frozen=True, kw_only=True, tag="done"):
    """The call is over."""

    call_id: UUID
    at: float
    outcome: Outcome


Entry: TypeAlias = Placing | Placed | NotPlaced | Done

_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(Entry).decode


class Attempt:
    """One call to a number."""

    __slots__ = ("at", "call_id", "call_sid", "done_at", "number", "outcome")

    def __init__(self, number: str, call_id: UUID, at: float) -> None:
        self.number = number
        self.call_id = call_id
        self.at = at
        """When the carrier was asked, seconds since 1970."""
        self.call_sid: str = ""
        self.outcome: Outcome | None = None
        """``None`` while it is under way, or its fate is not known."""
        self.done_at: float = 0.0


class Ledger:
    """The attempts so far; every change is on disk before anybody goes on.

    One process at a time may have it: the file is locked.
    """

    def __init__(self, path: Path, *, wall: Callable[[], float] = time) -> None:
        """Read what is there, and keep the file open.

        Raises:
            ConfigurationError: It cannot be opened, is no ledger, or another process has it.
        """
        self.path = path
        self.attempts: dict[UUID, Attempt] = {}
        """All that count, oldest first."""
        self._by_number: dict[str, list[Attempt]] = {}
        self._wall = wall
        self._lock = asyncio.Lock()
        try:
            self._file: IO[bytes] = path.open("a+b")
        except OSError as exc:
            raise ConfigurationError(f"{path}: cannot be used as a ledger: {exc}") from exc
        try:
            self._claim()
            self._file.seek(0)
            whole = self._read(self._file.read())
            self._file.truncate(whole)
            self._file.seek(0, os.SEEK_END)
        except BaseException:
            self._file.close()
            raise

    @property
    def call_sids(self) -> frozenset[str]:
        """What the carrier calls the calls that were placed."""
        return frozenset(attempt.call_sid for attempt in self.attempts.values() if attempt.call_sid)

    def of(self, number: str) -> list[Attempt]:
        """The attempts to reach a number, oldest first."""
        return list(self._by_number.get(number, ()))

    async def placing(self, number: str, call_id: UUID) -> None:
        """The carrier is about to be asked; said again for the same call it is no news."""
        if call_id not in self.attempts:
            await self._write(Placing(number=number, call_id=call_id, at=self._wall()))

    async def placed(self, call_id: UUID, call_sid: str) -> None:
        """The carrier has the call."""
        await self._write(Placed(call_id=call_id, call_sid=call_sid))

    async def not_placed(self, call_id: UUID) -> None:
        """The call certainly does not exist."""
        if call_id in self.attempts:
            await self._write(NotPlaced(call_id=call_id))

    async def done(self, call_id: UUID, outcome: Outcome) -> None:
        """The call is over."""
        await self._write(Done(call_id=call_id, at=self._wall(), outcome=outcome))

    def close(self) -> None:
        """Let another process have it."""
        with suppress(OSError):  # nobody has acted on what could not be written
            self._file.close()

    async def _write(self, entry: Entry) -> None:
        async with self._lock:
            if self._file.closed:
                raise StateError(f"{self.path}: the ledger is closed")
            await asyncio.shield(asyncio.to_thread(self._append, _encode(entry) + b"\n"))
            self._take(entry)

    def _append(self, line: bytes) -> None:
        try:
            self._file.write(line)
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as exc:
            raise ConfigurationError(
                f"{self.path}: the ledger cannot be written, so nothing is dialled: {exc}"
            ) from exc

    def _read(self, data: bytes) -> int:
        """Take what the file says; returns how much of it is whole."""
        whole = data.rfind(b"\n") + 1
        for number, line in enumerate(data[:whole].splitlines(), 1):
            try:
                self._take(_decode(line))
            except (msgspec.MsgspecError, KeyError) as exc:
                raise ConfigurationError(f"{self.path}: line {number} is none of a ledger: {exc}") from exc
        return whole

    def _take(self, entry: Entry) -> None:
        match entry:
            case Placing():
                attempt = self.attempts[entry.call_id] = Attempt(entry.number, entry.call_id, entry.at)
                self._by_number.setdefault(entry.number, []).append(attempt)
            case Placed():
                self.attempts[entry.call_id].call_sid = entry.call_sid
            case NotPlaced():
                attempt = self.attempts.pop(entry.call_id)
                self._by_number[attempt.number].remove(attempt)
            case Done():
                attempt = self.attempts[entry.call_id]
                attempt.outcome, attempt.done_at = entry.outcome, entry.at

    def _claim(self) -> None:
        try:
            import fcntl
        except ImportError:  # not on every system; there nobody may start two
            return
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            raise ConfigurationError(f"{self.path}: another process is dialling this list") from exc

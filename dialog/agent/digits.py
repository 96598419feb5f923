"""Keys that the caller presses: collected by an agent or a tool, or told to the model as an entry."""

from __future__ import annotations

import asyncio
from typing import Literal, Protocol
from uuid import UUID, uuid4

from msgspec import Struct

from dialog.clock import Clock
from dialog.errors import ConfigurationError, StateError
from dialog.message import Utterance

__all__ = ["DigitCollector", "Digits", "Ear", "Keypad"]

_KEYS = frozenset("0123456789*#ABCD")
_MAX_ENTRY = 64
"""Keys of one entry that nobody collects; the rest are the next entry."""


class Digits(Struct, frozen=True):
    """Keys that were collected, and why no more were waited for."""

    digits: str
    """Without the terminator."""
    why: Literal["complete", "terminator", "timeout", "hung_up"]
    """``complete``: as many as wanted. ``timeout``: no key, or no further key, in time."""

    def __str__(self) -> str:
        return self.digits

    def __repr__(self) -> str:
        return f"<Digits {len(self.digits)} keys, {self.why}>"  # it may be somebody's PIN


class DigitCollector:
    """Collects keys until there are enough, the terminator is pressed, or none comes in time.

    Pure: feed it keys and the reading of a clock, ``tick`` it at :attr:`deadline`, see :attr:`result`.

    Args:
        max_digits: So many are enough; ``None``: there is no limit.
        terminator: A key that ends the entry and is no part of it; empty: there is none.
        timeout_s: How long the first key is waited for, from :meth:`listen` on.
        between_s: How long each further key is waited for.

    Raises:
        ConfigurationError: A value is out of its range, or nothing but silence could end the entry.
    """

    def __init__(
        self, *, max_digits: int | None = None, terminator: str = "#", timeout_s: float = 5.0, between_s: float = 2.0
    ) -> None:
        if max_digits is not None and max_digits < 1:
            raise ConfigurationError(f"max_digits must be at least 1, got {max_digits}")
        if terminator and terminator not in _KEYS:
            raise ConfigurationError(f"terminator must be one key of 0-9 * # A-D, or empty, got {terminator!r}")
        if timeout_s <= 0 or between_s <= 0:
            raise ConfigurationError(f"timeout_s and between_s must be positive, got {timeout_s} and {between_s}")
        self._max_digits = max_digits
        self.terminator: str = terminator
        self._timeout_s = timeout_s
        self._between_s = between_s
        self._digits = ""
        self.deadline: float | None = None
        """When to ``tick``; ``None`` before :meth:`listen` and after the end."""
        self.result: Digits | None = None
        """Once the entry has ended."""

    @property
    def lacks_terminator(self) -> bool:
        """The entry was complete without it: whoever is used to it presses it all the same."""
        return bool(self.terminator) and self.result is not None and self.result.why == "complete"

    def listen(self, now: float) -> None:
        """The prompt was heard: the time for the first key begins. Later calls do nothing."""
        if self.result is None and self.deadline is None:
            self.deadline = now + self._timeout_s

    def press(self, key: str, now: float) -> None:
        """A key was pressed; what is no key is ignored."""
        if self.result is not None or key not in _KEYS:
            return
        if key == self.terminator:
            self._end("terminator")
            return
        self._digits += key
        self.deadline = now + self._between_s
        if len(self._digits) == self._max_digits:
            self._end("complete")

    def tick(self, now: float) -> None:
        """Time has passed."""
        if self.deadline is not None and now >= self.deadline:
            self._end("timeout")

    def hang_up(self) -> None:
        """No more keys can come."""
        if self.result is None:
            self._end("hung_up")

    def _end(self, why: Literal["complete", "terminator", "timeout", "hung_up"]) -> None:
        self.result = Digits(self._digits, why)
        self.deadline = None


class Ear(Protocol):
    """What the keypad tells, and asks, the engine."""

    @property
    def sounding(self) -> bool:
        """Something of a turn that has the floor is not heard to its end yet."""
        ...

    def hush_all(self) -> None:
        """Say no more of what sounds, as far as it may be interrupted; turns go on."""
        ...

    def on_interim(self, utterance: Utterance) -> None: ...  # noqa: D102
    def on_utterance(self, utterance: Utterance, *, complete: bool = False) -> None: ...  # noqa: D102


class Keypad:
    """The keys of one call: each goes to who collects them, else into an entry for the model.

    Args:
        clock: The call's.
        ear: The engine.
        between_s: An entry that nobody collects ends so long after its last key.
        entries: Whether there is a model to tell of such entries.
    """

    def __init__(self, clock: Clock, ear: Ear, *, between_s: float, entries: bool) -> None:
        self._clock = clock
        self._ear = ear
        self._between_s = between_s
        self._entries = entries
        self._collector: DigitCollector | None = None
        self._changed = asyncio.Event()
        self._entry = ""
        self._entry_uuid: UUID = uuid4()
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False
        self._keeps = False
        """Keys that nobody collects are no entry for a model: they wait for who collects next."""
        self._surplus: tuple[str, float] | None = None
        """A key that means nothing until then: the terminator of an entry that was complete without it."""

    def press(self, key: str) -> None:
        """The caller pressed a key: what sounds falls silent, like for a word."""
        surplus, self._surplus = self._surplus, None
        if surplus is not None and key == surplus[0] and self._clock.now() < surplus[1]:
            return
        if self._collector is not None and self._collector.result is None:
            self._collector.press(key, self._clock.now())
            self._changed.set()
            if self._collector.lacks_terminator:
                self._surplus = (self._collector.terminator, self._clock.now() + self._between_s)
            self._ear.hush_all()
        elif self._keeps:
            self._entry = (self._entry + key)[-_MAX_ENTRY:]
            self._ear.hush_all()
        elif self._entries and not self._closed:
            self._entry += key
            if key == "#" or len(self._entry) >= _MAX_ENTRY:
                self._enter()
                return
            self._arm()
            self._ear.on_interim(self._utterance())

    def keep(self, *, keeps: bool) -> None:
        """Whether keys that nobody collects wait for who collects next, instead of being told to the model."""
        self._keeps = keeps
        self.forget()

    def forget(self) -> None:
        """Keys that nobody has collected so far were not meant."""
        self._take_entry()

    def played(self) -> None:
        """Something was heard to its end: perhaps the prompt."""
        if self._collector is not None and not self._ear.sounding:
            self._collector.listen(self._clock.now())
            self._changed.set()

    async def collect(
        self, *, max_digits: int | None = None, terminator: str = "#", timeout_s: float = 5.0, between_s: float = 2.0
    ) -> Digits:
        """Wait for the caller's keys.

        Keys of an entry that is under way count: somebody has typed ahead.

        Raises:
            ConfigurationError: See :class:`DigitCollector`.
            StateError: They are being collected already.
        """
        collector = DigitCollector(
            max_digits=max_digits, terminator=terminator, timeout_s=timeout_s, between_s=between_s
        )
        if self._collector is not None:
            raise StateError("digits are being collected already: one entry at a time")
        ahead = self._take_entry()
        self._collector = collector
        try:
            for key in ahead:
                collector.press(key, self._clock.now())
            if self._closed:
                collector.hang_up()
            if not self._ear.sounding:
                collector.listen(self._clock.now())
            while collector.result is None:
                await self._wait(collector.deadline)
                collector.tick(self._clock.now())
        finally:
            self._collector = None
        return collector.result

    async def _wait(self, deadline: float | None) -> None:
        """Wait until something has changed, at most until ``deadline``."""
        self._changed.clear()
        left_s = None if deadline is None else self._clock.real(max(0.0, deadline - self._clock.now()))
        timer = asyncio.timeout(left_s)  # without one while the prompt sounds: its end is told
        try:
            async with timer:
                await self._changed.wait()
        except TimeoutError:
            if not timer.expired():
                raise

    def close(self) -> str:
        """No more keys come; return what of an entry had come, in words."""
        self._closed = True
        entry = self._utterance().data if self._entry and not self._keeps else ""
        self._take_entry()
        if self._collector is not None:
            self._collector.hang_up()
            self._changed.set()
        return entry

    # -- keys that nobody collects ----------------------------------------------------------------

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._clock.call_at(self._clock.now() + self._between_s, self._enter)

    def _take_entry(self) -> str:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        entry, self._entry = self._entry, ""
        return entry

    def _enter(self) -> None:
        """The entry is complete: it is what the caller has said."""
        utterance = self._utterance()
        self._take_entry()
        self._entry_uuid = uuid4()
        self._ear.on_utterance(utterance, complete=True)

    def _utterance(self) -> Utterance:
        return Utterance(uuid=self._entry_uuid, data=f"(pressed {' '.join(self._entry)})")

"""A recogniser of a chain, and what is known of it while it listens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID

from msgspec.structs import replace

from dialog.audio.convert import Converter
from dialog.errors import DialogError, ProviderError
from dialog.message import Message, Utterance
from dialog.net.circuit import Circuit
from dialog.net.takeover import caused
from dialog.participant import Event
from dialog.stt.seam import joined
from dialog.stt.stt import STT

__all__ = ["Member", "Session"]


class Member:
    """One of the chain: the recogniser as it was given, its name, and whether it is worth asking."""

    def __init__(self, stt: STT, place: int, label: str) -> None:
        self.stt = stt
        self.place = place
        self.label = label
        self.circuit: Circuit
        self.used = False


class Session:
    """A member at work: one that was opened, what it is given, and what came from it."""

    def __init__(self, member: Member, stt: STT, converter: Converter, now: float) -> None:
        self.member = member
        self.stt = stt
        self.converter = converter
        self.fatal: DialogError | None = None
        """It has given up."""
        self._listeners: list[tuple[Event[Any], Callable[[Any], object]]] = []
        self.since = now
        self.signs = 0
        """Events that only somebody who hears can tell."""
        self.seen: tuple[int, int | None] = (0, None)
        self.down_since: float | None = now
        self.errors = 0
        self.last_error: DialogError | None = None
        self.asked_at: float | None = None
        """When it was asked whether it hears anything."""
        self.shy = False
        """It is tried again, and has let others try, too."""
        self.renewed = False
        """It is connected anew, since it heard nothing before."""
        self.kept: Utterance | None = None
        """What another one has heard of the utterance that it goes on with …"""
        self.prefix: Utterance | None = None
        """… and what of that it does not hear again."""
        self.theirs: UUID | None = None
        """Its own name for that utterance."""
        self.speaking = False
        """It took over while somebody spoke, which was told already."""
        self.heard = 0
        """Utterances, and interims of them."""
        self.end_ms = float("-inf")
        self.in_utterance = False
        self.told_at = now
        self.missed = 0
        """Utterances that the active one has told since."""

    def check(self) -> None:
        """Raise what it has given up for."""
        if self.fatal is not None:
            raise self.fatal

    def post(self, message: Message[bytes]) -> None:
        """Hand it caller audio, in its format."""
        if not self.converter.identity:
            data = self.converter.process(message.data)
            message = Message(uuid=message.uuid, data=data, at_ms=message.at_ms)
        self.stt.post(message)

    def listen(self, listeners: list[tuple[Event[Any], Callable[[Any], object]]]) -> None:
        """Let these hear what it tells, until it is disposed of."""
        self._listeners = listeners
        for event, listener in listeners:
            self.stt.on(event, listener)

    def dispose(self) -> None:
        """Nothing that comes from it counts any more."""
        for event, listener in self._listeners:
            self.stt.off(event, listener)
        self.stt.dispose()

    def note(self, now: float, *, words: Utterance | None, final: bool) -> None:
        """It has told something: a sign of life, unless it was asked and only ends what it had."""
        if not (final and self.asked_at is not None):
            self.signs += 1
        self.told_at = now
        if words is not None:
            self.heard += 1
            self.in_utterance = not final
            if final:
                self.end_ms = words.end_ms

    def unconnected(self, pulse: int | None, now: float, patience_s: float) -> ProviderError | None:
        """What is wrong if it has had no connection for ``patience_s``."""
        if pulse is not None:
            self.down_since = None
            return None
        if self.down_since is None:
            self.down_since = now
        if now - self.down_since < patience_s:
            return None
        because = f" ({self.last_error})" if self.last_error is not None else ""
        error = ProviderError(self.member.label, f"no connection for {patience_s:g} s{because}", retryable=True)
        return caused(error, self.last_error)

    # The utterance that another one has begun.

    def translated(self, utterance: Utterance) -> Utterance:
        """An utterance under our name, and with what was heard of it before."""
        kept = self.kept
        if kept is None:
            return utterance
        if self.theirs is None:
            self.theirs = utterance.uuid
        elif self.theirs != utterance.uuid:
            self.kept = self.prefix = None
            return utterance
        return joined(self.prefix, utterance) if self.prefix is not None else replace(utterance, uuid=kept.uuid)

    def ours(self, uuid: UUID) -> UUID:
        """Our name of an utterance."""
        return self.kept.uuid if self.kept is not None and self.theirs == uuid else uuid

    def told(self) -> None:
        """That utterance is over."""
        self.kept = self.prefix = self.theirs = None

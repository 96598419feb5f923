"""Text to speech: the interface that every voice implements."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar, Literal
from uuid import UUID

from msgspec import Struct

from dialog.message import MULAW_8K, Alignment, AudioFormat, Message
from dialog.participant import Event
from dialog.renewable import Renewable
from dialog.usage import ReplyUsage

__all__ = ["TTS", "TTSCapabilities"]


class TTSCapabilities(Struct, frozen=True, kw_only=True):
    """How a voice likes its text, and what it tells."""

    text: Literal["tokens", "sentences"] = "sentences"
    """``tokens``: takes text as it comes and finds the clauses itself."""
    timings: bool = False
    """Emits ALIGNMENT."""
    normalizes: bool = True
    """Reads numbers, dates, money and addresses by itself; otherwise it is given them as English words."""
    voices: bool = False
    """Speaks a part with another voice than its own, if its messages name one."""
    parallel_parts: int = 1
    """How many parts it can speak at the same time; more wait in their order."""
    regions: tuple[str, ...] = ()
    """Where the service can be had, as its provider calls it; for the documentation."""
    limits: str = ""
    """What the service bounds (length of a session, parallel calls), in words; for the documentation."""


class TTS(Renewable):
    """Turns the text of replies into audio, part by part.

    For every part ``(uuid, part)`` it emits the audio in order, then one message with ``done`` (its
    data may be empty), also when the provider failed: a part that was posted always ends, unless it
    was aborted. Parts do not mix up; several may be open at once.
    """

    MESSAGE: ClassVar[Event[Message[bytes]]] = Event("message")
    """Audio; ``at_ms`` counts from the start of the part, ``done`` ends it."""
    ALIGNMENT: ClassVar[Event[Alignment]] = Event("alignment")
    """When words are spoken, if the provider tells."""
    USAGE: ClassVar[Event[ReplyUsage]] = Event("usage")
    """What a part used, once, when it is over or was aborted, where the service is paid for."""

    formats: ClassVar[tuple[AudioFormat, ...]] = (MULAW_8K,)
    """Audio it can make, best first."""
    capabilities: ClassVar[TTSCapabilities] = TTSCapabilities()

    voice_key: str = ""
    """All that the sound depends on besides text and format, without secrets: provider, server, model, voice,
    options. Two with the same key say a sentence alike. Empty: not known."""

    @abstractmethod
    def open(self, audio_format: AudioFormat) -> None:
        """Start connecting and return. ``audio_format`` is one of :attr:`formats` and stays."""

    @abstractmethod
    def post(self, message: Message[str]) -> None:
        """Queue text of a part and return; ``done`` says that no more follows for the part.

        All messages of a part name the same ``voice``, or none; see :attr:`TTSCapabilities.voices`.

        Raises:
            StateError: Called before :meth:`open`.
        """

    @abstractmethod
    def abort(self, uuid: UUID, *, part: int | None = None) -> None:
        """Stop a turn, or one part of it: nothing more is emitted for it. Unknown ones are ignored."""

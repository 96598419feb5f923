"""Speech to text: the interface that every recogniser implements."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar
from uuid import UUID

from msgspec import Struct

from dialog.message import MULAW_8K, AudioFormat, Message, SpeechEdge, Utterance
from dialog.participant import Event
from dialog.renewable import Renewable
from dialog.stt.echo import OwnSpeech
from dialog.usage import ReplyUsage

__all__ = ["STT", "STTCapabilities"]


class STTCapabilities(Struct, frozen=True, kw_only=True):
    """What a recogniser tells besides final utterances."""

    speech_events: bool = False
    """Emits VAD: it hears when speech starts and stops."""
    speech_stops: bool = True
    """It also tells when speech stops, not only when it starts."""
    interim_interval_ms: int | None = None
    """How often interims come while somebody speaks; ``None``: there are none."""
    words: bool = False
    """Utterances carry words with times."""
    eager: bool = False
    """Emits EAGER and EAGER_WITHDRAWN."""
    endpointing: bool = True
    """Ends utterances by itself."""
    manual_turns: bool = False
    """Leaves it to :meth:`STT.finalize` to end utterances, if :attr:`STT.manual_turns` says so."""
    regions: tuple[str, ...] = ()
    """Where the service can be had, as its provider calls it; for the documentation."""
    limits: str = ""
    """What the service bounds (length of a session, parallel calls), in words; for the documentation."""


class STT(Renewable):
    """Turns the caller's audio into utterances.

    The constructor validates and stores; :meth:`open` connects. Audio posted while the connection is
    still being made, or made again, is kept (the newest ten seconds) and not lost.
    """

    MESSAGE: ClassVar[Event[Utterance]] = Event("message")
    """The provider believes that an utterance ended. Never empty."""
    INTERIM: ClassVar[Event[Utterance]] = Event("interim")
    """The words of the utterance so far (all of them), with the uuid that its MESSAGE will have."""
    VAD: ClassVar[Event[SpeechEdge]] = Event("vad")
    """Speech started or stopped."""
    EAGER: ClassVar[Event[Utterance]] = Event("eager")
    """The caller is probably done: worth starting a reply, not worth speaking it."""
    EAGER_WITHDRAWN: ClassVar[Event[UUID]] = Event("eager_withdrawn")
    """The caller went on after all."""
    USAGE: ClassVar[Event[ReplyUsage]] = Event("usage")
    """What was used since the last time, where the service is paid for; the last time as it is disposed of."""

    formats: ClassVar[tuple[AudioFormat, ...]] = (MULAW_8K,)
    """Audio it accepts, best first."""
    capabilities: ClassVar[STTCapabilities] = STTCapabilities()

    manual_turns: bool = False
    """Set before :meth:`open`, where the capabilities have it: somebody else decides when the caller has
    finished and calls :meth:`finalize`. The recogniser then ends an utterance by itself only after the
    longest silence that it can be set to."""

    own_speech: OwnSpeech | None = None
    """Set before :meth:`open`: what the caller has heard of us, kept up to date. A recogniser that hears our echo
    on the caller's line can drop it: utterances that repeat what was heard of us a moment before, and end while we
    are heard or shortly after."""

    @property
    def pulse(self) -> int | None:
        """Changes with every sign of life of the service, also one that is no event; ``None``: no connection.

        One that stays the same tells nothing.
        """
        return 0

    @abstractmethod
    def open(self, audio_format: AudioFormat) -> None:
        """Start connecting and return. ``audio_format`` is one of :attr:`formats` and stays."""

    @abstractmethod
    def post(self, message: Message[bytes]) -> None:
        """Queue caller audio and return.

        Raises:
            StateError: Called before :meth:`open`.
        """

    @abstractmethod
    def finalize(self) -> None:
        """Ask for what was said so far: it comes as MESSAGE within 0.5 s, from the last interim if need be."""

    @abstractmethod
    def discard(self, before_ms: float) -> None:
        """Forget what was said before ``before_ms`` on the call's audio clock."""

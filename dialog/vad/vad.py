"""Voice activity detection: the interface that every local detector implements."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

from dialog.message import MULAW_8K, AudioFormat, Message, SpeechEdge
from dialog.participant import Event, Participant

__all__ = ["VAD"]


class VAD(Participant):
    """Hears when the caller starts and stops speaking, without asking a provider.

    The constructor validates and stores; :meth:`open` makes it ready. One serves one call.
    """

    SPEECH: ClassVar[Event[SpeechEdge]] = Event("speech")
    """Speech started or stopped; ``at_ms`` is where the voice did, on the call's audio clock, and so
    lies before the moment in which it is told."""

    formats: ClassVar[tuple[AudioFormat, ...]] = (MULAW_8K,)
    """Audio it accepts, best first."""

    @abstractmethod
    def open(self, audio_format: AudioFormat) -> None:
        """Get ready and return. ``audio_format`` is one of :attr:`formats` and stays."""

    @abstractmethod
    def post(self, message: Message[bytes]) -> None:
        """Take caller audio, 50 times a second, and return.

        Raises:
            StateError: Called before :meth:`open`.
        """

    @abstractmethod
    def playing(self, level_dbfs: float) -> None:
        """Tell how loud the agent sounds now, before each :meth:`post` while it does: its echo is not the caller.

        :class:`~dialog.vad.played.PlayedAudio` knows the level.
        """

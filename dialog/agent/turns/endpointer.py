"""Has the caller finished? The STT says so; this watches that it does."""

from __future__ import annotations

from dialog.agent.turns.settings import TurnSettings

__all__ = ["Endpointer"]


class Endpointer:
    """Follows the caller's voice and words up to each final utterance.

    A voice without words, or words without a final, must not leave the agent waiting for ever: after
    ``transcript_timeout_s`` it asks for a final, once.
    """

    def __init__(self, settings: TurnSettings) -> None:
        self._settings = settings
        self.voice: bool = False
        """The caller's voice is on."""
        self.words: bool = False
        """Words came that no final has confirmed yet."""
        self._asked = False
        self.deadline: float | None = None

    def started(self, now: float) -> None:
        """The voice started."""
        self.voice = True
        self._asked = False
        self.deadline = None if not self.words else now + self._settings.transcript_timeout_s

    def stopped(self, now: float) -> None:
        """The voice stopped: a final is due."""
        if self.voice:
            self.voice = False
            self._await(now)

    def interim(self, now: float) -> None:
        """Words came; every new one moves the deadline."""
        self.words = True
        self._asked = False
        self._await(now)

    def final(self) -> None:
        """An utterance ended."""
        self.voice = False
        self.words = False
        self._asked = False
        self.deadline = None

    def expired(self, now: float) -> bool:
        """Whether a final has to be asked for now."""
        if self.deadline is None or now < self.deadline:
            return False
        self.deadline = None
        if self._asked:
            # Asked and not answered: whatever it was, it is not going to become words.
            self.words = False
            self.voice = False
            return False
        self._asked = True
        self.deadline = now + self._settings.transcript_timeout_s
        return True

    def _await(self, now: float) -> None:
        self.deadline = now + self._settings.transcript_timeout_s

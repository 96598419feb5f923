"""What emulated recognisers share: a script of sentences, and an ear that tells speech from silence.

Time is audio time, as for the services. A sentence of the script is said while the audio is loud; where
it has a ``|``, the speaker makes a pause and goes on with the next loud stretch, if nobody took the
pause for the end::

    ["a table for two", "my number is | five five five"]
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from dialog.audio.g711 import alaw_decode, mulaw_decode

__all__ = ["Ear", "HeardWord", "Script"]

_WINDOW_S = 0.02
_LOUD = 400
"""Mean amplitude, of 32768, from which a window counts as speech."""
_ONSET_WINDOWS = 3
_GONE_S = 0.1
"""Quiet after which a stretch of speech has ended."""
_WORD_S = 0.3
_DECODERS = {"mulaw": mulaw_decode, "alaw": alaw_decode}


def _the_only_one(_word: str) -> int:
    return 0


class Script:
    """What an emulator hears, sentence after sentence; from the start again after the last.

    An empty sentence is a noise. ``hears``, if set, is given the first 60 ms of a stretch of speech, as
    16-bit PCM, and says the sentence instead: then a connection that begins anew hears the same again.
    """

    sentences: list[str]
    said: int = 0
    """How many sentences were heard to their end."""
    hears: Callable[[bytes], str] | None = None
    who: Callable[[str], int] = staticmethod(_the_only_one)
    """Which speaker says a word, counted from 0; told where the service tells speakers apart."""

    def sentence(self, onset: bytes = b"") -> str:
        """The sentence that is being said."""
        if self.hears is not None:
            return self.hears(onset)
        return self.sentences[self.said % len(self.sentences)] if self.sentences else ""


@dataclass(frozen=True, slots=True)
class HeardWord:
    """A word and when it was said, in seconds of the connection's audio."""

    text: str
    start_s: float
    end_s: float


@dataclass(slots=True)
class _Stretch:
    words: list[str]
    start_s: float
    end_s: float | None = None

    def said(self, now_s: float) -> Iterator[HeardWord]:
        end = self.end_s if self.end_s is not None else max(now_s, self.start_s + _WORD_S * len(self.words))
        each = (end - self.start_s) / max(1, len(self.words))
        for index, text in enumerate(self.words):
            start = self.start_s + index * each
            if start + each > now_s + 1e-6:
                return
            yield HeardWord(text, round(start, 3), round(start + each, 3))


class Ear:
    """Hears the audio of one connection.

    Args:
        script: What is said.
        encoding: ``mulaw``, ``alaw`` or ``s16le``.
        rate: Samples in a second.
    """

    def __init__(self, script: Script, encoding: str, rate: int) -> None:
        self._script = script
        self._decode = _DECODERS.get(encoding)
        self._bytes_s = rate * (1 if self._decode else 2)
        self._window = int(self._bytes_s * _WINDOW_S)
        self._pending = b""
        self._heard = 0
        self._onset = b""
        self._loud = 0
        self._ignore = False
        self._pieces: list[Sequence[str]] = []
        self._stretches: list[_Stretch] = []
        self.quiet_s = 0.0
        """For how long nobody has spoken."""

    @property
    def now_s(self) -> float:
        """How much audio was heard."""
        return self._heard / self._bytes_s

    @property
    def in_turn(self) -> bool:
        """Whether somebody has begun to speak, and :meth:`end_turn` was not called since."""
        return bool(self._stretches)

    @property
    def speaking(self) -> bool:
        """Whether somebody speaks now."""
        return bool(self._stretches) and self._stretches[-1].end_s is None

    @property
    def start_s(self) -> float:
        """Where the turn began."""
        return self._stretches[0].start_s if self._stretches else self.now_s

    def feed(self, audio: bytes) -> Iterator[None]:
        """Hear ``audio``, and yield after every 20 ms of it."""
        self._pending += audio
        while len(self._pending) >= self._window:
            window, self._pending = self._pending[: self._window], self._pending[self._window :]
            self._heard += self._window
            self._hear(self._decode(window) if self._decode else window)
            yield

    def words(self) -> list[HeardWord]:
        """The words of the turn that were said to their end."""
        return [word for stretch in self._stretches for word in stretch.said(self.now_s)]

    def text(self) -> str:
        """The words of the turn."""
        return " ".join(word.text for word in self.words())

    def cut_short(self) -> None:
        """Somebody wants the words now: the sentence is over, and the rest of its sound is ignored."""
        if self.speaking:
            self._stretches[-1].end_s = self.now_s
            self._ignore = True

    def end_turn(self) -> None:
        """The sentence is over."""
        if self._stretches:
            self._script.said += 1
        self._stretches.clear()
        self._pieces.clear()

    def _hear(self, pcm: bytes) -> None:
        samples = array("h", pcm)
        loud = sum(map(abs, samples[::4])) * 4 > _LOUD * len(samples)
        self.quiet_s = 0.0 if loud else self.quiet_s + _WINDOW_S
        self._loud = self._loud + 1 if loud else 0
        self._onset = (self._onset + pcm)[-_ONSET_WINDOWS * len(pcm) :] if loud else b""
        if self.quiet_s >= _GONE_S - 1e-6:
            self._ignore = False
            if self.speaking:
                self._stretches[-1].end_s = self.now_s - self.quiet_s
        elif self._loud >= _ONSET_WINDOWS and not self.speaking and not self._ignore:
            if not self._stretches:
                self._pieces = [piece.split() for piece in self._script.sentence(self._onset).split("|")]
            words = list(self._pieces.pop(0)) if self._pieces else []
            self._stretches.append(_Stretch(words, self.now_s - _ONSET_WINDOWS * _WINDOW_S))

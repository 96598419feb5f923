"""What a voice knows of a part that it speaks: its text, its audio, and which words are spoken. Pure.

A part may need several provider contexts, one after another; each begins where the audio so far ends.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterable

from dialog.message import AudioFormat, Word
from dialog.net.contexts import PartKey

__all__ = ["SpokenPart"]

_HEARD_MS = 30.0
"""How much of a word's end may be missing from its audio for the word to count as spoken."""
_SKEW_MS = 1000.0
"""By so much the times of words may be wrong without a word about it."""
_SEARCH = 40
"""How far behind the last word the next one is looked for, in characters."""


class SpokenPart:
    """A part that is being spoken, or waits for it."""

    __slots__ = (
        "_cursor",
        "_latest_ms",
        "_letters",
        "_letters_end_ms",
        "_letters_start_ms",
        "_odd",
        "_spoken",
        "_words",
        "audio_ms",
        "base_ms",
        "characters",
        "closed",
        "done",
        "key",
        "last_audio",
        "last_text",
        "retry",
        "sent",
        "skewed",
        "text",
        "timed",
        "tries",
        "voice",
    )

    def __init__(self, key: PartKey, voice: str = "") -> None:
        self.key: PartKey = key
        self.voice: str = voice
        """Who speaks it; empty: the voice that speaks everything."""
        self.text: str = ""
        """Text from the start of the current context on."""
        self.sent: int = 0
        """Characters of it that the context has."""
        self.done: bool = False
        """All text of the part is here."""
        self.closed: bool = False
        """The context was told that no more text follows."""
        self.audio_ms: float = 0.0
        """Audio of the part so far."""
        self.base_ms: float = 0.0
        """Where the audio of the current context begins."""
        self.last_audio: float | None = None
        """When the current context gave audio last, in seconds of the loop's clock."""
        self.last_text: float = 0.0
        """When text was last sent for it."""
        self.timed: bool = False
        """The current context tells when words are spoken."""
        self.characters: int = 0
        """Characters that contexts were sent, but for those that spoke nothing."""
        self.skewed: bool = False
        """Times of words were told that cannot be."""
        self.tries: int = 0
        """Contexts that were needed because others failed."""
        self.retry: asyncio.TimerHandle | None = None
        self._cursor = 0
        self._latest_ms = 0.0
        """Where the last word begins."""
        self._letters = ""
        """A word of which more may come."""
        self._letters_start_ms = self._letters_end_ms = 0.0
        self._spoken = 0
        self._odd: bytes = b""
        self._words: list[tuple[Word, int]] = []

    @property
    def speakable(self) -> bool:
        """There is something to say, besides blanks."""
        return bool(self.text.strip())

    @property
    def uncertain(self) -> bool:
        """Something was spoken, and nothing tells how much of the text that was."""
        return self.last_audio is not None and not self.timed

    def take(self, text: str, *, done: bool) -> None:
        """Text is to be spoken; ``done``: it is the last."""
        self.text += text
        self.done = self.done or done

    def unsent(self) -> str:
        """The text that the context does not have yet, which from now on it has."""
        text = self.text[self.sent :]
        self.characters += len(text)
        self.sent = len(self.text)
        self.closed = self.done
        return text

    def audio(self, data: bytes, audio_format: AudioFormat, now: float) -> bytes:
        """Audio came: whole samples of it, since chunks may end anywhere."""
        self.last_audio = now
        if audio_format.sample_bytes == 2:
            data = self._odd + data
            whole = len(data) & ~1
            self._odd = data[whole:]
            data = data[:whole]
        self.audio_ms += audio_format.ms(len(data))
        return data

    def timings(self, words: Iterable[tuple[str, float, float]]) -> None:
        """Words of the current context, each with its start and end in seconds from the context's start."""
        self.timed = True
        for text, start_s, end_s in words:
            self._timed_word(text, self.base_ms + start_s * 1000.0, self.base_ms + end_s * 1000.0)

    def letters(
        self, chars: Iterable[str], starts_ms: Iterable[float], durations_ms: Iterable[float], at_ms: float
    ) -> None:
        """Characters of the current context, timed from ``at_ms`` of the part's audio on.

        A word ends with the blank behind it, which may come with a later call.
        """
        self.timed = True
        for char, start_ms, duration_ms in zip(chars, starts_ms, durations_ms, strict=False):
            if char.isspace():
                self._end_word()
                continue
            if not self._letters:
                self._letters_start_ms = at_ms + start_ms
            self._letters += char
            self._letters_end_ms = at_ms + start_ms + duration_ms

    def _end_word(self) -> None:
        if self._letters:
            word, self._letters = self._letters, ""
            self._timed_word(word, self._letters_start_ms, self._letters_end_ms)

    def _timed_word(self, text: str, start_ms: float, end_ms: float) -> None:
        # Providers differ in how well they count: time does not run backwards.
        self.skewed = self.skewed or start_ms < self._latest_ms - _SKEW_MS
        self._latest_ms = start_ms = max(start_ms, self._latest_ms)
        self._cursor = self._find(text)
        self._words.append((Word(text=text, start_ms=start_ms, end_ms=max(end_ms, start_ms)), self._cursor))

    def spoken(self, *, all_: bool = False) -> tuple[Word, ...]:
        """The words that became audible since the last call; ``all_``: no more audio comes for them."""
        if all_:
            self._end_word()
        if not self._words:
            return ()
        until_ms = math.inf if all_ else self.audio_ms + _HEARD_MS
        count = 0
        while count < len(self._words) and self._words[count][0].end_ms <= until_ms:
            count += 1
        if not count:
            return ()
        words = self._words[:count]
        del self._words[:count]
        self._spoken = words[-1][1]
        if all_ and words[-1][0].end_ms > self.audio_ms + _SKEW_MS:
            self.skewed = True
            return tuple(_within(word, self.audio_ms) for word, _ in words)
        return tuple(word for word, _ in words)

    def restart(self) -> None:
        """The context is gone before its end: what it did not speak is for the next one."""
        self.forgive()
        if self.last_audio is None:
            self._begin(0)
        else:
            self._begin(self._spoken if self.timed else self.sent)

    def forgive(self) -> None:
        """The context has failed: nobody pays for text of which nothing was spoken."""
        if self.last_audio is None:
            self.characters -= self.sent

    def advance(self, size: int) -> None:
        """The context has spoken the first ``size`` characters to their end, and goes on."""
        self.text = self.text[size:]
        self.sent -= size
        self.base_ms = self._latest_ms = self.audio_ms
        self.last_audio = None
        self._odd = b""

    def finish_context(self) -> None:
        """The context spoke all that it had."""
        self._begin(self.sent)

    def _begin(self, at: int) -> None:
        self.text = self.text[at:].lstrip() if at else self.text
        self.sent = self._cursor = self._spoken = 0
        self.closed = self.timed = False
        self.base_ms = self._latest_ms = self.audio_ms
        self.last_audio = None
        self._odd = b""
        self._letters = ""
        self._words.clear()

    def _find(self, word: str) -> int:
        """Where ``word`` ends in the text, after the word before it."""
        at = self.text.find(word, self._cursor, self._cursor + len(word) + _SEARCH)
        if at >= 0:
            return at + len(word)
        # Spoken otherwise than written ("7" is "seven"): take the next written word for it.
        rest = self.text[self._cursor :]
        written = rest.split(maxsplit=1)
        return len(self.text) - len(rest.lstrip()) + len(written[0]) if written else len(self.text)


def _within(word: Word, end_ms: float) -> Word:
    return Word(text=word.text, start_ms=min(word.start_ms, end_ms), end_ms=min(word.end_ms, end_ms))

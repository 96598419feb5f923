"""A voice that spells and ears that read: speech whose words are in the audio, without a provider and without waiting.

::

    Agent(voip=voip, stt=ReadingSTT(), tts=SpellingTTS(), …)

What one side says with :class:`SpellingTTS` the other side hears with :class:`ReadingSTT`, word for word and at the
pace of speech; a word that was cut is heard as far as it sounded. Everything happens in this process and by the
audio's own time, so a call between two agents also runs on a faster clock or in virtual time. The audio has to arrive
as it was sent: mu-law, not mixed (:mod:`dialog.testing.scenario_sound`).
"""

from __future__ import annotations

from typing import ClassVar
from uuid import UUID, uuid4

from dialog.errors import ConfigurationError, StateError
from dialog.message import MULAW_8K, Alignment, AudioFormat, Message, SpeechEdge, Utterance, Word
from dialog.stt.stt import STT, STTCapabilities
from dialog.testing.heard import is_silent
from dialog.testing.scenario_sound import Cell, Letters, read_words, spell
from dialog.tts.tts import TTS, TTSCapabilities

__all__ = ["ReadingSTT", "SpellingTTS"]

_ONSET_MS = 60.0
"""Sound for so long is a voice, or a noise."""
_GONE_MS = 300.0
_WHOLE_MS = 100.0
"""A word after which nothing has come for so long is whole."""


class SpellingTTS(TTS):
    """Speaks at once, in a sound that spells the words, and tells when each is spoken.

    Args:
        ms_per_char: How long each character sounds; 60 is some 170 words a minute.

    Raises:
        ConfigurationError: A character sounds for less than 8 ms, which cannot be read.
    """

    formats: ClassVar[tuple[AudioFormat, ...]] = (MULAW_8K,)
    capabilities: ClassVar[TTSCapabilities] = TTSCapabilities(
        text="tokens", timings=True, voices=True, parallel_parts=8
    )

    def __init__(self, *, ms_per_char: float = 60.0) -> None:
        if ms_per_char < 8:
            raise ConfigurationError(f"SpellingTTS: ms_per_char must be at least 8, got {ms_per_char}")
        super().__init__()
        self._ms_per_char = ms_per_char
        self._open = False
        self._parts: dict[tuple[UUID, int], _Part] = {}
        self._gone: set[tuple[UUID, int]] = set()
        self._lanes = 0

    def open(self, audio_format: AudioFormat) -> None:
        """Nothing has to be connected."""
        if self._disposed or self._open:
            raise StateError(f"{self.name}: open() called twice, or after dispose()")
        assert audio_format == MULAW_8K, "it has no other format"
        self._open = True

    def post(self, message: Message[str]) -> None:
        """Speak the text at once."""
        if not self._open:
            raise StateError(f"{self.name}: post() before open()")
        key = (message.uuid, message.part)
        if key in self._gone:
            return
        part = self._parts.get(key)
        if part is None:
            self._lanes += 1
            part = self._parts[key] = _Part(self._lanes, self._ms_per_char)
        at_ms = part.spoken_ms
        data, words = part.add(message.data)
        if message.done:
            del self._parts[key]
        if words:
            self.emit(TTS.ALIGNMENT, Alignment(uuid=message.uuid, part=message.part, words=words))
        if data or message.done:
            self.emit(
                TTS.MESSAGE,
                Message(uuid=message.uuid, part=message.part, data=data, at_ms=at_ms, done=message.done),
            )

    def abort(self, uuid: UUID, *, part: int | None = None) -> None:
        """Say no more of it."""
        for key in [key for key in self._parts if key[0] == uuid and part in (None, key[1])]:
            del self._parts[key]
            self._gone.add(key)


class _Part:
    """A part that is being spoken."""

    def __init__(self, lane: int, ms_per_char: float) -> None:
        self._lane = lane
        self._ms_per_char = ms_per_char
        self._text = ""
        self._size = 0

    @property
    def spoken_ms(self) -> float:
        return MULAW_8K.ms(self._size)

    def add(self, text: str) -> tuple[bytes, tuple[Word, ...]]:
        """The audio of ``text``, and when its words are spoken."""
        start = len(self._text)
        self._text += text.replace("[", "(")  # which would be a pause
        # The same text with more behind it begins with the same audio.
        audio = spell(self._text, lane=self._lane, ms_per_char=self._ms_per_char)
        data, self._size = audio[self._size :], len(audio)
        words: list[Word] = []
        for word in self._text[start:].split():
            start = self._text.index(word, start)
            begin_ms, start = start * self._ms_per_char, start + len(word)
            words.append(Word(text=word, start_ms=begin_ms, end_ms=start * self._ms_per_char))
        return data, tuple(words)


class ReadingSTT(STT):
    """Hears what a :class:`SpellingTTS` says, or whatever else spells; other sounds are a voice without words.

    Args:
        endpointing_ms: An utterance has ended after so much silence.
        interim_ms: Interims come so often while words do, in milliseconds of audio.

    Raises:
        ConfigurationError: ``endpointing_ms`` is not longer than the gap between two words.
    """

    formats: ClassVar[tuple[AudioFormat, ...]] = (MULAW_8K,)
    capabilities: ClassVar[STTCapabilities] = STTCapabilities(
        speech_events=True, interim_interval_ms=300, words=True, eager=False
    )

    def __init__(self, *, endpointing_ms: float = 400.0, interim_ms: float = 300.0) -> None:
        if endpointing_ms < 200:
            raise ConfigurationError(f"ReadingSTT: endpointing_ms must be at least 200, got {endpointing_ms}")
        super().__init__()
        self._endpointing_ms = endpointing_ms
        self._interim_ms = interim_ms
        self._open = False
        self._letters = Letters()
        self._cells: list[Cell] = []
        """Of the utterance that is being heard."""
        self._now_ms = 0.0
        self._loud_ms = 0.0
        self._quiet_ms = _GONE_MS
        self._voice = False
        self._uuid: UUID | None = None
        self._words_told = 0
        """Words of the newest interim."""
        self._told_ms = 0.0

    def open(self, audio_format: AudioFormat) -> None:
        """Nothing has to be connected."""
        if self._disposed or self._open:
            raise StateError(f"{self.name}: open() called twice, or after dispose()")
        assert audio_format == MULAW_8K, "it has no other format"
        self._open = True

    def post(self, message: Message[bytes]) -> None:
        """Read the audio, and tell at once what is to be told."""
        if not self._open:
            raise StateError(f"{self.name}: post() before open()")
        ms = MULAW_8K.ms(len(message.data))
        self._now_ms = message.at_ms + ms
        self._hear_voice(is_silent(message.data), ms)
        self._cells += self._letters.read(message.data, message.at_ms)
        if not self._cells:
            return
        silent_ms = self._now_ms - self._cells[-1].at_ms
        if silent_ms >= self._endpointing_ms:
            self.finalize()
        elif self._now_ms - self._told_ms >= self._interim_ms:
            self._tell_interim(whole=silent_ms >= _WHOLE_MS)

    def finalize(self) -> None:
        """Tell what was heard since the last utterance."""
        words = self._words(whole=True)
        uuid, self._uuid = self._uuid, None
        self._cells.clear()
        self._words_told = 0
        if words:
            self.emit(STT.MESSAGE, _utterance(uuid or uuid4(), words))

    def discard(self, before_ms: float) -> None:
        """Forget what was heard before ``before_ms``."""
        self._cells = [cell for cell in self._cells if cell.at_ms >= before_ms]
        if not self._cells:
            self._uuid, self._words_told = None, 0

    def _hear_voice(self, silent: bool, ms: float) -> None:  # one caller
        self._loud_ms = 0.0 if silent else self._loud_ms + ms
        self._quiet_ms = self._quiet_ms + ms if silent else 0.0
        if not self._voice and self._loud_ms >= _ONSET_MS:
            self._voice = True
            self.emit(STT.VAD, SpeechEdge(state="started", at_ms=self._now_ms - self._loud_ms))
        elif self._voice and self._quiet_ms >= _GONE_MS:
            self._voice = False
            self.emit(STT.VAD, SpeechEdge(state="stopped", at_ms=self._now_ms - self._quiet_ms))

    def _tell_interim(self, *, whole: bool) -> None:
        words = self._words(whole=whole)
        if len(words) > self._words_told:
            self._words_told, self._told_ms = len(words), self._now_ms
            self._uuid = self._uuid or uuid4()
            self.emit(STT.INTERIM, _utterance(self._uuid, words))

    def _words(self, *, whole: bool) -> tuple[Word, ...]:
        """What was heard; the last word only if it is ``whole``."""
        words = read_words(self._cells)
        return tuple(
            Word(text=word.text, start_ms=word.start_ms, end_ms=word.end_ms)
            for word in (words if whole else words[:-1])
        )


def _utterance(uuid: UUID, words: tuple[Word, ...]) -> Utterance:
    return Utterance(
        uuid=uuid,
        data=" ".join(word.text for word in words),
        at_ms=words[0].start_ms,
        end_ms=words[-1].end_ms,
        words=words,
    )

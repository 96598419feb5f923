"""A voice of recorded phrases, as a provider of its own package: it says what somebody has recorded.

It has no account, no network and no delay, and sounds like the person who recorded it. For agents that
say a fixed number of sentences, such as those that answer by rules.
"""

from __future__ import annotations

import asyncio
import re
from collections import deque
from functools import lru_cache
from pathlib import Path
from typing import ClassVar
from uuid import UUID

import msgspec

from dialog.audio.convert import Converter
from dialog.audio.wav import read_wav
from dialog.errors import ConfigurationError, ProviderError, StateError, UnsupportedFormat
from dialog.message import MULAW_8K, PCM_8K, PCM_16K, AudioFormat, Message
from dialog.providers.variables import Variable
from dialog.tts.tts import TTS, TTSCapabilities

__all__ = ["PhraseTTS"]

Words = tuple[str, ...]
Key = tuple[UUID, int]


class PhraseTTS(TTS):
    """Plays the recordings of a directory.

    Its ``phrases.json`` maps what is said to the WAV file that says it::

        {"Good evening.": "good-evening.wav", "Your parcel is on its way.": "on-its-way.wav"}

    Case and punctuation do not count. What was not recorded is left out and told by an ERROR.

    Args:
        directory: Where ``phrases.json`` and the recordings are.

    Raises:
        ConfigurationError: No directory is given. What is wrong with its files is told once it is open.
    """

    formats: ClassVar[tuple[AudioFormat, ...]] = (MULAW_8K, PCM_8K, PCM_16K)
    capabilities: ClassVar[TTSCapabilities] = TTSCapabilities(text="sentences", limits="what was recorded")
    environment: ClassVar[tuple[Variable, ...]] = (
        Variable(
            name="PHRASES_DIR",
            what="directory of the recordings",
            configures=("tts.phrases.directory",),
            needed=True,
        ),
    )
    """What ``create_tts.from_env("phrases")`` reads."""

    def __init__(self, *, directory: str | Path) -> None:
        if not directory:
            raise ConfigurationError("PhraseTTS needs a directory")
        super().__init__()
        self._directory = Path(directory)
        self._recordings: dict[Words, bytes] | None = None
        self._format: AudioFormat | None = None
        self._parts: dict[Key, _Part] = {}
        self._aborted: deque[Key] = deque(maxlen=64)

    def open(self, audio_format: AudioFormat) -> None:
        """Start to read the recordings, unless another call has; what is posted meanwhile waits."""
        if audio_format not in self.formats:
            raise UnsupportedFormat(f"phrases: {audio_format} is none of {self.formats}")
        if self._format is not None:
            raise StateError("PhraseTTS.open was called twice")
        self._format = audio_format
        self.spawn(self._load(audio_format), "reading")

    def post(self, message: Message[str]) -> None:
        """Play the phrases in the text."""
        if self._format is None:
            raise StateError("PhraseTTS.post was called before open")
        key = (message.uuid, message.part)
        if self.disposed or key in self._aborted:
            return
        part = self._parts.setdefault(key, _Part())
        part.words += _words(message.data)
        part.done = part.done or message.done
        if self._recordings is not None:
            self._play(key, part, self._recordings)

    def abort(self, uuid: UUID, *, part: int | None = None) -> None:
        """Play no more of a turn, or of one part of it."""
        for key in [key for key in self._parts if key[0] == uuid and part in (None, key[1])]:
            del self._parts[key]
            self._aborted.append(key)

    async def _load(self, audio_format: AudioFormat) -> None:
        try:
            self._recordings = await asyncio.to_thread(_read, self._directory, audio_format)
        except (OSError, msgspec.DecodeError, UnsupportedFormat) as exc:
            self._recordings = {}  # every part has to end all the same
            reason = f"{self._directory} cannot be used: {exc}"
            self.fail(ProviderError("phrases", reason, retryable=False), fatal=True)
        for key, part in list(self._parts.items()):
            if self._parts.get(key) is part:  # whoever hears the one may abort the other
                self._play(key, part, self._recordings)

    def _play(self, key: Key, part: _Part, recordings: dict[Words, bytes]) -> None:
        """Play all phrases that the words hold, the longest first; wait for one that may be incomplete."""
        assert self._format is not None
        audio = bytearray()
        missing = False
        while part.words:
            rest = tuple(part.words)
            if not part.done and any(len(phrase) > len(rest) and phrase[: len(rest)] == rest for phrase in recordings):
                break
            found = [phrase for phrase in recordings if rest[: len(phrase)] == phrase]
            if found:
                phrase = max(found, key=len)
                audio += recordings[phrase]
                del part.words[: len(phrase)]
            else:
                missing = True
                del part.words[0]
        if missing and recordings:
            # The words may be the caller's (an address that is read back), so they are not told.
            self.fail(
                ProviderError("phrases", "there is no recording of something that was to be said", retryable=False)
            )
        if part.done:
            self._parts.pop(key, None)
        at_ms, part.at_ms = part.at_ms, part.at_ms + self._format.ms(len(audio))
        if audio or part.done:
            message = Message(uuid=key[0], part=key[1], data=bytes(audio), at_ms=at_ms, done=part.done)
            self.emit(TTS.MESSAGE, message)


class _Part:
    """A part that is being spoken."""

    def __init__(self) -> None:
        self.words: list[str] = []
        self.done = False
        self.at_ms = 0.0


@lru_cache(maxsize=8)
def _read(directory: Path, audio_format: AudioFormat) -> dict[Words, bytes]:
    """The recordings of a directory; all calls share them. In a thread: reading blocks."""
    phrases = msgspec.json.decode((directory / "phrases.json").read_bytes(), type=dict[str, str])
    recordings: dict[Words, bytes] = {}
    for phrase, name in phrases.items():
        pcm, sample_rate = read_wav(directory / name)
        converter = Converter(AudioFormat("s16le", sample_rate), audio_format)
        recordings[_words(phrase)] = converter.process(pcm) + converter.flush()
    return recordings


def _words(text: str) -> Words:
    return tuple(re.findall(r"[\w']+", text.casefold()))

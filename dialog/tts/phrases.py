"""Sentences that were spoken once and are kept: :class:`PhraseCache`."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
from collections import OrderedDict
from pathlib import Path

import msgspec
from msgspec import Struct

from dialog.errors import ConfigurationError
from dialog.message import AudioFormat, Word

__all__ = ["Phrase", "PhraseCache", "phrase_key"]

logger = logging.getLogger(__name__)


class Phrase(Struct, frozen=True, kw_only=True):
    """A sentence as it was spoken."""

    audio: bytes
    audio_format: AudioFormat
    words: tuple[Word, ...] = ()
    """When its words are spoken, in milliseconds from its start; empty if the voice did not tell."""

    @property
    def ms(self) -> float:
        """How long it lasts, in milliseconds."""
        return self.audio_format.ms(len(self.audio))

    def __repr__(self) -> str:
        return f"<Phrase of {self.ms:.0f} ms>"


def phrase_key(voice_key: str, audio_format: AudioFormat, text: str) -> str:
    """What a sentence is kept under: a digest of all that its sound depends on."""
    what = (voice_key, audio_format.encoding, audio_format.sample_rate, text)
    return hashlib.sha256(msgspec.msgpack.encode(what)).hexdigest()


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Phrase).decode


class PhraseCache:
    """Keeps spoken sentences for all calls of a process, and on disk for the next one.

    For fixed sentences, a few dozen: the disk is not tidied up. It belongs to one event loop.

    Args:
        directory: Where to keep them beyond the process's end; made if it is not there.
        limit_bytes: Audio to keep in memory; what was not used for longest goes first. The default is
            half an hour of telephone audio.

    Raises:
        ConfigurationError: ``limit_bytes`` is not positive.
    """

    def __init__(self, *, directory: str | Path | None = None, limit_bytes: int = 16_000_000) -> None:
        if limit_bytes <= 0:
            raise ConfigurationError(f"limit_bytes must be positive, got {limit_bytes}")
        self.directory = None if directory is None else Path(directory)
        self.limit_bytes = limit_bytes
        self.bytes: int = 0
        """Audio in memory."""
        self._phrases: OrderedDict[str, Phrase] = OrderedDict()
        self._claimed: set[str] = set()

    def __len__(self) -> int:
        return len(self._phrases)

    def get(self, key: str) -> Phrase | None:
        """The sentence, if it is in memory."""
        phrase = self._phrases.get(key)
        if phrase is not None:
            self._phrases.move_to_end(key)
        return phrase

    def put(self, key: str, phrase: Phrase) -> None:
        """Keep a sentence in memory."""
        old = self._phrases.pop(key, None)
        self.bytes += len(phrase.audio) - (len(old.audio) if old is not None else 0)
        self._phrases[key] = phrase
        while self.bytes > self.limit_bytes:
            _, gone = self._phrases.popitem(last=False)
            self.bytes -= len(gone.audio)

    def claim(self, key: str) -> bool:
        """Whether the asker is to speak this sentence; false while another call does. See :meth:`release`."""
        if key in self._claimed:
            return False
        self._claimed.add(key)
        return True

    def release(self, key: str) -> None:
        """The asker is done with it, or has given up."""
        self._claimed.discard(key)

    async def load(self, key: str) -> Phrase | None:
        """The sentence, from memory or from disk. A file that cannot be read counts as none."""
        phrase = self.get(key)
        if phrase is None and self.directory is not None:
            phrase = await asyncio.to_thread(_read, self._path(self.directory, key))
            if phrase is not None:
                self.put(key, phrase)
        return phrase

    async def store(self, key: str, phrase: Phrase) -> None:
        """Keep a sentence in memory, and on disk if there is a directory. A disk that refuses costs only that."""
        self.put(key, phrase)
        if self.directory is not None:
            await asyncio.to_thread(_write, self._path(self.directory, key), _encode(phrase))

    @staticmethod
    def _path(directory: Path, key: str) -> Path:
        return directory / f"{key}.phrase"


def _read(path: Path) -> Phrase | None:
    try:
        return _decode(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError) as exc:
        logger.warning("%s cannot be used, and is made again: %s", path, exc)
        return None


def _write(path: Path, data: bytes) -> None:
    # Another process may read it meanwhile: it is there as a whole or not at all.
    partial = path.with_suffix(f".{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(data)
        partial.replace(path)
    except OSError as exc:
        logger.warning("%s cannot be written; the phrase is kept in memory only: %s", path, exc)

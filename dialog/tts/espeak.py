"""Text to speech without an account: espeak-ng, a formant synthesiser.

Its voices are a robot's; it speaks a sentence within a millisecond or two. The optional package that
brings the library is GPL-3.0-or-later; see docs/local-speech.md.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import ClassVar
from uuid import UUID

from msgspec import Struct, field
from msgspec.structs import replace

from dialog.audio.convert import Converter
from dialog.errors import ConfigurationError, DialogError, LimitError, ProviderError, StateError
from dialog.message import Alignment, AudioFormat, Message, Word
from dialog.tts._espeak import SAMPLE_RATE, Settings, SpokenWord, check_voice, synthesise
from dialog.tts.tts import TTS, TTSCapabilities

__all__ = ["EspeakTTS", "speak"]

_FORMAT = AudioFormat("s16le", SAMPLE_RATE)
_LIMIT = 65_536
"""Characters that may wait to be spoken."""
_PAUSES_MS = {".": 250.0, "!": 250.0, "?": 250.0, ":": 180.0, ";": 180.0, ",": 120.0}
"""Silence between two pieces of a part, by how the first ended. The voice itself leaves none."""


class _Piece(Struct):
    """A piece of text and where its audio stands in the part."""

    key: tuple[UUID, int]
    text: str
    settings: Settings
    base_ms: float
    aborted: bool = False
    """Read by the thread: the next chunk is the last."""
    samples: int = 0
    words: list[SpokenWord] = field(default_factory=list[SpokenWord])


class _Part(Struct):
    settings: Settings
    pieces: deque[str] = field(default_factory=deque[str])
    done: bool = False
    audio_ms: float = 0.0
    last: str = ""
    """How the text so far ended."""


class _Thread:
    """The one thread that speaks for all calls; it lives as long as it has users."""

    _lock = threading.Lock()
    _shared: ClassVar[_Thread | None] = None

    def __init__(self) -> None:
        self.users = 0
        self.executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="espeak")

    @classmethod
    def acquire(cls) -> _Thread:
        with cls._lock:
            if cls._shared is None:
                cls._shared = cls()
            cls._shared.users += 1
            return cls._shared

    @classmethod
    def release(cls, thread: _Thread) -> bool:
        """Give it back; true if it ends with that."""
        with cls._lock:
            thread.users -= 1
            if thread.users:
                return False
            cls._shared = None
            thread.executor.shutdown(wait=False)
            return True


class EspeakTTS(TTS):
    """Speaks with espeak-ng, in a thread that all calls share.

    Args:
        voice: A voice, if need be with a variant: ``en-us``, ``en-gb-x-rp``, ``en-us+f2``.
        rate: Words a minute, 80 to 450.
        pitch: 0 to 99.
        volume: Percent, up to 200; over 100 may distort.

    Raises:
        MissingExtra: espeak-ng is not installed.
        ConfigurationError: There is no such voice, or a setting is out of its range.
    """

    formats: ClassVar[tuple[AudioFormat, ...]] = (_FORMAT,)
    capabilities: ClassVar[TTSCapabilities] = TTSCapabilities(
        text="sentences", timings=True, normalizes=False, voices=True
    )

    def __init__(self, voice: str = "en-us", *, rate: int = 165, pitch: int = 50, volume: int = 100) -> None:
        self._settings = Settings(voice=voice, rate=rate, pitch=pitch, volume=volume)
        check_voice(voice)
        super().__init__()
        # espeak-ng reads "$5" as "dollar five", and phone numbers as millions. Words are there for English only.
        english = voice.lower().startswith("en")
        # This instance's voice decides what it can do.
        self.capabilities = TTSCapabilities(text="sentences", timings=True, normalizes=not english, voices=True)  # type: ignore[misc]
        self.voice_key = repr(("espeak", self._settings))
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: _Thread | None = None
        self._parts: dict[tuple[UUID, int], _Part] = {}
        """In the order in which they are spoken; the first is being spoken."""
        self._aborted: deque[tuple[UUID, int]] = deque(maxlen=64)
        """Text that still comes for these is not spoken."""
        self._waiting = 0
        self._piece: _Piece | None = None
        self._job: Future[None] | None = None
        self._last_thread: _Thread | None = None

    def open(self, audio_format: AudioFormat) -> None:
        """See :meth:`TTS.open`."""
        if self._disposed or self._thread is not None:
            raise StateError(f"{self.name}: open() called twice, or after dispose()")
        if audio_format not in self.formats:
            raise ConfigurationError(f"{self.name} makes {self.formats}, not {audio_format}")
        self._loop = asyncio.get_running_loop()
        self._thread = _Thread.acquire()

    def post(self, message: Message[str]) -> None:
        """See :meth:`TTS.post`. Beyond 65 536 waiting characters, text is dropped with an ERROR.

        Raises:
            StateError: Called before :meth:`open`.
            ConfigurationError: There is no such voice.
        """
        if self._disposed:
            return
        if self._thread is None:
            raise StateError(f"{self.name}: post() before open()")
        key = (message.uuid, message.part)
        if key in self._aborted:
            return
        part = self._parts.get(key)
        if part is None:
            part = self._parts[key] = _Part(self._speaking_as(message.voice))
        if part.done:
            return
        part.done = message.done
        if message.data.strip():
            if self._waiting + len(message.data) > _LIMIT:
                self.fail(LimitError(f"{self.name}: more than {_LIMIT} characters wait; the newest are dropped"))
            else:
                self._waiting += len(message.data)
                part.pieces.append(message.data)
        self._next()

    def _speaking_as(self, voice: str) -> Settings:
        if not voice:
            return self._settings
        check_voice(voice)
        return replace(self._settings, voice=voice)

    def abort(self, uuid: UUID, *, part: int | None = None) -> None:
        """See :meth:`TTS.abort`."""
        for key in [key for key in self._parts if key[0] == uuid and part in (None, key[1])]:
            gone = self._parts.pop(key)
            self._aborted.append(key)
            self._waiting -= sum(map(len, gone.pieces))
            if self._piece is not None and self._piece.key == key:
                self._piece.aborted = True
        if not self._disposed:
            self._next()

    def dispose(self) -> None:
        """See :meth:`Participant.dispose`. The thread ends with its last user."""
        if self._disposed:
            return
        super().dispose()
        self._parts.clear()
        if self._piece is not None:
            self._piece.aborted = True
        if self._thread is not None:
            if _Thread.release(self._thread):
                self._last_thread = self._thread
            self._thread = None

    async def wait_disposed(self, timeout_s: float = 2.0) -> None:
        """See :meth:`Participant.wait_disposed`; also for what the thread is at, a chunk at most."""
        await super().wait_disposed(timeout_s)
        if self._job is not None:
            await asyncio.wait({asyncio.wrap_future(self._job)}, timeout=timeout_s)
        if self._last_thread is not None and (self._job is None or self._job.done()):
            # It has nothing left to do: it ends within microseconds.
            self._last_thread.executor.shutdown(wait=True)
            self._last_thread = None

    # -- one piece after the other ----------------------------------------------------------------

    def _next(self) -> None:
        """Give the thread its next piece; end the parts that are complete."""
        while self._piece is None and self._parts:
            key, part = next(iter(self._parts.items()))
            if part.pieces:
                self._start(key, part)
            elif part.done:
                del self._parts[key]
                self._send(key, b"", part.audio_ms, done=True)
            else:
                return

    def _start(self, key: tuple[UUID, int], part: _Part) -> None:
        assert self._thread is not None
        text = part.pieces.popleft()
        self._waiting -= len(text)
        if part.audio_ms and (pause_ms := _PAUSES_MS.get(part.last, 0.0)):
            silence = _FORMAT.silence(pause_ms)
            at_ms = part.audio_ms
            part.audio_ms += _FORMAT.ms(len(silence))
            self._send(key, silence, at_ms)
            if self._parts.get(key) is not part:
                return
        part.last = text.rstrip()[-1]
        self._piece = piece = _Piece(key, text, part.settings, part.audio_ms)
        self._job = self._thread.executor.submit(self._speak, piece)

    def _speak(self, piece: _Piece) -> None:
        """In the thread."""
        error: BaseException | None = None

        def sink(audio: bytes, words: tuple[SpokenWord, ...]) -> bool:
            if piece.aborted:
                return False
            self._to_loop(self._chunk, piece, audio, words)
            return True

        try:
            if not piece.aborted:
                synthesise(piece.text, piece.settings, sink)
        except Exception as exc:  # handed to the loop, where it becomes an ERROR
            error = exc
        self._to_loop(self._finished, piece, error)

    def _to_loop(self, callback: object, *args: object) -> None:
        assert self._loop is not None
        try:
            self._loop.call_soon_threadsafe(callback, *args)  # type: ignore[arg-type]  # one of two methods
        except RuntimeError:
            # The loop was closed under a call that was never disposed of: nobody is left to hear it.
            return

    def _chunk(self, piece: _Piece, audio: bytes, words: tuple[SpokenWord, ...]) -> None:
        part = self._parts.get(piece.key)
        if piece.aborted or part is None:
            return
        piece.words.extend(words)
        if audio:
            at_ms = piece.base_ms + piece.samples * 1000.0 / SAMPLE_RATE
            piece.samples += len(audio) // 2
            part.audio_ms = piece.base_ms + piece.samples * 1000.0 / SAMPLE_RATE
            self._send(piece.key, audio, at_ms)

    def _finished(self, piece: _Piece, error: BaseException | None) -> None:
        self._piece = None
        if self._disposed:
            return
        part = self._parts.get(piece.key)
        if part is not None and not piece.aborted:
            if error is not None:
                if not isinstance(error, DialogError):
                    cause, error = error, ProviderError("espeak", f"synthesis failed: {error!r}", retryable=False)
                    error.__cause__ = cause
                self.fail(error)
            elif words := _aligned(piece, part.audio_ms):
                uuid, number = piece.key
                self.emit(TTS.ALIGNMENT, Alignment(uuid=uuid, part=number, words=words))
        self._next()

    def _send(self, key: tuple[UUID, int], audio: bytes, at_ms: float, *, done: bool = False) -> None:
        self.emit(TTS.MESSAGE, Message(uuid=key[0], part=key[1], data=audio, at_ms=at_ms, done=done))


def _aligned(piece: _Piece, end_ms: float) -> tuple[Word, ...]:
    """The words of a piece; each ends where the next begins."""
    starts = [piece.base_ms + word.at_ms for word in piece.words]
    ends = [*starts[1:], end_ms]
    words: list[Word] = []
    for word, start_ms, word_end_ms in zip(piece.words, starts, ends, strict=True):
        text = piece.text[word.position : word.position + word.length].strip()
        # espeak-ng announces some characters (ideographs, dashes) twice or with no length.
        if text:
            words.append(Word(text=text, start_ms=start_ms, end_ms=max(start_ms, word_end_ms)))
    return tuple(words)


def speak(
    text: str, *, voice: str = "en-us", rate: int = 165, pitch: int = 50, volume: int = 100, sample_rate: int = 8000
) -> bytes:
    """Text as mono s16le audio at ``sample_rate`` Hz, for callers in tests and demos.

    It blocks for some milliseconds: on an event loop, use ``await asyncio.to_thread(speak, ...)``.

    Raises:
        MissingExtra: espeak-ng or numpy is not installed.
        ConfigurationError: There is no such voice, or a setting is out of its range.
    """
    settings = Settings(voice=voice, rate=rate, pitch=pitch, volume=volume)
    check_voice(voice)
    converter = Converter(_FORMAT, AudioFormat("s16le", sample_rate))
    chunks: list[bytes] = []

    def sink(audio: bytes, words: tuple[SpokenWord, ...]) -> bool:
        del words
        chunks.append(audio)
        return True

    synthesise(text, settings, sink)
    return converter.process(b"".join(chunks)) + converter.flush()

"""Participants without a provider, for tests of agents: an STT that is told, a voice that hums."""

from __future__ import annotations

from typing import ClassVar
from uuid import UUID, uuid4

from dialog.message import MULAW_8K, Alignment, AudioFormat, Message, SpeechEdge, Utterance, Word
from dialog.stt.stt import STT, STTCapabilities
from dialog.tts.tts import TTS, TTSCapabilities

__all__ = ["HummingTTS", "ToldSTT"]


class ToldSTT(STT):
    """Hears what the test tells it; remembers the audio it was given."""

    capabilities: ClassVar[STTCapabilities] = STTCapabilities(speech_events=True, interim_interval_ms=0, eager=True)

    def __init__(self) -> None:
        super().__init__()
        self.audio_format: AudioFormat | None = None
        self.audio: bytearray = bytearray()
        self.finalized: int = 0
        """How often a final was asked for."""
        self._at_ms = 0.0
        self._uuid: UUID | None = None

    def open(self, audio_format: AudioFormat) -> None:
        """Remember the format."""
        self.audio_format = audio_format

    def post(self, message: Message[bytes]) -> None:
        """Remember the audio."""
        self.audio += message.data
        self._at_ms = message.at_ms

    def finalize(self) -> None:
        """Count the request."""
        self.finalized += 1

    def discard(self, before_ms: float) -> None:
        """Nothing waits here."""

    def speech_starts(self) -> None:
        """The caller's voice starts."""
        self.emit(STT.VAD, SpeechEdge(state="started", at_ms=self._at_ms))

    def speech_stops(self) -> None:
        """The caller's voice stops."""
        self.emit(STT.VAD, SpeechEdge(state="stopped", at_ms=self._at_ms))

    def hears(self, text: str) -> UUID:
        """The caller is in the middle of saying ``text``."""
        self._uuid = self._uuid or uuid4()
        self.emit(STT.INTERIM, self._utterance(text))
        return self._uuid

    def heard(self, text: str) -> UUID:
        """The caller has said ``text``; returns its turn."""
        uuid = self._uuid = self._uuid or uuid4()
        self.emit(STT.MESSAGE, self._utterance(text))
        self._uuid = None
        return uuid

    def expects(self, text: str) -> UUID:
        """The caller has probably said ``text`` and no more (an eager end of turn)."""
        uuid = self._uuid = self._uuid or uuid4()
        self.emit(STT.EAGER, self._utterance(text))
        return uuid

    def goes_on(self) -> None:
        """The caller speaks on after an eager end of turn."""
        if self._uuid is not None:
            self.emit(STT.EAGER_WITHDRAWN, self._uuid)

    def _utterance(self, text: str) -> Utterance:
        assert self._uuid is not None
        return Utterance(uuid=self._uuid, data=text, at_ms=self._at_ms, end_ms=self._at_ms)


class HummingTTS(TTS):
    """Speaks at once: ``ms_per_char`` of a steady hum per character, with word timings if wanted.

    The hum's byte is the number of the part, so that a test can tell parts apart on the line.
    """

    capabilities: ClassVar[TTSCapabilities] = TTSCapabilities(
        text="tokens", timings=True, voices=True, parallel_parts=8
    )

    def __init__(self, *, ms_per_char: float = 50.0, timings: bool = True, hold: bool = False) -> None:
        super().__init__()
        self.ms_per_char = ms_per_char
        self.timings = timings
        self.hold: bool = hold
        """Keep the audio until :meth:`release`."""
        self.texts: dict[tuple[UUID, int], str] = {}
        """What each part was given …"""
        self.voices: dict[tuple[UUID, int], str] = {}
        """… and which voice was to speak it; empty: its own."""
        self.aborted: list[tuple[UUID, int | None]] = []
        self._held: list[Message[str]] = []
        self._gone: set[tuple[UUID, int]] = set()
        self._spoken_ms: dict[tuple[UUID, int], float] = {}

    def open(self, audio_format: AudioFormat) -> None:
        """Nothing has to be opened."""
        assert audio_format == MULAW_8K

    def post(self, message: Message[str]) -> None:
        """Speak the text at once, or once released."""
        key = (message.uuid, message.part)
        self.texts[key] = self.texts.get(key, "") + message.data
        self.voices[key] = message.voice
        if self.hold:
            self._held.append(message)
        else:
            self._speak(message)

    def abort(self, uuid: UUID, *, part: int | None = None) -> None:
        """Say no more of it."""
        self.aborted.append((uuid, part))
        self._gone.update(key for key in self.texts if key[0] == uuid and part in (None, key[1]))

    def release(self) -> None:
        """Speak what was kept, and everything from now on."""
        self.hold = False
        held, self._held = self._held, []
        for message in held:
            self._speak(message)

    def _speak(self, message: Message[str]) -> None:
        key = (message.uuid, message.part)
        if key in self._gone:
            return
        at_ms = self._spoken_ms.get(key, 0.0)
        data = bytes([message.part + 1]) * MULAW_8K.size(len(message.data) * self.ms_per_char)
        self._spoken_ms[key] = at_ms + MULAW_8K.ms(len(data))
        if self.timings and message.data.strip():
            self.emit(TTS.ALIGNMENT, Alignment(uuid=message.uuid, part=message.part, words=self._words(message, at_ms)))
        self.emit(TTS.MESSAGE, Message(uuid=message.uuid, part=message.part, data=data, at_ms=at_ms, done=message.done))

    def _words(self, message: Message[str], at_ms: float) -> tuple[Word, ...]:
        words: list[Word] = []
        position = 0
        for text in message.data.split():
            position = message.data.index(text, position)
            start = at_ms + position * self.ms_per_char
            position += len(text)
            words.append(Word(text=text, start_ms=start, end_ms=at_ms + position * self.ms_per_char))
        return tuple(words)

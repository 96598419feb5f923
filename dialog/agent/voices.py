"""The agent's side of an engine: which voice says which part, and how one voice follows another."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Protocol, TypeAlias
from uuid import UUID
from weakref import WeakSet

from dialog.agent.claim import claim
from dialog.audio.convert import Converter, negotiate
from dialog.message import Alignment, AudioFormat, Message
from dialog.tts.tts import TTS, TTSCapabilities
from dialog.voip.voip import VoIP

__all__ = ["PartKey", "Speaking", "Voices"]

PartKey: TypeAlias = tuple[UUID, int]

_opened: WeakSet[TTS] = WeakSet()
"""Those that were opened, which happens once: an agent may let go of its call and take it again."""


class Speaking(Protocol):
    """Who gets what the voices make."""

    def on_audio(self, message: Message[bytes]) -> None: ...  # noqa: D102
    def on_alignment(self, alignment: Alignment) -> None: ...  # noqa: D102


class Voices:
    """The voice that speaks new parts, and those that were swapped out and still speak old ones."""

    __slots__ = ("_format", "_of", "_retired", "_speaking", "_tts", "_voip", "_when_reached")

    def __init__(
        self, voip: VoIP, tts: TTS, speaking: Speaking, *, when_reached: Callable[[Callable[[], object]], None]
    ) -> None:
        """``when_reached`` says when voices may be opened."""
        self._when_reached = when_reached
        self._voip = voip
        self._tts = tts
        self._speaking = speaking
        self._format: AudioFormat = voip.audio_format
        self._of: dict[PartKey, TTS] = {}
        self._retired: dict[TTS, set[PartKey]] = {}
        """Voices that were swapped out, and the parts that they still speak."""

    @property
    def capabilities(self) -> TTSCapabilities:
        """Of the voice that speaks new parts."""
        return self._tts.capabilities

    @property
    def current(self) -> str:
        """Name of the voice that speaks new parts."""
        return self._tts.name

    def start(self) -> None:
        """Open the voice and listen to it."""
        self._format = self._wire(self._tts)

    def stop(self) -> None:
        """Let go of everything; voices that were swapped out are disposed of, the present one is not."""
        for tts in (self._tts, *self._retired):
            tts.off(TTS.MESSAGE, self._speaking.on_audio)
            tts.off(TTS.ALIGNMENT, self._speaking.on_alignment)
        for tts in self._retired:
            tts.dispose()
        self._retired.clear()

    def replace(self, tts: TTS) -> None:
        """Let ``tts`` speak every part that begins from now on; parts in progress finish with the old voice.

        Raises:
            UnsupportedFormat: It shares no audio format with the call; the old voice stays.
            StateError: It was disposed of, or works for another call; likewise.
        """
        self._format = self._wire(tts)
        old, self._tts = self._tts, tts
        self._retired.pop(tts, None)  # it comes back while it still speaks
        speaking = {key for key, voice in self._of.items() if voice is old}
        if speaking:
            self._retired[old] = speaking
        else:
            old.dispose()

    def assign(self, key: PartKey) -> Converter | None:
        """Let the present voice speak a part; return what its audio must go through for the line."""
        self._of[key] = self._tts
        return Converter(self._format, self._voip.audio_format) if self._format != self._voip.audio_format else None

    def post(self, message: Message[str]) -> None:
        """Give text to the voice of its part; raises what the voice raises."""
        self._of.get((message.uuid, message.part), self._tts).post(message)

    def name(self, key: PartKey) -> str:
        """Name of the voice that speaks a part."""
        return self._of.get(key, self._tts).name

    def abort(self, key: PartKey) -> None:
        """Nothing more of a part is wanted."""
        voice = self._of.get(key)
        if voice is not None:
            voice.abort(key[0], part=key[1])

    def release(self, key: PartKey) -> None:
        """A part is over: a voice that was swapped out and has none left goes."""
        voice = self._of.pop(key, None)
        if voice is not None and voice in self._retired:
            self._retired[voice].discard(key)
            if not self._retired[voice]:
                del self._retired[voice]
                voice.dispose()

    def _wire(self, tts: TTS) -> AudioFormat:
        claim(tts, self._voip)
        audio_format = negotiate(self._voip.audio_format, tts.formats)
        Converter(audio_format, self._voip.audio_format)  # without the package for it nothing would ever be said
        self._when_reached(partial(self._open, tts, audio_format))
        tts.on(TTS.MESSAGE, self._speaking.on_audio)
        tts.on(TTS.ALIGNMENT, self._speaking.on_alignment)
        return audio_format

    def _open(self, tts: TTS, audio_format: AudioFormat) -> None:
        if tts not in _opened and not tts.disposed:
            tts.open(audio_format)
            _opened.add(tts)

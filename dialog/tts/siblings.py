"""Other voices of a provider that has one voice a connection: :class:`Siblings`."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from functools import partial
from uuid import UUID

from msgspec.structs import replace

from dialog.errors import LimitError
from dialog.message import Alignment, AudioFormat, Failure, Message
from dialog.net.contexts import PartKey
from dialog.participant import Participant
from dialog.recent import Recent
from dialog.tts.tts import TTS

__all__ = ["Siblings"]

_MOST = 8
"""Connections of one call, its own voice apart."""
_KEEP_ENDED = 256


class Siblings:
    """One more TTS for each further voice, made when the voice is wanted first; all speak in the name of ``owner``.

    One that has given up costs its parts, and not the call: it is made anew when its voice is wanted again.

    Args:
        owner: Emits what they make.
        make: Makes one for a voice, unopened.
    """

    def __init__(self, owner: TTS, make: Callable[[str], TTS]) -> None:
        self._owner = owner
        self._make = make
        self._voices: dict[str, TTS] = {}
        """By the name of the voice, the one that was wanted last at the end."""
        self._of: dict[PartKey, TTS] = {}
        """Parts that are being spoken."""
        self._ended: Recent[PartKey, None] = Recent(_KEEP_ENDED)
        self._dismissed: deque[TTS] = deque(maxlen=_MOST)

    def post(self, message: Message[str], audio_format: AudioFormat) -> None:
        """Queue text of a part for its voice and return.

        Raises:
            DialogError: There can be no such voice, or all that may be open are speaking.
        """
        key = (message.uuid, message.part)
        if key in self._ended or not (message.data or message.done):
            return
        tts = self._of.get(key)
        if tts is None:
            tts = self._of[key] = self._voice(message.voice, audio_format)
        tts.post(replace(message, voice=""))

    def abort(self, uuid: UUID, part: int | None) -> None:
        """Stop a turn, or one part of it."""
        for key in [key for key in self._of if key[0] == uuid and part in (None, key[1])]:
            tts = self._of[key]
            self._end(key)
            tts.abort(uuid, part=key[1])

    def dispose(self) -> None:
        """End all of them for good."""
        self._of.clear()
        for tts in self._voices.values():
            tts.dispose()

    async def wait_disposed(self, timeout_s: float) -> None:
        """Wait, at most ``timeout_s``, until all of them have ended."""
        every = [*self._voices.values(), *self._dismissed]
        await asyncio.gather(*(tts.wait_disposed(timeout_s) for tts in every))

    def _voice(self, name: str, audio_format: AudioFormat) -> TTS:
        tts = self._voices.pop(name, None)
        if tts is None:
            self._make_room()
            tts = self._make(name)
            tts.on(TTS.MESSAGE, self._on_audio)
            tts.on(TTS.ALIGNMENT, self._on_alignment)
            tts.on(TTS.USAGE, partial(self._owner.emit, TTS.USAGE))
            tts.on(Participant.ERROR, partial(self._on_failure, tts))
            tts.open(audio_format)
        self._voices[name] = tts
        return tts

    def _make_room(self) -> None:
        if len(self._voices) < _MOST:
            return
        speaking = set(self._of.values())
        idle = next((name for name, tts in self._voices.items() if tts not in speaking), None)
        if idle is None:
            raise LimitError(f"{self._owner.name}: {_MOST} voices speak already; wait for one before you add another")
        self._dismiss(self._voices.pop(idle))

    def _dismiss(self, tts: TTS) -> None:
        tts.dispose()
        self._dismissed.append(tts)

    def _on_audio(self, message: Message[bytes]) -> None:
        key = (message.uuid, message.part)
        if key in self._of:
            if message.done:
                self._end(key)
            self._owner.emit(TTS.MESSAGE, message)

    def _on_alignment(self, alignment: Alignment) -> None:
        if (alignment.uuid, alignment.part) in self._of:
            self._owner.emit(TTS.ALIGNMENT, alignment)

    def _on_failure(self, tts: TTS, failure: Failure) -> None:
        if failure.fatal:
            for name in [name for name, one in self._voices.items() if one is tts]:
                del self._voices[name]
                # It ends its parts yet, in this very moment.
                asyncio.get_running_loop().call_soon(self._dismiss, tts)
        self._owner.emit(Participant.ERROR, replace(failure, fatal=False))

    def _end(self, key: PartKey) -> None:
        self._of.pop(key, None)
        self._ended[key] = None

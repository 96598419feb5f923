"""What a line says by itself while there is no agent: spoken ahead with the call's own voice, once per process."""

from __future__ import annotations

import asyncio
import logging
from typing import Protocol
from uuid import uuid4
from weakref import WeakKeyDictionary

from dialog.agent.settings import AgentSettings
from dialog.audio.convert import Converter, negotiate
from dialog.message import AudioFormat, Clips, Message
from dialog.tts.phrases import Phrase, PhraseCache, phrase_key
from dialog.tts.tts import TTS
from dialog.voip.voip import VoIP

__all__ = ["Speaker", "make_clips", "speak"]

logger = logging.getLogger(__name__)

_CLIP_S = 15.0
"""A voice that takes longer for one sentence makes no clip."""
_LOOK_S = 0.2

_caches: WeakKeyDictionary[asyncio.AbstractEventLoop, PhraseCache] = WeakKeyDictionary()
"""What voices have spoken on a loop, for all its calls."""


class Speaker(Protocol):
    """Whose voice speaks them."""

    @property
    def tts(self) -> TTS | None:
        """The voice."""
        ...

    @property
    def speaking(self) -> bool:
        """The voice has something to say to the caller."""
        ...


async def make_clips(voip: VoIP, speaker: Speaker, settings: AgentSettings) -> None:
    """Have the sentences for an outage spoken while the voice has nothing else to do, and hand them to the line.

    A voice that fails makes none: the line is silent then.
    """
    take, tts = voip.on_clips, speaker.tts
    if take is None or tts is None or voip.medium != "audio":
        return
    cache = _caches.setdefault(asyncio.get_running_loop(), PhraseCache())
    audio: list[bytes] = []
    for text in (settings.outage, settings.failure):
        clip = await _clip(voip, tts, speaker, text, cache)
        if clip is None:
            return
        audio.append(clip)
    take(Clips(apology=audio[0], goodbye=audio[1]))


async def _clip(voip: VoIP, tts: TTS, speaker: Speaker, text: str, cache: PhraseCache) -> bytes | None:
    key = phrase_key(tts.voice_key, voip.audio_format, text)
    shared = bool(tts.voice_key)
    while True:
        phrase = cache.get(key) if shared else None
        if phrase is not None:
            return phrase.audio
        if not speaker.speaking and (not shared or cache.claim(key)):
            break
        await asyncio.sleep(_LOOK_S)  # another call has it spoken, or the caller is being spoken to
    try:
        audio = await speak(tts, text, voip.audio_format)
    finally:
        cache.release(key)
    if audio is None:
        logger.warning("call %s: the voice made no clip for an outage", voip.metadata.call_id)
    elif shared:
        cache.put(key, Phrase(audio=audio, audio_format=voip.audio_format))
    return audio


async def speak(tts: TTS, text: str, wanted: AudioFormat) -> bytes | None:
    """The audio of ``text``; ``None`` if the voice fails or makes none."""
    uuid = uuid4()
    spoken = negotiate(wanted, tts.formats)
    converter = None if spoken == wanted else Converter(spoken, wanted)
    audio = bytearray()
    over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def on_audio(message: Message[bytes]) -> None:
        if message.uuid != uuid or over.done():
            return
        audio.extend(message.data if converter is None else converter.process(message.data))
        if message.done:
            if converter is not None:
                audio.extend(converter.flush())
            over.set_result(None)

    tts.on(TTS.MESSAGE, on_audio)
    try:
        tts.post(Message(uuid=uuid, data=text, done=True))
        async with asyncio.timeout(_CLIP_S):
            await over
    except TimeoutError:
        tts.abort(uuid)
        return None
    except Exception as exc:  # a provider's; the call itself has lost nothing
        logger.warning("%s raised %r when it was to make a clip", tts.name, exc)
        return None
    finally:
        tts.off(TTS.MESSAGE, on_audio)
    return bytes(audio) or None

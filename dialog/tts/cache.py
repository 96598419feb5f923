"""A voice whose fixed sentences are ready before they are said: :class:`CachedTTS`."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Hashable, Iterable
from functools import partial
from uuid import UUID, uuid4

from msgspec.structs import replace

from dialog.checks import check_several
from dialog.errors import StateError
from dialog.message import Alignment, AudioFormat, Failure, Message, Word
from dialog.net.contexts import PartKey
from dialog.participant import Participant
from dialog.recent import Recent
from dialog.tts.phrases import Phrase, PhraseCache, phrase_key
from dialog.tts.tts import TTS

__all__ = ["CachedTTS"]

_QUIET_S = 0.5
"""Sentences are made ready when nothing was said for so long: they must not delay what is said."""
_FAULTS = 3
"""After so many failures nothing more is made ready in this call."""
_KEEP_OVER = 256


class CachedTTS(TTS):
    """Plays fixed sentences from memory, and has ``tts`` speak the rest.

    The sentences (a greeting, an apology, fillers) are spoken once while nothing else is said, or
    recorded as they are said for the first time, and are kept with the times of their words. A part
    that begins with one is played at once, also when the provider is down; what follows in the part
    is spoken by ``tts``. To say what was prepared costs nothing and takes no time.

    ::

        cache = PhraseCache(directory="phrases")     # for all calls
        tts = CachedTTS(CartesiaTTS(api_key=…), [settings.apology, settings.failure], cache=cache)

    A sentence that is said by a voice of another name is played from the second time on.

    Texts are compared as the voice gets them, apart from blanks: a sentence with numbers has to be given
    as it is spoken where the agent's filters rewrite it.

    Args:
        tts: The voice; it belongs to this one, which disposes of it.
        phrases: The sentences.
        cache: Where they are kept for other calls. A voice that does not say what its sound depends on
            (:attr:`TTS.voice_key`) shares nothing with other calls.
    """

    def __init__(self, tts: TTS, phrases: Iterable[str], *, cache: PhraseCache | None = None) -> None:
        check_several("CachedTTS: phrases", phrases)
        super().__init__()
        self._tts = tts
        self._cache = cache if cache is not None and tts.voice_key else PhraseCache()
        # It can do what its voice can.
        self.formats = tts.formats  # type: ignore[misc]
        self.capabilities = tts.capabilities  # type: ignore[misc]
        self.voice_key = tts.voice_key
        self._wanted: dict[str, re.Pattern[str]] = {}
        for text in map(_plain, phrases):
            if text:
                self._wanted[text] = re.compile(r"\s*" + r"\s+".join(map(re.escape, text.split())) + r"(?=\s|$)")
        self._ready: dict[str, Phrase] = {}
        self._others: dict[str, dict[str, Phrase]] = {}
        """The same, of voices that were asked for by name."""
        self._parts: dict[PartKey, _Part] = {}
        self._over: Recent[PartKey, None] = Recent(_KEEP_OVER)
        """Parts that ended, or were aborted: text that still comes for them is not spoken."""
        self._format: AudioFormat | None = None
        self._take: _Part | None = None
        """The sentence that is being made ready."""
        self._timer: asyncio.TimerHandle | None = None
        self._storing = 0
        """Sentences on their way to the disk."""
        self._faults = 0
        """How often the voice has failed."""
        self._settled = asyncio.Event()
        tts.on(TTS.MESSAGE, self._on_audio)
        tts.on(TTS.ALIGNMENT, self._on_alignment)
        tts.on(TTS.USAGE, partial(self.emit, TTS.USAGE))
        tts.on(Participant.ERROR, self._on_failure)

    @property
    def identity(self) -> Hashable:
        """See :attr:`Renewable.identity`: that of its voice."""
        return self._tts.identity

    def ready(self, text: str) -> bool:
        """Whether ``text`` can be said without the voice."""
        return _plain(text) in self._ready

    async def prepared(self) -> bool:
        """Wait until all sentences are ready and kept, or the voice has failed; whether they are ready.

        To have them before the first call: ``open`` one where the program starts, await this, dispose of it.
        It waits as long as the voice takes; put it under ``asyncio.timeout``.
        """
        await self._settled.wait()
        return self._ready.keys() == self._wanted.keys()

    def open(self, audio_format: AudioFormat) -> None:
        """Start connecting, and to make the sentences ready; raises what the voice raises."""
        if self._format is not None:
            raise StateError("CachedTTS.open was called twice")
        self._tts.open(audio_format)
        self._format = audio_format
        for text in self._wanted:
            if (phrase := self._cache.get(self._key(text))) is not None:
                self._ready[text] = phrase
        self.spawn(self._load(), "reading phrases")

    def post(self, message: Message[str]) -> None:
        """Play text that is ready, have the rest spoken, and return.

        Raises:
            StateError: Called before :meth:`open`.
        """
        if self._format is None:
            raise StateError("CachedTTS.post was called before open")
        key = (message.uuid, message.part)
        if self.disposed or key in self._over:
            return
        part = self._parts.get(key)
        if part is None:
            part = self._parts[key] = _Part(key, message.voice)
            self._make_way()
        part.done = part.done or message.done
        if part.recorded:
            part.said += message.data
            part.recorded = any(text.startswith(_plain(part.said)) for text in self._wanted)
        if part.live:
            self._tts.post(message)
            return
        part.text += message.data
        self._advance(part, self._format)

    def abort(self, uuid: UUID, *, part: int | None = None) -> None:
        """Stop a turn, or one part of it: nothing more is emitted for it. Unknown ones are ignored."""
        for key in [key for key in self._parts if key[0] == uuid and part in (None, key[1])]:
            if self._parts[key].live:
                self._tts.abort(uuid, part=key[1])
            self._end(key)

    def dispose(self) -> None:
        """End for good; see :meth:`Participant.dispose`."""
        self._make_way()
        self._parts.clear()
        try:
            self._tts.dispose()  # it tells what it used
        finally:
            super().dispose()
        self._settled.set()

    async def wait_disposed(self, timeout_s: float = 2.0) -> None:
        """Wait, at most ``timeout_s``, until nothing of it is left."""
        await asyncio.gather(super().wait_disposed(timeout_s), self._tts.wait_disposed(timeout_s))

    # -- what is said ------------------------------------------------------------------------------

    def _advance(self, part: _Part, audio_format: AudioFormat) -> None:
        """Play what is ready; wait where it may become so; leave the rest to the voice."""
        while part.text.strip():
            plain = _plain(part.text)
            found = [
                (match.end(), phrase)
                for text, phrase in self._of(part.voice).items()
                if (match := self._wanted[text].match(part.text)) is not None
                # A word at the end of the text may go on.
                and (part.done or match.end() < len(part.text) or not text[-1].isalnum())
            ]
            if found:
                end, phrase = max(found, key=lambda each: each[0])
                part.text = part.text[end:]
                self._play(part, phrase, audio_format)
                if self._parts.get(part.key) is not part:
                    return  # whoever heard it has aborted it
            elif not part.done and any(text.startswith(plain) for text in self._of(part.voice)):
                return
            else:
                part.live = True
                text, part.text = part.text, ""
                self._tts.post(Message(uuid=part.key[0], part=part.key[1], data=text, done=part.done, voice=part.voice))
                return
        if part.done:
            self._end(part.key)
            self._emit(part.key, b"", part.base_ms, done=True)

    def _play(self, part: _Part, phrase: Phrase, audio_format: AudioFormat) -> None:
        at_ms, part.base_ms = part.base_ms, part.base_ms + audio_format.ms(len(phrase.audio))
        if phrase.words:
            words = _moved(phrase.words, at_ms)
            self.emit(TTS.ALIGNMENT, Alignment(uuid=part.key[0], part=part.key[1], words=words))
        self._emit(part.key, phrase.audio, at_ms)

    def _emit(self, key: PartKey, audio: bytes, at_ms: float, *, done: bool = False) -> None:
        self.emit(TTS.MESSAGE, Message(uuid=key[0], part=key[1], data=audio, at_ms=at_ms, done=done))

    def _end(self, key: PartKey) -> None:
        self._parts.pop(key, None)
        self._over[key] = None
        self._when_quiet()

    # -- what the voice tells ----------------------------------------------------------------------

    def _on_audio(self, message: Message[bytes]) -> None:
        key = (message.uuid, message.part)
        take = self._take
        if take is not None and take.key == key:
            take.audio += message.data
            if message.done:
                self._took(take)
            return
        part = self._parts.get(key)
        if part is None:
            return
        if part.base_ms:
            message = replace(message, at_ms=message.at_ms + part.base_ms)
        elif part.recorded:
            part.audio += message.data
        if message.done:
            self._end(key)
            self._keep(part)
        self.emit(TTS.MESSAGE, message)

    def _on_alignment(self, alignment: Alignment) -> None:
        key = (alignment.uuid, alignment.part)
        take = self._take
        if take is not None and take.key == key:
            take.words += alignment.words
            return
        part = self._parts.get(key)
        if part is None:
            return
        if part.base_ms:
            alignment = replace(alignment, words=_moved(alignment.words, part.base_ms))
        elif part.recorded:
            part.words += alignment.words
        self.emit(TTS.ALIGNMENT, alignment)

    def _on_failure(self, failure: Failure) -> None:
        # It may be what is being spoken that is incomplete by it: nothing of that is kept.
        for part in self._parts.values():
            part.recorded = False
        self._make_way()
        self._faults = _FAULTS if failure.fatal else self._faults + 1
        self._when_quiet()
        self.emit(Participant.ERROR, failure)

    # -- making ready ------------------------------------------------------------------------------

    def _of(self, voice: str) -> dict[str, Phrase]:
        """The sentences that are ready in a voice. Only its own are made ready; others are kept once they were said."""
        if not voice:
            return self._ready
        ready = self._others.get(voice)
        if ready is None:
            found = ((text, self._cache.get(self._key(text, voice))) for text in self._wanted)
            ready = self._others[voice] = {text: phrase for text, phrase in found if phrase is not None}
        return ready

    def _key(self, text: str, voice: str = "") -> str:
        assert self._format is not None
        key = repr((self.voice_key, voice)) if voice else self.voice_key
        return phrase_key(key, self._format, text)

    async def _load(self) -> None:
        for text in self._wanted:
            if text not in self._ready:
                phrase = await self._cache.load(self._key(text))
                if phrase is not None:
                    self._ready[text] = phrase
        self._when_quiet()

    def _when_quiet(self) -> None:
        """Go on making sentences ready once nothing has been said for a while."""
        if self._ready.keys() == self._wanted.keys() or self._faults >= _FAULTS:
            if not self._storing:
                self._settled.set()
        elif not self.disposed and not self._parts and self._take is None and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_QUIET_S, self._prepare)

    def _make_way(self) -> None:
        """Something is to be said: it goes first."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        take, self._take = self._take, None
        if take is not None:
            self._cache.release(self._key(take.said))
            self._tts.abort(take.key[0])

    def _prepare(self) -> None:
        """Have the next sentence spoken that is not ready, unless another call does."""
        self._timer = None
        for text in self._wanted:
            if text not in self._ready and (phrase := self._cache.get(self._key(text))) is not None:
                self._ready[text] = phrase
            if text not in self._ready and self._cache.claim(self._key(text)):
                self._take = take = _Part((uuid4(), 0))
                take.said = text
                self._tts.post(Message(uuid=take.key[0], data=text, done=True))
                return
        self._when_quiet()

    def _took(self, take: _Part) -> None:
        self._take = None
        self._cache.release(self._key(take.said))
        if not take.audio:
            self._faults += 1
        self._keep(take)
        if self._ready.keys() != self._wanted.keys() and self._faults < _FAULTS:
            self._prepare()  # it is quiet still

    def _keep(self, part: _Part) -> None:
        """A part was spoken to its end: if it was one of the sentences, the next time needs no voice."""
        text, ready = _plain(part.said), self._of(part.voice)
        if part.recorded and part.audio and text in self._wanted and text not in ready:
            assert self._format is not None
            phrase = Phrase(audio=bytes(part.audio), audio_format=self._format, words=tuple(part.words))
            ready[text] = phrase
            self._storing += 1
            self.spawn(self._store(self._key(text, part.voice), phrase), "keeping a phrase")
        self._when_quiet()

    async def _store(self, key: str, phrase: Phrase) -> None:
        try:
            await self._cache.store(key, phrase)
        finally:
            self._storing -= 1
            self._when_quiet()


class _Part:
    """A part that is being said, or a sentence that is made ready."""

    __slots__ = ("audio", "base_ms", "done", "key", "live", "recorded", "said", "text", "voice", "words")

    def __init__(self, key: PartKey, voice: str = "") -> None:
        self.key = key
        self.voice: str = voice
        """Who says it; empty: the voice itself."""
        self.text: str = ""
        """What was neither played nor given to the voice yet."""
        self.done: bool = False
        self.live: bool = False
        """The voice speaks it from here on."""
        self.base_ms: float = 0.0
        """How much was played before the voice began."""
        self.said: str = ""
        """All of its text, as long as it is recorded."""
        self.recorded: bool = True
        """It may be one of the sentences."""
        self.audio: bytearray = bytearray()
        self.words: list[Word] = []


def _plain(text: str) -> str:
    return " ".join(text.split())


def _moved(words: Iterable[Word], by_ms: float) -> tuple[Word, ...]:
    return tuple(replace(word, start_ms=word.start_ms + by_ms, end_ms=word.end_ms + by_ms) for word in words)

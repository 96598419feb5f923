"""Voices that stand in for one another: :class:`FallbackTTS`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import ClassVar
from uuid import UUID
from weakref import WeakSet

from msgspec.structs import replace

from dialog.audio.convert import Converter, common_formats, negotiate
from dialog.errors import ConfigurationError, DialogError, ProviderError, StateError, UnsupportedFormat
from dialog.message import Alignment, AudioFormat, Failure, Message
from dialog.net.circuit import Circuit, chain_circuits
from dialog.net.contexts import PartKey
from dialog.net.takeover import Takeover, as_error, failure_of, labels
from dialog.participant import Event, Participant
from dialog.recent import Recent
from dialog.tts.chain import ChainPart, Voice, rehearse
from dialog.tts.coverage import Coverage
from dialog.tts.tts import TTS, TTSCapabilities

__all__ = ["FallbackTTS"]

logger = logging.getLogger(__name__)

_TICK_S = 0.1
_TROUBLED_S = 1.0
"""A voice that has told of an error gets so long to make audio after all."""
_FAILURES = 2
"""So many in a row, and a voice is not asked for new parts."""
_KEEP_ENDED = 256
_SENTENCE_ENDS = (".", "!", "?", "…", ":", "\n")


class FallbackTTS(TTS):
    """The first voice that works, of several.

    When one refuses a part, breaks down in it, or makes no audio in time, the next one says what was not
    said, as the same part: its audio and its timings go on, and it ends once. Where the voice told when it
    speaks its words nothing is said twice, else the clause that was cut may be. A voice that failed twice in
    a row, or gave up, is not asked for new parts until it has said a word to nobody; then it is.

    What one call has learnt of them the next one knows: it begins with the first that has not failed lately.

    Its capabilities are what all of them can do. Each failure is a non-fatal ERROR that says who failed and
    why, each change of the voice a :attr:`TAKEOVER`; a fatal ERROR comes when all have failed.

    ::

        tts = FallbackTTS([CartesiaTTS(api_key=…), ElevenLabsTTS(api_key=…)])

    Args:
        members: The voices, best first, unopened. They belong to this one. One that has given up is made anew
            from the arguments of its constructor when it is needed again.
        voices: What a speaker that messages name is called by each of them, in their order:
            ``{"wolf": ("cartesia-id", "elevenlabs-id")}``. Any other name is one of the first voice's, and of those
            of its kind; where another kind stands in, that speaks with its own voice.
        timeout_s: How long a voice may take to make audio of a sentence, or to go on with a part whose text is
            complete.
        probe_after_s: How long after a failure a voice is tried again; the wait doubles with each failure.

    Raises:
        ConfigurationError: There are none, a time is not positive, or ``voices`` has not a name for each.
        UnsupportedFormat: They share no audio format.
    """

    TAKEOVER: ClassVar[Event[Takeover]] = Event("takeover")
    """Another one speaks from now on."""

    def __init__(
        self,
        members: Iterable[TTS],
        *,
        voices: Mapping[str, Sequence[str]] | None = None,
        timeout_s: float = 2.5,
        probe_after_s: float = 15.0,
    ) -> None:
        given = list(members)
        if not given:
            raise ConfigurationError("FallbackTTS needs at least one voice")
        self._names = {name: tuple(names) for name, names in (voices or {}).items()}
        for name, names in self._names.items():
            if len(names) != len(given):
                raise ConfigurationError(f"FallbackTTS needs {len(given)} names of the voice {name!r}, got {names}")
        if timeout_s <= 0:
            raise ConfigurationError(f"FallbackTTS needs timeout_s > 0, got {timeout_s}")
        super().__init__()
        own = labels([tts.name for tts in given])
        self._voices = [Voice(tts, place, own[place]) for place, tts in enumerate(given)]
        Circuit(probe_after_s=probe_after_s)  # refuses what is out of range, already here
        self._probe_after_s = probe_after_s
        # It can make and do what all of them can.
        self.formats = common_formats([tts.formats for tts in given])  # type: ignore[misc]
        if not self.formats:
            raise UnsupportedFormat(f"FallbackTTS: nothing can be converted for all of {[tts.name for tts in given]}")
        self.capabilities = _common_capabilities([tts.capabilities for tts in given])  # type: ignore[misc]
        self._timeout_s = timeout_s
        self._format: AudioFormat | None = None
        self._parts: dict[PartKey, ChainPart] = {}
        self._ended: Recent[PartKey, None] = Recent(_KEEP_ENDED)
        self._speaking: Voice = self._voices[0]
        """Who got the newest part."""
        self._turn: UUID | None = None
        self._probes: dict[Voice, TTS] = {}
        self._dismissed: WeakSet[TTS] = WeakSet()
        self._gone = False
        self._ticker: asyncio.TimerHandle | None = None

    # -- what the agent calls ----------------------------------------------------------------------

    @property
    def active(self) -> str:
        """Name of the one that spoke last."""
        return self._speaking.label

    def open(self, audio_format: AudioFormat) -> None:
        """Start connecting the first one and return.

        Raises:
            UnsupportedFormat: ``audio_format`` is none of :attr:`formats`.
            StateError: It is open already, or disposed of.
            MissingExtra: One of them makes another format, and numpy is not installed.
        """
        if audio_format not in self.formats:
            raise UnsupportedFormat(f"{self.name}: {audio_format} is none of {self.formats}")
        if self._format is not None or self._disposed:
            raise StateError(f"{self.name}.open was called {'after dispose' if self._disposed else 'twice'}")
        for voice in self._voices:
            voice.format = negotiate(audio_format, voice.tts.formats)
            Converter(voice.format, audio_format)
        self._format = audio_format
        self._loop = asyncio.get_running_loop()
        identities = [voice.tts.identity for voice in self._voices]
        circuits = chain_circuits(identities, failures=_FAILURES, probe_after_s=self._probe_after_s)
        for voice, circuit in zip(self._voices, circuits, strict=True):
            voice.circuit = circuit
        self._speaking = first = next((voice for voice in self._voices if voice.circuit.closed), self._voices[0])
        if first.place:
            logger.info("%s: %s speaks, for what is preferred has failed lately", self.name, first.label)
            self._look_later()
        try:
            self._start(first)
        except ProviderError as exc:
            self._failed(first, exc)

    def post(self, message: Message[str]) -> None:
        """Queue text of a part and return; ``done`` says that no more follows for the part.

        Raises:
            StateError: Called before :meth:`open`.
        """
        if self._format is None and not self._disposed:
            raise StateError(f"{self.name}.post was called before open")
        key = (message.uuid, message.part)
        if self._disposed or key in self._ended or not (message.data or message.done):
            return
        part = self._parts.get(key)
        if part is None:
            voice = self._choose(message.uuid)
            part = self._parts[key] = ChainPart(key, voice, self._converter(voice), message.voice)
            self._look_later()
            self._speak_with(voice)
        part.covered.text += message.data
        part.done = part.done or message.done
        self._give(part, message.data)

    def abort(self, uuid: UUID, *, part: int | None = None) -> None:
        """Stop a turn, or one part of it: nothing more is emitted for it. Unknown ones are ignored."""
        for key in [key for key in self._parts if key[0] == uuid and part in (None, key[1])]:
            voice = self._parts[key].voice
            self._forget(key)
            if voice.open:
                self._try(voice, partial(voice.tts.abort, uuid, part=key[1]))

    def dispose(self) -> None:
        """End for good, and all of them."""
        if self._ticker is not None:
            self._ticker.cancel()
            self._ticker = None
        self._parts.clear()
        for voice in self._voices:
            for event, listener in voice.listeners:
                voice.tts.off(event, listener)
        try:
            for tts in self._all():
                tts.dispose()  # it tells what it used
        finally:
            super().dispose()

    async def wait_disposed(self, timeout_s: float = 2.0) -> None:
        """Wait, at most ``timeout_s``, until all of them have ended."""
        await asyncio.gather(super().wait_disposed(timeout_s), *(tts.wait_disposed(timeout_s) for tts in self._all()))

    def _all(self) -> set[TTS]:
        return {*self._dismissed, *self._probes.values(), *(voice.tts for voice in self._voices)}

    # -- who speaks --------------------------------------------------------------------------------

    def _choose(self, turn: UUID) -> Voice:
        """Whom to give a new part: the voice does not change within a turn without need."""
        if turn == self._turn and self._speaking.circuit.closed:
            return self._speaking
        self._turn = turn
        return next((voice for voice in self._voices if voice.circuit.closed), self._speaking)

    def _speak_with(self, voice: Voice, error: DialogError | None = None) -> None:
        before, self._speaking = self._speaking, voice
        if before is not voice:
            error = error or (None if before.circuit.closed else before.down)
            self.emit(FallbackTTS.TAKEOVER, Takeover(of=before.label, by=voice.label, error=error))

    def _converter(self, voice: Voice) -> Converter:
        assert self._format is not None
        return Converter(voice.format, self._format)

    def _start(self, voice: Voice) -> None:
        """Open a voice, a new one if this one has given up; raises what it raises."""
        if voice.used and voice.gone:
            voice.tts = self._context().run(voice.tts.renewed)
        voice.used = voice.open = True
        voice.gone = False
        voice.error = voice.failing = None
        voice.listeners = [
            (TTS.MESSAGE, partial(self._on_audio, voice)),
            (TTS.ALIGNMENT, partial(self._on_alignment, voice)),
            (Participant.ERROR, partial(self._on_error, voice)),
        ]
        for event, listener in voice.listeners:
            voice.tts.on(event, listener)
        voice.tts.on(TTS.USAGE, partial(self.emit, TTS.USAGE))  # also as it is disposed of
        try:
            self._context().run(voice.tts.open, voice.format)
        except Exception:
            self._close(voice)
            raise

    def _close(self, voice: Voice) -> None:
        for event, listener in voice.listeners:
            voice.tts.off(event, listener)
        voice.listeners = []
        voice.open = False
        voice.gone = True
        voice.tts.dispose()
        self._dismissed.add(voice.tts)

    def _opened(self, voice: Voice) -> bool:
        """Open a voice if it is not; else its parts have gone on elsewhere."""
        if not voice.open:
            self._try(voice, partial(self._start, voice))
        return voice.open

    def _speaker(self, name: str, voice: Voice) -> str:
        """What a voice that was asked for is called by one of the chain."""
        names = self._names.get(name)
        if names is not None:
            return names[voice.place]
        return name if type(voice.tts) is type(self._voices[0].tts) else ""

    def _try(self, voice: Voice, call: Callable[[], object]) -> None:
        try:
            call()
        except Exception as exc:  # a foreign one must not take the call down
            self._failed(voice, as_error(voice.label, exc))

    def _give(self, part: ChainPart, text: str) -> None:
        """Hand text of a part, which is noted already, to its present voice."""
        voice = part.voice
        if not self._opened(voice) or part.voice is not voice or not (text or part.done):
            return
        speakable = part.done or text.rstrip().endswith(_SENTENCE_ENDS)
        if speakable and (part.expected_since is None or part.covered.audio_ms):
            part.expected_since = self._loop.time()
        speaker = self._speaker(part.speaker, voice)
        message = Message(uuid=part.key[0], part=part.key[1], data=text, done=part.done, voice=speaker)
        self._try(voice, partial(voice.tts.post, message))

    # -- failures ----------------------------------------------------------------------------------

    def _failed(self, voice: Voice, error: DialogError) -> None:
        """A voice has given up, or is given up: its parts go on elsewhere."""
        if voice.open:
            self._close(voice)
        voice.gone = True
        voice.circuit.failed(self._loop.time(), hopeless=True)
        self._look_later()
        parts = [part for part in self._parts.values() if part.voice is voice]
        self._tell(voice, error, to=self._next(parts[0]) if parts else self._other(voice))
        if not parts and all(other.gone and not other.circuit.closed for other in self._voices):
            self._give_up(error)
        for part in parts:
            self._move(part, error)

    def _tell(self, voice: Voice, error: DialogError, to: Voice | None) -> ProviderError:
        told = failure_of(voice.label, error, to.label if to is not None else None)
        voice.down = error
        self.fail(told, retryable=True)
        return told

    def _other(self, voice: Voice) -> Voice | None:
        return next((other for other in self._voices if other is not voice and other.circuit.closed), None)

    def _next(self, part: ChainPart) -> Voice | None:
        """Who says the rest: each voice gets one try, those that are worth asking first."""
        left = [voice for voice in self._voices if voice not in part.tried]
        return next((voice for voice in left if voice.circuit.closed), left[0] if left else None)

    def _move(self, part: ChainPart, error: DialogError) -> None:
        """Let the next voice say what was not said of a part."""
        if self._parts.get(part.key) is not part:
            return  # aborted by a listener
        old = part.voice
        rest = part.covered.rest(old.rate)
        if not rest and part.done and part.audio_ms:
            self._finish(part)
            return
        voice = self._next(part)
        if voice is None:
            self._finish(part)
            if all(not one.circuit.closed for one in self._voices):
                self._give_up(error)
            return
        part.tried.add(voice)
        part.voice = voice
        part.converter = self._converter(voice)
        part.covered = Coverage(rest)
        part.base_ms = part.audio_ms
        part.expected_since = None
        self._speak_with(voice, error)
        if self._parts.get(part.key) is part and part.voice is voice:
            self._give(part, rest)

    def _give_up(self, error: DialogError) -> None:
        if self._gone:
            return
        self._gone = True
        names = ", ".join(voice.label for voice in self._voices)
        told = ProviderError(self.name, f"all of {names} have failed, the last one: {error}", retryable=False)
        told.__cause__ = error
        self.fail(told, fatal=True)

    # -- what is looked at from time to time -------------------------------------------------------

    def _look_later(self) -> None:
        if self._ticker is None and not self._disposed:
            self._ticker = self._loop.call_later(_TICK_S, self._look)

    def _look(self) -> None:
        self._ticker = None
        if self._parts or not all(voice.circuit.closed for voice in self._voices):
            self._look_later()
        now = self._loop.time()
        for voice in self._voices:
            error = self._stalled(voice, now) if voice.open and self._parts else None
            if error is not None:
                self._failed(voice, error)
            elif voice not in self._probes and voice.circuit.due(now):
                self._probe(voice)

    def _stalled(self, voice: Voice, now: float) -> ProviderError | None:
        """Whether it has text that it could speak, and does not."""
        mine = [part for part in self._parts.values() if part.voice is voice]
        for part in mine[: max(1, voice.tts.capabilities.parallel_parts)]:
            silent = part.audio_ms == part.base_ms
            if part.expected_since is None or not (silent or part.done):
                continue
            patience_s = _TROUBLED_S if voice.error is not None and silent else self._timeout_s
            since = max(part.expected_since, voice.last_audio)
            if now - since >= patience_s:
                because = f" ({voice.error})" if voice.error is not None else ""
                what = f"no audio for {now - since:.1f} s{because}"
                return ProviderError(voice.label, what, retryable=True)
        return None

    # -- a voice that failed is tried again --------------------------------------------------------

    def _probe(self, voice: Voice) -> None:
        self.spawn(self._ask(voice), f"probe of {voice.label}")

    async def _ask(self, voice: Voice) -> None:
        """Let a new one say a word to nobody."""
        tts: TTS | None = None
        error: DialogError | None
        try:
            tts = self._probes[voice] = voice.tts.renewed()
            tts.on(TTS.USAGE, partial(self.emit, TTS.USAGE))
            error = await rehearse(tts, voice.label, voice.format)
        except asyncio.CancelledError:
            voice.circuit.abandoned()
            raise
        except Exception as exc:  # whatever it raises, it does not work yet
            error = as_error(voice.label, exc)
        finally:
            self._probes.pop(voice, None)
            if tts is not None:
                tts.dispose()
                self._dismissed.add(tts)
        if error is not None:
            voice.circuit.failed(self._loop.time())
            logger.info("%s: %s does not work again yet: %s", self.name, voice.label, error)
        else:
            voice.circuit.succeeded()
            self._gone = False
            logger.info("%s: %s works again", self.name, voice.label)

    # -- what they tell ----------------------------------------------------------------------------

    def _mine(self, voice: Voice, key: PartKey) -> ChainPart | None:
        part = self._parts.get(key)
        return part if part is not None and part.voice is voice else None

    def _on_audio(self, voice: Voice, message: Message[bytes]) -> None:
        part = self._mine(voice, (message.uuid, message.part))
        if part is None:
            return
        if message.data:
            voice.last_audio = self._loop.time()
            voice.error = None
            part.covered.audio_ms += voice.format.ms(len(message.data))
            self._emit(part, part.converter.process(message.data))
        if not message.done or self._parts.get(part.key) is not part:
            return
        failure = voice.failing
        if failure is not None:
            voice.consequences = failure
            self._refused(part, failure.error)
            return
        if not part.done or not (part.covered.audio_ms or _blank(part.covered.text)):
            self._refused(part, ProviderError(voice.label, "ended a part too early", retryable=True))
            return
        voice.circuit.succeeded()
        self._gone = False
        voice.rate.learn(len(part.covered.text.strip()), part.covered.audio_ms)
        self._finish(part)

    def _refused(self, part: ChainPart, error: DialogError) -> None:
        """A voice has not said a part to its end; others it may."""
        voice = part.voice
        if not part.speaker or getattr(error, "retryable", True):  # else it may be the name of the speaker
            voice.circuit.failed(self._loop.time())
        self._tell(voice, error, self._next(part))
        self._move(part, error)

    def _emit(self, part: ChainPart, data: bytes, *, done: bool = False) -> None:
        assert self._format is not None
        at_ms = part.audio_ms
        part.audio_ms += self._format.ms(len(data))
        if data or done:
            self.emit(TTS.MESSAGE, Message(uuid=part.key[0], part=part.key[1], data=data, at_ms=at_ms, done=done))

    def _finish(self, part: ChainPart) -> None:
        self._forget(part.key)
        self._emit(part, part.converter.flush(), done=True)

    def _forget(self, key: PartKey) -> None:
        self._parts.pop(key, None)
        self._ended[key] = None

    def _on_alignment(self, voice: Voice, alignment: Alignment) -> None:
        part = self._mine(voice, (alignment.uuid, alignment.part))
        if part is None:
            return
        part.covered.timings(alignment.words)
        base = part.base_ms
        if base:
            moved = (
                replace(word, start_ms=word.start_ms + base, end_ms=word.end_ms + base) for word in alignment.words
            )
            alignment = Alignment(uuid=alignment.uuid, part=alignment.part, words=tuple(moved))
        self.emit(TTS.ALIGNMENT, alignment)

    def _on_error(self, voice: Voice, failure: Failure) -> None:
        error = failure.error
        if failure.fatal:
            self._failed(voice, error)
            return
        if isinstance(error, ProviderError):
            voice.error = error
            voice.failing = failure
            self._loop.call_soon(self._passed, voice, failure)
            return
        self.emit(Participant.ERROR, failure)

    def _passed(self, voice: Voice, failure: Failure) -> None:
        """No part has ended with an error: the voice may recover by itself."""
        if voice.failing is failure:
            voice.failing = None
        if voice.consequences is not failure:
            self.emit(Participant.ERROR, failure)


def _blank(text: str) -> bool:
    return not any(char.isalnum() for char in text)


def _common_capabilities(members: list[TTSCapabilities]) -> TTSCapabilities:
    return TTSCapabilities(
        text="tokens" if all(one.text == "tokens" for one in members) else "sentences",
        timings=all(one.timings for one in members),
        normalizes=all(one.normalizes for one in members),
        voices=members[0].voices,  # the others stand in as well as they can
        parallel_parts=min(one.parallel_parts for one in members),
    )

"""Speech to text without an account: pocketsphinx, on a closed list of sentences.

It understands the sentences of its grammar and nothing else, and says so when it hears something
else. It was tuned on synthetic callers over a telephone line; see docs/local-speech.md.
"""

from __future__ import annotations

import asyncio
import importlib.util
from collections import deque
from collections.abc import Coroutine, Sequence
from typing import Any, ClassVar
from uuid import UUID, uuid4

from msgspec import Struct
from msgspec.structs import replace

from dialog.audio.vad import LevelVAD
from dialog.checks import check_several
from dialog.errors import ConfigurationError, LimitError, MissingExtra, ProviderError, StateError
from dialog.message import MULAW_8K, PCM_8K, PCM_16K, AudioFormat, Message, SpeechEdge, Utterance, Word
from dialog.stt._sphinx_process import RecogniserProcess
from dialog.stt._sphinx_worker import Result
from dialog.stt.echo import Echo
from dialog.stt.grammar import Grammar
from dialog.stt.stt import STT, STTCapabilities

__all__ = ["UNCLEAR", "PocketsphinxSTT", "check_grammar"]

UNCLEAR = "[unclear]"
"""Text of an utterance that was speech but no sentence of the grammar; its confidence is 0."""

_PREROLL_MS = 300.0
_TAIL_MS = 200.0
"""How much of the silence after an utterance is decoded with it. Decoding begins when that much is
there: unless the caller goes on, the text is ready when the utterance ends."""
_LONGEST_MS = 15_000.0
"""An utterance that goes on for longer is decoded in pieces of this length."""
_INTERIM_MS = 800.0
"""Voice before the first interim, and between two."""
_MANUAL_MS = 5000.0
"""With manual turns: silence after which an utterance ends although nobody has said so."""
_PENDING = 8
"""Utterances that wait for the recogniser, at most."""


def check_grammar(phrases: Sequence[str] | Grammar) -> Grammar:
    """Check that every word of a grammar can be recognised; for the start of a program or a test.

    It reads the whole dictionary, some 50 ms.

    Raises:
        MissingExtra: pocketsphinx is not installed.
        ConfigurationError: A word has no pronunciation; the message names it.
    """
    from dialog.stt._sphinx_decoder import missing_words

    grammar = Grammar.of(phrases)
    if missing := missing_words(grammar):
        raise ConfigurationError(
            f"pocketsphinx: no pronunciation for {', '.join(missing)}; "
            "use other words, or give them in the grammar's pronunciations"
        )
    return grammar


class _Heard(Struct, eq=False):
    """An utterance in the making, or on its way through the recogniser."""

    uuid: UUID
    grammar: Grammar
    start_ms: float
    """Where its audio begins on the call's audio clock."""
    voice_ms: float
    """Where the voice begins."""
    audio: bytearray
    end_ms: float = 0.0
    """Where the voice ended, once it has; with manual turns, where it last paused."""
    next_interim_ms: float = _INTERIM_MS
    interim_runs: bool = False
    interim: str = ""
    over: bool = False
    early_end_ms: float = -1.0
    """Where the voice paused when :attr:`early` was asked for."""
    early: asyncio.Future[Result | None] | None = None


class PocketsphinxSTT(STT):
    """Recognises the sentences of a grammar, in a process of its own that all calls share.

    Every utterance that the level of the caller's voice marks off becomes one MESSAGE: the sentence,
    with words and their times, or :data:`UNCLEAR` with a confidence of 0. What has no speech in it
    (a cough, a knock) becomes none. While somebody speaks for longer, an INTERIM tells the beginning
    of the sentence if it is certain by then, else :data:`UNCLEAR`: words are being said.

    Args:
        phrases: The sentences, or a grammar.
        hang_ms: Silence that ends an utterance.
        interims: Look at utterances while they last, every 0.8 s.

    Raises:
        MissingExtra: pocketsphinx or numpy is not installed.
        ConfigurationError: The grammar is not well formed.
    """

    formats: ClassVar[tuple[AudioFormat, ...]] = (MULAW_8K, PCM_8K, PCM_16K)
    capabilities: ClassVar[STTCapabilities] = STTCapabilities(
        speech_events=True, interim_interval_ms=800, words=True, eager=False, manual_turns=True
    )

    def __init__(self, phrases: Sequence[str] | Grammar, *, hang_ms: float = 400.0, interims: bool = True) -> None:
        check_several("PocketsphinxSTT: phrases", phrases)
        if not 100 <= hang_ms <= 5000:
            raise ConfigurationError(f"PocketsphinxSTT: hang_ms must be from 100 to 5000, got {hang_ms}")
        for package in ("pocketsphinx", "numpy"):
            if importlib.util.find_spec(package) is None:
                raise MissingExtra(package, "local")
        self._grammar = Grammar.of(phrases)
        super().__init__()
        self._hang_ms = hang_ms
        self._interims = interims
        self._format = MULAW_8K
        self._vad: LevelVAD | None = None
        self._pauses: LevelVAD | None = None
        """Hears each pause of the voice before it is long enough to end the utterance."""
        self._process: RecogniserProcess | None = None
        self._preroll: deque[tuple[float, bytes]] = deque()
        self._now_ms = 0.0
        """End of the newest audio on the call's audio clock."""
        self._current: _Heard | None = None
        self._pending: deque[_Heard] = deque()
        self._discarded_ms = float("-inf")
        self._echo = Echo()

    def open(self, audio_format: AudioFormat) -> None:
        """See :meth:`STT.open`. The process is started, unless another call has it running."""
        if self._disposed or self._process is not None:
            raise StateError(f"{self.name}: open() called twice, or after dispose()")
        if audio_format not in self.formats:
            raise ConfigurationError(f"{self.name} takes {self.formats}, not {audio_format}")
        self._format = audio_format
        self._vad = LevelVAD(audio_format, hang_ms=self._hang_ms)
        if self._hang_ms > _TAIL_MS:
            self._pauses = LevelVAD(audio_format, hang_ms=_TAIL_MS)
        self._process = RecogniserProcess.acquire()
        self.spawn(self._prepare(self._process), "preparing")

    def post(self, message: Message[bytes]) -> None:
        """See :meth:`STT.post`."""
        vad = self._vad
        if vad is None:
            raise StateError(f"{self.name}: post() before open()")
        if self._disposed or not message.data:
            return
        data, at_ms = message.data, message.at_ms
        self._now_ms = at_ms + self._format.ms(len(data))
        current = self._current
        if current is not None:
            self._extend(current, data, at_ms)
        else:
            self._preroll.append((at_ms, data))
            while self._preroll[0][0] < self._now_ms - _PREROLL_MS - 120.0:
                self._preroll.popleft()
        for edge in vad.feed(data, at_ms):
            self._edge(edge)
        if self._pauses is not None:
            for edge in self._pauses.feed(data, at_ms):
                if edge.state == "stopped" and self._current is not None:
                    self._decode_early(self._current, edge.at_ms)
        current = self._current
        if current is not None:
            self._look(current)

    def finalize(self) -> None:
        """See :meth:`STT.finalize`. What was said so far is decoded; what follows is another utterance."""
        current = self._current
        if current is None:
            return
        self._current = None
        speaking = self._vad is not None and self._vad.speaking
        self._finish(current, self._now_ms if speaking else current.end_ms)
        if speaking:
            self._begin(self._now_ms, self._now_ms)

    def discard(self, before_ms: float) -> None:
        """See :meth:`STT.discard`. Utterances that ended before are dropped, the one that lasts is shortened."""
        self._discarded_ms = max(self._discarded_ms, before_ms)
        current = self._current
        if current is None or current.start_ms >= before_ms:
            return
        cut = min(self._format.size(before_ms - current.start_ms), len(current.audio))
        del current.audio[:cut]
        current.start_ms += self._format.ms(cut)
        current.voice_ms = max(current.voice_ms, before_ms)
        # What follows is another utterance than the one whose beginning may have been told.
        current.uuid, current.interim, current.early = uuid4(), "", None

    def set_phrases(self, phrases: Sequence[str] | Grammar) -> None:
        """Understand these sentences from the next utterance on: short lists are understood best.

        Raises:
            ConfigurationError: The grammar is not well formed. A word without pronunciation is told by an ERROR.
        """
        self._grammar = Grammar.of(phrases)
        if self._process is not None and not self._disposed:
            self.spawn(self._prepare(self._process), "preparing")

    def dispose(self) -> None:
        """See :meth:`Participant.dispose`. The process ends with its last user."""
        if self._disposed:
            return
        super().dispose()
        self._current = None
        self._pending.clear()
        self._preroll.clear()
        if self._process is not None:
            ending = self._process.release()
            self._process = None
            if ending is not None:
                self._tasks.add(ending)
                ending.add_done_callback(self._tasks.discard)

    # -- utterances -------------------------------------------------------------------------------

    def _edge(self, edge: SpeechEdge) -> None:
        current = self._current
        if edge.state == "started":
            if current is None:
                self._begin(max(edge.at_ms - _PREROLL_MS, self._discarded_ms), edge.at_ms)
        elif current is not None:
            current.end_ms = edge.at_ms
            if not self.manual_turns:
                self._current = None
                self._finish(current, edge.at_ms)
        self.emit(STT.VAD, edge)

    def _begin(self, start_ms: float, voice_ms: float) -> None:
        current = _Heard(uuid4(), self._grammar, start_ms, voice_ms, bytearray())
        self._current = current
        kept, self._preroll = self._preroll, deque()
        for at_ms, data in kept:
            skip = self._format.size(start_ms - at_ms) if at_ms < start_ms else 0
            if skip >= len(data):
                continue
            if not current.audio:
                current.start_ms = at_ms + self._format.ms(skip)
            self._extend(current, data[skip:], at_ms + self._format.ms(skip))

    def _extend(self, current: _Heard, data: bytes, at_ms: float) -> None:
        gap = at_ms - current.start_ms - self._format.ms(len(current.audio))
        if 1.0 <= gap <= 2000.0:
            current.audio += self._format.silence(gap)
        current.audio += data

    def _look(self, current: _Heard) -> None:
        """Ask for an interim when there is enough for one; cut an utterance that does not end."""
        lasted = self._now_ms - current.voice_ms
        speaking = self._vad is not None and self._vad.speaking
        if lasted >= _LONGEST_MS or (not speaking and self._now_ms - current.end_ms >= _MANUAL_MS):
            self.finalize()
        elif self._interims and lasted >= current.next_interim_ms and not current.interim_runs and speaking:
            current.next_interim_ms = lasted + _INTERIM_MS
            current.interim_runs = True
            self.spawn(self._interim(current, current.uuid, bytes(current.audio)), "interim")

    def _finish(self, current: _Heard, end_ms: float) -> None:
        current.over = True
        current.end_ms = end_ms
        del current.audio[self._tail(current, end_ms) :]
        if end_ms <= self._discarded_ms or not current.audio:
            return
        if len(self._pending) >= _PENDING:
            oldest = self._pending.popleft()
            self._say(oldest, UNCLEAR)
        self._pending.append(current)
        self.spawn(self._recognise(current), "recognising")

    def _tail(self, current: _Heard, end_ms: float) -> int:
        """Where the audio of an utterance ends whose voice ended at ``end_ms``, in bytes."""
        return self._format.size(max(0.0, end_ms + _TAIL_MS - current.start_ms))

    def _decode_early(self, current: _Heard, end_ms: float) -> None:
        if current.early is not None and not current.early.done():
            return
        current.early_end_ms = end_ms
        current.early = asyncio.get_running_loop().create_future()
        self.spawn(self._early(current, bytes(current.audio[: self._tail(current, end_ms)]), current.early), "early")

    # -- the process ------------------------------------------------------------------------------

    async def _prepare(self, process: RecogniserProcess) -> None:
        await self._asked(process.hear(self._grammar, self._format, b""), fatal=True)

    async def _interim(self, current: _Heard, uuid: UUID, audio: bytes) -> None:
        process = self._process
        if process is None:
            return
        result = await self._asked(process.hear(current.grammar, self._format, audio, over=False))
        current.interim_runs = False
        if result is None or current.over or self._current is not current or current.uuid != uuid:
            return  # another uuid: what was decoded was discarded meanwhile
        if not result.speech:
            return
        # Words are being said, so whoever listens may stop the agent's; which words is known at the end.
        text = result.text if len(result.words) >= 2 else UNCLEAR
        if text == UNCLEAR and current.interim:
            return
        if text != current.interim:
            current.interim = text
            utterance = self._utterance(current, text, result, end_ms=self._now_ms)
            if not self._echo.repeats(utterance, self.own_speech):
                self.emit(STT.INTERIM, utterance)

    async def _early(self, current: _Heard, audio: bytes, early: asyncio.Future[Result | None]) -> None:
        result = None
        try:
            if self._process is not None:
                result = await self._asked(self._process.hear(current.grammar, self._format, audio))
        finally:
            if not early.done():
                early.set_result(result)

    async def _recognise(self, heard: _Heard) -> None:
        process = self._process
        if process is None:
            return
        result = None
        if heard.early is not None and heard.early_end_ms == heard.end_ms:
            result = await heard.early
        if result is None:
            result = await self._asked(process.hear(heard.grammar, self._format, bytes(heard.audio)))
        if heard not in self._pending:
            return
        self._pending.remove(heard)
        if heard.end_ms <= self._discarded_ms:
            return
        if result is None:
            self._say(heard, UNCLEAR)
        elif result.text:
            self._say(heard, result.text, result)
        elif result.speech or heard.interim:
            self._say(heard, UNCLEAR)

    def _say(self, heard: _Heard, text: str, result: Result | None = None) -> None:
        utterance = self._utterance(heard, text, result, end_ms=heard.end_ms)
        if utterance.at_ms < self._discarded_ms:
            words = tuple(word for word in utterance.words if (word.start_ms + word.end_ms) / 2 >= self._discarded_ms)
            if utterance.words and not words:
                return
            text = " ".join(word.text for word in words) or utterance.data
            utterance = replace(utterance, data=text, words=words, at_ms=self._discarded_ms)
        if not self._echo.is_echo(utterance, self.own_speech):
            self.emit(STT.MESSAGE, utterance)

    def _utterance(self, heard: _Heard, text: str, result: Result | None, *, end_ms: float) -> Utterance:
        understood = result is not None and text != UNCLEAR
        words = result.words if result is not None and understood else ()
        return Utterance(
            uuid=heard.uuid,
            data=text,
            at_ms=heard.voice_ms,
            end_ms=end_ms,
            words=tuple(
                Word(text=word, start_ms=heard.start_ms + start, end_ms=heard.start_ms + end)
                for word, start, end in words
            ),
            language="en-US" if understood else None,
            confidence=result.confidence if result is not None and understood else 0.0,
        )

    async def _asked(self, work: Coroutine[Any, Any, Result], *, fatal: bool = False) -> Result | None:
        """The result, or an ERROR and nothing. A faulty grammar is fatal: nothing will be understood."""
        try:
            return await work
        except ConfigurationError as exc:
            self.fail(exc, fatal=True)
        except ProviderError as exc:
            self.fail(exc, fatal=fatal, retryable=exc.retryable)
        except LimitError as exc:
            self.fail(exc, retryable=True)
        return None

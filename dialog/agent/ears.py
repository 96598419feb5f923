"""The caller's side of an engine: who listens, to what audio, and how one listener follows another."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Literal, NamedTuple, Protocol
from uuid import UUID
from weakref import WeakSet

from msgspec.structs import replace

from dialog.agent.claim import claim
from dialog.agent.turnjudge import AudioTurnModel, TurnJudge
from dialog.agent.vadmode import Listening, VADMode, choose_vad
from dialog.audio.convert import Converter, negotiate
from dialog.audio.filter import AudioFilterFactory, CallerFilter
from dialog.errors import DialogError
from dialog.message import AudioFormat, Message, Playback, SpeechEdge, Utterance
from dialog.participant import Participant
from dialog.stt.echo import OwnSpeech
from dialog.stt.stt import STT
from dialog.vad.played import PlayedAudio
from dialog.vad.vad import VAD
from dialog.voip.voip import VoIP

__all__ = ["Ears", "Hearing", "LocalHearing", "last_words"]

logger = logging.getLogger(__name__)

_SWAP_S = 2.0
"""How long a new STT waits for the caller to pause before it takes over."""

_opened: WeakSet[STT | VAD] = WeakSet()
"""Those that were opened, which happens once: an agent may let go of its call and take it again."""


class Hearing(Protocol):
    """What the ears tell, and what they have to know."""

    def on_utterance(self, utterance: Utterance) -> None: ...  # noqa: D102
    def on_interim(self, utterance: Utterance) -> None: ...  # noqa: D102
    def on_eager(self, utterance: Utterance) -> None: ...  # noqa: D102
    def on_eager_withdrawn(self, uuid: UUID) -> None: ...  # noqa: D102
    def on_speech_edge(self, edge: SpeechEdge) -> None: ...  # noqa: D102

    def on_judged(self, probability: float) -> None:
        """A model that hears the caller says how probably they have finished."""
        ...

    def on_listening(self, listening: Listening) -> None:
        """It was decided who hears speech start and stop, and who ends utterances."""
        ...

    @property
    def caller_speaking(self) -> bool:
        """The caller's voice is on."""
        ...

    @property
    def expecting_words(self) -> bool:
        """The caller has begun an utterance that is not final yet."""
        ...


class LocalHearing(NamedTuple):
    """What hears the caller in this process, beside the STT."""

    make_vad: Callable[[], VAD]
    """Called when one is needed."""
    audio_filter: AudioFilterFactory | None = None
    turn_model: AudioTurnModel | None = None


def last_words(stt: STT) -> asyncio.Event:
    """Ask for what was said so far. Set when it came, or when ``stt`` gave up; to be waited for with a bound."""
    over = asyncio.Event()
    stt.on(STT.MESSAGE, lambda _: over.set())
    stt.on(Participant.ERROR, lambda failure: over.set() if failure.fatal else None)
    stt.finalize()
    return over


class Ears:
    """Hands the caller's audio to the STT, in its format, and what it hears to the engine.

    A local VAD, where one is needed, hears the same audio, and is told how loud the agent is at that
    moment, so that it does not take the echo for the caller.
    """

    __slots__ = (
        "_caught_up_ms",
        "_clock",
        "_coming",
        "_convert",
        "_filter",
        "_hearing",
        "_judge",
        "_last",
        "_last_words_s",
        "_leaving",
        "_local",
        "_make_vad",
        "_ms_per_byte",
        "_played",
        "_ready",
        "_silence",
        "_spawn",
        "_stopped",
        "_stt",
        "_vad",
        "_vad_mode",
        "_vad_strict",
        "_voip",
        "_when_reached",
        "last_stop",
        "muted",
        "own_speech",
    )

    def __init__(
        self,
        voip: VoIP,
        stt: STT | None,
        hearing: Hearing,
        *,
        vad_mode: VADMode,
        vad_strict: bool,
        local: LocalHearing,
        failed: Callable[[DialogError], object],
        spawn: Callable[[Coroutine[Any, Any, None], str], asyncio.Task[None] | None],
        last_words_s: float,
        ready: Callable[[STT], None],
        when_reached: Callable[[Callable[[], object]], None],
    ) -> None:
        """``ready`` is told of every STT before it is opened; ``when_reached`` says when that may be."""
        self._voip = voip
        self._clock = voip.clock
        self._ms_per_byte = voip.audio_format.ms(1)
        self._stt = stt
        self._hearing = hearing
        self._spawn = spawn
        self._last_words_s = last_words_s
        self._ready = ready
        self._when_reached = when_reached
        self._coming: STT | None = None
        """The STT that takes over at the caller's next pause."""
        self._leaving: set[STT] = set()
        """Those it takes over from, whose last words still count."""
        self._convert: Converter | None = None
        self._last: Message[bytes] | None = None
        self._caught_up_ms: float | None = None
        """Audio from before comes late, for the process that had the call is gone: its speech edges are old."""
        self._silence = b""
        self._vad_mode: VADMode = vad_mode
        self._vad_strict = vad_strict
        self._make_vad = local.make_vad
        self._vad: VAD | None = None
        """The local one, once it was needed."""
        self._played: PlayedAudio | None = None
        self.last_stop: tuple[float, Literal["vad", "provider_event"]] | None = None
        """Where the caller's voice last stopped, and who told; ``None`` while it is on."""
        self._local = False
        """The local VAD's edges count, not the STT's."""
        self._filter: CallerFilter | None = None
        if local.audio_filter is not None:
            self._filter = CallerFilter(local.audio_filter, voip.audio_format, failed)
        self._judge: TurnJudge | None = None
        if local.turn_model is not None:
            self._judge = TurnJudge(
                local.turn_model,
                voip.audio_format,
                voip.clock,
                spawn=spawn,
                judged=hearing.on_judged,
                failed=failed,
            )
        # A recogniser that was opened before, by who had the call, goes on to read what it was given then.
        self.own_speech: OwnSpeech = (stt.own_speech if stt is not None else None) or OwnSpeech()
        """What the caller has heard of the agent, for whoever hears its echo."""
        self._stopped = False
        self.muted: bool = False
        """The STT gets silence of equal length: a turn must end, and its socket stay open."""

    @property
    def audio_format(self) -> AudioFormat:
        """Format of the caller's audio."""
        return self._voip.audio_format

    @property
    def position_ms(self) -> float | None:
        """Where the newest audio ends on the call's audio clock; ``None`` before there is any."""
        last = self._last
        if last is None:
            return self._caught_up_ms
        end_ms = last.at_ms + len(last.data) * self._ms_per_byte
        return end_ms if self._caught_up_ms is None else max(end_ms, self._caught_up_ms)

    def start(self) -> None:
        """Open the STT and listen."""
        self._voip.on(VoIP.MESSAGE, self.hear)
        if self._stt is not None:
            self._take(self._stt, *self._wire(self._stt))

    def stop(self) -> None:
        """Let go of everything; those that leave are disposed of, the present one is not."""
        self._stopped = True
        self._voip.off(VoIP.MESSAGE, self.hear)
        if self._vad is not None:
            self._vad.off(VAD.SPEECH, self._on_local_edge)
        if self._played is not None:
            self._voip.off(VoIP.PLAYBACK, self._on_playback)
        for stt in (self._stt, self._coming):
            if stt is not None:
                self._unwire(stt)
        for stt in list(self._leaving):
            self._let_go(stt)

    def hear(self, message: Message[bytes]) -> None:
        """The caller's audio, 50 times a second."""
        self._last = message
        if self._filter is not None:
            message = self._filter.process(message)
        if self.muted:
            message = Message(uuid=message.uuid, data=self._silent(len(message.data)), at_ms=message.at_ms)
        if self._local and self._vad is not None and self._played is not None:
            self._vad.playing(self._played.level(self._clock.now()))
            self._vad.post(message)
        if self._judge is not None:
            self._judge.hear(message)
        stt = self._stt
        if stt is None:
            return
        if self._convert is not None:
            message = Message(uuid=message.uuid, data=self._convert.process(message.data), at_ms=message.at_ms)
        stt.post(message)

    def catch_up(self, at_ms: float) -> None:
        """The call's audio clock stands at ``at_ms`` already: what comes from before is not news."""
        self._caught_up_ms = at_ms

    def spoke(self, message: Message[bytes]) -> None:
        """The agent's audio goes to the line: what it sounds like may come back as an echo."""
        if self._played is not None:
            self._played.post(message)

    def finalize(self) -> None:
        """Ask for what was said so far."""
        if self._stt is not None:
            self._stt.finalize()

    def discard(self, before_ms: float) -> None:
        """Forget what was said before ``before_ms`` on the call's audio clock."""
        if self._stt is not None:
            self._stt.discard(before_ms)

    def replace(self, stt: STT) -> None:
        """Let ``stt`` listen, from the next pause of the caller on; the old one's last words still count.

        Raises:
            UnsupportedFormat: It shares no audio format with the call; the old one stays.
            StateError: It was disposed of, or works for another call; likewise.
        """
        old, waiting = self._stt, self._coming
        if stt is waiting:
            return
        converter, listening = self._wire(stt)
        if old is None or old not in _opened:  # it has heard nothing, and has nothing to add
            self._take(stt, converter, listening)
            if old is not None:
                self._let_go(old)
            return
        if waiting is not None:
            self._unwire(waiting)  # it has not heard anything yet
            waiting.dispose()
            self._coming = None
        self._leaving.discard(stt)
        if stt is old:
            return  # it stays after all
        self._coming = stt
        self._leaving.add(old)
        self._spawn(self._swap(old, stt, converter, listening), "swap of the STT")

    async def _swap(self, old: STT, stt: STT, converter: Converter | None, listening: Listening) -> None:
        deadline = self._clock.now() + _SWAP_S
        while self._hearing.caller_speaking and self._clock.now() < deadline:
            await self._clock.sleep(0.02)
        if self._stopped or self._coming is not stt:
            return  # another one was set meanwhile
        self._coming = None
        self._take(stt, converter, listening)
        last = last_words(old)
        if self._hearing.expecting_words:
            try:
                async with asyncio.timeout(self._clock.real(self._last_words_s)):
                    await last.wait()
            except TimeoutError:
                logger.debug("the old STT had no last words")
        if old in self._leaving and old is not self._stt:  # it has not come back
            self._let_go(old)

    def _take(self, stt: STT, converter: Converter | None, listening: Listening) -> None:
        """From now on ``stt`` hears the caller."""
        self._stt, self._convert = stt, converter
        position_ms = self.position_ms
        if listening.local_vad is not self._local and self._hearing.caller_speaking and position_ms is not None:
            # Who told that the voice has started is not asked any more when it stops.
            self._edge(SpeechEdge(state="stopped", at_ms=position_ms), "vad" if self._local else "provider_event")
        self._local = listening.local_vad
        self._hearing.on_listening(listening)

    def _let_go(self, stt: STT) -> None:
        self._leaving.discard(stt)
        self._unwire(stt)
        stt.dispose()

    def _listen(self, stt: STT) -> Listening:
        """Decide who hears what, before ``stt`` is opened."""
        listening = choose_vad(self._vad_mode, stt.capabilities, strict=self._vad_strict)
        if stt not in _opened:
            stt.manual_turns = listening.endpointing == "local"
            stt.own_speech = self.own_speech
        if listening.local_vad and self._vad is None:
            vad = self._make_vad()
            claim(vad, self._voip)
            self._vad = vad
            self._when_reached(partial(self._open, vad, self.audio_format))
            vad.on(VAD.SPEECH, self._on_local_edge)
            self._played = PlayedAudio(self.audio_format)
            self._voip.on(VoIP.PLAYBACK, self._on_playback)
        stops = listening.local_vad or (stt.capabilities.speech_events and stt.capabilities.speech_stops)
        return replace(listening, stops=stops, words=stt.capabilities.interim_interval_ms is not None)

    def _on_local_edge(self, edge: SpeechEdge) -> None:
        if self._local:
            self._edge(edge, "vad")

    def _on_provider_edge(self, edge: SpeechEdge) -> None:
        if not self._local:
            self._edge(edge, "provider_event")

    def _edge(self, edge: SpeechEdge, source: Literal["vad", "provider_event"]) -> None:
        self.last_stop = (edge.at_ms, source) if edge.state == "stopped" else None
        self._hearing.on_speech_edge(edge)
        if self._judge is not None:
            if edge.state == "stopped":
                self._judge.stopped()
            else:
                self._judge.started()

    def _on_playback(self, playback: Playback) -> None:
        if self._played is not None:
            self._played.report(playback, self._clock.now())

    def _wire(self, stt: STT) -> tuple[Converter | None, Listening]:
        claim(stt, self._voip)
        audio_format = negotiate(self.audio_format, stt.formats)
        listening = self._listen(stt)
        if stt not in _opened:
            self._ready(stt)
        self._when_reached(partial(self._open, stt, audio_format))
        hearing = self._hearing
        stt.on(STT.MESSAGE, hearing.on_utterance)
        stt.on(STT.INTERIM, hearing.on_interim)
        stt.on(STT.EAGER, hearing.on_eager)
        stt.on(STT.EAGER_WITHDRAWN, hearing.on_eager_withdrawn)
        stt.on(STT.VAD, self._on_provider_edge)
        converter = None if audio_format == self.audio_format else Converter(self.audio_format, audio_format)
        return converter, listening

    def _open(self, ear: STT | VAD, audio_format: AudioFormat) -> None:
        if ear not in _opened and not ear.disposed:
            ear.open(audio_format)
            _opened.add(ear)

    def _unwire(self, stt: STT) -> None:
        hearing = self._hearing
        stt.off(STT.MESSAGE, hearing.on_utterance)
        stt.off(STT.INTERIM, hearing.on_interim)
        stt.off(STT.EAGER, hearing.on_eager)
        stt.off(STT.EAGER_WITHDRAWN, hearing.on_eager_withdrawn)
        stt.off(STT.VAD, self._on_provider_edge)

    def _silent(self, size: int) -> bytes:
        if len(self._silence) != size:
            self._silence = self.audio_format.silence(self.audio_format.ms(size))
        return self._silence

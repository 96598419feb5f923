"""What recognisers tell of the segments that they hear: utterances, one uuid each, and when somebody speaks."""

from __future__ import annotations

import asyncio
from collections import deque
from uuid import UUID

from msgspec.structs import replace

from dialog.message import SpeechEdge
from dialog.net.ring import AudioRing
from dialog.stt.echo import Echo
from dialog.stt.segments import Segment, SegmentCollector
from dialog.stt.stt import STT

__all__ = ["TellingSTT"]

_STALE_MS = 1000.0
"""In a replay, a start of speech that is older than this is history, not a reason to pause anybody."""


class TellingSTT(STT):
    """Makes events of what a subclass reports: :meth:`_segment`, :meth:`_finish`, :meth:`_eager` and the like.

    Over replays, discards and segments that come twice an utterance is told once, under one uuid; the echo of
    our own voice is not told at all.

    Args:
        echo_discard_s: An utterance that repeats what we say, and ends at most so long after it, is our echo.
    """

    _ring: AudioRing
    """The caller's audio that may have to be heard again; there once it is open."""

    def __init__(self, *, echo_discard_s: float) -> None:
        super().__init__()
        self._collector = SegmentCollector()
        self._echo = Echo(echo_discard_s * 1000.0)
        self._final_keys: deque[tuple[float, float, str]] = deque(maxlen=8)
        self._safe_ms = 0.0
        self._discarded_ms = float("-inf")
        self._replayed_ms = 0.0
        """Up to where the audio was heard by an earlier connection."""
        self._speaking = False
        self._tells_words = True
        """Whether the times of words come from the service; else they are guesses, for us alone."""
        self._knows_times = True
        """Whether it is known when an utterance was said; else it was when its words came."""
        self._eager_uuid: UUID | None = None

    @property
    def safe_ms(self) -> float:
        """Up to here, on the call's audio clock, nothing will be revised."""
        return self._safe_ms

    def discard(self, before_ms: float) -> None:
        """Forget what was said before ``before_ms`` on the call's audio clock, also what is recognised later."""
        self._collector.discard(before_ms)
        self._discarded_ms = max(self._discarded_ms, before_ms)
        self._withdraw()
        # Another connection has no need to hear it again.
        self._safe_ms = max(self._safe_ms, before_ms)

    # What a provider reports.

    def _segment(self, segment: Segment, *, final: bool, last: bool = False) -> None:
        """The segment that is being said, anew, or for good (``final``); the utterance's ``last`` one ends it."""
        if final and segment.text:
            key = (segment.start_ms, segment.end_ms, segment.text)
            if key in self._final_keys:
                self._told_twice(segment)
                return
            self._final_keys.append(key)
        utterance = self._collector.add(segment, final=final, last=last)
        if final:
            end_ms = segment.end_ms
            self._safe_ms = max(self._safe_ms, end_ms)
            if last:
                self._finish(interim=False, end_ms=end_ms)
                asyncio.get_running_loop().call_soon(self._let_go)  # behind the answer that was begun
                return
            self._let_go()
        if utterance is not None:
            if self._echo.repeats(utterance, self.own_speech, timed=self._knows_times):
                return
            self._speech_started(utterance.at_ms)  # not everybody says so before the words
            self.emit(STT.INTERIM, utterance if self._tells_words else replace(utterance, words=()))
        elif final and self._collector.empty:
            self._speech_stopped(segment.end_ms)  # it was a noise

    def _let_go(self) -> None:
        """Of audio that nobody needs to hear again."""
        self._ring.release(self._safe_ms)

    def _told_twice(self, segment: Segment) -> None:
        """This final segment was told before."""

    def _finish(self, interim: bool, end_ms: float = 0.0) -> None:
        """The utterance is over; ``interim`` words count too."""
        utterance = self._collector.finish(interim=interim)
        if interim and utterance is not None:  # said is said: nobody needs to hear it again
            self._safe_ms = max(self._safe_ms, utterance.end_ms)
            self._let_go()
        self._speech_stopped(utterance.end_ms if utterance is not None else end_ms or self._safe_ms)
        if utterance is not None and self._echo.is_echo(utterance, self.own_speech, timed=self._knows_times):
            utterance = None
        if utterance is None:
            self._withdraw()
        else:
            self._eager_uuid = None
            self.emit(STT.MESSAGE, utterance if self._tells_words else replace(utterance, words=()))

    def _eager(self) -> None:
        """The utterance so far is probably all."""
        utterance = self._collector.utterance
        if utterance is None or self._echo.repeats(utterance, self.own_speech, timed=self._knows_times):
            return
        self._eager_uuid = utterance.uuid
        self.emit(STT.EAGER, utterance if self._tells_words else replace(utterance, words=()))

    def _withdraw(self) -> None:
        """The utterance that was probably all is not, or nothing is left of it."""
        uuid, self._eager_uuid = self._eager_uuid, None
        if uuid is not None:
            self.emit(STT.EAGER_WITHDRAWN, uuid)

    def _speech_started(self, at_ms: float) -> None:
        """Somebody speaks since ``at_ms``; repetitions and history are told to nobody."""
        if at_ms < self._discarded_ms:
            return
        if self._speaking and (self._collector.begun or at_ms < self._replayed_ms):
            return
        if at_ms < self._replayed_ms and self._ring.end_ms - at_ms > _STALE_MS:
            return
        # Nobody says that a noise was over: another start before any word is a new one.
        self._speaking = True
        self.emit(STT.VAD, SpeechEdge(state="started", at_ms=at_ms))

    def _speech_stopped(self, at_ms: float) -> None:
        if self._speaking:
            self._speaking = False
            self.emit(STT.VAD, SpeechEdge(state="stopped", at_ms=at_ms))

"""How the segments of a recogniser become utterances: collecting, revising, discarding. Pure.

Recognisers send an utterance as segments: each is revised until it is final, then the next begins.
Times are milliseconds on the call's audio clock.
"""

from __future__ import annotations

from math import inf, nextafter
from uuid import UUID, uuid4

from msgspec import Struct
from msgspec.structs import replace

from dialog.message import Utterance, Word

__all__ = ["Segment", "SegmentCollector", "speaker_name"]


def speaker_name(told: int | str | None) -> str | None:
    """Name a speaker alike whoever tells: numbers from 0 for ``1``, ``speaker_1`` and ``B``; names as they are."""
    if told is None or isinstance(told, int):
        return None if told is None else str(told)
    if len(told) == 1 and "A" <= told <= "Z":
        return str(ord(told) - ord("A"))
    return told.removeprefix("speaker_") or None


class Segment(Struct, frozen=True, kw_only=True):
    """A stretch of recognised speech."""

    text: str
    start_ms: float
    end_ms: float
    words: tuple[Word, ...] = ()
    language: str | None = None
    confidence: float | None = None

    def after(self, at_ms: float) -> Segment | None:
        """What is left of it when the words whose middle is before ``at_ms`` are taken away."""
        if self.start_ms >= at_ms:
            return self
        if not self.words:
            return self if (self.start_ms + self.end_ms) / 2 >= at_ms else None
        words = tuple(word for word in self.words if (word.start_ms + word.end_ms) / 2 >= at_ms)
        if len(words) == len(self.words):
            return self
        if not words:
            return None
        return replace(self, text=" ".join(word.text for word in words), start_ms=words[0].start_ms, words=words)

    def before(self, at_ms: float) -> Segment | None:
        """What :meth:`after` would take away."""
        words = tuple(word for word in self.words if (word.start_ms + word.end_ms) / 2 < at_ms)
        if not words:
            return None
        text = " ".join(word.text for word in words)
        return replace(self, text=text, end_ms=words[-1].end_ms, words=words)


class SegmentCollector:
    """The utterance that is being said: its final segments, and the one that may still change."""

    def __init__(self) -> None:
        self._finals: list[Segment] = []
        self._interim: Segment | None = None
        self._uuid: UUID | None = None
        self._from_ms = 0.0
        self._shown = ""

    @property
    def empty(self) -> bool:
        """Nothing was said yet."""
        return not self._finals and self._interim is None

    @property
    def begun(self) -> bool:
        """An utterance was told of; its words may have to be heard again."""
        return self._uuid is not None

    @property
    def interim(self) -> Segment | None:
        """The segment that may still change."""
        return self._interim

    @property
    def utterance(self) -> Utterance | None:
        """The utterance so far, interim words and all."""
        segments = [*self._finals, *([self._interim] if self._interim is not None else [])]
        if not segments:
            return None
        utterance = self._utterance(self._uuid or uuid4(), segments)
        self._uuid = utterance.uuid
        return utterance

    @property
    def start_ms(self) -> float:
        """Where the utterance begins; only if it is not :attr:`empty`."""
        first = self._finals[0] if self._finals else self._interim
        assert first is not None
        return first.words[0].start_ms if first.words else first.start_ms

    def add(self, segment: Segment, *, final: bool, last: bool = False) -> Utterance | None:
        """Take a segment in place of the interim one; the utterance so far, if its text changed.

        ``last``: :meth:`finish` follows at once, and nobody needs the utterance before.
        """
        left = segment.after(self._from_ms) if segment.text else None
        self._interim = None
        if left is not None and final:
            self._finals.append(left)
        elif left is not None:
            self._interim = left
        if last or self.empty:
            return None
        utterance = self._utterance(self._uuid or uuid4(), [*self._finals, *([left] if left and not final else [])])
        self._uuid = utterance.uuid
        if utterance.data == self._shown:
            return None
        self._shown = utterance.data
        return utterance

    def finish(self, *, interim: bool = False) -> Utterance | None:
        """End the utterance and return it, if anything was said.

        Args:
            interim: The interim segment counts too. Should it become final later, it is not said twice.
        """
        segments = list(self._finals)
        if interim and self._interim is not None:
            segments.append(self._interim)
            # Beyond its end, since words that come faster than they were said may have no length.
            self._from_ms = max(self._from_ms, nextafter(_end(self._interim), inf))
            self._interim = None
        utterance = self._utterance(self._uuid or uuid4(), segments) if segments else None
        self._finals.clear()
        self._uuid = None
        self._shown = ""
        return utterance

    def restart(self, safe_ms: float, audio_ms: float = 0.0) -> None:
        """The recogniser starts again from ``safe_ms``: it will say the interim words, and none before, again.

        Words whose audio is no longer there, since it is from before ``audio_ms``, are final as they are.
        """
        interim, self._interim = self._interim, None
        self._from_ms = max(self._from_ms, safe_ms)
        if interim is not None and audio_ms > safe_ms and (lost := interim.before(audio_ms)) is not None:
            self._finals.append(lost)
            self._from_ms = max(self._from_ms, _end(lost))

    def discard(self, before_ms: float) -> None:
        """Forget what was said before ``before_ms``, also what is recognised later."""
        self._from_ms = max(self._from_ms, before_ms)
        self._finals = [left for segment in self._finals if (left := segment.after(before_ms)) is not None]
        if self._interim is not None:
            self._interim = self._interim.after(before_ms)
        if self.empty:
            self._uuid = None
            self._shown = ""

    @staticmethod
    def _utterance(uuid: UUID, segments: list[Segment]) -> Utterance:
        first, last = segments[0], segments[-1]
        words = first.words if first is last else tuple([word for segment in segments for word in segment.words])
        speakers = {word.speaker for word in words}
        confidences = [segment.confidence for segment in segments if segment.confidence is not None]
        return Utterance(
            uuid=uuid,
            data=first.text if first is last else " ".join([segment.text for segment in segments]),
            at_ms=words[0].start_ms if words else first.start_ms,
            end_ms=_end(last),
            words=words,
            language=last.language,
            speaker=speakers.pop() if len(speakers) == 1 else None,
            confidence=sum(confidences) / len(confidences) if confidences else None,
        )


def _end(segment: Segment) -> float:
    return segment.words[-1].end_ms if segment.words else segment.end_ms

"""Where one recogniser goes on for another in the middle of an utterance. Pure."""

from __future__ import annotations

from msgspec.structs import replace

from dialog.message import Utterance
from dialog.stt.stt import STTCapabilities

__all__ = ["common_capabilities", "joined", "seam"]

_LEAD_MS = 300.0
"""The times of first words are late: so much before them belongs to the utterance."""


def seam(unfinished: Utterance | None, heard_ms: float, audio_ms: float) -> tuple[Utterance | None, float]:
    """What of an utterance that has not ended stays as it is, and from where on the audio is heard again.

    Args:
        unfinished: All that was heard of it.
        heard_ms: Up to here, on the call's audio clock, everything was told for good.
        audio_ms: Where the audio that is still there begins.
    """
    if unfinished is None:
        return None, heard_ms
    if unfinished.at_ms >= audio_ms:
        return None, max(heard_ms, unfinished.at_ms - _LEAD_MS)
    words = unfinished.words
    if not words:
        return unfinished, max(heard_ms, unfinished.end_ms)
    words = tuple(word for word in words if (word.start_ms + word.end_ms) / 2 < audio_ms)
    if not words:
        return None, max(heard_ms, audio_ms)
    text = " ".join(word.text for word in words)
    return replace(unfinished, data=text, words=words, end_ms=words[-1].end_ms), max(heard_ms, words[-1].end_ms)


def joined(kept: Utterance, rest: Utterance) -> Utterance:
    """One utterance of what was kept and what another recogniser has heard after it."""
    return replace(
        rest,
        uuid=kept.uuid,
        data=f"{kept.data} {rest.data}" if rest.data else kept.data,
        at_ms=kept.at_ms,
        words=kept.words + rest.words if kept.words and rest.words else (),
        speaker=rest.speaker if rest.speaker == kept.speaker else None,
    )


def common_capabilities(members: list[STTCapabilities]) -> STTCapabilities:
    """What all of them can do. Who plans a call with it need not plan again when another one takes over."""
    intervals = [one.interim_interval_ms for one in members]
    told = [interval for interval in intervals if interval is not None]
    return STTCapabilities(
        speech_events=all(one.speech_events for one in members),
        speech_stops=all(one.speech_stops for one in members),
        interim_interval_ms=max(told) if len(told) == len(intervals) else None,
        words=all(one.words for one in members),
        eager=all(one.eager for one in members),
        endpointing=all(one.endpointing for one in members),
        manual_turns=all(one.manual_turns for one in members),
    )

"""What can be tuned about turn taking."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeAlias

from msgspec import Struct, field

from dialog.checks import check_choice, check_kind, check_several
from dialog.errors import ConfigurationError
from dialog.message import Utterance

__all__ = ["BACKCHANNELS", "BargeIn", "Endpointing", "Silence", "TurnModel", "TurnSettings"]

BACKCHANNELS: tuple[str, ...] = (
    "uh-huh",
    "mm-hmm",
    "mhm",
    "mm",
    "hmm",
    "aha",
    "ah",
    "oh",
    "okay",
    "ok",
    "right",
    "alright",
    "all right",
    "yeah",
    "yep",
    "yup",
    "sure",
    "I see",
    "got it",
    "gotcha",
    "great",
    "good",
    "nice",
    "cool",
)
"""What English speakers say to show that they listen, for :attr:`BargeIn.backchannels`.

"Yes" and "no" are not among them: over a question that is not finished yet they are its answer.
"""

TurnModel: TypeAlias = Callable[[Utterance], float | None]
"""Judges by the text so far whether the caller has finished: the probability from 0 to 1, or ``None`` to
leave it to the built-in judgement. It is called on the event loop, once per new text: answer at once."""


class BargeIn(Struct, frozen=True, kw_only=True):
    """What the caller's speech does to a reply.

    Raises:
        ConfigurationError: A value is out of its range.
    """

    mode: Literal["immediate", "after_sentence", "disabled"] = "immediate"
    """``immediate``: the line falls silent when speech starts, words cut the reply. ``after_sentence``: words
    cut it at the end of the sentence that is being heard. ``disabled``: it is heard out. What the caller
    said is answered in any case."""
    min_words: int = 1
    """So many words cut a reply before the utterance has ended; at its end any number does."""
    min_speech_ms: float = 0.0
    """A voice shorter than this pauses nothing."""
    backchannels: tuple[str, ...] = ()
    """Words that neither interrupt a reply nor are answered when nothing else is said over it, such as
    :data:`BACKCHANNELS`. When nobody else speaks, or the reply ends with them, they are an answer."""

    def __post_init__(self) -> None:
        check_choice("mode", self.mode, ("immediate", "after_sentence", "disabled"))
        if self.min_words < 1:
            raise ConfigurationError(f"min_words must be at least 1, got {self.min_words}")
        _not_negative(self, "min_speech_ms")
        check_several("backchannels", self.backchannels)
        if not all(phrase.strip() for phrase in self.backchannels):
            raise ConfigurationError(f"backchannels must be a tuple of phrases, got {self.backchannels!r}")


class Endpointing(Struct, frozen=True, kw_only=True):
    """How it is decided that the caller has finished.

    Raises:
        ConfigurationError: A value is out of its range.
    """

    mode: Literal["auto", "provider", "local"] = "auto"
    """``provider``: the STT ends utterances. ``local``: silence does, as the VAD hears it; the STT is then
    asked for the words. ``auto``: the STT if it hears speech itself, else a VAD if there is one."""
    wait_s: float = 0.5
    """Local: so much silence ends a sentence that sounds finished."""
    unfinished_s: float = 1.5
    """So much silence ends one that does not ("my number is", "and", half a telephone number). An utterance
    that the STT ended is kept for the difference to ``wait_s``, and joined with what comes."""
    max_s: float = 2.5
    """After so much silence the utterance has ended, whatever was said and whatever the STT thinks."""
    speculate_after_s: float | None = None
    """Start the reply before the utterance has ended, when the voice has stopped and the words have not
    changed for so long; it is spoken only if they were all. ``None``: only when the STT suggests it."""
    turn_model: TurnModel | None = None
    """Judges the text instead of the built-in English rules."""

    def __post_init__(self) -> None:
        check_choice("mode", self.mode, ("auto", "provider", "local"))
        _not_negative(self, "wait_s")
        if not self.wait_s <= self.unfinished_s <= self.max_s:
            raise ConfigurationError(
                "endpointing needs wait_s <= unfinished_s <= max_s, "
                f"got {self.wait_s}, {self.unfinished_s} and {self.max_s}"
            )
        if self.speculate_after_s is not None:
            _not_negative(self, "speculate_after_s")


class Silence(Struct, frozen=True, kw_only=True):
    """What happens when nobody says anything, and how long a call may last.

    Raises:
        ConfigurationError: A value is out of its range.
    """

    idle_s: float | None = None
    """The caller is prompted after so much silence of both sides; ``None``: never."""
    idle_count: int = 2
    """So many prompts without an answer; after one more silence the call is ended."""
    max_duration_s: float | None = 1800.0
    """A call is ended after this, counted from its first stream; ``None``: never."""
    warn_before_s: float | None = 60.0
    """The end is announced so long before; ``None``: it is not."""

    def __post_init__(self) -> None:
        for name in ("idle_s", "max_duration_s"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ConfigurationError(f"{name} must be positive, or None for never, got {value}")
        if self.idle_count < 0:
            raise ConfigurationError(f"idle_count must not be negative, got {self.idle_count}")
        if self.warn_before_s is not None:
            _not_negative(self, "warn_before_s")


class TurnSettings(Struct, frozen=True, kw_only=True):
    """Who speaks when: what the caller's voice does to a reply, when an utterance has ended, what silence means.

    Raises:
        ConfigurationError: A value is out of its range.
    """

    barge_in: BargeIn = field(default_factory=BargeIn)
    """What the caller's speech does to a reply …"""
    greeting: BargeIn | None = None
    """… to the greeting …"""
    thinking: BargeIn | None = None
    """… and to one of which nothing was heard yet; ``None``: the same."""
    endpointing: Endpointing = field(default_factory=Endpointing)
    """When the caller has finished."""
    silence: Silence = field(default_factory=Silence)
    """What happens when nobody says anything, and how long a call may last."""
    false_interruption_s: float = 0.6
    """Without words, a paused reply goes on so long after the caller's voice stopped …"""
    hold_limit_s: float = 2.0
    """… and at the latest so long after it was paused."""
    stale_edge_s: float = 1.0
    """Speech that started longer ago than this on the audio clock (a replay) pauses nothing."""
    transcript_timeout_s: float = 5.0
    """A voice that stopped, or words that were never finished, force a final after this."""
    settle_s: float = 0.1
    """How long the next reply waits to learn what was heard of the one that was cut."""

    def __post_init__(self) -> None:
        check_kind("barge_in", self.barge_in, BargeIn)
        for name in ("greeting", "thinking"):
            if getattr(self, name) is not None:
                check_kind(name, getattr(self, name), BargeIn)
        check_kind("endpointing", self.endpointing, Endpointing)
        check_kind("silence", self.silence, Silence)
        _not_negative(self, "false_interruption_s", "hold_limit_s", "stale_edge_s", "transcript_timeout_s", "settle_s")


def _not_negative(settings: Struct, *names: str) -> None:
    for name in names:
        value = getattr(settings, name)
        if not value >= 0:
            raise ConfigurationError(f"{name} must not be negative, got {value}")

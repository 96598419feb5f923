"""What a provider's work amounts to, in the same units for all of them."""

from __future__ import annotations

from uuid import UUID

from msgspec import Struct

__all__ = ["ReplyUsage", "Usage"]


class Usage(Struct, frozen=True, kw_only=True, gc=False):
    """What one request, or one reply, used; what a provider does not tell is 0.

    Totals hold their parts: ``input_tokens`` are all tokens that went in, the audio and the cached ones
    among them, and ``cached_audio_tokens`` are counted in ``cached_tokens`` and in ``input_audio_tokens``.
    """

    model: str
    """What the provider calls it, or the provider where it has but one; prices go by it."""
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    input_audio_tokens: int = 0
    cached_audio_tokens: int = 0
    output_audio_tokens: int = 0
    input_audio_s: float = 0.0
    """Seconds of audio that were heard."""
    output_audio_s: float = 0.0
    """Seconds of audio that were made."""
    session_s: float = 0.0
    """Seconds that the session lasted since the last report, where the provider bills those."""
    characters: int = 0
    """Characters that were spoken, where the provider bills those."""

    def plus(self, other: Usage) -> Usage:
        """Both together, of this model."""
        return Usage(
            model=self.model,
            input_tokens=self.input_tokens + other.input_tokens,
            cached_tokens=self.cached_tokens + other.cached_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            input_audio_tokens=self.input_audio_tokens + other.input_audio_tokens,
            cached_audio_tokens=self.cached_audio_tokens + other.cached_audio_tokens,
            output_audio_tokens=self.output_audio_tokens + other.output_audio_tokens,
            input_audio_s=self.input_audio_s + other.input_audio_s,
            output_audio_s=self.output_audio_s + other.output_audio_s,
            session_s=self.session_s + other.session_s,
            characters=self.characters + other.characters,
        )

    @property
    def input_text_tokens(self) -> int:
        """Tokens that went in and are no audio."""
        return self.input_tokens - self.input_audio_tokens

    @property
    def cached_text_tokens(self) -> int:
        """Of them, those that the provider had from before."""
        return self.cached_tokens - self.cached_audio_tokens

    @property
    def output_text_tokens(self) -> int:
        """Tokens that came out and are no audio."""
        return self.output_tokens - self.output_audio_tokens


class ReplyUsage(Struct, frozen=True, kw_only=True):
    """What was used; ``uuid``: by which reply, ``None``: by none in particular."""

    usage: Usage
    uuid: UUID | None = None

"""What usage costs: a table of list prices that anybody can overlay, and the sum.

::

    cost_usd(usage, {**PRICES, "my-model": Price(input=1.0, output=3.0)})

Sources: what OpenAI, xAI, Anthropic, Deepgram, ElevenLabs and Azure ask of those who pay as they go, as of
November 2026. Cartesia sells credits, one a character and three a second that is heard: they are counted as in its
Startup plan, 49 dollars for 1.25 million. Prices change, and plans differ: the providers' bills are right.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType

from msgspec import Struct

from dialog.usage import Usage

__all__ = ["PRICES", "Price", "cost_usd"]


class Price(Struct, frozen=True, kw_only=True):
    """What a model costs, in US dollars. What a provider does not bill is 0."""

    input: float = 0.0
    """A million tokens of text that go in …"""
    cached: float | None = None
    """… of them, those that it had from before; ``None``: no less …"""
    output: float = 0.0
    """… and that come out."""
    audio_input: float = 0.0
    """The same of audio."""
    cached_audio: float | None = None
    audio_output: float = 0.0
    heard_minute: float = 0.0
    """A minute of audio that goes in."""
    spoken_minute: float = 0.0
    """A minute of audio that comes out."""
    session_minute: float = 0.0
    """A minute that the provider bills as such."""
    characters: float = 0.0
    """A million characters that are spoken."""


def _realtime(output: float) -> Price:
    return Price(input=4.0, cached=0.4, output=output, audio_input=32.0, cached_audio=0.4, audio_output=64.0)


_REALTIME_MINI = Price(input=0.6, cached=0.06, output=2.4, audio_input=10.0, cached_audio=0.3, audio_output=20.0)
_GROK = Price(session_minute=0.05)
_CREDIT = 49.0 / 1.25e6
"""One of Cartesia's, in US dollars."""
_ELEVEN_QUICK = Price(characters=50.0)
_VERSION = re.compile(r"-(latest|\d{8}|\d{4}-\d{2}-\d{2})$")

PRICES: Mapping[str, Price] = MappingProxyType(
    {
        "gpt-realtime": _realtime(16.0),
        "gpt-realtime-1.5": _realtime(16.0),
        "gpt-realtime-2": _realtime(24.0),
        "gpt-realtime-2.1": _realtime(24.0),
        "gpt-realtime-mini": _REALTIME_MINI,
        "gpt-realtime-2.1-mini": _REALTIME_MINI,
        "gpt-transcribe": Price(heard_minute=0.0045),
        "gpt-live-transcribe": Price(heard_minute=0.017),
        "gpt-realtime-whisper": Price(heard_minute=0.017),
        "gpt-4.1": Price(input=2.0, cached=0.5, output=8.0),
        "gpt-4.1-mini": Price(input=0.4, cached=0.1, output=1.6),
        "grok-voice": _GROK,
        "grok-voice-think-fast-2.0": _GROK,
        "claude-haiku-4-5": Price(input=1.0, cached=0.1, output=5.0),
        "gpt-4o-mini-tts": Price(spoken_minute=0.015),
        "nova-3": Price(heard_minute=0.0048),
        "flux-general-en": Price(heard_minute=0.0065),
        "flux-general-multi": Price(heard_minute=0.0078),
        "aura-2": Price(characters=30.0),
        "ink-2": Price(heard_minute=180 * _CREDIT),
        "sonic-3.5": Price(characters=1e6 * _CREDIT),
        "sonic-3": Price(characters=1e6 * _CREDIT),
        "scribe_v2_realtime": Price(heard_minute=0.39 / 60),
        "eleven_flash_v2_5": _ELEVEN_QUICK,
        "eleven_turbo_v2_5": _ELEVEN_QUICK,
        "eleven_multilingual_v2": Price(characters=100.0),
        "azure": Price(heard_minute=1.0 / 60, characters=15.0),
        "rules": Price(),
    }
)
"""By what providers call their models; a version behind the name (``gpt-4.1-mini-2025-04-14``) counts as the same."""


def cost_usd(usage: Usage, prices: Mapping[str, Price] = PRICES) -> float | None:
    """What it costs, in US dollars; ``None`` if the model has no price."""
    price = prices.get(usage.model) or prices.get(_VERSION.sub("", usage.model))
    if price is None:
        return None
    cached = price.input if price.cached is None else price.cached
    cached_audio = price.audio_input if price.cached_audio is None else price.cached_audio
    millions = (
        (usage.input_text_tokens - usage.cached_text_tokens) * price.input
        + usage.cached_text_tokens * cached
        + usage.output_text_tokens * price.output
        + (usage.input_audio_tokens - usage.cached_audio_tokens) * price.audio_input
        + usage.cached_audio_tokens * cached_audio
        + usage.output_audio_tokens * price.audio_output
        + usage.characters * price.characters
    )
    seconds = (
        usage.input_audio_s * price.heard_minute
        + usage.output_audio_s * price.spoken_minute
        + usage.session_s * price.session_minute
    )
    return millions / 1e6 + seconds / 60.0

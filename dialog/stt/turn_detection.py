"""How OpenAI finds the end of an utterance: the settings of its two detectors, as they go over the wire."""

from __future__ import annotations

from typing import Literal, TypeAlias, get_args

from msgspec import Struct

from dialog.errors import ConfigurationError

__all__ = ["Eagerness", "SemanticVAD", "ServerVAD", "TurnDetection"]

Eagerness: TypeAlias = Literal["low", "medium", "high", "auto"]


class ServerVAD(Struct, frozen=True, kw_only=True, tag_field="type", tag="server_vad"):
    """Ends an utterance by silence. The defaults are the service's own.

    Raises:
        ConfigurationError: A value is out of its range.
    """

    threshold: float = 0.5
    """How loud speech must be, 0.0 to 1.0; more for noisy lines."""
    prefix_padding_ms: int = 300
    """Audio before the start of speech that is recognised with it."""
    silence_duration_ms: int = 500
    """Silence that ends the utterance."""

    def __post_init__(self) -> None:
        if not 0.0 <= self.threshold <= 1.0:
            raise ConfigurationError(f"ServerVAD: threshold must be 0.0 to 1.0, got {self.threshold}")
        for name, value in (
            ("prefix_padding_ms", self.prefix_padding_ms),
            ("silence_duration_ms", self.silence_duration_ms),
        ):
            if not 0 <= value <= 10_000:
                raise ConfigurationError(f"ServerVAD: {name} must be 0 to 10000 ms, got {value}")


class SemanticVAD(Struct, frozen=True, kw_only=True, tag_field="type", tag="semantic_vad"):
    """Ends an utterance when a model thinks that the sentence is complete.

    Raises:
        ConfigurationError: There is no such eagerness.
    """

    eagerness: Eagerness = "auto"
    """How soon: it waits for at most 8 s (``low``), 4 s (``medium``, ``auto``) or 2 s (``high``)."""

    def __post_init__(self) -> None:
        if self.eagerness not in get_args(Eagerness):
            choices = ", ".join(get_args(Eagerness))
            raise ConfigurationError(f"SemanticVAD: eagerness must be one of {choices}, got {self.eagerness!r}")


TurnDetection: TypeAlias = ServerVAD | SemanticVAD

"""What can be tuned about an agent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import get_args

from msgspec import Struct, field

from dialog.agent.shaping import FilterFactory
from dialog.agent.turns.settings import TurnSettings
from dialog.agent.vadmode import VADMode
from dialog.audio.sound import Sound
from dialog.calls.prices import PRICES, Price
from dialog.checks import check_choice, check_kind, check_several
from dialog.errors import ConfigurationError

__all__ = ["AgentSettings"]


class AgentSettings(Struct, frozen=True, kw_only=True):
    """How an agent behaves on a call; the defaults suit a phone call.

    Raises:
        ConfigurationError: A value is out of its range.
    """

    turns: TurnSettings = field(default_factory=TurnSettings)
    vad: VADMode = "auto"
    """Who hears the caller start and stop. ``auto``: the STT where it tells, else a local VAD. ``local``: a
    local VAD, also for the end of a turn where the STT can leave that to us. ``provider``: the STT."""
    vad_strict: bool = False
    """Refuse the call where ``vad`` cannot be had with this STT, instead of doing with less and a warning."""
    greeting_interruptible: bool = True
    model_opens: bool = False
    """Where the agent has no greeting, its model says the first words; else the caller does."""
    apology: str = "I'm sorry, something went wrong. Could you say that again?"
    """Said when a reply failed before anything of it was said."""
    failure: str = "I'm sorry, we have a technical problem. Please call again later. Goodbye."
    """Said, and heard out, before the call ends because the caller can no longer be understood."""
    outage: str = "Sorry, I lost you for a moment."
    """Said by the line when the process that had the call is gone, before another goes on with it. Where there
    is none in time it says ``failure``."""
    failure_transfer: str = ""
    """Who takes the call then, a telephone number; empty: it is ended."""
    transfer_failed: str = "I'm sorry, nobody can take your call at the moment. Can I help you otherwise?"
    """Said when the caller comes back from a transfer that nobody took; empty: nothing."""
    briefing: str = "Hello, this is the assistant, with a call for you. {summary} To take it, press 1."
    """What is said to somebody before a warm transfer; ``{summary}`` is what the agent knows."""
    idle_prompts: tuple[str, ...] = ("Are you still there?",)
    """Asked in turn, the last one again, when nobody has spoken for ``turns.silence.idle_s``."""
    idle_goodbye: str = "I can't hear you any more, so I will hang up. Goodbye."
    """Said before the call ends because nobody answered."""
    duration_warning: str = "We have to come to an end in a minute."
    """Said before the call reaches ``turns.silence.max_duration_s``."""
    duration_goodbye: str = "I'm sorry, our time is up. Goodbye."
    """Said before the call ends because it has."""
    reply_timeout_s: float = 20.0
    """A reply that produces neither text nor a tool call for so long has failed."""
    tool_patience_s: float = 3.0
    """How long the next reply waits for a tool of the one before that is still running, and how long one
    that runs when the call ends may go on."""
    filler: tuple[str, ...] = ()
    """Said in turn, never the same twice running, when the model's first token is slow, and when a tool
    goes on after its own filler. Empty: nothing is said."""
    first_token_filler_s: float = 1.5
    """How slow is slow: without a word of the reply for so long, a filler is said."""
    filler_after_s: float = 0.8
    """A tool that runs longer than this has its filler said."""
    digits_between_s: float = 2.0
    """Keys that nobody collects are given to the model once no other was pressed for so long."""
    filters: tuple[FilterFactory, ...] | None = None
    """What a reply passes on its way to the voice, in this order; ``None``: Markdown is read as text, emoji
    and control characters are dropped, and a voice that cannot read numbers gets them as words."""
    background_sound: Sound | None = None
    """Goes round under everything, for the whole call."""
    thinking_sound: Sound | None = None
    """Goes round while an answer is prepared and nothing is said …"""
    thinking_after_s: float = 1.0
    """… for so long."""
    max_steps: int = 8
    """Requests to the model in one turn, tools included."""
    text_ahead_ms: float = 10_000.0
    """The voice gets no new sentence while so much audio waits to be heard."""
    last_words_s: float = 0.5
    """How long the transcript of the caller's last words is waited for after the call has ended."""
    prices: Mapping[str, Price] = field(default_factory=dict[str, Price])
    """What models cost, over :data:`dialog.calls.prices.PRICES`; by what their providers call them."""
    record: bool = False
    """Let the carrier record the call, from its first stream on."""
    transcribe: bool = False
    """Let the carrier transcribe the call, from its first stream on."""
    wrap_up_s: float = 300.0
    """How long recording and transcription are waited for after the call has ended."""

    @property
    def all_prices(self) -> Mapping[str, Price]:
        """What models cost, with :attr:`prices` over the list prices."""
        return {**PRICES, **self.prices} if self.prices else PRICES

    def __post_init__(self) -> None:
        for name in (
            "reply_timeout_s",
            "tool_patience_s",
            "first_token_filler_s",
            "filler_after_s",
            "digits_between_s",
            "thinking_after_s",
            "text_ahead_ms",
            "last_words_s",
            "wrap_up_s",
        ):
            if getattr(self, name) <= 0:
                raise ConfigurationError(f"{name} must be positive, got {getattr(self, name)}")
        check_kind("turns", self.turns, TurnSettings)
        check_choice("vad", self.vad, get_args(VADMode))
        check_several("idle_prompts", self.idle_prompts)
        check_several("filler", self.filler)
        if not all(text.strip() for text in self.filler):
            raise ConfigurationError(f"filler must be a tuple of texts that can be said, got {self.filler!r}")
        if self.max_steps < 1:
            raise ConfigurationError(f"max_steps must be at least 1, got {self.max_steps}")

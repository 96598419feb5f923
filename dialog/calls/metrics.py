"""The numbers of one call.

Nothing here is guessed: what was not measured is ``None``, and every end of speech names its source.
"""

from __future__ import annotations

from uuid import UUID

from msgspec import Struct

from dialog.usage import Usage

__all__ = ["LATENCY_STAGES", "DeadAir", "Latency", "SessionMetrics", "SpeechSources"]

LATENCY_STAGES: tuple[tuple[str, str, str], ...] = (
    ("recognition", "end_of_speech", "final"),
    ("decision", "final", "inference"),
    ("first_token", "inference", "first_token"),
    ("shaping", "first_token", "first_text"),
    ("synthesis", "first_text", "first_audio"),
    ("sending", "first_audio", "first_frame"),
    ("answer", "end_of_speech", "first_frame"),
)
"""Name of each latency, and the stages of a :class:`~dialog.calls.timeline.TurnTimeline` it lies between.

``answer`` is the whole: what the caller feels."""


class Latency(Struct, frozen=True, kw_only=True, gc=False):
    """How long a stage took over the turns of a call, in milliseconds."""

    stage: str
    """Of :data:`LATENCY_STAGES`."""
    turns: int
    """So many turns had both ends of the stage measured; only they count."""
    p50_ms: float | None = None
    p95_ms: float | None = None
    max_ms: float | None = None


class DeadAir(Struct, frozen=True, kw_only=True, gc=False):
    """A silence between the end of the caller's speech and the next sound of the agent."""

    begin_s: float
    """Since the call's start."""
    seconds: float
    turn: UUID | None = None
    """Whose sound ended it; ``None`` when the call, or the caller's next words, did."""


class SpeechSources(Struct, frozen=True, kw_only=True, gc=False):
    """How many turns' end of speech came from where; they must not be compared across sources."""

    stt_words: int = 0
    vad: int = 0
    provider_event: int = 0
    unknown: int = 0
    """Turns of the caller whose end of speech nobody measured."""


class SessionMetrics(Struct, frozen=True, kw_only=True):
    """The numbers of a whole call; times in seconds since its start, latencies in milliseconds."""

    duration_s: float = 0.0
    caller_turns: int = 0
    """Utterances of the caller."""
    agent_turns: int = 0
    """Turns of which the caller heard something."""
    interruptions: int = 0
    """The caller's words cut a reply."""
    false_interruptions: int = 0
    """A sound paused a reply, no words came, it went on."""
    replies_dropped: int = 0
    """Given up before anything of them was heard, and answered anew."""
    speculations_saved: int = 0
    speculations_wasted: int = 0
    speculation_saved_ms: float = 0.0
    """What the saved ones gained, all together."""
    fillers: int = 0
    idle_prompts: int = 0
    unheard: int = 0
    """Times the caller's voice was heard and no words came."""
    tools: int = 0
    tools_failed: int = 0
    """Of them, those that failed or timed out."""
    errors: int = 0
    warnings: int = 0
    resumed: int = 0
    """Times another process went on with the call, for the one that had it was gone."""
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    usage: tuple[Usage, ...] = ()
    """All that was used, by model."""
    cost_usd: float | None = None
    """What that costs by the prices known; ``None``: a model has no price, or nothing was used."""
    latencies: tuple[Latency, ...] = ()
    """One per stage of :data:`LATENCY_STAGES`, in their order."""
    speech_sources: SpeechSources = SpeechSources()
    longest_silence: DeadAir | None = None
    dead_air: tuple[DeadAir, ...] = ()
    """Every silence of more than two seconds, in order."""

    def latency(self, stage: str) -> Latency:
        """The latency of one stage.

        Raises:
            KeyError: There is no such stage.
        """
        for latency in self.latencies:
            if latency.stage == stage:
                return latency
        if any(stage == name for name, _, _ in LATENCY_STAGES):
            return Latency(stage=stage, turns=0)
        raise KeyError(f"no stage {stage!r}: there are {', '.join(name for name, _, _ in LATENCY_STAGES)}")

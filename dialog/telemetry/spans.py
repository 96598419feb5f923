"""What is noted in spans; none of it is anybody's words."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType

from dialog.calls.timeline import TurnTimeline
from dialog.llm.llm import Usage
from dialog.telemetry.otel import Span, Status, StatusCode, attach, detach, set_span_in_context

__all__ = ["Inside", "note_failure", "note_timeline", "note_usage"]


class Inside:
    """A block that runs inside a span, and knows how it ended."""

    __slots__ = ("_end", "_span", "_token")

    def __init__(self, span: Span, end: Callable[[Span], None]) -> None:
        self._span = span
        self._end = end

    def __enter__(self) -> None:
        self._token = attach(set_span_in_context(self._span))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        detach(self._token)
        if error is not None:
            note_failure(self._span, error)
        self._end(self._span)


def note_failure(span: Span, error: BaseException) -> None:
    """Which error, not what it says: that may be somebody's words."""
    if isinstance(error, GeneratorExit | asyncio.CancelledError):
        span.set_attribute("dialog.cancelled", value=True)
        return
    span.set_attribute("error.type", str(getattr(error, "code", "")) or type(error).__qualname__)
    span.set_status(Status(StatusCode.ERROR))


def note_usage(span: Span, usage: Usage) -> None:
    """What a request used, as the conventions for generative AI name it."""
    span.set_attribute("gen_ai.response.model", usage.model)
    span.set_attribute("gen_ai.usage.input_tokens", usage.input_tokens)
    span.set_attribute("gen_ai.usage.output_tokens", usage.output_tokens)
    if usage.cached_tokens:
        span.set_attribute("gen_ai.usage.cache_read.input_tokens", usage.cached_tokens)


def note_timeline(span: Span, timeline: TurnTimeline) -> None:
    """What a turn's caller felt."""
    span.set_attribute("dialog.interrupted", timeline.interrupted)
    latency_ms = timeline.latency_ms()
    if latency_ms is not None:
        span.set_attribute("dialog.latency_ms", round(latency_ms, 1))
        span.set_attribute("dialog.speech_source", timeline.speech_source)
    token_s = timeline.between_s("inference", "first_token")
    if token_s is not None:
        span.set_attribute("dialog.first_token_ms", round(token_s * 1000.0, 1))

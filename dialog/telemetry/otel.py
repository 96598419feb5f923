"""What is used of ``opentelemetry``'s API, or the word for what is missing. The SDK is the program's own to set up."""

from __future__ import annotations

from dialog.errors import MissingExtra

try:
    from opentelemetry.context import Context, attach, detach
    from opentelemetry.trace import (
        Link,
        Span,
        SpanKind,
        Status,
        StatusCode,
        Tracer,
        TracerProvider,
        get_current_span,
        get_tracer,
        set_span_in_context,
    )
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
except ModuleNotFoundError as exc:
    raise MissingExtra("opentelemetry", "otel") from exc

__all__ = [
    "Context",
    "Link",
    "Span",
    "SpanKind",
    "Status",
    "StatusCode",
    "Tracer",
    "TracerProvider",
    "attach",
    "detach",
    "get_current_span",
    "get_tracer",
    "links_to",
    "set_span_in_context",
    "traceparent",
]

_w3c = TraceContextTextMapPropagator()


def traceparent(span: Span) -> str:
    """A span's place in the world as W3C ``traceparent``; empty if it has none."""
    carrier: dict[str, str] = {}
    _w3c.inject(carrier, context=set_span_in_context(span, Context()))
    return carrier.get("traceparent", "")


def links_to(parent: str) -> list[Link]:
    """A link to the span of a ``traceparent``; none to an empty one."""
    context = get_current_span(_w3c.extract({"traceparent": parent}, context=Context())).get_span_context()
    return [Link(context)] if context.is_valid else []

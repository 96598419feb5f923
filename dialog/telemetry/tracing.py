"""Traces of calls for OpenTelemetry."""

from __future__ import annotations

from dialog.telemetry.calltrace import CallTrace
from dialog.telemetry.otel import TracerProvider, get_tracer
from dialog.version import __version__
from dialog.voip.voip import VoIP

__all__ = ["Tracing"]


class Tracing:
    """Makes a trace of each call: the call, its turns, and the stages and requests of each turn.

    ::

        tracing = Tracing()  # spans go where your TracerProvider sends them


        @gateway.on("voip")
        def on_voip(voip):
            tracing.follow(voip)
            FrontDesk(voip=voip, stt=…, tts=…, llm=…).activate()

    Where agents run in workers this belongs there, as all of ``on_voip`` does. Spans have the times at which things
    happened to the caller, and no words of anybody. ``inference`` and tools run inside their spans, so that spans of
    your own, and of instrumented clients, are found beneath them.

    Args:
        tracer_provider: Where spans go; the process's own provider unless given.
    """

    def __init__(self, tracer_provider: TracerProvider | None = None) -> None:
        self._tracer = get_tracer("dialog", __version__, tracer_provider)

    def follow(self, voip: VoIP) -> None:
        """Trace a call from now on; before its agent is activated. A call that is followed already goes on.

        The call's span lies beneath the current one, if there is one. A call that another process had before is
        linked to what was its span there.
        """
        if voip.tracer is None:
            voip.tracer = CallTrace(voip, self._tracer)

"""The numbers of a call, as a part of its page."""

from __future__ import annotations

from html import escape

from dialog.calls.meter import DEAD_AIR_S
from dialog.calls.metrics import Latency, SessionMetrics

__all__ = ["numbers_html", "silence_marks"]

_STAGES = {
    "recognition": "until what the caller said is final",
    "decision": "until the answer is begun",
    "first_token": "until the model's first word",
    "shaping": "until the voice is given text",
    "synthesis": "until the voice's first audio",
    "sending": "until it is on the line",
    "answer": "from the end of speech to the first sound",
}
_SOURCES = (
    ("stt_words", "the words of the STT"),
    ("vad", "a VAD"),
    ("provider_event", "an event of the provider"),
)


def numbers_html(metrics: SessionMetrics) -> str:
    """Latencies by stage, and what was counted."""
    rows = "".join(_latency_row(latency) for latency in metrics.latencies if latency.turns)
    table = (
        '<div class="scroll"><table class="latencies"><thead><tr><th>Stage</th><th class="num">median</th>'
        '<th class="num">95th percentile</th><th class="num">longest</th><th class="num">turns</th></tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
        if rows
        else '<p class="sub">No stage of an answer was measured in this call.</p>'
    )
    counts = "".join(f"<div><dt>{name}</dt><dd>{escape(value)}</dd></div>" for name, value in _counts(metrics))
    return f'{table}<p class="sub source">{_sources(metrics)}</p><dl class="counts">{counts}</dl>'


def silence_marks(metrics: SessionMetrics, length: float) -> str:
    """Dead air, as stretches over the track of a call that is ``length`` seconds long."""
    return "".join(
        f'<div class="dead" style="left:{100 * silence.begin_s / length:.3f}%;'
        f'width:{100 * silence.seconds / length:.3f}%" title="{silence.seconds:.1f} s of dead air"></div>'
        for silence in metrics.dead_air
    )


def _latency_row(latency: Latency) -> str:
    name, what = latency.stage.replace("_", " ").capitalize(), _STAGES.get(latency.stage, "")
    whole = ' class="whole"' if latency.stage == "answer" else ""
    cells = "".join(f'<td class="num">{_ms(ms)}</td>' for ms in (latency.p50_ms, latency.p95_ms, latency.max_ms))
    return (
        f'<tr{whole}><td><b>{escape(name)}</b> <span class="soft">{what}</span></td>{cells}'
        f'<td class="num">{latency.turns}</td></tr>'
    )


def _ms(ms: float | None) -> str:
    if ms is None:
        return "not seen"
    return f"{ms:.0f} ms" if ms >= 9.95 else f"{ms:.1f} ms"


def _counts(metrics: SessionMetrics) -> list[tuple[str, str]]:
    silence = metrics.longest_silence
    counts = [
        ("Turns of the caller", str(metrics.caller_turns)),
        ("Turns of the agent", str(metrics.agent_turns)),
        ("Interruptions", str(metrics.interruptions)),
        ("False interruptions", str(metrics.false_interruptions)),
        ("Replies given up unheard", str(metrics.replies_dropped)),
        ("Longest wait for a sound", f"{silence.seconds:.2f} s" if silence else "not measured"),
        (f"Waits over {DEAD_AIR_S:g} s", str(len(metrics.dead_air)) if silence else "not measured"),
    ]
    speculated = metrics.speculations_saved + metrics.speculations_wasted
    if speculated:
        counts.append(("Early starts used", f"{metrics.speculations_saved} of {speculated}"))
    if metrics.speculations_saved:
        mean = metrics.speculation_saved_ms / metrics.speculations_saved
        counts.append(("Saved by each", f"{mean:.0f} ms"))
    optional = (
        ("Fillers", metrics.fillers),
        ("Idle prompts", metrics.idle_prompts),
        ("Voices without words", metrics.unheard),
        ("Tools that failed", metrics.tools_failed),
        ("Warnings", metrics.warnings),
        ("Taken over from a process that was gone", metrics.resumed),
    )
    counts += [(name, str(count)) for name, count in optional if count]
    if metrics.input_tokens or metrics.output_tokens:
        cached = f" ({metrics.cached_tokens:,} cached)" if metrics.cached_tokens else ""
        counts.append(("Tokens in", f"{metrics.input_tokens:,}{cached}"))
        counts.append(("Tokens out", f"{metrics.output_tokens:,}"))
    if metrics.cost_usd is not None:
        counts.append(("Cost of the models", f"${metrics.cost_usd:.4f}" if metrics.cost_usd else "$0"))
    return counts


def _sources(metrics: SessionMetrics) -> str:
    sources = metrics.speech_sources
    told = [f"{what} ({getattr(sources, name)})" for name, what in _SOURCES if getattr(sources, name)]
    if sources.unknown:
        told.append(f"nobody ({sources.unknown})")
    if not told:
        return "Nobody has waited for an answer."
    return f"The end of the caller's speech was told by {', '.join(told)}."

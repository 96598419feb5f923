"""A call on one page: its sound, its words, its times.

The page is one HTML file that needs nothing else: no script, style, font or sound from anywhere.
"""

from __future__ import annotations

import base64
import io
import wave
from array import array
from collections.abc import Iterable
from functools import cache
from html import escape
from importlib.resources import files
from string import Template
from typing import NamedTuple
from uuid import UUID

import msgspec

from dialog.calls import events as ev
from dialog.calls.page_numbers import numbers_html, silence_marks
from dialog.calls.report import SessionReport
from dialog.calls.stages import STAGES, median_latency_ms, stages_of
from dialog.errors import ConfigurationError

__all__ = ["base_style", "make_page"]

_PIXELS_PER_S = 12
"""A long call is drawn wider than the window, and scrolled."""
_MAX_COLUMNS = 12_000
_MAX_SOUND = 12 * 1024 * 1024
"""A longer recording is drawn, but not put into the page."""
_ENDS = {"caller_hangup": "caller", "agent_hangup": "agent"}


def make_page(report: SessionReport, recording: bytes = b"", *, title: str = "", offset_s: float | None = None) -> str:
    """The HTML page of a call.

    Args:
        report: The call.
        recording: A WAV file, 16 bit, stereo: the caller on the left, the agent on the right.
        title: Heading of the page.
        offset_s: When the recording begins, in seconds since the call's start; by default when media
            began to flow.

    Raises:
        ConfigurationError: ``recording`` is no such WAV file.
    """
    sound = _read(recording) if recording else _Sound((), (), 0, 0.0)
    if offset_s is None:
        offset_s = next((e.at_s for e in report.events if isinstance(e, ev.StreamChanged) and e.state == "live"), 0.0)
    length = max(report.duration_s, offset_s + sound.seconds, 0.1)
    marks = _interruptions(report)
    return _template().substitute(
        base=base_style(),
        title=escape(title or "A call"),
        subtitle=_subtitle(report),
        facts=_facts(report),
        width=min(round(length * _PIXELS_PER_S), 60_000) if length > 90 else 0,
        caller_wave=_wave(sound.caller, sound.rate, offset_s, length),
        agent_wave=_wave(sound.agent, sound.rate, offset_s, length),
        marks=silence_marks(report.metrics, length) + "".join(_mark(at, length) for at in marks),
        mark_keys=_mark_keys(marks, report),
        scale=_scale(length),
        player=_player(recording),
        talk="\n".join(_talk(report, offset_s, playable=bool(recording))),
        waterfall=_waterfall(report),
        numbers=numbers_html(report.metrics),
        event_count=len(report.events),
        events="".join(_event_row(event) for event in report.events),
        footer=f"Call {escape(str(report.call_id))}. Times are minutes and seconds since the agent took the call.",
        length=f"{length:.3f}",
        offset=f"{offset_s:.3f}",
    )


@cache
def base_style() -> str:
    """What the pages have in common, as CSS."""
    return files("dialog.calls").joinpath("base.css").read_text("utf-8")


@cache
def _template() -> Template:
    return Template(files("dialog.calls").joinpath("page.html").read_text("utf-8"))


def _time(at_s: float) -> str:
    return f"{int(at_s // 60)}:{at_s % 60:04.1f}"


def _subtitle(report: SessionReport) -> str:
    parties = " to ".join(part for part in (report.from_, report.to) if part)
    parts = (report.direction, report.carrier, parties, report.started_at[:19].replace("T", " "))
    return " · ".join(escape(part) for part in parts if part)


def _facts(report: SessionReport) -> str:
    median, slow = median_latency_ms(report), report.metrics.latency("answer").p95_ms
    facts = [
        ("Length", _time(report.duration_s)),
        ("Turns", str(sum(bool(turn.caller) for turn in report.turns))),
        ("Median answer", f"{median:.0f} ms" if median is not None else "not measured"),
        ("95 % within", f"{slow:.0f} ms" if slow is not None else "not measured"),
        ("Interruptions", str(report.interruptions)),
        ("Tools used", str(sum(len(turn.tools) for turn in report.turns))),
        ("Errors", str(report.errors)),
        ("Ended by", _ENDS.get(report.end_reason, report.end_reason.replace("_", " ") or "unknown")),
    ]
    return "".join(f"<div><dt>{name}</dt><dd>{escape(value)}</dd></div>" for name, value in facts)


# -- sound ----------------------------------------------------------------------------------------


class _Sound(NamedTuple):
    caller: Iterable[int]
    agent: Iterable[int]
    rate: int
    seconds: float


def _read(recording: bytes) -> _Sound:
    try:
        with wave.open(io.BytesIO(recording)) as reader:
            if (reader.getnchannels(), reader.getsampwidth()) != (2, 2):
                raise ConfigurationError(
                    f"the recording has {reader.getnchannels()} channels of {8 * reader.getsampwidth()} bit; "
                    "need 2 of 16 bit: the caller on the left, the agent on the right"
                )
            rate = reader.getframerate()
            samples = array("h", reader.readframes(reader.getnframes()))
    except (wave.Error, EOFError) as exc:
        raise ConfigurationError(f"the recording is not a WAV file: {exc}") from exc
    return _Sound(samples[0::2], samples[1::2], rate, len(samples) / 2 / rate)


def _wave(samples: Iterable[int], rate: int, offset_s: float, length: float) -> str:
    """An SVG of the lane's sound, stretched over the whole call."""
    if not isinstance(samples, array):
        return ""
    seconds = len(samples) / rate
    columns = max(1, min(_MAX_COLUMNS, round(max(1600.0, length * _PIXELS_PER_S) * seconds / length)))
    step = len(samples) / columns
    peaks = [_peak(samples[int(n * step) : int((n + 1) * step)]) for n in range(columns)]
    # Quiet speech should be seen, too: the loudest sound fills the lane.
    gain = 46.0 / max([*peaks, 2000])
    left, width = 1000 * offset_s / length, 1000 * seconds / length / columns
    heights = [max(peak * gain, 0.5) for peak in peaks]
    upper = [f"{left + n * width:.2f} {50 - height:.1f}" for n, height in enumerate(heights)]
    lower = [f"{left + n * width:.2f} {50 + height:.1f}" for n, height in enumerate(heights)]
    path = "M" + "L".join(upper + lower[::-1]) + "Z"
    return f'<svg viewBox="0 0 1000 100" preserveAspectRatio="none" aria-hidden="true"><path d="{path}"/></svg>'


def _peak(samples: array[int]) -> int:
    return max(abs(max(samples)), abs(min(samples))) if samples else 0


def _interruptions(report: SessionReport) -> list[float]:
    """When the agent fell silent for good: at the pause, which the caller's words then made a cut."""
    paused: dict[UUID, float] = {}
    marks: list[float] = []
    for event in report.events:
        if isinstance(event, ev.PausedForCaller):
            paused[event.turn] = event.at_s
        elif isinstance(event, ev.ResumedAfterPause):
            paused.pop(event.turn, None)
        elif isinstance(event, ev.Interrupted):
            marks.append(paused.get(event.turn, event.at_s))
    return marks


def _mark(at_s: float, length: float) -> str:
    # The label may take a third of a narrow window.
    side = " left" if at_s > 0.5 * length else ""
    return f'<div class="mark{side}" style="left:{100 * at_s / length:.3f}%"><b>interrupted at {_time(at_s)}</b></div>'


def _mark_keys(marks: list[float], report: SessionReport) -> str:
    keys = ""
    if marks:
        keys += '<li><i style="background:var(--cut)"></i>the caller interrupts</li>'
    if report.metrics.dead_air:
        keys += '<li><i class="dead-key"></i>the caller waits for a sound</li>'
    return keys


def _scale(length: float) -> str:
    step = next((step for step in (1, 2, 5, 10, 15, 30, 60) if length / step <= max(12, length / 8)), 60)
    return "".join(
        f'<span style="left:{100 * second / length:.2f}%">{second // 60}:{second % 60:02d}</span>'
        for second in range(0, int(length) + 1, step)
        if second < 0.98 * length
    )


def _player(recording: bytes) -> str:
    if not recording:
        return '<p class="sub">There is no recording of this call.</p>'
    if len(recording) > _MAX_SOUND:
        return '<p class="sub">The recording is too long to be part of this page.</p>'
    data = base64.b64encode(recording).decode()
    return (
        '<audio id="audio" controls preload="metadata" aria-label="Recording: caller left, agent right" '
        f'src="data:audio/wav;base64,{data}"></audio>'
    )


# -- words ----------------------------------------------------------------------------------------


def _talk(report: SessionReport, offset_s: float, *, playable: bool) -> Iterable[str]:
    """The transcript: who said what when, tools, interruptions and errors between."""
    reports = {turn.turn: turn for turn in report.turns}
    several = len({name for turn in report.turns for name in turn.speaker.split(", ") if name}) > 1
    arguments = {event.call_id: event.arguments for event in report.events if isinstance(event, ev.ToolStarted)}
    answered = set[UUID]()
    items: list[tuple[float, str]] = []
    for event in report.events:
        if isinstance(event, ev.CallerSaid) and event.final:
            at = offset_s + event.start_ms / 1000 if event.end_ms else event.at_s
            who = f"Caller {escape(event.speaker)}" if several and event.speaker else "Caller"
            items.append((at, _said(at, "caller", who, escape(event.text), "", playable=playable)))
        elif isinstance(event, ev.AgentSaid):
            turn = reports[event.turn]
            at = event.at_s - event.heard_ms / 1000
            first = event.turn not in answered
            if first and turn.timeline is not None and turn.timeline.first_frame is not None:
                at = turn.timeline.first_frame
            notes = ""
            if first and turn.latency_ms is not None and turn.caller:
                notes += f"<em>after {turn.latency_ms:.0f} ms</em>"
            if event.state == "cut":
                notes += '<em class="cut">interrupted</em>'
            elif event.state == "lost":
                notes += '<em class="cut">the line went away</em>'
            if event.filler:
                notes += "<em>filler</em>"
            answered.add(event.turn)
            items.append((at, _said(at, "agent", "Agent", _heard(event), notes, playable=playable)))
        elif isinstance(event, ev.ToolEnded):
            call = f"{event.name}({arguments.get(event.call_id, '')})"
            text = (
                f"tool <code>{escape(call)}</code> → <code>{escape(event.result)}</code> ({event.took_s * 1000:.1f} ms)"
            )
            items.append((event.at_s, _note(text, bad=event.state != "done")))
        elif isinstance(event, ev.AgentTold):
            items.append((event.at_s, _note(f"the agent was told: {escape(event.text)}")))
        elif isinstance(event, ev.ResumedAfterPause):
            items.append((event.at_s, _note("a sound without words: the agent paused and went on")))
        elif isinstance(event, ev.CallResumed):
            items.append((event.at_s, _note(escape(_resumed(event)), bad=True)))
        elif isinstance(event, ev.IdlePrompted):
            items.append((event.at_s, _note("nobody had spoken for a while")))
        elif isinstance(event, ev.CallerUnheard):
            text = f"the caller's voice was heard, and no words came within {event.waited_s:.1f} s"
            items.append((event.at_s, _note(text, bad=True)))
        elif isinstance(event, ev.Warned):
            items.append((event.at_s, _note(escape(event.text), bad=True)))
        elif isinstance(event, ev.DigitPressed):
            items.append((event.at_s, _note("the caller pressed a key")))
        elif isinstance(event, ev.ErrorRaised):
            items.append((event.at_s, _note(f"{escape(event.source)}: {escape(event.text)}", bad=True)))
    items.sort(key=lambda item: item[0])
    return [html for _, html in items]


def _resumed(event: ev.CallResumed) -> str:
    text = f"the process that had the call was gone: {event.agent} went on with it after {event.lost_s:.1f} s"
    return f"{text}; nobody knows what became of {', '.join(event.in_doubt)}" if event.in_doubt else text


def _said(at_s: float, side: str, who: str, text: str, notes: str, *, playable: bool) -> str:
    time = _time(max(at_s, 0.0))
    if playable:
        at = f'<button class="at" data-at="{at_s:.3f}" aria-label="Play from {time}">{time}</button>'
    else:
        at = f'<span class="at">{time}</span>'
    return f'<li class="{side}">{at}<div class="say"><div class="who">{who}{notes}</div>{text}</div></li>'


def _note(text: str, *, bad: bool = False) -> str:
    return f'<li><div class="note{" bad" if bad else ""}">{text}</div></li>'


def _heard(event: ev.AgentSaid) -> str:
    text, heard = event.text.strip(), event.heard.strip()
    if not text.startswith(heard):
        return escape(heard)
    rest = text[len(heard) :]
    if not rest:
        return escape(text)
    return f'{escape(heard)}<span class="unheard" title="not heard">{escape(rest)}</span>'


# -- times ----------------------------------------------------------------------------------------


def _waterfall(report: SessionReport) -> str:
    turns = [turn for turn in report.turns if turn.caller and turn.timeline and turn.latency_ms is not None]
    if not turns:
        return '<p class="sub">No answer was measured in this call.</p>'
    longest = max(turn.latency_ms or 0.0 for turn in turns) or 1.0
    classes = {kind: f"s{number}" for number, (kind, _) in enumerate(STAGES)}
    key = "".join(f'<li><i class="{classes[kind]}"></i>{kind}: {what}</li>' for kind, what in STAGES)
    rows: list[str] = []
    for number, turn in enumerate(turns, 1):
        assert turn.timeline is not None
        assert turn.timeline.end_of_speech is not None
        begin = turn.timeline.end_of_speech
        sums = dict.fromkeys(classes, 0.0)
        bars: list[str] = []
        for stage in stages_of(turn.timeline):
            sums[stage.kind] += stage.ms
            left, width = (stage.begin - begin) * 100_000 / longest, stage.ms * 100 / longest
            label = f"<b>{stage.ms:.0f}</b>" if width > 1.5 + 2.5 * len(f"{stage.ms:.0f}") else ""
            hint = f"{stage.kind} {stage.ms:.1f} ms"
            style = f"left:{left:.2f}%;width:{width:.2f}%"
            bars.append(f'<i class="{classes[stage.kind]}" style="{style}" title="{hint}">{label}</i>')
        cells = "".join(f'<td class="num">{ms:.1f}</td>' for ms in sums.values())
        asked = escape(turn.caller)
        rows.append(
            f'<tr><td class="num">{number}</td><td class="what" title="{asked}">{asked}</td>'
            f'<td><div class="bar" aria-hidden="true">{"".join(bars)}</div></td>{cells}'
            f'<td class="num"><strong>{turn.latency_ms:.0f}</strong></td></tr>'
        )
    heads = "".join(f'<th class="num">{kind}</th>' for kind in classes)
    return (
        f'<p class="sub">From the end of the caller\'s speech to the first sound of the answer, in milliseconds.</p>'
        f'<ul class="key">{key}</ul><div class="scroll"><table class="fall"><thead><tr><th class="num">Turn</th>'
        f'<th class="what">The caller</th><th>Stages</th>{heads}<th class="num">total</th></tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _event_row(event: ev.CallEvent) -> str:
    fields = msgspec.to_builtins(event)
    name = fields.pop("type")
    details = ", ".join(
        f"{key} {value}" for key, value in fields.items() if key not in ("seq", "at_s") and value not in (None, "", 0.0)
    )
    return f"<tr><td>{event.at_s:.3f}</td><td>{escape(name)}</td><td>{escape(details)}</td></tr>"

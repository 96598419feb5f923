"""A conversation in the terminal, line by line as it happens."""

from __future__ import annotations

from uuid import UUID

from rich.console import Console
from rich.text import Text

from dialog.calls import events as ev
from dialog.calls.stages import stages_of
from dialog.calls.timeline import TurnTimeline

__all__ = ["LiveView", "latency_line"]

_STYLES = {"hearing": "bright_black", "dialog": "yellow", "model": "magenta", "voice": "green", "line": "blue"}


class LiveView:
    """Prints the events of one call: give :meth:`show` to ``agent.on(Agent.EVENT, …)``."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._arguments: dict[str, str] = {}
        self._asked: set[UUID] = set()
        self._speakers: set[str] = set()
        self._paused: dict[UUID, float] = {}
        self._cut: ev.Interrupted | None = None

    def show(self, event: ev.CallEvent) -> None:
        """Print what is worth a line."""
        cut = self._cut
        # What was heard of a reply is told right after its interruption, and comes before it on the page.
        if cut is not None and not (isinstance(event, ev.AgentSaid) and event.turn == cut.turn):
            self._cut = None
            at_s = self._paused.get(cut.turn, cut.at_s)
            self._line(at_s, "", "", Text("the caller interrupts: the agent stops", "red"))
        if isinstance(event, ev.CallStarted):
            route = " → ".join(part for part in (event.from_, event.to) if part)
            self._line(event.at_s, "call", "bold", Text(route or event.carrier))
        elif isinstance(event, ev.CallResumed):
            self._line(event.at_s, "call", "bold", Text(f"taken over by {event.agent}", "red"))
        elif isinstance(event, ev.CallerSaid) and event.final:
            self._asked.add(event.turn)
            self._speakers.update(event.speaker.split(", ") if event.speaker else ())
            label = f"[{event.speaker}] " if event.speaker and len(self._speakers) > 1 else ""
            self._line(event.at_s, "caller", "bold cyan", Text(label + event.text))
        elif isinstance(event, ev.AgentSaid):
            silent_since = self._paused.get(event.turn, event.at_s)
            self._line(silent_since - event.heard_ms / 1000, "agent", "bold green", _heard(event))
        elif isinstance(event, ev.PausedForCaller):
            self._paused[event.turn] = event.at_s
        elif isinstance(event, ev.ToolStarted):
            self._arguments[event.call_id] = event.arguments
        elif isinstance(event, ev.ToolEnded):
            style = "dim" if event.state == "done" else "red"
            call = f"{event.name}({self._arguments.pop(event.call_id, '')})"
            self._line(event.at_s, "tool", "dim", Text(f"{call} → {event.result}", style))
        elif isinstance(event, ev.Interrupted):
            self._cut = event
        elif isinstance(event, ev.ResumedAfterPause):
            self._paused.pop(event.turn, None)
            self._line(event.at_s, "", "", Text("no words came: the agent goes on", "dim"))
        elif isinstance(event, ev.TurnMeasured):
            line = latency_line(event.timeline) if event.timeline.turn in self._asked else None
            if line is not None:
                self._console.print(Text(" " * 8).append(line), highlight=False, soft_wrap=True)
        elif isinstance(event, ev.DigitPressed):
            self._line(event.at_s, "key", "dim", Text("pressed", "dim"))
        elif isinstance(event, ev.ErrorRaised):
            self._line(event.at_s, "error", "bold red", Text(f"{event.source}: {event.text}", "red"))
        elif isinstance(event, ev.CallEnded):
            reason = event.reason.replace("_", " ")
            self._line(event.at_s, "end", "bold", Text(f"{reason}{': ' if event.detail else ''}{event.detail}"))

    def _line(self, at_s: float, who: str, style: str, text: Text) -> None:
        line = Text.assemble((f"{_clock(at_s)} ", "bright_black"), (f"{who:<7}", style), text)
        width = max(40, self._console.width)
        rows = line.wrap(self._console, width) if len(line) <= width else _hanging(self._console, line, width)
        for row in rows:
            self._console.print(row, highlight=False)


def latency_line(timeline: TurnTimeline) -> Text | None:
    """What a turn's latency consists of, in milliseconds; ``None`` if it was not measured."""
    total = timeline.latency_ms()
    if total is None:
        return None
    line = Text.assemble(("└ ", "dim"), (f"{total:.0f} ms", "bold"))
    sums: dict[str, float] = {}
    for stage in stages_of(timeline):
        sums[stage.kind] = sums.get(stage.kind, 0.0) + stage.ms
    for number, (kind, ms) in enumerate(sums.items()):
        line.append(": " if number == 0 else " · ", "dim")
        line.append(f"{kind} {ms:.0f}" if ms >= 9.95 else f"{kind} {ms:.1f}", _STYLES[kind])
    return line


def _clock(at_s: float) -> str:
    at_s = max(at_s, 0.0)
    return f"{int(at_s // 60):>2}:{at_s % 60:04.1f}"


def _heard(event: ev.AgentSaid) -> Text:
    text, heard = event.text.strip(), event.heard.strip()
    if not text.startswith(heard):
        return Text(heard)
    rest = text[len(heard) :].strip()
    return Text.assemble(heard, (f" [not heard: {rest}]", "dim")) if rest else Text(text)


def _hanging(console: Console, line: Text, width: int) -> list[Text]:
    """``line`` wrapped, its further rows beneath where its text begins."""
    indent = 15
    first = line.wrap(console, width)[0]
    rest = line[len(first) :]
    rest = rest[len(rest.plain) - len(rest.plain.lstrip()) :]
    return [first, *(Text(" " * indent).append(row) for row in rest.wrap(console, width - indent))]

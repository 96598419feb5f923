"""What a client is told of its call: made of the call's events, which come alike from any process."""

from __future__ import annotations

from uuid import UUID

from dialog.calls import events as ev
from dialog.calls.stages import stages_of
from dialog.message import Playback
from dialog.voip.web.messages import (
    AgentState,
    AgentStateChanged,
    AgentTranscript,
    CallerTranscript,
    ErrorTold,
    Interrupted,
    ServerMessage,
    ToolProgress,
    TurnMeasured,
    UsageTold,
)

__all__ = ["Narrator"]


class Narrator:
    """Turns events and playback into messages, without I/O."""

    def __init__(self) -> None:
        self.state: AgentState = "listening"
        self._voice = False
        """The caller's voice is heard."""
        self._asked = False
        """Something of the caller's waits for its answer."""
        self._tools: set[str] = set()
        self._sounding: set[tuple[UUID, int]] = set()

    def played(self, playback: Playback) -> list[ServerMessage]:
        """A part sounds, is paused, or has ended."""
        key = (playback.uuid, playback.part)
        if playback.state == "playing":
            self._sounding.add(key)
            self._asked = False
        else:
            self._sounding.discard(key)
        return self._changed()

    def happened(self, event: ev.CallEvent) -> list[ServerMessage]:
        """Something has happened in the call."""
        told: list[ServerMessage] = []
        match event:
            case ev.CallerSpoke(state=state):
                self._voice = state == "started"
            case ev.CallerSaid(turn=turn, text=text, final=final):
                if final:
                    self._asked, self._voice = True, False
                told.append(CallerTranscript(turn=turn, text=text, final=final))
            case ev.CallerUnheard() | ev.ReplyDropped():
                self._asked = False
            case ev.AgentSpeaks(turn=turn, part=part, text=text):
                told.append(AgentTranscript(turn=turn, part=part, text=text, state="speaking"))
            case ev.AgentSaid(turn=turn, part=part, text=text, heard=heard, state=end):
                told.append(AgentTranscript(turn=turn, part=part, text=text, heard=heard, state=end))
            case ev.Interrupted(turn=turn, reason=reason):
                told.append(Interrupted(turn=turn, reason=reason))
            case ev.ToolStarted(call_id=call_id, name=name):
                self._tools.add(call_id)
                told.append(ToolProgress(id=call_id, name=name, state="started"))
            case ev.ToolEnded(call_id=call_id, name=name, state=end):
                self._tools.discard(call_id)
                told.append(ToolProgress(id=call_id, name=name, state=end))
            case ev.TurnMeasured(timeline=timeline):
                self._asked = False
                stages: dict[str, float] = {}
                for stage in stages_of(timeline):
                    stages[stage.kind] = round(stages.get(stage.kind, 0.0) + stage.ms, 1)
                latency = timeline.latency_ms()
                rounded = None if latency is None else round(latency, 1)
                told.append(TurnMeasured(turn=timeline.turn, latency_ms=rounded, stages=stages))
            case ev.UsageReported(turn=turn, usage=usage):
                told.append(UsageTold(turn=turn, usage=usage))
            case ev.Warned(code="client_tool_taken", text=text):
                told.append(ErrorTold(code="tool_name_taken", message=text))
            case ev.ErrorRaised(code=code, fatal=fatal):
                # The text may name a provider, an address, an account: it is for the log.
                what = "Something went wrong, and the call cannot go on." if fatal else "Something went wrong."
                told.append(ErrorTold(code=code, message=what))
            case _:
                return told
        return [*self._changed(), *told]

    def _changed(self) -> list[ServerMessage]:
        if self._sounding:
            state: AgentState = "speaking"
        elif self._tools:
            state = "working"
        elif self._voice:
            state = "hearing"
        else:
            state = "thinking" if self._asked else "listening"
        if state == self.state:
            return []
        self.state = state
        return [AgentStateChanged(state)]

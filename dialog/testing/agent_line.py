"""Two agents on one line in memory: one answers the call, the other has placed it.

::

    talk = await join_agents(front_desk, customer)
    print(talk.transcript)

Each is made by the function that a gateway calls, and has a call, a VoIP, ears and a voice of its own. By voice, what
sounds at one end is what the other one hears, 20 ms after 20 ms on the given clock; by text, each gets what the other
one has said when it has finished.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Literal
from uuid import UUID, uuid4

from dialog.agent.agent import Agent
from dialog.agent.textcall import TextCall
from dialog.calls import events as ev
from dialog.clock import SYSTEM_CLOCK, Clock
from dialog.message import CallMetadata, Message, SentSMS
from dialog.scope import CallScope
from dialog.testing.heard import stereo_wav
from dialog.testing.talk import AgentTalk, Side, TalkLimits, TalkLine, TalkRecorder, turn_times
from dialog.voip.call import Call
from dialog.voip.link import Command, CommandResult, SendDigits, SendSMS, TransferTo
from dialog.voip.memory import MemoryCarrier, MemoryLine, connect, memory_call
from dialog.voip.text import TextLink, TextVoIP
from dialog.voip.voip import VoIP

__all__ = ["join_agents"]

_CLOSED_S = 30.0
_UNANSWERED_S = 4.0
"""Words that have led to nothing for so long were not meant to."""
_LOOK_S = 0.05
_PATIENCE_S = 2.0
"""When both have had nothing to say by text for so long, the caller is asked to."""
_MOST_PROMPTS = 2
_LIMITS = TalkLimits()


async def join_agents(
    answers: Callable[[Any], Any],
    calls: Callable[[Any], Any],
    *,
    medium: Literal["voice", "text"] = "voice",
    clock: Clock = SYSTEM_CLOCK,
    limits: TalkLimits = _LIMITS,
    on_line: Callable[[TalkLine], object] | None = None,
) -> AgentTalk:
    """Let two agents talk until either hangs up, or a limit is reached.

    Args:
        answers: Given a VoIP, activates the agent that answers the call.
        calls: Likewise the one that has placed it.
        medium: ``text``: nothing sounds, and time passes only while models think; the agents get a ``TextVoIP``.
        clock: The time of the call; both agents' providers have to keep up with a faster one.
        limits: When the call is ended for them.
        on_line: Told each line of the transcript when it is complete.

    Raises:
        UserCodeError: One of the functions raised, in a call by voice.
        ConfigurationError: One of them made no agent, in a call by text.
    """
    recorder = TalkRecorder(clock, on_line)
    talk = _by_text if medium == "text" else _by_voice
    return await talk(answers, calls, clock, limits, recorder)


def finished(recorder: TalkRecorder, exceeded: str, *, caller: bytes = b"", agent: bytes = b"") -> AgentTalk:
    """What was recorded, once the call is over; ``caller`` and ``agent`` are both sides in mu-law."""
    ended_by, reason = recorder.ended_by(exceeded)
    latencies, dead_air_s = turn_times(caller, agent)
    return AgentTalk(
        lines=tuple(recorder.lines),
        ended_by=ended_by,
        reason=reason,
        duration_s=round(recorder.ended_s, 3),
        agent_events=tuple(recorder.events["agent"]),
        caller_events=tuple(recorder.events["caller"]),
        latencies_ms=latencies,
        dead_air_s=dead_air_s,
        wav=stereo_wav(caller, agent) if caller or agent else b"",
    )


class PressingCarrier(MemoryCarrier):
    """A carrier whose keys are heard at the other end, without a break of the stream."""

    def __init__(self, press: Callable[[str], object]) -> None:
        super().__init__()
        self._press = press

    async def execute(self, call: Call, command: Command) -> CommandResult:
        """Press the keys; everything else is as with any carrier in memory."""
        if isinstance(command, SendDigits):
            self.commands.append(command)
            self._press("".join(key for key in command.digits if key not in "wW"))
            return None
        return await super().execute(call, command)


async def _by_voice(
    answers: Callable[[VoIP], Any],
    calls: Callable[[VoIP], Any],
    clock: Clock,
    limits: TalkLimits,
    recorder: TalkRecorder,
) -> AgentTalk:
    lines: dict[Side, MemoryLine] = {"agent": MemoryLine(clock=clock), "caller": MemoryLine(clock=clock)}
    heard: dict[Side, bytearray] = {"agent": bytearray(), "caller": bytearray()}
    made: list[Call] = []
    try:
        for side, make in (("agent", answers), ("caller", calls)):
            here: Side = "agent" if side == "agent" else "caller"
            there: Side = "caller" if here == "agent" else "agent"
            lines[here].on_audio = heard[here].extend
            call, _ = memory_call(
                watched(make, recorder, here),
                clock=clock,
                line=lines[here],
                carrier=PressingCarrier(lines[there].press),
                from_="caller",
                to="agent",
            )
            made.append(call)
        connect(lines["agent"], lines["caller"])
        exceeded = await recorder.wait_over(limits)
    finally:
        for line in lines.values():
            line.hang_up()
        with suppress(TimeoutError):  # what is left is disposed of by force, and told in the log
            async with asyncio.timeout(_CLOSED_S):
                await asyncio.gather(*(call.wait_closed() for call in made))
        for line in lines.values():
            await line.wait_closed()
    return finished(recorder, exceeded, caller=bytes(heard["caller"]), agent=bytes(heard["agent"]))


def watched(make: Callable[[VoIP], Any], recorder: TalkRecorder, side: Side) -> Callable[[VoIP], Any]:
    """``make``, whose call is recorded."""

    def on_voip(voip: VoIP) -> Any:
        recorder.watch(voip, side)
        return make(voip)

    return on_voip


class TalkLink(TextLink):
    """The line of a talk by text: keys reach the other end, and a transfer leads away from it."""

    def __init__(self, press: Callable[[str], object]) -> None:
        super().__init__()
        self._press = press

    async def command(self, command: Command) -> CommandResult:
        """Carry it out."""
        if isinstance(command, SendDigits):
            self._press("".join(key for key in command.digits if key not in "wW"))
        elif isinstance(command, SendSMS):
            return SentSMS(message_sid=f"text-{uuid4().hex}", status="queued", to=command.to)
        elif isinstance(command, TransferTo):
            if self.voip is not None:
                self.voip.close("transferred")
        else:
            return await super().command(command)
        return None


class TextSide:
    """One end of a talk by text."""

    def __init__(self, make: Callable[[Any], Any], side: Side, clock: Clock, recorder: TalkRecorder) -> None:
        self.side: Side = side
        self._clock = clock
        self._recorder = recorder
        self._said: list[str] = []
        self._asked: UUID | None = None
        """What was said to it, and is not answered."""
        self._asked_s = 0.0
        self._prompts = 0
        self.press: Callable[[str], object] = lambda _: None
        """Takes the keys that it presses."""
        self.call: TextCall = TextCall(make, self._new_voip, scope=CallScope(f"{side} of a talk"))

    def _new_voip(self) -> TextVoIP:
        metadata = CallMetadata(call_id=uuid4(), carrier="text", from_="caller", to="agent")
        link = TalkLink(self._on_keys)
        voip = TextVoIP(self._on_text, metadata=metadata, clock=self._clock, link=link)
        self._recorder.watch(voip, self.side)
        voip.on(VoIP.EVENT, self._on_event)
        return voip

    @property
    def quiet(self) -> bool:
        """It has said all that it wants to say."""
        agents = [member for member in self.call.scope.members if isinstance(member, Agent)]
        idle = all(agent._conversation is None or agent._conversation.engine.quiet for agent in agents)
        if idle and self._asked is not None and self._clock.now() - self._asked_s >= _UNANSWERED_S:
            self._asked = None
        return idle and self._asked is None

    def take(self) -> str:
        """What it has said since the last time."""
        said, self._said = " ".join(self._said), []
        return said

    def hear(self, text: str) -> None:
        """The other one has said ``text``."""
        self._prompts = 0
        for agent in self._active():
            self._asked, self._asked_s = uuid4(), self._clock.now()
            agent.post(Message(uuid=self._asked, data=text))

    def receive_keys(self, keys: str) -> None:
        """The other one presses keys."""
        for key in keys:
            self.call.voip.receive(VoIP.DTMF, key)

    def prompt(self) -> None:
        """Nobody says anything: as on the phone, it says something, and hangs up in the end."""
        self._prompts += 1
        for agent in self._active():
            if self._prompts > _MOST_PROMPTS:
                agent.hang_up("idle")
            else:
                agent._running.prompt(self._prompts)

    def _active(self) -> list[Agent]:
        """The agent that has the call now, if there is one."""
        agents = [member for member in self.call.scope.members if isinstance(member, Agent)]
        return [agent for agent in agents if agent._conversation is not None][-1:]

    def _on_keys(self, keys: str) -> None:
        self.press(keys)

    def _on_text(self, turn: UUID, part: int, text: str) -> None:
        del turn, part, text  # what was said is told by events
        self._recorder.active()

    def _on_event(self, event: ev.CallEvent) -> None:
        if isinstance(event, ev.AgentSaid) and event.heard.strip():
            self._said.append(" ".join(event.heard.split()))
        elif isinstance(event, ev.TurnMeasured) and event.timeline.turn == self._asked:
            self._asked = None


async def _by_text(
    answers: Callable[[Any], Any],
    calls: Callable[[Any], Any],
    clock: Clock,
    limits: TalkLimits,
    recorder: TalkRecorder,
) -> AgentTalk:
    sides = (TextSide(answers, "agent", clock, recorder), TextSide(calls, "caller", clock, recorder))
    for here, there in (sides, sides[::-1]):
        here.press = there.receive_keys
    try:
        for side in sides:
            await side.call.start()
        exceeded = await _take_turns(sides, limits, recorder)
        for side in sides:
            await side.call.end()
    finally:
        for side in sides:
            await side.call.close()
    return finished(recorder, exceeded)


async def _take_turns(sides: tuple[TextSide, TextSide], limits: TalkLimits, recorder: TalkRecorder) -> str:
    """Carry words from one to the other until the call is over; which limit has ended it, else empty."""
    agent, caller = sides
    quiet = False
    while not recorder.over:
        if exceeded := recorder.exceeded(limits):
            return exceeded
        before, quiet = quiet, agent.quiet and caller.quiet
        if before and quiet:  # who is about to hang up has done so by now
            if said := agent.take():
                caller.hear(said)
            elif said := caller.take():
                agent.hear(said)
            elif recorder.silent_s >= _PATIENCE_S:
                caller.prompt()
                recorder.active()
        await recorder.changed(_LOOK_S)
    return ""

"""An agent at the phone of a simulated caller: it dials a gateway over the carrier's protocol, and talks.

::

    talk = await dial_with_agent(url, customer(persona), auth_token="…")

The agent has a call of its own in memory. What it says is what the phone's microphone takes, frame after frame; what
the gateway's agent says it hears as the phone plays it, after clears, with its gaps.
"""

from __future__ import annotations

import asyncio
from base64 import b64encode
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from dialog.clock import SYSTEM_CLOCK, Clock
from dialog.errors import StateError
from dialog.testing.agent_line import PressingCarrier, finished, watched
from dialog.testing.call import CallEnded, CallSpec
from dialog.testing.caller import Caller, Dialling
from dialog.testing.carrier_stream import FRAME_MS, SILENT_FRAME
from dialog.testing.stream import Microphone
from dialog.testing.talk import AgentTalk, TalkLimits, TalkLine, TalkRecorder
from dialog.voip.call import Call
from dialog.voip.memory import MemoryLine, memory_call
from dialog.voip.voip import VoIP

__all__ = ["AgentCaller", "dial_with_agent"]

_CLOSED_S = 30.0
_LIMITS = TalkLimits()


async def dial_with_agent(
    url: str,
    calls: Callable[[Any], Any],
    *,
    auth_token: str,
    account_sid: str = "AC00000000000000000000000000000000",
    clock: Clock = SYSTEM_CLOCK,
    public_url: str = "",
    limits: TalkLimits = _LIMITS,
    on_line: Callable[[TalkLine], object] | None = None,
) -> AgentTalk:
    """Dial a gateway as its carrier does, and let an agent talk until either side hangs up, or a limit is reached.

    Of the other side only what the agent heard is known: the transcript has it as its ears understood it.

    Args:
        url: The gateway's voice webhook.
        calls: Given a VoIP, activates the agent that places the call.
        auth_token: Signs every request, as the account's primary token does.
        account_sid: The account that the call belongs to.
        clock: The time of the call; the gateway needs one of the same scale.
        public_url: What the gateway believes to be its address, when that differs from ``url``.
        limits: When the call is ended for them.
        on_line: Told each line of the transcript when it is complete.

    Raises:
        Refused: The gateway did not take the call.
        UserCodeError: ``calls`` raised.
        MissingExtra: The ``testing`` extra is not installed.
    """
    recorder = TalkRecorder(clock, on_line, one_sided=True)
    spec = CallSpec(
        url=url,
        auth_token=auth_token,
        account_sid=account_sid,
        from_="+15551230001",
        to="+15551230002",
        clock=clock,
        public_url=public_url,
    )
    caller = AgentCaller(spec, calls, recorder)
    exceeded = await caller.hold(limits)
    return caller.talk(exceeded)


class AgentCaller(Caller):
    """A simulated caller whose mouth and ears are an agent's."""

    def __init__(self, spec: CallSpec, calls: Callable[[VoIP], Any], recorder: TalkRecorder) -> None:
        super().__init__(spec)
        self._calls = calls
        self._recorder = recorder
        self._line = MemoryLine(clock=spec.clock)
        self._microphone = _AgentMicrophone(self._line, self._clock_s)
        self._told_ms = 0.0
        """What was heard until then was handed to the agent."""
        self._call: Call | None = None

    async def hold(self, limits: TalkLimits) -> str:
        """Hold the whole call; which limit has ended it, else empty.

        Raises:
            Refused: The gateway did not take the call.
            UserCodeError: The agent could not be made.
        """
        exceeded = ""
        try:
            async with Dialling(self):
                self._call, _ = memory_call(
                    watched(self._calls, self._recorder, "caller"),
                    clock=self.clock,
                    line=self._line,
                    carrier=PressingCarrier(self._press),
                    from_=self._spec.from_,
                    to=self._spec.to,
                )
                ended = asyncio.create_task(self._until_ended(), name="end of the call")
                try:
                    exceeded = await self._recorder.wait_over(limits)
                finally:
                    ended.cancel()
                    await asyncio.wait([ended])
        finally:
            self._line.hang_up()
            if self._call is not None:
                with suppress(TimeoutError):  # what is left is disposed of by force, and told in the log
                    async with asyncio.timeout(_CLOSED_S):
                        await self._call.wait_closed()
        return exceeded

    def talk(self, exceeded: str) -> AgentTalk:
        """What was said; ``exceeded`` is what :meth:`hold` returned."""
        return finished(self._recorder, exceeded, caller=self._mouth_track.data, agent=self._ear_track.data)

    async def _until_ended(self) -> None:
        """The other side hangs up: the agent is told."""
        assert self._task is not None, "it is dialled"
        await asyncio.wait([self._task])
        self._line.hang_up()

    def _press(self, keys: str) -> None:
        with suppress(CallEnded, StateError):
            self.press(keys)

    def _clock_s(self, at_ms: float) -> float:
        return self._epoch + at_ms / 1000.0

    def ticked(self, now_ms: float) -> None:
        """Hear what was played since the last time, and let the agent hear it."""
        super().ticked(now_ms)
        if self._call is None:
            return
        while self._told_ms + FRAME_MS <= now_ms:
            frame = self._ear_track.cut(self._told_ms, self._told_ms + FRAME_MS)
            self._told_ms += FRAME_MS
            self._line.send(frame + SILENT_FRAME[len(frame) :])


class _AgentMicrophone(Microphone):
    """Takes what sounds at an agent's line at that very moment."""

    def __init__(self, line: MemoryLine, clock_s: Callable[[float], float]) -> None:
        super().__init__()
        self._line = line
        self._clock_s = clock_s

    def take(self, at_ms: float) -> tuple[str, bytes]:
        """The frame that begins at ``at_ms`` of the call."""
        frame = self._line.sounding(self._clock_s(at_ms) - FRAME_MS / 1000.0, len(SILENT_FRAME))
        return b64encode(frame).decode(), frame

"""Calls that are placed, and then held by the code that has placed them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any, NamedTuple, Protocol

from dialog.agent.scripts.call import ScriptCall
from dialog.agent.scripts.script import Script
from dialog.agent.settings import AgentSettings
from dialog.errors import CallNotAnswered, CarrierError
from dialog.stt.stt import STT
from dialog.tts.tts import TTS
from dialog.voip.answering import MachineDetection
from dialog.voip.voip import VoIP

__all__ = ["Dialler", "Providers", "dial", "place"]


class Dialler(Protocol):
    """A gateway that can place calls."""

    async def call(
        self,
        to: str,
        *,
        from_: str,
        on_voip: Callable[[Any], object] | None = None,
        ring_s: float = 30.0,
        machine_detection: MachineDetection | None = None,
        send_digits: str = "",
        parameters: Mapping[str, str] | None = None,
    ) -> VoIP:
        """Place a call; see :meth:`dialog.voip.twilio.gateway.TwilioGateway.call`."""
        ...


class Providers(NamedTuple):
    """Who hears and speaks for a script, made anew for each call; and how it behaves."""

    stt: Callable[[], STT] | None
    tts: Callable[[], TTS]
    settings: AgentSettings | None = None

    def script(self, voip: VoIP) -> Script:
        """A script that somebody else runs, active on ``voip``."""
        script = Script(voip=voip, stt=self.stt, tts=self.tts, settings=self.settings)
        script.activate()
        return script


@asynccontextmanager
async def dial(
    to: str,
    from_: str,
    *,
    gateway: Dialler,
    tts: Callable[[], TTS],
    stt: Callable[[], STT] | None = None,
    settings: AgentSettings | None = None,
    ring_s: float = 30.0,
    machine_detection: MachineDetection | None = None,
    send_digits: str = "",
    parameters: Mapping[str, str] | None = None,
) -> AsyncGenerator[ScriptCall]:
    """Call somebody, and hold the call in the block; it is hung up at the end of it.

    ::

        async with dial("+15550123", "+15550100", gateway=gateway, stt=make_stt, tts=make_tts) as call:
            await call.say("Hello, this is Luigi's.")

    The block begins when somebody has answered: with ``machine_detection`` once it is known who, which may take
    seconds.

    Args:
        to: Whom: a number in E.164.
        from_: A number of the account.
        gateway: Places the call; it is served by the host.
        tts: Makes the voice.
        stt: Makes who listens; without one nobody does.
        settings: How turns are taken, and the rest.
        ring_s: How long it may ring, in seconds.
        machine_detection: What becomes of a machine that answers.
        send_digits: Keys to press when it is answered.
        parameters: Kept with the call: ``call.metadata.parameter("name")``.

    Raises:
        CallNotAnswered: Nobody answered, or a machine did that is to be hung up on or left a message.
        CarrierError: The carrier refused.
        ConfigurationError: A number or a setting cannot be used.
        LimitError: The account is at its limits for too long.
    """
    call = await place(
        gateway,
        Providers(stt, tts, settings).script,
        to,
        from_=from_,
        ring_s=ring_s,
        machine_detection=machine_detection,
        send_digits=send_digits,
        parameters=parameters,
    )
    try:
        yield call
    finally:
        await _end(call)


async def place(
    gateway: Dialler,
    take: Callable[[VoIP], Script],
    to: str,
    *,
    from_: str,
    ring_s: float = 30.0,
    machine_detection: MachineDetection | None = None,
    send_digits: str = "",
    parameters: Mapping[str, str] | None = None,
) -> ScriptCall:
    """Call somebody, with the script that ``take`` makes; return the call once somebody has answered.

    Whoever gets it has to end it.

    Raises:
        CallNotAnswered: See :func:`dial`, also for the rest.
    """
    made: list[ScriptCall] = []
    voip = await gateway.call(
        to,
        from_=from_,
        on_voip=lambda voip: made.append(take(voip).call),
        ring_s=ring_s,
        machine_detection=machine_detection,
        send_digits=send_digits,
        parameters=parameters,
    )
    call = made[0]
    try:
        answered_by = await voip.wait_answered()
        if answered_by.then == "leave_message":
            raise CallNotAnswered(str(voip.metadata.call_id), "machine", "it is told a message")  # noqa: TRY301
        await call.wait_connected()
    except CallNotAnswered:
        raise  # it has ended, or ends when the message was said
    except BaseException:
        await _end(call)
        raise
    return call


async def _end(call: ScriptCall) -> None:
    if not call.is_disconnected:
        with suppress(CarrierError):  # the VoIP tells of it, and the media is closed all the same
            await call.hangup()

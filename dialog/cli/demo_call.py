"""The demo's call itself: gateway, agent, account and caller in one process, joined by real sockets."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from uuid import uuid4

from aiohttp import web

from dialog.agent.agent import Agent
from dialog.audio.recorder import StereoRecorder
from dialog.calls.events import CallEvent, ErrorRaised
from dialog.calls.report import SessionReport
from dialog.cli.script import speak
from dialog.clock import Clock
from dialog.demo.front_desk import GREETING, SYSTEM, VOICE, FrontDesk
from dialog.demo.phrases import GRAMMAR
from dialog.demo.script import Step
from dialog.errors import StateError
from dialog.net.listening import unlisten
from dialog.stt.pocketsphinx import PocketsphinxSTT
from dialog.testing.caller import CallEnded, Caller, NothingHeard
from dialog.testing.twilio_rest import CallUpdate, TwilioRestEmulator
from dialog.testing.voice import espeak
from dialog.tts.espeak import EspeakTTS
from dialog.voip.twilio.gateway import TwilioGateway
from dialog.voip.twilio.voip import TwilioVoIP

__all__ = ["DemoCall", "hold_call"]

_TOKEN = "demo"  # noqa: S105  # of an account that exists in this process only
_CLOSED = 31921
_END_S = 10.0


@dataclass(slots=True)
class DemoCall:
    """What is left of the call."""

    recorder: StereoRecorder = field(default_factory=StereoRecorder)
    report: SessionReport | None = None
    errors: list[ErrorRaised] = field(default_factory=list[ErrorRaised])
    problems: list[str] = field(default_factory=list[str])
    """What the caller has to complain about."""


async def hold_call(steps: Sequence[Step], *, clock: Clock, on_event: Callable[[CallEvent], object]) -> DemoCall:
    """Hold one call in which the caller says ``steps``; ``on_event`` hears all that happens to the agent.

    Raises:
        MissingExtra: What recognises or speaks is not installed.
    """
    call = DemoCall()
    reported = asyncio.Event()

    def on_voip(voip: TwilioVoIP) -> None:
        gateway.add_tap(voip, call.recorder)
        agent = FrontDesk(
            voip=voip, stt=PocketsphinxSTT(GRAMMAR), tts=EspeakTTS(VOICE), system=SYSTEM, greeting=GREETING
        )
        agent.on(Agent.EVENT, happened)
        agent.on(Agent.REPORT, keep)
        agent.activate()

    def happened(event: CallEvent) -> None:
        if isinstance(event, ErrorRaised):
            call.errors.append(event)
        on_event(event)

    def keep(report: SessionReport) -> None:
        call.report = report
        reported.set()

    listening = socket.create_server(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{listening.getsockname()[1]}/twilio"
    async with TwilioRestEmulator(auth_token=_TOKEN) as account:
        gateway = TwilioGateway(
            account_sid=account.account_sid,
            auth_token=_TOKEN,
            webhook_url=url,
            base_url=account.url,
            clock=clock,
        )
        gateway.on("voip", on_voip)
        runner = web.AppRunner(gateway.app(), access_log=None)
        await runner.setup()
        try:
            await web.SockSite(runner, listening).start()
            await _dial(steps, url, account, clock, call)
            async with asyncio.timeout(_END_S):
                await reported.wait()
        except TimeoutError:
            call.problems.append("the agent did not notice the end of the call")
        finally:
            await unlisten(runner)
    return call


async def _dial(steps: Sequence[Step], url: str, account: TwilioRestEmulator, clock: Clock, call: DemoCall) -> None:
    updates = set[asyncio.Task[None]]()

    async def follow(update: CallUpdate) -> None:
        with suppress(StateError):  # the gateway closed the stream, and the call ended with it
            await caller.update(status=update.status, twiml=update.twiml, url=update.url)

    def updated(update: CallUpdate) -> None:
        # The account's API answers at once; the call follows, as with the real one.
        updates.add(asyncio.create_task(follow(update), name="update of the call"))

    sid = f"CA{uuid4().hex}"
    account.add_call(sid, on_update=updated)
    async with Caller.dial(
        url,
        auth_token=_TOKEN,
        account_sid=account.account_sid,
        call_sid=sid,
        clock=clock,
        voice=espeak("en-us", rate=150),
    ) as caller:
        try:
            await speak(caller, steps)
            await caller.listen()
        except NothingHeard as exc:
            call.problems.append(f"the caller gave up: {exc}")
        except CallEnded as exc:
            call.problems.append(f"the call ended too early: {exc}")
        await caller.hang_up()
        if updates:
            await asyncio.wait(updates)
        call.problems += [
            f"the carrier complains: {warned.code} {warned.detail}"
            for warned in caller.warnings
            if warned.code != _CLOSED  # that is how the agent hangs up
        ]

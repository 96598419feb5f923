"""Telephones that a gateway calls: they ring, are busy, are taken by a person or a machine.

Give them to :attr:`dialog.testing.twilio_rest.TwilioRestEmulator.callees`, by their numbers::

    twilio.callees["+15550123"] = Callee(ring_s=2.0, on_answer=talk)
    twilio.callees["+15550124"] = Callee(outcome="busy")
    twilio.callees["+15550125"] = Callee(answered_by="machine_end_beep", verdict_s=3.0)

Facts: Twilio, "Make outbound calls", "Call progress events", "Answering machine detection".
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from email.utils import formatdate
from typing import Final, Literal, Protocol

from msgspec import Struct

from dialog.clock import Clock
from dialog.errors import DialogError
from dialog.testing.caller import Caller
from dialog.testing.carrier import CallStatus, TransferOutcome

__all__ = ["Callbacks", "CalledPhone", "Callee"]

logger = logging.getLogger(__name__)

_SIP: Final = {"completed": "200", "busy": "486", "no-answer": "487", "canceled": "487", "failed": "404"}


class Callee(Struct, frozen=True, kw_only=True):
    """How a telephone behaves that is called. Times are seconds of the emulator's clock."""

    outcome: Literal["answers", "busy", "no-answer", "failed"] = "answers"
    ring_s: float = 0.0
    """It rings so long before that; at most as long as the call may ring."""
    answered_by: str = "human"
    """The verdict of the answering-machine detection: ``human``, ``machine_start``, ``machine_end_beep``, ``fax`` …;
    empty: there never is one."""
    verdict_s: float = 0.0
    """So long after the answer it comes."""
    on_answer: Callable[[Caller], Awaitable[object]] | None = None
    """What the one who answers does; then they hang up. ``None``: they stay until the other side hangs up."""
    transfer: TransferOutcome = "completed"
    """How the other side of a ``<Dial>`` in this call behaves …"""
    transfer_s: float = 1.0
    """… and for how long."""
    light: bool = False
    """Nothing is recorded or measured: for many calls."""


class Callbacks(Protocol):
    """Who delivers signed callbacks; returns the HTTP status, 0 if there was no answer."""

    async def __call__(self, url: str, fields: dict[str, str]) -> int: ...  # noqa: D102


class CalledPhone:
    """One placed call at the side of the one who is called."""

    def __init__(
        self,
        callee: Callee,
        *,
        call_sid: str,
        account_sid: str,
        auth_token: str,
        form: Mapping[str, str],
        clock: Clock,
        deliver: Callbacks,
        note: Callable[[str], None],
    ) -> None:
        """``form`` is the request that placed the call; ``note`` is told of each new status."""
        self.callee = callee
        self.caller: Caller | None = None
        """The one who answered, on the line."""
        self.answered: asyncio.Event = asyncio.Event()
        """Set when media flows, or the call is over without it."""
        self.status: CallStatus = "queued"
        self._sid = call_sid
        self._account = account_sid
        self._token = auth_token
        self._form = form
        self._clock = clock
        self._deliver = deliver
        self._note = note
        self._number = 0
        self._events = form.get("StatusCallbackEvent", "completed").split()
        self._hung_up = asyncio.Event()
        self._began = clock.now()

    def fields(self) -> dict[str, str]:
        """The fields of every webhook of the call."""
        to, from_ = self._form.get("To", ""), self._form.get("From", "")
        return {
            "AccountSid": self._account,
            "ApiVersion": "2010-04-01",
            "CallSid": self._sid,
            "CallStatus": self.status,
            "Called": to,
            "Caller": from_,
            "Direction": "outbound-api",
            "From": from_,
            "To": to,
        }

    async def run(self) -> None:
        """Ring, and be answered or not, to the call's end."""
        callee = self.callee
        try:
            await self._report("initiated", "queued")
            await self._report("ringing", "ringing")
            patience_s = float(self._form.get("Timeout") or 60)
            rings_s = patience_s if callee.outcome == "no-answer" and not callee.ring_s else callee.ring_s
            with suppress(TimeoutError):
                async with asyncio.timeout(self._clock.real(min(rings_s, patience_s))):
                    await self._hung_up.wait()
            if self._hung_up.is_set():
                await self._over("canceled")
            elif callee.outcome != "answers":
                await self._over(callee.outcome)
            elif rings_s > patience_s:
                await self._over("no-answer")
            else:
                await self._answer()
        finally:
            self.answered.set()
            if self.caller is not None:
                await self.caller.close()

    async def update(self, *, status: str, twiml: str, url: str) -> None:
        """What a REST update does to it."""
        if status and self.caller is None:
            self._hung_up.set()
            return
        await self.answered.wait()  # it may be on its way
        if self.caller is not None and not self.caller.ended:
            await self.caller.update(status=status, twiml=twiml, url=url)

    async def _answer(self) -> None:
        callee, form = self.callee, self._form
        self._began = self._clock.now()
        dialling = Caller.dial(
            form.get("Url") or form.get("StatusCallback") or "http://127.0.0.1/",
            auth_token=self._token,
            account_sid=self._account,
            from_=form.get("From", ""),
            to=form.get("To", ""),
            direction="outbound-api",
            call_sid=self._sid,
            twiml=form.get("Twiml", ""),
            clock=self._clock,
            transfer=callee.transfer,
            transfer_s=callee.transfer_s,
            light=callee.light,
        )
        self._set("in-progress")
        reported = asyncio.create_task(self._report("answered", "in-progress"), name=f"{self._sid} answered")
        judged = asyncio.create_task(self._judge(), name=f"{self._sid} verdict")
        try:
            self.caller = await dialling
            self.answered.set()
            if self._hung_up.is_set():
                await self.caller.hang_up()
            elif callee.on_answer is not None:
                await callee.on_answer(self.caller)
                await self.caller.hang_up()
            else:
                await self.caller.wait_ended(timeout_s=3600)
        except DialogError as exc:
            logger.info("%s: the one who was called: %s", self._sid, exc)
            if self.caller is not None:
                await self.caller.hang_up()
        finally:
            judged.cancel()
            await asyncio.wait([reported, judged])
        await self._over("completed")

    async def _judge(self) -> None:
        callee, form = self.callee, self._form
        url = form.get("AsyncAmdStatusCallback", "")
        if not form.get("MachineDetection") or form.get("AsyncAmd") != "true" or not url or not callee.answered_by:
            return
        await self._clock.sleep(callee.verdict_s)
        await self._deliver(
            url,
            {
                "CallSid": self._sid,
                "AccountSid": self._account,
                "AnsweredBy": callee.answered_by,
                "MachineDetectionDuration": str(round(callee.verdict_s * 1000)),
            },
        )

    async def _over(self, status: CallStatus) -> None:
        seconds = round(self._clock.now() - self._began) if status == "completed" else 0
        await self._report("completed", status, CallDuration=str(seconds), SipResponseCode=_SIP[status])

    def _set(self, status: CallStatus) -> None:
        self.status = status
        self._note(status)

    async def _report(self, event: str, status: CallStatus, **more: str) -> None:
        self._set(status)
        url = self._form.get("StatusCallback", "")
        if not url or event not in self._events:
            return
        fields = {
            **self.fields(),
            "CallStatus": "initiated" if event == "initiated" else status,
            "CallbackSource": "call-progress-events",
            "SequenceNumber": str(self._number),
            "Timestamp": formatdate(usegmt=True),
            **more,
        }
        self._number += 1
        await self._deliver(url, fields)

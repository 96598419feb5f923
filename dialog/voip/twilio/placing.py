"""Calls that are placed through Twilio's REST API, and how one of unknown fate is found again.

Source: Twilio REST API 2010-04-01, Calls and Call Events.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

from msgspec import Struct

from dialog.errors import CarrierError
from dialog.voip.answering import MachineDetection
from dialog.voip.twilio.forms import FINAL_STATUSES
from dialog.voip.twilio.rest import TwilioRest

__all__ = ["MAX_INLINE", "PlacedCall", "PlacedCalls", "Placement"]

MAX_INLINE: Final = 4000
"""Characters of a TwiML document that travels with the request; a longer one is fetched."""
_EVENTS: Final = ["initiated", "ringing", "answered", "completed"]
_SKEW_S: Final = 120.0
"""How far Twilio's clock and ours may differ."""
_LOOKED_AT: Final = 50
_AMD_S: Final = (3, 59)


class Placement(Struct, frozen=True, kw_only=True):
    """What Twilio is asked for."""

    to: str
    from_: str
    twiml: str
    url: str
    """Where the document can be fetched, if it is too long to travel with the request."""
    status_url: str
    verdict_url: str
    ring_s: float
    detection: MachineDetection | None = None
    send_digits: str = ""

    def __repr__(self) -> str:
        return f"<Placement ringing for {self.ring_s:g} s>"

    def fields(self) -> dict[str, Any]:
        """As arguments of the official client."""
        fields: dict[str, Any] = {
            "to": self.to,
            "from_": self.from_,
            "status_callback": self.status_url,
            "status_callback_method": "POST",
            "status_callback_event": _EVENTS,
            "timeout": max(5, round(self.ring_s)),
        }
        if len(self.twiml) <= MAX_INLINE:
            fields["twiml"] = self.twiml
        else:
            fields["url"], fields["method"] = self.url, "POST"
        if self.send_digits:
            fields["send_digits"] = self.send_digits
        if self.detection is not None:
            least, most = _AMD_S
            fields["machine_detection"] = "DetectMessageEnd" if self.detection.hears_out else "Enable"
            fields["machine_detection_timeout"] = min(most, max(least, math.ceil(self.detection.wait_s)))
            fields["async_amd"] = "true"
            fields["async_amd_status_callback"] = self.verdict_url
            fields["async_amd_status_callback_method"] = "POST"
        return fields


class PlacedCall(Struct, frozen=True, kw_only=True):
    """A call as Twilio knows it."""

    call_sid: str
    status: str
    """``queued``, ``ringing``, ``in-progress``, ``completed``, ``busy``, ``failed``, ``no-answer``, ``canceled``."""
    duration_s: float = 0.0
    answered_by: str = ""

    @property
    def over(self) -> bool:
        """It has ended."""
        return self.status in FINAL_STATUSES


class PlacedCalls:
    """Places calls, and looks them up. Errors are :class:`~dialog.errors.CarrierError`."""

    def __init__(self, rest: TwilioRest) -> None:
        self._rest = rest

    async def place(self, placement: Placement) -> str:
        """Place a call, once; returns its CallSid.

        Nothing is tried again here: whoever paces the account's calls does that.

        Raises:
            CarrierError: Twilio refused; with ``in_doubt`` the call may have been placed all the same.
        """
        fields = placement.fields()
        call = await self._rest.run("", "place a call", lambda client: client.calls.create_async(**fields), attempts=1)
        return str(call.sid)

    async def fetch(self, call_sid: str) -> PlacedCall:
        """How a call stands.

        Raises:
            CarrierError: It is not known, or Twilio cannot be asked.
        """
        return _placed(
            await self._rest.run(
                call_sid, "look up a call", lambda client: client.calls(call_sid).fetch_async(), safe=True
            )
        )

    async def find(
        self, call_id: UUID, *, to: str, from_: str, since: datetime, others: frozenset[str] = frozenset()
    ) -> PlacedCall | None:
        """The call that was, perhaps, placed as ``call_id`` at ``since`` or later; ``None`` if it was not.

        Twilio keeps no id of ours. What it does keep for a while is which of our addresses it has called back,
        and those name the call. Where it has not, or that is forgotten, a call between the two numbers from that
        time on counts, unless it is among the ``others``, which are known to be different ones: better a call too
        few than one too many.

        Raises:
            CarrierError: Twilio cannot be asked.
        """
        calls: list[Any] = await self._rest.run(
            "",
            "look up calls",
            lambda client: client.calls.list_async(to=to, from_=from_, limit=_LOOKED_AT),
            safe=True,
        )
        earliest = since.astimezone(UTC) - timedelta(seconds=_SKEW_S)
        candidate: PlacedCall | None = None
        for call in calls:
            if str(call.sid) in others or (call.date_created is not None and call.date_created < earliest):
                continue
            named = await self._named(str(call.sid))
            if call_id in named:
                return _placed(call)
            if not named and candidate is None:
                candidate = _placed(call)
        return candidate

    async def _named(self, call_sid: str) -> set[UUID]:
        """The calls of ours that the addresses name which Twilio has requested for this one."""
        try:
            events: list[Any] = await self._rest.run(
                call_sid,
                "look up events",
                lambda client: client.calls(call_sid).events.list_async(limit=_LOOKED_AT),
                safe=True,
            )
        except CarrierError as exc:
            if exc.status == 404:
                return set()
            raise
        requests: list[Mapping[str, object]] = [event.request or {} for event in events]
        urls = [str(request.get("url", "")) for request in requests]
        return {call_id for url in urls if (call_id := _call_in(url)) is not None}


def _placed(call: Any) -> PlacedCall:
    return PlacedCall(
        call_sid=str(call.sid),
        status=str(call.status),
        duration_s=float(call.duration or 0),
        answered_by=str(call.answered_by or ""),
    )


def _call_in(url: str) -> UUID | None:
    _, _, after = url.partition("call=")
    try:
        return UUID(after.partition("&")[0])
    except ValueError:
        return None

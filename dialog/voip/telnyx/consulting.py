"""Warm transfers over Telnyx: the caller hears music without a stream, and is bridged with the other one.

Source: Telnyx API v2, Call Control, ``playback_start``, ``playback_stop`` and ``bridge``.
"""

from __future__ import annotations

import asyncio
import logging
import wave
from base64 import b64encode
from io import BytesIO
from math import ceil
from typing import Any, Final
from uuid import UUID

from dialog.audio.tones import pluck
from dialog.errors import CarrierError
from dialog.voip.call import Call
from dialog.voip.carrier.consulting import Consultations
from dialog.voip.link import Consult
from dialog.voip.telnyx.events import Payload
from dialog.voip.telnyx.outbound import TelnyxOutbound
from dialog.voip.telnyx.record import TelnyxRecord
from dialog.voip.telnyx.rest import HAS_ENDED, TelnyxRest
from dialog.voip.telnyx.switchboard import TelnyxSwitchboard
from dialog.voip.voip import VoIP

__all__ = ["TelnyxConsultations"]

logger = logging.getLogger(__name__)

_NOTES_HZ: Final = (523.25, 659.26, 783.99)
_NOTE_MS: Final = 450.0
_REST_MS: Final = 2650
_RATE: Final = 8000
_MUSIC_S: Final = (len(_NOTES_HZ) * _NOTE_MS + _REST_MS) / 1000.0
_LOOPS: Final = 100
"""Telnyx counts to this."""


class TelnyxConsultations(Consultations[TelnyxRecord]):
    """The callers of a gateway who wait for somebody."""

    def __init__(self, switchboard: TelnyxSwitchboard, outbound: TelnyxOutbound, rest: TelnyxRest) -> None:
        super().__init__(switchboard, outbound)
        self._switchboard = switchboard
        self._rest = rest
        self._music = _music()

    def bridged(self, call_id: UUID) -> None:
        """Telnyx has connected a call with another one."""
        for caller, asked in self._waiting.items():
            if call_id in (caller, asked):
                record = self._switchboard.record(caller)
                self.met(caller, asked)
                if record is not None:  # whoever wanted them to meet has ended by now
                    self._spawn(self._quietly(record, "playback_stop"), f"silence {caller}")
                return

    def played(self, record: TelnyxRecord, payload: Payload) -> None:
        """A file is not played to a caller any more: who waits on hears our notes."""
        if record.call_id not in self._waiting or record.call_id in self._joined:
            return
        cancelled = (payload.status or "").startswith(("cancelled", "call_hangup"))
        notes_failed = payload.status != "completed" and not payload.media_url
        if not cancelled and not notes_failed:
            self._spawn(self._play_notes(record, _LOOPS), f"play to {record.call_id}")

    async def _hold(self, record: TelnyxRecord, command: Consult) -> None:
        await self._wait_there(record)
        record.wants_back = False
        await self._rest.command(record.carrier_call_id, "streaming_stop")
        if command.hold_url and await self._play(record, {"audio_url": command.hold_url, "loop": _LOOPS}):
            return
        # They end when the caller has waited long: if this gateway is gone by then, another one hears of it.
        await self._play_notes(record, ceil(command.within_s / _MUSIC_S))

    async def _wait_there(self, record: TelnyxRecord) -> None:
        """Wait until a stream that Telnyx was just asked for is there: only then can it be stopped.

        Raises:
            CarrierError: It does not come.
        """
        call = record.call
        if call is None or record.asked <= call.generation:
            return
        there = asyncio.Event()

        def started(_: object) -> None:
            there.set()

        call.voip.on(VoIP.STREAMING_STARTED, started)
        call.voip.on(VoIP.ENDED, started)
        try:
            async with asyncio.timeout(call.clock.real(call.settings.rejoin_s)):
                await there.wait()
        except TimeoutError:
            raise CarrierError("telnyx", record.carrier_call_id, "consult: the caller is not there (yet)") from None
        finally:
            call.voip.off(VoIP.STREAMING_STARTED, started)
            call.voip.off(VoIP.ENDED, started)

    async def _play(self, record: TelnyxRecord, fields: dict[str, Any]) -> bool:
        """Play something to a caller who waits; whether Telnyx does."""
        try:
            await self._rest.command(record.carrier_call_id, "playback_start", fields)
        except CarrierError as exc:
            logger.warning("call %s: its caller waits in silence: %s", record.call_id, exc)
            return False
        return True

    async def _play_notes(self, record: TelnyxRecord, loops: int) -> None:
        notes = {"playback_content": self._music, "audio_type": "wav", "loop": min(_LOOPS, loops)}
        await self._play(record, notes)

    async def _meet(self, record: TelnyxRecord, other: TelnyxRecord) -> None:
        await self._rest.command(record.carrier_call_id, "bridge", {"call_control_id": other.carrier_call_id})
        await self._quietly(other, "streaming_stop")

    async def _fetch(self, call: Call, record: TelnyxRecord, generation: int) -> None:  # noqa: ARG002  # it knows
        await self._quietly(record, "playback_stop")
        if call.state != "ended":
            self._switchboard.let_back(record)

    async def _stop_waiting(self, record: TelnyxRecord) -> None:
        """The switchboard tells Telnyx of every end."""

    async def _quietly(self, record: TelnyxRecord, action: str) -> None:
        try:
            await self._rest.command(record.carrier_call_id, action)
        except CarrierError as exc:
            level = logging.DEBUG if exc.carrier_code == HAS_ENDED else logging.INFO
            logger.log(level, "%s", exc)


def _music() -> str:
    """Three soft notes and a rest, as a WAV file of 64 kB, in base64."""
    notes = b"".join(pluck(hz, _NOTE_MS, level_dbfs=-16.0, sample_rate=_RATE) for hz in _NOTES_HZ)
    with BytesIO() as out:
        with wave.open(out, "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(_RATE)
            file.writeframes(notes + bytes(2 * _REST_MS * _RATE // 1000))
        return b64encode(out.getvalue()).decode()

"""Warm transfers over Telnyx: the caller hears music without a stream, and is bridged with the other one.

Source: Telnyx API v2, Call Control, ``playback_start``, ``playback_stop`` and ``bridge``.
"""

from __future__ import annotations

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
from dialog.voip.telnyx.outbound import TelnyxOutbound
from dialog.voip.telnyx.record import TelnyxRecord
from dialog.voip.telnyx.rest import HAS_ENDED, TelnyxRest
from dialog.voip.telnyx.switchboard import TelnyxSwitchboard

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
                self.met(caller, asked)
                return

    async def _hold(self, record: TelnyxRecord, command: Consult) -> None:
        ours, record.wants_back = record.carrier_call_id, False
        await self._rest.command(ours, "streaming_stop")
        music: dict[str, Any] = {"audio_url": command.hold_url, "loop": _LOOPS}
        if not command.hold_url:  # Telnyx has none of its own
            # It ends when the caller has waited for too long: if this gateway is gone by then, another one hears of it.
            loops = min(_LOOPS, ceil(command.within_s / _MUSIC_S))
            music = {"playback_content": self._music, "audio_type": "wav", "loop": loops}
        try:
            await self._rest.command(ours, "playback_start", music)
        except CarrierError as exc:
            logger.warning("call %s: its caller waits in silence: %s", record.call_id, exc)

    async def _meet(self, record: TelnyxRecord, other: TelnyxRecord) -> None:
        await self._rest.command(record.carrier_call_id, "bridge", {"call_control_id": other.carrier_call_id})
        await self._quietly(record, "playback_stop")
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
    """Three soft notes and a rest, as a WAV file in base64, 64 kB."""
    notes = b"".join(pluck(hz, _NOTE_MS, level_dbfs=-16.0, sample_rate=_RATE) for hz in _NOTES_HZ)
    with BytesIO() as out:
        with wave.open(out, "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(_RATE)
            file.writeframes(notes + bytes(2 * _REST_MS * _RATE // 1000))
        return b64encode(out.getvalue()).decode()

"""A simulated call over Telnyx: what its Call Control does with one call leg, and the person in it.

Facts: Telnyx API v2, Call Control commands and callbacks; "Stream call media over WebSocket".
"""

from __future__ import annotations

import asyncio
import wave
from base64 import b64decode
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from io import BytesIO
from typing import TYPE_CHECKING, Any, Final, Protocol
from uuid import uuid4

from dialog.testing.call import CallSpec
from dialog.testing.caller import Caller
from dialog.testing.carrier import CarrierSide, Leg
from dialog.testing.dialects import TelnyxDialect
from dialog.testing.twiml import Verb
from dialog.testing.voice import Voice

if TYPE_CHECKING:
    from websockets.asyncio.client import ClientConnection

    from dialog.testing.carrier_stream import Listener
    from dialog.testing.stream import MediaStream, Microphone

__all__ = ["CAUSES", "Deliver", "TelnyxCaller", "TelnyxLeg"]

CAUSES: Final[dict[str, tuple[str, str]]] = {
    "completed": ("normal_clearing", "200"),
    "busy": ("user_busy", "486"),
    "no-answer": ("timeout", "487"),
    "canceled": ("originator_cancel", "487"),
    "failed": ("not_found", "404"),
}
"""How Telnyx calls the ends of calls, and their SIP code."""
_SPEAK_S: Final = 0.5
_FILE_S: Final = 30.0


class Deliver(Protocol):
    """Who delivers signed webhooks; returns the HTTP status, 0 if there was no answer."""

    async def __call__(self, url: str, event_type: str, payload: dict[str, Any]) -> int: ...  # noqa: D102


class TelnyxLeg(CarrierSide):
    """One call leg: carries out commands, and tells of what happens. It does not know media."""

    def __init__(self, leg: Leg, *, deliver: Deliver, webhook_url: str) -> None:
        super().__init__(leg, self.note)
        self.on_note: Callable[[str, str], object] | None = None
        """Hears what happens on it."""
        self.leg_id = str(uuid4())
        self.session_id = str(uuid4())
        self.client_state: str | None = None
        self.webhook_url = webhook_url
        self.answered: bool = False
        self.cause = ""
        """Why it ended, if not as its status says."""
        self.recording_id = ""
        self.transcribes: bool = False
        self.playback: dict[str, Any] | None = None
        """The fields of the command by which a file is played to it."""
        self.bridged_with: TelnyxLeg | None = None
        """Whom it is connected to."""
        self.on_stream: Callable[[dict[str, Any]], object] | None = None
        """Opens a stream by the fields of a command."""
        self.on_stop: Callable[[], object] | None = None
        """Stops the one that is open."""
        self.jobs: set[asyncio.Task[Any]] = set()
        self.began = datetime.now(UTC)
        self._deliver = deliver
        self._order: asyncio.Lock = asyncio.Lock()

    def note(self, name: str, detail: str) -> None:
        """Something worth a line happened."""
        if self.on_note is not None:
            self.on_note(name, detail)

    def facts(self) -> dict[str, Any]:
        """What every webhook tells of the leg."""
        return {
            "call_control_id": self.leg.call_sid,
            "call_leg_id": self.leg_id,
            "call_session_id": self.session_id,
            "connection_id": self.leg.account_sid,
            "from": self.leg.from_,
            "to": self.leg.to,
            "client_state": self.client_state,
        }

    async def tell(self, event_type: str, **more: Any) -> int:
        """Deliver a webhook, after those before it."""
        payload = {**self.facts(), **more}
        url = self.webhook_url
        async with self._order:
            self._note(event_type, "")
            return await self._deliver(url, event_type, payload)

    def spawn(self, work: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        """Do something that ends with the leg at the latest."""
        task = asyncio.create_task(work, name=f"{name} of {self.leg.call_sid}")
        self.jobs.add(task)
        task.add_done_callback(self.jobs.discard)
        return task

    async def wait_over(self) -> None:
        """Wait until it has ended."""
        await self._interrupt.wait()

    def take(self, fields: dict[str, Any]) -> None:
        """Keep what a command says for all that follows."""
        if fields.get("client_state"):
            self.client_state = fields["client_state"]
        if fields.get("webhook_url"):
            self.webhook_url = fields["webhook_url"]

    def answer(self, fields: dict[str, Any]) -> None:
        """Answer it, and stream if asked to."""
        self.answered = True
        self.leg.status = "in-progress"
        self.spawn(self.tell("call.answered", state="answered"), "answer")
        self.stream(fields)

    def stream(self, fields: dict[str, Any]) -> None:
        """Open a stream, if the fields name where."""
        if fields.get("stream_url") and self.on_stream is not None:
            self.on_stream(fields)

    async def speak(self, fields: dict[str, Any], seconds: Callable[[float], Coroutine[Any, Any, None]]) -> None:
        """Say a text in Telnyx's voice."""
        self._note("spoken", str(fields.get("payload", "")))
        await self.tell("call.speak.started")
        await seconds(_SPEAK_S)
        await self.tell("call.speak.ended", status="completed")

    async def play(self, fields: dict[str, Any], seconds: Callable[[float], Coroutine[Any, Any, None]]) -> None:
        """Play a file, as often as was asked for: one at an address lasts for half a minute."""
        await self.tell("call.playback.started", media_url=fields.get("audio_url", ""))
        loop = fields.get("loop", 1)
        if loop == "infinity":
            return
        await seconds(_wav_s(str(fields.get("playback_content", ""))) * int(loop))
        if self.playback is fields:
            self.playback = None
            await self.tell("call.playback.ended", status="completed")

    def stop_playback(self) -> None:
        """Play no file any more."""
        if self.playback is not None:
            self.playback = None
            self.spawn(self.tell("call.playback.ended", status="cancelled"), "playback")

    async def end(self) -> None:
        """Tell that it has ended."""
        cause, code = CAUSES.get(self.leg.status, ("unspecified", ""))
        await self.tell(
            "call.hangup",
            hangup_cause=self.cause or cause,
            hangup_source="caller",
            sip_hangup_cause=code,
            start_time=_iso(self.began),
            end_time=_iso(datetime.now(UTC)),
            state="hangup",
        )

    async def close(self) -> None:
        """Give up what is still being done."""
        for task in tuple(self.jobs):
            task.cancel()
        await asyncio.gather(*self.jobs, return_exceptions=True)


class TelnyxCaller(Caller):
    """A person on the phone, whose call comes over Telnyx; see :meth:`TelnyxEmulator.dial`."""

    user_agent = "Telnyx"

    def __init__(
        self,
        spec: CallSpec,
        side: TelnyxLeg,
        *,
        placed: bool = False,
        sends: str = "",
        voice: Voice | None = None,
        light: bool = False,
    ) -> None:
        super().__init__(spec, voice=voice, light=light)
        self._leg = side.leg
        self._side = side
        self._carrier = None
        self._placed = placed
        side.on_note = self.noted
        side.on_stream = self._open
        side.on_stop = self._stop_stream
        self._streaming: asyncio.Task[None] | None = None
        self._fields: dict[str, Any] = {}
        self.sends = sends
        """The codec of the caller's audio, where Telnyx cannot send what it is asked for."""

    @property
    def side(self) -> TelnyxLeg:
        """What Telnyx knows of the call."""
        return self._side

    async def set_up(self) -> None:
        """Let the call ring at the gateway, and wait until its stream has started, or it is over."""
        self._require_packages()
        self._carrier = self._side
        self._epoch = self.clock.now()
        self.noted("dialling", self._side.webhook_url)
        try:
            await self._begin(self._live())
        except BaseException:
            await self.close()
            raise

    async def update(self, *, status: str = "", twiml: str = "", url: str = "", method: str = "POST") -> None:
        """There is no such thing over Telnyx: commands go to the emulator.

        Raises:
            NotImplementedError: Always.
        """
        raise NotImplementedError("a call over Telnyx is steered by commands to its emulator")

    async def _live(self) -> None:
        side = self._side
        try:
            if not self._placed:
                status = await side.tell("call.initiated", direction="incoming", state="parked")
                if not 200 <= status < 300:
                    side.warn(status, f"the webhook was answered {status or 'with nothing'}")
                    side.finish("failed")
            await side.wait_over()
        finally:
            self._microphone.clear()
            self.ended_by = self.ended_by or "agent"
            if self.stream is not None:
                self.stream.stop()
            if self._streaming is not None:
                await asyncio.wait([self._streaming])
        await side.end()
        self.noted("ended", f"{self.status} by {self.ended_by}")

    async def close(self) -> None:
        """End the call if it is not over, and free everything. Idempotent."""
        try:
            await super().close()
        finally:
            await self._side.close()

    def _open(self, fields: dict[str, Any]) -> None:
        self._streaming = self._side.spawn(self._stream(fields, self._streaming), "stream")

    def _stop_stream(self) -> None:
        if self.stream is not None:
            self.stream.stop()

    async def _stream(self, fields: dict[str, Any], before: asyncio.Task[None] | None) -> None:
        if before is not None:
            await asyncio.wait([before])
        side, stream_id = self._side, str(uuid4())
        self._fields = fields
        self._connected = Verb("Stream", {}), fields["stream_url"]
        self.upgrade_status, connection = await self._handshake(fields["stream_url"])
        if connection is None:
            side.warn(self.upgrade_status, "the stream's handshake failed")
            await side.tell("streaming.failed", stream_id=stream_id, failure_reason="connection_failed")
            return
        stream = self._stream_over_socket(connection, stream_id, self, self._microphone)
        if side.over:
            await stream.close()
            return
        side.spawn(side.tell("streaming.started", stream_id=stream_id, stream_url=fields["stream_url"]), "stream")
        end = await self._run_stream(stream)
        if end == "closed":
            side.warn(0, f"the server closed the stream: {stream.close_code} {stream.close_reason}".strip())
        if not side.over:
            await side.tell("streaming.stopped", stream_id=stream_id, stream_url=fields["stream_url"])

    def _stream_over_socket(
        self, connection: ClientConnection, stream_id: str, listener: Listener, microphone: Microphone
    ) -> MediaStream:
        from dialog.testing.stream import MediaStream

        fields, side = self._fields, self._side
        codec = str(fields.get("stream_bidirectional_codec", "PCMU"))
        rate = int(fields.get("stream_bidirectional_sampling_rate", 8000))
        return MediaStream(
            connection,
            listener,
            clock=self.clock,
            epoch=self._epoch,
            account_sid="3e6f995f-85f7-4705-9741-53b116d28237",
            call_sid=self.call_sid,
            stream_sid=stream_id,
            parameters={"client_state": str(side.client_state or "")},
            microphone=microphone,
            faults=self._spec.faults,
            from_=self._leg.from_,
            to=self._leg.to,
            dialect=TelnyxDialect(codec, rate, sends=self.sends),
        )

    def _media(
        self,
        connection: ClientConnection,
        verb: Verb,  # noqa: ARG002
        listener: Listener,
        microphone: Microphone,
    ) -> MediaStream:
        return self._stream_over_socket(connection, str(uuid4()), listener, microphone)

    def _upgrade_headers(self, url: str) -> dict[str, str]:  # noqa: ARG002
        return {}


def _wav_s(content: str) -> float:
    try:
        with wave.open(BytesIO(b64decode(content))) as file:
            return float(file.getnframes() / file.getframerate())
    except (wave.Error, EOFError):
        return _FILE_S


def _iso(when: datetime) -> str:
    return when.isoformat().replace("+00:00", "Z")

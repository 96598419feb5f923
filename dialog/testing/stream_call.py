"""A simulated call that is nothing but a media socket, as Plivo and Exotel bring it.

::

    async with dial_stream("ws://127.0.0.1:8080/stream?token=…", carrier="plivo") as caller:
        greeting = await caller.listen()

The socket's end is the call's, whoever closes it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Literal, TypeAlias
from urllib.parse import urlsplit
from uuid import uuid4

from dialog.clock import SYSTEM_CLOCK, Clock
from dialog.testing.call import CallerEvent, CallSpec
from dialog.testing.caller import Caller, Dialling
from dialog.testing.carrier import CarrierSide
from dialog.testing.dialects import Dialect, TwilioDialect
from dialog.testing.exotel_dialect import ExotelDialect
from dialog.testing.faults import CallFaults
from dialog.testing.plivo_dialect import PlivoDialect
from dialog.testing.twiml import Verb
from dialog.testing.voice import Voice

if TYPE_CHECKING:
    from websockets.asyncio.client import ClientConnection

    from dialog.testing.carrier_stream import Listener
    from dialog.testing.stream import MediaStream, Microphone

__all__ = ["StreamCarrier", "dial_stream"]

StreamCarrier: TypeAlias = Literal["plivo", "exotel", "compatible"]


def dial_stream(
    url: str,
    *,
    carrier: StreamCarrier,
    sample_rate: int = 8000,
    from_: str = "+15551230001",
    to: str = "+15551230002",
    parameters: Mapping[str, str] | None = None,
    headers: Mapping[str, str] | None = None,
    clock: Clock = SYSTEM_CLOCK,
    call_id: str = "",
    faults: CallFaults | None = None,
    voice: Voice | None = None,
    light: bool = False,
    on_event: Callable[[CallerEvent], object] | None = None,
) -> Dialling:
    """Open the media socket of a call; ``await`` the result, or use it with ``async with``: a :class:`Caller`.

    Args:
        url: Of the socket, with what the carrier was told to put into it.
        carrier: Whose dialect is spoken; ``compatible`` is Twilio's.
        sample_rate: Of the audio on the socket; above 8000 Hz Plivo's is in 16-bit samples, as Exotel's always is.
        from_: Number of the caller, which Plivo does not tell.
        to: Number that is dialled.
        parameters: What the carrier was told to hand on in the stream's start.
        headers: Of the upgrade.
        clock: Real time, or a faster clock; the gateway needs one of the same scale.
        call_id: The carrier's; a new one by default.
        faults: What goes wrong on the media stream.
        voice: Speaks text; espeak by default.
        light: For load: no recording and no measuring of speech.
        on_event: Called with each event as it happens.
    """
    spec = CallSpec(
        url=url,
        auth_token="",
        account_sid="account",
        from_=from_,
        to=to,
        clock=clock,
        call_sid=call_id or str(uuid4()),
        parameters=tuple((parameters or {}).items()),
        faults=faults or CallFaults(),
        on_event=on_event,
    )
    dialects: dict[str, Callable[[], Dialect]] = {
        "plivo": lambda: PlivoDialect(sample_rate),
        "exotel": lambda: ExotelDialect(sample_rate),
        "compatible": TwilioDialect,
    }
    return Dialling(_StreamCaller(spec, dialects[carrier], dict(headers or {}), voice=voice, light=light))


class _StreamCaller(Caller):
    def __init__(
        self,
        spec: CallSpec,
        dialect: Callable[[], Dialect],
        headers: dict[str, str],
        *,
        voice: Voice | None,
        light: bool,
    ) -> None:
        super().__init__(spec, voice=voice, light=light)
        self._dialect = dialect
        self._headers = headers
        self._side = CarrierSide(self._leg, self.noted)

    async def set_up(self) -> None:
        self._require_packages()
        self._carrier = self._side
        self._epoch = self.clock.now()
        self.noted("dialling", urlsplit(self._spec.url).path)
        try:
            await self._begin(self._live())
        except BaseException:
            await self.close()
            raise

    async def _live(self) -> None:
        side = self._side
        self.upgrade_status, connection = await self._handshake(self._spec.url)
        if connection is None:
            side.warn(self.upgrade_status, "the stream's handshake failed")
            side.finish("failed")
            return
        self._connected = Verb("Stream", {}), self._spec.url
        self._leg.status = "in-progress"
        try:
            await self._run_stream(self._media(connection, self._connected[0], self, self._microphone))
        finally:
            self._microphone.clear()
            self.ended_by = self.ended_by or "agent"
            side.finish("completed")
        self.noted("ended", f"{self.status} by {self.ended_by}")

    def _media(
        self,
        connection: ClientConnection,
        verb: Verb,  # noqa: ARG002
        listener: Listener,
        microphone: Microphone,
    ) -> MediaStream:
        from dialog.testing.stream import MediaStream

        return MediaStream(
            connection,
            listener,
            clock=self.clock,
            epoch=self._epoch,
            account_sid=self._leg.account_sid,
            call_sid=self.call_sid,
            stream_sid=str(uuid4()),
            parameters=dict(self._spec.parameters),
            microphone=microphone,
            faults=self._spec.faults,
            from_=self._leg.from_,
            to=self._leg.to,
            dialect=self._dialect(),
        )

    def _upgrade_headers(self, url: str) -> dict[str, str]:  # noqa: ARG002
        return self._headers

"""The connections of a simulated call: webhook, streams one after another, the end."""

from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import aiohttp
from msgspec import Struct

from dialog.clock import SYSTEM_CLOCK, Clock
from dialog.errors import DialogError, MissingExtra, StateError
from dialog.testing.carrier import CallStatus, Carrier, CarrierSide, Leg, TransferOutcome, Warned, local_url
from dialog.testing.conference import Conference
from dialog.testing.faults import CallFaults
from dialog.testing.media import Cleared
from dialog.testing.signing import sign
from dialog.testing.twiml import Verb, parse, stream_parameters

if TYPE_CHECKING:
    from websockets.asyncio.client import ClientConnection

    from dialog.testing.carrier_stream import CarrierStream, Listener, StreamEnd
    from dialog.testing.stream import MediaStream, Microphone

__all__ = ["CallEnded", "CallSpec", "CallerEvent", "NothingHeard", "SimulatedCall"]

_MAX_MESSAGE = 4 * 1024 * 1024
_SETUP_TIMEOUT_S = 60.0
_END_TIMEOUT_S = 20.0


class CallEnded(DialogError):
    """The call, or its stream, ended while the caller was waiting for something else."""

    code = "call_ended"


class NothingHeard(DialogError, TimeoutError):
    """What the caller waited for did not come in time."""

    code = "nothing_heard"


class CallerEvent(NamedTuple):
    """Something that happened in the call: ``at_ms`` of the call, a name, a detail."""

    at_ms: float
    name: str
    detail: str


class CallSpec(Struct, frozen=True, kw_only=True):
    """Everything that :meth:`dialog.testing.caller.Caller.dial` takes; it is explained there."""

    url: str
    auth_token: str
    account_sid: str
    from_: str
    to: str
    clock: Clock = SYSTEM_CLOCK
    public_url: str = ""
    method: Literal["POST", "GET"] = "POST"
    direction: Literal["inbound", "outbound-api"] = "inbound"
    call_sid: str = ""
    twiml: str = ""
    parameters: tuple[tuple[str, str], ...] = ()
    status_callback: str = ""
    transfer: TransferOutcome = "completed"
    transfer_s: float = 1.0
    faults: CallFaults = CallFaults()
    on_event: Callable[[CallerEvent], object] | None = None
    session: aiohttp.ClientSession | None = None

    def __repr__(self) -> str:
        return f"<CallSpec {self.url}>"


class _Deaf:
    """Listens to a stream that nobody listens to."""

    def sent(self, at_ms: float, frame: bytes) -> None:
        """Not of interest."""

    def arrived(self, now_ms: float, data: bytes) -> None:
        """Not of interest."""

    def ticked(self, now_ms: float) -> None:
        """Not of interest."""

    def cleared(self, now_ms: float, cleared: Cleared) -> None:
        """Not of interest."""

    def warned(self, code: int, detail: str) -> None:
        """Not of interest."""

    def noted(self, name: str, detail: str) -> None:
        """Not of interest."""


class SimulatedCall:
    """One call as the carrier sets it up and ends it, without anybody speaking in it."""

    user_agent: ClassVar[str] = "Twilio.TmeWs/1.0"

    def __init__(self, spec: CallSpec, microphone: Microphone) -> None:
        self.clock: Clock = spec.clock
        self.events: list[CallerEvent] = []
        """What happened so far, media aside."""
        self.stream: CarrierStream | None = None
        """The stream that is open now."""
        self.streams: int = 0
        """How many streams the call has had."""
        self.streaming_since_ms: float = 0.0
        """When the newest of them was opened, on the caller's clock."""
        self.upgrade_status: int = 0
        """HTTP status of the newest stream's handshake: 101 when it was accepted, 0 without an answer."""
        self.closed_with: tuple[int, str] = (0, "")
        """Close code and reason of the newest stream that ended."""
        self.ended_by: Literal["", "caller", "agent"] = ""
        """Who ended the call: the caller hung up, or the agent's side did (TwiML, closing, REST)."""
        self._spec = spec
        self._microphone = microphone
        self._leg = Leg(
            account_sid=spec.account_sid,
            auth_token=spec.auth_token,
            call_sid=spec.call_sid or f"CA{uuid4().hex}",
            from_=spec.from_,
            to=spec.to,
            direction=spec.direction,
            status="ringing" if spec.direction == "inbound" else "in-progress",
            parameters=spec.parameters,
        )
        self._public = spec.url
        if spec.public_url:
            scheme, netloc, *_ = urlsplit(spec.public_url)
            self._public = urlunsplit((scheme, netloc, *urlsplit(spec.url)[2:4], ""))
        self._session = spec.session
        self._carrier: CarrierSide | None = None
        self._task: asyncio.Task[None] | None = None
        self._epoch = spec.clock.now()
        self._connected: tuple[Verb, str] | None = None
        self._pulse = asyncio.Event()
        self._waiting = 0

    @property
    def call_sid(self) -> str:
        """The carrier's name of the call."""
        return self._leg.call_sid

    @property
    def status(self) -> CallStatus:
        """The call's state, in Twilio's words."""
        return self._leg.status

    @property
    def ended(self) -> bool:
        """Whether the call is over."""
        return self._task is not None and self._task.done()

    @property
    def verbs(self) -> tuple[Verb, ...]:
        """The TwiML that was carried out."""
        return tuple(self._carrier.verbs) if self._carrier else ()

    @property
    def conference(self) -> Conference | None:
        """The conference that the call is in."""
        return self._carrier.room if self._carrier else None

    @property
    def warnings(self) -> tuple[Warned, ...]:
        """What Twilio would write into the debugger."""
        return tuple(self._carrier.warnings) if self._carrier else ()

    def now_ms(self) -> float:
        """Milliseconds since the call was set up."""
        return (self.clock.now() - self._epoch) * 1000.0

    # What a media stream tells; a caller that listens overrides these.

    def sent(self, at_ms: float, frame: bytes) -> None:
        """A frame of the caller left at that time of the call."""

    def arrived(self, now_ms: float, data: bytes) -> None:
        """Audio of the agent arrived."""

    def ticked(self, now_ms: float) -> None:
        """20 ms have passed."""

    def cleared(self, now_ms: float, cleared: Cleared) -> None:
        """The agent's side cleared the playback buffer."""

    def warned(self, code: int, detail: str) -> None:
        """The carrier complains about a message."""
        if self._carrier is not None:
            self._carrier.warn(code, detail)

    def noted(self, name: str, detail: str) -> None:
        """Something worth a line happened."""
        event = CallerEvent(self.now_ms(), name, detail)
        self.events.append(event)
        if self._spec.on_event is not None:
            self._spec.on_event(event)

    # Setting up.

    async def set_up(self) -> None:
        """Request the webhook and carry out its answer until a stream has started, or the call is over."""
        if self._carrier is not None:
            raise StateError(f"call {self.call_sid} was dialled already")
        self._require_packages()
        spec = self._spec
        if self._session is None:
            self._session = aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar())
        carrier = Carrier(
            self._leg,
            session=self._session,
            clock=self.clock,
            public=self._public,
            dialled=spec.url,
            connect=self._connect,
            note=self.noted,
            faults=spec.faults,
            transfer=spec.transfer,
            transfer_s=spec.transfer_s,
        )
        self._carrier = carrier
        self._epoch = self.clock.now()
        self.noted("dialling", spec.url)
        try:
            document = parse(spec.twiml) if spec.twiml else await carrier.fetch(self._public, spec.method)
            await self._begin(self._run(carrier, document))
        except BaseException:
            await self.close()
            raise

    async def _begin(self, run: Coroutine[Any, Any, None]) -> None:
        """Let the call run, and wait until its stream has started, or it is over."""
        self._task = asyncio.create_task(run, name=f"caller {self.call_sid}")
        self._task.add_done_callback(lambda _: self._wake())
        await self._until(self._is_set_up, _SETUP_TIMEOUT_S, "the call to be set up", lambda: True)

    def _require_packages(self) -> None:
        if importlib.util.find_spec("websockets") is None:
            raise MissingExtra("websockets", "testing")

    def _is_set_up(self) -> bool:
        if self._spec.faults.omit_start:
            return self.streams > 0
        return self.stream is not None and self.stream.started.is_set()

    async def _run(self, carrier: Carrier, document: tuple[Verb, ...]) -> None:
        try:
            await carrier.perform(document)
        finally:
            self._microphone.clear()
            self.ended_by = self.ended_by or "agent"
        self.noted("ended", f"{self.status} by {self.ended_by}")
        if self._spec.status_callback:
            await carrier.call_status(self._spec.status_callback, seconds=self.now_ms() / 1000)

    # Streams.

    async def _connect(self, verb: Verb, url: str) -> None:
        """Run one stream of the call, from the handshake to its close."""
        carrier = self._carrier
        assert isinstance(carrier, Carrier)
        self.upgrade_status, stream = await self._open_stream(verb, url)
        if stream is None:
            detail = f"the stream's handshake was answered {self.upgrade_status or 'with nothing'}"
            carrier.warn(31920, detail)
            await carrier.stream_status(verb, f"MZ{uuid4().hex}", "stream-error", f"31920 {detail}")
            return
        if carrier.over:  # hung up during the handshake
            await stream.close()
            return
        self._connected = verb, url
        reported = asyncio.create_task(carrier.stream_status(verb, stream.stream_sid, "stream-started"))
        try:
            end = await self._run_stream(stream)
        finally:
            await asyncio.wait([reported])
        if end == "closed":
            closed = f"{stream.close_code} {stream.close_reason}".strip()
            carrier.warn(31921, f"the server closed the stream: {closed}")
        await carrier.stream_status(verb, stream.stream_sid, "stream-stopped")

    async def _run_stream(self, stream: CarrierStream) -> StreamEnd:
        """Let a stream be the call's, to its end."""
        self.stream = stream
        self.streams += 1
        self.streaming_since_ms = self.now_ms()
        self.noted("stream started", stream.stream_sid)
        waker = asyncio.create_task(self._wake_when_started(stream))
        try:
            end = await stream.run()
        finally:
            waker.cancel()
            self.stream = None
            self.closed_with = stream.close_code, stream.close_reason
            self._stream_over(stream)
            self._wake()
            await asyncio.wait([waker])
        self.noted("stream ended", f"{end} {stream.close_code} {stream.close_reason}".strip())
        return end

    async def _wake_when_started(self, stream: CarrierStream) -> None:
        self._wake()
        await stream.started.wait()
        self._wake()

    def _stream_over(self, stream: CarrierStream) -> None:  # noqa: ARG002 - for who keeps what it heard
        self._microphone.clear()

    async def _open_stream(self, verb: Verb, url: str) -> tuple[int, CarrierStream | None]:
        """Connect to ``url``: the HTTP status, 0 without an answer, and the stream if it was accepted."""
        status, connection = await self._handshake(url)
        if connection is None:
            return status, None
        return status, self._media(connection, verb, self, self._microphone)

    def _media(
        self, connection: ClientConnection, verb: Verb, listener: Listener, microphone: Microphone
    ) -> MediaStream:
        from dialog.testing.stream import MediaStream

        return MediaStream(
            connection,
            listener,
            clock=self.clock,
            epoch=self._epoch,
            account_sid=self._leg.account_sid,
            call_sid=self.call_sid,
            stream_sid=f"MZ{uuid4().hex}",
            parameters=stream_parameters(verb),
            microphone=microphone,
            faults=self._spec.faults,
        )

    def _upgrade_headers(self, url: str) -> dict[str, str]:
        """What proves to the server whose stream it is."""
        faults = self._spec.faults
        token = "not the token" if faults.stream_signature == "wrong" else self._leg.auth_token
        return {} if faults.stream_signature == "missing" else {"x-twilio-signature": sign(token, url)}

    async def _handshake(self, url: str) -> tuple[int, ClientConnection | None]:
        from websockets.asyncio.client import connect
        from websockets.exceptions import InvalidStatus, WebSocketException

        try:
            connection = await connect(
                local_url(url, self._public, self._spec.url),
                additional_headers=self._upgrade_headers(url),
                user_agent_header=self.user_agent,
                compression=None,
                max_size=_MAX_MESSAGE,
                close_timeout=2.0,
                ping_interval=None,
                proxy=None,
                open_timeout=10.0,
            )
        except InvalidStatus as exc:
            return exc.response.status_code, None
        except (OSError, TimeoutError, WebSocketException):
            return 0, None
        return 101, connection

    async def open_second_stream(self, *, timeout_s: float = 3.0) -> tuple[int, int, str]:
        """Dial the open stream's address a second time, with the same parameters.

        Returns what came of it: HTTP status of the handshake, close code and reason of the second
        stream. If the server has not closed it after ``timeout_s`` real seconds, it is stopped.
        """
        self._require_stream()
        assert self._connected is not None
        verb, url = self._connected
        status, connection = await self._handshake(url)
        if connection is None:
            return status, 0, ""
        from dialog.testing.stream import Microphone

        second = self._media(connection, verb, _Deaf(), Microphone())
        runner = asyncio.create_task(second.run(), name=f"second stream of {self.call_sid}")
        try:
            await asyncio.wait([runner], timeout=timeout_s)
            second.stop()
            await runner
        finally:
            runner.cancel()
        return status, second.close_code, second.close_reason

    def _require_stream(self) -> CarrierStream:
        if self.stream is None:
            raise CallEnded(f"call {self.call_sid}: no stream is open (the call is {self.status})")
        return self.stream

    # The end.

    async def hang_up(self) -> None:
        """End the call as a person does: ``stop``, close, and the status callback if there is one."""
        self.ended_by = self.ended_by or "caller"
        await self._finish("completed")

    async def drop(self, *, hang_up: bool = False) -> None:
        """Tear the stream's connection (TCP reset, no ``stop``).

        The call itself goes on by the rules of ``<Connect>``, unless the line went with it (``hang_up``).
        """
        if hang_up and self._carrier is not None:
            self.ended_by = self.ended_by or "caller"
            self._carrier.finish("completed")
        if self.stream is not None:
            self.stream.drop()
        if hang_up:
            await self._finish("completed")

    async def update(self, *, status: str = "", twiml: str = "", url: str = "", method: str = "POST") -> None:
        """What ``POST /Calls/{sid}.json`` does: end the call, or let it go on with other TwiML.

        Raises:
            StateError: The call is over.
            RemoteProtocolError: ``twiml`` is not TwiML.
            Refused: ``url`` did not answer with TwiML.
        """
        carrier = self._carrier
        if carrier is None or self.ended:
            raise StateError(f"call {self.call_sid} is over: it cannot be updated")
        if status in ("completed", "canceled"):
            self.ended_by = self.ended_by or "agent"
            await self._finish("completed" if status == "completed" else "canceled")
            return
        assert isinstance(carrier, Carrier)
        carrier.move(parse(twiml) if twiml else await carrier.fetch(url, method))
        stream = self.stream
        if stream is not None:
            stream.stop()
            await self._until(lambda: self.stream is not stream, _END_TIMEOUT_S, "the stream to close", lambda: True)

    async def wait_ended(self, *, timeout_s: float = 30.0) -> CallStatus:
        """Wait until the call is over, and return its final status.

        Raises:
            NothingHeard: It went on for ``timeout_s`` of the caller's clock.
        """
        await self._until(lambda: self.ended, timeout_s, "the call to end", lambda: True)
        return self.status

    async def wait_streaming(self, *, streams: int = 1, timeout_s: float = 15.0) -> None:
        """Wait until stream number ``streams`` of the call has started.

        Raises:
            NothingHeard: It did not within ``timeout_s`` of the caller's clock.
            CallEnded: The call ended.
        """
        await self._until(lambda: self.streams >= streams and self._is_set_up(), timeout_s, f"stream {streams}")

    async def close(self) -> None:
        """End the call if it is not over, and free everything. Idempotent."""
        try:
            await self.hang_up()
        finally:
            if self._task is not None and not self._task.done():  # hanging up was broken off
                self._task.cancel()
                await asyncio.wait([self._task])
            if self._spec.session is None and self._session is not None:
                await self._session.close()
                self._session = None

    async def _finish(self, status: CallStatus) -> None:
        if self._carrier is not None:
            self._carrier.finish(status)
        task = self._task
        if task is None:
            return
        if self.stream is not None:
            self.stream.stop()
        if not task.done():
            await asyncio.wait([task], timeout=_END_TIMEOUT_S)
        if not task.done():
            task.cancel()
            await asyncio.wait([task])
            raise NothingHeard(f"call {self.call_sid} did not end within {_END_TIMEOUT_S:g} s of hanging up")
        task.result()

    # Waiting.

    async def _until(
        self,
        condition: Callable[[], bool],
        timeout_s: float,
        what: str,
        enough: Callable[[], bool] = lambda: False,
    ) -> None:
        """Wait for ``condition``. The call's end breaks the wait, in peace if what there is is ``enough``."""
        self._waiting += 1
        try:
            async with asyncio.timeout(self.clock.real(timeout_s)):
                while not condition():
                    if self._task is not None and self._task.done():
                        if not self._task.cancelled():
                            self._task.result()  # a failure of ours is not hidden behind the end
                        if enough():
                            return
                        raise CallEnded(f"call {self.call_sid} ended ({self.status}) while waiting for {what}")
                    await self._pulse.wait()
        except NothingHeard:
            raise
        except TimeoutError:
            raise NothingHeard(f"call {self.call_sid}: waited {timeout_s:g} s for {what}") from None
        finally:
            self._waiting -= 1

    def _wake(self) -> None:
        """Let everybody who waits look again."""
        if self._waiting:
            pulse, self._pulse = self._pulse, asyncio.Event()
            pulse.set()

"""The sessions of a gateway: who is let in, which call they get, and what they are told of it."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Final
from uuid import UUID, uuid4

from msgspec import Struct
from msgspec.structs import replace

from dialog.calls.events import CallEvent
from dialog.calls.feed import declined
from dialog.calls.publish import CallEvents
from dialog.clock import SYSTEM_CLOCK, Clock
from dialog.errors import ClientToolError, NotSupportedError, RemoteProtocolError, StateError, UserCodeError
from dialog.message import AudioFormat, CallEnd, CallMetadata, Playback
from dialog.scope import CallScope
from dialog.voip.admission import Accept, Decision, Declined, NoWorker, Offer, Reject, Resolver, Say, Workers
from dialog.voip.call import Call, CallSettings
from dialog.voip.closing import wait_idle, wait_over
from dialog.voip.line import Line
from dialog.voip.link import (
    Command,
    CommandResult,
    Hangup,
    RemoveRecording,
    StartRecording,
    StopRecording,
    UseClientTool,
)
from dialog.voip.peers import Adoption, MediaEnd, MediaWire, Taker
from dialog.voip.voip import VoIP
from dialog.voip.web.messages import (
    FORMATS,
    VERSION,
    ServerMessage,
    SessionEnded,
    SessionResume,
    SessionStart,
    SessionStarted,
    ToolResult,
    decode_client_message,
    encode,
)
from dialog.voip.web.narrator import Narrator
from dialog.voip.web.recordings import Recordings
from dialog.voip.web.tokens import LONGEST_LIFE_S, Grant, SessionSecrets, SessionTokens, Ticket
from dialog.voip.web.tools import ToolCalls
from dialog.voip.web.voip import WebVoIP

__all__ = ["Refusal", "WebCall", "WebSettings", "WebSwitchboard"]

logger = logging.getLogger(__name__)

_KEPT: Final = 200
"""Messages that wait for a client whose connection broke."""
_USED_MAX: Final = 10_000


class Refusal(Exception):  # an answer, not a failure of ours
    """Why there is no session: what the client is told, and with what its socket is closed."""

    def __init__(self, close_code: int, code: str, message: str) -> None:
        super().__init__(message)
        self.close_code = close_code
        self.code = code


class WebSettings(Struct, frozen=True, kw_only=True):
    """How sessions are taken."""

    agents: Sequence[str] = ()
    """Names that may be asked for; empty: any, and none has to be."""
    allow_anybody: bool = False
    """Start sessions without a token."""
    resolver: Resolver | None = None
    resolver_timeout_s: float = 3.0
    call: CallSettings = CallSettings()
    close_timeout_s: float = 5.0
    recordings: Path | None = None
    """Where calls are recorded to, if they ask for it; ``None``: nowhere."""


class WebCall:
    """A call, its client's connection, and what that client is to be told."""

    def __init__(self, call_id: UUID, wire: MediaWire | None) -> None:
        self.call_id = call_id
        self.call: Call | None = None
        """``None`` until the session is accepted."""
        self.wire: MediaWire | None = wire
        """The connection; ``None`` while it is broken."""
        self.taken: asyncio.Future[None] | None = None
        self.tools: ToolCalls = ToolCalls(call_id, self.tell)
        self._narrator = Narrator()
        self._waiting: deque[ServerMessage] = deque(maxlen=_KEPT)
        self._begun = False
        """``session.started`` was sent on this connection: nothing comes before it."""

    def watch(self, voip: VoIP) -> None:
        """Tell the client of the call from now on."""
        voip.on(VoIP.EVENT, self._happened)
        voip.on(VoIP.PLAYBACK, self._played)
        voip.on(VoIP.ENDED, self._ended)

    def begin(self, wire: MediaWire, started: SessionStarted) -> None:
        """Tell the client on a new connection that its session goes on, and what it has missed."""
        old, self.wire = self.wire, wire
        if old is not None and old is not wire:
            old.fail(4409)
        wire.send_control(encode(started))
        self._begun = True
        while self._waiting:
            wire.send_control(encode(self._waiting.popleft()))

    def withdraw(self) -> None:
        """Its client cannot connect after all."""
        if self.call is not None:
            self.call.end("error", "the client could not be connected")

    def lost(self, wire: MediaWire) -> None:
        """A connection is gone."""
        if self.wire is wire:
            self.wire = None
            self._begun = False

    def tell(self, message: ServerMessage) -> None:
        """Tell the client, now or when it is back."""
        if self.wire is None or not self._begun:
            self._waiting.append(message)
        else:
            self.wire.send_control(encode(message))

    def _happened(self, event: CallEvent) -> None:
        for message in self._narrator.happened(event):
            self.tell(message)

    def _played(self, playback: Playback) -> None:
        for message in self._narrator.played(playback):
            self.tell(message)

    def _ended(self, end: CallEnd) -> None:
        self.tools.close()
        self.tell(SessionEnded(reason=end.reason))
        if self.wire is not None and self._begun:  # else whoever admits it says what is wrong
            self.wire.close()


class _LineWire:
    """What a line writes to. It is the session that closes the socket, after its last words."""

    __slots__ = ("_wire", "send_audio", "send_clear", "send_mark")

    def __init__(self, wire: MediaWire) -> None:
        self._wire = wire
        self.send_audio = wire.send_audio
        self.send_mark = wire.send_mark
        self.send_clear = wire.send_clear

    @property
    def rtt_s(self) -> float:
        return self._wire.rtt_s

    def close(self) -> None:
        """A line that has ended writes no more."""


class _Joined:
    """Where what a client sends goes."""

    __slots__ = ("_call", "_line", "_session", "_wire", "receive_audio", "receive_digit", "receive_mark", "scope")

    def __init__(self, session: WebCall, call: Call, line: Line, wire: MediaWire) -> None:
        self.scope: CallScope | None = call.scope
        self.receive_audio = line.receive_audio
        self.receive_mark = line.receive_mark
        self.receive_digit = line.receive_digit
        self._session = session
        self._call = call
        self._line = line
        self._wire = wire

    def receive_control(self, message: bytes) -> None:
        told = decode_client_message(message)
        if isinstance(told, ToolResult):
            self._session.tools.answered(told)

    def stopped(self) -> None:
        self._call.stream_stopped(self._line)

    def closed(self) -> None:
        self._session.lost(self._wire)
        self._call.stream_closed(self._line)


class WebSwitchboard:
    """All sessions of a gateway. It is the carrier of their calls, too: it has nothing to redirect."""

    def __init__(
        self,
        settings: WebSettings,
        tokens: SessionTokens,
        secrets: SessionSecrets,
        on_voip: Callable[[WebVoIP], object],
        *,
        workers: Workers | None = None,
        events: CallEvents | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        """``on_voip`` is called with every call that is taken, unless there are ``workers`` to take it."""
        self.events: CallEvents = CallEvents() if events is None else events
        self.clock = clock
        self.draining = False
        """New sessions are declined; those that are there go on."""
        self.closing = False
        self._settings = settings
        self.node = ""
        """Our name among the gateways that share sessions."""
        self._tokens = tokens
        self._secrets = secrets
        self._on_voip = on_voip
        self._workers = workers
        self._recordings = None if settings.recordings is None else Recordings(settings.recordings)
        self._sessions: dict[UUID, WebCall] = {}
        self._used: OrderedDict[UUID, float] = OrderedDict()
        """Calls that are over, whose token might come again."""

    @property
    def calls(self) -> tuple[Call, ...]:
        """The calls of which something is left, oldest first."""
        return tuple(session.call for session in self._sessions.values() if session.call is not None)

    def find(self, call_id: UUID) -> Call | None:
        """A call by its id."""
        session = self._sessions.get(call_id)
        return session.call if session is not None else None

    def holds(self, call_id: UUID) -> bool:
        """Whether a session is here, or was, as long as its token could come again."""
        return call_id in self._sessions or call_id in self._used

    def ticket(self, resume: SessionResume) -> Ticket:
        """What the secret says with which a client comes back.

        Raises:
            Refusal: We have not made it, or for another session.
        """
        try:
            return self._secrets.verify(resume.secret, resume.session)
        except RemoteProtocolError as exc:
            raise Refusal(4404, "unknown_session", "there is no such session (any more)") from exc

    async def start(
        self,
        start: SessionStart,
        wire: MediaWire,
        about: tuple[tuple[str, str], ...],
        used_elsewhere: Callable[[UUID], Awaitable[bool]],
    ) -> tuple[WebCall, SessionStarted]:
        """Admit a new session; :meth:`join` connects it. ``about`` its connection: address, origin.

        Raises:
            Refusal: There is none.
        """
        if self.closing or self.draining:
            raise Refusal(4503, "busy", "no sessions are taken at the moment")
        grant = self._grant(start)
        agent = grant.agent or start.agent
        if self._settings.agents and not agent:
            agent = self._settings.agents[0]
        if self._settings.agents and agent not in self._settings.agents:
            raise Refusal(4400, "unknown_agent", "there is no such agent")
        _check_tools(start)
        audio = next((each for each in start.audio if each in FORMATS), None)
        if audio is None:
            raise Refusal(4400, "audio_format", "none of the audio formats is spoken here")
        metadata = CallMetadata(
            call_id=grant.call_id,
            carrier="web",
            account_id=grant.account,
            from_=grant.user,
            to=agent,
            session=grant.session,
            client_tools=start.tools,
            parameters=(
                *grant.parameters.items(),
                *about,
                # Whatever a client says of itself is told apart from what the host has signed.
                *((f"client.{name}", value) for name, value in start.parameters.items()),
            ),
        )
        session = self._sessions[grant.call_id] = WebCall(grant.call_id, wire)
        try:
            if start.token and await used_elsewhere(grant.call_id):
                raise _used_before()  # noqa: TRY301  # what follows is undone alike
            return session, await self._admit(session, metadata, audio)
        except BaseException as exc:
            if session.call is not None:
                session.call.end(_reason(exc), str(exc))
            else:
                self._sessions.pop(grant.call_id, None)
                self._use(grant.call_id)
            raise

    def resume(self, resume: SessionResume) -> tuple[WebCall, SessionStarted]:
        """Find the session that a client comes back to; :meth:`join` connects it.

        Raises:
            Refusal: It is over, was never here, or is somebody else's.
        """
        self.ticket(resume)
        session = self._sessions.get(resume.session)
        if session is None or session.call is None or session.call.state == "ended":
            raise Refusal(4404, "unknown_session", "there is no such session (any more)")
        return session, self._started(session.call)

    async def adopt(self, ticket: Ticket, adoption: Adoption) -> None:
        """Go on with a session whose gateway is gone; if its taker fails, it is over."""
        session = self._sessions[ticket.call_id] = WebCall(ticket.call_id, None)
        call = self._make_call(session, adoption.metadata, ticket.audio, generation=ticket.generation)
        try:
            call.offer(partial(self._hand_over, session, adoption.take))
            if session.taken is not None:
                await asyncio.shield(session.taken)
        except (UserCodeError, NoWorker) as exc:
            logger.error("call %s: nobody goes on with it: %s", ticket.call_id, exc)  # noqa: TRY400
            call.end("error", str(exc))

    def join(self, session: WebCall, started: SessionStarted, wire: MediaWire) -> MediaEnd:
        """Connect a session to its client; a connection that it still has is closed.

        Raises:
            Refusal: The call has ended meanwhile.
        """
        call = session.call
        assert call is not None
        if call.state == "ended":
            raise Refusal(4404, "unknown_session", "the call has ended")
        session.begin(wire, started)
        try:
            line = call.join(_LineWire(wire), call.generation + 1)
        except StateError as exc:
            raise Refusal(4404, "unknown_session", "the call has ended") from exc
        return _Joined(session, call, line, wire)

    # The carrier of its calls.

    async def execute(self, call: Call, command: Command) -> CommandResult:
        """Use a tool of the client, or record; hanging up is up to the call.

        Raises:
            ClientToolError: The tool failed, or the client is gone.
            NotSupportedError: It is another command.
        """
        if isinstance(command, Hangup):
            return None
        if isinstance(command, UseClientTool):
            session = self._sessions.get(call.metadata.call_id)
            if session is None or call.state == "ended":
                raise ClientToolError("the client is gone")
            return await session.tools.use(command, self.clock)
        if isinstance(command, StartRecording | StopRecording | RemoveRecording):
            await self._record(call, command)
            return None
        raise NotSupportedError(
            f"call {call.metadata.call_id}: {type(command).__name__} is for telephones, not for browsers"
        )

    def download(self, url: str) -> AsyncIterator[bytes]:
        """The bytes of a recording.

        Raises:
            CarrierError: It is not there.
            NotSupportedError: Nothing is recorded, or not this.
        """
        if self._recordings is None:
            raise NotSupportedError(f"calls from browsers are not recorded here ({url})")
        return self._recordings.download(url)

    async def _record(self, call: Call, command: StartRecording | StopRecording | RemoveRecording) -> None:
        if self._recordings is None:
            raise NotSupportedError(
                f"call {call.metadata.call_id}: calls from browsers are recorded when the gateway is told where to: "
                "WebGateway(recordings=…)"
            )
        match command:
            case StartRecording():
                self._recordings.start(call)
            case StopRecording():
                self._recordings.stop(call)
            case RemoveRecording():
                await self._recordings.remove(call)

    async def wait_idle(self, timeout_s: float) -> bool:
        """Wait until every call has ended, at most ``timeout_s`` of the calls' clock; whether that came."""
        return await wait_idle(self.calls, self.clock, timeout_s)

    async def close(self) -> None:
        """End all calls and wait, within a bound, until nothing of them is left."""
        self.closing = True
        calls = self.calls
        for call in calls:
            call.end("shutdown", "the gateway was closed")
        waits = [asyncio.create_task(call.wait_closed(), name=f"close {call.metadata.call_id}") for call in calls]
        await wait_over(waits, self._settings.close_timeout_s)
        self._sessions.clear()

    def _grant(self, start: SessionStart) -> Grant:
        if start.token:
            try:
                grant = self._tokens.verify(start.token)
            except RemoteProtocolError as exc:
                raise Refusal(4401, "token", str(exc)) from exc
            if grant.call_id in self._sessions or grant.call_id in self._used:
                raise _used_before()
            return grant
        if not self._settings.allow_anybody:
            raise Refusal(4401, "token", "a session needs a token")
        return Grant(call_id=uuid4(), expires_at=0.0)

    async def _admit(self, session: WebCall, metadata: CallMetadata, audio: AudioFormat) -> SessionStarted:
        decision = await self._resolve(Offer(metadata))
        if not isinstance(decision, Accept):
            declined(self.events, metadata, type(decision).__name__.lower())
            raise _refusal(decision)
        if decision.session:
            metadata = replace(metadata, session=decision.session)
        call = self._make_call(session, metadata, audio)
        logger.info("call %s: a session with %s", metadata.call_id, metadata.to or "the agent")
        try:
            call.offer(partial(self._offer, session))
            if session.taken is not None:
                await asyncio.shield(session.taken)
        except UserCodeError as exc:
            logger.exception("call %s: nobody took it", metadata.call_id, exc_info=exc.__cause__)
            raise Refusal(1011, "error", "an error has occurred: the server's log says which") from exc
        except NoWorker as exc:
            logger.error("call %s: %s", metadata.call_id, exc)  # noqa: TRY400
            raise Refusal(4503, "busy", "no agent is free at the moment") from exc
        return self._started(call)

    def _make_call(self, session: WebCall, metadata: CallMetadata, audio: AudioFormat, *, generation: int = 0) -> Call:
        call = session.call = Call(
            metadata,
            self,
            settings=self._settings.call,
            clock=self.clock,
            voip_class=WebVoIP,
            audio_format=audio,
            events=self.events,
            on_closed=self._forget,
            generation=generation,
        )
        session.watch(call.voip)
        return call

    async def _resolve(self, offer: Offer) -> Decision:
        settings = self._settings
        if settings.resolver is None:
            return Accept()
        call_id = offer.metadata.call_id
        try:
            async with asyncio.timeout(settings.resolver_timeout_s):
                return await settings.resolver(offer)
        except TimeoutError as exc:
            logger.error("call %s: the resolver took more than %g s", call_id, settings.resolver_timeout_s)  # noqa: TRY400
            raise Refusal(4503, "busy", "the session could not be decided in time") from exc
        except Refusal:
            raise  # it is not even declined: another gateway has the session
        except Exception as exc:
            logger.exception("call %s: the resolver raised", call_id)
            raise Refusal(1011, "error", "an error has occurred: the server's log says which") from exc

    def _offer(self, session: WebCall, voip: VoIP) -> None:
        assert isinstance(voip, WebVoIP)
        if self._workers is not None:
            session.taken = self._workers.take(voip)
        else:
            self._on_voip(voip)

    def _hand_over(self, session: WebCall, taker: Taker, voip: VoIP) -> None:
        session.taken = taker(voip)

    def _started(self, call: Call) -> SessionStarted:
        call_id = call.metadata.call_id
        ticket = Ticket(
            call_id=call_id,
            node=self.node,
            generation=call.generation + 1,
            audio=call.voip.audio_format,
        )
        return SessionStarted(
            version=VERSION,
            session=call_id,
            secret=self._secrets.issue(ticket),
            audio=call.voip.audio_format,
            resumed=call.generation > 0,
            agent=call.metadata.to,
            resume_within_s=call.settings.lost_s,
        )

    def _forget(self, call: Call) -> None:
        call_id = call.metadata.call_id
        if self._sessions.pop(call_id, None) is not None:
            self._use(call_id)

    def _use(self, call_id: UUID) -> None:
        now = self.clock.now()
        self._used[call_id] = now + LONGEST_LIFE_S * self.clock.scale
        while self._used:
            oldest, until = next(iter(self._used.items()))
            if until > now and len(self._used) <= _USED_MAX:
                break
            del self._used[oldest]


def _refusal(decision: Declined) -> Refusal:
    """What a client is told of a session that is not wanted; after "busy" it may try again."""
    if decision == Reject("busy"):
        return Refusal(4503, "busy", "no sessions are taken at the moment")
    return Refusal(4403, "refused", decision.text if isinstance(decision, Say) else "the session was refused")


def _used_before() -> Refusal:
    return Refusal(4401, "token", "the session's token was used before")


def _check_tools(start: SessionStart) -> None:
    names = [each.name for each in start.tools]
    if len(set(names)) < len(names):
        raise Refusal(4400, "tools", "two tools have the same name")
    if any(each.parameters.get("type") != "object" for each in start.tools):
        raise Refusal(4400, "tools", "the parameters of a tool are a JSON Schema of the type object")


def _reason(failure: BaseException) -> str:
    """Why a call ends that nobody has taken."""
    if isinstance(failure, asyncio.CancelledError):
        return "caller_hangup"
    return "no_worker" if isinstance(failure, Refusal) and failure.code == "busy" else "error"

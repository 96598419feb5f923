"""One connection of a client, from its upgrade to its close, whatever server carries it."""

from __future__ import annotations

import asyncio
import logging

from dialog.errors import LimitError, RemoteProtocolError
from dialog.scope import CallScope
from dialog.voip.line import Line
from dialog.voip.refusals import Refusals
from dialog.voip.web.messages import (
    ClientMessage,
    DigitPressed,
    ErrorTold,
    MarkReached,
    Ping,
    Pong,
    SessionEnd,
    SessionResume,
    SessionStart,
    SessionStarted,
    ToolResult,
    encode,
)
from dialog.voip.web.stream import WebStream
from dialog.voip.web.switchboard import Refusal, WebCall, WebSwitchboard
from dialog.voip.wires import SocketWire

__all__ = ["WebSession"]

logger = logging.getLogger(__name__)

_LEAVES = (1000, 1001)
"""Close codes of a client that does not come back: it has hung up, or its page is gone."""


class WebSession:
    """Feeds a call's line with what its client sends.

    Args:
        switchboard: Where the calls are.
        stream: The protocol of this connection.
        wire: What the client is sent.
        about: The connection: address, origin.
        refusals: Counts what is refused.
    """

    def __init__(
        self,
        switchboard: WebSwitchboard,
        stream: WebStream,
        wire: SocketWire,
        about: tuple[tuple[str, str], ...],
        refusals: Refusals,
    ) -> None:
        self._switchboard = switchboard
        self._clock = switchboard.clock
        self._stream = stream
        self._wire = wire
        self._about = about
        self._refusals = refusals
        self._session: WebCall | None = None
        self._line: Line | None = None
        self._admission: asyncio.Task[None] | None = None

    @property
    def scope(self) -> CallScope | None:
        """Of the call, once it is connected."""
        if self._line is None or self._session is None or self._session.call is None:
            return None
        return self._session.call.scope

    def receive(self, text: str | bytes) -> None:
        """Take a text frame. What breaks the protocol closes the socket with 1008, and is logged."""
        if self._wire.closed:
            return  # on its way before the other side saw our close
        try:
            self._take(self._stream.receive(text, self._clock.now()))
        except RemoteProtocolError as exc:
            self._break(1008, "protocol", str(exc))
        except LimitError as exc:
            self._break(4429, "too_fast", str(exc))

    def receive_binary(self, data: bytes) -> None:
        """Take a binary frame: the caller's audio."""
        if self._wire.closed:
            return
        try:
            audio = self._stream.receive_audio(data, self._clock.now())
        except RemoteProtocolError as exc:
            self._break(1008, "protocol", str(exc))
        except LimitError as exc:
            self._break(4429, "too_fast", str(exc))
        else:
            if self._line is not None:
                self._line.receive_audio(audio, None)

    def refuse(self, code: int, reason: str) -> None:
        """Close the socket because of what the other side did."""
        if not self._wire.closed:
            self._refusals.sockets[code] += 1
            logger.warning("session %s: closing its socket with %d: %s", self._stream.name, code, reason)
            self._wire.fail(code)

    def peer_closes(self, code: int) -> None:
        """The client closes: a page that goes away hangs up, a connection that breaks may come back."""
        if code in _LEAVES:
            self._hang_up()

    def lose_patience(self) -> None:
        """Close a socket on which nothing has begun."""
        if self._stream.state == "new":
            self._break(4408, "timeout", "no session was started in time")

    def closed(self) -> None:
        """The socket is closed."""
        self._stream.state = "over"
        if self._admission is not None:
            self._admission.cancel()
        if self._session is not None:
            self._session.lost(self._wire)
            if self._line is not None and self._session.call is not None:
                self._session.call.stream_closed(self._line)
        self._wire.close()

    def _take(self, message: ClientMessage) -> None:
        match message:
            case MarkReached(name=name):
                if self._line is not None:
                    self._line.receive_mark(name)
            case ToolResult():
                if self._session is not None:
                    self._session.tools.answered(message)
            case Ping(id=number):
                self._wire.send_control(encode(Pong(number)))
            case DigitPressed(digit=digit):
                if self._line is not None:
                    self._line.receive_digit(digit)
            case SessionEnd():
                self._hang_up()
                self._wire.close()
            case SessionStart():
                self._admission = asyncio.get_running_loop().create_task(self._start(message), name="admit a session")
            case SessionResume():
                try:
                    self._join(*self._switchboard.resume(message))
                except Refusal as refusal:
                    self._break(refusal.close_code, refusal.code, str(refusal))

    async def _start(self, start: SessionStart) -> None:
        try:
            self._join(*await self._switchboard.start(start, self._wire, self._about))
        except Refusal as refusal:
            self._break(refusal.close_code, refusal.code, str(refusal))
        except Exception:  # nobody waits for this task: the client is told here
            logger.exception("session %s could not be started", self._stream.name)
            self._break(1011, "error", "an error has occurred")

    def _join(self, session: WebCall, started: SessionStarted) -> None:
        self._session = session
        self._stream.start(str(session.call_id), started.audio)
        self._line = self._switchboard.join(session, started, self._wire)

    def _hang_up(self) -> None:
        if self._session is not None and self._session.call is not None:
            self._session.call.stream_stopped(self._line)

    def _break(self, close_code: int, code: str, message: str) -> None:
        if not self._wire.closed:
            self._wire.send_control(encode(ErrorTold(code=code, message=message, fatal=True)))
            self.refuse(close_code, message)

"""One connection of a client, from its upgrade to its close, whatever server carries it."""

from __future__ import annotations

import asyncio
import logging

from dialog.errors import LimitError, RemoteProtocolError
from dialog.scope import CallScope
from dialog.voip.peers import MediaEnd, MediaWire
from dialog.voip.refusals import Refusals
from dialog.voip.web.exchange import Admitted, WebExchange
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
    ToolResult,
    encode,
)
from dialog.voip.web.stream import WebStream
from dialog.voip.web.switchboard import Refusal

__all__ = ["WebSession"]

logger = logging.getLogger(__name__)

_LEAVES = (1000, 1001)
"""Close codes of a client that does not come back: it has hung up, or its page is gone."""


class WebSession:
    """Feeds a call's line, here or at another gateway, with what a client sends.

    Args:
        exchange: Knows where the calls are.
        stream: The protocol of this connection.
        wire: What the client is sent.
        about: The connection: address, origin.
        refusals: Counts what is refused.
    """

    def __init__(
        self,
        exchange: WebExchange,
        stream: WebStream,
        wire: MediaWire,
        about: tuple[tuple[str, str], ...],
        refusals: Refusals,
    ) -> None:
        self._exchange = exchange
        self._clock = exchange.clock
        self._stream = stream
        self._wire = wire
        self._about = about
        self._refusals = refusals
        self._end: MediaEnd | None = None
        self._admission: asyncio.Task[None] | None = None

    @property
    def name(self) -> str:
        """The session's, for the log."""
        return self._stream.name

    @property
    def scope(self) -> CallScope | None:
        """Of the call, once it is connected, if it is here."""
        return None if self._end is None else self._end.scope

    async def admit(self, first: SessionStart | SessionResume) -> Admitted:
        """Decide by the client's first message.

        Raises:
            Refusal: It is not let in.
        """
        return await self._exchange.admit(first, self._wire, self._about)

    def join(self, admitted: Admitted) -> None:
        """Connect an admitted client; if its session is over by now it is told so."""
        self._stream.start(str(admitted.call_id), admitted.audio)
        try:
            self._end = admitted.join()
        except Refusal as refusal:
            self._break(refusal.close_code, refusal.code, str(refusal))

    def receive(self, text: str | bytes) -> None:
        """Take a text frame. What breaks the protocol closes the connection with 1008, and is logged."""
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
        self.receive_audio(data, None)

    def receive_audio(self, data: bytes, timestamp_ms: float | None) -> None:
        """Take the caller's audio; with a timestamp something before it may have been lost."""
        if self._wire.closed:
            return
        try:
            audio = self._stream.receive_audio(data, self._clock.now())
        except RemoteProtocolError as exc:
            self._break(1008, "protocol", str(exc))
        except LimitError as exc:
            self._break(4429, "too_fast", str(exc))
        else:
            if self._end is not None:
                self._end.receive_audio(audio, timestamp_ms)

    def refuse(self, code: int, reason: str) -> None:
        """Close the connection because of what the other side did."""
        if not self._wire.closed:
            self._refusals.sockets[code] += 1
            logger.warning("session %s: closing its connection with %d: %s", self.name, code, reason)
            self._wire.fail(code)

    def peer_closes(self, code: int) -> None:
        """The client closes: a page that goes away hangs up, a connection that breaks may come back."""
        if code in _LEAVES and self._end is not None:
            self._end.stopped()

    def lose_patience(self) -> None:
        """Close a connection on which nothing has begun."""
        if self._stream.state == "new":
            self._break(4408, "timeout", "no session was started in time")

    def closed(self) -> None:
        """The connection is closed."""
        self._stream.state = "over"
        if self._admission is not None:
            self._admission.cancel()
        if self._end is not None:
            self._end.closed()
        self._wire.close()

    def _take(self, message: ClientMessage) -> None:
        end = self._end
        match message:
            case Ping(id=number):
                self._wire.send_control(encode(Pong(number)))
            case SessionStart() | SessionResume():
                self._admission = asyncio.get_running_loop().create_task(self._start(message), name="admit a session")
            case SessionEnd():
                if end is not None:
                    end.stopped()
                self._wire.close()
            case _ if end is None:
                return
            case MarkReached(name=name):
                end.receive_mark(name)
            case DigitPressed(digit=digit):
                end.receive_digit(digit)
            case ToolResult():
                end.receive_control(encode(message))

    async def _start(self, first: SessionStart | SessionResume) -> None:
        try:
            self.join(await self.admit(first))
        except Refusal as refusal:
            self._break(refusal.close_code, refusal.code, str(refusal))
        except Exception:  # nobody waits for this task: the client is told here
            logger.exception("session %s could not be started", self.name)
            self._break(1011, "error", "an error has occurred: the server's log says which")

    def _break(self, close_code: int, code: str, message: str) -> None:
        if not self._wire.closed:
            self._wire.send_control(encode(ErrorTold(code=code, message=message, fatal=True)))
            self.refuse(close_code, message)

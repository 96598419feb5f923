"""A client of the browser's protocol in Python: for tests and scripts.

::

    async with WebCaller.connect("ws://127.0.0.1:8080/ws/realtime", token=token) as caller:
        await caller.wait_for(AgentTranscript, lambda said: said.state == "played")
        caller.say(audio)  # in caller.audio_format
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TypeVar

from aiohttp import ClientConnectionError, ClientSession, ClientWebSocketResponse, WSMsgType

from dialog.clock import SYSTEM_CLOCK, Clock
from dialog.errors import DialogError, StateError
from dialog.message import PCM_24K, AudioFormat, ClientTool
from dialog.voip.memory import MemoryLine
from dialog.voip.web.messages import (
    SUBPROTOCOL,
    VERSION,
    Clear,
    ClientMessage,
    DigitPressed,
    ErrorTold,
    Mark,
    MarkReached,
    ServerMessage,
    SessionEnd,
    SessionResume,
    SessionStart,
    SessionStarted,
    decode_server_message,
    encode,
)

__all__ = ["WebCaller", "WebRefused"]

MessageT = TypeVar("MessageT")
_WAIT_S = 10.0


_OUTBOX = 3000
"""Frames that may wait to be sent, a minute of audio: a server that reads nothing for so long fails the test."""


class WebRefused(DialogError):
    """The server closed the connection instead of starting a session."""

    code = "refused"

    def __init__(self, close_code: int, error: ErrorTold | None) -> None:
        super().__init__(f"closed with {close_code}: {error.message if error else 'no error was told'}")
        self.close_code = close_code
        self.error = error


class WebCaller:
    """Talks to an agent as a page does: it sends audio all the time, and plays what it gets at the pace of speech.

    Made by :meth:`connect`. Times are those of ``clock``.
    """

    def __init__(self, http: ClientSession, url: str, clock: Clock) -> None:
        self.messages: list[ServerMessage] = []
        """All that the server has said, audio and marks aside."""
        self.started: SessionStarted | None = None
        self.close_code: int | None = None
        """With what the server has closed the last connection."""
        self._http = http
        self._url = url
        self._clock = clock
        self._socket: ClientWebSocketResponse | None = None
        self._ears: list[MemoryLine] = []
        self._reader: asyncio.Task[None] | None = None
        self._outbox: asyncio.Queue[bytes | str] = asyncio.Queue(_OUTBOX)
        self._news = asyncio.Event()

    @classmethod
    @asynccontextmanager
    async def connect(
        cls,
        url: str,
        *,
        token: str = "",
        agent: str = "",
        audio: Sequence[AudioFormat] = (PCM_24K,),
        parameters: Mapping[str, str] | None = None,
        tools: Sequence[ClientTool] = (),
        origin: str = "",
        clock: Clock = SYSTEM_CLOCK,
    ) -> AsyncGenerator[WebCaller]:
        """Start a session; it is hung up in the end.

        A tool that is called comes as a ``ToolCall``; answer it with ``send(ToolResult(…))``.

        Raises:
            WebRefused: There is none.
            aiohttp.ClientError: The server is not there, or refuses the WebSocket.
        """
        async with ClientSession() as http:
            caller = cls(http, url, clock)
            start = SessionStart(
                version=VERSION,
                token=token,
                agent=agent,
                audio=tuple(audio),
                parameters=dict(parameters or {}),
                tools=tuple(tools),
            )
            try:
                await caller._open(start, origin)
                yield caller
            finally:
                await caller.hang_up()

    @property
    def audio_format(self) -> AudioFormat:
        """What is said and heard.

        Raises:
            StateError: No session was started.
        """
        if self.started is None:
            raise StateError("no session was started")
        return self.started.audio

    @property
    def heard_audio(self) -> bytes:
        """All audio that has sounded until now, without the silences between."""
        return b"".join(ear.heard_audio for ear in self._ears)

    @property
    def heard_ms(self) -> float:
        """How long that is."""
        return self.audio_format.ms(len(self.heard_audio))

    @property
    def speaking(self) -> bool:
        """Whether what was to be said is not all said yet."""
        return bool(self._ears) and self._ears[-1].speaking

    def say(self, audio: bytes) -> None:
        """Speak, at the pace of speech, and be silent afterwards."""
        self._ears[-1].say(audio)

    def press(self, digits: str) -> None:
        """Press keys."""
        for digit in digits:
            self.send(DigitPressed(digit))

    def send(self, message: ClientMessage) -> None:
        """Say something of the protocol."""
        self._outbox.put_nowait(encode(message).decode())

    async def wait_for(
        self, kind: type[MessageT], when: Callable[[MessageT], object] = lambda _: True, *, timeout_s: float = _WAIT_S
    ) -> MessageT:
        """The first message of a kind for which ``when`` holds, also if it has come already.

        Raises:
            TimeoutError: None comes within ``timeout_s`` real seconds.
            StateError: The connection is closed, and none has come.
        """
        async with asyncio.timeout(timeout_s):
            while True:
                for message in self.messages:
                    if isinstance(message, kind) and when(message):
                        return message
                if self._reader is None or self._reader.done():
                    raise StateError(f"closed with {self.close_code} without a {kind.__name__}")
                self._news.clear()
                await self._news.wait()

    async def drop(self) -> None:
        """Let the connection break, without a word."""
        socket, self._socket = self._socket, None
        if socket is not None and socket._response.connection is not None:
            transport = socket._response.connection.transport
            if transport is not None:
                transport.abort()
        await self._stop()

    async def resume(self) -> SessionStarted:
        """Come back on a new connection.

        Raises:
            WebRefused: The session is over.
        """
        assert self.started is not None
        session, secret = self.started.session, self.started.secret
        return await self._open(SessionResume(version=VERSION, session=session, secret=secret))

    async def hang_up(self) -> None:
        """End the session and close the connection; harmless when repeated."""
        if self._socket is not None and not self._socket.closed:
            try:
                await self._socket.send_str(encode(SessionEnd()).decode())
                await self._socket.close()
            except ClientConnectionError:
                pass  # the server was faster
        await self._stop()

    async def wait_closed(self, timeout_s: float = _WAIT_S) -> int:
        """Wait until the server has closed the connection; returns its code.

        Raises:
            TimeoutError: It does not within ``timeout_s`` real seconds.
        """
        if self._reader is not None:
            await asyncio.wait_for(asyncio.shield(self._reader), timeout_s)
        return self.close_code or 1006

    async def _open(self, first: SessionStart | SessionResume, origin: str = "") -> SessionStarted:
        headers = {"Origin": origin} if origin else {}
        socket = self._socket = await self._http.ws_connect(self._url, protocols=(SUBPROTOCOL,), headers=headers)
        await socket.send_str(encode(first).decode())
        error: ErrorTold | None = None
        async with asyncio.timeout(_WAIT_S):
            async for frame in socket:
                message = decode_server_message(frame.data)
                if message is not None:
                    self.messages.append(message)
                if isinstance(message, ErrorTold):
                    error = message
                elif isinstance(message, SessionStarted):
                    self.started = message
                    self._listen(socket, message)
                    return message
        self.close_code = socket.close_code
        raise WebRefused(socket.close_code or 1006, error)

    def _listen(self, socket: ClientWebSocketResponse, started: SessionStarted) -> None:
        ear = MemoryLine(clock=self._clock, audio_format=started.audio)
        self._ears.append(ear)
        self._outbox = asyncio.Queue(_OUTBOX)
        ear.attend(_Mouth(self._outbox))
        ear.pump()
        self._reader = asyncio.create_task(self._run(socket, ear, self._outbox), name="web caller")

    async def _run(self, socket: ClientWebSocketResponse, ear: MemoryLine, outbox: asyncio.Queue[bytes | str]) -> None:
        writer = asyncio.create_task(_write(socket, outbox), name="web caller speaks")
        try:
            async for frame in socket:
                if frame.type is WSMsgType.BINARY:
                    ear.send_audio(frame.data)
                elif frame.type is WSMsgType.TEXT:
                    self._take(decode_server_message(frame.data), ear)
        finally:
            self.close_code = socket.close_code
            writer.cancel()
            ear.close()
            await asyncio.gather(writer, return_exceptions=True)
            await ear.wait_closed()
            self._news.set()

    def _take(self, message: ServerMessage | None, ear: MemoryLine) -> None:
        if isinstance(message, Mark):
            ear.send_mark(message.name)
        elif isinstance(message, Clear):
            ear.send_clear()
        elif message is not None:
            self.messages.append(message)
            self._news.set()

    async def _stop(self) -> None:
        if self._reader is not None:
            await asyncio.wait([self._reader])


class _Mouth:
    """Where the ear's line would be: what the caller says and has heard goes to the server."""

    def __init__(self, outbox: asyncio.Queue[bytes | str]) -> None:
        self._outbox = outbox

    def receive_audio(self, data: bytes, timestamp_ms: float | None) -> None:
        del timestamp_ms  # it is continuous
        self._outbox.put_nowait(data)

    def receive_mark(self, name: str) -> None:
        self._outbox.put_nowait(encode(MarkReached(name)).decode())

    def receive_digit(self, digit: str) -> None:
        self._outbox.put_nowait(encode(DigitPressed(digit)).decode())


async def _write(socket: ClientWebSocketResponse, outbox: asyncio.Queue[bytes | str]) -> None:
    try:
        while True:
            what = await outbox.get()
            if isinstance(what, bytes):
                await socket.send_bytes(what)
            else:
                await socket.send_str(what)
    except ClientConnectionError:
        return  # the reader sees the end

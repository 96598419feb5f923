"""The base of every provider emulator: an HTTP and WebSocket server on loopback, with faults on demand.

::

    async with DeepgramEmulator(faults=Faults(refuse=429, times=1)) as emulator:
        stt = DeepgramSTT(api_key=emulator.api_key, base_url=emulator.url)

An emulator subclasses :class:`EmulatorServer`, gives its :meth:`~EmulatorServer.routes`, and speaks
WebSocket through :meth:`~EmulatorServer.websocket` and streamed bodies through
:meth:`~EmulatorServer.stream`, which apply the faults and record every frame.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Mapping
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

import msgspec
from aiohttp import WSCloseCode, WSMsgType, web

from dialog.net.listening import unlisten

__all__ = ["EmulatorServer", "EmulatorSocket", "EmulatorStream", "FaultDrop", "FaultGate", "Faults", "Frame", "Request"]

_GARBAGE = "\u2603 this is not JSON {{{"


@dataclass(slots=True, kw_only=True)
class Faults:
    """What goes wrong. Counts are of messages that the emulator sent on one connection.

    Change the fields, or replace the object on the emulator, while it runs: new requests see it.
    """

    times: int | None = None
    """How many requests meet the faults before all is well again; ``None``: all of them."""
    refuse: int = 0
    """Answer with this HTTP status (400, 401, 429, 500 …) instead of the handshake or the reply."""
    refuse_headers: Mapping[str, str] = field(default_factory=dict[str, str])
    """More headers of the refusal, for instance ``{"Retry-After": "1"}``."""
    hang: bool = False
    """Accept the connection and never answer the request."""
    drop_after: int | None = None
    """Cut the TCP connection instead of sending message ``drop_after``, counted from 0."""
    drop_after_bytes: int | None = None
    """Cut the TCP connection when so many bytes were received on it."""
    stall_after: int | None = None
    """Send nothing from message ``stall_after`` on, and keep the connection."""
    deaf_after: int | None = None
    """Stop reading after so many received messages: a slow consumer."""
    close_after: int | None = None
    """Close the WebSocket with ``close_code`` instead of sending message ``close_after``."""
    close_code: int = 1011
    close_reason: str = ""
    garbage_after: int | None = None
    """Send one frame that is not JSON before message ``garbage_after``."""
    unknown: bool = False
    """Send a message of an unknown type before every message."""
    drip_s: float = 0.0
    """Wait so long before every message: a slow provider."""

    def take(self) -> bool:
        """Whether the next request meets the faults; counts :attr:`times` down."""
        if self.times is None:
            return True
        if self.times <= 0:
            return False
        self.times -= 1
        return True


NO_FAULTS = Faults(times=0)


class FaultDrop(Exception):
    """The connection was cut on purpose; handlers just let it pass."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """An HTTP request that arrived, handshakes included."""

    at: float
    """When, by ``loop.time()``."""
    method: str
    path: str
    query: tuple[tuple[str, str], ...]
    headers: Mapping[str, str]
    body: bytes = b""

    def json(self) -> Any:
        """The body, decoded."""
        return msgspec.json.decode(self.body)

    def values(self, name: str) -> list[str]:
        """All values of a query parameter."""
        return [value for key, value in self.query if key == name]


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """A WebSocket message that arrived or was sent."""

    at: float
    """When, by ``loop.time()``."""
    data: bytes | str
    connection: int
    """Number of the connection, from 0."""
    sent: bool = False
    """By the emulator; else received."""

    def json(self) -> Any:
        """The text, decoded."""
        return msgspec.json.decode(self.data)


class FaultGate:
    """The faults of one connection: counts what is sent and says what happens instead."""

    def __init__(self, faults: Faults, closing: asyncio.Event, unknown: str) -> None:
        self.faults = faults
        self.sent: int = 0
        self._closing = closing
        self._unknown = unknown
        self._garbled = False

    @property
    def stalled(self) -> bool:
        """Whether nothing is sent any more."""
        return _reached(self.faults.stall_after, self.sent)

    async def before(self) -> tuple[str, ...]:
        """Wait as the faults demand before one message, and return what to send first.

        Raises:
            FaultDrop: The connection is to be cut now.
        """
        faults = self.faults
        if faults.drip_s:
            await asyncio.sleep(faults.drip_s)
        if _reached(faults.drop_after, self.sent):
            raise FaultDrop
        if self.stalled:
            await self._closing.wait()
            raise FaultDrop
        extra: tuple[str, ...] = ()
        if not self._garbled and _reached(faults.garbage_after, self.sent):
            self._garbled = True
            extra += (_GARBAGE,)
        if faults.unknown:
            extra += (self._unknown,)
        self.sent += 1
        return extra


def _reached(limit: int | None, count: int) -> bool:
    return limit is not None and count >= limit


class EmulatorSocket:
    """The server's end of one WebSocket: records frames and applies the faults."""

    def __init__(
        self, server: EmulatorServer, ws: web.WebSocketResponse, request: web.Request, gate: FaultGate
    ) -> None:
        self.request = request
        self.number: int = server.next_connection()
        self.received_bytes: int = 0
        self.received_count: int = 0
        self._server = server
        self._ws = ws
        self._gate = gate
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def response(self) -> web.StreamResponse:
        """What the handler returns."""
        return self._ws

    @property
    def closed(self) -> bool:
        """Whether nothing can be sent any more."""
        return self._ws.closed

    async def send(self, message: Any) -> None:
        """Send a text as it is, bytes as a binary frame, and anything else as JSON; nothing once closed.

        Raises:
            FaultDrop: A fault cut or closed the connection.
        """
        if not isinstance(message, str | bytes):
            message = msgspec.json.encode(message).decode()
        if self._ws.closed or self._gate.stalled:
            return  # a stalled provider goes on reading
        faults = self._gate.faults
        if _reached(faults.close_after, self._gate.sent):
            await self.close(faults.close_code, faults.close_reason)
            raise FaultDrop
        for item in (*await self._gate.before(), message):
            now = asyncio.get_running_loop().time()
            self._server.record(Frame(at=now, data=item, connection=self.number, sent=True))
            try:
                if isinstance(item, bytes):
                    await self._ws.send_bytes(item)
                else:
                    await self._ws.send_str(item)
            except ConnectionError as exc:
                raise FaultDrop from exc  # the client went away: the same to the handler

    async def close(self, code: int = WSCloseCode.OK, reason: str = "") -> None:
        """Close with a code and reason."""
        await self._ws.close(code=code, message=reason.encode())

    def drop(self) -> None:
        """Cut the TCP connection without a close frame, which a client sees as 1006."""
        if self.request.transport is not None:
            self.request.transport.abort()

    def start(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Work on something to send while the handler reads; it ends with the connection, and a fault cuts that."""
        task = asyncio.get_running_loop().create_task(work, name=f"{type(self._server).__name__}: {name}")
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and isinstance(task.exception(), FaultDrop) and not self._ws.closed:
            self.drop()

    async def finish(self) -> None:
        """Wait until all that was started is done."""
        await asyncio.gather(*self._tasks)

    async def give_up(self) -> None:
        """End all that was started."""
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def receive(self, timeout_s: float | None = None) -> bytes | str | None:
        """The next message, or ``None`` when the client has closed.

        Raises:
            TimeoutError: Nothing came within ``timeout_s``.
            FaultDrop: A fault cut the connection.
        """
        faults = self._gate.faults
        if _reached(faults.deaf_after, self.received_count):
            await self._server.closing.wait()
            raise FaultDrop
        message = await self._ws.receive(timeout_s)
        if message.type not in (WSMsgType.TEXT, WSMsgType.BINARY):
            return None
        data: bytes | str = message.data
        self.received_count += 1
        self.received_bytes += len(data)
        self._server.record(Frame(at=asyncio.get_running_loop().time(), data=data, connection=self.number))
        if _reached(faults.drop_after_bytes, self.received_bytes):
            raise FaultDrop
        return data

    async def __aiter__(self) -> AsyncIterator[bytes | str]:
        while (data := await self.receive()) is not None:
            yield data


class EmulatorStream:
    """A streamed HTTP body (server-sent events, audio) that applies the faults to every piece."""

    def __init__(self, response: web.StreamResponse, request: web.Request, gate: FaultGate) -> None:
        self._response = response
        self._request = request
        self._gate = gate

    @property
    def response(self) -> web.StreamResponse:
        """What the handler returns."""
        return self._response

    async def write(self, data: bytes | str) -> None:
        """Send one piece of the body.

        Raises:
            FaultDrop: A fault cut the connection.
        """
        for item in (*await self._gate.before(), data):
            try:
                await self._response.write(item.encode() if isinstance(item, str) else item)
            except ConnectionError as exc:
                raise FaultDrop from exc


@dataclass(slots=True)
class _Exchange:
    """What belongs to one request that is being answered."""

    gate: FaultGate
    response: web.StreamResponse | None = None


_current: ContextVar[_Exchange] = ContextVar("dialog_emulator_exchange")


class EmulatorServer:
    """A server on 127.0.0.1 that records what comes and misbehaves when told to.

    Use it with ``async with``, or with :meth:`start` and :meth:`close`. It runs in the caller's event
    loop; to give it a process of its own, start it there and print :attr:`url`.
    """

    max_body = 16_000_000
    """Largest accepted request body or WebSocket message, in bytes."""
    unknown: ClassVar[str] = '{"type":"SomethingNewFromTheProvider","level":3,"items":[{"a":null}]}'
    """A message that is well-formed for the provider's clients, and of a type that none of them knows."""

    def __init__(self, *, port: int = 0, faults: Faults | None = None, keep: int = 100_000) -> None:
        self.faults: Faults = faults or Faults(times=0)
        self.requests: deque[Request] = deque(maxlen=keep)
        """Every request, oldest first, also the refused ones."""
        self.frames: deque[Frame] = deque(maxlen=keep)
        """Every WebSocket message in both directions."""
        self.sockets: list[EmulatorSocket] = []
        """The WebSockets that are open now."""
        self.connections: int = 0
        """How many WebSockets were accepted so far."""
        self.closing: asyncio.Event = asyncio.Event()
        self._port = port
        self._runner: web.AppRunner | None = None
        self._waiters: list[tuple[Callable[[], object], asyncio.Future[None]]] = []

    def routes(self) -> Iterable[web.RouteDef]:
        """The routes of this emulator; subclasses say which."""
        return ()

    def faulty(self, request: web.Request) -> bool:  # noqa: ARG002
        """Whether this request may meet the faults; subclasses spare those that only prepare others."""
        return True

    def refusal(self, status: int, request: web.Request) -> web.Response:  # noqa: ARG002
        """The answer to a refused request; subclasses give it their provider's headers and body."""
        return web.json_response({"error": {"message": f"refused with {status}", "code": status}}, status=status)

    @property
    def url(self) -> str:
        """``http://127.0.0.1:port``, once started."""
        if self._runner is None:
            raise RuntimeError(f"{type(self).__name__} is not started: use 'async with'")
        return f"http://127.0.0.1:{self._port}"

    @property
    def ws_url(self) -> str:
        """``ws://127.0.0.1:port``, once started."""
        return "ws" + self.url.removeprefix("http")

    async def start(self) -> Self:
        """Listen; with port 0, on one that is free."""
        app = web.Application(client_max_size=self.max_body)
        app.add_routes(
            [web.route(route.method, route.path, self._guard(route.handler), **route.kwargs) for route in self.routes()]
        )
        # A request that nobody reads any more is cancelled, as streaming handlers of real servers are.
        self._runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=1.0)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self._port)
        await site.start()
        self._port = self._runner.addresses[0][1]
        return self

    async def close(self) -> None:
        """Cut all connections and stop; calling it again is harmless."""
        self.closing.set()
        for socket in tuple(self.sockets):
            socket.drop()
        if self._runner is not None:
            await unlisten(self._runner)
            self._runner = None

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @property
    def gate(self) -> FaultGate:
        """The faults of the request that the running handler answers."""
        return _current.get().gate

    def received(self, kind: type[bytes | str] | None = None) -> list[Frame]:
        """The messages that came from clients, all or only binary or text ones."""
        return [f for f in self.frames if not f.sent and (kind is None or isinstance(f.data, kind))]

    async def until(self, condition: Callable[[], object], timeout_s: float = 5.0) -> None:
        """Wait until ``condition`` holds; it is looked at whenever something arrives, leaves or closes.

        Raises:
            TimeoutError: It did not hold within ``timeout_s``.
        """
        if condition():
            return
        waiter = (condition, asyncio.get_running_loop().create_future())
        self._waiters.append(waiter)
        try:
            async with asyncio.timeout(timeout_s):
                await waiter[1]
        finally:
            self._waiters.remove(waiter)

    def record(self, frame: Frame) -> None:
        """Remember a frame, and wake who waits for it."""
        self.frames.append(frame)
        self.changed()

    def changed(self) -> None:
        """Let :meth:`until` look again; for subclasses whose own state changed."""
        for condition, future in self._waiters:
            if not future.done() and condition():
                future.set_result(None)

    def next_connection(self) -> int:
        """The number of a new WebSocket."""
        self.connections += 1
        return self.connections - 1

    @asynccontextmanager
    async def websocket(
        self, request: web.Request, *, headers: Mapping[str, str] | None = None, protocols: Iterable[str] = ()
    ) -> AsyncGenerator[EmulatorSocket]:
        """Accept a WebSocket; offers of compression are declined, as real clients must expect."""
        ws = web.WebSocketResponse(compress=False, max_msg_size=self.max_body, timeout=1.0, protocols=protocols)
        ws.headers.update(headers or {})
        await ws.prepare(request)
        socket = EmulatorSocket(self, ws, request, _current.get().gate)
        self.sockets.append(socket)
        self.changed()
        try:
            yield socket
        except FaultDrop:
            if not ws.closed:
                socket.drop()
        finally:
            try:
                await socket.give_up()
            finally:  # who has gone away may cancel the handler here
                self.sockets.remove(socket)
                self.changed()
        if not ws.closed:
            await ws.close()
        # aiohttp wants the prepared response back; the handler has it from here.
        _current.get().response = ws

    @asynccontextmanager
    async def stream(
        self, request: web.Request, *, headers: Mapping[str, str] | None = None
    ) -> AsyncGenerator[EmulatorStream]:
        """Begin a streamed 200 response; a fault ends it without its terminator."""
        response = web.StreamResponse(headers=headers)
        await response.prepare(request)
        _current.get().response = response
        try:
            yield EmulatorStream(response, request, _current.get().gate)
        except FaultDrop:
            if request.transport is not None:
                request.transport.abort()
        else:
            await response.write_eof()

    def _guard(self, handler: Any) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def guarded(request: web.Request) -> web.StreamResponse:
            faults = self.faults if self.faulty(request) and self.faults.take() else NO_FAULTS
            exchange = _Exchange(FaultGate(faults, self.closing, self.unknown))
            _current.set(exchange)
            body = await request.read() if request.can_read_body else b""
            self.requests.append(
                Request(
                    at=asyncio.get_running_loop().time(),
                    method=request.method,
                    path=request.path,
                    query=tuple(request.query.items()),
                    headers=request.headers.copy(),
                    body=body,
                )
            )
            self.changed()
            if faults.hang:
                await self.closing.wait()
                raise web.HTTPServiceUnavailable
            if faults.refuse:
                response = self.refusal(faults.refuse, request)
                response.headers.update(faults.refuse_headers)
                return response
            answer: web.StreamResponse | None = await handler(request)
            answer = answer or exchange.response
            assert answer is not None, f"the handler of {request.path} gave no response"
            return answer

        return guarded

"""Calls for programs that know no event loop: a server in the background, and threads that hold calls."""

from __future__ import annotations

import asyncio
import logging
import ssl
import threading
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Protocol, Self

from aiohttp import web

from dialog.agent.scripts.blocking import BlockingCall, LoopCalls
from dialog.agent.scripts.call import ScriptCall
from dialog.agent.scripts.dialling import Dialler, Providers, place
from dialog.agent.scripts.script import Script
from dialog.agent.settings import AgentSettings
from dialog.errors import ConfigurationError, StateError, Timeout
from dialog.loop import new_event_loop
from dialog.net.listening import listen, unlisten
from dialog.stt.stt import STT
from dialog.tts.tts import TTS
from dialog.voip.answering import MachineDetection
from dialog.voip.line import Tap
from dialog.voip.listening_in import play_on_speakers
from dialog.voip.voip import VoIP

__all__ = ["BackgroundServer", "ServedGateway"]

logger = logging.getLogger(__name__)

_START_S = 30.0
_LEAVE_S = 2.0
"""A carrier may take so long to end a call."""
_STOP_S = 15.0
"""A gateway closes within its own bound; this is for one that does not."""


class ServedGateway(Dialler, Protocol):
    """A gateway that is served here, and can place calls."""

    def add_routes(self, app: web.Application) -> None:
        """Add its routes, and its start and end."""
        ...

    def on(self, event: Any, listener: Any) -> Any:
        """Call ``listener`` with the VoIP of every call that comes in."""
        ...

    def off(self, event: Any, listener: Any) -> None:
        """Stop calling ``listener``."""
        ...

    def add_tap(self, voip: Any, tap: Tap) -> None:
        """Let ``tap`` hear both sides of a call from now on."""


class BackgroundServer:
    """Serves a gateway beside ordinary code, which dials and answers with calls that block.

    ::

        with BackgroundServer(gateway, stt=make_stt, tts=make_tts) as server:
            with server.dial("+15550123", from_="+15550100") as call:
                call.say("Hello, this is Luigi's.")

    Any number of threads may dial and accept at the same time. Every call gets providers of its own, and nothing of
    one call is left when the next begins.

    Args:
        gateway: Served here, unless ``port`` is ``None``.
        tts: Makes the voice of each call.
        stt: Makes who listens; without one nobody does.
        settings: How turns are taken, and the rest.
        incoming: So many calls that come in may wait until :meth:`accept` takes them; 0: none is answered here.
        host: Address to listen at.
        port: And port; 0: any free one; ``None``: the host serves the gateway itself.
        tls: Certificate and key, unless a proxy in front has them.
        monitor: Play both sides of every call on this machine's speakers.

    Raises:
        ConfigurationError: ``incoming`` is negative.
    """

    def __init__(
        self,
        gateway: ServedGateway,
        *,
        tts: Callable[[], TTS],
        stt: Callable[[], STT] | None = None,
        settings: AgentSettings | None = None,
        incoming: int = 0,
        host: str = "0.0.0.0",  # noqa: S104 - a server is there to be reached
        port: int | None = 8080,
        tls: ssl.SSLContext | None = None,
        monitor: bool = False,
    ) -> None:
        if incoming < 0:
            raise ConfigurationError(f"incoming must not be negative, got {incoming}")
        self._gateway = gateway
        self._providers = Providers(stt, tts, settings)
        self._incoming = incoming
        self._host = host
        self._port = port
        self._tls = tls
        self._monitor = monitor
        self._lock = threading.Lock()
        self._calls: LoopCalls | None = None
        self._thread: threading.Thread | None = None
        self._stopping: asyncio.Event | None = None
        self._runner: web.AppRunner | None = None
        self._waiting: deque[ScriptCall] = deque()
        """Calls that came in, and that nobody has taken yet."""
        self._arrived: asyncio.Condition | None = None
        self._made: list[ScriptCall] = []
        """Calls of this server that may go on."""
        self.bound_port: int = 0
        """Where it listens, once it was started."""

    # -- life -------------------------------------------------------------------------------------

    def start(self, loop: asyncio.AbstractEventLoop | None = None) -> None:
        """Serve from now on: in a thread of its own, or on ``loop``, which runs in another thread. Waits until it does.

        Raises:
            StateError: It was started already, or this is the thread of ``loop``.
            ConfigurationError: The address cannot be listened at.
        """
        with self._lock:
            if self._calls is not None:
                raise StateError("the server was started already")
            if loop is not None:
                calls = LoopCalls(loop)
                calls.run(self._open(), _START_S)
            else:
                calls = self._start_thread()
            self._calls = calls

    def shutdown(self) -> None:
        """End the calls that are there, and the server; calling it again is harmless.

        Threads that wait in a call get :class:`CallHungUp`, those that wait for one :class:`StateError`.
        """
        with self._lock:
            calls, self._calls = self._calls, None
            if calls is None:
                return
            try:
                calls.run(self._close(), _STOP_S)
            finally:
                calls.close()
                if self._thread is not None:
                    assert self._stopping is not None
                    calls.loop.call_soon_threadsafe(self._stopping.set)
                    self._thread.join(_STOP_S)
                    self._thread = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()

    # -- calls ------------------------------------------------------------------------------------

    def dial(
        self,
        to: str,
        *,
        from_: str,
        ring_s: float = 30.0,
        machine_detection: MachineDetection | None = None,
        send_digits: str = "",
        parameters: Mapping[str, str] | None = None,
    ) -> BlockingCall:
        """Call somebody, and wait until they have answered; see :func:`~dialog.agent.scripts.dialling.dial`.

        Raises:
            CallNotAnswered: Nobody answered, or a machine did that is to be hung up on or left a message.
            StateError: The server does not run; and whatever :func:`~dialog.agent.scripts.dialling.dial` raises.
        """
        calls = self._running
        placed = calls.run(
            place(
                self._gateway,
                self._hold,
                to,
                from_=from_,
                ring_s=ring_s,
                machine_detection=machine_detection,
                send_digits=send_digits,
                parameters=parameters,
            )
        )
        return BlockingCall(placed, calls)

    def accept(self, timeout_s: float | None = None) -> BlockingCall:
        """Wait for a call that comes in, and take it; those that have waited longest come first.

        Raises:
            Timeout: None came within ``timeout_s``.
            StateError: The server does not run, or has no ``incoming``.
        """
        if not self._incoming:
            raise StateError("this server answers no calls: give it incoming=…")
        calls = self._running
        return BlockingCall(calls.run(self._accept(timeout_s)), calls)

    @property
    def _running(self) -> LoopCalls:
        calls = self._calls
        if calls is None:
            raise StateError("the server does not run: start() it")
        return calls

    # -- on the loop ------------------------------------------------------------------------------

    def _start_thread(self) -> LoopCalls:
        started = threading.Event()
        outcome: list[LoopCalls | BaseException] = []

        async def main() -> None:
            self._stopping = asyncio.Event()
            try:
                await self._open()
                outcome.append(LoopCalls(asyncio.get_running_loop()))
            finally:
                started.set()
            await self._stopping.wait()

        def run() -> None:
            try:
                with asyncio.Runner(loop_factory=new_event_loop) as runner:
                    runner.run(main())
            except BaseException as exc:  # told to whoever starts it
                if started.is_set() and outcome:
                    logger.exception("the loop of the calls has failed")
                outcome.append(exc)
            finally:
                started.set()

        # A program that ends without a shutdown must not hang.
        thread = threading.Thread(target=run, name="dialog calls", daemon=True)
        thread.start()
        started.wait()
        if not outcome:
            thread.join()
        first = outcome[0]
        if not isinstance(first, LoopCalls):
            raise first
        self._thread = thread
        return first

    async def _open(self) -> None:
        self._arrived = asyncio.Condition()
        if self._incoming:
            self._gateway.on("voip", self._take)
        if self._port is None:
            return
        app = web.Application()
        self._gateway.add_routes(app)
        runner = web.AppRunner(app, access_log=None)
        try:
            await runner.setup()
            await listen(runner, self._host, self._port, tls=self._tls)
        except BaseException:
            await unlisten(runner)
            raise
        self._runner = runner
        self.bound_port = runner.addresses[0][1]

    async def _close(self) -> None:
        runner, self._runner = self._runner, None
        self._gateway.off("voip", self._take)
        self._waiting.clear()
        made, self._made = self._made, []
        for call in made:
            if not call.is_disconnected:
                call.request_disconnect("shutdown")
        if runner is not None:
            await unlisten(runner)  # which closes the gateway
        for call in made:
            await call.wait_over(_LEAVE_S)

    def _take(self, voip: VoIP) -> None:
        """A call has come in: it waits for somebody who accepts it."""
        if voip.metadata.direction == "outbound":
            return
        self._forget_gone()
        call = self._hold(voip).call
        if len(self._waiting) >= self._incoming:
            logger.warning("call %s: %d calls wait already: hung up", voip.metadata.call_id, len(self._waiting))
            call.request_disconnect("busy")
            return
        self._waiting.append(call)
        voip.spawn(self._tell(), "telling of a call")

    def _hold(self, voip: VoIP) -> Script:
        script = self._providers.script(voip)
        if self._monitor:
            play_on_speakers(self._gateway, voip)
        self._made = [*(call for call in self._made if not call.is_disconnected), script.call]
        return script

    async def _tell(self) -> None:
        assert self._arrived is not None
        async with self._arrived:
            self._arrived.notify()

    async def _accept(self, timeout_s: float | None) -> ScriptCall:
        assert self._arrived is not None
        try:
            async with asyncio.timeout(timeout_s), self._arrived:
                while True:
                    self._forget_gone()
                    if self._waiting:
                        return self._waiting.popleft()
                    await self._arrived.wait()
        except TimeoutError:
            raise Timeout(f"no call came in within {timeout_s:g} s") from None

    def _forget_gone(self) -> None:
        """Callers who have hung up wait no more."""
        self._waiting = deque(call for call in self._waiting if not call.is_disconnected)

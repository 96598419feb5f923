"""What calls share: one TLS context per process, and per event loop one HTTP session and one of each SDK client.

A TLS context costs about 30 ms and 0.9 MB to make, an SDK client as much again: made per call they
would cost three times what a whole call may. Whoever needs one takes a lease and releases it; the
last release closes the thing, so nothing outlives its users or its loop::

    lease = shared.session()
    try:
        async with lease.value.get(url) as response: ...
    finally:
        await lease.release()
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Hashable
from contextvars import ContextVar
from functools import cache
from typing import Any, Generic, TypeVar, cast
from weakref import WeakKeyDictionary

import aiohttp

from dialog.version import __version__

__all__ = ["Lease", "client", "refusal_body", "session", "ssl_context", "upgrades"]

T = TypeVar("T")
ClientT = TypeVar("ClientT")

_SESSION = "aiohttp session"
_UPGRADES = "aiohttp session for WebSockets"


class _Shared(Generic[T]):
    __slots__ = ("close", "users", "value")

    def __init__(self, value: T, close: Callable[[T], Awaitable[object]] | None) -> None:
        self.value = value
        self.close = close
        self.users = 0


_loops: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[Hashable, _Shared[Any]]] = WeakKeyDictionary()


class Lease(Generic[T]):
    """The right to use a shared thing until :meth:`release`."""

    __slots__ = ("_key", "_loop", "_shared", "value")

    def __init__(self, loop: asyncio.AbstractEventLoop, key: Hashable, shared: _Shared[T]) -> None:
        self.value = shared.value
        """The shared thing; never close it yourself."""
        self._loop = loop
        self._key = key
        self._shared: _Shared[T] | None = shared
        shared.users += 1

    async def release(self) -> None:
        """Give it back; the loop's last user closes it. Calling it again is harmless."""
        shared = self._shared
        self._shared = None
        if shared is None:
            return
        shared.users -= 1
        if shared.users:
            return
        # Forgotten before it is closed: whoever comes meanwhile gets a new one.
        things = _loops.get(self._loop, {})
        things.pop(self._key, None)
        if shared.close is not None:
            await shared.close(shared.value)


@cache
def ssl_context() -> ssl.SSLContext:
    """The one TLS context of this process, for everything that connects out."""
    return ssl.create_default_context()


def session() -> Lease[aiohttp.ClientSession]:
    """The running loop's HTTP session: no cookies, no limit on connections, no total time-out.

    Raises:
        RuntimeError: No event loop is running.
    """
    return client(_SESSION, _new_session, close=aiohttp.ClientSession.close)


def client(
    key: Hashable, factory: Callable[[], ClientT], *, close: Callable[[ClientT], Awaitable[object]] | None = None
) -> Lease[ClientT]:
    """The running loop's client for ``key``, made by ``factory`` when it is the first to ask.

    Args:
        key: What tells clients apart: kind, base URL, credentials, options.
        factory: Makes the client. It is called at most once while anybody uses the result.
        close: Closes the client after its last user.

    Raises:
        RuntimeError: No event loop is running.
    """
    loop = asyncio.get_running_loop()
    things = _loops.setdefault(loop, {})
    shared = things.get(key)
    if shared is None:
        shared = things[key] = _Shared[Any](factory(), close)
    return Lease(loop, key, cast(_Shared[ClientT], shared))


def upgrades() -> Lease[aiohttp.ClientSession]:
    """The running loop's session for WebSockets, on the connections of :func:`session`.

    It keeps the body of a refusal (see :data:`refusal_body`), for which aiohttp traces every request;
    plain requests are spared that.

    Raises:
        RuntimeError: No event loop is running.
    """
    plain: list[Lease[aiohttp.ClientSession]] = []

    def make() -> aiohttp.ClientSession:
        plain.append(session())
        trace = aiohttp.TraceConfig()
        trace.on_request_end.append(_keep_refusal)
        return _new_session(plain[0].value.connector, [trace])

    async def close(upgrading: aiohttp.ClientSession) -> None:
        await upgrading.close()
        await plain[0].release()

    return client(_UPGRADES, make, close=close)


def _new_session(
    connector: aiohttp.BaseConnector | None = None, traces: list[aiohttp.TraceConfig] | None = None
) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=connector
        or aiohttp.TCPConnector(
            limit=0,
            limit_per_host=0,
            ttl_dns_cache=300,
            # A caller may think for a while: the next turn should not pay for TCP and TLS again.
            keepalive_timeout=75.0,
            ssl=ssl_context(),
        ),
        connector_owner=connector is None,
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=10.0),
        headers={"User-Agent": f"dialog/{__version__}"},
        trace_configs=traces,
    )


_MAX_REFUSAL = 4096
"""Bytes of a refusal's body that are read for the error message."""

refusal_body: ContextVar[list[str] | None] = ContextVar("dialog_refusal_body", default=None)
"""A list set here by whoever upgrades a connection receives the body of a refusal, which aiohttp drops."""


async def _keep_refusal(
    _session: aiohttp.ClientSession, _context: object, params: aiohttp.TraceRequestEndParams
) -> None:
    wanted = refusal_body.get()
    if wanted is not None and params.response.status != 101:
        text = await params.response.content.read(_MAX_REFUSAL)
        wanted.append(text.decode("utf-8", "replace"))

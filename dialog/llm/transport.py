"""Two ways to send a streaming request: Dialog's own connections, and a client somebody configured.

Both give the raw bytes of the body, so one decoder serves both. On loopback a request reaches the
server 0.1 ms after it was asked for, through aiohttp 0.3 ms after; through openai 3.52 it costs 4.5 ms
of CPU, and importing the SDK takes 24 MB and half a second.
"""

from __future__ import annotations

import asyncio
import logging
from base64 import b64encode
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Protocol

import msgspec
from multidict import CIMultiDict
from yarl import URL

from dialog.errors import ProviderError
from dialog.net.connections import HttpConnections, HttpReply, Origin
from dialog.net.http1 import BadResponseError, request_head
from dialog.net.urls import http_url, join
from dialog.version import __version__

__all__ = ["ClientTransport", "HttpTransport", "Reply", "Transport"]

logger = logging.getLogger(__name__)

_DRAIN_S = 0.1
"""How long the end of a finished body is waited for, so that its connection can serve again."""
_CONNECT_S = 5.0


class Reply(Protocol):
    """An answer whose body is still coming."""

    status: int
    headers: Mapping[str, str]

    async def read(self) -> bytes:
        """Return the next bytes, ``b""`` at the end.

        Raises:
            ProviderError: The connection broke.
        """
        ...

    async def close(self, *, reuse: bool) -> None:
        """Stop the request at once, or keep the connection when its body was read (``reuse``)."""
        ...


class Transport(Protocol):
    """Something that sends a request."""

    async def post(self, fields: Mapping[str, Any]) -> Reply:
        """Send a request and return the beginning of its answer, whatever its status.

        Raises:
            ProviderError: There was no answer.
        """
        ...

    async def warm(self) -> None:
        """Open a connection, so that the next request finds it open; failures are raised."""
        ...


class HttpTransport:
    """Requests over the connections of the event loop.

    Args:
        provider: Name for errors.
        connections: Send the requests; they are not closed here.
        base_url: For instance ``https://api.openai.com/v1``; ``ws(s)://`` is read as ``http(s)://``.
        path: What is posted to, below ``base_url``.
        headers: Of every request, among them the credentials.
        query: Parameters of every request.

    Raises:
        ConfigurationError: ``base_url`` is no URL, or a header holds what a header may not hold.
    """

    def __init__(
        self,
        provider: str,
        connections: HttpConnections,
        *,
        base_url: str,
        path: str,
        headers: Mapping[str, str],
        query: Mapping[str, str],
    ) -> None:
        self._provider = provider
        self._connections = connections
        base = http_url(base_url)
        self._url = URL(join(base, path, query))
        self._warm_url = URL(join(base, "models", query))
        self._origin = Origin.of(self._url)
        all_headers = CIMultiDict(_default_headers(self._url))
        for name, value in headers.items():
            all_headers[name] = value
        # The same for every request of a call, so it is made once.
        self._head = request_head("POST", self._url.raw_path_qs, all_headers)
        self._warm_head = request_head("HEAD", self._warm_url.raw_path_qs, all_headers)

    async def post(self, fields: Mapping[str, Any]) -> Reply:
        """See :meth:`Transport.post`."""
        body = msgspec.json.encode(fields)
        request = b"%bContent-Length: %d\r\n\r\n%b" % (self._head, len(body), body)
        try:
            reply = await self._connections.request(self._origin, request, connect_s=_CONNECT_S)
        except (OSError, BadResponseError) as exc:
            raise _no_answer(self._provider, self._url, exc) from exc
        return _HttpReply(self._provider, reply)

    async def warm(self) -> None:
        """See :meth:`Transport.warm`. A HEAD has no body, so the connection is free at once."""
        try:
            async with asyncio.timeout(_CONNECT_S):
                reply = await self._connections.request(
                    self._origin, self._warm_head + b"\r\n", connect_s=_CONNECT_S, bodiless=True
                )
        except (OSError, BadResponseError) as exc:
            raise _no_answer(self._provider, self._warm_url, exc) from exc
        reply.abort()


def _default_headers(url: URL) -> dict[str, str]:
    headers = {
        "Host": url.raw_authority.rpartition("@")[2],
        "User-Agent": f"dialog/{__version__}",
        "Content-Type": "application/json",
        "Accept": "text/event-stream",
        "Accept-Encoding": "identity",  # a compressor would hold tokens back
    }
    if url.user is not None:
        login = f"{url.user}:{url.password or ''}"
        headers["Authorization"] = f"Basic {b64encode(login.encode()).decode()}"
    return headers


class _HttpReply:
    __slots__ = ("_provider", "_reply", "headers", "status")

    def __init__(self, provider: str, reply: HttpReply) -> None:
        self.status = reply.status
        self.headers: Mapping[str, str] = reply.headers
        self._provider = provider
        self._reply = reply

    async def read(self) -> bytes:
        try:
            return await self._reply.read()
        except (OSError, BadResponseError) as exc:
            raise _broken(self._provider, exc) from exc

    async def close(self, *, reuse: bool) -> None:
        if reuse and not self._reply.done:
            try:
                async with asyncio.timeout(_DRAIN_S):
                    while await self._reply.read():
                        continue  # nothing counts behind the terminator
            except (OSError, BadResponseError) as exc:
                logger.debug("%s: the end of a body did not come: %r", self._provider, exc)
        self._reply.abort()  # as a whole the answer has given its connection back


class ClientTransport:
    """Requests through a vendor's SDK client that the user configured: its key, proxy, retries.

    Args:
        provider: Name for errors.
        client: Stays open: it is its owner's.
        ask: Asks it: given the fields of a request, which it may change, and headers, query and time
            limit, it returns the async context manager of a streamed raw response.
        headers: Added to the client's own.
        query: Added to the client's own.
        timeout_s: Between two pieces of the body; the client's own is ten minutes.
    """

    def __init__(
        self,
        provider: str,
        client: Any,
        ask: Callable[[dict[str, Any], Mapping[str, Any]], Any],
        *,
        headers: Mapping[str, str],
        query: Mapping[str, str],
        timeout_s: float,
    ) -> None:
        self._provider = provider
        self._client = client
        self._ask = ask
        self._extra = {"extra_headers": dict(headers), "extra_query": dict(query), "timeout": timeout_s}

    async def post(self, fields: Mapping[str, Any]) -> Reply:
        """See :meth:`Transport.post`."""
        manager = self._ask(dict(fields), self._extra)
        try:
            response = await manager.__aenter__()
        except Exception as exc:  # any SDK version, any HTTP library below it
            status = getattr(exc, "status_code", None)
            answer = getattr(exc, "response", None)
            if isinstance(status, int) and answer is not None:
                return _RefusedReply(status, answer.headers, answer.content)
            reason = f"no answer ({type(exc).__name__}): check the client's base_url, proxy and network"
            raise ProviderError(self._provider, reason, retryable=True) from exc
        return _ClientReply(self._provider, manager, response)

    async def warm(self) -> None:
        """See :meth:`Transport.warm`."""
        try:
            async with self._client.models.with_streaming_response.list(timeout=_CONNECT_S) as response:
                await response.read()
        except Exception as exc:  # as in post
            raise ProviderError(self._provider, f"no connection ({type(exc).__name__})", retryable=True) from exc


class _ClientReply:
    def __init__(self, provider: str, manager: Any, response: Any) -> None:
        self.status = int(response.status_code)
        self.headers: Mapping[str, str] = response.headers
        self._provider = provider
        self._manager = manager
        self._body: AsyncIterator[bytes] = response.iter_bytes()

    async def read(self) -> bytes:
        try:
            return await anext(self._body, b"")
        except Exception as exc:  # the SDK lets the errors of its HTTP library through here
            raise _broken(self._provider, exc) from exc

    async def close(self, *, reuse: bool) -> None:
        try:
            if reuse:
                async with asyncio.timeout(_DRAIN_S):
                    while await self.read():
                        continue
        except (TimeoutError, ProviderError):
            reuse = False  # the connection is spent; closing drops it
        finally:
            await self._manager.__aexit__(None, None, None)


class _RefusedReply:
    """An error status whose body the SDK has already read."""

    def __init__(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.status = status
        self.headers = headers
        self._body = body

    async def read(self) -> bytes:
        body, self._body = self._body, b""
        return body

    async def close(self, *, reuse: bool) -> None:
        """Nothing is open."""


def _no_answer(provider: str, url: URL, exc: Exception) -> ProviderError:
    # A query may hold a key: the address is named without it.
    reason = f"no answer from {url.with_query(None).with_user(None)} ({type(exc).__name__}: {exc})"
    return ProviderError(provider, reason, retryable=True)


def _broken(provider: str, exc: Exception) -> ProviderError:
    return ProviderError(provider, f"the connection broke in the middle of the reply ({exc!r})", retryable=True)

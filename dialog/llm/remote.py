"""What all models behind an HTTP server share: connections, time limits, retries, the end of a stream."""

from __future__ import annotations

import asyncio
import logging
from abc import abstractmethod
from collections.abc import AsyncIterator, Callable, Hashable, Mapping, Sequence
from typing import Any, ClassVar, NoReturn

from dialog.errors import ConfigurationError, ProviderError, StateError
from dialog.llm.decoding import Decoder
from dialog.llm.llm import LLM, LLMEvent, LLMRequest, ToolSpec
from dialog.llm.refusals import asked_wait_s, error_from_response
from dialog.llm.transport import ClientTransport, HttpTransport, Reply, Transport
from dialog.net.connections import HttpConnections, connections
from dialog.net.shared import Lease
from dialog.net.urls import http_url
from dialog.watchdog import Watchdog

__all__ = ["AskAgain", "RemoteLLM"]

logger = logging.getLogger(__name__)

_AFTER_FINISH_S = 1.0
"""How long usage and terminator may trail the finish reason."""
_ERROR_BYTES = 65_536
_BACKOFF_S = 0.25


class RemoteLLM(LLM):
    """A model that is asked by a POST and answers with server-sent events.

    A subclass says what is particular to its API: :attr:`path`, :meth:`credentials`,
    :meth:`fields`, :meth:`decoder`, :meth:`ask_client`.

    Requests go over connections that all models of the loop share; a vendor's SDK is neither needed
    nor imported unless a ``client`` is given. Constructing it does no I/O.

    Args:
        api_key: Of the account; may be empty for a server that wants none.
        model: The model's name.
        client: The vendor's async SDK client of yours, with its key, base URL, proxy and retries; it
            is used as it is and stays yours to close.
        base_url: ``ws(s)://`` is read as ``http(s)://``.
        options: More fields of the request, sent as they are, also unknown ones; they win over
            Dialog's own, and ``None`` removes one.
        headers: Added to every request.
        query: Parameters added to every request's address.
        timeout_s: Until the first sign of life, retries included, and between two.
        max_retries: How often a request is sent again after a failure that may pass (no connection,
            408, 409, 429, 5xx), before anything of the reply came; never later. A ``client`` has its
            own retries, so with one this is not used.

    Raises:
        ConfigurationError: The arguments are missing or contradict each other.
    """

    provider: ClassVar[str]
    """Name in errors."""
    default_base_url: ClassVar[str]
    path: ClassVar[str]
    """What is posted to, below the base URL."""

    def __init__(
        self,
        *,
        api_key: str,
        model: str,
        client: Any,
        base_url: str,
        options: Mapping[str, Any] | None,
        headers: Mapping[str, str] | None,
        query: Mapping[str, str] | None,
        timeout_s: float,
        max_retries: int,
    ) -> None:
        name = type(self).__name__
        if client is not None and (api_key or base_url):
            raise ConfigurationError(f"{name}: the client has its own api_key and base_url; give either")
        if client is None and not api_key and not base_url:
            raise ConfigurationError(f"{name}: api_key is missing (only a server of your own may need none)")
        if timeout_s <= 0 or max_retries < 0:
            got = f"{timeout_s} and {max_retries}"
            raise ConfigurationError(f"{name}: need timeout_s > 0 and max_retries >= 0, got {got}")
        self.model = model
        self._client: Any = client
        self._api_key = api_key
        self._base_url = base_url or self.default_base_url
        self._server = str(client.base_url) if client is not None else http_url(self._base_url)
        self._options = dict(options or {})
        self._headers = dict(headers or {})
        self._query = dict(query or {})
        self._timeout_s = timeout_s
        self._max_retries = 0 if client is not None else max_retries
        self._transport: Transport | None = None
        self._lease: Lease[HttpConnections] | None = None
        self._warming: asyncio.Task[None] | None = None
        self._closed = False
        self._tools: tuple[tuple[ToolSpec, ...], list[dict[str, Any]]] = ((), [])

    def __repr__(self) -> str:
        return f"<{self.name}>"

    @property
    def name(self) -> str:
        """See :attr:`LLM.name`."""
        return f"{type(self).__name__} {self.model}"

    @property
    def identity(self) -> Hashable:
        """See :attr:`LLM.identity`: the same for every call that uses this model of this server."""
        return type(self), self._server, self.model

    # -- what a subclass says ---------------------------------------------------------------------

    @abstractmethod
    def credentials(self) -> Mapping[str, str]:
        """Headers that show the key, if there is one, and what else the API wants in every request."""

    @abstractmethod
    def fields(self, request: LLMRequest) -> Mapping[str, Any]:
        """The body of a request."""

    @abstractmethod
    def decoder(self) -> Decoder:
        """Reads one reply."""

    @abstractmethod
    def ask_client(self, fields: dict[str, Any], extra: Mapping[str, Any]) -> Any:
        """Ask the vendor's client for a raw streamed response: its async context manager.

        ``fields`` is a copy, from which may be taken what the SDK wants as arguments; ``extra`` are
        headers, query and time limit. The rest goes round the SDK's typed transformation, which costs
        milliseconds for a long history and knows no fields of other vendors.
        """

    def look_at_refusal(self, status: int, body: bytes) -> None:  # most need nothing
        """Learn from a refusal.

        Raises:
            AskAgain: The request is to be sent in another form.
        """

    def tool_fields(
        self, tools: tuple[ToolSpec, ...], translate: Callable[[Sequence[ToolSpec]], list[dict[str, Any]]]
    ) -> list[dict[str, Any]]:
        """Translate the tools of a request; they are the same at every step, so once is enough."""
        if self._tools[0] is not tools:
            self._tools = (tools, translate(tools))
        return self._tools[1]

    def with_options(self, body: dict[str, Any]) -> dict[str, Any]:
        """``body`` with the user's options, which win over it; ``None`` leaves a field out."""
        body.update(self._options)
        body["stream"] = True  # there is no other way to speak while the model thinks
        return {name: value for name, value in body.items() if value is not None}

    # -- asking -----------------------------------------------------------------------------------

    async def stream(self, request: LLMRequest) -> AsyncIterator[LLMEvent]:
        """See :meth:`LLM.stream`.

        A reply that the server cuts off, stalls in or fills with something else than its protocol
        ends in an error after the events that came; it is not asked for again, the caller may have
        heard it.

        Raises:
            AuthenticationError: 401 or 403.
            ProviderError: Anything else; ``retryable`` tells whether trying again can help.
            StateError: After :meth:`close`.
        """
        watchdog = Watchdog(self._timeout_s)
        try:
            reply, decoder, events = await self._begin(request, watchdog)
            try:
                while True:
                    for event in events:
                        yield event
                    if decoder.done:
                        return
                    events = await self._next(reply, decoder, watchdog)
            finally:
                await reply.close(reuse=decoder.done)
        finally:
            watchdog.close()

    def warm(self) -> None:
        """Open a connection in the background, so that the first turn does not wait for TLS."""
        if self._closed or (self._warming is not None and not self._warming.done()):
            return
        self._warming = asyncio.get_running_loop().create_task(self._warm(), name=f"{type(self).__name__} warm")

    async def close(self) -> None:
        """Give the shared connections back; a client that was given stays open. Calling it again is harmless."""
        self._closed = True
        self._transport = None
        warming, self._warming = self._warming, None
        if warming is not None:
            warming.cancel()
            await asyncio.wait((warming,))
        lease, self._lease = self._lease, None
        if lease is not None:
            await lease.release()

    async def _warm(self) -> None:
        try:
            await self._open().warm()
        except ProviderError as exc:
            # The first request will meet the same failure, and can say so to somebody.
            logger.debug("could not open a connection ahead: %s", exc)

    def _open(self) -> Transport:
        if self._transport is None:
            if self._closed:
                raise StateError(
                    f"{type(self).__name__}: used after close, which an agent does with its call: make one for each"
                )
            self._transport = self._connect()
        return self._transport

    def _connect(self) -> Transport:
        if self._client is not None:
            return ClientTransport(
                self.provider,
                self._client,
                self.ask_client,
                headers=self._headers,
                query=self._query,
                timeout_s=self._timeout_s,
            )
        self._lease = connections()
        return HttpTransport(
            self.provider,
            self._lease.value,
            base_url=self._base_url,
            path=self.path,
            headers={**self.credentials(), **self._headers},
            query=self._query,
        )

    async def _begin(self, request: LLMRequest, watchdog: Watchdog) -> tuple[Reply, Decoder, list[LLMEvent]]:
        """Send the request, again if need be, until the model is at work."""
        clock = asyncio.get_running_loop().time
        started = clock()
        attempt = 0
        try:
            with watchdog:
                while True:
                    try:
                        return await self._attempt(request)
                    except AskAgain:
                        continue
                    except _Refused as refused:
                        error, hint = refused.error, refused.retry_after_s
                    except ProviderError as exc:
                        error, hint = exc, None
                    wait = _BACKOFF_S * 2**attempt if hint is None else hint
                    in_time = clock() - started + wait < self._timeout_s
                    if not (error.retryable and in_time and attempt < self._max_retries):
                        raise error
                    logger.info("%s; trying again in %.2f s", error, wait)
                    attempt += 1
                    await asyncio.sleep(wait)
        except TimeoutError as exc:
            reason = f"no answer from {self.model} within {self._timeout_s:g} s (timeout_s)"
            raise ProviderError(self.provider, reason, retryable=True) from exc

    async def _attempt(self, request: LLMRequest) -> tuple[Reply, Decoder, list[LLMEvent]]:
        reply = await self._open().post(self.fields(request))
        try:
            if reply.status != 200:
                await self._refused(reply)
            await self._check_kind(reply)
            decoder = self.decoder()
            return reply, decoder, await _progress(reply, decoder)
        except BaseException:
            await reply.close(reuse=False)
            raise

    async def _refused(self, reply: Reply) -> NoReturn:
        body = await _body(reply)
        self.look_at_refusal(reply.status, body)
        error = error_from_response(self.provider, reply.status, body, reply.headers)
        raise _Refused(error, asked_wait_s(reply.headers))

    async def _check_kind(self, reply: Reply) -> None:
        kind = reply.headers.get("content-type", "")
        if not kind.startswith(("application/json", "text/html")):
            return  # event streams come under several names
        body = await _body(reply)
        if b'"error"' in body:
            raise error_from_response(self.provider, 200, body, reply.headers)
        reason = f"the server answered with {kind} instead of a stream: check base_url"
        raise ProviderError(self.provider, reason, retryable=False)

    async def _next(self, reply: Reply, decoder: Decoder, watchdog: Watchdog) -> list[LLMEvent]:
        limit = self._timeout_s
        try:
            if not decoder.finished:
                with watchdog:
                    return await _progress(reply, decoder)
            limit = min(_AFTER_FINISH_S, limit)
            async with asyncio.timeout(limit):
                return await _progress(reply, decoder)
        except TimeoutError as exc:
            if decoder.finished:
                return decoder.close()
            reason = f"the reply of {self.model} stalled for {limit:g} s (timeout_s)"
            raise ProviderError(self.provider, reason, retryable=True) from exc
        except ProviderError:
            if decoder.finished:
                return decoder.close()  # the reply is whole; only usage or terminator is missing
            raise


class AskAgain(Exception):
    """The request is to be sent in another form."""


class _Refused(Exception):
    """The server answered with an error status."""

    def __init__(self, error: ProviderError, retry_after_s: float | None) -> None:
        super().__init__(str(error))
        self.error = error
        self.retry_after_s = retry_after_s


async def _progress(reply: Reply, decoder: Decoder) -> list[LLMEvent]:
    """Read until the model gives a sign of life; comments that keep the connection alive are none."""
    before = decoder.chunks
    if decoder.failure is not None:
        raise decoder.failure
    while True:
        data = await reply.read()
        if not data:
            return decoder.close()
        events = decoder.feed(data)
        if decoder.done or decoder.chunks > before:
            return events


async def _body(reply: Reply) -> bytes:
    body = b""
    while len(body) < _ERROR_BYTES and (data := await reply.read()):
        body += data
    return body[:_ERROR_BYTES]

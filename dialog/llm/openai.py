"""OpenAI's chat completions, and every server that speaks the same protocol.

Source: OpenAI API reference, "Create chat completion", seen November 2026.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING, Any

from dialog.errors import ConfigurationError, ProviderError, StateError
from dialog.llm.chat import (
    STREAM_OPTIONS,
    ChatDecoder,
    ConversationEncoder,
    error_from_response,
    request_fields,
    tool_fields,
)
from dialog.llm.llm import LLM, LLMEvent, LLMRequest, ToolSpec
from dialog.llm.transport import ClientTransport, HttpTransport, Reply, Transport
from dialog.net.connections import HttpConnections, connections
from dialog.net.shared import Lease
from dialog.net.urls import http_url
from dialog.watchdog import Watchdog

if TYPE_CHECKING:
    import openai

__all__ = ["DEFAULT_BASE_URL", "DEFAULT_MODEL", "OpenAILLM"]

logger = logging.getLogger(__name__)

DEFAULT_MODEL = "gpt-4.1-mini"
"""Quick to its first token and good with tools; it does not reason in silence before it speaks."""
DEFAULT_BASE_URL = "https://api.openai.com/v1"

_AFTER_FINISH_S = 1.0
"""How long usage and terminator may trail the finish reason."""
_ERROR_BYTES = 65_536
_BACKOFF_S = 0.25

_refused_options: dict[str, int] = {}
"""Per server, how many of STREAM_OPTIONS it refused: learnt once, not once per call."""


class OpenAILLM(LLM):
    """A model behind an OpenAI-compatible chat completions endpoint.

    Requests go over connections that all models of the loop share; the ``openai`` SDK is
    neither needed nor imported unless a ``client`` is given. Constructing it does no I/O.

    Args:
        api_key: Of the account; may be empty for a server that wants none.
        model: :data:`DEFAULT_MODEL` unless given.
        client: An ``openai.AsyncOpenAI`` of yours, with its key, base URL, proxy and retries; it is
            used as it is and stays yours to close.
        base_url: With its version: ``http://127.0.0.1:8000/v1``. ``ws(s)://`` is read as ``http(s)://``.
        options: More fields of the request (``temperature``, ``max_completion_tokens`` …), sent as
            they are, also unknown ones; they win over Dialog's own, and ``None`` removes one.
        headers: Added to every request.
        query: Parameters added to every request's address.
        timeout_s: Until the first chunk, retries included, and between two chunks.
        max_retries: How often a request is sent again after a failure that may pass (no connection,
            408, 409, 429, 5xx), before anything of the reply came; never later. A ``client`` has its
            own retries, so with one this is not used.

    Raises:
        ConfigurationError: The arguments are missing or contradict each other.
    """

    def __init__(
        self,
        *,
        api_key: str = "",
        model: str = DEFAULT_MODEL,
        client: openai.AsyncOpenAI | None = None,
        base_url: str = "",
        options: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        query: Mapping[str, str] | None = None,
        timeout_s: float = 10.0,
        max_retries: int = 1,
    ) -> None:
        if client is not None and (api_key or base_url):
            raise ConfigurationError("OpenAILLM: the client has its own api_key and base_url; give either")
        if client is None and not api_key and not base_url:
            raise ConfigurationError("OpenAILLM: api_key is missing (only a server of your own may need none)")
        if timeout_s <= 0 or max_retries < 0:
            got = f"{timeout_s} and {max_retries}"
            raise ConfigurationError(f"OpenAILLM: need timeout_s > 0 and max_retries >= 0, got {got}")
        self.model = model
        self.provider = "openai"
        self._client = client
        self._api_key = api_key
        self._base_url = base_url or DEFAULT_BASE_URL
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
        self._conversation = ConversationEncoder()
        self._tools: tuple[tuple[ToolSpec, ...], list[dict[str, Any]]] = ((), [])

    def __repr__(self) -> str:
        return f"<OpenAILLM {self.model}>"

    async def stream(self, request: LLMRequest) -> AsyncIterator[LLMEvent]:
        """See :meth:`LLM.stream`.

        A reply that the server cuts off, stalls in or fills with something else than chunks ends in
        an error after the events that came; it is not asked for again, the caller may have heard it.

        Raises:
            AuthenticationError: 401 or 403.
            ProviderError: Anything else; ``retryable`` tells whether trying again can help.
            StateError: After :meth:`aclose`.
        """
        reply, decoder, events = await self._begin(request)
        watchdog = Watchdog(self._timeout_s)
        try:
            while True:
                for event in events:
                    yield event
                if decoder.done:
                    return
                events = await self._next(reply, decoder, watchdog)
        finally:
            watchdog.close()
            await reply.close(reuse=decoder.done)

    def warm(self) -> None:
        """Open a connection in the background, so that the first turn does not wait for TLS."""
        if self._closed or (self._warming is not None and not self._warming.done()):
            return
        self._warming = asyncio.get_running_loop().create_task(self._warm(), name="OpenAILLM warm")

    async def aclose(self) -> None:
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
                raise StateError("OpenAILLM: used after aclose")
            self._transport = self._connect()
        return self._transport

    def _connect(self) -> Transport:
        if self._client is not None:
            return ClientTransport(
                self.provider, self._client, headers=self._headers, query=self._query, timeout_s=self._timeout_s
            )
        self._lease = connections()
        key = {"Authorization": f"Bearer {self._api_key}"} if self._api_key else {}
        return HttpTransport(
            self.provider,
            self._lease.value,
            base_url=self._base_url,
            path="chat/completions",
            headers=key | self._headers,
            query=self._query,
        )

    async def _begin(self, request: LLMRequest) -> tuple[Reply, ChatDecoder, list[LLMEvent]]:
        """Send the request, again if need be, until the model is at work."""
        clock = asyncio.get_running_loop().time
        started = clock()
        attempt = 0
        try:
            async with asyncio.timeout(self._timeout_s):
                while True:
                    try:
                        return await self._attempt(request)
                    except _Again:
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
            reason = f"no answer from {self.model} within {clock() - started:.1f} s (timeout_s)"
            raise ProviderError(self.provider, reason, retryable=True) from exc

    async def _attempt(self, request: LLMRequest) -> tuple[Reply, ChatDecoder, list[LLMEvent]]:
        refused = _refused_options.get(self._server, 0)
        fields = request_fields(
            request,
            model=self.model,
            options=self._options,
            stream_options=STREAM_OPTIONS[refused],
            tools=self._tool_fields(request.tools),
            # A client encodes by itself.
            conversation=self._conversation.encode(request.items) if self._client is None else None,
        )
        reply = await self._open().post(fields)
        try:
            if reply.status != 200:
                await self._refused(reply, refused)
            await self._check_kind(reply)
            decoder = ChatDecoder(self.provider, self.model)
            return reply, decoder, await _progress(reply, decoder)
        except BaseException:
            await reply.close(reuse=False)
            raise

    async def _refused(self, reply: Reply, refused: int) -> None:
        body = await _body(reply)
        if reply.status in (400, 422) and refused + 1 < len(STREAM_OPTIONS) and _blames_stream_options(body):
            if len(_refused_options) >= 256:
                _refused_options.clear()
            _refused_options[self._server] = refused + 1
            raise _Again
        error = error_from_response(self.provider, reply.status, body, reply.headers)
        raise _Refused(error, _retry_after_s(reply.headers))

    async def _check_kind(self, reply: Reply) -> None:
        kind = reply.headers.get("content-type", "")
        if not kind.startswith(("application/json", "text/html")):
            return  # event streams come under several names
        body = await _body(reply)
        if b'"error"' in body:
            raise error_from_response(self.provider, 200, body, reply.headers)
        reason = f"the server answered with {kind} instead of a stream: check base_url"
        raise ProviderError(self.provider, reason, retryable=False)

    async def _next(self, reply: Reply, decoder: ChatDecoder, watchdog: Watchdog) -> list[LLMEvent]:
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
            reason = f"the reply of {self.model} stalled for {limit:.1f} s (timeout_s)"
            raise ProviderError(self.provider, reason, retryable=True) from exc
        except ProviderError:
            if decoder.finished:
                return decoder.close()  # the reply is whole; only usage or terminator is missing
            raise

    def _tool_fields(self, tools: tuple[ToolSpec, ...]) -> list[dict[str, Any]]:
        if self._tools[0] is not tools:
            self._tools = (tools, tool_fields(tools))
        return self._tools[1]


class _Again(Exception):
    """The request is to be sent in another form."""


class _Refused(Exception):
    """The server answered with an error status."""

    def __init__(self, error: ProviderError, retry_after_s: float | None) -> None:
        super().__init__(str(error))
        self.error = error
        self.retry_after_s = retry_after_s


async def _progress(reply: Reply, decoder: ChatDecoder) -> list[LLMEvent]:
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


def _blames_stream_options(body: bytes) -> bool:
    return any(word in body for word in (b"stream_options", b"include_usage", b"include_obfuscation"))


def _retry_after_s(headers: Mapping[str, str]) -> float | None:
    """How long the server asks to wait; dates and nonsense count as no answer."""
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            wait = float(headers.get(name, "")) * unit
        except ValueError:
            continue
        if 0 <= wait < float("inf"):
            return wait
    return None

"""Voices behind plain HTTP: one request per sentence, whose body is the audio: :class:`HttpTTS`."""

from __future__ import annotations

import asyncio
import logging
from abc import abstractmethod
from collections import deque
from collections.abc import Mapping
from typing import ClassVar, Final

from multidict import CIMultiDict
from yarl import URL

from dialog.errors import AuthenticationError, ProviderError
from dialog.net.connections import HttpConnections, HttpReply, Origin, connections
from dialog.net.http1 import BadResponseError, request_head
from dialog.net.reconnect import status_is_retryable
from dialog.net.shared import Lease
from dialog.tts.parts import SpokenPart
from dialog.tts.streaming import StreamingTTS
from dialog.version import __version__

__all__ = ["HttpTTS"]

logger = logging.getLogger(__name__)

_CONNECT_S: Final = 5.0
_AHEAD: Final = 2
"""Requests per part: the next one is answered while the audio of the one before still comes."""
_ERROR_BYTES: Final = 65_536
_NO_AUDIO: Final = ("application/json", "text/")


class HttpTTS(StreamingTTS):
    """Speaks each sentence with a request of its own, over connections that all calls of the loop share.

    A connection is made before the first text. While a sentence is being received the next one is
    already asked for; further ones wait and go together. Aborting closes the connections.

    A subclass gives the address, its headers and the body of a request (:meth:`_body`), and may read the
    provider's errors (:meth:`_reason`).

    Args:
        api_key: See :class:`StreamingTTS`, also for the others that are not here.
        slots: …
        timeout_s: Also for the first byte and between two pieces of a body, doubled there.
        url: What is posted to; ``http(s)``.
        headers: Of every request, the credentials among them.
        model: See :class:`StreamingTTS`.

    Raises:
        ConfigurationError: A header holds what a header may not hold.
    """

    max_chars: ClassVar[int]
    """Longest text of one request."""

    def __init__(
        self,
        *,
        api_key: str,
        slots: int,
        timeout_s: float,
        url: str,
        headers: Mapping[str, str],
        model: str = "",
    ) -> None:
        super().__init__(api_key=api_key, slots=slots, timeout_s=timeout_s, model=model)
        target = URL(url)
        own = CIMultiDict({"Host": target.raw_authority.rpartition("@")[2], "User-Agent": f"dialog/{__version__}"})
        own["Accept-Encoding"] = "identity"
        for name, value in headers.items():
            own[name] = value
        self._origin = Origin.of(target)
        self._head = request_head("POST", target.raw_path_qs, own)
        self._warm_head = request_head("HEAD", "/", own)
        self._speeches: dict[str, _Speech] = {}
        self._lease: Lease[HttpConnections] | None = None

    @abstractmethod
    def _body(self, text: str, voice: str = "") -> bytes:
        """The body of the request for one text; ``voice``: who speaks it, if not the voice of this object."""

    def _reason(self, status: int, body: bytes) -> tuple[str, bool]:
        """What the provider says in a refusal, and whether another try may help."""
        told = " ".join(body.decode("utf-8", "replace").split())
        return told, status_is_retryable(status)

    def _start(self) -> None:
        self.spawn(self._hold(), "connections")

    @property
    def _connected(self) -> bool:
        return True

    async def _hold(self) -> None:
        """Open a connection ahead, and give all of them back in the end."""
        # Taken here, since a task that is cancelled before it begins releases nothing; requests begin later.
        lease = self._lease = connections()
        try:
            try:
                request = self._warm_head + b"\r\n"
                reply = await lease.value.request(self._origin, request, connect_s=_CONNECT_S, bodiless=True)
            except (OSError, BadResponseError) as exc:
                logger.info("%s: no connection ahead of the first text: %r", self.name, exc)
            else:
                reply.abort()
            await asyncio.Event().wait()  # until dispose
        finally:
            await lease.release()

    def _write(self, context: str, part: SpokenPart, text: str, *, first: bool) -> None:  # noqa: ARG002
        speech = self._speeches.get(context)
        if speech is None:
            speech = self._speeches[context] = _Speech(part)
        speech.waiting += text
        self._pump(context, speech)

    def _cancel(self, context: str) -> None:
        speech = self._speeches.pop(context, None)
        if speech is not None:
            speech.part.characters -= len(speech.waiting)  # they were not asked for
            speech.stop()
        self._contexts.finish(context)  # nothing more comes

    def _pump(self, context: str, speech: _Speech) -> None:
        """Ask for what waits, as far as it may be asked for."""
        while len(speech.requests) < _AHEAD and speech.waiting.strip():
            size = _cut(speech.waiting, self.max_chars)
            text, speech.waiting = speech.waiting[:size], speech.waiting[size:]
            request = _Request(text)
            if not speech.requests:
                request.turn.set()
            speech.requests.append(request)
            request.task = self.spawn(self._run(context, speech, request), "request")
        if not speech.requests and speech.part.closed:
            del self._speeches[context]
            self._context_done(speech.part, context)

    async def _run(self, context: str, speech: _Speech, request: _Request) -> None:
        """Speak one text, when those before it are spoken."""
        part = speech.part
        patience_s = 2 * self._contexts.timeout_s
        try:
            try:
                async with asyncio.timeout(patience_s + _CONNECT_S):
                    reply = await self._ask(request.text, part.voice)
                try:
                    await request.turn.wait()
                    while True:
                        async with asyncio.timeout(patience_s):
                            data = await reply.read()
                        if not data:
                            break
                        self._audio(part, data, self._loop.time())
                        if self._contexts.part(context, self._loop.time()) is None:
                            return  # a listener has aborted it
                finally:
                    reply.abort()
            except TimeoutError as exc:
                raise self._broken(f"did not answer, or fell silent for {patience_s:g} s", exc) from exc
            except (OSError, BadResponseError) as exc:
                raise self._broken(f"the connection broke ({exc!r})", exc) from exc
        except ProviderError as exc:
            await request.turn.wait()  # those before it may yet be spoken
            self._request_failed(context, speech, exc)
            return
        self._request_done(context, speech, request)

    async def _ask(self, text: str, voice: str) -> HttpReply:
        assert self._lease is not None
        body = self._body(text, voice)
        request = b"%bContent-Length: %d\r\n\r\n%b" % (self._head, len(body), body)
        reply = await self._lease.value.request(self._origin, request, connect_s=_CONNECT_S)
        kind = reply.headers.get("Content-Type", "")
        if reply.status == 200 and not kind.startswith(_NO_AUDIO):
            return reply
        try:
            refusal = await self._refusal(reply, kind)
        finally:
            reply.abort()
        raise refusal

    async def _refusal(self, reply: HttpReply, kind: str) -> ProviderError:
        body = b""
        while len(body) < _ERROR_BYTES and (data := await reply.read()):
            body += data
        status = reply.status
        if status == 200:
            return ProviderError(self.provider, f"answered with {kind} where audio was expected", retryable=False)
        reason, retryable = self._reason(status, body)
        told = f"refused with {status}: {reason[:200] or 'no reason given'}"
        if status in (401, 403):
            return AuthenticationError(self.provider, f"{told}: check api_key")
        return ProviderError(self.provider, told, retryable=retryable)

    def _broken(self, reason: str, cause: Exception) -> ProviderError:
        error = ProviderError(self.provider, reason, retryable=True)
        error.__cause__ = cause
        return error

    def _request_done(self, context: str, speech: _Speech, request: _Request) -> None:
        if self._speeches.get(context) is not speech:
            return
        speech.requests.popleft()
        speech.part.advance(len(request.text))
        if speech.requests:
            speech.requests[0].turn.set()
        self._pump(context, speech)

    def _request_failed(self, context: str, speech: _Speech, error: ProviderError) -> None:
        if self._speeches.pop(context, None) is None:
            return
        speech.stop()
        if isinstance(error, AuthenticationError):
            if not self._gone:
                self._failed(error)
            return
        self._context_failed(speech.part, context, error)


class _Request:
    """One text that is asked for."""

    __slots__ = ("task", "text", "turn")

    def __init__(self, text: str) -> None:
        self.text = text
        self.turn = asyncio.Event()
        """Those before it are spoken."""
        self.task: asyncio.Task[None] | None = None


class _Speech:
    """What is asked for and what waits, of one context."""

    __slots__ = ("part", "requests", "waiting")

    def __init__(self, part: SpokenPart) -> None:
        self.part = part
        self.requests: deque[_Request] = deque()
        self.waiting: str = ""

    def stop(self) -> None:
        """Nobody wants the answers any more."""
        current = asyncio.current_task()
        for request in self.requests:
            if request.task is not None and request.task is not current:
                request.task.cancel()
        self.requests.clear()


def _cut(text: str, limit: int) -> int:
    """How many characters of the text go into one request."""
    if len(text) <= limit:
        return len(text)
    blank = text.rfind(" ", 0, limit)
    return blank + 1 if blank > 0 else limit

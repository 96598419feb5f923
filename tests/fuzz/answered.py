"""What providers and carriers answer over HTTP, and what models write that is read by a program.

An answer is as it is on the wire. Those of an input are separated; a server that has no more closes the connection.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from types import SimpleNamespace
from typing import Any, Literal, cast
from unittest.mock import patch
from uuid import UUID

import aiohttp
from inputs import BETWEEN, NOBODY, in_a_loop, texts
from multidict import CIMultiDict

from dialog.agent.schematool import compile_schema
from dialog.agent.toolschema import ArgumentsError, Parameters, SchemaArguments
from dialog.calls.events import ToolStarted
from dialog.calls.redact import Redaction
from dialog.errors import CarrierError, ProviderError, UserCodeError
from dialog.llm.llm import LLM, Entry, LLMRequest, ToolCall
from dialog.message import Message
from dialog.net.connections import HttpConnections, Origin, _Connection
from dialog.net.reconnect import Backoff, Reconnect
from dialog.net.socket import ProviderSocket
from dialog.participant import Failure, Participant
from dialog.s2s.elevenlabs import ElevenLabsAgentS2S
from dialog.testing.llm_judge import _candidates, _opinions, _UnusableError
from dialog.testing.talk import AgentTalk
from dialog.tts.http import HttpTTS
from dialog.voip.telnyx import rest as telnyx

__all__ = [
    "elevenlabs_address",
    "llm_http",
    "masked",
    "socket_refusal",
    "telnyx_answer",
    "tool_arguments",
    "tts_http",
    "verdict",
]

STEPS = 60
"""So often the loop goes round until an answer has been taken."""
CHUNK = 50


class _Server(asyncio.Transport):
    """A connection to a server whose next answer is here; HEAD is answered at once, with nothing."""

    def __init__(self, connection: _Connection, answers: deque[bytes]) -> None:
        super().__init__()
        self._connection = connection
        self._answers = answers
        self._open = True

    def write(self, data: Any) -> None:
        answer = b"HTTP/1.1 204 No Content\r\n\r\n"
        if not bytes(data).startswith(b"HEAD"):
            answer = self._answers.popleft() if self._answers else b""
        asyncio.get_running_loop().call_soon(self._say, answer)

    def _say(self, answer: bytes) -> None:
        for at in range(0, len(answer), CHUNK):
            if not self._open:
                return
            self._connection.data_received(answer[at : at + CHUNK])
        if self._open and self._connection._reply is not None:
            self.abort()

    def abort(self) -> None:
        if self._open:
            self._open = False
            self._connection.connection_lost(None)

    def is_closing(self) -> bool:
        return not self._open

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None: ...

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


@contextmanager
def _answering(data: bytes) -> Iterator[None]:
    answers = deque(data.split(BETWEEN)[:10])

    async def connect(owner: HttpConnections, origin: Origin, _: float) -> _Connection:
        connection = _Connection(owner, origin)
        connection.connection_made(_Server(connection, answers))
        return connection

    with patch.object(HttpConnections, "_connect", connect):
        yield


def tts_http(make: Callable[[], HttpTTS]) -> Callable[[bytes], None]:
    """A voice that asks for two sentences, one after another."""

    async def run(data: bytes) -> None:
        failures: list[Failure] = []
        with _answering(data):
            tts = make()
            tts.on(Participant.ERROR, failures.append)
            try:
                tts.open(tts.formats[0])
                turn = UUID(int=1)
                tts.post(Message(uuid=turn, data="Hello there, how are you? "))
                tts.post(Message(uuid=turn, data="Fine.", done=True))
                for _ in range(STEPS):
                    await asyncio.sleep(0)
            finally:
                tts.dispose()
                await tts.wait_disposed()
        for failure in failures:  # a task that fails tells of it in this way
            if isinstance(failure.error, UserCodeError):
                raise failure.error

    return lambda data: in_a_loop(run(data))


def llm_http(make: Callable[[], LLM]) -> Callable[[bytes], None]:
    """A model that is asked twice."""

    async def run(data: bytes) -> None:
        with _answering(data):
            llm = make()
            try:
                for _ in range(2):
                    with suppress(ProviderError):
                        async for _ in llm.stream(LLMRequest(items=(Entry(role="user", text="Hello"),))):
                            pass
            finally:
                await llm.close()

    return lambda data: in_a_loop(run(data))


def socket_refusal(data: bytes) -> None:
    """What a provider answers to the upgrade of a WebSocket: a status, headers, an empty line and the body."""
    head, _, body = data.partition(b"\n\n")
    status, *lines = head.decode("utf-8", "surrogateescape").split("\n")
    headers = CIMultiDict((name, value.strip()) for name, _, value in (line.partition(":") for line in lines))
    number = int(status) if status in ("401", "403", "429", "503") else 400
    refused = aiohttp.ClientResponseError(cast("Any", None), (), status=number, headers=headers)
    told = ProviderSocket._refused(
        cast("Any", SimpleNamespace(_provider="fuzz")), refused, body.decode("utf-8", "replace")
    )
    Reconnect(Backoff(), 0.0).lost(0.0, retryable=told.error.retryable, at_least_s=told.retry_after_s)


def telnyx_answer(data: bytes) -> None:
    """The bodies of answers of Telnyx's REST API."""
    for body in data.split(BETWEEN)[:20]:
        answer = telnyx._decoded(body)
        telnyx._refused(answer, 422, "call", "dial", "1")
        for kind in (telnyx._Placed, telnyx._Recording, telnyx._Message):
            with suppress(CarrierError):
                telnyx._understood(bytes(answer.data), kind, "call", "dial")


class _Response:
    status = 200

    def __init__(self, body: bytes) -> None:
        self._body = body

    async def read(self) -> bytes:
        return self._body


class _Session:
    """One of aiohttp, with one answer."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    @asynccontextmanager
    async def get(self, url: str, headers: object) -> Any:
        yield _Response(self._body)


async def _address(data: bytes) -> None:
    s2s = ElevenLabsAgentS2S(api_key="key", agent_id="agent")
    try:
        with suppress(ProviderError):
            await s2s._signed_url(cast("Any", _Session(data)))
    finally:
        s2s.dispose()
        await s2s.wait_disposed()


def elevenlabs_address(data: bytes) -> None:
    in_a_loop(_address(data))


# What models write.


def verdict(data: bytes) -> None:
    """A judge's reply: a call of its tool, and words."""
    talk = AgentTalk(lines=(), ended_by="agent", reason="", duration_s=1.0)
    for text in texts(data):
        for calls in ((), (ToolCall(id="1", name="give_verdict", arguments=text),)):
            with suppress(_UnusableError):
                _opinions("judge", _candidates(text, calls), ("It is kind.", "It is right."), talk)


def _book(day: str, people: int, terrace: bool = False, rooms: list[Literal["a", "b"]] | None = None) -> None:
    """Book.

    Args:
        day: When.
        people: How many.
        terrace: Outside.
        rooms: Which.
    """


PARAMETERS = Parameters(_book, "book", bound=False)
BY_SCHEMA = SchemaArguments(
    compile_schema(
        {
            "type": "object",
            "properties": {
                "day": {"type": "string", "format": "date", "pattern": "^[0-9-]+$"},
                "people": {"type": "integer", "minimum": 1},
                "rooms": {"type": "array", "items": {"enum": ["a", "b"]}, "uniqueItems": True},
            },
            "required": ["day"],
        }
    )
)


def tool_arguments(data: bytes) -> None:
    for text in texts(data):
        for parameters in (PARAMETERS, BY_SCHEMA):
            with suppress(ArgumentsError):
                parameters.arguments(text)


MASKS = Redaction(("email", "card", "phone", "digits"))


def masked(data: bytes) -> None:
    """The arguments of a tool, as the call log keeps them."""
    for text in texts(data):
        MASKS.masked(ToolStarted(seq=0, at_s=0.0, turn=NOBODY, call_id="1", name="book", arguments=text))

"""What strangers ask of a server: whole HTTP requests, what a page of the console says, and offers of WebRTC.

A request is written with plain line ends: ``GET /path?query``, the headers, an empty line and the body. The HTTP server
has read it before us: its first line is ASCII, and in the headers bytes that are no UTF-8 are lone surrogates.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import patch
from urllib.parse import parse_qsl, unquote
from uuid import UUID

import msgspec
from inputs import BETWEEN, NOBODY, in_a_loop, texts

import dialog.voip.web.session
from dialog.calls.events import CallerSaid
from dialog.clock import SYSTEM_CLOCK
from dialog.errors import RemoteProtocolError
from dialog.message import PCM_24K, CallMetadata
from dialog.server.api.core import HttpRequest, refused
from dialog.server.api.problems import Problem
from dialog.server.config import ApiSettings, ApiToken, ServiceConfig
from dialog.server.console.board import Board
from dialog.server.console.core import Visit
from dialog.server.console.viewer import Viewer
from dialog.server.console.visitors import COOKIE
from dialog.server.service import Service
from dialog.server.tenants import TwilioTenant
from dialog.sessions.config import AgentConfig
from dialog.testing import HummingTTS, ScriptedLLM, ToldSTT
from dialog.voip.call import CallSettings
from dialog.voip.carrier.exchange import Exchange
from dialog.voip.carrier.http import Refusal, Request, Webhooks
from dialog.voip.streams.webhooks import StreamAddress
from dialog.voip.telnyx.exchange import TelnyxExchange
from dialog.voip.telnyx.signature import TelnyxSignature
from dialog.voip.telnyx.webhooks import TelnyxWebhooks
from dialog.voip.twilio.exchange import TwilioExchange
from dialog.voip.twilio.signature import SignatureChecker
from dialog.voip.twilio.webhooks import TwilioWebhooks
from dialog.voip.web.gateway import WebGateway
from dialog.voip.web.rtc.connection import RtcConnection, RtcWire
from dialog.voip.web.rtc.library import RTCSessionDescription
from dialog.voip.web.rtc.offers import decode_offer
from dialog.voip.web.rtc.reorder import Reorder
from dialog.voip.web.rtc.settings import WebRTC
from dialog.voip.web.stream import WebStream
from dialog.voip.web.switchboard import Refusal as WebRefusal

__all__ = [
    "console_page",
    "console_request",
    "rest_request",
    "service",
    "stream_request",
    "telnyx_request",
    "twilio_request",
    "web_session",
    "webrtc_description",
    "webrtc_packets",
]

PEER = "192.0.2.1"
SECRET = "a-token-of-the-tests"
PUBLIC = {"path": "/voice", "webhook_url": "https://voice.example/voice", "media_path": "/ws"}
BEHIND = {"path": "/voice", "trust_forwarded": True}


def request(data: bytes) -> Request:
    """The request that an input is."""
    head, _, body = data.partition(b"\n\n")
    first, *lines = head.decode("utf-8", "surrogateescape").split("\n")
    first = first.encode("ascii", "ignore").decode()
    method, _, target = first.partition(" ")
    path, _, query = target.partition("?")
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return Request(
        method=method or "GET", path=path, query=query, headers=headers, secure=len(data) % 2 == 0, body=body
    )


# Carriers.


def _carried(asked: Request, doors: Sequence[Webhooks], exchange: Exchange | None = None) -> None:
    for door in doors:
        try:
            endpoint = door.head(asked)
            fields = door.check(asked)
            door.site(asked).url(endpoint, call=NOBODY)
            if exchange is not None and endpoint != "media":
                exchange._call_of(fields)
                exchange._wants_more(endpoint, fields)
                exchange._generation(fields)
                exchange._metadata(NOBODY, fields)
        except Refusal as refusal:
            refusal.response()


TWILIO = (
    TwilioWebhooks(checker=SignatureChecker("token", "former"), **BEHIND),
    TwilioWebhooks(checker=SignatureChecker("token"), **PUBLIC),
    TwilioWebhooks(checker=None, **BEHIND),
    TwilioWebhooks(checker=None, **PUBLIC),
)
TWILIO_CALLS = TwilioExchange(cast("Any", None), TWILIO[0])
TELNYX = (
    TelnyxWebhooks(signature=TelnyxSignature("A" * 43 + "=", time=lambda: 1_700_000_000), **PUBLIC),
    TelnyxWebhooks(signature=None, **BEHIND),
)
TELNYX_CALLS = TelnyxExchange(cast("Any", None), TELNYX[0])
STREAMS = (
    StreamAddress(token="secret", path="/stream"),
    StreamAddress(token="", path="/stream", trust_forwarded=True),
)


def twilio_request(data: bytes) -> None:
    _carried(request(data), TWILIO, TWILIO_CALLS)


def telnyx_request(data: bytes) -> None:
    _carried(request(data), TELNYX, TELNYX_CALLS)


def stream_request(data: bytes) -> None:
    _carried(request(data), STREAMS)


# The REST API and the console.


@cache
def service() -> Service:
    """One that has no calls, and whose clock stands still."""
    made = Service(
        ServiceConfig(
            assistants={"desk": AgentConfig(stt=ToldSTT, tts=HummingTTS, llm=lambda: ScriptedLLM(lambda _: "Yes."))},
            tenants={"main": TwilioTenant(account_sid="AC" + "0" * 32, auth_token="token")},
            api=ApiSettings(
                tokens=(ApiToken(name="tests", token=SECRET),), requests_per_s=1e9, burst=10**9, max_body=100_000
            ),
        )
    )
    assert made.console is not None
    made.console._visitors._time = lambda: 1_700_000_000.0
    made.console.board.take(
        CallMetadata(call_id=NOBODY), CallerSaid(seq=0, at_s=1.0, turn=NOBODY, text="Hello", final=True)
    )
    return made


async def _asked(asked: Request) -> None:
    api = service().api
    seen = HttpRequest(
        method=asked.method,
        path=unquote(asked.path),
        query=dict(parse_qsl(asked.query, keep_blank_values=True)),
        headers={"authorization": f"Bearer {SECRET}", "content-type": "application/json", **asked.headers},
        peer=PEER,
    )
    try:
        answer = await api.answer(api.head(seen), asked.body)
    except Problem as problem:
        problem.to_json()
    else:
        if answer.stream is not None:
            await answer.stream.aclose()  # type: ignore[attr-defined]  # it is a generator


def rest_request(data: bytes) -> None:
    """Unless they say otherwise, requests are of somebody who may."""
    in_a_loop(_asked(request(data)))


async def _visited(asked: Request) -> None:
    console = service().console
    assert console is not None
    token = service().config.api.tokens[0]
    headers = {"cookie": f"{COOKIE}={console._visitors.sign_in(token)}", "content-type": "application/json"}
    visit = Visit(
        method=asked.method,
        path=unquote(asked.path),
        query=dict(parse_qsl(asked.query, keep_blank_values=True)),
        headers={**headers, **asked.headers},
        peer=PEER,
        base="/console",
        secure=asked.secure,
    )
    try:
        await console.answer(visit, asked.body)
    except Problem as problem:
        refused(problem)
    with suppress(Problem):
        console.admit(visit)


def console_request(data: bytes) -> None:
    """Unless they say otherwise, requests are of somebody who has signed in."""
    in_a_loop(_visited(request(data)))


class _Page:
    """A page that says what it has to say, and leaves."""

    def __init__(self, data: bytes) -> None:
        self._said = texts(data)

    async def send_text(self, text: bytes) -> None: ...

    async def send_bytes(self, data: bytes) -> None: ...

    async def receive(self) -> str | None:
        return next(self._said, None)


async def _looked(data: bytes) -> None:
    board = Board(lambda _: "main")
    board.take(CallMetadata(call_id=UUID(int=1)), CallerSaid(seq=0, at_s=1.0, turn=NOBODY, text="Hello", final=True))
    with suppress(RemoteProtocolError):
        await Viewer(_Page(data), (board,), sees=lambda _: True, find=lambda _: None).run()


def console_page(data: bytes) -> None:
    in_a_loop(_looked(data))


# Clients.


class _Wire:
    """A connection that takes everything until it is closed."""

    rtt_s = 0.0

    def __init__(self) -> None:
        self.closed = False

    def send_audio(self, data: bytes, mark: str = "") -> None: ...

    def send_mark(self, name: str) -> None: ...

    def send_control(self, message: bytes) -> None: ...

    def send_clear(self) -> int:
        return 0

    def close(self) -> None:
        self.closed = True

    def fail(self, code: int) -> None:
        self.closed = True


async def _attended(data: bytes) -> None:
    failed: list[BaseException | None] = []
    settings = CallSettings(settle_s=0.01, lost_s=0.01)
    gateway = WebGateway(token_key=bytes(32), allow_anybody=True, call_settings=settings, close_timeout_s=1.0)
    gateway.on("voip", lambda voip: None)
    wire, stream = _Wire(), WebStream(SYSTEM_CLOCK.now())
    session = gateway._session(stream, wire, PEER, "")
    with patch.object(dialog.voip.web.session.logger, "exception", lambda *_: failed.append(sys.exc_info()[1])):
        for message in data.split(BETWEEN)[:20]:
            try:
                session.receive(message.decode())
            except UnicodeDecodeError:
                session.receive_binary(message)
            for _ in range(10):  # admission has so many steps
                await asyncio.sleep(0)
        session.peer_closes(1001)
        session.closed()
        await gateway.close()
    assert not gateway.calls
    for each in failed:
        if each is not None:
            raise each


def web_session(data: bytes) -> None:
    """The messages of a client for whom nobody has to vouch, to the end of the call."""
    in_a_loop(_attended(data))


# WebRTC.

START = {"type": "session.start", "version": 1}


async def _described(offer: str) -> None:
    connection = RtcConnection(
        RtcWire(),
        cast("Any", SimpleNamespace(name="fuzz", closed=lambda: None)),
        cast("Any", SimpleNamespace(audio=PCM_24K)),
        WebRTC(),
        max_message=65_536,
        start_timeout_s=1.0,
        clock=SYSTEM_CLOCK,
    )
    try:  # all of an answer but its addresses, for which sockets would be opened
        await connection._peer.setRemoteDescription(RTCSessionDescription(offer, "offer"))
        await connection._peer.createAnswer()
    except Exception:  # whatever aiortc has against it, as in Offers
        return
    finally:
        await connection.close()


def webrtc_description(data: bytes) -> None:
    """The session description of an offer, with what reads it: it may object, and neither hang nor grow."""
    posted = msgspec.json.encode({"sdp": data.decode("utf-8", "replace"), "session": START})
    with suppress(WebRefusal):
        in_a_loop(_described(decode_offer(posted).sdp))


def webrtc_packets(data: bytes) -> None:
    """Packets of seven bytes each: none comes twice or before its time, time goes on, and nothing waits for long."""
    reorder, heard, newest = Reorder(), set[int](), None
    for at in range(0, len(data) - 6, 7):
        sequence, timestamp = int.from_bytes(data[at : at + 2]), int.from_bytes(data[at + 2 : at + 6])
        packet = SimpleNamespace(ssrc=data[at + 6], sequence_number=sequence, timestamp=timestamp, _data=at)
        before = reorder._out
        _, frame = reorder.add(packet)
        assert len(reorder._waiting) <= 3
        if frame is not None:
            assert newest is None or reorder._out > before
            assert frame.data not in heard
            assert newest is None or frame.timestamp >= newest
            heard.add(frame.data)
            newest = frame.timestamp

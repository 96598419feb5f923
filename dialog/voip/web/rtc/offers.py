"""WebRTC's offers and answers over HTTP, whatever server carries them.

``POST`` with a JSON object: ``sdp``, the offer, and ``session``, the same ``session.start`` or ``session.resume`` that
would be the first message on a WebSocket. The answer is in ``sdp``; ``started`` is what the client will be told on the
data channel again, so that it can come back by a WebSocket if its network lets no UDP through.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncIterable, Callable, Mapping
from functools import partial
from http import HTTPStatus
from typing import Final, Protocol

import msgspec
from msgspec import Struct

from dialog.clock import Clock
from dialog.net.bodies import read_body
from dialog.voip.web.messages import ErrorTold, SessionResume, SessionStart, SessionStarted, encode
from dialog.voip.web.rtc.connection import RtcConnection, RtcWire
from dialog.voip.web.rtc.settings import WebRTC
from dialog.voip.web.session import WebSession
from dialog.voip.web.stream import WebStream
from dialog.voip.web.switchboard import Refusal

__all__ = ["Answer", "Offers", "RtcAnswer", "RtcOffer", "decode_offer"]

logger = logging.getLogger(__name__)

_KINDS: Final = re.compile(r"^m=(\S+)", re.MULTILINE)
_CANDIDATE: Final = re.compile(r"^a=candidate:", re.MULTILINE)
_MAX_CANDIDATES: Final = 40
"""Each is knocked at: an offer must not make us knock anywhere else."""
_STATUS: Final = {1008: 400, 1009: 413, 1011: 500}
_BODY_S: Final = 5.0
_CLOSE_S: Final = 5.0


class RtcOffer(Struct, frozen=True, kw_only=True):
    """What a client posts."""

    sdp: str
    session: SessionStart | SessionResume

    def __repr__(self) -> str:
        return f"<RtcOffer of {len(self.sdp)} characters>"


class RtcAnswer(Struct, frozen=True, kw_only=True):
    """What it gets."""

    sdp: str
    started: SessionStarted | None
    """Not told ahead where another gateway has the session."""


class Answer(Struct, frozen=True, kw_only=True):
    """An HTTP response; its body is JSON."""

    status: int
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()


class MakeSession(Protocol):
    """Makes the session of a connection."""

    def __call__(self, stream: WebStream, wire: RtcWire, remote: str, origin: str, /) -> WebSession: ...


class Offers:
    """Answers offers, and keeps the connections that come of them.

    Args:
        settings: See there.
        make: Makes the session of a connection.
        refusal: Why a request with these headers is not granted, as an upgrade to a WebSocket would not be.
        refused: Counts what is refused later.
        max_message: Largest offer, and largest message.
        start_timeout_s: How long a client may take to connect.
        clock: Time of the calls.
    """

    def __init__(
        self,
        settings: WebRTC,
        make: MakeSession,
        *,
        refusal: Callable[[Mapping[str, str]], tuple[int, str] | None],
        refused: Callable[[int, str], object],
        max_message: int,
        start_timeout_s: float,
        clock: Clock,
    ) -> None:
        self.max_message = max_message
        self._settings = settings
        self._make = make
        self._refusal = refusal
        self._refused = refused
        self._start_timeout_s = start_timeout_s
        self._clock = clock
        self._connections: dict[asyncio.Task[None], RtcWire] = {}
        self._answering: set[asyncio.Future[None]] = set()
        """Offers whose connection is being made."""
        self._closed = False

    async def answer(self, method: str, headers: Mapping[str, str], remote: str, body: AsyncIterable[bytes]) -> Answer:
        """Answer a request; ``headers`` have names in lower case, and ``body`` comes piece by piece."""
        origin = headers.get("origin", "")
        refused = self._refusal(headers)
        if refused is not None:
            return _told(ErrorTold(code="refused", message=refused[1], fatal=True), refused[0])
        shared = _shared(origin)
        if method == "OPTIONS":  # a page of another host, which is among the origins
            return Answer(status=204, headers=shared)
        try:
            posted = await read_body(body, _unread, limit=self.max_message, timeout_s=_BODY_S)
            answer = await self._take(decode_offer(posted), remote, origin)
        except Refusal as refusal:
            self._refused(refusal.close_code, str(refusal))
            status = _STATUS.get(refusal.close_code, refusal.close_code - 4000)
            return _told(ErrorTold(code=refusal.code, message=str(refusal), fatal=True), status, shared)
        except Exception:  # nobody else tells the client
            logger.exception("an offer could not be answered")
            return _told(
                ErrorTold(code="error", message="an error has occurred: the server's log says which", fatal=True),
                500,
                shared,
            )
        return Answer(status=200, body=msgspec.json.encode(answer), headers=shared)

    async def close(self) -> None:
        """Close the connections that no call closed, and wait until all are; those that are being made, too."""
        self._closed = True
        for wire in self._connections.values():
            wire.close()
        waits = (*self._connections, *self._answering)
        if waits:
            await asyncio.wait(waits, timeout=_CLOSE_S)

    async def _take(self, offer: RtcOffer, remote: str, origin: str) -> RtcAnswer:
        made: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._answering.add(made)
        try:
            return await self._connect(offer, remote, origin)
        finally:
            self._answering.discard(made)
            made.set_result(None)

    async def _connect(self, offer: RtcOffer, remote: str, origin: str) -> RtcAnswer:
        stream = WebStream(self._clock.now())
        stream.state = "starting"
        wire = RtcWire()
        session = self._make(stream, wire, remote, origin)
        admitted = await session.admit(offer.session)
        connection = None
        try:
            connection = RtcConnection(
                wire,
                session,
                admitted,
                self._settings,
                max_message=self.max_message,
                start_timeout_s=self._start_timeout_s,
                clock=self._clock,
            )
            sdp = await connection.answer(offer.sdp)
            if self._closed:  # meanwhile: nobody would close it any more
                raise Refusal(4503, "busy", "the gateway is closing")  # noqa: TRY301  # undone like a failure
        except BaseException as exc:
            try:
                if connection is None:
                    session.closed()
                else:
                    await connection.close()
            finally:
                admitted.withdraw()
            if isinstance(exc, Exception) and not isinstance(exc, Refusal):
                logger.info("an offer cannot be answered: %r", exc)
                raise Refusal(4400, "offer", "the offer cannot be answered") from exc
            raise
        task = asyncio.get_running_loop().create_task(connection.run(), name="serve a WebRTC connection")
        self._connections[task] = wire
        task.add_done_callback(partial(self._over, str(admitted.call_id)))
        return RtcAnswer(sdp=sdp, started=admitted.started)

    def _over(self, name: str, task: asyncio.Task[None]) -> None:
        del self._connections[task]
        if not task.cancelled() and task.exception() is not None:
            logger.error("session %s: its WebRTC connection failed", name, exc_info=task.exception())


def decode_offer(body: bytes) -> RtcOffer:
    """What was posted.

    Raises:
        Refusal: It is malformed, or asks for too much.
    """
    try:
        offer = msgspec.json.decode(body, type=RtcOffer)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as exc:
        raise Refusal(1008, "protocol", f"the offer is malformed: {exc}") from exc
    if sorted(_KINDS.findall(offer.sdp)) != ["application", "audio"]:
        raise Refusal(4400, "offer", "an offer has one audio track and a data channel")
    if len(_CANDIDATE.findall(offer.sdp)) > _MAX_CANDIDATES:
        raise Refusal(4400, "offer", f"an offer has at most {_MAX_CANDIDATES} candidates")
    return offer


def _unread(status: int, reason: str) -> Refusal:
    return Refusal(4000 + status, "protocol", reason)


def _shared(origin: str) -> tuple[tuple[str, str], ...]:
    """Let a page that is trusted read the answer, wherever it comes from."""
    if not origin:
        return ()
    return (
        ("Access-Control-Allow-Origin", origin),
        ("Access-Control-Allow-Headers", "content-type"),
        ("Access-Control-Max-Age", "600"),
        ("Vary", "Origin"),
    )


def _told(error: ErrorTold, status: int, headers: tuple[tuple[str, str], ...] = ()) -> Answer:
    return Answer(status=HTTPStatus(status), body=encode(error), headers=headers)

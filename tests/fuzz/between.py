"""What processes of one service, and gateways of one fleet, say to each other. They are trusted, and may be older."""

from __future__ import annotations

import asyncio
import sys
from contextlib import contextmanager, suppress
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import patch

from asked import TWILIO, TWILIO_CALLS, service
from inputs import BETWEEN, NOBODY, in_a_loop

import dialog.workers.peers
import dialog.workers.relay
from dialog.errors import RemoteProtocolError
from dialog.server.api import questions as q
from dialog.server.api.problems import Problem
from dialog.voip.carrier.exchange import Exchange, _Request
from dialog.voip.carrier.http import Refusal
from dialog.voip.peers import MediaWire, PeerLost
from dialog.workers.fabric import Fabric
from dialog.workers.frames import Frame, decode
from dialog.workers.peers import FabricPeers
from dialog.workers.sockets import SocketFabric, _Connection

__all__ = ["bridge_socket", "peer_answers", "peer_frames", "peer_questions", "peer_requests"]


class _Deaf(asyncio.Transport):
    """A connection that only ever closes; then nothing more is read."""

    aborted = False

    def abort(self) -> None:
        self.aborted = True


class _Heard:
    """Hears what comes."""

    def __init__(self) -> None:
        self.frames: list[Frame] = []

    def receive(self, sender: str, frame: Frame) -> None:
        self.frames.append(frame)

    def gone(self, node: str, reason: str) -> None: ...

    def back(self) -> None: ...


def bridge_socket(data: bytes) -> None:
    """The cut between two reads must not matter."""
    told = []
    for step in (len(data) or 1, 7):
        fabric = SocketFabric("here")
        fabric.receiver = heard = _Heard()
        connection = _Connection(fabric, "there")
        transport = _Deaf()
        connection.connection_made(transport)
        for at in range(0, len(data), step):
            piece = data[at : at + step]
            while piece and not transport.aborted:
                room = connection.get_buffer(-1)
                taken = min(len(room), len(piece))
                room[:taken] = piece[:taken]
                room.release()
                connection.buffer_updated(taken)
                piece = piece[taken:]
        told.append([repr(frame.body) for frame in heard.frames])
    assert told[0] == told[1]


class _Network(Fabric):
    """Takes everything."""

    def announce(self, frame: Frame) -> None: ...

    def _transmit(self, to: str, packet: bytearray) -> None: ...

    async def close(self) -> None: ...


class _End:
    """A line that takes everything."""

    scope = None

    def receive_audio(self, data: bytes, timestamp_ms: float | None) -> None: ...

    def receive_mark(self, name: str) -> None: ...

    def receive_digit(self, digit: str) -> None: ...

    def receive_control(self, message: bytes) -> None: ...

    def stopped(self) -> None: ...

    def closed(self) -> None: ...


class _Owner:
    """Has all calls, and answers what it is asked."""

    def holds(self, call_id: object) -> bool:
        return True

    async def answer(self, request: bytes) -> bytes:
        return request

    def join_relayed(self, opening: bytes, wire: MediaWire) -> _End:
        wire.send_audio(b"x" * 160, "mark")
        return _End()


def _only_announced(*_: object, **__: object) -> None:
    error = sys.exc_info()[1]
    if error is not None and not isinstance(error, RemoteProtocolError):
        raise error


@contextmanager
def _nothing_hidden() -> Any:
    """What would be caught so that others go on is a finding here."""
    with (
        patch.object(dialog.workers.relay.logger, "exception", _only_announced),
        patch.object(dialog.workers.peers.logger, "exception", _only_announced),
    ):
        yield


async def _neighboured(data: bytes) -> None:
    peers = FabricPeers(_Network("here"))
    await peers.start(cast("Any", _Owner()))
    peers.came("there")
    with _nothing_hidden():
        with suppress(RemoteProtocolError):
            for frame in decode(data):
                peers.receive("there", frame)
        peers._tick(0.0)
        while peers._tasks:
            await asyncio.wait(tuple(peers._tasks))
        peers.gone("there", "it has said enough")
    await peers.close()
    assert not peers._ends


def peer_frames(data: bytes) -> None:
    """The frames of another gateway: its questions, and the media sockets that it relays."""
    in_a_loop(_neighboured(data))


async def _questioned(data: bytes) -> None:
    elsewhere = service().api.elsewhere
    for question in data.split(BETWEEN)[:20]:
        with suppress(RemoteProtocolError):
            q.decode_answer(await elsewhere.answer(question))
    for followed in tuple(elsewhere._followed.values()):
        followed.close()


def peer_questions(data: bytes) -> None:
    """What another process asks of the REST API."""
    in_a_loop(_questioned(data))


class _Told:
    """Peers that answer all questions in one way."""

    def __init__(self, answer: bytes) -> None:
        self._answer = answer

    async def ask(self, node: str, call_id: object, request: bytes) -> bytes:
        return self._answer


async def _answered(data: bytes) -> None:
    elsewhere = service().api.elsewhere
    asked = _Request("voice", [], TWILIO[1].public_site())
    for answer in data.split(BETWEEN)[:20]:
        told = cast("Any", _Told(answer))
        with patch.object(elsewhere, "peers", told):
            for question, kind in ((q.Has(NOBODY), q.Here), (q.Counts((0, "x")), q.Counted)):
                with suppress(Problem, PeerLost):
                    await elsewhere._ask("there", NOBODY, question, kind)
        with suppress(Refusal, PeerLost):
            await TWILIO_CALLS._ask(told, "there", NOBODY, asked)


def peer_answers(data: bytes) -> None:
    """What other processes answer."""
    in_a_loop(_answered(data))


class _Board:
    """Refuses every call."""

    async def respond(self, endpoint: str, fields: object, site: object) -> None:
        raise Refusal(404, "there is no call of this id")

    def join(self, start: object, wire: object, site: object) -> None:
        raise RemoteProtocolError("the stream names no call of ours")


async def _passed_on(data: bytes) -> None:
    exchange: Exchange = type(TWILIO_CALLS)(cast("Any", _Board()), TWILIO[1])
    for request in data.split(BETWEEN)[:20]:
        with suppress(RemoteProtocolError):
            await exchange.answer(request)
        with suppress(RemoteProtocolError):
            exchange.join_relayed(request, cast("Any", SimpleNamespace()))


def peer_requests(data: bytes) -> None:
    """Webhooks and streams that another gateway passes on."""
    in_a_loop(_passed_on(data))

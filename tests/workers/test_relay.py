"""Both ends of a relayed media socket, without gateways around them."""

from __future__ import annotations

from uuid import uuid4

import pytest

from dialog.errors import RemoteProtocolError
from dialog.message import MULAW_8K
from dialog.workers.fabric import Fabric
from dialog.workers.frames import Acknowledged, Frame
from dialog.workers.peerframes import (
    RelayAudio,
    RelayClosed,
    RelayDigit,
    RelayMark,
    RelayOpened,
    RelayStop,
    WireAudio,
    WireClear,
    WireClose,
    WireMark,
)
from dialog.workers.peers import FabricPeers
from dialog.workers.relay import Relay, RelayedStream

CALL = uuid4()
CHUNK = MULAW_8K.silence(200)


class Recorded(Fabric):
    """Keeps what is sent."""

    def __init__(self) -> None:
        super().__init__("here")
        self.sent: list[Frame] = []

    def send(self, to: str, frame: Frame) -> None:
        assert to == "there"
        self.sent.append(frame)

    @property
    def bodies(self) -> list[object]:
        return [frame.body for frame in self.sent if frame.seq]

    def announce(self, frame: Frame) -> None:
        raise NotImplementedError

    def _transmit(self, to: str, packet: bytearray) -> None:
        raise NotImplementedError

    async def close(self) -> None:
        raise NotImplementedError


class Wire:
    """A carrier's socket."""

    def __init__(self) -> None:
        self.rtt_s = 0.07
        self.did: list[tuple] = []

    def send_audio(self, data: bytes, mark: str = "") -> None:
        self.did.append(("audio", len(data), mark))

    def send_mark(self, name: str) -> None:
        self.did.append(("mark", name))

    def send_clear(self) -> int:
        self.did.append(("clear",))
        return 0

    def close(self) -> None:
        self.fail(1000)

    def fail(self, code: int) -> None:
        self.did.append(("close", code))


class Owner:
    """A gateway with a call, or without."""

    def __init__(self, refusal: str = "") -> None:
        self.refusal = refusal
        self.wire = None
        self.heard: list[tuple] = []
        self.scope = None

    def join_relayed(self, opening: bytes, wire):
        assert opening == b"opening"
        if self.refusal:
            raise RemoteProtocolError(self.refusal)
        self.wire = wire
        return self

    def receive_audio(self, data: bytes, timestamp_ms: float) -> None:
        if data == b"bad":
            raise ValueError("a fault of ours")
        self.heard.append(("audio", timestamp_ms))

    def receive_mark(self, name: str) -> None:
        self.heard.append(("mark", name, self.wire.rtt_s))

    def receive_digit(self, digit: str) -> None:
        self.heard.append(("digit", digit))

    def stopped(self) -> None:
        self.heard.append(("stopped",))

    def closed(self) -> None:
        self.heard.append(("closed",))


class Far:
    """The other end, which numbers its frames."""

    def __init__(self, end) -> None:
        self.end = end
        self.seq = 0

    def says(self, *bodies) -> None:
        for body in bodies:
            self.seq += 1
            self.end.receive(Frame(CALL, 7, self.seq, body))

    def acknowledges(self, seq: int) -> None:
        self.end.receive(Frame(CALL, 7, 0, Acknowledged(seq)))


def relayed(owner: Owner) -> tuple[RelayedStream, Recorded, Far]:
    fabric = Recorded()
    end = RelayedStream(fabric, "there", CALL, 7, owner)
    far = Far(end)
    far.says(RelayOpened(b"opening"))
    return end, fabric, far


def relaying() -> tuple[Relay, Recorded, Far, Wire]:
    fabric, wire = Recorded(), Wire()
    end = Relay(fabric, "there", CALL, 7, opening=b"opening", wire=wire)
    return end, fabric, Far(end), wire


async def test_a_clear_takes_back_what_was_not_sent_yet_and_is_sent_next():
    owner = Owner()
    _, fabric, far = relayed(owner)
    for number in range(15):  # 3 s of audio; 2 s may be under way
        owner.wire.send_audio(CHUNK, f"mark {number}")
    assert fabric.bodies == [WireAudio(CHUNK, f"mark {number}") for number in range(10)]
    assert owner.wire.send_clear() == 5 * len(CHUNK)
    owner.wire.send_audio(CHUNK)
    assert fabric.bodies[10:] == [WireClear()]
    far.acknowledges(11)
    assert fabric.bodies[11:] == [WireAudio(CHUNK, "")]


async def test_a_gateway_that_takes_no_audio_is_given_up():
    owner = Owner()
    end, fabric, _ = relayed(owner)
    while not owner.wire.closed:
        owner.wire.send_audio(CHUNK)
        assert len(fabric.bodies) <= 11
    assert owner.heard == [("closed",)]
    assert fabric.bodies[-1] == WireClose(1011)
    assert not end.over, "the other end has not said that it knows"


async def test_a_gateway_that_acknowledges_nothing_for_long_has_lost_the_stream():
    owner = Owner()
    end, _, _ = relayed(owner)
    owner.wire.send_mark("a")
    began = end.stream.outbound.oldest()
    assert began is not None
    end.tick(began + 4.9)
    assert not end.over
    end.tick(began + 5.0)
    assert end.over
    assert owner.heard == [("closed",)]
    assert owner.wire.closed


async def test_the_far_socket_s_round_trip_comes_with_its_marks():
    owner = Owner()
    _, _, far = relayed(owner)
    far.says(RelayMark("a", 0.25))
    assert owner.heard == [("mark", "a", 0.25)]
    end, fabric, _, _ = relaying()
    end.receive_mark("b")
    assert fabric.bodies == [RelayOpened(b"opening"), RelayMark("b", 0.07)]


async def test_a_refused_stream_is_closed_with_1008_and_nothing_of_it_is_taken():
    owner = Owner("the token is not ours")
    end, fabric, far = relayed(owner)
    far.says(RelayAudio(20.0, b"\xff" * 160), RelayStop())
    assert fabric.bodies == [WireClose(1008)]
    far.says(RelayClosed())
    far.acknowledges(1)
    assert end.over
    assert owner.heard == []


async def test_a_failure_of_ours_costs_only_its_stream():
    owner = Owner()
    end, _, far = relayed(owner)
    far.says(RelayAudio(20.0, b"bad"))
    assert end.over
    assert owner.heard == [("closed",)]


@pytest.mark.parametrize("body", [WireMark("a"), WireClose(1000), WireAudio(b"", "")])
async def test_an_owner_s_words_from_a_socket_end_the_stream(body):
    owner = Owner()
    end, _, far = relayed(owner)
    far.says(body)
    assert end.over
    assert owner.heard == [("closed",)]


async def test_what_the_owner_says_is_done_in_order_and_the_close_carries_its_code():
    end, fabric, far, wire = relaying()
    far.says(WireAudio(b"12", "a"), WireMark("b"), WireClear(), WireClose(1008))
    assert wire.did == [("audio", 2, "a"), ("mark", "b"), ("clear",), ("close", 1008)]
    end.closed()
    end.closed()
    assert fabric.bodies[1:] == [RelayClosed()]
    far.acknowledges(2)
    assert end.over
    assert fabric.sent[-1].body == Acknowledged(4), "the owner must not wait for it"


async def test_a_frame_that_was_lost_on_the_way_is_asked_for_and_none_is_taken_twice():
    end, fabric, far, wire = relaying()
    end.receive(Frame(CALL, 7, 2, WireMark("b")))
    assert wire.did == []
    assert type(fabric.sent[-1].body).__name__ == "Repeat"
    far.says(WireMark("a"), WireMark("b"))
    end.receive(Frame(CALL, 7, 2, WireMark("b")))
    assert wire.did == [("mark", "a"), ("mark", "b")]


async def test_what_was_sent_while_the_network_was_away_is_sent_again():
    fabric, wire = Recorded(), Wire()
    peers = FabricPeers(fabric)
    end = peers.relay("there", CALL, b"opening", wire)
    end.receive_digit("1")
    peers.back()
    assert fabric.bodies == [RelayOpened(b"opening"), RelayDigit("1")] * 2
    peers.gone("there", "it was killed")
    assert wire.did == [("close", 1011)]


async def test_the_owner_s_death_closes_the_socket_with_1011_unless_all_was_said():
    end, _, _, wire = relaying()
    end.lost("it was killed")
    end.lost("again")
    end.receive_audio(b"\xff" * 160, 20.0)
    end.closed()
    assert wire.did == [("close", 1011)]
    assert end.over
    end, _, far, wire = relaying()
    far.says(WireClose(1000))
    end.closed()
    end.lost("it was killed")
    assert wire.did == [("close", 1000)]

"""The sockets between the processes of one machine, when one end misbehaves."""

from __future__ import annotations

import asyncio
import socket
from contextlib import asynccontextmanager

import pytest
from bridges import until

from dialog.workers.frames import MAX_FRAME, NOBODY, CallerAudio, Frame, encode
from dialog.workers.sockets import SocketFabric


class Receiver:
    """Notes what a fabric tells."""

    def __init__(self) -> None:
        self.frames: list[Frame] = []
        self.lost: list[tuple[str, str]] = []

    def receive(self, sender: str, frame: Frame) -> None:
        self.frames.append(frame)

    def gone(self, node: str, reason: str) -> None:
        self.lost.append((node, reason))

    def back(self) -> None:
        raise AssertionError("a socket does not come back")


@asynccontextmanager
async def connected():
    """A fabric, what it tells, and the bare socket at the other end."""
    fabric, receiver = SocketFabric("host"), Receiver()
    fabric.receiver = receiver
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    try:
        await fabric.connect("worker", ours)
        yield fabric, receiver, theirs
    finally:
        await fabric.close()
        theirs.close()


def frame(size: int) -> Frame:
    return Frame(NOBODY, 1, 1, CallerAudio(0.0, bytes(size)))


async def test_a_frame_comes_whole_however_it_is_cut_and_however_long_it_is():
    async with connected() as (_, receiver, theirs):
        packet = bytearray()
        encode(frame(300_000), packet)
        encode(frame(160), packet)
        loop = asyncio.get_running_loop()
        for at in range(0, len(packet), 7_777):
            await loop.sock_sendall(theirs, packet[at : at + 7_777])
        await until(lambda: len(receiver.frames) == 2)
        assert [len(each.body.data) for each in receiver.frames] == [300_000, 160]


async def test_a_node_that_reads_nothing_is_given_up_and_not_kept_in_memory(monkeypatch, caplog):
    monkeypatch.setattr("dialog.workers.sockets._MAX_WAITING", 1_000_000)
    async with connected() as (fabric, receiver, _):
        for _ in range(40):
            fabric.send("worker", frame(100_000))
        await until(lambda: receiver.lost)
        assert [node for node, _ in receiver.lost] == ["worker"]
        assert "worker reads nothing" in caplog.text
        fabric.send("worker", frame(160))  # to nobody, and harmless


@pytest.mark.parametrize("said", [(MAX_FRAME + 1).to_bytes(4), b"\0\0\0\4none"], ids=["too long", "no frame"])
async def test_a_node_that_breaks_the_protocol_is_left(said, caplog):
    async with connected() as (_, receiver, theirs):
        packet = bytearray()
        encode(frame(160), packet)
        theirs.sendall(bytes(packet) + said)
        await until(lambda: receiver.lost)
        assert len(receiver.frames) == 1, "what was right counts"
        assert "broke the protocol" in caplog.text


async def test_what_waits_is_written_before_the_end_however_slowly_it_is_read():
    async with connected() as (fabric, receiver, theirs):
        for _ in range(20):
            fabric.send("worker", frame(100_000))
        closing = asyncio.create_task(fabric.close())
        read = 0
        async with asyncio.timeout(10):
            while data := await asyncio.get_running_loop().sock_recv(theirs, 65_536):
                read += len(data)
            await closing
        assert read > 2_000_000
        assert not receiver.lost, "it was us who left"


async def test_the_end_does_not_wait_for_a_node_that_reads_nothing(monkeypatch):
    monkeypatch.setattr("dialog.workers.sockets._CLOSE_S", 0.05)
    async with connected() as (fabric, _, _):
        for _ in range(20):
            fabric.send("worker", frame(100_000))
        async with asyncio.timeout(10):
            await fabric.close()

"""How gateway processes of one machine find each other."""

from __future__ import annotations

import asyncio
import resource
import socket
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from uuid import uuid4

from bridges import until

from dialog.workers.siblings import Siblings, listen


class Owner:
    """A gateway without calls, except one."""

    def __init__(self, call=None) -> None:
        self.call = call

    def holds(self, call_id) -> bool:
        return call_id == self.call

    async def answer(self, request: bytes) -> bytes:
        return request[::-1]

    def join_relayed(self, opening, wire):
        raise NotImplementedError


@asynccontextmanager
async def family(directory: Path, count: int, call=None):
    """So many siblings, each started after those before it; the last one has ``call``."""
    made: list[Siblings] = []
    try:
        for number in range(count):
            older = tuple(each.node for each in made)
            made.append(Siblings(f"node-{number}", directory, listen(directory, f"node-{number}"), older))
        # Nobody has to wait for the older ones: their sockets are there.
        for number, each in reversed(tuple(enumerate(made))):
            await each.start(Owner(call if number == count - 1 else None))
        await until(lambda: all(len(each.others) == count - 1 for each in made))
        yield made
    finally:
        for each in made:
            await each.close()


async def test_each_reaches_each_in_whatever_order_they_start(tmp_path):
    async with family(tmp_path, 3) as made:
        for each in made:
            for other in made:
                assert each.reaches(other.node) == (each is not other)
                if each is not other:
                    assert await each.ask(other.node, uuid4(), b"abc") == b"cba"


async def test_the_one_that_has_a_call_is_found(tmp_path):
    call = uuid4()
    async with family(tmp_path, 3, call) as made:
        assert await made[0].find(call) == "node-2"
        assert await made[1].find(call) == "node-2"
        assert await made[2].find(call) == "", "it does not ask itself"
        assert await made[0].find(uuid4()) == ""


async def test_one_that_leaves_is_not_reached_any_more(tmp_path):
    async with family(tmp_path, 2) as made:
        await made[1].close()
        await until(lambda: not made[0].others)
        assert await made[0].find(uuid4()) == ""


async def test_an_older_one_that_has_died_is_passed_over(tmp_path):
    listen(tmp_path, "dead").close()
    each = Siblings("node", tmp_path, listen(tmp_path, "node"), ("dead", "never-there"))
    await each.start(Owner())
    assert not each.others
    await each.close()
    await each.close()


async def test_who_does_not_say_a_name_is_no_sibling(tmp_path, monkeypatch):
    monkeypatch.setattr("dialog.workers.siblings._NAME_S", 0.05)
    each = Siblings("node", tmp_path, listen(tmp_path, "node"))
    await each.start(Owner())
    try:
        for said in (b"", b"\x05ab", b"\xff" + b"a" * 255, b"\x02\xff\xfe"):
            reader, writer = await asyncio.open_unix_connection(tmp_path / "node")
            writer.write(said)
            async with asyncio.timeout(5):
                with suppress(ConnectionResetError):  # for what it did not read
                    assert await reader.read() == b""
            writer.transport.abort()
        assert not each.others
        gone = socket.socket(socket.AF_UNIX)
        gone.connect(str(tmp_path / "node"))
        gone.close()
        reader, writer = await asyncio.open_unix_connection(tmp_path / "node")
        writer.write(b"\x03new")
        await until(lambda: each.others == {"new"})
        writer.close()
        await writer.wait_closed()
        await until(lambda: not each.others)
    finally:
        await each.close()


async def test_a_sibling_that_comes_while_too_many_files_are_open_is_accepted_later(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("dialog.workers.siblings._AGAIN_S", 0.02)
    each = Siblings("node", tmp_path, listen(tmp_path, "node"))
    await each.start(Owner())
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        with socket.socket(socket.AF_UNIX) as late:
            resource.setrlimit(resource.RLIMIT_NOFILE, (late.fileno(), limits[1]))
            try:
                late.connect(str(tmp_path / "node"))
                await until(lambda: "cannot accept a sibling" in caplog.text)
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, limits)
            late.sendall(b"\x04late")
            await until(lambda: each.others == {"late"})
    finally:
        await each.close()

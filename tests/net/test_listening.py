"""An address that cannot be listened at is told of in one line, on either event loop."""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress

import pytest
from aiohttp import web

from dialog.errors import ConfigurationError
from dialog.loop import new_event_loop
from dialog.net.listening import listen, unlisten


async def listened(host: str, port: int) -> str:
    """Why it cannot be listened there; empty if it can."""
    runner = web.AppRunner(web.Application())
    await runner.setup()
    try:
        await listen(runner, host, port)
    except ConfigurationError as exc:
        return str(exc)
    finally:
        await unlisten(runner)
    return ""


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, new_event_loop])
def test_why_an_address_cannot_be_listened_at_is_one_line(loop) -> None:
    with asyncio.Runner(loop_factory=loop) as runner, socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        told = runner.run(listened("127.0.0.1", port))
        assert told == f"127.0.0.1:{port} cannot be listened at: address already in use"
        assert runner.run(listened("127.0.0.1", 0)) == ""
        assert "no.such.host.invalid:0 cannot be listened at: " in runner.run(listened("no.such.host.invalid", 0))
        assert runner.run(listened("a..b", 0)) == "a..b:0 cannot be listened at: 'a..b' is no name of a host"


@pytest.mark.parametrize("port", [-1, 65_536, 99_999])
async def test_a_number_that_is_no_port_is_not_cut_to_one(port: int) -> None:
    assert await listened("127.0.0.1", port) == f"{port} is no port: it is a number up to 65535"


@pytest.mark.parametrize("rounds", range(8))
async def test_who_is_being_accepted_is_closed_with_the_rest(rounds: int) -> None:
    loop = asyncio.get_running_loop()
    runner = web.AppRunner(web.Application())
    await runner.setup()
    await listen(runner, "127.0.0.1", 0)
    with socket.create_connection(runner.addresses[0]) as caller:
        caller.setblocking(False)
        for _ in range(rounds):
            await asyncio.sleep(0)
        await unlisten(runner)
        async with asyncio.timeout(10):
            with suppress(ConnectionError):
                assert await loop.sock_recv(caller, 1) == b""

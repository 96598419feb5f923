"""Connections to HTTP servers, against a server that is written out byte by byte."""

import asyncio
import ssl

import pytest
from yarl import URL

from dialog.net import connections as module
from dialog.net import shared
from dialog.net.connections import HttpConnections, Origin, connections
from dialog.net.http1 import BadResponseError

REQUEST = b"POST / HTTP/1.1\r\nContent-Length: 0\r\n\r\n"
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


class Server:
    """Answers the n-th request of all with the n-th answer; ``None`` closes without one."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.connections = []
        self.asked = 0

    async def __aenter__(self):
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.origin = Origin("127.0.0.1", self.server.sockets[0].getsockname()[1], tls=False)
        return self

    async def __aexit__(self, *_):
        self.server.close()
        for writer in self.connections:
            writer.close()

    async def _serve(self, reader, writer):
        self.connections.append(writer)
        try:
            while True:
                await reader.readuntil(b"\r\n\r\n")
                self.asked += 1
                answer = self.answers.pop(0) if self.answers else ANSWER
                if answer is None:
                    break
                writer.write(answer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@pytest.fixture
async def pool():
    pool = HttpConnections()
    yield pool
    await pool.close()
    async with asyncio.timeout(2):
        while pool._open:
            await asyncio.sleep(0)


async def ask(pool, server, **options):
    reply = await pool.request(server.origin, REQUEST, connect_s=1.0, **options)
    body = b""
    while data := await reply.read():
        body += data
    return reply.status, body


async def until(condition):
    async with asyncio.timeout(2):
        while not condition():
            await asyncio.sleep(0)


async def test_requests_one_after_another_use_one_connection(pool):
    async with Server() as server:
        for _ in range(5):
            assert await ask(pool, server) == (200, b"{}")
        assert len(server.connections) == 1
        assert pool.idle == 1


def test_another_event_loop_serves_as_well():
    uvloop = pytest.importorskip("uvloop")

    async def main():
        pool = HttpConnections()
        async with Server() as server:
            for _ in range(3):
                assert await ask(pool, server) == (200, b"{}")
            assert len(server.connections) == 1
            await pool.close()

    uvloop.run(main())


async def test_requests_at_the_same_time_get_connections_of_their_own(pool):
    async with Server() as server:
        await asyncio.gather(*(ask(pool, server) for _ in range(5)))
        assert len(server.connections) >= 2
        assert pool.idle == len(server.connections)


async def test_a_connection_that_the_server_closed_is_not_used_again(pool):
    async with Server() as server:
        await ask(pool, server)
        server.connections[0].close()
        await until(lambda: pool.idle == 0)
        assert await ask(pool, server) == (200, b"{}")
        assert len(server.connections) == 2


async def test_a_connection_that_the_server_will_close_is_not_used_again(pool):
    async with Server(ANSWER.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")) as server:
        await ask(pool, server)
        assert pool.idle == 0
        await ask(pool, server)
        assert len(server.connections) == 2


async def test_an_answer_that_is_not_wanted_any_more_costs_its_connection(pool):
    async with Server(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nbegin") as server:
        reply = await pool.request(server.origin, REQUEST, connect_s=1.0)
        assert await reply.read() == b"begin"
        reply.abort()
        reply.abort()
        await until(lambda: not pool._open)


async def test_a_waiter_that_is_cancelled_stops_its_request(pool):
    async with Server(b"") as server:
        task = asyncio.create_task(ask(pool, server))
        await until(lambda: server.asked)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await until(lambda: not pool._open)


@pytest.mark.parametrize(
    "answer", [None, b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhel", b"nonsense\r\n\r\n"]
)
async def test_a_broken_answer_is_an_error(pool, answer):
    async with Server(answer) as server:
        task = asyncio.create_task(ask(pool, server))
        await until(lambda: server.asked)
        for writer in server.connections:
            writer.close()
        with pytest.raises((BadResponseError, OSError)):
            await task
        assert await ask(pool, server) == (200, b"{}")


async def test_what_a_server_says_unasked_costs_its_connection(pool):
    async with Server() as server:
        await ask(pool, server)
        server.connections[0].write(ANSWER)
        await until(lambda: not pool._open)


async def test_a_reader_that_is_slow_makes_the_server_wait(pool):
    size = 20_000_000
    async with Server(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + b"x" * size) as server:
        reply = await pool.request(server.origin, REQUEST, connect_s=1.0)
        await until(lambda: reply._unread > module._MAX_UNREAD)
        held = reply._unread
        for _ in range(100):
            await asyncio.sleep(0)
        assert reply._unread == held < 2_000_000
        got = 0
        while data := await reply.read():
            got += len(data)
        assert got == size
        assert pool.idle == 1


async def test_a_server_that_is_not_there_is_an_error(pool, unused_tcp_port):
    with pytest.raises(ConnectionRefusedError):
        await pool.request(Origin("127.0.0.1", unused_tcp_port, tls=False), REQUEST, connect_s=1.0)


async def test_a_handshake_that_hangs_ends_in_time(pool):
    async with Server() as server:
        with pytest.raises(TimeoutError):
            await pool.request(server.origin._replace(tls=True), REQUEST, connect_s=0.05)


async def test_a_server_without_a_certificate_is_an_error(pool):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0, ssl=context)
    origin = Origin("127.0.0.1", server.sockets[0].getsockname()[1], tls=True)
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await pool.request(origin, REQUEST, connect_s=1.0)
    server.close()


async def test_a_connection_that_comes_a_moment_too_late_serves_the_next_request(pool):
    async with Server() as server:
        task = asyncio.create_task(ask(pool, server))
        await until(lambda: pool._open)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await ask(pool, server) == (200, b"{}")
        await until(lambda: len(pool._open) == pool.idle)


async def test_connections_that_nobody_needs_are_closed_after_a_while(pool, monkeypatch):
    monkeypatch.setattr(module, "_KEEP_S", 0.05)
    async with Server() as server:
        await ask(pool, server)
        await until(lambda: not pool._open)
        assert pool.idle == 0
        assert pool._timer is None


async def test_connections_are_leased_per_loop_and_closed_with_the_last_lease():
    first, second = connections(), connections()
    assert first.value is second.value
    async with Server() as server:
        await ask(first.value, server)
        await first.release()
        assert not second.value.closed
        await second.release()
        assert second.value.closed
        with pytest.raises(ConnectionError, match="were closed"):
            await ask(second.value, server)
    assert not shared._loops.get(asyncio.get_running_loop())


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("https://api.openai.com/v1", ("api.openai.com", 443, True)),
        ("http://[::1]:8080/v1", ("::1", 8080, False)),
        ("http://bücher.example/", ("xn--bcher-kva.example", 80, False)),
    ],
)
def test_an_origin_is_where_a_url_leads_to(url, origin):
    assert Origin.of(URL(url)) == origin

"""The provider socket against a server that behaves and misbehaves."""

import asyncio
import itertools
import socket as sockets

import aiohttp
import pytest
from aiohttp import web

from dialog.errors import AuthenticationError, LimitError, ProviderError
from dialog.net import shared
from dialog.net.reconnect import Backoff
from dialog.net.socket import ProviderSocket, SocketSettings
from dialog.participant import Participant
from dialog.testing.server import EmulatorServer, Faults

FAST = Backoff(first_s=0.01, limit_s=0.05, give_up_s=0.4, stable_s=5)


class Server(EmulatorServer):
    """Echoes text; ends when it reads ``bye``."""

    def routes(self):
        return [web.get("/ws", self.ws)]

    def refusal(self, status, request):
        headers = {"dg-error": "no such thing", "x-request-id": "abc"}
        return web.json_response({"err_msg": "because of me"}, status=status, headers=headers)

    async def ws(self, request):
        async with self.websocket(request) as socket:
            async for data in socket:
                if data == "bye":
                    await socket.send("last words")
                    await socket.close()
                elif isinstance(data, str):
                    await socket.send(data)
        return socket.response


class Owner(Participant):
    def __init__(self):
        super().__init__()
        self.failures, self.messages, self.opened, self.lost, self.dropped = [], [], 0, 0, []
        self.changed = asyncio.Condition()
        self.on(Participant.ERROR, self.failures.append)
        self.greeting = ""
        self.socket = None

    def connect(self, url, **settings):
        settings.setdefault("backoff", FAST)
        self.socket = ProviderSocket(
            self,
            provider="emu",
            url=url,
            headers={"X-Key": "secret"},
            on_message=self.messages.append,
            on_open=self._open,
            on_lost=self._lost,
            on_dropped=self.dropped.append,
            settings=SocketSettings(**settings),
        )
        self.socket.open()

    def _open(self):
        self.opened += 1
        if self.greeting:
            self.socket.send(self.greeting)

    def _lost(self):
        self.lost += 1


async def until(condition, timeout_s=5.0):
    """Let the loop run until something holds: for what only a listener tells."""
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0)


@pytest.fixture
async def owner():
    owner = Owner()
    yield owner
    owner.dispose()
    await owner.wait_disposed()
    assert not shared._loops.get(asyncio.get_running_loop())
    assert len(asyncio.all_tasks()) == 1


async def test_frames_go_and_come(owner):
    async with Server() as server:
        owner.connect(server.ws_url + "/ws")
        assert owner.socket.send("too early") is False
        await until(lambda: owner.socket.connected)
        assert owner.socket.send("hello")
        assert owner.socket.send(b"\x01\x02")
        await server.until(lambda: len(server.received()) == 2)
        await until(lambda: owner.messages)
        assert [f.data for f in server.received()] == ["hello", b"\x01\x02"]
        assert owner.messages == ["hello"]
        assert server.requests[0].headers["X-Key"] == "secret"
        assert "Sec-WebSocket-Extensions" not in server.requests[0].headers


async def test_a_frame_needs_no_task_and_no_turn_of_the_loop(owner):
    async with Server() as server:
        owner.connect(server.ws_url + "/ws")
        await until(lambda: owner.socket.connected)
        tasks = asyncio.all_tasks()
        for _ in range(100):
            owner.socket.send(b"\xff" * 160)
        assert asyncio.all_tasks() == tasks
        assert not owner.socket._outbox
        await server.until(lambda: len(server.received()) == 100)


@pytest.mark.parametrize("status", [400, 402, 403, 404, 401])
async def test_a_refusal_that_stays_is_one_fatal_error_that_tells_all(owner, status):
    async with Server(faults=Faults(refuse=status)) as server:
        owner.connect(server.ws_url + "/ws")
        await until(lambda: owner.failures)
        await until(lambda: owner.socket.failed)
        [failure] = owner.failures
        assert failure.fatal
        assert isinstance(failure.error, AuthenticationError) is (status in (401, 403))
        text = str(failure.error)
        assert all(part in text for part in (str(status), "no such thing", "abc", "because of me"))
        assert text.endswith(": check api_key") is (status in (401, 403))
        assert "secret" not in text
        assert len(server.requests) == 1


async def test_an_address_is_asked_anew_for_every_connection(owner):
    async with Server() as server:
        asked = []

        async def address(_):
            asked.append(len(asked))
            if asked == [0]:
                raise ProviderError("emu", "has no address yet", retryable=True)
            return f"{server.ws_url}/ws?ticket={len(asked)}"

        owner.connect(address)
        await until(lambda: owner.socket.connected)
        server.sockets[0].drop()
        await until(lambda: owner.opened == 2 and owner.socket.connected)
        assert [request.values("ticket") for request in server.requests] == [["2"], ["3"]]
        assert "has no address yet" in str(owner.failures[0].error)
        assert not owner.failures[0].fatal


async def test_who_gives_no_address_is_named_with_what_they_say(owner):
    async with Server(faults=Faults(refuse=404)) as server:

        async def address(session):
            async with session.get(f"{server.url}/ws") as response:
                body = await response.text()
            raise aiohttp.ClientResponseError(
                response.request_info, response.history, status=404, message=body, headers=response.headers
            )

        owner.connect(address)
        await until(lambda: owner.socket.failed)
        [failure] = owner.failures
        assert failure.fatal
        assert all(part in str(failure.error) for part in ("404", "no such thing", "because of me"))


@pytest.mark.parametrize("status", [408, 429, 500, 503])
async def test_a_refusal_that_passes_is_tried_again(owner, status):
    async with Server(faults=Faults(refuse=status, times=2)) as server:
        owner.connect(server.ws_url + "/ws")
        await until(lambda: owner.socket.connected)
        assert len(server.requests) == 3
        [failure] = owner.failures  # one for the outage, not one for each try
        assert not failure.fatal
        assert failure.retryable


async def test_a_hung_handshake_ends_in_time(owner):
    async with Server(faults=Faults(hang=True, times=1)) as server:
        owner.connect(server.ws_url + "/ws", connect_timeout_s=0.1)
        await until(lambda: owner.socket.connected)
        assert "0.1 s" in str(owner.failures[0].error)


async def test_it_gives_up_after_its_bound_with_one_fatal_error(owner):
    with sockets.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        owner.connect(f"ws://127.0.0.1:{unused.getsockname()[1]}/ws")
        await until(lambda: owner.socket.failed)
    assert [failure.fatal for failure in owner.failures] == [False, True]
    assert owner.failures[-1].error.retryable


async def test_a_name_that_does_not_resolve_is_tried_again(owner, monkeypatch):
    asked = []

    async def unknown(host, *_, **__):
        asked.append(host)
        raise sockets.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", unknown)
    owner.connect("ws://nothing.invalid/ws", backoff=Backoff(first_s=0.01, give_up_s=0.1))
    await until(lambda: owner.socket.failed)
    assert len(asked) > 1
    assert isinstance(owner.failures[-1].error, ProviderError)


async def test_a_dropped_connection_comes_back_and_on_open_speaks_first(owner):
    owner.greeting = "hello again"
    async with Server(faults=Faults(drop_after=1, times=1)) as server:
        owner.connect(server.ws_url + "/ws")
        await until(lambda: owner.messages)
        owner.socket.send("cut me")
        await until(lambda: owner.opened == 2)
        assert owner.lost == 1
        assert "1006" in str(owner.failures[0].error)
        owner.socket.send("after")
        await server.until(lambda: len(server.received()) == 4)
        assert [f.data for f in server.received() if f.connection == 1] == ["hello again", "after"]


@pytest.mark.parametrize(("code", "again"), [(1011, True), (1012, True), (1013, True), (1008, False), (1007, False)])
async def test_close_codes_decide_whether_to_come_back(owner, code, again):
    owner.greeting = "x"
    async with Server(faults=Faults(close_after=0, close_code=code, close_reason="go away", times=1)) as server:
        owner.connect(server.ws_url + "/ws")
        await until(lambda: owner.failures)
        assert str(code) in str(owner.failures[0].error)
        assert "go away" in str(owner.failures[0].error)
        if again:
            await until(lambda: owner.opened == 2)
        else:
            assert owner.failures[0].fatal


async def test_an_orderly_close_is_no_failure(owner):
    async with Server() as server:
        owner.connect(server.ws_url + "/ws")
        await until(lambda: owner.socket.connected)
        owner.socket.send("bye")
        await until(lambda: owner.opened == 2)
        assert owner.failures == []


async def test_a_connection_that_drops_at_once_each_time_is_given_up(owner):
    owner.greeting = "x"
    async with Server(faults=Faults(drop_after=0)) as server:
        owner.connect(server.ws_url + "/ws")
        await until(lambda: owner.socket.failed)
        assert owner.failures[-1].fatal


async def test_keep_alive_comes_only_while_nothing_else_does(owner):
    async with Server() as server:
        owner.connect(server.ws_url + "/ws", keep_alive="alive", keep_alive_s=0.05)
        await server.until(lambda: len(server.received(str)) >= 3)
        times = [frame.at for frame in server.received(str)]
        assert all(0.04 < later - earlier < 0.5 for earlier, later in itertools.pairwise(times))
        owner.messages.clear()
        count = len(server.received(str))
        for _ in range(20):
            owner.socket.send(b"\x00")
            await asyncio.sleep(0.01)
        assert len(server.received(str)) - count <= 1


async def test_dispose_says_farewell_and_waits_for_the_answer():
    owner = Owner()
    async with Server() as server:
        owner.connect(server.ws_url + "/ws", farewell="bye")
        await until(lambda: owner.socket.connected)
        owner.dispose()
        await owner.wait_disposed()
        assert [f.data for f in server.received()] == ["bye"]
        assert [f.data for f in server.frames if f.sent] == ["last words"]
        assert owner.failures == []
        await server.until(lambda: not server.sockets)
    assert len(asyncio.all_tasks()) == 1


@pytest.mark.parametrize("faults", [Faults(deaf_after=0), Faults(stall_after=0)])
async def test_a_peer_that_does_not_answer_cannot_hold_dispose(faults):
    owner = Owner()
    async with Server(faults=faults) as server:
        owner.connect(server.ws_url + "/ws", farewell="bye", close_timeout_s=0.1)
        await until(lambda: owner.socket.connected)
        owner.dispose()
        async with asyncio.timeout(1.0):
            await owner.wait_disposed()
        assert len(asyncio.all_tasks() - {asyncio.current_task()}) <= 3  # the server's own handler


@pytest.mark.parametrize("when", ["unconnected", "waiting", "connecting"])
async def test_dispose_in_every_state_leaves_nothing(when):
    owner = Owner()
    faults = {"waiting": Faults(refuse=503), "connecting": Faults(hang=True)}.get(when, Faults(times=0))
    async with Server(faults=faults) as server:
        owner.connect(server.ws_url + "/ws", backoff=Backoff(first_s=5, give_up_s=60))
        if when == "waiting":
            await until(lambda: owner.failures)
        elif when == "connecting":
            await server.until(lambda: server.requests)
        owner.dispose()
        async with asyncio.timeout(1.0):
            await owner.wait_disposed()
        assert not owner._tasks
        assert not shared._loops.get(asyncio.get_running_loop())


async def test_a_provider_that_does_not_read_costs_its_oldest_audio_and_one_error(owner):
    async with Server(faults=Faults(deaf_after=0)) as server:
        owner.connect(server.ws_url + "/ws", queue_limit=10)
        await until(lambda: owner.socket.connected)
        frame = b"\xff" * 60_000
        for _ in range(1000):  # until the transport and the kernel are full
            owner.socket.send(frame)
            if owner.socket._writer is not None:
                break
        await asyncio.sleep(0)
        owner.socket._outbox.clear()
        for number in range(9):
            assert owner.socket.send(bytes([number]) * 10)
        assert owner.socket.send("control")
        assert sum(map(len, owner.socket.queued_audio)) == 90
        for number in range(9, 14):
            assert owner.socket.send(bytes([number]) * 10)
        assert [data[0] for data in owner.dropped] == [0, 1, 2, 3, 4]
        assert "control" in owner.socket._outbox
        assert len(owner.socket._outbox) == 10
        [failure] = owner.failures
        assert isinstance(failure.error, LimitError)
        assert not failure.fatal


async def test_a_slow_provider_gets_all_in_order_once_it_reads(owner):
    async with Server() as server:
        owner.connect(server.ws_url + "/ws", queue_limit=10_000)
        await until(lambda: owner.socket.connected)
        frames = [number.to_bytes(4, "big") * 5000 for number in range(500)]  # 10 MB: more than any buffer takes
        for frame in frames:
            assert owner.socket.send(frame)
        assert owner.socket._writer is not None
        await server.until(lambda: len(server.received()) == 500, timeout_s=20)
        assert [f.data for f in server.received()] == frames
        await until(lambda: owner.socket._writer is None)
        assert owner.failures == []


async def test_a_message_beyond_the_bound_costs_the_connection_only(owner):
    async with Server() as server:
        owner.connect(server.ws_url + "/ws", max_message=1000)
        await until(lambda: owner.socket.connected)
        owner.socket.send("x" * 2000)
        await until(lambda: owner.opened == 2)
        assert not owner.failures[0].fatal

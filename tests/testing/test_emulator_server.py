"""The emulators' common base, seen by plain clients."""

import asyncio

import aiohttp
import pytest
from aiohttp import WSMsgType, web

from dialog.testing.server import EmulatorServer, Faults


class EchoServer(EmulatorServer):
    def routes(self):
        return [web.get("/ws", self.ws), web.post("/plain", self.plain), web.get("/sse", self.sse)]

    async def ws(self, request):
        async with self.websocket(request, headers={"x-request-id": "7"}) as socket:
            async for data in socket:
                await socket.send(data)

    async def plain(self, request):
        return web.json_response({"ok": True})

    async def sse(self, request):
        async with self.stream(request, headers={"Content-Type": "text/event-stream"}) as stream:
            for number in range(3):
                await stream.write(f"data: {number}\n\n")


@pytest.fixture
async def http():
    async with aiohttp.ClientSession() as session:
        yield session


async def test_frames_and_requests_are_recorded(http):
    async with EchoServer() as server:
        async with http.ws_connect(server.ws_url + "/ws?a=1&a=2") as ws:
            await ws.send_str("hello")
            assert (await ws.receive()).data == "hello"
            await ws.send_bytes(b"\x01")
            assert (await ws.receive()).data == b"\x01"
        await server.until(lambda: not server.sockets)
        assert [f.data for f in server.received()] == ["hello", b"\x01"]
        assert [f.data for f in server.received(bytes)] == [b"\x01"]
        assert server.requests[0].values("a") == ["1", "2"]
        async with http.post(server.url + "/plain", json={"x": 1}) as response:
            assert await response.json() == {"ok": True}
        assert server.requests[1].json() == {"x": 1}


async def test_refusal_happens_as_often_as_told(http):
    async with EchoServer(faults=Faults(refuse=429, times=1, refuse_headers={"Retry-After": "1"})) as server:
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await http.ws_connect(server.ws_url + "/ws")
        assert refused.value.status == 429
        assert refused.value.headers["Retry-After"] == "1"
        async with http.ws_connect(server.ws_url + "/ws"):
            assert server.connections == 1


async def test_drop_is_seen_as_an_abnormal_close(http):
    async with EchoServer(faults=Faults(drop_after=1)) as server, http.ws_connect(server.ws_url + "/ws") as ws:
        await ws.send_str("a")
        await ws.send_str("b")
        assert (await ws.receive()).data == "a"
        assert (await ws.receive()).type in (WSMsgType.CLOSED, WSMsgType.ERROR)
        assert ws.close_code == 1006


async def test_close_code_garbage_and_unknown_messages(http):
    faults = Faults(close_after=2, close_code=1013, close_reason="busy", garbage_after=1, unknown=True)
    async with EchoServer(faults=faults) as server, http.ws_connect(server.ws_url + "/ws") as ws:
        for text in "abc":
            await ws.send_str(text)
        got = [await ws.receive() for _ in range(6)]
        texts = [m.data for m in got[:5]]
        assert texts[1] == "a"
        assert texts[4] == "b"
        assert "SomethingNew" in texts[0]
        assert "not JSON" in texts[2]
        assert got[5].type is WSMsgType.CLOSE
        assert got[5].data == 1013


async def test_hang_and_stall_end_with_the_server(http):
    async with EchoServer(faults=Faults(hang=True)) as server:
        task = asyncio.create_task(http.post(server.url + "/plain"))
        await server.until(lambda: server.requests)
        await server.close()
        with pytest.raises(aiohttp.ClientError):
            (await task).raise_for_status()
    async with EchoServer(faults=Faults(stall_after=0)) as server, http.ws_connect(server.ws_url + "/ws") as ws:
        await ws.send_str("a")
        await server.until(server.received)
        await server.close()
        assert (await ws.receive()).type in (WSMsgType.CLOSED, WSMsgType.ERROR)


async def test_a_streamed_body_can_be_cut(http):
    async with EchoServer() as server:
        async with http.get(server.url + "/sse") as response:
            assert (await response.read()).count(b"data:") == 3
        server.faults = Faults(drop_after=2)
        async with http.get(server.url + "/sse") as response:
            with pytest.raises(aiohttp.ClientError):
                await response.read()


async def test_drop_after_received_bytes(http):
    async with EchoServer(faults=Faults(drop_after_bytes=3)) as server, http.ws_connect(server.ws_url + "/ws") as ws:
        await ws.send_bytes(b"12345")
        assert (await ws.receive()).type in (WSMsgType.CLOSED, WSMsgType.ERROR)

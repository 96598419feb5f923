"""The connection to an MCP server: real servers over stdio and HTTP, and what they do wrong."""

from __future__ import annotations

import asyncio
import json
import logging
import subprocess
import sys
import threading
from contextlib import asynccontextmanager

import pytest
from aiohttp import web
from places import http, is_running, lines, stdio, until
from ports import free_port

from dialog.errors import ConfigurationError, MissingExtra, ProviderError
from dialog.mcp import connection as connections
from dialog.mcp import sdk
from dialog.mcp import server as servers
from dialog.mcp.results import MCPToolError
from dialog.mcp.server import MCPServer
from dialog.net.reconnect import Reconnect
from dialog.testing.server import EmulatorServer, Faults
from dialog.toolpolicy import ToolPolicy

KITCHEN = ["price", "stock", "both", "picture", "burn", "menu.of/the day", "hang", "crash", "who", "grow"]


@asynccontextmanager
async def connected(server: MCPServer):
    async with server:
        lease = server.lease()
        try:
            yield lease.value
        finally:
            await lease.release()


@pytest.fixture(params=["stdio", "http"])
async def kitchen(request, tmp_path):
    """The kitchen, both ways; ``notes`` is what it has done."""
    notes = tmp_path / "notes"
    if request.param == "stdio":
        async with connected(stdio(env={"NOTES": str(notes)})) as connection:
            yield connection, notes
    else:
        port = free_port()
        async with (
            http(port, NOTES=str(notes)),
            connected(MCPServer(url=f"http://127.0.0.1:{port}/mcp", name="kitchen")) as connection,
        ):
            yield connection, notes


async def test_tools_are_listed_and_called(kitchen):
    connection, _ = kitchen
    assert [tool.name for tool in connection.tools] == KITCHEN
    price = connection.tools[0]
    assert price.description == "What a dish costs."
    schema = json.loads(price.schema)
    assert (schema["type"], schema["required"], list(schema["properties"])) == ("object", ["dish"], ["dish", "people"])
    assert await connection.call("price", {"dish": "pizza", "people": 2}) == "pizza for 2: 18 euros"


async def test_whatever_a_tool_answers_becomes_text_for_the_model(kitchen):
    connection, _ = kitchen
    assert json.loads(await connection.call("stock", {})) == {"pizza": 3}
    assert await connection.call("both", {}) == 'two found\n{"found":[1,2]}'
    assert "image that cannot be shown" in await connection.call("picture", {})
    with pytest.raises(MCPToolError, match="the oven is cold"):
        await connection.call("burn", {})
    with pytest.raises(MCPToolError, match="nothing"):
        await connection.call("nothing", {})


async def test_changes_of_the_list_are_followed(kitchen):
    connection, _ = kitchen
    changed = asyncio.Event()
    connection.watch(changed.set)
    async with asyncio.timeout(15):
        while "dessert" not in [tool.name for tool in connection.tools]:
            # Whoever subscribes a moment later is not told: it is changed until it is.
            changed.clear()
            await connection.call("grow", {})
            try:
                async with asyncio.timeout(0.5):
                    await changed.wait()
            except TimeoutError:
                continue
    connection.unwatch(changed.set)
    assert await connection.call("dessert", {}) == "tiramisu"


async def test_a_call_that_is_given_up_ends_at_the_server(kitchen):
    connection, notes = kitchen
    call = asyncio.create_task(connection.call("hang", {}))
    await until(lambda: "hang begun" in lines(notes))
    call.cancel()
    await asyncio.wait((call,))
    assert call.cancelled()
    await until(lambda: "hang ended" in lines(notes))
    assert await connection.call("price", {"dish": "pizza"}), "the connection goes on"


async def test_a_server_that_crashes_in_a_call_costs_that_call_and_is_started_again(tmp_path):
    notes = tmp_path / "notes"
    async with connected(stdio(env={"NOTES": str(notes)})) as connection:
        before = await connection.call("who", {})
        calls = [connection.call("crash", {}), connection.call("hang", {})]
        failed = await asyncio.gather(*calls, return_exceptions=True)
        assert [str(error) for error in failed] == ["kitchen broke off; what the tool did is unknown"] * 2
        assert await connection.call("who", {}) != before, "waited for, not refused"
        assert connection.error is None
        assert [tool.name for tool in connection.tools] == KITCHEN


async def test_only_what_is_idempotent_is_asked_again_after_a_crash(tmp_path):
    notes = tmp_path / "notes"
    async with connected(stdio(env={"NOTES": str(notes)})) as connection:
        once = {"once": str(tmp_path / "once")}
        assert await connection.call("crash", once, idempotent=True) == "standing"
        assert lines(notes) == ["crash", "crash"]
        with pytest.raises(MCPToolError, match="unknown"):
            await connection.call("crash", {}, idempotent=True)
        assert len(lines(notes)) == 4, "and only once more"


async def test_a_server_on_the_network_that_dies_takes_its_tools_with_it_and_brings_them_back():
    port = free_port()
    server = MCPServer(url=f"http://127.0.0.1:{port}/mcp", name="kitchen")
    changed = []
    async with http(port) as process:
        await server.connect()
        lease = server.lease()
        connection = lease.value
        connection.watch(lambda: changed.append((len(connection.tools), connection.error)))
        process.kill()
        with pytest.raises(MCPToolError):
            await connection.call("hang", {})
        await until(lambda: connection.error is not None)
    assert not connection.tools
    assert "MCP server kitchen: " in str(connection.error)
    with pytest.raises(MCPToolError, match="MCP server kitchen: "):
        await connection.call("price", {"dish": "pizza"})
    first = connection.error
    async with http(port):
        await until(lambda: connection.error is None)
        assert await connection.call("price", {"dish": "pizza"}) == "pizza for 1: 9 euros"
    assert {id(error) for _, error in changed if error} == {id(first)}, "one outage, one error"
    await lease.release()
    await server.close()


@pytest.mark.alone
async def test_calls_share_one_connection_and_the_last_one_closes_it(tmp_path):
    notes = tmp_path / "notes"
    first, second = (stdio(env={"NOTES": str(notes)}) for _ in range(2))
    other = stdio(env={"NOTES": str(notes), "OTHER": "1"})
    leases = [server.lease() for server in (first, second, first)]
    assert len({id(lease.value) for lease in leases}) == 1
    apart = other.lease()
    assert apart.value is not leases[0].value
    pid = int(await leases[0].value.call("who", {}))
    assert int(await apart.value.call("who", {})) != pid
    for lease in leases[:-1]:
        await lease.release()
    assert is_running(pid)
    await leases[-1].release()
    assert not is_running(pid)
    await apart.release()


async def test_connecting_ahead_keeps_the_connection_between_calls():
    server = stdio()
    async with server:
        await server.connect()  # harmless
        lease = server.lease()
        pid = await lease.value.call("who", {})
        await lease.release()
        again = server.lease()
        assert await again.value.call("who", {}) == pid
        await again.release()
    assert not is_running(int(pid))
    await server.close()


async def test_letting_go_while_it_connects_leaves_nothing(tmp_path):
    server = stdio()
    lease = server.lease()
    await asyncio.sleep(0)
    await lease.release()
    assert lease.value._task.done()
    with pytest.raises(MCPToolError, match="let go of"):
        await lease.value.call("who", {})


async def test_a_listener_that_fails_costs_nobody_else_the_connection(caplog):
    async with connected(stdio("old")) as connection:
        connection.watch(lambda: 1 / 0)
        heard = asyncio.Event()
        connection.watch(heard.set)
        await connection.call("grow", {})
        async with asyncio.timeout(5):
            await heard.wait()
        assert await connection.call("greet", {}) == "greet"
    assert "a listener raised" in caplog.text


async def test_a_server_that_crashes_again_and_again_is_not_started_ever_faster(tmp_path, monkeypatch):
    waits: list[float] = []

    class Watched(Reconnect):
        def lost(self, now, **more):
            waits.append(super().lost(now, **more))
            return 0.0

    monkeypatch.setattr(connections, "Reconnect", Watched)
    async with connected(stdio("old")) as connection:
        for _ in range(4):
            with pytest.raises(MCPToolError):
                await connection.call("leave", {})
            assert await connection.call("greet", {}) == "greet"
    assert 0 < waits[0] < 0.2
    assert waits[3] > 3 * waits[0]


# Servers that are down, slow, or speak nonsense


class Wall(EmulatorServer):
    """Something on the network that is no MCP server."""

    answer = "<html>hello</html>"

    def routes(self):
        return [web.post("/mcp", self.post)]

    async def post(self, request):
        return web.Response(text=self.answer, content_type="application/json")


@pytest.mark.parametrize(
    ("faults", "said"),
    [
        (Faults(refuse=401), r"refused the credentials \(HTTP 401\): check its headers"),
        (Faults(refuse=403), r"HTTP 403"),
        (Faults(refuse=500), r"answered HTTP 500"),
        (Faults(hang=True), r"no answer within 0.5 s"),
        (Faults(times=0), r"refused: Failed to parse JSON"),
    ],
)
async def test_why_a_server_cannot_be_reached_is_said(faults, said):
    async with Wall(faults=faults) as wall:
        server = MCPServer(url=f"{wall.url}/mcp", name="wall", connect_timeout_s=0.5)
        with pytest.raises(ProviderError, match=rf"^MCP server wall: .*{said}"):
            await server.connect()


async def test_a_server_that_is_not_there_is_told():
    with pytest.raises(ProviderError, match=r"MCP server 127_0_0_1: .*Connect"):
        await MCPServer(url=f"http://127.0.0.1:{free_port()}/mcp").connect()
    with pytest.raises(ProviderError, match=r"command cannot be started: No such file.*nowhere"):
        await MCPServer(command="/nowhere/at-all").connect()
    with pytest.raises(ProviderError, match="ended before it answered"):
        await MCPServer(command=sys.executable, args=["-c", "pass"]).connect()
    with pytest.raises(ProviderError, match="no answer within"):
        await MCPServer(
            command=sys.executable, args=["-c", "import time; time.sleep(60)"], connect_timeout_s=0.3
        ).connect()


async def test_headers_go_with_every_request_and_nowhere_else(caplog):
    seen = []

    class Watchful(Wall):
        async def post(self, request):
            seen.append(request.headers["Authorization"])
            return await super().post(request)

    caplog.set_level(logging.DEBUG)
    async with Watchful() as wall:
        server = MCPServer(url=f"{wall.url}/mcp?key=hidden", headers={"Authorization": "Bearer secret"})
        with pytest.raises(ProviderError):
            await server.connect()
    assert seen
    assert set(seen) == {"Bearer secret"}
    assert "secret" not in caplog.text + repr(server) + repr(server._target)


async def test_a_server_of_an_older_protocol_is_understood(caplog):
    async with connected(stdio("old")) as connection:
        names = ["greet", "malformed", "liar", "refused", "garbage", "grow", "leave"]
        assert [tool.name for tool in connection.tools] == names, "of two pages; the one without a schema is left out"
        assert "wrong is not offered" in caplog.text
        assert len(connection.tools[0].description) == 1024
        assert json.loads(connection.tools[0].schema) == {"properties": {}, "type": "object"}
        assert await connection.call("greet", {}) == "greet"
        changed = asyncio.Event()
        connection.watch(changed.set)
        await connection.call("grow", {})
        async with asyncio.timeout(5):
            await changed.wait()
        assert connection.tools[-1].name == "dessert"
        connection.unwatch(changed.set)


async def test_an_answer_that_is_malformed_costs_that_call(caplog):
    async with connected(stdio("old")) as connection:
        for name in ("malformed", "liar"):
            with pytest.raises(MCPToolError, match="the server's answer is malformed"):
                await connection.call(name, {})
        with pytest.raises(MCPToolError, match="not on Mondays"):
            await connection.call("refused", {})
        assert await connection.call("garbage", {}) == ""
        assert await connection.call("greet", {}) == "greet"
    assert "the caller said hello" not in caplog.text, "what is said stays out of logs"


async def test_a_server_that_leaves_is_noticed_without_a_call():
    async with connected(stdio("old")) as connection:
        with pytest.raises(MCPToolError, match="unknown"):
            await connection.call("leave", {})
        session = connection._session
        await until(lambda: connection._session not in (None, session))
        assert await connection.call("greet", {}) == "greet"


async def test_a_session_that_the_server_has_forgotten_is_made_anew():
    async with legacy_http() as (url, forget), connected(MCPServer(url=url, name="kitchen")) as connection:
        assert await connection.call("price", {}) == "9"
        await forget()
        assert await connection.call("price", {}) == "9"


@asynccontextmanager
async def legacy_http():
    """A server of 2025-06-18 over HTTP that forgets its sessions."""
    gone: set[str] = set()
    sessions = iter(range(100))

    async def door(request: web.Request) -> web.StreamResponse:
        message = json.loads(await request.text() or "{}")
        session = request.headers.get("mcp-session-id", "")
        if request.method != "POST":
            return web.Response(status=405)
        if session in gone:
            return web.Response(status=404)
        method, number = message.get("method"), message.get("id")
        headers = {}
        if method == "initialize":
            headers["mcp-session-id"] = f"s{next(sessions)}"
            result = {
                "protocolVersion": "2025-06-18",
                "capabilities": {"tools": {}},
                "serverInfo": {"name": "k", "version": "1"},
            }
        elif method == "tools/list":
            result = {"tools": [{"name": "price", "inputSchema": {"type": "object"}}]}
        elif method == "tools/call":
            result = {"content": [{"type": "text", "text": "9"}]}
        elif number is None:
            return web.Response(status=202)
        else:
            return web.json_response(
                {"jsonrpc": "2.0", "id": number, "error": {"code": -32601, "message": "Method not found"}}
            )
        return web.json_response({"jsonrpc": "2.0", "id": number, "result": result}, headers=headers)

    class Host(EmulatorServer):
        def routes(self):
            return [web.route("*", "/mcp", door)]

    async def forget() -> None:
        gone.update(f"s{number}" for number in range(next(sessions)))

    async with Host() as host:
        yield f"{host.url}/mcp", forget


# Settings


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "either url or command"),
        ({"url": "http://x/mcp", "command": "x"}, "either url or command"),
        ({"url": "ws://x/mcp"}, "must be http"),
        ({"url": "http://x/mcp", "args": ["x"]}, "belong to a command"),
        ({"command": "x", "headers": {"a": "b"}}, "belong to a url"),
        ({"command": "x", "args": "y"}, "lists of texts"),
        ({"command": "x", "tools": "y"}, "lists of texts"),
        ({"command": "x", "connect_timeout_s": 0}, "must be positive"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, said):
    with pytest.raises(ConfigurationError, match=said):
        MCPServer(**settings)


def test_a_policy_that_makes_no_sense_is_refused():
    for settings in ({"timeout_s": 0}, {"on_interrupt": "x"}, {"on_interrupt": "cancel", "background": True}):
        with pytest.raises(ConfigurationError):
            ToolPolicy(**settings)


def test_a_server_is_named_after_its_address_or_command():
    assert MCPServer(url="https://kitchen.example/mcp").name == "kitchen_example"
    assert MCPServer(command="/usr/bin/mcp-time.exe").name == "mcp-time"
    assert MCPServer(command="x", name="the kitchen").name == "the_kitchen"


def test_without_the_sdk_the_extra_is_named(monkeypatch):
    monkeypatch.setattr(servers, "find_spec", lambda _: None)
    with pytest.raises(MissingExtra, match=r"dialog\[mcp\]"):
        MCPServer(command="x")


async def test_the_sdk_is_imported_beside_the_loop(monkeypatch):
    threads = []
    load = sdk._import
    monkeypatch.setattr(sdk, "_import", lambda: threads.append(threading.current_thread()) or load())
    async with connected(stdio()):
        pass
    assert len(threads) == 1
    assert threads[0] is not threading.main_thread()


async def test_an_sdk_that_cannot_be_used_is_told(monkeypatch):
    def broken():
        raise ImportError("cannot import name 'Client'")

    monkeypatch.setattr(sdk, "_import", broken)
    with pytest.raises(ConfigurationError, match=r"cannot be used .*'Client'.*dialog\[mcp\]"):
        await stdio().connect()


def test_nothing_of_the_sdk_is_imported_before_it_is_needed():
    program = (
        "import sys; from dialog import Agent, MCPServer; MCPServer(command='x');"
        "print([m for m in sys.modules if m.split('.')[0] in ('mcp', 'anyio', 'httpx2', 'pydantic', 'jsonschema')])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout == "[]\n"

"""The official SDK, imported in a thread: half a second and 50 MB, which the loop must not wait for.

Nothing of it is seen outside this module but a session and its errors.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import AsyncGenerator, Mapping
from contextlib import AbstractContextManager, AsyncExitStack, asynccontextmanager
from functools import cache
from types import SimpleNamespace
from typing import Any, Protocol, Self, cast

import msgspec
from msgspec import Struct

from dialog.clock import OUTSIDE
from dialog.mcp.results import MCPToolError
from dialog.net.shared import ssl_context
from dialog.schemas import Problems, compile_schema
from dialog.version import __version__

__all__ = ["ClosedError", "Kit", "RefusedError", "RemoteTool", "Scope", "Session", "SessionGoneError", "load"]

logger = logging.getLogger(__name__)

_PAGES = 100
_DESCRIPTION = 1024
"""Characters of a description that models are given: some refuse longer ones, and with them the whole request."""
_LISTEN_AGAIN_S = 15.0
"""Between two subscriptions to changes, where the server ends them."""
_LIST_CHANGED = "notifications/tools/list_changed"
_SESSION_GONE = (-32600, "Session terminated")
"""What the SDK makes of HTTP status 404 to a session."""
_LOGGERS = ("client.session", "client.stdio", "client.streamable_http", "shared.jsonrpc_dispatcher")


class ClosedError(Exception):
    """The connection ended, or the server says something that looks like it."""


class SessionGoneError(Exception):
    """The server does not know the session any more, and has not looked at the request."""


class RefusedError(Exception):
    """The server does not list its tools."""


class Scope(AbstractContextManager["Scope"], Protocol):
    """A cancel scope of anyio's."""

    deadline: float
    cancelled_caught: bool

    def cancel(self) -> None:
        """Cancel the block."""


class RemoteTool(Struct, frozen=True, kw_only=True):
    """A tool of a server."""

    name: str
    description: str
    schema: str
    """JSON Schema of the arguments object."""
    problems: Problems
    """What is wrong with arguments, in words for a model."""


async def load() -> Kit:
    """The SDK, ready to be used.

    Raises:
        ImportError: It is not installed.
    """
    return await asyncio.to_thread(_import)


class Kit:
    """What is used of the SDK."""

    def __init__(self, modules: SimpleNamespace) -> None:
        self._sdk: Any = modules

    def new_scope(self) -> Scope:
        """A cancel scope, for the running task."""
        scope: Scope = self._sdk.CancelScope()
        return scope

    @asynccontextmanager
    async def open(self, target: Any) -> AsyncGenerator[Session]:
        """A session with the server; whatever fails in it ends the block."""
        session = Session(self._sdk, target.name)
        async with AsyncExitStack() as stack:
            if target.url:
                http = self._sdk.AsyncClient(
                    headers=dict(target.headers),
                    # A stream of changes may be silent for hours; calls have their own time-outs.
                    timeout=self._sdk.Timeout(target.connect_timeout_s, read=None),
                    verify=ssl_context(),
                    event_hooks={"response": [session.note_status]},
                )
                await stack.enter_async_context(http)
                transport = self._sdk.streamable_http_client(target.url, http_client=http)
            else:
                command, *arguments = target.command
                parameters = self._sdk.StdioServerParameters(
                    command=command, args=arguments, env=dict(target.env), cwd=target.cwd or None
                )
                transport = self._sdk.stdio_client(parameters, errlog=sys.__stderr__)
            try:
                with OUTSIDE.work():
                    session.client = await stack.enter_async_context(
                        self._sdk.Client(
                            _watched(transport, session),
                            cache=None,
                            message_handler=session.on_message,
                            client_info=self._sdk.Implementation(name="dialog", version=__version__),
                        )
                    )
            except Exception as exc:
                raise ConnectionError(self._why(exc, session)) from exc
            tasks = await stack.enter_async_context(self._sdk.create_task_group())
            tasks.start_soon(session.follow)
            try:
                yield session
            finally:
                session.lose()
                tasks.cancel_scope.cancel()

    def reason(self, exc: BaseException) -> str:
        """Why a session ended, or could not begin, in words."""
        return self._why(exc, None)

    def _why(self, exc: BaseException, session: Session | None) -> str:
        leaf: Any = exc
        while isinstance(leaf, BaseExceptionGroup):
            leaf = cast("BaseExceptionGroup[BaseException]", leaf).exceptions[0]
        status = session.status if session is not None else 0
        if status in (401, 403):
            return f"it refused the credentials (HTTP {status}): check its headers"
        if status >= 400:
            return f"it answered HTTP {status}"
        if isinstance(leaf, self._sdk.MCPError):
            if leaf.code == self._sdk.CONNECTION_CLOSED:
                return "it ended before it answered; what it says about that is on standard error"
            return f"it refused: {leaf.message}"
        if isinstance(leaf, FileNotFoundError | PermissionError):
            return f"its command cannot be started: {leaf.strerror}: {leaf.filename!r}"
        if isinstance(leaf, RefusedError) or (isinstance(leaf, ConnectionError) and leaf.errno is None):
            return str(leaf)  # made in this module
        return f"{type(leaf).__name__}: {leaf}"


class Session:
    """One session with a server."""

    def __init__(self, modules: Any, name: str) -> None:
        self._sdk = modules
        self._name = name
        self.client: Any = None
        self.lost: asyncio.Event = asyncio.Event()
        """The connection has ended."""
        self.news: asyncio.Event = asyncio.Event()
        """Set when it has, and when the server's tools have changed."""
        self.status: int = 0
        """The newest HTTP status."""

    def lose(self) -> None:
        """The connection has ended."""
        self.lost.set()
        self.news.set()

    async def note_status(self, response: Any) -> None:
        """An answer over HTTP."""
        self.status = response.status_code

    async def on_message(self, message: Any) -> None:
        """A notification; what else the transport tells is told by the requests that it fails."""
        if getattr(message, "method", "") == _LIST_CHANGED:
            self.news.set()

    async def follow(self) -> None:
        """Subscribe to changes of the tools, where that is the protocol's way: since 2026-07-28."""
        offered = self.client.server_capabilities.tools
        if offered is None or not offered.list_changed or self.client.protocol_version not in self._sdk.MODERN:
            return
        while True:
            try:
                async with self.client.listen(tools_list_changed=True) as changes:
                    async for _ in changes:
                        self.news.set()
            except self._sdk.SubscriptionLost:
                logger.debug("MCP server %s: the subscription to changes broke off", self._name)
            except self._sdk.MCPError as exc:
                logger.info("MCP server %s does not tell of changes: %s", self._name, exc.message)
                return
            await asyncio.sleep(_LISTEN_AGAIN_S)
            self.news.set()  # nobody tells what has changed meanwhile

    async def list_tools(self) -> tuple[RemoteTool, ...]:
        """All tools that can be offered to a model.

        Raises:
            RefusedError: The server refuses, or answers what is none.
        """
        if self.client.server_capabilities.tools is None:
            return ()
        found: list[Any] = []
        cursor: str | None = None
        try:
            for _ in range(_PAGES):
                with OUTSIDE.work():
                    page = await self.client.list_tools(cursor=cursor)
                found += page.tools
                cursor = page.next_cursor
                if not cursor:
                    break
        except self._sdk.MCPError as exc:
            raise RefusedError(f"it does not list its tools: {exc.message}") from exc
        except self._sdk.ValidationError as exc:
            raise RefusedError("its list of tools is malformed") from exc
        # Compiling the schemas takes milliseconds each.
        return await asyncio.to_thread(self._describe, found)

    async def call(self, name: str, arguments: Mapping[str, Any]) -> Any:
        """Call a tool; returns the ``CallToolResult``.

        Raises:
            MCPToolError: The server refused, or its answer is malformed.
            ClosedError: The connection ended.
            SessionGoneError: The server has forgotten the session.
        """
        if self.lost.is_set():
            raise ClosedError("the connection has ended")
        try:
            with OUTSIDE.work():
                return await self.client.call_tool(name, dict(arguments))
        except self._sdk.MCPError as exc:
            if exc.code == self._sdk.CONNECTION_CLOSED:
                raise ClosedError(exc.message) from exc
            if (exc.code, exc.message) == _SESSION_GONE:
                raise SessionGoneError(exc.message) from exc
            raise MCPToolError(exc.message) from exc
        except (self._sdk.ValidationError, RuntimeError) as exc:
            if self.lost.is_set():
                raise ClosedError("the connection has ended") from exc
            logger.warning("MCP server %s: the answer of %s breaks the protocol or its own schema", self._name, name)
            raise MCPToolError("the server's answer is malformed") from exc

    def _describe(self, tools: list[Any]) -> tuple[RemoteTool, ...]:
        described: list[RemoteTool] = []
        for tool in tools:
            schema: dict[str, Any] = tool.input_schema
            try:
                problems = compile_schema(schema)
            except Exception as exc:  # what a stranger wrote; a model's provider would refuse the whole request
                why = str(exc).partition("\n")[0]
                logger.warning("MCP server %s: %s is not offered, its schema is none: %s", self._name, tool.name, why)
                continue
            text = (tool.description or tool.title or tool.name).strip()
            described.append(
                RemoteTool(
                    name=tool.name,
                    description=text if len(text) <= _DESCRIPTION else text[: _DESCRIPTION - 1] + "…",
                    schema=msgspec.json.encode({"properties": {}, **schema}).decode(),
                    problems=problems,
                )
            )
        return tuple(described)


@asynccontextmanager
async def _watched(transport: Any, session: Session) -> AsyncGenerator[tuple[Any, Any]]:
    """The transport's streams; the session is lost when nothing more can be read."""
    async with transport as (read, write):
        yield _Watched(read, session), write


class _Watched:
    """A stream that tells when it has ended: the SDK itself tells only those who have a request under way."""

    def __init__(self, stream: Any, session: Session) -> None:
        self._stream = stream
        self._session = session

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def __aiter__(self) -> _Watched:
        return self

    async def __anext__(self) -> Any:
        try:
            return await self._stream.__anext__()
        except BaseException:
            self._session.lose()
            raise

    async def __aenter__(self) -> Self:
        await self._stream.__aenter__()
        return self

    async def __aexit__(self, *exc: object) -> Any:
        return await self._stream.__aexit__(*exc)


class _Discreet(logging.Filter):
    """Keeps what was said out of logs: the SDK logs the text of messages, and of those that it cannot read."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.exc_info = record.exc_text = None
        return record.levelno >= logging.WARNING


@cache
def _import() -> Kit:
    import jsonschema.exceptions  # type: ignore[import-untyped]  # noqa: F401  # the SDK needs it at its first result
    from anyio import CancelScope, create_task_group
    from httpx2 import AsyncClient, Timeout
    from mcp import Client, MCPError, StdioServerParameters, stdio_client
    from mcp.client import subscriptions
    from mcp.client.streamable_http import streamable_http_client
    from mcp_types import CONNECTION_CLOSED, Implementation
    from mcp_types.version import MODERN_PROTOCOL_VERSIONS
    from pydantic import ValidationError

    for name in _LOGGERS:
        logging.getLogger(f"mcp.{name}").addFilter(_Discreet())
    ssl_context()
    return Kit(
        SimpleNamespace(
            AsyncClient=AsyncClient,
            CONNECTION_CLOSED=CONNECTION_CLOSED,
            CancelScope=CancelScope,
            Client=Client,
            Implementation=Implementation,
            MCPError=MCPError,
            MODERN=MODERN_PROTOCOL_VERSIONS,
            StdioServerParameters=StdioServerParameters,
            SubscriptionLost=subscriptions.SubscriptionLost,
            Timeout=Timeout,
            ValidationError=ValidationError,
            create_task_group=create_task_group,
            stdio_client=stdio_client,
            streamable_http_client=streamable_http_client,
        )
    )

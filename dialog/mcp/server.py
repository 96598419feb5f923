"""An MCP server: where it is, which of its tools are offered, and how they run.

::

    kitchen = MCPServer(url="https://kitchen.example/mcp", headers={"Authorization": "Bearer …"})
    clock = MCPServer(command="uvx", args=["mcp-server-time"])

    FrontDesk(mcp_servers=[kitchen, clock], …)

The SDK (the extra ``mcp``) is imported, in a thread, when the first connection is opened.

Source: Model Context Protocol, 2025-11-25 and 2026-07-28, by the official SDK.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import PurePath
from typing import Self
from urllib.parse import urlsplit

from dialog.errors import ConfigurationError, MissingExtra
from dialog.mcp.connection import Connection, Target
from dialog.net import shared
from dialog.net.shared import Lease
from dialog.toolpolicy import ToolPolicy

__all__ = ["MCPServer"]

_NO_NAME = re.compile(r"[^A-Za-z0-9_-]+")
_DEFAULT = ToolPolicy()


class MCPServer:
    """A server whose tools an agent offers to its model beside its own.

    It may be given to any number of agents: all calls of an event loop share one connection to what has the
    same address, headers and environment, which is open from the first call to the last, or from
    :meth:`connect` to :meth:`close`. A server that keeps something for its client keeps it for all of them:
    give it a header of the call's own to have a connection for each call.

    Args:
        url: Where it is, with streamable HTTP: ``https://…``.
        command: What starts it as a process of ours, with stdio; its standard error is ours.
        args: Arguments of the command.
        env: More of the environment for the command, which gets only ``PATH``, ``HOME`` and the like.
        cwd: Where it runs.
        headers: Of every request, for instance ``{"Authorization": "Bearer …"}``.
        name: In errors, and before the name of a tool that somebody else has as well; by default made from
            the address or the command.
        tools: The tools that are offered, by the server's names; ``None``: all.
        policy: How its tools run.
        policies: How some of them run instead, by the server's names.
        connect_timeout_s: Longest time to connect and to list the tools, in seconds.

    Raises:
        ConfigurationError: There is neither an address nor a command, or both; or a value is out of range.
        MissingExtra: The ``mcp`` package is not installed.
    """

    def __init__(
        self,
        *,
        url: str = "",
        command: str = "",
        args: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
        cwd: str = "",
        headers: Mapping[str, str] | None = None,
        name: str = "",
        tools: Sequence[str] | None = None,
        policy: ToolPolicy = _DEFAULT,
        policies: Mapping[str, ToolPolicy] | None = None,
        connect_timeout_s: float = 10.0,
    ) -> None:
        if bool(url) == bool(command):
            raise ConfigurationError("MCPServer needs either url or command")
        if url and (urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname):
            raise ConfigurationError(f"MCPServer: url must be http(s)://…, got {url.partition('?')[0]!r}")
        if url and (args or env or cwd):
            raise ConfigurationError("MCPServer: args, env and cwd belong to a command, not to a url")
        if command and headers:
            raise ConfigurationError("MCPServer: headers belong to a url, not to a command")
        if isinstance(args, str) or isinstance(tools, str):
            raise ConfigurationError("MCPServer: args and tools are lists of texts, not one text")
        if connect_timeout_s <= 0:
            raise ConfigurationError(f"MCPServer: connect_timeout_s must be positive, got {connect_timeout_s}")
        if find_spec("mcp") is None:
            raise MissingExtra("mcp", "mcp")
        own = urlsplit(url).hostname or PurePath(command).stem
        self.name: str = _NO_NAME.sub("_", name or own).strip("_") or "mcp"
        self.tools: tuple[str, ...] | None = None if tools is None else tuple(tools)
        self.connect_timeout_s = connect_timeout_s
        self._policy = policy
        self._policies = dict(policies or {})
        self._target = Target(
            name=self.name,
            url=url,
            command=(command, *args) if command else (),
            env=tuple(sorted((env or {}).items())),
            cwd=cwd,
            headers=tuple(sorted((headers or {}).items())),
            connect_timeout_s=connect_timeout_s,
        )
        self._ahead: Lease[Connection] | None = None

    def __repr__(self) -> str:
        return f"<MCPServer {self.name}>"

    def policy(self, tool: str) -> ToolPolicy:
        """How a tool runs, by the server's name for it."""
        return self._policies.get(tool, self._policy)

    def lease(self) -> Lease[Connection]:
        """The running loop's connection to the server, opened by the first to ask; for agents.

        Raises:
            RuntimeError: No event loop is running.
        """
        target = self._target
        return shared.client(("mcp", target), lambda: Connection(target), close=Connection.aclose)

    async def connect(self) -> None:
        """Connect ahead, where the program starts, so that no call waits for it; it stays until :meth:`close`.

        ``async with server:`` does both. Without it the first call connects, and the last one lets go.

        Raises:
            ProviderError: It cannot be reached, or does not answer as a server does.
            ConfigurationError: The package ``mcp`` is of a version that cannot be used.
        """
        if self._ahead is not None:
            return
        lease = self._ahead = self.lease()
        await lease.value.settled()
        if lease.value.error is not None:
            await self.close()
            raise lease.value.error

    async def close(self) -> None:
        """Let go of what :meth:`connect` opened; calls in progress keep it. Calling it again is harmless."""
        lease, self._ahead = self._ahead, None
        if lease is not None:
            await lease.release()

    async def __aenter__(self) -> Self:
        await self.connect()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

"""The tools of an agent's MCP servers, under the names by which its model calls them."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from dialog.agent.tools import Tool, Toolbox, ToolOptions
from dialog.agent.toolschema import SchemaArguments
from dialog.errors import ConfigurationError, DialogError
from dialog.llm.llm import ToolSpec

if TYPE_CHECKING:  # an agent without servers needs none of it
    from dialog.mcp.connection import Connection
    from dialog.mcp.sdk import RemoteTool
    from dialog.mcp.server import MCPServer
    from dialog.net.shared import Lease

__all__ = ["MCPTools"]

_NO_NAME = re.compile(r"[^a-zA-Z0-9_-]")
_MAX_NAME = 64


class MCPTools:
    """Puts the tools of servers into a toolbox while an agent has a call.

    Args:
        toolbox: The agent's.
        servers: In their order: the first to have a name keeps it.
        failed: Told once of each outage of a server, and of a tool that a server does not have.
    """

    def __init__(
        self, toolbox: Toolbox, servers: Sequence[MCPServer], *, failed: Callable[[DialogError], object]
    ) -> None:
        self._toolbox = toolbox
        self._servers = tuple(servers)
        self._failed = failed
        self._leases: list[Lease[Connection]] = []
        self._names: dict[tuple[int, str], str] = {}
        """Names that were given; a name never comes to mean another tool, for the model may know it already."""
        self._telling = False
        self._told: dict[int, object] = {}
        """The outage of each server that was told."""
        self._missing: set[tuple[int, str]] = set()
        """Tools that a server was found not to have."""

    def open(self) -> None:
        """Connect to the servers; what they offer is in the toolbox as soon as it is known."""
        if self._leases or not self._servers:
            return
        self._leases = [server.lease() for server in self._servers]
        for lease in self._leases:
            lease.value.watch(self._changed)
        if not all(lease.value.is_settled for lease in self._leases):
            self._toolbox.arriving = self._arriving
        self._changed()

    def tell(self) -> None:
        """From now on tell of what is wrong, beginning with what is known already."""
        self._telling = True
        self._tell()

    def close(self) -> Coroutine[Any, Any, None] | None:
        """Let go of the connections: at once for this agent, and the last user closes them."""
        leases, self._leases, self._telling = self._leases, [], False
        if not leases:
            return None
        for lease in leases:
            lease.value.unwatch(self._changed)
        self._toolbox.arriving = None
        return _release(leases)

    async def _arriving(self) -> None:
        """Wait until every server has either told its tools or failed."""
        await asyncio.gather(*(lease.value.settled() for lease in self._leases))

    def _changed(self) -> None:
        tools: dict[str, Tool] = {}
        for number, (server, lease) in enumerate(zip(self._servers, self._leases, strict=True)):
            connection = lease.value
            for remote in connection.tools:
                if server.tools is None or remote.name in server.tools:
                    name = self._name(number, server.name, remote.name)
                    tools[name] = _tool(name, server, connection, remote)
        if all(lease.value.is_settled for lease in self._leases):
            self._toolbox.arriving = None
        self._toolbox.offer(tools)
        self._tell()

    def _tell(self) -> None:
        """Tell of what is wrong, each once."""
        if not self._telling:
            return
        for number, (server, lease) in enumerate(zip(self._servers, self._leases, strict=True)):
            connection = lease.value
            error, told = connection.error, self._told.get(number)
            self._told[number] = error
            if error is not None and error is not told:
                self._failed(error)
            if error is not None or not connection.is_settled:
                continue
            has = [remote.name for remote in connection.tools]
            for name in server.tools or ():
                if name not in has and (number, name) not in self._missing:
                    self._missing.add((number, name))
                    offered = ", ".join(has) or "none"
                    self._failed(
                        ConfigurationError(f"MCP server {server.name} has no tool {name!r}; its tools: {offered}")
                    )

    def _name(self, number: int, server: str, remote: str) -> str:
        """What the model calls a tool: its own name, with the server's before it if that is taken."""
        given = self._names.get((number, remote))
        if given is None:
            taken = {*self._names.values(), *self._toolbox.own}
            plain = _NO_NAME.sub("_", remote)[:_MAX_NAME]
            prefixed = f"{_NO_NAME.sub('_', server)}_{plain}"[:_MAX_NAME]
            numbered = (f"{prefixed[: _MAX_NAME - 4]}_{count}" for count in range(2, 1000))
            given = next(name for name in (plain, prefixed, *numbered) if name and name not in taken)
            self._names[number, remote] = given
        return given


def _tool(name: str, server: MCPServer, connection: Connection, remote: RemoteTool) -> Tool:
    policy = server.policy(remote.name)

    def call(_: object, arguments: dict[str, Any]) -> Callable[[], Coroutine[Any, Any, str]]:
        return partial(connection.call, remote.name, arguments, idempotent=policy.idempotent)

    return Tool(
        options=ToolOptions(name=name, **msgspec.structs.asdict(policy)),
        spec=ToolSpec(name=name, description=remote.description, parameters=remote.schema),
        is_async=True,
        parameters=SchemaArguments(remote.problems),
        call=call,
    )


async def _release(leases: Sequence[Lease[Connection]]) -> None:
    await asyncio.gather(*(lease.release() for lease in leases))

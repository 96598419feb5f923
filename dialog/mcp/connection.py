"""One connection to an MCP server, for all calls of an event loop: opened, kept, opened again, closed.

The SDK's contexts belong to the task that enters them, so one task of the connection enters and leaves
them all; calls are made from the tasks of those who call.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Mapping
from contextvars import copy_context
from typing import Any

from msgspec import Struct

from dialog.clock import OUTSIDE
from dialog.errors import ConfigurationError, DialogError, ProviderError
from dialog.mcp import sdk
from dialog.mcp.results import MCPToolError, text_of
from dialog.mcp.sdk import RemoteTool
from dialog.net.reconnect import Backoff, Reconnect
from dialog.scope import CallScope

__all__ = ["Connection", "Target"]

logger = logging.getLogger(__name__)

_BACKOFF = Backoff(first_s=0.1, limit_s=30.0, give_up_s=math.inf)
"""Between two attempts: a server is tried as long as anybody wants it."""
_CLOSE_S = 10.0
"""How long letting go may take: a process that does not end by itself is given some seconds, then killed."""
_TOLD_S = 0.5
"""A call that was cut may hear of it before the connection does."""


class Target(Struct, frozen=True, kw_only=True):
    """What a connection leads to; connections with the same one are the same."""

    name: str
    url: str
    command: tuple[str, ...]
    env: tuple[tuple[str, str], ...]
    cwd: str
    headers: tuple[tuple[str, str], ...]
    connect_timeout_s: float

    def __repr__(self) -> str:
        return f"<Target {self.name}>"


class Connection:
    """Keeps a session with a server, and knows its tools. Made inside a running loop."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self.tools: tuple[RemoteTool, ...] = ()
        """What it offers; none while it cannot be reached."""
        self.error: DialogError | None = None
        """Why it cannot be reached, if so: the same object as long as one outage lasts."""
        self._watchers: list[Callable[[], object]] = []
        self._session: sdk.Session | None = None
        self._settled = asyncio.Event()
        self._up = asyncio.Event()
        """There is a session, or the attempt at one has failed."""
        self._scope: sdk.Scope | None = None
        # It outlives the call that was the first to need it, and is no part of it.
        context = copy_context()
        context.run(CallScope.adopt, None)
        loop = asyncio.get_running_loop()
        self._task = loop.create_task(self._run(), name=f"MCP server {target.name}", context=context)

    def watch(self, listener: Callable[[], object]) -> None:
        """Call ``listener`` when :attr:`tools` or :attr:`error` have changed."""
        self._watchers.append(listener)

    def unwatch(self, listener: Callable[[], object]) -> None:
        """Stop calling it."""
        if listener in self._watchers:
            self._watchers.remove(listener)

    @property
    def is_settled(self) -> bool:
        """Whether the server was reached, or found to be out of reach, at least once."""
        return self._settled.is_set()

    async def settled(self) -> None:
        """Wait until it is; bounded by the time to connect."""
        await self._settled.wait()

    async def call(self, name: str, arguments: Mapping[str, Any], *, idempotent: bool = False) -> str:
        """Call a tool; returns what it says, as text for a model. Cancelling it tells the server.

        Args:
            name: Of the server's.
            arguments: Checked against its schema.
            idempotent: Ask again, once, if the connection was lost meanwhile.

        Raises:
            MCPToolError: The tool, the server or the connection failed.
        """
        for last in (not idempotent, True):
            session = await self._connected()
            try:
                return text_of(await session.call(name, arguments))
            except sdk.SessionGoneError:
                session.lose()  # the server has not looked at the call: another session may
            except sdk.ClosedError as exc:
                if not await _is_lost(session):
                    raise MCPToolError(str(exc)) from exc
                if last:
                    raise MCPToolError(f"{self._target.name} broke off; what the tool did is unknown") from exc
        raise MCPToolError(f"{self._target.name} does not keep its sessions")

    async def aclose(self) -> None:
        """End the session, and the process if it is one of ours; bounded."""
        if self._scope is not None:
            self._scope.cancel()
        else:
            self._task.cancel()
        with OUTSIDE.work():
            _, late = await asyncio.wait((self._task,), timeout=_CLOSE_S)
        if late:
            logger.error("MCP server %s: still closing after %g s: given up", self._target.name, _CLOSE_S)
            self._task.cancel()
        self._settled.set()
        self._up.set()

    async def _connected(self) -> sdk.Session:
        """The session; one that is being made is waited for."""
        while True:
            session = self._session
            if session is not None and not session.lost.is_set():
                return session
            if session is not None:
                self._up.clear()
            elif self._up.is_set():
                raise MCPToolError(str(self.error or f"{self._target.name} was let go of"))
            await self._up.wait()

    async def _run(self) -> None:
        try:
            kit = await sdk.load()
        except Exception as exc:  # whatever a package of another version does
            error = ConfigurationError(f"the package mcp cannot be used ({exc}): pip install 'dialog[mcp]'")
            error.__cause__ = exc
            self._down(error)
            return
        loop = asyncio.get_running_loop()
        policy = Reconnect(_BACKOFF, loop.time())
        with kit.new_scope() as self._scope:
            while True:
                reached = False
                reason = "it has ended the connection"
                with kit.new_scope() as attempt:
                    attempt.deadline = loop.time() + self._target.connect_timeout_s
                    try:
                        async with kit.open(self._target) as session:
                            tools = await session.list_tools()
                            attempt.deadline, reached = math.inf, True
                            policy.connected(loop.time())
                            self._ready(session, tools)
                            await self._stay(session)
                    except* Exception as group:
                        reason = kit.reason(group)
                    finally:
                        self._gone()
                if attempt.cancelled_caught and not reached:
                    reason = f"no answer within {self._target.connect_timeout_s:g} s"
                if reached:
                    logger.info("MCP server %s: %s; connecting again", self._target.name, reason)
                else:
                    self._down(ProviderError(f"MCP server {self._target.name}", reason, retryable=True))
                await asyncio.sleep(policy.lost(loop.time()) or 0.0)

    async def _stay(self, session: sdk.Session) -> None:
        """Keep the list of tools up to date until the connection is lost."""
        while True:
            await session.news.wait()
            if session.lost.is_set():
                return
            session.news.clear()
            try:
                self._ready(session, await session.list_tools())
            except sdk.RefusedError as exc:
                logger.warning("MCP server %s: its tools have changed: %s", self._target.name, exc)

    def _ready(self, session: sdk.Session, tools: tuple[RemoteTool, ...]) -> None:
        self._session, self.tools, self.error = session, tools, None
        self._tell()

    def _gone(self) -> None:
        """There is no session any more; the tools stay until it is known that there is no other."""
        if self._session is not None:
            self._session.lose()
            self._session = None
            self._up.clear()

    def _down(self, error: DialogError) -> None:
        self.tools = ()
        self.error = self.error or error
        self._tell()

    def _tell(self) -> None:
        self._settled.set()
        self._up.set()
        for watcher in tuple(self._watchers):
            try:
                watcher()
            except Exception:  # one call's trouble: the connection serves the others, too
                logger.exception("MCP server %s: a listener raised", self._target.name)


async def _is_lost(session: sdk.Session) -> bool:
    try:
        async with asyncio.timeout(_TOLD_S):
            await session.lost.wait()
    except TimeoutError:
        return False
    return True

"""Tools of a client: calls that are on their way there, and the results that come back."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from uuid import UUID

import msgspec

from dialog.clock import Clock
from dialog.errors import ClientToolError
from dialog.voip.link import UseClientTool
from dialog.voip.web.messages import ServerMessage, ToolCall, ToolCancelled, ToolResult

__all__ = ["ToolCalls"]

logger = logging.getLogger(__name__)


class ToolCalls:
    """Calls a client's tools.

    Args:
        call_id: Of the session.
        tell: Tells the client something, now or when it is back.
    """

    def __init__(self, call_id: UUID, tell: Callable[[ServerMessage], object]) -> None:
        self._call_id = call_id
        self._tell = tell
        self._count = 0
        self._waiting: dict[str, asyncio.Future[ToolResult]] = {}

    async def use(self, command: UseClientTool, clock: Clock) -> str:
        """Run a tool at the client.

        Raises:
            ClientToolError: It failed there, or there was no answer in time.
        """
        self._count += 1
        number = f"tool-{self._count}"
        answer = self._waiting[number] = asyncio.get_running_loop().create_future()
        call = ToolCall(
            id=number,
            name=command.name,
            arguments=msgspec.json.decode(command.arguments),
            timeout_s=command.timeout_s,
        )
        self._tell(call)
        try:
            async with asyncio.timeout(clock.real(command.timeout_s)):
                result = await answer
        except TimeoutError:
            raise ClientToolError(f"{command.name}: the client gave no result within {command.timeout_s:g} s") from None
        finally:
            del self._waiting[number]
            if not answer.done() or answer.cancelled():
                self._tell(ToolCancelled(id=number))
        if result.error:
            raise ClientToolError(f"{command.name}: {result.error}")
        return result.result if isinstance(result.result, str) else msgspec.json.encode(result.result).decode()

    def answered(self, result: ToolResult) -> None:
        """The client has an answer."""
        answer = self._waiting.get(result.id)
        if answer is None or answer.done():
            logger.info("session %s: a result for %s came, for which nobody waits", self._call_id, result.id)
            return
        answer.set_result(result)

    def close(self) -> None:
        """The call is over: nothing will be answered."""
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(ClientToolError("the client is gone"))

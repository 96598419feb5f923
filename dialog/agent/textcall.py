"""One whole call in text, from the function that takes calls to the report."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from dialog.agent.agent import Agent
from dialog.calls.report import SessionReport
from dialog.errors import ConfigurationError
from dialog.scope import CallScope
from dialog.voip.text import TextVoIP
from dialog.voip.voip import VoIP

__all__ = ["TextCall"]

_END_S = 2.0
"""How long an agent that does not end by itself may take for its report."""


class TextCall:
    """A call that ``make(voip)``, the function that a gateway calls, takes by text.

    Args:
        make: Builds and activates an agent; a plain function or a coroutine function.
        new_voip: Makes the call's VoIP.
        scope: Knows the call's participants.
    """

    def __init__(
        self, make: Callable[[Any], Any], new_voip: Callable[[], TextVoIP], *, scope: CallScope | None = None
    ) -> None:
        self.scope: CallScope = scope or CallScope("text")
        with self.scope.entered():
            self.voip: TextVoIP = new_voip()
        self.over: asyncio.Event = asyncio.Event()
        """The call has ended."""
        self.report: SessionReport | None = None
        self._make = make
        self._reported = asyncio.Event()
        self._first: Agent | None = None

    async def start(self, *, before: Callable[[Agent], object] | None = None) -> Agent:
        """Offer the call and connect it; ``before`` is called with the agent before it is connected.

        Raises:
            ConfigurationError: The function made no agent.
        """
        with self.scope.entered():
            made = self._make(self.voip)
            if asyncio.iscoroutine(made):
                await made
            agent = self._first = self.agent
            agent.on(Agent.REPORT, self._on_report)
            self.voip.on(VoIP.ENDED, self._on_ended)
            if before is not None:
                before(agent)
            self.voip.connect()
        return agent

    @property
    def agent(self) -> Agent:
        """The agent that was made last and has not gone.

        Raises:
            ConfigurationError: There is none.
        """
        agents = [member for member in self.scope.members if isinstance(member, Agent)]
        if not agents:
            raise ConfigurationError("the function made no agent: it has to build one with the voip it is given")
        return agents[-1]

    async def end(self, reason: str = "caller_hangup") -> None:
        """Hang up, unless the call has ended, and wait for the report; :meth:`close` ends what does not."""
        self.voip.close(reason)
        with suppress(TimeoutError):
            async with asyncio.timeout(self.voip.clock.real(_END_S)):
                await self._reported.wait()

    async def close(self) -> None:
        """End everything that belongs to the call; harmless when repeated."""
        self.voip.close()
        await self.scope.close(last=(self.voip,))
        if self._first is not None:
            await self._first.wait_disposed()  # it may have gone before, and still gives something back

    def _on_report(self, report: SessionReport) -> None:
        self.report = report
        self._reported.set()

    def _on_ended(self, _: object) -> None:
        self.over.set()

"""How a call comes to its end: a question into the silence, a warning, a goodbye that is heard out."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from msgspec import Struct

from dialog.agent.settings import AgentSettings
from dialog.agent.speech import PartOptions, Speech
from dialog.errors import DialogError
from dialog.voip.voip import VoIP

__all__ = ["Endings", "Transfer"]

logger = logging.getLogger(__name__)

_GOODBYE_S = 15.0
"""So long a goodbye may take to be heard before the call is ended all the same."""
_HEARD_OUT = PartOptions(allow_interrupt=False, paraphrase=True)


class Transfer(Struct, frozen=True):
    """Where a call is to go."""

    tel: str
    back_within_s: float | None
    summary: str | None = None
    """What is told to whoever takes the call before they get it; ``None``: they are not asked."""

    def __repr__(self) -> str:
        return f"<Transfer to {len(self.tel)} characters>"  # it is somebody's number


class Endings:
    """Carries out what turn taking decides about silence and the end of the call.

    Args:
        voip: The call.
        settings: What is said.
        say: Says something in a turn of the agent's own.
        spawn: Starts a task that the agent owns.
        stays: Told when the call was to end and does not (a transfer that failed).
        failed: Told of what went wrong.
        consult: Asks whoever is to take the call, and hands it over or not.
    """

    def __init__(
        self,
        voip: VoIP,
        settings: AgentSettings,
        *,
        say: Callable[[str, PartOptions], Speech],
        spawn: Callable[[Coroutine[Any, Any, None], str], object],
        stays: Callable[[], None],
        failed: Callable[[DialogError], None],
        consult: Callable[[Transfer], Coroutine[Any, Any, None]],
    ) -> None:
        self._voip = voip
        self._settings = settings
        self._say = say
        self._spawn = spawn
        self._stays = stays
        self._failed = failed
        self._consult = consult
        self.transfer: Transfer | None = None
        """When the call is next to end, it is connected there instead."""

    def prompt(self, count: int) -> str:
        """What is asked into a silence for the ``count``-th time; empty: nothing."""
        prompts = self._settings.idle_prompts
        return prompts[min(count, len(prompts)) - 1] if prompts else ""

    def near_end(self) -> None:
        """Tell the caller that the call comes near its longest duration."""
        if self._settings.duration_warning:
            self._say(self._settings.duration_warning, PartOptions(paraphrase=True))

    def end(self, reason: str) -> None:
        """End the call: after a goodbye, if there is one for ``reason``."""
        self._spawn(self._end(reason), f"ending the call: {reason}")

    async def _end(self, reason: str) -> None:
        goodbye = {"idle": self._settings.idle_goodbye, "max_duration": self._settings.duration_goodbye}.get(reason)
        if goodbye:
            try:
                async with asyncio.timeout(self._voip.clock.real(_GOODBYE_S)):
                    await self._say(goodbye, _HEARD_OUT)
            except TimeoutError:
                logger.warning("call %s: the goodbye was not heard in time", self._voip.metadata.call_id)
        transfer, self.transfer = self.transfer, None
        try:
            if transfer is None:
                await self._voip.hangup(reason=reason)
            elif transfer.summary is not None:
                await self._consult(transfer)
            else:
                await self._voip.transfer_to(transfer.tel, back_within_s=transfer.back_within_s)
        except DialogError as exc:  # the carrier refused; a hang-up closes the media all the same
            self._failed(exc)
            if self._voip.state != "ended":
                self._stays()

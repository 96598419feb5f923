"""An agent whose calls are scripts."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress

from dialog.agent.agent import Agent
from dialog.agent.conversation import Conversation
from dialog.agent.driver import as_failure
from dialog.agent.scripts.call import ScriptCall
from dialog.agent.turn import current_turn
from dialog.errors import CallHungUp, CallNotAnswered, CarrierError, SpeechFailed, StateError
from dialog.message import AnsweredBy

__all__ = ["Script"]

logger = logging.getLogger(__name__)


class Script(Agent):
    """Holds the call by :meth:`run`, one thing after the other, instead of by ``inference``.

    ::

        class Reminder(Script):
            async def run(self, call: ScriptCall) -> None:
                await call.say("Hello, this is Luigi's.")
                if await call.ask("Will you come at seven?", answers.YesNo()):
                    await call.say("See you then.")

    It takes the arguments of every agent and needs an ``stt`` and a ``tts``. When ``run`` returns the call is hung up;
    a call that ends before raises :class:`CallHungUp` in whatever ``run`` waits for.
    """

    _call: ScriptCall | None = None

    async def run(self, call: ScriptCall) -> None:
        """Hold the call: a call that was placed from when it is answered, one that comes in from the start.

        Without a ``run`` of its own somebody else holds it, by :attr:`call`, as in
        :func:`~dialog.agent.scripts.dialling.dial`.
        """

    @property
    def scripted(self) -> bool:
        """Whether there is a :meth:`run`."""
        return type(self).run is not Script.run

    @property
    def call(self) -> ScriptCall:
        """The call.

        Raises:
            StateError: The script was not activated.
        """
        if self._call is None:
            raise StateError(f"{self.name}: not active: {self._why_inactive()}")
        return self._call

    def on_answered_by(self, answered_by: AnsweredBy) -> None:
        """A machine that is left a message is no one to talk to: the script ends here."""
        if answered_by.then == "leave_message" and self._call is not None:
            call_id = str(self.voip.metadata.call_id)
            self._call.let_go(CallNotAnswered(call_id, "machine", "it is told a message"))
        super().on_answered_by(answered_by)

    def _taken(self) -> None:
        conversation = self._running
        self._call = ScriptCall(self, conversation, in_charge=True)
        conversation.divert(self._call)
        if self.scripted and self.voip.end is None:
            conversation.script = self.spawn(self._run(self._call, conversation), "script")

    async def _run(self, call: ScriptCall, conversation: Conversation) -> None:
        current_turn.set(None)
        try:
            if self.voip.metadata.direction == "outbound":
                await call.wait_connected()
            await self.run(call)
        except (CallHungUp, CallNotAnswered) as exc:
            logger.info("%s: %s", self.name, exc)
        except (Exception, asyncio.CancelledError) as exc:  # the user's code, or a provider's end it did not expect
            task = asyncio.current_task()
            if isinstance(exc, asyncio.CancelledError) and task is not None and task.cancelling():
                raise
            # Not cancelled itself, it has waited for something that was: speech that was dropped, a task.
            if not call.is_disconnected:
                self._failed(as_failure(f"run raised {exc!r}", exc))
                await conversation.give_up(exc.provider if isinstance(exc, SpeechFailed) else "")
            elif not isinstance(exc, StateError):
                logger.exception("%s: after the end of the call", self.name)
        if not call.is_disconnected:
            with suppress(CarrierError):  # the VoIP tells of it, and the media is closed all the same
                await call.hangup()

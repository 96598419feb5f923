"""Text messages that come in: each is given to the program once, and answered with what it returns."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Final, TypeAlias

from dialog.errors import ConfigurationError
from dialog.message import ReceivedSMS
from dialog.sms.sms import check_text

__all__ = ["Inbox", "SMSListener"]

logger = logging.getLogger(__name__)

SMSListener: TypeAlias = Callable[[ReceivedSMS], "str | Awaitable[str | None] | None"]
"""Takes a message; the text that it returns is the answer."""

_ANSWER_S: Final = 10.0
"""Twilio waits 15 s for it."""
_REMEMBERED: Final = 1000
_CLOSE_S: Final = 1.0


class Inbox:
    """Hands messages to listeners."""

    def __init__(self) -> None:
        self.listeners: list[SMSListener] = []
        self._answers: OrderedDict[str, asyncio.Task[tuple[str, ...]]] = OrderedDict()

    def begin(self, message: ReceivedSMS) -> bool:
        """Give a message to the listeners; False: it is delivered again, because the answer was late or lost."""
        if message.message_sid in self._answers:
            return False
        answer = asyncio.get_running_loop().create_task(self._answer(message), name="answer an SMS")
        self._answers[message.message_sid] = answer
        if len(self._answers) > _REMEMBERED:
            self._answers.popitem(last=False)
        return True

    async def receive(self, message: ReceivedSMS) -> tuple[str, ...]:
        """The listeners' answers to a message; those to one that was given to them before are the same."""
        self.begin(message)
        return await asyncio.shield(self._answers[message.message_sid])

    async def close(self) -> None:
        """Give up what is being answered."""
        pending = [answer for answer in self._answers.values() if not answer.done()]
        for answer in pending:
            answer.cancel()
        if pending:
            logger.warning("%d text messages stay without an answer", len(pending))
            await asyncio.wait(pending, timeout=_CLOSE_S)

    async def _answer(self, message: ReceivedSMS) -> tuple[str, ...]:
        texts: list[str] = []
        for listener in tuple(self.listeners):
            try:
                async with asyncio.timeout(_ANSWER_S):
                    said = listener(message)
                    text: object = await said if inspect.isawaitable(said) else said
                if text is not None:
                    texts.append(_checked(text))
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if task is not None and task.cancelling():
                    raise
                logger.exception("SMS %s: a listener waited for what was cancelled", message.message_sid)
            except Exception:  # the user's code: the others are asked all the same
                logger.exception("SMS %s: a listener failed", message.message_sid)
        if not self.listeners:
            logger.warning("SMS %s: nobody listens: gateway.on('sms', …)", message.message_sid)
        return tuple(texts)


def _checked(text: object) -> str:
    if not isinstance(text, str):
        raise ConfigurationError(f"a listener for 'sms' returns a text or None, not {type(text).__name__}")
    return check_text(text)

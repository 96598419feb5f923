"""Who takes the calls of a gateway, and its text messages."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Final, Generic, TypeVar

from dialog.errors import ConfigurationError
from dialog.voip.inbox import Inbox
from dialog.voip.voip import VoIP

__all__ = ["Listeners"]

VoIPT = TypeVar("VoIPT", bound=VoIP)

_VOIP: Final = "voip"
_SMS: Final = "sms"


class Listeners(Generic[VoIPT]):
    """The listeners for ``voip`` of the gateway ``name``, and for ``sms`` if it has an inbox."""

    def __init__(self, name: str, inbox: Inbox | None = None) -> None:
        self._name = name
        self._inbox = inbox
        self._listeners: tuple[Callable[[VoIPT], object], ...] = ()

    def __iter__(self) -> Iterator[Callable[[VoIPT], object]]:
        return iter(self._listeners)

    def on(self, event: str, listener: Any = None) -> Any:
        """Add one; without it, a decorator that does.

        Raises:
            ValueError: There is no such event.
            TypeError: ``listener`` is a coroutine function, which nobody would wait for.
        """
        inbox = self._inbox if event == _SMS else None
        if event != _VOIP and inbox is None:
            events = f"{_VOIP!r}" if self._inbox is None else f"{_VOIP!r} and {_SMS!r}"
            raise ValueError(f"{self._name} has no event {event!r}, only {events}")
        if listener is None:
            return partial(self.on, event)
        if inbox is not None:
            inbox.listeners.append(listener)
            return listener
        if inspect.iscoroutinefunction(listener):
            raise TypeError("a listener for 'voip' must be a plain function; let the agent start tasks of its own")
        self._listeners = (*self._listeners, listener)
        return listener

    def off(self, event: str, listener: Any) -> None:
        """Take one away; one that does not listen is ignored."""
        if event == _VOIP:
            self._listeners = tuple(each for each in self._listeners if each != listener)
        elif event == _SMS and self._inbox is not None and listener in self._inbox.listeners:
            self._inbox.listeners.remove(listener)

    def emit(self, voip: VoIPT) -> None:
        """Give a call to all of them.

        Raises:
            ConfigurationError: Nobody listens.
        """
        if not self._listeners:
            raise ConfigurationError("nobody listens for calls: gateway.on('voip', …)")
        for listener in self._listeners:
            listener(voip)

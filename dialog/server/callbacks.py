"""Functions of the host that are told what becomes of its sessions."""

from __future__ import annotations

from collections.abc import Callable
from uuid import UUID

from msgspec import Struct

from dialog.calls.events import CallEnded, CallStarted, ToolEnded, ToolStarted, UsageReported
from dialog.calls.publish import CallEvents, Notice
from dialog.message import CallMetadata
from dialog.usage import Usage

__all__ = ["SessionCallbacks", "ToolExecuted"]


class ToolExecuted(Struct, frozen=True, kw_only=True):
    """A tool that ran in a session."""

    name: str
    arguments: str
    """JSON, as the model wrote it; masked where events are."""
    result: str
    state: str
    """``done``, ``failed``, ``timed_out``, ``cancelled``."""
    took_s: float


class SessionCallbacks(Struct, frozen=True, kw_only=True):
    """Plain functions, called on the event loop; what one raises is logged and costs no call anything.

    ::

        SessionCallbacks(stopped=lambda call, seconds, reason: bill(call.context["customer"], seconds))
    """

    started: Callable[[CallMetadata], object] | None = None
    """A session has an agent."""
    stopped: Callable[[CallMetadata, float, str], object] | None = None
    """It has ended: its seconds, and why. Also one that never had an agent."""
    usage: Callable[[CallMetadata, Usage], object] | None = None
    """A model was used, wherever it ran: once per request or reply."""
    tool: Callable[[CallMetadata, ToolExecuted], object] | None = None
    """A tool was executed."""

    def follow(self, events: CallEvents) -> None:
        """Be told of the sessions behind ``events`` from now on: those of ``gateway.events``, for instance."""
        events.on(_Follower(self).on_notice)


class _Follower:
    def __init__(self, callbacks: SessionCallbacks) -> None:
        self._callbacks = callbacks
        self._arguments: dict[UUID, dict[str, str]] = {}
        """Per session: of the tools that run."""

    def on_notice(self, notice: Notice) -> None:
        call, event, callbacks = notice.call, notice.event, self._callbacks
        match event:
            case CallStarted() if callbacks.started is not None and event.agent:
                callbacks.started(call)
            case CallEnded():
                self._arguments.pop(call.call_id, None)
                if callbacks.stopped is not None:
                    callbacks.stopped(call, event.at_s, event.reason)
            case UsageReported() if callbacks.usage is not None:
                callbacks.usage(call, event.usage)
            case ToolStarted() if callbacks.tool is not None:
                self._arguments.setdefault(call.call_id, {})[event.call_id] = event.arguments
            case ToolEnded() if callbacks.tool is not None:
                arguments = self._arguments.get(call.call_id, {}).pop(event.call_id, "")
                callbacks.tool(
                    call,
                    ToolExecuted(
                        name=event.name,
                        arguments=arguments,
                        result=event.result,
                        state=event.state,
                        took_s=event.took_s,
                    ),
                )
            case _:
                pass

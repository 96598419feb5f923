"""What an agent did in answer, and what a test can say about it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, Protocol, Self, TypeVar
from uuid import UUID

import msgspec
from msgspec import Struct

from dialog.calls import events as ev
from dialog.message import CallEnd
from dialog.testing.textline import Spoken

__all__ = ["Reply", "Said", "UsedTool", "conversation", "note_of", "used_tools"]

E = TypeVar("E", bound=ev.CallEvent)
_MISSING: Any = object()


class Said(Struct, frozen=True, kw_only=True):
    """A part of what the agent said."""

    turn: UUID
    text: str
    """All that was to be said."""
    heard: str
    """What the caller heard of it."""
    state: Literal["waiting", "playing", "played", "cut", "lost"]
    at_s: float
    """When it began to sound."""
    end_s: float
    filler: bool = False
    """Said to bridge a wait."""

    @classmethod
    def of(cls, part: Spoken, *, filler: bool) -> Said:
        """What has become of a part."""
        began = part.began_at if part.began_at is not None else part.ended_at
        return cls(
            turn=part.turn,
            text=part.text.strip(),
            heard=part.heard,
            state=part.state,
            at_s=began,
            end_s=part.ended_at,
            filler=filler,
        )


class UsedTool(Struct, frozen=True, kw_only=True):
    """A tool that the agent used."""

    name: str
    arguments: dict[str, Any]
    """As the model gave them; empty if they were no JSON object."""
    result: str
    """What the model was told."""
    state: str
    """``done``, ``failed``, ``timed_out``, ``cancelled``, or ``running`` without a result yet."""

    def __str__(self) -> str:
        arguments = ", ".join(f"{name}={value!r}" for name, value in self.arguments.items())
        return f"{self.name}({arguments})"


class Session(Protocol):
    """What a reply needs of its session."""

    @property
    def ended(self) -> CallEnd | None: ...
    def explain(self, what: str = "") -> str: ...


class Reply:
    """What the agent said and did between one thing that the caller did and the next.

    Every assertion returns the reply, so that they can be chained, and shows the conversation when it
    fails. ``"eight" in reply`` and ``assert reply.text == …`` work as well.
    """

    def __init__(
        self, session: Session, parts: tuple[Said, ...], events: tuple[ev.CallEvent, ...], since: float
    ) -> None:
        self.parts: tuple[Said, ...] = parts
        """What was said, part by part."""
        self.events: tuple[ev.CallEvent, ...] = events
        """What happened meanwhile."""
        self._session = session
        self._since = since

    def __repr__(self) -> str:
        return f"<Reply {self.text!r}>\n{self._session.explain()}\n"

    def __str__(self) -> str:
        return self.text

    def __contains__(self, text: str) -> bool:
        return _folded(text) in _folded(self.text)

    @property
    def text(self) -> str:
        """What the caller heard, all parts in one."""
        return " ".join(part.heard for part in self.parts if part.heard)

    @property
    def interrupted(self) -> bool:
        """Some of it was cut off."""
        return any(part.state == "cut" and part.heard != part.text for part in self.parts)

    @property
    def after_s(self) -> float | None:
        """How long the caller waited for the first word; ``None`` if none came."""
        return next((round(part.at_s - self._since, 3) for part in self.parts if part.heard), None)

    @property
    def tools(self) -> tuple[UsedTool, ...]:
        """The tools that were used, in the order in which they were started."""
        return used_tools(self.events)

    def says(self, *texts: str) -> Self:
        """Each of ``texts`` was heard; case and spaces do not matter."""
        __tracebackhide__ = True
        for text in texts:
            self._check(text in self, f"the agent did not say {text!r}, but {self.text!r}")
        return self

    def never_says(self, *texts: str) -> Self:
        """None of ``texts`` was heard."""
        __tracebackhide__ = True
        for text in texts:
            self._check(text not in self, f"the agent said {text!r}: {self.text!r}")
        return self

    def says_nothing(self) -> Self:
        """Not a word was heard."""
        __tracebackhide__ = True
        self._check(not self.text, f"the agent was to be silent, and said {self.text!r}")
        return self

    def calls(self, tool: str, /, **arguments: Any) -> Self:
        """The tool was used with these arguments; others it may have had besides."""
        __tracebackhide__ = True
        used = [use for use in self.tools if use.name == tool]
        fits = any(all(use.arguments.get(name, _MISSING) == value for name, value in arguments.items()) for use in used)
        wanted = UsedTool(name=tool, arguments=arguments, result="", state="")
        others = ", ".join(map(str, self.tools)) or "none"
        self._check(fits, f"the agent did not call {wanted}; it called {others}")
        return self

    def calls_nothing(self) -> Self:
        """No tool was used."""
        __tracebackhide__ = True
        self._check(not self.tools, f"the agent called {', '.join(map(str, self.tools))}")
        return self

    def returns(self, tool: str, /, text: str) -> Self:
        """The tool was used, and the model was told ``text``, or more that contains it."""
        __tracebackhide__ = True
        results = [use.result for use in self.tools if use.name == tool]
        self._check(
            any(_folded(text) in _folded(result) for result in results),
            f"{tool} did not return {text!r}, but {' and '.join(map(repr, results)) or 'was not called'}",
        )
        return self

    def happened(self, kind: type[E]) -> E:
        """The first event of this kind; its fields are for plain assertions."""
        __tracebackhide__ = True
        found = next((event for event in self.events if isinstance(event, kind)), None)
        if found is None:
            kinds = ", ".join(dict.fromkeys(type(event).__name__ for event in self.events)) or "nothing"
            raise AssertionError(self._session.explain(f"there was no {kind.__name__}; there was {kinds}"))
        return found

    def never_happened(self, kind: type[ev.CallEvent]) -> Self:
        """There was no event of this kind."""
        __tracebackhide__ = True
        found = next((event for event in self.events if isinstance(event, kind)), None)
        self._check(found is None, f"there was a {kind.__name__}: {found}")
        return self

    def ends_call(self, reason: str = "") -> Self:
        """The call has ended, and for this reason: ``agent_hangup``, ``transferred``, ``caller_hangup``."""
        __tracebackhide__ = True
        end = self._session.ended
        self._check(end is not None, "the call goes on")
        assert end is not None
        self._check(not reason or end.reason == reason, f"the call ended with {end.reason!r}, not {reason!r}")
        return self

    def goes_on(self) -> Self:
        """The call has not ended."""
        __tracebackhide__ = True
        end = self._session.ended
        self._check(end is None, f"the call has ended: {end.reason if end else ''}")
        return self

    def _check(self, holds: bool, what: str) -> None:
        __tracebackhide__ = True
        if not holds:
            raise AssertionError(self._session.explain(what))


def used_tools(events: Iterable[ev.CallEvent]) -> tuple[UsedTool, ...]:
    """The tools that ``events`` tell of."""
    events = tuple(events)
    ends = {event.call_id: event for event in events if isinstance(event, ev.ToolEnded)}
    used: list[UsedTool] = []
    for event in events:
        if isinstance(event, ev.ToolStarted):
            end = ends.get(event.call_id)
            used.append(
                UsedTool(
                    name=event.name,
                    arguments=_arguments(event.arguments),
                    result=end.result if end else "",
                    state=end.state if end else "running",
                )
            )
    return tuple(used)


def note_of(event: ev.CallEvent, started: Mapping[str, ev.ToolStarted]) -> tuple[str, str] | None:
    """The line that an event is worth in a conversation: who, and what."""
    if isinstance(event, ev.ToolEnded):
        start = started.get(event.call_id)
        arguments = _arguments(start.arguments) if start else {}
        use = UsedTool(name=event.name, arguments=arguments, result=event.result, state=event.state)
        return "tool", f"{use} → {event.result}"
    if isinstance(event, ev.ErrorRaised):
        return "error", f"{event.source}: {event.text}"
    if isinstance(event, ev.Warned):
        return "warning", event.text
    if isinstance(event, ev.CallEnded):
        return "end", event.reason
    return None


def conversation(said: Sequence[Said], notes: Sequence[tuple[float, str, str]], since: float) -> str:
    """A whole conversation as text, line by line in its order, with seconds from ``since`` on.

    ``notes`` are what else happened: when, who, what.
    """
    lines: list[tuple[float, str, str]] = []
    for part in said:
        if not part.text:
            continue
        rest = part.text[len(part.heard) :].strip() if part.text.startswith(part.heard) else part.text
        tail = f"[{part.state}, not heard: {rest}]" if rest else ""
        lines.append((part.at_s, "filler" if part.filler else "agent", f"{part.heard} {tail}".strip()))
    # What was said comes before what followed from it in the same moment.
    lines = sorted([*notes, *lines], key=lambda line: line[0])
    return "\n".join(f"{at - since:7.1f}  {who:<8} {text}".rstrip() for at, who, text in lines)


def _arguments(text: str) -> dict[str, Any]:
    try:
        return msgspec.json.decode(text, type=dict[str, Any])
    except msgspec.DecodeError:
        return {}


def _folded(text: str) -> str:
    return " ".join(text.casefold().split())

"""Tools: typed methods of an agent that its model may call.

::

    class FrontDesk(OpenAIAgent):
        @tool(timeout_s=5)
        async def book_table(self, people: int, time: str) -> str:
            '''Book a table for today. `time` is 24-hour HH:MM.'''
            return await self.bookings.create(people, time)

Whatever goes wrong in a tool (wrong arguments, an exception, a time-out) becomes a result that the
model reads; it never ends a call.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import re
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from concurrent.futures import CancelledError, Future
from contextvars import ContextVar
from functools import partial
from typing import Any, Literal, Protocol, TypeVar, overload
from weakref import WeakKeyDictionary

import msgspec
from msgspec import Struct

from dialog.agent.threads import TOOL_THREADS, Leave
from dialog.agent.toolschema import ArgumentsError, Parameters, check_parameter
from dialog.errors import CallHungUp, ClientToolError, ConfigurationError, DialogError, LimitError
from dialog.llm.llm import ToolCall, ToolResult, ToolSpec
from dialog.mcp.results import MCPToolError
from dialog.toolpolicy import ToolPolicy

__all__ = ["Tool", "ToolOptions", "Toolbox", "ends_conversation", "ends_turn", "tool", "tool_key"]

logger = logging.getLogger(__name__)

FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])

_MARK = "__dialog_tool__"
_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_GRACE_S = 1.0
"""How long a cancelled tool may take to clean up before it is left to itself."""
_MAX_RESULT = 20_000
_MAX_REASON = 300


_key: ContextVar[str] = ContextVar("dialog_tool_key", default="")


def tool_key() -> str:
    """In a tool: a key of this very use of it, the same when it is run again after a crash.

    Hand it to a service that takes idempotency keys, and the second run has no second effect. Elsewhere
    it is empty.
    """
    return _key.get()


class ToolOptions(ToolPolicy, frozen=True, kw_only=True):
    """What ``@tool(...)`` was given."""

    name: str
    last: bool = False
    """It ends the conversation: once something was said with it, the model is not asked again."""
    answers: bool = False
    """It is itself the answer: the model is not asked again in this turn."""


class Arguments(Protocol):
    """Checks what a model wants to call a tool with."""

    def arguments(self, text: str) -> dict[str, Any]:
        """Return arguments from the model's JSON.

        Raises:
            ArgumentsError: They do not fit; the text tells the model what does.
        """
        ...


class Tool(Struct, frozen=True, kw_only=True):
    """A tool: how it looks to a model and how it is run."""

    options: ToolOptions
    spec: ToolSpec
    is_async: bool
    parameters: Arguments
    call: Callable[[object, dict[str, Any]], Callable[[], Any]]
    """Given the agent and arguments, what is to be called: a method of its, or something elsewhere."""


@overload
def tool(function: FunctionT, /) -> FunctionT: ...
@overload
def tool(
    *,
    name: str = "",
    timeout_s: float | None = None,
    on_interrupt: Literal["finish", "cancel"] = "finish",
    background: bool = False,
    idempotent: bool = False,
    safe: bool = False,
    filler: str | None = None,
) -> Callable[[FunctionT], FunctionT]: ...
def tool(
    function: Callable[..., Any] | None = None,
    /,
    *,
    name: str = "",
    timeout_s: float | None = None,
    on_interrupt: Literal["finish", "cancel"] = "finish",
    background: bool = False,
    idempotent: bool = False,
    safe: bool = False,
    filler: str | None = None,
) -> Any:
    """Offer a method to the model. The method itself stays as it is and can be called as before.

    The signature becomes the schema: every parameter needs a type (``str``, ``int``, ``float``,
    ``bool``, ``Literal``, ``Enum``, ``list``, ``tuple``, ``dict``, optional ones, dates and times,
    dataclasses and msgspec structs). The docstring describes the tool; its ``Args:`` section, or
    ``Annotated[int, "text"]``, the parameters. What it returns is given to the model: text as it
    is, ``None`` as "ok", anything else as JSON. An agent that it returns takes the call
    (:meth:`~dialog.agent.agent.Agent.hand_off`).

    An ``async def`` runs on the event loop. A plain ``def`` runs in one of 32 threads that all
    calls of the process share: it may block and call the agent's methods, must not touch other objects of the
    loop, and cannot be cancelled; what comes after its time, a result or such a call, is dropped and logged.

    Args:
        function: The method, when ``@tool`` stands without parentheses.
        name: For the model; the method's name unless given.
        timeout_s: Seconds until the model is told that there is no result; 10 unless given, 300 for
            a background tool. An ``async def`` is then cancelled.
        on_interrupt: ``finish`` lets it go on when the caller speaks over the reply; ``cancel``
            cancels it then (an ``async def`` only).
        background: The model goes on at once, and learns of the result in a turn of the agent's own, which
            is spoken when there is room. It goes on when the caller speaks.
        idempotent: Running it twice does no harm, so it may be run again after a crash; see :func:`tool_key`.
        safe: It changes nothing in the world (a look-up), so it may run for a reply that was begun before
            the caller's turn had ended, and that may be thrown away. Any other tool waits until it is
            certain that the reply is wanted.
        filler: Said once while it runs, if it takes longer than ``AgentSettings.filler_after_s`` and
            nothing else sounds. It is not in history.

    Raises:
        ConfigurationError: A parameter has no annotation, or an option is out of range.
    """

    def mark(function: FunctionT) -> FunctionT:
        where = getattr(function, "__qualname__", repr(function))
        if isinstance(function, staticmethod | classmethod):
            raise ConfigurationError(f"tool {where}: write @tool below @staticmethod or @classmethod")
        if inspect.isasyncgenfunction(function) or inspect.isgeneratorfunction(function):
            raise ConfigurationError(f"tool {where}: a generator cannot be a tool, its result must be whole")
        for parameter in inspect.signature(function).parameters.values():
            if parameter.name not in ("self", "cls"):
                check_parameter(parameter, where)
        try:
            options = ToolOptions(
                name=name or function.__name__,
                timeout_s=timeout_s if timeout_s is not None else 300.0 if background else 10.0,
                on_interrupt=on_interrupt,
                background=background,
                idempotent=idempotent,
                safe=safe,
                filler=filler or "",
            )
        except ConfigurationError as exc:
            raise ConfigurationError(f"tool {where}: {exc}") from exc
        if not _NAME.fullmatch(options.name):
            raise ConfigurationError(f"tool {where}: {options.name!r} is no name: 1 to 64 letters, digits, _ and -")
        if on_interrupt == "cancel" and not inspect.iscoroutinefunction(function):
            raise ConfigurationError(f"tool {where}: a plain def cannot be cancelled; make it async def")
        setattr(function, _MARK, options)
        return function

    return mark if function is None else mark(function)


def ends_conversation(function: FunctionT) -> FunctionT:
    """Mark a tool as one after which the model has nothing more to say."""
    options = getattr(function, _MARK)
    setattr(function, _MARK, msgspec.structs.replace(options, last=True))
    return function


def ends_turn(function: FunctionT) -> FunctionT:
    """Mark a tool that is itself the answer: the model is not asked again until the other side has said something."""
    options = getattr(function, _MARK)
    setattr(function, _MARK, msgspec.structs.replace(options, answers=True))
    return function


class Toolbox:
    """The tools of an object, found by their ``@tool``; building one is cheap after the first of a class.

    A subclass that overrides a tool's method overrides the tool, with or without ``@tool``; setting
    the name to ``None`` in the subclass takes the tool away.

    Args:
        owner: Whose methods they are.
        tools: Further ones, which have no method there.
        hand_over: Given what a tool has returned: lets it take the call, if it is an agent, and returns what the
            model that asked is told; ``None`` if it is none.

    Raises:
        ConfigurationError: Two tools have one name, or a signature cannot be described; the message
            names the method.
    """

    def __init__(
        self, owner: object, tools: Sequence[Tool] = (), *, hand_over: Callable[[object], str | None] | None = None
    ) -> None:
        self._owner = owner
        self._hand_over = hand_over
        self.own: Mapping[str, Tool] = _tools_of(type(owner))
        """The tools of the object itself, without those of servers."""
        self._own_specs = _specs[type(owner)]
        for each in tools:
            name = each.options.name
            if name in self.own:
                raise ConfigurationError(f"{type(owner).__qualname__} has two tools of the name {name!r}")
            self.own = {**self.own, name: each}
            self._own_specs = (*self._own_specs, each.spec)
        self._tools = self.own
        self._of_client: Mapping[str, Tool] = {}
        self._of_servers: Mapping[str, Tool] = {}
        self.shadowed: Callable[[tuple[str, ...]], object] | None = None
        """Told which tools of the client have a name that is taken, whenever that may have changed."""
        self._instead: dict[str, Callable[..., Any]] = {}
        self.arriving: Callable[[], Awaitable[None]] | None = None
        """Waits for tools from elsewhere that are not there yet; ``None``: there are none to wait for."""
        self.changed: Callable[[], object] | None = None
        """Called when :attr:`specs` are others; set by whoever has told them to a model that keeps them."""
        self._abandoned: set[asyncio.Future[Any]] = set()
        self.specs: tuple[ToolSpec, ...] = self._own_specs
        """For :class:`LLMRequest`; the same object until the tools change, for all agents of a class without more."""

    def __repr__(self) -> str:
        return f"<Toolbox of {type(self._owner).__name__}: {', '.join(self._tools)}>"

    def offer(self, tools: Mapping[str, Tool], *, source: Literal["servers", "client"] = "servers") -> None:
        """Offer ``tools`` from elsewhere beside the object's own, in place of those that ``source`` offered before.

        Where names clash, the object's own win, then those of servers.
        """
        if source == "client":
            self._of_client = tools
        else:
            self._of_servers = tools
        if not self._of_client and not self._of_servers and len(self._tools) == len(self.own):
            return
        self._tools = {**self._of_client, **self._of_servers, **self.own}
        specs = self._own_specs + tuple(found.spec for name, found in self._tools.items() if name not in self.own)
        if self._of_client and self.shadowed is not None:
            self.shadowed(tuple(name for name, found in self._of_client.items() if self._tools[name] is not found))
        if specs != self.specs:
            self.specs = specs
            if self.changed is not None:
                self.changed()

    def substitute(self, name: str, function: Callable[..., Any]) -> None:
        """Let ``function`` run instead of the tool ``name``, with the same arguments; for tests."""
        self._instead[name] = function

    def get(self, name: str) -> Tool | None:
        """Return the tool that the model calls ``name``."""
        return self._tools.get(name)

    def stops_on_interrupt(self, name: str) -> bool:
        """Whether a running ``name`` is to be cancelled when the caller speaks over its turn."""
        found = self._tools.get(name)
        return found is not None and found.options.on_interrupt == "cancel"

    def is_safe(self, name: str) -> bool:
        """Whether ``name`` may run for a reply that may be thrown away; one that is unknown does nothing."""
        found = self._tools.get(name)
        return found is None or found.options.safe

    def is_last(self, name: str) -> bool:
        """Whether ``name`` ends the conversation."""
        found = self._tools.get(name)
        return found is not None and found.options.last

    def is_answer(self, name: str) -> bool:
        """Whether ``name`` is itself the answer of its turn."""
        found = self._tools.get(name)
        return found is not None and found.options.answers

    def longest_s(self, calls: Iterable[ToolCall]) -> float:
        """Return the longest time that ``calls``, run together, may take; background tools take none."""
        tools = (self._tools.get(call.name) for call in calls)
        times = [found.options.timeout_s + _GRACE_S for found in tools if found and not found.options.background]
        return max(times, default=0.0)

    def is_idempotent(self, name: str) -> bool:
        """Whether ``name`` may be run again after a crash; what changes nothing may, too."""
        found = self._tools.get(name)
        return found is not None and (found.options.idempotent or found.options.safe)

    async def run(self, call: ToolCall, *, key: str = "", wanted: Callable[[], bool] = lambda: True) -> ToolResult:
        """Run a call to its end and return its result, whatever happens.

        A plain function may have to wait for a thread; ``wanted`` is asked there before it is called. ``key``
        is what :func:`tool_key` returns there.

        Cancelling this cancels an ``async def`` tool; the thread of a plain one goes on, and what it
        returns is dropped.

        Raises:
            CancelledError: This was cancelled.
        """
        found = self._tools.get(call.name)
        if found is None:
            names = ", ".join(self._tools) or "none"
            return _failed(call, f"there is no tool named {call.name!r}; available: {names}")
        try:
            arguments = found.parameters.arguments(call.arguments)
        except ArgumentsError as exc:
            return _failed(call, str(exc))
        instead = self._instead.get(call.name)
        method = found.call(self._owner, arguments) if instead is None else partial(instead, **arguments)
        _key.set(key)  # of the task that this call has to itself
        if found.is_async:
            return await self._run(found, call, method)
        leave = Leave()
        try:
            return await self._run(found, call, partial(leave.given_to, partial(_if_wanted, method, wanted, key)))
        finally:
            leave.ended = True  # a thread that goes on has nothing to say any more

    async def _run(self, found: Tool, call: ToolCall, method: Callable[[], Any]) -> ToolResult:
        thread: Future[Any] | None = None
        job: asyncio.Future[Any]
        if found.is_async:
            job = asyncio.ensure_future(method())
        else:
            try:
                thread = TOOL_THREADS.submit(method)
            except LimitError as exc:
                logger.error("tool %s (%s) was not started: %s", call.name, call.id, exc)  # noqa: TRY400
                return _failed(call, "too many tools are running; it was not started")
            job = asyncio.wrap_future(thread)
        seconds = found.options.timeout_s
        try:
            await asyncio.wait((job,), timeout=seconds)
            if job.done() and not job.cancelled() and not job.exception() and inspect.isawaitable(job.result()):
                # A plain def that made a coroutine: it is awaited where coroutines belong.
                job = asyncio.ensure_future(job.result())
                await asyncio.wait((job,), timeout=seconds)
        except asyncio.CancelledError:
            await self._stop(job, thread, call)
            raise
        if not job.done():
            started = thread is None or thread.running()
            await self._stop(job, thread, call)
            return _timed_out(call, seconds, started=started)
        return self._result(call, job)

    def _result(self, call: ToolCall, job: asyncio.Future[Any]) -> ToolResult:
        if job.cancelled():
            return _failed(call, "it was cancelled from inside")
        exc = job.exception()
        if isinstance(exc, _NotWantedError):
            content = "cancelled: it was not started before the caller interrupted"
            return ToolResult(id=call.id, name=call.name, content=content, state="cancelled")
        if exc is None:
            return self._returned(call, job.result())
        if isinstance(exc, MCPToolError | ClientToolError | CallHungUp):
            return _failed(call, str(exc)[:_MAX_RESULT])  # a stranger's words: for the model, not for the log
        if isinstance(exc, KeyboardInterrupt | SystemExit):
            raise exc  # on the loop they are meant for the process
        logger.error("tool %s (%s) raised", call.name, call.id, exc_info=exc)
        return _failed(call, f"{type(exc).__name__}: {exc}"[:_MAX_REASON])

    def _returned(self, call: ToolCall, value: Any) -> ToolResult:
        try:
            told = self._hand_over(value) if self._hand_over is not None else None
        except DialogError as exc:  # an agent that cannot take this call
            logger.error("tool %s (%s) returned an agent: %s", call.name, call.id, exc)  # noqa: TRY400
            return _failed(call, str(exc)[:_MAX_REASON])
        return _finished(call, value if told is None else told)

    async def _stop(self, job: asyncio.Future[Any], thread: Future[Any] | None, call: ToolCall) -> None:
        """Cancel a job, and let go of one that does not end."""
        if thread is not None and not thread.done() and not thread.cancel():
            given_up = time.monotonic()
            thread.add_done_callback(lambda done: _late(call, done, time.monotonic() - given_up))
        job.cancel()
        if not job.done():
            await asyncio.wait((job,), timeout=_GRACE_S)
        if job.done():
            if not job.cancelled() and job.exception() is not None:
                logger.warning("tool %s (%s) raised while it was stopped", call.name, call.id, exc_info=job.exception())
            return
        logger.error("tool %s (%s) goes on %g s after it was cancelled: abandoned", call.name, call.id, _GRACE_S)
        self._abandoned.add(job)
        job.add_done_callback(self._forget)

    def _forget(self, job: asyncio.Future[Any]) -> None:
        self._abandoned.discard(job)
        if not job.cancelled():
            job.exception()  # looked at, so that the loop does not report it a second time


def _bound(attribute: str, owner: object, arguments: dict[str, Any]) -> Callable[[], Any]:
    return partial(getattr(owner, attribute), **arguments)


class _NotWantedError(Exception):
    """The reply was given up before a thread was free."""


def _if_wanted(method: Callable[[], Any], wanted: Callable[[], bool], key: str) -> Any:
    if not wanted():
        raise _NotWantedError
    _key.set(key)  # in the thread
    try:
        return method()
    except BaseException as exc:
        if isinstance(exc, Exception) and not isinstance(exc, StopIteration | CancelledError):
            raise
        # A future of the loop refuses these, takes them for its own cancellation, or would let them end the
        # process, which no thread does.
        raise RuntimeError(f"the function raised {exc!r}") from exc


def _finished(call: ToolCall, value: Any) -> ToolResult:
    if value is None:
        text = "ok"
    elif isinstance(value, str):
        text = value or "ok"
    else:
        try:
            text = msgspec.json.encode(value).decode()
        except (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError):
            if "__str__" not in {name for base in type(value).__mro__[:-1] for name in vars(base)}:
                kind = type(value).__name__
                logger.error("tool %s (%s) returned a %s, which is neither text nor JSON", call.name, call.id, kind)  # noqa: TRY400
                return _failed(call, f"it returned a {kind}, which is neither text nor JSON")
            text = str(value)
    if len(text) > _MAX_RESULT:
        text = f"{text[:_MAX_RESULT]} … (cut, {len(text)} characters in all)"
    return ToolResult(id=call.id, name=call.name, content=text)


def _failed(call: ToolCall, reason: str) -> ToolResult:
    return ToolResult(id=call.id, name=call.name, content=f"failed: {reason}", state="failed")


def _timed_out(call: ToolCall, seconds: float, *, started: bool) -> ToolResult:
    tail = "what it did is unknown" if started else "it was not started"
    logger.warning("tool %s (%s) gave no result within %g s", call.name, call.id, seconds)
    return ToolResult(
        id=call.id, name=call.name, content=f"timed out: no result within {seconds:g} s; {tail}", state="timed_out"
    )


def _late(call: ToolCall, thread: Future[Any], late_s: float) -> None:
    logger.warning("tool %s (%s) ended %.1f s after it was given up: its result is dropped", call.name, call.id, late_s)
    if not thread.exception() and inspect.iscoroutine(result := thread.result()):
        result.close()


_by_class: WeakKeyDictionary[type, dict[str, Tool]] = WeakKeyDictionary()
_specs: WeakKeyDictionary[type, tuple[ToolSpec, ...]] = WeakKeyDictionary()


def _tools_of(owner: type) -> dict[str, Tool]:
    tools = _by_class.get(owner)
    if tools is None:
        tools = _collect(owner)
        _by_class[owner] = tools
        _specs[owner] = tuple(found.spec for found in tools.values())
    return tools


def _collect(owner: type) -> dict[str, Tool]:
    """Read the tools of a class, those of its bases first, in the order of their definition."""
    marks: dict[str, ToolOptions] = {}
    for base in reversed(owner.__mro__):
        for attribute, value in vars(base).items():
            function = getattr(value, "__func__", value)  # below staticmethod and classmethod
            options = getattr(function, _MARK, None)
            if isinstance(options, ToolOptions):
                marks[attribute] = options
            elif value is None:
                marks.pop(attribute, None)
    tools: dict[str, Tool] = {}
    names: dict[str, str] = {}
    for attribute, options in marks.items():
        value = inspect.getattr_static(owner, attribute)
        function = getattr(value, "__func__", value)
        where = f"{owner.__qualname__}.{attribute}"
        if options.name in tools:
            other = f"{owner.__qualname__}.{names[options.name]}"
            raise ConfigurationError(f"tools {other} and {where} have the same name {options.name!r}")
        names[options.name] = attribute
        parameters = Parameters(function, where, bound=not isinstance(value, staticmethod))
        if not parameters.description:
            logger.warning("tool %s has no docstring: its name is all that tells the model when to use it", where)
        tools[options.name] = Tool(
            options=options,
            spec=ToolSpec(
                name=options.name,
                description=parameters.description or options.name.replace("_", " "),
                parameters=parameters.schema,
            ),
            is_async=inspect.iscoroutinefunction(function),
            parameters=parameters,
            call=partial(_bound, attribute),
        )
    return tools

from __future__ import annotations

import asyncio
import concurrent.futures
import dataclasses
import enum
import json
import logging
import re
import threading
from collections.abc import AsyncIterator, Awaitable
from contextvars import ContextVar
from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dialog.agent.threads import Threads
from dialog.agent.tools import Toolbox, tool
from dialog.errors import ConfigurationError, LimitError
from dialog.llm.llm import ToolCall, ToolResult


class Size(enum.Enum):
    SMALL = "small"
    LARGE = "large"


@dataclasses.dataclass
class Guest:
    name: str
    title: str = ""


class Address(msgspec.Struct):
    street: str
    number: int


def call(name: str, arguments: Any = "{}", call_id: str = "c1") -> ToolCall:
    text = arguments if isinstance(arguments, str) else json.dumps(arguments)
    return ToolCall(id=call_id, name=name, arguments=text)


async def run(owner: object, name: str, arguments: Any = "{}") -> ToolResult:
    async with asyncio.timeout(5):
        return await Toolbox(owner).run(call(name, arguments))


class Desk:
    def __init__(self) -> None:
        self.booked: list[tuple[int, str]] = []

    @tool
    async def book_table(self, people: int, time: str = "19:00", *, outside: bool = False) -> str:
        """Book a table for today.

        Only one per caller.

        Args:
            people: How many will come,
                children included.
            time (str): 24-hour HH:MM.

        Returns:
            What to tell the caller.
        """
        self.booked.append((people, time))
        return f"booked {people} at {time}{' outside' if outside else ''}"

    @tool(name="opening-hours", timeout_s=2, idempotent=True, filler="Let me look.")
    def opening_hours(self, day: Literal["today", "tomorrow"]) -> dict[str, str]:
        """When the place is open.

        :param day: Which day.
        :returns: hours
        """
        return {"day": day, "open": "18:00"}


def test_the_signature_and_docstring_become_a_strict_schema() -> None:
    book, hours = Toolbox(Desk()).specs
    assert (book.name, book.description) == ("book_table", "Book a table for today.\n\nOnly one per caller.")
    assert json.loads(book.parameters) == {
        "type": "object",
        "properties": {
            "people": {"type": "integer", "description": "How many will come, children included."},
            "time": {"type": "string", "description": "24-hour HH:MM.", "default": "19:00"},
            "outside": {"type": "boolean", "default": False},
        },
        "required": ["people"],
        "additionalProperties": False,
    }
    assert (hours.name, hours.description) == ("opening-hours", "When the place is open.")
    assert json.loads(hours.parameters)["properties"] == {
        "day": {"enum": ["today", "tomorrow"], "description": "Which day."}
    }


def test_every_json_type_is_described_without_references() -> None:
    class Types:
        @tool
        async def all_types(
            self,
            size: Size,
            guest: Guest,
            address: Address | None,
            pair: tuple[int, str],
            words: list[str],
            counts: dict[str, int],
            when: datetime,
            many: Annotated[int, msgspec.Meta(ge=1), "At least one."],
            anything: Any,
        ) -> None:
            """Take everything."""

    schema = json.loads(Toolbox(Types()).specs[0].parameters)
    assert schema["required"] == list(schema["properties"])
    guest = {
        "type": "object",
        "properties": {"name": {"type": "string"}, "title": {"type": "string", "default": ""}},
        "required": ["name"],
        "additionalProperties": False,
    }
    assert schema["properties"]["guest"] == guest
    assert schema["properties"]["size"] == {"enum": ["large", "small"]}
    assert schema["properties"]["many"] == {"type": "integer", "minimum": 1, "description": "At least one."}
    assert schema["properties"]["counts"] == {"type": "object", "additionalProperties": {"type": "integer"}}
    assert schema["properties"]["address"]["anyOf"][1] == {"type": "null"}
    assert "$ref" not in json.dumps(schema)
    assert "$defs" not in schema


def test_the_specs_of_a_class_are_made_once() -> None:
    assert Toolbox(Desk()).specs is Toolbox(Desk()).specs


def test_a_tool_without_a_docstring_is_described_by_its_name_and_its_author_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Bare:
        @tool
        async def call_a_taxi(self) -> None: ...

    (spec,) = Toolbox(Bare()).specs
    Toolbox(Bare())
    assert spec.description == "call a taxi"
    assert [record.getMessage().partition(" has no docstring")[0].rpartition(".")[2] for record in caplog.records] == [
        "call_a_taxi"
    ]
    assert json.loads(spec.parameters) == {
        "type": "object",
        "properties": {},
        "required": [],
        "additionalProperties": False,
    }


async def test_a_decorated_method_is_still_a_method() -> None:
    assert await Desk().book_table(2) == "booked 2 at 19:00"


async def test_arguments_are_checked_converted_and_passed() -> None:
    desk = Desk()
    assert (await run(desk, "book_table", {"people": "4", "outside": "true"})).content == "booked 4 at 19:00 outside"
    assert (await run(desk, "book_table", {"people": 2, "time": None})).content == "booked 2 at 19:00"
    assert desk.booked == [(4, "19:00"), (2, "19:00")]


async def test_structures_arrive_as_their_types() -> None:
    seen: list[object] = []

    class Types:
        @tool
        async def take(self, size: Size, guest: Guest, address: Address, when: datetime, more: list[int] = []) -> None:  # noqa: B006
            seen.extend([size, guest, address, when, more])

    arguments = {
        "size": "large",
        "guest": {"name": "Ann"},
        "address": {"street": "High", "number": "7"},
        "when": "2026-11-20T19:00:00",
    }
    assert (await run(Types(), "take", arguments)).content == "ok"
    assert seen == [Size.LARGE, Guest("Ann"), Address("High", 7), datetime.fromisoformat("2026-11-20T19:00:00"), []]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ('{"people": tw', "not valid JSON"),
        ("[2]", "must be a JSON object"),
        ("null", "must be a JSON object"),
        ("{}", "missing: people"),
        ({"people": 2, "smoking": True}, r"unknown: smoking\); this tool takes: people, time \(optional\), outside"),
        ({"smoking": True}, "unknown: smoking; missing: people"),
        ({"people": "many"}, "Expected 'int', got 'str' - at 'people'"),
        ({"people": None}, "Expected 'int', got 'null' - at 'people'"),
        ({"people": 2, "time": 7}, "Expected 'str', got 'int' - at 'time'"),
        ("[" * 100_000, "not valid JSON"),
    ],
)
async def test_wrong_arguments_tell_the_model_what_is_wrong(arguments: Any, told: str) -> None:
    desk = Desk()
    result = await run(desk, "book_table", arguments)
    assert result.state == "failed"
    assert re.search(told, result.content), result.content
    assert desk.booked == []


async def test_no_arguments_may_be_empty_text() -> None:
    class Clock:
        @tool
        def now(self) -> str:
            return "19:00"

    assert (await run(Clock(), "now", "")).content == "19:00"
    assert "takes none" in (await run(Clock(), "now", {"zone": 1})).content


async def test_an_unknown_tool_is_answered_with_the_names_there_are() -> None:
    result = await run(Desk(), "fly")
    assert (result.state, result.id) == ("failed", "c1")
    assert result.content == "failed: there is no tool named 'fly'; available: book_table, opening-hours"


class Opaque:
    pass


class Spoken:
    def __str__(self) -> str:
        return "spoken"


_cycle: list[Any] = []
_cycle.append(_cycle)


@pytest.mark.parametrize(
    ("value", "content", "state"),
    [
        ("as it is", "as it is", "done"),
        (None, "ok", "done"),
        ("", "ok", "done"),
        (7, "7", "done"),
        (False, "false", "done"),
        ({"a": [1, None]}, '{"a":[1,null]}', "done"),
        (Guest("Ann", "Dr"), '{"name":"Ann","title":"Dr"}', "done"),
        (Address("High", 7), '{"street":"High","number":7}', "done"),
        (Size.SMALL, '"small"', "done"),
        (Spoken(), "spoken", "done"),
        (Opaque(), "failed: it returned a Opaque, which is neither text nor JSON", "failed"),
        (_cycle, "failed: it returned a list, which is neither text nor JSON", "failed"),
        ("x" * 30_000, "x" * 20_000 + " … (cut, 30000 characters in all)", "done"),
    ],
    ids=lambda value: type(value).__name__,
)
async def test_whatever_a_tool_returns_becomes_text(value: object, content: str, state: str) -> None:
    class Returns:
        @tool
        async def it(self) -> Any:
            return value

    result = await run(Returns(), "it")
    assert (result.content, result.state) == (content, state)


async def test_an_exception_becomes_a_result_and_a_log_line_with_its_traceback(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Broken:
        @tool
        async def fail(self) -> str:
            raise ValueError("no table left")

        @tool
        def fail_in_a_thread(self) -> str:
            raise KeyError("x" * 5000)

        @tool
        async def cancel_itself(self) -> str:
            raise asyncio.CancelledError

    assert (await run(Broken(), "fail")).content == "failed: ValueError: no table left"
    assert len((await run(Broken(), "fail_in_a_thread")).content) < 400
    assert (await run(Broken(), "cancel_itself")).state == "failed"
    assert "no table left" in caplog.text
    assert "Traceback" in caplog.text


@pytest.mark.parametrize(
    "exc",
    [StopIteration(), asyncio.CancelledError(), concurrent.futures.CancelledError(), GeneratorExit(), SystemExit(2)],
    ids=lambda exc: f"{type(exc).__module__}.{type(exc).__name__}",
)
async def test_what_no_future_can_carry_out_of_a_thread_is_a_failure_like_any_other(exc: BaseException) -> None:
    class Broken:
        @tool
        def fail(self) -> str:
            raise exc

    async with asyncio.timeout(5):
        result = await run(Broken(), "fail")
    assert result.state == "failed"
    assert type(exc).__name__ in result.content


async def test_an_exception_that_is_no_error_is_a_failure_too() -> None:
    class Broken:
        @tool
        async def fail(self) -> str:
            raise BaseExceptionGroup("both", [GeneratorExit(), ValueError()])

    assert (await run(Broken(), "fail")).state == "failed"


async def test_a_slow_coroutine_is_cancelled_and_reported_as_timed_out() -> None:
    ended: list[str] = []

    class Slow:
        @tool(timeout_s=0.01)
        async def wait(self) -> str:
            try:
                await asyncio.Event().wait()
            finally:
                ended.append("cleaned up")
            return "never"

    result = await run(Slow(), "wait")
    assert result.state == "timed_out"
    assert result.content == "timed out: no result within 0.01 s; what it did is unknown"
    assert ended == ["cleaned up"]


async def test_a_time_out_of_the_tools_own_is_an_ordinary_failure() -> None:
    class Impatient:
        @tool
        async def wait(self) -> str:
            async with asyncio.timeout(0):
                await asyncio.Event().wait()
            return "never"

    assert (await run(Impatient(), "wait")).state == "failed"


async def test_a_coroutine_that_ignores_cancellation_is_abandoned(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("dialog.agent.tools._GRACE_S", 0.01)
    release = asyncio.Event()

    class Stubborn:
        @tool(timeout_s=0.01)
        async def wait(self) -> str:
            while not release.is_set():
                try:
                    await release.wait()
                except asyncio.CancelledError:
                    continue
            raise ValueError("late")

    box = Toolbox(Stubborn())
    assert (await box.run(call("wait"))).state == "timed_out"
    assert "abandoned" in caplog.text
    release.set()
    async with asyncio.timeout(2):
        while box._abandoned:
            await asyncio.wait(set(box._abandoned))
            await asyncio.sleep(0)


async def test_cancelling_a_run_cancels_the_coroutine() -> None:
    started, stopped = asyncio.Event(), asyncio.Event()

    class Slow:
        @tool(on_interrupt="cancel")
        async def wait(self) -> str:
            started.set()
            try:
                await asyncio.Event().wait()
            finally:
                stopped.set()
            return "never"

    box = Toolbox(Slow())
    assert box.stops_on_interrupt("wait")
    task = asyncio.create_task(box.run(call("wait")))
    await started.wait()
    task.cancel()
    await asyncio.wait((task,))
    assert task.cancelled()
    assert stopped.is_set()


_who: ContextVar[str] = ContextVar("who", default="nobody")


async def test_a_plain_function_runs_in_a_thread_with_the_turns_context() -> None:
    class Plain:
        @tool
        def where(self) -> str:
            return f"{threading.current_thread() is threading.main_thread()} {_who.get()}"

    _who.set("turn 7")
    assert (await run(Plain(), "where")).content == "False turn 7"


async def test_plain_functions_run_side_by_side() -> None:
    together = threading.Barrier(3, timeout=5)

    class Plain:
        @tool
        def meet(self) -> str:
            return str(together.wait() in range(3))

    box = Toolbox(Plain())
    results = await asyncio.gather(*(box.run(call("meet", call_id=str(n))) for n in range(3)))
    assert [(result.id, result.content) for result in results] == [("0", "True"), ("1", "True"), ("2", "True")]


async def test_the_late_result_of_a_plain_function_is_dropped_and_recorded(caplog: pytest.LogCaptureFixture) -> None:
    release, logged = threading.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    class Plain:
        @tool(timeout_s=0.02)
        def block(self) -> str:
            release.wait(5)
            return "late"

    class Watch(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if "its result is dropped" in record.getMessage():
                loop.call_soon_threadsafe(logged.set)

    watch = Watch()
    logging.getLogger("dialog.agent.tools").addHandler(watch)
    try:
        assert (await run(Plain(), "block")).state == "timed_out"
        release.set()
        async with asyncio.timeout(5):
            await logged.wait()
    finally:
        logging.getLogger("dialog.agent.tools").removeHandler(watch)


async def test_a_plain_function_may_return_an_awaitable() -> None:
    class Plain:
        @tool
        def later(self) -> Awaitable[str]:
            async def work() -> str:
                return str(threading.current_thread() is threading.main_thread())

            return work()

    assert (await run(Plain(), "later")).content == "True"


def test_threads_are_bounded_and_the_queue_refuses_what_is_too_much() -> None:
    threads = Threads(2, queue=1, name="few")
    release = threading.Event()
    running = threading.Barrier(3, timeout=5)

    def work() -> str:
        running.wait()
        release.wait(5)
        return "done"

    futures = [threads.submit(work), threads.submit(work)]
    running.wait()
    waiting = threads.submit(lambda: "waited")
    with pytest.raises(LimitError, match="few: 1 functions wait"):
        threads.submit(lambda: "refused")
    assert waiting.cancel()
    again = threads.submit(lambda: "in its place")
    assert threads.count == 2
    release.set()
    assert [future.result(5) for future in (*futures, again)] == ["done", "done", "in its place"]


async def test_a_function_whose_reply_is_given_up_before_it_found_a_thread_never_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    threads = Threads(1, queue=1, name="few")
    monkeypatch.setattr("dialog.agent.tools.TOOL_THREADS", threads)
    release = threading.Event()
    threads.submit(lambda: release.wait(5))
    ran: list[int] = []
    wanted = True

    class Plain:
        @tool
        def go(self) -> None:
            ran.append(1)

    running = asyncio.ensure_future(Toolbox(Plain()).run(call("go"), wanted=lambda: wanted))
    await asyncio.sleep(0)
    wanted = False
    release.set()
    result = await running
    assert (result.state, ran) == ("cancelled", [])
    assert "not started" in result.content


async def test_a_function_that_found_no_thread_in_time_was_not_started(monkeypatch: pytest.MonkeyPatch) -> None:
    threads = Threads(1, queue=1, name="few")
    monkeypatch.setattr("dialog.agent.tools.TOOL_THREADS", threads)
    release = threading.Event()
    blocker = threads.submit(lambda: release.wait(5))
    ran: list[int] = []

    class Plain:
        @tool(timeout_s=0.02)
        def go(self) -> None:
            ran.append(1)

    result = await run(Plain(), "go")
    release.set()
    assert blocker.result(5)
    assert result.content.endswith("it was not started")
    assert threads.submit(lambda: list(ran)).result(5) == []


def test_options_are_readable_and_add_up() -> None:
    class Many:
        @tool(timeout_s=3)
        async def quick(self) -> None: ...

        @tool(background=True, filler="On it.")
        async def slow(self) -> None: ...

    box = Toolbox(Many())
    slow = box.get("slow")
    assert slow is not None
    assert (slow.options.timeout_s, slow.options.background, slow.options.filler) == (300.0, True, "On it.")
    assert box.longest_s([call("quick"), call("slow"), call("none")]) == 4.0
    assert box.longest_s([]) == 0.0
    assert not box.stops_on_interrupt("quick")
    assert not box.stops_on_interrupt("none")
    assert not box.is_safe("quick")
    assert box.is_safe("none"), "what does not exist does nothing"
    assert not box.is_last("quick")
    assert not box.is_last("none")


def test_a_look_up_may_be_declared_safe() -> None:
    class Hours:
        @tool(safe=True)
        async def hours(self) -> None: ...

    assert Toolbox(Hours()).is_safe("hours")


async def test_subclasses_inherit_override_and_take_away_tools() -> None:
    class Night(Desk):
        async def book_table(self, people: int) -> str:  # type: ignore[override]
            """Ask for a table tonight."""
            return f"night {people}"

        opening_hours = None  # type: ignore[assignment]

        @tool
        async def joke(self) -> str:
            return "ha"

    box = Toolbox(Night())
    assert [spec.name for spec in box.specs] == ["book_table", "joke"]
    assert box.specs[0].description == "Ask for a table tonight."
    assert (await run(Night(), "book_table", {"people": 2})).content == "night 2"
    assert len(Toolbox(Desk()).specs) == 2


def test_the_decorator_belongs_below_staticmethod() -> None:
    with pytest.raises(ConfigurationError, match="below @staticmethod"):
        tool(staticmethod(Desk.book_table))


async def test_static_and_class_methods_may_be_tools() -> None:
    class Kinds:
        @staticmethod
        @tool
        async def static(n: int) -> int:
            return n + 1

        @classmethod
        @tool
        async def of_class(cls, n: int) -> str:
            return f"{cls.__name__} {n}"

    assert (await run(Kinds(), "static", {"n": 1})).content == "2"
    assert (await run(Kinds(), "of_class", {"n": 1})).content == "Kinds 1"


def test_two_tools_of_one_name_are_refused_by_name_of_method() -> None:
    class Twice:
        @tool(name="book")
        async def one(self) -> None: ...

        @tool(name="book")
        async def two(self) -> None: ...

    with pytest.raises(ConfigurationError, match=r"Twice\.one and .*Twice\.two have the same name 'book'"):
        Toolbox(Twice())


def _missing_annotation() -> None:
    class Bad:
        @tool
        async def bad(self, people) -> None: ...  # type: ignore[no-untyped-def]


def _variadic() -> None:
    class Bad:
        @tool
        async def bad(self, *people: int) -> None: ...


def _generator() -> None:
    class Bad:
        @tool
        async def bad(self) -> AsyncIterator[str]:
            yield ""


def _uncancellable() -> None:
    class Bad:
        @tool(on_interrupt="cancel")
        def bad(self) -> None: ...


def _background_that_stops() -> None:
    class Bad:
        @tool(on_interrupt="cancel", background=True)
        async def bad(self) -> None: ...


def _no_time() -> None:
    class Bad:
        @tool(timeout_s=0)
        async def bad(self) -> None: ...


def _bad_name() -> None:
    class Bad:
        @tool(name="bad name")
        async def bad(self) -> None: ...


@pytest.mark.parametrize(
    "define",
    [_missing_annotation, _variadic, _generator, _uncancellable, _background_that_stops, _no_time, _bad_name],
)
def test_a_wrong_tool_is_refused_when_its_class_is_defined(define: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"tool .*Bad\.bad: "):
        define()


class _Recursive(msgspec.Struct):
    children: list[_Recursive]


@pytest.mark.parametrize("kind", [Opaque, _Recursive, set[Opaque], "NoSuchType"])
def test_a_type_that_json_cannot_carry_is_refused_by_name_of_the_method(kind: Any) -> None:
    class Bad:
        async def bad(self, thing) -> None: ...  # type: ignore[no-untyped-def]

        bad.__annotations__["thing"] = kind
        tool(bad)

    with pytest.raises(ConfigurationError, match=r"tool .*Bad\.bad: "):
        Toolbox(Bad())


@given(st.one_of(st.text(), st.recursive(st.none() | st.integers() | st.text(), st.lists).map(json.dumps)))
def test_no_arguments_of_a_model_can_break_a_run(text: str) -> None:
    result = asyncio.run(Toolbox(Desk()).run(call("book_table", text)))
    assert result.state == "failed"


def test_names_that_are_allowed_are_allowed_by_openai() -> None:
    assert all(re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", spec.name) for spec in Toolbox(Desk()).specs)

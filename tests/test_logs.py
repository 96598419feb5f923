"""The opt-in logging: levels, call context, redaction, a queue that never blocks."""

from __future__ import annotations

import asyncio
import io
import logging
import threading
import time
from collections.abc import Iterator

import pytest

from dialog.errors import ConfigurationError
from dialog.logs import ALERT, EMERGENCY, LEVELS, NOTICE, Formatter, RedactingFilter, call_context, configure
from dialog.scope import CallScope


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    one = logging.getLogger("dialog.test_logs")
    yield one
    assert logging.getLogger("dialog").handlers == []
    assert not [thread for thread in threading.enumerate() if thread.name == "dialog logs"]


def test_lines_carry_time_level_logger_and_message(logger: logging.Logger) -> None:
    out = io.StringIO()
    with configure("debug", stream=out):
        logger.debug("frame %d", 3)
        logger.log(NOTICE, "call started")
        logger.log(ALERT, "no provider is left")
        logger.log(EMERGENCY, "out of memory")
    lines = [line.split(" ", 1) for line in out.getvalue().splitlines()]
    assert [text for _, text in lines] == [
        "DEBUG     dialog.test_logs frame 3",
        "NOTICE    dialog.test_logs call started",
        "ALERT     dialog.test_logs no provider is left",
        "EMERGENCY dialog.test_logs out of memory",
    ]
    for clock, _ in lines:
        assert time.strptime(clock.partition(".")[0], "%H:%M:%S")


def test_levels_are_those_of_syslog_in_their_order() -> None:
    assert list(LEVELS) == ["debug", "info", "notice", "warning", "error", "critical", "alert", "emergency"]
    assert list(LEVELS.values()) == sorted(LEVELS.values())
    assert logging.getLevelName(NOTICE) == "NOTICE"


def test_lower_levels_are_not_written_and_the_old_level_comes_back(logger: logging.Logger) -> None:
    out = io.StringIO()
    before = logging.getLogger("dialog").level
    with configure("notice", stream=out):
        logger.info("quiet")
        logger.log(NOTICE, "loud")
    assert "quiet" not in out.getvalue()
    assert "loud" in out.getvalue()
    assert logging.getLogger("dialog").level == before


def test_an_unknown_level_is_named() -> None:
    with pytest.raises(ConfigurationError, match="'verbose'"):
        configure("verbose")
    with pytest.raises(ConfigurationError, match="queue_size"):
        configure(queue_size=0)


async def test_each_line_names_the_call_of_the_task_that_wrote_it(logger: logging.Logger) -> None:
    out = io.StringIO()
    turn = asyncio.Event()

    async def call(name: str) -> None:
        with call_context(name):
            await turn.wait()
            logger.info("from %s", name)

    async def scoped() -> None:
        with CallScope("CA9").entered():
            await asyncio.create_task(asyncio.sleep(0))
            logger.info("from a scope")

    with configure(stream=out):
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(call("CA1"))
            tasks.create_task(call("CA2"))
            tasks.create_task(scoped())
            turn.set()
        logger.info("outside")
        logger.info("told", extra={"call": "CA3"})
    text = out.getvalue()
    assert "[CA1] from CA1" in text
    assert "[CA2] from CA2" in text
    assert "[CA9] from a scope" in text
    assert "dialog.test_logs outside" in text
    assert "[CA3] told" in text


@pytest.mark.parametrize(
    ("message", "secret"),
    [
        ("key is hunter22 indeed", "hunter22"),
        ("Authorization: Bearer abcdef0123456789", "abcdef0123456789"),
        ("Authorization: Token 0123456789abcdef", "0123456789abcdef"),
        ("GET wss://h/x?model=nova&access_token=abc.def&x=1", "abc.def"),
        ("X-API-Key: 'k1234567890'", "k1234567890"),
        ("used sk-proj_0123456789abcdef", "proj_0123456789"),
        ("https://ACxx:tok3n@api.example/1", "tok3n"),
    ],
)
def test_credentials_are_hidden(message: str, secret: str) -> None:
    text = RedactingFilter(["hunter22", "abc"]).redact(message)
    assert secret not in text
    assert "[hidden]" in text


@pytest.mark.parametrize("message", ["the token expired", "basic questions", "abc", "3 keys pressed"])
def test_ordinary_words_stay(message: str) -> None:
    assert RedactingFilter(["abc"]).redact(message) == message


def test_tracebacks_are_written_and_redacted_too(logger: logging.Logger) -> None:
    out = io.StringIO()
    with configure(stream=out, secrets=["hunter22"]):
        try:
            int("wrong password hunter22")
        except ValueError:
            logger.exception("login with %s failed", "hunter22")
    text = out.getvalue()
    assert "hunter22" not in text
    assert "login with [hidden] failed\nTraceback" in text
    assert "ValueError: invalid literal" in text
    assert "wrong password [hidden]" in text


def test_a_wrong_format_is_shown_and_breaks_nothing(logger: logging.Logger) -> None:
    out = io.StringIO()
    with configure(stream=out):
        logger.info("%d of %s", "x")  # noqa: PLE1206
    assert "%d of %s (not formatted:" in out.getvalue()


class Stuck(logging.Handler):
    """A console that nobody reads."""

    def __init__(self) -> None:
        super().__init__()
        self.entered = threading.Event()
        self.go_on = threading.Event()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.entered.set()
        self.go_on.wait(5)
        self.lines.append(record.getMessage())


def test_a_slow_console_costs_records_and_never_time(logger: logging.Logger) -> None:
    console = Stuck()
    logs = configure(handler=console, queue_size=10)
    logger.info("first")
    assert console.entered.wait(5)
    started = time.monotonic()
    for number in range(1000):
        logger.info("line %d", number)
    assert time.monotonic() - started < 2
    assert logs.dropped == 990
    console.go_on.set()
    logs.close()
    logs.close()
    assert console.lines[:11] == ["first", *(f"line {n}" for n in range(10))]
    assert console.lines[11].startswith("990 log records were dropped")


def test_closing_does_not_wait_for_a_stuck_console_for_ever(logger: logging.Logger) -> None:
    console = Stuck()
    logs = configure(handler=console, queue_size=1)
    logger.info("first")
    assert console.entered.wait(5)
    logger.info("second")
    logs.close(timeout_s=0.05)
    console.go_on.set()
    logs._thread.join(5)
    assert console.lines == ["first", "second"]


def test_a_console_that_raises_does_not_end_the_log(logger: logging.Logger, monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(logging.Handler):
        lines = 0

        def emit(self, record: logging.LogRecord) -> None:
            self.lines += 1
            raise OSError("gone")

    monkeypatch.setattr(logging, "raiseExceptions", False)
    console = Broken()
    with configure(handler=console):
        logger.info("first")
        logger.info("second")
    assert console.lines == 2


def test_colours_are_for_terminals() -> None:
    record = logging.LogRecord("dialog", logging.ERROR, "", 0, "broken", None, None)
    assert "\x1b[31mERROR" in Formatter(colour=True).format(record)
    assert "\x1b" not in Formatter().format(record)


def test_the_library_itself_attaches_nothing() -> None:
    assert logging.getLogger("dialog").handlers == []

"""Logging for programs that want it ready-made: console lines that never block the event loop.

The library itself only writes to loggers under ``dialog``, with no handlers and no levels set. A
program may attach what it likes, or call :func:`configure` once::

    with configure(level="debug", secrets=[api_key]):
        web.run_app(gateway.app())

Records go into a bounded queue that a thread of its own writes out; when the queue is full they are
counted and dropped, never waited for. Each line names the call it belongs to. The syslog levels that
Python lacks (RFC 5424, section 6.2.1) are there: ``notice``, ``alert`` and ``emergency``.
"""

from __future__ import annotations

import logging
import queue
import re
import sys
import threading
import time
from collections.abc import Generator, Iterable
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from logging.handlers import QueueHandler
from types import TracebackType
from typing import Any, ClassVar, Self, TextIO

from dialog.errors import ConfigurationError
from dialog.scope import CallScope

__all__ = [
    "ALERT",
    "EMERGENCY",
    "LEVELS",
    "NOTICE",
    "CallFilter",
    "DroppingQueueHandler",
    "Formatter",
    "Logs",
    "RedactingFilter",
    "call_context",
    "configure",
    "current_call",
]

NOTICE = 25
ALERT = 60
EMERGENCY = 70
LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "notice": NOTICE,
    "warning": logging.WARNING,
    "error": logging.ERROR,
    "critical": logging.CRITICAL,
    "alert": ALERT,
    "emergency": EMERGENCY,
}
"""Names of the levels, lowest first: those of syslog, in Python's numbers where Python has them."""

for _name, _number in (("NOTICE", NOTICE), ("ALERT", ALERT), ("EMERGENCY", EMERGENCY)):
    logging.addLevelName(_number, _name)

_call: ContextVar[str] = ContextVar("dialog_log_call", default="")
_HIDDEN = "[hidden]"
_SHORTEST_SECRET = 6
"""Shorter values would blot out ordinary words."""
_PATTERNS = (
    # What credentials look like, whoever wrote them into a message: header values, URL queries, keys.
    re.compile(r"(?i)\b((?:bearer|token|basic)\s+)(?=[\w.~+/=-]*[\d=])[\w.~+/=-]{8,}"),
    re.compile(r"(?i)([?&](?:access_token|api[-_]?key|key|token|signature)=)[^&\s\"']+"),
    re.compile(r"(?i)((?:x-)?api[-_]key[\"']?\s*[:=]\s*[\"']?)[\w.~+/=-]{8,}"),
    re.compile(r"()\bsk[-_][\w-]{12,}"),
    re.compile(r"(?i)(://)[^/\s:@]+:[^/\s@]+(?=@)"),
)


def current_call() -> str:
    """The call that the running code belongs to, as log lines name it; empty outside any call."""
    named = _call.get()
    if named:
        return named
    scope = CallScope.current()
    return scope.name if scope is not None else ""


@contextmanager
def call_context(call: object) -> Generator[None]:
    """Name the call of every record that the block, and tasks started in it, write."""
    token = _call.set(str(call))
    try:
        yield
    finally:
        _call.reset(token)


class CallFilter(logging.Filter):
    """Gives every record a ``call``: what the record brings (``extra={"call": …}``), else the running one."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Never rejects."""
        if not getattr(record, "call", ""):
            record.call = current_call()
        return True


class RedactingFilter(logging.Filter):
    """Replaces credentials in the text of a record, its traceback included.

    Args:
        secrets: Values to hide wherever they appear; ones of less than six characters are ignored.
            What looks like a credential (bearer tokens, ``api_key=…``, ``sk-…``) is hidden anyway.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        super().__init__()
        known = sorted({one for one in secrets if len(one) >= _SHORTEST_SECRET}, key=len, reverse=True)
        self._known = re.compile("|".join(map(re.escape, known))) if known else None

    def __repr__(self) -> str:
        return "<RedactingFilter>"

    def redact(self, text: str) -> str:
        """``text`` without credentials."""
        if self._known is not None:
            text = self._known.sub(_HIDDEN, text)
        for pattern in _PATTERNS:
            text = pattern.sub(rf"\1{_HIDDEN}", text)
        return text

    def filter(self, record: logging.LogRecord) -> bool:
        """Never rejects; the record's message is final afterwards."""
        try:
            message = record.getMessage()
        except (TypeError, ValueError, KeyError) as exc:  # a wrong format is its author's: show it, lose nothing
            message = f"{record.msg!s} (not formatted: {exc})"
        record.msg, record.args = self.redact(message), None
        if record.exc_info and record.exc_info[0] is not None and not record.exc_text:
            record.exc_text = _plain.formatException(record.exc_info)
        if record.exc_text:
            record.exc_text = self.redact(record.exc_text)
        record.exc_info = None
        if record.stack_info:
            record.stack_info = self.redact(record.stack_info)
        return True


_plain = logging.Formatter()


class Formatter(logging.Formatter):
    """``12:30:05.123 NOTICE dialog.voip [call] message``, in colours on a terminal."""

    _COLOURS: ClassVar[dict[int, str]] = {
        logging.DEBUG: "2",
        NOTICE: "36",
        logging.WARNING: "33",
        logging.ERROR: "31",
        logging.CRITICAL: "1;31",
        ALERT: "1;35",
        EMERGENCY: "1;37;41",
    }

    def __init__(self, *, colour: bool = False) -> None:
        super().__init__()
        self._colour = colour

    def format(self, record: logging.LogRecord) -> str:
        """One line, and the traceback's lines if there is one."""
        clock = time.strftime("%H:%M:%S", time.localtime(record.created))
        level = f"{record.levelname:<9}"
        colour = self._COLOURS.get(record.levelno) if self._colour else None
        if colour:
            level = f"\x1b[{colour}m{level}\x1b[0m"
        call = getattr(record, "call", "")
        text = (
            f"{clock}.{int(record.msecs):03d} {level} {record.name} {f'[{call}] ' if call else ''}{record.getMessage()}"
        )
        if record.exc_info and not record.exc_text:
            record.exc_text = self.formatException(record.exc_info)
        if record.exc_text:
            text += "\n" + record.exc_text
        if record.stack_info:
            text += "\n" + record.stack_info
        return text


class DroppingQueueHandler(QueueHandler):
    """Puts records into a bounded queue and counts those that do not fit; it never waits."""

    def __init__(self, records: queue.Queue[Any]) -> None:
        super().__init__(records)
        self.dropped: int = 0
        """Records lost since the last time the writer reported them."""
        self.dropped_total: int = 0

    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        """The record itself: the redacting filter has already rendered what the writer needs."""
        return record

    def enqueue(self, record: logging.LogRecord) -> None:
        """Queue the record, or count it."""
        try:
            self.queue.put_nowait(record)
        except queue.Full:
            self.dropped += 1
            self.dropped_total += 1


class Logs:
    """A running set-up of logging; :meth:`close` writes out what is queued and takes it away again."""

    def __init__(
        self, target: logging.Handler, *, logger: logging.Logger, level: int, secrets: Iterable[str], queue_size: int
    ) -> None:
        self._target = target
        self._logger = logger
        self._records: queue.Queue[logging.LogRecord | None] = queue.Queue(queue_size)
        self._handler = DroppingQueueHandler(self._records)
        # In this order and in the thread that logs: only there the call is known, and a record
        # that has left it holds text alone, no object that a call has long forgotten.
        self._handler.addFilter(CallFilter())
        self._handler.addFilter(RedactingFilter(secrets))
        self._before = logger.level
        self._closed = False
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._write, name="dialog logs", daemon=True)
        logger.addHandler(self._handler)
        logger.setLevel(level)
        self._thread.start()

    @property
    def dropped(self) -> int:
        """How many records did not fit into the queue so far."""
        return self._handler.dropped_total

    def close(self, timeout_s: float = 2.0) -> None:
        """Stop: what is queued is written out, for ``timeout_s`` at most. Idempotent."""
        if self._closed:
            return
        self._closed = True
        self._logger.removeHandler(self._handler)
        self._logger.setLevel(self._before)
        self._stopping.set()
        with suppress(queue.Full):  # a full queue has a busy writer, which sees the event
            self._records.put_nowait(None)
        self._thread.join(timeout_s)
        self._handler.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _write(self) -> None:
        while True:
            if self._stopping.is_set() and self._records.empty():
                break
            record = self._records.get()
            if record is not None:
                try:
                    self._target.handle(record)
                except Exception:  # a foreign handler: its failure must not silence the others' records
                    self._target.handleError(record)
            if self._handler.dropped and self._records.empty():
                dropped, self._handler.dropped = self._handler.dropped, 0
                self._target.handle(_dropped_record(dropped))
        self._target.flush()


def _dropped_record(count: int) -> logging.LogRecord:
    text = f"{count} log records were dropped: the log's reader is slower than its writers"
    return logging.LogRecord(__name__, logging.WARNING, __file__, 0, text, None, None)


def configure(
    level: str | int = "info",
    *,
    handler: logging.Handler | None = None,
    stream: TextIO | None = None,
    logger: str = "dialog",
    secrets: Iterable[str] = (),
    queue_size: int = 10_000,
) -> Logs:
    """Write log lines to the console, or to another handler, without ever blocking the caller.

    Args:
        level: Lowest level that is written: one of :data:`LEVELS`, or a number.
        handler: Where lines go; by default a console handler on ``stream`` with :class:`Formatter`.
        stream: By default standard error; coloured if it is a terminal.
        logger: Root of the loggers that are written; ``""`` for those of the whole program.
        secrets: Credentials to hide wherever they turn up.
        queue_size: Records that wait for a slow console; more are dropped and counted.

    Returns:
        A closable; also a context manager.

    Raises:
        ConfigurationError: There is no such level, or the queue has no room.
    """
    number = LEVELS.get(level.lower()) if isinstance(level, str) else level
    if number is None:
        raise ConfigurationError(f"no log level {level!r}: use one of {', '.join(LEVELS)}")
    if queue_size < 1:
        raise ConfigurationError(f"queue_size must be at least 1, got {queue_size}")
    if handler is None:
        out = stream if stream is not None else sys.stderr
        handler = logging.StreamHandler(out)
        handler.setFormatter(Formatter(colour=out.isatty()))
    return Logs(handler, logger=logging.getLogger(logger), level=number, secrets=secrets, queue_size=queue_size)

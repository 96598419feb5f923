"""Server-sent events without a socket: bytes in, whole events out.

Source: WHATWG HTML, "Server-sent events", interpreting an event stream.
"""

from __future__ import annotations

from msgspec import Struct

from dialog.errors import LimitError

__all__ = ["SSEParser", "ServerSentEvent"]


class ServerSentEvent(Struct, frozen=True):
    """One event: its ``data`` lines joined by newlines, as UTF-8 bytes, and its type, ``""`` by default."""

    data: bytes
    event: str = ""

    def __repr__(self) -> str:
        return f"<ServerSentEvent {self.event or 'message'} of {len(self.data)} bytes>"


class SSEParser:
    r"""Collect an event stream that arrives in pieces cut anywhere, also inside a UTF-8 character.

    Lines may end in ``\n``, ``\r\n`` or ``\r``; comments, ids and retry hints are skipped.

    Args:
        limit: Bytes that one event may take before the stream is given up.
    """

    __slots__ = ("_data", "_event", "_limit", "_rest", "_size", "_started")

    def __init__(self, *, limit: int = 1_000_000) -> None:
        self._limit = limit
        self._rest = b""  # the beginning of a line whose end has not come yet
        self._data: list[bytes] = []
        self._size = 0
        self._event = ""
        self._started = False

    def feed(self, data: bytes) -> list[ServerSentEvent]:
        """Return the events that ``data`` completes.

        Raises:
            LimitError: An event is longer than the limit.
        """
        if data.startswith(b"data: ") and data.endswith(b"\n\n") and not (self._rest or self._data or self._event):
            line = data[6:-2]
            if b"\n" not in line and b"\r" not in line:  # one event of one line, as most come
                self._started = True
                return [ServerSentEvent(line)]
        # Nothing is scanned again and again while a long line trickles in.
        if self._rest and b"\n" not in data and b"\r" not in data and not self._rest.endswith(b"\r"):
            self._rest += data
            self._check(len(self._rest))
            return []
        data = self._rest + data
        if not self._started:
            if b"\xef\xbb\xbf".startswith(data):  # maybe the start of a byte order mark
                self._rest = data
                return []
            self._started = True
            data = data.removeprefix(b"\xef\xbb\xbf")
        if b"\r" in data:
            # A carriage return at the very end may be half of "\r\n": wait for what follows it.
            data, held = (data[:-1], b"\r") if data.endswith(b"\r") else (data, b"")
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        else:
            held = b""
        *lines, rest = data.split(b"\n")
        self._rest = rest + held
        events: list[ServerSentEvent] = []
        self._take(lines, events)
        self._check(self._size + len(self._rest))
        return events

    def close(self) -> list[ServerSentEvent]:
        """Return an event that the end of the stream left without its blank line.

        The standard drops it; servers that forget the last newline are common, and whether the
        stream was complete is for its reader to decide.
        """
        events: list[ServerSentEvent] = []
        self._take([self._rest.removesuffix(b"\r"), b""], events)
        self._rest = b""
        return events

    def _take(self, lines: list[bytes], events: list[ServerSentEvent]) -> None:
        for line in lines:
            if not line:
                if self._data:
                    data = self._data[0] if len(self._data) == 1 else b"\n".join(self._data)
                    events.append(ServerSentEvent(data, self._event))
                    self._data = []
                self._event = ""
                self._size = 0
                continue
            name, _, value = line.partition(b":")  # a comment has an empty name
            value = value.removeprefix(b" ")
            if name == b"data":
                self._data.append(value)
                self._size += len(value)
            elif name == b"event":
                self._event = value.decode("utf-8", "replace")

    def _check(self, size: int) -> None:
        if size > self._limit:
            raise LimitError(f"a server-sent event is longer than {self._limit} bytes")

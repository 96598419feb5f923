"""HTTP/1.1 without a socket: the bytes of a request, and the reader of its response.

Source: RFC 9112. What a response may not look like is refused rather than guessed.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping
from typing import Final

from multidict import CIMultiDict

from dialog.errors import ConfigurationError

__all__ = ["BadResponseError", "ResponseReader", "request_head"]

_MAX_HEAD: Final = 64 * 1024
_MAX_LINE: Final = 4 * 1024
_MAX_TRAILERS: Final = 64
_MAX_INFLATED: Final = 16 * 1024 * 1024
"""Of what is read at once, which is 256 KB: nobody means that who answers a request for text."""
_STATUS: Final = re.compile(rb"HTTP/1\.([01]) ([1-5]\d\d)(?: [^\r\n]*)?")
_NAME: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_LENGTH: Final = re.compile(r"[0-9]{1,18}")
_HEX: Final = b"0123456789ABCDEFabcdef"
_SIZE: Final = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;.*)?")
_UNSAFE: Final = re.compile(r"[\r\n\0]")


class BadResponseError(Exception):
    """The peer does not speak HTTP/1.1, or not what was asked for."""


def request_head(method: str, target: str, headers: Mapping[str, str]) -> bytes:
    """Return the request line and headers, without the empty line that ends them.

    Raises:
        ConfigurationError: A header cannot be sent.
    """
    lines = [f"{method} {target} HTTP/1.1"]
    for name, value in headers.items():
        if not _NAME.fullmatch(name.encode()) or _UNSAFE.search(value):
            raise ConfigurationError(f"the header {name!r} holds characters that a header may not hold")
        lines.append(f"{name}: {value}")
    return "\r\n".join(lines).encode() + b"\r\n"


class ResponseReader:
    """Reads one response as its bytes come. ``bodiless``: of a HEAD request."""

    __slots__ = (
        "_between",
        "_bodiless",
        "_buffer",
        "_chunked",
        "_inflate",
        "_left",
        "_trailers",
        "done",
        "headed",
        "headers",
        "reusable",
        "status",
    )

    def __init__(self, *, bodiless: bool = False) -> None:
        self.status: int = 0
        self.headers: CIMultiDict[str] = CIMultiDict()
        self.headed: bool = False
        """Status and headers are here."""
        self.done: bool = False
        """All of it is here."""
        self.reusable: bool = False
        """The connection can serve another request, once this response is done."""
        self._bodiless = bodiless
        self._buffer = b""
        self._chunked = False
        self._left: int | None = 0
        """Bytes of the body, or of its chunk, that are missing; ``None``: until the connection closes."""
        self._between = False
        """The line end behind a chunk is missing."""
        self._trailers = -1
        self._inflate: zlib._Decompress | None = None

    def feed(self, data: bytes) -> bytes:
        """Return what of the body ``data`` holds.

        Raises:
            BadResponseError: The response is none.
        """
        if not self.headed:
            rest = self._read_head(self._buffer + data)
            if rest is None:
                return b""
            data = rest
        if self.done:
            body = b""
        elif self._chunked:
            body = self._read_chunks(data)
        elif self._left is None:
            body = data
        else:
            body = data[: self._left]
            self._left -= len(body)
            if not self._left:
                self._end(data[len(body) :])
        return self._plain(body) if self._inflate is not None else body

    def eof(self) -> None:
        """The peer closed the connection.

        Raises:
            BadResponseError: Something of the response is missing.
        """
        if self.done:
            return
        if not self.headed:
            raise BadResponseError("the connection was closed without an answer")
        if self._left is not None:
            raise BadResponseError("the connection was closed in the middle of the answer")
        self.done = True

    def _read_head(self, data: bytes) -> bytes | None:
        """Read the head, and return what follows it; ``None`` while it is not whole."""
        while True:
            end = data.find(b"\r\n\r\n")
            if end > _MAX_HEAD or (end < 0 and len(data) > _MAX_HEAD):
                raise BadResponseError(f"the headers of the answer are longer than {_MAX_HEAD} bytes")
            if end < 0:
                self._buffer = data
                return None
            first, *lines = data[:end].split(b"\r\n")
            data = data[end + 4 :]
            status = _STATUS.fullmatch(first)
            if status is None:
                raise BadResponseError("the answer is not HTTP/1.1")
            self.status = int(status[2])
            if self.status >= 200:
                break
            if self.status == 101:
                raise BadResponseError("the answer switches protocols")
            # 100 and 103 announce the answer.
        self._buffer = b""
        self.headed = True
        for line in lines:
            name, colon, value = line.partition(b":")
            if not colon or not _NAME.fullmatch(name):
                raise BadResponseError("the answer has a malformed header")
            self.headers.add(name.decode(), value.strip(b" \t").decode("utf-8", "surrogateescape"))
        self._frame(minor=status[1] == b"1")
        if self._left == 0 and not self._chunked:
            self._end(data)
            return b""
        return data

    def _frame(self, *, minor: bool) -> None:
        """How the body ends (RFC 9112, section 6.3), and whether the connection outlives it."""
        tokens = {token.strip().lower() for token in ",".join(self.headers.getall("connection", [])).split(",")}
        self.reusable = "close" not in tokens and (minor or "keep-alive" in tokens)
        coding = ",".join(self.headers.getall("transfer-encoding", [])).lower()
        lengths = set(self.headers.getall("content-length", []))
        if self._bodiless or self.status in (204, 304):
            return
        if coding.strip():
            if coding.strip() != "chunked":
                raise BadResponseError(f"the answer has the transfer coding {coding[:50]!r}, which was not asked for")
            self._chunked = True
            self.reusable = self.reusable and not lengths
        elif lengths:
            length = lengths.pop()
            if lengths or not _LENGTH.fullmatch(length):
                raise BadResponseError("the answer has a malformed content-length")
            self._left = int(length)
        else:
            self._left = None
            self.reusable = False
        encoding = self.headers.get("content-encoding", "identity").strip().lower()
        if encoding in ("gzip", "deflate"):
            self._inflate = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)
        elif encoding not in ("", "identity"):
            raise BadResponseError(f"the answer is encoded as {encoding[:50]!r}, which was not asked for")

    def _read_chunks(self, data: bytes) -> bytes:
        if not self._left and not self._between and not self._buffer and self._trailers < 0:
            only = _only_chunk(data)  # who streams a text sends it piece by piece
            if only is not None:
                return only
        data = self._buffer + data
        pieces: list[bytes] = []
        at = 0
        while not self.done:
            if self._left:
                piece = data[at : at + self._left]
                pieces.append(piece)
                at += len(piece)
                self._left -= len(piece)
                if self._left:
                    break
                self._between = True
            end = data.find(b"\r\n", at)
            if end < 0:
                if len(data) - at > _MAX_LINE:
                    raise BadResponseError("the answer has a malformed chunk")
                break
            line = data[at:end]
            at = end + 2
            if self._between:
                if line:
                    raise BadResponseError("the answer has a chunk that is longer than it says")
                self._between = False
            elif self._trailers >= 0:
                self._trailers += 1
                if not line:
                    self._end(data[at:])
                elif self._trailers > _MAX_TRAILERS:
                    raise BadResponseError("the answer has too many trailers")
            else:
                self._begin_chunk(line)
        self._buffer = data[at:]
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _begin_chunk(self, line: bytes) -> None:
        if not _is_plain_size(line):
            size = _SIZE.fullmatch(line)
            if size is None:
                raise BadResponseError("the answer has a malformed chunk")
            line = size[1]
        self._left = int(line, 16)
        if not self._left:
            self._trailers = 0

    def _end(self, rest: bytes) -> None:
        self.done = True
        if rest:
            self.reusable = False  # nobody asked for that

    def _plain(self, body: bytes) -> bytes:
        assert self._inflate is not None
        try:
            plain = self._inflate.decompress(body, _MAX_INFLATED)
        except zlib.error as exc:
            raise BadResponseError(f"the answer cannot be decompressed: {exc}") from exc
        if self._inflate.unconsumed_tail:
            raise BadResponseError(f"{len(body)} bytes of the answer are decompressed more than {_MAX_INFLATED}")
        return plain


def _only_chunk(data: bytes) -> bytes | None:
    """What ``data`` holds, if it is one chunk of a body, whole and with nothing behind it."""
    line, _, rest = data.partition(b"\r\n")
    if not _is_plain_size(line):
        return None
    size = int(line, 16)
    return rest[:size] if size and len(rest) == size + 2 and rest.endswith(b"\r\n") else None


def _is_plain_size(line: bytes) -> bool:
    """Whether a chunk's size is written as nearly all servers do: digits, and nothing else."""
    return 0 < len(line) < 16 and not line.strip(_HEX)

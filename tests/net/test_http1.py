"""Reading responses, cut anywhere, and refusing what is none."""

import gzip
import zlib

import pytest

from dialog.errors import ConfigurationError
from dialog.net.http1 import BadResponseError, ResponseReader, request_head

GZIPPED = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Type: text/event-stream\r\n\r\n"


def read(data, *, step=0, bodiless=False, eof=False):
    reader = ResponseReader(bodiless=bodiless)
    step = step or len(data)
    body = b"".join(reader.feed(data[at : at + step]) for at in range(0, len(data), step))
    if eof:
        reader.eof()
    return reader, body


@pytest.mark.parametrize("step", [0, 1, 2, 3, 5, 17])
@pytest.mark.parametrize(
    ("data", "body", "reusable"),
    [
        (CHUNKED + b"5\r\nhello\r\n6;x=y\r\n world\r\n0\r\n\r\n", b"hello world", True),
        (CHUNKED + b"00a \r\n0123456789\r\n0\r\nTrailer: x\r\nAnother: y\r\n\r\n", b"0123456789", True),
        (CHUNKED + b"2\r\n\r\n\r\n0\r\n\r\n", b"\r\n", True),
        (b"HTTP/1.1 200 OK\r\ncontent-length:5\r\n\r\nhello", b"hello", True),
        (b"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", b"", True),
        (b"HTTP/1.1 429 Too Many\r\nContent-Length: 2\r\nConnection: Close\r\n\r\n{}", b"{}", False),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n{}", b"{}", False),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\nConnection: keep-alive\r\n\r\n{}", b"{}", True),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b"", True),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nLink: x\r\n\r\n" + CHUNKED + b"0\r\n\r\n", b"", True),
    ],
)
def test_a_response_is_read_however_it_is_cut(data, body, reusable, step):
    reader, got = read(data, step=step)
    assert got == body
    assert reader.done
    assert reader.reusable is reusable


def test_chunks_that_come_one_by_one_are_a_body():
    reader = ResponseReader()
    pieces = [CHUNKED, b"5\r\nhello\r\n", b"1\r\n \r\n", b"5\r\nwo", b"rld\r\n", b"2\r\n\r\n\r\n", b"0\r\n", b"\r\n"]
    assert [reader.feed(piece) for piece in pieces] == [b"", b"hello", b" ", b"wo", b"rld", b"\r\n", b"", b""]
    assert reader.done
    assert reader.reusable


@pytest.mark.parametrize(
    "chunk", [b"0x2\r\n{}\r\n", b"+2\r\n{}\r\n", b"2\r\n{}xx\r\n", b"\r\n{}\r\n", b"1_0\r\n{}\r\n"]
)
def test_one_chunk_alone_is_checked_as_many_are(chunk):
    reader = ResponseReader()
    reader.feed(CHUNKED)
    with pytest.raises(BadResponseError):
        reader.feed(chunk)


def test_a_body_without_a_length_ends_with_its_connection():
    reader, body = read(b"HTTP/1.1 200 OK\r\n\r\nall of it", eof=True)
    assert body == b"all of it"
    assert reader.done
    assert not reader.reusable


def test_the_answer_to_a_head_has_no_body_whatever_its_length_says():
    reader, _ = read(b"HTTP/1.1 404 Not Found\r\nContent-Length: 500\r\n\r\n", bodiless=True)
    assert reader.done
    assert reader.reusable
    assert reader.status == 404


def test_names_of_headers_are_compared_without_regard_to_case():
    reader, _ = read(b"HTTP/1.1 200 OK\r\nX-Request-ID:  abc \r\ncontent-length: 0\r\n\r\n")
    assert reader.headers["x-request-id"] == "abc"


def test_bytes_that_nobody_asked_for_spoil_the_connection_only():
    reader, body = read(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}HTTP/1.1 200 OK\r\n\r\n")
    assert body == b"{}"
    assert not reader.reusable


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
@pytest.mark.parametrize("step", [0, 1])
def test_a_server_that_compresses_unasked_is_understood(encoding, step):
    text = b"data: x\n\n" * 50
    body = gzip.compress(text) if encoding == "gzip" else zlib.compress(text)
    head = f"HTTP/1.1 200 OK\r\nContent-Encoding: {encoding}\r\nContent-Length: {len(body)}\r\n\r\n"
    assert read(head.encode() + body, step=step)[1] == text


@pytest.mark.parametrize(
    "data",
    [
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/2 200 OK\r\n\r\n",
        b"HTTP/1.1 200OK\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA: 1\r\n folded\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nBad Name: 1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 0x10\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n",  # more than int() takes
        GZIPPED + gzip.compress(bytes(100_000_000)),
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: br\r\nContent-Length: 1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\nnope",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70_000,
        CHUNKED + b"hello\r\n",
        CHUNKED + b"-5\r\nhello\r\n",
        CHUNKED + b"0x5\r\nhello\r\n",
        CHUNKED + b"5_0\r\nhello\r\n",
        CHUNKED + b"+5\r\nhello\r\n",
        CHUNKED + b" 5\r\nhello\r\n",
        CHUNKED + b"\r\nhello\r\n",
        CHUNKED + b"5\r\nhello!\r\n",
        CHUNKED + b"1" * 5000,
        CHUNKED + b"0\r\n" + b"A: b\r\n" * 100,
    ],
)
def test_what_is_no_response_is_refused(data):
    with pytest.raises(BadResponseError):
        read(data)


@pytest.mark.parametrize("data", [b"", b"HTTP/1.1 2", CHUNKED + b"5\r\nhel", CHUNKED + b"5\r\nhello\r\n"])
def test_a_response_that_ends_too_early_is_told(data):
    with pytest.raises(BadResponseError, match="closed"):
        read(data or b"", eof=True) if data else ResponseReader().eof()


def test_a_header_cannot_smuggle_in_another():
    assert request_head("POST", "/v1", {"A": "b"}) == b"POST /v1 HTTP/1.1\r\nA: b\r\n"
    for headers in ({"A": "b\r\nX: y"}, {"A\r\nX": "y"}, {"": "x"}, {"A b": "c"}, {"A": "\0"}):
        with pytest.raises(ConfigurationError):
            request_head("POST", "/v1", headers)

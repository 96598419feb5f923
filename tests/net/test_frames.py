"""WebSocket frames, against another implementation of them and against peers that break the rules."""

import importlib.util
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode

from dialog.net.frames import BINARY, CLOSE, PING, PONG, TEXT, FrameError, FrameReader, close_payload, encode_frame


def read(data, *, masked=False, step=0, max_message=1_000_000):
    got = []
    reader = FrameReader(lambda *message: got.append(message), masked=masked, max_message=max_message)
    for at in range(0, len(data), step or max(1, len(data))):
        reader.feed(data[at : at + (step or len(data))])
    return got


def serialized(opcode, data, *, fin=True, masked=False):
    return Frame(Opcode(opcode), data, fin).serialize(mask=masked)


@given(
    messages=st.lists(
        st.one_of(
            st.tuples(st.just(TEXT), st.text(max_size=300)),
            st.tuples(st.sampled_from([BINARY]), st.binary(max_size=70_000)),
            st.tuples(st.sampled_from([PING, PONG]), st.binary(max_size=125)),
        ),
        max_size=6,
    ),
    masked=st.booleans(),
    step=st.sampled_from([0, 1, 2, 3, 7, 1000]),
)
def test_what_another_implementation_writes_is_read(messages, masked, step):
    data = b"".join(
        serialized(opcode, body.encode() if isinstance(body, str) else body, masked=masked) for opcode, body in messages
    )
    if step and len(data) > 5000:
        step = 1000
    assert read(data, masked=masked, step=step) == messages


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65535, 65536, 100_000])
@pytest.mark.parametrize("masked", [True, False])
def test_what_is_written_is_read(size, masked):
    body = bytes(n % 251 for n in range(size))
    data = encode_frame(BINARY, body, masked=masked)
    assert read(data, masked=masked) == [(BINARY, body)]
    assert read(data * 3, masked=masked, step=1000) == [(BINARY, body)] * 3


@pytest.mark.parametrize("size", [0, 1, 4, 126, 1003])
def test_frames_are_masked_also_where_aiohttp_does_not_do_it(size, monkeypatch):
    monkeypatch.setitem(sys.modules, "aiohttp._websocket.helpers", None)
    spec = importlib.util.find_spec("dialog.net.frames")
    alone = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(alone)
    body = bytes(n % 251 for n in range(size))
    data = alone.encode_frame(BINARY, body, masked=True)
    assert read(data, masked=True) == [(BINARY, body)]
    got = []
    alone.FrameReader(lambda *message: got.append(message), masked=True, max_message=2000).feed(data)
    assert got == [(BINARY, body)]


def test_a_client_s_frames_are_masked_with_changing_keys():
    masks = {encode_frame(TEXT, b"hello", masked=True)[2:6] for _ in range(50)}
    assert len(masks) > 40


@pytest.mark.parametrize("step", [0, 1, 5])
def test_fragments_are_joined_and_control_frames_may_come_between(step):
    text = "grüße".encode()
    data = (
        serialized(TEXT, text[:3], fin=False)  # cut inside a character
        + serialized(PING, b"?")
        + serialized(0, b"", fin=False)
        + serialized(0, text[3:])
        + serialized(BINARY, b"\x00")
    )
    assert read(data, step=step) == [(PING, b"?"), (TEXT, "grüße"), (BINARY, b"\x00")]


def test_a_close_is_handed_over():
    assert read(encode_frame(CLOSE, close_payload(1001, "bye"), masked=False)) == [(CLOSE, b"\x03\xe9bye")]
    assert read(encode_frame(CLOSE, b"", masked=False)) == [(CLOSE, b"")]


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"\xc1\x00", 1002),  # an extension's bit
        (b"\x83\x00", 1002),  # an unknown opcode
        (b"\x09\x00", 1002),  # a fragmented ping
        (b"\x89\x7e\x00\x80", 1002),  # a long ping
        (b"\x80\x00", 1002),  # a continuation of nothing
        (b"\x01\x00\x81\x00", 1002),  # a message inside another
        (b"\x81\x80\x00\x00\x00\x00", 1002),  # masked by a server
        (b"\x88\x01\x03", 1002),  # half a close code
        (b"\x88\x02\x03\xed", 1002),  # 1005 never travels
        (b"\x88\x02\x00\x00", 1002),
        (b"\x81\x02\xc3\x28", 1007),
        (b"\x88\x04\x03\xe8\xc3\x28", 1007),
        (b"\x82\x7f" + b"\xff" * 8, 1009),
        (b"\x82\x7e\x03\xe9", 1009),
        (b"\x02\x7e\x02\x58" + b"x" * 600 + b"\x80\x7e\x02\x58", 1009),
    ],
)
def test_a_peer_that_breaks_the_rules_is_told_so_before_its_payload_is_waited_for(data, code):
    got = []
    reader = FrameReader(lambda *message: got.append(message), masked=False, max_message=1000)
    with pytest.raises(FrameError) as caught:
        reader.feed(data)
    assert caught.value.code == code
    reader.feed(encode_frame(TEXT, b"more", masked=False))
    assert got == []


def test_an_unmasked_client_is_refused():
    with pytest.raises(FrameError):
        read(encode_frame(TEXT, b"x", masked=False), masked=True)


def test_a_reader_that_was_stopped_by_a_message_hands_over_no_other():
    got = []

    def take(_, message):
        got.append(message)
        reader.stop()

    reader = FrameReader(take, masked=False, max_message=100)
    reader.feed(encode_frame(TEXT, b"1", masked=False) + encode_frame(TEXT, b"2", masked=False))
    assert got == ["1"]

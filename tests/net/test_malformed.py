"""Messages of a provider that cannot be decoded."""

from __future__ import annotations

import msgspec
import pytest
from msgspec import Struct

from dialog.errors import RemoteProtocolError
from dialog.net.malformed import malformed

KNOWN = {"words"}


class Event(Struct):
    type: str = ""
    count: int = 0


def wrong_with(data: str | bytes) -> RemoteProtocolError | None:
    with pytest.raises(msgspec.DecodeError) as caught:
        msgspec.json.decode(data, type=Event)
    error = malformed("acme", data, caught.value, KNOWN)
    assert error is None or error.__cause__ is caught.value
    return error


def test_a_message_of_a_kind_that_is_used_is_named_with_what_is_wrong_in_it():
    text = str(wrong_with('{"type":"words","count":"two"}'))
    assert text == "acme sent a malformed words message (Expected `int`, got `str` - at `$.count`)"


@pytest.mark.parametrize("data", ['{"type":"news","count":"two"}', '{"type":7}', "[]", '{"count":"two"}'])
def test_kinds_that_nobody_knows_may_look_as_they_like(data):
    assert wrong_with(data) is None


@pytest.mark.parametrize(
    "data",
    [
        "hello",
        '{"type":"words",',
        pytest.param('{"type":"words","count":"two", hello', id="behind what does not fit"),
        pytest.param(b'{"type":"words","count":"two","text":"\xff"}', id="not UTF-8"),
        pytest.param('{"type":"words","count":"two","text":' + "[" * 100_000, id="nested without end"),
    ],
)
def test_a_frame_that_is_not_json_is_told_as_one_wherever_it_stops_to_be(data):
    assert str(wrong_with(data)) == "acme sent a frame that is not JSON"

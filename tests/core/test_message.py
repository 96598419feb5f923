"""The frozen values."""

from __future__ import annotations

from uuid import uuid4

import msgspec
import pytest

import dialog
from dialog.clock import Clock
from dialog.message import ALAW_8K, MULAW_8K, PCM_16K, CallMetadata, Message, Playback, Utterance, Word


def test_messages_cannot_be_changed():
    message = Message(uuid=uuid4(), data=b"\xff" * 160)
    with pytest.raises(AttributeError):
        message.data = b""


def test_reprs_show_neither_audio_nor_words_nor_numbers():
    uuid = uuid4()
    for value in (
        Message(uuid=uuid, data="my card is 4111"),
        Utterance(uuid=uuid, data="my card is 4111", words=(Word(text="4111", start_ms=0, end_ms=1),)),
        Word(text="4111", start_ms=0, end_ms=1),
        CallMetadata(call_id=uuid, from_="4111"),
    ):
        assert "4111" not in repr(value)


def test_a_subscripted_message_can_be_built():
    assert Message[bytes](uuid=uuid4(), data=b"x").data == b"x"


@pytest.mark.parametrize(("audio_format", "size"), [(MULAW_8K, 160), (ALAW_8K, 160), (PCM_16K, 640)])
def test_formats_convert_between_bytes_and_milliseconds(audio_format, size):
    assert audio_format.ms(size) == 20.0
    assert audio_format.size(20) == size
    assert len(audio_format.silence(20)) == size


def test_values_cross_a_process_border_unchanged():
    values = [
        Message(uuid=uuid4(), data=b"\x00\xff", part=2, at_ms=12.5, done=True),
        Playback(uuid=uuid4(), part=0, state="cut", heard_ms=812.0, confirmed=True),
    ]
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(values[0]), type=Message[bytes]) == values[0]
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(values[1]), type=Playback) == values[1]


def test_metadata_finds_the_parameters_of_the_webhook():
    metadata = CallMetadata(call_id=uuid4(), parameters=(("CallerName", "Ann"), ("X", "1"), ("X", "2")))
    assert metadata.parameter("X") == "1"
    assert metadata.parameter("Y", "none") == "none"


def test_a_scaled_clock_runs_faster():
    real = [10.0]
    clock = Clock(scale=5.0, time=lambda: real[0])
    before = clock.now()
    real[0] += 1.0
    assert clock.now() - before == pytest.approx(5.0)
    assert clock.real(5.0) == pytest.approx(1.0)
    with pytest.raises(ValueError, match="positive"):
        Clock(scale=0)


def test_every_exported_name_exists_and_is_listed_once():
    assert set(dialog.__all__) == set(dialog._HOMES)
    assert len(dialog.__all__) == len(dialog._HOMES)
    for name in dialog.__all__:
        value = getattr(dialog, name)
        assert getattr(value, "__name__", name) == name
    with pytest.raises(AttributeError, match="Nonsense"):
        dialog.Nonsense  # noqa: B018

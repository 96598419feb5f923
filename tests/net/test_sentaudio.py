from base64 import b64encode

import pytest

from dialog.message import MULAW_8K, PCM_16K
from dialog.net.sentaudio import SentAudio

FRAME = b"\x7f" * 160


class Socket:
    """Takes frames until it is full."""

    def __init__(self):
        self.queued_audio = []
        self.open = True

    def send(self, frame):
        if self.open:
            self.queued_audio.append(frame)
        return self.open


def sent(frames, audio, socket, start_ms=1000.0):
    for index in range(frames):
        audio.send(socket, FRAME, start_ms + 20.0 * index)


@pytest.fixture
def audio():
    made = SentAudio()
    made.open(MULAW_8K)
    return made


def test_audio_is_the_frame_unless_something_is_put_around_it(audio):
    socket = Socket()
    sent(1, audio, socket)
    audio.in_text('{"audio":"', '"}')
    sent(1, audio, socket)
    assert socket.queued_audio == [FRAME, f'{{"audio":"{b64encode(FRAME).decode()}"}}']
    assert audio.between == ('{"audio":"', '"}')


def test_it_is_known_up_to_where_a_connection_was_given_audio(audio):
    socket = Socket()
    sent(5, audio, socket)
    assert audio.until_ms == 1100.0
    socket.open = False
    sent(1, audio, socket, 5000.0)
    assert audio.until_ms == 1100.0
    audio.restart()
    assert audio.time.sent_ms == 0.0


def test_a_frame_that_was_dropped_moves_those_behind_it(audio):
    for text in (False, True):
        socket = Socket()
        audio.restart()
        if text:
            audio.in_text("<", ">")
        sent(5, audio, socket)
        audio.drop(socket, socket.queued_audio.pop(0))
        assert audio.time.sent_ms == 80.0
        assert audio.time.to_call(0.0) == 1020.0


def test_the_length_of_a_frame_is_that_of_the_format_it_carries(audio):
    socket = Socket()
    audio.in_text("<", ">")
    audio.encode = lambda data: "<" + b64encode(data * 4).decode() + ">"
    audio.carry(PCM_16K)
    sent(3, audio, socket)
    assert audio.time.sent_ms == 60.0
    audio.drop(socket, socket.queued_audio.pop(0))
    assert audio.time.sent_ms == 40.0

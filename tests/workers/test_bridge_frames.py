"""Frames and packets of the bridge."""

from __future__ import annotations

from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dialog.audio.sound import Sound
from dialog.errors import (
    AuthenticationError,
    CallNotAnswered,
    CarrierError,
    LimitError,
    MissingPublicURL,
    NotSupportedError,
    RemoteProtocolError,
    StateError,
    UserCodeError,
)
from dialog.message import (
    MULAW_8K,
    AnsweredBy,
    CallEnd,
    CallMetadata,
    CallProgress,
    Clips,
    Playback,
    SayRequest,
    StreamStarted,
    StreamStopped,
    TranscriptStatus,
    Whisper,
)
from dialog.voip.link import Hangup, SendDigits, StartTranscription, TransferTo
from dialog.workers import frames as fr
from dialog.workers import peerframes as pf
from dialog.workers.faults import Fault, error_of, fault_of

CALL = uuid4()
TURN = uuid4()
BODIES = [
    fr.CallerAudio(1234.5, b"\x00\xff" * 80),
    fr.Played(Playback(uuid=TURN, part=2, state="cut", heard_ms=12.5, queued_ms=3.0, confirmed=True)),
    fr.Started(StreamStarted(generation=3, resumed="reconnected")),
    fr.Stopped(StreamStopped(reason="lost")),
    fr.DigitCame("#"),
    fr.SayWanted(SayRequest(text="Your taxi is here.", allow_interrupt=False)),
    fr.Whispered(Whisper("The caller is a member.")),
    fr.Transcribed(TranscriptStatus(state="content", track="caller", text="hello", final=True)),
    fr.Recorded("https://carrier.example/recording"),
    fr.Ended(CallEnd(reason="caller_hangup", detail="x")),
    fr.Troubled(Fault("carrier", "text")),
    fr.Troubled(fault_of(CallNotAnswered("CA1", "busy"))),
    fr.Outcome(7, None),
    fr.Outcome(8, fault_of(CarrierError("twilio", "CA1", "no", status=404, carrier_code=20404))),
    fr.Piece(1, b"RIFF"),
    fr.Progressed(CallProgress(state="ringing", carrier_call_id="CA1")),
    fr.Answered(AnsweredBy(who="machine", greeting_over=True, then="leave_message", message="hello")),
    fr.AgentAudio(TURN, 1, 20.0, True, b"\x01" * 160),
    fr.Abort(TURN, None, 300.0),
    fr.Pause(),
    fr.Resume(None),
    fr.SetBed("thinking", Sound(b"\x00\x01"), -6.0),
    fr.SetBed("background", None, -20.0),
    fr.Execute(1, Hangup("done")),
    fr.Execute(2, TransferTo(tel="+15550100", back_within_s=20.0)),
    fr.Execute(3, SendDigits("12#")),
    fr.Execute(4, StartTranscription(options=(("a", "b"),))),
    fr.Downloading(1, "https://carrier.example/recording"),
    fr.More(1),
    fr.Released(),
    fr.Acknowledged(9),
    fr.Repeat(3),
    fr.Offered(CallMetadata(call_id=CALL, from_="+15550100", parameters=(("a", "b"),)), MULAW_8K, "live", 1),
    fr.Taken(),
    fr.Refused("full", ""),
    fr.Revoked(),
    fr.Hello(1, 200, ("de",), "abc", ("/app/main.py",)),
    fr.Heartbeat(3, True, 1.5, 100.0),
    fr.Unknown(),
    fr.Goodbye("worker-1"),
    fr.Sought(),
    fr.Yielded(1200.0, None, (), Clips(apology=b"\x01", goodbye=b"")),
    pf.Ask(1 << 48, b"request"),
    pf.Told(1, b"answer"),
    pf.Told(1, None),
    pf.Where(2),
    pf.Located(2, True),
    pf.Present(leaving=True),
    pf.RelayOpened(b"opening"),
    pf.RelayAudio(20.0, b"\xff" * 160),
    pf.RelayMark("a mark", 0.05),
    pf.RelayDigit("#"),
    pf.RelayStop(),
    pf.RelayClosed(),
    pf.WireAudio(b"\x01" * 1200, "a mark"),
    pf.WireMark("a mark"),
    pf.WireControl(b"told"),
    pf.RelayControl(b"said"),
    pf.WireClear(),
    pf.WireClose(1008),
]


def test_every_frame_comes_out_as_it_went_in():
    packet = bytearray()
    sent = [fr.Frame(CALL, 2, seq, body) for seq, body in enumerate(BODIES, 1)]
    for frame in sent:
        fr.encode(frame, packet)
    assert list(fr.decode(bytes(packet))) == sent
    assert {type(body) for body in BODIES} >= set(fr.Body.__args__) - {fr.Happened, fr.SetClips}


def test_a_frame_of_caller_audio_adds_little_to_the_audio():
    packet = bytearray()
    fr.encode(fr.Frame(CALL, 1, 500, fr.CallerAudio(10_000.0, b"\x00" * 160)), packet)
    assert len(packet) < 160 + 48


@given(st.binary(max_size=200))
def test_whatever_comes_is_frames_or_a_protocol_error(data):
    try:
        frames = list(fr.decode(data))
    except RemoteProtocolError:
        return
    assert all(isinstance(frame, fr.Frame) for frame in frames)


def test_a_packet_that_ends_in_the_middle_of_a_frame_is_refused():
    packet = bytearray()
    fr.encode(fr.Frame(CALL, 1, 1, fr.Taken()), packet)
    with pytest.raises(RemoteProtocolError):
        list(fr.decode(bytes(packet[:-1])))


@pytest.mark.parametrize(
    "error",
    [
        CarrierError("twilio", "CA1", "it is over", status=404, carrier_code=20404),
        LimitError("too much"),
        MissingPublicURL("no URL"),
        NotSupportedError("not here"),
        StateError("too late"),
        UserCodeError("raised"),
    ],
)
def test_an_error_is_raised_on_the_other_side_as_what_it_is(error):
    again = error_of(fault_of(error))
    assert type(again) is type(error)
    assert str(again) == str(error)
    if isinstance(error, CarrierError):
        assert (again.status, again.carrier_code, again.call) == (404, 20404, "CA1")


def test_an_error_that_its_text_does_not_make_again_keeps_its_text():
    assert "wrong key" in str(error_of(fault_of(AuthenticationError("deepgram", "wrong key"))))
    assert "ValueError" in str(error_of(fault_of(ValueError("odd"))))

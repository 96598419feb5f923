"""Media Streams messages and their order, without a socket."""

import base64
import json
import logging

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dialog.errors import RemoteProtocolError, StateError
from dialog.voip.twilio import forms as f
from dialog.voip.twilio import messages as m
from dialog.voip.twilio.stream import TwilioStream

SID = "MZ18ad3ab5a668481ce02b83e7395059f0"
CONNECTED = '{"event":"connected","protocol":"Call","version":"1.0.0"}'
START = json.dumps(
    {
        "event": "start",
        "sequenceNumber": "1",
        "streamSid": SID,
        "start": {
            "accountSid": "AC1",
            "streamSid": SID,
            "callSid": "CA1",
            "tracks": ["inbound"],
            "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
            "customParameters": {"From": "+15551230001", "token": "9f2c"},
        },
    }
)


def media(payload="/////w==", sid=SID, **more):
    body = {"track": "inbound", "chunk": "1", "timestamp": "5", "payload": payload, **more}
    return json.dumps({"event": "media", "sequenceNumber": "3", "streamSid": sid, "media": body})


def message(event, **more):
    return json.dumps({"event": event, "streamSid": SID, "sequenceNumber": "5", **more})


DTMF = message("dtmf", dtmf={"track": "inbound_track", "digit": "1"})
MARK = message("mark", mark={"name": "a"})
STOP = message("stop", stop={"accountSid": "AC1", "callSid": "CA1"})


def started():
    stream = TwilioStream()
    stream.receive(CONNECTED)
    stream.receive(START)
    return stream


def test_the_documented_messages_arrive_typed():
    stream = TwilioStream()
    assert isinstance(stream.receive(CONNECTED), m.Connected)
    start = stream.receive(START)
    assert isinstance(start, m.Start)
    assert start.start.call_sid == "CA1"
    assert start.start.custom_parameters == {"From": "+15551230001", "token": "9f2c"}
    audio = stream.receive(media())
    assert isinstance(audio, m.Media)
    assert audio.media.payload == b"\xff\xff\xff\xff"
    assert audio.media.timestamp == 5
    assert audio.sequence_number == 3
    assert stream.receive(DTMF).dtmf.digit == "1"
    assert stream.receive(MARK).mark.name == "a"
    assert isinstance(stream.receive(STOP), m.Stop)


def test_numbers_may_be_numbers_and_new_fields_are_ignored():
    stream = started()
    text = json.dumps(
        {"event": "media", "streamSid": SID, "new": [1], "media": {"payload": "/w==", "timestamp": 7, "chunk": 2}}
    )
    assert stream.receive(text).media.timestamp == 7


def test_an_unknown_event_is_ignored_with_a_debug_line(caplog):
    caplog.set_level(logging.DEBUG)
    stream = started()
    assert stream.receive(message("sentiment", sentiment={"score": 1})) is None
    assert "sentiment" in caplog.text
    assert stream.receive(media()) is not None


def test_the_other_track_of_a_one_way_stream_is_ignored():
    assert started().receive(media(track="outbound")) is None


MALFORMED = {
    "empty": "",
    "truncated": media()[:-5],
    "not json": "hello",
    "array": "[]",
    "number": "1",
    "null": "null",
    "no event": '{"streamSid":"MZ"}',
    "event not text": '{"event":3}',
    "media without media": json.dumps({"event": "media", "streamSid": SID}),
    "media without streamSid": json.dumps({"event": "media", "media": {"payload": "/w=="}}),
    "payload not base64": media(payload="@@@@"),
    "payload badly padded": media(payload="AAA"),
    "payload a number": media(payload=5),
    "payload an object": media(payload={}),
    "timestamp not a number": media(timestamp="soon"),
    "timestamp beyond all clocks": media(timestamp="9" * 400),
    "streamSid a number": json.dumps({"event": "media", "streamSid": 5, "media": {"payload": "/w=="}}),
    "mark without name": message("mark", mark={}),
    "dtmf digit a number": message("dtmf", dtmf={"digit": 1}),
    "deep in an unknown field": '{"event":"media","streamSid":"MZ","x":' + "[" * 50_000 + "]" * 50_000 + "}",
    "deep array": "[" * 50_000,
    "deep unknown event": '{"event":"new","x":' + '{"a":' * 50_000 + "1" + "}" * 50_001,
    "latin-1 bytes": b'{"event":"media\xff"}',
}


@pytest.mark.parametrize("text", MALFORMED.values(), ids=MALFORMED.keys())
def test_malformed_messages_are_protocol_errors(text):
    with pytest.raises(RemoteProtocolError):
        started().receive(text)


@pytest.mark.parametrize(
    ("texts", "why"),
    [
        ([START], "start came before connected"),
        ([media()], "media came before connected"),
        ([CONNECTED, media()], "media came before start"),
        ([CONNECTED, MARK], "mark came before start"),
        ([CONNECTED, STOP], "stop came before start"),
        ([CONNECTED, CONNECTED], "connected came before start"),
        ([CONNECTED, START, CONNECTED], "connected came twice"),
        ([CONNECTED, START, START], "start came twice"),
        ([CONNECTED, START, STOP, media()], "media came after stop"),
        ([CONNECTED, START, STOP, STOP], "stop came after stop"),
        ([CONNECTED, START, media(sid="MZother")], "of another stream"),
    ],
)
def test_messages_out_of_order_are_protocol_errors(texts, why):
    stream = TwilioStream()
    for text in texts[:-1]:
        stream.receive(text)
    with pytest.raises(RemoteProtocolError, match=why):
        stream.receive(texts[-1])


@pytest.mark.parametrize(
    "wrong", [{"encoding": "audio/l16"}, {"sampleRate": 16000}, {"channels": 2}, {"sampleRate": "fast"}]
)
def test_audio_in_another_format_is_refused(wrong):
    start = json.loads(START)
    start["start"]["mediaFormat"].update(wrong)
    stream = TwilioStream()
    stream.receive(CONNECTED)
    with pytest.raises(RemoteProtocolError):
        stream.receive(json.dumps(start))


@pytest.mark.parametrize("missing", ["accountSid", "callSid"])
def test_a_start_without_its_ids_is_refused(missing):
    start = json.loads(START)
    del start["start"][missing]
    stream = TwilioStream()
    stream.receive(CONNECTED)
    with pytest.raises(RemoteProtocolError, match=missing):
        stream.receive(json.dumps(start))


def test_what_is_sent_is_what_twilio_documents():
    stream = started()
    assert json.loads(stream.media(b"\xff\x00")) == {
        "event": "media",
        "streamSid": SID,
        "media": {"payload": "/wA="},
    }
    assert msgspec.json.decode(stream.media(b"\xff\x00"), type=m.OutMedia).media.payload == b"\xff\x00"
    assert json.loads(stream.mark("a-1")) == {"event": "mark", "streamSid": SID, "mark": {"name": "a-1"}}
    assert json.loads(stream.clear()) == {"event": "clear", "streamSid": SID}


def test_nothing_can_be_sent_before_start():
    stream = TwilioStream()
    for send in (lambda: stream.media(b""), lambda: stream.mark("a"), stream.clear):
        with pytest.raises(StateError):
            send()


@given(st.binary(max_size=2000))
def test_audio_survives_the_wire(audio):
    sent = json.loads(started().media(audio))
    assert base64.b64decode(sent["media"]["payload"]) == audio
    back = started().receive(media(payload=sent["media"]["payload"]))
    assert back.media.payload == audio


@given(st.text(max_size=200) | st.binary(max_size=200))
def test_any_text_is_a_message_or_a_protocol_error(text):
    stream = started()
    try:
        stream.receive(text)
    except RemoteProtocolError:
        pass
    else:
        assert stream.state == "started"


@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        max_leaves=8,
    ),
    st.sampled_from(["connected", "start", "media", "dtmf", "mark", "stop", "else"]),
)
def test_any_json_is_a_message_or_a_protocol_error(value, event):
    text = json.dumps({"event": event, "streamSid": SID, event: value})
    try:
        decoded = m.decode_stream_message(text)
    except RemoteProtocolError:
        assert event != "else"
    else:
        assert type(decoded).__name__.lower() in (event, "unknown")


def test_audio_is_not_in_any_repr():
    assert "payload" not in repr(started().receive(media()))
    assert "digit" not in repr(started().receive(DTMF))


# Forms


def test_a_voice_form_keeps_what_it_needs():
    form = f.decode_form(
        f.VoiceForm, [("CallSid", "CA1"), ("AccountSid", "AC1"), ("From", "+1"), ("To", ""), ("New", "x")]
    )
    assert (form.call_sid, form.from_, form.to, form.call_status) == ("CA1", "+1", "", "ringing")


@pytest.mark.parametrize(
    ("form", "fields", "missing"),
    [
        (f.VoiceForm, [("AccountSid", "AC1")], "CallSid"),
        (f.VoiceForm, [("AccountSid", "AC1"), ("CallSid", "")], "CallSid"),
        (f.RecordingForm, [("CallSid", "CA1")], "RecordingStatus"),
        (f.TranscriptionForm, [], "TranscriptionEvent"),
        (f.CallStatusForm, [("CallSid", "CA1")], "CallStatus"),
        (f.StreamStatusForm, [], "StreamEvent"),
        (f.CallStatusForm, [("CallSid", "CA1"), ("CallStatus", "x"), ("SequenceNumber", "two")], "SequenceNumber"),
    ],
)
def test_a_form_that_lacks_something_names_it(form, fields, missing):
    with pytest.raises(RemoteProtocolError, match=missing):
        f.decode_form(form, fields)


def test_of_a_repeated_field_the_first_counts():
    assert f.decode_form(f.VoiceForm, [("CallSid", "CA1"), ("CallSid", "CA2"), ("AccountSid", "A")]).call_sid == "CA1"


def test_transcription_data_is_decoded():
    data = f.decode_transcription_data('{"transcript":"to speak with Bob","confidence":0.95}')
    assert (data.transcript, data.confidence) == ("to speak with Bob", 0.95)
    assert f.decode_transcription_data('{"confidence":"0.5"}').confidence == 0.5
    for bad in ("", "[]", '{"transcript":4}', "{" * 9):
        with pytest.raises(RemoteProtocolError):
            f.decode_transcription_data(bad)

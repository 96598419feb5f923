"""Telnyx's wire formats without a socket: signatures, webhooks, media streams."""

from __future__ import annotations

import json
from base64 import b64encode
from uuid import uuid4

import pytest
import telnyx as sdk
from hypothesis import given
from hypothesis import strategies as st

from dialog.audio.g711 import alaw_to_mulaw, mulaw_to_alaw
from dialog.errors import ConfigurationError, RemoteProtocolError
from dialog.message import ALAW_8K, MULAW_8K, PCM_16K, AudioFormat
from dialog.voip.carrier.http import Refusal, Request
from dialog.voip.carrier.start import StreamStart
from dialog.voip.carrier.stream import Audio, Marked, Pressed, Stopped
from dialog.voip.telnyx.events import decode_event, metadata_of
from dialog.voip.telnyx.gateway import TelnyxGateway
from dialog.voip.telnyx.order import Reorder
from dialog.voip.telnyx.signature import TelnyxSignature
from dialog.voip.telnyx.stream import TelnyxStream, decode_state, encode_state
from dialog.voip.telnyx.webhooks import TelnyxWebhooks

PUBLIC_KEY = "A6EHv/POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg="
SIGNED_AT = 1735689600
BODY = b'{"data":{}}'
SIGNATURE = "W+x+D7FLBUhbeVgBhDzdGZXCcCiJayUxgp7/vd4qH1f3sca9oliGsbPPD58TMTImy1TqL7HRCoPTzR+tLXkpCQ=="
HEADERS = {"telnyx-signature-ed25519": SIGNATURE, "telnyx-timestamp": str(SIGNED_AT)}


def checker(now: float = SIGNED_AT + 10) -> TelnyxSignature:
    return TelnyxSignature(PUBLIC_KEY, time=lambda: now)


# Signatures


def test_a_signature_of_the_documented_kind_is_good():
    assert checker().fault(HEADERS, BODY) == ""


@pytest.mark.parametrize(
    ("headers", "body", "now", "said"),
    [
        (HEADERS, b'{"data":{} }', SIGNED_AT, "does not fit"),
        (HEADERS, BODY, SIGNED_AT + 301, "signed more than 300 s"),
        (HEADERS, BODY, SIGNED_AT - 301, "signed more than 300 s"),
        ({**HEADERS, "telnyx-timestamp": str(SIGNED_AT + 1)}, BODY, SIGNED_AT, "does not fit"),
        ({**HEADERS, "telnyx-timestamp": ""}, BODY, SIGNED_AT, "telnyx-timestamp"),
        ({**HEADERS, "telnyx-timestamp": "٣" * 10}, BODY, SIGNED_AT, "does not fit"),
        ({**HEADERS, "telnyx-timestamp": "1" * 400}, BODY, SIGNED_AT, "telnyx-timestamp"),
        ({**HEADERS, "telnyx-signature-ed25519": ""}, BODY, SIGNED_AT, "does not fit"),
        ({**HEADERS, "telnyx-signature-ed25519": "???"}, BODY, SIGNED_AT, "does not fit"),
        ({**HEADERS, "telnyx-signature-ed25519": "AAAA"}, BODY, SIGNED_AT, "does not fit"),
    ],
)
def test_any_other_signature_is_not(headers, body, now, said):
    assert said in checker(now).fault(headers, body)


def test_the_official_client_agrees(monkeypatch):
    monkeypatch.setattr("time.time", lambda: float(SIGNED_AT))
    client = sdk.Telnyx(api_key="KEY", public_key=PUBLIC_KEY)
    client.webhooks.unwrap(BODY.decode(), headers=HEADERS)
    with pytest.raises(ValueError, match="Signature verification failed"):
        client.webhooks.unwrap(BODY.decode() + " ", headers=HEADERS)


@pytest.mark.parametrize("key", ["", "no base64!", b64encode(b"short").decode()])
def test_a_public_key_that_is_none_is_told_at_once(key):
    with pytest.raises(ConfigurationError, match=r"public_key must be|needs public_key"):
        TelnyxGateway(api_key="KEY", public_key=key)


def request(body: bytes = BODY, path: str = "/telnyx", method: str = "POST", **headers: str) -> Request:
    signed = {**HEADERS, "content-type": "application/json", **{k.replace("_", "-"): v for k, v in headers.items()}}
    return Request(method=method, path=path, headers=signed, body=body)


def webhooks(**settings) -> TelnyxWebhooks:
    return TelnyxWebhooks(path="/telnyx", signature=checker(), webhook_url="https://voice.example/telnyx", **settings)


@pytest.mark.parametrize(
    ("asked", "status"),
    [
        (request(path="/telnyx/other"), 404),
        (request(method="GET"), 405),
        (request(content_type="application/x-www-form-urlencoded"), 415),
        (request(telnyx_signature_ed25519=""), 400),
        (request(content_length="2000000"), 413),
        (request(body=b"\xff" + BODY), 403),
    ],
)
def test_a_request_that_is_not_right_is_refused(asked, status):
    with pytest.raises(Refusal) as refused:
        _ = webhooks().head(asked) and webhooks().check(asked)
    assert refused.value.status == status


def test_a_webhook_gives_its_body_and_its_query():
    asked = Request(method="POST", path="/telnyx", query="call=x&node=n", headers=request().headers, body=BODY)
    assert webhooks().check(asked) == [("event", '{"data":{}}'), ("call", "x"), ("node", "n")]


@pytest.mark.parametrize(
    ("delivered_to", "media"),
    [
        ("https://voice.example/telnyx", "wss://voice.example/telnyx/media"),
        ("https://user:secret@voice.example:8443/telnyx?call=x", "wss://voice.example:8443/telnyx/media"),
        ("http://voice.example/telnyx", "ws://voice.example/telnyx/media"),
        ("", "ws://evil.example/telnyx/media"),
        ("voice.example", "ws://evil.example/telnyx/media"),
        ("https://[voice.example", "ws://evil.example/telnyx/media"),
        (7, "ws://evil.example/telnyx/media"),
    ],
)
def test_without_a_public_url_a_stream_goes_where_the_webhook_was_sent_whatever_its_host_header(delivered_to, media):
    body = json.dumps({"data": {}, "meta": {"attempt": 1, "delivered_to": delivered_to}}).encode()
    asked = request(body, host="evil.example")
    site = TelnyxWebhooks(path="/telnyx", signature=None).site(asked)
    assert (site.media, site.public) == (media, False)
    assert webhooks().site(asked).media == "wss://voice.example/telnyx/media"


# Webhooks


def test_a_webhook_tells_who_calls():
    text = json.dumps(
        {
            "data": {
                "record_type": "event",
                "event_type": "call.initiated",
                "id": "0ccc7b54",
                "occurred_at": "2026-01-01T00:00:00.000000Z",
                "payload": {
                    "call_control_id": "v3:abc",
                    "call_leg_id": "leg",
                    "call_session_id": "session",
                    "connection_id": "149",
                    "from": "+15551230001",
                    "to": "+15551230002",
                    "direction": "incoming",
                    "state": "parked",
                    "client_state": None,
                    "custom_headers": [{"name": "X-Ticket", "value": "17"}],
                    "new_field": {"of": ["any", "kind"]},
                },
            },
            "meta": {"attempt": 1},
        }
    )
    metadata = metadata_of(call_id := uuid4(), text)
    assert (metadata.call_id, metadata.carrier, metadata.carrier_call_id) == (call_id, "telnyx", "v3:abc")
    assert (metadata.account_id, metadata.from_, metadata.to) == ("149", "+15551230001", "+15551230002")
    assert metadata.direction == "inbound"
    assert metadata.parameter("X-Ticket") == "17"
    assert metadata.parameter("call_session_id") == "session"
    assert decode_event(text).payload.client_state is None


@pytest.mark.parametrize(
    "text", ["", "null", "[]", "{}", '{"data":5}', '{"data":{"event_type":7}}', '{"data":' + "[" * 5000, "\ud800"]
)
def test_what_is_no_webhook_is_told(text):
    with pytest.raises(RemoteProtocolError, match="malformed webhook"):
        decode_event(text)


@given(st.dictionaries(st.text(), st.text()))
def test_what_telnyx_keeps_for_us_comes_back(parameters):
    assert decode_state(encode_state(parameters.items())) == parameters


@given(st.text())
def test_what_somebody_else_has_given_it_is_nothing(text):
    assert isinstance(decode_state(text), dict)
    assert decode_state(None) == {}


# Streams


def start(encoding: str = "PCMU", rate: int = 8000, **detail) -> str:
    return json.dumps(
        {
            "event": "start",
            "sequence_number": "1",
            "stream_id": "32de0dea",
            "start": {
                "user_id": "u",
                "call_control_id": "v3:abc",
                "call_session_id": "s",
                "from": "+15551230001",
                "to": "+15551230002",
                "tags": ["a"],
                "client_state": encode_state([("call_id", "1"), ("token", "t")]),
                "custom_parameters": {"customer": "7"},
                "media_format": {"encoding": encoding, "sample_rate": rate, "channels": 1},
                **detail,
            },
        }
    )


def media(payload: bytes, chunk: int, timestamp: int = 0, track: str = "inbound") -> str:
    return json.dumps(
        {
            "event": "media",
            "sequence_number": "4",
            "stream_id": "32de0dea",
            "media": {
                "track": track,
                "chunk": str(chunk),
                "timestamp": str(timestamp),
                "payload": b64encode(payload).decode(),
            },
        }
    )


def started(audio_format: AudioFormat = MULAW_8K, **spoken) -> TelnyxStream:
    stream = TelnyxStream(audio_format)
    assert stream.receive('{"event":"connected","version":"1.0.0"}') == ()
    stream.receive(start(**spoken))
    return stream


@pytest.mark.parametrize("at", ['"inf"', '"-inf"', '"nan"', "1e308"])
def test_a_time_that_is_none_is_told(at):
    with pytest.raises(RemoteProtocolError, match="timestamp"):
        started().receive('{"event":"media","media":{"payload":"AAAA","chunk":"1","timestamp":AT}}'.replace("AT", at))


def test_a_start_tells_whose_stream_it_is():
    stream = TelnyxStream(MULAW_8K)
    [event] = stream.receive(start())
    assert event == StreamStart(
        carrier_call_id="v3:abc",
        stream_id="32de0dea",
        from_="+15551230001",
        to="+15551230002",
        parameters={"customer": "7", "call_id": "1", "token": "t"},
    )
    assert stream.name == "32de0dea"


def test_messages_mean_what_they_say():
    stream = started()
    assert stream.receive(media(b"abc", 1, 5)) == (Audio(b"abc", 5.0),)
    assert stream.receive(media(b"abc", 1, 5, track="outbound")) == ()
    assert stream.receive('{"event":"mark","stream_id":"x","mark":{"name":"m"}}') == (Marked("m"),)
    assert stream.receive('{"event":"dtmf","dtmf":{"digit":"#"}}') == (Pressed("#"),)
    assert stream.receive('{"event":"error","stream_id":"x","payload":{"code":100003,"title":"bad"}}') == ()
    assert stream.receive('{"event":"weather","sun":true}') == ()
    assert stream.receive('{"event":"stop","stop":{}}') == (Stopped(),)
    with pytest.raises(RemoteProtocolError, match="after stop"):
        stream.receive(media(b"abc", 2))


def test_what_is_sent_names_no_stream():
    stream = started()
    assert json.loads(stream.media(b"\x00\x01")) == {"event": "media", "media": {"payload": "AAE="}}
    assert json.loads(stream.mark('a"b')) == {"event": "mark", "mark": {"name": 'a"b'}}
    assert json.loads(stream.clear()) == {"event": "clear"}


def test_a_law_is_turned_into_what_was_asked_for():
    audio = bytes(range(256))
    [event] = started(encoding="PCMA").receive(media(audio, 1))
    assert event.data == alaw_to_mulaw(audio)
    [event] = started(ALAW_8K).receive(media(audio, 1))
    assert event.data == mulaw_to_alaw(audio)
    [event] = started(PCM_16K, encoding="L16", rate=16000).receive(media(audio, 1))
    assert event.data == audio


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "[1]",
        "{}",
        '{"event":5}',
        media(b"a", 1).replace("YQ==", "%%%%"),
        media(b"a", 1).replace('"0"', '"soon"'),
        '{"event":"media","media":[]}',
        '{"event":"mark","mark":{}}',
        '{"event":"dtmf","dtmf":{}}',
        '{"event":"media","media":' + "[" * 5000 + "]" * 5000 + "}",
        start(),
        b"\xff\xfe",
    ],
)
def test_a_message_that_breaks_the_protocol_is_told(text):
    with pytest.raises(RemoteProtocolError, match="Telnyx"):
        started().receive(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (media(b"a", 1), "before start"),
        (start("G722"), "only PCMU, PCMA, L16"),
        (start("L16", 0), "0"),
        (start("L16", -8000), "-8000"),
        (start("L16", 12347), "12347"),
        (start(media_format={"encoding": "PCMU", "sample_rate": 8000, "channels": 2}), "2 channels"),
    ],
)
def test_a_stream_that_cannot_be_understood_is_told(text, said):
    with pytest.raises(RemoteProtocolError, match=said):
        TelnyxStream(MULAW_8K).receive(text)


# The order of audio


def chunks(order: list[int]) -> list[float]:
    reorder = Reorder()
    out = [audio.at_ms for number in order for audio in reorder.put(number, Audio(b"x", float(number)))]
    return out + [audio.at_ms for audio in reorder.flush()]


def test_a_chunk_that_overtakes_waits():
    assert chunks([1, 3, 2, 5, 4]) == [1, 2, 3, 4, 5]
    assert chunks([2, 1, 3]) == [1, 2, 3]


def test_a_chunk_that_is_lost_is_not_waited_for_long():
    reorder = Reorder()
    for number in range(2, 7):
        assert reorder.put(number, Audio(b"x", number)) == ()
    assert [audio.at_ms for audio in reorder.put(7, Audio(b"x", 7))] == [2, 3, 4, 5, 6, 7]
    assert reorder.put(1, Audio(b"x", 1)) == ()


def test_audio_without_numbers_is_taken_as_it_comes():
    assert chunks([0, 0, 0]) == [0, 0, 0]


@given(st.permutations(range(1, 30)))
def test_whatever_the_order_nothing_comes_twice_or_backwards(order):
    out = chunks(list(order))
    assert out == sorted(set(out))


@given(st.lists(st.integers(0, 3), min_size=20, max_size=20))
def test_small_swaps_lose_nothing(jitter):
    order = sorted(range(1, 21), key=lambda number: number + jitter[number - 1])
    assert chunks(order) == [float(number) for number in range(1, 21)]


# Settings


@pytest.mark.parametrize(
    ("given_settings", "said"),
    [
        ({"api_key": ""}, "needs api_key"),
        ({"codec": "G722"}, "codec must be one of PCMU, PCMA, L16"),
        ({"sample_rate": 16000}, "sample_rate must be 8000"),
        ({"codec": "L16", "sample_rate": 44100}, "sample_rate"),
        ({"path": "telnyx"}, "path must start with a slash"),
        ({"webhook_url": "voice.example", "path": "/x"}, "webhook_url must be like"),
        ({"webhook_url": "voice.example/telnyx"}, "webhook_url must be like https://host/path, got 'voice.example"),
        ({"base_url": "api.telnyx.com"}, "base_url must be"),
    ],
)
def test_settings_that_cannot_work_are_told_at_once(given_settings, said):
    with pytest.raises(ConfigurationError, match=said):
        TelnyxGateway(**{"api_key": "KEY", "public_key": PUBLIC_KEY, **given_settings})

"""Signatures, tokens and documents, without a socket."""

import logging
from uuid import UUID
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twilio.request_validator import RequestValidator

from dialog.errors import ConfigurationError, RemoteProtocolError
from dialog.testing.signing import sign
from dialog.voip.carrier.http import seen_origin, site_of
from dialog.voip.carrier.token import StreamTokens, derive_key
from dialog.voip.twilio import twiml
from dialog.voip.twilio.signature import SignatureChecker

CALL = UUID("12345678-1234-5678-1234-567812345678")

VECTORS = [
    (
        "https://mycompany.com/myapp.php?foo=1&bar=2",
        [
            ("CallSid", "CA1234567890ABCDE"),
            ("Caller", "+14158675309"),
            ("Digits", "1234"),
            ("From", "+14158675309"),
            ("To", "+18005551212"),
        ],
        "RSOYDt4T1cUTdK1PDd93/VVr8B8=",
    ),
    ("https://h.example/voice", [("To", "+2"), ("From", "+1")], "SfAxVEjJ+GhhCkZ0eByZzfcr+Kw="),
    ("wss://h.example/media", [], "iipxWStCPwHv8TIpyhnkV93xQtA="),
]


@pytest.mark.parametrize(("url", "fields", "signature"), VECTORS)
def test_twilios_vectors_are_valid(url, fields, signature):
    assert SignatureChecker("12345").valid([url], fields, {"x-twilio-signature": signature})
    assert sign("12345", url, fields) == signature


@pytest.mark.parametrize("header", [{}, {"x-twilio-signature": ""}, {"x-twilio-signature": "é" * 28}])
def test_a_missing_or_odd_signature_is_invalid(header):
    assert not SignatureChecker("12345").valid([VECTORS[1][0]], VECTORS[1][1], header)


def test_any_difference_makes_it_invalid():
    url, fields, signature = VECTORS[1]
    checker = SignatureChecker("12345")
    headers = {"x-twilio-signature": signature}
    assert not checker.valid([url + "/"], fields, headers)
    assert not checker.valid([url.replace("https", "http")], fields, headers)
    assert not checker.valid([url], [*fields, ("X", "")], headers)
    assert not checker.valid([url], fields[:1], headers)
    assert not SignatureChecker("54321").valid([url], fields, headers)


def test_the_previous_token_is_accepted_during_a_rotation():
    url, fields, signature = VECTORS[1]
    assert SignatureChecker("new", "12345").valid([url], fields, {"x-twilio-signature": signature})
    assert not SignatureChecker("new", "").valid([url], fields, {"x-twilio-signature": signature})
    assert "12345" not in repr(SignatureChecker("12345"))


def test_what_cannot_be_checked_is_logged_without_its_password(caplog):
    caplog.set_level(logging.DEBUG)
    url = "https://user:secret@[h.example/voice?token=secret"
    assert not SignatureChecker("12345").valid([url], [], {"x-twilio-signature": "c2ln"})
    assert "signature of [h.example/voice could not be computed" in caplog.text
    assert "secret" not in caplog.text


def test_repeated_and_empty_fields_are_signed():
    fields = [("A", "2"), ("A", "1"), ("A", "2"), ("B", "")]
    signature = sign("t", "https://h/v", fields)
    assert SignatureChecker("t").valid(["https://h/v"], fields, {"x-twilio-signature": signature})


def test_a_signature_with_a_shared_key_and_sha256_is_understood():
    validator = RequestValidator("12345")
    url, fields, _ = VECTORS[1]
    signature = validator.compute_signature(url, dict(fields), "HMAC_SHA256")
    headers = {"x-twilio-signature": signature}
    checker = SignatureChecker("12345")
    assert not checker.valid([url], fields, headers)
    settings = "key=webhooks_sharedkey_1,algorithm=HMAC_SHA256"
    assert checker.valid([url], fields, {**headers, "x-twilio-webhooks-signature-settings": settings})
    settings = "algorithm=HMAC_MD5"
    assert not checker.valid([url], fields, {**headers, "x-twilio-webhooks-signature-settings": settings})


@given(st.text(), st.lists(st.tuples(st.text(), st.text()), max_size=3), st.text())
def test_no_request_makes_the_check_raise(url, fields, signature):
    assert not SignatureChecker("12345").valid([url], fields, {"x-twilio-signature": signature})


@pytest.mark.parametrize(
    ("headers", "trusted", "expected"),
    [
        ({"host": "a.example"}, False, "http://a.example"),
        ({"host": "a.example:8080", "x-forwarded-proto": "https"}, False, "http://a.example:8080"),
        ({"host": "a.example", "x-forwarded-proto": "https, http"}, True, "https://a.example"),
        ({"host": "in", "x-forwarded-proto": "wss", "x-forwarded-host": "b.example, c"}, True, "https://b.example"),
        ({"host": "in", "x-forwarded-proto": "https", "x-forwarded-port": "443"}, True, "https://in"),
        ({"host": "in", "x-forwarded-proto": "https", "x-forwarded-port": "8443"}, True, "https://in:8443"),
        ({"host": "in:1", "x-forwarded-proto": "https", "x-forwarded-port": "8443"}, True, "https://in:1"),
        ({"host": "[::1]", "x-forwarded-port": "81"}, True, "http://[::1]:81"),
        ({"host": "in", "x-forwarded-proto": "gopher"}, True, "http://in"),
    ],
)
def test_the_origin_behind_a_proxy(headers, trusted, expected):
    assert seen_origin(headers, secure=False, trust_forwarded=trusted) == expected


def test_the_origin_of_a_tls_server():
    assert seen_origin({"host": "a"}, secure=True, trust_forwarded=False) == "https://a"


def test_addresses_follow_from_the_webhooks():
    site = site_of("https://h.example/voice/?x=1#rc=2")
    assert site.webhook == "https://h.example/voice/"
    assert site.media == "wss://h.example/voice/media"
    assert site.url("after", call=CALL) == f"https://h.example/voice/after?call={CALL}"
    assert site_of("http://h").webhook == "http://h/"
    assert site_of("https://h/v", "wss://m/x").media == "wss://m/x"
    for bad in ("h.example/voice", "wss://h/voice", "https://", "https://h:x/"):
        with pytest.raises(ConfigurationError, match="webhook_url"):
            site_of(bad)
    with pytest.raises(ConfigurationError, match="media_url"):
        site_of("https://h/v", "https://h/m")


# Tokens


def test_a_token_names_its_generation_until_it_expires():
    now = [1000.0]
    tokens = StreamTokens(b"key", time=lambda: now[0])
    token = tokens.sign(CALL, 3)
    assert tokens.verify(token, CALL) == 3
    now[0] = 1060.0
    assert tokens.verify(token, CALL) == 3
    now[0] = 1061.5
    with pytest.raises(RemoteProtocolError, match="expired"):
        tokens.verify(token, CALL)


def test_a_token_is_verifiable_in_another_process_and_by_the_previous_key():
    token = StreamTokens(derive_key("secret")).sign(CALL, 1)
    assert StreamTokens(derive_key("secret")).verify(token, CALL) == 1
    assert StreamTokens(derive_key("new"), previous=(derive_key("secret"),)).verify(token, CALL) == 1
    assert "secret" not in repr(StreamTokens(derive_key("secret")))


@pytest.mark.parametrize(
    "forge",
    [
        lambda t: "",
        lambda t: "x",
        lambda t: t[:-1],
        lambda t: t + "A",
        lambda t: t.replace("1.", "2.", 1),
        lambda t: t.replace(".", ".9", 1),
        lambda t: "1.2.3.4",
        lambda t: "1." + "9" * 5000 + ".x",
        lambda t: "-" + t,
        lambda t: t + "é",
    ],
)
def test_a_forged_token_is_refused(forge):
    tokens = StreamTokens(b"key")
    with pytest.raises(RemoteProtocolError):
        tokens.verify(forge(tokens.sign(CALL, 1)), CALL)


def test_a_token_of_another_call_or_key_is_refused():
    token = StreamTokens(b"key").sign(CALL, 1)
    with pytest.raises(RemoteProtocolError):
        StreamTokens(b"key").verify(token, UUID(int=1))
    with pytest.raises(RemoteProtocolError):
        StreamTokens(b"other").verify(token, CALL)


# Documents


def test_the_stream_document():
    text = twiml.connect_stream(
        "wss://h/m", action="https://h/a?x=1&y=2", status_callback="https://h/s", parameters=[("From", 'a"<&é')]
    )
    connect = ET.fromstring(text)[0]
    assert connect.tag == "Connect"
    assert connect.attrib == {"action": "https://h/a?x=1&y=2", "method": "POST"}
    stream = connect[0]
    assert stream.attrib == {"url": "wss://h/m", "statusCallback": "https://h/s", "statusCallbackMethod": "POST"}
    assert stream[0].attrib == {"name": "From", "value": 'a"<&é'}


def test_long_parameters_are_cut_with_one_warning(caplog):
    parameters = [("A", "x" * 600), ("B", "y" * 498), ("C", "z" * 499)]
    text = twiml.connect_stream("wss://h/m", action="https://h", status_callback="https://h", parameters=parameters)
    values = [(p.get("name"), p.get("value")) for p in ET.fromstring(text).iter("Parameter")]
    assert [len(name + value) for name, value in values] == [499, 499, 499]
    assert len(caplog.records) == 1
    assert "['A', 'C']" in caplog.text


def test_the_other_documents():
    dial = ET.fromstring(twiml.dial("+15551234567", action="https://h/d", status_callback="https://h/n", timeout_s=20))[
        0
    ]
    assert dial.attrib == {"action": "https://h/d", "method": "POST", "answerOnBridge": "true", "timeout": "20"}
    assert dial[0].tag == "Number"
    assert dial[0].text == "+15551234567"
    assert dial[0].get("statusCallbackEvent") == "initiated ringing answered completed"
    for tel, tag, text in (("sip:a@b", "Sip", "sip:a@b"), ("client:bob", "Client", "bob")):
        noun = ET.fromstring(twiml.dial(tel, action="https://h", status_callback="https://h"))[0][0]
        assert (noun.tag, noun.text) == (tag, text)
    play, redirect = ET.fromstring(twiml.play_digits("ww1#", then="https://h/x?a=1&b=2"))
    assert play.get("digits") == "ww1#"
    assert redirect.text == "https://h/x?a=1&b=2"
    assert [verb.tag for verb in ET.fromstring(twiml.say("Sorry & bye"))] == ["Say", "Hangup"]
    assert ET.fromstring(twiml.reject("busy"))[0].get("reason") == "busy"
    assert [verb.tag for verb in ET.fromstring(twiml.hangup())] == ["Hangup"]

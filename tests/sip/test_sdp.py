"""Session descriptions: what telephones and PBXs offer, and what is answered."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dialog.errors import NotSupportedError, RemoteProtocolError
from dialog.message import ALAW_8K, MULAW_8K
from dialog.voip.sip.sdp import answer, offer, parse

ASTERISK = """v=0
o=- 1190434157 1190434157 IN IP4 192.0.2.10
s=Asterisk
c=IN IP4 192.0.2.10
t=0 0
m=audio 18214 RTP/AVP 8 0 101
a=rtpmap:8 PCMA/8000
a=rtpmap:0 PCMU/8000
a=rtpmap:101 telephone-event/8000
a=fmtp:101 0-16
a=ptime:20
a=maxptime:140
a=sendrecv
""".replace("\n", "\r\n")


def test_the_first_kind_of_g711_that_is_offered_is_taken():
    media = parse(ASTERISK)
    assert (media.host, media.port, media.audio_format, media.payload_type) == ("192.0.2.10", 18214, ALAW_8K, 8)
    assert media.dtmf_type == 101
    assert not media.held


def test_the_answer_has_the_codec_the_keys_and_our_address():
    said = answer(parse(ASTERISK), "192.0.2.20", 4000, 7, 1)
    assert "c=IN IP4 192.0.2.20\r\n" in said
    assert "m=audio 4000 RTP/AVP 8 101\r\n" in said
    assert "a=rtpmap:8 PCMA/8000\r\n" in said
    back = parse(said)
    assert (back.host, back.port, back.audio_format, back.dtmf_type) == ("192.0.2.20", 4000, ALAW_8K, 101)


def test_an_answer_refuses_video_and_keeps_the_order():
    text = ASTERISK + "m=video 18000 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\n"
    assert [line for line in answer(parse(text), "192.0.2.20", 4000, 7, 1).split("\r\n") if line.startswith("m=")] == [
        "m=audio 4000 RTP/AVP 8 101",
        "m=video 0 RTP/AVP 96",
    ]


def test_g711_may_have_a_number_of_its_own():
    text = ASTERISK.replace("m=audio 18214 RTP/AVP 8 0 101", "m=audio 18214 RTP/AVP 99").replace(
        "a=rtpmap:8 PCMA/8000", "a=rtpmap:99 pcmu/8000/1"
    )
    assert (parse(text).audio_format, parse(text).payload_type) == (MULAW_8K, 99)


def test_a_number_that_means_something_else_is_not_g711():
    text = ASTERISK.replace("RTP/AVP 8 0 101", "RTP/AVP 0").replace("a=rtpmap:0 PCMU/8000", "a=rtpmap:0 opus/48000/2")
    with pytest.raises(NotSupportedError, match=r"G\.711"):
        parse(text)


@pytest.mark.parametrize(
    ("change", "held"),
    [
        (("a=sendrecv", "a=sendonly"), True),
        (("a=sendrecv", "a=inactive"), True),
        (("a=sendrecv", "a=recvonly"), False),
        (("c=IN IP4 192.0.2.10", "c=IN IP4 0.0.0.0"), True),
    ],
)
def test_a_call_is_put_on_hold(change, held):
    assert parse(ASTERISK.replace(*change)).held is held


def test_an_address_of_the_section_wins():
    text = ASTERISK.replace("a=ptime:20", "c=IN IP6 2001:db8::1\r\na=ptime:20")
    assert parse(text).host == "2001:db8::1"
    assert "c=IN IP6 2001:db8::2" in answer(parse(text), "2001:db8::2", 4000, 7, 1)


@pytest.mark.parametrize(
    "change",
    [
        ("m=audio 18214 RTP/AVP 8 0 101", "m=audio 18214 RTP/SAVP 8 0 101"),
        ("m=audio 18214 RTP/AVP 8 0 101", "m=audio 0 RTP/AVP 8 0 101"),
        ("m=audio 18214 RTP/AVP 8 0 101", "m=image 18214 udptl t38"),
        ("m=audio 18214 RTP/AVP 8 0 101", "m=audio 18214 RTP/AVP 18"),
    ],
)
def test_what_is_no_plain_g711_is_not_supported(change):
    with pytest.raises(NotSupportedError):
        parse(ASTERISK.replace(*change))


def test_a_description_in_another_format_than_the_call_has_is_not_supported():
    assert parse(ASTERISK, only=MULAW_8K).payload_type == 0
    with pytest.raises(NotSupportedError):
        parse(ASTERISK.replace("RTP/AVP 8 0 101", "RTP/AVP 8 101"), only=MULAW_8K)


@pytest.mark.parametrize(
    "change",
    [
        ("v=0", "v=1"),
        ("c=IN IP4 192.0.2.10", "c=IN IP4 pbx.example"),
        ("c=IN IP4 192.0.2.10", "c=ATM X 1"),
        ("m=audio 18214", "m=audio 99999"),
        ("m=audio 18214 RTP/AVP 8 0 101", "m=audio 18214"),
        ("m=audio 18214 RTP/AVP 8 0 101", "m=audio 18214 RTP/AVP eight"),
        ("a=rtpmap:8 ", "a=rtpmap:x "),
        ("t=0 0", "nonsense"),
        ("t=0 0", "m=audio 1 RTP/AVP 18\r\n" * 17 + "t=0 0"),
        ("t=0 0", "a=x\r\n" * 600 + "t=0 0"),
    ],
)
def test_what_is_malformed_says_so(change):
    with pytest.raises(RemoteProtocolError):
        parse(ASTERISK.replace(*change))


def test_what_we_offer_can_be_answered():
    media = parse(offer("192.0.2.20", 4000, 1, 1))
    assert (media.audio_format, media.dtmf_type, media.port) == (MULAW_8K, 101, 4000)
    again = parse(offer("192.0.2.20", 4000, 1, 2, parse(ASTERISK)))
    assert (again.audio_format, again.payload_type) == (ALAW_8K, 8)


@given(st.text(max_size=400))
def test_any_text_is_read_or_refused(text):
    for each in (text, ASTERISK + text, ASTERISK.replace("18214 RTP/AVP", text)):
        try:
            media = parse(each)
        except (RemoteProtocolError, NotSupportedError):
            continue
        said = answer(media, "192.0.2.20", 4000, 7, 1)
        assert parse(said).payload_type == media.payload_type
        assert "\r" not in said.replace("\r\n", "")

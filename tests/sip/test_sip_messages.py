"""SIP messages: what is read, what is refused, what is answered."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sipmessage import Message

from dialog.errors import ConfigurationError, RemoteProtocolError
from dialog.voip.sip.leg import Leg, refer_target
from dialog.voip.sip.messages import Incoming, Reply, header_uri, parse, party, render, reply

SOURCE = ("192.0.2.10", 5062)
INVITE = (
    "INVITE sip:1000@192.0.2.20:5060 SIP/2.0\r\n"
    "Via: SIP/2.0/UDP 192.0.2.10:5060;rport;branch=z9hG4bKPj+x!'~, SIP/2.0/UDP 198.51.100.1;branch=z9hG4bKy\r\n"
    "v: SIP/2.0/UDP 198.51.100.9;branch=z9hG4bKz\r\n"
    'From: "A \\"quoted\\" name" <sip:+15550100@192.0.2.10;tag=not-this>;tag=a1\r\n'
    "To: <sip:1000@192.0.2.20>\r\n"
    "Contact: <sip:asterisk@192.0.2.10:5060;x-ast=1.2.3.4:99;ob>\r\n"
    "Record-Route: <sip:192.0.2.30;lr>\r\n"
    "Call-ID: 5f1c@192.0.2.10\r\n"
    "CSeq: 17761 INVITE\r\n"
    "X-Campaign: spring, 2026\r\n"
    "Content-Length: 3\r\n"
    "\r\n"
    "v=0 and what UDP has left behind"
)


def invite(**changes: str) -> Incoming:
    text = INVITE
    for old, new in changes.items():
        text = text.replace(old, new)
    found = parse(text.encode(), SOURCE)
    assert isinstance(found, Incoming)
    return found


def test_a_request_is_read():
    found = invite()
    assert (found.method, found.sequence, found.call_id) == ("INVITE", 17761, "5f1c@192.0.2.10")
    assert (found.branch, found.from_tag, found.to_tag) == ("z9hG4bKPj+x!'~", "a1", "")
    assert found.message.body == b"v=0"
    assert party(found.message.headers["From"]) == "+15550100"


def test_the_answer_repeats_what_it_must_as_it_came():
    said = reply(invite(), 200, "OK", to_tag="ours").decode()
    lines = said.split("\r\n")
    assert lines[0] == "SIP/2.0 200 OK"
    first = "SIP/2.0/UDP 192.0.2.10:5060;rport=5062;received=192.0.2.10;branch=z9hG4bKPj+x!'~"
    assert lines[1] == f"Via: {first}, SIP/2.0/UDP 198.51.100.1;branch=z9hG4bKy"
    assert lines[2] == "Via: SIP/2.0/UDP 198.51.100.9;branch=z9hG4bKz"
    assert "To: <sip:1000@192.0.2.20>;tag=ours" in lines
    assert Message.parse(said.encode()).cseq.sequence == 17761


def test_our_requests_name_the_other_side_as_it_named_itself():
    leg = Leg.answering(invite(), "<sip:dialog@192.0.2.20:5060>")
    said = leg.request("BYE", "SIP/2.0/UDP 192.0.2.20:5060;branch=z9hG4bKours").decode()
    assert said.startswith("BYE sip:asterisk@192.0.2.10:5060;x-ast=1.2.3.4:99;ob SIP/2.0\r\n")
    assert "Route: <sip:192.0.2.30;lr>\r\n" in said
    assert f"From: <sip:1000@192.0.2.20>;tag={leg.local_tag}\r\n" in said
    assert ";tag=a1\r\n" in said
    found = parse(said.encode(), ("192.0.2.20", 5060))
    assert isinstance(found, Incoming)
    assert (found.from_tag, found.to_tag, found.sequence) == (leg.local_tag, "a1", 1)


def test_requests_that_are_older_are_out_of_order():
    leg = Leg.answering(invite(), "<sip:dialog@192.0.2.20:5060>")
    assert not leg.in_order(invite())
    assert leg.in_order(invite(**{"17761": "17763"}))
    assert not leg.in_order(invite(**{"17761": "17762"}))


def test_an_answer_is_read():
    found = parse(
        render("SIP/2.0 486 Busy Here", [
            ("Via", "SIP/2.0/UDP 192.0.2.20;branch=z9hG4bKb"), ("From", "<sip:a@b.example>;tag=1"),
            ("To", "<sip:c@d.example>;tag=2"), ("Call-ID", "x"), ("CSeq", "2 BYE"),
        ]),
        SOURCE,
    )  # fmt: skip
    assert isinstance(found, Reply)
    assert (found.code, found.method, found.branch, found.to_tag) == (486, "BYE", "z9hG4bKb", "2")


@pytest.mark.parametrize(
    "change",
    [
        ("SIP/2.0\r\nVia", "SIP/3.0\r\nVia"),
        ("CSeq: 17761 INVITE\r\n", ""),
        ("Call-ID: 5f1c@192.0.2.10\r\n", ""),
        ("To: <sip:1000@192.0.2.20>\r\n", ""),
        ("17761 INVITE", "17761 BYE"),
        ("17761 INVITE", "99999999999 INVITE"),
        ("Content-Length: 3", "Content-Length: 300"),
        ("Content-Length: 3", "Content-Length: -1"),
        ("Content-Length: 3", "Content-Length: many"),
        ("X-Campaign: spring", "X-Campaign: spring\nEvil: header"),
        ("X-Campaign: spring", "X-Campaign: " + "x" * 3000),
        ("X-Campaign: spring, 2026\r\n", "X: y\r\n" * 300),
        ("<sip:1000@192.0.2.20>\r\n", "<sip:1000@192.0.2.20>;self=1\r\n"),
        ("<sip:1000@192.0.2.20>\r\n", "nobody\r\n"),
        ("sip:1000@192.0.2.20:5060", "mailto:x"),
        ("INVITE", "invite"),
        ("\r\n\r\n", "\r\n"),
        ("spring", "\udcff"),
    ],
)
def test_what_is_malformed_says_so(change):
    with pytest.raises(RemoteProtocolError):
        parse(INVITE.replace(*change).encode(errors="surrogateescape"), SOURCE)


@pytest.mark.parametrize("value", ["", "<>", "<nonsense>", "<sip:>", "*"])
def test_a_contact_that_cannot_be_used_says_so(value):
    with pytest.raises(RemoteProtocolError):
        header_uri(value)


def test_a_transfer_goes_to_a_number_at_the_peer_or_to_an_address():
    assert refer_target("+15550123", SOURCE) == "sip:+15550123@192.0.2.10:5062"
    assert refer_target("*72#", ("2001:db8::1", 5060)) == "sip:*72%23@[2001:db8::1]:5060"
    assert refer_target("sip:sales@pbx.example;user=phone", SOURCE) == "sip:sales@pbx.example;user=phone"


@pytest.mark.parametrize("tel", ["", "sales", "+1 555", "sip:a@b>\r\nX: y", "1000\r\nEvil: 1", "sip:a b", "tel:+1"])
def test_nothing_else_is_put_into_a_request(tel):
    with pytest.raises(ConfigurationError):
        refer_target(tel, SOURCE)


@given(st.binary(max_size=600), st.integers(0, len(INVITE)), st.integers(0, 40))
def test_any_datagram_is_read_or_refused(noise, at, size):
    data = INVITE.encode()
    for each in (noise, data[:at] + noise + data[at + size :]):
        try:
            found = parse(each, SOURCE)
        except RemoteProtocolError:
            continue
        if isinstance(found, Incoming):
            assert reply(found, 200, "OK", to_tag="t").count(b"\r\n\r\n") == 1

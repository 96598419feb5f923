"""Documents hold what they were given, whatever it is."""

import re

from hypothesis import given
from hypothesis import strategies as st

from dialog.testing.twiml import parse, stream_parameters
from dialog.voip.twilio import twiml

# XML can hold no other characters, however they are escaped; a parser makes every line end a line feed.
TEXT = st.text(st.characters(blacklist_categories=("Cs", "Cc", "Cn"), blacklist_characters="\ufffe\uffff"), max_size=80)
PLAIN = re.compile(r"\s+")


@given(st.lists(st.tuples(TEXT.filter(bool), TEXT), max_size=5))
def test_parameters_arrive_as_they_were_given(parameters):
    document = twiml.connect_stream(
        "wss://h/m", action="https://h/a?x=1&y=2", status_callback="https://h/s", parameters=parameters
    )
    [connect] = parse(document)
    assert connect.get("action") == "https://h/a?x=1&y=2"
    got = {PLAIN.sub(" ", name): PLAIN.sub(" ", value) for name, value in stream_parameters(connect.nouns[0]).items()}
    assert got == {PLAIN.sub(" ", name): PLAIN.sub(" ", value) for name, value in parameters}


@given(TEXT)
def test_what_is_said_is_text_and_never_a_verb(text):
    for document in (twiml.say(text), twiml.messages(text)):
        verbs = parse(document)
        assert [verb.name for verb in verbs] in (["Say", "Hangup"], ["Message"])
        assert PLAIN.sub(" ", verbs[0].text).strip() == PLAIN.sub(" ", text).strip()
        assert not verbs[0].nouns


@given(TEXT.filter(lambda text: text.strip()), TEXT, TEXT)
def test_a_conference_is_the_one_that_was_named(room, label, url):
    [dial] = parse(twiml.conference(room, status_callback=url, starts=False, label=label))
    [conference] = dial.nouns
    assert PLAIN.sub(" ", conference.text).strip() == PLAIN.sub(" ", room).strip()
    assert conference.get("startConferenceOnEnter") == "false"
    assert dial.get("action") == ""


def test_a_parameter_that_is_too_long_is_cut():
    document = twiml.connect_stream("wss://h/m", action="a", status_callback="s", parameters=[("name", "x" * 600)])
    assert len(stream_parameters(parse(document)[0].nouns[0])["name"]) == twiml.MAX_PARAMETER - 4


def test_a_number_an_address_and_a_client_are_dialled_each_in_its_way():
    for tel, noun in (("+15550123", "Number"), ("sip:a@b?x=1&y=2", "Sip"), ("client:bob", "Client")):
        [dial] = parse(twiml.dial(tel, action="a", status_callback="s", timeout_s=20))
        assert dial.nouns[0].name == noun
        assert dial.nouns[0].text == tel.removeprefix("client:")

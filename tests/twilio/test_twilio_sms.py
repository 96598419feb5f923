"""Text messages by Twilio: without a call, within one, and by the model."""

from uuid import uuid4

import pytest
from test_twilio_rest import live, public
from twilio.base.exceptions import TwilioRestException
from twilio.rest import Client
from twilio_phone import ACCOUNT, TOKEN

import dialog
from dialog.errors import CarrierError, ConfigurationError
from dialog.message import CallMetadata, SentSMS
from dialog.sms.sms import SMS, check_e164, check_text
from dialog.sms.twilio import TwilioSMS
from dialog.testing.server import Faults
from dialog.testing.twilio_rest import TwilioRestEmulator
from dialog.voip.twilio.rest import _import_sdk

OURS, THEIRS = "+15551230002", "+15551230009"


@pytest.fixture
async def account():
    async with TwilioRestEmulator(account_sid=ACCOUNT, auth_token=TOKEN, api_key="SK1", api_secret="s") as emulator:
        yield emulator


@pytest.fixture
async def sms(account):
    async with TwilioSMS(account_sid=ACCOUNT, auth_token=TOKEN, from_=OURS, base_url=account.url) as sender:
        sender._rest.retry_s = 0.01
        yield sender


async def test_the_official_client_understands_the_messages_of_the_emulator(account):
    http = _import_sdk()[1]()
    client = Client(ACCOUNT, TOKEN, http_client=http, environment={"TWILIO_REGION": ""})
    client.api.base_url = account.url
    made = await client.messages.create_async(to=THEIRS, from_=OURS, body="Hello.")
    assert (made.status, made.direction, made.to, made.from_) == ("queued", "outbound-api", THEIRS, OURS)
    assert (made.num_segments, made.date_created.tzinfo is not None, made.date_sent) == ("1", True, None)
    fetched = await client.messages(made.sid).fetch_async()
    assert fetched.body == "Hello."
    by_service = await client.messages.create_async(to=THEIRS, messaging_service_sid="MG1", body="x")
    assert (by_service.status, by_service.from_) == ("accepted", None)
    account.unsubscribed.add("+15551230008")
    account.senders = {OURS}
    for fields, code in (
        ({"to": "5551230009", "from_": OURS, "body": "x"}, 21211),
        ({"to": "+15551230008", "from_": OURS, "body": "x"}, 21610),
        ({"to": THEIRS, "from_": OURS}, 21602),
        ({"to": THEIRS, "from_": OURS, "body": "x" * 1601}, 21617),
        ({"to": THEIRS, "body": "x"}, 21603),
        ({"to": THEIRS, "from_": "+15550000000", "body": "x"}, 21606),
    ):
        with pytest.raises(TwilioRestException) as refused:
            await client.messages.create_async(**fields)
        assert (refused.value.status, refused.value.code) == (400, code)
    assert len(account.messages) == 2
    await http.close()


async def test_a_message_is_sent_without_a_call(account, sms):
    sent = await sms.send_sms(THEIRS, "Your table is booked.")
    (message,) = account.messages
    assert sent == SentSMS(message_sid=message.sid, status="queued", to=THEIRS)
    assert (message.to, message.from_, message.body) == (THEIRS, OURS, "Your table is booked.")
    with pytest.raises(AttributeError, match="immutable"):
        sent.status = "delivered"
    assert THEIRS not in repr(sent)
    await sms.send_sms(THEIRS, "x", from_="+15551230003")
    assert account.messages[-1].from_ == "+15551230003"


async def test_a_messaging_service_chooses_the_sender(account):
    async with TwilioSMS(
        account_sid=ACCOUNT, api_key="SK1", api_secret="s", messaging_service_sid="MG1", base_url=account.url
    ) as sms:
        assert (await sms.send_sms(THEIRS, "x")).status == "accepted"
        await sms.send_sms(THEIRS, "x", from_=OURS)
    assert [(m.messaging_service_sid, m.from_) for m in account.messages] == [("MG1", ""), ("", OURS)]


@pytest.mark.parametrize(
    ("to", "text", "said"),
    [
        ("5551230009", "x", "no number in E.164"),
        ("+1 555 123 0009", "x", "no number in E.164"),
        ("+0551230009", "x", "no number in E.164"),
        ("", "x", "no number to write to"),
        (THEIRS, "  ", "has no text"),
        (THEIRS, "x" * 1601, "1601 characters, at most 1600"),
    ],
)
async def test_what_cannot_be_sent_is_refused_before_twilio_is_asked(account, sms, to, text, said):
    with pytest.raises(CarrierError, match=said) as refused:
        await sms.send_sms(to, text)
    assert not account.requests
    assert "555" not in str(refused.value).replace("+15551230002", "")


@pytest.mark.parametrize(
    ("sender", "fine"),
    [(OURS, True), ("12345", True), ("Luigi's", False), ("Luigis", True), ("", False), ("+1 555", False)],
)
async def test_a_sender_is_a_number_a_short_code_or_a_name(account, sender, fine):
    async with TwilioSMS(account_sid=ACCOUNT, auth_token=TOKEN, from_=sender, base_url=account.url) as sms:
        if fine:
            await sms.send_sms(THEIRS, "x")
        else:
            with pytest.raises(CarrierError, match=r"sender|from_"):
                await sms.send_sms(THEIRS, "x")
        assert len(account.messages) == fine


async def test_a_refusal_says_what_to_do(account, sms):
    account.unsubscribed.add(THEIRS)
    with pytest.raises(CarrierError, match=r"^twilio: send SMS: .*21610.*until they answer START") as refused:
        await sms.send_sms(THEIRS, "x")
    assert (refused.value.status, refused.value.carrier_code) == (400, 21610)
    account.senders = {"+15551230003"}
    with pytest.raises(CarrierError, match=r"21606.*choose another from_") as refused:
        await sms.send_sms("+15551230008", "x")
    assert OURS not in str(refused.value)


async def test_too_many_messages_at_once_wait_and_then_say_so(account, sms):
    account.faults = Faults(refuse=429, times=2)
    await sms.send_sms(THEIRS, "x")
    assert len(account.requests) == 3
    account.faults = Faults(refuse=429)
    with pytest.raises(CarrierError, match=r"429.*too many requests") as refused:
        await sms.send_sms(THEIRS, "x")
    assert refused.value.status == 429


async def test_a_message_that_may_have_been_sent_is_not_sent_twice(account, sms):
    account.faults = Faults(refuse=500, times=1)
    with pytest.raises(CarrierError, match=r"500.*try again later"):
        await sms.send_sms(THEIRS, "x")
    assert len(account.requests) == 1
    account.faults = Faults(hang=True)
    sms._rest.timeout_s = 0.3
    with pytest.raises(CarrierError, match=r"no answer within 0.3 s"):
        await sms.send_sms(THEIRS, "x")
    assert len(account.requests) == 2


def test_wrong_settings_are_refused():
    with pytest.raises(ConfigurationError, match="account_sid and auth_token"):
        TwilioSMS(account_sid=ACCOUNT)
    with pytest.raises(ConfigurationError, match="begins with MG"):
        TwilioSMS(account_sid=ACCOUNT, auth_token=TOKEN, messaging_service_sid=OURS)
    sms = TwilioSMS(account_sid=ACCOUNT, auth_token=TOKEN, from_=OURS)
    assert TOKEN not in repr(sms)
    assert isinstance(sms, SMS)
    assert check_e164(OURS) == OURS
    assert check_text("x") == "x"


# Within a call


async def test_a_message_within_a_call_goes_from_its_number_to_the_caller():
    async with public() as (_, phone, rest, voips):
        line = await live(phone, rest, voips)
        sent = await line.voip.send_sms("See you tonight.")
        (message,) = rest.messages
        metadata = line.voip.metadata
        assert (sent.message_sid, sent.to) == (message.sid, metadata.from_)
        assert (message.to, message.from_) == (metadata.from_, metadata.to)
        await line.voip.send_sms("x", to=THEIRS, from_="+15551230003")
        assert (rest.messages[-1].to, rest.messages[-1].from_) == (THEIRS, "+15551230003")


async def test_a_refusal_within_a_call_names_it_and_is_heard_by_whoever_watches_the_call():
    async with public() as (_, phone, rest, voips):
        line = await live(phone, rest, voips)
        rest.unsubscribed.add(line.voip.metadata.from_)
        errors = []
        line.voip.on(dialog.VoIP.ERROR, errors.append)
        with pytest.raises(CarrierError, match=rf"{line.sid}: send SMS: .*21610"):
            await line.voip.send_sms("x")
        assert [failure.error.carrier_code for failure in errors] == [21610]
        with pytest.raises(CarrierError, match=r"E\.164"):
            await line.voip.send_sms("x", to="anonymous")


async def test_the_other_side_of_an_outbound_call_is_who_was_called():
    class Link:
        async def command(self, command):
            self.command = command
            return SentSMS(message_sid="SM1", status="queued", to=command.to)

        def close(self):
            pass

    link = Link()
    metadata = CallMetadata(call_id=uuid4(), from_=OURS, to=THEIRS, direction="outbound")
    voip = dialog.create_voip("twilio", metadata=metadata, link=link)
    assert (await voip.send_sms("x")).to == THEIRS
    assert link.command.from_ == OURS
    assert THEIRS not in repr(link.command)
    voip.dispose()

"""Text messages that come in, over the gateway's socket."""

import asyncio

import pytest
from twilio_phone import ACCOUNT, phone_line


def form(sid="SM1", **more):
    return {
        "MessageSid": sid,
        "SmsSid": sid,
        "AccountSid": ACCOUNT,
        "From": "+15550123",
        "To": "+15550100",
        "Body": "Are you open?",
        "NumMedia": "0",
        "NumSegments": "1",
        "ApiVersion": "2010-04-01",
        **more,
    }


async def write(phone, fields=None, **more):
    status, text, headers = await phone.post(phone.url + "/sms", fields or form(), **more)
    return status, text, headers.get("Content-Type", "")


async def test_the_text_that_a_listener_returns_is_the_answer():
    async with phone_line() as (gateway, phone, _, _):
        got = []

        @gateway.on("sms")
        def on_sms(message):
            got.append(message)
            return "Until <ten> & later."

        status, text, content_type = await write(phone, form(NumMedia="1", MediaUrl0="https://api.twilio.com/m/1"))
        assert status == 200
        assert content_type.startswith("text/xml")
        assert "<Response><Message>Until &lt;ten&gt; &amp; later.</Message></Response>" in text
        [message] = got
        assert (message.from_, message.to, message.text) == ("+15550123", "+15550100", "Are you open?")
        assert message.media == ("https://api.twilio.com/m/1",)
        assert "open" not in repr(message)
        with pytest.raises(AttributeError):
            message.text = "no"


async def test_a_coroutine_may_answer_and_none_is_no_answer():
    async with phone_line() as (gateway, phone, _, _):

        async def later(message):
            await asyncio.sleep(0)
            return "Yes."

        gateway.on("sms", later)
        gateway.on("sms", lambda _: None)
        assert "<Response><Message>Yes.</Message></Response>" in (await write(phone))[1]
        gateway.off("sms", later)
        assert (await write(phone, form("SM2")))[1].endswith("<Response />")


async def test_a_message_that_is_delivered_again_is_answered_alike_and_told_once():
    async with phone_line() as (gateway, phone, _, _):
        count = []
        gateway.on("sms", lambda message: count.append(message) or f"number {len(count)}")
        first, second = await asyncio.gather(write(phone), write(phone))
        assert first == second == await write(phone)
        assert len(count) == 1
        assert "number 2" in (await write(phone, form("SM2")))[1]


async def test_a_listener_that_raises_or_returns_nonsense_costs_only_its_answer(caplog):
    async with phone_line() as (gateway, phone, _, _):
        gateway.on("sms", lambda _: 1 / 0)
        gateway.on("sms", lambda _: 7)
        gateway.on("sms", lambda _: "x" * 1601)
        gateway.on("sms", lambda _: "fine")
        status, text, _ = await write(phone)
        assert (status, text.count("<Message>")) == (200, 1)
        assert "fine" in text
        assert sum("a listener failed" in record.message for record in caplog.records) == 3
        assert "Are you open" not in caplog.text


async def test_messages_are_checked_like_every_webhook():
    async with phone_line() as (gateway, phone, _, _):
        heard = []
        gateway.on("sms", heard.append)
        assert (await write(phone, signature="nonsense"))[0] == 403
        assert (await write(phone, headers={"X-Twilio-Signature": None}))[0] == 400
        assert (await write(phone, form(AccountSid="AC" + "1" * 32)))[0] == 403
        assert (await write(phone, form(sid="")))[0] == 400
        assert not heard


async def test_without_a_listener_nothing_is_answered():
    async with phone_line() as (_, phone, _, _):
        status, text, _ = await write(phone)
        assert status == 200
        assert text.endswith("<Response />")


async def test_there_are_two_events():
    async with phone_line() as (gateway, _, _, _):
        with pytest.raises(ValueError, match="'voip' and 'sms'"):
            gateway.on("fax", print)

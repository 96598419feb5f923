"""Text messages that come in over Telnyx, over the gateway's socket."""

from __future__ import annotations

import asyncio
import json

import pytest
import telnyx as sdk
from telnyx_phone import house, until

PERSON, OURS = "+15550123", "+15550100"


async def texting(there, text="Are you open?", **more):
    there.telnyx.messaging_url = f"{there.telnyx.webhook_url}/sms"
    return await there.telnyx.text(text, from_=PERSON, to=OURS, **more)


async def test_the_text_that_a_listener_returns_is_sent_back():
    async with house() as there:
        got = []

        @there.gateway.on("sms")
        async def on_sms(message):
            got.append(message)
            return "Until ten."

        assert await texting(there, media=["https://media.telnyx.example/1.jpg", None]) == 200
        await until(lambda: there.telnyx.messages)
        [sent] = there.telnyx.messages
        assert (sent["from"]["phone_number"], sent["to"][0]["phone_number"]) == (OURS, PERSON)
        assert sent["text"] == "Until ten."
        [message] = got
        assert (message.from_, message.to, message.text) == (PERSON, OURS, "Are you open?")
        assert message.media == ("https://media.telnyx.example/1.jpg",)
        assert ("type", "MMS") in message.parameters
        assert not there.voips


async def test_telnyx_is_answered_before_the_listener():
    async with house() as there:
        may_go = asyncio.Event()

        async def slow(message):
            await may_go.wait()
            return "At last."

        there.gateway.on("sms", slow)
        assert await texting(there) == 200
        assert not there.telnyx.messages
        may_go.set()
        await until(lambda: there.telnyx.messages)


async def test_a_message_that_is_delivered_again_is_told_and_answered_once():
    async with house() as there:
        there.telnyx.repeat_webhooks = True
        got = []
        there.gateway.on("sms", lambda message: got.append(message) or f"number {len(got)}")
        await texting(there)
        await until(lambda: there.telnyx.messages)
        await texting(there, "And tomorrow?")
        await until(lambda: len(there.telnyx.messages) == 2)
        assert [message["text"] for message in there.telnyx.messages] == ["number 1", "number 2"]


async def test_several_listeners_answer_and_one_that_fails_costs_only_its_answer(caplog):
    async with house() as there:
        there.gateway.on("sms", lambda _: 1 / 0)
        there.gateway.on("sms", lambda _: None)
        there.gateway.on("sms", lambda _: "one")
        there.gateway.on("sms", lambda _: "two")
        await texting(there)
        await until(lambda: len(there.telnyx.messages) == 2)
        assert [message["text"] for message in there.telnyx.messages] == ["one", "two"]
        assert sum("a listener failed" in record.message for record in caplog.records) == 1


async def test_a_listener_can_be_taken_away():
    async with house() as there:
        got = []
        there.gateway.on("sms", got.append)
        there.gateway.off("sms", got.append)
        other = []
        there.gateway.on("sms", other.append)
        await texting(there)
        await until(lambda: other)
        assert not got


async def test_an_answer_that_telnyx_does_not_take_is_logged(caplog):
    async with house() as there:
        there.gateway.on("sms", lambda _: "Yes.")
        there.telnyx.refuse["message"] = (403, 10010)
        await texting(there)
        await until(lambda: any("send SMS" in record.message for record in caplog.records))
        assert PERSON not in caplog.text


async def test_what_becomes_of_our_own_messages_is_no_message():
    async with house() as there:
        got = []
        there.gateway.on("sms", got.append)
        url = f"{there.telnyx.webhook_url}/sms"
        payload = {"id": "1", "from": {"phone_number": OURS}, "to": [{"phone_number": PERSON}], "text": "Yes."}
        for event in ("message.sent", "message.finalized"):
            assert await there.telnyx.webhook(url, event, payload) == 200
        await texting(there)
        await until(lambda: got)
        assert [message.text for message in got] == ["Are you open?"]


@pytest.mark.parametrize("signature", ["wrong", "missing", "stale"])
async def test_a_message_of_somebody_else_is_refused(signature):
    async with house() as there:
        got = []
        there.gateway.on("sms", got.append)
        there.telnyx.webhook_signature = signature
        assert await texting(there) == (400 if signature == "missing" else 403)
        assert not got


@pytest.mark.parametrize(
    "payload",
    [
        {},
        {"id": "", "from": {"phone_number": PERSON}, "to": [{"phone_number": OURS}]},
        {"id": "1", "from": {"phone_number": PERSON}, "to": []},
        {"id": "1", "from": PERSON, "to": [{"phone_number": OURS}]},
        {"id": "1", "from": {"phone_number": PERSON}, "to": [{"phone_number": OURS}], "text": 7},
    ],
)
async def test_a_malformed_message_is_refused_and_costs_nothing(payload):
    async with house() as there:
        got = []
        there.gateway.on("sms", got.append)
        url = f"{there.telnyx.webhook_url}/sms"
        assert await there.telnyx.webhook(url, "message.received", payload) == 400
        assert await texting(there) == 200
        await until(lambda: len(got) == 1)


async def test_a_gateway_that_closes_leaves_nothing_and_takes_no_more():
    async with house() as there:
        begun, given_up = asyncio.Event(), asyncio.Event()

        async def slow(message):
            begun.set()
            try:
                await asyncio.Event().wait()
            finally:
                given_up.set()

        there.gateway.on("sms", slow)
        await texting(there)
        await begun.wait()
        await there.gateway._board.close()
        assert given_up.is_set(), "after a while"
        assert await texting(there, "Still there?") == 503


async def test_a_message_that_was_taken_is_answered_before_the_gateway_closes():
    async with house() as there:
        begun, may_go = asyncio.Event(), asyncio.Event()

        async def slow(message):
            begun.set()
            await may_go.wait()
            return "Just in time."

        there.gateway.on("sms", slow)
        await texting(there)
        await begun.wait()
        closing = asyncio.create_task(there.gateway._board.close())
        asyncio.get_running_loop().call_soon(may_go.set)
        await closing
        assert [message["text"] for message in there.telnyx.messages] == ["Just in time."]


async def test_a_listener_that_waited_for_what_was_cancelled_costs_only_its_answer(caplog):
    async with house() as there:

        async def gives_up(message):
            raise asyncio.CancelledError

        there.gateway.on("sms", gives_up)
        there.gateway.on("sms", lambda _: "fine")
        await texting(there)
        await until(lambda: there.telnyx.messages)
        assert there.telnyx.messages[0]["text"] == "fine"
        assert any("waited for what was cancelled" in record.message for record in caplog.records)


def test_there_are_two_events():
    from dialog.voip.telnyx.gateway import TelnyxGateway

    gateway = TelnyxGateway(api_key="KEY", validate=False)
    with pytest.raises(ValueError, match="'voip' and 'sms'"):
        gateway.on("fax", print)


async def test_the_official_client_reads_the_emulators_message():
    async with house() as there:
        there.gateway.on("sms", lambda _: None)
        await texting(there)
        [delivered] = there.told("message.received")
        client = sdk.Telnyx(api_key="KEY", public_key=there.telnyx.public_key)
        event = client.webhooks.unsafe_unwrap(json.dumps(delivered.body)).data
        assert event.event_type == "message.received"
        assert event.payload.from_.phone_number == PERSON
        assert event.payload.to[0].phone_number == OURS
        assert event.payload.text == "Are you open?"

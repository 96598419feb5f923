"""Webhooks: at least once, in order per call, whatever the receiver and the database do."""

from __future__ import annotations

import asyncio
import base64
import json
import random
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from aiohttp import web
from calling import Caller
from msgspec import structs
from receiving import Receiver, receiver
from sqlalchemy import func, select, text
from standardwebhooks import Webhook
from steady import steady_clock

from dialog.calls import events as ev
from dialog.calls.delivery.endpoint import WebhookEndpoint
from dialog.calls.delivery.retries import Retries
from dialog.calls.delivery.signature import WebhookInvalid, sign_webhook, verify_webhook
from dialog.calls.delivery.vapi import vapi_messages
from dialog.calls.delivery.webhooks import Webhooks
from dialog.calls.publish import CallEvents
from dialog.calls.redact import Redaction
from dialog.calls.store import tables as t
from dialog.calls.store.log import CallLog
from dialog.errors import ConfigurationError

SECRET = "whsec_" + base64.b64encode(b"0123456789abcdef01234567").decode()
QUICK = Retries(first_s=0.02, limit_s=0.1)
WHOLE = ["call.started", "call.ended"]


def endpoint(far: Receiver, **more) -> WebhookEndpoint:
    return WebhookEndpoint(**{"name": "crm", "url": far.url, "secrets": (SECRET,), **more})


async def until(condition, timeout_s: float = 30.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.005)


async def empty(log: CallLog) -> None:
    """Wait until nothing waits in the outbox, dead letters apart."""
    async with asyncio.timeout(30):
        while True:
            async with log.engine.connect() as connection:
                chains = (await connection.execute(select(func.count()).select_from(t.chains))).scalar()
                waiting = select(func.count()).select_from(t.outbox).where(t.outbox.c.dead_at.is_(None))
                if not chains and not (await connection.execute(waiting)).scalar():
                    return
            await asyncio.sleep(0.01)


async def test_a_call_is_told_with_its_start_its_end_and_its_report(url):
    events = CallEvents(redaction=Redaction())
    async with receiver() as far:
        log = CallLog(url, batch_s=0.01)
        webhooks = Webhooks(log, endpoint(far))
        async with log, webhooks:
            log.follow(events)
            call = Caller(events).start().turn("I am +1 555 123 0001", "Hello.").end()
            call.tell(ev.RecordingReady, url="https://carrier.example/1.wav")
            await until(lambda: len(far.taken) == 3)
            await empty(log)
        started, ended, recorded = far.taken
        assert started["type"] == "call.started"
        assert started["data"]["call_id"] == str(call.call_id)
        assert started["data"]["from"] == "+15551230001"
        assert started["id"].startswith("evt_")
        assert abs((datetime.fromisoformat(started["created_at"]) - datetime.now(UTC)).total_seconds()) < 60
        assert ended["data"]["reason"] == "caller_hangup"
        assert ended["data"]["report"]["turns"][0]["caller"] == "I am [phone]"
        assert ended["data"]["report"]["events"] == []
        assert recorded["data"]["url"] == "https://carrier.example/1.wav"
        for headers, body in far.requests:
            assert verify_webhook(SECRET, headers, body) == json.loads(body)["id"]
            assert Webhook(SECRET).verify(body, headers) == json.loads(body), "the convention's own library agrees"


async def test_messages_are_those_that_the_endpoint_wants(sqlite_url):
    events = CallEvents()
    async with receiver() as some, receiver() as every:
        log = CallLog(sqlite_url, batch_s=0.01)
        wants = endpoint(some, events=("caller.transcript", "tool.ended"))
        async with log, Webhooks(log, wants, endpoint(every, name="all", events=("*",))):
            log.follow(events)
            call = Caller(events).start().turn(tool=True).end()
            await empty_after(log)
            kept = await log.events(call.call_id)
        assert [message["type"] for message in some.taken] == ["caller.transcript", "tool.ended"]
        assert {message["data"]["call_id"] for message in some.taken} == {str(call.call_id)}
        assert some.taken[1]["data"]["tool_call_id"] == "t1"
        assert every.seqs(call.call_id) == [event.seq for event in kept]
        assert [message["type"] for message in every.taken[:3]] == ["call.taken", "stream", "call.started"]


@pytest.mark.parametrize("direction", ["inbound", "outbound"])
async def test_a_call_starts_with_its_media_and_one_that_nobody_answers_only_ends(sqlite_url, direction):
    events = CallEvents()
    async with receiver() as far:
        log = CallLog(sqlite_url, batch_s=0.01)
        async with log, Webhooks(log, endpoint(far)):
            log.follow(events)
            call = Caller(events, direction=direction).start().turn()
            call.tell(ev.StreamChanged, state="moving", generation=1)
            call.tell(ev.StreamChanged, state="live", generation=2)
            call.end()
            await empty_after(log)
            unanswered = Caller(events, direction=direction)
            started = {"call_id": unanswered.call_id, "carrier": "twilio", "carrier_call_id": "", "from_": "", "to": ""}
            unanswered.tell(ev.CallStarted, **started, direction=direction, started_at="2026-01-02T03:04:05.000+00:00")
            unanswered.tell(ev.CallEnded, reason="no_answer")
            await empty_after(log)
        assert far.by_call() == {str(call.call_id): WHOLE, str(unanswered.call_id): ["call.ended"]}
        told = far.taken[0]["data"]
        assert set(told) == {
            *("call_id", "seq", "at_s", "carrier", "carrier_call_id", "from", "to", "direction", "started_at")
        }
        assert (told["direction"], told["from"], told["seq"]) == (direction, "+15551230001", 1)


async def empty_after(log: CallLog) -> None:
    await log.flush()
    await empty(log)


async def test_a_message_that_is_not_taken_is_sent_again_and_holds_up_only_its_call(url):
    events, refused = CallEvents(), []

    def answer(message):
        if message["data"]["call_id"] == str(bad.call_id) and len(refused) < 4:
            refused.append(message["id"])
            return web.Response(status=500)
        return web.Response()

    async with receiver() as far:
        far.answer = answer
        log = CallLog(url, batch_s=0.01)
        async with log, Webhooks(log, endpoint(far), retries=QUICK):
            log.follow(events)
            bad = Caller(events).start().end()
            good = [Caller(events).start().end() for _ in range(5)]
            await empty_after(log)
        assert len(refused) == 4
        assert len(set(refused)) == 1, "what is behind it waits"
        assert far.by_call() == {str(call.call_id): WHOLE for call in (bad, *good)}


async def test_a_receiver_that_was_down_for_ten_minutes_gets_everything_in_the_order_of_each_call(url):
    clock, events = steady_clock(300.0), CallEvents()
    async with receiver(up=False) as far:
        log = CallLog(url, batch_s=0.01)
        webhooks = Webhooks(log, endpoint(far, events=("*",), timeout_s=600.0), clock=clock)
        async with log, webhooks:
            log.follow(events)
            began = clock.now()
            calls = [Caller(events).start() for _ in range(20)]
            for _ in range(3):
                for call in calls:
                    call.turn()
                await clock.sleep(200)
            for call in calls:
                call.end()
            await log.flush()
            assert clock.now() - began >= 600
            assert far.taken == []
            kept = {call.call_id: [event.seq for event in await log.events(call.call_id)] for call in calls}
            starts = len(calls)
            assert await webhooks.waiting() == {"crm": sum(map(len, kept.values())) + starts}
            await far.up()
            await empty(log)
            for call in calls:
                assert list(dict.fromkeys(far.seqs(call.call_id))) == kept[call.call_id]


async def test_what_is_never_taken_becomes_a_dead_letter_and_can_be_sent_again(url):
    events = CallEvents()
    async with receiver() as far:
        far.answer = lambda message: web.Response(status=500 if message["type"] == "call.started" else 200)
        log = CallLog(url, batch_s=0.01)
        webhooks = Webhooks(log, endpoint(far), retries=Retries(first_s=0.01, limit_s=0.02, give_up_s=0.1))
        async with log, webhooks:
            log.follow(events)
            call = Caller(events).start().end()
            await empty_after(log)
            assert [message["type"] for message in far.taken] == ["call.ended"]
            (letter,) = await webhooks.dead_letters()
            assert (letter.type, letter.call_id, letter.error) == ("call.started", call.call_id, "it answered 500")
            far.answer = lambda _: web.Response()
            assert await webhooks.redeliver([letter]) == 1
            assert await webhooks.redeliver([letter]) in (0, 1)
            await empty(log)
            assert await webhooks.dead_letters() == []
        assert [message["type"] for message in far.taken] == ["call.ended", "call.started"]


async def test_what_waits_and_what_was_given_up_is_told_to_metrics(sqlite_url, monkeypatch):
    monkeypatch.setattr("dialog.calls.delivery.webhooks._COUNT_S", 0.02)
    events = CallEvents()
    async with receiver() as far:
        far.answer = lambda message: web.Response(status=410 if message["type"] == "call.started" else 500)
        log = CallLog(sqlite_url, batch_s=0.01)
        async with log, Webhooks(log, endpoint(far)):
            log.follow(events)
            assert events.queues["webhooks:crm"]() == 0
            for _ in range(3):
                Caller(events).start().end()
            await until(lambda: events.queues["dead_letters:crm"]() == 3)
            await until(lambda: events.queues["webhooks:crm"]() == 3)


async def test_an_endpoint_that_is_gone_says_so_once(sqlite_url):
    events = CallEvents()
    async with receiver() as far:
        far.answer = lambda _: web.Response(status=410)
        log = CallLog(sqlite_url, batch_s=0.01)
        webhooks = Webhooks(log, endpoint(far), retries=QUICK)
        async with log, webhooks:
            log.follow(events)
            Caller(events).start().end()
            await empty_after(log)
            assert len(far.requests) == 2
            assert len(await webhooks.dead_letters()) == 2


@pytest.mark.parametrize("redirect", [301, 302, 307])
async def test_a_redirect_is_not_followed(sqlite_url, redirect):
    events = CallEvents()
    async with receiver() as far, receiver() as elsewhere:
        told = []

        def answer(message):
            told.append(message)
            status = redirect if len(told) == 1 else 200
            return web.Response(status=status, headers={"Location": elsewhere.url})

        far.answer = answer
        log = CallLog(sqlite_url, batch_s=0.01)
        async with log, Webhooks(log, endpoint(far), retries=QUICK):
            log.follow(events)
            Caller(events).start().end()
            await empty_after(log)
        assert len(told) == 3
        assert elsewhere.requests == []


async def test_no_more_calls_than_agreed_are_told_of_at_the_same_time(sqlite_url):
    events = CallEvents()
    async with receiver() as far:
        far.hold = asyncio.Event()
        log = CallLog(sqlite_url, batch_s=0.01)
        async with log, Webhooks(log, endpoint(far, concurrency=3)):
            log.follow(events)
            for _ in range(10):
                Caller(events).start().end()
            await log.flush()
            await until(lambda: len(far.requests) == 3)
            await asyncio.sleep(0.1)
            assert len(far.requests) == 3
            far.hold.set()
            await empty(log)
        assert far.most == 3


async def test_a_receiver_that_never_answers_is_given_its_time_and_then_asked_again(sqlite_url):
    events = CallEvents()
    async with receiver() as far:
        far.hold = asyncio.Event()
        log = CallLog(sqlite_url, batch_s=0.01)
        async with log, Webhooks(log, endpoint(far, timeout_s=0.1), retries=QUICK):
            log.follow(events)
            call = Caller(events).start().end()
            await until(lambda: len(far.requests) >= 2)
            far.hold.set()
            await empty_after(log)
        assert far.by_call() == {str(call.call_id): WHOLE}


async def test_several_processes_share_the_work_and_none_does_it_twice(postgres_url):
    events = CallEvents()
    async with receiver() as far:
        logs = [CallLog(postgres_url, batch_s=0.01) for _ in range(3)]
        hooks = [Webhooks(log, endpoint(far, events=("*",), concurrency=4)) for log in logs]
        writer = logs[0]
        for log in logs:
            await log.open()
        writer.follow(events)
        calls = [Caller(events).start().turn().turn().end() for _ in range(60)]
        await writer.flush()
        for each in hooks:
            await each.open()
        await empty(writer)
        assert min(courier.delivered for each in hooks for courier in each._couriers) > 0
        for each in hooks:
            await each.close()
        assert len(far.taken) == len({message["id"] for message in far.taken}), "nothing twice"
        for call in calls:
            kept = [event.seq for event in await writer.events(call.call_id)]
            assert kept == far.seqs(call.call_id)
        for log in logs:
            await log.close()


async def test_what_a_process_had_leased_is_delivered_by_another_after_the_lease(postgres_url):
    clock, events = steady_clock(100.0), CallEvents()
    async with receiver() as far:
        log = CallLog(postgres_url, batch_s=0.01)
        webhooks = Webhooks(log, endpoint(far, timeout_s=30.0), clock=clock)
        async with log:
            log.follow(events)
            call = Caller(events).start().end()
            await log.flush()
            # Somebody takes it, and dies.
            chains = await webhooks._outbox.lease(
                "crm", owner="dead", now=webhooks._now(), lease_s=200.0, most=5, letters=5
            )
            assert [len(chain.letters) for chain in chains] == [2]
            async with webhooks:
                await clock.sleep(50)
                assert far.taken == []
                await empty(log)
                assert far.by_call() == {str(call.call_id): WHOLE}
                # It was not dead, and settles late: it changes nothing.
                assert not await webhooks._outbox.settle(chains[0], chains[0].letters[:1], None, webhooks._now())
                await empty(log)


async def test_a_stop_in_the_middle_leaves_the_rest_for_the_next(url):
    events = CallEvents()
    async with receiver() as far:
        far.hold = asyncio.Event()
        log = CallLog(url, batch_s=0.01)
        async with log:
            first = Webhooks(log, endpoint(far))
            log.follow(events)
            async with first:
                call = Caller(events).start().end()
                await log.flush()
                await until(lambda: far.requests)
            far.hold.set()
            async with first:
                await empty(log)
        assert far.by_call() == {str(call.call_id): WHOLE}


async def test_what_cannot_be_sent_is_a_message_that_was_not_taken(sqlite_url, monkeypatch):
    events, tried = CallEvents(), []
    async with receiver() as far:
        log = CallLog(sqlite_url, batch_s=0.01)
        async with log, Webhooks(log, endpoint(far), retries=QUICK) as webhooks:
            (courier,) = webhooks._couriers

            class Session:
                def post(self, url, **options):
                    tried.append(url)
                    if len(tried) < 3:
                        raise TypeError("no header of this")
                    return webhooks._session.value.post(url, **options)

            monkeypatch.setattr(courier, "_session", Session())
            log.follow(events)
            call = Caller(events).start().end()
            await empty_after(log)
            assert courier.failed == 2
        assert far.by_call() == {str(call.call_id): WHOLE}


async def test_a_probe_whose_lease_is_over_before_it_begins_is_not_the_last_one(sqlite_url):
    events, slow = CallEvents(), []
    async with receiver() as far:
        far.answer = lambda _: web.Response(status=200 if slow else 500)
        log = CallLog(sqlite_url, batch_s=0.01)
        async with log, Webhooks(log, endpoint(far), retries=QUICK) as webhooks:
            (courier,) = webhooks._couriers
            lease = webhooks._outbox.lease

            async def leased(*args, **kwargs):
                chains = await lease(*args, **kwargs)
                if chains and courier._circuit.state == "probing" and not slow:
                    slow.append(True)  # the database took so long that nothing can be sent in what is left of it
                    chains = [structs.replace(chain, until=kwargs["now"]) for chain in chains]
                return chains

            webhooks._outbox.lease = leased
            log.follow(events)
            call = Caller(events).start().end()
            await empty_after(log)
        assert slow
        assert far.by_call() == {str(call.call_id): WHOLE}


async def test_a_system_whose_clock_is_set_forward_goes_on_delivering_and_signs_with_the_new_time(
    sqlite_url, monkeypatch
):
    class Later(datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime.now(tz) + timedelta(hours=1)

    events = CallEvents()
    async with receiver() as far:
        log = CallLog(sqlite_url, batch_s=0.01)
        async with log, Webhooks(log, endpoint(far)):
            log.follow(events)
            for module in ("delivery.webhooks", "store.writing"):
                monkeypatch.setattr(f"dialog.calls.{module}.datetime", Later)
            call = Caller(events).start().end()
            await empty_after(log)
        assert far.by_call() == {str(call.call_id): WHOLE}
        headers, body = far.requests[-1]
        verify_webhook(SECRET, headers, body, now=lambda: Later.now(UTC).timestamp())


async def test_an_outbox_that_cannot_be_read_for_a_while_is_delivered_afterwards(sqlite_url):
    events = CallEvents()
    async with receiver() as far:
        log = CallLog(sqlite_url, batch_s=0.01)
        async with log, Webhooks(log, endpoint(far)) as webhooks:
            log.follow(events)
            async with log.engine.begin() as connection:
                await connection.execute(text("ALTER TABLE outbox_chains RENAME TO gone"))
            call = Caller(events).start().end()
            await until(lambda: log.status.failing)
            async with log.engine.begin() as connection:
                await connection.execute(text("ALTER TABLE gone RENAME TO outbox_chains"))
            webhooks._wake()
            await empty_after(log)
        assert far.by_call() == {str(call.call_id): WHOLE}


@pytest.mark.parametrize("seed", range(2))
async def test_whatever_a_receiver_answers_all_comes_in_the_end_and_in_order(sqlite_url, seed):
    chance, events = random.Random(seed), CallEvents()

    def answer(_):
        kind = chance.random()
        if kind < 0.6:
            return web.Response()
        headers = {"Retry-After": chance.choice(["0", "nonsense", "1"])} if kind > 0.9 else {}
        return web.Response(status=chance.choice([400, 404, 429, 500, 503]), headers=headers)

    async with receiver() as far:
        far.answer = answer
        log = CallLog(sqlite_url, batch_s=0.01)
        # One that fails again and again is left alone for seconds each time.
        clock, retries = steady_clock(20.0), Retries(first_s=0.4, limit_s=2.0)
        async with log, Webhooks(log, endpoint(far, events=("*",), timeout_s=200.0), retries=retries, clock=clock):
            log.follow(events)
            calls = [Caller(events).start().turn().end() for _ in range(4)]
            await empty_after(log)
            for call in calls:
                kept = [event.seq for event in await log.events(call.call_id)]
                assert kept == far.seqs(call.call_id)


# The shape of Vapi.


async def test_a_receiver_written_for_vapi_is_told_in_its_shape(sqlite_url):
    events = CallEvents()
    async with receiver() as far:
        log = CallLog(sqlite_url, batch_s=0.01)
        vapi = endpoint(far, dialect="vapi", secrets=(), headers={"X-Vapi-Secret": "s"})
        async with log, Webhooks(log, vapi):
            log.follow(events)
            call = Caller(events, session='{"assistant":"a-1","number":"n-1","greeting":"Hi."}').start()
            call.turn("Hi.", "Hello.").tell(ev.TransferChanged, to="+15550100", state="started")
            call.tell(ev.RecordingReady, url="https://carrier.example/1.wav")
            call.end("transferred")
            await empty_after(log)
        messages = [each["message"] for each in far.taken]
        statuses = [m["status"] for m in messages if m["type"] == "status-update"]
        assert statuses == ["ringing", "in-progress", "forwarding", "ended"]
        assert all(headers["X-Vapi-Secret"] == "s" for headers, _ in far.requests)
        assert messages[-2]["endedReason"] == "assistant-forwarded-call"
        last = messages[-1]
        assert last["type"] == "end-of-call-report"
        assert last["call"]["id"] == str(call.call_id)
        assert last["call"]["type"] == "inboundPhoneCall"
        assert (last["call"]["assistantId"], last["call"]["phoneNumberId"]) == ("a-1", "n-1")
        assert (last["customer"], last["phoneNumber"]) == ({"number": "+15551230001"}, {"number": "+15551230002"})
        assert last["startedAt"] == "2026-01-02T03:04:05.000Z"
        assert last["artifact"]["transcript"] == "User: Hi.\nAI: Hello."
        assert [m["role"] for m in last["artifact"]["messages"]] == ["user", "bot"]
        assert last["artifact"]["recording"]["stereoUrl"] == "https://carrier.example/1.wav"


@pytest.mark.parametrize("session", ["customer 17", "[]", '{"assistant": 17}'])
async def test_a_session_of_the_hosts_own_costs_no_message_in_vapis_shape(sqlite_url, session):
    events = CallEvents()
    async with receiver() as far:
        log = CallLog(sqlite_url, batch_s=0.01)
        async with log, Webhooks(log, endpoint(far, dialect="vapi")):
            log.follow(events)
            call = Caller(events, session=session).start().end()
            await empty_after(log)
            assert (await log.call(call.call_id)).end_reason == "caller_hangup"
        types = [each["message"]["type"] for each in far.taken]
        assert types == ["status-update"] * 3 + ["end-of-call-report"]
        assert "assistantId" not in far.taken[-1]["message"]["call"]


@pytest.mark.parametrize(
    ("reason", "told"),
    [
        ("booked", "assistant-ended-call"),
        ("api_hangup", "manually-canceled"),
        ("shutdown", "worker-shutdown"),
        ("lost_worker", "pipeline-error-lost-worker"),
    ],
)
def test_a_receiver_written_for_vapi_takes_no_hang_up_for_a_failure(reason, told):
    events, ends = CallEvents(), []
    events.on(lambda notice: ends.extend(vapi_messages(notice, None)))
    Caller(events).start().end(reason)
    for _, _, body in ends[-2:]:
        assert json.loads(body)["message"]["endedReason"] == told


async def test_a_message_that_cannot_be_made_costs_no_event(sqlite_url, caplog):
    class Broken:
        def messages(self, notice, report):
            raise RuntimeError("no message of this")

    events = CallEvents()
    async with receiver() as far:
        log = CallLog(sqlite_url, batch_s=0.01)
        log.add_maker(Broken())
        async with log, Webhooks(log, endpoint(far)):
            log.follow(events)
            call = Caller(events).start().end()
            await empty_after(log)
            assert (await log.call(call.call_id)).end_reason == "caller_hangup"
            assert log.status.lost == 0
        assert far.by_call() == {str(call.call_id): WHOLE}
    assert "no message of this" in caplog.text
    assert str(call.call_id) in caplog.text


async def test_all_of_vapis_messages_that_need_no_answer_can_be_had(sqlite_url):
    events = CallEvents()
    async with receiver() as far:
        log = CallLog(sqlite_url, batch_s=0.01)
        async with log, Webhooks(log, endpoint(far, dialect="vapi", events=("*",))):
            log.follow(events)
            call = Caller(events, direction="outbound").start()
            call.tell(ev.CallerSpoke, state="started", at_ms=1.0)
            call.turn("Hi.", "Hello.").tell(ev.Interrupted, turn=uuid4(), reason="caller spoke")
            call.end("machine")
            await empty_after(log)
        messages = [each["message"] for each in far.taken]
        assert [m["type"] for m in messages] == [
            "status-update",
            "status-update",
            "speech-update",
            "transcript",
            "transcript",
            "user-interrupted",
            "status-update",
            "end-of-call-report",
        ]
        assert messages[0]["status"] == "queued"
        assert messages[3]["role"] == "user"
        assert messages[4]["transcript"] == "Hello."
        assert messages[-1]["endedReason"] == "voicemail"
        assert messages[-1]["customer"] == {"number": "+15551230002"}


# Signatures.


def signed(body=b"{}", secret=SECRET, at=1_000_000):
    return sign_webhook((secret,), "evt_1", at, body)


def verify(headers, body=b"{}", secret=SECRET, **more):
    return verify_webhook(secret, headers, body, now=lambda: 1_000_010.0, **more)


def test_a_signature_is_known_again_in_any_case_of_letters():
    headers = {name.upper(): value for name, value in signed().items()}
    assert verify(headers) == "evt_1"
    assert verify(signed(secret="any text"), secret="any text") == "evt_1"


def test_while_a_secret_is_changed_both_are_known():
    headers = sign_webhook(("old", SECRET), "evt_1", 1_000_000, b"{}")
    assert verify(headers) == verify(headers, secret="old") == "evt_1"


@pytest.mark.parametrize(
    ("headers", "options"),
    [
        ({}, {}),
        (signed(), {"body": b"{ }"}),
        (signed(), {"secret": "another"}),
        (signed(at=999_000), {}),
        (signed(at=1_001_000), {}),
        ({**signed(), "webhook-id": "evt_2"}, {}),
        ({**signed(), "webhook-timestamp": "1000001"}, {}),
        ({**signed(), "webhook-timestamp": "٣"}, {}),
        ({**signed(), "webhook-timestamp": "9" * 400}, {}),
        ({**signed(), "webhook-signature": "v1,\udcff é"}, {}),
        ({**signed(), "webhook-signature": ""}, {}),
    ],
)
def test_whatever_is_wrong_with_a_webhook_is_found(headers, options):
    with pytest.raises(WebhookInvalid):
        verify(headers, **options)


@pytest.mark.parametrize(
    "options",
    [
        {"url": "crm.example/hook"},
        {"url": "ftp://crm.example/hook"},
        {"name": ""},
        {"concurrency": 0},
        {"timeout_s": 0},
        {"dialect": "xml"},
        {"events": ("call.begun",)},
        {"events": ("call.started",), "dialect": "vapi"},
        {"secrets": ("whsec_***",)},
        {"secrets": ("",)},
        {"headers": {"X-Vapi-Secret": "from-a-file\n"}},
        {"headers": {"X-Tenant": 17}},
        {"headers": {"": "x"}},
    ],
)
def test_an_endpoint_that_cannot_work_is_refused(options):
    with pytest.raises(ConfigurationError):
        WebhookEndpoint(**{"name": "crm", "url": "https://crm.example/hook", **options})


def test_secrets_are_not_shown_and_names_are_unique(sqlite_url):
    one = WebhookEndpoint(
        name="crm", url="https://u:p@crm.example/h?k=v", secrets=("s3cret",), headers={"Authorization": "tok"}
    )
    assert not {"s3cret", "tok", "k=v"} & set(repr(one).replace(">", " ").split())
    with pytest.raises(ConfigurationError):
        Webhooks(CallLog(sqlite_url), one, one)


@pytest.mark.parametrize("options", [{"first_s": 0}, {"limit_s": 1}, {"factor": 0.5}, {"jitter": 1}, {"give_up_s": -1}])
def test_retries_are_checked(options):
    with pytest.raises(ConfigurationError):
        Retries(**options)


def test_waits_grow_to_their_limit_and_heed_what_the_receiver_asks():
    retries = Retries(first_s=1, limit_s=60, jitter=0)
    assert [retries.wait_s(n) for n in (0, 1, 2, 10, 10_000)] == [1, 2, 4, 60, 60]
    assert retries.wait_s(0, asked_s=30) == 30
    assert retries.wait_s(0, asked_s=1e9) == 60

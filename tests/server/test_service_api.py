"""The REST API of a service over real sockets: what can be asked, and every way in which it is refused."""

from __future__ import annotations

import asyncio
import json
import logging
from contextlib import asynccontextmanager
from uuid import UUID, uuid4

import pytest
from service_line import ACCOUNT, FAST, HEADERS, OURS, READER, SECRET, THEIRS, TOKEN, api, service_line
from twilio_phone import Phone, until

from dialog.calls import events as ev
from dialog.calls.feed import declined
from dialog.calls.publish import CallEvents
from dialog.calls.spending import SpendLimit
from dialog.calls.store.log import CallLog
from dialog.message import CallMetadata
from dialog.server.api.core import HttpRequest
from dialog.server.config import ApiToken, PhoneNumber, TwilioTenant
from dialog.sessions.config import AgentConfig
from dialog.sessions.spec import SessionRequest, SessionSpec
from dialog.testing import HummingTTS, ScriptedLLM, ToldSTT
from dialog.testing.callee import Callee
from dialog.testing.server import Faults
from dialog.voip.admission import Reject
from dialog.voip.call import CallSettings
from dialog.voip.destinations import Destinations

OTHER = "AC" + "1" * 32
START = {"assistantId": "desk", "phoneNumberId": "first", "customer": {"number": THEIRS}}


def placed(**more):
    return {**START, **more}


@asynccontextmanager
async def on_a_call(**settings):
    """A line with a call that has been greeted: ``(line, its path in the API, its session)``."""
    async with service_line(**settings) as line:
        await line.phone.call()
        (session,) = line.service.live.live
        await until(lambda: session.transcript)
        yield line, f"/v1/calls/{session.call.call_id}", session


# Placing calls.


async def test_a_call_is_placed_in_the_shape_of_the_seed_and_its_agent_speaks() -> None:
    async with service_line(public=True) as line:
        line.rest.callees[THEIRS] = Callee(light=True)
        answer = await line.client.post("/call/start", placed(context={"order": 7}, somethingElse=1))
        assert answer.status == 201
        assert answer.body["status"] == "initiated"
        (session,) = line.service.live.live
        assert str(session.call.call_id) == answer.body["call_id"]
        await until(lambda: session.transcript)
        assert session.transcript[0].text == "Good day to you."
        assert (session.call.from_, session.call.to, session.call.direction) == (OURS, THEIRS, "outbound")
        context = line.service.get(session.call.call_id).metadata.context
        assert (context["source"], context["order"], context["to"]) == ("api", 7, THEIRS)


async def test_a_placed_call_stands_in_the_log_with_the_id_that_the_carrier_gave_it(tmp_path) -> None:
    async with service_line(public=True, log=f"sqlite:///{tmp_path / 'calls.db'}") as line:
        line.rest.callees[THEIRS] = Callee(light=True)
        answer = await line.client.post("/call/start", placed())
        session, log = line.service.session(UUID(answer.body["call_id"])), line.service.log
        await until(lambda: session.transcript)
        await line.client.post(f"/v1/calls/{session.call.call_id}/hangup")
        await until(lambda: session.end is not None)
        await log.flush()
        (sid,) = (call.sid for call in line.rest.placed)
        assert (await log.call(session.call.call_id)).carrier_call_id == sid
        assert (await log.report(session.call.call_id)).carrier_call_id == sid


async def test_a_machine_that_answers_is_hung_up_on_if_that_is_wanted() -> None:
    async with service_line(public=True) as line:
        line.rest.callees[THEIRS] = Callee(light=True, answered_by="machine_start", verdict_s=0.1)
        detection = {"whenMachine": "hang_up", "verdictS": 20}
        answer = await line.client.post("/call/start", placed(machineDetection=detection))
        assert answer.status == 201
        session = line.service.session(UUID(answer.body["call_id"]))
        await until(lambda: session.end is not None)
        assert session.end.reason == "machine"


@pytest.mark.parametrize(
    ("body", "status", "word"),
    [
        (placed(machineDetection={"whenMachine": "leave_message"}), 422, "message"),
        (placed(machineDetection={"verdictS": 60}), 422, "verdictS"),
        (placed(assistantId="nobody"), 404, "assistant"),
        (placed(phoneNumberId="none"), 404, "phone number"),
        (placed(customer={"number": "0155512"}), 422, "number"),
        (placed(customer={}), 422, "number"),
        ({}, 422, "assistantId"),
        ([], 422, "object"),
    ],
)
async def test_a_call_that_cannot_be_placed_is_refused(body, status, word) -> None:
    async with service_line(public=True) as line:
        answer = await line.client.post("/call/start", body)
        assert (answer.status, answer.kind) == (status, "application/problem+json")
        assert word in answer.body["detail"]
        assert answer.body["status"] == status
        assert not line.rest.placed


async def test_a_resolver_knows_assistants_and_numbers_that_the_configuration_does_not() -> None:
    async def resolve(request: SessionRequest):
        match request.wanted.assistant:
            case "of-the-database":
                return SessionSpec(assistant="desk", number="first", greeting="I come from a database.")
            case "forbidden":
                return Reject()
        return SessionSpec(assistant="desk" if request.wanted.assistant == "desk" else "still-unknown")

    async with service_line(public=True, resolver=resolve) as line:
        line.rest.callees[THEIRS] = Callee(light=True)
        start = placed(assistantId="of-the-database", phoneNumberId="too")
        assert (await line.client.post("/call/start", start)).status == 201
        (session,) = line.service.live.live
        await until(lambda: session.transcript)
        assert session.transcript[0].text == "I come from a database."
        assert (await line.client.post("/call/start", placed(assistantId="forbidden"))).status == 404
        assert (await line.client.post("/call/start", placed(assistantId="else"))).status == 404
        assert (await line.client.post("/call/start", placed(phoneNumberId="else"))).status == 404


async def test_the_resolver_is_not_asked_about_numbers_of_others() -> None:
    asked = []

    async def resolve(request: SessionRequest):
        asked.append(request.wanted.number)
        return Reject("busy")

    numbers = {"first": PhoneNumber(number=OURS, tenant="a"), "second": PhoneNumber(number=THEIRS, tenant="b")}
    tenants = {
        "a": TwilioTenant(account_sid=ACCOUNT, auth_token=TOKEN),
        "b": TwilioTenant(account_sid=OTHER, auth_token=TOKEN),
    }
    tokens = (ApiToken(name="a", token=SECRET, tenants=frozenset({"a"})),)
    settings = {"tenants": tenants, "numbers": numbers, "resolver": resolve, "api": api(tokens=tokens)}
    async with service_line(public=True, **settings) as line:
        statuses = {
            number: (await line.client.post("/call/start", placed(phoneNumberId=number))).status for number in numbers
        }
    assert statuses == {"first": 403, "second": 404}
    assert asked == ["first"]


async def test_a_session_that_the_resolver_does_not_want_is_forbidden() -> None:
    async def resolve(_):
        return Reject("busy")

    async with service_line(public=True, resolver=resolve) as line:
        answer = await line.client.post("/call/start", START)
        assert (answer.status, answer.body["detail"]) == (403, "the session was refused: busy")
        assert not line.rest.placed


async def test_placed_calls_count_for_the_limits() -> None:
    async with service_line(public=True, max_calls=1) as line:
        line.rest.callees[THEIRS] = Callee(light=True)
        answers = await asyncio.gather(*(line.client.post("/call/start", START) for _ in range(3)))
        assert sorted(answer.status for answer in answers) == [201, 429, 429]
        assert (await line.phone.ring()).verbs == ["Reject"]


async def test_a_destination_that_the_settings_do_not_allow_is_forbidden() -> None:
    settings = CallSettings(destinations=Destinations(allow=("+49*",)))
    tenant = TwilioTenant(account_sid=ACCOUNT, auth_token=TOKEN, options={"call_settings": settings})
    async with service_line(public=True, tenants={"main": tenant}) as line:
        answer = await line.client.post("/call/start", START)
        assert answer.status == 403
        assert "destinations" in answer.body["detail"]
        assert THEIRS not in str(answer.body)
        assert not line.rest.placed
        assert not line.service.calls
        sent = {"to": THEIRS, "text": "Come soon.", "phone_number_id": "first"}
        assert (await line.client.post("/v1/messages", sent)).status == 403


async def test_no_call_is_placed_or_taken_once_too_much_was_spent() -> None:
    async with service_line(public=True, spending=SpendLimit(calls=1)) as line:
        line.rest.callees[THEIRS] = Callee(light=True)
        assert (await line.client.post("/call/start", START)).status == 201
        await until(lambda: line.service.config.spending.spent.calls == 1)
        answer = await line.client.post("/call/start", START)
        assert answer.status == 429
        assert "1 calls" in answer.body["detail"]
        assert (await line.phone.ring()).verbs == ["Reject"]
        assert len(line.rest.placed) == 1


async def test_what_the_carrier_or_the_service_cannot_do_is_told() -> None:
    async with service_line(public=True) as line:
        line.rest.faults = Faults(refuse=400)
        answer = await line.client.post("/call/start", START)
        assert answer.status == 502
        assert TOKEN not in str(answer.body)
    async with service_line() as line:
        answer = await line.client.post("/call/start", START)
        assert answer.status == 503
        assert "webhook_url" in answer.body["detail"]
    async with service_line(public=True) as line:
        await line.service.drain(0.1)
        assert (await line.client.post("/call/start", START)).status == 503


# Calls that are there.


async def test_a_call_is_listed_shown_and_ended() -> None:
    async with on_a_call() as (line, path, session):
        (listed,) = (await line.client.get("/v1/calls")).body["calls"]
        assert listed["state"] == "live"
        assert (listed["from"], listed["to"], listed["tenant"]) == (session.call.from_, OURS, "main")
        shown = (await line.client.get(path)).body
        assert shown["metrics"]["agent_turns"] == 1
        assert shown["duration_s"] > 0
        (spoken,) = (await line.client.get(f"{path}/transcript")).body["lines"]
        assert (spoken["role"], spoken["text"]) == ("agent", "Good day to you.")
        line.rest.add_call(session.call.carrier_call_id)
        assert (await line.client.post(f"{path}/hangup")).status == 204
        await until(lambda: session.end is not None)
        assert (await line.client.get(path)).body["end_reason"] == "api_hangup"
        for rest, body in (
            ("hangup", None),
            ("say", {"text": "Hm."}),
            ("whisper", {"text": "Hm."}),
            ("transfer", {"to": THEIRS}),
        ):
            assert (await line.client.post(f"{path}/{rest}", body)).status == 409, rest
        assert (await line.client.get(f"{path}/events")).status == 409
        assert (await line.client.get("/v1/calls")).body["calls"] == []
        (ended,) = (await line.client.get("/v1/calls?state=ended")).body["calls"]
        assert ended["call_id"] == listed["call_id"]


async def test_the_agent_says_what_it_is_told_in_a_turn_of_its_own() -> None:
    async with on_a_call() as (line, path, session):
        assert (await line.client.post(f"{path}/say", {"text": "Your taxi is here."})).status == 202
        await until(lambda: len(session.transcript) == 2)
        assert session.transcript[1].text == "Your taxi is here."


async def test_what_is_whispered_reaches_the_model_and_is_not_said() -> None:
    models: list[ScriptedLLM] = []

    def model() -> ScriptedLLM:
        models.append(ScriptedLLM(lambda request: "Yes."))
        return models[-1]

    desk = AgentConfig(stt=ToldSTT, tts=HummingTTS, llm=model, greeting="Good day to you.")
    async with on_a_call(assistants={"desk": desk}) as (line, path, session):
        assert (await line.client.post(f"{path}/whisper", {"text": "The caller is a member."})).status == 202
        (stt,) = [each for each in line.service.calls[0].scope.members if isinstance(each, ToldSTT)]
        stt.heard("do you know me")
        await until(lambda: len(session.transcript) == 3)
        assert [each.text for each in session.transcript] == ["Good day to you.", "do you know me", "Yes."]
        told = [item for item in models[-1].requests[-1].items if item.role == "developer"]
        assert [item.text for item in told] == ["The caller is a member."]
        assert (await line.client.post(f"{path}/whisper", {"text": " "})).status == 422
        assert (
            await line.client.post(f"{path}/whisper", {"text": "x"}, headers={"Authorization": f"Bearer {READER}"})
        ).status == 403


async def test_the_transcript_of_a_call_that_another_gateway_had_begins_there(tmp_path) -> None:
    url = f"sqlite:///{tmp_path / 'calls.db'}"
    call, turn = CallMetadata(call_id=uuid4(), carrier="twilio", account_id=ACCOUNT), uuid4()
    async with service_line(log=url) as line:
        there, here = CallEvents(), line.service.events
        async with CallLog(url) as log:
            log.follow(there)
            there.publish(call, ev.CallerSaid(seq=1, at_s=1.0, turn=turn, text="A table for two.", final=True))
            reply = {"turn": turn, "part": 0, "text": "At what", "heard": "At", "state": "lost", "heard_ms": 100.0}
            there.publish(call, ev.AgentSaid(seq=2, at_s=2.0, **reply))
            await log.flush()
        here.publish(call, ev.CallResumed(seq=5, at_s=9.0, agent="FrontDesk", lost_s=1.0))
        here.publish(call, ev.CallerSaid(seq=6, at_s=11.0, turn=turn, text="At eight.", final=True))
        path = f"/v1/calls/{call.call_id}"
        lines = (await line.client.get(f"{path}/transcript")).body["lines"]
        assert [each["text"] for each in lines] == ["A table for two.", "At", "At eight."]
        shown = (await line.client.get(path)).body
        assert shown["agent"] == "FrontDesk"
        assert shown["duration_s"] >= 9.0


async def test_a_call_is_transferred() -> None:
    async with on_a_call() as (line, path, session):
        line.rest.add_call(session.call.carrier_call_id)
        answer = await line.client.post(f"{path}/transfer", {"to": THEIRS, "back_within_s": 5})
        assert answer.status == 503  # without its public address nothing can bring the caller back
        assert "webhook_url" in answer.body["detail"]
    async with on_a_call(public=True) as (line, path, session):
        call = line.rest.add_call(session.call.carrier_call_id)
        assert (await line.client.post(f"{path}/transfer", {"to": THEIRS})).status == 204
        assert THEIRS in str(call.updates[-1])


async def test_recordings_are_listed_and_fetched_with_the_carriers_credentials() -> None:
    async with service_line(public=True) as line:
        line.rest.callees[THEIRS] = Callee(light=True)
        call_id = (await line.client.post("/call/start", START)).body["call_id"]
        path = f"/v1/calls/{call_id}"
        session = line.service.live.live[0]
        voip = line.service.get(session.call.call_id)
        await until(lambda: voip.state == "live")
        assert (await line.client.get(f"{path}/recordings")).body["recordings"] == []
        assert (await line.client.get(f"{path}/recordings/0")).status == 404
        await voip.start_recording()
        assert (await line.client.post(f"{path}/hangup")).status == 204
        await until(lambda: session.recordings)
        (recording,) = (await line.client.get(f"{path}/recordings")).body["recordings"]
        assert recording["index"] == 0
        fetched = await line.client.get(f"{path}/recordings/0")
        assert (fetched.status, fetched.kind, fetched.body[:4]) == (200, "audio/wav", b"RIFF")
        assert (await line.client.get(f"{path}/recordings/x")).status == 404


async def test_a_text_message_is_sent_from_a_number_of_the_service() -> None:
    async with service_line() as line:
        answer = await line.client.post("/v1/messages", {"to": THEIRS, "text": "Come soon."})
        assert answer.status == 201
        assert set(answer.body) == {"message_sid", "status", "to"}
        assert answer.body["to"] == THEIRS
        sent = {"to": THEIRS, "text": "Come soon.", "phone_number_id": "first"}
        assert (await line.client.post("/v1/messages", sent)).status == 201
        assert (await line.client.post("/v1/messages", {**sent, "phone_number_id": "x"})).status == 404
        assert (await line.client.post("/v1/messages", {**sent, "to": "12"})).status == 422
        assert (await line.client.post("/v1/messages", {**sent, "text": " "})).status == 422
    async with service_line(numbers={}) as line:
        assert (await line.client.post("/v1/messages", {"to": THEIRS, "text": "x"})).status == 404


async def test_a_refused_message_is_told_to_whoever_asked_and_its_number_to_no_log(caplog) -> None:
    async with service_line() as line:
        line.rest.faults = Faults(refuse=400)
        with caplog.at_level(logging.DEBUG, logger="dialog.server"):
            answer = await line.client.post("/v1/messages", {"to": THEIRS, "text": "secret words"})
        assert answer.status == 502
        assert "send_message failed" in caplog.text
        assert THEIRS not in caplog.text
        assert "secret words" not in caplog.text + str(answer.body)


# Live events.


async def events_of(response):
    """Server-sent events, decoded."""
    event = {}
    async for raw in response.content:
        line = raw.decode().rstrip("\n")
        if line:
            name, _, value = line.partition(": ")
            event[name] = value
        elif "data" in event:
            yield event["event"], json.loads(event["data"])
            event = {}


async def test_the_events_of_all_calls_come_by_server_sent_events() -> None:
    async with service_line() as line, line.session.get(f"{line.origin}/v1/events", headers=HEADERS) as response:
        assert response.headers["Content-Type"] == "text/event-stream"
        assert (await response.content.readline()).startswith(b":")
        await line.phone.call()
        async with asyncio.timeout(5):
            seen = [kind async for kind, _ in _until_event(response, "agent.transcript")]
        assert seen[0] == "call.started"


async def _until_event(response, last):
    async for kind, data in events_of(response):
        yield kind, data
        if kind == last:
            return


async def test_the_events_of_one_call_come_over_a_websocket_up_to_its_end() -> None:
    async with on_a_call() as (line, path, session):
        async with line.session.ws_connect(f"{line.origin}{path}/events", headers=HEADERS) as ws:
            await until(lambda: line.service.events._listeners)
            line.rest.add_call(session.call.carrier_call_id)
            await until(lambda: line.service.api._feeds == 1)
            await line.client.post(f"{path}/hangup")
            kinds = [json.loads(message.data)["type"] async for message in ws]
        assert kinds[-1] == "call.ended"
        await until(lambda: line.service.api._feeds == 0)


async def test_who_asks_for_a_call_in_the_moment_of_its_end_is_told_of_that_and_waits_for_nothing() -> None:
    async with on_a_call() as (line, path, session):
        api = line.service.api
        asked = HttpRequest(
            method="GET", path=f"{path}/events", query={}, headers={"authorization": f"Bearer {SECRET}"}, peer=""
        )
        feed = await api.feed(api.head(asked))
        await line.client.post(f"{path}/hangup")
        await until(lambda: session.end is not None)
        async with asyncio.timeout(5):
            kinds = [happened.kind async for happened in feed if happened is not None]
        assert kinds == ["call.ended"]
        assert api._feeds == 0


async def test_a_reader_that_is_too_slow_is_dropped_with_a_marker() -> None:
    async with service_line(api=api(feed_limit=2)) as line:
        async with line.session.get(f"{line.origin}/v1/events", headers=HEADERS) as response:
            await response.content.readline()
            for _ in range(3):  # in one step of the loop: the reader has no chance
                declined(line.service.events, CallMetadata(call_id=uuid4(), account_id=ACCOUNT), "test")
            async with asyncio.timeout(5):
                kinds = [kind async for kind, _ in events_of(response)]
        assert kinds == ["call.started", "call.ended", "reader.dropped"]


async def test_only_so_many_read_at_once(monkeypatch) -> None:
    monkeypatch.setattr("dialog.server.api.feeds._ALIVE_S", 0.02)  # a reader that is gone is noticed by writing
    async with service_line(api=api(max_feeds=1)) as line:
        async with line.session.get(f"{line.origin}/v1/events", headers=HEADERS) as response:
            await response.content.readline()
            assert (await line.client.get("/v1/events")).status == 429
        await until(lambda: line.service.api._feeds == 0)


async def test_readers_do_not_hold_up_the_end_of_the_server() -> None:
    async with service_line() as line:
        response = await line.session.get(f"{line.origin}/v1/events", headers=HEADERS)
        await response.content.readline()
    response.close()


# Who may ask, and how.


PROTECTED = [
    ("GET", "/v1/calls"),
    ("GET", "/v1/events"),
    ("GET", f"/v1/calls/{uuid4()}"),
    ("GET", f"/v1/calls/{uuid4()}/transcript"),
    ("GET", f"/v1/calls/{uuid4()}/recordings"),
    ("GET", f"/v1/calls/{uuid4()}/recordings/0"),
    ("GET", f"/v1/calls/{uuid4()}/events"),
    ("POST", f"/v1/calls/{uuid4()}/transfer"),
    ("POST", f"/v1/calls/{uuid4()}/hangup"),
    ("POST", f"/v1/calls/{uuid4()}/say"),
    ("POST", f"/v1/calls/{uuid4()}/whisper"),
    ("POST", "/v1/messages"),
    ("POST", "/call/start"),
]
BODIES = {
    "transfer": {"to": THEIRS},
    "say": {"text": "x"},
    "whisper": {"text": "x"},
    "messages": {"to": THEIRS, "text": "x"},
    "start": START,
}


async def test_nothing_is_done_without_a_token_that_may() -> None:
    async with service_line() as line:
        for method, path in PROTECTED:
            for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {SECRET}"}):
                answer = await line.client.ask(method, path, headers=headers)
                assert (answer.status, answer.kind) == (401, "application/problem+json"), path
                assert answer.headers["WWW-Authenticate"].startswith("Bearer")
            if method == "POST":
                answer = await line.client.ask(method, path, headers={"Authorization": f"Bearer {READER}"})
                assert answer.status == 403
                assert "scope" in answer.body["detail"]


async def test_calls_that_are_not_there_are_not_found() -> None:
    async with service_line() as line:
        for method, path in PROTECTED:
            if "/v1/calls/" in path:
                body = BODIES.get(path.rpartition("/")[2])
                assert (await line.client.ask(method, path, body)).status == 404, path
        for strange in ("/v1/calls/no-uuid", "/v1/nothing", "/v1/calls/", f"/v1/calls?before={uuid4()}"):
            assert (await line.client.get(strange)).status == 404, strange


async def test_a_token_of_one_tenant_sees_nothing_of_another() -> None:
    tenants = {
        "a": TwilioTenant(account_sid=ACCOUNT, auth_token=TOKEN, pacing=FAST),
        "b": TwilioTenant(account_sid=OTHER, auth_token=TOKEN),
    }
    tokens = (
        ApiToken(name="a", token="token-of-tenant-a", tenants=frozenset({"a"})),
        ApiToken(name="b", token="token-of-tenant-b", tenants=frozenset({"b"})),
    )
    numbers = {"first": PhoneNumber(number=OURS, tenant="a")}
    async with service_line(public=True, tenants=tenants, numbers=numbers, api=api(tokens=tokens)) as line:
        await Phone(f"{line.origin}/twilio/voice/a", line.session).ring()
        (session,) = line.service.live.live
        theirs = {"Authorization": "Bearer token-of-tenant-a"}
        others = {"Authorization": "Bearer token-of-tenant-b"}
        assert len((await line.client.get("/v1/calls", headers=theirs)).body["calls"]) == 1
        assert (await line.client.get("/v1/calls", headers=others)).body["calls"] == []
        path = f"/v1/calls/{session.call.call_id}"
        for rest in ("", "/transcript", "/recordings", "/recordings/0", "/events"):
            assert (await line.client.get(path + rest, headers=others)).status == 404
        for rest in ("hangup", "say", "whisper", "transfer"):
            assert (await line.client.post(f"{path}/{rest}", BODIES.get(rest), headers=others)).status == 404
        for start in (START, placed(assistantId="nobody")):
            answer = await line.client.post("/call/start", start, headers=others)
            assert (answer.status, answer.body["detail"]) == (404, "there is no phone number of this id")
        message = {"to": THEIRS, "text": "x", "phone_number_id": "first"}
        assert (await line.client.post("/v1/messages", message, headers=others)).status == 404
        async with line.session.get(f"{line.origin}/v1/events", headers=others) as response:
            await response.content.readline()
            await Phone(f"{line.origin}/twilio/voice/a", line.session).ring()
            await Phone(f"{line.origin}/twilio/voice/b", line.session, account=OTHER).ring()
            async with asyncio.timeout(5):
                _, first = await anext(events_of(response))
            assert line.service.session(UUID(first["call_id"])).tenant == "b"


async def test_requests_are_bounded_and_malformed_ones_cost_only_themselves() -> None:
    async with service_line(api=api(max_body=500, body_timeout_s=0.2)) as line:
        ask = line.client.ask
        big = json.dumps(placed(assistantId="x" * 600)).encode()
        typed = {**HEADERS, "Content-Type": "application/json"}
        assert (await ask("POST", "/call/start", data=big, headers=typed)).status == 413

        async def drip():
            yield b"{"
            yield b"x" * 600

        assert (await ask("POST", "/call/start", data=drip(), headers=typed)).status == 413

        async def stall():
            yield b"{"
            await asyncio.sleep(1)

        assert (await ask("POST", "/call/start", data=stall(), headers=typed)).status == 408
        assert (await ask("POST", "/call/start", data=b"{", headers=typed)).status == 400
        assert (await ask("POST", "/call/start", data=b"\xff", headers=typed)).status == 400
        assert (await ask("POST", "/call/start", data=b"a=b", headers=HEADERS)).status == 415
        for method in ("PUT", "DELETE", "GET"):
            answer = await ask(method, "/call/start")
            assert (answer.status, answer.headers["Allow"]) == (405, "POST")
        for query in ("limit=0", "limit=201", "limit=x", "state=x", "before=x"):
            assert (await line.client.get(f"/v1/calls?{query}")).status == 422, query


async def test_a_token_asks_only_so_often() -> None:
    async with service_line(api=api(requests_per_s=0.01, burst=2)) as line:
        statuses = [(await line.client.get("/v1/calls")).status for _ in range(3)]
        assert statuses == [200, 200, 429]
        other = {"Authorization": f"Bearer {READER}"}
        answer = await line.client.get("/v1/calls", headers=other)
        assert answer.status == 200
        wrong = {"Authorization": "Bearer guess"}
        guesses = [(await line.client.get("/v1/calls", headers=wrong)) for _ in range(3)]
        assert [guess.status for guess in guesses] == [401, 401, 429]
        assert int(guesses[-1].headers["Retry-After"]) > 0


async def test_web_pages_may_ask_only_if_they_are_named() -> None:
    named = {"Origin": "https://app.example"}
    stranger = {"Origin": "https://evil.example"}
    async with service_line(api=api(cors_origins=("https://app.example",))) as line:
        asked = await line.client.ask("OPTIONS", "/v1/calls", headers=named)
        assert asked.status == 204
        assert asked.headers["Access-Control-Allow-Origin"] == "https://app.example"
        answer = await line.client.get("/v1/calls", headers={**HEADERS, **named})
        assert answer.headers["Access-Control-Allow-Origin"] == "https://app.example"
        assert (await line.client.ask("OPTIONS", "/v1/calls", headers=stranger)).status == 405
        answer = await line.client.get("/v1/calls", headers={**HEADERS, **stranger})
        assert "Access-Control-Allow-Origin" not in answer.headers
    async with service_line() as line:
        assert (await line.client.ask("OPTIONS", "/v1/calls", headers=named)).status == 405


async def test_a_fault_of_ours_tells_nothing_of_the_inside(monkeypatch, caplog) -> None:
    async with service_line() as line:
        monkeypatch.setattr(type(line.service.live), "live", property(lambda _: 1 / 0))
        with caplog.at_level(logging.ERROR):
            answer = await line.client.get("/v1/calls")
        assert (answer.status, answer.kind) == (500, "application/problem+json")
        assert "division" not in str(answer.body)
        assert "ZeroDivisionError" in caplog.text
        assert SECRET not in caplog.text

"""The REST API of a service in several processes: whichever a request lands in, it sees and steers every call."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from uuid import uuid4

import aiohttp
import pytest
from crew import APPS, TOKEN, crew, until
from service_line import Client
from twilio_phone import Phone

from dialog.testing import WebCaller
from dialog.testing.callee import Callee
from dialog.testing.nats_server import NatsServer
from dialog.testing.twilio_rest import EmulatedRecording
from dialog.testing.web import WebRefused
from dialog.voip.web.messages import AgentTranscript, SessionEnded

ROOT = Path(__file__).parents[2]
HEADERS = {"Authorization": "Bearer a-token-of-the-tests"}
SECOND = {"Authorization": "Bearer a-token-of-the-second"}
PERSON = "+15551230009"
START = {"assistantId": "desk", "phoneNumberId": "ours", "customer": {"number": PERSON}}


@asynccontextmanager
async def worker(nats: NatsServer):
    """A worker of the fleet, in a process of its own."""
    process = await asyncio.create_subprocess_exec(
        *[sys.executable, "-m", "dialog", "worker", f"{APPS / 'house.py'}:on_voip", "--nats", nats.url],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    try:
        yield
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


@asynccontextmanager
async def houses(monkeypatch, *, fleet: bool = False, **settings):
    """The processes of a service, and a client of each."""
    if fleet:
        async with NatsServer() as nats:
            monkeypatch.setenv("NATS_URL", nats.url)
            async with houses(monkeypatch, **settings) as it, worker(nats):
                it.nats = nats
                for at in it.at:
                    async with asyncio.timeout(30):
                        while (await ask(at, "GET", "/ready")).status != 200:
                            await asyncio.sleep(0.02)
                yield it
        return
    async with (
        crew(monkeypatch, app="house.py:config", service=True, path="/twilio/voice", **settings) as it,
        aiohttp.ClientSession() as session,
    ):
        it.url += "/first"
        clients = [Client(f"http://127.0.0.1:{port}", session) for port in it.processes.own_ports]
        yield SimpleNamespace(crew=it, at=clients, session=session, nats=None)


@asynccontextmanager
async def on_a_call(it, *, webhooks: int = 0, media: int = 0, light: bool = True, **options):
    """A caller who was greeted by an agent of the process ``webhooks``; the path of their call."""
    it.crew.route(webhooks=webhooks, media=media)
    async with it.crew.dial(light=light, **options) as caller:
        found = []

        async def greeted() -> bool:
            calls = (await ask(it.at[webhooks], "GET", "/v1/calls")).body["calls"]
            found[:] = [each["call_id"] for each in calls if each["carrier_call_id"] == caller.call_sid]
            lines = found and (await ask(it.at[webhooks], "GET", f"/v1/calls/{found[0]}/transcript")).body
            return bool(lines and lines["lines"])

        async with asyncio.timeout(20):
            while not await greeted():
                await asyncio.sleep(0.02)
        yield caller, f"/v1/calls/{found[0]}"


async def ask(client, method: str, path: str, body=None, *, headers=HEADERS):
    return await client.ask(method, path, body, headers=headers)


over = pytest.mark.parametrize("fleet", [False, True], ids=["siblings", "nats"])


async def a_call_is_seen_and_steered(it):
    far = it.at[1]
    async with on_a_call(it) as (caller, path):
        (listed,) = (await ask(far, "GET", "/v1/calls")).body["calls"]
        assert (listed["state"], listed["tenant"], listed["carrier_call_id"]) == ("live", "first", caller.call_sid)
        shown = (await ask(far, "GET", path)).body
        assert shown["metrics"]["agent_turns"] == 1
        assert (await ask(far, "POST", f"{path}/say", {"text": "From the other process."})).status == 202
        async with asyncio.timeout(10):
            while len(lines := (await ask(far, "GET", f"{path}/transcript")).body["lines"]) < 2:
                await asyncio.sleep(0.02)
        assert lines[0]["text"].startswith("I am process ")
        assert lines[1]["text"] == "From the other process."
        assert (await ask(far, "POST", f"{path}/hangup")).status == 204
        await caller.wait_ended()
    assert caller.ended_by == "agent"
    assert (await ask(far, "GET", path)).body["end_reason"] == "api_hangup"
    last = (await ask(far, "GET", "/v1/calls?state=ended&limit=1")).body["calls"]
    assert [each["call_id"] for each in last] == [listed["call_id"]]
    for rest, body in (("hangup", None), ("say", {"text": "Hm."}), ("transfer", {"to": PERSON})):
        assert (await ask(far, "POST", f"{path}/{rest}", body)).status == 409
    assert (await ask(far, "POST", f"{path}/say", {})).status == 422


async def a_caller_is_transferred(it):
    async with on_a_call(it, media=1, transfer_s=0.1) as (caller, path):
        assert (await ask(it.at[1], "POST", f"{path}/transfer", {"to": PERSON})).status == 204
        await caller.wait_ended()
        assert "Dial" in [verb.name for verb in caller.verbs]
        await ended(it.at[1], path, "transferred")


async def ended(client, path: str, reason: str) -> None:
    async with asyncio.timeout(10):
        while (await ask(client, "GET", path)).body["end_reason"] != reason:
            await asyncio.sleep(0.02)


async def the_events_of_a_call_are_streamed_up_to_its_end(it):
    async with on_a_call(it) as (caller, path):
        async with (
            it.session.get(it.at[0].origin + f"{path}/events", headers=HEADERS) as near,
            it.session.get(it.at[1].origin + f"{path}/events", headers=HEADERS) as far,
            it.session.ws_connect(it.at[1].origin + f"{path}/events", headers=HEADERS) as ws,
        ):
            for each in (near, far):
                assert await each.content.readline() == b": still here\n"
            assert (await ask(it.at[1], "POST", f"{path}/say", {"text": "Listen."})).status == 202
            told = []
            async with asyncio.timeout(10):
                while not told or told[-1]["type"] != "agent.transcript":
                    told.append(json.loads((await ws.receive()).data))
            await caller.hang_up()
            async with asyncio.timeout(10):
                here, there = events_in(await near.content.read()), events_in(await far.content.read())
                told.extend([json.loads(message.data) async for message in ws])
        assert here == there
        assert told[-1] == there[-1]
        assert there[-1]["type"] == "call.ended"
        assert any(event.get("heard") == "Listen." for event in there)
        assert (await ask(it.at[1], "GET", f"{path}/events")).status == 409


def events_in(sent: bytes) -> list[dict]:
    return [json.loads(line[6:]) for line in sent.splitlines() if line.startswith(b"data: ")]


async def the_events_of_all_processes_are_one_stream(it):
    async with (
        it.session.ws_connect(it.at[1].origin + "/v1/events", headers=HEADERS) as all_of_them,
        it.session.ws_connect(it.at[1].origin + "/v1/events", headers=SECOND) as of_the_second,
    ):
        started = {}
        async with on_a_call(it), on_a_call(it, webhooks=1, media=1):
            async with asyncio.timeout(10):
                while len(started) < 2:
                    event = json.loads((await all_of_them.receive()).data)
                    if event["type"] == "call.started":
                        started[event["call_id"]] = event
        with pytest.raises(TimeoutError):
            await of_the_second.receive(timeout=0.1)


async def lists_have_pages_and_tokens_see_their_tenants(it):
    async with (
        on_a_call(it) as (_, first),
        on_a_call(it, webhooks=1, media=1) as (_, second),
    ):
        for at in it.at:
            both = (await ask(at, "GET", "/v1/calls")).body
            assert [f"/v1/calls/{call['call_id']}" for call in both["calls"]] == [second, first]
            assert both["complete"]
            newest = (await ask(at, "GET", "/v1/calls?limit=1")).body["calls"]
            assert [call["call_id"] for call in newest] == [second[-36:]]
            older = (await ask(at, "GET", f"/v1/calls?limit=1&before={second[-36:]}")).body["calls"]
            assert [call["call_id"] for call in older] == [first[-36:]]
            assert (await ask(at, "GET", f"/v1/calls?before={uuid4()}")).status == 404
            assert (await ask(at, "GET", "/v1/calls", headers=SECOND)).body["calls"] == []
            for path in (first, second):
                assert (await ask(at, "GET", path, headers=SECOND)).status == 404
                assert (await ask(at, "POST", f"{path}/hangup", headers=SECOND)).status == 404
                assert (await ask(at, "GET", f"{path}/events", headers=SECOND)).status == 404
            assert (await ask(at, "GET", f"/v1/calls/{uuid4()}")).status == 404


async def the_recordings_of_a_call_are_fetched(it):
    twilio = it.crew.twilio
    async with on_a_call(it) as (caller, path):
        sid = "RE" + "2" * 32
        twilio.recordings[sid] = EmulatedRecording(sid=sid, call_sid=caller.call_sid, status="completed")
        url = f"{twilio.url}/2010-04-01/Accounts/{twilio.account_sid}/Recordings/{sid}"
        phone = Phone(it.crew.url, it.session, TOKEN, twilio.account_sid)
        report = phone.form(caller.call_sid, RecordingSid=sid, RecordingStatus="completed", RecordingUrl=url)
        status, _, _ = await phone.post(f"{it.crew.url}/recording?call={path[-36:]}", report)
        assert status == 204
        async with asyncio.timeout(10):  # it is an event of the agent's, who may be in a worker
            while not (found := (await ask(it.at[1], "GET", f"{path}/recordings")).body["recordings"]):
                await asyncio.sleep(0.02)
        assert [each["url"] for each in found] == [url]
        assert (await ask(it.at[1], "GET", f"{path}/recordings/0")).body.startswith(b"RIFF")
        assert (await ask(it.at[1], "GET", f"{path}/recordings/1")).status == 404


async def clients_are_let_in_at_any_process_and_once(it):
    near, far = it.at[1], it.at[0]
    wanted = {"user": "ada", "tenant": "second", "session": {"context": {"order": 7}}}
    told = (await ask(far, "POST", "/v1/client-token", wanted)).body
    path = f"/v1/calls/{told['call_id']}"
    async with WebCaller.connect(near.origin + told["path"], token=told["token"]) as caller:
        said = await caller.wait_for(AgentTranscript, lambda each: each.state == "played")
        assert said.heard.startswith("I am process ")
        for at in it.at:
            (listed,) = (await ask(at, "GET", "/v1/calls", headers=SECOND)).body["calls"]
            assert (listed["call_id"], listed["carrier"], listed["from"]) == (told["call_id"], "web", "ada")
        with pytest.raises(WebRefused) as refused:
            async with WebCaller.connect(far.origin + told["path"], token=told["token"]):
                pass
        assert refused.value.close_code == 4401, "the token was used at the other process"
        assert (await ask(far, "POST", f"{path}/hangup")).status == 204
        assert (await caller.wait_for(SessionEnded)).reason == "api_hangup"


async def limits_count_all_calls(it):
    it.crew.twilio.callees[PERSON] = Callee(light=True)
    for _ in range(3):  # whoever is first, there are never more
        answers = await asyncio.gather(*(ask(at, "POST", "/call/start", START) for at in it.at * 3))
        assert sorted(answer.status for answer in answers) == [201] * 2 + [429] * 4
        placed = [f"/v1/calls/{answer.body['call_id']}" for answer in answers if answer.status == 201]
        it.crew.route(webhooks=1, media=1)
        async with it.crew.dial(light=True) as caller:
            await caller.wait_ended()
        assert [verb.name for verb in caller.verbs] == ["Reject"]
        for path in placed:
            assert (await ask(it.at[0], "POST", f"{path}/hangup")).status == 204
        for path in placed:
            await ended(it.at[0], path, "api_hangup")


@over
async def test_whichever_process_a_request_lands_in_it_sees_and_steers_every_call(monkeypatch, fleet):
    monkeypatch.setenv("MAX_CALLS", "2")
    async with houses(monkeypatch, fleet=fleet) as it:  # to start them takes longer than all of this
        await a_call_is_seen_and_steered(it)
        await a_caller_is_transferred(it)
        await the_events_of_a_call_are_streamed_up_to_its_end(it)
        await the_events_of_all_processes_are_one_stream(it)
        await lists_have_pages_and_tokens_see_their_tenants(it)
        await the_recordings_of_a_call_are_fetched(it)
        await clients_are_let_in_at_any_process_and_once(it)
        await limits_count_all_calls(it)


@over
async def test_a_process_that_dies_takes_only_its_own_calls_with_it(monkeypatch, fleet):
    async with (
        houses(monkeypatch, fleet=fleet) as it,
        on_a_call(it, webhooks=1, media=1) as (_, stays),
        on_a_call(it) as (_, dies),
        it.session.ws_connect(it.at[1].origin + "/v1/events", headers=HEADERS) as everything,
        it.session.ws_connect(it.at[1].origin + f"{dies}/events", headers=HEADERS) as of_one,
    ):
        it.crew.route(webhooks=1, media=1)
        os.kill(it.crew.processes.pids[0], signal.SIGKILL)
        async with asyncio.timeout(10):
            last = json.loads((await of_one.receive()).data)
            assert last["type"] in ("reader.dropped", "call.ended")
        # In a fleet the other gateway goes on with it.
        expected = {stays[-36:], dies[-36:]} if fleet else {stays[-36:]}
        async with asyncio.timeout(10):
            while {each["call_id"] for each in (await ask(it.at[1], "GET", "/v1/calls")).body["calls"]} != expected:
                await asyncio.sleep(0.02)
        assert (await ask(it.at[1], "POST", f"{stays}/say", {"text": "Still here."})).status == 202
        async with asyncio.timeout(10):
            while json.loads((await everything.receive()).data).get("heard") != "Still here.":
                pass
        # The next process of that place is one of them.
        await until(lambda: it.crew.processes.ready)
        async with on_a_call(it, webhooks=0, media=1) as (_, new):
            async with asyncio.timeout(10):
                while json.loads((await everything.receive()).data)["call_id"] != new[-36:]:
                    pass
            assert (await ask(it.at[1], "POST", f"{new}/hangup")).status == 204


async def test_a_process_that_hangs_is_missing_from_lists_and_holds_nobody_up(monkeypatch):
    monkeypatch.setenv("MAX_CALLS", "2")
    async with (
        houses(monkeypatch) as it,
        on_a_call(it) as (_, hangs),
        on_a_call(it, webhooks=1, media=1) as (_, path),
    ):
        os.kill(it.crew.processes.pids[0], signal.SIGSTOP)
        try:
            async with asyncio.timeout(10):
                found = (await ask(it.at[1], "GET", "/v1/calls")).body
                assert [each["call_id"] for each in found["calls"]] == [path[-36:]]
                assert not found["complete"]
                assert (await ask(it.at[1], "POST", "/call/start", START)).status == 429, "its call still counts"
                for request in (("GET", hangs), ("POST", f"{hangs}/hangup"), ("GET", f"{hangs}/events")):
                    answer = await ask(it.at[1], *request)
                    assert (answer.status, answer.headers["Retry-After"]) == (503, "1"), "nobody knows whose it is"
                assert (await ask(it.at[1], "POST", f"{path}/hangup")).status == 204
        finally:
            os.kill(it.crew.processes.pids[0], signal.SIGCONT)
        async with asyncio.timeout(20):
            while not (await ask(it.at[1], "GET", "/v1/calls")).body["complete"]:
                pass
        assert (await ask(it.at[1], "GET", hangs)).status == 200


async def test_text_messages_and_the_call_log_are_those_of_any_process(monkeypatch, tmp_path):
    monkeypatch.setenv("CALL_LOG", f"sqlite:///{tmp_path / 'calls.db'}")
    async with houses(monkeypatch) as it:
        for at in it.at:
            message = {"to": PERSON, "text": "Hello.", "phone_number_id": "ours"}
            assert (await ask(at, "POST", "/v1/messages", message)).status == 201
        async with on_a_call(it) as (caller, path):
            await caller.hang_up()
        async with asyncio.timeout(10):
            while not (found := (await ask(it.at[1], "GET", "/v1/calls?state=ended")).body["calls"]):
                await asyncio.sleep(0.02)
        assert [each["call_id"] for each in found] == [path[-36:]]
        # A process that has died leaves what it wrote.
        os.kill(it.crew.processes.pids[0], signal.SIGKILL)
        async with asyncio.timeout(10):
            while True:
                lines = (await ask(it.at[1], "GET", f"{path}/transcript")).body.get("lines")
                if lines:
                    break
                await asyncio.sleep(0.02)
        assert lines[0]["text"].startswith("I am process ")

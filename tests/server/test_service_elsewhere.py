"""A service in a host's own ASGI application, with its agents in other processes, and against its own description."""

from __future__ import annotations

import asyncio
import json
import os
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import schemathesis
import uvicorn
from hypothesis import HealthCheck, settings
from schemathesis.checks import CHECKS, load_all_checks
from service_line import ACCOUNT, HEADERS, THEIRS, TOKEN, assistant, service_line
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route
from twilio_phone import Phone, until

from dialog.calls.events import AgentTold
from dialog.server.config import ClientSettings, TwilioTenant
from dialog.sessions.spec import SessionSpec
from dialog.testing.callee import Callee
from dialog.workers.pool import WorkerPool

OTHER = "AC" + "1" * 32
APP = Path(__file__).parent / "apps" / "desk.py"


@asynccontextmanager
async def as_asgi(listening, service, *, mount=""):
    """Serve with uvicorn, inside a host's application."""

    @asynccontextmanager
    async def lifespan(_):
        await service.start()
        yield
        await service.close()

    async def home(_):
        return PlainTextResponse("the host's own page")

    routes = [Route("/home", home), Mount(mount or "/", app=service.asgi())]
    config = uvicorn.Config(
        Starlette(routes=routes, lifespan=lifespan), log_config=None, ws="websockets-sansio", lifespan="on"
    )
    server = uvicorn.Server(config)
    running = asyncio.create_task(server.serve(sockets=[listening]), name="uvicorn")
    await until(lambda: server.started)
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        await running


async def test_a_service_works_inside_a_hosts_asgi_application() -> None:
    async with service_line(serve=as_asgi, public=True) as line:
        assert (await line.client.get("/home")).body == b"the host's own page"
        for path in ("/", "/health", "/ready", "/openapi.json", "/metrics"):
            assert (await line.client.get(path, headers={})).status == 200, path
        await line.phone.call()
        assert b"dialog_calls" in (await line.client.get("/metrics")).body
        (session,) = line.service.live.live
        await until(lambda: session.transcript)
        path = f"/v1/calls/{session.call.call_id}"
        async with (
            line.session.get(f"{line.origin}/v1/events", headers=HEADERS) as told,
            line.session.ws_connect(f"{line.origin}{path}/events", headers=HEADERS) as ws,
        ):
            await told.content.readline()
            await until(lambda: line.service.api._feeds == 2)
            assert (await line.client.post(f"{path}/say", {"text": "One moment."})).status == 202
            said = [json.loads((await ws.receive()).data)["type"] for _ in range(1)]
            assert said
            async with asyncio.timeout(5):
                while b"agent.transcript" not in await told.content.readline():
                    pass
        await until(lambda: line.service.api._feeds == 0)
        assert (await line.client.get(path, headers={})).status == 401
        assert (await line.client.post("/call/start", {"x": 1})).status == 422
        assert (await line.client.get("/nothing")).status == 404
        with pytest.raises(Exception, match="401"):
            await line.session.ws_connect(f"{line.origin}{path}/events")


async def test_a_service_can_be_mounted_at_a_path_of_the_hosts_choosing() -> None:
    @asynccontextmanager
    async def below(listening, service):
        async with as_asgi(listening, service, mount="/voice") as origin:
            yield origin

    async with service_line(serve=below) as line:
        line.phone.url = f"{line.origin}/voice/twilio/voice"
        document = await line.phone.ring()
        assert document.stream.get("url").endswith("/voice/ws/twilio")
        await line.phone.call()
        assert len((await line.client.get("/voice/v1/calls")).body["calls"]) == 2


async def test_agents_in_worker_processes_get_their_session_and_say_what_they_are_told() -> None:
    async def resolve(request):
        return SessionSpec(context={"customer": 17}) if request.call.from_ else SessionSpec(greeting="Hello.")

    pool = WorkerPool(f"{APP}:config.on_voip", processes=1)
    async with service_line(workers=pool, resolver=resolve) as line:
        await until_ready(line)
        await line.phone.call()
        (session,) = line.service.live.live
        await until(lambda: session.transcript)
        assert session.transcript[0].text.startswith("I am process ")
        assert str(os.getpid()) not in session.transcript[0].text
        assert session.call.context["customer"] == 17
        path = f"/v1/calls/{session.call.call_id}"
        assert (await line.client.post(f"{path}/say", {"text": "From outside."})).status == 202
        await until(lambda: len(session.transcript) == 2)
        assert session.transcript[1].text == "From outside."
        told: list[str] = []
        line.service.events.on(lambda notice: isinstance(notice.event, AgentTold) and told.append(notice.event.text))
        assert (await line.client.post(f"{path}/whisper", {"text": "The caller is a member."})).status == 202
        await until(lambda: told == ["The caller is a member."])
        await line.phone.ring(From="")
        shown = (await line.client.get(path)).body
        assert shown["metrics"]["agent_turns"] == 2


async def test_tenants_share_workers_which_close_with_the_last_of_them() -> None:
    tenants = {
        "a": TwilioTenant(account_sid=ACCOUNT, auth_token=TOKEN),
        "b": TwilioTenant(account_sid=OTHER, auth_token=TOKEN),
    }
    pool = WorkerPool(f"{APP}:config.on_voip", processes=1)
    async with service_line(tenants=tenants, numbers={}, workers=pool) as line:
        await until_ready(line)
        (pid,) = pool.pids.values()
        await line.service.gateways["a"].close()
        phone = Phone(f"{line.origin}/twilio/voice/b", line.session, account=OTHER)
        socket = await phone.call()
        (session,) = line.service.live.live
        assert session.tenant == "b"
        assert await socket.hear(), "a worker speaks"
        os.kill(pid, 0)
        await socket.stop()
        await until(lambda: session.end is not None)
        await socket.ws.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def until_ready(line):
    async with asyncio.timeout(30):
        while (await line.client.get("/ready")).status != 200:
            await asyncio.sleep(0.05)


async def test_the_answers_are_those_of_the_openapi_document() -> None:
    clients = ClientSettings()
    async with service_line(public=True, assistants={"desk": assistant()}, clients=clients) as line:
        line.rest.callees[THEIRS] = Callee(outcome="busy")
        await line.phone.call()
        call = line.service.live.live[0].call
        line.rest.add_call(call.carrier_call_id)
        call_id = str(call.call_id)
        document = (await line.client.get("/openapi.json")).body
        await asyncio.to_thread(try_all, line.origin, document, call_id)


def try_all(origin, document, call_id) -> None:
    """What schemathesis makes up of the document, at operations that answer at once."""
    schema = schemathesis.openapi.from_dict(document)
    skipped = {"events", "call_events"}  # they go on until they are left
    tried = set()
    for result in schema.get_all_operations():
        operation = result.ok()
        name = operation.definition.raw["operationId"]
        if name in skipped:
            continue

        @settings(max_examples=15, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
        @schemathesis_cases(operation)
        def check(case):
            if "call_id" in case.path_parameters:
                case.path_parameters["call_id"] = call_id
            response = case.call(base_url=origin, headers=HEADERS, timeout=10)
            case.validate_response(response, excluded_checks=EXCLUDED)

        check()
        tried.add(name)
    assert len(tried) == sum(len(each) for each in document["paths"].values()) - len(skipped)


def schemathesis_cases(operation):
    from hypothesis import given

    return given(case=operation.as_strategy())


# An id that is well-formed and names nothing is refused, rightly; so is a number that the carrier cannot call.
load_all_checks()
EXCLUDED = [CHECKS.get_one("positive_data_acceptance"), CHECKS.get_one("ignored_auth")]

"""Browsers and apps at a service: let in by REST, and looked after like telephones."""

from __future__ import annotations

import json
from uuid import UUID

import pytest
from service_line import ACCOUNT, HEADERS, THEIRS, TOKEN, api, assistant, service_line
from test_service_elsewhere import APP, as_asgi, until_ready
from twilio_phone import until

from dialog.errors import ConfigurationError
from dialog.server.config import ApiToken, ClientSettings, ServiceConfig, TwilioTenant
from dialog.server.service import Service
from dialog.sessions.spec import SessionRequest, SessionSpec
from dialog.testing import RtcCaller, WebCaller
from dialog.testing.web import WebRefused
from dialog.voip.admission import Reject, Say
from dialog.voip.web.messages import AgentTranscript, SessionEnded
from dialog.voip.web.rtc.settings import WebRTC
from dialog.workers.pool import WorkerPool

CLIENTS = ClientSettings()
DESKS = {"desk": assistant(greeting="Good day to you."), "night": assistant(greeting="Good night.")}


async def token(line, headers=HEADERS, **body):
    answer = await line.client.post("/v1/client-token", body, headers=headers)
    assert answer.status == 201, answer.body
    return answer.body


def connect(line, told, **more):
    return WebCaller.connect(f"{line.origin}{told['path']}", token=told["token"], **more)


async def greeted(caller) -> str:
    return (await caller.wait_for(AgentTranscript, lambda said: said.state == "played")).heard


@pytest.mark.parametrize("asgi", [False, True], ids=["aiohttp", "asgi"])
async def test_a_client_with_a_token_talks_and_is_seen_steered_and_ended_by_rest(asgi) -> None:
    more = {"serve": as_asgi} if asgi else {}
    async with service_line(clients=CLIENTS, **more) as line:
        told = await token(line, user="ada", session={"context": {"order": 7}})
        assert told["path"] == "/ws/realtime"
        path = f"/v1/calls/{told['call_id']}"
        assert (await line.client.get(path)).status == 404, "it has not begun"
        async with connect(line, told) as caller:
            assert str(caller.started.session) == told["call_id"]
            assert await greeted(caller) == "Good day to you."
            (listed,) = (await line.client.get("/v1/calls")).body["calls"]
            assert (listed["call_id"], listed["state"], listed["carrier"]) == (told["call_id"], "live", "web")
            assert (listed["from"], listed["tenant"], listed["agent"]) == ("ada", "main", "Agent")
            (session,) = line.service.live.live
            assert session.call.context["order"] == 7
            assert session.call.context["source"] == "client"
            async with line.session.ws_connect(f"{line.origin}{path}/events", headers=HEADERS) as ws:
                await until(lambda: line.service.api._feeds == 1)
                assert (await line.client.post(f"{path}/say", {"text": "One moment."})).status == 202
                await until(lambda: len(session.transcript) == 2)
                assert (await line.client.post(f"{path}/transfer", {"to": THEIRS})).status == 501
                assert (await line.client.get(f"{path}/recordings")).body["recordings"] == []
                assert (await line.client.post(f"{path}/hangup")).status == 204
                assert (await caller.wait_for(SessionEnded)).reason == "api_hangup"
                kinds = [json.loads(message.data)["type"] async for message in ws]
            assert {"agent.transcript", "call.ended"} <= set(kinds)
        shown = (await line.client.get(path)).body
        assert (shown["state"], shown["end_reason"], shown["metrics"]["agent_turns"]) == ("ended", "api_hangup", 2)
        lines = (await line.client.get(f"{path}/transcript")).body["lines"]
        assert [each["text"] for each in lines] == ["Good day to you.", "One moment."]
        if asgi:
            assert (await line.client.get(told["path"])).status == 426
        with pytest.raises(WebRefused) as refused:
            async with connect(line, told):
                pass
        assert refused.value.close_code == 4401, "a token is used once"


@pytest.mark.parametrize("asgi", [False, True], ids=["aiohttp", "asgi"])
async def test_a_client_may_come_by_webrtc(asgi) -> None:
    more = {"serve": as_asgi} if asgi else {}
    async with service_line(clients=ClientSettings(webrtc=WebRTC()), **more) as line:
        told = await token(line, user="ada")
        async with RtcCaller.connect(f"{line.origin}{told['path']}", token=told["token"]) as caller:
            assert await greeted(caller) == "Good day to you."
            assert str(caller.started.session) == told["call_id"]


async def test_the_session_is_as_the_token_says_whatever_the_client_asks_for() -> None:
    async with service_line(clients=CLIENTS, assistants=DESKS, default_assistant="desk") as line:
        signed = {"assistant": "night", "system": "You are kind.", "context": {"plan": "gold"}}
        told = await token(line, session=signed)
        wishes = {"system": "Obey me.", "context": '{"plan":"free"}', "provider": "openai"}
        async with connect(line, told, agent="desk", parameters=wishes) as caller:
            assert await greeted(caller) == "Good night."
            (session,) = line.service.live.live
            spec = SessionSpec.from_json(session.call.session)
            assert (spec.assistant, spec.system, spec.provider) == ("night", "You are kind.", "")
            assert session.call.context["plan"] == "gold"
            assert session.call.context["client"] == wishes, "it is told all the same"
        async with connect(line, await token(line)) as caller:
            assert await greeted(caller) == "Good day to you.", "the default one"
        async with connect(line, await token(line), agent="night") as caller:
            assert await greeted(caller) == "Good night.", "a token that names none lets the client choose"


async def test_an_assistant_that_is_a_function_takes_clients_too() -> None:
    def own(voip) -> None:
        assistant(greeting=f"Hello {voip.metadata.context['name']}.").make(voip).activate()

    async with service_line(clients=CLIENTS, assistants={"own": own}) as line:
        async with connect(line, await token(line, session={"context": {"name": "Ada"}})) as caller:
            assert await greeted(caller) == "Hello Ada."
        wrong = {"session": {"greeting": "Hi."}}
        assert (await line.client.post("/v1/client-token", wrong)).status == 422, "it cannot be changed"


async def test_the_resolver_has_the_last_word_on_clients_too() -> None:
    seen: list[SessionRequest] = []

    async def resolve(request: SessionRequest):
        seen.append(request)
        match request.wanted.context.get("plan"):
            case "none":
                return Say("Please pay first.")
            case "busy":
                return Reject("busy")
        return SessionSpec(assistant="desk", greeting=f"Dear {request.call.from_}.")

    async with service_line(clients=CLIENTS, resolver=resolve) as line:
        told = await token(line, user="Ada", session={"assistant": "of-the-database", "context": {"plan": "gold"}})
        async with connect(line, told) as caller:
            assert await greeted(caller) == "Dear Ada."
        assert (seen[0].source, seen[0].verified, seen[0].wanted.assistant) == ("client", True, "of-the-database")
        for plan, code in (("none", 4403), ("busy", 4503)):
            with pytest.raises(WebRefused) as refused:
                async with connect(line, await token(line, session={"context": {"plan": plan}})):
                    pass
            assert refused.value.close_code == code
        ended = (await line.client.get("/v1/calls?state=ended")).body["calls"]
        assert [each["end_reason"] for each in ended[:2]] == ["declined", "declined"]


async def test_clients_and_telephones_share_the_limits() -> None:
    def tenants(rest):
        return {"main": TwilioTenant(account_sid=ACCOUNT, auth_token=TOKEN, base_url=rest.url, max_calls=2)}

    async with service_line(clients=CLIENTS, tenants=tenants) as line:
        async with connect(line, await token(line)) as caller:
            assert caller.started is not None
            assert (await line.phone.ring()).verbs == ["Connect"]
            assert (await line.phone.ring()).verbs == ["Reject"]
            with pytest.raises(WebRefused) as refused:
                async with connect(line, await token(line)):
                    pass
            assert refused.value.close_code == 4503
        await until(lambda: len(line.service.live.live) == 1)
        assert (await line.phone.ring()).verbs == ["Connect"]
    async with service_line(clients=CLIENTS, max_calls=1) as line, connect(line, await token(line)):
        assert (await line.phone.ring()).verbs == ["Reject"]


async def test_without_a_token_nobody_is_let_in_unless_that_is_said() -> None:
    async with service_line(clients=CLIENTS) as line:
        for wrong in ("", "x.y"):
            with pytest.raises(WebRefused) as refused:
                async with connect(line, {"path": "/ws/realtime", "token": wrong}):
                    pass
            assert refused.value.close_code == 4401
    nothing = {"path": "/talk", "token": ""}
    settings = ClientSettings(path="/talk", token_optional=True)
    async with service_line(clients=settings) as line, connect(line, nothing) as caller:  # from this machine
        assert await greeted(caller) == "Good day to you."


async def test_what_cannot_be_a_session_gets_no_token() -> None:
    async with service_line(clients=CLIENTS) as line:
        for body, status in (
            ({"session": {"assistant": "nobody"}}, 404),
            ({"tenant": "nobody"}, 404),
            ({"session": {"tools": ["none"]}}, 422),
            ({"session": {"max_duration_s": 0}}, 422),
            ({"session": {"colour": "red"}}, 422),
            ({"session": {"system": "x" * 20_000}}, 422),
            ({"life_s": 3601}, 422),
        ):
            answer = await line.client.post("/v1/client-token", body)
            assert (answer.status, answer.kind) == (status, "application/problem+json"), body
    async with service_line() as line:
        assert (await line.client.post("/v1/client-token", {})).status == 404
        assert (await line.client.get("/ws/realtime")).status == 404


async def test_tokens_are_handed_out_for_ones_own_tenants_and_only_with_the_scope() -> None:
    def tenants(rest):
        other = TwilioTenant(account_sid="AC" + "1" * 32, auth_token=TOKEN)
        return {"a": TwilioTenant(account_sid=ACCOUNT, auth_token=TOKEN, base_url=rest.url), "b": other}

    tokens = (
        ApiToken(name="a", token="token-of-tenant-a", tenants=frozenset({"a"})),
        ApiToken(name="ab", token="token-of-a-and-b", tenants=frozenset({"a", "b"})),
        ApiToken(name="all", token="token-of-everybody"),
        ApiToken(name="reader", token="token-of-a-reader", scopes=frozenset({"calls:read"})),
    )
    a, both, everybody, reader = ({"Authorization": f"Bearer {each.token}"} for each in tokens)
    async with service_line(clients=CLIENTS, tenants=tenants, numbers={}, api=api(tokens=tokens)) as line:

        async def whose(headers, **body) -> str:
            told = await token(line, headers, **body)
            async with connect(line, told):
                return line.service.session(UUID(told["call_id"])).tenant

        assert await whose(a) == "a"
        assert await whose(both, tenant="b") == "b"
        assert await whose(everybody, tenant="b") == "b"
        assert await whose(everybody) == ""
        for headers, body, status in ((a, {"tenant": "b"}, 404), (both, {}, 404), (reader, {}, 403)):
            assert (await line.client.post("/v1/client-token", body, headers=headers)).status == status
        assert len((await line.client.get("/v1/calls?state=ended", headers=a)).body["calls"]) == 1


async def test_a_service_of_clients_alone_needs_no_account() -> None:
    async with service_line(clients=CLIENTS, tenants={}, numbers={}) as line:
        assert (await line.client.get("/ready")).status == 200
        async with connect(line, await token(line)) as caller:
            assert await greeted(caller) == "Good day to you."
            assert line.service.live.live[0].tenant == ""


async def test_their_agents_run_in_the_workers_that_telephones_have() -> None:
    pool = WorkerPool(f"{APP}:config.on_voip", processes=1)
    async with service_line(workers=pool, clients=CLIENTS) as line:
        await until_ready(line)
        async with connect(line, await token(line)) as caller:
            assert (await greeted(caller)).startswith("I am process ")
        await line.phone.call()
        await until(lambda: line.service.live.live and line.service.live.live[0].transcript)


async def test_a_draining_service_takes_no_clients() -> None:
    async with service_line(clients=CLIENTS) as line:
        told = await token(line)
        assert await line.service.drain(1.0)
        with pytest.raises(WebRefused) as refused:
            async with connect(line, told):
                pass
        assert refused.value.close_code == 4503


def test_processes_of_one_configuration_know_each_others_tokens() -> None:
    def service(**clients) -> Service:
        return Service(
            ServiceConfig(
                assistants={"desk": assistant()},
                tenants={"main": TwilioTenant(account_sid=ACCOUNT, auth_token=TOKEN)},
                clients=ClientSettings(**clients),
            )
        )

    text, call_id = service().client_token(SessionSpec())
    assert service().clients._tokens.verify(text).call_id == call_id
    with pytest.raises(Exception, match="not one of ours"):
        service(token_key="another key of the tests").clients._tokens.verify(text)


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"path": "x"}, "slash"), ({"path": "/x/"}, "slash"), ({"token_key": "short"}, "16 characters")],
)
def test_settings_that_cannot_work_are_refused(changes, message) -> None:
    with pytest.raises(ConfigurationError, match=message):
        ClientSettings(**changes)


def test_paths_of_clients_and_of_the_carrier_are_apart() -> None:
    with pytest.raises(ConfigurationError, match="at once"):
        ServiceConfig(
            assistants={"desk": assistant()},
            tenants={"main": TwilioTenant(account_sid=ACCOUNT, auth_token=TOKEN)},
            clients=ClientSettings(path="/ws/twilio"),
        )

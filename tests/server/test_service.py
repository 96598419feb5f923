"""A service over real sockets: which calls it takes, its limits, its tenants, and what hosts are told."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from service_line import ACCOUNT, OURS, TOKEN, api, assistant, service_line
from sqlalchemy import update
from twilio_phone import Phone, new_sid, until

from dialog.agent.agent import Agent
from dialog.agent.schematool import schema_tool
from dialog.agent.settings import AgentSettings
from dialog.calls import events as ev
from dialog.calls.delivery.endpoint import WebhookEndpoint
from dialog.calls.feed import declined
from dialog.calls.publish import CallEvents
from dialog.calls.store import tables as t
from dialog.calls.store.log import CallLog
from dialog.errors import ConfigurationError
from dialog.llm.llm import ToolResult
from dialog.message import CallMetadata
from dialog.server.callbacks import SessionCallbacks
from dialog.server.config import (
    ApiSettings,
    ApiToken,
    ClientSettings,
    PhoneNumber,
    ServiceConfig,
    TwilioTenant,
    config_from_env,
)
from dialog.sessions.config import AgentConfig, ProviderConfig
from dialog.sessions.spec import SessionRequest, SessionSpec
from dialog.telemetry import Tracing
from dialog.testing import HummingTTS, ScriptedLLM, ToldSTT, ToolUse
from dialog.voip.admission import Document, Reject, Say

OTHER = "AC" + "1" * 32


async def test_a_call_reaches_the_assistant_of_its_number() -> None:
    assistants = {"desk": assistant(greeting="Good day."), "night": assistant(greeting="Good night.")}
    numbers = {"first": PhoneNumber(number=OURS, assistant="night")}
    async with service_line(assistants=assistants, numbers=numbers) as line:
        document = await line.phone.ring()
        assert document.stream.get("url") == line.origin.replace("http", "ws") + "/ws/twilio"
        sid = new_sid()
        await line.phone.call(sid)
        voip = line.service.get(sid)
        session = line.service.session(voip.metadata.call_id)
        assert session.call.context["call_sid"] == sid
        await until(lambda: session.transcript)
        assert session.transcript[0].text == "Good night."
        assert session.metrics.agent_turns == 1
        assert line.service.session(voip.metadata.call_id) in line.service.live.live


async def test_a_full_tenant_and_a_full_service_refuse_in_their_own_words() -> None:
    tenants = {
        "a": {"account_sid": ACCOUNT, "max_calls": 1, "when_full": Say("A is full.")},
        "b": {"account_sid": OTHER},
    }
    document = Document("<Response><Enqueue>later</Enqueue></Response>")
    async with service_line(
        tenants={name: TwilioTenant(auth_token=TOKEN, **each) for name, each in tenants.items()},
        numbers={},
        max_calls=2,
        when_full=document,
    ) as line:
        a = Phone(f"{line.origin}/twilio/voice/a", line.session)
        b = Phone(f"{line.origin}/twilio/voice/b", line.session, account=OTHER)
        first = await a.call()
        assert (await a.ring()).verbs == ["Say", "Hangup"]
        assert (await b.ring()).verbs == ["Connect"]
        assert (await b.ring()).verbs == ["Enqueue"]
        await first.stop()
        await until(lambda: all(call.state == "ended" for call in line.service.gateways["a"].calls))
        assert (await a.ring()).verbs == ["Connect"]
        await first.ws.close()


async def test_tenants_have_credentials_of_their_own() -> None:
    tenants = {
        "a": TwilioTenant(account_sid=ACCOUNT, auth_token=TOKEN),
        "b": TwilioTenant(account_sid=OTHER, auth_token="another-token"),
    }
    async with service_line(tenants=tenants, numbers={}) as line:
        wrong = Phone(f"{line.origin}/twilio/voice/b", line.session, token=TOKEN, account=OTHER)
        status, _, _ = await wrong.post(wrong.url, wrong.form(new_sid()))
        assert status == 403
        right = Phone(wrong.url, line.session, token="another-token", account=OTHER)
        assert (await right.ring()).verbs == ["Connect"]


async def test_text_messages_that_come_in_are_answered_by_their_tenant() -> None:
    tenants = {
        "a": TwilioTenant(account_sid=ACCOUNT, auth_token=TOKEN),
        "b": TwilioTenant(account_sid=OTHER, auth_token=TOKEN),
    }
    async with service_line(tenants=tenants, numbers={}) as line:
        line.service.gateways["a"].on("sms", lambda message: f"A has read {message.text}.")
        message = {"MessageSid": "SM1", "From": "+15550123", "To": OURS, "Body": "this"}
        for tenant, account, answer in (("a", ACCOUNT, "A has read this."), ("b", OTHER, "<Response />")):
            phone = Phone(f"{line.origin}/twilio/voice/{tenant}", line.session, account=account)
            status, text, _ = await phone.post(f"{phone.url}/sms", {**message, "AccountSid": account})
            assert status == 200
            assert answer in text


async def test_the_resolver_sees_the_number_and_decides() -> None:
    seen = []

    async def resolve(request: SessionRequest):
        seen.append(request)
        return Reject("busy") if request.call.from_ == "+15550000000" else SessionSpec(greeting="Dear Ada.")

    async with service_line(resolver=resolve, numbers={"first": PhoneNumber(number=OURS, assistant="desk")}) as line:
        assert (await line.phone.ring(From="+15550000000")).verbs == ["Reject"]
        await line.phone.call()
        assert seen[1].wanted.assistant == "desk"
        (session,) = line.service.live.live
        await until(lambda: session.transcript)
        assert session.transcript[0].text == "Dear Ada."


async def test_unsigned_webhooks_are_no_reason_to_take_a_call() -> None:
    tenant = TwilioTenant(account_sid=ACCOUNT, auth_token=TOKEN, options={"validate": False})
    async with service_line(tenants={"main": tenant}) as line:
        assert (await line.phone.ring()).verbs == ["Reject"]
    async with service_line(tenants={"main": tenant}, allow_anybody=True) as line:
        assert (await line.phone.ring()).verbs == ["Connect"]


async def test_hosts_are_told_of_sessions() -> None:
    told = []
    callbacks = SessionCallbacks(
        started=lambda call: told.append(("started", call.to)),
        stopped=lambda call, seconds, reason: told.append(("stopped", seconds >= 0, reason)),
        usage=lambda call, usage: told.append(("usage", usage.model)),
        tool=lambda call, tool: told.append(("tool", tool.name)),
    )
    async with service_line(callbacks=callbacks) as line:
        socket = await line.phone.call()
        await until(lambda: told)
        await socket.stop()
        await until(lambda: len(told) > 1)
    assert told == [("started", OURS), ("stopped", True, "caller_hangup")]


async def test_hosts_are_told_of_what_was_used_and_of_tools(caplog) -> None:
    told = []

    async def book(agent, arguments) -> str:
        return f"booked for {arguments['people']}"

    def answer(request):
        if any(isinstance(item, ToolResult) for item in request.items):
            return "It is booked."
        return ToolUse("book", {"people": 2})

    schema = {"type": "object", "properties": {"people": {"type": "integer"}}, "required": ["people"]}
    ears = []

    def hear() -> ToldSTT:
        ears.append(ToldSTT())
        return ears[-1]

    desk = AgentConfig(
        stt=hear,
        tts=HummingTTS,
        llm=lambda: ScriptedLLM(answer),
        tools=(schema_tool("book", book, description="Book.", parameters=schema),),
    )
    callbacks = SessionCallbacks(
        usage=lambda call, usage: told.append(("usage", call.to, usage.model)),
        tool=lambda call, tool: told.append(("tool", call.to, tool)),
    )
    async with service_line(assistants={"desk": desk}, callbacks=callbacks) as line:
        await line.phone.call()
        ears[0].heard("a table for two")
        await until(lambda: len([each for each in told if each[0] == "usage"]) == 2)
        ((_, to, tool),) = [each for each in told if each[0] == "tool"]
        assert (to, tool.name, tool.result, tool.state) == (OURS, "book", "booked for 2", "done")
        assert json.loads(tool.arguments) == {"people": 2}
        assert tool.took_s >= 0


async def test_every_call_of_a_service_can_be_traced() -> None:
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    async with service_line(follow=Tracing(provider).follow) as line:
        socket = await line.phone.call()
        (session,) = line.service.live.live
        await until(lambda: session.transcript)
        await socket.stop()
        await until(lambda: [span for span in exporter.get_finished_spans() if span.name == "call"])
    (call,) = [span for span in exporter.get_finished_spans() if span.name == "call"]
    assert call.attributes["dialog.call_id"] == str(session.call.call_id)


async def test_a_callback_that_raises_costs_no_call_anything(caplog) -> None:
    def fails(call) -> None:
        raise RuntimeError("no")

    with caplog.at_level(logging.ERROR):
        async with service_line(callbacks=SessionCallbacks(started=fails)) as line:
            await line.phone.call()
            (session,) = line.service.live.live
            await until(lambda: session.transcript)
    assert "listener for its events raised" in caplog.text


async def test_probes_and_the_root_are_open_and_the_api_is_not_there_without_tokens() -> None:
    async with service_line(api=ApiSettings()) as line:
        for path in ("/", "/health", "/ready", "/openapi.json"):
            assert (await line.client.get(path, headers={})).status == 200, path
        assert (await line.client.get("/v1/calls")).status == 404
        assert (await line.client.post("/call/start", {})).status == 404


async def test_everything_can_lie_beneath_a_path_of_the_hosts_choosing() -> None:
    async with service_line(prefix="/voice", webhook_path="/in", stream_path="/media") as line:
        document = await line.phone.ring()
        assert line.phone.url.endswith("/voice/in")
        assert document.stream.get("url").endswith("/voice/media")
        assert (await line.client.get("/voice/v1/calls")).status == 200
        assert (await line.client.get("/v1/calls")).status == 404
        assert "/voice/call/start" in (await line.client.get("/voice/openapi.json")).body["paths"]
        await line.phone.call()


async def test_a_draining_service_takes_no_calls() -> None:
    async with service_line() as line:
        assert await line.service.drain(1.0)
        assert not line.service.ready
        assert (await line.phone.ring()).verbs == ["Reject"]


async def test_a_call_that_the_end_of_the_server_cuts_has_its_numbers_and_its_report() -> None:
    told, reports = [], []

    def on_voip(voip) -> None:
        agent = assistant(greeting="Good day to you.", settings=AgentSettings(record=True)).make(voip)
        agent.on(Agent.REPORT, reports.append)
        agent.activate()

    async with service_line(assistants={"desk": on_voip}) as line:
        line.service.events.on(lambda notice: told.append(notice.event))
        await line.phone.call()
        (session,) = line.service.live.live
        await until(lambda: session.transcript)
        await line.service.close()
        assert line.service.calls == ()
    assert [type(event) for event in told[-2:]] == [ev.CallMeasured, ev.CallEnded]
    assert told[-1].reason == "shutdown"
    assert [report.end_reason for report in reports] == ["shutdown"]


async def test_calls_that_ended_long_ago_are_deleted_from_the_log(tmp_path) -> None:
    url = f"sqlite:///{tmp_path / 'calls.db'}"
    events, old, new = CallEvents(), CallMetadata(call_id=uuid4()), CallMetadata(call_id=uuid4())
    async with CallLog(url) as log:
        log.follow(events)
        for call in (old, new):
            declined(events, call, "reject")
        await log.flush()
        async with log.engine.begin() as connection:
            ended = datetime.now(UTC) - timedelta(days=31)
            await connection.execute(update(t.calls).where(t.calls.c.call_id == old.call_id).values(ended_at=ended))
    async with service_line(log=url, keep_days=30) as line:
        async with asyncio.timeout(10):
            while await line.service.log.call(old.call_id) is not None:
                await asyncio.sleep(0.01)
        assert (await line.client.get(f"/v1/calls/{new.call_id}")).status == 200
        assert (await line.client.get(f"/v1/calls/{old.call_id}")).status == 404


HOOK = WebhookEndpoint(name="w", url="https://x.example", secrets=("s" * 24,))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tenants": {}}, "needs a tenant"),
        ({"assistants": {}}, "at least one assistant"),
        ({"default_assistant": "x"}, "no assistant 'x'"),
        ({"numbers": {"n": PhoneNumber(number=OURS, assistant="x")}}, "no assistant 'x'"),
        ({"numbers": {"n": PhoneNumber(number=OURS, tenant="x")}}, "no tenant 'x'"),
        ({"numbers": {"a/b": PhoneNumber(number=OURS)}}, "cannot be an id"),
        ({"prefix": "voice"}, "prefix must begin"),
        ({"webhook_path": "/a", "stream_path": "/a"}, "two paths"),
        ({"webhooks": (HOOK,)}, "call log"),
        ({"webhooks": (HOOK, HOOK), "log": "sqlite:///calls.db"}, "the same name"),
        (
            {"tenants": {}, "clients": ClientSettings(), "numbers": {"n": PhoneNumber(number=OURS)}},
            "numbers are of a tenant",
        ),
        ({"max_calls": 0}, "at least 1"),
        ({"tenants": {"main": TwilioTenant(account_sid=ACCOUNT, auth_token=TOKEN, max_calls=0)}}, "at least 1"),
        ({"keep_days": 30}, "call log"),
        ({"keep_days": 0, "log": "sqlite:///calls.db"}, "positive"),
        ({"tenants": {"x" * 65: TwilioTenant(account_sid=ACCOUNT, auth_token=TOKEN)}}, "too long"),
        ({"api": ApiSettings(tokens=(ApiToken(name="t", token="t" * 16, tenants=frozenset({"x"})),))}, "no tenant 'x'"),
    ],
)
def test_a_service_that_cannot_work_is_refused(changes, message) -> None:
    settings = {
        "assistants": {"desk": assistant()},
        "tenants": {"main": TwilioTenant(account_sid=ACCOUNT, auth_token=TOKEN)},
    }
    with pytest.raises(ConfigurationError, match=message):
        ServiceConfig(**{**settings, **changes})


@pytest.mark.parametrize(
    "settings",
    [
        {"token": "short"},
        {},
        {"token": "t" * 16, "sha256": "0" * 64},
        {"sha256": "zz"},
        {"token": "t" * 16, "scopes": {"x"}},
    ],
)
def test_a_token_that_protects_nothing_is_refused(settings) -> None:
    with pytest.raises(ConfigurationError):
        ApiToken(name="t", **settings)


def test_two_tokens_are_two_secrets() -> None:
    digest = hashlib.sha256(b"t" * 16).hexdigest()
    with pytest.raises(ConfigurationError, match="the same secret"):
        ApiSettings(tokens=(ApiToken(name="a", token="t" * 16), ApiToken(name="b", sha256=digest)))


def test_secrets_stay_out_of_reprs() -> None:
    config = ServiceConfig(
        assistants={"desk": assistant()},
        tenants={"main": TwilioTenant(account_sid=ACCOUNT, auth_token="very-secret-token")},
        api=api(),
    )
    shown = repr(config) + repr(config.tenants["main"]) + repr(config.api) + repr(config.api.tokens)
    assert "secret" not in shown
    assert "a-token-of-the-tests" not in shown


def test_the_environment_alone_makes_a_service_in_realtime_mode() -> None:
    env = {
        "TWILIO_ACCOUNT_SID": ACCOUNT,
        "TWILIO_AUTH_TOKEN": TOKEN,
        "TWILIO_PROVIDER": "gemini",
        "GEMINI_API_KEY": "g",
        "TWILIO_MODEL": "m",
        "TWILIO_VOICE": "v",
        "TWILIO_INSTRUCTIONS": "Be kind.",
        "TWILIO_INITIAL_GREETING": "Hello there.",
        "TWILIO_PHONE_NUMBER": OURS,
        "TWILIO_STREAM_URL": "wss://media.example/ws",
        "TWILIO_VOICE_WEBHOOK_PATH": "/in",
        "TWILIO_STREAM_WEBSOCKET_PATH": "/media",
        "DIALOG_API_TOKEN": "t" * 16,
    }
    config = config_from_env(env)
    agent = config.assistants["default"]
    assert agent.s2s == ProviderConfig("gemini", {"model": "m", "voice": "v"})
    assert "Be kind." in agent.system
    assert "Hello there." in agent.system
    assert agent.settings.model_opens
    assert config.numbers["default"].number == OURS
    assert (config.webhook_path, config.stream_path, config.stream_url) == ("/in", "/media", "wss://media.example/ws")
    assert config.api.tokens
    assert config.clients.path == "/ws/realtime"
    assert config_from_env({**env, "DIALOG_API_TOKEN": ""}).clients is None


def test_the_environment_alone_makes_a_service_in_text_mode() -> None:
    keys = {f"{name}_API_KEY": "k" for name in ("OPENAI", "DEEPGRAM", "CARTESIA", "ANTHROPIC")}
    env = {"TWILIO_ACCOUNT_SID": ACCOUNT, "TWILIO_AUTH_TOKEN": TOKEN, "TWILIO_INITIAL_GREETING": "Hello.", **keys}
    for provider in ("anthropic", "llm.openai"):
        agent = config_from_env({**env, "TWILIO_PROVIDER": provider}).assistants["default"]
        assert agent.llm == ProviderConfig(provider.rpartition(".")[2])
        assert agent.greeting == "Hello."
    with pytest.raises(ConfigurationError, match="TWILIO_AUTH_TOKEN"):
        config_from_env({"TWILIO_ACCOUNT_SID": ACCOUNT})
    with pytest.raises(ConfigurationError, match="TWILIO_PROVIDER"):
        config_from_env({**env, "TWILIO_PROVIDER": "tts.openai"})
    with pytest.raises(ConfigurationError, match="TWILIO_STREAM_URL"):
        config_from_env({**env, "TWILIO_STREAM_URL": "https://x.example"})


async def test_calls_are_written_to_the_log_and_can_be_looked_at_after_a_restart(tmp_path) -> None:
    log = f"sqlite:///{tmp_path / 'calls.db'}"
    async with service_line(log=log) as line:
        socket = await line.phone.call()
        (session,) = line.service.live.live
        call_id = session.call.call_id
        await until(lambda: session.transcript)
        await socket.stop()
        await until(lambda: session.end is not None)
    async with service_line(log=log) as line:
        shown = await line.client.get(f"/v1/calls/{call_id}")
        assert shown.body["end_reason"] == "caller_hangup"
        assert shown.body["metrics"]["agent_turns"] == 1
        (spoken,) = (await line.client.get(f"/v1/calls/{call_id}/transcript")).body["lines"]
        assert spoken["text"] == "Good day to you."
        listed = await line.client.get("/v1/calls?state=ended&limit=1")
        assert [each["call_id"] for each in listed.body["calls"]] == [str(call_id)]
        assert (await line.client.get(f"/v1/calls?state=ended&before={call_id}")).body["calls"] == []

"""Who gets an agent, and which: the session resolver, over a gateway's webhook."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from uuid import uuid4

import pytest
from msgspec.structs import replace

from dialog.errors import ConfigurationError
from dialog.message import CallMetadata
from dialog.sessions.config import AgentConfig
from dialog.sessions.sessions import Sessions, reason
from dialog.sessions.spec import SessionRequest, SessionSpec
from dialog.testing import HummingTTS, ScriptedLLM, ToldSTT
from dialog.voip.admission import Document, Offer, Reject, Say, decide
from dialog.voip.text import TextVoIP

sys.path.insert(0, str(Path(__file__).parents[1] / "twilio"))
from twilio_phone import ACCOUNT, new_sid, phone_line

DESK = AgentConfig(stt=ToldSTT, tts=HummingTTS, llm=lambda: ScriptedLLM([]), greeting="Good day.")
NIGHT = AgentConfig(stt=ToldSTT, tts=HummingTTS, llm=lambda: ScriptedLLM([]), greeting="Good night.")


def request(**more) -> SessionRequest:
    return SessionRequest(source="client", call=CallMetadata(call_id=uuid4()), **more)


async def test_the_resolver_chooses_the_agent_and_the_context_for_each_call() -> None:
    seen = []

    async def resolve(request: SessionRequest):
        seen.append(request)
        return SessionSpec(assistant="night", system="Whisper.", context={"customer": 17})

    sessions = Sessions({"desk": DESK, "night": NIGHT}, resolver=resolve)
    agents = []

    def on_voip(voip):
        agents.append(sessions.make(voip))
        agents[-1].activate()

    sid = new_sid()
    async with phone_line(resolver=sessions.resolver(), on_voip=on_voip) as (_, phone, _, _):
        await phone.call(sid)
        (agent,) = agents
        assert agent.greeting == "Good night."
        assert agent.history.items()[0].text == "Whisper."
        assert agent.voip.metadata.context == {
            "source": "phone",
            "call_sid": sid,
            "account_sid": ACCOUNT,
            "from": "+15551230001",
            "to": "+15551230002",
            "customer": 17,
        }
    assert seen[0].source == "phone"
    assert seen[0].verified


@pytest.mark.parametrize(
    ("decision", "verbs"),
    [
        (Reject("busy"), ["Reject"]),
        (Say("Call again tomorrow."), ["Say", "Hangup"]),
        (Document("<Response><Enqueue>night</Enqueue></Response>"), ["Enqueue"]),
    ],
)
async def test_a_refused_call_gets_no_agent(decision, verbs) -> None:
    async def resolve(_):
        return decision

    sessions = Sessions({"desk": DESK}, resolver=resolve)
    async with phone_line(resolver=sessions.resolver()) as (gateway, phone, _, voips):
        document = await phone.ring()
        assert document.verbs == verbs
        assert not voips
        assert not gateway.calls


async def fails(_):
    raise RuntimeError("the database is down")


async def hangs(_):
    await asyncio.Event().wait()


async def babbles(_):
    return "yes"


async def invents(_):
    return SessionSpec(assistant="nobody")


async def mumbles(_):
    return SessionSpec(context={"what": object()})


@pytest.mark.parametrize("resolver", [fails, hangs, babbles, invents, mumbles])
async def test_a_resolver_that_fails_refuses_and_the_caller_is_told(resolver) -> None:
    sessions = Sessions({"desk": DESK}, resolver=resolver, resolver_timeout_s=0.05)
    async with phone_line(resolver=sessions.resolver()) as (_, phone, _, voips):
        document = await phone.ring()
        assert document.verbs == ["Say", "Hangup"]
        assert not voips


@pytest.mark.parametrize("asked", ["sessions", "gateway"])
async def test_a_time_out_within_the_resolver_is_told_as_its_own(asked, caplog) -> None:
    async def resolve(_):
        raise TimeoutError("the CRM does not answer")

    if asked == "sessions":
        assert isinstance(await Sessions({"desk": DESK}, resolver=resolve).decide(request()), Say)
    else:
        assert await decide(resolve, Offer(CallMetadata(call_id=uuid4())), 3.0) is None
    assert "the resolver raised" in caplog.text
    assert "the CRM does not answer" in caplog.text


async def test_without_a_resolver_only_those_are_taken_for_whom_somebody_vouches() -> None:
    sessions = Sessions({"desk": DESK})
    assert await sessions.decide(request()) == Reject()
    assert await sessions.decide(request(peer="203.0.113.9")) == Reject()
    assert await sessions.decide(request(peer="not an address")) == Reject()
    for vouched in (request(peer="127.0.0.1"), request(peer="::1"), request(verified=True)):
        assert isinstance(await sessions.decide(vouched), SessionSpec)
    anybody = Sessions({"desk": DESK}, allow_anybody=True)
    assert isinstance(await anybody.decide(request(peer="203.0.113.9")), SessionSpec)


async def test_what_a_client_asks_for_is_the_resolvers_to_overrule() -> None:
    async def resolve(request: SessionRequest):
        assert request.wanted.greeting == "I am the boss."
        return SessionSpec(greeting="No.", context={"a": 2})

    sessions = Sessions({"desk": DESK}, resolver=resolve)
    decision = await sessions.decide(
        request(wanted=SessionSpec(greeting="I am the boss.", max_duration_s=9e9, context={"a": 1, "b": 3}))
    )
    assert decision == SessionSpec(greeting="No.", context={"a": 2, "b": 3})


def web_call(**client) -> CallMetadata:
    said = tuple((f"client.{name}", value) for name, value in client.items())
    host = (("plan", "gold"), ("remote", "203.0.113.9"))
    return CallMetadata(call_id=uuid4(), carrier="web", from_="ada", to="desk", parameters=(*host, *said))


async def test_a_client_that_connects_asks_by_its_parameters() -> None:
    seen = []

    async def resolve(request: SessionRequest):
        seen.append(request)
        return request.wanted

    resolver = Sessions({"desk": DESK, "night": NIGHT}, resolver=resolve).resolver()
    call = web_call(greeting="Hi.", context='{"page": 3}', theme="dark")
    decision = await resolver(Offer(call))
    (request,) = seen
    assert (request.source, request.verified, request.peer) == ("client", False, "203.0.113.9")
    spec = SessionSpec.from_json(decision.session)
    assert (spec.assistant, spec.greeting) == ("desk", "Hi.")
    assert (spec.context["source"], spec.context["user"], spec.context["page"]) == ("client", "ada", 3)
    assert spec.context["parameters"]["plan"] == "gold"
    assert spec.context["client"]["theme"] == "dark"
    assert SessionSpec.from_json((await resolver(Offer(web_call(context="[")))).session).context["client"] == {
        "context": "["
    }
    deep = '{"a":' * 2000
    assert SessionSpec.from_json((await resolver(Offer(web_call(context=deep)))).session).context["client"] == {
        "context": deep
    }


async def test_a_token_does_not_vouch_for_what_a_client_asks_for() -> None:
    assert await Sessions({"desk": DESK}).resolver()(Offer(web_call(greeting="Hi."))) == Reject()


async def test_what_is_wanted_in_a_token_is_vouched_for_and_the_clients_own_wishes_are_not() -> None:
    signed = SessionSpec(assistant="night", context={"plan": "gold"})
    call = replace(web_call(greeting="Obey me.", context='{"plan": "free"}'), session=signed.to_json())
    decision = await Sessions({"desk": DESK, "night": NIGHT}).resolver()(Offer(call))
    spec = SessionSpec.from_json(decision.session)
    assert (spec.assistant, spec.greeting, spec.context["plan"]) == ("night", None, "gold")
    assert spec.context["client"] == {"greeting": "Obey me.", "context": '{"plan": "free"}'}
    unnamed = replace(call, session=SessionSpec(system="Be kind.").to_json())
    spec = SessionSpec.from_json((await Sessions({"desk": DESK}).resolver()(Offer(unnamed))).session)
    assert (spec.assistant, spec.system) == ("desk", "Be kind."), "the client may choose"


async def test_what_a_client_asks_for_must_be_possible() -> None:
    sessions = Sessions({"desk": DESK, "night": NIGHT})
    assert isinstance(await sessions.decide(request(verified=True)), Say)  # it names no assistant
    wanted = SessionSpec(assistant="desk", voice="v")
    assert isinstance(await sessions.decide(request(verified=True, wanted=wanted)), Say)


def test_a_session_survives_its_way_to_another_process() -> None:
    spec = SessionSpec(assistant="desk", tools=("a",), vad="local", context={"x": [1, None]})
    assert SessionSpec.from_json(spec.to_json()) == spec
    assert SessionSpec.from_json("") == SessionSpec()
    for wrong in ("{", '{"helper":"x"}', '{"vad":"none"}', '{"max_duration_s":-1}'):
        with pytest.raises(ConfigurationError):
            SessionSpec.from_json(wrong)


@pytest.mark.parametrize("settings", [{"assistants": {}}, {"default": "x"}, {"resolver_timeout_s": 0}])
def test_sessions_that_cannot_work_are_refused(settings) -> None:
    with pytest.raises(ConfigurationError):
        Sessions(settings.pop("assistants", {"desk": DESK}), **settings)


def test_a_refusal_has_words() -> None:
    assert reason(Reject("busy")) == "busy"
    assert reason(Say("Closed.")) == "Closed."
    assert reason(Document("<Response/>")) == "rejected"


async def test_an_assistant_may_be_a_function_to_which_a_session_gives_a_context_alone() -> None:
    voips, later = [], []

    async def in_a_moment(voip):
        later.append(voip)

    sessions = Sessions({"own": voips.append, "later": in_a_moment, "desk": DESK}, allow_anybody=True)
    own = SessionSpec(assistant="own", context={"order": 7})
    decision = await sessions.decide(request(wanted=own))
    assert decision.assistant == "own"
    assert isinstance(await sessions.decide(request(wanted=SessionSpec(assistant="own", greeting="Hm."))), Say)
    with pytest.raises(ConfigurationError, match="function"):
        sessions.config(own)
    for name in ("own", "later"):
        metadata = CallMetadata(call_id=uuid4(), session=SessionSpec(assistant=name).to_json())
        voip = TextVoIP(lambda *_: None, metadata=metadata)
        sessions.on_voip(voip)
        await asyncio.sleep(0)
        voip.dispose()
    assert (len(voips), len(later)) == (1, 1)

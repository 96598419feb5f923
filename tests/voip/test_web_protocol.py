"""The client protocol over real sockets: who gets in, what is refused and how, what a client is told."""

from __future__ import annotations

import asyncio
import json
import logging
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

import pytest
from aiohttp import ClientSession, WSMsgType, WSServerHandshakeError
from web_server import serving, until

from dialog.agent.agent import Agent
from dialog.errors import ConfigurationError, RemoteProtocolError
from dialog.message import ALAW_8K, MULAW_8K, PCM_16K, PCM_24K, AudioFormat, Message
from dialog.testing.doubles import HummingTTS
from dialog.testing.web import WebCaller, WebRefused
from dialog.voip.admission import Accept, Reject, Say
from dialog.voip.call import CallSettings
from dialog.voip.web import messages as ms
from dialog.voip.web.gateway import WebGateway
from dialog.voip.web.stream import WebStream
from dialog.voip.web.tokens import SessionTokens
from dialog.workers.hosted import HostingSettings
from dialog.workers.pool import WorkerPool

APPS = Path(__file__).parents[1] / "workers" / "apps"
KEY = b"a key of thirty-two bytes, or so"


def start(**fields) -> str:
    return json.dumps({"type": "session.start", "version": 1, **fields})


@asynccontextmanager
async def a_gateway(on_voip=lambda voip: None, *, asgi=False, **options):
    gateway = WebGateway(token_key=KEY, **options)
    voips = []

    def taken(voip):
        voips.append(voip)
        on_voip(voip)

    if "workers" not in options:
        gateway.on("voip", taken)
    async with serving(gateway, asgi=asgi) as url:
        yield gateway, url, voips


@asynccontextmanager
async def raw(url, **options):
    async with ClientSession() as http, http.ws_connect(url, **options) as socket:
        yield socket


async def answer(socket):
    """What the server says, and with what it closes."""
    async with asyncio.timeout(10):
        said = [json.loads(frame.data) async for frame in socket if frame.type is WSMsgType.TEXT]
    return said, socket.close_code


class Parrot(Agent):
    async def inference(self, message: Message[str]):
        yield f"You said {message.data}."


# -- who gets in


async def test_a_user_with_a_token_talks_to_the_agent_that_it_names():
    async with a_gateway(agents=["desk", "shop"]) as (gateway, url, voips):
        token = gateway.token(user="ada", agent="shop", parameters={"plan": "gold"})
        async with WebCaller.connect(url, token=token, agent="desk", parameters={"plan": "lead"}) as caller:
            (voip,) = voips
            assert (voip.user, voip.agent) == ("ada", "shop")
            assert voip.metadata.parameter("plan") == "gold"
            assert voip.metadata.parameter("client.plan") == "lead"
            assert caller.started.agent == "shop"
            assert gateway.get(voip.metadata.call_id) is voip


async def test_a_token_is_used_once():
    async with a_gateway() as (gateway, url, _):
        token = gateway.token()
        async with WebCaller.connect(url, token=token):
            with pytest.raises(WebRefused, match="used before") as refused:
                async with WebCaller.connect(url, token=token):
                    pass
            assert refused.value.close_code == 4401
        await until(lambda: not gateway.calls)
        with pytest.raises(WebRefused, match="used before"):
            async with WebCaller.connect(url, token=token):
                pass


@pytest.mark.parametrize(
    ("token", "why"),
    [
        ("", "needs a token"),
        ("nonsense", "not one of ours"),
        (SessionTokens(b"another key, as long as that one").issue(), "not one of ours"),
        (SessionTokens(KEY, time=lambda: 1000.0).issue(), "expired"),
    ],
)
async def test_a_token_that_is_no_good_is_refused_and_costs_nothing(token, why):
    async with a_gateway() as (gateway, url, voips):
        with pytest.raises(WebRefused, match=why) as refused:
            async with WebCaller.connect(url, token=token):
                pass
        assert refused.value.close_code == 4401
        assert not voips
        assert gateway.refusals.sockets[4401] == 1


def test_a_token_that_was_changed_is_not_ours():
    tokens = SessionTokens(KEY)
    body, _, mac = tokens.issue(user="ada").partition(".")
    other = tokens.issue(user="eve").partition(".")[0]
    assert tokens.verify(f"{body}.{mac}").user == "ada"
    for forged in (f"{other}.{mac}", f"{body}.{mac[:-2]}AA", f"{body}", f".{mac}", f"{body}.\u00e9"):
        with pytest.raises(RemoteProtocolError):
            tokens.verify(forged)


def test_keys_are_long_and_tokens_short_lived():
    with pytest.raises(ConfigurationError, match="at least 16"):
        WebGateway(token_key=b"short")
    with pytest.raises(ConfigurationError, match="3600"):
        WebGateway().token(life_s=86_400)


@pytest.mark.parametrize("asgi", [False, True])
@pytest.mark.parametrize(
    ("origin", "granted"),
    [
        ("http://{host}", True),
        ("", True),
        ("https://app.example", True),
        ("https://evil.example", False),
        ("null", False),
        ("https://{host}.evil.example", False),
        ("http://app.example", False),
        ("http://[", False),
    ],
)
async def test_pages_of_other_sites_may_not_connect(origin, granted, asgi):
    async with a_gateway(origins=["https://app.example"], asgi=asgi) as (gateway, url, voips):
        origin = origin.format(host=url.split("/")[2])
        if granted:
            async with WebCaller.connect(url, token=gateway.token(), origin=origin):
                assert len(voips) == 1
        else:
            with pytest.raises(WSServerHandshakeError) as refused:
                async with WebCaller.connect(url, token=gateway.token(), origin=origin):
                    pass
            assert refused.value.status == 403
            assert gateway.refusals.sockets[403] == 1


async def test_the_resolver_decides_before_anything_is_spent():
    asked = []

    async def resolve(offer):
        asked.append(offer.metadata)
        return {"ada": Accept("{}"), "eve": Reject()}.get(offer.metadata.from_) or Say("We are closed.")

    async with a_gateway(resolver=resolve) as (gateway, url, voips):
        async with WebCaller.connect(url, token=gateway.token(user="ada")):
            assert voips[0].metadata.session == "{}"
        for user, why in (("eve", "refused"), ("bob", "We are closed.")):
            with pytest.raises(WebRefused, match=why) as refused:
                async with WebCaller.connect(url, token=gateway.token(user=user)):
                    pass
            assert refused.value.close_code == 4403
        assert [each.from_ for each in asked] == ["ada", "eve", "bob"]
        assert asked[0].parameter("remote") == "127.0.0.1"
        assert len(voips) == 1


@pytest.mark.parametrize(("fault", "code"), [("slow", 4503), ("raises", 1011)])
async def test_a_resolver_that_fails_refuses(fault, code):
    async def resolve(offer):
        if fault == "raises":
            raise ValueError("no database")
        await asyncio.sleep(60)

    async with a_gateway(resolver=resolve, resolver_timeout_s=0.05) as (gateway, url, voips):
        with pytest.raises(WebRefused) as refused:
            async with WebCaller.connect(url, token=gateway.token()):
                pass
        assert refused.value.close_code == code
        assert "database" not in str(refused.value)
        assert not voips


async def test_code_that_raises_is_an_error_to_its_client_only():
    def broken(voip):
        raise ValueError("a secret")

    async with a_gateway(broken) as (gateway, url, _):
        with pytest.raises(WebRefused, match="an error has occurred") as refused:
            async with WebCaller.connect(url, token=gateway.token()):
                pass
        assert refused.value.close_code == 1011
        await until(lambda: not gateway.calls)


# -- what is asked for


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [
        ([PCM_24K, PCM_16K], PCM_24K),
        ([AudioFormat("s16le", 44_100), PCM_16K], PCM_16K),
        ([ALAW_8K], ALAW_8K),
    ],
)
async def test_the_first_audio_format_that_is_spoken_here_is_taken(offered, chosen):
    async with a_gateway() as (gateway, url, voips):
        async with WebCaller.connect(url, token=gateway.token(), audio=offered) as caller:
            assert caller.audio_format == voips[0].audio_format == chosen


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"version": 2}, 4400),
        ({"agent": "nobody"}, 4400),
        ({"audio": [{"encoding": "s16le", "sample_rate": 44100}]}, 4400),
        ({"audio": []}, 1008),
        ({"audio": [{"encoding": "opus", "sample_rate": 48000}]}, 1008),
        ({"version": "1"}, 1008),
        ({"token": "x" * 17_000}, 1008),
    ],
)
async def test_what_cannot_be_had_is_refused_with_a_reason(fields, code):
    async with a_gateway(agents=["desk"], allow_anybody=True) as (_, url, voips), raw(url) as socket:
        await socket.send_str(start(**fields))
        said, closed = await answer(socket)
        assert (said[-1]["type"], said[-1]["fatal"], closed) == ("error", True, code)
        assert not voips


# -- what breaks the protocol


@pytest.mark.parametrize("asgi", [False, True])
@pytest.mark.parametrize(
    "frame",
    ["{", "[]", '{"type":"nonsense"}', '{"type":"session.end"}', '{"type":"mark","name":"1"}', b"\0\0", "\ud7ff"],
)
async def test_what_breaks_the_protocol_closes_with_1008(frame, asgi):
    async with a_gateway(asgi=asgi) as (gateway, url, _), raw(url) as socket:
        await (socket.send_str(frame) if isinstance(frame, str) else socket.send_bytes(frame))
        said, closed = await answer(socket)
        assert (said[-1]["code"], closed) == ("protocol", 1008)
        assert gateway.refusals.sockets[1008] == 1


async def test_a_session_is_not_started_twice_and_half_a_sample_is_no_audio():
    async with a_gateway(allow_anybody=True) as (gateway, url, _):
        async with raw(url) as socket:
            await socket.send_str(start())
            await socket.receive()
            await socket.send_str(start())
            assert (await answer(socket))[1] == 1008
        async with raw(url) as socket:
            await socket.send_str(start())
            await socket.receive()
            await socket.send_bytes(b"\0" * 961)
            assert (await answer(socket))[1] == 1008
        for call in gateway.calls:
            call.end("test")


@pytest.mark.parametrize("asgi", [False, True])
async def test_a_message_that_is_too_long_closes_with_1009(asgi):
    async with a_gateway(allow_anybody=True, max_message=2000, asgi=asgi) as (_, url, _), raw(url) as socket:
        await socket.send_str(start(parameters={"a": "x" * 3000}))
        assert (await answer(socket))[1] == 1009


async def test_more_than_anybody_can_say_closes_with_4429():
    async with a_gateway(allow_anybody=True) as (_, url, _):
        async with raw(url) as socket:
            await socket.send_str(start(audio=[{"encoding": "mulaw", "sample_rate": 8000}]))
            await socket.receive()
            for _ in range(8):  # 40 s
                await socket.send_bytes(b"\xff" * 40_000)
            assert (await answer(socket))[1] == 4429
        async with raw(url) as socket:
            for number in range(300):
                await socket.send_str(json.dumps({"type": "ping", "id": number}))
            assert (await answer(socket))[1] == 4429


def test_audio_may_be_late_and_then_come_at_once():
    stream = WebStream(0.0)
    stream.receive(start(), 0.0)
    stream.start("x", MULAW_8K)
    for second in range(1, 60):
        assert stream.receive_audio(b"\xff" * 8000, float(second))
    for _ in range(20):
        assert stream.receive_audio(b"\xff" * 8000, 80.0)


@pytest.mark.parametrize("asgi", [False, True])
async def test_a_socket_on_which_nothing_begins_is_closed(asgi):
    async with a_gateway(start_timeout_s=0.05, asgi=asgi) as (_, url, _), raw(url) as socket:
        said, closed = await answer(socket)
        assert (said[-1]["code"], closed) == ("timeout", 4408)


async def test_the_subprotocol_is_spoken_if_it_is_offered():
    async with a_gateway() as (_, url, _):
        async with raw(url, protocols=["other", "dialog-v1"]) as socket:
            assert socket.protocol == "dialog-v1"
        async with raw(url) as socket:
            assert socket.protocol is None


@pytest.mark.parametrize("asgi", [False, True])
async def test_a_plain_request_is_told_that_this_is_a_websocket(asgi):
    async with a_gateway(asgi=asgi) as (_, url, _), ClientSession() as http:
        async with http.get(url.replace("ws:", "http:")) as response:
            assert response.status == 426


# -- what a client is told


async def test_a_conversation_is_told_as_it_happens():
    def take(voip):
        Parrot(voip=voip, tts=HummingTTS(), greeting="Hello there.").activate()

    async with a_gateway(take) as (gateway, url, voips), WebCaller.connect(url, token=gateway.token()) as caller:
        greeting = await caller.wait_for(ms.AgentTranscript, lambda said: said.state == "played")
        assert (greeting.text, greeting.heard) == ("Hello there.", "Hello there.")
        states = [each.state for each in caller.messages if isinstance(each, ms.AgentStateChanged)]
        assert states == ["speaking", "listening"]
        agent = next(each for each in voips[0]._scope.members if isinstance(each, Agent))
        turn = uuid4()
        agent.post(Message(uuid=turn, data="good morning"))
        said = await caller.wait_for(ms.CallerTranscript)
        assert (said.text, said.final, said.turn) == ("good morning", True, turn)
        answered = await caller.wait_for(ms.AgentTranscript, lambda each: each.turn == turn)
        assert answered.text == "You said good morning."
        measured = await caller.wait_for(ms.TurnMeasured, lambda each: each.turn == turn)
        assert set(measured.stages) <= {"hearing", "dialog", "model", "voice", "line"}
        caller.send(ms.Ping(7))
        assert (await caller.wait_for(ms.Pong)).id == 7
        await voips[0].hangup()
        assert (await caller.wait_for(ms.SessionEnded)).reason == "agent_hangup"
        assert await caller.wait_closed() == 1000


async def test_what_happens_while_a_client_is_away_is_told_when_it_is_back():
    def take(voip):
        Parrot(voip=voip, tts=HummingTTS()).activate()

    async with a_gateway(take) as (gateway, url, voips), WebCaller.connect(url, token=gateway.token()) as caller:
        await caller.drop()
        await until(lambda: voips[0].state == "lost")
        agent = next(each for each in voips[0]._scope.members if isinstance(each, Agent))
        agent.post(Message(uuid=uuid4(), data="are you there"))
        started = await caller.resume()
        assert started.resumed
        assert (await caller.wait_for(ms.CallerTranscript)).text == "are you there"
        await caller.wait_for(ms.AgentTranscript, lambda said: said.state == "played")


async def test_only_who_began_a_session_comes_back_to_it():
    async with a_gateway(call_settings=CallSettings(lost_s=0.2)) as (gateway, url, voips):
        async with WebCaller.connect(url, token=gateway.token()) as caller:
            async with raw(url) as socket:
                session = str(caller.started.session)
                resume = {"type": "session.resume", "version": 1, "session": session, "secret": "guessed"}
                await socket.send_str(json.dumps(resume))
                assert (await answer(socket))[1] == 4404
            assert voips[0].state == "live"
            await caller.drop()
            await until(lambda: not gateway.calls)
            with pytest.raises(WebRefused) as refused:
                await caller.resume()
            assert refused.value.close_code == 4404
        assert voips[0].end.reason == "lost"


async def test_a_newer_connection_takes_the_session_over():
    async with a_gateway() as (gateway, url, voips), WebCaller.connect(url, token=gateway.token()) as caller:
        first = caller._reader
        await caller.resume()
        await asyncio.wait_for(asyncio.shield(first), 5)
        await until(lambda: voips[0].generation == 2)
        assert voips[0].state == "live"


async def test_a_page_that_goes_away_has_hung_up():
    async with a_gateway(allow_anybody=True) as (_, url, voips):
        async with raw(url) as socket:
            await socket.send_str(start())
            await socket.receive()
            await socket.close(code=1001)
        await until(lambda: voips[0].end is not None)
        assert voips[0].end.reason == "caller_hangup"


async def test_a_client_that_leaves_while_it_is_admitted_leaves_nothing_behind():
    async def resolve(offer):
        await asyncio.sleep(30)
        return Accept()

    async with a_gateway(resolver=resolve, resolver_timeout_s=60) as (gateway, url, _):
        token = gateway.token()
        async with raw(url) as socket:
            await socket.send_str(start(token=token))
        await until(lambda: not gateway._board._sessions)


@pytest.mark.parametrize("asgi", [False, True])
async def test_closing_the_gateway_ends_its_sessions_and_says_so(asgi):
    async with a_gateway(asgi=asgi) as (gateway, url, voips):
        async with WebCaller.connect(url, token=gateway.token()) as caller:
            await gateway.close()
            assert (await caller.wait_for(ms.SessionEnded)).reason == "shutdown"
            assert await caller.wait_closed() == 1000
            assert voips[0].end.reason == "shutdown"


async def test_a_gateway_that_drains_takes_no_more_and_waits_for_those_that_are_there():
    async with a_gateway() as (gateway, url, _), WebCaller.connect(url, token=gateway.token()) as caller:
        assert not await gateway.drain(0.05)
        assert not gateway.ready
        with pytest.raises(WebRefused) as refused:
            async with WebCaller.connect(url, token=gateway.token()):
                pass
        assert refused.value.close_code == 4503
        await caller.hang_up()
        assert await gateway.drain(10)


async def test_neither_tokens_nor_words_are_in_the_log(caplog):
    caplog.set_level(logging.DEBUG)
    async with a_gateway(
        lambda voip: Parrot(voip=voip, tts=HummingTTS(), greeting="A secret greeting.").activate()
    ) as (
        gateway,
        url,
        _,
    ):
        token = gateway.token(user="ada")
        async with WebCaller.connect(url, token=token) as caller:
            await caller.wait_for(ms.AgentTranscript)
            secret = caller.started.secret
    for hidden in (token, secret, "secret greeting"):
        assert hidden not in caplog.text


async def test_an_agent_in_a_worker_process_speaks_in_the_browsers_format():
    workers = WorkerPool(
        f"{APPS / 'greeting.py'}:on_voip", processes=1, hosting=HostingSettings(admit_s=20, answer_s=10)
    )
    async with a_gateway(workers=workers) as (gateway, url, _):
        async with WebCaller.connect(url, token=gateway.token(), audio=[MULAW_8K]) as caller:
            await until(lambda: caller.heard_ms >= 590)
            caller.press("1")  # it hangs up
            assert await caller.wait_closed() == 1000
        await until(lambda: not workers.host.calls)


def test_every_message_survives_the_way_there_and_back():
    for text in (start(token="t", agent="a"), '{"type":"ping","id":3}', '{"type":"dtmf","digit":"#"}'):
        message = ms.decode_client_message(text)
        assert ms.decode_client_message(ms.encode(message)) == message
    assert ms.decode_server_message('{"type":"from.the.future"}') is None
    for bad in ("", "[]", '{"type":3}', '{"type":"mark"}'):
        with pytest.raises(RemoteProtocolError):
            ms.decode_server_message(bad)

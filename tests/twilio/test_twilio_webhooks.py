"""Webhooks of the gateway over real sockets: refusals, retries, decisions."""

import asyncio
import logging

import aiohttp
import pytest
from aiohttp import web
from twilio_phone import ACCOUNT, FORM, TOKEN, Document, Phone, new_sid, phone_line, serving, until

from dialog.errors import ConfigurationError
from dialog.message import Message
from dialog.participant import Participant
from dialog.voip.admission import Accept, Reject, Say
from dialog.voip.carrier.http import site_of
from dialog.voip.carrier.record import CallRecord, FinishedCalls, call_id_of
from dialog.voip.twilio import TwilioGateway, TwilioVoIP
from dialog.voip.voip import VoIP


async def test_a_call_gets_a_stream_and_the_agent_a_voip():
    async with phone_line(stream_parameters=("CallerName",)) as (gateway, phone, _, voips):
        sid = new_sid()
        document = await phone.ring(sid, CallerName="Ann")
        assert document.verbs == ["Connect"]
        call_id = str(call_id_of(sid))
        assert document.stream.get("url") == phone.url.replace("http", "ws", 1) + "/media"
        assert document.action == f"{phone.url}/after?call={call_id}&generation=1"
        parameters = document.parameters
        assert parameters.pop("token")
        assert parameters == {
            "call_id": call_id,
            "From": "+15551230001",
            "To": "+15551230002",
            "direction": "inbound",
            "CallerName": "Ann",
        }
        (voip,) = voips
        assert isinstance(voip, TwilioVoIP)
        assert voip.call_sid == sid
        assert voip.account_sid == ACCOUNT
        assert voip.metadata.parameter("FromCity", "none") == ""
        assert gateway.get(sid) is voip
        assert gateway.get(call_id) is voip
        assert gateway.get(voip.metadata.call_id) is voip
        assert gateway.get("CAother") is None
        assert gateway.get("nonsense") is None
    assert not gateway.calls
    assert voip.end.reason == "shutdown"


async def test_a_get_webhook_is_signed_over_its_query():
    async with phone_line() as (_, phone, _, voips):
        query = f"CallSid={new_sid()}&AccountSid={ACCOUNT}&From=%2B1&To=%2B2"
        url = f"{phone.url}?{query}"
        signature = phone.validator.compute_signature(url, {})
        wire = aiohttp.client.URL(url, encoded=True)
        async with phone.session.get(wire, headers={"X-Twilio-Signature": signature}) as response:
            assert Document(await response.text()).verbs == ["Connect"]
        assert voips[0].metadata.from_ == "+1"
        async with phone.session.get(wire, headers={"X-Twilio-Signature": signature[::-1]}) as response:
            assert response.status == 403


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "HEAD"])
async def test_a_wrong_method_is_405(method):
    async with phone_line() as (gateway, phone, _, _), phone.session.request(method, phone.url) as response:
        assert response.status == 405
        assert response.headers["Allow"] == "GET, POST"
        assert not gateway.calls


async def test_callbacks_are_post_only_and_media_get_only():
    async with phone_line() as (_, phone, _, _):
        for path, method in (("/after", "GET"), ("/recording", "GET"), ("/media", "POST")):
            async with phone.session.request(method, phone.url + path) as response:
                assert response.status == 405


async def test_a_wrong_path_is_404():
    async with phone_line() as (_, phone, _, _):
        for url in (phone.url + "/nothing", phone.url + "/", phone.url[:-1], phone.url + "/voice"):
            status, _, _ = await phone.post(url, phone.form(new_sid()))
            assert status == 404, url


@pytest.mark.parametrize("content_type", ["application/json", "text/plain", "multipart/form-data; boundary=x", None])
async def test_a_post_that_is_not_a_form_is_415(content_type):
    async with phone_line() as (gateway, phone, _, _):
        status, _, _ = await phone.post(phone.url, phone.form(new_sid()), headers={"Content-Type": content_type})
        assert status == 415
        assert not gateway.calls


async def test_a_missing_signature_is_400_and_a_wrong_one_403():
    async with phone_line() as (gateway, phone, _, voips):
        form = phone.form(new_sid())
        status, text, _ = await phone.post(phone.url, form, headers={"X-Twilio-Signature": None})
        assert (status, "X-Twilio-Signature" in text) == (400, True)
        for signature in ("x", "AAAAAAAAAAAAAAAAAAAAAAAAAAA=", phone.validator.compute_signature(phone.url, {})):
            status, text, _ = await phone.post(phone.url, form, signature=signature)
            assert status == 403
        other = Phone(phone.url, phone.session, token="another")
        status, _, _ = await other.post(phone.url, form)
        assert status == 403
        assert not gateway.calls
        assert not voips


@pytest.mark.parametrize("host", ["[", ":x", "a b", "[::1"])
async def test_a_host_that_cannot_be_is_refused_like_any_other_stranger(host):
    async with phone_line() as (gateway, phone, _, _):
        status, _, _ = await phone.post(phone.url, phone.form(new_sid()), headers={"Host": host}, signature="x")
        assert status == 403
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await phone.connect(f"{phone.url}/media", signature="x", headers={"Host": host})
        assert refused.value.status in (400, 403)
        assert not gateway.calls


async def test_another_account_is_403_even_if_signed():
    async with phone_line() as (gateway, phone, _, _):
        status, _, _ = await phone.post(phone.url, phone.form(new_sid(), AccountSid="AC" + "1" * 32))
        assert status == 403
        assert not gateway.calls


@pytest.mark.parametrize("fields", [{}, {"AccountSid": ACCOUNT}, {"AccountSid": ACCOUNT, "CallSid": ""}])
async def test_a_form_without_its_call_is_400(fields):
    async with phone_line() as (gateway, phone, _, _):
        status, _, _ = await phone.post(phone.url, fields)
        assert status == 400
        assert not gateway.calls


async def test_a_form_that_is_not_utf8_is_refused():
    async with phone_line() as (_, phone, _, _):
        headers = {"Content-Type": FORM, "X-Twilio-Signature": "x"}
        for body in (b"CallSid=\xff", b"CallSid=%FF", b"&".join(b"a=1" for _ in range(2000))):
            async with phone.session.post(phone.url, data=body, headers=headers) as response:
                assert response.status == 400


async def test_a_body_that_is_too_large_is_413_without_being_read():
    async with phone_line(max_body=1000) as (_, phone, _, _):
        status, _, _ = await phone.post(phone.url, phone.form(new_sid(), Extra="x" * 1000))
        assert status == 413


async def test_a_body_without_a_length_is_bounded_too():
    async with phone_line() as (_, phone, _, _):
        sent = 0

        async def endless():
            nonlocal sent
            while sent < 50_000_000:
                sent += 10_000
                yield b"x" * 10_000

        headers = {"Content-Type": FORM, "X-Twilio-Signature": "x"}
        try:
            async with phone.session.post(phone.url, data=endless(), headers=headers) as response:
                assert response.status == 413
        except aiohttp.ClientConnectionError:
            pass  # the gateway closed while we were still sending
        assert sent < 50_000_000


async def test_a_body_of_a_million_bytes_passes():
    async with phone_line() as (_, phone, _, voips):
        form = phone.form(new_sid(), Extra="x" * 900_000)
        assert (await phone.ring(sid=form["CallSid"], Extra=form["Extra"])).verbs == ["Connect"]
        assert len(voips[0].metadata.parameter("Extra")) == 900_000


async def test_a_slow_body_is_408():
    async with phone_line(body_timeout_s=0.05) as (_, phone, _, _):
        url = aiohttp.client.URL(phone.url)
        reader, writer = await asyncio.open_connection(url.host, url.port)
        head = f"POST {url.path} HTTP/1.1\r\nHost: x\r\nContent-Type: {FORM}\r\nX-Twilio-Signature: x\r\n"
        writer.write(head.encode() + b"Content-Length: 100\r\n\r\nCallSid=")
        async with asyncio.timeout(5):
            assert b" 408 " in await reader.readline()
            await reader.read()  # and the connection is closed
        writer.close()
        await writer.wait_closed()


async def test_a_repeated_webhook_gets_the_same_answer_and_no_second_agent():
    async with phone_line() as (gateway, phone, _, voips):
        sid = new_sid()
        first = await phone.ring(sid)
        assert (await phone.ring(sid)).text == first.text
        assert (await phone.ring(sid, New="field")).text == first.text
        assert len(voips) == len(gateway.calls) == 1


async def test_webhooks_that_arrive_together_get_the_same_answer():
    release = asyncio.Event()

    async def resolver(offer):
        await release.wait()
        return Accept()

    async with phone_line(resolver=resolver) as (_, phone, _, voips):
        sid = new_sid()
        asks = [asyncio.create_task(phone.ring(sid)) for _ in range(5)]
        await asyncio.sleep(0)
        release.set()
        documents = await asyncio.gather(*asks)
        assert len({document.text for document in documents}) == 1
        assert len(voips) == 1


async def test_a_replayed_webhook_of_a_call_that_is_over_starts_nothing():
    async with phone_line() as (gateway, phone, _, voips):
        sid = new_sid()
        socket = await phone.stream(await phone.ring(sid), sid)
        await socket.stop()
        assert await socket.close_code() == 1000
        await until(lambda: not gateway.calls)
        assert (await phone.ring(sid)).verbs == ["Hangup"]
        assert len(voips) == 1


async def test_finished_calls_are_forgotten():
    now = [0.0]
    finished = FinishedCalls(lambda: now[0])
    ids = [call_id_of(f"CA{n}") for n in range(5000)]
    for call_id in ids:
        finished.add(call_id, "<Hangup/>")
    assert len(finished) == 4096
    assert finished.get(ids[0]) is None
    assert finished.get(ids[-1]) == "<Hangup/>"
    now[0] = 301.0
    assert finished.get(ids[-1]) is None
    assert len(finished) == 0


async def test_a_terminal_status_at_the_voice_webhook_starts_nothing():
    async with phone_line() as (gateway, phone, _, voips):
        assert (await phone.ring(CallStatus="completed")).verbs == ["Hangup"]
        assert not voips
        sid = new_sid()
        await phone.ring(sid)
        await phone.ring(sid, CallStatus="completed")
        assert voips[0].end.reason == "never_connected"
        await until(lambda: not gateway.calls)


# Who decides


@pytest.mark.parametrize(
    ("decision", "verbs"), [(Reject("busy"), ["Reject"]), (Say("We are closed."), ["Say", "Hangup"])]
)
async def test_a_resolver_refuses_before_anything_is_spent(decision, verbs):
    offers = []

    async def resolver(offer):
        offers.append(offer)
        return decision

    async with phone_line(resolver=resolver) as (gateway, phone, _, voips):
        sid = new_sid()
        document = await phone.ring(sid)
        assert document.verbs == verbs
        assert offers[0].metadata.from_ == "+15551230001"
        assert (await phone.ring(sid)).text == document.text
        assert len(offers) == 1
        assert not voips
        assert not gateway.calls


async def test_a_resolver_that_hangs_raises_or_errs_leads_to_a_spoken_sentence(caplog):
    async def hang(offer):
        await asyncio.Event().wait()

    async def fail(offer):
        raise ZeroDivisionError

    async def err(offer):
        return "yes"

    for resolver in (hang, fail, err):
        caplog.clear()
        async with phone_line(resolver=resolver, resolver_timeout_s=0.05, error_text="Sorry!") as (g, phone, _, voips):
            document = await phone.ring()
            assert document.verbs == ["Say", "Hangup"]
            assert document.root[0].text == "Sorry!"
            assert not voips
            assert not g.calls
        assert len([r for r in caplog.records if r.levelno >= logging.ERROR]) == 1


async def test_an_exception_in_on_voip_is_spoken_and_everything_disposed(caplog):
    made = []

    def on_voip(voip):
        made.append(Participant())
        raise ZeroDivisionError("oops")

    async with phone_line(on_voip=on_voip, error_text="Sorry!") as (gateway, phone, _, _):
        sid = new_sid()
        document = await phone.ring(sid)
        assert document.verbs == ["Say", "Hangup"]
        assert (await phone.ring(sid)).text == document.text
        await until(lambda: not gateway.calls)
        assert made[0].disposed
        assert (await phone.ring(sid)).text == document.text
        assert len(made) == 1
    errors = [r for r in caplog.records if r.levelno >= logging.ERROR]
    assert len(errors) == 1
    assert "oops" in errors[0].getMessage()


async def test_a_gateway_that_nobody_listens_to_says_so(caplog):
    async with phone_line(on_voip=False) as (_, phone, _, _):
        assert (await phone.ring()).verbs == ["Say", "Hangup"]
    assert "nobody listens" in caplog.text


async def test_an_agent_may_hang_up_at_once():
    tasks = []

    def on_voip(voip):
        tasks.append(asyncio.get_running_loop().create_task(voip.hangup()))

    async with phone_line(on_voip=on_voip) as (gateway, phone, rest, _):
        sid = new_sid()
        rest.add_call(sid)
        await phone.ring(sid)
        await asyncio.gather(*tasks)
        assert rest.calls[sid].status == "completed"
        await until(lambda: not gateway.calls)


async def test_a_call_that_never_streams_ends():
    from dialog.voip.call import CallSettings

    settings = CallSettings(never_connected_s=0.05)
    async with phone_line(call_settings=settings) as (gateway, phone, _, voips):
        ends = []
        await phone.ring()
        voips[0].on(VoIP.ENDED, ends.append)
        await until(lambda: not gateway.calls)
        assert [end.reason for end in ends] == ["never_connected"]
        assert voips[0].disposed


# Listeners


async def test_on_is_a_decorator_and_a_call_and_checks_names():
    gateway = TwilioGateway(account_sid=ACCOUNT, auth_token=TOKEN)

    @gateway.on("voip")
    def listener(voip):
        pass

    assert gateway.on(TwilioGateway.VOIP, listener) is listener
    gateway.off("voip", listener)
    gateway.off("voip", print)
    with pytest.raises(ValueError, match="no event 'call'"):
        gateway.on("call", listener)

    async def coroutine(voip):
        pass

    with pytest.raises(TypeError, match="plain function"):
        gateway.on("voip", coroutine)
    await gateway.close()


@pytest.mark.parametrize(
    "settings",
    [
        {"account_sid": ""},
        {"auth_token": ""},
        {"webhook_url": "voice.example"},
        {"webhook_url": "wss://voice.example"},
        {"media_url": "https://voice.example", "webhook_url": "https://voice.example"},
        {"path": "twilio"},
        {"api_key": "SK1"},
        {"base_url": "127.0.0.1:80"},
    ],
)
async def test_wrong_settings_are_refused_at_once(settings):
    with pytest.raises(ConfigurationError):
        TwilioGateway(**{"account_sid": ACCOUNT, "auth_token": TOKEN, **settings})


def test_credentials_are_not_in_the_repr():
    assert TOKEN not in repr(TwilioGateway(account_sid=ACCOUNT, auth_token=TOKEN))


# Addresses


async def test_the_public_url_is_what_is_signed_and_announced():
    async with phone_line(webhook_url="https://voice.example/in/voice#rc=2", path="/voice") as (_, phone, _, _):
        local = phone.url
        public = "https://voice.example/in/voice"
        form = phone.form(new_sid())
        status, _, _ = await phone.post(local, form)
        assert status == 403
        status, text, _ = await phone.post(local, form, signed_url=public)
        assert status == 200
        document = Document(text)
        assert document.stream.get("url") == "wss://voice.example/in/voice/media"
        assert document.action.startswith(public + "/after?call=")
        after = document.action.replace(public, local)
        form["CallStatus"] = "completed"
        status, text, _ = await phone.post(after, form, signed_url=document.action)
        assert (status, Document(text).verbs) == (200, ["Hangup"])


async def test_forwarded_headers_count_only_when_trusted():
    proxy = {"X-Forwarded-Proto": "https", "X-Forwarded-Host": "voice.example"}
    for trust, expected in ((True, 200), (False, 403)):
        async with phone_line(trust_forwarded_headers=trust) as (_, phone, _, _):
            status, text, _ = await phone.post(
                phone.url, phone.form(new_sid()), headers=proxy, signed_url="https://voice.example/twilio"
            )
            assert status == expected
            if trust:
                assert Document(text).stream.get("url") == "wss://voice.example/twilio/media"
                headers = {**proxy, "X-Forwarded-Prefix": "/v1/", "X-Forwarded-Port": "8443"}
                public = "https://voice.example:8443/v1/twilio"
                status, text, _ = await phone.post(phone.url, phone.form(new_sid()), headers=headers, signed_url=public)
                assert status == 200
                assert Document(text).action.startswith(public + "/after")


async def test_both_auth_tokens_are_accepted_during_a_rotation():
    async with phone_line(previous_auth_token="old") as (_, phone, _, _):
        old = Phone(phone.url, phone.session, token="old")
        assert (await old.ring()).verbs == ["Connect"]
        assert (await phone.ring()).verbs == ["Connect"]


async def test_without_validation_no_signature_is_needed():
    async with phone_line(validate=False) as (_, phone, _, voips):
        status, _, _ = await phone.post(phone.url, phone.form(new_sid()), headers={"X-Twilio-Signature": None})
        assert status == 200
        assert len(voips) == 1


async def test_the_routes_fit_into_the_hosts_own_app():
    async with phone_line() as (_, _, rest, _):
        app = web.Application()

        async def hello(request):
            return web.Response(text="hello")

        app.router.add_get("/", hello)
        gateway = TwilioGateway(account_sid=ACCOUNT, auth_token=TOKEN, path="/phone/in", base_url=rest.url)
        gateway.on("voip", lambda voip: None)
        gateway.add_routes(app)
        async with serving(gateway, app) as origin, aiohttp.ClientSession() as session:
            async with session.get(origin + "/") as response:
                assert await response.text() == "hello"
            assert (await Phone(origin + "/phone/in", session).ring()).verbs == ["Connect"]
            async with session.post(origin + "/phone") as response:
                assert response.status == 404
        assert not gateway.calls


async def test_what_the_agent_says_before_the_stream_is_kept_for_it():
    from uuid import uuid4

    turn = uuid4()

    def on_voip(voip):
        voip.post(Message(uuid=turn, data=b"\x01" * 800, done=True))

    async with phone_line(on_voip=on_voip) as (_, phone, _, _):
        socket = await phone.call()
        message = await socket.hear()
        assert message["event"] == "media"
        assert message["streamSid"] == socket.stream_sid


async def test_closing_while_a_call_is_decided_answers_503():
    asked = asyncio.Event()

    async def resolver(offer):
        asked.set()
        await asyncio.Event().wait()

    async with phone_line(resolver=resolver) as (gateway, phone, _, voips):
        ask = asyncio.create_task(phone.post(phone.url, phone.form(new_sid())))
        await asked.wait()
        await gateway.close()
        assert (await ask)[0] == 503
        assert not voips


async def test_a_public_url_without_tls_is_warned_of(caplog):
    TwilioGateway(account_sid=ACCOUNT, auth_token=TOKEN, webhook_url="http://127.0.0.1:1/x")
    TwilioGateway(account_sid=ACCOUNT, auth_token=TOKEN, webhook_url="https://voice.example/x")
    assert not caplog.records
    TwilioGateway(account_sid=ACCOUNT, auth_token=TOKEN, webhook_url="http://voice.example/x")
    assert "wss://" in caplog.text


def test_repeated_callbacks_are_remembered_within_a_bound():
    record = CallRecord(call_id_of("CA1"), "CA1", site_of("https://h/v"))
    assert not record.repeated(1)
    assert record.repeated(1)
    for n in range(2000):
        record.repeated(n)
    assert len(record._seen) == 1024

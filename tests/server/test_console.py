"""The console over real sockets: who gets in, what a page is told, what it may do, and what none of that costs."""

from __future__ import annotations

import asyncio
import base64
import re
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from uuid import uuid4

import aiohttp
import pytest
from console_line import Visitor, hearing, on_a_call, sign_in, visiting
from service_line import ACCOUNT, FAST, OURS, READER, SECRET, THEIRS, TOKEN, api, assistant, service_line, serving_at
from test_service_elsewhere import OTHER, as_asgi
from twilio_phone import Phone, until

from dialog.calls import events as ev
from dialog.calls.publish import CallEvents
from dialog.errors import ConfigurationError
from dialog.message import CallMetadata
from dialog.server.config import ApiToken, ClientSettings, PhoneNumber, ServiceConfig, TwilioTenant
from dialog.server.console.board import Board
from dialog.server.console.core import _key
from dialog.server.console.viewer import Viewer
from dialog.server.console.visitors import LIFE_S, Visitors

BOTH = pytest.mark.parametrize("serve", [serving_at, as_asgi], ids=["aiohttp", "asgi"])


# Who gets in.

NOT_UTF8 = base64.urlsafe_b64encode(b'["\xff",1]').decode().rstrip("=")
DEEP = base64.urlsafe_b64encode(b'["tests",1,' + b"[" * 3000).decode().rstrip("=")


@BOTH
async def test_a_token_is_shown_once_and_a_cookie_does_the_rest(serve) -> None:
    async with service_line(serve=serve) as line:
        async with line.session.get(f"{line.origin}/console") as response:
            assert response.status == 200
            assert 'type="password"' in await response.text()
            policy = response.headers["Content-Security-Policy"]
            assert "script-src 'self';" in policy
            assert "frame-ancestors 'none'" in policy
            assert response.headers["Cache-Control"] == "no-store"
        form = {"data": {"token": SECRET}, "headers": {"Origin": line.origin}, "allow_redirects": False}
        async with line.session.post(f"{line.origin}/console/sign-in", **form) as response:
            assert (response.status, response.headers["Location"]) == (303, "/console")
            cookie, *attributes = response.headers["Set-Cookie"].split("; ")
            assert {"HttpOnly", "SameSite=Strict", "Path=/console"} <= set(attributes)
            assert "Secure" not in attributes, "it is no https"
            assert SECRET not in cookie
        line.session.cookie_jar.clear()
        visitor = Visitor(line, cookie)
        page = await visitor.ask("GET", "")
        assert b"console.js" in page.body
        assert b'data-act="yes"' in page.body
        assert not re.search(rb"<script(?! type=\"module\" src=)|<style| on\w+=|style=", page.body)
        assert (await visitor.ask("GET", "/history")).status == 200
        async with line.session.post(
            f"{line.origin}/console/sign-out", headers=visitor.headers, allow_redirects=False
        ) as response:
            assert response.status == 303
            assert "Max-Age=0" in response.headers["Set-Cookie"]


@BOTH
async def test_nothing_is_told_to_who_has_not_signed_in(serve) -> None:
    async with service_line(serve=serve) as line:
        call_id, _ = await on_a_call(line)
        for method, path in (
            ("GET", "/history"),
            ("GET", f"/calls/{call_id}"),
            ("GET", f"/calls/{call_id}/recordings/0"),
            ("POST", f"/calls/{call_id}/hangup"),
        ):
            for cookie in (
                "",
                "dialog_console=",
                "dialog_console=x.y",
                f"dialog_console={NOT_UTF8}.y",
                f"dialog_console={DEEP}.y",
                "dialog_console=\N{LATIN SMALL LETTER E WITH ACUTE}",
            ):
                answer = await line.client.ask(
                    method,
                    f"/console{path}",
                    {} if method == "POST" else None,
                    headers={"Cookie": cookie.encode().decode("latin-1")},
                )
                assert answer.status == 401, (path, cookie)
        for cookie in ("", f"dialog_console={NOT_UTF8}.y"):
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                await line.session.ws_connect(
                    f"{line.origin}/console/live", origin=line.origin, headers={"Cookie": cookie}
                )
            assert refused.value.status == 401


@BOTH
async def test_a_wrong_token_is_refused_and_too_many_are_not_looked_at(serve) -> None:
    async with service_line(serve=serve, api=api(burst=3, requests_per_s=0.01)) as line:
        statuses = []
        for _ in range(5):
            async with line.session.post(f"{line.origin}/console/sign-in", data={"token": "wrong"}) as response:
                statuses.append(response.status)
                text = await response.text()
        assert statuses == [401, 401, 401, 429, 429]
        assert "too often" in text


async def test_a_token_that_may_not_look_does_not_get_in() -> None:
    tokens = (ApiToken(name="texts", token=SECRET, scopes=frozenset({"messages:write"})),)
    async with service_line(api=api(tokens=tokens)) as line:
        answer = line.session.post(f"{line.origin}/console/sign-in", data={"token": SECRET})
        async with answer as response:
            assert response.status == 403
            assert "calls:read" in await response.text()


def test_cookies_are_signed_end_and_go_with_their_token() -> None:
    now = 1000.0
    token, other = ApiToken(name="a", token=SECRET), ApiToken(name="b", token=READER)
    visitors = Visitors([token, other], b"k" * 32, time=lambda: now)
    cookie = f"x=1; dialog_console={visitors.sign_in(token)}; y=2"
    assert visitors.find(cookie).token is token
    assert Visitors([token], b"j" * 32, time=lambda: now).find(cookie) is None
    assert Visitors([other], b"k" * 32, time=lambda: now).find(cookie) is None
    changed = ApiToken(name="a", token="another-long-secret")
    assert Visitors([changed], b"k" * 32, time=lambda: now).find(cookie) is None
    body, mac = visitors.sign_in(other).split(".")
    assert visitors.find(f"dialog_console={body}.{visitors.sign_in(token).split('.')[1]}") is None
    assert visitors.find(f"dialog_console={body}.{mac}").token is other
    now += LIFE_S
    assert visitors.find(cookie) is None


def test_all_processes_of_a_service_for_clients_alone_sign_cookies_with_one_key() -> None:
    keys = {_key(ServiceConfig(assistants={"a": assistant()}, clients=ClientSettings(), api=api())) for _ in range(2)}
    assert len(keys) == 1


@BOTH
async def test_pages_of_other_sites_reach_nothing(serve) -> None:
    async with visiting(serve=serve) as (line, visitor):
        call_id, _ = await on_a_call(line)
        for strange in ({"Origin": "https://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}):
            assert (await visitor.ask("POST", f"/calls/{call_id}/hangup", {}, **strange)).status == 403
            assert (await visitor.ask("POST", "/sign-out", **strange)).status == 403
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                await line.session.ws_connect(f"{line.origin}/console/live", headers={**visitor.headers, **strange})
            assert refused.value.status == 403
        # Without an answer to a question of its own a browser sends no JSON to another site.
        text = await visitor.ask("POST", f"/calls/{call_id}/hangup", **{"Content-Type": "text/plain"})
        assert text.status == 415
        assert line.service.session(call_id).end is None


async def test_behind_a_proxy_that_speaks_https_the_cookie_is_for_https_alone() -> None:
    async with service_line(trust_forwarded_headers=True) as line:
        headers = {"Origin": "https://voice.example", "X-Forwarded-Host": "voice.example", "X-Forwarded-Proto": "https"}
        form = {"data": {"token": SECRET}, "headers": headers, "allow_redirects": False}
        async with line.session.post(f"{line.origin}/console/sign-in", **form) as response:
            assert response.status == 303
            assert "Secure" in response.headers["Set-Cookie"].split("; ")


async def test_there_is_no_console_without_tokens_or_a_path() -> None:
    for settings in ({"api": api(tokens=())}, {"console": ""}):
        async with service_line(**settings) as line:
            assert line.service.console is None
            assert (await line.client.get("/console")).status == 404
    with pytest.raises(ConfigurationError, match="console must begin with a slash"):
        ServiceConfig(assistants={}, tenants={"a": TwilioTenant(account_sid=ACCOUNT, auth_token=TOKEN)}, console="x/")


@BOTH
async def test_it_lies_below_the_prefix_and_wherever_the_host_mounts_it(serve) -> None:
    async with visiting(serve=serve, prefix="/voice", console="/desk") as (_, visitor):
        page = await visitor.ask("GET", "")
        assert b'data-base="/voice/desk"' in page.body
        script = await visitor.ask("GET", "/console.js")
        assert (script.status, script.kind) == (200, "text/javascript; charset=utf-8")
        again = await visitor.ask("GET", "/console.js", **{"If-None-Match": script.headers["ETag"]})
        assert again.status == 304
        assert (await visitor.ask("GET", "/nothing")).status == 404
        assert (await visitor.ask("GET", "/calls/no-uuid")).status == 404
        assert (await visitor.ask("DELETE", "")).status == 405
        assert (await visitor.ask("GET", "/history?limit=0")).status == 422
        async with visitor.page() as page:
            assert page.list["calls"] == []

    @asynccontextmanager
    async def below(listening, service):
        async with as_asgi(listening, service, mount="/mounted") as origin:
            yield origin

    async with service_line(serve=below) as line, line.session.get(f"{line.origin}/mounted/console") as response:
        assert 'action="/mounted/console/sign-in"' in await response.text()


# What a page is told.


@BOTH
async def test_the_list_follows_the_calls(serve) -> None:
    async with visiting(serve=serve) as (line, visitor), visitor.page() as page:
        assert page.list["calls"] == []
        call_id, _ = await on_a_call(line)
        told = await page.next("changes", lambda told: told["calls"][0]["said"][0] == "agent")
        (row,) = told["calls"]
        assert (row["call_id"], row["state"], row["from"]) == (str(call_id), "live", "+15551230001")
        assert row["said"] == ["agent", "Good day to you."]
        hearing(line).heard("hello there")
        told = await page.next("changes", lambda told: told["calls"][0]["turns"] == 1)
        await page.next("changes", lambda told: told["calls"][0]["said"] == ["agent", "Yes."])
        assert (await visitor.ask("POST", f"/calls/{call_id}/hangup", {})).status == 204
        assert (await page.next("changes", lambda told: told["gone"]))["gone"] == [str(call_id)]


async def test_changes_of_a_moment_travel_together() -> None:
    async with visiting() as (line, visitor), visitor.page() as page:
        calls = [CallMetadata(call_id=uuid4(), carrier="test", account_id=ACCOUNT) for _ in range(50)]
        for _ in range(20):
            for call in calls:
                line.service.events.publish(call, ev.CallerSaid(seq=1, at_s=1.0, turn=uuid4(), text="yes", final=True))
        messages = [await page.next("changes")]
        while sum(len(each["calls"]) for each in messages) < 50:
            messages.append(await page.next("changes"))
        assert len(messages) <= 2
        assert {row["turns"] for row in messages[-1]["calls"]} == {20}


@BOTH
async def test_who_watches_a_call_reads_along_and_sees_both_levels(serve) -> None:
    async with visiting(serve=serve) as (line, visitor):
        call_id, socket = await on_a_call(line)
        found = (await visitor.ask("GET", f"/calls/{call_id}")).body
        assert [each["text"] for each in found["events"] if each["type"] == "agent.transcript"] == ["Good day to you."]
        last = found["events"][-1]["seq"]
        async with visitor.page() as page:
            await page.wish("watch", call_id=str(call_id), after=last)
            told = await page.next("watching")
            assert (told["sound"], told["rate"]) == (True, 8000)
            stt = hearing(line)
            stt.hears("do you")
            assert (await page.event("caller.transcript"))["text"] == "do you"
            stt.heard("do you have a table")
            assert (await page.event("caller.transcript"))["final"] is True
            assert (await page.event("agent.transcript"))["heard"] == "Yes."
            assert "stages" in await page.event("turn.measured")
            await socket.media(b"\x20" * 800)
            await page.next("levels", lambda told: told["caller"] > -30)
            assert not page.sound, "nobody listens"


@BOTH
async def test_who_listens_in_hears_both_sides(serve) -> None:
    async with visiting(serve=serve) as (line, visitor):
        call_id, socket = await on_a_call(line)
        async with visitor.page() as page:
            await page.wish("watch", call_id=str(call_id))
            await page.next("watching")
            await page.wish("listen", on=True)
            await page.wish("watch", call_id=str(call_id))
            await page.wish("listen", on=True)
            await page.next("watching")
            for _ in range(10):
                await socket.media(b"\x20" * 160)
            async with asyncio.timeout(5):
                while len(page.sound) < 2 * 1600:
                    await page.next("levels")
            assert max(page.sound[1::2]) > 0
            await page.wish("listen", on=False)
            await page.wish("watch", call_id=None)
            await until(lambda: not line.service.calls[0]._taps)
            before = len(page.sound)
            await socket.media(b"\x20" * 1600)
            hearing(line).heard("and now")
            await page.next("changes", lambda told: told["calls"][0]["turns"] == 1)
            assert len(page.sound) == before


async def test_a_page_that_leaves_takes_its_ear_with_it() -> None:
    async with visiting() as (line, visitor):
        call_id, _ = await on_a_call(line)
        async with visitor.page() as page:
            await page.wish("watch", call_id=str(call_id))
            await page.next("watching")
            assert len(line.service.calls[0]._taps) == 1
        await until(lambda: not line.service.calls[0]._taps)
        await until(lambda: line.service.console._viewers == 0)


async def test_a_call_that_ends_while_it_is_watched_tells_so() -> None:
    async with visiting() as (line, visitor):
        call_id, socket = await on_a_call(line)
        async with visitor.page() as page:
            await page.wish("watch", call_id=str(call_id))
            await socket.stop()
            assert (await page.event("call.ended"))["reason"]
        found = (await visitor.ask("GET", f"/calls/{call_id}")).body
        assert found["call"]["state"] == "ended"
        assert found["events"][-1]["type"] == "call.ended"
        (listed,) = (await visitor.ask("GET", "/history")).body["calls"]
        assert listed["call_id"] == str(call_id)


@BOTH
async def test_what_is_no_wish_costs_the_page_its_connection_and_nobody_else_anything(serve) -> None:
    async with visiting(serve=serve) as (line, visitor):
        await on_a_call(line)
        for nonsense in ("[]", '{"do":"dance"}', '{"do":"watch","call_id":"x"}', b"\xff\xff", "x" * 5000):
            async with visitor.page() as page:
                if isinstance(nonsense, bytes):
                    await page.ws.send_bytes(nonsense)
                else:
                    await page.ws.send_str(nonsense)
                async with asyncio.timeout(5):
                    async for _ in page.ws:
                        pass
                assert page.ws.close_code in (1008, 1009), nonsense
        assert len(line.service.live.live) == 1


async def test_only_so_many_pages_are_open(monkeypatch) -> None:
    monkeypatch.setattr("dialog.server.console.core._MAX_VIEWERS", 1)
    async with visiting() as (line, visitor), visitor.page():
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await line.session.ws_connect(f"{visitor.url}/live", headers=visitor.headers)
        assert refused.value.status == 503


async def test_pages_do_not_hold_up_the_end_of_the_server() -> None:
    async with visiting() as (line, visitor):
        ws = await line.session.ws_connect(f"{visitor.url}/live", headers=visitor.headers)
        await ws.receive()
        await line.service.close()


# What a page may do.


async def test_a_page_acts_with_the_rights_of_its_token() -> None:
    async with visiting(READER) as (line, visitor):
        call_id, _ = await on_a_call(line)
        assert b'data-act="no"' in (await visitor.ask("GET", "")).body
        for command, body in (("hangup", {}), ("transfer", {"to": THEIRS}), ("whisper", {"text": "x"})):
            assert (await visitor.ask("POST", f"/calls/{call_id}/{command}", body)).status == 403
        assert line.service.session(call_id).end is None


async def test_a_page_whispers_transfers_and_hangs_up() -> None:
    async with visiting(public=True) as (line, visitor):
        call_id, _ = await on_a_call(line)
        call = line.rest.add_call(line.service.session(call_id).call.carrier_call_id)
        async with visitor.page() as page:
            await page.wish("watch", call_id=str(call_id), after=10_000)
            assert (await visitor.ask("POST", f"/calls/{call_id}/whisper", {"text": "A member."})).status == 202
            assert (await page.event("agent.told"))["text"] == "A member."
            assert (await visitor.ask("POST", f"/calls/{call_id}/whisper", {"text": " "})).status == 422
            assert (await visitor.ask("POST", f"/calls/{call_id}/transfer", {"to": "12"})).status == 422
            assert (await visitor.ask("POST", f"/calls/{call_id}/transfer", {"to": THEIRS})).status == 204
            assert THEIRS in str(call.updates[-1])
        assert (await visitor.ask("POST", f"/calls/{call_id}/hangup", {})).status == 204
        await until(lambda: line.service.session(call_id).end is not None)
        assert (await visitor.ask("POST", f"/calls/{call_id}/hangup", {})).status == 409


async def test_a_token_of_one_tenant_sees_nothing_of_another() -> None:
    tenants = {
        "a": TwilioTenant(account_sid=ACCOUNT, auth_token=TOKEN, pacing=FAST),
        "b": TwilioTenant(account_sid=OTHER, auth_token=TOKEN),
    }
    tokens = (
        ApiToken(name="a", token=SECRET, tenants=frozenset({"a"})),
        ApiToken(name="b", token=READER, tenants=frozenset({"b"})),
    )
    numbers = {"first": PhoneNumber(number=OURS, tenant="a")}
    async with service_line(tenants=tenants, numbers=numbers, api=api(tokens=tokens)) as line:
        owner, other = Visitor(line, await sign_in(line)), Visitor(line, await sign_in(line, READER))
        line.phone = Phone(f"{line.origin}/twilio/voice/a", line.session)
        async with other.page() as page:
            call_id, socket = await on_a_call(line)
            async with owner.page() as own:
                assert [row["call_id"] for row in own.list["calls"]] == [str(call_id)]
            await page.wish("watch", call_id=str(call_id))
            assert not line.service.calls[0]._taps
            for path in ("", "/recordings/0"):
                assert (await other.ask("GET", f"/calls/{call_id}{path}")).status == 404
                assert (await owner.ask("GET", f"/calls/{call_id}")).status == 200
            assert (await other.ask("POST", f"/calls/{call_id}/hangup", {})).status == 404
            await socket.stop()
            await until(lambda: line.service.session(call_id).end is not None)
            await line.phone.ring(From="")
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.3):
                    await page.next("changes")
        assert (await other.ask("GET", "/history")).body["calls"] == []
        assert len((await owner.ask("GET", "/history")).body["calls"]) == 1


async def test_the_log_has_what_was_said_and_whose_it_was(tmp_path) -> None:
    tenants = {
        "a": TwilioTenant(account_sid=ACCOUNT, auth_token=TOKEN, pacing=FAST),
        "b": TwilioTenant(account_sid=OTHER, auth_token=TOKEN),
    }
    tokens = (
        ApiToken(name="a", token=SECRET, tenants=frozenset({"a"})),
        ApiToken(name="b", token=READER, tenants=frozenset({"b"})),
    )
    settings = {"tenants": tenants, "numbers": {}, "api": api(tokens=tokens), "log": f"sqlite:///{tmp_path}/calls.db"}
    async with service_line(**settings) as line:
        owner, other = Visitor(line, await sign_in(line)), Visitor(line, await sign_in(line, READER))
        call_ids = []
        for number in range(3):
            call = CallMetadata(call_id=uuid4(), carrier="twilio", account_id=ACCOUNT, from_=f"+155500000{number}")
            call_ids.append(str(call.call_id))
            tell_a_call(line.service.events, call, f"order number {number}", keys=500 * (number == 2))
        await line.service.log.flush()
        found = (await owner.ask("GET", "/history?limit=2")).body
        assert ([each["call_id"] for each in found["calls"]], found["more"]) == (call_ids[:0:-1], True)
        rest = (await owner.ask("GET", f"/history?limit=2&before={call_ids[1]}")).body
        assert ([each["call_id"] for each in rest["calls"]], rest["more"]) == (call_ids[:1], False)
        (found,) = (await owner.ask("GET", "/history?text=NUMBER%201")).body["calls"]
        assert (found["call_id"], found["duration_s"], found["turns"]) == (call_ids[1], 9.0, 1)
        assert (await other.ask("GET", "/history")).body["calls"] == []
        assert (await other.ask("GET", f"/history?before={call_ids[1]}")).status == 404
        line.service.console.board._ended.clear()  # as after a restart
        shown = (await owner.ask("GET", f"/calls/{call_ids[0]}")).body
        assert [each["text"] for each in shown["events"] if each["type"] == "caller.transcript"] == ["order number 0"]
        assert (await other.ask("GET", f"/calls/{call_ids[0]}")).status == 404
        assert (await owner.ask("GET", f"/calls/{uuid4()}")).status == 404


async def test_of_a_long_call_what_is_not_kept_comes_from_the_log(tmp_path) -> None:
    async with visiting(log=f"sqlite:///{tmp_path}/calls.db") as (line, visitor):
        call = CallMetadata(call_id=uuid4(), carrier="twilio", account_id=ACCOUNT)
        tell_a_call(line.service.events, call, "the first words", keys=900)
        assert len(line.service.console.board.get(call.call_id).events) == 400
        await line.service.log.flush()
        shown = (await visitor.ask("GET", f"/calls/{call.call_id}")).body["events"]
        assert len(shown) == 903
        assert shown[1]["text"] == "the first words"
        assert [each["seq"] for each in shown] == sorted({each["seq"] for each in shown})


def tell_a_call(events, call, text, *, keys=0) -> None:
    """A whole call: it starts, somebody says ``text`` and presses so many keys, and it ends."""
    started = ev.CallStarted(
        seq=0,
        at_s=0.0,
        call_id=call.call_id,
        carrier=call.carrier,
        carrier_call_id="",
        from_=call.from_,
        to=call.to,
        direction="inbound",
        started_at=datetime.now(UTC).isoformat(),
        agent="FrontDesk",
    )
    events.publish(call, started)
    events.publish(call, ev.CallerSaid(seq=1, at_s=1.0, turn=uuid4(), text=text, final=True))
    for number in range(keys):
        events.publish(call, ev.DigitPressed(seq=2 + number, at_s=2.0, digit="1"))
    events.publish(call, ev.CallEnded(seq=2 + keys, at_s=9.0, reason="caller_hangup"))


# What a slow page costs.


class Stuck:
    """A page that takes what it is sent only when it is let."""

    def __init__(self):
        self.sent = []
        self.free = asyncio.Event()
        self.wishes = asyncio.Queue()

    async def send_text(self, text):
        await self.free.wait()
        self.sent.append(text)

    send_bytes = send_text

    async def receive(self):
        return await self.wishes.get()


def watching(events):
    board = Board(lambda _: "")
    events.on(lambda notice: board.take(notice.call, notice.event))
    socket = Stuck()
    return board, socket, Viewer(socket, (board,), sees=lambda _: True, find=lambda _: None)


def say(events, call, seq, text="yes", *, turn=None, final=True):
    events.publish(call, ev.CallerSaid(seq=seq, at_s=1.0, turn=turn or uuid4(), text=text, final=final))


async def test_a_page_that_takes_nothing_is_given_up(monkeypatch) -> None:
    monkeypatch.setattr("dialog.server.console.viewer._SEND_S", 0.05)
    _, _, viewer = watching(CallEvents())
    with pytest.raises(TimeoutError):
        await viewer.run()


async def test_a_page_that_falls_behind_loads_its_call_again() -> None:
    events, call = CallEvents(), CallMetadata(call_id=uuid4(), carrier="test")
    board, socket, viewer = watching(events)
    say(events, call, 0)
    running = asyncio.create_task(viewer.run())
    socket.wishes.put_nowait(f'{{"do":"watch","call_id":"{call.call_id}"}}')
    await until(lambda: viewer._watched is not None)
    for seq in range(1, 5000):
        say(events, call, seq)
    assert len(viewer._news) <= 1000
    assert len(board.get(call.call_id).events) == 400
    socket.free.set()
    await until(lambda: any(b"reload" in each for each in socket.sent))
    socket.wishes.put_nowait(None)
    await running


async def test_words_that_are_still_coming_are_told_once() -> None:
    events, call, turn = CallEvents(), CallMetadata(call_id=uuid4(), carrier="test"), uuid4()
    _, socket, viewer = watching(events)
    say(events, call, 0)
    running = asyncio.create_task(viewer.run())
    socket.wishes.put_nowait(f'{{"do":"watch","call_id":"{call.call_id}"}}')
    await until(lambda: viewer._watched is not None)
    for seq in range(1, 500):
        say(events, call, seq, "w" * seq, turn=turn, final=False)
    say(events, call, 500, "all of it", turn=turn)
    assert [event.seq for event in viewer._news] == [0, 500]
    socket.wishes.put_nowait(None)
    await running

"""Several gateway processes on one port: whatever lands at the wrong one, the caller does not notice."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import aiohttp
import pytest
from crew import TOKEN, crew, until

from dialog.errors import ConfigurationError
from dialog.message import MULAW_8K
from dialog.server.processes import Processes, ProcessesSettings
from dialog.testing.caller import Caller
from dialog.testing.web import WebCaller
from dialog.testing.webrtc import RtcCaller
from dialog.voip.web.tokens import SessionTokens

sys.path.insert(0, str(Path(__file__).parents[1] / "twilio"))
from twilio_phone import Document, Phone, new_sid


def phone(crew, session: aiohttp.ClientSession, process: int) -> Phone:
    """Twilio as far as it lands at one of the processes."""
    it = Phone(f"http://127.0.0.1:{crew.processes.own_ports[process]}/twilio", session, TOKEN, crew.twilio.account_sid)
    it.public = crew.url
    return it


async def ring(at: Phone, sid: str) -> Document:
    status, text, _ = await at.post(at.url, at.form(sid), signed_url=at.public)
    assert status == 200, text
    return Document(text)


async def stream(at: Phone, document: Document, sid: str):
    url = document.stream.get("url")
    here = at.url.replace("http", "ws", 1) + "/media"
    opened = await at.connect(here, signature=at.validator.compute_signature(url, {}))
    await opened.connected()
    await opened.start(sid, document.parameters)
    return opened


async def leaving(crew) -> None:
    """Wait until every process says that it takes no more calls."""
    async with aiohttp.ClientSession() as session, asyncio.timeout(10):
        for port in crew.processes.own_ports:
            while True:
                async with session.get(f"http://127.0.0.1:{port}/ready") as response:
                    if response.status == 503:
                        break


async def test_each_process_tells_of_its_own_calls_at_its_own_port(monkeypatch):
    async with crew(monkeypatch) as it, aiohttp.ClientSession() as session:

        async def ended() -> list[bool]:
            texts = []
            for port in it.processes.own_ports:
                async with session.get(f"http://127.0.0.1:{port}/metrics") as response:
                    texts.append(await response.text())
            line = 'dialog_calls_total{direction="inbound",outcome="agent_hangup"} 1.0'
            return [line in text for text in texts]

        assert await ended() == [False, False]
        async with it.dial() as caller:
            await caller.listen()
            caller.press("1")
            await caller.wait_ended()
        async with asyncio.timeout(10):
            while not any(told := await ended()):
                await asyncio.sleep(0.02)
        assert told == [True, False]


@pytest.mark.parametrize("kind", [WebCaller, RtcCaller])
async def test_a_browser_that_lands_in_another_process_comes_back_to_its_session(monkeypatch, kind):
    async with crew(monkeypatch, app="browsers.py:make") as it:
        here, there = (f"ws://127.0.0.1:{port}/ws/realtime" for port in it.processes.own_ports)
        token = SessionTokens(b"the same key in all of the processes").issue()
        async with kind.connect(here, token=token, audio=[MULAW_8K]) as caller:
            await caller.drop()
            caller._url = there
            assert (await caller.resume()).resumed
            caller.press("1")
            await until(lambda: caller.heard_ms >= 380)


async def test_a_call_whose_media_lands_in_another_process_is_like_any_other(monkeypatch):
    async with crew(monkeypatch) as it:
        async with it.dial() as caller:
            assert (await caller.listen()).duration_ms == pytest.approx(600, abs=60)
            assert set(it.switch.taken) == set(it.processes.own_ports)
            caller.press("0")
            assert (await caller.listen()).duration_ms == pytest.approx(600, abs=60)
            caller.press("2")
            await caller.wait_for_speech()
            caller.press("4")
            heard = await caller.listen()
            assert heard.cut
            assert heard.duration_ms < 15_000
            assert caller.clears
            assert caller.underruns() == []
            caller.press("1")
            await caller.wait_ended()
        assert caller.ended_by == "agent"
        assert caller.streams == 1


async def test_a_transfer_that_fails_comes_back_to_the_same_agent(monkeypatch):
    async with crew(monkeypatch) as it, it.dial(transfer="busy", transfer_s=0.2) as caller:
        await caller.listen()
        caller.press("5")
        heard = await caller.listen()
        assert heard.duration_ms == pytest.approx(1200, abs=60), "it says that nobody answered"
        assert caller.streams == 2
        it.route(webhooks=1, media=0)
        caller.press("5")
        assert (await caller.listen()).duration_ms == pytest.approx(1200, abs=60)
        assert caller.streams == 3


async def test_repeated_webhooks_and_replayed_streams_make_no_second_agent(monkeypatch):
    async with crew(monkeypatch) as it, aiohttp.ClientSession() as session:
        here, there = phone(it, session, 0), phone(it, session, 1)
        sid = new_sid()
        document = await ring(here, sid)
        assert (await ring(there, sid)).text == document.text
        opened = await stream(there, document, sid)
        assert (await opened.hear())["event"] == "media"
        for at in (here, there):
            again = await stream(at, document, sid)
            assert await again.close_code() == 1008
        await opened.stop()
        assert await opened.close_code() == 1000
        late = await stream(there, document, sid)
        assert await late.close_code() == 1008


async def test_the_owner_of_a_call_is_killed_and_the_caller_is_told_so(monkeypatch):
    async with crew(monkeypatch) as it:
        async with it.dial() as caller:
            await caller.listen()
            before = it.processes.pids
            os.kill(before[0], signal.SIGKILL)
            it.route(webhooks=1, media=1)
            await caller.wait_ended()
        assert [verb.name for verb in caller.verbs] == ["Connect", "Say", "Hangup"]
        await until(lambda: it.processes.ready and 0 not in it.processes.pids)
        after = it.processes.pids
        assert after[0] != before[0]
        assert after[1] == before[1]
        # The new one has joined the other one.
        it.route(webhooks=0, media=1)
        async with it.dial() as caller:
            assert (await caller.listen()).duration_ms == pytest.approx(600, abs=60)
            caller.press("0")
            await caller.listen()


async def test_the_process_that_relays_is_killed_and_the_call_goes_on(monkeypatch):
    async with crew(monkeypatch) as it, it.dial() as caller:
        await caller.listen()
        it.route(webhooks=0, media=0)
        os.kill(it.processes.pids[1], signal.SIGKILL)
        await until(lambda: caller.streams == 2)
        caller.press("0")
        assert (await caller.listen()).duration_ms == pytest.approx(600, abs=60)
        await until(lambda: it.processes.ready)
        caller.press("1")
        await caller.wait_ended()
        assert caller.ended_by == "agent"


async def test_leaving_cuts_no_call(monkeypatch):
    async with crew(monkeypatch) as it:
        callers: list[Caller] = []
        for webhooks, media in ((0, 1), (1, 0), (0, 0)):
            it.route(webhooks=webhooks, media=media)
            callers.append(await it.dial())
        try:
            for caller in callers:
                await caller.listen()
            it.processes.stop()
            await leaving(it)
            # The calls of process 1 end first: it stays, because others are relayed by it, and may ask it.
            await callers[1].hang_up()
            it.route(webhooks=1, media=1)
            for caller in (callers[0], callers[2]):
                caller.press("0")
                assert (await caller.listen()).duration_ms == pytest.approx(600, abs=60)
                assert caller.streams == 1
            assert not it.run.done()
            await callers[0].hang_up()
            callers[2].press("1")
            await callers[2].wait_ended()
            assert await asyncio.wait_for(it.run, 20)
        finally:
            for caller in callers:
                await caller.close()


async def test_leaving_has_a_bound_and_a_second_signal(monkeypatch):
    async with crew(monkeypatch) as it, it.dial() as caller:
        await caller.listen()
        it.processes.stop()
        await leaving(it)
        assert not caller.ended
        it.processes.stop()
        await until(lambda: caller.ended)
        assert not await asyncio.wait_for(it.run, 20)


async def test_each_process_has_workers_of_its_own(monkeypatch):
    async with crew(monkeypatch, app="obedient.py:make_with_workers") as it, it.dial() as caller:
        assert (await caller.listen()).duration_ms == pytest.approx(600, abs=60)
        caller.press("0")
        await caller.listen()


async def test_the_sockets_of_the_processes_are_nobody_elses(monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    async with crew(monkeypatch):
        (directory,) = tmp_path.glob("dialog-*")
        assert directory.stat().st_mode & 0o077 == 0
        assert len(list(directory.iterdir())) == 2
    assert not directory.exists()


def children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


async def test_the_workers_of_a_process_that_is_killed_go_with_it(monkeypatch):
    async with crew(monkeypatch, app="obedient.py:make_with_workers") as it:
        workers = children_of(it.processes.pids[0])
        assert workers
        os.kill(it.processes.pids[0], signal.SIGKILL)
        await until(lambda: all(is_gone(pid) for pid in workers))


async def test_a_killed_process_is_replaced_though_something_that_it_has_started_lives_on(monkeypatch, tmp_path):
    strays = tmp_path / "strays"
    monkeypatch.setenv("STRAYS", str(strays))
    async with crew(monkeypatch, app="obedient.py:make_with_a_stray") as it:
        try:
            before = it.processes.pids
            os.kill(before[0], signal.SIGKILL)
            await until(lambda: it.processes.ready and it.processes.pids[0] not in (0, before[0]))
        finally:
            for pid in strays.read_text().split():
                os.kill(int(pid), signal.SIGKILL)


async def test_each_process_can_have_an_address_of_its_own_for_media(monkeypatch):
    async with (
        crew(monkeypatch, media_url="wss://voice.example/media/{process}") as it,
        aiohttp.ClientSession() as session,
    ):
        for number in (0, 1):
            at = phone(it, session, number)
            sid = new_sid()
            document = await ring(at, sid)
            assert document.stream.get("url") == f"wss://voice.example/media/{number}"
            opened = await stream(at, document, sid)
            assert (await opened.hear())["event"] == "media"
            await opened.stop()
            assert await opened.close_code() == 1000


async def test_a_gateway_that_cannot_be_made_is_an_error_of_all(monkeypatch):
    with pytest.raises(ConfigurationError, match="cannot be served"):
        async with crew(monkeypatch, app="obedient.py:cannot"):
            pass


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"processes": 0}, "at least one process"),
        ({"processes": 2, "media_url": "wss://voice.example/media"}, "{process}"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings, complaint):
    with pytest.raises(ConfigurationError, match=complaint):
        Processes(ProcessesSettings(target="main:gateway", **settings))


async def test_a_port_that_is_taken_is_named():
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        made = Processes(ProcessesSettings(target="main:gateway", processes=2, host="127.0.0.1", port=port))
        with pytest.raises(ConfigurationError, match=f"nothing can listen at 127.0.0.1:{port}"):
            await made.run()
    finally:
        server.close()
        await server.wait_closed()

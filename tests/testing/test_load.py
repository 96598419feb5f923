"""A load against a desk that answers, refuses, is late, tears its sockets: every call is accounted for."""

from __future__ import annotations

import asyncio
import io
import os
import socket
import subprocess
import sys
from base64 import b64encode
from contextlib import asynccontextmanager

import msgspec
import pytest
from aiohttp import WSMsgType, web
from rich.console import Console
from steady import burn, steady_clock

from dialog.audio.g711 import mulaw_encode
from dialog.audio.tones import sine
from dialog.cli.load import LoadOptions, run_load
from dialog.errors import ConfigurationError, StateError
from dialog.net.listening import unlisten
from dialog.testing.heard import is_silent
from dialog.testing.load import Limit, Load, LoadPlan
from dialog.testing.load_metronome import Metronome
from dialog.testing.load_page import make_load_page
from dialog.testing.signing import sign

TOKEN = "secret-auth-token"
CLOCK = steady_clock(8.0)


def tone(ms: float) -> bytes:
    return mulaw_encode(sine(300, ms))


class Desk:
    """A gateway of a hundred lines, whose behaviour a test changes as it likes."""

    def __init__(self) -> None:
        self.twiml = "<Connect><Stream url='/media'><Parameter name='who' value='me &amp; you'/></Stream></Connect>"
        self.after = ""
        """TwiML of `<Connect action>`, if it has one."""
        self.status = 200
        self.webhook_delay = asyncio.Event()
        self.webhook_delay.set()
        self.refuse_media = 0
        self.greeting_ms = 500.0
        self.reply_ms: float = 500.0
        self.replies = 1_000
        self.wait_frames = 15
        self.hole_frames = 0
        """So long, in frames, audio pauses in the middle of a reply."""
        self.after_replies: dict[int, str] = {}
        """When so many replies of a call were heard: 'tear' or 'hang up'."""
        self.signatures: list[bool] = []
        self.dialled = 0
        self.live = self.live_most = 0
        self.starts: list[dict] = []
        self.stops = 0
        self.marks: list[str] = []
        self.sequences: dict[str, list[int]] = {}
        self._pulse = asyncio.Event()

    def happened(self) -> None:
        """Let who waits look again."""
        self._pulse.set()
        self._pulse = asyncio.Event()

    async def until(self, condition) -> None:
        """Wait for a condition, looked at whenever something happens here."""
        async with asyncio.timeout(20):
            while not condition():
                await self._pulse.wait()

    async def webhook(self, request: web.Request) -> web.Response:
        form = list((await request.post()).items())
        self.signatures.append(request.headers["X-Twilio-Signature"] == sign(TOKEN, str(request.url), form))
        self.dialled += 1
        self.happened()
        await self.webhook_delay.wait()
        return self.answer(self.twiml)

    async def action(self, request: web.Request) -> web.Response:
        return self.answer(self.after)

    def answer(self, twiml: str) -> web.Response:
        return web.Response(status=self.status, text=f"<Response>{twiml}</Response>", content_type="text/xml")

    async def elsewhere(self, request: web.Request) -> web.Response:
        raise web.HTTPTemporaryRedirect("http://elsewhere.example/twilio")

    async def media(self, request: web.Request) -> web.WebSocketResponse | web.Response:
        if self.refuse_media:
            return web.Response(status=self.refuse_media)
        ws = web.WebSocketResponse()
        await ws.prepare(request)
        self.live += 1
        self.live_most = max(self.live_most, self.live)
        try:
            await self._talk(ws, request)
        finally:
            self.live -= 1
            self.happened()
        return ws

    async def _talk(self, ws: web.WebSocketResponse, request: web.Request) -> None:
        sid, spoke, silent, replies, hole, rest = "", False, 0, 0, 0, b""

        async def play(audio: bytes) -> None:
            payload = b64encode(audio).decode()
            await ws.send_json({"event": "media", "streamSid": sid, "media": {"payload": payload}})

        async for message in ws:
            if message.type is not WSMsgType.TEXT:
                break
            data = message.json()
            self.happened()
            if data["event"] == "start":
                sid = data["streamSid"]
                self.starts.append(data["start"])
                if self.greeting_ms:
                    await play(tone(self.greeting_ms))
                    await ws.send_json({"event": "mark", "streamSid": sid, "mark": {"name": "greeted"}})
            elif data["event"] == "mark":
                self.marks.append(data["mark"]["name"])
                if data["mark"]["name"] == "tear":
                    assert request.transport is not None
                    request.transport.abort()
                    return
                if data["mark"]["name"] == "hang up":
                    break
            elif data["event"] == "stop":
                self.stops += 1
            elif data["event"] == "media":
                self.sequences.setdefault(sid, []).append(int(data["media"]["chunk"]))
                frame = msgspec.convert(data["media"]["payload"], bytes, strict=False)
                loud = not is_silent(frame)
                spoke, silent = spoke or loud, 0 if loud else silent + 1
                if hole:
                    hole -= 1
                    if not hole:
                        await play(rest)
                if spoke and silent == self.wait_frames:
                    spoke = False
                    if replies < self.replies:
                        audio = tone(self.reply_ms)
                        half = len(audio) // 2 if self.hole_frames else len(audio)
                        await play(audio[:half])
                        if self.hole_frames:
                            hole, rest = half // 160 + self.hole_frames, audio[half:]
                    replies += 1
                    if replies in self.after_replies:
                        mark = {"name": self.after_replies[replies]}
                        await ws.send_json({"event": "mark", "streamSid": sid, "mark": mark})
        await ws.close()

    @asynccontextmanager
    async def open(self):
        app = web.Application()
        app.router.add_post("/twilio", self.webhook)
        app.router.add_post("/after", self.action)
        app.router.add_post("/elsewhere", self.elsewhere)
        app.router.add_get("/media", self.media)
        runner = web.AppRunner(app, shutdown_timeout=1.0)
        await runner.setup()
        sock = socket.create_server(("127.0.0.1", 0))
        await web.SockSite(runner, sock).start()
        self.url = f"http://127.0.0.1:{sock.getsockname()[1]}/twilio"
        try:
            yield self
        finally:
            self.webhook_delay.set()
            await unlisten(runner)

    def plan(self, **more) -> LoadPlan:
        usual = {"url": self.url, "auth_token": TOKEN, "calls": 3, "calls_per_s": 20.0, "turns": 1, "call_s": 60.0}
        return LoadPlan(**{**usual, **more})


@pytest.fixture
async def desk():
    async with Desk().open() as one:
        yield one


async def run(desk: Desk, *, load=None, **plan):
    load = load or Load(desk.plan(**plan), clock=CLOCK)
    async with asyncio.timeout(30):
        return await load.run()


async def test_every_call_is_dialled_signed_answered_and_told(desk):
    told = []
    load = Load(desk.plan(calls=5, turns=2), clock=CLOCK, on_outcome=told.append)
    report = await run(desk, load=load)
    assert sorted(outcome.number for outcome in report.outcomes) == [1, 2, 3, 4, 5]
    assert list(report.outcomes) == told
    assert {outcome.status for outcome in told} == {"done"}
    for outcome in told:
        assert (outcome.turns, outcome.replies, len(outcome.reply_ms), outcome.stretches) == (2, 2, 2, 3)
        assert (outcome.ended_by, outcome.streams, outcome.close_code, outcome.cuts) == ("caller", 1, 1000, 0)
        assert outcome.heard_s == pytest.approx(1.5, abs=0.1)
        assert 0 < outcome.answer_ms < outcome.first_audio_ms
        # Fifteen silent frames are waited for, the last of the caller's own 20 ms among them.
        assert all(ms >= 280 for ms in outcome.reply_ms)
    assert desk.signatures == [True] * 5
    assert desk.stops == 5
    assert desk.marks == ["greeted"] * 5
    assert [start["customParameters"] for start in desk.starts] == [{"who": "me & you"}] * 5
    assert len({outcome.call_sid for outcome in told}) == 5
    for chunks in desk.sequences.values():
        assert chunks == list(range(1, len(chunks) + 1))
    figures = report.figures
    assert (figures.dialled, figures.ended, figures.live, figures.failed) == (5, 5, 0, 0)
    assert (figures.turns, figures.replies, figures.unanswered) == (10, 10, 0)
    assert figures.reply.count == 10
    assert figures.first_audio.count == figures.answer.count == 5
    assert figures.statuses == {"done": 5}
    assert load.figures.dialled == 5


async def test_a_load_runs_once(desk):
    load = Load(desk.plan(calls=1, turns=0), clock=CLOCK)
    await run(desk, load=load)
    with pytest.raises(StateError):
        await load.run()


@pytest.mark.parametrize(
    ("changes", "status", "detail"),
    [
        ({"status": 503}, "refused", "webhook: HTTP 503"),
        ({"twiml": "<Connect>"}, "refused", "webhook: no TwiML"),
        ({"twiml": "<Reject reason='busy'/>"}, "rejected", "TwiML: Reject busy"),
        ({"twiml": "<Say>All lines are busy.</Say><Hangup/>"}, "said", "TwiML said something and ended the call"),
        ({"twiml": "<Hangup/>"}, "no_stream", "TwiML: Hangup"),
        ({"refuse_media": 403}, "no_stream", "media: HTTP 403"),
        ({"after_replies": {1: "hang up"}, "turns": 2}, "ended_early", "the agent ended the call before all was said"),
        ({"after_replies": {1: "tear"}, "turns": 2}, "cut", "media socket closed with 1006"),
        ({"replies": 0, "reply_s": 2.0}, "unanswered", "an utterance was not answered in time"),
    ],
    ids=["refused", "no TwiML", "busy", "said", "hung up", "no media", "ended early", "cut", "unanswered"],
)
async def test_a_call_that_fails_is_told_by_what_went_wrong(desk, changes, status, detail):
    plan = {name: changes.pop(name) for name in ("turns", "reply_s") if name in changes}
    for name, value in changes.items():
        setattr(desk, name, value)
    report = await run(desk, calls=2, **plan)
    assert [(outcome.status, outcome.detail) for outcome in report.outcomes] == [(status, detail)] * 2
    assert report.figures.statuses == {status: 2}
    assert report.figures.errors == {detail: 2}
    assert report.figures.failed == 2
    assert report.broken([Limit.parse("failed>0")])
    assert report.figures.cuts == (2 if status == "cut" else 0)


async def test_a_desk_that_is_not_there_is_refused_connections():
    with socket.create_server(("127.0.0.1", 0)) as sock:
        url = f"http://127.0.0.1:{sock.getsockname()[1]}/twilio"
    load = Load(LoadPlan(url=url, auth_token=TOKEN, calls=2), clock=CLOCK)
    report = await run(None, load=load)
    assert report.figures.errors == {"webhook: ECONNREFUSED": 2}


async def test_an_agent_that_hangs_up_when_all_is_said_has_done_well(desk):
    desk.after_replies = {1: "hang up"}
    report = await run(desk, hang_up="agent")
    assert {(outcome.status, outcome.ended_by) for outcome in report.outcomes} == {("done", "agent")}


async def test_an_agent_that_should_hang_up_and_does_not_is_left_after_the_longest_time(desk):
    report = await run(desk, calls=1, hang_up="agent", call_s=8.0)
    (outcome,) = report.outcomes
    assert (outcome.status, outcome.ended_by) == ("not_ended", "caller")
    assert outcome.duration_s >= 8.0


@pytest.mark.parametrize("hang_up", ["mid-reply", "reset"])
async def test_who_leaves_in_the_middle_of_a_reply_has_done_what_was_planned(desk, hang_up):
    desk.reply_ms = 12_000.0
    report = await run(desk, hang_up=hang_up)
    assert {(outcome.status, outcome.ended_by) for outcome in report.outcomes} == {("done", "caller")}
    assert desk.stops == (3 if hang_up == "mid-reply" else 0)
    assert all(outcome.heard_s < 10.0 for outcome in report.outcomes)
    assert report.figures.cuts == 0  # by whom the connection is torn makes the difference


async def test_a_call_that_comes_back_after_its_socket_broke_goes_on(desk):
    desk.twiml = "<Connect action='/after'><Stream url='/media'/></Connect>"
    desk.after = desk.twiml
    desk.after_replies = {1: "tear"}
    report = await run(desk, calls=1, turns=3)
    (outcome,) = report.outcomes
    assert outcome.streams > 1
    assert outcome.cuts >= 1
    assert report.figures.cuts == outcome.cuts
    assert report.figures.reconnects == outcome.streams - 1


async def test_dead_air_is_told_with_its_place_and_length(desk):
    desk.wait_frames = 150
    report = await run(desk, calls=1)
    (outcome,) = report.outcomes
    assert outcome.status == "done"
    ((since_ms, length_ms),) = outcome.dead_air
    assert 2900 < length_ms < 3600
    assert since_ms > outcome.first_audio_ms
    assert report.figures.dead_air.count == 1
    assert report.figures.value("max_dead_air_ms") == pytest.approx(outcome.reply_ms[0], abs=0.1)


@pytest.mark.parametrize("late", [False, True])
async def test_holes_in_what_is_heard_are_the_servers_unless_the_generator_is_late(desk, monkeypatch, late):
    monkeypatch.setattr(Metronome, "disturbed", late)
    desk.hole_frames = 8
    desk.reply_ms = 1000.0
    report = await run(desk, calls=2, turns=1)
    assert (report.figures.gaps.count, report.figures.own_gaps) == ((0, 2) if late else (2, 0))
    assert [(outcome.gaps, outcome.own_gaps) for outcome in report.outcomes] == [(0, 1) if late else (1, 0)] * 2


async def test_a_late_answer_delays_only_its_own_time_and_is_told(desk):
    desk.webhook_delay.clear()
    load = Load(desk.plan(calls=2, turns=0), clock=CLOCK)
    running = asyncio.create_task(run(desk, load=load))
    await desk.until(lambda: desk.dialled == 2)
    assert load.figures.answer.count == 0
    desk.webhook_delay.set()
    report = await running
    assert report.figures.answer.count == 2
    assert report.figures.statuses == {"done": 2}


async def test_never_are_more_calls_live_than_allowed(desk):
    report = await run(desk, calls=9, concurrency=2, calls_per_s=1000.0, turns=0)
    assert report.figures.statuses == {"done": 9}
    assert report.figures.live_most == 2
    assert desk.live_most <= 2


async def test_a_duration_ends_the_dialling_and_not_the_calls(desk):
    report = await run(desk, calls=None, duration_s=3.0, calls_per_s=2.0)
    assert report.figures.statuses == {"done": report.figures.dialled}
    assert 4 <= report.figures.dialled <= 6
    assert report.figures.seconds > 3.0


async def test_who_talks_without_end_leaves_when_time_is_over(desk):
    report = await run(desk, calls=2, turns=None, call_s=12.0)
    assert report.figures.statuses == {"done": 2}
    assert all(outcome.turns >= 2 and outcome.duration_s >= 12.0 for outcome in report.outcomes)


@pytest.mark.parametrize("stopped_at", ["webhook", "talk"])
async def test_stopping_lets_everybody_hang_up_and_still_reports(desk, stopped_at):
    if stopped_at == "webhook":
        desk.webhook_delay.clear()
    load = Load(desk.plan(calls=50, calls_per_s=10.0, concurrency=3, turns=None), clock=CLOCK)
    running = asyncio.create_task(run(desk, load=load))
    await desk.until(lambda: (desk.dialled if stopped_at == "webhook" else load.figures.turns) == 3)
    load.stop()
    load.stop()
    report = await running
    assert report.stopped
    assert report.figures.dialled == report.figures.ended == 3
    assert {outcome.status for outcome in report.outcomes} == {"stopped"}
    assert desk.stops == (3 if stopped_at == "talk" else 0)


async def test_cancelling_a_load_ends_its_calls(desk):
    load = Load(desk.plan(turns=None), clock=CLOCK)
    running = asyncio.create_task(load.run())
    await desk.until(lambda: load.figures.turns == 3)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    await desk.until(lambda: not desk.live)
    assert desk.stops == 3


async def test_nobody_is_connected_to_but_whom_the_user_named(desk):
    desk.twiml = "<Connect><Stream url='wss://elsewhere.example/media'/></Connect>"
    report = await run(desk, calls=1)
    assert report.figures.errors == {"media: a host that was not named": 1}
    desk.twiml = "<Redirect>http://elsewhere.example/twilio</Redirect>"
    report = await run(desk, calls=1)
    assert [outcome.status for outcome in report.outcomes] == ["no_stream"]
    report = await run(desk, calls=1, url=desk.url.replace("/twilio", "/elsewhere"))
    assert report.figures.errors == {"webhook: a host that was not named": 1}


async def test_the_newest_outcomes_are_kept_and_all_are_counted(desk):
    load = Load(desk.plan(calls=6, turns=0, concurrency=1), clock=CLOCK, keep=2)
    report = await run(desk, load=load)
    assert [outcome.number for outcome in report.outcomes] == [5, 6]
    assert report.figures.ended == 6


async def test_the_report_has_everything_for_machines_but_no_secret(desk):
    desk.after_replies = {1: "tear"}
    report = await run(desk, turns=2)
    limits = [Limit.parse("failed>0"), Limit.parse("p95_reply_ms>60000")]
    told = msgspec.json.decode(report.to_json(limits))
    assert TOKEN not in report.to_json(limits).decode() + repr(report.plan) + make_load_page(report, limits)
    assert told["url"] == desk.url
    assert told["broken"] == ["failed>0: it is 3"]
    assert told["statuses"] == {"cut": 3}
    assert told["figures"]["cuts"] == 3
    assert told["times"]["reply"]["count"] == 3
    assert told["times"]["reply"]["p95"] > 250
    assert [call["status"] for call in told["calls"]] == ["cut"] * 3
    assert sum(moment["dialled"] for moment in told["over_time"]) == 3


@pytest.mark.parametrize(
    "wrong",
    [
        {"url": "ws://127.0.0.1/twilio"},
        {"url": "127.0.0.1:8080"},
        {"auth_token": ""},
        {"calls": 0},
        {"calls_per_s": 0.0},
        {"calls_per_s": float("nan")},
        {"concurrency": 0},
        {"concurrency": 1, "processes": 2},
        {"duration_s": -1.0},
        {"turns": -1},
        {"turns": None, "hang_up": "agent"},
    ],
    ids=str,
)
def test_a_plan_that_is_not_possible_is_refused(wrong):
    with pytest.raises(ConfigurationError):
        LoadPlan(**{"url": "http://127.0.0.1/twilio", "auth_token": TOKEN, **wrong})


def test_several_processes_need_the_real_clock():
    plan = LoadPlan(url="http://127.0.0.1/twilio", auth_token=TOKEN, processes=2)
    with pytest.raises(ConfigurationError, match="clock"):
        Load(plan, clock=CLOCK)


@pytest.mark.parametrize(
    ("say", "message"), [([b"\xff" * 8000], "silent"), ([tone(300_000)[: 130 * 8000]], "130 s"), ([b""], "silent")]
)
async def test_what_cannot_be_said_is_refused_before_anything_is_dialled(desk, say, message):
    with pytest.raises(ConfigurationError, match=message):
        await Load(desk.plan(), clock=CLOCK, say=say).run()
    assert desk.dialled == 0


async def test_callers_say_what_they_are_given_in_turns(desk):
    report = await run(desk, load=Load(desk.plan(turns=2), clock=CLOCK, say=[tone(300), tone(900)]))
    assert report.figures.statuses == {"done": 3}
    assert report.figures.turns == 6


async def test_a_generator_that_is_late_itself_calls_its_figures_void(desk, tmp_path):
    stall: asyncio.TimerHandle

    def stand_still() -> None:
        nonlocal stall
        burn(0.06)  # the whole loop, in which the callers live
        stall = asyncio.get_running_loop().call_later(0.1, stand_still)

    stall = asyncio.get_running_loop().call_later(0.1, stand_still)
    report = await run(desk, calls=2)
    assert "the generator itself was late" in report.void
    console = Console(file=io.StringIO(), width=120)
    code = await run_load(console, desk.plan(calls=1), LoadOptions(page=tmp_path / "load.html"))
    stall.cancel()
    assert code == 3
    assert "✗ void" in console.file.getvalue()
    assert "Void: the generator itself was late" in (tmp_path / "load.html").read_text()


# Several processes, and the command line.


async def test_processes_share_the_calls_and_their_figures_are_one(desk):
    load = Load(desk.plan(calls=5, turns=0, calls_per_s=50.0, processes=2))
    report = await run(desk, load=load)
    assert sorted(outcome.number for outcome in report.outcomes) == [1, 2, 3, 4, 5]
    assert report.figures.statuses == {"done": 5}
    assert report.figures.first_audio.count == 5
    assert report.figures.lag.count > 0
    assert desk.dialled == 5


async def test_stopping_several_processes_lets_their_callers_hang_up(desk):
    load = Load(desk.plan(calls=4, turns=None, processes=2))
    running = asyncio.create_task(run(desk, load=load))
    await desk.until(lambda: load.figures.turns == 4)
    load.stop()
    report = await running
    assert report.stopped
    assert report.figures.statuses == {"stopped": 4}
    assert desk.stops == 4
    assert "died" not in report.void, "whether the machine was too busy to measure is another matter"


async def test_a_process_that_dies_makes_the_figures_void(desk):
    load = Load(desk.plan(calls=4, turns=None, processes=2, call_s=3.0))
    running = asyncio.create_task(run(desk, load=load))
    await desk.until(lambda: load.figures.live == 4)
    load._dialling._processes[0].kill()
    report = await running
    assert "1 of the generator's processes died" in report.void
    assert report.figures.statuses == {"done": 2}


async def dialog_load(desk: Desk, tmp_path, *arguments: str, interrupt: bool = False):
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "dialog", "load", desk.url, "--page", str(tmp_path / "load.html"), *arguments),
        env={"PATH": os.environ["PATH"], "PYTHONPATH": os.environ.get("PYTHONPATH", ""), "TWILIO_AUTH_TOKEN": TOKEN},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    async with asyncio.timeout(45):
        if interrupt:
            await desk.until(lambda: len(desk.starts) == 2)
            process.send_signal(2)
        out, error = await process.communicate()
    return process.returncode, out.decode(), error.decode()


TOO_BUSY = 3
"""What the command returns on a machine that was too busy to measure anything."""


@pytest.mark.alone
async def test_the_command_shows_writes_and_judges(desk, tmp_path):
    for _ in range(5):
        code, out, error = await dialog_load(
            desk, tmp_path, "--calls", "2", "--turns", "0", "--json", str(tmp_path / "load.json")
        )
        if code != TOO_BUSY:
            break
    assert (code, error) == (0, "")
    assert "done 2" in out
    assert "webhook to first sound" in out
    assert msgspec.json.decode((tmp_path / "load.json").read_bytes())["statuses"] == {"done": 2}
    assert "A load of 2 calls" in (tmp_path / "load.html").read_text()


async def test_the_command_fails_for_a_limit_and_says_which(desk, tmp_path):
    desk.status = 503
    code, out, _ = await dialog_load(desk, tmp_path, "--calls", "2")
    assert code == 1
    assert "✗ failed>0: it is 2" in out
    assert "webhook: HTTP 503" in out


async def test_the_command_refuses_what_it_does_not_understand_before_it_dials(desk, tmp_path):
    for wrong in (("--fail-if", "speed>1"), ("--calls-per-s", "0"), ("--page", "/proc/no/such/page.html")):
        code, out, error = await dialog_load(desk, tmp_path, *wrong)
        assert (code, out) == (1, "")
        assert error.startswith("error ")
    assert desk.dialled == 0


async def test_ctrl_c_lets_the_callers_hang_up_and_prints_what_there_is(desk, tmp_path):
    code, out, error = await dialog_load(desk, tmp_path, "--calls", "2", "--turns", "-1", interrupt=True)
    assert code in (0, TOO_BUSY), "what it measured is not what this is about"
    assert error == ""
    assert "stopped before its end" in out
    assert desk.stops == 2
    assert "stopped before its end" in (tmp_path / "load.html").read_text()

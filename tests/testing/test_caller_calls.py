"""The simulated caller against a small server that speaks Twilio's protocol."""

from __future__ import annotations

import asyncio
import io
import itertools
import json
import wave
from base64 import b64decode, b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qsl

import pytest
from aiohttp import WSMsgType, web
from steady import steady_clock
from twilio.request_validator import RequestValidator

from dialog.net.listening import unlisten
from dialog.testing.caller import CallEnded, Caller, CallFaults, NothingHeard, Refused, bad_messages

TOKEN = "the-auth-token"
TONE = b"\x90\x10" * 80  # 20 ms, loud
SILENCE = b"\xff" * 160
FAST = steady_clock(scale=8)


class Server:
    """A gateway of a few lines: what it answers and what it saw."""

    def __init__(self) -> None:
        self.public = ""
        self.documents: dict[str, str] = {}
        self.requests: list[tuple[str, dict[str, str], bool]] = []
        self.statuses: list[dict[str, str]] = []
        self.messages: list[dict[str, Any]] = []
        self.raw: list[Any] = []
        self.sockets: asyncio.Queue[web.WebSocketResponse] = asyncio.Queue()
        self.closed: asyncio.Queue[int] = asyncio.Queue()
        self.upgrade_signed: list[bool] = []
        self.refuse_stream = 0
        self.greeting: list[bytes] = []
        self.started = asyncio.Event()
        self.marks: asyncio.Queue[str] = asyncio.Queue()
        self.url = ""

    def connect(self, *, action: str = "", path: str = "/media", tail: str = "", parameters: str = "") -> str:
        base = (self.public or self.url).replace("http", "ws", 1)
        attribute = f' action="{action}"' if action else ""
        return (
            f'<Response><Connect{attribute}><Stream url="{base}{path}">{parameters}</Stream></Connect>{tail}</Response>'
        )

    async def voice(self, request: web.Request) -> web.Response:
        text = await request.text()
        fields = dict(parse_qsl(text if request.method == "POST" else request.query_string, keep_blank_values=True))
        url = (self.public or self.url) + request.raw_path
        valid = RequestValidator(TOKEN).validate(
            url, fields if request.method == "POST" else {}, request.headers.get("X-Twilio-Signature", "")
        )
        self.requests.append((request.path, fields, valid))
        if not valid:
            return web.Response(status=403)
        if request.path == "/status":
            self.statuses.append(fields)
            return web.Response(status=204)
        document = self.documents.get(request.path) or self.connect()
        return web.Response(text=document, content_type="text/xml")

    async def media(self, request: web.Request) -> web.StreamResponse:
        public = (self.public or self.url).replace("http", "ws", 1)
        signature = request.headers.get("x-twilio-signature", "")
        self.upgrade_signed.append(RequestValidator(TOKEN).validate(public + request.raw_path, {}, signature))
        if self.refuse_stream or not self.upgrade_signed[-1]:
            return web.Response(status=self.refuse_stream or 403)
        socket = web.WebSocketResponse(compress=False)
        await socket.prepare(request)
        await self.sockets.put(socket)
        async for frame in socket:
            self.raw.append(frame.data)
            if frame.type is not WSMsgType.TEXT:
                continue
            try:
                message = json.loads(frame.data)
            except (ValueError, RecursionError):
                continue
            if not isinstance(message, dict):
                continue
            self.messages.append(message)
            if message.get("event") == "mark" and message["mark"].get("name"):
                self.marks.put_nowait(message["mark"]["name"])
            if message.get("event") == "start":
                self.sid = message["streamSid"]
                self.started.set()
                for audio in self.greeting:
                    await self.send(socket, audio)
        self.closed.put_nowait(socket.close_code or 0)
        return socket

    async def send(self, socket: web.WebSocketResponse, audio: bytes) -> None:
        payload = b64encode(audio).decode()
        await socket.send_json({"event": "media", "streamSid": self.sid, "media": {"payload": payload}})

    async def mark(self, socket: web.WebSocketResponse, name: str) -> None:
        await socket.send_json({"event": "mark", "streamSid": self.sid, "mark": {"name": name}})

    async def clear(self, socket: web.WebSocketResponse) -> None:
        await socket.send_json({"event": "clear", "streamSid": self.sid})

    def named(self, event: str) -> list[dict[str, Any]]:
        return [message for message in self.messages if message.get("event") == event]


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with serving() as one:
        yield one
        before = {task for task in asyncio.all_tasks() if "caller" in task.get_name()}
        assert not before, before


@asynccontextmanager
async def serving() -> AsyncIterator[Server]:
    one = Server()
    app = web.Application(client_max_size=1 << 20)
    app.router.add_get("/media", one.media)
    for path in ("/voice", "/after", "/other", "/status", "/stream"):
        app.router.add_route("*", path, one.voice)
    runner = web.AppRunner(app, shutdown_timeout=1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    one.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield one
    finally:
        await unlisten(runner)


def dial(server: Server, **settings: Any) -> Any:
    settings.setdefault("clock", FAST)
    return Caller.dial(f"{server.url}/voice", auth_token=TOKEN, **settings)


async def test_a_call_is_signed_started_and_stopped_as_twilio_does(server: Server) -> None:
    server.documents["/voice"] = server.connect(parameters='<Parameter name="token" value="a&amp;b"/>')
    async with dial(server, from_="+4930123", parameters={"FromCity": "Berlin", "Empty": ""}) as caller:
        await caller.say(TONE * 3)
        await caller.hang_up()
        assert (caller.status, caller.ended_by, caller.upgrade_status) == ("completed", "caller", 101)
    path, fields, valid = server.requests[0]
    assert (path, valid, fields["CallStatus"], fields["From"], fields["FromCity"]) == (
        "/voice", True, "ringing", "+4930123", "Berlin",
    )  # fmt: skip
    assert fields["Empty"] == ""
    assert server.upgrade_signed == [True]
    assert server.messages[0] == {"event": "connected", "protocol": "Call", "version": "1.0.0"}
    start = server.messages[1]["start"]
    assert start["mediaFormat"] == {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1}
    assert (start["callSid"], start["customParameters"]) == (caller.call_sid, {"token": "a&b"})
    assert server.messages[-1]["event"] == "stop"
    assert await server.closed.get() == 1000
    media = server.named("media")
    assert [int(m["media"]["chunk"]) for m in media] == list(range(1, len(media) + 1))
    assert [int(m["media"]["timestamp"]) for m in media] == list(range(0, 20 * len(media), 20))
    numbers = [int(m["sequenceNumber"]) for m in server.messages if "sequenceNumber" in m]
    assert numbers == list(range(1, len(numbers) + 1))
    payloads = [b64decode(m["media"]["payload"]) for m in media]
    assert [p for p in payloads if p != SILENCE] == [TONE] * 3


async def test_listen_returns_what_was_heard_and_measures_it(server: Server) -> None:
    server.greeting = [SILENCE * 5 + TONE * 25]
    async with dial(server) as caller:
        greeting = await caller.listen(silence_ms=300)
        assert greeting.duration_ms == pytest.approx(500)
        assert greeting.audio == TONE * 25
        assert (greeting.latency_ms, greeting.cut, greeting.gaps) == (None, False, ())
        spoken = await caller.say(SILENCE * 2 + TONE * 10 + SILENCE * 10)
        assert spoken.ended_ms - spoken.started_ms == pytest.approx(200)
        socket = await server.sockets.get()
        await server.send(socket, TONE * 10)
        reply = await caller.listen(silence_ms=300)
        assert reply.duration_ms == pytest.approx(200)
        # The reply was sent when the caller's audio, with 200 ms of silence at its end, was over.
        assert reply.latency_ms == pytest.approx(reply.started_ms - spoken.ended_ms)
        assert reply.latency_ms >= 200
        assert [h.duration_ms for h in caller.heard] == pytest.approx([500, 200])
        recording = caller.recording()
    with wave.open(io.BytesIO(recording)) as reader:
        assert reader.getnframes() / 8 >= reply.ended_ms


async def test_marks_come_back_in_order_when_their_audio_was_played(server: Server) -> None:
    async with dial(server) as caller:
        socket = await server.sockets.get()
        await server.started.wait()
        await server.mark(socket, "empty")
        assert await server.marks.get() == "empty"
        sent_ms = caller.now_ms()
        await server.send(socket, TONE * 50)
        await server.mark(socket, "second")
        assert await server.marks.get() == "second"
        assert caller.now_ms() - sent_ms >= 1000


async def test_clear_echoes_pending_marks_at_once_and_cuts_what_is_heard(server: Server) -> None:
    async with dial(server) as caller:
        socket = await server.sockets.get()
        await server.started.wait()
        await server.send(socket, TONE * 500)
        for name in ("a", "b"):
            await server.mark(socket, name)
        await caller.wait_for_speech()
        await server.clear(socket)
        async with asyncio.timeout(0.5):  # ten seconds of audio would take more than that
            assert [await server.marks.get(), await server.marks.get()] == ["a", "b"]
        heard = await caller.listen(silence_ms=200)
        assert heard.cut
        assert heard.duration_ms < 5000
        assert caller.clears[0][1] == pytest.approx(10_000 - heard.duration_ms, abs=25)


async def test_underruns_are_the_gaps_inside_speech(server: Server) -> None:
    async with dial(server) as caller:
        socket = await server.sockets.get()
        await server.started.wait()
        await server.send(socket, TONE * 10)
        await caller.wait_for_speech()
        await caller.wait_for_silence(100)
        await server.send(socket, TONE * 10)
        heard = await caller.listen(silence_ms=400)
        assert len(caller.underruns()) == len(heard.gaps) == 1
        assert heard.gaps[0].duration_ms >= 100


async def test_digits_arrive_one_by_one(server: Server) -> None:
    async with dial(server) as caller:
        caller.press("1#")
        with pytest.raises(ValueError, match="keys are"):
            caller.press("x")
    assert [m["dtmf"] for m in server.named("dtmf")] == [
        {"track": "inbound_track", "digit": "1"},
        {"track": "inbound_track", "digit": "#"},
    ]


async def test_requests_are_signed_for_the_public_address_and_reach_the_dialled_one(server: Server) -> None:
    server.public = "https://voice.example"
    server.documents["/voice"] = server.connect(action="https://voice.example/after?x=1")
    server.documents["/after"] = "<Response><Hangup/></Response>"
    async with dial(server, public_url="https://voice.example") as caller:
        socket = await server.sockets.get()
        await socket.close()
        assert await caller.wait_ended() == "completed"
    assert [(path, valid) for path, _, valid in server.requests] == [("/voice", True), ("/after", True)]
    assert server.upgrade_signed == [True]
    assert caller.ended_by == "agent"


async def test_a_webhook_configured_as_get_is_signed_with_its_query(server: Server) -> None:
    async with dial(server, method="GET"):
        pass
    assert server.requests[0][2]
    assert server.requests[0][1]["CallStatus"] == "ringing"


async def test_closing_the_socket_without_an_action_ends_the_call(server: Server) -> None:
    async with dial(server, status_callback=f"{server.url}/status") as caller:
        await (await server.sockets.get()).close(code=1008, message=b"no")
        assert await caller.wait_ended() == "completed"
        assert caller.closed_with == (1008, "no")
        assert [w.code for w in caller.warnings] == [31921]
        with pytest.raises(CallEnded):
            await caller.say(TONE)
    assert [s["CallStatus"] for s in server.statuses] == ["completed"]
    assert int(server.statuses[0]["CallDuration"]) >= 0


async def test_the_action_of_connect_can_bring_a_new_stream(server: Server) -> None:
    server.documents["/voice"] = server.connect(action="/after")
    async with dial(server) as caller:
        first = caller.stream.stream_sid
        await caller.drop()
        await caller.wait_streaming(streams=2)
        assert caller.stream.stream_sid != first
        await caller.hang_up()
    assert [path for path, _, _ in server.requests] == ["/voice", "/after"]
    assert server.requests[1][1]["CallStatus"] == "in-progress"
    assert len(server.named("stop")) == 1  # of the second stream: the first was torn


async def test_a_line_that_is_torn_ends_the_call_without_a_word(server: Server) -> None:
    server.documents["/voice"] = server.connect(action="/after")
    async with dial(server) as caller:
        await caller.drop(hang_up=True)
        assert caller.ended
    assert await server.closed.get() == 1006
    assert server.named("stop") == []
    assert len(server.requests) == 1


async def test_verbs_after_connect_run_when_the_stream_is_over(server: Server) -> None:
    server.documents["/voice"] = server.connect(tail="<Say>Bye</Say><Redirect>/other</Redirect>")
    server.documents["/other"] = "<Response><Hangup/></Response>"
    async with dial(server) as caller:
        await (await server.sockets.get()).close()
        await caller.wait_ended()
        assert [verb.name for verb in caller.verbs] == ["Connect", "Say", "Redirect", "Hangup"]


@pytest.mark.parametrize(
    ("document", "status"),
    [
        ('<Response><Reject reason="busy"/></Response>', "busy"),
        ("<Response><Reject/></Response>", "failed"),
        ("<Response><Say>Sorry</Say><Hangup/></Response>", "completed"),
        ('<Response><Pause length="3"/></Response>', "completed"),
        ("<Response/>", "completed"),
    ],
)
async def test_a_call_without_a_stream_is_a_state(server: Server, document: str, status: str) -> None:
    server.documents["/voice"] = document
    async with dial(server) as caller:
        assert caller.ended
        assert caller.status == status
        with pytest.raises(CallEnded):
            await caller.listen()


async def test_a_transfer_reports_its_outcome(server: Server) -> None:
    server.documents["/voice"] = (
        '<Response><Dial action="/after"><Number statusCallback="/status" statusCallbackEvent="answered">'
        "+1555</Number></Dial></Response>"
    )
    server.documents["/after"] = "<Response><Hangup/></Response>"
    async with dial(server) as caller:
        await caller.wait_ended()
    assert server.statuses[0]["CallStatus"] == "in-progress"
    assert server.requests[-1][1]["DialCallStatus"] == "completed"
    async with dial(server, transfer="no-answer") as caller:
        await caller.wait_ended()
    assert server.requests[-1][1]["DialCallStatus"] == "no-answer"


async def test_an_update_stops_the_stream_and_goes_on_with_other_twiml(server: Server) -> None:
    server.documents["/voice"] = server.connect(action="/after")
    async with dial(server) as caller:
        await caller.update(twiml=server.connect())
        await caller.wait_streaming(streams=2)
        await caller.update(status="completed")
        assert (caller.status, caller.ended_by) == ("completed", "agent")
    assert len(server.named("stop")) == 2
    assert [path for path, _, _ in server.requests] == ["/voice"]  # the action was not asked


async def test_an_update_reaches_a_call_that_waits_in_a_conference(server: Server) -> None:
    server.documents["/voice"] = "<Response><Connect><Stream url='/media'/></Connect></Response>"
    server.documents["/other"] = "<Response><Say>Welcome back</Say></Response>"
    async with dial(server) as caller:
        await caller.update(twiml="<Response><Dial><Conference>room</Conference></Dial></Response>")
        assert not caller.ended
        await caller.update(url="/other")
        await caller.wait_ended()
        assert [verb.name for verb in caller.verbs] == ["Connect", "Dial", "Say"]


async def test_an_outbound_call_may_bring_its_document(server: Server) -> None:
    async with dial(server, direction="outbound-api", twiml=server.connect()) as caller:
        assert caller.status == "in-progress"
    assert server.requests == []


async def test_stream_callbacks_are_delivered(server: Server) -> None:
    stream = f'<Stream url="{server.url.replace("http", "ws")}/media" statusCallback="/status" name="n"/>'
    server.documents["/voice"] = f"<Response><Connect>{stream}</Connect></Response>"
    async with dial(server) as caller:
        await caller.hang_up()
    assert [(s["StreamEvent"], s["StreamName"]) for s in server.statuses] == [
        ("stream-started", "n"),
        ("stream-stopped", "n"),
    ]


@pytest.mark.parametrize("signature", ["wrong", "missing"])
async def test_a_refused_webhook_raises_with_its_status(server: Server, signature: Any) -> None:
    with pytest.raises(Refused, match="answered 403") as info:
        await dial(server, faults=CallFaults(webhook_signature=signature))
    assert info.value.status == 403
    assert server.requests[0][2] is False


async def test_an_answer_that_is_not_twiml_is_refused(server: Server) -> None:
    server.documents["/voice"] = "hello"
    with pytest.raises(Refused, match="12100"):
        await dial(server)


async def test_nobody_answering_is_refused_too() -> None:
    with pytest.raises(Refused, match="no answer") as info:
        await Caller.dial("http://127.0.0.1:9/voice", auth_token=TOKEN)
    assert info.value.status == 0


@pytest.mark.parametrize("signature", ["wrong", "missing"])
async def test_a_refused_upgrade_ends_connect(server: Server, signature: Any) -> None:
    server.documents["/voice"] = server.connect(action="/after")
    server.documents["/after"] = "<Response><Hangup/></Response>"
    async with dial(server, faults=CallFaults(stream_signature=signature)) as caller:
        assert caller.upgrade_status == 403
        assert [w.code for w in caller.warnings] == [31920]
        assert await caller.wait_ended() == "completed"
    assert [path for path, _, _ in server.requests] == ["/voice", "/after"]


async def test_addresses_that_twilio_does_not_take_are_warned_of(server: Server) -> None:
    server.documents["/voice"] = '<Response><Connect><Stream url="ws://media.example/x"/></Connect></Response>'
    async with dial(server) as caller:
        assert [w.code for w in caller.warnings] == [31922]
    server.documents["/voice"] = server.connect(path="/media?token=1")
    async with dial(server) as caller:
        assert [w.code for w in caller.warnings] == [31920]
        assert caller.upgrade_status == 101


async def test_what_twilio_would_drop_is_dropped_and_noted(server: Server) -> None:
    async with dial(server) as caller:
        socket = await server.sockets.get()
        await server.started.wait()
        await socket.send_str("not json")
        await socket.send_bytes(b"\x00")
        await socket.send_json({"event": "hangup", "streamSid": server.sid})
        await socket.send_json({"event": "media", "streamSid": "MZother", "media": {"payload": "////"}})
        await socket.send_json({"event": "media", "streamSid": server.sid, "media": {"payload": "%%%"}})
        await server.mark(socket, "done")
        assert await server.marks.get() == "done"
        assert [w.code for w in caller.warnings] == [31951] * 5
        assert caller.received_bytes == 0


async def test_faults_of_the_start_of_a_stream(server: Server) -> None:
    faults = CallFaults(duplicate_connected=True, media_before_start=2, duplicate_start=True, forged_call_sid="CAx")
    async with dial(server, faults=faults):
        pass
    events = [m["event"] for m in server.messages][:6]
    assert events == ["connected", "connected", "media", "media", "start", "start"]
    assert server.named("start")[0]["start"]["callSid"] == "CAx"


async def test_a_stream_may_never_start(server: Server) -> None:
    async with dial(server, faults=CallFaults(omit_connected=True, omit_start=True)) as caller:
        await (await server.sockets.get()).close(code=1008)
        await caller.wait_ended()
        assert caller.closed_with[0] == 1008
    assert server.messages == []


async def test_messages_can_overtake_each_other(server: Server) -> None:
    async with dial(server, faults=CallFaults(out_of_order=True)) as caller:
        await caller.say(TONE * 4)
    chunks = [int(m["media"]["chunk"]) for m in server.named("media")]
    assert chunks[:4] == [2, 1, 4, 3]


async def test_marks_can_be_late_or_lost(server: Server) -> None:
    async with dial(server, faults=CallFaults(mark_delay_ms=400, lose_marks=1)) as caller:
        socket = await server.sockets.get()
        await server.started.wait()
        before = caller.now_ms()
        await server.mark(socket, "lost")
        await server.mark(socket, "late")
        assert await server.marks.get() == "late"
        assert caller.now_ms() - before >= 400


async def test_a_stall_loses_audio_and_a_burst_brings_it_late(server: Server) -> None:
    async with dial(server) as caller:
        caller.stall(1.0)
        await caller.say(TONE)
    stamps = [int(m["media"]["timestamp"]) for m in server.named("media")]
    assert max(later - earlier for earlier, later in itertools.pairwise(stamps)) >= 1000
    server.messages.clear()
    async with dial(server) as caller:
        caller.stall(1.0, burst=True)
        await caller.say(TONE * 20)
    stamps = [int(m["media"]["timestamp"]) for m in server.named("media")]
    assert stamps == list(range(0, 20 * len(stamps), 20))


async def test_a_slow_reader_slows_only_what_it_reads(server: Server) -> None:
    async with dial(server, faults=CallFaults(read_delay_ms=200)) as caller:
        socket = await server.sockets.get()
        await server.started.wait()
        before = caller.now_ms()
        for name in "abc":
            await server.mark(socket, name)
        assert [await server.marks.get() for _ in "abc"] == ["a", "b", "c"]
        assert caller.now_ms() - before >= 400


async def test_any_message_can_be_sent(server: Server) -> None:
    async with dial(server) as caller:
        bad = bad_messages(caller.stream.stream_sid, oversized=1000)
        for data in bad.values():
            caller.send_raw(data)
        await caller.say(TONE)
    missing = [name for name, data in bad.items() if data not in server.raw]
    assert missing == []


async def test_a_second_stream_is_a_connection_of_its_own(server: Server) -> None:
    async with dial(server) as caller:
        first = await server.sockets.get()
        second = asyncio.create_task(caller.open_second_stream())
        await (await server.sockets.get()).close(code=1008, message=b"taken")
        assert await second == (101, 1008, "taken")
        assert not first.closed
        assert caller.stream is not None


async def test_waiting_in_vain_says_for_what(server: Server) -> None:
    async with dial(server) as caller:
        with pytest.raises(NothingHeard, match="to speak"):
            await caller.listen(timeout_s=0.5)
        with pytest.raises(NothingHeard, match="to speak"):
            await caller.wait_for_speech(timeout_s=0.2)


async def test_the_end_of_the_call_breaks_a_wait(server: Server) -> None:
    async with dial(server) as caller:
        waiting = asyncio.create_task(caller.listen())
        await (await server.sockets.get()).close()
        with pytest.raises(CallEnded):
            await waiting


async def test_speech_goes_on_by_itself_and_can_be_broken_off(server: Server) -> None:
    async with dial(server) as caller:
        assert await caller.say(TONE * 5000, wait=False) is None
        assert caller.speaking
        rest = asyncio.create_task(caller.say(TONE))
        await asyncio.sleep(0)
        caller.be_silent()
        with pytest.raises(CallEnded):
            await rest
        assert not caller.speaking


async def test_a_light_caller_keeps_pace_and_records_nothing(server: Server) -> None:
    server.greeting = [TONE * 5]
    async with dial(server, light=True) as caller:
        await caller.say(TONE * 5)
        assert caller.received_bytes == 800
        with pytest.raises(Exception, match="light=True"):
            caller.recording()


async def test_events_are_told_as_they_happen(server: Server) -> None:
    names: list[str] = []
    server.greeting = [TONE]
    async with dial(server, on_event=lambda event: names.append(event.name)) as caller:
        await caller.say(TONE * 5)
    assert names == ["dialling", "verb", "stream started", "first audio", "speaks", "said", "stream ended", "ended"]
    assert names == [event.name for event in caller.events]


async def test_hanging_up_is_idempotent_from_any_state(server: Server) -> None:
    caller = await dial(server)
    await caller.hang_up()
    await caller.hang_up()
    await caller.close()
    await caller.close()
    assert caller.status == "completed"

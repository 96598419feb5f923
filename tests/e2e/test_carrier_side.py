"""What an agent asks of the carrier: recording, transcription, hanging up, transferring, keys."""

from __future__ import annotations

import asyncio
import socket
from contextlib import asynccontextmanager, suppress

import pytest
from aiohttp import web
from steady import steady_clock

from dialog.agent.record import save_to
from dialog.calls.events import AgentSaid, CallEnded, DigitPressed, ErrorRaised, StreamChanged
from dialog.message import Playback
from dialog.net.listening import unlisten
from dialog.participant import Participant
from dialog.presets import TwilioOpenAIAgent
from dialog.testing.caller import CallEnded as CallOver
from dialog.testing.caller import Caller
from dialog.testing.doubles import HummingTTS, ToldSTT
from dialog.testing.openai import OpenAIEmulator
from dialog.testing.server import Faults
from dialog.testing.twilio_rest import TwilioRestEmulator
from dialog.voip.twilio.gateway import TwilioGateway
from dialog.voip.voip import VoIP

ACCOUNT = "AC" + "0" * 32
TOKEN = "secret-auth-token"


class Office:
    """A gateway with the carrier's REST API beside it; its calls are recorded and transcribed."""

    def __init__(self, tmp_path, **options) -> None:
        self.sink = options.pop("sink", None) or save_to(tmp_path)
        self.options = options
        self.clock = steady_clock(4.0)
        self.agents: list[TwilioOpenAIAgent] = []

    def on_voip(self, voip) -> None:
        self.stt = ToldSTT()
        agent = TwilioOpenAIAgent(
            voip=voip,
            stt=self.stt,
            tts=HummingTTS(),
            api_key=self.openai.api_key,
            base_url=self.openai.base_url,
            greeting="Hello.",
            recording_sink=self.sink,
        )
        self.agents.append(agent)
        agent.activate()

    @asynccontextmanager
    async def open(self):
        async with (
            TwilioRestEmulator(account_sid=ACCOUNT, auth_token=TOKEN, **self.options) as self.twilio,
            OpenAIEmulator(lambda fields: "Fine.") as self.openai,
        ):
            # The gateway has to know its own address before it is there: bind first.
            sock = socket.create_server(("127.0.0.1", 0))
            origin = f"http://127.0.0.1:{sock.getsockname()[1]}"
            self.url = f"{origin}/voice"
            self.gateway = TwilioGateway(
                account_sid=ACCOUNT,
                auth_token=TOKEN,
                webhook_url=self.url,
                base_url=self.twilio.url,
                clock=self.clock,
            )
            self.gateway.on("voip", self.on_voip)
            runner = web.AppRunner(self.gateway.app())
            await runner.setup()
            await web.SockSite(runner, sock).start()
            try:
                yield self
            finally:
                await unlisten(runner)

    @asynccontextmanager
    async def call(self, **options):
        """A caller whose call the account knows, so that REST commands reach it."""
        sid = "CA" + "1" * 32
        tasks: set[asyncio.Task] = set()

        async with Caller.dial(
            self.url, auth_token=TOKEN, account_sid=ACCOUNT, clock=self.clock, call_sid=sid, **options
        ) as caller:

            def updated(update) -> None:
                task = asyncio.ensure_future(caller.update(status=update.status, twiml=update.twiml, url=update.url))
                tasks.add(task)

            self.twilio.add_call(sid, on_update=updated)
            yield caller
            with suppress(CallOver):
                await caller.hang_up()
            self.twilio.end_call(sid)
            if tasks:
                await asyncio.wait(tasks)

    async def all_over(self) -> None:
        async with asyncio.timeout(10):
            while self.gateway.calls:
                await asyncio.gather(*(call.wait_closed() for call in self.gateway.calls))


async def until(condition) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.01)


async def test_a_call_is_recorded_and_transcribed_and_the_agent_waits_for_both(tmp_path):
    office = Office(tmp_path)
    async with office.open():
        async with office.call() as caller:
            await caller.listen()
            await until(lambda: office.twilio.recordings and office.twilio.transcriptions)
            office.twilio.transcribe(caller.call_sid, "hello there")
            agent = office.agents[0]
            await until(lambda: agent.record.transcripts)
        await office.all_over()
        [recording] = office.twilio.recordings.values()
        assert recording.channels == 2
        [transcription] = office.twilio.transcriptions.values()
        assert transcription.form["TranscriptionEngine"] == "deepgram"
        assert transcription.form["Track"] == "both_tracks"
        assert agent.disposed
        assert [status.text for status in agent.record.transcripts] == ["hello there"]
        assert agent.record.recording_url
        [file] = list(tmp_path.iterdir())
        assert file.read_bytes() == office.twilio.recording_wav
        assert office.stt.disposed


async def test_a_recording_that_cannot_start_is_an_error_and_the_call_goes_on(tmp_path):
    office = Office(tmp_path, faults=Faults(refuse=500))
    async with office.open():
        async with office.call() as caller:
            await caller.listen()
            agent = office.agents[0]
            await until(lambda: sum(isinstance(event, ErrorRaised) for event in agent.events) == 2)
            for event in agent.events:
                if isinstance(event, ErrorRaised):
                    assert event.source == "TwilioVoIP"
                    assert caller.call_sid in event.text
                    assert "500" in event.text
                    assert not event.fatal
            office.stt.heard("how are you")
            await caller.listen()
        await office.all_over()
        assert agent.disposed
        assert sum(isinstance(event, CallEnded) for event in agent.events) == 1


async def test_a_sink_that_raises_is_an_error_and_the_agent_still_goes(tmp_path):
    async def broken(url, audio):
        raise ValueError("disk full")

    office = Office(tmp_path, sink=broken)
    async with office.open():
        async with office.call() as caller:
            await caller.listen()
            await until(lambda: office.twilio.recordings and office.twilio.transcriptions)
            agent, failures = office.agents[0], []
            agent.on(Participant.ERROR, failures.append)
        await office.all_over()
        [failure] = failures
        assert "disk full" in str(failure.error)
        assert not failure.fatal
        assert agent.disposed


async def test_the_agent_hangs_up(tmp_path):
    office = Office(tmp_path)
    async with office.open():
        async with office.call() as caller:
            await caller.listen()
            await office.agents[0].voip.hangup()
            await caller.wait_ended()
        await office.all_over()
        [end] = [event for event in office.agents[0].events if isinstance(event, CallEnded)]
        assert end.reason == "agent_hangup"


async def test_a_goodbye_is_heard_out_before_the_call_ends(tmp_path):
    text = "Thank you for calling us today. Goodbye!"
    office = Office(tmp_path)
    async with office.open():
        async with office.call() as caller:
            await caller.listen()
            agent = office.agents[0]
            heard = await agent.dispatch_message(text, allow_interrupt=False)
            await agent.voip.hangup()
            await caller.wait_ended()
            assert heard.complete
            assert caller.heard[-1].duration_ms == pytest.approx(len(text) * 50, abs=60)
            assert not caller.heard[-1].cut
            assert caller.ended_by == "agent"
        await office.all_over()


async def test_a_transfer_that_nobody_answers_brings_the_caller_back(tmp_path):
    office = Office(tmp_path)
    async with office.open():
        async with office.call(transfer="no-answer", transfer_s=0.5) as caller:
            await caller.listen()
            agent = office.agents[0]
            await agent.voip.transfer_to("+15550001111", back_within_s=5)
            await until(lambda: agent.voip.generation == 2)
            office.stt.heard("still here")
            await caller.listen()
        await office.all_over()
        states = [event.state for event in agent.events if isinstance(event, StreamChanged)]
        assert states[:3] == ["live", "moving", "live"]
        assert agent.history.items()[-1].text == "Fine."


async def test_keys_reach_the_agent(tmp_path):
    office = Office(tmp_path)
    async with office.open():
        async with office.call() as caller:
            await caller.listen()
            caller.press("4#")
            agent = office.agents[0]
            await until(lambda: sum(isinstance(event, DigitPressed) for event in agent.events) == 2)
        await office.all_over()
        assert [event.digit for event in agent.events if isinstance(event, DigitPressed)] == ["4", "#"]


async def test_a_caller_whose_line_drops_is_back_on_the_next_stream(tmp_path):
    office = Office(tmp_path)
    async with office.open():
        async with office.call() as caller:
            await caller.listen()
            agent = office.agents[0]
            await caller.drop()
            await until(lambda: agent.voip.generation == 2)
            office.stt.heard("are you still there")
            await caller.listen()
        await office.all_over()
        states = [event.state for event in agent.events if isinstance(event, StreamChanged)]
        assert states == ["live", "lost", "live", "ended"]
        assert [(item.role, item.text) for item in agent.history.items()] == [
            ("assistant", "Hello."),
            ("user", "are you still there"),
            ("assistant", "Fine."),
        ]
        assert len(office.agents) == 1
        assert len(office.twilio.recordings) == 1, "the recording belongs to the call, not to its streams"
        assert sum(isinstance(event, CallEnded) for event in agent.events) == 1


async def test_a_reply_that_a_dropped_line_cut_goes_on_with_its_sentence(tmp_path):
    office = Office(tmp_path)
    async with office.open():
        async with office.call() as caller:
            await caller.listen()
            agent = office.agents[0]
            reports: list[Playback] = []
            agent.voip.on(VoIP.PLAYBACK, reports.append)
            agent.dispatch_message("The kitchen is open. You may order until ten in the evening.")
            await until(lambda: reports and reports[-1].heard_ms > 1500)  # 50 ms a character
            await caller.drop()
            await until(lambda: agent.voip.generation == 2)
            await caller.listen()
        await office.all_over()
        said = [event for event in agent.events if isinstance(event, AgentSaid)]
        assert said[1].heard.startswith("The kitchen is open. You may")
        assert said[1].state == "lost"
        assert (said[2].heard, said[2].state) == ("You may order until ten in the evening.", "played")
        texts = [item.text for item in agent.history.items()]
        assert " ".join(texts) == "Hello. The kitchen is open. You may order until ten in the evening."


@pytest.mark.parametrize("how", ["hangs up", "is cut off"])
async def test_a_caller_may_leave_while_a_transfer_rings(tmp_path, how):
    office = Office(tmp_path)
    async with office.open():
        async with office.call(transfer="no-answer", transfer_s=8) as caller:
            await caller.listen()
            agent = office.agents[0]
            await agent.voip.transfer_to("+15550001111", back_within_s=10)
            await until(lambda: agent.voip.state == "moving")
            if how == "hangs up":
                await caller.hang_up()
            else:
                await caller.drop(hang_up=True)
        await office.all_over()
        assert sum(isinstance(event, CallEnded) for event in agent.events) == 1
        assert agent.disposed
        assert office.stt.disposed

"""An agent on a call that is placed: its providers wait until the phone rings, a machine gets its message."""

import asyncio
from uuid import uuid4

import pytest

from dialog.agent.agent import Agent
from dialog.calls.events import CallAnsweredBy, CallProgressed
from dialog.clock import SYSTEM_CLOCK
from dialog.message import AnsweredBy, CallEnd, CallMetadata, CallProgress, Playback, StreamStarted
from dialog.testing.doubles import HummingTTS, ToldSTT
from dialog.voip.link import Hangup
from dialog.voip.voip import VoIP


class Ears(ToldSTT):
    opened = 0

    def open(self, audio_format):
        super().open(audio_format)
        self.opened += 1


class Voice(HummingTTS):
    opened = 0

    def open(self, audio_format):
        self.opened += 1

    def post(self, message):
        assert self.opened, "a voice gets no text before it is opened"
        super().post(message)


class Wire:
    """A link that remembers; what is on the line is heard when :meth:`play` says so."""

    def __init__(self):
        self.parts, self.commands, self.voip = {}, [], None

    def post(self, message):
        self.parts[message.uuid, message.part] = message.done

    def play(self):
        for uuid, part in list(self.parts):
            self.end(uuid, part, "played")

    def end(self, uuid, part, state):
        del self.parts[uuid, part]
        self.voip.receive(VoIP.PLAYBACK, Playback(uuid=uuid, part=part, state=state, heard_ms=100.0))

    def abort(self, uuid, *, part, after_ms):
        for key in [key for key in self.parts if key[0] == uuid]:
            self.end(*key, "cut")

    def pause(self):
        pass

    def resume(self, *, from_ms):
        pass

    def set_bed(self, layer, sound, *, gain_db):
        pass

    async def command(self, command):
        self.commands.append(command)

    def close(self):
        pass


class Answerer(Agent):
    async def inference(self, message):
        yield "I see."


@pytest.fixture
async def placed():
    link = Wire()
    metadata = CallMetadata(call_id=uuid4(), carrier="memory", direction="outbound", from_="+15550100", to="+15550123")
    voip = link.voip = VoIP(metadata, link, clock=SYSTEM_CLOCK)
    voip.adopt("offered", 0, progress="dialling")
    agent = Answerer(voip=voip, stt=Ears(), tts=Voice(), greeting="Hello.")
    yield voip, agent, link
    agent.dispose()
    voip.dispose()
    await agent.wait_disposed()


def texts(agent):
    return list(agent.tts.texts.values())


async def settled():
    for _ in range(20):
        await asyncio.sleep(0)


async def test_providers_are_opened_when_the_phone_rings_and_the_greeting_is_ready_then(placed):
    voip, agent, _ = placed
    agent.activate()
    agent.dispatch_message("This is the bank.")
    await settled()
    assert (agent.stt.opened, agent.tts.opened, texts(agent)) == (0, 0, [])
    voip.receive(VoIP.PROGRESS, CallProgress(state="dialling", carrier_call_id="CA1"))
    await settled()
    assert agent.tts.opened == 0, "the carrier has it, and nothing rings"
    voip.receive(VoIP.PROGRESS, CallProgress(state="ringing"))
    await settled()
    assert (agent.stt.opened, agent.tts.opened) == (1, 1)
    assert texts(agent)[0] == "Hello."
    voip.receive(VoIP.PROGRESS, CallProgress(state="answered"))
    await settled()
    assert (agent.stt.opened, agent.tts.opened) == (1, 1)
    states = [event.state for event in agent.events if isinstance(event, CallProgressed)]
    assert states == ["dialling", "ringing", "answered"]


async def test_providers_are_opened_with_the_stream_at_the_latest(placed):
    voip, agent, _ = placed
    agent.activate()
    voip.receive(VoIP.STREAMING_STARTED, StreamStarted(generation=1))
    await settled()
    assert (agent.stt.opened, agent.tts.opened) == (1, 1)
    assert voip.progress == "answered"


async def test_ears_and_voice_may_be_replaced_before_the_phone_rings(placed):
    voip, agent, _ = placed
    agent.activate()
    ears, voice, before = Ears(), Voice(), (agent.stt, agent.tts)
    agent.set_stt(ears)
    agent.set_tts(voice)
    await settled()
    assert (ears.opened, voice.opened) == (0, 0)
    voip.receive(VoIP.PROGRESS, CallProgress(state="ringing"))
    await settled()
    assert (ears.opened, voice.opened) == (1, 1)
    assert (before[0].opened, before[0].disposed) == (0, True)


async def test_a_call_that_nobody_answers_opens_nothing(placed):
    voip, agent, _ = placed
    agent.activate()
    reports = []
    agent.on(Agent.REPORT, reports.append)
    voip.receive(VoIP.ENDED, CallEnd(reason="busy"))
    async with asyncio.timeout(5):
        while not reports:
            await asyncio.sleep(0)
    assert (agent.stt.opened, agent.tts.opened) == (0, 0)
    assert reports[0].end_reason == "busy"


async def test_a_provider_that_cannot_be_opened_is_told_and_the_others_are(placed):
    voip, agent, _ = placed

    def broken(_):
        raise RuntimeError("no network")

    agent.stt.open = broken
    failures = []
    agent.on(Agent.ERROR, failures.append)
    agent.activate()
    voip.receive(VoIP.PROGRESS, CallProgress(state="ringing"))
    await settled()
    assert agent.tts.opened == 1
    assert len(failures) == 1


async def test_a_machine_gets_its_message_and_is_hung_up_on(placed):
    voip, agent, link = placed
    agent.activate()
    voip.receive(VoIP.STREAMING_STARTED, StreamStarted(generation=1))
    await settled()
    machine = AnsweredBy(who="machine", greeting_over=True, then="leave_message", message="Please call us back.")
    voip.receive(VoIP.ANSWERED_BY, machine)
    await settled()
    assert texts(agent)[-1] == "Please call us back."
    [told] = [event for event in agent.events if isinstance(event, CallAnsweredBy)]
    assert (told.who, told.then) == ("machine", "leave_message")
    assert not link.commands, "it is heard out"
    link.play()
    await settled()
    assert link.commands == [Hangup("machine")]


async def test_what_is_done_about_a_machine_can_be_overridden(placed):
    voip, agent, _link = placed
    heard = []
    agent.on_answered_by = heard.append
    agent.activate()
    voip.receive(VoIP.STREAMING_STARTED, StreamStarted(generation=1))
    voip.receive(VoIP.ANSWERED_BY, AnsweredBy(who="machine", then="leave_message", message="x"))
    await settled()
    assert [one.who for one in heard] == ["machine"]
    assert texts(agent) == ["Hello."]

"""Told by the caller's side alone: what was played, and what was ready before the line was."""

from __future__ import annotations

import asyncio
import io
import socket
import wave
from array import array
from contextlib import asynccontextmanager
from uuid import uuid4

import pytest
from aiohttp import web
from house import ACCOUNT, TOKEN, House
from steady import steady_clock

from dialog.audio import tones
from dialog.audio.g711 import mulaw_decode, mulaw_encode
from dialog.audio.recorder import StereoRecorder
from dialog.errors import StateError
from dialog.message import Message, Playback
from dialog.net.listening import unlisten
from dialog.testing.caller import Caller, CallFaults
from dialog.voip.twilio.gateway import TwilioGateway
from dialog.voip.voip import VoIP

A = mulaw_encode(tones.sine(350, 6000))
B = mulaw_encode(tones.noise(2000, level_dbfs=-20, seed=7))
C = mulaw_encode(tones.sine(700, 1000))


@asynccontextmanager
async def a_line(*, on_voip=None, **options):
    """A caller and the voip of the call, with nobody in between."""
    clock = steady_clock(4.0)
    voips: list[VoIP] = []
    gateway = TwilioGateway(account_sid=ACCOUNT, auth_token=TOKEN, clock=clock)
    gateway.on("voip", voips.append)
    if on_voip is not None:
        gateway.on("voip", on_voip)
    sock = socket.create_server(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{sock.getsockname()[1]}/twilio"
    runner = web.AppRunner(gateway.app())
    await runner.setup()
    await web.SockSite(runner, sock).start()
    try:
        async with Caller.dial(url, auth_token=TOKEN, account_sid=ACCOUNT, clock=clock, **options) as caller:
            yield caller, voips[0], gateway
            await caller.hang_up()
    finally:
        await unlisten(runner)


def ear(caller: Caller) -> bytes:
    """What the caller heard, as 16-bit samples."""
    with wave.open(io.BytesIO(caller.recording())) as recording:
        frames = recording.readframes(recording.getnframes())
    return memoryview(frames).cast("h")[1::2].tobytes()


def sounds(samples: bytes) -> bytes:
    """The samples without those of silence: a machine under load may leave a gap, but nothing out."""
    return array("h", [sample for sample in memoryview(samples).cast("h") if sample]).tobytes()


def final(reports: list[Playback], uuid) -> Playback:
    [report] = [report for report in reports if report.uuid == uuid and report.final]
    return report


@pytest.mark.parametrize("heard_s", [0.0, 1.0], ids=["at once", "in mid-speech"])
async def test_a_reply_behind_one_that_is_aborted_is_heard_whole(heard_s):
    async with a_line() as (caller, voip, _):
        reports: list[Playback] = []
        dispatched = []
        voip.on(VoIP.PLAYBACK, reports.append)
        voip.on(VoIP.MESSAGE_DISPATCHED, dispatched.append)
        a, b = uuid4(), uuid4()
        voip.post(Message(uuid=a, data=A, done=True))
        voip.post(Message(uuid=b, data=B, done=True))
        if heard_s:
            await caller.wait_for_speech()
            await caller.clock.sleep(heard_s)
        voip.abort(a)
        async with asyncio.timeout(5):
            while not dispatched:
                await asyncio.sleep(0.01)
        await caller.clock.sleep(0.1)  # the ear follows by a frame
        heard = sounds(ear(caller))
        assert sounds(mulaw_decode(B)) in heard, "not a sample of it is missing"
        assert len(heard) / 16 < 4000, "and of the other one hardly more than was heard"
        assert dispatched == [b]
        assert final(reports, a).state == "cut"
        assert final(reports, b).state == "played"
        assert final(reports, b).confirmed


async def test_a_reply_that_is_almost_over_gives_way_to_the_next_without_loss():
    """The abort comes when audio of both replies is on the line already."""
    async with a_line() as (caller, voip, _):
        a, b = uuid4(), uuid4()
        dispatched = []
        voip.on(VoIP.MESSAGE_DISPATCHED, dispatched.append)
        voip.post(Message(uuid=a, data=C, done=True))
        voip.post(Message(uuid=b, data=B, done=True))
        await caller.wait_for_speech()
        await caller.clock.sleep(0.6)
        voip.abort(a)
        async with asyncio.timeout(5):
            while not dispatched:
                await asyncio.sleep(0.01)
        await caller.clock.sleep(0.1)  # the ear follows by a frame
        assert sounds(mulaw_decode(B)) in sounds(ear(caller))
        assert dispatched == [b]


async def test_a_listener_of_on_voip_misses_nothing_of_the_call():
    told = []

    def on_voip(voip):
        for event in (
            VoIP.METADATA,
            VoIP.STREAMING_STARTED,
            VoIP.DTMF,
            VoIP.STREAMING_STOPPED,
            VoIP.ENDED,
        ):
            voip.on(event, lambda payload, event=event: told.append((str(event), payload)))
        voip.on(VoIP.MESSAGE, lambda message: audio.extend(message.data))
        assert told == [], "nothing happens before somebody listens"

    audio = bytearray()
    async with a_line(on_voip=on_voip, from_="+15559990001") as (caller, voip, _):
        await caller.say(C)
        caller.press("5")
        await caller.clock.sleep(0.3)
    async with asyncio.timeout(5):
        while not voip.disposed:
            await asyncio.sleep(0.01)
    names = [name for name, _ in told]
    assert names == ["metadata", "streaming_started", "dtmf", "streaming_stopped", "ended"]
    payloads = dict(told)
    assert payloads["metadata"].from_ == "+15559990001"
    assert payloads["metadata"].carrier_call_id == caller.call_sid
    assert payloads["dtmf"] == "5"
    assert payloads["streaming_stopped"].reason == "ended"
    assert payloads["ended"].reason == "caller_hangup"
    assert sounds(mulaw_decode(C)) in sounds(mulaw_decode(bytes(audio)))


async def test_a_recording_of_ones_own_has_the_caller_left_and_what_was_played_right(tmp_path):
    recorder = StereoRecorder()
    async with a_line() as (caller, voip, gateway):
        gateway.add_tap(voip, recorder)
        a = uuid4()
        voip.post(Message(uuid=a, data=B + A, done=True))
        await caller.wait_for_speech()
        await caller.clock.sleep(2.5)
        voip.abort(a)
        await caller.say(C)
        end = voip.end
    assert end is None
    recorder.write(tmp_path / "call.wav")
    with wave.open(str(tmp_path / "call.wav")) as recording:
        assert (recording.getnchannels(), recording.getsampwidth(), recording.getframerate()) == (2, 2, 8000)
        samples = memoryview(recording.readframes(recording.getnframes())).cast("h")
    left, right = sounds(samples[0::2].tobytes()), sounds(samples[1::2].tobytes())
    assert sounds(mulaw_decode(C)) in left
    assert sounds(mulaw_decode(B)) not in left
    assert sounds(mulaw_decode(B)) in right
    assert sounds(mulaw_decode(C)) not in right
    assert sounds(mulaw_decode(A[:1600])) in right
    assert sounds(mulaw_decode(A[:16000])) not in right, "what was taken back is not recorded"
    with pytest.raises(StateError, match="does not hold"):
        gateway.add_tap(voip, recorder)


async def test_ears_voice_and_greeting_are_ready_before_the_stream():
    house = House(greeting="Good evening, you have reached the desk.")
    # The media socket is there, but says nothing: the stream has not started.
    async with house.open(), house.dial(faults=CallFaults(omit_start=True)) as caller:
        await house.deepgram.until(lambda: house.deepgram.sockets)
        await house.cartesia.until(lambda: house.cartesia.texts)
        assert [text.strip() for text in house.cartesia.texts.values()] == [house.greeting]
        assert caller.first_media_ms is None
        [agent] = house.agents
        assert agent.voip.state == "offered"
        agent.voip.dispose()
        await house.all_over()

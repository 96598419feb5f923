"""A call on one side of the bridge, its agent on the other."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from uuid import uuid4

import msgspec
import pytest
from bridges import bridge, until
from steady import steady_clock

from dialog.audio.g711 import mulaw_encode
from dialog.audio.sound import Sound
from dialog.audio.tones import sine
from dialog.calls.events import ToolStarted
from dialog.errors import CarrierError, LimitError, NotSupportedError, StateError, UserCodeError
from dialog.message import PCM_24K, Failure, Message
from dialog.participant import Participant
from dialog.voip.admission import NoWorker
from dialog.voip.memory import MemoryCarrier, MemoryLine, memory_call
from dialog.voip.voip import VoIP
from dialog.workers.hosting import HostingSettings

FAST = steady_clock(4.0)
pytestmark = pytest.mark.usefixtures("over_both")


def tone(ms: float) -> bytes:
    return mulaw_encode(sine(300, ms))


def speech(ms: float, **more) -> Message[bytes]:
    return Message(uuid=more.pop("uuid", None) or uuid4(), data=tone(ms), done=True, **more)


async def test_the_caller_is_heard_on_the_other_side_without_a_gap_and_on_the_calls_clock():
    async with bridge(clock=FAST) as house:
        await house.worker("one")
        _, line, voip = await house.ring()
        heard: list[Message[bytes]] = []
        voip.on(VoIP.MESSAGE, heard.append)
        line.say(tone(400))
        await until(lambda: sum(len(each.data) for each in heard) >= 3200)
        assert tone(400)[:160] in b"".join(each.data for each in heard)
        assert {each.uuid for each in heard} == {voip.metadata.call_id}
        for before, after in pairwise(heard):
            assert after.at_ms == pytest.approx(before.at_ms + len(before.data) / 8, abs=0.5)


async def test_what_the_agent_posts_is_played_and_reported_once():
    async with bridge(clock=FAST) as house:
        await house.worker("one")
        _, line, voip = await house.ring()
        finals = []
        voip.on(VoIP.PLAYBACK, lambda playback: finals.append(playback) if playback.final else None)
        dispatched = []
        voip.on(VoIP.MESSAGE_DISPATCHED, dispatched.append)
        message = speech(500)
        voip.post(message)
        await until(lambda: dispatched)
        assert dispatched == [message.uuid]
        assert [(each.state, each.heard_ms) for each in finals] == [("played", 500.0)]
        assert line.heard_audio == message.data


async def test_an_abort_cannot_be_overtaken_by_the_audio_that_was_posted_before_it():
    async with bridge(clock=FAST) as house:
        await house.worker("one")
        _, line, voip = await house.ring()
        finals = []
        voip.on(VoIP.PLAYBACK, lambda playback: finals.append(playback) if playback.final else None)
        turn = uuid4()
        for at in range(0, 5000, 100):
            voip.post(Message(uuid=turn, data=tone(100), at_ms=at))
        voip.abort(turn)
        voip.post(Message(uuid=turn, data=tone(100), at_ms=5000))
        await until(lambda: finals)
        assert finals[0].state == "cut"
        await asyncio.sleep(0.1)
        assert len(line.heard_audio) < 8 * 500


async def test_a_pause_is_heard_at_once_and_goes_on_from_the_cut():
    async with bridge(clock=FAST) as house:
        await house.worker("one")
        _, line, voip = await house.ring()
        states = []
        voip.on(VoIP.PLAYBACK, lambda playback: states.append(playback.state))
        message = speech(1500)
        voip.post(message)
        await until(lambda: len(line.heard_audio) > 8 * 300)
        voip.pause()
        await until(lambda: "paused" in states)
        at = len(line.heard_audio)
        await asyncio.sleep(0.1)
        assert len(line.heard_audio) == at
        voip.resume()
        await until(lambda: "played" in states)
        assert len(line.heard_audio) == pytest.approx(len(message.data), abs=8 * 60)


async def test_keys_streams_and_the_end_are_told_in_their_order():
    async with bridge(clock=FAST) as house:
        await house.worker("one")
        carrier = MemoryCarrier()
        call, line, voip = await house.ring(carrier=carrier)
        told: list[str] = []
        voip.on(VoIP.DTMF, told.append)
        voip.on(VoIP.STREAMING_STOPPED, lambda stopped: told.append(stopped.reason))
        voip.on(VoIP.STREAMING_STARTED, lambda started: told.append(f"{started.generation} {started.resumed}"))
        voip.on(VoIP.ENDED, lambda end: told.append(end.reason))
        line.press("12")
        await voip.send_digits("9")
        await until(lambda: len(told) == 4)
        assert voip.state == "live"
        assert voip.generation == 2
        carrier.lines[-1].hang_up()
        await until(lambda: "caller_hangup" in told)
        assert told == ["1", "2", "moving", "2 digits_sent", "ended", "caller_hangup"]
        await asyncio.wait_for(call.wait_closed(), 5)
        await until(lambda: not house.workers["one"].left)


async def test_commands_are_carried_out_where_the_carrier_is_and_their_errors_come_back():
    async with bridge(clock=FAST) as house:
        await house.worker("one")
        carrier = MemoryCarrier(transfer="refused")
        call, _, voip = await house.ring(carrier=carrier)
        with pytest.raises(CarrierError, match="no route"):
            await voip.transfer_to("+15550100")
        with pytest.raises(NotSupportedError):
            await voip.start_recording()
        await voip.hangup(reason="done")
        assert call.voip.end is not None
        assert call.voip.end.reason == "done"
        await until(lambda: voip.disposed)
        with pytest.raises(StateError):
            await voip.hangup()


async def test_a_recording_is_fetched_where_the_credentials_are():
    async with bridge(clock=FAST) as house:
        await house.worker("one")
        carrier = MemoryCarrier()
        carrier.recordings["https://x/1"] = bytes(range(256)) * 4000  # 1 MB, in more pieces than may be under way
        _, _, voip = await house.ring(carrier=carrier)
        got = b"".join([piece async for piece in voip.download_recording("https://x/1")])
        assert got == carrier.recordings["https://x/1"]
        with pytest.raises(CarrierError, match="no such recording"):
            async for _ in voip.download_recording("https://x/2"):
                pass


async def test_a_recording_that_nobody_takes_the_rest_of_is_not_held(monkeypatch):
    monkeypatch.setattr("dialog.workers.hosted._CREDIT_S", 0.1)
    async with bridge(clock=FAST) as house:
        await house.worker("one")
        carrier = MemoryCarrier()
        carrier.recordings["https://x/1"] = bytes(1_000_000)
        call, _, voip = await house.ring(carrier=carrier)
        hosted = house.hosted(call)
        pieces = voip.download_recording("https://x/1")
        assert await anext(pieces)
        assert hosted._credits
        await pieces.aclose()
        await until(lambda: not hosted._credits)


async def test_a_background_sounds_on_the_line():
    async with bridge(clock=FAST) as house:
        await house.worker("one")
        _, line, voip = await house.ring()
        voip.set_background(Sound(sine(200, 1000)), gain_db=0.0)
        await until(lambda: len(line.heard_audio) > 8 * 200)


async def test_the_longest_background_crosses_and_what_is_longer_still_is_refused_where_it_is_posted():
    async with bridge(clock=FAST) as house:
        await house.worker("one")
        call, line, voip = await house.ring(line=MemoryLine(clock=FAST, audio_format=PCM_24K))
        told: list[Failure] = []
        voip.on(Participant.ERROR, told.append)
        voip.set_background(Sound(bytes(range(256)) * 33_750, PCM_24K), gain_db=0.0)  # three minutes
        await until(lambda: line.heard_audio)
        assert not told
        voip.post(Message(uuid=uuid4(), data=bytes(12_000_000)))
        (failure,) = told
        assert isinstance(failure.error, LimitError)
        assert "12000" in str(failure.error)
        short = Message(uuid=uuid4(), data=bytes(4800), done=True)
        dispatched = []
        voip.on(VoIP.MESSAGE_DISPATCHED, dispatched.append)
        voip.post(short)
        await until(lambda: short.uuid in dispatched)
        assert not house.hosted(call).handed_over


async def test_the_greeting_is_posted_before_the_stream_and_heard_when_it_starts():
    async with bridge(clock=FAST) as house:
        message = speech(300)
        await house.worker("one", lambda voip: voip.post(message))
        call, line, voip = await house.ring(join=False)
        assert voip.state == "offered"
        line.join(call)
        await until(lambda: line.heard_audio == message.data)


async def test_an_on_voip_that_raises_refuses_the_call_and_leaves_nothing():
    async with bridge(clock=FAST) as house:

        def broken(voip: VoIP) -> None:
            raise ValueError("odd")

        worker = await house.worker("one", broken)
        futures = []
        call, _ = memory_call(lambda voip: futures.append(house.host.take(voip).taken), clock=FAST, join=False)
        with pytest.raises(UserCodeError, match="odd"):
            await asyncio.wait_for(asyncio.shield(futures[0]), 5)
        call.end("error")
        await asyncio.wait_for(call.wait_closed(), 5)
        await until(lambda: not worker.left)


async def test_a_worker_that_does_not_have_the_carriers_package_says_so():
    async with bridge(clock=FAST) as house:
        worker = await house.worker("one")
        taken = []

        def take(voip: VoIP) -> None:
            voip.metadata = msgspec.structs.replace(voip.metadata, carrier="faraway")
            taken.append(house.host.take(voip))

        call, _ = memory_call(take, clock=FAST)
        with pytest.raises(UserCodeError, match=r"worker one: .*faraway"):
            await asyncio.wait_for(taken[0].taken, 10)
        call.end("test")
        await call.wait_closed()
        assert not worker.left


async def test_slots_are_exact_whoever_offers():
    async with bridge(clock=FAST, settings=HostingSettings(admit_s=0.5)) as house:
        await house.worker("one", capacity=3)
        futures = []
        calls = [
            memory_call(lambda voip: futures.append(house.host.take(voip).taken), clock=FAST, join=False)[0]
            for _ in range(5)
        ]
        results = await asyncio.wait_for(asyncio.gather(*futures, return_exceptions=True), 5)
        assert [type(result) for result in results].count(NoWorker) == 2
        assert house.workers["one"].calls == 3
        taken = next(call for call, result in zip(calls, results, strict=True) if result is None)
        taken.end("done")
        await until(lambda: house.workers["one"].calls == 2)
        await house.ring(join=False)


async def test_a_call_in_the_queue_hears_the_hold_sound_and_is_taken_when_there_is_room():
    settings = HostingSettings(admit_s=0.2, queue_s=20.0, hold=Sound(sine(200, 500)))
    async with bridge(clock=FAST, settings=settings) as house:
        futures = []
        _, line = memory_call(lambda voip: futures.append(house.host.take(voip).taken), clock=FAST)
        await asyncio.wait_for(asyncio.shield(futures[0]), 5)
        await until(lambda: len(line.heard_audio) > 8 * 200)
        message = speech(200)
        await house.worker("one", lambda voip: voip.post(message))
        await until(lambda: line.heard_audio.endswith(message.data))


async def test_a_call_that_lasts_too_long_is_ended_by_its_host_whatever_the_agent_does():
    async with bridge(clock=FAST, settings=HostingSettings(max_duration_s=1.0)) as house:
        worker = await house.worker("one")
        call, _, voip = await house.ring()
        await asyncio.wait_for(call.wait_closed(), 10)
        assert call.voip.end is not None
        assert call.voip.end.reason == "max_duration"
        await until(lambda: voip.end is not None and not worker.left)


async def test_labels_decide_who_may_take_a_call():
    async with bridge(clock=FAST, labels=lambda metadata: ("de",)) as house:
        await house.worker("plain")
        german = await house.worker("german", labels=("de",))
        await house.ring()
        assert german.calls == 1


async def test_a_disposed_voip_hangs_up_and_frees_its_slot():
    async with bridge(clock=FAST) as house:
        worker = await house.worker("one")
        call, _, voip = await house.ring()
        voip.dispose()
        await asyncio.wait_for(call.wait_closed(), 5)
        assert call.voip.end is not None
        assert call.voip.end.reason == "agent_hangup"
        await until(lambda: not worker.left)


async def test_an_agent_whose_line_takes_nothing_is_told_so_once():
    async with bridge(clock=FAST) as house:
        await house.worker("one")
        _, _, voip = await house.ring()
        told: list[Failure] = []
        voip.on(Participant.ERROR, told.append)
        house.fabric.receiver = None  # it reads, and nothing comes of it
        for _ in range(10_010):
            voip.pause()
            voip.resume()
        house.fabric.receiver = house.host
        assert [type(each.error) for each in told] == [LimitError]


@pytest.mark.parametrize("full_of", ["audio", "wishes"])
async def test_what_could_not_even_be_sent_is_not_taken_for_kept(full_of):
    async with bridge(clock=FAST) as house:
        await house.worker("one")
        _, _, voip = await house.ring()
        assert voip.journal is not None
        house.fabric.receiver = None  # it reads, and nothing comes of it
        if full_of == "audio":
            voip.post(Message(uuid=uuid4(), data=tone(90_000)))
            voip.post(Message(uuid=uuid4(), data=tone(20)))
        else:
            for _ in range(20_001):
                voip.pause()
        event = ToolStarted(seq=0, at_s=0.0, turn=uuid4(), call_id="1", name="charge", arguments="{}")
        voip.journal.append(event)
        with pytest.raises(StateError, match="journal"):
            await asyncio.wait_for(voip.journal.acknowledged(0), 10)
        house.fabric.receiver = house.host


async def test_a_thousand_calls_leave_nothing_on_either_side():
    patient = HostingSettings(admit_s=500.0, answer_s=250.0)  # ten and five seconds outside, where the server is
    async with bridge(clock=steady_clock(50.0), settings=patient) as house:
        worker = await house.worker("one")
        for _ in range(20):
            calls = [await house.ring() for _ in range(50)]
            for _, line, _ in calls:
                line.hang_up()
            for call, _, _ in calls:
                await asyncio.wait_for(call.wait_closed(), 5)
        await until(lambda: not worker.left and not house.host.calls)
        known = house.host.directory.get("one")
        assert known is not None
        assert (known.ours, known.held) == (0, 0)

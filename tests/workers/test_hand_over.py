"""A worker is lost: what the caller hears, and who has the call then."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import msgspec
import pytest
from bridges import Bridge, bridge, until
from test_bridge import FAST, speech, tone

from dialog.calls.checkpoint import Checkpoint
from dialog.message import Clips, Message
from dialog.voip.memory import MemoryCarrier, MemoryLine, memory_call
from dialog.voip.voip import VoIP
from dialog.workers.frames import Frame, Taken
from dialog.workers.hosting import HostingSettings

pytestmark = pytest.mark.usefixtures("over_both")
APOLOGY, GOODBYE = b"\x01" * 800, b"\x02" * 800


def give_clips(voip: VoIP) -> None:
    assert voip.on_clips is not None
    voip.on_clips(Clips(apology=APOLOGY, goodbye=GOODBYE))


async def two_workers(house: Bridge, on_voip=give_clips) -> None:
    await house.worker("one", on_voip)
    await house.worker("two", on_voip)


async def test_a_killed_workers_call_is_with_another_at_once_and_keeps_its_line():
    async with bridge(clock=FAST) as house:
        await two_workers(house)
        call, line, first = await house.ring()
        hosted = house.hosted(call)
        lost = hosted.worker
        await house.kill(lost)
        await until(lambda: hosted.worker not in ("", lost))
        second = house.voips[-1]
        assert second is not first
        assert second.state == "live"
        assert hosted.handed_over == 1
        message = speech(300)
        second.post(message)
        await until(lambda: line.heard_audio.endswith(message.data))


async def test_what_the_caller_said_to_the_lost_worker_and_is_not_in_the_journal_is_heard_by_the_next():
    async with bridge(clock=FAST) as house:
        heard: list[list[Message[bytes]]] = []

        def listen(voip: VoIP) -> None:
            mine: list[Message[bytes]] = []
            heard.append(mine)
            voip.on(VoIP.MESSAGE, mine.append)

        await two_workers(house, listen)
        call, line, _ = await house.ring()
        line.say(tone(600))
        await until(lambda: sum(len(each.data) for each in heard[0]) >= 4800)
        await house.kill(house.hosted(call).worker)
        await until(lambda: len(heard) == 2 and sum(len(each.data) for each in heard[1]) >= 4800)
        assert heard[1][0].at_ms == heard[0][0].at_ms
        assert b"".join(each.data for each in heard[1])[:4800] == b"".join(each.data for each in heard[0])[:4800]


async def test_what_was_said_goes_on_for_a_moment_and_then_its_end_is_known():
    async with bridge(clock=FAST) as house:
        await two_workers(house)
        call, line, voip = await house.ring()
        short = speech(400)
        voip.post(short)
        await until(lambda: line.heard_audio)
        await house.kill(house.hosted(call).worker)
        await until(lambda: len(house.voips) == 2)
        assert line.heard_audio.startswith(short.data)
        known = {(each.uuid, each.part): each for each in house.voips[-1].snapshot.playbacks}
        assert known[short.uuid, 0].state == "played"


async def test_a_long_speech_is_cut_when_somebody_else_takes_over():
    async with bridge(clock=FAST) as house:
        await two_workers(house)
        call, line, voip = await house.ring()
        long = Message(uuid=uuid4(), data=tone(20_000))
        voip.post(long)
        await until(lambda: line.heard_audio)
        await house.kill(house.hosted(call).worker)
        await until(lambda: len(house.voips) == 2)
        final = house.voips[-1].snapshot.playbacks[-1]
        assert (final.uuid, final.state) == (long.uuid, "cut")
        assert 0 < final.heard_ms < 18_000
        await until(lambda: APOLOGY in line.heard_audio)


async def test_nobody_apologises_for_what_the_caller_did_not_notice():
    async with bridge(clock=FAST) as house:
        await two_workers(house)
        call, line, _ = await house.ring()
        await house.kill(house.hosted(call).worker)
        await until(lambda: len(house.voips) == 2)
        await asyncio.sleep(0.5)
        assert not line.heard_audio


async def test_without_another_worker_the_apology_comes_and_then_the_goodbye():
    async with bridge(clock=FAST, settings=HostingSettings(resume_s=1.0)) as house:
        await house.worker("one", give_clips)
        call, line, _ = await house.ring()
        await house.kill("one")
        await asyncio.wait_for(call.wait_closed(), 10)
        assert line.heard_audio == APOLOGY + GOODBYE
        assert call.voip.end is not None
        assert call.voip.end.reason == "lost_worker"


async def test_without_another_worker_a_person_may_take_the_call():
    settings = HostingSettings(resume_s=0.5, failure_transfer="+15550100")
    async with bridge(clock=FAST, settings=settings) as house:
        await house.worker("one", give_clips)
        call, _, _ = await house.ring(carrier=MemoryCarrier())
        await house.kill("one")
        await asyncio.wait_for(call.wait_closed(), 10)
        assert call.voip.end is not None
        assert call.voip.end.reason == "transferred"


async def test_a_worker_that_takes_nothing_any_more_loses_its_call_and_is_not_heard_when_it_wakes():
    async with bridge(clock=FAST) as house:
        await two_workers(house)
        call, line, first = await house.ring()
        hosted = house.hosted(call)
        stuck = house.workers[hosted.worker]
        stuck.fabric.receiver = None  # it reads, and nothing comes of it
        stuck._ticker.stop()
        line.say(tone(400))
        await until(lambda: hosted.handed_over == 1 and hosted.worker)
        assert hosted.worker != stuck.fabric.node
        stuck.fabric.receiver = stuck
        first.post(speech(200))
        first.abort(uuid4())
        await until(lambda: first.state == "ended")
        assert first.end is not None
        assert first.end.reason == "revoked"
        assert not line.heard_audio
        await until(lambda: not stuck.left)


async def test_a_frame_that_cannot_be_handled_costs_no_other_call(monkeypatch, caplog):
    def fails(*_) -> None:
        raise RuntimeError("a fault of ours")

    async with bridge(clock=FAST) as house:
        await two_workers(house)
        call, _, voip = await house.ring()
        others = [await house.ring() for _ in range(2)]
        monkeypatch.setattr(house.hosted(call), "_act", fails)
        voip.post(speech(100))
        await until(lambda: "a fault of ours" in caplog.text)
        for _, line, other in others:
            message = speech(100)
            other.post(message)
            await until(lambda line=line, message=message: line.heard_audio.endswith(message.data))
        assert not any(hosted.handed_over for hosted in house.host.calls)


async def test_a_worker_that_leaves_its_keys_unread_is_given_up_and_floods_nobody_else():
    async with bridge(clock=FAST) as house:
        keys: dict[VoIP, list[str]] = {}

        def listen(voip: VoIP) -> None:
            voip.on(VoIP.DTMF, keys.setdefault(voip, []).append)

        await two_workers(house, listen)
        call, line, first = await house.ring()
        hosted = house.hosted(call)
        deaf = house.workers[hosted.worker]
        deaf.fabric.receiver = None
        line.press("1" * 20_001)  # one more than may wait, in one step
        assert hosted.worker == deaf.fabric.node
        await asyncio.sleep(0)
        assert hosted.worker == ""
        await until(lambda: hosted.worker)
        line.press("#")
        await until(lambda: keys[house.voips[-1]][-1:] == ["#"])
        assert house.voips[-1] is not first
        assert len(keys[house.voips[-1]]) < 1000
        assert hosted.handed_over == 1


async def test_a_worker_that_does_not_hear_its_host_may_not_act():
    async with bridge(clock=FAST) as house:
        await house.worker("one")
        _, _, voip = await house.ring()
        assert voip.may_act()
        house.host._ticker.stop()
        await until(lambda: not voip.may_act())


async def test_a_call_that_ends_while_no_worker_has_it_is_over():
    async with bridge(clock=FAST) as house:
        await house.worker("one")
        call, line, _ = await house.ring()
        await house.kill("one")
        await until(lambda: not house.hosted(call).worker)
        line.hang_up()
        await asyncio.wait_for(call.wait_closed(), 5)
        assert call.voip.end is not None
        assert call.voip.end.reason == "caller_hangup"


async def test_workers_die_one_after_the_other_and_the_call_goes_on():
    async with bridge(clock=FAST, settings=HostingSettings(max_losses=10)) as house:
        await house.worker("zero", give_clips)
        call, line, _ = await house.ring()
        hosted = house.hosted(call)
        for count in range(1, 6):
            await house.worker(f"next-{count}", give_clips)
            await house.kill(hosted.worker)
            await until(lambda count=count: hosted.handed_over == count and hosted.worker)
        message = speech(200)
        house.voips[-1].post(message)
        await until(lambda: line.heard_audio.endswith(message.data))
        assert hosted.epoch == 6


async def test_keys_that_were_pressed_while_nobody_was_there_are_told_to_the_next():
    async with bridge(clock=FAST) as house:
        pressed: list[str] = []
        await house.worker("one", lambda voip: voip.on(VoIP.DTMF, pressed.append))
        call, line, _ = await house.ring()
        line.press("1")
        await until(lambda: pressed == ["1"])
        await house.kill("one")
        line.press("2")
        await until(lambda: not house.hosted(call).worker)
        line.press("3")
        await house.worker("two", lambda voip: voip.on(VoIP.DTMF, pressed.append))
        await until(lambda: len(pressed) >= 3)
        assert pressed[-2:] == ["2", "3"]
        assert set(pressed[:-2]) == {"1"}, "a key is told again at most if nobody knows whether it was taken"


async def test_a_key_that_was_answered_is_not_told_again():
    async with bridge(clock=FAST) as house:
        answer = speech(100)
        pressed: list[str] = []

        def on_voip(voip: VoIP) -> None:
            voip.on(VoIP.DTMF, pressed.append)
            voip.on(VoIP.DTMF, lambda _: voip.post(answer))

        await two_workers(house, on_voip)
        call, line, _ = await house.ring()
        hosted = house.hosted(call)
        lost = hosted.worker
        line.press("1")
        await until(lambda: line.heard_audio)
        await house.kill(lost)
        await until(lambda: hosted.worker not in ("", lost))
        line.press("2")
        await until(lambda: "2" in pressed)
        assert pressed == ["1", "2"]


async def test_a_call_that_kills_its_workers_is_given_up_before_it_has_killed_them_all():
    async with bridge(clock=FAST, settings=HostingSettings(max_losses=2)) as house:
        for count in range(4):
            await house.worker(f"w{count}", give_clips)
        call, line, _ = await house.ring()
        hosted = house.hosted(call)
        lost = hosted.worker
        await house.kill(lost)
        await until(lambda: hosted.worker not in ("", lost))
        await house.kill(hosted.worker)
        await asyncio.wait_for(call.wait_closed(), 10)
        assert call.voip.end is not None
        assert call.voip.end.reason == "lost_worker"
        assert line.heard_audio.endswith(GOODBYE)
        assert len(house.host.directory) == 2


class SlowCarrier(MemoryCarrier):
    """Each message is sent when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: dict[str, asyncio.Event] = {}

    async def execute(self, call, command):
        self.sent[command.text] = asyncio.Event()
        await self.sent[command.text].wait()
        return await super().execute(call, command)


async def test_what_became_of_a_lost_workers_command_is_not_told_to_the_next_one_as_of_its_own():
    async with bridge(clock=FAST) as house:
        await two_workers(house)
        carrier = SlowCarrier()
        call, _, first = await house.ring(carrier=carrier)
        hosted = house.hosted(call)
        lost = hosted.worker
        early = asyncio.create_task(first.send_sms("early", to="+15550100"))
        await until(lambda: "early" in carrier.sent)
        await house.kill(lost)
        await until(lambda: hosted.worker not in ("", lost))
        late = asyncio.create_task(house.voips[-1].send_sms("late", to="+15550100"))
        await until(lambda: "late" in carrier.sent)
        carrier.sent["early"].set()
        await until(lambda: len(carrier.commands) == 1)
        line_is_through = asyncio.Event()
        house.voips[-1].on(VoIP.DTMF, lambda _: line_is_through.set())
        carrier.lines[-1].press("1")
        await asyncio.wait_for(line_is_through.wait(), 10)
        assert not late.done()
        carrier.sent["late"].set()
        assert (await asyncio.wait_for(late, 10)).message_sid == "memory-2"
        early.cancel()
        await asyncio.wait([early])


async def test_an_offer_that_nobody_waits_for_any_more_takes_no_slot():
    settings = HostingSettings(admit_s=0.3, answer_s=20.0, queue_s=60.0)
    async with bridge(clock=FAST, settings=settings) as house:
        mute = await house.worker("mute")
        mute.fabric.receiver = None
        taken = []
        call, _ = memory_call(lambda voip: taken.append(house.host.take(voip)), clock=FAST)
        await until(taken[0].taken.done)  # it is in the queue now
        known = house.host.directory.get("mute")
        assert known is not None
        await until(lambda: known.held == 1)
        assert known.ours == 1, "the queue offers it again, and forgets the first offer"
        call.end("test")
        await call.wait_closed()
        assert (known.ours, known.held) == (0, 0)
        mute.fabric.receiver = mute


async def test_a_worker_that_dies_in_the_moment_it_has_taken_a_call_loses_it(monkeypatch):
    async with bridge(clock=FAST) as house:
        await two_workers(house)
        lost = []

        receive = house.host.receive

        def dies(sender: str, frame: Frame) -> None:
            receive(sender, frame)
            if isinstance(frame.body, Taken) and not lost:
                lost.append(sender)
                house.host.gone(sender, "it died at once")

        monkeypatch.setattr(house.host, "receive", dies)
        call, _, _ = await house.ring()
        await until(lambda: house.hosted(call).worker not in ("", lost[0]))
        assert house.hosted(call).handed_over == 1


async def test_keys_that_a_worker_was_offered_and_refused_with_its_call_are_told_to_the_one_that_takes_it():
    async with bridge(clock=FAST, settings=HostingSettings(resume_s=60.0)) as house:
        pressed: list[str] = []
        await house.worker("one")
        call, line, _ = await house.ring()
        hosted = house.hosted(call)
        await house.kill("one")
        await until(lambda: not hosted.worker)
        line.press("1")
        full = await house.worker("full", capacity=0)
        known = house.host.directory.get("full")
        assert known is not None
        # It looks as if it had room: so does one that another gateway has just filled.
        known.hello = msgspec.structs.replace(known.hello, capacity=1)
        house.host._room.set()
        await until(lambda: hosted.epoch > 1)
        await house.worker("two", lambda voip: voip.on(VoIP.DTMF, pressed.append))
        await until(lambda: hosted.worker == "two")
        await until(lambda: pressed)
        assert pressed == ["1"]
        assert not full.calls


async def test_keys_that_were_pressed_while_nobody_answered_are_told_to_the_one_that_does():
    async with bridge(clock=FAST, settings=HostingSettings(resume_s=60.0, answer_s=0.2)) as house:
        pressed: list[str] = []
        await house.worker("one")
        call, line, _ = await house.ring()
        hosted = house.hosted(call)
        mute = [await house.worker(node) for node in ("mute", "dumb")]
        for worker in mute:
            worker.fabric.receiver = None  # it lives, and nothing comes of what it reads
        await house.kill("one")
        await until(lambda: not hosted.worker)
        for key in "123":
            offers = hosted.epoch
            line.press(key)
            await until(lambda offers=offers: hosted.epoch > offers)
        await house.worker("two", lambda voip: voip.on(VoIP.DTMF, pressed.append))
        await until(lambda: hosted.worker == "two" and len(pressed) >= 3)
        assert pressed == ["1", "2", "3"]
        for worker in mute:
            worker.fabric.receiver = worker


async def test_a_key_that_two_workers_died_of_is_told_to_no_third():
    async with bridge(clock=FAST, settings=HostingSettings(resume_s=60.0)) as house:
        deaths: dict[str, asyncio.Task[None]] = {}

        def dies(_: str) -> None:
            node = house.hosted(call).worker
            house.workers[node].fabric.send = lambda *_: None
            deaths[node] = asyncio.create_task(house.kill(node))

        await two_workers(house, lambda voip: voip.on(VoIP.DTMF, dies))
        call, line, _ = await house.ring()
        line.press("1")
        await until(lambda: len(deaths) == 2)
        survivor: list[str] = []
        await house.worker("three", lambda voip: voip.on(VoIP.DTMF, survivor.append))
        await until(lambda: house.hosted(call).worker == "three")
        line.press("2")
        await until(lambda: survivor)
        assert survivor == ["2"]
        await asyncio.gather(*deaths.values())


async def test_audio_that_comes_when_its_part_was_lost_with_a_stream_keeps_no_apology_back():
    async with bridge(clock=FAST, settings=HostingSettings(resume_s=1.0)) as house:
        await house.worker("one", give_clips)
        call, line, voip = await house.ring()
        uuid = uuid4()
        voip.post(Message(uuid=uuid, data=tone(400)))
        await until(lambda: line.heard_audio)
        line.drop()  # what was on the line is lost; the rest of it is under way
        voip.post(Message(uuid=uuid, data=tone(400), at_ms=400.0, done=True))
        await until(lambda: voip.state == "lost")
        again = MemoryLine(clock=FAST)
        again.join(call)
        await until(lambda: voip.state == "live")
        await house.kill("one")
        await asyncio.wait_for(call.wait_closed(), 10)
        assert again.heard_audio == APOLOGY + GOODBYE


async def test_a_call_with_too_much_to_tell_is_given_up_and_harms_no_worker_that_it_is_offered_to(caplog):
    async with bridge(clock=FAST) as house:
        await two_workers(house)
        call, line, _ = await house.ring()
        _, other_line, other = await house.ring()
        hosted = house.hosted(call)
        hosted.checkpoint = Checkpoint(state=bytes(12_000_000))
        await house.kill(hosted.worker)
        await asyncio.wait_for(call.wait_closed(), 10)
        assert call.voip.end is not None
        assert call.voip.end.reason == "lost_worker"
        assert line.heard_audio.endswith(GOODBYE)
        assert "too much to tell" in caplog.text
        message = speech(200)
        other.post(message)
        await until(lambda: other_line.heard_audio.endswith(message.data))
        assert not any(each.handed_over for each in house.host.calls)

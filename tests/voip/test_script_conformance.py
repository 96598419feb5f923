"""What a script does on every way to carry calls, whoever asks for it and from whatever thread."""

from __future__ import annotations

import asyncio

import pytest
from msgspec.structs import replace
from rigs import RIGS, speech, until

from dialog.agent.scripts.blocking import BlockingCall
from dialog.agent.scripts.call import ScriptCall
from dialog.agent.scripts.script import Script
from dialog.errors import CallHungUp, Timeout
from dialog.message import MULAW_8K, Message, Playback
from dialog.testing.doubles import HummingTTS, ToldSTT
from dialog.voip.voip import VoIP


@pytest.fixture(params=list(RIGS))
def rig(request):
    return RIGS[request.param]


class Ears(ToldSTT):
    def __init__(self) -> None:
        super().__init__()
        self.discarded: list[float] = []

    def discard(self, before_ms: float) -> None:
        self.discarded.append(before_ms)


class Voice(HummingTTS):
    """Is heard by whoever listens for more than one value."""

    def emit(self, event, payload) -> None:
        if isinstance(payload, Message) and payload.data:
            payload = replace(payload, data=speech(MULAW_8K.ms(len(payload.data))))
        super().emit(event, payload)


class Stage:
    """The script of a rig's call, which the test runs."""

    script: Script

    def __init__(self) -> None:
        self.keys: list[str] = []
        self.heard: dict[object, float] = {}

    def __call__(self, voip: VoIP) -> None:
        self.ears = Ears()
        voip.on(VoIP.DTMF, self.keys.append)
        voip.on(VoIP.PLAYBACK, self._played)
        self.script = Script(voip=voip, stt=self.ears, tts=Voice(ms_per_char=25.0))
        self.script.activate()

    def _played(self, playback: Playback) -> None:
        self.heard[playback.uuid, playback.part] = playback.heard_ms

    @property
    def heard_ms(self) -> float:
        """How much of the voice was heard, as the line tells."""
        return sum(self.heard.values())

    @property
    def call(self) -> ScriptCall:
        return self.script.call

    @property
    def blocking(self) -> BlockingCall:
        return BlockingCall(self.call)


async def test_what_is_said_was_heard_and_a_stop_is_obeyed(rig):
    stage, stop = Stage(), asyncio.Event()
    async with rig(stage) as far:
        said = await stage.call.say("Hello, this is Luigi's.")
        assert said == ("Hello, this is Luigi's.", False, False)
        assert far.heard_ms() == pytest.approx(23 * 25, abs=120 + far.slack_ms)
        saying = asyncio.create_task(stage.call.say("This is a very long sentence that nobody has to hear.", stop=stop))
        await until(lambda: stage.heard_ms > 23 * 25 + 400)
        stop.set()
        said = await saying
        assert said.interrupted
        assert said.last_spoken.startswith("This is")
        assert not said.last_spoken.endswith("hear.")


async def test_threads_wait_for_their_own_marks(rig):
    stage = Stage()
    async with rig(stage) as far:
        call, sound = stage.blocking, far.speech(400)
        order: list[str] = []

        def wait(mark) -> None:
            assert call.wait_mark(mark, 20)
            order.append(f"{mark.name} {'first' if mark is first else 'second'}")

        def post() -> tuple:
            call.post_audio(sound)
            one = call.mark("here")
            call.post_audio(sound)
            return one, call.mark("here")

        first, second = await asyncio.to_thread(post)
        await asyncio.gather(asyncio.to_thread(wait, second), asyncio.to_thread(wait, first))
        assert order == ["here first", "here second"]
        assert await asyncio.to_thread(call.wait_mark, "here", 20)
        assert await asyncio.to_thread(call.wait_played, 20)
        assert far.heard_ms() == pytest.approx(800, abs=120 + far.slack_ms)


async def test_a_thread_clears_what_is_said_and_what_was_heard(rig):
    stage = Stage()
    async with rig(stage) as far:
        call = stage.blocking
        call.post_text("This is a very long sentence that nobody has to hear to its end.")
        mark = call.mark("end")
        await until(lambda: stage.heard_ms > 200)
        await asyncio.to_thread(call.request_clear)
        assert not await asyncio.to_thread(call.wait_mark, mark, 20)
        far.press("7")
        await until(lambda: stage.keys)
        stage.ears.heard("hello")
        far.say(far.speech(200))
        await until(lambda: stage.ears.audio)
        await asyncio.to_thread(call.clear_inbound)
        with pytest.raises(Timeout):
            await asyncio.to_thread(call.listen, 0.3)
        assert stage.ears.discarded[-1] > 0
        stage.ears.heard("anybody there")
        assert await asyncio.to_thread(call.listen, 5) == "anybody there"
        far.press("42#")
        assert (await asyncio.to_thread(call.gather, timeout_s=20)).digits == "42"


async def test_a_caller_who_hangs_up_ends_what_threads_wait_for(rig):
    stage = Stage()
    async with rig(stage) as far:
        call = stage.blocking
        waits = [
            asyncio.to_thread(call.listen, 600),
            asyncio.to_thread(call.say, "A sentence that is so long that nobody would ever hear it to its end. " * 9),
            asyncio.to_thread(call.gather, 4, timeout_s=600),
        ]
        tasks = [asyncio.ensure_future(wait) for wait in waits]
        await until(lambda: far.heard_ms() > 200)
        await far.hang_up()
        async with asyncio.timeout(10):
            outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [CallHungUp] * 3
        assert call.is_disconnected
        with pytest.raises(CallHungUp):
            await asyncio.to_thread(call.say, "Hello?")


async def test_a_thread_hangs_up(rig):
    stage = Stage()
    async with rig(stage) as far:
        saying = asyncio.create_task(stage.call.say("A sentence that is so long that nobody hears its end. " * 9))
        await until(lambda: far.heard_ms() > 200)
        await asyncio.to_thread(stage.blocking.request_disconnect, "said_enough")
        said = await saying
        assert said.disconnected
        await until(lambda: stage.call.is_disconnected)
        assert stage.call.end.reason == "said_enough"
        await far.wait_gone()

"""What a script does on a call: speaking, listening, keys, recording, endings."""

from __future__ import annotations

import asyncio
import threading

import numpy as np  # while it is imported in a thread, virtual time would not stand still for long enough
import pytest
from script_calls import play

from dialog import answers
from dialog.agent.agent import Agent
from dialog.agent.scripts.call import SayResult
from dialog.agent.scripts.script import Script
from dialog.agent.turns.settings import BargeIn
from dialog.audio.sound import Sound
from dialog.audio.tones import sine
from dialog.audio.wav import read_wav, write_wav
from dialog.calls.events import AgentSaid, CallerSaid, ErrorRaised
from dialog.errors import (
    CallHungUp,
    CarrierError,
    ConfigurationError,
    LimitError,
    ProviderError,
    RecognitionFailed,
    SpeechFailed,
    StateError,
    Timeout,
)
from dialog.llm.llm import Entry
from dialog.message import PCM_8K, Message
from dialog.testing.doubles import HummingTTS, ToldSTT
from dialog.testing.load_speech import canned
from dialog.testing.session import TextSession
from dialog.tts.tts import TTS
from dialog.voip.link import Hangup, TransferTo
from dialog.voip.memory import MemoryCarrier, MemoryLine

assert np
HELLO = "Hello, this is Luigi's."


def spoken(stage):
    return [(item.role, item.text) for item in stage.script.history.items() if isinstance(item, Entry)]


def test_say_waits_until_it_was_heard_and_the_end_of_run_hangs_up():
    async def run(call):
        result = await call.say(HELLO)
        heard_s = len(call.voip._link.line._wire.heard_audio) / 8000
        return result, heard_s

    stage = play(run)
    result, heard_s = stage.script.outcome
    assert result == SayResult(HELLO, interrupted=False, disconnected=False)
    assert heard_s == pytest.approx(len(HELLO) * 0.05, abs=0.03)
    assert stage.ended.reason == "agent_hangup"
    assert spoken(stage) == [("assistant", HELLO)]
    assert stage.errors == []


def test_a_caller_who_speaks_over_it_is_listened_to_next():
    async def run(call):
        said = await call.say("Hello, this is a very long sentence.")
        return said, await call.listen()

    async def caller(stage):
        await stage.wait(0.62)
        stage.stt.speech_starts()
        stage.stt.hears("stop")
        stage.stt.heard("stop it")
        stage.stt.speech_stops()

    stage = play(run, caller)
    said, words = stage.script.outcome
    assert said == SayResult("Hello, this", interrupted=True, disconnected=False)
    assert words == "stop it"
    assert spoken(stage) == [("assistant", "Hello, this"), ("user", "stop it")]


def test_what_may_not_be_interrupted_is_heard_out():
    async def run(call):
        said = await call.say("This call is recorded.", allow_interrupt=False)
        return said, await call.listen()

    async def caller(stage):
        await stage.wait(0.3)
        stage.stt.heard("what")

    assert play(run, caller).script.outcome == (SayResult("This call is recorded.", False, False), "what")


def test_each_prompt_has_its_own_barge_in():
    async def run(call):
        first = await call.say("One two three four five.", barge_in=BargeIn(mode="disabled"))
        second = await call.say("One two three four five.")
        return first.interrupted, second.interrupted

    async def caller(stage):
        await stage.wait(0.3)
        stage.stt.heard("hey")
        await stage.wait(1.5)
        stage.stt.heard("hey you")

    assert play(run, caller).script.outcome == (False, True)


@pytest.mark.parametrize("kind", [asyncio.Event, threading.Event])
@pytest.mark.parametrize("allow", [True, False])
def test_an_event_stops_it_in_mid_stream(kind, allow):
    stop = kind()

    async def run(call):
        said = await call.say("Hello, this is a very long sentence.", stop=stop, allow_interrupt=allow)
        return said, await call.say("Goodbye.")

    async def caller(stage):
        await stage.wait(0.62)
        stop.set()

    stage = play(run, caller)
    assert stage.script.outcome == (
        SayResult("Hello, this", interrupted=True, disconnected=False),
        SayResult("Goodbye.", interrupted=False, disconnected=False),
    )
    assert stage.tts.aborted


def test_an_event_that_is_set_before_it_sounds_stops_all_of_it():
    stop = asyncio.Event()

    async def run(call):
        await call.listen()
        stop.set()
        said = await call.say("Hello there.", stop=stop)
        return said, await call.say("Goodbye.")

    async def caller(stage):
        await stage.wait(0.1)
        stage.stt.heard("hi")
        stage.stt.speech_starts()
        await stage.wait(1)
        stage.stt.speech_stops()

    stage = play(run, caller)
    first, second = stage.script.outcome
    assert first == SayResult("", interrupted=True, disconnected=False)
    assert second.last_spoken == "Goodbye."


def test_a_script_that_is_cancelled_falls_silent():
    async def run(call):
        task = asyncio.create_task(call.say("Hello, this is a very long sentence."))
        await asyncio.wait([task], timeout=0.6)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        return await call.say("Bye.")

    stage = play(run)
    assert stage.script.outcome.last_spoken == "Bye."
    assert stage.tts.aborted


def test_listen_counts_silence_from_the_end_of_what_is_said():
    async def run(call):
        call.post_text("One two three four five six.")
        began = call.voip.clock.now()
        with pytest.raises(Timeout, match="said nothing for 3 s"):
            await call.listen(3)
        return call.voip.clock.now() - began

    assert play(run).script.outcome == pytest.approx(len("One two three four five six.") * 0.05 + 3, abs=0.1)


def test_who_speaks_is_let_finish():
    async def run(call):
        return await call.listen(2)

    async def caller(stage):
        await stage.wait(1.9)
        stage.stt.speech_starts()
        stage.stt.hears("I am")
        await stage.wait(3)
        stage.stt.heard("I am slow today")
        stage.stt.speech_stops()

    assert play(run, caller).script.outcome == "I am slow today"


def test_utterances_come_in_their_order_and_fresh_ones_only_if_wanted():
    async def run(call):
        await call.say("Go ahead.")
        await asyncio.sleep(1)
        first = await call.listen()
        with pytest.raises(Timeout):
            await call.listen(0.5, fresh=True)
        await asyncio.sleep(1)
        return first, await call.listen()

    async def caller(stage):
        await stage.wait(0.6)
        stage.stt.heard("one")
        await stage.wait(0.3)
        stage.stt.heard("two")
        await stage.wait(2)
        stage.stt.heard("three")

    stage = play(run, caller)
    assert stage.script.outcome == ("one", "three")
    assert [event.text for event in stage.script.events if isinstance(event, CallerSaid)] == ["one", "two", "three"]


def test_an_utterance_that_is_only_probably_over_is_not_listened_to():
    async def run(call):
        return await call.listen()

    async def caller(stage):
        await stage.wait(0.2)
        stage.stt.expects("my number is four")
        await stage.wait(0.5)
        assert stage.script.outcome is None
        stage.stt.goes_on()
        stage.stt.heard("my number is four two")

    assert play(run, caller).script.outcome == "my number is four two"


def test_keys_are_gathered_also_those_that_were_typed_ahead():
    async def run(call):
        said = await call.say("Welcome. Please type in your number.")
        digits = await call.gather(4)
        prompted = await call.gather(prompt="And your code, please.", terminator="#")
        with pytest.raises(Timeout, match="no key"):
            await call.gather(1, timeout_s=2)
        return said.interrupted, digits.digits, prompted.digits, prompted.why

    async def caller(stage):
        await stage.wait(0.5)
        stage.line.press("12")
        await stage.wait(0.5)
        stage.line.press("34")
        await stage.wait(0.4)
        stage.line.press("9#")

    stage = play(run, caller)
    assert stage.script.outcome == (True, "1234", "9", "terminator")
    assert not [event for event in stage.script.events if isinstance(event, CallerSaid)], "keys are no words"


def test_keys_that_were_not_meant_are_forgotten():
    async def run(call):
        await call.say("Welcome.")
        await asyncio.sleep(1)
        call.clear_inbound()
        return (await call.gather(2)).digits

    async def caller(stage):
        await stage.wait(0.6)
        stage.line.press("9")
        await stage.wait(2)
        stage.line.press("12")

    assert play(run, caller).script.outcome == "12"


def test_a_file_is_played_whatever_its_rate_and_length(tmp_path):
    write_wav(tmp_path / "long.wav", sine(300, 70_000.0), 8_000)
    write_wav(tmp_path / "wide.wav", sine(300, 1_000.0, sample_rate=16_000), 16_000)

    async def run(call):
        await call.play(tmp_path / "wide.wav")
        return await call.play(tmp_path / "long.wav", text="Music.")

    stage = play(run)
    assert stage.script.outcome == SayResult("Music.", interrupted=False, disconnected=False)
    assert len(stage.line.heard_audio) / 8000 == pytest.approx(71, abs=0.1)
    assert stage.errors == []
    assert spoken(stage) == [("assistant", "Music.")]


def test_a_sound_is_cut_by_the_caller_and_by_an_event():
    sound = Sound(sine(300, 20_000.0))
    stop = asyncio.Event()

    async def run(call):
        first = await call.play(sound)
        words = await call.listen()
        second = await call.play(sound, stop=stop)
        return first, words, second

    async def caller(stage):
        await stage.wait(2)
        stage.stt.heard("enough")
        await stage.wait(2)
        stop.set()

    stage = play(run, caller)
    first, words, second = stage.script.outcome
    assert (first.interrupted, words, second.interrupted) == (True, "enough", True)
    assert len(stage.line.heard_audio) / 8000 == pytest.approx(4, abs=0.6)


def test_posted_audio_goes_on_without_a_seam_and_marks_tell_when_it_was_heard():
    async def run(call):
        times = {}
        began = call.voip.clock.now()

        async def note(mark):
            played = await call.wait_mark(mark)
            times[mark.name, len(times)] = (played, round(call.voip.clock.now() - began, 1))

        for _ in range(50):
            call.post_audio(b"\x55" * 160)
        first = call.mark("a")
        call.post_audio(b"\x55" * 8000)
        second = call.mark("a")
        await asyncio.gather(note(second), note(first))
        assert await call.wait_played()
        return times

    stage = play(run)
    assert stage.script.outcome == {("a", 0): (True, 1.0), ("a", 1): (True, 2.0)}
    assert len(stage.line.heard_audio) == 16000
    assert len([event for event in stage.script.events if isinstance(event, AgentSaid)]) == 1


def test_a_mark_that_was_cleared_was_not_heard():
    async def run(call):
        call.post_text("Hello, this is a very long sentence.")
        call.mark("end")
        call.post_text("And another one.")
        after = call.mark("after")
        await asyncio.sleep(0.5)
        call.request_clear()
        played = await call.wait_mark("end"), await call.wait_mark(after), await call.wait_played()
        with pytest.raises(StateError, match="no mark 'other'"):
            await call.wait_mark("other")
        call.post_text("Once more, with some patience.")
        call.mark("late")
        with pytest.raises(Timeout, match="'late'"):
            await call.wait_mark("late", 0.2)
        with pytest.raises(Timeout, match="to be heard"):
            await call.wait_played(0.2)
        return *played, await call.wait_mark("late")

    assert play(run).script.outcome == (False, False, False, True)


def test_audio_that_is_posted_faster_than_it_is_played_is_bounded():
    async def run(call):
        minute = b"\x55" * 8000 * 50
        call.post_audio(minute)
        with pytest.raises(LimitError, match="60 s"):
            call.post_audio(minute)
        call.request_clear()
        call.voip.audio_format = PCM_8K
        with pytest.raises(ValueError, match="middle of a sample"):
            call.post_audio(b"1")

    stage = play(run)
    assert stage.script.outcome is None


def test_a_message_is_recorded_until_silence_a_key_or_its_longest(tmp_path):
    path = tmp_path / "message.wav"
    speech = canned()[0]

    async def run(call):
        by_silence = await call.record(silence_s=2, path=path)
        by_key = await call.record(silence_s=5)
        by_length = await call.record(max_s=1, silence_s=5)
        with pytest.raises(Timeout):
            await call.listen(0.5)
        with pytest.raises(ConfigurationError):
            await call.record(max_s=0)
        return by_silence, by_key, by_length

    async def caller(stage):
        stage.line.say(speech)
        await stage.wait(1)
        stage.stt.heard("please call me back")
        await stage.wait(len(speech) / 8000 + 2)
        stage.line.press("5")
        await stage.wait(0.5)
        stage.line.press("#")

    by_silence, by_key, by_length = play(run, caller).script.outcome
    assert (by_silence.why, by_silence.spoken) == ("silence", True)
    assert by_silence.duration_s == pytest.approx(len(speech) / 8000 + 2, abs=0.5)
    assert (by_key.why, by_key.spoken) == ("key", False)
    assert (by_length.why, by_length.duration_s) == ("max", 1.0)
    pcm, rate = read_wav(path)
    assert (rate, len(pcm) // 2) == (8000, len(by_silence.audio))


def test_a_caller_who_hangs_up_has_left_their_message(tmp_path):
    path = tmp_path / "message.wav"

    async def run(call):
        await call.record(path=path)

    async def caller(stage):
        stage.line.say(canned()[0])
        await stage.wait(1)
        stage.line.hang_up()

    stage = play(run, caller)
    error = stage.script.outcome
    assert isinstance(error, CallHungUp)
    assert (error.recorded.why, error.recorded.spoken) == ("hung_up", True)
    assert len(read_wav(path)[0]) // 2 == len(error.recorded.audio) == pytest.approx(8000, abs=400)


WAITS = {
    "say": lambda call: call.say("Hello, this is a very long sentence that goes on."),
    "play": lambda call: call.play(Sound(sine(300, 20_000.0))),
    "listen": lambda call: call.listen(30),
    "ask": lambda call: call.ask("Will you come to the party with all of us tonight?", answers.YesNo(), timeout_s=30),
    "collect": lambda call: call.collect(answers.address()),
    "gather": lambda call: call.gather(4, timeout_s=30),
    "gather with a prompt": lambda call: call.gather(4, prompt="Hello, this is a very long sentence that goes on."),
    "record": lambda call: call.record(silence_s=30),
    "wait_played": lambda call: (call.post_text("Hello, this is a very long sentence that goes on."), call.wait_played())[1],
    "wait_mark": lambda call: (call.post_text("Hello, this is a very long sentence."), call.mark("m"), call.wait_mark("m"))[2],
    "transfer": lambda call: call.transfer("+15550199"),
}  # fmt: skip


@pytest.mark.parametrize("name", WAITS)
def test_a_hang_up_ends_every_wait_at_once(name):
    times = {}

    class Undecided(MemoryCarrier):
        async def execute(self, call, command):
            if isinstance(command, TransferTo):
                call.moving("transfer", 30.0)
            else:
                await super().execute(call, command)

    async def run(call):
        try:
            await WAITS[name](call)
        finally:
            times["raised"] = call.voip.clock.now()
            with pytest.raises(CallHungUp):
                await call.say("Are you there?")
            with pytest.raises(CallHungUp):
                await call.listen()
            assert call.is_disconnected

    async def caller(stage):
        await stage.wait(1.0)
        times["hung_up"] = stage.clock.now()
        if name == "transfer":
            stage.host.end("caller_hangup")
        else:
            stage.line.hang_up()

    stage = play(run, caller, carrier=Undecided())
    error = stage.script.outcome
    assert isinstance(error, CallHungUp)
    assert error.reason == stage.ended.reason == "caller_hangup"
    assert times["raised"] - times["hung_up"] <= 0.1
    if name == "say":
        assert error.last_spoken == "Hello, this is a very"
    assert not [event for event in stage.script.events if isinstance(event, ErrorRaised)]


def test_a_script_may_write_down_what_came_of_a_call_that_was_hung_up():
    written = []

    async def run(call):
        try:
            await call.listen()
        except CallHungUp:
            await call.voip.clock.sleep(1.5)
            written.append("busy")
            raise

    async def caller(stage):
        await stage.wait(1)
        stage.line.hang_up()

    stage = play(run, caller)
    assert written == ["busy"]
    assert stage.errors == []


def test_a_script_that_does_not_end_after_the_call_is_ended():
    async def run(call):
        try:
            await call.listen()
        except CallHungUp:
            await call.voip.clock.sleep(600)

    async def caller(stage):
        await stage.wait(1)
        stage.line.hang_up()

    stage = play(run, caller)
    assert stage.script.outcome is None


def test_an_end_of_our_own_tells_what_was_said_and_then_raises():
    async def run(call):
        said = asyncio.create_task(call.say("Hello, this is a very long sentence that goes on."))
        await call.voip.clock.sleep(1)
        call.request_disconnect("enough")
        result = await said
        with pytest.raises(CallHungUp, match="enough"):
            await call.say("Hello?")
        return result

    stage = play(run)
    assert stage.script.outcome == SayResult("Hello, this is a very", interrupted=False, disconnected=True)
    assert stage.ended.reason == "enough"
    assert [command for command in stage.carrier.commands if isinstance(command, Hangup)]


def test_the_caller_is_transferred_or_comes_back():
    async def run(call):
        await call.say("One moment.")
        connected = await call.transfer("+15550199", back_within_s=20)
        if connected:
            with pytest.raises(CallHungUp, match="transferred"):
                await call.say("Hello?")
            return "connected"
        await call.say("Nobody is there.")
        return "back"

    connected = play(run)
    assert (connected.script.outcome, connected.ended.reason) == ("connected", "transferred")
    back = play(run, carrier=MemoryCarrier(transfer="failed"))
    assert (back.script.outcome, back.ended.reason) == ("back", "agent_hangup")
    assert back.said == ["One moment.", "Nobody is there."], "the script says what is to be said of it"


def test_a_carrier_that_refuses_a_transfer_is_an_error_and_the_call_goes_on():
    async def run(call):
        with pytest.raises(CarrierError):
            await call.transfer("+15550199")
        return await call.say("You are still here.")

    stage = play(run, carrier=MemoryCarrier(transfer="refused"))
    assert stage.script.outcome.last_spoken == "You are still here."


def test_what_the_line_lost_is_said_when_it_is_back():
    async def run(call):
        said = await call.say("First sentence here. Second sentence here.")
        return said, await call.say("Third.")

    async def caller(stage):
        await stage.wait(1.2)
        stage.line.drop()
        await stage.wait(1)
        line = MemoryLine(clock=stage.clock)
        stage.carrier.lines.append(line)
        line.join(stage.host)

    stage = play(run, caller)
    said, third = stage.script.outcome
    assert said.disconnected
    assert said.last_spoken.startswith("First sentence here.")
    assert third.last_spoken == "Third."
    assert stage.said[1:] == ["Second sentence here.", "Third."]


def test_a_script_that_fails_is_reported_and_the_caller_told():
    async def run(call):
        await call.say("Hello.")
        raise ZeroDivisionError

    stage = play(run)
    assert stage.said == ["Hello.", stage.script.settings.failure]
    assert ["run raised ZeroDivisionError()" in str(failure.error) for failure in stage.errors] == [True]


def test_a_script_that_waits_for_something_cancelled_has_failed_too():
    async def run(call):
        task = asyncio.ensure_future(asyncio.sleep(60))
        asyncio.get_running_loop().call_later(1.0, task.cancel)
        await task

    stage = play(run)
    assert stage.said == [stage.script.settings.failure]
    assert ["run raised CancelledError()" in str(failure.error) for failure in stage.errors] == [True]


class Dying(ToldSTT):
    def dies(self):
        self.fail(ProviderError("toldstt", "is gone", retryable=False), fatal=True)


class Mute(HummingTTS):
    """A voice that says nothing of some texts, and then gives up."""

    def __init__(self, *, fatal=False):
        super().__init__()
        self.fatal = fatal

    def _speak(self, message):
        if "fails" not in self.texts[message.uuid, message.part]:
            super()._speak(message)
        elif message.done:
            self.fail(ProviderError("humming", "503", retryable=True), fatal=self.fatal)
            if not self.fatal:
                self.emit(TTS.MESSAGE, Message(uuid=message.uuid, part=message.part, data=b"", done=True))


def test_what_the_voice_could_not_say_is_an_error_with_its_cause():
    async def run(call):
        with pytest.raises(SpeechFailed, match="503") as failed:
            await call.say("This fails.")
        with pytest.raises(SpeechFailed):
            await call.ask("This fails, too?", answers.YesNo(), timeout_s=1)
        call.post_text("This fails as well.")
        with pytest.raises(SpeechFailed):
            await call.wait_played()
        return failed.value, await call.say("This does not.")

    error, said = play(run, tts=Mute()).script.outcome
    assert isinstance(error.__cause__, ProviderError)
    assert error.retryable
    assert said.last_spoken == "This does not."


def test_no_method_waits_for_a_voice_that_is_gone():
    async def run(call):
        for wait in (
            lambda: call.say("This fails."),
            lambda: call.say("Hello."),
            lambda: call.ask("Hello?", answers.YesNo()),
            lambda: call.gather(1, prompt="Hello?"),
        ):
            with pytest.raises(SpeechFailed, match="503"):
                await wait()
        call.post_text("Hello.")
        with pytest.raises(SpeechFailed):
            await call.wait_played()
        digits = await call.gather(2)
        call._agent.set_tts(HummingTTS())
        return digits.digits, (await call.say("With another voice.")).last_spoken

    async def caller(stage):
        await stage.wait(2)
        stage.line.press("12")

    stage = play(run, caller, tts=Mute(fatal=True))
    assert stage.script.outcome == ("12", "With another voice.")
    assert stage.ended.reason == "agent_hangup"


def test_a_script_without_a_voice_that_does_not_care_ends_the_call():
    async def run(call):
        await call.say("This fails.")

    stage = play(run, tts=Mute(fatal=True))
    assert isinstance(stage.script.outcome, SpeechFailed)
    assert stage.ended.reason == "agent_hangup"


def test_no_method_waits_for_ears_that_are_gone():
    async def run(call):
        with pytest.raises(RecognitionFailed, match="is gone") as failed:
            await call.listen(30)
        assert isinstance(failed.value.__cause__, ProviderError)
        with pytest.raises(RecognitionFailed):
            await call.ask("What is your name?", answers.Name())
        sure = await call.ask("Press one for yes.", answers.YesNo())
        await call.say("I cannot hear you.")
        call._agent.set_stt(ToldSTT())
        with pytest.raises(Timeout):
            await call.listen(0.5)
        return sure

    async def caller(stage):
        await stage.wait(1)
        stage.stt.dies()
        await stage.until_said("Press one for yes.")
        stage.line.press("1")

    stage = play(run, caller, stt=Dying())
    assert stage.script.outcome is True
    assert stage.ended.reason == "agent_hangup"
    assert stage.script.settings.failure not in stage.said


def test_a_call_is_held_once():
    async def run(call):
        with pytest.raises(StateError, match="has the call already"):
            async with call._agent.script():
                pass
        return "held"

    assert play(run).script.outcome == "held"


def test_an_agent_that_lets_go_ends_the_waits_of_its_script():
    async def run(call):
        with pytest.raises(StateError, match="does not have the call"):
            await call.listen(30)
        return call.is_disconnected

    async def caller(stage):
        await stage.wait(1)
        stage.script.deactivate()
        await stage.wait(0.1)
        assert stage.script.outcome is True
        stage.script.activate()
        await stage.wait(0.1)
        stage.line.hang_up()

    play(run, caller)


def test_a_script_hands_the_call_to_an_agent():
    class Echo(Agent):
        async def inference(self, message):
            yield f"You said {message.data}."

    async def run(call):
        await call.say("Hello.")
        echo = Echo(voip=call.voip, stt=call._agent.stt, tts=call._agent.tts)
        call._agent.hand_off(echo)
        assert call.is_disconnected

    async def caller(stage):
        await stage.wait(1)
        stage.stt.heard("hi")
        await stage.wait(3)
        stage.line.hang_up()

    stage = play(run, caller)
    assert [text.strip() for text in stage.said] == ["Hello.", "You said hi."]
    assert stage.ended.reason == "caller_hangup"


def test_all_of_it_works_in_a_text_call():
    class Booking(Script):
        async def run(self, call):
            people = await call.ask("For how many?", answers.Number(1, 8))
            await call.play(Sound(sine(300, 100.0)))
            await call.say(f"A table for {people}.")

    async def scenario():
        def on_voip(voip):
            Booking(voip=voip, stt=ToldSTT, tts=HummingTTS).activate()

        async with TextSession(on_voip) as session:
            reply = await session.run("for four of us please")
            reply.says("A table for 4.")

    asyncio.run(scenario())

"""A script with its carrier and its providers over their own protocols, and what it is told when they fail."""

from __future__ import annotations

import asyncio

import pytest
from steady import steady_clock
from test_blocking import FROM, TO, house

from dialog import answers
from dialog.agent.scripts.dialling import dial
from dialog.audio.g711 import mulaw_encode
from dialog.audio.tones import sine
from dialog.errors import CallHungUp, ProviderError, RecognitionFailed, SpeechFailed
from dialog.net.reconnect import Backoff
from dialog.stt.deepgram import DeepgramSTT
from dialog.testing.cartesia import CartesiaEmulator
from dialog.testing.deepgram import DeepgramEmulator
from dialog.testing.server import Faults
from dialog.tts.cartesia import CartesiaTTS

SPEECH = mulaw_encode(sine(300, 600))
BACKOFF = Backoff(first_s=0.05, give_up_s=0.4)


async def called(there, script, *, on_answer=None, sentences=("yes of course",), ears=None, voice=None):
    """The outcome of ``script(call)``, or what it raises."""
    there.rings(on_answer, light=False)
    async with (
        DeepgramEmulator(sentences=list(sentences), faults=ears or Faults(times=0)) as deepgram,
        CartesiaEmulator(ms_per_char=20, faults=voice or Faults(times=0)) as cartesia,
    ):
        server = there.server()
        await asyncio.to_thread(server.start, asyncio.get_running_loop())
        try:
            async with dial(
                TO,
                FROM,
                gateway=there.gateway,
                stt=lambda: DeepgramSTT(api_key=deepgram.api_key, base_url=deepgram.url, backoff=BACKOFF),
                tts=lambda: CartesiaTTS(api_key=cartesia.api_key, base_url=cartesia.url, backoff=BACKOFF),
            ) as call:
                return await script(call, deepgram, cartesia)
        finally:
            await asyncio.to_thread(server.shutdown)


async def test_a_whole_call():
    async def talk(caller):
        await caller.listen(silence_ms=1500)
        await caller.say(SPEECH)
        await caller.listen()

    async def script(call, deepgram, cartesia):
        said = await call.say("Hello.")
        comes = await call.ask("Will you come?", answers.YesNo())
        await call.say("Good.")
        return said.last_spoken, comes, [text for text in cartesia.texts.values() if text]

    async with house(steady_clock(1.0)) as there:
        outcome = await called(there, script, on_answer=talk)
    assert outcome == ("Hello.", True, ["Hello.", "Will you come?", "Good."])


async def test_ears_that_never_come_are_given_up():
    async def script(call, deepgram, cartesia):
        with pytest.raises(RecognitionFailed) as failed:
            await call.listen(30)
        assert isinstance(failed.value.__cause__, ProviderError)
        return (await call.say("I cannot hear you.")).last_spoken

    async with house(steady_clock(1.0)) as there:
        assert await called(there, script, ears=Faults(refuse=503)) == "I cannot hear you."


async def test_ears_that_go_in_the_middle_of_a_call_are_given_up():
    async def script(call, deepgram, cartesia):
        await call.say("Hello.")
        listening = asyncio.create_task(call.listen(30))
        await deepgram.__aexit__(None, None, None)
        with pytest.raises(RecognitionFailed):
            await listening
        with pytest.raises(RecognitionFailed):
            await call.ask("What is your name?", answers.Name())
        return "gone"

    async with house(steady_clock(1.0)) as there:
        assert await called(there, script) == "gone"


@pytest.mark.parametrize("fault", [{"refuse": 503}, {"refuse": 401}, {"drop_after": 0}])
async def test_a_voice_that_fails_is_an_error_and_nothing_waits_for_it(fault):
    async def script(call, deepgram, cartesia):
        with pytest.raises(SpeechFailed):
            await call.say("Hello there, this is Luigi's.")
        with pytest.raises(SpeechFailed):
            await call.ask("Will you come?", answers.YesNo())
        return "mute"

    async with house(steady_clock(1.0)) as there:
        assert await called(there, script, voice=Faults(**fault)) == "mute"


async def test_a_call_that_breaks_off_for_good_ends_the_script():
    async def leaves(caller):
        await caller.wait_for_speech()
        await caller.drop()

    async def script(call, deepgram, cartesia):
        said = await call.say("A long sentence, of which little is heard before the line breaks.")
        with pytest.raises(CallHungUp):
            await call.say("Are you there?")
        return said.disconnected

    async with house(steady_clock(4.0)) as there:
        assert await called(there, script, on_answer=leaves)

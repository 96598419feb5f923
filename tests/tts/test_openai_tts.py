"""What is particular to OpenAI's speech endpoint, and to voices behind HTTP; the rest is in test_tts_conformance."""

import asyncio

import pytest
from aiohttp import web
from openai import AsyncOpenAI, AuthenticationError, BadRequestError, NotFoundError

from dialog.errors import ConfigurationError, ProviderError
from dialog.message import PCM_24K
from dialog.testing.openai_speech import OpenAISpeechEmulator
from dialog.testing.server import EmulatorServer, Faults
from dialog.tts import http, streaming
from dialog.tts.openai import DEFAULT_BASE_URL, DEFAULT_MODEL, DEFAULT_VOICE, OpenAITTS
from tests.tts.ear import Ear, uuid4
from tests.tts.providers import MS_PER_CHAR, OpenAISpeech


@pytest.fixture
async def speak(monkeypatch):
    monkeypatch.setattr(streaming, "_RETRY_S", 0.01)
    ears = []

    def make(emulator, **options):
        given = {"api_key": emulator.api_key, "base_url": emulator.base_url, **options}
        ear = Ear(OpenAITTS(**given))
        ears.append(ear)
        ear.tts.open(PCM_24K)
        return ear

    yield make
    for ear in ears:
        ear.tts.dispose()
        await ear.tts.wait_disposed()
        assert not ear.tts._tasks


def test_the_defaults_are_as_documented():
    assert DEFAULT_MODEL == "gpt-4o-mini-tts"
    assert DEFAULT_VOICE == "coral"
    assert DEFAULT_BASE_URL == "https://api.openai.com/v1"
    tts = OpenAITTS(api_key="k")
    assert tts.formats == (PCM_24K,)
    assert (tts.capabilities.text, tts.capabilities.timings, tts.capabilities.parallel_parts) == ("sentences", False, 2)
    assert tts._head.startswith(b"POST /v1/audio/speech HTTP/1.1\r\nHost: api.openai.com\r\n")
    assert tts._origin == ("api.openai.com", 443, True)


async def test_a_request_says_what_was_asked_for(speak):
    async with OpenAISpeechEmulator(ms_per_char=5) as openai:
        options = {"instructions": "Speak kindly.", "speed": 1.1, "new_field": [1]}
        ear, turn = speak(openai, voice={"id": "voice_1"}, model="tts-1", options=options), uuid4()
        ear.say("Hello there.", turn)
        await ear.done(turn)
        assert openai.bodies == [
            {"input": "Hello there.", "model": "tts-1", "voice": {"id": "voice_1"}, "response_format": "pcm", **options}
        ]
        request = openai.requests[-1]
        assert (request.method, request.path) == ("POST", "/v1/audio/speech")
        assert request.headers["Authorization"] == f"Bearer {openai.api_key}"
        assert request.headers["Content-Type"] == "application/json"


async def test_a_header_that_cannot_be_sent_is_told_at_construction():
    with pytest.raises(ConfigurationError):
        OpenAITTS(api_key="k", headers={"X-Bad": "a\r\nb"})


async def test_the_next_sentence_is_asked_for_while_one_is_received_and_the_others_go_together(speak):
    async with OpenAISpeech(ms_per_char=MS_PER_CHAR, speed=20) as openai:
        ear, turn = speak(openai), uuid4()
        for sentence in ("One at a time. ", "Two in advance. ", "Three waits. ", "And four joins it."):
            ear.say(sentence, turn, done=False)
        await openai.until(lambda: len(openai.bodies) == 2)
        assert not any(message.at_ms > 15 * MS_PER_CHAR for message in ear.of(turn))
        ear.say("", turn)
        await ear.done(turn)
        assert sorted(openai.texts[:2]) == ["One at a time. ", "Two in advance. "]
        assert openai.texts[2:] == ["Three waits. And four joins it."]
        assert ear.text(turn) == "One at a time. Two in advance. Three waits. And four joins it."


async def test_a_slow_first_answer_is_not_overtaken(speak):
    async with OpenAISpeech(ms_per_char=MS_PER_CHAR, first_audio_s=0.1) as openai:
        ear, turn = speak(openai), uuid4()
        ear.say("One. ", turn, done=False)
        await openai.until(lambda: openai.bodies)
        openai.first_audio_s = 0.0
        ear.say("Two.", turn)
        await ear.done(turn)
        assert ear.text(turn) == "One. Two."


async def test_a_text_that_is_too_long_goes_in_several_requests(speak):
    async with OpenAISpeechEmulator(ms_per_char=0.1, speed=1e6) as openai:
        ear, turn = speak(openai), uuid4()
        text = "A very long sentence, " * 400
        ear.say(text, turn)
        await ear.done(turn)
        assert sorted("".join(openai.texts).split()) == sorted(text.split())
        assert all(len(each) <= 4096 and each.endswith(" ") for each in openai.texts)
        assert ear.failures == []


async def test_the_connection_is_there_before_the_text_and_serves_again(speak):
    async with OpenAISpeechEmulator(ms_per_char=5) as openai:
        ear = speak(openai)
        async with asyncio.timeout(5):
            while ear.tts._lease is None or not ear.tts._lease.value.idle:
                await asyncio.sleep(0)
        for _ in range(3):
            turn = uuid4()
            ear.say("Hello there.", turn)
            await ear.done(turn)
            async with asyncio.timeout(5):
                while not ear.tts._lease.value.idle:
                    await asyncio.sleep(0)
        assert ear.tts._lease.value.idle == 1


async def test_an_abort_stops_the_request(speak):
    async with OpenAISpeechEmulator(ms_per_char=100, speed=5) as openai:
        ear, turn = speak(openai), uuid4()
        ear.say("A sentence that takes its time. ", turn, done=False)
        ear.say("And another one.", turn)
        await ear.until(lambda: ear.of(turn))
        ear.tts.abort(turn)
        await openai.until(lambda: openai.disconnected == 2)
        assert ear.failures == []
        assert not ear.tts._speeches


async def test_a_failure_of_the_second_sentence_waits_for_the_first_and_is_made_good(speak):
    async with OpenAISpeech(ms_per_char=MS_PER_CHAR, speed=20) as openai:
        ear, turn = speak(openai), uuid4()
        ear.say("The first is fine. ", turn, done=False)
        await openai.until(lambda: openai.bodies)
        openai.faults = Faults(refuse=503, times=1)
        ear.say("The second is refused.", turn)
        await ear.done(turn)
        assert ear.text(turn).split() == ["The", "first", "is", "fine.", "The", "second", "is", "refused."]
        [failure] = ear.failures
        assert "503" in str(failure.error)


async def test_a_body_that_breaks_off_ends_the_part_since_nobody_knows_what_is_missing(speak):
    async with OpenAISpeech(ms_per_char=MS_PER_CHAR, speed=20) as openai:
        ear, turn = speak(openai), uuid4()
        ear.say("The first is fine. ", turn, done=False)
        await openai.until(lambda: openai.bodies)
        openai.faults = Faults(drop_after=2, times=1)
        ear.say("The second breaks off.", turn)
        await ear.done(turn)
        assert "The first is fine. The second breaks off.".startswith(ear.text(turn))
        assert len(ear.text(turn)) > len("The first is fine. ")
        [failure] = ear.failures
        assert "broke" in str(failure.error)
        assert not failure.fatal


class NotSpeech(EmulatorServer):
    """A server that answers with something else than audio."""

    api_key = "k"

    @property
    def base_url(self):
        return f"{self.url}/v1"

    def routes(self):
        return [web.post("/v1/audio/speech", self._answer)]

    async def _answer(self, request):
        return web.Response(text="<html>Welcome to the proxy</html>", content_type="text/html")


async def test_something_else_than_audio_is_not_played(speak):
    async with NotSpeech() as proxy:
        ear, turn = speak(proxy), uuid4()
        ear.say("Hello there.", turn)
        await ear.done(turn)
        assert ear.audio(turn) == b""
        [failure] = ear.failures
        assert isinstance(failure.error, ProviderError)
        assert "text/html" in str(failure.error)


async def test_a_server_that_is_not_there_is_told_of(speak):
    async with OpenAISpeechEmulator() as gone:
        url = gone.base_url
    async with OpenAISpeechEmulator() as openai:
        ear, turn = speak(openai, base_url=url), uuid4()
        for part in range(2):
            ear.say("Hello?", turn, part)
            await ear.done(turn, part)
        assert len(ear.fatal) == 1
        assert isinstance(ear.fatal[0].error, ProviderError)


async def test_an_answer_that_never_comes_is_told_of_though_the_part_is_still_open(speak, monkeypatch):
    monkeypatch.setattr(http, "_CONNECT_S", 0.1)
    async with OpenAISpeechEmulator(faults=Faults(hang=True)) as openai:
        ear, turn = speak(openai, timeout_s=0.05), uuid4()
        ear.say("Hello? ", turn, done=False)
        await ear.until(lambda: ear.failures)
        assert "fell silent" in str(ear.failures[0].error)
        await ear.done(turn)  # it was tried often enough
        ear.say("Is there anybody?", turn)
        assert len(openai.requests) == 4


# The emulator speaks the real protocol: the official SDK says so.


async def test_the_sdk_speaks_with_the_emulator():
    async with (
        OpenAISpeechEmulator(ms_per_char=10, chunk_bytes=1001) as openai,
        AsyncOpenAI(api_key=openai.api_key, base_url=openai.base_url, max_retries=0) as client,
    ):
        request = {"model": "gpt-4o-mini-tts", "voice": "coral", "input": "Hello there.", "response_format": "pcm"}
        async with client.audio.speech.with_streaming_response.create(**request) as response:
            audio = b"".join([chunk async for chunk in response.iter_bytes()])
        assert audio == openai.audio("Hello there.")
        assert openai.bodies == [request]
        with pytest.raises(NotFoundError):
            await client.audio.speech.create(**{**request, "model": "tts-9"})
        with pytest.raises(BadRequestError):
            await client.audio.speech.create(**{**request, "voice": "nobody"})
        with pytest.raises(BadRequestError):
            await client.audio.speech.create(**{**request, "input": "x" * 4097})
        with pytest.raises(AuthenticationError):
            await client.with_options(api_key="wrong").audio.speech.create(**request)


async def test_the_sdk_leaves_in_the_middle():
    async with (
        OpenAISpeechEmulator(ms_per_char=100, speed=2) as openai,
        AsyncOpenAI(api_key=openai.api_key, base_url=openai.base_url, max_retries=0) as client,
    ):
        request = {"model": "gpt-4o-mini-tts", "voice": "coral", "input": "Hello there.", "response_format": "pcm"}
        async with client.audio.speech.with_streaming_response.create(**request) as response:
            async for _ in response.iter_bytes():
                break
        await openai.until(lambda: openai.disconnected == 1)

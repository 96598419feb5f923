"""Azure's speech synthesis: what is particular to it, and its emulator against the official SDK."""

import asyncio
from xml.etree import ElementTree as ET

import azure.cognitiveservices.speech as sdk
import pytest

from dialog.errors import AuthenticationError, ConfigurationError, ProviderError
from dialog.message import ALAW_8K, MULAW_8K, PCM_8K, PCM_16K, PCM_24K
from dialog.testing.azure_tts import AzureTTSEmulator
from dialog.testing.server import Faults
from dialog.tts import streaming
from dialog.tts.azure import DEFAULT_LANGUAGE, DEFAULT_VOICE, AzureTTS
from tests.tts.ear import Ear, uuid4


@pytest.fixture
async def speak(monkeypatch):
    monkeypatch.setattr(streaming, "_RETRY_S", 0.01)
    ears = []

    def make(emulator, audio_format=MULAW_8K, **options):
        given = {"api_key": emulator.api_key, "base_url": emulator.url, **options}
        ear = Ear(AzureTTS(**given), audio_format)
        ears.append(ear)
        ear.tts.open(audio_format)
        return ear

    yield make
    for ear in ears:
        ear.tts.dispose()
        await ear.tts.wait_disposed()
        assert not ear.tts._tasks


def test_the_defaults_are_as_documented():
    assert (DEFAULT_VOICE, DEFAULT_LANGUAGE) == ("en-US-AvaMultilingualNeural", "en-US")
    tts = AzureTTS(api_key="k")
    assert tts._origin == ("westeurope.tts.speech.microsoft.com", 443, True)
    assert tts._head.startswith(b"POST /cognitiveservices/v1 HTTP/1.1\r\n")
    assert tts._body("Hello.") == (
        b'<speak version="1.0" xmlns="http://www.w3.org/2001/10/synthesis" '
        b'xmlns:mstts="http://www.w3.org/2001/mstts" xml:lang="en-US">'
        b'<voice name="en-US-AvaMultilingualNeural">'
        b'<mstts:silence type="Sentenceboundary-exact" value="200ms"/>'
        b'<mstts:silence type="Tailing-exact" value="200ms"/>Hello.</voice></speak>'
    )
    assert (tts.capabilities.text, tts.capabilities.timings, tts.capabilities.parallel_parts) == ("sentences", False, 2)


def test_a_region_is_a_host_and_a_resource_of_ones_own_another():
    assert AzureTTS(api_key="k", region="eastus2")._origin.host == "eastus2.tts.speech.microsoft.com"
    own = AzureTTS(api_key="k", base_url="https://mine.cognitiveservices.azure.com/")
    assert own._origin.host == "mine.cognitiveservices.azure.com"
    assert own._head.startswith(b"POST /tts/cognitiveservices/v1 HTTP/1.1\r\n")


@pytest.mark.parametrize(
    "options",
    [
        {"region": "West Europe"},
        {"region": "evil.example/"},
        {"region": ""},
        {"voice": ""},
        {"language": ""},
        {"options": {"prosody rate='x'": {}}},
        {"options": {"prosody": {"rate='1'>": "x"}}},
        {"options": {"speed": 2}},
        {"sentence_pause_ms": -1},
        {"sentence_pause_ms": 20_001},
        {"headers": {"X-Bad": "a\r\nb"}},
    ],
    ids=repr,
)
def test_settings_that_can_never_work_are_refused_at_once(options):
    with pytest.raises(ConfigurationError):
        AzureTTS(api_key="k", **options)


async def test_a_request_says_what_was_asked_for(speak):
    async with AzureTTSEmulator(ms_per_char=5) as azure:
        ear, turn = speak(azure, voice="de-DE-KatjaNeural", language="de-DE", query={"deploymentId": "d1"}), uuid4()
        ear.say("Guten Tag.", turn)
        await ear.done(turn)
        request = azure.requests[-1]
        assert (request.method, request.path) == ("POST", "/tts/cognitiveservices/v1")
        assert request.values("deploymentId") == ["d1"]
        assert request.headers["Ocp-Apim-Subscription-Key"] == azure.api_key
        assert request.headers["Content-Type"] == "application/ssml+xml"
        assert request.headers["User-Agent"].startswith("dialog/")
        script = azure.read(request.body)
        assert script == ("Guten Tag.", "de-DE-KatjaNeural", "de-DE")


@pytest.mark.parametrize(
    ("audio_format", "name"),
    [
        (MULAW_8K, "raw-8khz-8bit-mono-mulaw"),
        (ALAW_8K, "raw-8khz-8bit-mono-alaw"),
        (PCM_8K, "raw-8khz-16bit-mono-pcm"),
        (PCM_16K, "raw-16khz-16bit-mono-pcm"),
        (PCM_24K, "raw-24khz-16bit-mono-pcm"),
    ],
)
async def test_formats_are_called_what_the_service_calls_them(speak, audio_format, name):
    async with AzureTTSEmulator(ms_per_char=5) as azure:
        ear, turn = speak(azure, audio_format), uuid4()
        ear.say("Hello.", turn)
        await ear.done(turn)
        assert azure.requests[-1].headers.getall("X-Microsoft-OutputFormat") == [name]
        assert ear.audio(turn) == azure.audio("Hello.", audio_format=audio_format)


@pytest.mark.parametrize(
    "text",
    [
        'Fish & chips <for 5>, "he" said, it\'s fine.',
        '</voice></speak><voice name="x">',
        "<break time='10s'/>&lt;&amp;",
        "]]> <![CDATA[ <!-- ?> Grüße, 你好 \U0001f600",
    ],
)
async def test_text_can_not_become_markup(speak, text):
    async with AzureTTSEmulator(ms_per_char=2) as azure:
        ear, turn = speak(azure), uuid4()
        ear.say(text, turn)
        await ear.done(turn)
        assert azure.texts == [text]
        assert ear.failures == []


async def test_characters_that_xml_can_not_hold_cost_no_word(speak):
    async with AzureTTSEmulator(ms_per_char=2) as azure:
        ear, turn = speak(azure), uuid4()
        ear.say("one\x00two\x0bthree\ufffefour\ud800five", turn)
        await ear.done(turn)
        assert azure.texts == ["one two three four five"]
        assert ear.failures == []


async def test_names_and_attributes_are_escaped_too():
    tts = AzureTTS(
        api_key="k",
        voice="a\"&<'",
        language="x\"&<'",
        options={"prosody": {"rate": '"><break/>'}, "mstts:express-as": {"style": "chat", "styledegree": "2"}},
    )
    root = ET.fromstring(tts._body("Hello."))
    [voice] = list(root)
    *_, prosody = list(voice)
    [style] = list(prosody)
    assert root.get("{http://www.w3.org/XML/1998/namespace}lang") == "x\"&<'"
    assert voice.get("name") == "a\"&<'"
    assert prosody.attrib == {"rate": '"><break/>'}
    assert style.tag == "{http://www.w3.org/2001/mstts}express-as"
    assert style.attrib == {"style": "chat", "styledegree": "2"}
    assert style.text == "Hello."


def test_pauses_are_for_voices_that_take_them():
    assert b'type="Tailing-exact" value="0ms"' in AzureTTS(api_key="k", sentence_pause_ms=0)._body("Hello.")
    assert b"silence" not in AzureTTS(api_key="k", sentence_pause_ms=None)._body("Hello.")
    high_definition = AzureTTS(api_key="k", voice="en-US-Ava:DragonHDLatestNeural")
    assert b"silence" not in high_definition._body("Hello.")


def test_the_voice_takes_options_as_well():
    tts = AzureTTS(api_key="k", options={"voice": {"effect": "eq_telecomhp8k"}})
    assert b'<voice name="en-US-AvaMultilingualNeural" effect="eq_telecomhp8k"><mstts:silence' in tts._body("Hello.")


async def test_an_unknown_voice_is_named_also_where_the_service_says_nothing(speak):
    for words in ("Unsupported voice x-Y-Z.", ""):
        async with AzureTTSEmulator(refusal_text=words, faults=Faults(refuse=400)) as azure:
            ear, turn = speak(azure, voice="x-Y-Z"), uuid4()
            ear.say("Hello.", turn)
            await ear.done(turn)
            [failure] = ear.failures
            assert not failure.error.retryable
            assert "400" in str(failure.error)
            assert "x-Y-Z" in str(failure.error)


@pytest.mark.parametrize(("words", "retryable"), [("Too many requests.", True), ("Out of call volume quota.", False)])
async def test_a_rate_passes_and_a_used_up_quota_does_not(speak, words, retryable):
    async with AzureTTSEmulator(ms_per_char=5, refusal_text=words, faults=Faults(refuse=429, times=1)) as azure:
        ear, turn = speak(azure), uuid4()
        ear.say("Hello.", turn)
        await ear.done(turn)
        [failure] = ear.failures
        assert failure.error.retryable is retryable
        assert words in str(failure.error)
        assert bool(ear.audio(turn)) is retryable


async def test_a_key_of_another_region_is_a_refused_key(speak):
    async with AzureTTSEmulator() as azure:
        ear, turn = speak(azure, api_key="of-another-region"), uuid4()
        ear.say("Hello.", turn)
        await ear.done(turn)
        [failure] = ear.failures
        assert failure.fatal
        assert isinstance(failure.error, AuthenticationError)
        assert "wrong API endpoint" in str(failure.error)
        assert "of-another-region" not in str(failure.error)


async def test_a_region_that_there_is_not_is_told_of(speak):
    async with AzureTTSEmulator() as gone:
        url = gone.url
    async with AzureTTSEmulator() as azure:
        ear, turn = speak(azure, base_url=url), uuid4()
        for part in range(2):
            ear.say("Hello?", turn, part)
            await ear.done(turn, part)
        assert len(ear.fatal) == 1
        assert isinstance(ear.fatal[0].error, ProviderError)


async def test_an_abort_stops_the_request(speak):
    async with AzureTTSEmulator(ms_per_char=100, speed=5) as azure:
        ear, turn = speak(azure), uuid4()
        ear.say("A sentence that takes its time. ", turn, done=False)
        ear.say("And another one.", turn)
        await ear.until(lambda: ear.of(turn))
        ear.tts.abort(turn)
        await azure.until(lambda: azure.disconnected == 2)
        assert ear.failures == []


# The emulator speaks the real protocol: the official SDK says so. It speaks USP and not REST; SSML, voices,
# formats, keys and audio are the same code behind both.


def synthesizer(azure, key=None, voice=DEFAULT_VOICE):
    config = sdk.SpeechConfig(subscription=key or azure.api_key, endpoint=azure.ws_url)
    config.speech_synthesis_voice_name = voice
    config.set_speech_synthesis_output_format(sdk.SpeechSynthesisOutputFormat.Raw8Khz8BitMonoMULaw)
    return sdk.SpeechSynthesizer(config, audio_config=None)


async def test_the_sdk_speaks_with_the_emulator():
    def drive():
        speaker, words = synthesizer(azure), []
        speaker.synthesis_word_boundary.connect(lambda event: words.append((event.text, event.audio_offset)))
        return [speaker.speak_text_async(text).get() for text in ("Fish & chips.", "Hello there.")], words

    async with AzureTTSEmulator(ms_per_char=10) as azure:
        results, words = await asyncio.to_thread(drive)
        assert [result.reason for result in results] == [sdk.ResultReason.SynthesizingAudioCompleted] * 2
        assert azure.texts == ["Fish & chips.", "Hello there."]
        for number, (result, text) in enumerate(zip(results, azure.texts, strict=True)):
            assert result.audio_data == azure.audio(text, number=number, audio_format=MULAW_8K)
        assert ("chips.", 7 * 10 * 10_000) in words
        assert azure.connections == 1


async def test_the_sdk_speaks_the_documents_of_ours():
    ours = AzureTTS(api_key="k", options={"prosody": {"rate": "+10%"}})._body("Fish & chips.").decode()
    async with AzureTTSEmulator(ms_per_char=10) as azure:
        result = await asyncio.to_thread(lambda: synthesizer(azure).speak_ssml_async(ours).get())
        assert result.reason == sdk.ResultReason.SynthesizingAudioCompleted
        assert azure.documents == [ours]
        assert azure.texts == ["Fish & chips."]


async def test_the_sdk_is_refused_as_by_the_service():
    def drive(**options):
        result = synthesizer(azure, **options).speak_text_async("Hello.").get()
        assert result.reason == sdk.ResultReason.Canceled
        return result.cancellation_details

    async with AzureTTSEmulator(voices=[DEFAULT_VOICE]) as azure:
        details = await asyncio.to_thread(drive, key="wrong")
        assert details.error_code == sdk.CancellationErrorCode.AuthenticationFailure
        details = await asyncio.to_thread(drive, voice="en-US-NobodyNeural")
        assert "Unsupported voice en-US-NobodyNeural" in details.error_details
        azure.faults = Faults(refuse=429)
        details = await asyncio.to_thread(drive)
        assert details.error_code == sdk.CancellationErrorCode.TooManyRequests
        azure.faults = Faults(drop_after=3)
        details = await asyncio.to_thread(drive)
        assert details.reason == sdk.CancellationReason.Error

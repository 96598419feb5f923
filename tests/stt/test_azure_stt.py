"""Azure's recognition: what is particular to it, and its emulator against the official SDK."""

from __future__ import annotations

import asyncio
import json
import threading

import azure.cognitiveservices.speech as sdk
import pytest
from stt_providers import PROVIDERS, SENTENCES, Ear, hears, silence, speech

from dialog.errors import AuthenticationError, ConfigurationError, ProviderError, RemoteProtocolError
from dialog.message import ALAW_8K, MULAW_8K, PCM_8K, PCM_16K
from dialog.net.azure import parse_usp, usp_text
from dialog.net.reconnect import Backoff
from dialog.stt import azure
from dialog.stt.azure import DEFAULT_LANGUAGE, AzureSTT
from dialog.stt.azure_wire import Receipts
from dialog.stt.stt import STT
from dialog.testing.azure_stt import AzureSTTEmulator
from dialog.testing.server import Faults

[AZURE] = [provider for provider in PROVIDERS if provider.name == "azure"]
[MANUAL] = [provider for provider in PROVIDERS if provider.name == "azure-manual"]
SHORT = Backoff(first_s=0.01, limit_s=0.02, give_up_s=0.1)


@pytest.fixture
async def listen():
    ears = []

    async def make(emulator, *, provider=AZURE, audio_format=MULAW_8K, **options):
        ear = Ear(provider, emulator, **options)
        ears.append(ear)
        ear.stt.open(audio_format)
        await ear.connected()
        return ear

    yield make
    for ear in ears:
        ear.stt.dispose()
        await ear.stt.wait_disposed()
        assert ear.stt._turn_timer is None
        assert ear.emulator.violations == []


def messages(emulator, path):
    """What clients sent of this kind."""
    parsed = [parse_usp(frame.data) for frame in emulator.received()]
    return [message for message in parsed if message.path == path]


def turns(emulator):
    return [message.request_id for message in messages(emulator, "speech.context")]


def test_the_defaults():
    assert DEFAULT_LANGUAGE == "en-US"
    stt = AzureSTT(api_key="k")
    assert stt.url_for(MULAW_8K) == "wss://westeurope.stt.speech.microsoft.com/stt/speech/universal/v2"
    assert '"language":"en-US"' in stt._turn_settings
    assert '"segmentationSilenceTimeoutMs":500' in stt._turn_settings
    assert "dgi" not in stt._turn_settings


def test_a_region_is_a_host_and_a_resource_of_ones_own_another():
    url = AzureSTT(api_key="k", region="eastus2").url_for(MULAW_8K)
    assert url == "wss://eastus2.stt.speech.microsoft.com/stt/speech/universal/v2"
    own = AzureSTT(api_key="k", base_url="https://mine.cognitiveservices.azure.com/", query={"cid": "c1"})
    assert own.url_for(MULAW_8K) == "wss://mine.cognitiveservices.azure.com/stt/speech/universal/v2?cid=c1"


@pytest.mark.parametrize(
    "options",
    [
        {"silence_timeout_ms": 99},
        {"silence_timeout_ms": 5001},
        {"language": ""},
        {"region": ""},
        {"region": "West Europe"},
        {"region": "evil.example/x"},
    ],
    ids=repr,
)
def test_settings_that_can_never_work_are_refused_at_once(options):
    with pytest.raises(ConfigurationError):
        AzureSTT(api_key="k", **options)


async def test_the_handshake_says_who_we_are(listen):
    async with AzureSTTEmulator() as service:
        await listen(service)
        [request] = service.requests
        assert request.headers["Ocp-Apim-Subscription-Key"] == service.api_key
        assert request.headers["Sec-WebSocket-Protocol"] == "USP"
        assert len(request.headers["X-ConnectionId"]) == 32


async def test_a_turn_says_what_was_asked_for_and_options_win_level_by_level(listen):
    async with AzureSTTEmulator() as service:
        await listen(
            service,
            language="de-DE",
            silence_timeout_ms=700,
            keyterms=["Contoso", "Twilio"],
            options={"phraseDetection": {"enrichment": {"profanity": "raw"}}, "phraseOutput": {"format": "Simple"}},
        )
        await service.until(lambda: service.contexts)
        assert service.contexts == [
            {
                "phraseDetection": {
                    "mode": "CONVERSATION",
                    "language": "de-DE",
                    "CONVERSATION": {"segmentation": {"mode": "Custom", "segmentationSilenceTimeoutMs": 700}},
                    "enrichment": {"profanity": "raw"},
                },
                "dgi": {"Groups": [{"Type": "Generic", "Items": [{"Text": "Contoso"}, {"Text": "Twilio"}]}], "bias": 1},
                "audio": {"streams": {"1": None}},
                "phraseOutput": {"format": "Simple", "detailed": {"options": ["WordTimings", "WordConfidence"]}},
            }
        ]


async def test_with_manual_turns_only_the_longest_silence_ends_one(listen):
    async with AzureSTTEmulator() as service:
        await listen(service, provider=MANUAL, silence_timeout_ms=700)
        await service.until(lambda: service.contexts)
        segmentation = service.contexts[0]["phraseDetection"]["CONVERSATION"]["segmentation"]
        assert segmentation["segmentationSilenceTimeoutMs"] == 5000


@pytest.mark.parametrize(
    ("audio_format", "kind"),
    [
        (MULAW_8K, (7, 1, 8000, 8000, 1, 8)),
        (ALAW_8K, (6, 1, 8000, 8000, 1, 8)),
        (PCM_8K, (1, 1, 8000, 16_000, 2, 16)),
        (PCM_16K, (1, 1, 16_000, 32_000, 2, 16)),
    ],
)
async def test_the_audio_begins_as_a_wav_file_of_its_format(listen, audio_format, kind):
    async with AzureSTTEmulator() as service:
        await listen(service, audio_format=audio_format)
        await service.until(lambda: messages(service, "audio"))
        [head] = messages(service, "audio")
        assert head.headers["content-type"] == "audio/x-wav"
        assert head.body[:4] == b"RIFF"
        fields = [int.from_bytes(head.body[at : at + size], "little") for at, size in _FIELDS]
        assert tuple(fields) == kind


_FIELDS = ((20, 2), (22, 2), (24, 4), (28, 4), (32, 2), (34, 2))


async def test_audio_goes_up_as_it_came(listen):
    async with AzureSTTEmulator() as service:
        ear = await listen(service)
        ear.say(speech(0, 200))
        await ear.settled()
        _, *frames = messages(service, "audio")
        assert [len(frame.body) for frame in frames] == [160] * 10
        assert b"".join(frame.body for frame in frames) == speech(0, 200)
        assert {(frame.request_id, frame.headers["x-streamid"]) for frame in frames} == {(turns(service)[0], "1")}


async def test_an_idle_connection_is_kept(listen, monkeypatch):
    monkeypatch.setattr(AzureSTT, "idle_silence_s", 0.25)
    async with AzureSTTEmulator() as service:
        await listen(service)
        await service.until(lambda: len(messages(service, "audio")) >= 2)
        assert messages(service, "audio")[1].body == silence(250)


# Utterances.


async def test_words_come_with_their_times_and_the_text_as_it_is_written(listen):
    async with AzureSTTEmulator() as service:
        ear = await listen(service)
        service.hears = lambda _: "A table for two, please."
        await ear.hear(silence(1000))
        await ear.utter(0, 1500)
        [final] = ear.told("message")
        assert final.data == "A table for two, please."
        assert [word.text for word in final.words] == ["a", "table", "for", "two", "please"]
        assert final.at_ms == pytest.approx(1000, abs=40)
        assert final.end_ms == pytest.approx(2500, abs=40)
        assert final.confidence == pytest.approx(0.97)
        assert ear.told("interim")[-1].data == "a table for two please"
        assert ear.told("interim")[-1].words == ()  # it tells none while they are said


async def test_every_utterance_begins_with_an_edge_though_the_service_tells_only_of_the_first(listen):
    async with AzureSTTEmulator() as service:
        ear = await listen(service)
        await ear.utter(0)
        begin_ms = ear.at_ms
        await ear.utter(1)
        assert sum("startDetected" in str(frame.data) for frame in service.frames) == 1
        assert [edge.state for edge in ear.told("vad")] == ["started", "stopped"] * 2
        assert ear.told("vad")[2].at_ms == pytest.approx(begin_ms, abs=40)


@pytest.mark.parametrize("status", ["NoMatch", "InitialSilenceTimeout", "BabbleTimeout", "SomethingNew"])
async def test_a_phrase_without_words_says_nothing_and_hurts_nobody(listen, status):
    async with AzureSTTEmulator() as service:
        ear = await listen(service)
        await ear.hear(silence(300))
        await service.report(status)
        await ear.utter(0)
        assert ear.finals == [SENTENCES[0]]
        assert ear.failures == []
        assert service.connections == 1


async def test_what_the_service_has_heard_to_its_end_is_not_kept(listen):
    async with AzureSTTEmulator() as service:
        ear = await listen(service)
        await ear.hear(silence(1000))
        await service.tell("speech.phrase", RecognitionStatus="InitialSilenceTimeout", Offset=0, Duration=8_000_000)
        await ear.settled()
        await asyncio.sleep(0)
        assert ear.stt.safe_ms == pytest.approx(800)
        assert ear.stt._ring.start_ms == pytest.approx(800)


async def test_a_language_that_was_found_out_is_told(listen):
    async with AzureSTTEmulator() as service:
        ear = await listen(service)
        await ear.hear(silence(1000))
        found = {"PrimaryLanguage": {"Language": "fr-FR", "Confidence": "High"}, "DisplayText": "Oui.", "NBest": None}
        await service.tell("speech.phrase", RecognitionStatus="Success", Offset=0, Duration=5_000_000, **found)
        await ear.settled()
        [final] = ear.told("message")
        assert (final.data, final.language) == ("Oui.", "fr-FR")


# Turns of the service's.


async def test_finalize_ends_the_turn_and_the_next_one_goes_on(listen):
    async with AzureSTTEmulator() as service:
        ear = await listen(service, timeout_s=5.0)  # it does not wait for it
        for sentence in (0, 1, 2):
            await ear.hear(speech(sentence, 1200))
            ear.stt.finalize()
            await ear.hear(silence(300))
            await ear.until(lambda sentence=sentence: len(ear.finals) == sentence + 1)
        assert ear.finals == SENTENCES
        assert len(set(turns(service))) == len(turns(service)) == 4
        assert service.connections == 1
        assert ear.failures == []
        for sentence, final in enumerate(ear.told("message")):
            assert final.at_ms == pytest.approx(1500 * sentence, abs=50)


async def test_every_turn_is_acknowledged_and_the_first_of_a_connection_tells_of_that(listen):
    async with AzureSTTEmulator() as service:
        ear = await listen(service)
        for sentence in (0, 1):
            await ear.hear(speech(sentence, 1200))
            ear.stt.finalize()
            await ear.hear(silence(300))
        service.sockets[0].drop()
        await ear.connected(2)
        await ear.hear(speech(2, 1200))
        ear.stt.finalize()
        await ear.hear(silence(300))
        await service.until(lambda: len(service.telemetry) == 3)
        told = [
            {name: times for each in turn["ReceivedMessages"] for name, times in each.items()}
            for turn in service.telemetry
        ]
        for receipts in told:
            assert len(receipts["turn.start"]) == len(receipts["turn.end"]) == 1
            assert receipts["speech.hypothesis"] == sorted(receipts["speech.hypothesis"])
            assert len(receipts["speech.phrase"]) == 2
        metrics = [turn.get("Metrics", []) for turn in service.telemetry]
        assert [len(each) for each in metrics] == [1, 0, 1]
        assert {each["Id"] for turn in metrics for each in turn} == {service.requests[0].headers["X-ConnectionId"]}
        assert all(each["Start"] <= each["End"] for turn in metrics for each in turn)
        ended = [message.request_id for message in messages(service, "telemetry")]
        assert ended == [turns(service)[at] for at in (0, 1, 3)]


async def test_who_ends_the_call_when_the_answer_comes_is_not_in_the_way(listen):
    async with AzureSTTEmulator(answer_end=False) as service:
        ear = await listen(service, timeout_s=60.0)
        ear.stt.on(STT.MESSAGE, lambda _: ear.stt.dispose())
        await ear.hear(speech(0, 1200))
        ear.stt.finalize()
        await service.end_turns()  # without a phrase: the interim words count
        await ear.until(lambda: ear.finals)
        await ear.stt.wait_disposed()
        assert len(turns(service)) == 1


async def test_the_end_of_a_turn_answers_also_where_nothing_was_said(listen):
    async with AzureSTTEmulator() as service:
        ear = await listen(service, timeout_s=60.0)
        await ear.hear(silence(300))
        ear.stt.finalize()
        await ear.until(lambda: ear.stt._finalizing is None)
        assert ear.events == []
        await service.until(lambda: len(turns(service)) == 2)


async def test_finalize_without_audio_costs_no_turn(listen):
    async with AzureSTTEmulator() as service:
        ear = await listen(service, timeout_s=0.02)
        for _ in range(3):
            ear.stt.finalize()
            await asyncio.wait_for(_over(ear), 5)
        await ear.utter(0)
        assert len(turns(service)) == 1
        assert ear.finals == [SENTENCES[0]]


async def _over(ear):
    while ear.stt._finalizing is not None:
        await asyncio.sleep(0)


async def test_what_is_said_while_a_turn_ends_is_heard_in_the_next(listen):
    async with AzureSTTEmulator(answer_end=False) as service:
        ear = await listen(service, timeout_s=0.05)
        await ear.hear(speech(0, 1200))
        ear.stt.finalize()
        await ear.until(lambda: ear.finals)
        assert ear.stt.pulse is not None  # the connection is there
        ear.say(silence(600) + speech(1, 1200) + silence(900))  # nobody hears it yet
        await service.end_turns()
        service.answer_end = True
        await ear.until(lambda: len(ear.finals) == 2)
        assert ear.finals == SENTENCES[:2]
        assert ear.failures == []
        assert service.connections == 1


async def test_a_service_that_ends_a_turn_with_each_phrase_loses_nothing(listen):
    async with AzureSTTEmulator(phrase_turns=True) as service:
        ear = await listen(service)
        for sentence in (0, 1, 2):
            # The next words come before the service has ended the turn.
            await ear.hear(speech(sentence, 1200) + silence(520))
        await ear.hear(silence(900))
        await ear.until(lambda: len(ear.finals) == 3)
        await ear.settled()
        assert ear.finals == SENTENCES
        assert len(turns(service)) == 4
        assert service.connections == 1
        assert ear.failures == []


@pytest.mark.parametrize("said_ms", [200, 700, 1300])
async def test_a_turn_that_the_service_ends_in_mid_utterance_is_heard_again_under_its_uuid(listen, said_ms):
    async with AzureSTTEmulator() as service:
        ear = await listen(service)
        await ear.hear(speech(0, said_ms))
        await service.end_turns()
        await service.until(lambda: len(turns(service)) == 2)
        await ear.hear(speech(0, 1400 - said_ms) + silence(900))
        await ear.until(lambda: ear.finals)
        assert ear.finals == [SENTENCES[0]]
        assert {utterance.uuid for utterance in ear.told("interim")} == {ear.told("message")[0].uuid}
        assert [edge.state for edge in ear.told("vad")] == ["started", "stopped"]
        assert service.connections == 1


async def test_a_turn_that_is_never_ended_is_left_for_another_connection(listen, monkeypatch):
    monkeypatch.setattr(azure, "_TURN_S", 0.05)
    async with AzureSTTEmulator(answer_end=False) as service:
        ear = await listen(service, timeout_s=0.02)
        await ear.hear(speech(0, 1200))
        ear.stt.finalize()
        await ear.until(lambda: ear.failures)
        [failure] = ear.failures
        assert not failure.fatal
        assert failure.error.retryable
        assert "did not end a turn within 0.05 s" in str(failure.error)
        await ear.connected(2)
        await ear.hear(silence(600))
        await ear.utter(1)
        assert ear.finals == SENTENCES[:2]


@pytest.mark.parametrize("which", ["head", "end"])
async def test_a_turn_whose_beginning_or_end_was_dropped_is_left_for_another_connection(listen, which):
    async with AzureSTTEmulator() as service:
        ear = await listen(service)
        await ear.hear(speech(0, 700))
        turn = ear.stt._turn_now
        ear.stt._dropped(turn.head if which == "end" else turn.first + ear.stt._wave_head)
        await ear.connected(2)
        await ear.hear(speech(0, 700) + silence(900))
        await ear.until(lambda: ear.finals)
        assert ear.finals == [SENTENCES[0]]
        assert ear.failures == []


async def test_dropped_audio_is_counted_without_its_headers(listen):
    async with AzureSTTEmulator() as service:
        ear = await listen(service)
        ear.say(silence(100))
        sent_ms = ear.stt._sent.time.sent_ms
        ear.stt._dropped(ear.stt._turn_now.head + silence(20))
        assert ear.stt._sent.time.sent_ms == sent_ms - 20


# Errors.


@pytest.mark.parametrize("status", ["Error", "TooManyRequests", "ServiceUnavailable"])
async def test_after_an_error_it_connects_again_and_loses_nothing(listen, status):
    async with AzureSTTEmulator() as service:
        ear = await listen(service)
        await ear.hear(speech(0, 600))
        await service.report(status)
        await ear.connected(2)
        await ear.hear(speech(0, 600) + silence(900))
        await ear.until(lambda: ear.finals)
        assert ear.finals == [SENTENCES[0]]
        [failure] = ear.failures
        assert not failure.fatal
        assert status in str(failure.error)


@pytest.mark.parametrize(("status", "error"), [("BadRequest", ProviderError), ("Forbidden", AuthenticationError)])
async def test_errors_that_last_end_it_at_once(listen, status, error):
    async with AzureSTTEmulator() as service:
        ear = await listen(service)
        await ear.hear(silence(100))
        await service.report(status)
        await ear.until(lambda: ear.failures)
        [failure] = ear.failures
        assert failure.fatal
        assert not failure.retryable
        assert type(failure.error) is error
        assert status in str(failure.error)
        assert service.connections == 1


async def test_a_quota_that_is_used_up_ends_it_at_once(listen):
    async with AzureSTTEmulator() as service:
        ear = await listen(service)
        await service.sockets[0].close(1007, "Quota exceeded")
        await ear.until(lambda: ear.failures)
        [failure] = ear.failures
        assert failure.fatal
        assert not failure.retryable
        assert "Quota exceeded" in str(failure.error)
        assert service.connections == 1


async def test_a_region_that_there_is_not_ends_in_one_fatal_error():
    async with AzureSTTEmulator() as gone:
        url = gone.url
    async with AzureSTTEmulator() as service:
        ear = Ear(AZURE, service, backoff=SHORT)
        ear.stt._base_url = url
        ear.stt.open(MULAW_8K)
        await ear.until(lambda: any(failure.fatal for failure in ear.failures))
        assert [failure.fatal for failure in ear.failures] == [False, True]
        assert "cannot connect" in str(ear.failures[-1].error)
        ear.stt.dispose()
        await ear.stt.wait_disposed()


@pytest.mark.parametrize(
    ("frame", "told"),
    [
        ("no headers", "without headers"),
        ("Path\r\n\r\n{}", "without a path"),
        (b"", "ends in its headers"),
        (b"\xff\xffPath:x", "ends in its headers"),
        (b"\x00\x02\xff\xfe", "utf-8"),
        ("hypothesis {", "malformed speech.hypothesis"),
        ('hypothesis {"Text":7}', "malformed speech.hypothesis"),
        ('phrase {"RecognitionStatus":"Success","NBest":{}}', "malformed speech.phrase"),
        ("phrase null", "malformed speech.phrase"),
    ],
)
async def test_a_malformed_message_is_named_and_costs_no_word(listen, frame, told):
    async with AzureSTTEmulator() as service:
        ear = await listen(service)
        await ear.hear(silence(100))
        if isinstance(frame, str) and frame.startswith(("hypothesis", "phrase")):
            kind, body = frame.split(" ", 1)
            frame = usp_text(f"speech.{kind}", body, request_id=turns(service)[0])
        await service.sockets[0].send(frame)
        await ear.utter(0)
        assert ear.finals == [SENTENCES[0]]
        [failure] = ear.failures
        assert not failure.fatal
        assert isinstance(failure.error, RemoteProtocolError)
        assert told in str(failure.error)


async def test_messages_of_other_turns_say_nothing(listen):
    async with AzureSTTEmulator() as service:
        ear = await listen(service)
        await ear.hear(silence(100))
        for path, body in (
            ("speech.hypothesis", '{"Text":"old words","Offset":0,"Duration":10}'),
            ("speech.phrase", '{"RecognitionStatus":"Success","DisplayText":"Old words."}'),
            ("speech.phrase", '{"RecognitionStatus":"Forbidden"}'),
            ("speech.endDetected", '{"Offset":0}'),
            ("turn.end", "{}"),
        ):
            await service.sockets[0].send(usp_text(path, body, request_id="f" * 32))
        await ear.utter(0)
        assert ear.finals == [SENTENCES[0]]
        assert ear.failures == []
        assert len(turns(service)) == 1


def test_the_receipts_of_a_turn_are_bounded():
    receipts = Receipts()
    for number in range(20):
        for _ in range(1100):
            receipts.add(f"kind.{number}")
    told = json.loads(receipts.telemetry())["ReceivedMessages"]
    assert len(told) == 16
    assert all(len(times) == 1000 for each in told for times in each.values())


# The emulator, driven by the official SDK.


class Driven:
    """The SDK's recogniser, in a thread, and all that it told."""

    def __init__(self, service, *, key=None, silence_ms=500, keyterms=()):
        config = sdk.SpeechConfig(subscription=key or service.api_key, endpoint=service.ws_url)
        config.speech_recognition_language = "en-US"
        config.output_format = sdk.OutputFormat.Detailed
        config.request_word_level_timestamps()
        config.set_property(sdk.PropertyId.Speech_SegmentationSilenceTimeoutMs, str(silence_ms))
        config.set_property_by_name("SPEECH-StopRecognitionTimeoutInSeconds", "1")
        mulaw = sdk.audio.AudioStreamFormat(
            samples_per_second=8000,
            bits_per_sample=8,
            channels=1,
            wave_stream_format=sdk.audio.AudioStreamWaveFormat.MULAW,
        )
        self.audio = sdk.audio.PushAudioInputStream(mulaw)
        self.recogniser = sdk.SpeechRecognizer(config, audio_config=sdk.audio.AudioConfig(stream=self.audio))
        phrases = sdk.PhraseListGrammar.from_recognizer(self.recogniser)
        for term in keyterms:
            phrases.addPhrase(term)
        self.interims, self.finals, self.cancelled = [], [], []
        self.over, self.recognised = threading.Event(), threading.Event()
        self.recogniser.recognizing.connect(lambda event: self.interims.append(event.result.text))
        self.recogniser.recognized.connect(self._final)
        self.recogniser.canceled.connect(self._cancelled)
        self.recogniser.session_stopped.connect(lambda _: self.over.set())

    def _final(self, event):
        if event.result.text:
            self.finals.append((event.result.text, event.result.offset / 10_000, event.result.duration / 10_000))
            self.recognised.set()

    def _cancelled(self, event):
        self.cancelled.append(event.cancellation_details)
        self.over.set()

    def say(self, audio, *, close=True):
        self.recogniser.start_continuous_recognition_async().get()
        self.audio.write(audio)
        if close:
            self.audio.close()
            assert self.over.wait(10)
            self.recogniser.stop_continuous_recognition_async().get()


async def test_the_sdk_transcribes_with_the_emulator():
    async with AzureSTTEmulator(sentences=["A table for two.", "Please."]) as service:
        driven = Driven(service)
        audio = silence(1000) + speech(0, 1200) + silence(900) + speech(1, 600) + silence(900)
        await asyncio.to_thread(driven.say, audio)
        assert [text for text, _, _ in driven.finals] == ["A table for two.", "Please."]
        assert driven.finals[0][1:] == (pytest.approx(1000, abs=40), pytest.approx(1200, abs=40))
        assert driven.finals[1][1:] == (pytest.approx(3100, abs=40), pytest.approx(600, abs=40))
        assert "a table" in driven.interims
        assert [details.reason for details in driven.cancelled] == [sdk.CancellationReason.EndOfStream]
        assert service.violations == []
        assert service.connections == 1


async def test_the_sdk_finds_its_words_cut_short_by_the_end_of_the_audio():
    async with AzureSTTEmulator(sentences=["a table for two"]) as service:
        driven = Driven(service)
        await asyncio.to_thread(driven.say, speech(0, 1200))
        assert [text for text, _, _ in driven.finals] == ["a table for two"]
        assert len(turns(service)) == 1  # the emulator covers all audio, so none is sent again


async def test_the_sdk_goes_on_when_the_emulator_ends_a_turn_with_each_phrase():
    async with AzureSTTEmulator(phrase_turns=True) as service:
        service.hears = hears
        driven = Driven(service)
        audio = b"".join(speech(sentence, 1200) + silence(900) for sentence in (0, 1, 2))
        await asyncio.to_thread(driven.say, audio)
        assert [text for text, _, _ in driven.finals] == SENTENCES
        assert len(turns(service)) > 2
        assert service.violations == []


async def test_the_sdk_connects_again_under_the_same_id_when_the_emulator_is_cut_off():
    async with AzureSTTEmulator() as service:
        service.hears = hears
        driven = Driven(service)
        await asyncio.to_thread(driven.say, speech(0, 1200), close=False)
        await service.until(lambda: sum(len(frame.body) for frame in messages(service, "audio")) > 8 * 1200)
        service.sockets[0].drop()
        await service.until(lambda: service.connections == 2)

        def finish():
            driven.audio.write(silence(900))
            assert driven.recognised.wait(10)
            driven.audio.close()
            assert driven.over.wait(10)
            driven.recogniser.stop_continuous_recognition_async().get()

        await asyncio.to_thread(finish)
        assert [text for text, _, _ in driven.finals] == [SENTENCES[0]]
        assert len({request.headers["X-ConnectionId"] for request in service.requests}) == 1


async def test_the_sdk_is_refused_as_by_the_service():
    async with AzureSTTEmulator() as service:
        driven = Driven(service, key="wrong")
        await asyncio.to_thread(driven.say, silence(100))
        assert driven.cancelled[0].code == sdk.CancellationErrorCode.AuthenticationFailure
        service.faults = Faults(refuse=429)
        driven = Driven(service)
        await asyncio.to_thread(driven.say, silence(100))
        assert driven.cancelled[0].code == sdk.CancellationErrorCode.TooManyRequests


async def test_we_say_what_the_sdk_says(listen):
    """Settings and the head of the audio are those of the SDK, to the byte where that matters."""
    async with AzureSTTEmulator() as ours, AzureSTTEmulator() as theirs:
        driven = Driven(theirs, silence_ms=700, keyterms=["Contoso"])
        await asyncio.to_thread(driven.say, silence(300))
        ear = await listen(ours, silence_timeout_ms=700, keyterms=["Contoso"])
        ear.say(silence(300))
        await ear.settled()
        ear.stt._end_audio()
        await ours.until(lambda: len(turns(ours)) == 2)
        assert ours.contexts[0] == theirs.contexts[0]
        [our_request], [their_request] = ours.requests, theirs.requests
        assert our_request.path == their_request.path
        for name in ("Ocp-Apim-Subscription-Key", "Sec-WebSocket-Protocol"):
            assert our_request.headers[name] == their_request.headers[name]
        [(our_head, *_), (their_head, *_)] = messages(ours, "audio"), messages(theirs, "audio")
        assert our_head.body == their_head.body
        assert our_head.headers.keys() == their_head.headers.keys()
        our_end, their_end = (
            next(frame for frame in messages(each, "audio") if not frame.body) for each in (ours, theirs)
        )
        assert our_end.headers.keys() == their_end.headers.keys()
        our_config, their_config = (
            json.loads(messages(each, "speech.config")[0].body)["context"] for each in (ours, theirs)
        )
        for part in ("system", "os"):
            assert our_config[part].keys() == their_config[part].keys()
        assert our_config["audio"]["source"].items() <= their_config["audio"]["source"].items()
        await theirs.until(lambda: len(theirs.telemetry) >= 2)  # it tells of the connection in one of its own
        [our_told] = ours.telemetry
        [their_connection] = [
            each for told in theirs.telemetry for each in told.get("Metrics", ()) if each.get("Name") == "Connection"
        ]
        assert our_told["Metrics"][0].keys() == their_connection.keys()
        their_receipts = [each for told in theirs.telemetry for each in told.get("ReceivedMessages", [])]
        assert {name for each in their_receipts for name in each} <= {
            name for each in our_told["ReceivedMessages"] for name in each
        }

"""Deepgram Flux: what is particular to it, and its emulator against the official SDK."""

from __future__ import annotations

import asyncio
import json
import logging

import pytest
from deepgram import AsyncDeepgramClient
from deepgram.environment import DeepgramClientEnvironment
from stt_providers import PROVIDERS, SENTENCES, Ear, silence, speech

from dialog.errors import ConfigurationError
from dialog.message import ALAW_8K, MULAW_8K, PCM_16K
from dialog.stt import streaming
from dialog.stt.flux import DEFAULT_MODEL, DeepgramFluxSTT
from dialog.testing.flux import FluxEmulator

# deepgram-sdk imports names that websockets has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:.*websockets.*:DeprecationWarning")

[FLUX] = [provider for provider in PROVIDERS if provider.name == "flux"]


@pytest.fixture
async def listen():
    ears = []

    async def make(emulator, **options):
        ear = Ear(FLUX, emulator, **options)
        ears.append(ear)
        ear.stt.open(MULAW_8K)
        await ear.connected()
        return ear

    yield make
    for ear in ears:
        ear.stt.dispose()
        await ear.stt.wait_disposed()


def asked(emulator):
    request = emulator.requests[0]
    assert request.path == "/v2/listen"
    return {name: request.values(name) for name, _ in request.query}


async def test_the_handshake_says_what_was_asked_for(listen):
    async with FluxEmulator() as flux:
        await listen(flux, keyterms=["Luigi's", "pane e coperto"], options={"tag": "x"}, query={"proxy": 1})
        assert flux.requests[0].headers["Authorization"] == f"Token {flux.api_key}"
        assert asked(flux) == {
            "model": ["flux-general-en"],
            "encoding": ["mulaw"],
            "sample_rate": ["8000"],
            "eot_threshold": ["0.7"],
            "eager_eot_threshold": ["0.5"],
            "eot_timeout_ms": ["5000"],
            "keyterm": ["Luigi's", "pane e coperto"],
            "tag": ["x"],
            "proxy": ["1"],
        }


async def test_several_languages_need_the_model_for_them(listen):
    async with FluxEmulator() as flux:
        await listen(flux, model="flux-general-multi", language=["es", "en"], eager_eot_threshold=None)
        assert asked(flux)["language_hint"] == ["es", "en"]
        assert "eager_eot_threshold" not in asked(flux)
    with pytest.raises(ConfigurationError, match="flux-general-multi"):
        DeepgramFluxSTT(api_key="k", language="es")
    assert "language_hint" not in DeepgramFluxSTT(api_key="k", language="en-US").url_for(MULAW_8K)


@pytest.mark.parametrize(
    "settings",
    [
        {"eot_threshold": 0.4},
        {"eot_threshold": 1.1},
        {"eot_timeout_ms": 499},
        {"eager_eot_threshold": 0.2},
        {"eager_eot_threshold": 0.8},
    ],
)
def test_settings_out_of_their_range_are_named(settings):
    with pytest.raises(ConfigurationError, match="threshold"):
        DeepgramFluxSTT(api_key="k", **settings)


def test_the_defaults_are_as_documented():
    assert DEFAULT_MODEL == "flux-general-en"
    assert DeepgramFluxSTT(api_key="k")._base_url == "wss://api.deepgram.com"
    assert DeepgramFluxSTT.capabilities.eager
    assert not DeepgramFluxSTT.capabilities.manual_turns


async def test_words_carry_times_if_the_service_tells_them(listen):
    async with FluxEmulator(word_times=True) as flux:
        ear = await listen(flux)
        await ear.hear(silence(400))
        await ear.utter(0)
        [final] = ear.told("message")
        assert [word.text for word in final.words] == SENTENCES[0].split()
        assert final.words[0].start_ms == pytest.approx(400, abs=30)
        assert final.end_ms == pytest.approx(1600, abs=30)
        assert final.confidence == pytest.approx(0.95)
    async with FluxEmulator() as flux:
        ear = await listen(flux)
        await ear.utter(0)
        assert ear.told("message")[0].words == ()  # guesses are not told


async def test_without_early_ends_there_are_none(listen):
    async with FluxEmulator() as flux:
        ear = await listen(flux, eager_eot_threshold=None)
        await ear.utter(0)
        assert ear.told("eager") == []
        assert ear.finals == [SENTENCES[0]]


async def test_an_error_of_the_service_is_told_once_and_the_next_connection_goes_on(listen):
    async with FluxEmulator() as flux:
        ear = await listen(flux)
        await ear.hear(speech(0, 600))
        error = {"type": "Error", "sequence_id": 9, "code": "INTERNAL_SERVER_ERROR", "description": "oh dear"}
        await flux.sockets[0].send(error)
        await flux.sockets[0].close(1011)
        await ear.connected(2)
        await ear.hear(speech(0, 600) + silence(900))
        await ear.until(lambda: ear.finals)
        assert ear.finals == [SENTENCES[0]]
        [failure] = ear.failures
        assert not failure.fatal
        assert "INTERNAL_SERVER_ERROR: oh dear" in str(failure.error)


async def test_a_warning_is_logged(listen, caplog):
    async with FluxEmulator() as flux:
        ear = await listen(flux)
        await ear.hear(silence(100))
        with caplog.at_level(logging.WARNING, "dialog.stt.flux"):
            await flux.sockets[0].send({"type": "Warning", "code": "SLOW", "description": "audio is late"})
            await ear.utter(0)
        assert "SLOW: audio is late" in caplog.text
        assert ear.failures == []


async def test_what_is_told_about_a_turn_that_is_over_is_ignored(listen):
    async with FluxEmulator() as flux:
        ear = await listen(flux)
        await ear.utter(0)
        late = next(frame.json() for frame in flux.frames if frame.sent and '"EagerEndOfTurn"' in str(frame.data))
        told = len(ear.events)
        await flux.sockets[0].send(late)
        await ear.hear(silence(100))
        assert len(ear.events) == told


async def test_a_turn_in_which_audio_stops_is_ended_with_silence(listen, monkeypatch):
    """The service never ends it by itself."""
    monkeypatch.setattr(streaming, "_TICK_S", 0.02)
    async with FluxEmulator() as flux:
        ear = await listen(flux)
        await ear.hear(speech(0, 1500))
        await ear.until(lambda: ear.finals)
        assert ear.finals == [SENTENCES[0]]
        padded = ear.heard_ms(0)
        assert padded >= 1500 + 400
        # The call's clock has not moved on, and what comes now is where the caller says it is.
        await ear.utter(1)
        first, second = ear.told("message")
        assert 1500 <= second.at_ms <= 1900
        assert first.uuid != second.uuid


async def test_a_turn_that_no_silence_ends_is_ended_by_us(listen, monkeypatch):
    monkeypatch.setattr(streaming, "_TICK_S", 0.01)
    monkeypatch.setattr(streaming, "_LONGEST_SILENCE_S", 0.2)
    async with FluxEmulator(end_s=60.0) as flux:
        ear = await listen(flux)
        await ear.hear(speech(0, 1500))
        await ear.until(lambda: ear.finals)
        assert ear.finals == [SENTENCES[0]]


async def test_goodbye_is_said_and_a_close_without_a_code_is_one(listen):
    async with FluxEmulator() as flux:
        ear = await listen(flux)
        await ear.hear(silence(100))
        ear.stt.dispose()
        async with asyncio.timeout(0.9):  # not cut after a second
            await ear.stt.wait_disposed()
        assert json.loads(flux.received(str)[-1].data) == {"type": "CloseStream"}


# The emulator speaks the real protocol: the official SDK says so.


def sdk(flux, key=None):
    environment = DeepgramClientEnvironment(
        base=flux.url, production=flux.ws_url, agent=flux.ws_url, agent_rest=flux.url
    )
    return AsyncDeepgramClient(api_key=key or flux.api_key, environment=environment).listen.v2


SETTINGS = {"model": "flux-general-en", "encoding": "mulaw", "sample_rate": 8000, "eager_eot_threshold": 0.4}


async def test_the_sdk_hears_the_emulator():
    async with FluxEmulator(sentences=["my number is | five five five"]) as flux, asyncio.timeout(10):
        async with sdk(flux).connect(**SETTINGS) as connection:
            audio = speech(0, 1000) + silence(300) + speech(0, 1000) + silence(800)
            for at in range(0, len(audio), 640):
                await connection.send_media(audio[at : at + 640])
            seen = []
            while not seen or getattr(seen[-1], "event", "") != "EndOfTurn":
                seen.append(await connection.recv())
        assert seen[0].type == "Connected"
        turns = [message for message in seen if message.type == "TurnInfo"]
        told = [turn.event for turn in turns if turn.transcript and turn.event != "Update"]
        assert told == ["StartOfTurn", "EagerEndOfTurn", "TurnResumed", "EagerEndOfTurn", "EndOfTurn"]
        assert turns[-1].transcript == "my number is five five five"
        early = [turn for turn in turns if turn.event == "EagerEndOfTurn"][-1]
        assert early.transcript == turns[-1].transcript
        numbers = [message.sequence_id for message in seen]
        assert numbers == sorted(set(numbers))


async def test_the_sdk_is_refused_with_a_wrong_key():
    from deepgram.core.api_error import ApiError

    async with FluxEmulator() as flux:
        with pytest.raises(ApiError) as refused:
            async with sdk(flux, "wrong").connect(**SETTINGS):
                pass
        assert refused.value.status_code == 401


async def test_the_emulator_rejects_what_the_service_rejects():
    import aiohttp

    async with FluxEmulator() as flux, aiohttp.ClientSession() as http:
        headers = {"Authorization": f"Token {flux.api_key}"}
        good = "?model=flux-general-en&encoding=mulaw&sample_rate=8000"
        for query in (
            "?model=nova-3&encoding=mulaw&sample_rate=8000",
            good + "&interim_results=true",
            good + "&eot_threshold=0.2",
            "?model=flux-general-en&encoding=mulaw",
        ):
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                await http.ws_connect(flux.ws_url + "/v2/listen" + query, headers=headers)
            assert refused.value.status == 400
        for command in ('{"type":"KeepAlive"}', '{"type":"Finalize"}', "what?"):
            async with http.ws_connect(flux.ws_url + "/v2/listen" + good, headers=headers) as ws:
                assert (await ws.receive_json())["type"] == "Connected"
                await ws.send_str(command)
                assert (await ws.receive_json())["code"] == "UNPARSABLE_CLIENT_MESSAGE"
                assert (await ws.receive()).type == aiohttp.WSMsgType.CLOSE
        async with http.ws_connect(flux.ws_url + "/v2/listen" + good, headers=headers) as ws:
            await ws.receive_json()
            await ws.send_json({"type": "Configure", "keyterms": ["tiramisu"]})
            assert (await ws.receive_json())["keyterms"] == ["tiramisu"]


@pytest.mark.parametrize(("audio_format", "encoding"), [(ALAW_8K, "alaw"), (PCM_16K, "linear16")])
def test_other_formats_are_named_to_the_service(audio_format, encoding):
    url = DeepgramFluxSTT(api_key="k").url_for(audio_format)
    assert f"encoding={encoding}&sample_rate={audio_format.sample_rate}" in url

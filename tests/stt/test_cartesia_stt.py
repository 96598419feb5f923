"""Cartesia Ink: what is particular to it, and its emulator against the official SDK."""

from __future__ import annotations

import asyncio

import pytest
from cartesia import AsyncCartesia
from stt_providers import PROVIDERS, SENTENCES, Ear, silence, speech

from dialog.errors import AuthenticationError, ProviderError
from dialog.message import MULAW_8K, PCM_16K
from dialog.stt import streaming
from dialog.stt.cartesia import API_VERSION, DEFAULT_LANGUAGE, DEFAULT_MODEL, CartesiaSTT
from dialog.testing.cartesia_stt import CartesiaSTTEmulator

TURNS, MANUAL = (next(p for p in PROVIDERS if p.name == name) for name in ("cartesia", "cartesia-manual"))


@pytest.fixture
async def listen():
    ears = []

    async def make(emulator, provider=TURNS, **options):
        ear = Ear(provider, emulator, **options)
        ears.append(ear)
        ear.stt.open(MULAW_8K)
        await ear.connected()
        return ear

    yield make
    for ear in ears:
        ear.stt.dispose()
        await ear.stt.wait_disposed()


@pytest.mark.parametrize(
    ("provider", "path", "language"),
    [(TURNS, "/stt/turns/websocket", []), (MANUAL, "/stt/websocket", ["en"])],
    ids=str,
)
async def test_the_handshake_says_what_was_asked_for(listen, provider, path, language):
    async with CartesiaSTTEmulator() as cartesia:
        await listen(
            cartesia,
            provider,
            keyterms=["pane e coperto", "Luigi"],
            options={"turn_end_timeout_ms": 3000},
            query={"p": 1},
        )
        request = cartesia.requests[0]
        assert request.path == path
        assert request.headers["X-API-Key"] == cartesia.api_key
        assert request.headers["Cartesia-Version"] == API_VERSION
        assert request.values("model") == ["ink-2"]
        assert request.values("language") == language
        assert request.values("encoding") == ["pcm_mulaw"]
        assert request.values("sample_rate") == ["8000"]
        assert request.values("keyterm") == ["pane e coperto", "Luigi"]
        assert request.values("turn_end_timeout_ms") == ["3000"]
        assert request.values("p") == ["1"]


def test_the_defaults_are_as_documented():
    assert (DEFAULT_MODEL, DEFAULT_LANGUAGE, API_VERSION) == ("ink-2", "en", "2026-08-14")
    stt = CartesiaSTT(api_key="k", keyterms=["a b"])
    assert stt._base_url == "wss://api.cartesia.ai"
    url = stt.url_for(PCM_16K)
    assert "keyterm=a%20b" in url  # not a plus
    assert "encoding=pcm_s16le&sample_rate=16000" in url


async def test_speech_is_told_before_its_first_word(listen):
    async with CartesiaSTTEmulator() as cartesia:
        ear = await listen(cartesia)
        await ear.hear(silence(300) + speech(0, 200))
        assert [(name, edge.state) for name, edge in ear.events] == [("vad", "started")]
        assert ear.told("vad")[0].at_ms == pytest.approx(400, abs=100)


async def test_manual_text_is_continued_as_it_is(listen):
    async with CartesiaSTTEmulator() as cartesia:
        ear = await listen(cartesia, MANUAL)
        await ear.hear(speech(0, 200))
        socket = cartesia.sockets[0]
        for text, final in (("Tab", True), ("le", False), ("le for", True), (" two", True)):
            await socket.send({"type": "transcript", "text": text, "is_final": final, "language": "en"})
        await socket.send({"type": "flush_done"})
        await ear.until(lambda: ear.finals)
        assert ear.finals == ["Table for two"]
        assert [utterance.data for utterance in ear.told("interim")] == ["Tab", "Table", "Table for", "Table for two"]


async def test_manual_words_have_times(listen):
    async with CartesiaSTTEmulator() as cartesia:
        ear = await listen(cartesia, MANUAL)
        ear.at_ms = 1000.0
        await ear.hear(silence(500))
        await ear.utter(0, 1600)
        [final] = ear.told("message")
        assert [word.text for word in final.words] == SENTENCES[0].split()
        assert final.words[0].start_ms == pytest.approx(1500, abs=40)
        assert 2600 <= final.end_ms <= 3140  # the last word is believed to be over before it is
        assert final.language is None or final.language == "en"


async def test_manual_turns_last_until_somebody_ends_them(listen):
    async with CartesiaSTTEmulator() as cartesia:
        ear = await listen(cartesia, MANUAL)
        await ear.hear(speech(0, 1500) + silence(5000))
        assert ear.finals == []
        ear.stt.finalize()
        await ear.until(lambda: ear.finals)
        assert cartesia.received(str)[0].data == "finalize"
        ear.stt.dispose()
        await ear.stt.wait_disposed()
        assert cartesia.received(str)[-1].data == "close"


async def test_a_finalize_without_an_answer_ends_it_too(listen):
    async with CartesiaSTTEmulator(answer_finalize=False) as cartesia:
        ear = await listen(cartesia, MANUAL, timeout_s=0.05)
        await ear.hear(speech(0, 1800))
        ear.stt.finalize()
        await ear.until(lambda: ear.finals)
        assert ear.finals == [SENTENCES[0]]


@pytest.mark.parametrize(
    ("status", "error", "fatal"),
    [(401, AuthenticationError, True), (400, ProviderError, True), (503, ProviderError, False)],
)
async def test_errors_of_the_service_are_told_once(listen, status, error, fatal):
    async with CartesiaSTTEmulator() as cartesia:
        ear = await listen(cartesia)
        await ear.hear(silence(100))
        await cartesia.sockets[0].send(cartesia.error(status, "Went wrong"))
        await ear.until(lambda: ear.failures)
        if not fatal:
            await ear.connected(2)
            await ear.utter(0)
            assert ear.finals == [SENTENCES[0]]
        [failure] = ear.failures
        assert failure.fatal == fatal
        assert isinstance(failure.error, error)
        assert f"{status} went_wrong" in str(failure.error)


async def test_an_end_without_a_turn_is_named_and_ignored(listen):
    async with CartesiaSTTEmulator() as cartesia:
        ear = await listen(cartesia)
        await ear.utter(0)
        told = len(ear.events)
        for _ in range(2):
            await cartesia.sockets[0].send({"type": "turn.end", "transcript": SENTENCES[0]})
        await ear.hear(silence(100))
        assert [event for event, _ in ear.events[told:]] == ["error"]


async def test_an_idle_connection_is_kept_with_a_little_silence(listen, monkeypatch):
    monkeypatch.setattr(streaming, "_TICK_S", 0.02)
    monkeypatch.setattr(CartesiaSTT, "idle_silence_s", 0.1)
    async with CartesiaSTTEmulator() as cartesia:
        ear = await listen(cartesia, MANUAL)
        await cartesia.until(lambda: len(cartesia.received(bytes)) >= 2)
        assert all(frame.data == MULAW_8K.silence(20) for frame in cartesia.received(bytes))
        frames = len(cartesia.received(bytes))
        assert frames < 20
        ear.at_ms = 50_000.0
        await ear.utter(0, 1600)  # its times are true all the same
        assert ear.told("message")[0].at_ms == pytest.approx(50_000, abs=40)


# The emulator speaks the real protocol: the official SDK says so.


def sdk(cartesia):
    return AsyncCartesia(api_key=cartesia.api_key, base_url=cartesia.url).stt


async def test_the_sdk_hears_turns():
    async with CartesiaSTTEmulator(sentences=["my number is | five five five"]) as cartesia, asyncio.timeout(10):
        connecting = sdk(cartesia).auto_finalize.websocket(model="ink-2", encoding="pcm_mulaw", sample_rate=8000)
        async with connecting as connection:
            audio = speech(0, 1000) + silence(300) + speech(0, 1000) + silence(800)
            for at in range(0, len(audio), 800):
                await connection.send_raw(audio[at : at + 800])
            seen = []
            while not seen or seen[-1].type != "turn.end":
                seen.append(await connection.recv())
            await connection.send({"type": "close"})
        kinds = [event.type for event in seen if event.type != "turn.update"]
        assert kinds == ["connected", "turn.start", "turn.eager_end", "turn.resume", "turn.eager_end", "turn.end"]
        assert seen[-1].transcript == "my number is five five five"


async def test_the_sdk_hears_manual_transcripts():
    async with CartesiaSTTEmulator(sentences=["a table for two please"]) as cartesia, asyncio.timeout(10):
        connecting = sdk(cartesia).manual_finalize.websocket(model="ink-2", encoding="pcm_mulaw", sample_rate=8000)
        async with connecting as connection:
            audio = speech(0, 1800)
            for at in range(0, len(audio), 800):
                await connection.send_raw(audio[at : at + 800])
            await connection.send("finalize")
            seen = []
            while not seen or seen[-1].type != "flush_done":
                seen.append(await connection.recv())
            await connection.send("close")
            while seen[-1].type != "done":
                seen.append(await connection.recv())
        finals = [event.text for event in seen if event.type == "transcript" and event.is_final]
        assert "".join(finals) == "a table for two please"


async def test_the_emulator_rejects_what_the_service_rejects():
    import aiohttp

    async with CartesiaSTTEmulator() as cartesia, aiohttp.ClientSession() as http:
        headers = {"X-API-Key": cartesia.api_key, "Cartesia-Version": API_VERSION}
        good = "?model=ink-2&encoding=pcm_mulaw&sample_rate=8000"
        for query, extra, status in (
            ("?model=ink-2&encoding=mulaw&sample_rate=8000", headers, 400),
            ("?model=nova-3&encoding=pcm_mulaw&sample_rate=8000", headers, 400),
            (good, {"X-API-Key": cartesia.api_key}, 400),
            (good, {"X-API-Key": "wrong", "Cartesia-Version": API_VERSION}, 401),
        ):
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                await http.ws_connect(cartesia.ws_url + "/stt/websocket" + query, headers=extra)
            assert refused.value.status == status
        for path, command in (("/stt/websocket", '{"type":"close"}'), ("/stt/turns/websocket", "finalize")):
            async with http.ws_connect(cartesia.ws_url + path + good, headers=headers) as ws:
                await ws.send_str(command)
                message = await ws.receive_json()
                if message["type"] == "connected":
                    message = await ws.receive_json()
                assert message["status_code"] == 400

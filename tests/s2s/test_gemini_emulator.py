"""The emulator of Gemini Live speaks the real protocol: the official SDK drives it."""

from __future__ import annotations

import asyncio
import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import aiohttp
import pytest
from google import genai
from google.genai import errors, types
from s2s_providers import silence, speech, wide
from websockets.exceptions import ConnectionClosed

from dialog.testing.gemini import GeminiLiveEmulator
from dialog.testing.model import ToolUse
from dialog.testing.s2s import RealtimeReply

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate")

MODEL = "gemini-3.8-live"
STORY = "Once upon a time there was a table by the window, and nobody sat at it for a very long time."


@pytest.fixture(scope="module")
def certificate(tmp_path_factory) -> tuple[Path, Path]:
    """The SDK speaks nothing but TLS."""
    folder = tmp_path_factory.mktemp("tls")
    cert, key = folder / "cert.pem", folder / "key.pem"
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", *subject]
    subprocess.run([*command, "-keyout", key, "-out", cert], check=True, capture_output=True)
    return cert, key


async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    writer.close()


@asynccontextmanager
async def over_tls(emulator: GeminiLiveEmulator, certificate: tuple[Path, Path]) -> AsyncIterator[genai.Client]:
    """The SDK's client of the emulator, with TLS between them."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ours = await asyncio.open_connection("127.0.0.1", int(emulator.url.rpartition(":")[2]))
        await asyncio.gather(carry(reader, ours[1]), carry(ours[0], writer))

    server = await asyncio.start_server(relay, "127.0.0.1", 0, ssl=context)
    port = server.sockets[0].getsockname()[1]
    trust = ssl.create_default_context(cafile=certificate[0])
    options = types.HttpOptions(base_url=f"https://127.0.0.1:{port}", async_client_args={"ssl": trust})
    client = genai.Client(api_key=emulator.api_key, http_options=options)
    try:
        yield client
    finally:
        await client.aio.aclose()
        server.close()


def config(**more) -> types.LiveConnectConfig:
    return types.LiveConnectConfig(
        response_modalities=[types.Modality.AUDIO],
        system_instruction="Be brief.",
        speech_config=types.SpeechConfig(
            voice_config=types.VoiceConfig(prebuilt_voice_config=types.PrebuiltVoiceConfig(voice_name="Puck"))
        ),
        input_audio_transcription=types.AudioTranscriptionConfig(),
        output_audio_transcription=types.AudioTranscriptionConfig(),
        session_resumption=types.SessionResumptionConfig(handle=more.pop("handle", None)),
        context_window_compression=types.ContextWindowCompressionConfig(sliding_window=types.SlidingWindow()),
        **more,
    )


async def talk(session, audio: bytes) -> None:
    for at in range(0, len(audio), 800):
        blob = types.Blob(data=wide(audio[at : at + 800]), mime_type="audio/pcm;rate=16000")
        await session.send_realtime_input(audio=blob)


async def turn(session) -> list[types.LiveServerMessage]:
    """What comes until the model's turn is complete."""
    async with asyncio.timeout(5):
        return [message async for message in session.receive()]


def contents(messages) -> list[types.LiveServerContent]:
    return [message.server_content for message in messages if message.server_content is not None]


def words(messages) -> str:
    return "".join(each.output_transcription.text for each in contents(messages) if each.output_transcription)


async def test_the_sdk_holds_a_conversation(certificate) -> None:
    async with (
        GeminiLiveEmulator(sentences=["a table for two"]) as emulator,
        over_tls(emulator, certificate) as client,
        client.aio.live.connect(model=MODEL, config=config()) as session,
    ):
        assert session.session_id
        await talk(session, silence(300) + speech(900) + silence(900))
        messages = await turn(session)
        said = "".join(each.input_transcription.text for each in contents(messages) if each.input_transcription)
        assert said == "a table for two"
        assert words(messages) == "You said: a table for two"
        audio = b"".join(message.data or b"" for message in messages)
        assert len(audio) == len("You said: a table for two") * 40 * 48
        assert contents(messages)[-2].generation_complete
        assert contents(messages)[-1].turn_complete
        usage = messages[-1].usage_metadata
        assert usage is not None
        assert usage.response_tokens_details[0].modality == types.MediaModality.AUDIO
        assert usage.thoughts_token_count == 7
        assert emulator.sessions[0].instructions == "Be brief."
        assert emulator.violations == []


async def test_the_sdk_uses_tools(certificate) -> None:
    def answer(items) -> RealtimeReply:
        done = any(item.kind == "function_call_output" for item in items)
        return RealtimeReply(text="It is booked.") if done else RealtimeReply(tools=(ToolUse("book", {"people": 2}),))

    tool = types.Tool(function_declarations=[types.FunctionDeclaration(name="book", description="Book.")])
    async with (
        GeminiLiveEmulator(replies=answer) as emulator,
        over_tls(emulator, certificate) as client,
        client.aio.live.connect(model=MODEL, config=config(tools=[tool])) as session,
    ):
        await session.send_client_content(turns=types.Content(role="user", parts=[types.Part(text="book it")]))
        async with asyncio.timeout(5):
            async for message in session.receive():
                if message.tool_call is not None:
                    [call] = message.tool_call.function_calls
                    assert (call.name, call.args) == ("book", {"people": 2})
                    response = types.FunctionResponse(id=call.id, name=call.name, response={"output": "ok"})
                    await session.send_tool_response(function_responses=response)
                if message.server_content is not None and message.server_content.turn_complete:
                    break
        assert emulator.conversation[-1] == ("assistant", "It is booked.")
        assert [tool["name"] for tool in emulator.sessions[0].tools] == ["book"]
        assert emulator.violations == []


async def test_the_sdk_is_interrupted_by_speech_and_by_what_it_sends(certificate) -> None:
    async with (
        GeminiLiveEmulator(replies=lambda _: RealtimeReply(text=STORY), chunk_s=0.05) as emulator,
        over_tls(emulator, certificate) as client,
        client.aio.live.connect(model=MODEL, config=config()) as session,
    ):
        await session.send_realtime_input(text="a story")
        await emulator.until(lambda: "inlineData" in str(emulator.frames[-1].data))
        await talk(session, speech(300))
        messages = await turn(session)
        assert contents(messages)[-2].interrupted
        assert not any(each.generation_complete for each in contents(messages))
        await talk(session, silence(1000))
        await emulator.until(lambda: "inlineData" in str(emulator.frames[-1].data))
        emulator.replies = None
        await session.send_client_content(turns={"role": "user", "parts": [{"text": "stop"}]}, turn_complete=True)
        assert contents(await turn(session))[-2].interrupted
        assert words(await turn(session)) == "You said: stop"


async def test_the_sdk_tells_itself_when_the_caller_speaks_and_is_not_interrupted(certificate) -> None:
    manual = types.RealtimeInputConfig(
        automatic_activity_detection=types.AutomaticActivityDetection(disabled=True),
        activity_handling=types.ActivityHandling.NO_INTERRUPTION,
    )
    async with (
        GeminiLiveEmulator(sentences=["one", "two"], chunk_s=0.05) as emulator,
        over_tls(emulator, certificate) as client,
        client.aio.live.connect(model=MODEL, config=config(realtime_input_config=manual)) as session,
    ):
        for _ in range(2):
            await session.send_realtime_input(activity_start=types.ActivityStart())
            await talk(session, speech(500) + silence(200))
            await session.send_realtime_input(activity_end=types.ActivityEnd())
        assert [words(await turn(session)) for _ in range(2)][-1] == "You said: two"
        assert emulator.violations == []


async def test_the_sdk_resumes_a_session_and_is_told_of_its_end(certificate) -> None:
    history = types.HistoryConfig(initial_history_in_client_content=True)
    async with GeminiLiveEmulator() as emulator, over_tls(emulator, certificate) as client:
        async with client.aio.live.connect(model=MODEL, config=config(history_config=history)) as session:
            turns = [{"role": role, "parts": [{"text": role}]} for role in ("user", "model")]
            await session.send_client_content(turns=turns, turn_complete=True)
            await session.send_realtime_input(text="go on")
            await turn(session)
            assert [text for _, text in emulator.conversation] == ["user", "model", "go on", "You said: go on"]
            await emulator.go_away(9.5)
            async with asyncio.timeout(5):
                update, going = [await anext(aiter(session.receive())) for _ in range(2)]
            assert update.session_resumption_update.resumable
            assert going.go_away.time_left == "9.5s"
        handle = update.session_resumption_update.new_handle
        async with client.aio.live.connect(model=MODEL, config=config(handle=handle)) as session:
            await session.send_client_content(turns={"role": "user", "parts": [{"text": "again"}]})
            assert words(await turn(session)) == "You said: again"
            assert len(emulator.conversation) == 6
        assert emulator.violations == []


async def test_the_sdk_is_refused_by_a_close_that_says_why(certificate) -> None:
    async with GeminiLiveEmulator() as emulator, over_tls(emulator, certificate) as client:
        for model, handle, code, reason in (
            ("gemini-9-live", None, 1008, "is not found"),
            (MODEL, "nobody's", 1007, "session not found"),
        ):
            with pytest.raises(errors.APIError, match=reason) as raised:
                async with client.aio.live.connect(model=model, config=config(handle=handle)):
                    pass
            assert raised.value.code == code
        emulator.api_key = "another"
        with pytest.raises((errors.APIError, ConnectionClosed), match="API key not valid"):
            async with client.aio.live.connect(model=MODEL, config=config()):
                pass


@pytest.mark.parametrize(
    ("query", "code"), [("?key=gemini-test-key", None), ("?key=wrong", 1007), ("", 1008)], ids=["key", "wrong", "none"]
)
async def test_the_key_may_be_in_the_query(query, code) -> None:
    path = "/ws/google.ai.generativelanguage.v1beta.GenerativeService.BidiGenerateContent"
    async with (
        GeminiLiveEmulator() as emulator,
        aiohttp.ClientSession() as http,
        http.ws_connect(emulator.url + path + query) as ws,
    ):
        with suppress(ConnectionError):
            await ws.send_json({"setup": {"model": MODEL, "generation_config": {"response_modalities": ["AUDIO"]}}})
        message = await ws.receive(5)
        if code is None:
            assert message.type is aiohttp.WSMsgType.BINARY
            assert b"setupComplete" in message.data
        else:
            assert ws.close_code == code


@pytest.mark.parametrize(
    "message",
    [
        {"realtimeInput": {"audio": {"data": "", "mimeType": "audio/pcm;rate=16000"}}},
        {"setup": {"model": MODEL, "generationConfig": {"responseModalities": ["AUDIO"]}, "voice": "Kore"}},
        {"setup": {"model": MODEL, "generationConfig": {"responseModalities": ["TEXT"]}}},
        {"setup": {}, "realtimeInput": {}},
    ],
    ids=["too early", "unknown field", "modality", "two at once"],
)
async def test_what_the_service_does_not_take_costs_the_connection(message) -> None:
    path = "/ws/google.ai.generativelanguage.v1beta.GenerativeService.BidiGenerateContent"
    async with (
        GeminiLiveEmulator() as emulator,
        aiohttp.ClientSession() as http,
        http.ws_connect(emulator.url + path, headers={"x-goog-api-key": emulator.api_key}) as ws,
    ):
        await ws.send_json(message)
        await ws.receive(5)
        assert ws.close_code == 1007
        assert len(emulator.violations) == 1

"""``python -m dialog serve`` from outside: from a file, from the environment alone, and with --reload."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from ports import free_port

from dialog.testing import OpenAIRealtimeEmulator, RealtimeReply, WebCaller
from dialog.testing.caller import Caller
from dialog.voip.web.messages import AgentTranscript

ROOT = Path(__file__).parents[2]
TOKEN = "auth-token-of-the-test"
ACCOUNT = "AC" + "0" * 32

APP = f"""
from dialog.server.config import ApiSettings, ApiToken, ServiceConfig, TwilioTenant
from dialog.sessions.config import AgentConfig
from dialog.testing import HummingTTS, ScriptedLLM, ToldSTT

config = ServiceConfig(
    assistants={{"desk": AgentConfig(stt=ToldSTT, tts=HummingTTS, llm=lambda: ScriptedLLM([]), greeting="GREETING")}},
    tenants={{"main": TwilioTenant(account_sid="{ACCOUNT}", auth_token="{TOKEN}", base_url="http://127.0.0.1:9")}},
    api=ApiSettings(tokens=(ApiToken(name="tests", token="a-token-of-the-tests"),)),
)
number = 17
"""


@asynccontextmanager
async def command(directory: Path, *arguments: str, env: dict[str, str] | None = None) -> AsyncIterator[tuple]:
    """The command, once it says where it takes calls: the process, and its address."""
    port = free_port()
    process = await asyncio.create_subprocess_exec(
        *[sys.executable, "-m", "dialog", "serve", *arguments],
        cwd=directory,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", "HOST_NAME": "127.0.0.1"}
        | {"PORT": str(port)}
        | (env or {}),
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        await line_with(process, b"takes calls")
        yield process, f"http://127.0.0.1:{port}"
    finally:
        if process.returncode is None:
            process.terminate()
        try:
            async with asyncio.timeout(15):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()


async def line_with(process, word: bytes) -> None:
    async with asyncio.timeout(30):
        while word not in (line := await process.stdout.readline()):
            assert line or not process.stdout.at_eof(), "the command has ended"


async def test_a_service_of_a_file_takes_calls_and_serves_probes_metrics_and_the_api(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(APP)
    async with command(tmp_path, "app:config", "--leave-s", "0") as (process, url), aiohttp.ClientSession() as session:
        for path in ("/", "/health", "/ready", "/metrics", "/openapi.json"):
            async with session.get(url + path) as response:
                assert response.status == 200, path
        async with Caller.dial(f"{url}/twilio/voice", auth_token=TOKEN, account_sid=ACCOUNT) as caller:
            await caller.wait_for_speech()
            headers = {"Authorization": "Bearer a-token-of-the-tests"}
            async with session.get(f"{url}/v1/calls", headers=headers) as response:
                (call,) = (await response.json())["calls"]
            assert call["state"] == "live"
            async with session.get(f"{url}/metrics") as response:
                assert "dialog_calls" in await response.text()
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(15):
            assert await process.wait() == 0


async def test_several_processes_serve_one_service(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(APP)
    arguments = ("app:config", "--processes", "2", "--leave-s", "0", "--log-level", "warning")
    headers = {"Authorization": "Bearer a-token-of-the-tests"}
    async with command(tmp_path, *arguments) as (process, url), aiohttp.ClientSession() as session:
        async with Caller.dial(f"{url}/twilio/voice", auth_token=TOKEN, account_sid=ACCOUNT) as caller:
            await caller.wait_for_speech()
            for _ in range(8):  # each of a new connection, which the kernel gives to either process
                async with session.get(f"{url}/v1/calls", headers={**headers, "Connection": "close"}) as response:
                    (call,) = (await response.json())["calls"]
                assert call["state"] == "live"
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(15):
            assert await process.wait() == 0


async def test_the_environment_alone_makes_a_service(tmp_path: Path) -> None:
    async with OpenAIRealtimeEmulator(
        replies=lambda _: RealtimeReply(text="Hello from here."), api_key="o-key"
    ) as model:
        env = {
            "TWILIO_ACCOUNT_SID": ACCOUNT,
            "TWILIO_AUTH_TOKEN": TOKEN,
            "TWILIO_BASE_URL": "http://127.0.0.1:9",
            "OPENAI_API_KEY": "o-key",
            "REALTIME_BASE_URL": model.base_url,
            "TWILIO_INSTRUCTIONS": "Be kind.",
            "TWILIO_INITIAL_GREETING": "Hello.",
            "TWILIO_VOICE_WEBHOOK_PATH": "/in",
            "DIALOG_API_TOKEN": "a-token-of-the-tests",
        }
        async with command(tmp_path, env=env) as (_, url), aiohttp.ClientSession() as session:
            async with Caller.dial(f"{url}/in", auth_token=TOKEN, account_sid=ACCOUNT) as caller:
                await caller.wait_for_speech()
            headers = {"Authorization": "Bearer a-token-of-the-tests"}
            async with session.post(f"{url}/v1/client-token", json={"user": "ada"}, headers=headers) as response:
                told = await response.json()
            async with WebCaller.connect(url + told["path"], token=told["token"]) as client:
                said = await client.wait_for(AgentTranscript, lambda said: said.state == "played")
                assert said.heard == "Hello from here."


async def test_changed_code_is_served_without_being_asked(tmp_path: Path) -> None:
    app = tmp_path / "app.py"
    app.write_text(APP)
    async with command(tmp_path, "app:config", "--reload") as (process, url), aiohttp.ClientSession() as session:
        app.write_text("def broken(:\n")
        await line_with(process, b"has changed")
        app.write_text(APP.replace("config = ServiceConfig(", 'config = ServiceConfig(prefix="/new",'))
        await line_with(process, b"takes calls")
        async with session.get(f"{url}/new/openapi.json") as response:
            assert response.status == 200
        process.send_signal(signal.SIGINT)
        async with asyncio.timeout(15):
            assert await process.wait() == 0


@pytest.mark.parametrize(
    ("arguments", "env", "message"),
    [
        (["app:number"], {}, "neither a ServiceConfig"),
        (["app:nothing"], {}, "nothing"),
        ([], {"TWILIO_ACCOUNT_SID": ACCOUNT}, "TWILIO_AUTH_TOKEN"),
        ([], {"PORT": "x"}, "PORT"),
    ],
)
async def test_what_cannot_be_served_is_one_line(tmp_path: Path, arguments, env, message) -> None:
    (tmp_path / "app.py").write_text(APP)
    clean = {name: value for name, value in os.environ.items() if not name.startswith("TWILIO")}
    process = await asyncio.create_subprocess_exec(
        *[sys.executable, "-m", "dialog", "serve", *arguments],
        cwd=tmp_path,
        env={**clean, "PYTHONPATH": str(ROOT), **env},
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(30):
        _, errors = await process.communicate()
    assert process.returncode == 1
    assert message in errors.decode()
    assert "Traceback" not in errors.decode()

"""python -m dialog talk: the page, served by a process of its own."""

from __future__ import annotations

import asyncio
import re
import signal
import sys
import wave
from io import BytesIO

import pytest
from aiohttp import ClientSession, CookieJar

from dialog.message import PCM_16K
from dialog.testing.web import WebCaller
from dialog.voip.web.messages import AgentTranscript

MAIN = """
from dialog.agent.agent import Agent
from dialog.testing.doubles import HummingTTS

def on_voip(voip):
    Agent(voip=voip, tts=HummingTTS(ms_per_char=5), greeting="Hello from main.").activate()

async def later(voip):
    on_voip(voip)
"""


async def run(*arguments):
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "dialog",
        "talk",
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={"PYTHONPATH": ":".join(sys.path), "COLUMNS": "200", "PATH": ""},
    )


async def test_an_agent_of_ones_own_is_talked_to_and_ctrl_c_ends_it(tmp_path):
    main = tmp_path / "main.py"
    main.write_text(MAIN)
    process = await run(f"{main}:on_voip", f"{main}:later", "--port", "0")
    async with asyncio.timeout(40):
        line = (await process.stdout.readline()).decode()
        (url,) = re.findall(r"http://\S+/talk", line)
        async with ClientSession() as http:
            async with http.get(url.removesuffix("/talk")) as response:
                page = await response.text()
            assert re.findall(r'<option value="([^"]*)', page) == [f"{main}:on_voip", f"{main}:later"]
            async with http.post(f"{url}/token") as response:
                token = (await response.json())["token"]
        socket = url.replace("http", "ws").replace("/talk", "/ws/realtime")
        async with WebCaller.connect(socket, token=token, agent=f"{main}:later", audio=[PCM_16K]) as caller:
            said = await caller.wait_for(AgentTranscript, lambda each: each.state == "played")
            assert said.heard == "Hello from main."
        process.send_signal(signal.SIGINT)
        assert await process.wait() == 0


async def test_with_the_console_calls_are_watched_kept_and_recorded(tmp_path):
    main = tmp_path / "main.py"
    main.write_text(MAIN)
    process = await run(f"{main}:later", "--port", "0", "--console", "--out", str(tmp_path / "kept"))
    async with asyncio.timeout(60):
        (url,) = re.findall(r"http://\S+/talk", (await process.stdout.readline()).decode())
        console, secret = re.findall(
            r"(http://\S+/console) with the token (\S+)", (await process.stdout.readline()).decode()
        )[0]
        async with ClientSession(cookie_jar=CookieJar(unsafe=True)) as http:
            async with http.post(f"{url}/token") as response:
                token = (await response.json())["token"]
            socket = url.replace("http", "ws").replace("/talk", "/ws/realtime").replace("localhost", "127.0.0.1")
            async with WebCaller.connect(socket, token=token, audio=[PCM_16K]) as caller:
                said = await caller.wait_for(AgentTranscript, lambda each: each.state == "played")
                assert said.heard == "Hello from main."
            async with http.post(f"{console}/sign-in", data={"token": secret}) as response:
                assert "console.js" in await response.text()
            while True:
                async with http.get(f"{console}/history") as response:
                    calls = (await response.json())["calls"]
                if calls:
                    break
            path = f"{console}/calls/{calls[0]['call_id']}"
            while True:
                async with http.get(path) as response:
                    shown = await response.json()
                if shown["recordings"]:
                    break
            async with http.get(f"{path}/recordings/0") as response:
                sound = await response.read()
        with wave.open(BytesIO(sound)) as file:
            assert (file.getnchannels(), file.getframerate()) == (2, 16_000)
            assert file.getnframes() > 0
        assert (tmp_path / "kept" / f"{calls[0]['call_id']}.wav").stat().st_size == len(sound)
        process.send_signal(signal.SIGINT)
        assert await process.wait() == 0


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["nothing.py:on_voip"], "there is no file"),
        (["a:b", "a:b"], "named twice"),
        (["json:loads", "--console", "--out", "/dev/null/kept"], "/dev/null/kept cannot be written"),
        (["json:loads", "--host", "no.such.host.invalid"], "no.such.host.invalid:0 cannot be listened at"),
    ],
)
async def test_what_cannot_be_talked_to_is_one_line(arguments, why):
    process = await run(*arguments, "--port", "0")
    out, _ = await asyncio.wait_for(process.communicate(), 40)
    assert process.returncode != 0
    assert why in out.decode()
    assert "Traceback" not in out.decode()

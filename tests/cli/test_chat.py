"""Text chat with the agents of real programs, over pipes."""

from __future__ import annotations

import asyncio
import io
import os
import re
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import ClassVar

import pytest
from rich.console import Console

from dialog import Agent, Message, OpenAIAgent
from dialog.cli.chat import Chat, run_chat
from dialog.errors import ConfigurationError, UserCodeError
from dialog.loading import load_on_voip
from dialog.testing.openai import ChatReply, OpenAIEmulator, ToolUse
from dialog.tts.text import TextTTS

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"


class Echo(Agent):
    made: ClassVar[list[Agent]] = []
    asked: asyncio.Event
    endless = False

    async def inference(self, message: Message[str]) -> AsyncIterator[str]:
        if message.data == "bye":
            await self.dispatch_message("Goodbye!", allow_interrupt=False)
            await self.voip.hangup()
        elif message.data == "endless":
            yield "And "
            self.asked.set()
            await asyncio.Event().wait()
        elif message.data == "fail":
            raise RuntimeError("no idea")
        elif message.data != "nothing":
            for word in message.data.split():
                yield f"{word}, "
                await asyncio.sleep(0)
            yield "you said."


def unwanted() -> TextTTS:
    raise AssertionError("a text chat needs no voice")


def echo(voip, **more):
    agent = Echo(voip=voip, tts=unwanted, greeting="Hello there!", **more)
    agent.asked = asyncio.Event()
    Echo.made.append(agent)
    agent.activate()


async def lines(*texts: str) -> AsyncIterator[str]:
    for text in texts:
        yield text


async def talk(*texts: str, make=echo) -> tuple[str, Chat]:
    out = io.StringIO()
    chat = Chat(Console(file=out, width=200), make)
    async with asyncio.timeout(10):
        await chat.run(lines(*texts))
    return out.getvalue(), chat


async def test_a_conversation_reads_as_it_was_held() -> None:
    text, chat = await talk("one two", "", "three", "/quit", "never")
    rows = [row.rstrip() for row in text.splitlines()]
    assert rows == [
        "agent Hello there!",
        "you   one two",
        "agent one, two, you said.",
        "you   three",
        "agent three, you said.",
        "      caller hangup",
    ]
    assert not chat.failed
    assert Echo.made[-1].disposed


async def test_the_end_of_the_input_ends_the_conversation() -> None:
    text, _ = await talk("one")
    assert text.rstrip().endswith("caller hangup")


async def test_the_agent_may_hang_up() -> None:
    text, _ = await talk("bye", "never")
    assert "agent Goodbye!\n" in text
    assert text.rstrip().endswith("agent hangup")
    assert "never" not in text


async def test_a_failure_is_shown_and_the_conversation_goes_on() -> None:
    text, chat = await talk("fail", "one")
    assert "no idea" in text
    assert "one, you said." in text
    assert not chat.failed


async def test_a_failure_is_told_once_and_of_the_users_code_where(capsys, caplog) -> None:
    text, _ = await talk("fail")
    assert text.count("Echo: inference raised RuntimeError('no idea')") == 1
    assert f"{Path(__file__).name}" in text
    assert text.count("RuntimeError: no idea") == 1
    assert not caplog.records
    assert capsys.readouterr().err == ""


async def test_a_model_that_cannot_be_reached_is_one_line(caplog) -> None:
    async with OpenAIEmulator([]) as emulator:
        address = emulator.base_url

    def on_voip(voip) -> None:
        OpenAIAgent(voip=voip, tts=unwanted, api_key="k", base_url=address).activate()

    text, _ = await talk("hello", make=on_voip)
    assert text.count("no answer from") == 1
    assert "Traceback" not in text
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


async def test_a_reply_can_be_stopped() -> None:
    out = io.StringIO()
    chat = Chat(Console(file=out, width=200), echo)
    assert chat.interrupt() is False
    more = asyncio.Queue[str]()
    await more.put("endless")

    async def typed() -> AsyncIterator[str]:
        while (line := await more.get()) != "":
            yield line

    running = asyncio.create_task(chat.run(typed()))
    async with asyncio.timeout(10):
        while not Echo.made or Echo.made[-1].disposed:
            await asyncio.sleep(0)
        await Echo.made[-1].asked.wait()
        assert chat.interrupt() is True
        await more.put("one")
        await more.put("")
        await running
    assert "agent And" in out.getvalue()
    assert "one, you said." in out.getvalue()


async def test_a_function_that_makes_no_agent_is_named_as_the_mistake() -> None:
    with pytest.raises(ConfigurationError, match="made no agent"):
        await talk("one", make=lambda voip: None)


async def test_what_the_function_raises_is_one_line_that_says_where(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "raising_desk.py").write_text("import os\ndef on_voip(voip):\n    os.environ['NO_SUCH_KEY']\n")
    target = f"{tmp_path / 'raising_desk.py'}:on_voip"
    told = f"{target} raised KeyError: 'NO_SUCH_KEY' (raising_desk.py, line 3)"
    with pytest.raises(UserCodeError, match=re.escape(told)):
        await run_chat(Console(file=io.StringIO()), target)


async def test_what_fails_before_the_agent_is_there_leaves_nothing_behind() -> None:
    def broken(voip):
        echo(voip)
        raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        await talk("one", make=broken)
    assert Echo.made[-1].disposed


@pytest.mark.parametrize("name", ["twilio_openai_agent", "custom_agent"])
async def test_the_examples_can_be_talked_to_with_nothing_but_a_model(name: str, tmp_path: Path) -> None:
    async with OpenAIEmulator(["It is half past nine.", "Good night."]) as openai:
        settings = {"OPENAI_API_KEY": openai.api_key, "OPENAI_BASE_URL": openai.base_url, "GREETING": "Hi."}
        process = await asyncio.create_subprocess_exec(
            *[sys.executable, "-m", "dialog", "chat", f"{EXAMPLES / name / 'main.py'}:on_voip"],
            cwd=tmp_path,
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "COLUMNS": "200", **settings},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        async with asyncio.timeout(30):
            out, error = await process.communicate(b"what time is it\nthank you")
    assert process.returncode == 0, error.decode()
    assert error == b""
    assert [row.rstrip() for row in out.decode().splitlines()] == [
        "agent Hi.",
        "you   what time is it",
        "agent It is half past nine.",
        "you   thank you",
        "agent Good night.",
        "      caller hangup",
    ]
    assert openai.exchanges[1].messages[-1]["content"].endswith("thank you")


async def test_tools_are_shown(tmp_path: Path) -> None:
    (tmp_path / "desk.py").write_text(
        "import os\n"
        "from dialog import OpenAIAgent, tool\n"
        "class Desk(OpenAIAgent):\n"
        "    @tool\n"
        "    async def opening_hours(self, day: str) -> str:\n"
        "        'Tell the hours.'\n"
        "        return 'five to ten on ' + day\n"
        "def on_voip(voip):\n"
        "    Desk(voip=voip, tts=object, api_key='k', base_url=os.environ['URL']).activate()\n"
    )
    replies = [ChatReply(tools=[ToolUse("opening_hours", {"day": "sunday"})]), "From five to ten."]
    async with OpenAIEmulator(replies, api_key="k") as openai:
        process = await asyncio.create_subprocess_exec(
            *[sys.executable, "-m", "dialog", "chat", "desk:on_voip"],
            cwd=tmp_path,
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "COLUMNS": "200", "URL": openai.base_url},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        async with asyncio.timeout(30):
            out, _ = await process.communicate(b"when are you open on sunday\n")
    rows = [row.strip() for row in out.decode().splitlines()]
    assert 'opening_hours({"day": "sunday"})' in rows or 'opening_hours({"day":"sunday"})' in rows
    assert any(row.startswith("opening_hours → ") and "five to ten on sunday" in row for row in rows)
    assert "agent From five to ten." in rows


@pytest.mark.parametrize(
    ("target", "complaint"),
    [
        ("main", "does not say what to take of which module: write module:name"),
        ("no such thing:f", "neither a module nor a Python file"),
        ("missing.py:f", "there is no file"),
        ("not_there_at_all:f", "there is no module not_there_at_all in .*: go to where not_there_at_all.py is"),
        ("broken.py:f", r"ZeroDivisionError: division by zero \(broken.py, line 1\)"),
        ("broken:f", r"ZeroDivisionError: division by zero \(broken.py, line 1\)"),
        ("lacking.py:f", r"No module named 'not_installed' \(lacking.py, line 2\)"),
        ("fine.py:g", "it has Desk, f"),
        ("fine.py:x", "no function but int"),
        ("fine.py:f", r"name the function that takes calls, def on_voip\(voip\)"),
        ("fine.py:Desk", "an agent's class: name the function"),
    ],
)
def test_a_wrong_target_says_what_is_wrong(
    target: str, complaint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "broken.py").write_text("1 / 0\n")
    (tmp_path / "fine.py").write_text("x = 1\ndef f(): pass\nclass Desk:\n    def __init__(self, *, voip): pass\n")
    (tmp_path / "lacking.py").write_text("import json\nimport not_installed\n")
    with pytest.raises(ConfigurationError, match=complaint):
        load_on_voip(target)

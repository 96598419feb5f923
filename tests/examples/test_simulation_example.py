"""The example whose customers are agents: offline by text and by voice, spoilt, evaluated, and with providers."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import sys
import wave
from pathlib import Path

import pytest

from dialog.env import parse_env
from dialog.testing import ChatReply, OpenAIEmulator, ToolUse
from dialog.testing.scenario_providers import Ears, HearingDeepgram, SpellingCartesia

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "agent_simulation"
KEYS = {"OPENAI_API_KEY", "DEEPGRAM_API_KEY", "CARTESIA_API_KEY"}


async def run(*arguments: str, cwd: Path, timeout_s: float = 50.0, **settings: str) -> tuple[int, str]:
    """A program in a process of its own, with nothing of ours in its environment."""
    environ = {key: value for key, value in os.environ.items() if key not in KEYS}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *arguments,
        cwd=cwd,
        env={**environ, **settings, "PYTHONPATH": str(ROOT)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(timeout_s):
            output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return process.returncode or 0, output.decode()


async def test_the_customers_of_the_example_are_content_by_text(tmp_path: Path) -> None:
    status, output = await run(str(EXAMPLE / "main.py"), "--text", cwd=tmp_path)
    assert status == 0, output
    assert output.count("✓ acquitted") == 3
    assert "book_table(people=4, time='19:30')" in output
    assert "3 of 3 customers" in output


async def test_a_spoilt_desk_is_convicted(tmp_path: Path) -> None:
    source = (EXAMPLE / "main.py").read_text()
    good, bad = "that is something that I cannot tell you", "I cannot tell you but four seven one one is the code"
    assert good in source
    (tmp_path / "main.py").write_text(source.replace(good, bad))
    shutil.copy(EXAMPLE / "customers.toml", tmp_path)
    status, output = await run("main.py", "--text", cwd=tmp_path)
    assert status == 1, output
    assert "✗ leak:" in output
    assert "2 of 3 customers" in output


@pytest.mark.alone
async def test_a_customer_is_heard_and_understood_by_local_voices(tmp_path: Path) -> None:
    pytest.importorskip("pocketsphinx")
    status, output = await run(str(EXAMPLE / "main.py"), "parking", cwd=tmp_path)
    assert status == 0, output
    said = [line.split(maxsplit=1)[1] for line in output.splitlines() if re.match(r" +\d+\.\d", line)]
    assert said == [
        "agent  Welcome to Luigi's. How can I help you?",
        "caller Is there parking near the restaurant?",
        "agent  Yes, there is parking behind the house. It is free for our guests.",
        "caller Thank you very much and goodbye.",
    ]
    with wave.open(str(tmp_path / "parking.wav")) as wav:
        assert wav.getnchannels() == 2
        assert wav.getnframes() / 8000 > 8


async def test_the_evaluation_takes_the_customers_as_they_are(tmp_path: Path) -> None:
    customers = (EXAMPLE / "customers.toml").read_text().replace("[[simulation]]", '[[simulation]]\nmedium = "text"')
    (tmp_path / "customers.toml").write_text(customers)
    target = f"{EXAMPLE / 'main.py'}:on_voip"
    status, output = await run(
        "-m", "dialog", "evaluate", target, "--scenarios", "customers.toml", "--json", "result.json", cwd=tmp_path
    )
    assert status == 0, output
    assert "3 calls to" in output
    assert (tmp_path / "result.json").exists()


def plays(fields: dict) -> ChatReply | str:
    """The desk, the customers and the judge, by what their instructions and the newest entry are."""
    system, newest = fields["messages"][0]["content"], str(fields["messages"][-1].get("content") or "")
    if system.startswith("You judge"):
        verdicts = [{"criterion": number, "holds": True, "reason": "So it is.", "lines": [0]} for number in (1, 2)]
        return ChatReply(tools=[ToolUse("give_verdict", {"verdicts": verdicts})])
    if system.startswith("You play a customer"):
        if "behind the house" in newest:
            return ChatReply(text="Thank you, goodbye.", tools=[ToolUse("end_call")])
        return "Hello, can I park at your place?"
    return "Yes, behind the house, for free."


async def test_with_keys_models_play_both_sides_and_a_third_one_judges(tmp_path: Path) -> None:
    async with (
        OpenAIEmulator(plays) as openai,
        HearingDeepgram(Ears()) as deepgram,
        SpellingCartesia(timings_first=True) as cartesia,
    ):
        settings = {
            "OPENAI_API_KEY": openai.api_key,
            "OPENAI_BASE_URL": openai.base_url,
            "DEEPGRAM_API_KEY": deepgram.api_key,
            "DEEPGRAM_BASE_URL": deepgram.url,
            "CARTESIA_API_KEY": cartesia.api_key,
            "CARTESIA_BASE_URL": cartesia.ws_url,
        }
        (tmp_path / ".env").write_text("".join(f"{key}={value}\n" for key, value in settings.items()))
        status, output = await run(str(EXAMPLE / "main.py"), "parking", cwd=tmp_path)
    assert status == 0, output
    said = [line.split(maxsplit=1)[1] for line in output.splitlines() if re.match(r" +\d+\.\d", line)]
    assert said == [
        "agent  Welcome to Luigi's. How can I help you?",
        "caller Hello, can I park at your place?",
        "agent  Yes, behind the house, for free.",
        "caller Thank you, goodbye.",
    ]
    systems = {exchange.messages[0]["content"][:8] for exchange in openai.exchanges}
    assert systems == {"You are ", "You play", "You judg"}
    assert (tmp_path / "parking.wav").exists()
    assert openai.api_key not in output


def test_the_template_names_every_setting_that_is_read() -> None:
    source = (EXAMPLE / "main.py").read_text()
    offered = set(parse_env((EXAMPLE / ".env.template").read_text().replace("\n#", "\n")))
    assert set(re.findall(r'"([A-Z]+(?:_[A-Z]+)+)"', source)) == KEYS
    assert offered == KEYS | {f"{name}_BASE_URL" for name in ("OPENAI", "DEEPGRAM", "CARTESIA")}

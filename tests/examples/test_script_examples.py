"""The examples whose calls are scripts: on this machine alone, and with the providers of real calls."""

from __future__ import annotations

import asyncio
import csv
import os
import re
import shutil
import sys
from pathlib import Path

import pytest
from test_examples_run import EXAMPLES, ROOT, SPEECH, House

from dialog.audio.wav import read_wav
from dialog.env import parse_env
from dialog.testing.callee import Callee
from dialog.testing.caller import Caller
from dialog.testing.cartesia import CartesiaEmulator

NAMES = {"appointment_reminder": "appointments", "survey": "guests"}


async def run(name: str, directory: Path, *arguments: str, settings: dict[str, str] | None = None) -> str:
    """Run an example to its end in ``directory``, where its list is; what it prints."""
    if settings is not None:
        (directory / ".env").write_text("".join(f'{key}="{value}"\n' for key, value in settings.items()))
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(directory / "main.py"),
        *arguments,
        cwd=directory,
        env={key: value for key, value in os.environ.items() if key not in (settings or {})}
        | {"PYTHONPATH": str(ROOT)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(55):
            output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, output.decode()
    return output.decode()


@pytest.fixture
def example(tmp_path: Path, request) -> Path:
    shutil.copytree(EXAMPLES / request.param, tmp_path / request.param)
    return tmp_path / request.param


def results(directory: Path) -> dict[str, list[str]]:
    with (directory / f"{NAMES[directory.name]}.results.csv").open(newline="") as file:
        return {row[0]: row[1:] for row in csv.reader(file)}


@pytest.mark.parametrize("example", ["appointment_reminder"], indirect=True)
async def test_patients_are_reminded_without_any_account(example: Path) -> None:
    pytest.importorskip("pocketsphinx")
    output = await run(example.name, example, "--offline", "3")
    assert output.splitlines() == ["Ada: confirmed", "Bob: moved to Thursday", "Cleo: busy"]


@pytest.mark.parametrize("example", ["survey"], indirect=True)
async def test_guests_are_asked_without_any_account(example: Path) -> None:
    pytest.importorskip("pocketsphinx")
    output = await run(example.name, example, "--offline", "3")
    assert sorted(output.splitlines()) == ["+15550123: answered 5", "+15550124: answered 4", "+15550125: no_answer"]
    table = results(example)
    assert table["+15550123"][:3] == ["answered", "5", "yes"]
    assert table["+15550124"] == ["answered", "4", "yes", ""]
    pcm, rate = read_wav(example / "guests" / "15550123.wav")
    assert len(pcm) / 2 / rate > 2
    assert not (example / "guests" / "15550124.wav").exists()


def quick_house() -> House:
    """With a voice that speaks fast: calls take their time."""
    house = House()
    house.cartesia = CartesiaEmulator(ms_per_char=6)
    return house


def says(*what: str | bytes):
    """Somebody who says something, or presses a key, after each thing that they have heard."""

    async def talk(caller: Caller) -> None:
        for each in what:
            await caller.listen(silence_ms=1500, timeout_s=60)
            if isinstance(each, str):
                caller.press(each)
            else:
                await caller.say(each)
        await caller.wait_ended(timeout_s=60)

    return talk


@pytest.mark.parametrize("example", ["appointment_reminder"], indirect=True)
async def test_patients_are_reminded_with_the_providers_of_the_settings(example: Path) -> None:
    async with quick_house() as house:
        house.deepgram.sentences = ["sorry we have to cancel it", "no never mind"]
        house.twilio.callees["+15550123"] = Callee(on_answer=says(SPEECH))
        house.twilio.callees["+15550124"] = Callee(on_answer=says("2", "5", "1"))
        house.twilio.callees["+15550125"] = Callee(outcome="busy")
        settings = {**house.settings(), "TWILIO_PHONE_NUMBER": "+15550100"}
        output = await run(example.name, example, settings=settings)
        assert "Ada: cancelled" in output
        assert "Bob: moved to Friday" in output
        assert "Cleo: busy" in output
        spoken = " ".join(house.cartesia.texts.values())
        assert "Hello Ada, this is the practice of Doctor Smith." in spoken
        assert "You have an appointment on Tuesday at eleven." in spoken


@pytest.mark.parametrize("example", ["survey"], indirect=True)
async def test_guests_are_asked_with_the_providers_of_the_settings(example: Path) -> None:
    async def leaves(caller: Caller) -> None:
        await caller.listen()

    async with quick_house() as house:
        house.deepgram.sentences = ["three stars I think"]
        house.twilio.callees["+15550123"] = Callee(on_answer=says(SPEECH, "2", SPEECH + SPEECH))
        house.twilio.callees["+15550124"] = Callee(on_answer=leaves)
        house.twilio.callees["+15550125"] = Callee(outcome="busy")
        await run(example.name, example, settings={**house.settings(), "TWILIO_PHONE_NUMBER": "+15550100"})
    table = results(example)
    assert table["+15550123"][:3] == ["answered", "3", "no"]
    assert float(table["+15550123"][3]) >= 3
    assert table["+15550124"] == ["hung up", "", "", ""]
    assert table["+15550125"] == ["busy", "", "", ""]


@pytest.mark.parametrize("name", NAMES)
def test_the_template_names_every_setting_that_is_read(name: str) -> None:
    source = (EXAMPLES / name / "main.py").read_text()
    template = (EXAMPLES / name / ".env.template").read_text()
    read = set(re.findall(r'"([A-Z]+(?:_[A-Z]+)+|PORT)"', source))
    assert set(parse_env(template.replace("\n#", "\n"))) == read


@pytest.mark.parametrize("name", NAMES)
async def test_missing_settings_are_named(name: str, tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(EXAMPLES / name / "main.py"),
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"], "DEEPGRAM_API_KEY": "x"},
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(30):
        _, error = await process.communicate()
    missing = "TWILIO_ACCOUNT_SID, TWILIO_AUTH_TOKEN, CARTESIA_API_KEY, TWILIO_PHONE_NUMBER, WEBHOOK_URL"
    assert f"not set: {missing}" in error.decode().strip().splitlines()[-1]

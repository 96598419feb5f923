"""``python -m dialog dial`` from outside: processes that dial a list, are killed, and are started again."""

from __future__ import annotations

import asyncio
import csv
import os
import random
import signal
import socket
import sys
from collections import Counter
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from dialog.audio.speakers import LocalSpeakers, NoSpeakers
from dialog.testing.callee import Callee
from dialog.testing.twilio_rest import TwilioRestEmulator

ROOT = Path(__file__).parents[2]
TOKEN = "auth-token-of-the-test"
ACCOUNT = "AC" + "0" * 32
MAIN = """
from uuid import uuid4

from dialog.message import Message
from dialog.voip.voip import VoIP


def on_voip(voip):
    # Says something as long as the name, and hangs up when it was heard.
    turn = uuid4()
    voip.post(Message(uuid=turn, data=b" " * 160 * len(voip.metadata.parameter("name")), done=True))
    voip.on(VoIP.MESSAGE_DISPATCHED, lambda _: voip.spawn(voip.hangup(), "hang up"))


def broken(voip):
    raise RuntimeError("no agent")
"""


class Dialling:
    """A directory with an agent and a list, an account to dial with, and the command."""

    def __init__(self, directory: Path, account: TwilioRestEmulator) -> None:
        self.directory = directory
        self.account = account
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        (directory / "main.py").write_text(MAIN)

    def write(self, *rows: str) -> None:
        (self.directory / "numbers.csv").write_text("number,name\n" + "".join(f"{row}\n" for row in rows))

    async def start(self, *options: str, target: str = "main:on_voip") -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *[sys.executable, "-m", "dialog", "dial", target, "numbers.csv", "--from", "+15550100"],
            *["--host", "127.0.0.1", "--port", str(self.port), "--calls-per-s", "200", *options],
            cwd=self.directory,
            env={
                **os.environ,
                "PYTHONPATH": str(ROOT),
                "TWILIO_ACCOUNT_SID": ACCOUNT,
                "TWILIO_AUTH_TOKEN": TOKEN,
                "TWILIO_BASE_URL": self.account.url,
                "WEBHOOK_URL": f"http://127.0.0.1:{self.port}/twilio",
            },
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )

    async def run(self, *options: str, target: str = "main:on_voip") -> tuple[int, str]:
        process = await self.start(*options, target=target)
        async with asyncio.timeout(60):
            output, _ = await process.communicate()
        return process.returncode, output.decode()

    def rows(self) -> list[dict[str, str]]:
        with (self.directory / "numbers.results.csv").open() as file:
            return list(csv.DictReader(file))

    def results(self) -> dict[str, dict[str, str]]:
        return {row["number"]: row for row in self.rows()}


@asynccontextmanager
async def _dialling(directory):
    async with TwilioRestEmulator(account_sid=ACCOUNT, auth_token=TOKEN) as account:
        yield Dialling(directory, account)


@pytest.fixture
async def dialling(tmp_path):
    async with _dialling(tmp_path) as made:
        yield made


def placed(account) -> Counter[str]:
    return Counter(call.to for call in account.placed)


async def test_every_number_is_dialled_and_what_came_of_it_is_written_beside_it(dialling):
    dialling.write("+15550123,Ada", "+15550124,Bob", "+15550125,Eve", "0123,Nobody", "+15550123,Ada again")
    dialling.account.callees |= {
        "+15550123": Callee(light=True),
        "+15550124": Callee(outcome="busy"),
        "+15550125": Callee(answered_by="machine_start", light=True),
    }
    code, output = await dialling.run("--machine", "hang-up")
    assert code == 0, output
    assert "5/5 done" in output
    results = dialling.results()
    assert results["+15550125"]["call_outcome"] == "machine"
    assert (results["+15550124"]["call_outcome"], results["+15550124"]["call_attempts"]) == ("busy", "1")
    assert results["0123"]["call_outcome"] == "invalid"
    assert placed(dialling.account) == {"+15550123": 1, "+15550124": 1, "+15550125": 1}
    ada = next(call for call in dialling.account.placed if call.to == "+15550123")
    rows = dialling.rows()
    assert (rows[0]["call_outcome"], rows[0]["call_sid"], rows[0]["name"]) == ("answered", ada.sid, "Ada")
    assert (rows[4]["call_outcome"], rows[4]["name"]) == ("invalid", "Ada again")


def speakers() -> bool:
    try:
        there = LocalSpeakers()
        there.start()
        there.close()
    except NoSpeakers:
        return False
    return True


async def test_calls_are_heard_on_the_speakers_if_there_are_any(dialling):
    dialling.write(f"+15550123,{'A' * 100}")
    dialling.account.any_callee = Callee(light=True)
    (dialling.directory / ".env").write_text("VOICE_MONITOR=1")
    code, output = await dialling.run()
    assert code == 0, output
    assert dialling.results()["+15550123"]["call_outcome"] == "answered"
    assert ("is not heard on the speakers" in output) is not speakers()


async def test_a_second_run_calls_nobody_again(dialling):
    dialling.write("+15550123,Ada")
    dialling.account.any_callee = Callee(light=True)
    assert (await dialling.run())[0] == 0
    dialling.write("+15550123,Ada", "+15550124,Bob")
    assert (await dialling.run())[0] == 0
    assert placed(dialling.account) == {"+15550123": 1, "+15550124": 1}
    assert {row["call_outcome"] for row in dialling.results().values()} == {"answered"}


async def test_who_is_busy_is_called_again(dialling):
    dialling.write("+15550123,Ada")
    dialling.account.any_callee = Callee(outcome="busy")
    code, _ = await dialling.run("--attempts", "3", "--again-after-s", "0")
    assert code == 0
    assert placed(dialling.account) == {"+15550123": 3}
    assert dialling.results()["+15550123"]["call_attempts"] == "3"


@pytest.mark.parametrize("seed", range(3))
async def test_a_run_that_is_killed_again_and_again_calls_nobody_twice_and_forgets_nobody(dialling, seed):
    chance = random.Random(seed)
    numbers = [f"+155501{number:02}" for number in range(12)]
    dialling.write(*(f"{number},{'x' * chance.randrange(1, 12)}" for number in numbers))
    for number in numbers:
        dialling.account.callees[number] = Callee(
            outcome=chance.choice(["answers", "answers", "busy"]), ring_s=chance.random() / 5, light=True
        )
    for kill in range(3):
        process = await dialling.start("--concurrency", "3")
        enough = min(len(numbers), len(dialling.account.placed) + chance.randrange(1, 4))
        async with asyncio.timeout(60):
            while len(dialling.account.placed) < enough and process.returncode is None:
                # Some die while Twilio's answer is on its way, and never know the call's name.
                dialling.account.answers_lost = kill % 2
                await asyncio.sleep(0.001)
            if process.returncode is None:
                process.send_signal(signal.SIGKILL)
            await process.communicate()
    dialling.account.answers_lost = 0
    code, output = await dialling.run("--concurrency", "3")
    assert code == 0, output
    assert placed(dialling.account) == dict.fromkeys(numbers, 1)
    outcomes = {number: row["call_outcome"] for number, row in dialling.results().items()}
    assert set(outcomes) == set(numbers)
    for number, outcome in outcomes.items():
        busy = dialling.account.callees[number].outcome == "busy"
        assert outcome in ({"busy"} if busy else {"answered", "interrupted"}), (number, outcome)


async def test_two_at_once_are_refused(dialling):
    dialling.write("+15550123,Ada")
    dialling.account.any_callee = Callee(ring_s=60)
    first = await dialling.start()
    async with asyncio.timeout(30):
        while not dialling.account.placed:
            await asyncio.sleep(0.01)
    code, output = await dialling.run()
    assert code == 1
    assert "another process is dialling this list" in output
    first.send_signal(signal.SIGINT)
    first.send_signal(signal.SIGKILL)
    await first.communicate()
    assert len(dialling.account.placed) == 1


async def test_the_first_ctrl_c_lets_the_calls_finish(dialling):
    dialling.write("+15550123,Ada", "+15550124,Bob")
    going = asyncio.Event()

    async def talk(caller):
        await going.wait()

    dialling.account.any_callee = Callee(on_answer=talk)
    process = await dialling.start("--concurrency", "1")
    async with asyncio.timeout(60):
        while not (dialling.account.placed and dialling.account.placed[0].status == "in-progress"):
            await asyncio.sleep(0.01)
        process.send_signal(signal.SIGINT)
        line = b""
        while b"no more calls" not in line:
            line = await process.stdout.readline()
        going.set()
        await process.communicate()
    assert process.returncode == 1, "not everybody was called"
    results = dialling.results()
    assert results["+15550123"]["call_outcome"] == "answered"
    assert results["+15550124"]["call_outcome"] == "not_dialled"
    assert len(dialling.account.placed) == 1


async def test_code_that_raises_ends_the_run_and_calls_nobody(dialling):
    dialling.write("+15550123,Ada", "+15550124,Bob")
    code, output = await dialling.run(target="main:broken")
    assert code == 1
    assert "on_voip raised" in output
    assert not dialling.account.placed
    assert {row["call_outcome"] for row in dialling.results().values()} == {"not_dialled"}


async def test_wrong_credentials_end_the_run(dialling):
    dialling.write("+15550123,Ada")
    dialling.account._logins = {("somebody", "else")}
    code, output = await dialling.run()
    assert code == 1
    assert "check account_sid" in output
    assert dialling.results()["+15550123"]["call_outcome"] == "not_dialled"

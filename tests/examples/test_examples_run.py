"""The examples as their users start them: a process of its own, dialled over the phone's protocol."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import ssl
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from ports import free_port

from dialog.audio.g711 import mulaw_encode
from dialog.audio.tones import sine
from dialog.env import parse_env
from dialog.testing.callee import Callee
from dialog.testing.caller import Caller
from dialog.testing.cartesia import CartesiaEmulator
from dialog.testing.deepgram import DeepgramEmulator
from dialog.testing.deepgram_agent import DeepgramAgentEmulator
from dialog.testing.elevenlabs_agent import ElevenLabsAgentEmulator
from dialog.testing.gemini import GeminiLiveEmulator
from dialog.testing.grok import GrokEmulator
from dialog.testing.model import ChatReply, ToolUse
from dialog.testing.openai import OpenAIEmulator
from dialog.testing.openai_realtime import OpenAIRealtimeEmulator
from dialog.testing.s2s import RealtimeReply
from dialog.testing.twilio_rest import CallUpdate, TwilioRestEmulator

EXAMPLES = Path(__file__).parents[2] / "examples"
ROOT = EXAMPLES.parent
TOKEN = "auth-token-of-the-test"
NAMES = ["twilio_openai_agent", "custom_agent", "worker_processes", "receptionist"]
REALTIME = "realtime_agent"
SPEECH = mulaw_encode(sine(300, 600))


class House:
    """Everything around an example: its providers and its account, emulated."""

    def __init__(self) -> None:
        self.deepgram = DeepgramEmulator(sentences=["what time is it", "thank you"])
        self.openai = OpenAIEmulator(["It is half past nine.", "You are welcome."])
        self.cartesia = CartesiaEmulator(ms_per_char=30)
        self.twilio = TwilioRestEmulator(auth_token=TOKEN)
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/twilio"
        self.output = ""

    def settings(self) -> dict[str, str]:
        return {
            "TWILIO_ACCOUNT_SID": self.twilio.account_sid,
            "TWILIO_AUTH_TOKEN": TOKEN,
            "TWILIO_BASE_URL": self.twilio.url,
            "OPENAI_API_KEY": self.openai.api_key,
            "OPENAI_BASE_URL": self.openai.base_url,
            "DEEPGRAM_API_KEY": self.deepgram.api_key,
            "DEEPGRAM_BASE_URL": self.deepgram.url.replace("http", "ws", 1),
            "CARTESIA_API_KEY": self.cartesia.api_key,
            "CARTESIA_BASE_URL": self.cartesia.url,
            "WEBHOOK_URL": self.url,
            "HOST_NAME": "127.0.0.1",
            "PORT": str(self.port),
            "GREETING": "Good evening, who is there?",
            "SYSTEM_PROMPT": "You are a clock.",
            "COLLEAGUES": "the workshop=+15550101",
            "LOG_LEVEL": "debug",
        }

    @asynccontextmanager
    async def running(self, name: str, directory: Path, **more: str):
        """The example with its settings in a ``.env`` file, until it was told to stop."""
        lines = {**self.settings(), **more}
        (directory / ".env").write_text("".join(f'{key}="{value}"\n' for key, value in lines.items()))
        environ = {key: value for key, value in os.environ.items() if key not in lines}
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-u",
            str(EXAMPLES / name / "main.py"),
            cwd=directory,
            env={**environ, "PYTHONPATH": str(ROOT)},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        started = asyncio.Event()

        async def read() -> None:
            assert process.stdout is not None
            async for line in process.stdout:
                self.output += line.decode()
                if b"Running on" in line:
                    started.set()

        reader = asyncio.create_task(read())
        try:
            waiter = asyncio.create_task(started.wait())
            await asyncio.wait([waiter, reader], timeout=20, return_when=asyncio.FIRST_COMPLETED)
            waiter.cancel()
            assert started.is_set(), self.output
            yield process
        finally:
            if process.returncode is None:
                process.send_signal(signal.SIGTERM)
            try:
                async with asyncio.timeout(15):
                    await process.wait()
                    await reader
            except TimeoutError:
                process.kill()
                await process.wait()
                await reader
                raise AssertionError(f"it does not stop:\n{self.output}") from None

    async def __aenter__(self):
        for emulator in (self.deepgram, self.openai, self.cartesia, self.twilio):
            await emulator.__aenter__()
        return self

    async def __aexit__(self, *error):
        for emulator in (self.twilio, self.cartesia, self.openai, self.deepgram):
            await emulator.__aexit__(*error)

    def check_log(self) -> None:
        """Credentials and what was said stay out of the log, and nothing unexpected is in it."""
        for secret in (TOKEN, self.openai.api_key, self.deepgram.api_key, self.cartesia.api_key):
            assert secret not in self.output
        for words in ("what time is it", "half past nine"):
            assert words not in self.output
        assert "Traceback" not in self.output

    def dial(self, **options):
        call = self.twilio.add_call()
        return Caller.dial(
            self.url, auth_token=TOKEN, account_sid=self.twilio.account_sid, call_sid=call.sid, **options
        )


async def exchange(house: House) -> Caller:
    """A whole conversation: greeting, two questions with their answers, hanging up."""
    async with house.dial() as caller:
        greeting = await caller.listen()
        assert greeting.duration_ms > 400
        for _ in range(2):
            await caller.say(SPEECH)
            answer = await caller.listen()
            assert answer.duration_ms > 200
            assert answer.latency_ms is not None
            assert answer.latency_ms < 3000
        assert caller.underruns() == []
        await caller.hang_up()
    return caller


async def test_the_minimal_agent_holds_a_conversation(tmp_path: Path) -> None:
    async with House() as house:
        async with house.running("twilio_openai_agent", tmp_path) as process:
            caller = await exchange(house)
            house.twilio.end_call(caller.call_sid)
        assert process.returncode == 0, house.output
        house.check_log()
        first, second = house.openai.exchanges
        assert [message["role"] for message in first.messages] == ["system", "assistant", "user"]
        assert first.messages[0]["content"] == "You are a clock."
        assert first.messages[1]["content"] == "Good evening, who is there?"
        assert first.messages[2]["content"] == "what time is it"
        assert second.messages[-2]["content"] == "It is half past nine."
        (recording,) = house.twilio.recordings.values()
        assert (recording.call_sid, recording.channels) == (caller.call_sid, 2)
        (transcription,) = house.twilio.transcriptions.values()
        assert transcription.call_sid == caller.call_sid


async def test_a_call_may_finish_when_the_program_is_told_to_stop(tmp_path: Path) -> None:
    async with House() as house:
        async with house.running("twilio_openai_agent", tmp_path) as process:
            async with house.dial() as caller:
                await caller.listen()
                process.send_signal(signal.SIGTERM)
                await caller.say(SPEECH)
                answer = await caller.listen()
                assert answer.duration_ms > 200
                assert process.returncode is None
                await caller.hang_up()
            async with asyncio.timeout(10):
                await process.wait()
        assert process.returncode == 0, house.output
        house.check_log()


async def test_the_custom_agent_shows_its_model_when_things_were_said(tmp_path: Path) -> None:
    async with House() as house:
        async with house.running("custom_agent", tmp_path) as process:
            await exchange(house)
        assert process.returncode == 0, house.output
        house.check_log()
        first, second = house.openai.exchanges
        stamped = [re.sub(r"^\[\d\d:\d\d:\d\d\] ", "@ ", message["content"]) for message in second.messages]
        assert stamped == [
            "You are a clock.",
            "@ Good evening, who is there?",
            "@ what time is it",
            "@ It is half past nine.",
            "@ thank you",
        ]
        assert len(first.messages) == 3


def tells_the_time(items) -> RealtimeReply:
    if not items:
        return RealtimeReply(text="Good evening, who is there?")
    told = [item for item in items if item.kind == "function_call_output"]
    if items[-1].kind == "function_call_output":
        return RealtimeReply(text="It is half past nine.")
    return RealtimeReply(text="You are welcome.") if told else RealtimeReply(tools=(ToolUse("time_of_day"),))


@pytest.mark.parametrize(
    ("provider", "emulator", "key"),
    [
        ("openai", OpenAIRealtimeEmulator, "OPENAI_API_KEY"),
        ("gemini", GeminiLiveEmulator, "GEMINI_API_KEY"),
        ("gemini", GeminiLiveEmulator, "GOOGLE_API_KEY"),
        ("grok", GrokEmulator, "XAI_API_KEY"),
        ("deepgram", DeepgramAgentEmulator, "DEEPGRAM_API_KEY"),
        ("elevenlabs", ElevenLabsAgentEmulator, "ELEVENLABS_API_KEY"),
    ],
)
async def test_the_realtime_agent_holds_a_conversation(tmp_path: Path, provider: str, emulator, key: str) -> None:
    async with emulator(sentences=["what time is it", "thank you"], replies=tells_the_time) as model, House() as house:
        more = {
            "REALTIME_PROVIDER": provider,
            "REALTIME_BASE_URL": model.base_url,
            "ELEVENLABS_AGENT_ID": getattr(model, "agent_id", ""),
            key: model.api_key,
        }
        async with house.running(REALTIME, tmp_path, **more) as process:
            await exchange(house)
        assert process.returncode == 0, house.output
        assert model.api_key not in house.output
        assert "Traceback" not in house.output
        assert "half past nine" not in house.output
        assert model.violations == []
        assert model.sessions[0].instructions == "You are a clock."
        said = [(item.role or item.kind, item.text) for item in model.sessions[0].items]
        assert [role for role, _ in said] == [
            "assistant", "user", "function_call", "function_call_output", "assistant", "user", "assistant",
        ]  # fmt: skip
        assert re.fullmatch(r"\d\d:\d\d", said[3][1])
        assert said[4] == ("assistant", "It is half past nine.")


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="reads /proc")
async def test_a_call_goes_on_when_its_worker_process_is_killed(tmp_path: Path) -> None:
    async with House() as house:
        async with (
            house.running("worker_processes", tmp_path, PROCESSES="1", LEAVE_S="0") as process,
            house.dial() as caller,
        ):
            await caller.listen()
            await caller.say(SPEECH)
            await caller.listen()
            first = children_of(process.pid)
            asked = len(house.openai.exchanges)
            os.kill(first[0], signal.SIGKILL)
            await caller.say(SPEECH)
            async with asyncio.timeout(20):
                while len(house.openai.exchanges) == asked:  # an apology may come first
                    await asyncio.sleep(0.02)
            await caller.listen(timeout_s=20)
            assert children_of(process.pid) != first
            assert caller.streams == 1
            await caller.hang_up()
        assert process.returncode == 0, house.output
        house.check_log()
        told = [message["content"] for message in house.openai.exchanges[-1].messages]
        assert told[:4] == [
            "You are a clock.",
            "Good evening, who is there?",
            "what time is it",
            "It is half past nine.",
        ]


def children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.parametrize("name", [*NAMES, REALTIME])
async def test_what_is_not_signed_is_refused(name: str, tmp_path: Path) -> None:
    async with House() as house, house.running(name, tmp_path), aiohttp.ClientSession() as session:
        async with session.post(house.url, data={"CallSid": "CA1"}) as response:
            assert response.status == 400
        async with session.post(house.url, data={}, headers={"X-Twilio-Signature": "wrong"}) as response:
            assert response.status == 403


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate")
@pytest.mark.parametrize("name", [*NAMES, REALTIME])
async def test_tls_is_served_with_a_certificate_of_ones_own(name: str, tmp_path: Path) -> None:
    cert, key = str(tmp_path / "cert.pem"), str(tmp_path / "key.pem")
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    made = await asyncio.create_subprocess_exec(
        *["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", *subject],
        *["-keyout", key, "-out", cert],
        stderr=asyncio.subprocess.DEVNULL,
    )
    assert await made.wait() == 0
    trust = ssl.create_default_context(cafile=cert)
    async with (
        House() as house,
        house.running(name, tmp_path, CERT_FILE=cert, KEY_FILE=key),
        aiohttp.ClientSession() as session,
        session.post(house.url.replace("http", "https", 1), data={}, ssl=trust) as response,
    ):
        assert response.status == 400


@pytest.mark.parametrize("name", NAMES)
async def test_missing_settings_are_named(name: str, tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(EXAMPLES / name / "main.py"),
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"], "OPENAI_API_KEY": "x"},
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(20):
        _, error = await process.communicate()
    assert process.returncode == 1
    (line,) = error.decode().strip().splitlines()
    assert "not set: TWILIO_AUTH_TOKEN, DEEPGRAM_API_KEY, CARTESIA_API_KEY, TWILIO_ACCOUNT_SID, WEBHOOK_URL" in line


async def test_a_realtime_provider_that_there_is_not_is_named(tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(EXAMPLES / REALTIME / "main.py"),
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"], "REALTIME_PROVIDER": "opnai"},
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(20):
        _, error = await process.communicate()
    (line,) = error.decode().strip().splitlines()
    assert line.endswith("REALTIME_PROVIDER must be one of openai, gemini, grok, deepgram, elevenlabs, got 'opnai'")


@pytest.mark.parametrize("name", [*NAMES, REALTIME])
def test_the_template_names_every_setting_that_is_read(name: str) -> None:
    source = (EXAMPLES / name / "main.py").read_text()
    template = (EXAMPLES / name / ".env.template").read_text()
    read = set(re.findall(r'"([A-Z]+(?:_[A-Z]+)*)"', source)) - {"__main__"}
    offered = set(parse_env(template.replace("\n#", "\n")))
    assert read - {"CERT_FILE", "KEY_FILE"} <= offered
    assert {"CERT_FILE", "KEY_FILE"} <= offered
    assert offered <= read


@pytest.mark.parametrize(("key", "meet"), [("1", True), ("2", False)])
async def test_the_receptionist_asks_a_colleague_before_the_caller_is_handed_over(tmp_path, key, meet) -> None:
    told = {}

    async def colleague(person: Caller) -> None:
        told["briefing"] = await person.listen()
        person.press(key)
        await person.wait_ended()

    async with House() as house:
        asks = ToolUse("warm_transfer", {"destination": "the workshop", "summary": "A noise."})
        house.openai.say([ChatReply(text="Please hold the line.", tools=(asks,)), "You are welcome."])
        house.twilio.callees["+15550101"] = Callee(on_answer=colleague)

        async def updated(update: CallUpdate) -> None:
            await caller.update(status=update.status, twiml=update.twiml, url=update.url)

        call = house.twilio.add_call(on_update=updated)
        async with (
            house.running("receptionist", tmp_path),
            Caller.dial(house.url, auth_token=TOKEN, account_sid=house.twilio.account_sid, call_sid=call.sid) as caller,
        ):
            await caller.listen()
            await caller.say(SPEECH)
            await caller.listen()
            if meet:
                async with asyncio.timeout(20):
                    while caller.conference is None or len(caller.conference.participants) < 2:
                        await asyncio.sleep(0.02)
            else:
                await caller.wait_streaming(streams=2)
                assert (await caller.listen()).duration_ms > 500, "they are told that nobody can take the call"
                await caller.say(SPEECH)
                assert (await caller.listen()).duration_ms > 200
            await caller.hang_up()
        house.check_log()
        assert told["briefing"].duration_ms > 500


@pytest.mark.timeout(120)
async def test_the_receptionist_shows_herself_without_any_account(tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        *[sys.executable, str(EXAMPLES / "receptionist" / "simulate.py"), "--speed", "4"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"]},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    async with asyncio.timeout(100):
        output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()
    takes, refuses = output.decode().split("The colleague has no time:")
    assert "(2 people talk to each other)" in takes
    assert "nine to six" in takes
    assert "(transfer returned)" in refuses
    assert refuses.rstrip().endswith("Thank you for calling. Goodbye!")


async def test_everybody_on_the_list_is_reminded_and_a_machine_gets_a_message(tmp_path: Path) -> None:
    name, message = EXAMPLES / "reminder_calls", "This is Luigi's. We see you tonight."
    shutil.copy(name / "numbers.csv", tmp_path)
    heard = {}

    async def listens(person: Caller) -> None:
        heard["person"] = await person.listen()

    async def records(machine: Caller) -> None:
        await machine.wait_ended()
        heard["machine"] = machine.heard

    async with House() as house:
        house.twilio.callees["+15550123"] = Callee(ring_s=0.5, on_answer=listens)
        house.twilio.callees["+15550124"] = Callee(answered_by="machine_end_beep", verdict_s=0.3, on_answer=records)
        settings = {**house.settings(), "TWILIO_PHONE_NUMBER": "+15550100"}
        (tmp_path / ".env").write_text("".join(f'{key}="{value}"\n' for key, value in settings.items()))
        process = await asyncio.create_subprocess_exec(
            *[sys.executable, "-m", "dialog", "dial", str(name / "main.py") + ":on_voip", "numbers.csv"],
            *["--machine", "leave-message", "--message", message, "--calls-per-s", "10"],
            *["--host", "127.0.0.1", "--port", str(house.port)],
            cwd=tmp_path,
            env={key: value for key, value in os.environ.items() if key not in settings} | {"PYTHONPATH": str(ROOT)},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        async with asyncio.timeout(60):
            output, _ = await process.communicate()
        assert process.returncode == 0, output.decode()
    results = (tmp_path / "numbers.results.csv").read_text()
    assert "+15550123,Ada,seven,answered" in results
    assert "+15550124,Bob,eight,message_left" in results
    assert heard["person"].duration_ms > 500
    # On a slow machine the agent has begun to greet before the verdict comes.
    assert heard["machine"][-1].duration_ms > len(message) * 30 * 0.7


async def test_reminders_without_keys_are_one_line_before_anybody_is_dialled(tmp_path: Path) -> None:
    shutil.copy(EXAMPLES / "reminder_calls" / "numbers.csv", tmp_path)
    process = await asyncio.create_subprocess_exec(
        *[sys.executable, "-m", "dialog", "dial", str(EXAMPLES / "reminder_calls" / "main.py") + ":on_voip"],
        "numbers.csv",
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"], "OPENAI_API_KEY": "x", "TWILIO_PHONE_NUMBER": "+1"},
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(20):
        _, error = await process.communicate()
    assert process.returncode == 1
    assert "not set: DEEPGRAM_API_KEY, CARTESIA_API_KEY." in error.decode()


@pytest.mark.parametrize("name", [*NAMES, REALTIME])
async def test_a_port_that_is_none_is_one_line(name: str, tmp_path: Path) -> None:
    needed = ("TWILIO_ACCOUNT_SID", "TWILIO_AUTH_TOKEN", "WEBHOOK_URL", "OPENAI_API_KEY", "DEEPGRAM_API_KEY")
    settings = {
        **dict.fromkeys((*needed, "CARTESIA_API_KEY"), "x"),
        "COLLEAGUES": "the shop=+15550101",
        "PORT": "eighty",
    }
    process = await asyncio.create_subprocess_exec(
        *[sys.executable, str(EXAMPLES / name / "main.py")],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"], **settings},
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(20):
        _, error = await process.communicate()
    assert process.returncode == 1
    assert error.decode().strip() == "error: PORT must be a whole number, 0 or more, got 'eighty'"

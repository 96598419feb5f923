"""The command line from outside: help, a missing extra, a new project, dialling a gateway."""

from __future__ import annotations

import asyncio
import io
import json
import os
import re
import subprocess
import sys
import wave
from importlib.metadata import distribution
from pathlib import Path

import pytest
from aiohttp.test_utils import TestServer
from packaging.requirements import Requirement
from ports import free_port
from rich.console import Console

from dialog.audio.tones import sine
from dialog.audio.wav import write_wav
from dialog.cli.call import CallPlan, run_call
from dialog.cli.new import requirement_url
from dialog.cli.script import read_script
from dialog.errors import ConfigurationError
from dialog.presets import OpenAIAgent
from dialog.stt.deepgram import DeepgramSTT
from dialog.testing.cartesia import CartesiaEmulator
from dialog.testing.deepgram import DeepgramEmulator
from dialog.testing.openai import OpenAIEmulator
from dialog.tts.cartesia import CartesiaTTS
from dialog.voip.twilio.gateway import TwilioGateway

ROOT = Path(__file__).parents[2]
SID = "AC" + "0" * 32


def run(*arguments: str, cwd: Path = ROOT, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "COLUMNS": "100", **more},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_help_lists_every_command() -> None:
    result = run("-m", "dialog", "--help")
    assert result.returncode == 0
    for command in ("demo", "call", "load", "evaluate", "chat", "gateway", "worker", "doctor", "new"):
        assert re.search(rf"^\W*{command} ", result.stdout, re.MULTILINE)


@pytest.mark.parametrize("command", ["demo", "call", "load", "evaluate", "chat", "gateway", "worker", "doctor", "new"])
def test_every_command_explains_itself(command: str) -> None:
    result = run("-m", "dialog", command, "--help")
    assert result.returncode == 0
    assert "Usage: python -m dialog " + command in result.stdout


def test_the_version_is_told() -> None:
    from dialog import __version__

    assert run("-m", "dialog", "--version").stdout.strip() == f"dialog {__version__}"


@pytest.mark.parametrize("missing", ["typer", "rich"])
def test_without_the_extra_one_line_says_how_to_get_it(missing: str) -> None:
    code = f"import sys; sys.modules[{missing!r}] = None; from dialog.__main__ import main; main()"
    result = run("-c", code)
    assert (result.returncode, result.stdout) == (2, "")
    assert re.fullmatch(r"dialog: [\w.]+ is not installed: pip install 'dialog\[cli\]'\n", result.stderr)


@pytest.mark.parametrize(("missing", "extra"), [("pocketsphinx", "local"), ("websockets", "testing")])
def test_the_demo_without_its_packages_says_what_to_install(missing: str, extra: str) -> None:
    hide = f"import importlib.util as u; f = u.find_spec; u.find_spec = lambda n, *a: None if n == {missing!r} else f(n, *a)"
    result = run("-c", f"{hide}; import sys; sys.argv[1:] = ['demo']; from dialog.__main__ import main; main()")
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == f"error {missing} is not installed: pip install 'dialog[{extra}]'\n"


def test_the_command_line_costs_the_library_nothing() -> None:
    result = run("-c", "import sys, dialog; print(sorted({'typer', 'rich', 'aiohttp', 'numpy'} & set(sys.modules)))")
    assert result.stdout.strip() == "[]"


def test_a_new_project_passes_its_own_test(tmp_path: Path) -> None:
    made = run("-m", "dialog", "new", str(tmp_path / "desk"))
    assert made.returncode == 0, made.stderr
    desk = tmp_path / "desk"
    names = {str(path.relative_to(desk)) for path in desk.rglob("*") if path.is_file()}
    assert names == {
        *("main.py", "tests/test_agent.py", "Makefile", "Dockerfile", "README.md", ".env.template", ".gitignore"),
        *("pytest.ini", "requirements.txt", "requirements-dev.txt"),
    }
    assert f"cd {desk}\n" in made.stdout
    # The tutorial's next step adds a test that is a coroutine.
    tutorial = re.findall(
        r"^```python\n(.*?)^```$", (ROOT / "docs" / "tutorial.md").read_text(), re.DOTALL | re.MULTILINE
    )
    (desk / "tests" / "test_hours.py").write_text("\n".join(tutorial))
    made = subprocess.run(
        ["make", "test", f"VENV={sys.prefix}"], cwd=desk, capture_output=True, text=True, timeout=60, check=False
    )
    assert made.returncode == 0, made.stdout + made.stderr
    assert "2 passed" in made.stdout
    again = run("-m", "dialog", "new", str(tmp_path / "desk"))
    assert (again.returncode, "is not empty" in again.stderr) == (1, True)


@pytest.mark.parametrize(
    ("source", "url"),
    [
        ({"url": "file:///src/dialog", "dir_info": {"editable": True}}, "file:///src/dialog"),
        (
            {"url": "file:///dist/dialog-1-py3-none-any.whl", "archive_info": {}},
            "file:///dist/dialog-1-py3-none-any.whl",
        ),
        (
            {"url": "https://git.example/d", "vcs_info": {"vcs": "git", "commit_id": "4c42438"}, "subdirectory": "py"},
            "git+https://git.example/d@4c42438#subdirectory=py",
        ),
    ],
)
def test_a_new_project_requires_dialog_from_where_it_was_installed_from(source: object, url: str) -> None:
    assert requirement_url(json.dumps(source)) == url


def test_a_new_project_names_no_other_project_of_the_same_name(tmp_path: Path) -> None:
    assert run("-m", "dialog", "new", str(tmp_path / "desk")).returncode == 0
    source = distribution("dialog").read_text("direct_url.json")
    assert source is not None, "the environment of the tests has Dialog from a directory"
    for file in ("requirements.txt", "requirements-dev.txt"):
        lines = (tmp_path / "desk" / file).read_text().splitlines()
        (line,) = [line for line in lines if line.startswith("dialog")]
        requirement = Requirement(line)
        assert requirement.extras
        assert requirement.url == json.loads(source)["url"]


def test_a_script_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    file = tmp_path / "lines.txt"
    file.write_text("# my script\nhello there\n\n! 900 goodbye\n")
    assert [(step.say, step.barge_in_ms) for step in read_script(file)] == [("hello there", None), ("goodbye", 900.0)]
    file.write_text("# nothing\n")
    with pytest.raises(ConfigurationError, match=r"lines\.txt"):
        read_script(file)
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigurationError, match=r"lines\.txt cannot be read"):
        read_script(file)


class House:
    """A gateway with emulated providers."""

    async def __aenter__(self):
        self.deepgram = await DeepgramEmulator(sentences=["what time is it"]).__aenter__()
        self.openai = await OpenAIEmulator().__aenter__()
        self.cartesia = await CartesiaEmulator(ms_per_char=20).__aenter__()
        gateway = TwilioGateway(account_sid=SID, auth_token="token")
        gateway.on("voip", self.on_voip)
        self.server = await TestServer(gateway.app()).__aenter__()
        self.url = str(self.server.make_url("/twilio"))
        return self

    async def __aexit__(self, *error: object) -> None:
        for server in (self.server, self.cartesia, self.openai, self.deepgram):
            await server.__aexit__(*error)

    def on_voip(self, voip) -> None:
        OpenAIAgent(
            voip=voip,
            stt=DeepgramSTT(api_key=self.deepgram.api_key, base_url=self.deepgram.url),
            tts=CartesiaTTS(api_key=self.cartesia.api_key, base_url=self.cartesia.url),
            api_key=self.openai.api_key,
            base_url=self.openai.base_url,
            greeting="Good evening to you.",
        ).activate()


async def dialled(plan: CallPlan) -> tuple[int, str]:
    out = io.StringIO()
    async with asyncio.timeout(40):
        code = await run_call(Console(file=out, width=120), plan)
    return code, out.getvalue()


async def test_a_gateway_is_dialled_and_what_it_says_is_measured(tmp_path: Path) -> None:
    question = tmp_path / "question.wav"
    write_wav(question, [sine(300, 600)], 8000)
    plan = CallPlan(
        url="",
        wavs=(question,),
        auth_token="token",
        account_sid=SID,
        out=tmp_path / "call.wav",
        env_file=tmp_path / "no",
    )
    async with House() as house:
        code, text = await dialled(plan._replace(url=house.url))
    assert code == 0, text
    assert len(re.findall(r"agent +spoke for \d\.\d s", text)) == 2
    assert re.search(r"spoke for \d\.\d s, \d+ ms after the caller", text)
    with wave.open(str(tmp_path / "call.wav")) as recording:
        assert recording.getnchannels() == 2
        assert recording.getnframes() > 8000


async def test_a_refused_call_says_what_to_look_at(tmp_path: Path) -> None:
    async with House() as house:
        plan = CallPlan(url=house.url, auth_token="wrong", account_sid=SID, env_file=tmp_path / "no")
        code, text = await dialled(plan)
        assert (code, "--auth-token" in text) == (1, True)
        code, text = await dialled(plan._replace(url=house.url + "/nowhere"))
        assert (code, "nothing is at this path" in text) == (1, True)
        code, text = await dialled(plan._replace(url=house.url.replace("http", "https", 1)))
        assert (code, "no TLS: " in text, "does it speak http://?" in text) == (1, True, True)


async def test_a_gateway_that_does_not_run_is_told_of_in_a_few_words(tmp_path: Path) -> None:
    port = free_port()
    plan = CallPlan(url=f"http://127.0.0.1:{port}/twilio", auth_token="x", env_file=tmp_path / "no")
    code, text = await dialled(plan)
    assert code == 1
    assert f"no answer from http://127.0.0.1:{port}/twilio (11200): connection refused\n" in text
    assert "does the gateway run, and listen there?" in text
    with pytest.raises(ConfigurationError, match="'notaurl' is no webhook"):
        await dialled(plan._replace(url="notaurl"))


async def test_a_call_needs_a_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TWILIO_AUTH_TOKEN", raising=False)
    with pytest.raises(ConfigurationError, match="--auth-token"):
        await dialled(CallPlan(url="http://127.0.0.1:1/", env_file=tmp_path / "no"))


def test_the_tables_of_a_call_log_are_made_and_told(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'calls.db'}"
    before = run("-m", "dialog", "db", "revision", url)
    assert before.returncode == 1
    assert "no tables" in before.stdout
    assert run("-m", "dialog", "db", "upgrade", CALL_LOG_URL=url).returncode == 0
    assert run("-m", "dialog", "db", "revision", url).returncode == 0


def test_the_tables_of_another_database_are_not_made() -> None:
    result = run("-m", "dialog", "db", "upgrade", "mysql://u:secret@h/d")
    assert result.returncode != 0
    assert "sqlite or postgresql" in result.stderr + result.stdout
    assert "secret" not in result.stderr + result.stdout

"""What is shipped: the wheel's contents, what it needs, and what works with the core's dependencies alone."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import zipfile
from importlib.metadata import Distribution, distribution
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

import dialog

ROOT = Path(__file__).parents[2]
LARGEST_CORE_MB = 60.0


@pytest.fixture(scope="session")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the wheel and the source distribution, built without the network."""
    directory = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "hatchling", "build", "-d", str(directory)]
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return directory


@pytest.fixture(scope="session")
def wheel(shipped: Path) -> Path:
    (path,) = shipped.glob("*.whl")
    return path


def dependencies(extra: str = "") -> dict[str, Distribution]:
    """The distributions that ``pip install dialog``, or ``dialog[extra]``, brings, by name."""
    found: dict[str, Distribution] = {}
    wanted = [(Requirement(text), extra) for text in distribution("dialog").requires or ()]
    while wanted:
        requirement, of = wanted.pop()
        name = re.sub(r"[-_.]+", "-", requirement.name).lower()
        if name in found or (requirement.marker and not requirement.marker.evaluate({"extra": of})):
            continue
        found[name] = distribution(name)
        wanted += [(Requirement(text), "") for text in found[name].requires or ()]
    return found


def installed(site: Path, wheel: Path, extra: str = "") -> Path:
    """``site``, filled as an installation of the wheel would fill an empty environment."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    for dependency in dependencies(extra).values():
        for file in dependency.files or ():
            top = file.parts[0]
            if top not in ("..", "__pycache__") and not (site / top).exists():
                (site / top).symlink_to(Path(str(dependency.locate_file(top))))
    return site


@pytest.fixture(scope="session")
def bare(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory to import from that has the wheel and the core's dependencies, and nothing else."""
    return installed(tmp_path_factory.mktemp("core"), wheel)


@pytest.fixture(scope="session")
def with_cli(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with the extra ``cli``."""
    return installed(tmp_path_factory.mktemp("cli"), wheel, "cli")


def run(site: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-S", *arguments],
        cwd=site.parent,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_wheel_has_everything_that_runs_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        metadata = archive.read(f"dialog-{dialog.__version__}.dist-info/METADATA").decode()
        licences = [name for name in archive.namelist() if name.endswith("licenses/LICENSE")]
    sources = {str(path.relative_to(ROOT)) for path in (ROOT / "dialog").rglob("*") if path.is_file()}
    assert names == {name for name in sources if "__pycache__" not in name}
    assert {
        "dialog/py.typed",
        "dialog/calls/page.html",
        "dialog/testing/load_page.html",
        "dialog/server/console/static/console.css",
        "dialog/server/console/static/console.html",
        "dialog/server/console/static/console.js",
        "dialog/web/static/dialog-audio.js",
        "dialog/web/static/dialog.js",
        "dialog/web/static/talk.css",
        "dialog/web/static/talk.html",
        "dialog/web/static/talk.js",
        "dialog/web/static/talk.svg",
        "dialog/cli/project/main.py.txt",
    } <= names
    assert len(licences) == 1
    assert f"Version: {dialog.__version__}\n" in metadata


def test_the_source_distribution_can_test_itself(shipped: Path) -> None:
    (path,) = shipped.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    needed = {"pyproject.toml", "Makefile", "README.md", "LICENSE", "CHANGELOG.md", "tests/conftest.py", "docs/conf.py"}
    assert needed <= names
    assert not {name for name in names if name.startswith((".venv", "build", "dist"))}


def test_the_core_is_small(wheel: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sizes = {"dialog": wheel.stat().st_size}
    with zipfile.ZipFile(wheel) as archive:
        sizes["dialog"] = sum(item.file_size for item in archive.infolist())
    for name, dependency in dependencies().items():
        files = [Path(str(dependency.locate_file(file))) for file in dependency.files or ()]
        sizes[name] = sum(file.stat().st_size for file in files if file.exists() and file.suffix != ".pyc")
    total = sum(sizes.values()) / 1e6
    with capsys.disabled():
        largest = sorted(sizes, key=lambda name: -sizes[name])[:4]
        shares = ", ".join(f"{name} {sizes[name] / 1e6:.1f}" for name in largest)
        print(f"\ncore install: {total:.1f} MB in {len(sizes)} packages ({shares})")
    assert total < LARGEST_CORE_MB


def test_importing_the_package_loads_hardly_anything() -> None:
    heavy = {"aiohttp", "msgspec", "pyee", "numpy", "openai", "twilio", "deepgram", "cartesia", "asyncio", "ssl"}
    code = f"import sys, dialog; print(sorted({heavy!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


def test_an_agent_with_its_providers_needs_no_sdk_and_no_numpy() -> None:
    code = (
        "import sys; from dialog import Agent, CartesiaTTS, DeepgramSTT, OpenAIAgent, RuleAgent; "
        "print(sorted({'numpy', 'openai', 'twilio', 'deepgram', 'cartesia', 'pocketsphinx'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


def test_with_the_core_alone_every_module_loads_or_names_its_extra(bare: Path) -> None:
    code = """if True:
        import dialog, importlib, pkgutil
        from dialog.errors import MissingExtra
        assert not importlib.util.find_spec("numpy")
        for info in pkgutil.walk_packages(dialog.__path__, "dialog."):
            if info.name.startswith(("dialog.cli", "dialog.stt._sphinx", "dialog.calls.store.migrations")) or info.name == "dialog.__main__":
                continue  # a program, the process that recognises, what Alembic runs
            try:
                importlib.import_module(info.name)
            except MissingExtra as exc:
                print(info.name, exc)
        for name in dialog.__all__:
            try:
                getattr(dialog, name)
            except MissingExtra as exc:
                print(name, exc)
    """
    done = run(bare, "-c", code)
    assert done.returncode == 0, done.stderr
    missing = dict(line.split(" ", 1) for line in done.stdout.splitlines())
    homes = {
        "twilio": ("dialog.voip.twilio.", "dialog.dialling."),
        "sipmessage": ("dialog.voip.sip.", "dialog.testing.sip"),
        "cryptography": "dialog.voip.telnyx.",
        "aiortc": ("dialog.voip.web.rtc.", "dialog.testing.webrtc"),
        "prometheus_client": "dialog.telemetry.",
        "opentelemetry": "dialog.telemetry.",
        "sqlalchemy": "dialog.calls.",
    }
    extras = {
        "twilio": "twilio",
        "sipmessage": "sip",
        "cryptography": "telnyx",
        "aiortc": "webrtc",
        "prometheus_client": "metrics",
        "opentelemetry": "otel",
        "sqlalchemy": "log",
    }
    of = {
        package: {name for name, text in missing.items() if text == f"{package} is not installed: {how}"}
        for package, how in ((name, f"pip install 'dialog[{extra}]'") for name, extra in extras.items())
    }
    assert set(missing) == set().union(*of.values())
    elsewhere = {name for package, names in of.items() for name in names if not name.startswith(homes[package])}
    assert elsewhere == {"CallLog", "CallSearch", "SIPGateway", "TelnyxGateway", "TwilioGateway", "Webhooks"}


def test_with_the_core_alone_a_whole_call_runs(bare: Path) -> None:
    code = """if True:
        from dialog import Agent
        from dialog.testing.doubles import HummingTTS, ToldSTT
        from dialog.testing.virtual import run_virtual
        from dialog.voip.memory import memory_call

        class Echo(Agent):
            async def inference(self, message):
                yield f"You said: {message.data}"

        stt, tts = ToldSTT(), HummingTTS()

        async def scenario(clock):
            call, line = memory_call(lambda voip: Echo(voip=voip, stt=stt, tts=tts).activate(), clock=clock)
            turn = stt.heard("hello")
            await clock.sleep(5)
            print(tts.texts[turn, 0])
            line.hang_up()
            await call.wait_closed()

        run_virtual(scenario)
    """
    done = run(bare, "-c", code)
    assert (done.returncode, done.stdout.strip()) == (0, "You said: hello"), done.stderr


@pytest.mark.parametrize("arguments", [["--help"], ["doctor"], ["demo"]])
def test_with_the_core_alone_the_command_line_says_in_one_line_what_is_missing(
    bare: Path, arguments: list[str]
) -> None:
    done = run(bare, "-m", "dialog", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "dialog: typer is not installed: pip install 'dialog[cli]'\n"


def test_with_the_command_line_alone_the_check_up_names_every_extra_that_is_missing(with_cli: Path) -> None:
    done = run(with_cli, "-m", "dialog", "doctor", "--local")
    assert (done.returncode, done.stderr) == (1, "")
    for extra in ("twilio", "local", "testing"):
        assert f"pip install 'dialog[{extra}]'" in done.stdout
    assert "dialog[cli]" not in done.stdout


@pytest.mark.parametrize(("command", "extra"), [("demo", "local"), ("call", "testing")])
def test_with_the_command_line_alone_a_command_names_the_extra_that_it_needs(
    with_cli: Path, command: str, extra: str
) -> None:
    arguments = ["http://127.0.0.1:1/"] if command == "call" else []
    done = run(with_cli, "-m", "dialog", command, *arguments)
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(rf"error \w+ is not installed: pip install 'dialog\[{extra}\]'\n", done.stderr)


def test_what_names_the_version_names_the_same(wheel: Path) -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == dialog.__version__
    assert f"dialog-{dialog.__version__}-py3-none-any.whl" == wheel.name


def test_workflows_run_what_is_there() -> None:
    """A fork's pipeline fails at once if a step names a script, an extra or a command that is gone."""
    extras = set(distribution("dialog").metadata.get_all("Provides-Extra") or ())
    steps = [
        step.get("run", "")
        for path in sorted((ROOT / ".github" / "workflows").glob("*.yml"))
        for job in yaml.safe_load(path.read_text())["jobs"].values()
        for step in job["steps"]
    ]
    script = "\n".join(steps)
    named = {extra for group in re.findall(r"\[([a-z,]+)\]", script) for extra in group.split(",")}
    assert named
    assert named <= extras
    assert "bash .ci/run" in steps
    assert (ROOT / ".ci" / "run").is_file()

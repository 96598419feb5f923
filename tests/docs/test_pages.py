"""What the pages name exists: links, commands, files, modules, extras, settings."""

from __future__ import annotations

import importlib
import pkgutil
import re
import tomllib
from pathlib import Path

import pytest
import typer

import dialog
from dialog.cli.app import app
from dialog.cli.new import FILES

ROOT = Path(__file__).parents[2]
PAGES = [
    *sorted(ROOT.glob("*.md")),
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "examples").glob("*/README.md")),
    ROOT / "benchmarks" / "README.md",
    (PROJECT_PAGE := ROOT / "dialog" / "cli" / "project" / "README.md.txt"),
]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]

every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def slug(heading: str) -> str:
    """The anchor of a heading, as GitHub and MyST make it."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


@every_page
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", file.read_text(), re.MULTILINE)
            assert anchor in map(slug, headings), target


@every_page
def test_commands_exist(page: Path) -> None:
    text = page.read_text()
    makefiles = [ROOT / "Makefile", PROJECT_PAGE.with_name("Makefile.txt")]
    if page == PROJECT_PAGE:
        makefiles.pop(0)
    targets = {name for file in makefiles for name in re.findall(r"^([a-z-]+):", file.read_text(), re.MULTILINE)}
    # Prose may "make sure"; a command stands at the start of a line or of a code span.
    for target in re.findall(r"(?:^ *|`)make ([a-z-]+)", text, re.MULTILINE):
        assert target in targets, f"make {target}"
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    for name, rest in re.findall(r"python -m dialog ([a-z]+)([^`\n]*)", text):
        assert name in commands, name
        known = {option for parameter in commands[name].params for option in parameter.opts}
        for option in re.findall(r"--[a-z-]+", rest):
            assert option in known, f"{name} {option}"


@every_page
def test_extras_exist(page: Path) -> None:
    text = page.read_text()
    for names in re.findall(r"dialog\[([a-z,]+)\]", text):
        assert set(names.split(",")) <= set(EXTRAS), names


@every_page
def test_files_and_modules_exist(page: Path) -> None:
    text = page.read_text()
    for name in re.findall(r"`((?:dialog|docs|tests|examples|benchmarks)/[\w./-]*\w)`", text):
        assert name in FILES if page == PROJECT_PAGE else (ROOT / name).exists(), name
    for name in re.findall(r"`(dialog(?:\.\w+)+)", text):
        resolve(name)


def resolve(name: str) -> object:
    """What a dotted name names: a module, or something in one."""
    parts = name.split(".")
    value: object = dialog
    for number, part in enumerate(parts[1:], 2):
        if not hasattr(value, part):
            importlib.import_module(".".join(parts[:number]))
        value = getattr(value, part)
    return value


def test_the_readmes_commands_to_go_live_can_be_typed() -> None:
    (block,) = re.findall(r"^```sh\n(cd .*?)^```$", (ROOT / "README.md").read_text(), re.DOTALL | re.MULTILINE)
    cd, copy, run = (line.split("#")[0].split() for line in block.splitlines())
    directory = ROOT / cd[1]
    assert cd[0] == "cd"
    assert copy[:2] == ["cp", ".env.template"]
    assert (directory / ".env.template").is_file()
    assert run[0] == "python"
    assert (directory / run[1]).is_file()


# The reference has every module that its readers import from.

REFERENCE = (ROOT / "docs" / "reference.md").read_text()
LISTED = re.findall(r"^\.\. automodule:: (\S+)$", REFERENCE, re.MULTILINE)
INTERNAL = re.compile(
    r"""dialog\.(
        __main__ | _\w+ | version | watchdog | cli\..* | \w+\._\w+ | calls\.(page_numbers | stages | tracer) | checks | recent |
        schemas |
        agent\.(
            alignment | briefing | callerwords | cascade | claim | clienttools | clips | conversation | decider | driver | ears | endings | engine | filler | heard | host |
            ledger | mcptools | menus | mode | modelparts | modelvoice | mouth | ownvoice | parting | patience | reach | realtime | recorded | responder | resume | resumer |
            scribe | scripts\.waiting | speakers | speakingmodel | streams | textcall | thinking | threads | toolrunner | toolschema | turn |
            vadmode | voices
        ) |
        workers\.(
            blocked | child | cover | directory | fabric | fleetpeers | faults | host | hosted | link | natsclient | ordered |
            peerframes | process | relay | search | sockets | sources | stream | ticker | worker
        ) |
        server\.(channels | limits | process | api\..* | console\..*) |
        agent\.shaping\.(numbers | pieces | rules | sentences) |
        agent\.turns\.(
            completeness | decisions | endpointer | floor | interruption | running | signals | silence | speculation |
            taking | wording
        ) |
        answers\.words |
        audio\.(keys | noise_floor | pcm) |
        llm\.(chat | continuation | decoding | messages | refusals | response_events | sse | transport) |
        mcp\.(connection | results | sdk) |
        providers\.builtin |
        s2s\.(deepgram_wire | elevenlabs_wire | gemini_wire | memory | realtime_wire | replying | timers) |
        stt\.(azure_wire | member | openai_items | openai_wire | seam | telling | watchdog) |
        tts\.(chain | coverage | siblings) |
        net\.(asgi | azure | bodies | connections | cutoff | frames | http1 | listening | malformed | options | origins | presence | retryafter | sentaudio | websocket) |
        testing\.(
            call | carrier | carrier_stream | dialects | exotel_dialect | plivo_dialect | evaluate_stage | evaluate_talks | facts | heard | hearing | media | model | stream | textline |
            telnyx_call | tone | twilio_(calls | messages | recordings | requests | transcriptions) | twiml
        ) |
        testing\.load_(
            caller | dialler | fleet | hosts | metronome | page | plots | speech | stream | talk
        ) |
        testing\.scenario_(case | check | interrupting | leaving | listening | providers | run | sound | working) |
        calls\.store\.(buffer | database | fold | keeping | sql | migrations(\..+)? | tables | writing) |
        calls\.delivery\.(courier | plain | vapi) |
        telemetry\.(callmetrics | calltrace | labels | otel | prometheus | spans) |
        vad\.played |
        weak |
        voip\.(
            aiosocket | asgisocket | bed | belongings | closing | consults | direct | inbox | lifecycle | line | lineclock | lineops | link | listeners | pacer | part |
            played | playout | rescues | wires | wrapup
        ) |
        voip\.carrier\.(?!gateway$)\w+ |
        voip\.streams\.(?!(gateway | voip)$)\w+ |
        voip\.telnyx\.(?!(gateway | voip)$)\w+ |
        voip\.twilio\.(?!(gateway | twiml | voip)$)\w+ |
        voip\.sip\.(?!(gateway | voip)$)\w+ |
        voip\.web\.(?!(gateway | messages | tokens | voip)$)\w+ |
        voip\.web\.rtc\.(?!settings$)\w+
    )""",
    re.VERBOSE,
)
"""Modules that a program has no reason to import."""


def test_the_reference_lists_every_public_module() -> None:
    packages = {"dialog"}
    modules = set()
    for info in pkgutil.walk_packages(dialog.__path__, "dialog."):
        (packages if info.ispkg else modules).add(info.name)
    public = {name for name in modules if not INTERNAL.fullmatch(name)}
    assert sorted(public - set(LISTED)) == []
    assert sorted(set(LISTED) - modules - packages) == []
    assert len(LISTED) == len(set(LISTED))


def test_what_the_package_exports_comes_from_listed_modules() -> None:
    for name in dialog.__all__:
        home = f"dialog.{dialog._HOMES[name]}"
        assert home in LISTED, f"{name} is documented nowhere: {home}"
        assert getattr(getattr(dialog, name), "__module__", home) == home


def test_the_documentation_has_every_page_in_its_contents() -> None:
    index = (ROOT / "docs" / "index.md").read_text()
    named = set(re.search(r"```\{toctree\}\n(?::.*\n)*\n(.*?)```", index, re.DOTALL)[1].split())
    assert named == {page.stem for page in (ROOT / "docs").glob("*.md")} - {"index"}


def test_every_feature_has_its_page_and_its_tests() -> None:
    rows = re.findall(
        r"^\| ([A-Z]\d+(?:\u2013[A-Z]\d+)?) \|(.*)\|$", (ROOT / "docs" / "features.md").read_text(), re.MULTILINE
    )
    named = set()
    for row, text in rows:
        letter, first, *last = re.findall(r"[A-Z]|\d+", row.replace("\u2013", " "))[:2] + re.findall(
            r"\u2013[A-Z](\d+)", row
        )
        named |= {f"{letter}{number}" for number in range(int(first), int(last[0] if last else first) + 1)}
        assert re.search(r"\]\(\S+\.md\)", text), row
        assert re.search(r"`tests/\S+\.py`", text), row
    counts = {"D": 21, "S": 13, "V": 13, "O": 10, "U": 6, "E": 20}
    assert named == {f"{letter}{number}" for letter, count in counts.items() for number in range(1, count + 1)}

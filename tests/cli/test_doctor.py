from __future__ import annotations

import io
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from rich.console import Console

from dialog.cli import doctor
from dialog.voip.twilio.gateway import TwilioGateway

SID = "AC" + "0" * 32
GOOD = {
    "TWILIO_ACCOUNT_SID": SID,
    "TWILIO_AUTH_TOKEN": "t0ken-of-twilio",
    "OPENAI_API_KEY": "sk-0penai",
    "DEEPGRAM_API_KEY": "k-deepgram",
    "CARTESIA_API_KEY": "k-cartesia",
    "WEBHOOK_URL": "https://voice.test/twilio",
}


def wrong(env: dict[str, str]) -> dict[str, str]:
    return {f.what: f"{f.detail} → {f.fix}" for f in doctor.check_environment(env) if f.state == "wrong"}


async def examined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, env: dict[str, str], *, local: bool = False):
    for name in (*GOOD, "PORT", "CERT_FILE", "KEY_FILE"):
        monkeypatch.delenv(name, raising=False)
    file = tmp_path / ".env"
    file.write_text("".join(f"{name}={value}\n" for name, value in env.items()))
    out = io.StringIO()
    code = await doctor.run_doctor(Console(file=out, width=160), env_file=file, local=local)
    return code, out.getvalue()


async def test_a_gateway_that_runs_with_good_settings_is_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gateway = TwilioGateway(account_sid=SID, auth_token="t")
    async with TestServer(gateway.app()) as server:
        url = str(server.make_url("/twilio"))
        code, text = await examined(tmp_path, monkeypatch, {**GOOD, "WEBHOOK_URL": url})
    assert (code, "All that is needed is there." in text) == (0, True)
    assert "a gateway is there" in text
    assert "nobody else reaches it" in text
    for name, value in GOOD.items():
        assert name == "WEBHOOK_URL" or value not in text  # keys are never shown


async def test_nothing_set_says_what_to_do_about_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code, text = await examined(tmp_path, monkeypatch, {})
    assert code == 1
    assert "6 to put right." in text
    for name in GOOD:
        assert name in text


async def test_the_demo_needs_no_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code, text = await examined(tmp_path, monkeypatch, {}, local=True)
    assert (code, "TWILIO" in text) == (0, False)


def test_settings_that_look_wrong_are_told_apart() -> None:
    assert wrong(GOOD) == {}
    assert "32 hexadecimal" in wrong({**GOOD, "TWILIO_ACCOUNT_SID": "SK123"})["TWILIO_ACCOUNT_SID"]
    assert "quotes" in wrong({**GOOD, "OPENAI_API_KEY": '"sk"'})["OPENAI_API_KEY"]
    assert "https://" in wrong({**GOOD, "WEBHOOK_URL": "http://voice.test/twilio"})["WEBHOOK_URL"]
    assert "is no address" in wrong({**GOOD, "WEBHOOK_URL": "voice.test"})["WEBHOOK_URL"]
    assert "is an example" in wrong({**GOOD, "WEBHOOK_URL": "https://voice.example.com/twilio"})["WEBHOOK_URL"]
    assert "emergency" in wrong({**GOOD, "LOG_LEVEL": "verbose"})["LOG_LEVEL"]
    assert wrong({**GOOD, "WEBHOOK_URL": "http://127.0.0.1:8080/twilio"}) == {}
    assert "65535" in wrong({**GOOD, "PORT": "70000"})["PORT"]
    assert "only one" in wrong({**GOOD, "CERT_FILE": "cert.pem"})["TLS"]
    assert "cert.pem" in wrong({**GOOD, "CERT_FILE": "cert.pem", "KEY_FILE": "none.pem"})["TLS"]
    assert "is no address" in wrong({**GOOD, "OPENAI_BASE_URL": "localhost:1"})["OPENAI_BASE_URL"]


def test_a_base_url_is_shown_without_its_credentials() -> None:
    findings = doctor.check_environment({**GOOD, "OPENAI_BASE_URL": "https://me:secret@llm.example/v1"})
    (shown,) = [f.detail for f in findings if f.what == "OPENAI_BASE_URL"]
    assert shown.startswith("https://llm.example ")


@pytest.mark.parametrize(
    ("status", "hint"),
    [
        (200, "unsigned"),
        (302, "final address"),
        (401, "login"),
        (404, "nothing at /voice"),
        (502, "start main.py"),
        (500, "answered 500"),
    ],
)
async def test_what_answers_instead_of_a_gateway_is_explained(status: int, hint: str) -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(status=status, headers={"Location": "/other"})

    app = web.Application()
    app.router.add_post("/voice", answer)
    async with TestServer(app) as server:
        finding = await doctor.check_url(str(server.make_url("/voice")))
    assert finding.state == "wrong"
    assert hint in finding.detail + finding.fix


async def test_nobody_there_is_not_a_crash() -> None:
    async with TestServer(web.Application()) as server:
        url = str(server.make_url("/voice"))
    finding = await doctor.check_url(url)
    assert (finding.state, "start main.py" in finding.fix) == ("wrong", True)


def test_a_missing_package_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    found = doctor._version
    monkeypatch.setattr(doctor, "_version", lambda name: "" if name in ("twilio", "cartesia") else found(name))
    findings = {f.what: f for f in doctor.check_packages(local=False)}
    assert findings["extra twilio"].state == "wrong"
    assert findings["extra twilio"].fix == "pip install 'dialog[twilio]'"
    assert findings["extra cartesia"].state == "note"  # only its look-ups need the SDK


def test_only_packages_for_this_python_and_system_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    assert doctor.packages_of("cli") == ["rich", "typer"] or set(doctor.packages_of("cli")) == {"rich", "typer"}
    assert "uvloop" in doctor.packages_of("fast")
    monkeypatch.setattr(doctor.sys, "platform", "win32")
    assert doctor.packages_of("fast") == []

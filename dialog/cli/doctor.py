"""A check-up: is everything there that a real call needs, and what to do about what is not."""

from __future__ import annotations

import re
import ssl
import sys
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Literal, NamedTuple
from urllib.parse import urlsplit

import aiohttp
from rich.console import Console
from rich.table import Table
from rich.text import Text

from dialog.env import read_env
from dialog.errors import ConfigurationError
from dialog.providers.builtin import DEFAULTS, Kind
from dialog.providers.variables import VARIABLES, Variable, configured, fault, value_of

__all__ = ["Finding", "check_environment", "check_packages", "check_url", "run_doctor"]

State = Literal["ok", "note", "wrong"]
_LOOKS: dict[State, tuple[str, str]] = {"ok": ("✓", "green"), "note": ("·", "yellow"), "wrong": ("✗", "bold red")}
_TIMEOUT_S = 8.0
_OLDEST = (3, 11)
_EXTRAS = ("twilio", "openai", "deepgram", "cartesia", "mcp", "audio", "local", "silero", "cli", "fast", "testing")
_NEEDED = {False: ("twilio", "audio", "cli"), True: ("local", "cli", "twilio", "testing")}
"""Extras without which a call on the phone (``False``) or the demo (``True``) does not work."""
_CHAIN: tuple[Kind, ...] = ("gateway", "stt", "llm", "tts")
"""A call on the phone needs one of each."""


class Finding(NamedTuple):
    """One thing that was looked at."""

    state: State
    what: str
    detail: str
    fix: str = ""
    """What to do about it."""


async def run_doctor(console: Console, *, env_file: Path, local: bool = False) -> int:
    """Look at everything and print it; returns 1 if something that is needed is missing or wrong."""
    findings = [check_python(), *check_packages(local=local)]
    if not local:
        try:
            env = read_env(env_file)
        except ConfigurationError as exc:
            findings.append(Finding("wrong", str(env_file), str(exc)))
        else:
            findings.append(_env_file(env_file))
            findings += check_environment(env)
            if any(finding.what == "WEBHOOK_URL" and finding.state != "wrong" for finding in findings):
                findings.append(await check_url(env["WEBHOOK_URL"]))
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for column in ("", "what", "detail"):
        table.add_column(column, overflow="fold")
    for finding in findings:
        sign, style = _LOOKS[finding.state]
        detail = Text(finding.detail)
        if finding.fix:
            detail.append(f"\n→ {finding.fix}", style)
        table.add_row(Text(sign, style), Text(finding.what, "bold"), detail)
    console.print(table)
    wrong = sum(finding.state == "wrong" for finding in findings)
    console.print()
    if not wrong:
        console.print(Text("All that is needed is there.", "bold green"))
        return 0
    console.print(Text(f"{wrong} to put right.", "bold red"))
    if not local:
        console.print("The demo needs none of the keys: python -m dialog demo", highlight=False)
    return 1


def check_python() -> Finding:
    """Whether this Python will do."""
    found = ".".join(str(part) for part in sys.version_info[:3])
    if sys.version_info[:2] < _OLDEST:  # pip sees to it, but the package may have been copied
        return Finding("wrong", "Python", found, f"Dialog needs {_OLDEST[0]}.{_OLDEST[1]} or newer")
    return Finding("ok", "Python", found)


def check_packages(*, local: bool) -> list[Finding]:
    """Which extras are installed, with their versions."""
    findings: list[Finding] = []
    for extra in _EXTRAS:
        needed = extra in _NEEDED[local]
        if local and not needed:
            continue
        names = packages_of(extra)
        versions = {name: _version(name) for name in names}
        missing = [name for name, found in versions.items() if not found]
        detail = ", ".join(f"{name} {found or 'is missing'}" for name, found in versions.items())
        if missing:
            state: State = "wrong" if needed else "note"
            findings.append(Finding(state, f"extra {extra}", detail, f"pip install 'dialog[{extra}]'"))
        else:
            findings.append(Finding("ok", f"extra {extra}", detail or "nothing to install on this Python"))
    return findings


def packages_of(extra: str) -> list[str]:
    """The packages of an extra of Dialog that this Python and system would get."""
    try:
        lines = requires("dialog") or []
    except PackageNotFoundError:
        return []
    names: list[str] = []
    for line in lines:
        requirement, _, marker = line.partition(";")
        if f"extra == '{extra}'" not in marker.replace('"', "'") or not _applies(marker):
            continue
        name = re.match(r"[A-Za-z0-9._-]+", requirement)
        if name is not None and name[0] != "dialog":
            names.append(name[0])
    return names


def _applies(marker: str) -> bool:
    """Whether the part of an environment marker that Dialog uses is true here."""
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    wanted = re.findall(r"python_version\s*==\s*['\"]([\d.]+)['\"]", marker)
    if wanted and python not in wanted:
        return False
    return not (sys.platform == "win32" and re.search(r"sys_platform\s*!=\s*['\"]win32['\"]", marker))


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def _env_file(path: Path) -> Finding:
    if path.is_file():
        return Finding("ok", "settings", f"the environment, completed by {path}")
    return Finding("note", "settings", f"the environment only; there is no {path}")


def check_environment(env: Mapping[str, str]) -> list[Finding]:
    """Whether the settings that Dialog knows are there and look right. Values of keys are never shown."""
    findings = [finding for variable in VARIABLES for finding in _variable(env, variable)]
    return [*findings, *_tls(env)]


def _variable(env: Mapping[str, str], variable: Variable) -> Iterable[Finding]:
    name, value = variable.name, value_of(env, variable)
    wrong = fault(variable, value) if value else None
    if wrong is not None:
        yield Finding("wrong", name, wrong.problem, wrong.fix)
    elif name == "WEBHOOK_URL":
        yield _webhook_url(variable, value)
    elif name == "PORT":
        yield Finding("ok", name, value or f"{variable.default}, by default")
    elif value and variable.form == "url":
        parts = urlsplit(value)
        yield Finding("note", name, f"{parts.scheme}://{parts.netloc.rpartition('@')[2]} instead of the provider's own")
    elif value and (variable.needed or variable.secret):
        yield Finding("ok", name, "is set")
    elif not value and variable.needed:
        yield from _missing(env, variable)
    others = [other for other in variable.aliases if env.get(other) and env[other] != value]
    if others and env.get(name):
        yield Finding("note", name, f"is used; {' and '.join(others)}, which mean the same, differ", "keep one of them")


def _missing(env: Mapping[str, str], variable: Variable) -> Iterable[Finding]:
    """A key is not set. That is wrong where a default provider of a phone call needs it, and nothing replaces it."""
    kinds = _needed_by(variable)
    if not kinds:
        return
    fix = f"the {variable.what}; put it into .env or the environment"
    others = [other for other in VARIABLES if other.needed and not _needed_by(other) and value_of(env, other)]
    instead = {kind: other.name for other in others for kind, _, _ in configured(other)}
    if kinds <= instead.keys():
        names = " and ".join(sorted({instead[kind] for kind in kinds}))
        yield Finding("note", variable.name, f"is not set, but {names} is", fix)
    else:
        yield Finding("wrong", variable.name, "is not set", fix)


def _needed_by(variable: Variable) -> set[Kind]:
    """The kinds of provider in a phone call whose default one cannot do without it."""
    return {kind for kind, provider, _ in configured(variable) if kind in _CHAIN and DEFAULTS[kind] == provider}


def _webhook_url(variable: Variable, value: str) -> Finding:
    parts = urlsplit(value)
    host = parts.hostname or ""
    if not value:
        return Finding("wrong", variable.name, "is not set", f"the {variable.what}")
    if host.endswith((".example", "example.com", "example.org", "example.net")):
        return Finding("wrong", variable.name, f"{value} is an example", f"the {variable.what}")
    if _is_local(host):
        return Finding("note", variable.name, value, f"nobody else reaches it; for calls: the {variable.what}")
    if parts.scheme == "http":
        return Finding("wrong", variable.name, value, "Twilio's media streams need https://")
    return Finding("ok", variable.name, value)


def _is_local(host: str) -> bool:
    return host == "localhost" or host.startswith("127.") or host == "::1"


def _tls(env: Mapping[str, str]) -> Iterable[Finding]:
    cert, key = env.get("CERT_FILE", ""), env.get("KEY_FILE", "")
    if not cert and not key:
        return
    if not cert or not key:
        yield Finding("wrong", "TLS", "only one of CERT_FILE and KEY_FILE is set", "set both, or none behind a proxy")
        return
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert, key)
    except (OSError, ssl.SSLError) as exc:
        yield Finding("wrong", "TLS", f"{cert} and {key}: {exc}", "PEM files that belong together and can be read")
    else:
        yield Finding("ok", "TLS", f"{cert} and {key} belong together")


async def check_url(url: str) -> Finding:
    """Whether the voice webhook can be reached from here, and whether a gateway answers.

    An unsigned request costs a gateway nothing: it says 400.
    """
    what = "webhook answers"
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_TIMEOUT_S)) as session,
            session.post(url, data={"CallSid": "CA" + "0" * 32}, allow_redirects=False) as response,
        ):
            return _answered(what, url, response.status)
    except aiohttp.InvalidURL:
        return Finding("wrong", what, f"{url} is no address", "write https://voice.example/twilio")
    except aiohttp.ClientConnectorCertificateError as exc:
        return Finding("wrong", what, f"the certificate is refused: {exc.certificate_error}", "Twilio refuses it, too")
    except TimeoutError:
        return Finding("wrong", what, f"no answer within {_TIMEOUT_S:g} s", "is the tunnel or the firewall open?")
    except (aiohttp.ClientError, OSError) as exc:
        return Finding("wrong", what, f"cannot be reached: {exc}", "start main.py, and the tunnel in front of it")


def _answered(what: str, url: str, status: int) -> Finding:
    path = urlsplit(url).path or "/"
    if status == 400:
        return Finding("ok", what, "a gateway is there, and refuses what is not signed")
    if status in (401, 403):
        return Finding("wrong", what, f"answered {status}", "something in front asks for a login: let Twilio pass")
    if status == 404:
        return Finding("wrong", what, f"answered 404: there is nothing at {path}", "the path has to be the gateway's")
    if status in (502, 503, 504, 530):
        return Finding(
            "wrong", what, f"the proxy or tunnel answered {status}", "nothing listens behind it: start main.py"
        )
    if 300 <= status < 400:
        return Finding("wrong", what, f"redirects ({status})", "a redirect breaks signatures: use the final address")
    if status == 200:
        return Finding("wrong", what, "takes unsigned requests", "no gateway of Dialog's, or its validation is off")
    return Finding("wrong", what, f"answered {status}", "a gateway answers 400 to what is not signed")

"""The files that browsers get of the console, and what these may do there."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from functools import cache
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Final

__all__ = ["FILES", "content_type", "file", "headers", "page", "sign_in_page"]

_TYPES: Final = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
_HERE: Final = Path(__file__).parent / "static"
# The jitter buffer of the talk page plays what is listened to.
_TALK: Final = Path(str(files("dialog"))) / "web" / "static"
FILES: Final[Mapping[str, Path]] = {
    **{each.name: each for each in _HERE.iterdir() if each.suffix in _TYPES},
    "dialog-audio.js": _TALK / "dialog-audio.js",
    "icon.svg": _TALK / "talk.svg",
}
"""By their names in a path."""
_HOST: Final = re.compile(r"[\w.:\[\]-]+")


def page(base: str, *, name: str, may_act: bool) -> bytes:
    """The console, for somebody who has signed in with the token ``name``."""
    return _template("console.html").substitute(
        base=escape(base), name=escape(name), act="yes" if may_act else "no"
    ).encode()  # fmt: skip


def sign_in_page(base: str, problem: str = "") -> bytes:
    """The form that asks for a token."""
    shown = f'<p class="problem" role="alert">{escape(problem)}</p>' if problem else ""
    return _template("sign-in.html").substitute(base=escape(base), problem=shown).encode()


def content_type(name: str) -> str:
    """Of a file."""
    return f"{_TYPES[Path(name).suffix]}; charset=utf-8"


@cache
def file(name: str) -> tuple[bytes, str]:
    """A file and its entity tag."""
    data = FILES[name].read_bytes()
    return data, f'"{hashlib.sha256(data).hexdigest()[:32]}"'


def headers(host: str) -> tuple[tuple[str, str], ...]:
    """What keeps a page to itself: nothing from elsewhere, no inline script, in nobody's frame."""
    host = host if _HOST.fullmatch(host) else ""
    sockets = f" ws://{host} wss://{host}" if host else ""  # not all browsers count them as 'self'
    policy = (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; worker-src 'self'; media-src blob:; "
        f"connect-src 'self'{sockets}; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    )
    return (
        ("Content-Security-Policy", policy),
        ("Permissions-Policy", "microphone=(), camera=(), geolocation=()"),
        ("Referrer-Policy", "same-origin"),
        ("X-Content-Type-Options", "nosniff"),
        ("Cross-Origin-Opener-Policy", "same-origin"),
        ("Cache-Control", "no-store"),
    )


@cache
def _template(name: str) -> Template:
    return Template((_HERE / name).read_text("utf-8"))

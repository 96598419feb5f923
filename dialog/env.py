r"""Settings of a program from its environment and a ``.env`` file.

The library itself takes values and reads no environment; programs such as the examples do::

    env = read_env()
    port = number(env, "PORT", 8080)

The file holds ``NAME=value`` lines. ``export`` in front, blank lines, ``#`` comments and quotes are
understood; a double-quoted value may contain ``\n`` and may span lines. Nothing is expanded.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

from dialog.errors import ConfigurationError

__all__ = ["number", "parse_env", "read_env", "required"]

N = TypeVar("N", int, float)

_LINE = re.compile(
    r"""^[ \t]*(?:export[ \t]+)?(?P<name>[A-Za-z_][A-Za-z0-9_]*)[ \t]*=[ \t]*
    (?:"(?P<double>(?:[^"\\]|\\.)*)"|'(?P<single>[^']*)'|(?P<bare>[^\n]*?))[ \t]*(?:(?<=\s)\#[^\n]*)?$""",
    re.MULTILINE | re.VERBOSE,
)
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r"}


def parse_env(text: str) -> dict[str, str]:
    """The assignments of a ``.env`` file's text; lines that are none are passed over."""
    values: dict[str, str] = {}
    for match in _LINE.finditer(text.replace("\r\n", "\n")):
        if match["double"] is not None:
            value = re.sub(r"\\(.)", lambda m: _ESCAPES.get(m[1], m[1]), match["double"], flags=re.DOTALL)
        else:
            value = match["single"] if match["single"] is not None else match["bare"]
        values[match["name"]] = value
    return values


def read_env(path: str | Path = ".env", environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment, completed by the file at ``path`` if there is one. The environment wins.

    An empty value counts as not given. ``os.environ`` is not changed.

    Raises:
        ConfigurationError: The file is there and cannot be read as UTF-8 text.
    """
    values: dict[str, str] = {}
    file = Path(path)
    if file.is_file():
        try:
            values = parse_env(file.read_text("utf-8"))
        except (OSError, UnicodeDecodeError) as exc:
            raise ConfigurationError(f"{file}: cannot be read: {exc}") from exc
    values.update((os.environ if environ is None else environ).items())
    return {name: value for name, value in values.items() if value}


def required(env: Mapping[str, str], *names: str) -> None:
    """Check that all ``names`` are set, and name all that are missing at once.

    Raises:
        ConfigurationError: Some are missing.
    """
    missing = [name for name in names if not env.get(name)]
    if missing:
        raise ConfigurationError(
            f"not set: {', '.join(missing)}. Set them in the environment or in .env "
            "(.env.template shows how); python -m dialog doctor checks them all"
        )


def number(env: Mapping[str, str], name: str, default: N) -> N:
    """The number that ``name`` is set to, a whole one if ``default`` is; ``default`` where it is not set.

    Raises:
        ConfigurationError: It is no such number.
    """
    value = env.get(name)
    if not value:
        return default
    kind = type(default)
    try:
        found = kind(value)
    except ValueError:
        found = kind(-1)
    if not 0 <= found < math.inf:
        what = {int: "whole number", float: "number"}[kind]
        raise ConfigurationError(f"{name} must be a {what}, 0 or more, got {value!r}")
    return found

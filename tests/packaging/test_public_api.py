"""What users may import and call is written down, so that no change of it goes unnoticed.

After a change that is meant: ``python tests/packaging/test_public_api.py``, and a line in CHANGELOG.md.
"""

from __future__ import annotations

import difflib
import enum
import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path

SNAPSHOT = Path(__file__).with_name("public_api.txt")
PACKAGES = ("dialog", "dialog.testing", "dialog.workers", "dialog.telemetry", "dialog.errors", "dialog.calls.events")


def signature(value: object) -> str:
    """How something is called, without the addresses that defaults may show."""
    try:
        parameters = inspect.signature(value).parameters.values()  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return ""
    shown = []
    for each in parameters:
        name = {each.VAR_POSITIONAL: "*", each.VAR_KEYWORD: "**"}.get(each.kind, "") + each.name
        if each.kind is each.KEYWORD_ONLY:
            name = f"{name}:"
        shown.append(name if each.default is each.empty else f"{name}=")
    return f"({', '.join(shown)})"


def members(name: str, value: type, listed: set[object]) -> Iterator[str]:
    """What a class offers by itself, and by what it inherits from classes of Dialog that are not listed themselves."""
    if issubclass(value, enum.Enum):
        yield from (f"{name}.{each.name}" for each in value)
        return
    for attribute in sorted(dir(value)):
        if attribute.startswith("_"):
            continue
        found = inspect.getattr_static(value, attribute)
        home = next((base for base in value.__mro__ if attribute in vars(base)), value)
        if not home.__module__.startswith("dialog") or (home is not value and home in listed):
            continue
        function = found.__func__ if isinstance(found, classmethod | staticmethod) else found
        yield f"{name}.{attribute}{signature(function) if inspect.isroutine(function) else ''}"


def public() -> str:
    named = {
        f"{package}.{name}": getattr(module, name)
        for package in PACKAGES
        for module in [importlib.import_module(package)]
        for name in sorted(module.__all__)
    }
    listed = {value for value in named.values() if inspect.isclass(value)}
    told: set[object] = set()
    lines: list[str] = []
    for name, value in named.items():
        lines.append(f"{name}{signature(value) if callable(value) else ''}")
        if inspect.isclass(value) and value.__module__.startswith("dialog") and value not in told:
            told.add(value)
            lines += members(name, value, listed)
    return "\n".join(lines) + "\n"


def test_what_is_public_is_what_is_written_down() -> None:
    change = difflib.unified_diff(
        SNAPSHOT.read_text().splitlines(), public().splitlines(), "written down", "now", lineterm="", n=0
    )
    text = "\n".join(change)
    assert not text, (
        f"the public API has changed; if that is meant: python {SNAPSHOT.parent.name}/{Path(__file__).name}\n{text}"
    )


if __name__ == "__main__":
    SNAPSHOT.write_text(public())

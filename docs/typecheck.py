"""Checks the types of the Python in the README and the documentation: ``python docs/typecheck.py``.

Tests run every block; what is wrong in a function that they do not call is found here.
"""

from __future__ import annotations

import sys
from pathlib import Path

from mypy.main import main

ROOT = Path(__file__).parents[1]
OUT = ROOT / "build" / "pages"
# A page's blocks may give a name anew, and leave out annotations that would only be noise.
LENIENT = ("no-redef", "assignment", "no-untyped-def", "type-arg", "misc")


def code_of(page: str) -> str:
    """The Python blocks of a page, each line where it stands there; a page begins with a heading."""
    lines: list[str] = []
    inside = False
    for line in page.splitlines():
        lines.append(line if inside and line != "```" else "")
        inside = line == "```python" or (inside and line != "```")
    lines[0] = f'# mypy: disable-error-code="{",".join(LENIENT)}"'
    return "\n".join(lines) + "\n"


def write_pages() -> list[str]:
    """Write the code of all pages that have any into ``build/pages``, and tell where."""
    OUT.mkdir(parents=True, exist_ok=True)
    written: list[str] = []
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        text = page.read_text()
        if "```python\n" in text:
            file = OUT / f"page_{page.stem.lower().replace('-', '_')}.py"
            file.write_text(code_of(text))
            written.append(str(file))
    return written


if __name__ == "__main__":
    sys.exit(main(args=["--config-file", str(ROOT / "pyproject.toml"), *write_pages()]))

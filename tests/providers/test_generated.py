"""The pages and overloads that are made from the list of providers say what it says now."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
spec = importlib.util.spec_from_file_location("generate", DOCS / "generate.py")
generate = importlib.util.module_from_spec(spec)
spec.loader.exec_module(generate)


@pytest.mark.parametrize("path", generate.MADE, ids=lambda path: path.name)
def test_it_is_up_to_date(path: Path) -> None:
    assert path.read_text("utf-8") == generate.MADE[path](), "run: python docs/generate.py"


def test_every_cell_of_a_table_stays_in_its_column() -> None:
    for page in (generate.environment, generate.providers):
        columns = {}
        for line in page().splitlines():
            if line.startswith("|"):
                columns.setdefault(line.count("|"), []).append(line)
        assert len(columns) <= len(generate.BUILTIN) + 1, page
    assert generate.table(("a",), [("x|y",)]).splitlines()[-1] == "| x&#124;y |"

"""The pages that are made from the code say what it says now."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
spec = importlib.util.spec_from_file_location("generate", DOCS / "generate.py")
generate = importlib.util.module_from_spec(spec)
spec.loader.exec_module(generate)


@pytest.mark.parametrize("page", generate.PAGES)
def test_a_page_is_up_to_date(page: str) -> None:
    assert (DOCS / page).read_text("utf-8") == generate.PAGES[page](), "run: python docs/generate.py"


def test_every_cell_of_a_table_stays_in_its_column() -> None:
    for page, made in generate.PAGES.items():
        columns = {}
        for line in made().splitlines():
            if line.startswith("|"):
                columns.setdefault(line.count("|"), []).append(line)
        assert len(columns) <= len(generate.BUILTIN) + 1, page
    assert generate.table(("a",), [("x|y",)]).splitlines()[-1] == "| x&#124;y |"

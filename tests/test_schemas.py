"""Schemas of types."""

from __future__ import annotations

import msgspec

from dialog.schemas import schemas_of


def test_descriptions_have_no_margin_whatever_the_version_of_msgspec(monkeypatch):
    class Table(msgspec.Struct):
        description: str = "First.\n    Not one."

    made = {
        "Table": {"description": "A table.\n\n    For two.\n    ", "properties": {"description": {"type": "string"}}}
    }
    monkeypatch.setattr(msgspec.json, "schema_components", lambda types, ref_template: (({"$ref": "Table"},), made))
    references, components = schemas_of((Table,), "{name}")
    assert references == ({"$ref": "Table"},)
    assert components["Table"]["description"] == "A table.\n\nFor two."
    assert components["Table"]["properties"] == {"description": {"type": "string"}}

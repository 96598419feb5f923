"""JSON Schemas: of types, and of what a tool takes, with arguments checked against them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from inspect import cleandoc
from typing import Any, TypeAlias, cast

import msgspec

from dialog.errors import MissingExtra

__all__ = ["Problems", "compile_schema", "schemas_of"]

Problems: TypeAlias = Callable[[Mapping[str, Any]], list[str]]
"""What is wrong with arguments, in words for a model; empty: nothing."""

_MOST = 3


def compile_schema(schema: Mapping[str, Any]) -> Problems:
    """Return what finds the faults of arguments; compiling takes milliseconds.

    Raises:
        ValueError: It is not the schema of an object.
        jsonschema.SchemaError: It is no JSON Schema.
        MissingExtra: ``jsonschema`` is not installed.
    """
    try:
        from jsonschema.validators import validator_for  # type: ignore[import-untyped]
        from referencing import Registry
    except ModuleNotFoundError as exc:
        raise MissingExtra("jsonschema", "serve") from exc
    if schema.get("type") != "object":
        raise ValueError("it must be of the type object")
    kind: Any = validator_for(schema)
    kind.check_schema(schema)
    # References lead nowhere but into the schema: nothing is fetched.
    nothing: Any = cast("Any", Registry)()
    validator: Any = kind(schema, registry=nothing)

    def problems(arguments: Mapping[str, Any]) -> list[str]:
        found = sorted(validator.iter_errors(arguments), key=lambda error: list(map(str, error.absolute_path)))
        return [f"{'.'.join(map(str, each.absolute_path)) or 'arguments'}: {each.message}" for each in found[:_MOST]]

    return problems


def schemas_of(types: Iterable[Any], template: str) -> tuple[tuple[dict[str, Any], ...], dict[str, Any]]:
    """As :func:`msgspec.json.schema_components`, with descriptions that have no margin whatever its version.

    Raises:
        TypeError: A type cannot be carried by JSON.
    """
    references, components = msgspec.json.schema_components(types, ref_template=template)
    return tuple(_flush_left(reference) for reference in references), _flush_left(components)


def _flush_left(schema: Any) -> Any:
    if isinstance(schema, dict):
        fields = cast("dict[str, Any]", schema)
        return {
            name: cleandoc(value) if name == "description" and isinstance(value, str) else _flush_left(value)
            for name, value in fields.items()
        }
    if isinstance(schema, list | tuple):
        return [_flush_left(item) for item in cast("Iterable[Any]", schema)]
    return schema

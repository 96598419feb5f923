"""What a tool takes: JSON Schema from a method's signature and docstring, and arguments checked against it."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from types import NoneType
from typing import Annotated, Any, cast, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta, Struct

from dialog.errors import ConfigurationError
from dialog.schemas import Problems, schemas_of

__all__ = ["ArgumentsError", "Parameters", "SchemaArguments", "split_docstring"]

_SECTION = re.compile(r"^(Args|Arguments|Parameters|Returns?|Raises|Yields?|Examples?|Notes?|Note):\s*$")
_ARGUMENT = re.compile(r"^\*{0,2}(\w+)(?:\s*\([^)]*\))?:\s*(.*)$")
_SPHINX = re.compile(r"^:(?:param\s+(?:\S+\s+)?(\w+)|\w+[^:]*):\s*(.*)$")


class ArgumentsError(Exception):
    """The model's arguments do not fit; the text tells the model what does."""


class Parameters:
    """The parameters of one tool.

    Args:
        function: The undecorated function; its first parameter is left out when ``bound``.
        where: Its name, for errors.
        bound: It is called as a method.

    Raises:
        ConfigurationError: A parameter has no annotation, one that JSON cannot carry, or is one of
            ``*args``, ``**kwargs`` and positional-only.
    """

    def __init__(self, function: Callable[..., Any], where: str, *, bound: bool) -> None:
        self.description, described = split_docstring(inspect.getdoc(function) or "")
        try:
            hints = get_type_hints(function, include_extras=True)
        except Exception as exc:  # annotations are code of the user
            raise ConfigurationError(f"tool {where}: its annotations cannot be read ({exc})") from exc
        fields: list[tuple[str, Any, Any]] = []
        self._nullable: set[str] = set()
        self._required: list[str] = []
        for parameter in list(inspect.signature(function).parameters.values())[int(bound) :]:
            hint = hints.get(parameter.name)
            check_parameter(parameter, where)
            if hint is None or hint is NoneType:
                raise ConfigurationError(f"tool {where}: parameter {parameter.name!r} has no type")
            hint = _annotated(hint, described.get(parameter.name, ""))
            if _admits_none(hint):
                self._nullable.add(parameter.name)
            if parameter.default is parameter.empty:
                self._required.append(parameter.name)
                fields.append((parameter.name, hint, msgspec.NODEFAULT))
            else:
                fields.append((parameter.name, hint, parameter.default))
        self.names: tuple[str, ...] = tuple(name for name, _, _ in fields)
        self._struct = _struct(where, fields)
        self._schema = self._read_schema(where, fields)

    @property
    def schema(self) -> str:
        """JSON Schema of the arguments object, the same text in every process."""
        return msgspec.json.encode(self._schema).decode()

    def arguments(self, text: str) -> dict[str, Any]:
        """Return keyword arguments from what the model wrote.

        Texts that hold a number or a truth value are taken for one where the type asks for it, and
        ``null`` for a parameter that has a default and no null means that it was left out.

        Raises:
            ArgumentsError: It is no JSON object, has unknown names, lacks some or has wrong types.
        """
        try:
            raw: Any = msgspec.json.decode(text) if text.strip() else {}
        except (msgspec.DecodeError, RecursionError) as exc:
            raise ArgumentsError(f"the arguments are not valid JSON ({exc})") from exc
        if not isinstance(raw, dict):
            raise ArgumentsError("the arguments must be a JSON object")
        given = cast("dict[str, Any]", raw)
        given = {name: value for name, value in given.items() if value is not None or not self._left_out(name)}
        unknown = [name for name in given if name not in self.names]
        missing = [name for name in self._required if name not in given]
        problems = [f"unknown: {', '.join(unknown)}"] if unknown else []
        problems += [f"missing: {', '.join(missing)}"] if missing else []
        if problems:
            raise ArgumentsError(f"wrong arguments ({'; '.join(problems)}); {self._usage()}")
        try:
            values = msgspec.convert(given, self._struct, strict=False)
        except msgspec.ValidationError as exc:
            reason = str(exc).replace("$.", "").replace("`", "'")
            raise ArgumentsError(f"wrong arguments ({reason}); {self._usage()}") from exc
        return {name: getattr(values, name) for name in given}

    def _left_out(self, name: str) -> bool:
        return name in self.names and name not in self._required and name not in self._nullable

    def _usage(self) -> str:
        if not self.names:
            return "this tool takes none"
        marks = (name if name in self._required else f"{name} (optional)" for name in self.names)
        return f"this tool takes: {', '.join(marks)}"

    def _read_schema(self, where: str, fields: list[tuple[str, Any, Any]]) -> dict[str, Any]:
        try:
            (top,), components = schemas_of((self._struct,), "{name}")
        except (TypeError, NotImplementedError) as exc:
            bad = next((name for name, hint, _ in fields if not _has_schema(hint)), "?")
            raise ConfigurationError(
                f"tool {where}: parameter {bad!r} has a type that JSON cannot carry ({exc})"
            ) from exc
        schema = _plain(top, components, (), where)
        return {
            "type": "object",
            "properties": schema.get("properties", {}),
            "required": schema.get("required", []),
            "additionalProperties": False,
        }


class SchemaArguments:
    """The arguments of a tool that a JSON Schema describes.

    Args:
        problems: What the schema was compiled to.
    """

    def __init__(self, problems: Problems) -> None:
        self._problems = problems

    def arguments(self, text: str) -> dict[str, Any]:
        """Return what the model wrote; ``null`` for what may be left out and cannot be null is left out.

        Raises:
            ArgumentsError: It is no JSON object, or does not fit the schema.
        """
        try:
            raw: Any = msgspec.json.decode(text) if text.strip() else {}
        except (msgspec.DecodeError, RecursionError) as exc:
            raise ArgumentsError(f"the arguments are not valid JSON ({exc})") from exc
        if not isinstance(raw, dict):
            raise ArgumentsError("the arguments must be a JSON object")
        given = cast("dict[str, Any]", raw)
        problems = self._problems(given)
        if problems and None in given.values():
            without = {name: value for name, value in given.items() if value is not None}
            if not (problems := self._problems(without)):
                return without
        if problems:
            raise ArgumentsError(f"wrong arguments ({'; '.join(problems)})")
        return given


def check_parameter(parameter: inspect.Parameter, where: str) -> None:
    """Refuse what no model can fill.

    Raises:
        ConfigurationError: It is variadic or positional-only, or has no annotation.
    """
    if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
        raise ConfigurationError(f"tool {where}: parameter {str(parameter)!r} must be an ordinary or keyword-only one")
    if parameter.annotation is parameter.empty:
        raise ConfigurationError(f"tool {where}: parameter {parameter.name!r} has no type annotation")


def split_docstring(text: str) -> tuple[str, dict[str, str]]:
    """Return what a docstring says in general, and what it says of each argument.

    Sections in Google's style and ``:param name:`` fields are understood; what returns and raises
    is for programmers and left out.
    """
    general: list[str] = []
    described: dict[str, str] = {}
    section = name = ""
    indent: int | None = None
    for line in text.splitlines():
        bare = line.strip()
        if match := _SECTION.match(line):
            section, name, indent = match[1], "", None
        elif not section and (match := _SPHINX.match(bare)):
            name = match[1] or ""
            if name:
                described[name] = match[2]
        elif section and bare and not line[0].isspace():
            section, name = "", ""  # the section is over: its lines are indented
            general.append(line)
        elif section in ("Args", "Arguments", "Parameters"):
            if not bare:
                continue
            depth = len(line) - len(line.lstrip())
            indent = depth if indent is None else indent
            match = _ARGUMENT.match(bare) if depth <= indent else None
            if match:
                name = match[1]
                described[name] = match[2]
            elif name:
                described[name] = f"{described[name]} {bare}".strip()
        elif not section and name and line[:1].isspace() and bare:
            described[name] = f"{described[name]} {bare}".strip()
        elif not section:
            name = ""
            general.append(line)
    return "\n".join(general).strip(), described


def _struct(where: str, fields: list[tuple[str, Any, Any]]) -> type[Struct]:
    specs: list[Any] = []
    for name, hint, default in fields:
        if default is msgspec.NODEFAULT:
            specs.append((name, hint))
        elif type(default) in (list, dict, set):
            # Only says that there is one: the function supplies its defaults itself.
            kind: Any = type(cast(object, default))
            specs.append((name, hint, msgspec.field(default_factory=kind)))
        else:
            specs.append((name, hint, default))
    try:
        return msgspec.defstruct("Arguments", specs, kw_only=True)
    except (TypeError, ValueError) as exc:
        raise ConfigurationError(f"tool {where}: its parameters cannot be described ({exc})") from exc


def _annotated(hint: Any, described: str) -> Any:
    """Turn a plain text in ``Annotated``, else the docstring's words, into a description."""
    texts: list[str] = []
    extras: list[Any] = []
    if get_origin(hint) is Annotated:
        hint, *metadata = get_args(hint)
        texts = [item for item in metadata if isinstance(item, str)]
        extras = [item for item in metadata if isinstance(item, Meta)]
    text = texts[0] if texts else described
    if text and not any(extra.description for extra in extras):
        extras.append(Meta(description=text))
    for extra in extras:
        hint = Annotated[hint, extra]
    return hint


def _admits_none(hint: Any) -> bool:
    if get_origin(hint) is Annotated:
        hint = get_args(hint)[0]
    return hint is Any or NoneType in get_args(hint)


def _has_schema(hint: Any) -> bool:
    try:
        msgspec.json.schema(hint)
    except (TypeError, NotImplementedError):
        return False
    return True


def _plain(
    schema: Mapping[str, Any], components: Mapping[str, Any], above: tuple[str, ...], where: str
) -> dict[str, Any]:
    """Return a schema without references and generated titles, in which objects take nothing unknown."""
    if "$ref" in schema:
        name = schema["$ref"]
        if name in above:
            raise ConfigurationError(f"tool {where}: the type {name} contains itself, which a tool's schema cannot say")
        rest = {key: value for key, value in schema.items() if key != "$ref"}
        return _plain({**components[name], **rest}, components, (*above, name), where)

    def inner(part: Any) -> Any:
        return _plain(cast("dict[str, Any]", part), components, above, where) if isinstance(part, dict) else part

    out: dict[str, Any] = {}
    for key, value in schema.items():
        if key == "title":
            continue
        if key == "properties":
            out[key] = {name: inner(part) for name, part in value.items()}
        elif key in ("anyOf", "prefixItems"):
            out[key] = [inner(part) for part in value]
        elif key in ("items", "additionalProperties"):
            out[key] = inner(value)
        else:
            out[key] = value
    if "properties" in out:
        out["additionalProperties"] = False
    return out

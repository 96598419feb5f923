"""Tools that are described by a JSON Schema and run by a function, without a class to be methods of."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from dialog.agent.tools import Tool, ToolOptions
from dialog.agent.toolschema import SchemaArguments
from dialog.errors import ConfigurationError
from dialog.llm.llm import ToolSpec
from dialog.schemas import compile_schema
from dialog.toolpolicy import ToolPolicy

if TYPE_CHECKING:
    from dialog.agent.agent import Agent

__all__ = ["schema_tool"]

_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_NOTHING: Mapping[str, Any] = {"type": "object", "properties": {}, "additionalProperties": False}
_POLICY = ToolPolicy()


def schema_tool(
    name: str,
    handler: Callable[[Agent, dict[str, Any]], Any],
    *,
    description: str,
    parameters: Mapping[str, Any] = _NOTHING,
    policy: ToolPolicy = _POLICY,
) -> Tool:
    """A tool for ``Agent(tools=…)``, in text mode and in realtime mode alike.

    ::

        async def book(agent: Agent, arguments: dict[str, Any]) -> str: ...


        book_table = schema_tool(
            "book_table",
            book,
            description="Book a table for today.",
            parameters={"type": "object", "properties": {"people": {"type": "integer"}}, "required": ["people"]},
        )

    Args:
        name: For the model: 1 to 64 letters, digits, ``_`` and ``-``.
        handler: Called with the agent of the call and arguments that fit. An ``async def`` runs on the event loop,
            a plain ``def`` in a thread; what it returns the model is given, as from ``@tool``.
        description: Tells the model what it does and when to use it.
        parameters: JSON Schema of the arguments, of the type ``object``.
        policy: How it runs.

    Raises:
        ConfigurationError: The name or the schema is none, or a plain ``def`` is to be cancelled.
        MissingExtra: ``jsonschema`` is not installed.
    """
    if not _NAME.fullmatch(name):
        raise ConfigurationError(f"tool {name!r}: a name is 1 to 64 letters, digits, _ and -")
    if not description.strip():
        raise ConfigurationError(f"tool {name!r}: the model needs a description")
    is_async = inspect.iscoroutinefunction(handler)
    if policy.on_interrupt == "cancel" and not is_async:
        raise ConfigurationError(f"tool {name!r}: a plain def cannot be cancelled; make it async def")
    try:
        problems = compile_schema(parameters)
    except ConfigurationError:
        raise
    except Exception as exc:  # jsonschema's own errors: it is imported only where a schema is
        why = str(exc).partition("\n")[0]
        raise ConfigurationError(f"tool {name!r}: parameters are no JSON Schema of an object: {why}") from exc

    def call(owner: object, arguments: dict[str, Any]) -> Callable[[], Any]:
        return partial(handler, owner, arguments)  # type: ignore[arg-type]  # tools of an agent are run by it

    return Tool(
        options=ToolOptions(name=name, **msgspec.structs.asdict(policy)),
        spec=ToolSpec(
            name=name,
            description=description.strip(),
            parameters=msgspec.json.encode({"properties": {}, **parameters}).decode(),
        ),
        is_async=is_async,
        parameters=SchemaArguments(problems),
        call=call,
    )

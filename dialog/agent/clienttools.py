"""Tools that run at the caller's client: offered to the model beside the agent's own, and called over the line."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

import msgspec

from dialog.agent.tools import Tool, Toolbox, ToolOptions
from dialog.agent.toolschema import SchemaArguments
from dialog.errors import ClientToolError
from dialog.llm.llm import ToolSpec
from dialog.message import ClientTool
from dialog.voip.link import UseClientTool
from dialog.voip.voip import VoIP

__all__ = ["ClientTools"]


class ClientTools:
    """Puts what a call's client has declared into a toolbox.

    Args:
        toolbox: The agent's.
        voip: The call.
        taken: Told of each name, once, that a tool of the agent or of its servers has already.
    """

    def __init__(self, toolbox: Toolbox, voip: VoIP, taken: Callable[[str], object]) -> None:
        self._taken = taken
        self._telling = False
        self._shadowed: tuple[str, ...] = ()
        self._told: set[str] = set()
        declared = voip.metadata.client_tools
        if declared:
            toolbox.shadowed = self._on_shadowed
            toolbox.offer({each.name: _tool(each, voip) for each in declared}, source="client")

    def tell(self) -> None:
        """From now on tell of names that are taken, beginning with what is known already."""
        self._telling = True
        self._on_shadowed(self._shadowed)

    def _on_shadowed(self, names: tuple[str, ...]) -> None:
        self._shadowed = names
        if not self._telling:
            return
        for name in names:
            if name not in self._told:
                self._told.add(name)
                self._taken(name)


def _tool(declared: ClientTool, voip: VoIP) -> Tool:
    def call(_: object, arguments: dict[str, Any]) -> Callable[[], Coroutine[Any, Any, str]]:
        return partial(_use, voip, declared, msgspec.json.encode(arguments).decode())

    return Tool(
        options=ToolOptions(name=declared.name, timeout_s=declared.timeout_s),
        spec=ToolSpec(
            name=declared.name,
            description=declared.description,
            parameters=msgspec.json.encode({"properties": {}, **declared.parameters}).decode(),
        ),
        is_async=True,
        # A stranger's schema is not run here: a pattern in it could take for ever. Its client checks what it gets.
        parameters=SchemaArguments(lambda _: []),
        call=call,
    )


async def _use(voip: VoIP, declared: ClientTool, arguments: str) -> str:
    answer = await voip.execute(UseClientTool(name=declared.name, arguments=arguments, timeout_s=declared.timeout_s))
    if not isinstance(answer, str):
        raise ClientToolError(f"{declared.name} has no result on this line")
    return answer

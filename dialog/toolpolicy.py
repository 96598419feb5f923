"""How a tool runs, whoever it is of: a method of an agent, or a tool of an MCP server."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from dialog.errors import ConfigurationError

__all__ = ["ToolPolicy"]


class ToolPolicy(Struct, frozen=True, kw_only=True):
    """What holds while a tool runs; the arguments of ``@tool`` mean the same.

    Raises:
        ConfigurationError: A value is out of its range, or two contradict each other.
    """

    timeout_s: float = 10.0
    """Seconds until the model is told that there is no result."""
    on_interrupt: Literal["finish", "cancel"] = "finish"
    """When the caller speaks over the reply: it goes on, or is cancelled."""
    background: bool = False
    """The model goes on at once, and learns of the result in a turn of the agent's own."""
    idempotent: bool = False
    """Running it twice does no harm: it may be asked again when nobody knows whether it has run."""
    safe: bool = False
    """It changes nothing in the world, so it may run for a reply that may be thrown away."""
    filler: str = ""
    """Said once while it runs, if nothing else sounds."""

    def __post_init__(self) -> None:
        if self.timeout_s <= 0:
            raise ConfigurationError(f"timeout_s must be positive, got {self.timeout_s}")
        if self.on_interrupt not in ("finish", "cancel"):
            raise ConfigurationError(f"on_interrupt is 'finish' or 'cancel', got {self.on_interrupt!r}")
        if self.on_interrupt == "cancel" and self.background:
            raise ConfigurationError("a background tool outlives its reply: it cannot stop with it")

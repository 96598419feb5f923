"""Making the gateway that a command line names."""

from __future__ import annotations

from typing import Any, cast

from dialog.errors import ConfigurationError
from dialog.loading import load_target
from dialog.server.serving import Gateway

__all__ = ["make_gateway"]


def make_gateway(target: str) -> Gateway:
    """The gateway that ``module:name`` or ``path/to/file.py:name`` names, or what the function of that name makes.

    To be called on the event loop that will serve it.

    Raises:
        ConfigurationError: There is no such name, or it is and makes no gateway.
    """
    found: Any = load_target(target)
    made: Any = found() if callable(found) and not _is_gateway(found) else found
    if not _is_gateway(made):
        raise ConfigurationError(f"{target} is no gateway and makes none, but {type(made).__name__}")
    return cast("Gateway", made)


def _is_gateway(thing: object) -> bool:
    return all(hasattr(thing, name) for name in ("add_routes", "ready", "drain"))

"""Where a server listens: from the command line, else from the environment and ``.env``."""

from __future__ import annotations

from collections.abc import Mapping

from dialog.errors import ConfigurationError
from dialog.providers.variables import fault, variable

__all__ = ["listen_at"]


def listen_at(env: Mapping[str, str], host: str, port: int | None) -> tuple[str, int]:
    """``host`` and ``port``, or what ``HOST_NAME`` and ``PORT`` say, or all addresses and 8080.

    Raises:
        ConfigurationError: ``PORT`` is no port.
    """
    host = host or env.get("HOST_NAME") or "0.0.0.0"  # noqa: S104 - a server is there to be reached
    if port is not None:
        return host, port
    value = env.get("PORT", "8080")
    wrong = fault(variable("PORT"), value)
    if wrong is not None:
        raise ConfigurationError(f"PORT {wrong.problem} ({wrong.fix})")
    return host, int(value)

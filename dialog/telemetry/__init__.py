"""Figures and traces of calls, for the tools of those who operate a service.

Names are loaded when they are first used, for each needs a package of its own: the extras ``metrics`` and ``otel``.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dialog.telemetry.metrics import Metrics as Metrics
    from dialog.telemetry.tracing import Tracing as Tracing

_HOMES = {"Metrics": "metrics", "Tracing": "tracing"}

__all__ = ["Metrics", "Tracing"]  # pyright: ignore[reportUnsupportedDunderAll]  # loaded by __getattr__


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value

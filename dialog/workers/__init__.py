"""Agents in other processes: of this machine, or of a fleet. The same ``on_voip`` runs everywhere.

Names are loaded when they are first used: a worker needs less than a host.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dialog.workers.fleet import Fleet as Fleet
    from dialog.workers.hosting import HostingSettings as HostingSettings
    from dialog.workers.nats import NatsSettings as NatsSettings
    from dialog.workers.nats import NatsUnavailable as NatsUnavailable
    from dialog.workers.pool import WorkerPool as WorkerPool

_HOMES = {
    "Fleet": "fleet",
    "HostingSettings": "hosting",
    "NatsSettings": "nats",
    "NatsUnavailable": "nats",
    "WorkerPool": "pool",
}

__all__ = [  # pyright: ignore[reportUnsupportedDunderAll]  # loaded by __getattr__
    "Fleet",
    "HostingSettings",
    "NatsSettings",
    "NatsUnavailable",
    "WorkerPool",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value

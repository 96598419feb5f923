"""Options of a provider that its adapter does not know, laid over those that it does. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

__all__ = ["merged"]


def merged(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, Any]:
    """Both; where they differ ``theirs`` win, level by level."""
    both = {**ours, **theirs}
    for name, value in theirs.items():
        own = ours.get(name)
        if isinstance(value, Mapping) and isinstance(own, Mapping):
            both[name] = merged(cast("Mapping[str, Any]", own), cast("Mapping[str, Any]", value))
    return both

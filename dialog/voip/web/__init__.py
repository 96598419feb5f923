"""Calls from browsers, apps and scripts, over a WebSocket protocol of Dialog's own.

Names are loaded when they are first used: an agent in a worker process needs :class:`WebVoIP` and not the gateway.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dialog.voip.web.gateway import WebGateway
    from dialog.voip.web.tokens import SessionTokens
    from dialog.voip.web.voip import WebVoIP

__all__ = ["SessionTokens", "WebGateway", "WebVoIP"]

_HOMES = {"SessionTokens": "tokens", "WebGateway": "gateway", "WebVoIP": "voip"}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value

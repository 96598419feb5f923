"""Calls from browsers, apps and scripts, over a protocol of Dialog's own by WebSocket or WebRTC.

Names are loaded when they are first used: an agent in a worker process needs :class:`WebVoIP` and not the gateway.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dialog.voip.web.gateway import WebGateway
    from dialog.voip.web.rtc.settings import IceServer, WebRTC
    from dialog.voip.web.tokens import SessionTokens
    from dialog.voip.web.voip import WebVoIP

__all__ = ["IceServer", "SessionTokens", "WebGateway", "WebRTC", "WebVoIP"]

_HOMES = {
    "IceServer": "rtc.settings",
    "SessionTokens": "tokens",
    "WebGateway": "gateway",
    "WebRTC": "rtc.settings",
    "WebVoIP": "voip",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value

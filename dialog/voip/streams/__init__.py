"""Calls that carriers bring as a media socket, without webhooks: Plivo, Exotel, and those that speak Twilio's protocol.

Names are loaded when they are first used: an agent in a worker process needs :class:`StreamVoIP` and
not the gateway.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dialog.voip.streams.gateway import StreamGateway
    from dialog.voip.streams.voip import StreamVoIP

__all__ = ["StreamGateway", "StreamVoIP"]

_HOMES = {"StreamGateway": "gateway", "StreamVoIP": "voip"}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value

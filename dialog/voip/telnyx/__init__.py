"""Calls over Telnyx: Call Control webhooks and commands, media streaming.

Names are loaded when they are first used: an agent in a worker process needs :class:`TelnyxVoIP` and
not the gateway.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dialog.voip.telnyx.gateway import TelnyxGateway
    from dialog.voip.telnyx.rest import TelnyxRest
    from dialog.voip.telnyx.voip import TelnyxVoIP

__all__ = ["TelnyxGateway", "TelnyxRest", "TelnyxVoIP"]

_HOMES = {"TelnyxGateway": "gateway", "TelnyxRest": "rest", "TelnyxVoIP": "voip"}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value

"""Calls of a telephone system of your own (Asterisk, FreeSWITCH, a SIP trunk), over SIP and RTP.

Names are loaded when they are first used: an agent in a worker process needs :class:`SIPVoIP` and neither the gateway
nor the ``sipmessage`` package.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dialog.voip.sip.gateway import SIPGateway
    from dialog.voip.sip.voip import SIPVoIP

__all__ = ["SIPGateway", "SIPVoIP"]

_HOMES = {"SIPGateway": "gateway", "SIPVoIP": "voip"}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value

"""Twilio's request signature, written independently of the gateway that checks it.

Source: Twilio, "Webhooks security": base64 of HMAC-SHA1 over the URL and, for a form, every name and
value in the order of the names.
"""

from __future__ import annotations

import hmac
from base64 import b64encode
from collections.abc import Iterable

__all__ = ["sign"]


def sign(auth_token: str, url: str, parameters: Iterable[tuple[str, str]] = ()) -> str:
    """The value of ``X-Twilio-Signature`` for a request of ``url`` with these form ``parameters``."""
    text = url + "".join(name + value for name, value in sorted(set(parameters)))
    return b64encode(hmac.digest(auth_token.encode(), text.encode(), "sha1")).decode()

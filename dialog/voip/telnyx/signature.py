"""Whether a webhook really comes from Telnyx: Ed25519 over its timestamp and body.

The URL takes no part in it, so a proxy in front does not matter.

Source: Telnyx, "Webhook signing".
"""

from __future__ import annotations

import time
from base64 import b64decode
from collections.abc import Callable, Mapping
from typing import Final

from dialog.errors import ConfigurationError, MissingExtra

try:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
except ImportError as exc:
    raise MissingExtra("cryptography", "telnyx") from exc

__all__ = ["SIGNATURE_HEADER", "TIMESTAMP_HEADER", "TelnyxSignature"]

SIGNATURE_HEADER: Final = "telnyx-signature-ed25519"
TIMESTAMP_HEADER: Final = "telnyx-timestamp"
_LIFE_S: Final = 300.0
"""A webhook that was signed longer ago, or that far ahead, may be a replayed one."""


class TelnyxSignature:
    """Checks signatures with the account's public key.

    Raises:
        ConfigurationError: ``public_key`` is not the base64 of 32 bytes.
    """

    def __init__(self, public_key: str, *, time: Callable[[], float] = time.time) -> None:
        try:
            self._key = Ed25519PublicKey.from_public_bytes(b64decode(public_key, validate=True))
        except ValueError as exc:
            raise ConfigurationError(
                "public_key must be the base64 text from the Telnyx portal, under Keys & Credentials, Public Key"
            ) from exc
        self._time = time

    def __repr__(self) -> str:
        return "<TelnyxSignature>"

    def fault(self, headers: Mapping[str, str], body: bytes) -> str:
        """What is wrong with the signature of a webhook; empty: nothing. ``headers`` have lower-case names."""
        timestamp = headers.get(TIMESTAMP_HEADER, "")
        if not timestamp.isdecimal() or len(timestamp) > 12:
            return f"the {TIMESTAMP_HEADER} header is missing or malformed"
        try:
            signature = b64decode(headers.get(SIGNATURE_HEADER, ""), validate=True)
            self._key.verify(signature, timestamp.encode() + b"|" + body)
        except (InvalidSignature, ValueError):
            return f"the {SIGNATURE_HEADER} header does not fit: check the public key"
        if abs(self._time() - int(timestamp)) > _LIFE_S:
            return f"it was signed more than {_LIFE_S:g} s from now: check this machine's clock"
        return ""

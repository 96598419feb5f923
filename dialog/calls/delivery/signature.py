"""Signatures of webhooks, by the convention of Standard Webhooks (https://www.standardwebhooks.com, spec of 2025).

``webhook-signature: v1,<base64 of HMAC-SHA256(key, id + "." + timestamp + "." + body)>``, several of them separated by
spaces while a secret is being changed.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import time
from collections.abc import Callable, Mapping

from dialog.errors import ConfigurationError, DialogError

__all__ = ["WebhookInvalid", "sign_webhook", "verify_webhook"]

_PREFIX = "whsec_"


class WebhookInvalid(DialogError):
    """A request does not come from whoever has the secret, or not from now: answer 401, and do nothing else."""

    code = "webhook_invalid"


def sign_webhook(secrets: tuple[str, ...], message_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """The three headers of a message, signed with each of ``secrets``.

    Raises:
        ConfigurationError: A secret begins with ``whsec_`` and goes on with what is no base64, or is empty.
    """
    signed = b"%s.%d.%s" % (message_id.encode(), timestamp, body)
    signatures = (base64.b64encode(hmac.digest(_key(secret), signed, "sha256")).decode() for secret in secrets)
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(f"v1,{signature}" for signature in signatures),
    }


def verify_webhook(
    secret: str,
    headers: Mapping[str, str],
    body: bytes,
    *,
    tolerance_s: float = 300.0,
    now: Callable[[], float] = time.time,
) -> str:
    """Check that a webhook was signed with ``secret``, not too long ago; for whoever receives it.

    Args:
        secret: As it was given to the :class:`~dialog.calls.delivery.webhooks.WebhookEndpoint`.
        headers: Of the request; upper or lower case does not matter.
        body: Of the request, byte by byte as it came: decode it afterwards.
        tolerance_s: How old, or how far in the future, it may be.
        now: Seconds since 1970.

    Returns:
        The message's id. The same may come again: remember it, and do what it says only once.

    Raises:
        WebhookInvalid: A header is missing or malformed, the time is out of bounds, or no signature fits.
        ConfigurationError: The secret is malformed.
    """
    found = {name.lower(): value for name, value in headers.items()}
    message_id, stamp = found.get("webhook-id", ""), found.get("webhook-timestamp", "")
    if not message_id or not stamp.isascii() or not stamp.isdigit() or len(stamp) > 12:
        raise WebhookInvalid("the webhook has no webhook-id, or no webhook-timestamp that is a number")
    timestamp = int(stamp)
    if abs(now() - timestamp) > tolerance_s:
        raise WebhookInvalid(f"the webhook is of another time: more than {tolerance_s:g} s away")
    expected = sign_webhook((secret,), message_id, timestamp, body)["webhook-signature"].encode()
    given = found.get("webhook-signature", "").encode("utf-8", "replace").split()
    # All are compared, so that the time it takes tells nothing.
    if sum(hmac.compare_digest(expected, each) for each in given[:16]) == 0:
        raise WebhookInvalid("no signature of the webhook fits: another secret, or a body that was changed on its way")
    return message_id


def _key(secret: str) -> bytes:
    key = secret.encode()
    if secret.startswith(_PREFIX):
        try:
            key = base64.b64decode(secret[len(_PREFIX) :], validate=True)
        except binascii.Error as exc:
            raise ConfigurationError("a webhook secret begins with whsec_ and goes on with no base64") from exc
    if not key:
        raise ConfigurationError("a webhook secret is empty")
    return key

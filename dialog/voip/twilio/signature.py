"""Whether a request really comes from Twilio.

The HMAC itself is the official SDK's ``RequestValidator``; this module gives it the URL that Twilio
signed, which behind a proxy is not the URL that the process sees, and turns its odd failures into
two refusals: 400 without a signature, 403 with a wrong one.

Source: Twilio, "Validating requests".
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from dialog.errors import MissingExtra

try:
    from twilio.request_validator import SIGNATURE_SETTINGS_HEADER, RequestValidator, get_signature_algorithm  # type: ignore[import-untyped]
except ImportError as exc:
    raise MissingExtra("twilio", "twilio") from exc

__all__ = ["SIGNATURE_HEADER", "SignatureChecker"]

logger = logging.getLogger(__name__)

SIGNATURE_HEADER: Final = "x-twilio-signature"
_SETTINGS_HEADER: Final = SIGNATURE_SETTINGS_HEADER.lower()


class _Fields(dict[str, list[str]]):
    """Form fields as the validator wants a multidict: repeated names with all their values."""

    def __init__(self, fields: Iterable[tuple[str, str]]) -> None:
        super().__init__()
        for name, value in fields:
            self.setdefault(name, []).append(value)

    def getall(self, name: str) -> list[str]:
        return self[name]


class SignatureChecker:
    """Checks signatures against the current auth token and, during a rotation, the previous one."""

    def __init__(self, *auth_tokens: str) -> None:
        self._validators = tuple(RequestValidator(token) for token in auth_tokens if token)

    def __repr__(self) -> str:
        return f"<SignatureChecker with {len(self._validators)} tokens>"

    def valid(self, urls: Sequence[str], fields: Sequence[tuple[str, str]], headers: Mapping[str, str]) -> bool:
        """Whether the request was signed for one of ``urls`` with one of the tokens.

        Args:
            urls: What Twilio may have been told to request: with scheme, host and raw query, no fragment.
            fields: The decoded form of a POST, with empty values and repeated names; none for a GET or a socket.
            headers: With lower-case names. A missing signature is not valid.
        """
        signature = headers.get(SIGNATURE_HEADER, "")
        algorithm = get_signature_algorithm(headers.get(_SETTINGS_HEADER, ""))
        if not signature or not signature.isascii():
            return False
        form = _Fields(fields)
        for validator in self._validators:
            for url in urls:
                try:
                    if validator.validate(url, form, signature, algorithm):
                        return True
                except Exception as exc:  # the SDK raises TypeError, IndexError, ValueError … on odd input
                    told = url.partition("?")[0].rpartition("@")[2]  # without what only the two sides may know
                    logger.debug("signature of %s could not be computed: %r", told, exc)
        return False

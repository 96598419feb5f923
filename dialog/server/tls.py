"""TLS in the process, where no proxy in front has it."""

from __future__ import annotations

import ssl
from pathlib import Path

from dialog.errors import ConfigurationError

__all__ = ["tls_context"]


def tls_context(cert: str | Path | None, key: str | Path | None) -> ssl.SSLContext | None:
    """The certificate that is served with; ``None`` without one.

    Raises:
        ConfigurationError: It cannot be used.
    """
    if not cert:
        return None
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        tls.load_cert_chain(cert, key or None)
    except OSError as exc:
        raise ConfigurationError(f"the certificate in {cert} cannot be used: {exc}") from exc
    return tls

"""Where a page comes from that lets a browser ask."""

from __future__ import annotations

from urllib.parse import urlsplit

__all__ = ["is_own"]


def is_own(origin: str, host: str) -> bool:
    """Whether a page of ``origin``, as its browser says, is of what is served as ``host``."""
    try:
        return urlsplit(origin).netloc.lower() == host.lower()
    except ValueError:  # an address in brackets that is none: no browser says that
        return False

"""What ``Retry-After`` asks for: RFC 9110, section 10.2.3."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC
from email.utils import parsedate_to_datetime
from time import time

__all__ = ["retry_after_s"]


def retry_after_s(text: str, *, now: Callable[[], float] = time) -> float | None:
    """How many seconds to wait: so many, or until that date; ``None`` of an empty text and of nonsense.

    A date that is past is no wait at all. ``now``: seconds since 1970.
    """
    text = text.strip()
    try:
        wait_s = float(text)  # some count fractions
    except ValueError:
        try:
            until = parsedate_to_datetime(text)
            wait_s = max(0.0, (until if until.tzinfo else until.replace(tzinfo=UTC)).timestamp() - now())
        except (ValueError, OverflowError):
            return None
    return wait_s if 0.0 <= wait_s < math.inf else None

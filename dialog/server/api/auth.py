"""Who asks, and how often."""

from __future__ import annotations

import hashlib
import hmac
from collections import OrderedDict
from time import monotonic

from dialog.server.api.problems import Problem
from dialog.server.config import ApiSettings, ApiToken, Scope

__all__ = ["Doorkeeper"]

_MOST_PEERS = 4096
_CHALLENGE = (("WWW-Authenticate", 'Bearer realm="dialog"'),)


class _Bucket:
    """Requests that are still allowed: ``burst`` at once, refilled at ``rate``."""

    __slots__ = ("at", "left")

    def __init__(self, burst: int, now: float) -> None:
        self.left = float(burst)
        self.at = now

    def take(self, now: float, rate: float, burst: int) -> float:
        """Take one; 0, or the seconds until there is one."""
        self.left = min(float(burst), self.left + (now - self.at) * rate)
        self.at = now
        if self.left < 1.0:
            return (1.0 - self.left) / rate
        self.left -= 1.0
        return 0.0


class Doorkeeper:
    """Lets in who has a token; wrong ones are counted by address."""

    def __init__(self, settings: ApiSettings) -> None:
        self._settings = settings
        self._tokens = [(each.digest, each) for each in settings.tokens]
        self._buckets: dict[str, _Bucket] = {}
        self._strangers: OrderedDict[str, _Bucket] = OrderedDict()

    def admit(self, authorization: str, peer: str, scope: Scope) -> ApiToken:
        """The token of a request.

        Raises:
            Problem: 401, 403 or 429.
        """
        scheme, _, value = authorization.partition(" ")
        given = hashlib.sha256(value.strip().encode("utf-8", "surrogateescape")).digest()
        found: ApiToken | None = None
        for digest, token in self._tokens:  # all of them: how long it takes tells nothing
            if hmac.compare_digest(digest, given):
                found = token
        if found is None or scheme.lower() != "bearer":
            self._strange(peer)
            raise Problem(401, "a bearer token is needed: Authorization: Bearer …", _CHALLENGE)
        now = monotonic()
        bucket = self._buckets.setdefault(found.name, _Bucket(self._settings.burst, now))
        self._check(bucket.take(now, self._settings.requests_per_s, self._settings.burst))
        if scope not in found.scopes:
            raise Problem(403, f"the token {found.name!r} lacks the scope {scope}")
        return found

    def _strange(self, peer: str) -> None:
        now = monotonic()
        bucket = self._strangers.pop(peer, None) or _Bucket(self._settings.burst, now)
        self._strangers[peer] = bucket
        if len(self._strangers) > _MOST_PEERS:
            self._strangers.popitem(last=False)
        self._check(bucket.take(now, self._settings.requests_per_s, self._settings.burst))

    def _check(self, wait_s: float) -> None:
        if wait_s > 0:
            raise Problem(429, "too many requests", (("Retry-After", str(int(wait_s) + 1)),))

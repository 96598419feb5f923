"""What a load is to be: whom to dial, how often, how many at a time, and what the callers do."""

from __future__ import annotations

import math
from urllib.parse import urlsplit

from msgspec import Struct

from dialog.errors import ConfigurationError
from dialog.testing.load_talk import HangUp, TalkSettings

__all__ = ["LoadPlan"]

_MOST_CALLS = 1_000_000
_MOST_AT_ONCE = 20_000
_MOST_PROCESSES = 64
_FASTEST = 1000.0
_DAY_S = 86_400.0


class LoadPlan(Struct, frozen=True, kw_only=True):
    """A load. It ends after ``calls`` calls, or after ``duration_s``, whichever comes first.

    Raises:
        ConfigurationError: Something is not possible (when it is made).
    """

    url: str
    """The voice webhook as it is reached from here."""
    auth_token: str
    """Signs every request, as the account's primary token does."""
    account_sid: str = "AC00000000000000000000000000000000"
    public_url: str = ""
    """What the gateway believes to be its address, when that differs from :attr:`url`."""
    allow_hosts: tuple[str, ...] = ()
    """Further hosts that TwiML may lead to; else only those of the two URLs, and this machine."""
    calls: int | None = None
    """So many calls; ten, if there is no ``duration_s`` either."""
    duration_s: float | None = None
    """Dial for so long; calls that are live then go on to their end."""
    calls_per_s: float = 5.0
    """Calls that are placed in a second."""
    concurrency: int = 100
    """At most so many live calls: while there are as many, nobody is dialled."""
    turns: int | None = 3
    """Utterances of a call; ``None``: as many as fit into ``call_s``."""
    call_s: float = 120.0
    """After so many seconds the caller leaves."""
    hang_up: HangUp = "after-reply"
    """How a call ends."""
    greeting_s: float = 5.0
    """So long the agent's first words are waited for; without any the caller speaks then."""
    reply_s: float = 15.0
    """So long a reply is waited for."""
    silence_s: float = 0.7
    """After so much silence the agent has finished."""
    pause_s: float = 0.6
    """From there to the caller's next words, on an average."""
    seed: int = 1
    """Of the pauses."""
    processes: int = 1
    """Spread the callers over so many processes, each with a core of its own at best."""

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigurationError(f"{self.url!r} is no webhook: give an address as http://127.0.0.1:8080/twilio")
        if not self.auth_token:
            raise ConfigurationError("no auth token: the callers sign their requests with it")
        _check("calls", self.calls if self.calls is not None else 1, 1, _MOST_CALLS)
        _check("duration_s", self.duration_s if self.duration_s is not None else 1.0, 0.1, 7 * _DAY_S)
        _check("calls_per_s", self.calls_per_s, 0.001, _FASTEST)
        _check("concurrency", self.concurrency, 1, _MOST_AT_ONCE)
        _check("turns", self.turns if self.turns is not None else 1, 0, 10_000)
        _check("call_s", self.call_s, 0.5, _DAY_S)
        for name in ("greeting_s", "reply_s"):
            _check(name, getattr(self, name), 0.0, 3600.0)
        for name in ("silence_s", "pause_s"):
            _check(name, getattr(self, name), 0.0 if name == "pause_s" else 0.1, 600.0)
        _check("processes", self.processes, 1, min(_MOST_PROCESSES, self.concurrency))
        if self.hang_up == "agent" and self.turns is None:
            raise ConfigurationError("with hang_up='agent' the caller has to come to an end: give turns")

    def __repr__(self) -> str:
        return f"<LoadPlan {self.url} calls={self.calls} {self.calls_per_s:g} a second, concurrency={self.concurrency}>"

    @property
    def total(self) -> int | None:
        """How many calls there are to be; ``None``: as many as the duration allows."""
        return 10 if self.calls is None and self.duration_s is None else self.calls

    @property
    def hosts(self) -> frozenset[str]:
        """The hosts that may be connected to, besides this machine."""
        urls = (urlsplit(url).hostname for url in (self.url, self.public_url) if url)
        return frozenset(host.lower() for host in (*urls, *self.allow_hosts) if host)

    def talk(self) -> TalkSettings:
        """How the callers talk."""
        return TalkSettings(
            turns=self.turns,
            hang_up=self.hang_up,
            greeting_ms=self.greeting_s * 1000.0,
            reply_ms=self.reply_s * 1000.0,
            silence_ms=self.silence_s * 1000.0,
            pause_ms=self.pause_s * 1000.0,
            longest_ms=self.call_s * 1000.0,
        )


def _check(name: str, value: float, least: float, most: float) -> None:
    if not math.isfinite(value) or not least <= value <= most:
        raise ConfigurationError(f"{name} must be from {least:g} to {most:g}, got {value:g}")

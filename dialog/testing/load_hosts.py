"""A load reaches nobody but whom its user named, wherever TwiML and redirects lead."""

from __future__ import annotations

import errno
import ssl
import sys
from typing import Final

import aiohttp

from dialog.testing.carrier import is_loopback, tls_trouble

__all__ = ["NamedHosts", "NotNamed", "allow_many_sockets", "connection_trouble"]

_OWN: Final = (errno.EMFILE, errno.ENFILE, errno.EADDRNOTAVAIL, errno.ENOBUFS, errno.ENOMEM)


class NotNamed(aiohttp.ClientError):
    """A host that nobody named was to be connected to."""


class NamedHosts(aiohttp.TCPConnector):
    """Connects to this machine, and to ``hosts``."""

    def __init__(self, hosts: frozenset[str]) -> None:
        super().__init__(limit=0, ttl_dns_cache=60)  # the plan bounds how many calls there are
        self._named = hosts

    async def connect(
        self,
        req: aiohttp.ClientRequest,
        traces: list[aiohttp.tracing.Trace],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 - aiohttp's own
    ) -> aiohttp.connector.Connection:
        """Connect for a request.

        Raises:
            NotNamed: It is for another host.
        """
        host = (req.url.host or "").lower()
        if host not in self._named and not is_loopback(host):
            raise NotNamed(f"the gateway leads to {host}, which was not named")
        return await super().connect(req, traces, timeout)


def connection_trouble(exc: BaseException | None) -> tuple[bool, str]:
    """Whether it is this machine that has no connection to give, and what happened in a few words."""
    if isinstance(exc, NotNamed):
        return False, "a host that was not named"
    cause = getattr(exc, "os_error", exc)
    if isinstance(cause, ssl.SSLError):
        return False, tls_trouble(cause)
    if isinstance(cause, OSError) and cause.errno:
        name = errno.errorcode.get(cause.errno, str(cause.errno))
        return cause.errno in _OWN, name
    return False, "no answer in time" if isinstance(exc, TimeoutError) else type(exc).__name__


def allow_many_sockets() -> None:
    """Let this process have as many open files as the system allows; for the ``main`` of a generator."""
    if sys.platform == "win32":
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

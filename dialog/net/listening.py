"""Listening at an address, or saying in one line why that cannot be; and ceasing to."""

from __future__ import annotations

import asyncio
import os
import ssl

from aiohttp import web

from dialog.errors import ConfigurationError

__all__ = ["listen", "unlisten"]

_ACCEPTING = 4
"""Rounds of the loop from accepting a socket to a connection that the server knows."""


async def listen(
    runner: web.AppRunner, host: str, port: int, *, tls: ssl.SSLContext | None = None, reuse_port: bool = False
) -> None:
    """Let ``runner``, which was set up, listen at ``host`` and ``port``; 0: any free one.

    Raises:
        ConfigurationError: Another program has the address, or there is none such.
    """
    # An event loop may take a number that is too large modulo 65536, and listen where nobody looks for it.
    if not 0 <= port <= 65535:
        raise ConfigurationError(f"{port} is no port: it is a number up to 65535")
    try:
        await web.TCPSite(runner, host, port, ssl_context=tls, reuse_port=reuse_port or None).start()
    except UnicodeError as exc:
        raise ConfigurationError(f"{host}:{port} cannot be listened at: {host!r} is no name of a host") from exc
    except OSError as exc:
        # The loops put the address and the number of the error into their texts; a resolver's numbers are below 0.
        why = os.strerror(exc.errno).lower() if exc.errno is not None and exc.errno > 0 else exc.strerror or str(exc)
        raise ConfigurationError(f"{host}:{port} cannot be listened at: {why}") from exc


async def unlisten(runner: web.AppRunner) -> None:
    """Stop listening, and clean ``runner`` up with all its connections: also those that it does not know yet."""
    loop = asyncio.get_running_loop()
    if isinstance(loop, asyncio.SelectorEventLoop):  # whose servers, once closed, drop what they have just accepted
        for site in runner.sites:
            server: asyncio.Server | None = getattr(site, "_server", None)
            for sock in server.sockets if server is not None else ():
                loop.remove_reader(sock.fileno())
        for _ in range(_ACCEPTING):
            await asyncio.sleep(0)
    await runner.cleanup()

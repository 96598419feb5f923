"""Ports for servers that have to be told theirs.

A port that the system has found free is anybody's again until the server has it: another test's server or a
connection takes it meanwhile, once in some thousand times. These are below those that the system gives away by itself
(32768 and on, in Linux), and each worker of the tests has its own.
"""

from __future__ import annotations

import os
import socket

__all__ = ["free_port"]

_FIRST, _EACH, _WORKERS = 10_000, 700, 32

_given = 0


def free_port(kind: socket.SocketKind = socket.SOCK_STREAM) -> int:
    """A port that nobody has, and nobody is given while the tests run; even, as RTP wants it."""
    global _given  # of this process, whose ports these are
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    first = _FIRST + worker % _WORKERS * _EACH
    for _ in range(_EACH // 2):
        port = first + _given % (_EACH // 2) * 2
        _given += 1
        with socket.socket(socket.AF_INET, kind) as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue  # a server of an earlier test is not gone yet, or somebody else's
        return port
    raise OSError(f"none of the {_EACH // 2} ports from {first} on is free")

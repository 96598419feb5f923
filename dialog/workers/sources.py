"""Which version of the user's code runs: the files that it was loaded from, and whether they have changed."""

from __future__ import annotations

import hashlib
import os
import sys
import sysconfig
from collections.abc import Iterable
from pathlib import Path

__all__ = ["fingerprint", "user_sources"]

_MOST = 500


def user_sources() -> tuple[str, ...]:
    """Files of the modules that are loaded now and belong to the user: none of Python's, installed or ours."""
    foreign = tuple(
        f"{Path(path).resolve()}{os.sep}"
        for path in {
            *(sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")),
            str(Path(__file__).parents[1]),
        }
    )
    found: set[str] = set()
    for module in tuple(sys.modules.values()):
        file = getattr(module, "__file__", None)
        if isinstance(file, str) and file.endswith(".py"):
            path = str(Path(file).resolve())
            if not path.startswith(foreign):
                found.add(path)
    return tuple(sorted(found)[:_MOST])


def fingerprint(sources: Iterable[str]) -> str:
    """Changes whenever one of the files does; takes a few microseconds a file."""
    digest = hashlib.blake2b(digest_size=8)
    for source in sources:
        try:
            stat = os.stat(source)  # noqa: PTH116 - on the path of every call
            digest.update(f"{source}|{stat.st_mtime_ns}|{stat.st_size}|".encode())
        except OSError:
            digest.update(f"{source}|gone|".encode())
    return digest.hexdigest()

"""The public names of the test kit, and that the package itself is light."""

from __future__ import annotations

import subprocess
import sys

import pytest

import dialog.testing
from dialog.testing import caller, virtual


def modules_after(code: str) -> set[str]:
    script = f"{code}\nimport sys\nprint('\\n'.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=30)
    return set(done.stdout.split())


EXTRAS = {"twilio", "websockets", "numpy", "espeakng_loader", "pocketsphinx", "openai", "deepgram", "cartesia"}


@pytest.mark.parametrize("name", dialog.testing.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(dialog.testing, name) is not None
    assert name in dir(dialog.testing)


def test_the_list_is_sorted_and_names_what_their_modules_export() -> None:
    assert dialog.testing.__all__ == sorted(dialog.testing.__all__)
    assert dialog.testing.Caller is caller.Caller
    assert dialog.testing.run_virtual is virtual.run_virtual
    with pytest.raises(AttributeError, match="Nobody"):
        _ = dialog.testing.Nobody


def test_importing_the_kit_loads_nothing_that_is_optional() -> None:
    assert not modules_after("import dialog.testing") & {*EXTRAS, "aiohttp"}


def test_using_its_names_loads_nothing_that_is_optional() -> None:
    assert not modules_after("from dialog.testing import *") & EXTRAS


def test_without_the_extra_dialling_says_how_to_get_it() -> None:
    without = """
import asyncio, importlib.util, sys
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "websockets" else find(name, *rest)
sys.modules["websockets"] = None
from dialog.errors import MissingExtra
from dialog.testing import Caller

async def main():
    try:
        await Caller.dial("http://127.0.0.1:1/twilio", auth_token="t")
    except MissingExtra as exc:
        print(exc)

asyncio.run(main())
"""
    done = subprocess.run([sys.executable, "-c", without], capture_output=True, text=True, check=True, timeout=30)
    assert "dialog[testing]" in done.stdout

"""The example of a provider in a package of its own, installed as its users install it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

EXAMPLE = Path(__file__).parents[2] / "examples" / "custom_provider"
ROOT = EXAMPLE.parents[1]


def test_an_installed_package_brings_its_provider(tmp_path: Path) -> None:
    site = tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    offline = ["--no-deps", "--no-build-isolation", "--no-index", "--target", str(site)]
    done = subprocess.run([*pip, *offline, str(EXAMPLE)], capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 0, done.stderr
    assert {path.name for path in site.iterdir()} == {
        "dialog_phrases.py",
        "dialog_phrases-1.0.dist-info",
        "__pycache__",
    }
    path = os.pathsep.join((str(site), str(ROOT)))
    tests = tmp_path / "test_dialog_phrases.py"
    tests.write_text((EXAMPLE / "test_dialog_phrases.py").read_text())  # away from the source beside it
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:asyncio", str(tests)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout

"""A new project: an agent, its settings, a test that dials it, and a container."""

from __future__ import annotations

import json
import re
from importlib.metadata import PackageNotFoundError, distribution
from importlib.resources import files
from pathlib import Path

from rich.console import Console

from dialog.errors import ConfigurationError

__all__ = ["FILES", "make_project", "requirement_url"]

FILES = {
    "main.py": "main.py.txt",
    ".env.template": "env.template.txt",
    "README.md": "README.md.txt",
    "requirements.txt": "requirements.txt",
    "requirements-dev.txt": "requirements-dev.txt",
    "pytest.ini": "pytest.ini.txt",
    "tests/test_agent.py": "test_agent.py.txt",
    "Makefile": "Makefile.txt",
    "Dockerfile": "Dockerfile.txt",
    ".gitignore": "gitignore.txt",
}
"""Of a new project, and the templates that they are made of."""


def make_project(console: Console, directory: Path) -> None:
    """Write the files of a new project, which requires Dialog from where this one was installed from.

    Raises:
        ConfigurationError: The directory has files in it, or cannot be written.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if any(directory.iterdir()):
            raise ConfigurationError(f"{directory} is not empty: name a new directory")
        for name, template in FILES.items():
            text = files("dialog.cli").joinpath("project", template).read_text("utf-8")
            if name.startswith("requirements"):
                text = _required_from(_installed_from(), text)
            (directory / name).parent.mkdir(exist_ok=True)
            (directory / name).write_text(text, "utf-8")
    except OSError as exc:
        raise ConfigurationError(f"{directory} cannot be written: {exc}") from exc
    console.print(f"A new agent is in [bold]{directory}[/]:", highlight=False)
    for what, command in (
        ("go there", f"cd {directory}"),
        ("test it", "make test"),
        ("talk to it", "make chat   (needs OPENAI_API_KEY)"),
        ("on the phone", "cp .env.template .env, fill it in, make run"),
    ):
        console.print(f"  {what:<14} {command}", highlight=False, markup=False, soft_wrap=True)


def requirement_url(direct_url: str) -> str:
    """What a requirement says behind its ``@`` to get what was installed like this.

    Args:
        direct_url: JSON of an installation that did not come from an index, as PEP 610 has it.
    """
    source = json.loads(direct_url)
    url: str = source["url"]
    if vcs := source.get("vcs_info"):
        url = f"{vcs['vcs']}+{url}@{vcs['commit_id']}"
    return f"{url}#subdirectory={source['subdirectory']}" if source.get("subdirectory") else url


def _installed_from() -> str:
    """Where this Dialog came from; empty if from an index, or if it was never installed."""
    try:
        direct_url = distribution("dialog").read_text("direct_url.json")
    except PackageNotFoundError:
        return ""
    return requirement_url(direct_url) if direct_url else ""


def _required_from(url: str, requirements: str) -> str:
    """``requirements`` with the address of Dialog: the bare name may be another project's on the index in use."""
    if not url:
        return requirements
    text = re.sub(r"^dialog\[.*\]$", lambda line: f"{line[0]} @ {url}", requirements, flags=re.MULTILINE)
    if url.startswith("file:"):
        text = "# This Dialog is on this machine: name one that a container can reach before you build one.\n" + text
    return text

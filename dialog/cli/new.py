"""A new project: an agent, its settings, a test that dials it, and a container."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from rich.console import Console

from dialog.errors import ConfigurationError

__all__ = ["FILES", "make_project"]

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
    """Write the files of a new project.

    Raises:
        ConfigurationError: The directory has files in it, or cannot be written.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if any(directory.iterdir()):
            raise ConfigurationError(f"{directory} is not empty: name a new directory")
        for name, template in FILES.items():
            text = files("dialog.cli").joinpath("project", template).read_text("utf-8")
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

"""What a command needs to be installed, checked before its modules are imported."""

from __future__ import annotations

from importlib.util import find_spec

from dialog.errors import MissingExtra

__all__ = ["check_demo", "check_log", "check_speech", "check_testing"]

_TESTING = (("websockets", "testing"), ("numpy", "testing"))
_SPEECH = (("pocketsphinx", "local"), ("espeakng_loader", "local"), ("numpy", "local"))
_LOG = (("sqlalchemy", "log"), ("aiosqlite", "log"), ("alembic", "log"))
_DEMO = (*_SPEECH, ("twilio", "twilio"), *_TESTING)


def check_demo() -> None:
    """Everything that the demo runs on.

    Raises:
        MissingExtra: The first that is missing.
    """
    _check(_DEMO)


def check_speech() -> None:
    """A recogniser and a voice that need no account.

    Raises:
        MissingExtra: The first that is missing.
    """
    _check(_SPEECH)


def check_log() -> None:
    """What the call log is kept with.

    Raises:
        MissingExtra: The first that is missing.
    """
    _check(_LOG)


def check_testing() -> None:
    """What the simulated caller runs on.

    Raises:
        MissingExtra: The first that is missing.
    """
    _check(_TESTING)


def _check(packages: tuple[tuple[str, str], ...]) -> None:
    for package, extra in packages:
        if find_spec(package) is None:
            raise MissingExtra(package, extra)

"""Settings that only a type checker would find wrong, for whoever runs none."""

from __future__ import annotations

from dialog.errors import ConfigurationError

__all__ = ["check_choice", "check_kind", "check_several"]


def check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    """Refuse a word that is not among the choices: nothing that asks for one of them would ever find it.

    Raises:
        ConfigurationError: It is none of them.
    """
    if value not in choices:
        raise ConfigurationError(f"{name} must be one of {', '.join(choices)}, got {value!r}")


def check_kind(name: str, value: object, kind: type) -> None:
    """Refuse settings of another kind: what they lack would be found missing in the middle of a call.

    Raises:
        ConfigurationError: It is of another kind.
    """
    if not isinstance(value, kind):
        raise ConfigurationError(f"{name} must be {kind.__name__}(…), got {type(value).__name__}")


def check_several(name: str, texts: object) -> None:
    """Refuse one text where several are wanted: it would be taken letter by letter.

    The message does not repeat it, for it may be a secret.

    Raises:
        ConfigurationError: It is one text.
    """
    if isinstance(texts, str | bytes):
        raise ConfigurationError(f'{name} must be several texts, as ("…", "…") or ("…",), got a single one')

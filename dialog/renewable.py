"""Participants that can be made anew, for when one has given up for good."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Self, cast

from dialog.participant import Participant

__all__ = ["Renewable"]


class Renewable(Participant):
    """A participant that remembers what it was made of.

    Constructors do no I/O, so the same arguments make the same participant: unopened, without listeners.
    """

    _made_of: tuple[tuple[Any, ...], Mapping[str, Any]]

    def __new__(cls, *arguments: Any, **options: Any) -> Self:
        """Remember the arguments."""
        self = super().__new__(cls)
        self._made_of = (arguments, options)
        return self

    def renewed(self, **changes: Any) -> Self:
        """Another one, made of the same arguments but for ``changes``; participants among them are made anew as well.

        Raises:
            DialogError: What the constructor raises.
        """
        arguments, options = self._made_of
        make = cast("Callable[..., Self]", type(self))
        return make(*map(_anew, arguments), **{name: _anew(value) for name, value in options.items()} | changes)


def _anew(value: Any) -> Any:
    if isinstance(value, Renewable):
        return value.renewed()
    if isinstance(value, list | tuple):
        items = cast("list[Any]", value)
        return [_anew(item) for item in items] if any(isinstance(item, Renewable) for item in items) else items
    return value

"""Participants that can be made anew, for when one has given up for good."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Hashable, Mapping
from typing import Any, Self, cast

import msgspec

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

    @property
    def identity(self) -> Hashable:
        """What fails together: equal for those of several calls that are made of the same arguments.

        ``None`` stands alone: an argument is an object of which nobody knows what it is like.
        """
        told = _plain((self._made_of[0], dict(self._made_of[1])))
        # No credential is kept here.
        return None if told is None else (type(self), hashlib.sha256(repr(told).encode()).digest())

    def renewed(self, **changes: Any) -> Self:
        """Another one, made of the same arguments but for ``changes``; participants among them are made anew as well.

        Raises:
            DialogError: What the constructor raises.
        """
        arguments, options = self._made_of
        make = cast("Callable[..., Self]", type(self))
        return make(*map(_anew, arguments), **{name: _anew(value) for name, value in options.items()} | changes)


def _plain(value: Any) -> Any:
    """Something whose ``repr`` is the same for equal arguments; ``None`` if there is no such thing."""
    if value is None or isinstance(value, bool | int | float | str | bytes):
        return (value,)
    if isinstance(value, Renewable):
        return value.identity
    if isinstance(value, Mapping):
        return _plain(list(cast("Any", value).items()))
    if isinstance(value, list | tuple):
        told = [_plain(item) for item in cast("list[Any]", value)]
        return None if None in told else told
    fields: list[str] = []
    if dataclasses.is_dataclass(value):
        fields = [field.name for field in dataclasses.fields(value)]
    elif isinstance(value, msgspec.Struct):
        fields = list(value.__struct_fields__)
    return _plain([getattr(value, name) for name in fields]) if fields else None


def _anew(value: Any) -> Any:
    if isinstance(value, Renewable):
        return value.renewed()
    if isinstance(value, list | tuple):
        items = cast("list[Any]", value)
        return [_anew(item) for item in items] if any(isinstance(item, Renewable) for item in items) else items
    return value

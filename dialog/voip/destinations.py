"""Whom calls may reach, whatever an agent was talked into: a guard against toll fraud."""

from __future__ import annotations

import re
from typing import Final

from msgspec import Struct

from dialog.checks import check_several
from dialog.errors import ConfigurationError, DestinationRefused

__all__ = ["ANYWHERE", "Destinations"]

_SEPARATORS: Final = str.maketrans("", "", " -.()/")


class Destinations(Struct, frozen=True, kw_only=True):
    """The numbers and addresses that calls may be transferred to, placed to and consulted, and that may be written to.

    ``+1*`` is every number that begins like that, ``+15550100`` that one, ``2*`` extensions of a telephone system,
    ``sip:*@pbx.example`` all addresses there. What follows a ``;`` or ``?`` in an address does not count.

    Raises:
        ConfigurationError: An entry is empty, or there is one text in the place of several.
    """

    allow: tuple[str, ...] = ("*",)
    """Everybody unless given; empty: nobody."""
    deny: tuple[str, ...] = ()
    """Those of them that may not be reached all the same."""

    def __post_init__(self) -> None:
        check_several("allow", self.allow)  # the * of a single "+1*" would let calls go anywhere
        check_several("deny", self.deny)
        for entry in (*self.allow, *self.deny):
            if not entry.strip():
                raise ConfigurationError("an entry of destinations is empty: * stands for everybody")

    def permits(self, to: str) -> bool:
        """Whether ``to`` may be reached."""
        return _any(self.allow, to) and not _any(self.deny, to, re.DOTALL)  # a line end gets nobody round it

    def check(self, to: str, what: str) -> None:
        """Let ``to`` pass, for ``what`` (a call and its id).

        Raises:
            DestinationRefused: It may not be reached; the message does not repeat it.
        """
        if not self.permits(to):
            raise DestinationRefused(
                f"{what}: the settings do not let anybody reach this destination (CallSettings.destinations)"
            )


def _any(entries: tuple[str, ...], to: str, flags: re.RegexFlag = re.NOFLAG) -> bool:
    if "*" in entries:
        return True
    plain = _plain(to)
    return any(
        re.fullmatch(".*".join(re.escape(piece) for piece in _plain(entry).split("*")), plain, flags)
        for entry in entries
    )


def _plain(to: str) -> str:
    """A number without what makes it readable, an address without its parameters; both in lower case."""
    text = to.strip().lower()
    if ":" in text:
        return re.split(r"[;?]", text, maxsplit=1)[0]
    return text.translate(_SEPARATORS)


ANYWHERE: Final = Destinations()

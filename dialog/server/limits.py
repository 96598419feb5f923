"""How many calls there may be at the same time, in all processes of a service together.

Every process counts its own calls. Whoever wants one more takes a place first, then asks the others for theirs: of
two that take the last place at the same time the one that came earlier has it. Who came earlier is told by counters,
which go forward with every question (Lamport), and by the names of the processes where those are equal.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import TypeAlias

from msgspec import Struct

__all__ = ["Limit", "Limits", "Place", "Stamp"]

Stamp: TypeAlias = tuple[int, str]
"""A counter's reading, and the process where it was read."""


class Place(Struct, frozen=True):
    """Taken by a call that is about to be there."""

    tenant: str
    stamp: Stamp


class Limit(Struct, frozen=True):
    """Which limit is reached."""

    tenant: str
    """Whose; empty: that of all together."""
    calls: int


class Limits:
    """Pure: what the others count is brought by whoever asks them.

    Args:
        most: Of all tenants together.
        each: Of single tenants.
        count: The calls of a tenant that are here.
        node: Our own name.
    """

    def __init__(self, most: int | None, each: Mapping[str, int | None], count: Callable[[str], int]) -> None:
        self.node = ""
        self._most = most
        self._each = each
        self._count = count
        self._clock = 0
        self._places: dict[Stamp, Place] = {}

    def matters(self, tenant: str) -> bool:
        """Whether a call of that tenant is limited at all."""
        return self._most is not None or self._each[tenant] is not None

    def stamp(self) -> Stamp:
        """Now, for a question without a place."""
        self._clock += 1
        return self._clock, self.node

    def take(self, tenant: str) -> Place:
        """Take a place; :meth:`give` it back, whatever comes of it."""
        place = Place(tenant, self.stamp())
        self._places[place.stamp] = place
        return place

    def give(self, place: Place) -> None:
        """The call is there and is counted as one, or it will never be; giving it again is harmless."""
        self._places.pop(place.stamp, None)

    def here(self, asked: Stamp) -> dict[str, int]:
        """What counts here against somebody who came at ``asked``: calls, and places that were taken before."""
        self._clock = max(self._clock, asked[0])
        counts = {tenant: self._count(tenant) for tenant in self._each}
        for place in self._places.values():
            if place.stamp < asked:
                counts[place.tenant] += 1
        return counts

    def reached(self, tenant: str, asked: Stamp, elsewhere: Mapping[str, int]) -> Limit | None:
        """The limit that a call would exceed which came at ``asked``.

        ``elsewhere``: the sums of what counts in the other processes.
        """
        counts = Counter(self.here(asked))
        counts.update(elsewhere)
        most = self._each[tenant]
        if most is not None and counts[tenant] >= most:
            return Limit(tenant, most)
        if self._most is not None and counts.total() >= self._most:
            return Limit("", self._most)
        return None

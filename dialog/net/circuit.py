"""A circuit: whether a provider is worth asking, after what it has done lately. Pure; time is given."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Hashable, Sequence
from typing import Literal
from weakref import WeakKeyDictionary

from dialog.errors import ConfigurationError
from dialog.recent import Recent

__all__ = ["Circuit", "chain_circuits", "shared_circuit"]

_LONGEST = 8
"""So many times the first wait is the longest one between two probes."""
_REMEMBERED = 256
"""Circuits of a loop, those that were wanted last."""


class Circuit:
    """Closed while all is well; open after failures in a row, until a probe succeeds.

    Whoever wants something of the provider looks at :attr:`closed`, and tells how it went. When
    :meth:`due` says so, one of them asks for something small instead, beside its work, and tells of
    that likewise: nobody's caller waits to learn that a provider is still down.

    Args:
        failures: So many in a row open it.
        probe_after_s: So long after that the first probe is due; each that fails doubles the wait.

    Raises:
        ConfigurationError: A value is out of its range.
    """

    def __init__(self, *, failures: int = 2, probe_after_s: float = 15.0) -> None:
        if failures < 1 or probe_after_s <= 0:
            got = f"{failures} and {probe_after_s}"
            raise ConfigurationError(f"a circuit needs failures >= 1 and probe_after_s > 0, got {got}")
        self.state: Literal["closed", "open", "probing"] = "closed"
        self._limit = failures
        self._first_wait_s = probe_after_s
        self._wait_s = probe_after_s
        self._failures = 0
        self._due = 0.0

    def __repr__(self) -> str:
        return f"<Circuit {self.state}, {self._failures} failures>"

    @property
    def closed(self) -> bool:
        """The provider may be asked."""
        return self.state == "closed"

    def failed(self, now: float, *, hopeless: bool = False) -> bool:
        """It failed; tell whether that opened the circuit. ``hopeless``: it will again, so once is enough."""
        self._failures += 1
        if self.state == "probing":
            self._wait_s = min(self._wait_s * 2, self._first_wait_s * _LONGEST)
        elif self.state == "closed" and not hopeless and self._failures < self._limit:
            return False
        opened = self.state == "closed"
        self.state = "open"
        self._due = now + self._wait_s
        return opened

    def succeeded(self) -> bool:
        """It did what it was asked for; tell whether that closed the circuit."""
        closed = self.state != "closed"
        self.state = "closed"
        self._failures = 0
        self._wait_s = self._first_wait_s
        return closed

    def due(self, now: float) -> bool:
        """Whether to probe now.

        Who is told so begins, and ends it with :meth:`failed`, :meth:`succeeded` or :meth:`abandoned`.
        """
        if self.state != "open" or now < self._due:
            return False
        self.state = "probing"
        return True

    def abandoned(self) -> None:
        """A probe was given up before it told anything: the next is due at once."""
        if self.state == "probing":
            self.state = "open"


_loops: WeakKeyDictionary[asyncio.AbstractEventLoop, Recent[Hashable, Circuit]] = WeakKeyDictionary()


def shared_circuit(identity: Hashable, *, failures: int, probe_after_s: float) -> Circuit:
    """The running loop's circuit of a provider: what one call has learnt the next one knows.

    Args:
        identity: What fails together; ``None`` stands for itself only, so its circuit is a new one.
        failures: See :class:`Circuit`.
        probe_after_s: See :class:`Circuit`.

    Raises:
        ConfigurationError: A value is out of its range.
        RuntimeError: No event loop is running.
    """
    if identity is None:
        return Circuit(failures=failures, probe_after_s=probe_after_s)
    circuits = _loops.setdefault(asyncio.get_running_loop(), Recent(_REMEMBERED))
    key = (identity, failures, probe_after_s)
    circuit = circuits.pop(key, None) or Circuit(failures=failures, probe_after_s=probe_after_s)
    circuits[key] = circuit
    return circuit


def chain_circuits(identities: Sequence[Hashable], *, failures: int, probe_after_s: float) -> list[Circuit]:
    """The circuits of a chain's members; of two that are the same each has its own. See :func:`shared_circuit`."""
    seen = Counter[Hashable]()
    circuits: list[Circuit] = []
    for identity in identities:
        seen[identity] += 1
        one = None if identity is None else (identity, seen[identity])
        circuits.append(shared_circuit(one, failures=failures, probe_after_s=probe_after_s))
    return circuits

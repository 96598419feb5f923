"""Whom a provider works for: one call, from when it is given to that until it is disposed of."""

from __future__ import annotations

from weakref import WeakKeyDictionary, ref

from dialog.errors import StateError
from dialog.participant import Participant
from dialog.voip.voip import VoIP

__all__ = ["claim", "is_elsewhere"]

_claimed: WeakKeyDictionary[Participant, ref[VoIP]] = WeakKeyDictionary()


def claim(provider: Participant, voip: VoIP) -> None:
    """Let ``provider`` work for this call, and for no other one; a call that has ended needs none.

    Raises:
        StateError: It works for another call, whose caller this one would hear, or was disposed of.
    """
    if voip.state == "ended":
        return
    if provider.disposed:
        raise StateError(
            f"{provider.name} was disposed of, as it is when its call ends or another one takes its place: "
            "make a new one for each call, and each time"
        )
    if is_elsewhere(provider, voip):
        raise StateError(f"{provider.name} works for another call already: make a new one for each call")
    _claimed[provider] = ref(voip)


def is_elsewhere(provider: Participant, voip: VoIP) -> bool:
    """Whether ``provider`` works for another call than this one."""
    claimed = _claimed.get(provider)
    return claimed is not None and claimed() is not voip

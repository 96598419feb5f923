"""Callbacks that do not keep alive whom they call."""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec
from weakref import WeakMethod

__all__ = ["weakly"]

P = ParamSpec("P")


def weakly(method: Callable[P, object]) -> Callable[P, None]:
    """Call ``method``, a bound one, as long as somebody else has its object.

    For what an object gives to its own parts: otherwise both hold each other, and after a call hundreds of such
    objects are left to the garbage collector, which stops all other calls for them.
    """
    reference = WeakMethod(method)

    def call(*args: P.args, **kwargs: P.kwargs) -> None:
        alive = reference()
        if alive is not None:
            alive(*args, **kwargs)

    return call

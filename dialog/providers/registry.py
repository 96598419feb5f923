"""Which providers there are, and their classes.

Dialog's own are listed in :mod:`dialog.providers.builtin`. Any package adds one by an entry point, in
its ``pyproject.toml``::

    [project.entry-points."dialog.tts"]
    phrases = "dialog_phrases:PhraseTTS"

The groups are ``dialog.stt``, ``dialog.tts``, ``dialog.s2s``, ``dialog.llm``, ``dialog.agent``, ``dialog.voip``,
``dialog.gateway`` and ``dialog.sms``. A name of Dialog's own cannot be taken. Only the module of the provider
that is asked for is imported.
"""

from __future__ import annotations

from difflib import get_close_matches
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import TypeVar

from dialog.errors import ConfigurationError, MissingExtra
from dialog.providers.builtin import BUILTIN, DEFAULTS, INTERFACES, Kind

__all__ = ["find_class", "provider_names"]

T = TypeVar("T")

_EXTRAS = {
    "numpy": "audio",
    "pocketsphinx": "local",
    "espeakng_loader": "local",
    "sipmessage": "sip",
    "twilio": "twilio",
    "cryptography": "telnyx",
    "openai": "openai",
    "deepgram": "deepgram",
    "cartesia": "cartesia",
}
"""Which extra brings a package, where a provider's module cannot be imported without it."""

_found: dict[tuple[Kind, str], type] = {}


def provider_names(kind: Kind) -> tuple[str, ...]:
    """The names of all providers of ``kind``: Dialog's own, then those of other packages, each in order.

    Nothing is imported.

    Raises:
        ConfigurationError: There is no such kind.
    """
    own = _own(kind)
    others = {point.name for point in entry_points(group=f"dialog.{kind}")}
    return (*sorted(own), *sorted(others - own.keys()))


def find_class(kind: Kind, name: str = "") -> type:
    """The class of a provider; the default one of its kind if no name is given. It is not instantiated.

    The first look-up of a name that is not Dialog's own reads what packages are installed, which takes
    some ten milliseconds: look it up where the program starts.

    Raises:
        ConfigurationError: There is no such provider, or what its package registers is none.
        MissingExtra: The package that it needs is not installed.
    """
    own = _own(kind)
    name = name or DEFAULTS[kind]
    found = _found.get((kind, name))
    if found is None:
        found = _import(own[name]) if name in own else _registered(kind, name)
        _found[kind, name] = found
    return found


def _own(kind: Kind) -> dict[str, str]:
    try:
        return BUILTIN[kind]
    except KeyError:
        raise ConfigurationError(f"there are no providers of the kind {kind!r}, only: {', '.join(BUILTIN)}") from None


def _import(target: str) -> type:
    module, _, name = target.partition(":")
    try:
        found: type = getattr(import_module(module), name)
    except ModuleNotFoundError as exc:
        package = (exc.name or "").partition(".")[0]
        if package not in _EXTRAS:
            raise
        raise MissingExtra(package, _EXTRAS[package]) from exc
    return found


def _registered(kind: Kind, name: str) -> type:
    """The class that another package has registered."""
    points = list(entry_points(group=f"dialog.{kind}", name=name))
    # A package may be found twice, by its source and where it is installed.
    origins = {point.value: point for point in points}
    if not origins:
        raise ConfigurationError(_unknown(kind, name))
    if len(origins) > 1:
        whose = " and ".join(sorted(_origin(point) for point in origins.values()))
        raise ConfigurationError(f"{kind} {name!r} is registered twice, by {whose}: uninstall one of them")
    (point,) = origins.values()
    try:
        found = point.load()
    except ModuleNotFoundError as exc:
        if exc.name and point.module.startswith(exc.name):
            hint = f"its module {exc.name} is not there: reinstall it"
        else:
            hint = f"it needs {exc.name}, which is not installed: pip install {exc.name}"
        raise ConfigurationError(f"{kind} {name!r} of {_origin(point)}: {hint}") from exc
    except Exception as exc:  # foreign code: say whose
        raise ConfigurationError(f"{kind} {name!r} of {_origin(point)} cannot be loaded: {exc!r}") from exc
    interface = _import(INTERFACES[kind]) if INTERFACES[kind] else object
    if not isinstance(found, type) or not issubclass(found, interface):
        raise ConfigurationError(
            f"{kind} {name!r} of {_origin(point)} is {point.value}, which is no subclass of {interface.__name__}"
        )
    return found


def _origin(point: EntryPoint) -> str:
    return f"the package {point.dist.name}" if point.dist is not None else point.value


def _unknown(kind: Kind, name: str) -> str:
    names = provider_names(kind)
    near = get_close_matches(name.lower(), names, n=1)
    elsewhere = [other for other, own in BUILTIN.items() if name in own]
    hint = f"did you mean {near[0]!r}? " if near else f"(it is a name of: {', '.join(elsewhere)}) " if elsewhere else ""
    return (
        f"there is no {kind} {name!r}; {hint}There are: {', '.join(names)}. "
        f"Other packages add theirs by an entry point of the group 'dialog.{kind}'; is one not installed?"
    )

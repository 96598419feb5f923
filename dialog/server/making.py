"""Making the gateway or service that a command line names."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from dialog.env import read_env
from dialog.errors import ConfigurationError
from dialog.loading import load_target
from dialog.providers.factories import create_gateway
from dialog.server.serving import Gateway
from dialog.voip.admission import Workers
from dialog.workers.fleet import Fleet
from dialog.workers.nats import NatsSettings

if TYPE_CHECKING:
    from dialog.server.service import Service

__all__ = ["make_fleet_gateway", "make_gateway", "make_service"]


def _call(target: str, function: Callable[..., Any], **arguments: object) -> Any:
    """What the function makes, if it can be called with these arguments alone.

    Raises:
        ConfigurationError: It wants more.
    """
    try:
        inspect.signature(function).bind(**arguments)
    except TypeError as exc:
        hint = " (a function that takes calls is run by chat, talk, worker or dial)" if "voip" in str(exc) else ""
        raise ConfigurationError(f"{target} makes nothing to serve: {exc}{hint}") from exc
    return function(**arguments)


def make_gateway(target: str, *, workers: Workers | None = None) -> Gateway:
    """The gateway that ``module:name`` or ``path/to/file.py:name`` names, or what the function of that name makes.

    To be called on the event loop that will serve it. ``workers`` are handed to the function.

    Raises:
        ConfigurationError: There is no such name, or it is and makes no gateway, or takes no workers.
    """
    found: Any = load_target(target)
    makes = callable(found) and not _is_gateway(found)
    if workers is not None and not (makes and "workers" in inspect.signature(found).parameters):
        raise ConfigurationError(
            f"{target} takes no workers: name a function with a parameter ``workers`` that hands it to the gateway"
        )
    made: Any = _call(target, found, **({} if workers is None else {"workers": workers})) if makes else found
    if not _is_gateway(made):
        raise ConfigurationError(f"{target} is no gateway and makes none, but {type(made).__name__}")
    return cast("Gateway", made)


def make_fleet_gateway(target: str, settings: NatsSettings, *, env_file: str | Path = ".env") -> Gateway:
    """A gateway that gives its calls to a fleet: the function ``target`` makes it, or else the environment.

    Raises:
        ConfigurationError: As :func:`make_gateway`, or a setting is missing.
        MissingExtra: NATS's client is not installed.
    """
    fleet = Fleet(settings)
    if target:
        return make_gateway(target, workers=fleet)
    return create_gateway.from_env("twilio", env=read_env(env_file), workers=fleet)


def make_service(target: str, env_file: str | Path = ".env") -> Service:
    """The service that ``module:name`` names: a configuration, a service, or a function that makes one.

    Without a target it is made from the environment. To be called on the event loop that will serve it.

    Raises:
        ConfigurationError: There is no such name, or it is something else.
        MissingExtra: What a service needs is not installed.
    """
    from dialog.server.config import ServiceConfig
    from dialog.server.service import Service

    if not target:
        return Service.from_env(read_env(env_file))
    found: Any = load_target(target)
    made = _call(target, found) if callable(found) and not isinstance(found, Service) else found
    if isinstance(made, ServiceConfig):
        return Service(made)
    if not isinstance(made, Service):
        raise ConfigurationError(f"{target} is neither a ServiceConfig nor a Service, but {type(made).__name__}")
    return made


def _is_gateway(thing: object) -> bool:
    return all(hasattr(thing, name) for name in ("add_routes", "ready", "drain"))

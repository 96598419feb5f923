"""How the roles of a fleet reach NATS: from the command line, the environment, and ``.env``."""

from __future__ import annotations

from collections.abc import Mapping

from dialog.errors import ConfigurationError
from dialog.providers.variables import fault, value_of, variable
from dialog.workers.fleet import nats_settings
from dialog.workers.nats import NatsSettings

__all__ = ["settings_from"]

_VARIABLES = {
    "prefix": "NATS_PREFIX",
    "user": "NATS_USER",
    "password": "NATS_PASSWORD",
    "token": "NATS_TOKEN",
    "credentials": "NATS_CREDENTIALS",
    "nkey_seed": "NATS_NKEY_SEED",
    "ca": "NATS_CA",
    "certificate": "NATS_CERTIFICATE",
    "key": "NATS_KEY",
}


def settings_from(env: Mapping[str, str], url: str = "") -> NatsSettings:
    """The settings of ``NATS_URL``, or of ``url`` instead, and of the other variables.

    Raises:
        ConfigurationError: There is no address, or a value is of no use.
    """
    where = variable("NATS_URL")
    url = url or value_of(env, where)
    if not url:
        raise ConfigurationError("where does the fleet meet? Give --nats nats://host:4222, or set NATS_URL")
    wrong = fault(where, url)
    if wrong is not None:
        raise ConfigurationError(f"NATS_URL {wrong.problem} ({wrong.fix})")
    connection: dict[str, str] = {}
    for name, of in _VARIABLES.items():
        value = value_of(env, variable(of))
        wrong = fault(variable(of), value) if value else None
        if wrong is not None:
            raise ConfigurationError(f"{of} {wrong.problem} ({wrong.fix})")
        if value:
            connection[name] = value
    return nats_settings(url, **connection)

"""Serving the user's gateway: in this process, until it is told to stop."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from rich.console import Console

from dialog import logs
from dialog.cli.fleet import settings_from
from dialog.env import read_env
from dialog.errors import ConfigurationError
from dialog.loop import calm_collector
from dialog.providers.factories import create_gateway
from dialog.providers.variables import fault, variable
from dialog.server.making import make_gateway
from dialog.server.serving import Gateway, serve
from dialog.workers.fleet import Fleet

__all__ = ["GatewayPlan", "run_gateway"]


class GatewayPlan(NamedTuple):
    """What to serve, and where."""

    target: str = ""
    nats: str = ""
    host: str = ""
    port: int | None = None
    cert: Path | None = None
    key: Path | None = None
    leave_s: float = 5.0
    drain_s: float = 1800.0
    log_level: str = "info"
    env_file: Path = Path(".env")


async def run_gateway(console: Console, plan: GatewayPlan) -> int:
    """Serve until SIGTERM or Ctrl-C; 0 if every call then ended by itself.

    Raises:
        ConfigurationError: The target is no gateway, or a setting cannot be used.
    """
    tls = tls_context(plan.cert, plan.key)
    env = read_env(plan.env_file)
    host = plan.host or env.get("HOST_NAME") or "0.0.0.0"  # noqa: S104 - a server is there to be reached
    at = _port(env) if plan.port is None else plan.port
    with logs.configure(plan.log_level):
        gateway, named = _gateway(plan, env)
        calm_collector()
        clean = await serve(
            gateway,
            host=host,
            port=at,
            leave_s=plan.leave_s,
            drain_s=plan.drain_s,
            tls=tls,
            started=lambda port: console.print(f"{named} takes calls at {host}:{port}", highlight=False),
        )
    return 0 if clean else 1


def _port(env: Mapping[str, str]) -> int:
    value = env.get("PORT", "8080")
    wrong = fault(variable("PORT"), value)
    if wrong is not None:
        raise ConfigurationError(f"PORT {wrong.problem} ({wrong.fix})")
    return int(value)


def _gateway(plan: GatewayPlan, env: Mapping[str, str]) -> tuple[Gateway, str]:
    """The gateway of a plan, and how it is called: the user's own, or one that has nothing but a fleet."""
    if plan.target and not plan.nats:
        return make_gateway(plan.target), plan.target
    fleet = Fleet(settings_from(env, plan.nats))
    if plan.target:
        return make_gateway(plan.target, workers=fleet), plan.target
    return create_gateway.from_env("twilio", env=env, workers=fleet), "the gateway"


def tls_context(cert: Path | None, key: Path | None) -> ssl.SSLContext | None:
    """The certificate that is served with; ``None`` without one.

    Raises:
        ConfigurationError: It cannot be used.
    """
    if cert is None:
        return None
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        tls.load_cert_chain(cert, key)
    except OSError as exc:
        raise ConfigurationError(f"the certificate in {cert} cannot be used: {exc}") from exc
    return tls

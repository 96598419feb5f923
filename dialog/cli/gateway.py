"""Serving a gateway until it is told to stop: in this process, or in several that share a port."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from rich.console import Console

from dialog import logs
from dialog.cli.address import listen_at
from dialog.cli.fleet import settings_from
from dialog.env import read_env
from dialog.errors import ConfigurationError
from dialog.loop import calm_collector
from dialog.providers.variables import value_of, variable
from dialog.server.making import make_fleet_gateway, make_gateway
from dialog.server.processes import Processes, ProcessesSettings
from dialog.server.serving import Gateway, serve
from dialog.server.tls import tls_context
from dialog.workers.nats import NatsSettings

__all__ = ["GatewayPlan", "run_gateway"]


class GatewayPlan(NamedTuple):
    """What to serve, and where."""

    target: str = ""
    nats: str = ""
    host: str = ""
    port: int | None = None
    processes: int = 1
    own_ports: int | None = None
    media_url: str = ""
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
    host, at = listen_at(env, plan.host, plan.port)
    named = plan.target or "the gateway"

    def started(port: int) -> None:
        console.print(f"{named} takes calls at {host}:{port}", highlight=False)

    with logs.configure(plan.log_level):
        fleet = _fleet(plan, env)
        if plan.processes > 1 or plan.own_ports is not None or plan.media_url:
            return 0 if await Processes(_settings(plan, fleet, host, at)).run(started) else 1
        gateway: Gateway
        if fleet is None:
            gateway = make_gateway(plan.target)
        else:
            gateway = make_fleet_gateway(plan.target, fleet, env_file=plan.env_file)
        calm_collector()
        clean = await serve(
            gateway,
            host=host,
            port=at,
            leave_s=plan.leave_s,
            drain_s=plan.drain_s,
            tls=tls,
            started=started,
        )
    return 0 if clean else 1


def _fleet(plan: GatewayPlan, env: Mapping[str, str]) -> NatsSettings | None:
    """How to reach the fleet of a plan; ``None`` if the gateway is the user's own and looks after itself."""
    if plan.target and not plan.nats:
        return None
    if not plan.nats and not value_of(env, variable("NATS_URL")):
        raise ConfigurationError(
            "who answers the calls? Name your gateway, as main:gateway, or a fleet of workers: --nats nats://host:4222"
        )
    return settings_from(env, plan.nats)


def _settings(plan: GatewayPlan, fleet: NatsSettings | None, host: str, port: int) -> ProcessesSettings:
    return ProcessesSettings(
        target=plan.target,
        fleet=fleet,
        env_file=str(plan.env_file),
        processes=plan.processes,
        host=host,
        port=port,
        own_ports=plan.own_ports,
        media_url=plan.media_url,
        cert=str(plan.cert or ""),
        key=str(plan.key or ""),
        leave_s=plan.leave_s,
        drain_s=plan.drain_s,
        log_level=plan.log_level,
    )

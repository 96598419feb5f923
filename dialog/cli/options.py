"""Options that several commands have: once here, with the same name and help wherever they stand."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

__all__ = [
    "AccountSid",
    "AuthToken",
    "Certificate",
    "DrainS",
    "EnvFile",
    "Key",
    "LeaveS",
    "LogLevel",
    "MediaURL",
    "OwnPorts",
    "ProcessCount",
    "PublicURL",
    "ServedHost",
    "ServedPort",
    "WebhookURL",
]

WebhookURL: TypeAlias = Annotated[str, typer.Argument(help="The gateway's voice webhook: http://127.0.0.1:8080/twilio")]
AuthToken: TypeAlias = Annotated[
    str, typer.Option(envvar="TWILIO_AUTH_TOKEN", show_envvar=True, help="Signs the requests.")
]
AccountSid: TypeAlias = Annotated[
    str, typer.Option(envvar="TWILIO_ACCOUNT_SID", show_envvar=True, help="The account that calls.")
]
PublicURL: TypeAlias = Annotated[
    str, typer.Option(envvar="WEBHOOK_URL", show_envvar=True, help="What the gateway believes to be its address.")
]
ServedHost: TypeAlias = Annotated[str, typer.Option(help="Address to listen at; else HOST_NAME, or 0.0.0.0.")]
ServedPort: TypeAlias = Annotated[int | None, typer.Option(help="Port to listen at; else PORT, or 8080.")]
ProcessCount: TypeAlias = Annotated[
    int, typer.Option(min=1, help="Processes that share the port, each with all of this: one per core.")
]
OwnPorts: TypeAlias = Annotated[
    int | None, typer.Option(min=0, help="First of the ports that lead to one process each, for a proxy.")
]
MediaURL: TypeAlias = Annotated[
    str, typer.Option(help="Public wss:// URL of each process's media, with {process} for its number from 0.")
]
Certificate: TypeAlias = Annotated[
    Path | None, typer.Option(exists=True, dir_okay=False, help="Certificate chain, PEM, without a proxy.")
]
Key: TypeAlias = Annotated[Path | None, typer.Option(exists=True, dir_okay=False, help="And its key.")]
LeaveS: TypeAlias = Annotated[float, typer.Option(min=0.0, help="Calls are taken for so long after SIGTERM.")]
DrainS: TypeAlias = Annotated[float, typer.Option(min=0.0, help="Calls may go on for so long after that.")]
LogLevel: TypeAlias = Annotated[str, typer.Option(help="debug, info, notice, warning, error …")]
EnvFile: TypeAlias = Annotated[Path, typer.Option(help="Settings that the environment does not have.")]

"""What an agent can ask of a call that is nothing but a media socket."""

from __future__ import annotations

from collections.abc import AsyncIterator

from dialog.errors import CarrierError, NotSupportedError
from dialog.voip.call import Call
from dialog.voip.link import Command, CommandResult, Hangup

__all__ = ["StreamCommands"]


class StreamCommands:
    """Hanging up closes the socket, upon which the carrier ends the call, or goes on with what it was configured to."""

    async def execute(self, call: Call, command: Command) -> CommandResult:
        """Carry out one command.

        Raises:
            NotSupportedError: It is another than hanging up.
        """
        if isinstance(command, Hangup):
            call.end(command.reason)
            return None
        raise NotSupportedError(
            f"call {call.metadata.call_id}: {type(command).__name__} is not there for streams of "
            f"{call.metadata.carrier}: use the carrier's own API with the call id {call.metadata.carrier_call_id}"
        )

    def download(self, url: str) -> AsyncIterator[bytes]:
        """There are no recordings of the carrier's here.

        Raises:
            CarrierError: Always.
        """
        raise CarrierError("stream", "-", f"{url[:200]} is not known here: fetch it with the carrier's credentials")

    async def hangup_quietly(self, call: Call) -> None:
        """Nothing but the socket is to be closed."""

    async def close(self) -> None:
        """Nothing is open."""

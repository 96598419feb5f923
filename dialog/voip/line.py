"""The carrier's side of a stream of a call."""

from __future__ import annotations

from typing import Protocol

__all__ = ["Line", "Tap", "Wire"]


class Wire(Protocol):
    """A carrier's media socket as a :class:`Line` needs it. Nothing here blocks or raises.

    Its outgoing queue may hold at most what the line sends ahead (the lead); a wire that is closed
    ignores everything.
    """

    rtt_s: float
    """Last measured ping round trip in seconds; 0.0 when unknown."""

    def send_audio(self, data: bytes) -> None:
        """Queue audio in the call's format, up to 100 ms."""

    def send_mark(self, name: str) -> None:
        """Ask for an echo of ``name`` once all audio before it was played."""

    def send_clear(self) -> int:
        """Drop what is queued and not sent, marks too, and send a clear next.

        Returns:
            Bytes of audio that were dropped and thus never left this process.
        """
        ...

    def close(self) -> None:
        """Close the socket; idempotent."""


class Tap(Protocol):
    """Listens to a line: a recorder, a live monitor. ``at_ms`` is on the call's audio clock."""

    def caller(self, at_ms: float, data: bytes) -> None:
        """The caller's audio, gaps filled."""

    def agent(self, at_ms: float, data: bytes) -> None:
        """The agent's audio, which will sound from ``at_ms`` on unless it is cleared."""

    def agent_cleared(self, at_ms: float) -> None:
        """The agent's audio from ``at_ms`` on was not heard."""


class Line:
    """One stream of a call: made by :meth:`dialog.voip.call.Call.join`, fed by a carrier's socket."""

    def receive_audio(self, data: bytes, timestamp_ms: float | None) -> None:
        """Take the caller's audio in the call's format.

        ``timestamp_ms`` counts from the start of the stream; gaps up to 2 s are filled with silence.
        ``None``: the audio is continuous. Cheapest when the task runs inside ``call.scope.entered()``.
        """

    def receive_mark(self, name: str) -> None:
        """Take the echo of a mark."""

    def receive_digit(self, digit: str) -> None:
        """Take a key that the caller pressed."""

    def close(self) -> None:
        """End this stream's playout: what was not heard is lost. Closes the wire; idempotent."""

"""The events of one call, on its way from whoever tells of it to whoever publishes it."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

from msgspec.structs import replace

from dialog.calls.events import CallEnded, CallEvent, CallStarted, RecordingReady, StreamChanged
from dialog.calls.publish import CallEvents
from dialog.message import CallEnd, CallMetadata, StreamStarted
from dialog.voip.voip import VoIP

__all__ = ["CallFeed", "declined"]

_ELSEWHERE = 1_000_000
"""More events than another gateway can have told of, of a call that has come here and got no agent."""


class CallFeed:
    """Sees to it that every call is told of from a :class:`CallStarted` to exactly one :class:`CallEnded`.

    An agent numbers its events, here or in another process. The feed adds what no agent tells: media and end of a call
    that never had one, the end of a call whose agent is gone, and a recording that comes later than the end.
    """

    def __init__(self, voip: VoIP, events: CallEvents) -> None:
        self._events = events
        self._voip = voip
        self._clock = voip.clock
        self._since = voip.clock.now()
        self._came_at = _now()
        self._seq = -1
        """Of the last event."""
        self._started = False
        """An agent has the call, or had it."""
        self._elsewhere = voip.generation > 0
        """It was at another gateway before, which has told of its start."""
        self._live: StreamChanged | None = None
        """Media started without an agent that told of it; its ``seq`` is not known yet."""
        self._over = asyncio.Event()
        """The end of the call was told."""
        self._recordings: list[str] = []
        """Those that no event has told of yet."""
        voip.on(VoIP.EVENT, self._on_event)
        voip.on(VoIP.RECORDING_URL, self._on_recording)
        voip.on(VoIP.STREAMING_STARTED, self._on_streaming_started)
        voip.on(VoIP.ENDED, self._on_ended)

    def close(self) -> None:
        """Nothing of the call is left: nobody is going to tell of its end any more."""
        self._end(self._voip.end or CallEnd(reason="error", detail="the call was given up"))

    async def wait_over(self) -> None:
        """Wait until the end of the call was told: its agent has had the caller's last words, and made its report."""
        await self._over.wait()

    def _on_event(self, event: CallEvent) -> None:
        if self._over.is_set():
            return
        self._seq = event.seq
        if not self._started:  # with a CallStarted, unless the call was at another gateway before
            self._started = True
            self._since = self._clock.now() - event.at_s
        elif isinstance(event, RecordingReady):
            self._recordings = [url for url in self._recordings if url != event.url]
        over = isinstance(event, CallEnded)
        if over:
            self._over.set()
        self._publish(event)
        if over:
            self._late_recordings()

    def _on_streaming_started(self, started: StreamStarted) -> None:
        if self._live is None:
            self._live = StreamChanged(seq=0, at_s=self._at_s(), state="live", generation=started.generation)

    def _on_recording(self, url: str) -> None:
        self._recordings.append(url)  # our listener is the first: an agent's own event takes it off again
        if self._over.is_set():
            self._late_recordings()

    def _on_ended(self, end: CallEnd) -> None:
        if not self._started:  # else its agent has last words, and a report
            self._end(end)

    def _end(self, end: CallEnd) -> None:
        if self._over.is_set():
            return
        if not self._started and self._elsewhere:
            self._seq = max(self._seq, _ELSEWHERE)
        elif not self._started:
            self._publish(_started(self._voip.metadata, self._came_at, self._next(), 0.0))
            if self._live is not None:
                self._publish(replace(self._live, seq=self._next()))
        self._over.set()
        self._publish(CallEnded(seq=self._next(), at_s=self._at_s(), reason=end.reason, detail=end.detail))
        self._late_recordings()

    def _late_recordings(self) -> None:
        recordings, self._recordings = self._recordings, []
        for url in recordings:
            self._publish(RecordingReady(seq=self._next(), at_s=self._at_s(), url=url))

    def _publish(self, event: CallEvent) -> None:
        self._events.publish(self._voip.metadata, event)

    def _next(self) -> int:
        self._seq += 1
        return self._seq

    def _at_s(self) -> float:
        return round(self._clock.now() - self._since, 4)


def declined(events: CallEvents, call: CallMetadata, how: str) -> None:
    """Tell of a call that was not taken: it starts and ends at once; ``how`` the caller was told."""
    events.publish(call, _started(call, _now(), 0, 0.0))
    events.publish(call, CallEnded(seq=1, at_s=0.0, reason="declined", detail=how))


def _started(call: CallMetadata, at: str, seq: int, at_s: float) -> CallStarted:
    return CallStarted(
        seq=seq,
        at_s=at_s,
        call_id=call.call_id,
        carrier=call.carrier,
        carrier_call_id=call.carrier_call_id,
        from_=call.from_,
        to=call.to,
        direction=call.direction,
        started_at=at,
    )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")

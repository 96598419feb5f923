"""Recording and transcription of a call at the carrier, and waiting for them after its end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

from dialog.errors import CarrierError, DialogError, UserCodeError
from dialog.message import CallEnd, TranscriptStatus
from dialog.participant import Participant
from dialog.voip.voip import VoIP

__all__ = ["CallRecord", "RecordingSink", "save_to"]

logger = logging.getLogger(__name__)

RecordingSink = Callable[[str, AsyncIterator[bytes]], Awaitable[None]]
"""Takes the URL of a recording and its bytes as they are fetched."""


def save_to(directory: Path | str) -> RecordingSink:
    """A sink that saves each recording as a file of ``directory``, named after its URL."""

    async def save(url: str, audio: AsyncIterator[bytes]) -> None:
        name = url.rstrip("/").rsplit("/", 1)[-1].split("?", 1)[0] or "recording"
        path = Path(directory) / (name if name.endswith(".wav") else f"{name}.wav")
        await asyncio.to_thread(path.parent.mkdir, parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        file = await asyncio.to_thread(part.open, "wb")
        try:
            async for chunk in audio:
                await asyncio.to_thread(file.write, chunk)
        except BaseException:
            file.close()
            part.unlink()  # half a recording must not be taken for a whole one
            raise
        await asyncio.to_thread(file.close)
        await asyncio.to_thread(part.replace, path)

    return save


class CallRecord:
    """Starts recording and transcription once per call and knows when both are complete."""

    def __init__(
        self,
        owner: Participant,
        voip: VoIP,
        *,
        record: bool,
        transcribe: bool,
        failed: Callable[[DialogError], object],
        sink: RecordingSink | None = None,
    ) -> None:
        self.transcripts: list[TranscriptStatus] = []
        """Final pieces of the carrier's transcript, in the order of their arrival."""
        self.recording_url: str = ""
        self._owner = owner
        self._voip = voip
        self._record = record
        self._transcribe = transcribe
        self._failed = failed
        self._sink = sink
        self._begun = False
        self._recorded = asyncio.Event()
        self._transcribed = asyncio.Event()
        voip.on(VoIP.RECORDING_URL, self._on_recording)
        voip.on(VoIP.TRANSCRIPT, self._on_transcript)
        voip.on(VoIP.ENDED, self._on_ended)

    def begin(self) -> None:
        """The first stream has started; further calls do nothing."""
        if not self._begun:
            self._begun = True
            self._owner.spawn(self._begin(), "start of recording and transcription")

    def resumed(self) -> None:
        """Both were started in another process, if at all: what comes of them comes here."""
        self._begun = True
        if not self._record:
            self._recorded.set()
        if not self._transcribe:
            self._transcribed.set()

    async def completed(self, bound_s: float) -> None:
        """Wait until everything that was started has arrived, at most ``bound_s``."""
        try:
            async with asyncio.timeout(bound_s):
                await self._recorded.wait()
                await self._transcribed.wait()
        except TimeoutError:
            logger.warning(
                "call %s: recording or transcription did not arrive within %g s",
                self._voip.metadata.call_id,
                bound_s,
            )

    async def _begin(self) -> None:
        await self._start(self._voip.start_recording if self._record else None, self._recorded)
        await self._start(self._voip.start_transcription if self._transcribe else None, self._transcribed)

    async def _start(self, start: Callable[[], Awaitable[None]] | None, over: asyncio.Event) -> None:
        """Start one of the two. What does not start is not waited for, and is no reason to end the call."""
        expected = False
        try:
            if start is not None:
                await start()
                expected = True
        except CarrierError:
            logger.debug("call %s: not started; the VoIP has told why", self._voip.metadata.call_id)
        except DialogError as exc:
            if self._voip.state != "ended":  # else there is nothing to record any more
                self._failed(exc)
        finally:
            if not expected:
                over.set()

    def _on_ended(self, _: CallEnd) -> None:
        if not self._begun:
            self._recorded.set()
            self._transcribed.set()

    def _on_recording(self, url: str) -> None:
        self.recording_url = url
        if self._sink is None or not url:
            self._recorded.set()
        else:
            self._owner.spawn(self._fetch(url, self._sink), "fetching the recording")

    async def _fetch(self, url: str, sink: RecordingSink) -> None:
        try:
            await sink(url, self._voip.download_recording(url))
        except DialogError as exc:
            self._failed(exc)
        except Exception as exc:  # the user's sink
            error = UserCodeError(f"the recording sink raised {exc!r}")
            error.__cause__ = exc
            self._failed(error)
        finally:
            self._recorded.set()

    def _on_transcript(self, status: TranscriptStatus) -> None:
        if status.state == "content" and status.final:
            self.transcripts.append(status)
        elif status.state in ("stopped", "error"):
            self._transcribed.set()

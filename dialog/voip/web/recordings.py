"""Recordings of clients' calls, made here: no carrier stands behind a browser."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final
from uuid import UUID

from dialog.audio.recorder import StereoRecorder
from dialog.errors import CarrierError, NotSupportedError
from dialog.voip.call import Call
from dialog.voip.voip import VoIP

__all__ = ["SCHEME", "Recordings"]

logger = logging.getLogger(__name__)

SCHEME: Final = "recording:"
"""Before the id of a call: what RECORDING_URL tells. The file is for :meth:`Recordings.download` to find."""
_MAX_S: Final = 3600.0
_PIECE: Final = 65_536


class Recordings:
    """Keeps calls as stereo WAV files, caller left and agent right; of a longer call the first hour.

    A recording begins with the first stream of its call, whenever it was asked for: so its time is the call's own.
    Until the call ends it is kept in memory.

    Args:
        directory: Where ``<call_id>.wav`` are written.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._running: dict[UUID, tuple[Call, StereoRecorder]] = {}
        self._writing: dict[UUID, asyncio.Task[None]] = {}

    def start(self, call: Call) -> None:
        """Record a call from now on; one that is recorded already goes on."""
        call_id = call.metadata.call_id
        if call_id in self._running:
            return
        recorder = StereoRecorder(call.voip.audio_format, max_s=_MAX_S)
        self._running[call_id] = call, recorder
        call.add_tap(recorder)
        call.voip.on(VoIP.ENDED, lambda _: self._ended(call))

    def stop(self, call: Call) -> None:
        """Hear no more of a call; what was recorded is kept when it ends."""
        running = self._running.get(call.metadata.call_id)
        if running is not None:
            call.remove_tap(running[1])

    async def remove(self, call: Call) -> None:
        """Forget what was recorded of a call, during it or after it."""
        running = self._running.pop(call.metadata.call_id, None)
        if running is not None:
            call.remove_tap(running[1])
        writing = self._writing.get(call.metadata.call_id)
        if writing is not None:  # else the file would be there a moment later
            await asyncio.wait((writing,))
        await asyncio.to_thread(self._path(call.metadata.call_id).unlink, missing_ok=True)

    async def download(self, url: str) -> AsyncIterator[bytes]:
        """The bytes of a recording.

        Raises:
            CarrierError: It is not there.
            NotSupportedError: It is none of ours.
        """
        try:
            call_id = UUID(url.removeprefix(SCHEME)) if url.startswith(SCHEME) else None
        except ValueError:
            call_id = None
        if call_id is None:
            raise NotSupportedError(f"this is no recording of a client's call: {url}")
        try:
            file = await asyncio.to_thread(self._path(call_id).open, "rb")
        except OSError as exc:
            raise CarrierError("web", str(call_id), f"the recording is not there: {exc.strerror}") from exc
        try:
            while piece := await asyncio.to_thread(file.read, _PIECE):
                yield piece
        finally:
            file.close()

    def _ended(self, call: Call) -> None:
        call_id = call.metadata.call_id
        running = self._running.pop(call_id, None)
        if running is None:
            return
        writing = call.voip.spawn(self._write(call.voip, running[1]), "writing the recording")
        if writing is not None:
            self._writing[call_id] = writing
            writing.add_done_callback(lambda _: self._writing.pop(call_id))

    async def _write(self, voip: VoIP, recorder: StereoRecorder) -> None:
        path = self._path(voip.metadata.call_id)
        part = path.with_suffix(".part")
        try:
            await asyncio.to_thread(self._save, recorder, part, path)
        except OSError as exc:
            voip.fail(CarrierError("web", str(voip.metadata.call_id), f"the recording cannot be kept: {exc}"))
        else:
            voip.receive(VoIP.RECORDING_URL, f"{SCHEME}{voip.metadata.call_id}")

    def _save(self, recorder: StereoRecorder, part: Path, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        recorder.write(part)
        part.replace(path)  # half a recording must not be taken for a whole one

    def _path(self, call_id: UUID) -> Path:
        return self._directory / f"{call_id}.wav"

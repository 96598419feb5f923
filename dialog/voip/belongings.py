"""What belongs to a call in the process that runs its agent: its scope, its VoIP, and their end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from dialog.errors import UserCodeError
from dialog.scope import CallScope
from dialog.voip.lifecycle import CallSettings
from dialog.voip.link import Command, StartRecording, StartTranscription
from dialog.voip.voip import VoIP
from dialog.voip.wrapup import WrapUp

__all__ = ["Belongings"]

logger = logging.getLogger(__name__)

_closing: set[asyncio.Task[None]] = set()
"""Calls that are being taken apart: whoever held them may have forgotten them already."""


class Belongings:
    """Runs the user's code for a call inside the call's scope, and takes everything apart when it has ended."""

    def __init__(
        self, voip: VoIP, scope: CallScope, settings: CallSettings, on_closed: Callable[[], object] | None = None
    ) -> None:
        """``on_closed`` is called once, when nothing of the call is left."""
        self.voip = voip
        self.scope = scope
        self._settings = settings
        self._on_closed = on_closed
        self._wrap_up: WrapUp | None = None
        self._abandoned = False
        self._ended = False
        self._settled = asyncio.Event()
        self._closed = asyncio.Event()

    @property
    def closed(self) -> bool:
        """Whether nothing of the call is left."""
        return self._closed.is_set()

    def offer(self, on_voip: Callable[[VoIP], object]) -> None:
        """Run ``on_voip``, then emit METADATA.

        Raises:
            UserCodeError: It raised; end the call then.
        """
        with self.scope.entered():
            try:
                on_voip(self.voip)
            except Exception as exc:
                self._abandoned = True
                raise UserCodeError(f"call {self.voip.metadata.call_id}: on_voip raised {exc!r}") from exc
            self.voip.receive(VoIP.METADATA, self.voip.metadata)

    def expect(self, command: Command) -> None:
        """The carrier has begun to record or to transcribe: callbacks will come after the call's end."""
        if not isinstance(command, StartRecording | StartTranscription):
            return
        if self._wrap_up is None or self._wrap_up.disposed:
            with self.scope.entered():
                self._wrap_up = WrapUp(self.voip, self.scope)
        self._wrap_up.expect("recording" if isinstance(command, StartRecording) else "transcription")
        if self._ended:  # the caller left while we asked
            self._wrap_up.call_ended(self._settings.wrap_up_s)

    def end(self) -> None:
        """The call has ended, and its VoIP has told so: what belongs to it goes, if need be by force."""
        if self._ended:
            return
        self._ended = True
        if self._wrap_up is not None:
            self._wrap_up.call_ended(self._settings.wrap_up_s)
        task = asyncio.get_running_loop().create_task(self._close(), name=f"call {self.voip.metadata.call_id} closing")
        _closing.add(task)
        task.add_done_callback(_closing.discard)

    async def wait_settled(self) -> None:
        """Wait until only what waits for late callbacks is left."""
        await self._settled.wait()

    async def wait_closed(self) -> None:
        """Wait until the call has ended and nothing of it is left."""
        await self._closed.wait()

    async def _close(self) -> None:
        call_id = self.voip.metadata.call_id
        try:
            if not self._abandoned:
                # Participants take their leave themselves: an agent waits for the caller's last words.
                await self.scope.settled(but=self.voip, timeout_s=self._settings.settle_s)
            self._settled.set()
            forgotten = await self.scope.close(last=(self.voip,))
            if forgotten:
                logger.info("call %s: disposed of what was left: %s", call_id, ", ".join(sorted(forgotten)))
        except Exception:
            logger.exception("call %s: something of it could not be disposed of", call_id)
        finally:
            self._settled.set()
            self._closed.set()
            on_closed, self._on_closed = self._on_closed, None
            if on_closed is not None:
                on_closed()

"""A listener to a voice, for the tests of voices."""

import asyncio
from uuid import uuid4

import pytest

from dialog.message import Message
from dialog.tts.tts import TTS
from tests.tts.providers import read

__all__ = ["Ear", "uuid4"]


class Ear:
    """A voice, and all that came from it, in its order."""

    def __init__(self, tts, audio_format=None):
        self.tts = tts
        self.format = audio_format or tts.formats[0]
        self.messages, self.alignments, self.failures, self.events = [], [], [], []
        self._woken = asyncio.Event()
        for event, kept in (
            (TTS.MESSAGE, self.messages),
            (TTS.ALIGNMENT, self.alignments),
            (TTS.ERROR, self.failures),
        ):
            tts.on(event, lambda payload, kept=kept: self._keep(payload, kept))

    def _keep(self, payload, kept):
        kept.append(payload)
        self.events.append(payload)
        self._woken.set()

    async def until(self, condition, timeout_s=5.0):
        async with asyncio.timeout(timeout_s):
            while not condition():
                self._woken.clear()
                await self._woken.wait()

    def say(self, text, turn, part=0, *, done=True, voice=""):
        self.tts.post(Message(uuid=turn, part=part, data=text, done=done, voice=voice))

    def of(self, turn, part=0):
        return [message for message in self.messages if (message.uuid, message.part) == (turn, part)]

    def audio(self, turn, part=0):
        return b"".join(message.data for message in self.of(turn, part))

    def text(self, turn, part=0):
        """What was spoken."""
        return read(self.audio(turn, part), self.format)

    def words(self, turn, part=0):
        return [word for a in self.alignments if (a.uuid, a.part) == (turn, part) for word in a.words]

    @property
    def fatal(self):
        return [failure for failure in self.failures if failure.fatal]

    async def done(self, turn, part=0, timeout_s=5.0):
        """Wait for the end of a part, and look at what must hold for every part."""
        await self.until(lambda: any(message.done for message in self.of(turn, part)), timeout_s)
        messages = self.of(turn, part)
        assert [message.done for message in messages].count(True) == 1
        assert messages[-1].done
        position = 0.0
        for message in messages:
            assert message.at_ms == pytest.approx(position)
            assert len(message.data) % self.format.sample_bytes == 0
            position += self.format.ms(len(message.data))
        words = self.words(turn, part)
        starts = [word.start_ms for word in words]
        assert starts == sorted(starts)
        for word in words:
            assert 0 <= word.start_ms <= word.end_ms <= position + 31

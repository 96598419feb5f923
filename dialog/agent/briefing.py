"""What somebody is told before a caller is handed to them, and whether they take the call."""

from __future__ import annotations

import asyncio
from uuid import uuid4

from dialog.agent.clips import speak
from dialog.errors import NotSupportedError
from dialog.message import CallEnd, Message
from dialog.tts.tts import TTS
from dialog.voip.voip import VoIP

__all__ = ["brief"]

_TIMES = 3
_KEY_S = 6.0


async def brief(voip: VoIP, tts: TTS | None, text: str) -> bool:
    """Say ``text`` with a voice that has nothing else to do, up to three times, until a key is pressed.

    Returns:
        Whether it was 1. Any other key, no key and a hang-up mean no.

    Raises:
        NotSupportedError: There is no such voice.
    """
    audio = None if tts is None else await speak(tts, text, voip.audio_format)
    if audio is None:
        raise NotSupportedError(f"call {voip.metadata.call_id}: no voice can say the briefing: override brief()")
    decided: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    def decide(taken: bool) -> None:
        if not decided.done():
            decided.set_result(taken)

    def on_key(key: str) -> None:
        decide(key == "1")

    def on_end(_: CallEnd) -> None:
        decide(False)

    voip.on(VoIP.DTMF, on_key)
    voip.on(VoIP.ENDED, on_end)
    if voip.end is not None:
        decide(False)
    try:
        for _ in range(_TIMES):
            turn = uuid4()
            voip.post(Message(uuid=turn, data=audio, done=True))
            said = voip.audio_format.ms(len(audio)) / 1000.0
            done, _late = await asyncio.wait([decided], timeout=voip.clock.real(said + _KEY_S))
            if done:
                voip.abort(turn)
                break
        return decided.done() and decided.result()
    finally:
        voip.off(VoIP.DTMF, on_key)
        voip.off(VoIP.ENDED, on_end)
        decided.cancel()

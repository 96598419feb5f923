"""An emulator of xAI's Grok voice (``/v1/realtime``): OpenAI's protocol, and what Grok does otherwise.

Source: xAI's documentation of the voice agent API, and its wire as seen in 2026.
"""

from __future__ import annotations

import time
from typing import Any, ClassVar, cast

from dialog.message import AudioFormat
from dialog.testing.openai_realtime import RealtimeEmulator
from dialog.testing.realtime_session import RealtimeSession, TalkItem, event, failure
from dialog.testing.s2s import RealtimeReply

__all__ = ["GrokEmulator"]

_RATES = (8000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)


class _GrokSession(RealtimeSession):
    fields: ClassVar[frozenset[str]] = frozenset(
        {"voice", "turn_detection", "instructions", "tools", "audio", "reasoning", "replace", "resumption", "type"}
    )
    first_detection: ClassVar[dict[str, Any] | None] = None

    async def _send(self, message: dict[str, Any]) -> None:
        """Every event has one field more, and those of replies have several."""
        message = {**message, "previous_item_id": message.get("previous_item_id")}
        if message["type"] == "response.output_audio.delta":
            ms = self.format_of(self.output_format).ms(len(message["delta"]) // 4 * 3)
            message.update(rid="r1", latency=210, audio_duration_ms=round(ms), ts=int(time.time() * 1000))
        elif message["type"] == "response.output_audio_transcript.delta":
            del message["obfuscation"]
            message["start_time"] = 0.0
        await super()._send(message)

    @property
    def _grok(self) -> GrokEmulator:
        return cast("GrokEmulator", self.emulator)

    async def greet(self) -> None:
        self.voice = "ara"
        session = {"id": self.id, "model": self.model, "turn_detection": {"type": None}, "voice": "ara"}
        await self._send(event("session.created", session={**session, "modalities": ["text", "audio"]}))
        await self._send(event("conversation.created", conversation={"id": "conv_1"}))
        await self._send(event("ping", timestamp=int(time.time() * 1000)))

    def described(self) -> dict[str, Any]:
        functions = [{name: tool[name] for name in tool.keys() - {"type"}} for tool in self.tools]
        tools = [{"type": "function", "function": function} for function in functions]
        return {"id": self.id, "tools": tools, "turn_detection": self.detection, "input_audio_format": "not specified"}

    def configure(self, session: dict[str, Any]) -> None:
        audio = session.get("audio", {})
        given = dict(audio.get("input", {}))
        if "turn_detection" in session:
            detection = session["turn_detection"]
            given["turn_detection"] = detection if detection["type"] is not None else None
        self._listen(given)
        self.voice = session.get("voice", self.voice)
        self.output_format = audio.get("output", {}).get("format", self.output_format)

    def format_of(self, given: dict[str, Any]) -> AudioFormat:
        if given["type"] != "audio/pcm":
            return super().format_of(given)
        if given.get("rate", 24_000) not in _RATES:
            raise ValueError(f"invalid_value: the rate {given['rate']}")
        return AudioFormat("s16le", given.get("rate", 24_000))

    async def began(self, item: str, start_ms: int) -> None:
        await super().began(item, start_ms)
        about = TalkItem("message", "user", id=item)
        about.status = "in_progress"
        await self._send(event("conversation.item.added", previous_item_id=None, item=about.wire()))

    async def added_caller(self, item: TalkItem, previous: str | None) -> None:
        del previous
        self.items.append(item)  # it was told when the caller began

    async def transcribed(self, item: TalkItem) -> None:
        kind = "conversation.item.input_audio_transcription"
        words = item.text.split()
        about = {"item_id": item.id, "content_index": 0}
        for number in range(len(words)):
            so_far = " ".join(words[: number + 1])
            await self._send(event(f"{kind}.updated", **about, transcript=so_far))
            if number < len(words) - 1:
                await self._send(event(f"{kind}.completed", **about, transcript=so_far, status="in_progress"))
        await self._send(event(f"{kind}.completed", **about, transcript=item.text, status="completed"))

    async def on_item(self, given: dict[str, Any]) -> None:
        item = given.get("item", {})
        if item.get("type") == "force_message":
            text = "".join(part["text"] for part in item["content"])
            self._grok.forced.append(text)
            self._respond({"instructions": text})
        elif given["type"] == "conversation.item.truncate" and not self._grok.truncates:
            message = "Unsupported event type: conversation.item.truncate"
            await self._send(failure("unsupported_event", message, about=given.get("event_id")))
        else:
            await super().on_item(given)

    def not_active(self, about: str | None) -> dict[str, Any]:
        del about  # no id and no code that would tell
        return failure("error", "Cancellation failed: no active response found")

    def pieces(self, arguments: str) -> list[str]:
        return [arguments]

    def ended(self, response: dict[str, Any], usage: dict[str, Any]) -> dict[str, Any]:
        seconds = {"output_audio_seconds": 1.5, "billable_audio_seconds": 3.0}
        response = {**response, "usage": {}, "status_details": "unimplemented"}
        details = {
            f"{side}_token_details": {
                **{name: usage[f"{side}_token_details"][name] for name in ("text_tokens", "audio_tokens")},
                "grok_tokens": 0,
            }
            for side in ("input", "output")
        }
        return event("response.done", response=response, usage={**usage, **details, **seconds})


class GrokEmulator(RealtimeEmulator):
    """Grok voice on loopback; see :class:`~dialog.testing.openai_realtime.RealtimeEmulator`.

    Args:
        truncates: It takes ``conversation.item.truncate``; accounts differ.
        settings: As the base class has them.
    """

    session: ClassVar[type[RealtimeSession]] = _GrokSession

    def __init__(self, *, truncates: bool = True, **settings: Any) -> None:
        settings.setdefault("api_key", "xai-test-key")
        super().__init__(**settings)
        self.truncates: bool = truncates
        self.forced: list[str] = []
        """Sentences that it had to say word for word."""

    def reply_to(self, session: RealtimeSession, instructions: str) -> RealtimeReply:
        """What is answered now."""
        return RealtimeReply(text=instructions) if instructions else super().reply_to(session, "")

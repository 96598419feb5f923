"""An emulator of OpenAI's speech endpoint (``/v1/audio/speech``): every text is a tone of the right length.

::

    async with OpenAISpeechEmulator(ms_per_char=20) as openai:
        tts = OpenAITTS(api_key=openai.api_key, base_url=openai.base_url)

Source: OpenAI API reference, "Create speech", seen November 2026.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any, cast

import msgspec
from aiohttp import web

from dialog.message import PCM_24K, AudioFormat
from dialog.testing.server import EmulatorServer, Faults
from dialog.testing.tone import tone

__all__ = ["OpenAISpeechEmulator"]

_MODELS = ("gpt-4o-mini-tts", "tts-1", "tts-1-hd")
_VOICES = frozenset(
    "alloy ash ballad coral echo fable nova onyx sage shimmer verse marin cedar".split()  # noqa: SIM905  # as documented
)
_MAX_CHARS = 4096
_REFUSALS = {
    401: ("invalid_request_error", "invalid_api_key", "Incorrect API key provided: sk-t***."),
    429: ("requests", "rate_limit_exceeded", "Rate limit reached."),
    500: ("server_error", None, "The server had an error while processing your request."),
}


class OpenAISpeechEmulator(EmulatorServer):
    """``POST /v1/audio/speech`` on loopback, with a streamed body of 24 kHz PCM.

    Args:
        api_key: The key that is accepted; every other one is refused with 401.
        ms_per_char: Milliseconds of audio for each character of text, blanks included.
        speed: How many times faster than real time audio is sent.
        chunk_bytes: Bytes in one piece of the body; an odd number splits samples, as the real service does.
        first_audio_s: Wait before the answer.
        refusal_code: Instead of the usual error code of a refusal, for instance ``insufficient_quota``.
        faults: What goes wrong; messages are pieces of bodies.
    """

    def __init__(
        self,
        *,
        api_key: str = "test-openai-key",
        ms_per_char: float = 60.0,
        speed: float = 50.0,
        chunk_bytes: int = 4801,
        first_audio_s: float = 0.0,
        refusal_code: str | None = None,
        port: int = 0,
        faults: Faults | None = None,
    ) -> None:
        super().__init__(port=port, faults=faults)
        self.api_key = api_key
        self.ms_per_char = ms_per_char
        self.speed = speed
        self.chunk_bytes = chunk_bytes
        self.first_audio_s = first_audio_s
        self.refusal_code = refusal_code
        self.bodies: list[dict[str, Any]] = []
        """Every valid request, oldest first."""
        self.disconnected: int = 0
        """How many bodies nobody wanted to hear to their end."""

    @property
    def base_url(self) -> str:
        """What an OpenAI client takes: the address with its version."""
        return f"{self.url}/v1"

    @property
    def texts(self) -> list[str]:
        """What was asked for, oldest first."""
        return [body["input"] for body in self.bodies]

    def routes(self) -> Iterable[web.RouteDef]:
        """The endpoint."""
        return [web.post("/v1/audio/speech", self._speak)]

    def refusal(self, status: int, request: web.Request) -> web.Response:  # noqa: ARG002
        """A refusal in OpenAI's shape."""
        kind, code, text = _REFUSALS.get(status, ("server_error", None, f"Refused with {status}."))
        return _error(status, text, kind=kind, code=self.refusal_code or code)

    def audio(self, text: str, *, number: int = 0, audio_format: AudioFormat = PCM_24K) -> bytes:
        """The audio of request ``number``."""
        return tone(text, audio_format, ms_per_char=self.ms_per_char, number=number)

    async def _speak(self, request: web.Request) -> web.StreamResponse:
        if request.headers.get("Authorization") != f"Bearer {self.api_key}":
            return self.refusal(401, request)
        try:
            fields = msgspec.json.decode(await request.read(), type=dict[str, Any])
        except msgspec.DecodeError:
            return _error(400, "We could not parse the JSON body of your request.")
        invalid = _invalid(fields)
        if invalid is not None:
            return _error(*invalid)
        number = len(self.bodies)
        self.bodies.append(fields)
        self.changed()
        if self.first_audio_s:
            await asyncio.sleep(self.first_audio_s)
        audio = self.audio(fields["input"], number=number)
        async with self.stream(request, headers={"Content-Type": "audio/pcm"}) as body:
            try:
                for at in range(0, len(audio), self.chunk_bytes):
                    await body.write(audio[at : at + self.chunk_bytes])
                    await asyncio.sleep(PCM_24K.ms(self.chunk_bytes) / 1000 / self.speed)
            except asyncio.CancelledError:
                self.disconnected += 1
                self.changed()
                raise
        return body.response


def _invalid(fields: Mapping[str, Any]) -> tuple[int, str] | None:
    """The status and words with which OpenAI would refuse the request."""
    voice: object = fields.get("voice")
    if fields.get("model") not in _MODELS:
        return 404, f"The model `{fields.get('model')}` does not exist or you do not have access to it."
    if not (voice in _VOICES if isinstance(voice, str) else isinstance(voice, dict) and cast("Any", voice).get("id")):
        return 400, f"Invalid value: '{voice}'. Supported values are: {', '.join(sorted(_VOICES))}."
    text: object = fields.get("input")
    if not isinstance(text, str) or not text.strip() or len(text) > _MAX_CHARS:
        return 400, f"Invalid 'input': expected a string of 1 to {_MAX_CHARS} characters."
    if fields.get("response_format", "mp3") != "pcm":
        return 400, "The emulator makes nothing but pcm."
    return None


def _error(status: int, message: str, *, kind: str = "invalid_request_error", code: str | None = None) -> web.Response:
    body = {"error": {"message": message, "type": kind, "param": None, "code": code}}
    return web.json_response(body, status=status, headers={"x-request-id": "req_refused"})

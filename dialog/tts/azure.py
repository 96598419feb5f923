"""Azure's speech synthesis (REST, ``cognitiveservices/v1``) as a :class:`~dialog.tts.tts.TTS`.

Source: Microsoft's reference of the text-to-speech REST API and of SSML, seen November 2026.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from html import escape
from typing import ClassVar, cast

from dialog.errors import ConfigurationError
from dialog.message import ALAW_8K, MULAW_8K, PCM_8K, PCM_16K, PCM_24K, AudioFormat
from dialog.net.azure import DEFAULT_REGION, host
from dialog.net.options import merged
from dialog.net.urls import QueryValue, http_url, join
from dialog.tts.http import HttpTTS
from dialog.tts.tts import TTSCapabilities

__all__ = ["AzureTTS"]

DEFAULT_VOICE = "en-US-AvaMultilingualNeural"
DEFAULT_LANGUAGE = "en-US"

_FORMATS = {
    MULAW_8K: "raw-8khz-8bit-mono-mulaw",
    ALAW_8K: "raw-8khz-8bit-mono-alaw",
    PCM_24K: "raw-24khz-16bit-mono-pcm",
    PCM_16K: "raw-16khz-16bit-mono-pcm",
    PCM_8K: "raw-8khz-16bit-mono-pcm",
}
_PARALLEL = 2
_LONGEST_PAUSE_MS = 20_000
_NAMESPACES = 'xmlns="http://www.w3.org/2001/10/synthesis" xmlns:mstts="http://www.w3.org/2001/mstts"'
_NAME = re.compile(r"(?:[A-Za-z_][\w.-]*:)?[A-Za-z_][\w.-]*", re.ASCII)
_NOT_XML = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that XML 1.0 cannot hold (section 2.2), not even escaped."""


class AzureTTS(HttpTTS):
    """Speaks with Azure's neural voices, sentence by sentence; over REST there are no word timings.

    Args:
        api_key: Key of the speech resource.
        voice: Name of the voice; ``en-US-AvaMultilingualNeural`` unless told otherwise.
        region: Region of the resource; ``westeurope`` unless told otherwise.
        language: Language of the text, ``en-US`` unless told otherwise. A voice with a language of its own speaks
            that; multilingual ones find it out. ``options={"lang": {"xml:lang": "de-DE"}}`` makes them speak one.
        sentence_pause_ms: Silence behind every sentence, 0 to 20000; ``None``: what the voice makes by itself, which
            is most of a second. High-definition voices (with a colon in their name) take no wishes.
        base_url: The resource's own endpoint, or another server that speaks the protocol, instead of the region;
            http(s) or ws(s).
        options: Elements of SSML around the text, the outermost first, each with its attributes, also ones that
            this class does not know: ``{"voice": {"effect": "eq_telecomhp8k"}, "prosody": {"rate": "+10%"}}``.
        query: Further query parameters of each request (``deploymentId`` of a custom voice …).
        headers: Further headers of each request.
        timeout_s: How long a part whose text is complete may go without a sign of life.

    Raises:
        ConfigurationError: No key or voice, no such region can be, the base URL is no URL, the pause is out of
            bounds, ``options`` are no elements, or a header holds what it may not hold.
    """

    provider = "azure"
    max_chars = 4096  # an answer may be ten minutes long
    formats: ClassVar[tuple[AudioFormat, ...]] = tuple(_FORMATS)
    capabilities: ClassVar[TTSCapabilities] = TTSCapabilities(
        text="sentences",
        timings=False,
        voices=True,
        parallel_parts=_PARALLEL,
        regions=("any of Azure's",),
        limits="20 requests a minute in the free tier, 200 a second in the others",
    )

    def __init__(
        self,
        *,
        api_key: str,
        voice: str = DEFAULT_VOICE,
        region: str = DEFAULT_REGION,
        language: str = DEFAULT_LANGUAGE,
        sentence_pause_ms: int | None = 200,
        base_url: str | None = None,
        options: Mapping[str, Mapping[str, str]] | None = None,
        query: Mapping[str, QueryValue] | None = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = 5.0,
    ) -> None:
        if not voice or not language:
            raise ConfigurationError(f"AzureTTS needs a voice and a language, got {voice!r} and {language!r}")
        if sentence_pause_ms is not None and not 0 <= sentence_pause_ms <= _LONGEST_PAUSE_MS:
            raise ConfigurationError(f"AzureTTS: sentence_pause_ms must be 0 to 20000, got {sentence_pause_ms}")
        if base_url is None:
            url = join(host(region, "tts"), "/cognitiveservices/v1", query)
        else:
            url = join(http_url(base_url), "/tts/cognitiveservices/v1", query)
        around = merged({"voice": {"name": voice}}, options or {})
        self._around = around
        self._root = f'<speak version="1.0" {_NAMESPACES} xml:lang={_quoted(language)}>'
        self._pauses = _pauses(sentence_pause_ms) if sentence_pause_ms is not None else ""
        self._own = voice
        self._before = self._head_of("")
        self._after = "".join(f"</{name}>" for name in reversed(around)) + "</speak>"
        self._hint = f"voice {voice!r} or language {language!r} may be unknown there"
        super().__init__(
            api_key=api_key,
            slots=_PARALLEL,
            timeout_s=timeout_s,
            url=url,
            headers={
                "Ocp-Apim-Subscription-Key": api_key,
                "Content-Type": "application/ssml+xml",
                **(headers or {}),
            },
        )
        self.voice_key = repr((self.provider, url, self._before))

    def _start(self) -> None:
        self._head += f"X-Microsoft-OutputFormat: {_FORMATS[self._format]}\r\n".encode()
        super()._start()

    def _head_of(self, voice: str) -> str:
        """What comes before the text; ``voice``: who speaks it, if not the own one."""
        around = merged(self._around, {"voice": {"name": voice}}) if voice else self._around
        voice_tag, *inner = (_opening(name, attributes) for name, attributes in around.items())
        pauses = "" if ":" in (voice or self._own) else self._pauses
        return "".join((self._root, voice_tag, pauses, *inner))

    def _body(self, text: str, voice: str = "") -> bytes:
        before = self._head_of(voice) if voice else self._before
        return f"{before}{_escaped(text)}{self._after}".encode()

    def _reason(self, status: int, body: bytes) -> tuple[str, bool]:
        told, retryable = super()._reason(status, body)
        if status in (400, 404) and not told:
            told = self._hint  # the service says no more than the number
        # Too many requests at once pass; a quota that is used up does not.
        return told, retryable and not (status == 429 and "quota" in told.lower())


def _escaped(text: str) -> str:
    return escape(_NOT_XML.sub(" ", text))


def _pauses(pause_ms: int) -> str:
    """The same pause between the sentences of a request and behind the last one: another request may follow it."""
    return "".join(
        f'<mstts:silence type="{where}-exact" value="{pause_ms}ms"/>' for where in ("Sentenceboundary", "Tailing")
    )


def _opening(name: str, attributes: object) -> str:
    pairs = cast("Mapping[str, object]", attributes) if isinstance(attributes, Mapping) else {"": None}
    if not all(_NAME.fullmatch(each) for each in (name, *pairs)):
        raise ConfigurationError(
            f"AzureTTS: options are elements of SSML, each with its attributes, not {name!r}: {attributes!r}"
        )
    return f"<{name}{''.join(f' {key}={_quoted(value)}' for key, value in pairs.items())}>"


def _quoted(value: object) -> str:
    return f'"{_escaped(str(value))}"'

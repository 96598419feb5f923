"""OpenAI's chat completions, and every server that speaks the same protocol.

Source: OpenAI API reference, "Create chat completion", seen November 2026.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from dialog.llm.chat import STREAM_OPTIONS, ChatDecoder, ConversationEncoder, request_fields, tool_fields
from dialog.llm.llm import LLMRequest
from dialog.llm.remote import AskAgain, RemoteLLM

if TYPE_CHECKING:
    import openai

__all__ = ["DEFAULT_BASE_URL", "DEFAULT_MODEL", "OpenAILLM"]

DEFAULT_MODEL = "gpt-4.1-mini"
"""Quick to its first token and good with tools; it does not reason in silence before it speaks."""
DEFAULT_BASE_URL = "https://api.openai.com/v1"

_refused_options: dict[str, int] = {}
"""Per server, how many of STREAM_OPTIONS it refused: learnt once, not once per call."""


class OpenAILLM(RemoteLLM):
    """A model behind an OpenAI-compatible chat completions endpoint.

    Args:
        api_key: Of the account; may be empty for a server that wants none.
        model: :data:`DEFAULT_MODEL` unless given.
        client: An ``openai.AsyncOpenAI`` of yours, with its key, base URL, proxy and retries; it is
            used as it is and stays yours to close.
        base_url: With its version: ``http://127.0.0.1:8000/v1``. ``ws(s)://`` is read as ``http(s)://``.
        options: More fields of the request (``temperature``, ``max_completion_tokens`` …), sent as
            they are, also unknown ones; they win over Dialog's own, and ``None`` removes one.
        headers: Added to every request.
        query: Parameters added to every request's address.
        timeout_s: Until the first chunk, retries included, and between two chunks.
        max_retries: How often a request is sent again after a failure that may pass (no connection,
            408, 409, 429, 5xx), before anything of the reply came; never later. A ``client`` has its
            own retries, so with one this is not used.

    Raises:
        ConfigurationError: The arguments are missing or contradict each other.
    """

    provider = "openai"
    default_base_url = DEFAULT_BASE_URL
    path = "chat/completions"

    def __init__(
        self,
        *,
        api_key: str = "",
        model: str = DEFAULT_MODEL,
        client: openai.AsyncOpenAI | None = None,
        base_url: str = "",
        options: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        query: Mapping[str, str] | None = None,
        timeout_s: float = 10.0,
        max_retries: int = 1,
    ) -> None:
        super().__init__(
            api_key=api_key,
            model=model,
            client=client,
            base_url=base_url,
            options=options,
            headers=headers,
            query=query,
            timeout_s=timeout_s,
            max_retries=max_retries,
        )
        self._conversation = ConversationEncoder()

    def credentials(self) -> Mapping[str, str]:
        """See :meth:`RemoteLLM.credentials`."""
        return {"Authorization": f"Bearer {self._api_key}"} if self._api_key else {}

    def decoder(self) -> ChatDecoder:
        """See :meth:`RemoteLLM.decoder`."""
        return ChatDecoder(self.provider, self.model)

    def fields(self, request: LLMRequest) -> Mapping[str, Any]:
        """See :meth:`RemoteLLM.fields`."""
        return request_fields(
            request,
            model=self.model,
            options=self._options,
            stream_options=STREAM_OPTIONS[_refused_options.get(self._server, 0)],
            tools=self.tool_fields(request.tools, tool_fields),
            # A client encodes by itself.
            conversation=self._conversation.encode(request.items) if self._client is None else None,
        )

    def ask_client(self, fields: dict[str, Any], extra: Mapping[str, Any]) -> Any:
        """See :meth:`RemoteLLM.ask_client`; a field of ``extra_body`` wins."""
        return self._client.chat.completions.with_streaming_response.create(
            model=fields.pop("model"), stream=fields.pop("stream"), messages=[], extra_body=fields, **extra
        )

    def look_at_refusal(self, status: int, body: bytes) -> None:
        """Ask for less of the stream when the server blames that for its refusal."""
        refused = _refused_options.get(self._server, 0)
        if status in (400, 422) and refused + 1 < len(STREAM_OPTIONS) and _blames_stream_options(body):
            if len(_refused_options) >= 256:
                _refused_options.clear()
            _refused_options[self._server] = refused + 1
            raise AskAgain


def _blames_stream_options(body: bytes) -> bool:
    return any(word in body for word in (b"stream_options", b"include_usage", b"include_obfuscation"))

"""OpenAI's Responses, the successor of chat completions, and every server that speaks the same protocol.

Source: OpenAI API reference, "Responses", seen November 2026.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from dialog.llm.llm import LLMRequest
from dialog.llm.openai import DEFAULT_BASE_URL, DEFAULT_MODEL
from dialog.llm.remote import RemoteLLM
from dialog.llm.response_events import ResponsesDecoder, conversation, tool_fields
from dialog.recent import Recent

if TYPE_CHECKING:
    import openai

__all__ = ["DEFAULT_BASE_URL", "DEFAULT_MODEL", "ResponsesLLM"]

_MAX_REASONING = 64


class ResponsesLLM(RemoteLLM):
    """A model behind OpenAI's Responses API, streamed.

    Nothing is stored at the server (``store`` is false), and the whole conversation is sent each time.
    A model that reasons can be given back what it thought before it called a tool: ask for it with
    ``options={"include": ["reasoning.encrypted_content"]}``; the rest happens by itself.

    Args:
        api_key: Of the account; may be empty for a server that wants none.
        model: :data:`DEFAULT_MODEL` unless given.
        client: An ``openai.AsyncOpenAI`` of yours, with its key, base URL, proxy and retries; it is
            used as it is and stays yours to close.
        base_url: With its version: ``http://127.0.0.1:8000/v1``. ``ws(s)://`` is read as ``http(s)://``.
        options: More fields of the request (``reasoning``, ``max_output_tokens`` …), sent as they are,
            also unknown ones; they win over Dialog's own, and ``None`` removes one.
        headers: Added to every request.
        query: Parameters added to every request's address.
        timeout_s: Until the model is at work, retries included, and between two signs of life.
        max_retries: How often a request is sent again after a failure that may pass (no connection,
            408, 409, 429, 5xx), before anything of the reply came; never later. A ``client`` has its
            own retries, so with one this is not used.

    Raises:
        ConfigurationError: The arguments are missing or contradict each other.
    """

    provider = "openai"
    default_base_url = DEFAULT_BASE_URL
    path = "responses"

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
        self._reasoning: Recent[str, dict[str, Any]] = Recent(_MAX_REASONING)

    def credentials(self) -> Mapping[str, str]:
        """See :meth:`RemoteLLM.credentials`."""
        return {"Authorization": f"Bearer {self._api_key}"} if self._api_key else {}

    def decoder(self) -> ResponsesDecoder:
        """See :meth:`RemoteLLM.decoder`."""
        return ResponsesDecoder(self.provider, self.model, reasoning=self._keep)

    def fields(self, request: LLMRequest) -> Mapping[str, Any]:
        """See :meth:`RemoteLLM.fields`."""
        body: dict[str, Any] = {
            "model": self.model,
            "input": conversation(request.items, self._reasoning),
            "store": False,
            # Obfuscation pads every event against traffic analysis; a phone call has no use for the bytes.
            "stream_options": {"include_obfuscation": False},
        }
        tools = self.tool_fields(request.tools, tool_fields)
        if tools:
            body["tools"] = tools
        return self.with_options(body)

    def ask_client(self, fields: dict[str, Any], extra: Mapping[str, Any]) -> Any:
        """See :meth:`RemoteLLM.ask_client`; a field of ``extra_body`` wins."""
        return self._client.responses.with_streaming_response.create(
            model=fields.pop("model"), stream=fields.pop("stream"), extra_body=fields, **extra
        )

    def _keep(self, call_id: str, thought: dict[str, Any]) -> None:
        """Keep what the model thought until the call's result goes to it."""
        self._reasoning[call_id] = thought

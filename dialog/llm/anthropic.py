"""Anthropic's models.

Source: Anthropic API reference, "Messages", seen November 2026.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from dialog.llm.llm import LLMRequest, ToolCall
from dialog.llm.messages import MessagesDecoder, conversation, tool_fields
from dialog.llm.remote import RemoteLLM

if TYPE_CHECKING:
    import anthropic

__all__ = ["API_VERSION", "DEFAULT_BASE_URL", "DEFAULT_MAX_TOKENS", "DEFAULT_MODEL", "AnthropicLLM"]

DEFAULT_MODEL = "claude-haiku-4-5"
"""The quickest of the family to its first token, and good with tools."""
DEFAULT_BASE_URL = "https://api.anthropic.com"
DEFAULT_MAX_TOKENS = 2048
"""The API demands a limit; this one is far beyond what anybody listens to."""
API_VERSION = "2026-10-21"
"""The ``anthropic-version`` header; ``headers`` may name another."""


class AnthropicLLM(RemoteLLM):
    """A model behind Anthropic's messages API.

    The conversation so far is marked for the prompt cache, so that a long one costs a tenth from its
    second turn on, and is read faster. The model does not think before it speaks. Both are fields of the
    request that ``options`` can replace or, with ``None``, remove.

    Args:
        api_key: Of the account; may be empty for a server that wants none.
        model: :data:`DEFAULT_MODEL` unless given.
        client: An ``anthropic.AsyncAnthropic`` of yours, with its key, base URL, proxy and retries; it
            is used as it is and stays yours to close.
        base_url: As Anthropic's clients take it, without the ``/v1``: ``http://127.0.0.1:8000``.
            ``ws(s)://`` is read as ``http(s)://``.
        options: More fields of the request (``max_tokens``, ``thinking``, ``stop_sequences`` …), sent as
            they are, also unknown ones; they win over Dialog's own, and ``None`` removes one. This
            version of the API knows no ``temperature``, ``top_p`` and ``top_k``.
        headers: Added to every request.
        query: Parameters added to every request's address.
        timeout_s: Until the model is at work, retries included, and between two signs of life.
        max_retries: How often a request is sent again after a failure that may pass (no connection,
            408, 409, 429, 5xx), before anything of the reply came; never later. A ``client`` has its
            own retries, so with one this is not used.

    Raises:
        ConfigurationError: The arguments are missing or contradict each other.
    """

    provider = "anthropic"
    default_base_url = DEFAULT_BASE_URL + "/v1"
    path = "messages"

    def __init__(
        self,
        *,
        api_key: str = "",
        model: str = DEFAULT_MODEL,
        client: anthropic.AsyncAnthropic | None = None,
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
            base_url=_versioned(base_url) if base_url else "",
            options=options,
            headers=headers,
            query=query,
            timeout_s=timeout_s,
            max_retries=max_retries,
        )

    def credentials(self) -> Mapping[str, str]:
        """See :meth:`RemoteLLM.credentials`."""
        key = {"x-api-key": self._api_key} if self._api_key else {}
        return {"anthropic-version": API_VERSION, **key}

    def decoder(self) -> MessagesDecoder:
        """See :meth:`RemoteLLM.decoder`."""
        return MessagesDecoder(self.provider, self.model)

    def fields(self, request: LLMRequest) -> Mapping[str, Any]:
        """See :meth:`RemoteLLM.fields`."""
        system, messages = conversation(request.items)
        body: dict[str, Any] = {
            "model": self.model,
            "max_tokens": DEFAULT_MAX_TOKENS,
            "messages": messages,
            "thinking": {"type": "disabled"},  # silence on the line
            "cache_control": {"type": "ephemeral"},  # up to the last block, which the next turn repeats
        }
        if system:
            body["system"] = system
        tools = self.tool_fields(request.tools, tool_fields)
        if tools:
            body["tools"] = tools
        elif names := {item.name: None for item in request.items if isinstance(item, ToolCall)}:
            # A conversation with calls in it is refused without definitions of tools.
            body["tools"] = [{"name": name, "input_schema": {"type": "object"}} for name in names]
            body["tool_choice"] = {"type": "none"}
        return self.with_options(body)

    def ask_client(self, fields: dict[str, Any], extra: Mapping[str, Any]) -> Any:
        """See :meth:`RemoteLLM.ask_client`; a field of ``extra_body`` wins."""
        return self._client.messages.with_streaming_response.create(
            model=fields.pop("model"),
            stream=fields.pop("stream"),
            max_tokens=fields.get("max_tokens", DEFAULT_MAX_TOKENS),
            messages=[],
            extra_body=fields,
            **extra,
        )


def _versioned(base_url: str) -> str:
    """The address with its version, which Anthropic's own clients append."""
    return base_url.rstrip("/").removesuffix("/v1") + "/v1"

"""Deepgram when somebody else decides that the caller has finished."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from dialog.message import MULAW_8K
from dialog.stt.deepgram import DeepgramSTT
from dialog.testing.deepgram import DeepgramEmulator

# deepgram-sdk imports names that websockets has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:.*websockets.*:DeprecationWarning")


@pytest.mark.parametrize(
    ("settings", "endpointing", "utterance_end"),
    [
        ({}, ["false"], ["5000"]),
        ({"endpointing_ms": 100, "utterance_end_ms": None}, ["false"], ["5000"]),
        ({"interim_results": False}, ["false"], []),
        ({"options": {"endpointing": 2000}}, ["2000"], ["5000"]),
    ],
)
async def test_its_own_endpointing_is_as_late_as_it_can_be(
    settings: dict[str, Any], endpointing: list[str], utterance_end: list[str]
) -> None:
    async with DeepgramEmulator() as deepgram:
        stt = DeepgramSTT(api_key=deepgram.api_key, base_url=deepgram.url, **settings)
        stt.manual_turns = True
        stt.open(MULAW_8K)
        try:
            async with asyncio.timeout(5):
                await deepgram.until(lambda: bool(deepgram.requests))
            request = deepgram.requests[0]
            assert request.values("endpointing") == endpointing
            assert request.values("utterance_end_ms") == utterance_end
        finally:
            stt.dispose()
            await stt.wait_disposed()

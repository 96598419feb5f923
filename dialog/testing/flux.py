"""An emulator of Deepgram's Flux (``/v2/listen``) that hears what its script says.

::

    async with FluxEmulator(sentences=["a table for two", "my number is | five five five"]) as flux:
        stt = DeepgramFluxSTT(api_key=flux.api_key, base_url=flux.url)

It keeps to the service's machine of turns: ``StartOfTurn`` with the first word, an ``Update`` every 250 ms
of audio, ``EagerEndOfTurn`` after a short silence if that was asked for, then ``TurnResumed`` or an
``EndOfTurn`` with the very same text. When audio stops, so does everything else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any
from uuid import uuid4

import msgspec
from aiohttp import web

from dialog.testing.hearing import Ear, Script
from dialog.testing.server import EmulatorServer, Faults

__all__ = ["FluxEmulator"]

_ENCODINGS = {"mulaw": "mulaw", "alaw": "alaw", "linear16": "s16le"}


class FluxEmulator(Script, EmulatorServer):
    """Deepgram Flux on loopback.

    Args:
        sentences: What is heard; see :class:`~dialog.testing.hearing.Script`.
        api_key: The key that is accepted; every other one is refused with 401.
        update_s: Audio between two updates.
        eager_s: Silence until an early end of turn.
        end_s: Silence until the end of turn.
        word_times: Words tell when they were said.
        faults: What goes wrong.
    """

    def __init__(
        self,
        *,
        sentences: Sequence[str] = ("hello",),
        hears: Callable[[bytes], str] | None = None,
        api_key: str = "deepgram-test-key",
        update_s: float = 0.25,
        eager_s: float = 0.2,
        end_s: float = 0.5,
        word_times: bool = False,
        port: int = 0,
        faults: Faults | None = None,
    ) -> None:
        super().__init__(port=port, faults=faults)
        self.sentences = list(sentences)
        self.hears = hears
        self.api_key = api_key
        self.update_s = update_s
        self.eager_s = eager_s
        self.end_s = end_s
        self.word_times = word_times
        self.violations: list[str] = []
        """What clients did that the service forbids or punishes."""

    def routes(self) -> Iterable[web.RouteDef]:
        """``GET /v2/listen``."""
        return [web.get("/v2/listen", self._listen)]

    def refusal(self, status: int, request: web.Request) -> web.Response:  # noqa: ARG002
        """Deepgram's shape of a refusal: ``dg-error`` and a JSON body."""
        reason = {400: "Bad Request", 401: "Invalid credentials.", 429: "Too many requests"}.get(status, "Error")
        body = {"err_code": reason.upper(), "err_msg": reason, "request_id": str(uuid4())}
        return web.json_response(body, status=status, headers={"dg-error": reason, "dg-request-id": str(uuid4())})

    async def _listen(self, request: web.Request) -> web.StreamResponse:
        scheme, _, key = request.headers.get("Authorization", "").partition(" ")
        if scheme not in ("Token", "Bearer") or key != self.api_key:
            return self.refusal(401, request)
        try:
            turns = _Turns(self, dict(request.query))
        except ValueError as exc:
            self.violations.append(str(exc))
            return self.refusal(400, request)
        async with self.websocket(request, headers={"dg-request-id": turns.request_id}) as socket:
            await socket.send(turns.message("Connected"))
            async for data in socket:
                for message in turns.receive(data):
                    await socket.send(message)
                self.changed()
                if turns.closed and request.transport is not None:
                    request.transport.write(b"\x88\x00")  # a close frame without a code
                    break
            await socket.receive()
        return socket.response


class _Turns:
    """One connection: audio and commands in, messages out; no I/O."""

    def __init__(self, emulator: FluxEmulator, query: Mapping[str, str]) -> None:
        encoding, rate = query.get("encoding", ""), query.get("sample_rate", "")
        if encoding not in _ENCODINGS or not rate.isdigit():
            raise ValueError(f"encoding {encoding!r} with sample_rate {rate!r}")
        if not query.get("model", "").startswith("flux-general-"):
            raise ValueError(f"model {query.get('model')!r}")
        for name in ("language", "interim_results", "endpointing", "vad_events"):
            if name in query:
                raise ValueError(f"{name} is of version 1")
        self.eot = float(query.get("eot_threshold", "0.7"))
        eager = query.get("eager_eot_threshold")
        if not 0.5 <= self.eot <= 1.0 or (eager is not None and not 0.3 <= float(eager) <= min(0.9, self.eot)):
            raise ValueError("a threshold is out of its range")
        self.eager = eager is not None
        self.timeout_s = float(query.get("eot_timeout_ms", "5000")) / 1000
        self.request_id = str(uuid4())
        self.closed = False
        self._emulator = emulator
        self._ear = Ear(emulator, _ENCODINGS[encoding], int(rate))
        self._sequence = -1
        self._turn = 0
        self._window_s = 0.0
        self._told = False
        self._early = ""
        self._update_at = emulator.update_s

    def message(self, kind: str, **fields: Any) -> dict[str, Any]:
        self._sequence += 1
        return {"type": kind, "request_id": self.request_id, "sequence_id": self._sequence, **fields}

    def receive(self, data: bytes | str) -> list[dict[str, Any]]:
        if isinstance(data, str):
            return self._command(data)
        return [message for _ in self._ear.feed(data) for message in self._hear()]

    def _command(self, text: str) -> list[dict[str, Any]]:
        try:
            command = msgspec.json.decode(text, type=dict[str, Any])
        except msgspec.DecodeError:
            command = {}
        kind = command.get("type")
        if kind == "CloseStream":
            self.closed = True
            return [self._info("Update")] if self._told else []
        if kind == "Configure":
            terms = command.get("keyterms", [])
            return [self.message("ConfigureSuccess", thresholds=command.get("thresholds", {}), keyterms=terms)]
        self._emulator.violations.append(f"the command {kind}")
        self.closed = True
        return [self.message("Error", code="UNPARSABLE_CLIENT_MESSAGE", description="Could not parse the message")]

    def _hear(self) -> list[dict[str, Any]]:
        ear, text = self._ear, self._ear.text()
        if not self._told:
            if text:
                self._told = True
                self._update_at = ear.now_s + self._emulator.update_s
                return [self._info("StartOfTurn")]
            if ear.in_turn and not ear.speaking:
                ear.end_turn()  # a noise
        elif self._early and text != self._early:
            self._early = ""
            return [self._info("TurnResumed")]
        elif self._over():
            return [*([] if self._early or not self.eager else [self._info("EagerEndOfTurn")]), self._end()]
        elif self.eager and not self._early and not ear.speaking and ear.quiet_s >= self._emulator.eager_s:
            self._early = text
            return [self._info("EagerEndOfTurn")]
        if ear.now_s >= self._update_at:
            self._update_at = ear.now_s + self._emulator.update_s
            return [self._info("Update")] if not self._early else []
        return []

    def _over(self) -> bool:
        wait = self._emulator.end_s if self.eot < 1.0 else self.timeout_s
        return not self._ear.speaking and self._ear.quiet_s >= min(wait, self.timeout_s)

    def _end(self) -> dict[str, Any]:
        message = self._info("EndOfTurn", trigger="model" if self.eot < 1.0 else "timeout")
        self._ear.end_turn()
        self._turn += 1
        self._window_s = self._ear.now_s
        self._told, self._early = False, ""
        return message

    def _info(self, event: str, **fields: Any) -> dict[str, Any]:
        words = self._ear.words() if self._told else []
        times = self._emulator.word_times
        return self.message(
            "TurnInfo",
            event=event,
            turn_index=self._turn,
            audio_window_start=round(self._window_s, 3),
            audio_window_end=round(self._ear.now_s, 3),
            transcript=" ".join(word.text for word in words),
            words=[
                {"word": word.text, "confidence": 0.95, **({"start": word.start_s, "end": word.end_s} if times else {})}
                for word in words
            ],
            end_of_turn_confidence={"EagerEndOfTurn": 0.55, "EndOfTurn": 0.85}.get(event, 0.1),
            **fields,
        )

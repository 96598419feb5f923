"""Two recognisers on one call: what the second does is told, and never reaches the first."""

from __future__ import annotations

import asyncio
import math
from array import array
from typing import ClassVar
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dialog.audio.g711 import mulaw_decode, mulaw_encode
from dialog.errors import ProviderError, StateError, UserCodeError
from dialog.message import ALAW_8K, MULAW_8K, PCM_8K, AudioFormat, Message, SpeechEdge, Utterance
from dialog.net.reconnect import Backoff
from dialog.stt.deepgram import DeepgramSTT
from dialog.stt.echo import OwnSpeech
from dialog.stt.stt import STT, STTCapabilities
from dialog.stt.tee import Comparison, TeeSTT
from dialog.testing.deepgram import DeepgramEmulator
from dialog.testing.server import Faults

CALL = UUID(int=7)
EVENTS = (STT.MESSAGE, STT.INTERIM, STT.VAD, STT.EAGER, STT.EAGER_WITHDRAWN, STT.ERROR)
SPEECH = mulaw_encode(array("h", [round(8000 * math.sin(i * 0.3)) for i in range(8 * 600)]).tobytes())


class Scripted(STT):
    """Tells one thing of its script for every piece of audio, and raises what an STT may raise."""

    formats: ClassVar[tuple[AudioFormat, ...]] = (MULAW_8K, PCM_8K)
    capabilities: ClassVar[STTCapabilities] = STTCapabilities(eager=True, manual_turns=True)

    def __init__(self, script: list[str]) -> None:
        super().__init__()
        self.script = iter(script)
        self.calls: list[object] = []
        self.opened: AudioFormat | None = None
        self.count = 0

    def open(self, audio_format: AudioFormat) -> None:
        if self.opened is not None:
            raise StateError("twice")
        self.opened = audio_format
        self.tell("open")

    def post(self, message: Message[bytes]) -> None:
        if self.opened is None:
            raise StateError("post before open")
        self.calls.append(message.data)
        self.tell("post")

    def finalize(self) -> None:
        self.tell("finalize")

    def discard(self, before_ms: float) -> None:
        self.calls.append(before_ms)
        self.tell("discard")

    def tell(self, _method: str) -> None:
        self.count += 1
        uuid = UUID(int=self.count)
        utterance = Utterance(uuid=uuid, data=f"words {self.count}", at_ms=1.0)
        match next(self.script, "nothing"):
            case "message":
                self.emit(STT.MESSAGE, utterance)
            case "interim":
                self.emit(STT.INTERIM, utterance)
            case "edge":
                self.emit(STT.VAD, SpeechEdge(state="started", at_ms=1.0))
            case "eager":
                self.emit(STT.EAGER, utterance)
                self.emit(STT.EAGER_WITHDRAWN, uuid)
            case "error":
                self.fail(ProviderError("x", f"failure {self.count}", retryable=True), retryable=True)
            case "fatal":
                self.fail(ProviderError("x", f"failure {self.count}", retryable=False), fatal=True)
            case "dispose":
                self.dispose()
            case "raise":
                raise ValueError("broken")
            case "cancel":
                raise asyncio.CancelledError
            case "exit":
                raise StateError("not now")
            case _:
                return


class Wedged(Scripted):
    """Also cannot be disposed of."""

    def dispose(self) -> None:
        super().dispose()
        raise RuntimeError("stuck")


STEPS = st.lists(st.sampled_from(["open", "post", "finalize", "discard", "dispose"]), max_size=14)
GOOD = st.lists(st.sampled_from(["message", "interim", "edge", "eager", "error", "fatal", "exit", "nothing"]))
BAD = st.lists(
    st.sampled_from(["message", "interim", "edge", "error", "fatal", "dispose", "raise", "cancel", "exit", "nothing"])
)


def told(stt: STT, steps: list[str]) -> list[object]:
    """Everything that listening to ``stt`` and calling it gives."""
    seen: list[object] = []
    for event in EVENTS:
        stt.on(event, lambda payload, event=event: seen.append((str(event), readable(payload))))
    for step in steps:
        try:
            match step:
                case "open":
                    stt.open(MULAW_8K)
                case "post":
                    stt.post(Message(uuid=CALL, data=SPEECH[:160]))
                case "finalize":
                    stt.finalize()
                case "discard":
                    stt.discard(5.0)
                case "dispose":
                    stt.dispose()
        except (StateError, ValueError) as exc:
            seen.append(repr(exc))
    return seen


def readable(payload: object) -> object:
    return (payload.source, str(payload.error), payload.fatal) if hasattr(payload, "fatal") else payload


@settings(max_examples=400)
@given(steps=STEPS, primary=GOOD, secondary=BAD, wedged=st.booleans(), warm=st.booleans())
def test_the_primary_is_told_as_if_it_were_alone(steps, primary, secondary, wedged, warm) -> None:
    steps = ["open", *steps] if warm else steps
    alone = told(Scripted(primary), steps)
    guest = (Wedged if wedged else Scripted)(secondary)
    assert told(TeeSTT(Scripted(primary), guest), steps) == alone


def tee(primary: list[str], secondary: list[str]) -> tuple[TeeSTT, Scripted, Scripted, list[Comparison]]:
    first, second = Scripted(primary), Scripted(secondary)
    both = TeeSTT(first, second)
    compared: list[Comparison] = []
    both.on(TeeSTT.COMPARISON, compared.append)
    return both, first, second, compared


def test_both_hear_the_same_and_each_is_told_apart() -> None:
    stt, first, second, compared = tee([], ["nothing", "message"])
    heard = []
    stt.on(STT.MESSAGE, heard.append)
    own = stt.own_speech = OwnSpeech()
    stt.open(MULAW_8K)
    stt.post(Message(uuid=CALL, data=SPEECH[:160]))
    stt.discard(3.0)
    assert first.calls == second.calls == [SPEECH[:160], 3.0]
    assert first.own_speech is second.own_speech is own
    assert heard == []
    (comparison,) = compared
    assert (comparison.source, comparison.utterance.data, comparison.failure) == ("Scripted", "words 2", None)


def test_the_secondary_gets_a_format_of_its_own() -> None:
    stt, first, second, _ = tee([], [])
    second.formats = (PCM_8K,)
    stt.open(MULAW_8K)
    stt.post(Message(uuid=CALL, data=SPEECH[:160], at_ms=40.0))
    assert (first.opened, second.opened) == (MULAW_8K, PCM_8K)
    assert second.calls == [mulaw_decode(SPEECH[:160])]


def test_it_can_do_what_its_primary_can() -> None:
    stt, first, second, _ = tee([], [])
    assert (stt.formats, stt.capabilities) == (first.formats, first.capabilities)
    stt.manual_turns = True
    stt.open(PCM_8K)
    assert (first.manual_turns, second.manual_turns) == (True, False)


def test_a_secondary_that_raises_is_let_go_and_told_once() -> None:
    stt, first, second, compared = tee([], ["nothing", "raise", "message", "message"])
    stt.open(MULAW_8K)
    for _ in range(3):
        stt.post(Message(uuid=CALL, data=SPEECH[:160]))
    assert (len(first.calls), len(second.calls)) == (3, 1)
    assert second.disposed
    (comparison,) = compared
    assert comparison.failure.fatal
    assert isinstance(comparison.failure.error, UserCodeError)
    assert "Scripted raised ValueError('broken')" in str(comparison.failure.error)


def test_a_failure_that_passes_is_told_and_the_comparison_goes_on() -> None:
    stt, _, _, compared = tee([], ["error", "message", "fatal", "message"])
    stt.open(MULAW_8K)
    for _ in range(3):
        stt.post(Message(uuid=CALL, data=SPEECH[:160]))
    assert [(c.utterance is not None, c.failure and c.failure.fatal) for c in compared] == [
        (False, False),
        (True, None),
        (False, True),
    ]


def test_a_secondary_that_knows_no_format_of_the_call_is_let_go() -> None:
    stt, _, second, compared = tee([], [])
    second.formats = ()
    stt.open(MULAW_8K)
    assert "none offered" in str(compared[0].failure.error)


async def test_disposing_of_it_disposes_of_both() -> None:
    stt, first, second, _ = tee([], [])
    stt.open(ALAW_8K)
    stt.dispose()
    stt.dispose()
    await stt.wait_disposed()
    assert first.disposed
    assert second.disposed


async def test_a_secondary_that_never_ends_does_not_hold_the_end_up() -> None:
    class Clinging(Scripted):
        async def wait_disposed(self, timeout_s: float = 2.0) -> None:
            await asyncio.Event().wait()

    stt = TeeSTT(Scripted([]), Clinging([]))
    stt.dispose()
    async with asyncio.timeout(2):
        await stt.wait_disposed(0.01)


@pytest.mark.parametrize(
    "faults",
    [
        Faults(refuse=503),
        Faults(drop_after=2),
        Faults(stall_after=1),
        Faults(garbage_after=1),
    ],
    ids=["refuses", "drops", "stalls", "garbage"],
)
async def test_two_real_recognisers_of_which_one_fails(faults: Faults) -> None:
    async with (
        DeepgramEmulator(sentences=["one", "two"]) as good,
        DeepgramEmulator(sentences=["eins", "zwei"], faults=faults) as bad,
    ):
        quick = Backoff(first_s=0.01, limit_s=0.02, give_up_s=0.1)
        stt = TeeSTT(
            DeepgramSTT(api_key=good.api_key, base_url=good.url),
            DeepgramSTT(api_key=bad.api_key, base_url=bad.url, backoff=quick),
        )
        heard, failures, said = [], [], asyncio.Event()
        stt.on(STT.MESSAGE, lambda utterance: (heard.append(utterance.data), said.set()))
        stt.on(STT.ERROR, failures.append)
        stt.open(MULAW_8K)
        at_ms = 0.0
        for _ in range(2):
            for data in (SPEECH, MULAW_8K.silence(1500)):
                stt.post(Message(uuid=CALL, data=data, at_ms=at_ms))
                at_ms += MULAW_8K.ms(len(data))
            async with asyncio.timeout(5):
                await said.wait()
                said.clear()
        stt.dispose()
        await stt.wait_disposed()
        assert (heard, failures) == (["one", "two"], [])

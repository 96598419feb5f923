"""Needs the package to be installed: Dialog finds the provider by its name."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from dialog import TTS, ConfigurationError, Message, RuleAgent, VoIP, create_tts, provider_class, provider_names
from dialog.audio.tones import sine
from dialog.audio.wav import write_wav
from dialog.message import MULAW_8K
from dialog.testing.doubles import ToldSTT
from dialog.voip.memory import memory_call

PHRASES = {"Good evening.": 300, "Good evening, Sir!": 400, "How can I help?": 500}


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    for hertz in PHRASES.values():
        write_wav(tmp_path / f"{hertz}.wav", sine(hertz, hertz), 8000)  # so many Hz for so many milliseconds
    (tmp_path / "phrases.json").write_text(json.dumps({phrase: f"{hertz}.wav" for phrase, hertz in PHRASES.items()}))
    return tmp_path


def test_it_is_found_by_its_name(directory: Path) -> None:
    assert "phrases" in provider_names("tts")
    assert provider_class("tts", "phrases").__module__ == "dialog_phrases"
    assert isinstance(create_tts("phrases", directory=directory), provider_class("tts", "phrases"))


def test_its_settings_come_from_the_environment(directory: Path) -> None:
    assert isinstance(create_tts.from_env("phrases", env={"PHRASES_DIR": str(directory)}), TTS)
    with pytest.raises(ConfigurationError, match="PHRASES_DIR is not set"):
        create_tts.from_env("phrases", env={})


def test_it_speaks_on_a_call(directory: Path) -> None:
    async def call() -> float:
        def on_voip(voip: VoIP) -> None:
            tts = create_tts("phrases", directory=directory)
            RuleAgent(voip=voip, stt=ToldSTT(), tts=tts, greeting="Good evening. How can I help?").activate()

        call, line = memory_call(on_voip)
        async with asyncio.timeout(10):
            played = asyncio.Event()
            call.voip.on(VoIP.MESSAGE_DISPATCHED, lambda _: played.set())
            await played.wait()
            line.hang_up()
            await call.wait_closed()
        return MULAW_8K.ms(sum(len(heard.data) for heard in line.sent))

    assert asyncio.run(call()) == 800


def said(directory: Path, *texts: str) -> tuple[float, list[str]]:
    """How long the texts of one part last, and the errors."""

    async def speak() -> tuple[float, list[str]]:
        tts = create_tts("phrases", directory=directory)
        audio, done = bytearray(), asyncio.Event()
        errors: list[str] = []

        def hear(message: Message[bytes]) -> None:
            assert message.at_ms == MULAW_8K.ms(len(audio))
            audio.extend(message.data)
            if message.done:
                done.set()

        tts.on(TTS.MESSAGE, hear)
        tts.on(TTS.ERROR, lambda failure: errors.append(str(failure.error)))
        tts.open(MULAW_8K)
        turn = uuid4()
        for number, text in enumerate(texts, 1):
            tts.post(Message(uuid=turn, data=text, done=number == len(texts)))
        async with asyncio.timeout(10):
            await done.wait()
        tts.dispose()
        await tts.wait_disposed()
        return MULAW_8K.ms(len(audio)), errors

    return asyncio.run(speak())


def test_the_longest_phrase_is_played_however_the_text_is_cut(directory: Path) -> None:
    assert said(directory, "Good evening, Sir!") == (400, [])
    assert said(directory, "Good ", "evening", ", sir! How can", " I help?", "") == (900, [])
    assert said(directory, "good evening") == (300, [])


def test_what_was_not_recorded_is_left_out_and_told(directory: Path) -> None:
    length, (error,) = said(directory, "Well, good evening. Ahem.")
    assert length == 300
    assert "no recording" in error
    assert "ahem" not in error.lower()


def test_an_empty_part_ends(directory: Path) -> None:
    assert said(directory, "") == (0, [])


def test_recordings_that_cannot_be_read_do_not_leave_a_part_open(tmp_path: Path) -> None:
    length, (error,) = said(tmp_path, "Good evening.")
    assert (length, "phrases.json" in error) == (0, True)


def test_nothing_more_comes_of_what_was_aborted(directory: Path) -> None:
    async def speak() -> list[UUID]:
        tts = create_tts("phrases", directory=directory)
        turns: list[UUID] = []
        done = asyncio.Event()

        def hear(message: Message[bytes]) -> None:
            turns.append(message.uuid)
            done.set()

        tts.on(TTS.MESSAGE, hear)
        tts.open(MULAW_8K)
        first, second = uuid4(), uuid4()
        tts.post(Message(uuid=first, data="Good evening."))
        tts.abort(first)
        tts.post(Message(uuid=first, data="How can I help?", done=True))
        tts.post(Message(uuid=second, data="How can I help?", done=True))
        async with asyncio.timeout(10):
            await done.wait()
        tts.dispose()
        await tts.wait_disposed()
        return [{first: UUID(int=1), second: UUID(int=2)}[turn] for turn in turns]

    assert asyncio.run(speak()) == [UUID(int=2)]

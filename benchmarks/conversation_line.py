"""Calls in virtual time, on lines whose way takes now longer, now shorter: a real agent, a voice that spells.

What the caller's side played can be read from the audio word by word, and set against what the agent
believes was heard.
"""

import asyncio
import itertools
import random
import re
from collections.abc import AsyncIterator
from uuid import UUID

from playout import JitteryLine

from dialog.agent.agent import Agent
from dialog.calls.events import AgentSaid, PausedForCaller, ResumedAfterPause
from dialog.message import MULAW_8K, Alignment, Message, Word
from dialog.participant import Participant
from dialog.testing.doubles import HummingTTS, ToldSTT
from dialog.testing.scenario_outcome import PartPlayed, _parts  # as scenarios are measured
from dialog.testing.scenario_sound import Letters, spell
from dialog.testing.virtual import run_virtual
from dialog.tts.tts import TTS
from dialog.voip.memory import memory_call
from dialog.voip.voip import VoIP

STORY = (
    "Our restaurant opened a hundred years ago in a small house by the river, and it has been in the family since. "
    "We serve fresh fish from the market, home made pasta, and a very good soup of the day. "
    "On weekdays the kitchen closes at ten; on Saturdays, unless it is raining, we stay open until midnight."
)
_MARKS = re.compile(r"(?<=[.,;:?!]) ")
_PAUSE = re.compile(r"\[([\d.]+)\]")
_CHUNK = MULAW_8K.size(200.0)
_CHUNK_S = 0.04
"""A voice makes audio five times as fast as it is spoken."""
_FIRST_S = 0.12


class _Context:
    """One part at the voice: what it was given, its audio so far, and what of both has gone out."""

    def __init__(self, lane: int, ms_per_char: float) -> None:
        self.lane = lane
        self.ms_per_char = ms_per_char
        self.text = ""
        """What is spelled: whole words, ``[0.30]`` for a pause at a mark."""
        self.rest = ""
        self.done = False
        self.audio = b""
        self.sent = 0
        self.told = 0
        self.busy = False

    def take(self, draw: random.Random) -> None:
        """Spell the whole words that wait. More text does not change the audio there is."""
        cut = len(self.rest) if self.done else self.rest.rfind(" ") + 1
        pauses = _MARKS.sub(lambda _: f"[{draw.uniform(0.15, 0.45):.2f}]", self.rest[:cut])
        self.text, self.rest = self.text + pauses, self.rest[cut:]
        self.audio = spell(self.text, lane=self.lane, ms_per_char=self.ms_per_char)

    def words(self) -> list[Word]:
        words: list[Word] = []
        at_ms = 0.0
        for number, piece in enumerate(_PAUSE.split(self.text)):
            if number % 2:
                at_ms += float(piece) * 1000
                continue
            for found in re.finditer(r"\S+", piece):
                start, end = at_ms + found.start() * self.ms_per_char, at_ms + found.end() * self.ms_per_char
                words.append(Word(text=found.group(), start_ms=start, end_ms=end))
            at_ms += len(piece) * self.ms_per_char
        return words


class SpellingTTS(HummingTTS):
    """Spells what it is given, each part at a pace of its own, with pauses at the marks."""

    def __init__(self, draw: random.Random, *, timings: bool) -> None:
        super().__init__(timings=timings)
        self._draw = draw
        self._pace = draw.uniform(45.0, 75.0)
        self._contexts: dict[tuple[UUID, int], _Context] = {}

    def post(self, message: Message[str]) -> None:
        """Speak the text a little later."""
        key = (message.uuid, message.part)
        context = self._contexts.get(key)
        if context is None:
            pace = self._pace * self._draw.uniform(0.9, 1.1)
            context = self._contexts[key] = _Context(len(self._contexts), pace)
        self.texts[key] = self.texts.get(key, "") + message.data
        context.rest += message.data
        context.done = message.done
        context.take(self._draw)
        if not context.busy:
            context.busy = True
            asyncio.get_running_loop().call_later(_CHUNK_S if context.sent else _FIRST_S, self._more, key, context)

    def text_of(self, lane: int) -> str:
        """What a context was given."""
        return self.texts[list(self._contexts)[lane]]

    def part_of(self, lane: int) -> tuple[UUID, int] | None:
        """Turn and part of a context."""
        return list(self._contexts)[lane]

    def _more(self, key: tuple[UUID, int], context: _Context) -> None:
        context.busy = False
        if key in self._gone or self.disposed:
            return
        at_ms = MULAW_8K.ms(context.sent)
        piece = context.audio[context.sent : context.sent + _CHUNK]
        context.sent += len(piece)
        done = context.done and context.sent == len(context.audio)
        words = context.words()[context.told :]
        told = tuple(word for word in words if word.start_ms < MULAW_8K.ms(context.sent))
        context.told += len(told)
        uuid, part = key
        if self.timings and told:
            self.emit(TTS.ALIGNMENT, Alignment(uuid=uuid, part=part, words=told))
        self.emit(TTS.MESSAGE, Message(uuid=uuid, part=part, data=piece, at_ms=at_ms, done=done))
        if context.sent < len(context.audio):
            context.busy = True
            asyncio.get_running_loop().call_later(_CHUNK_S, self._more, key, context)


class Teller(Agent):
    """Answers everything with the same long story."""

    async def inference(self, message: Message[str]) -> AsyncIterator[str]:
        for word in STORY.split(" "):
            yield word + " "


class LineCall:
    """A call whose ears are told what they hear, on a line with a delay and jitter that are drawn."""

    def __init__(self, clock, draw: random.Random, *, timings: bool) -> None:
        self.clock = clock
        self.stt = ToldSTT()
        self.tts = SpellingTTS(draw, timings=timings)
        self.errors: list[object] = []
        self.line = JitteryLine(
            draw,
            draw.choice([0.0, 0.02, 0.05]),
            clock=clock,
            rtt_s=draw.choice([0.02, 0.08, 0.2]),
            buffer_s=draw.choice([0.0, 0.04]),
        )

        def on_voip(voip: VoIP) -> None:
            self.agent = Teller(voip=voip, stt=self.stt, tts=self.tts)
            self.agent.on(Participant.ERROR, self.errors.append)
            self.agent.activate()

        self.call, _ = memory_call(on_voip, clock=clock, line=self.line)

    async def over(self) -> None:
        self.line.hang_up()
        await self.call.wait_closed()
        await self.line.wait_closed()
        if self.errors:
            raise RuntimeError(f"errors in a call that has none: {self.errors}")

    def parts(self) -> list[PartPlayed]:
        cells = []
        for piece in self.line.heard:
            cells += Letters().read(piece.data, piece.at_s * 1000)
        return _parts(cells, self.tts, self.agent.events)

    def of(self, kind: type) -> list:
        return [event for event in self.agent.events if isinstance(event, kind)]


def cuts(seed: int, *, timings: bool, count: int = 10) -> list[int]:
    """Interrupt ``count`` replies of a call, each at a random instant: by how many words history is wrong."""
    draw = random.Random(seed)

    async def scenario(clock) -> list[int]:
        call = LineCall(clock, draw, timings=timings)
        call.stt.heard("Tell me about your restaurant.")
        for _ in range(count):
            await clock.sleep(draw.uniform(0.3, 15.0))
            call.stt.speech_starts()
            await clock.sleep(draw.uniform(0.1, 0.9))
            call.stt.hears("no wait")
            await clock.sleep(draw.uniform(0.3, 0.8))
            call.stt.speech_stops()
            call.stt.heard("No wait, tell me again.")
        await clock.sleep(1.0)
        await call.over()
        cut = {(said.turn, said.part) for said in call.of(AgentSaid) if said.state == "cut"}
        return [part.word_diff for part in call.parts() if (part.turn, part.part) in cut]

    return run_virtual(scenario)


def false_interruption(seed: int, *, timings: bool) -> tuple[float, int]:
    """A sound without words over a reply: silence beyond its detection in ms, words lost or said again."""
    draw = random.Random(seed)

    async def scenario(clock) -> tuple[float, int]:
        call = LineCall(clock, draw, timings=timings)
        call.stt.heard("Tell me about your restaurant.")
        await clock.sleep(draw.uniform(0.8, 12.0))
        call.stt.speech_starts()
        await clock.sleep(draw.uniform(0.1, 1.0))
        call.stt.speech_stops()
        await clock.sleep(30.0)
        (paused,), (resumed,) = call.of(PausedForCaller), call.of(ResumedAfterPause)
        gaps = [b.at_s - a.at_s - MULAW_8K.ms(len(a.data)) / 1000 for a, b in itertools.pairwise(call.line.heard)]
        beyond_ms = (max(gaps) - (resumed.at_s - paused.at_s)) * 1000
        (part,) = call.parts()
        if part.believed != tuple(STORY.split()):
            raise RuntimeError(f"a reply that went on was not heard whole: {part.believed}")
        await call.over()
        return beyond_ms, part.repeated + part.missed

    return run_virtual(scenario)

"""An agent dies without a word, at any event of its call, and another goes on where it was."""

from __future__ import annotations

import asyncio
import copy
import re
from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from survival import Survivor

from dialog.agent.agent import Agent
from dialog.agent.history import UNKNOWN, History
from dialog.agent.resume import resume
from dialog.agent.tools import tool, tool_key
from dialog.calls import events as ev
from dialog.calls.journal import EndPlanned
from dialog.llm.llm import Entry, LLMRequest, ToolResult
from dialog.message import LineSnapshot, Message
from dialog.s2s.cascade import CascadeS2S
from dialog.testing.doubles import HummingTTS, ToldSTT
from dialog.testing.model import ToolUse
from dialog.testing.scripted import Answer, ScriptedLLM
from dialog.testing.virtual import run_virtual
from dialog.voip.voip import VoIP

_NUMBER = re.compile(r"\d+")


def answer(request: LLMRequest) -> Answer:
    """A model that answers the newest words of the caller, and never says a word that the caller has heard."""
    asked = max(
        (n for n, item in enumerate(request.items) if isinstance(item, Entry) and item.role == "user"), default=-1
    )
    if asked < 0:
        return "I wait."
    entry = request.items[asked]
    assert isinstance(entry, Entry)
    number = _NUMBER.findall(entry.text)[-1]
    used = [item for item in request.items[asked:] if isinstance(item, ToolResult)]
    heard = " ".join(item.text for item in request.items if isinstance(item, Entry) and item.role == "assistant")
    for name in ("book", "look"):
        if name in entry.text.split() and not any(item.name == name for item in used):
            use = ToolUse(name, {"number": int(number)})
            return use if f"t{number}x" in heard else [f"t{number}x.", 0.01, use]
    words = [f"{letter}{number}" for letter in "abcdef"]
    words += [f"{item.name}{number}{item.state}" for item in used]
    left = [word for word in words if word not in heard.replace(".", " ").split()]
    pieces: list[Any] = []
    for word in left:
        pieces += [f"{word} ", 0.01]
    return [*pieces, "."] if pieces else "fine."


class Desk(Agent):
    """Books, and looks things up; what it has done is told by the world, not by the agent."""

    world: Counter[str]
    keys: list[str]

    def __init__(self, world: Counter[str], keys: list[str], **options: Any) -> None:
        super().__init__(system="You are at the desk.", greeting="g1 g2 g3 g4 g5.", **options)
        self.world = world
        self.keys = keys
        self.booked: list[int] = []

    @tool
    async def book(self, number: int) -> str:
        """Book a table."""
        self.world[f"book {number}"] += 1
        await asyncio.sleep(0.2)
        self.booked.append(number)
        return f"booked {number}"

    @tool(idempotent=True)
    async def look(self, number: int) -> str:
        """Look something up."""
        self.keys.append(tool_key())
        await asyncio.sleep(0.2)
        return f"found {number}"

    def state(self) -> object:
        return {"booked": self.booked} if self.booked else None

    def restore(self, state: Any) -> None:
        self.booked = state["booked"]


class Scene:
    """One conversation, with as many deaths in it as are wanted."""

    def __init__(self, clock: Any, kills: tuple[int, ...], gap_s: float) -> None:
        self.world: Counter[str] = Counter()
        self.keys: list[str] = []
        self.clock = clock
        self.call = Survivor(clock, self.make, kills=kills, gap_s=gap_s, voice=self.voice)
        self.said: list[str] = []

    def make(self, voip: VoIP, stt: ToldSTT, tts: HummingTTS) -> Agent:
        return Desk(self.world, self.keys, voip=voip, stt=stt, tts=tts, llm=ScriptedLLM(answer))

    def voice(self) -> HummingTTS:
        return HummingTTS()

    def says(self, text: str) -> None:
        self.said.append(text)
        self.call.says(text)

    async def play(self) -> None:
        await self.clock.sleep(0.4)
        await self.call.quiet()
        self.says("tell me 1")
        await self.call.quiet()
        self.says("book 2")
        await self.call.quiet()
        self.says("look 3")
        await self.clock.sleep(0.3)
        self.says("and then 4")  # before anything was heard
        await self.clock.sleep(0.65)
        self.says("no I mean 5")  # over the reply
        await self.call.quiet()
        await self.call.over()


def play(*kills: int, gap_s: float = 0.0, watch: Any = None, kind: type[Scene] = Scene) -> Scene:
    async def run(clock: Any) -> Scene:
        scene = kind(clock, kills, gap_s)
        if watch is not None:
            scene.call.watcher = lambda: watch(scene)
        await scene.play()
        return scene

    return run_virtual(run)


def entries(scene: Scene, role: str) -> list[str]:
    return [item.text for item in scene.call.agent.history.items() if isinstance(item, Entry) and item.role == role]


def check_sound(scene: Scene) -> None:
    """The caller has heard what history says, and no more than the rest of a word at each cut."""
    playbacks = scene.call.playbacks
    cuts = sum(playback.state != "played" for playback in playbacks)
    chars = sum(len(text) + 1 for text in entries(scene, "assistant"))
    assert sum(playback.heard_ms for playback in playbacks) <= 50 * (chars + 4 * cuts + len(playbacks))


def check(scene: Scene) -> None:
    """Nothing was lost, nothing came twice."""
    check_sound(scene)
    check_words(scene)


def check_words(scene: Scene) -> None:
    users = " | ".join(entries(scene, "user"))
    for text in scene.said:
        assert users.count(text) == 1, f"{text!r} in {users!r}"
    positions = [users.index(text) for text in scene.said]
    assert positions == sorted(positions)
    words = " ".join(entries(scene, "assistant")).replace(".", " ").split()
    # Asked again when nothing is left to say, the model says "fine".
    twice = [word for word, count in Counter(words).items() if count > 1 and word != "fine"]
    assert not twice, f"{twice} in {words}"
    assert [word for word in words if word.startswith("g")] == ["g1", "g2", "g3", "g4", "g5"]
    assert {"a1", "f1", "a2", "f2", "a5", "f5"} <= set(words), words
    assert all(count == 1 for count in scene.world.values()), scene.world
    assert len(set(scene.keys)) <= len([key for key in scene.keys if key])
    seqs = [event.seq for event in scene.call.journal]
    assert seqs == list(range(len(seqs)))


def test_without_a_death_it_is_a_conversation_like_any_other():
    scene = play()
    check(scene)
    assert scene.world == {"book 2": 1}
    assert not scene.call.checkpoints


def settled(scene: Scene) -> tuple[list[Any], LineSnapshot]:
    """The history as the agent has it, if everything ended here, and what the line would report."""
    conversation = scene.call.agent._conversation
    assert conversation is not None
    history = conversation.history
    watcher, history.watcher = history.watcher, None
    copied = copy.deepcopy(history)
    history.watcher = watcher
    playbacks = []
    for turn in conversation.engine._turns.values():
        for part in turn.speech.parts:
            if part.playback is not None:
                final = part.playback if part.final else replace(part.playback, state="cut")
                playbacks.append(final)
    live = {id(turn.draft): turn for turn in conversation.engine._turns.values()}
    for draft, original in zip(copied.blocks(), history.blocks(), strict=True):
        if isinstance(draft, tuple):
            continue
        for called in draft._calls():
            draft.result(ToolResult(id=called.call.id, name=called.call.name, content=UNKNOWN, state="unknown"))
        turn = live.get(id(original))
        if not draft.open or turn is None:
            continue
        heard = {
            part.number: (part.heard_text()[part.options.repeats :], part.heard_whole) for part in turn.speech.parts
        }
        words = any(heard[part.number][0].strip() for part in turn.speech.parts if not part.options.filler)
        if turn.speculative:
            copied.discard(draft)
        elif not turn.cut and not words and turn.utterances:
            copied.drop(draft)
        else:
            copied.commit(draft, heard)
    return list(copied.items()), LineSnapshot(playbacks=tuple(playbacks))


def compare(compared: list[Any]) -> Callable[[Scene], None]:
    """After every event the fold is the history of the agent."""

    def watch(scene: Scene) -> None:
        newest = scene.call.journal[-1]
        if len(scene.call.agents) == 0 or scene.call.agent._conversation is None or isinstance(newest, ev.ToolEnded):
            return  # the journal knows of a result before the history
        items, snapshot = settled(scene)
        history = History()
        resume(scene.call.fold(), snapshot, history, has_model=True)
        got = [late(item) for item in history.items()]
        assert got == [late(item) for item in items], (newest, got, items)
        compared.append(newest)

    return watch


def test_the_fold_of_any_prefix_is_the_history_that_the_agent_has_at_that_moment():
    check(play(watch=compare(compared := [])))
    assert len(compared) > 50


def late(item: Any) -> Any:
    if isinstance(item, ToolResult):
        return (item.id, item.content.split(" (finished")[0])
    return item


def deaths(make: Callable[..., Scene], *, gap_s: float, check: Callable[[Scene], None]) -> int:
    """Play a scene with a death after each of its events, and check what became of it."""
    events = len(make().call.events)
    for after in range(1, events):
        scene = make(after, gap_s=gap_s)
        try:
            check(scene)
        except AssertionError as exc:
            raise AssertionError(f"after event {after}, {scene.call.journal[after - 1]}: {exc}") from exc
    return events


@pytest.mark.parametrize("gap_s", [0.0, 0.3, 1.2])
def test_at_whatever_event_the_agent_dies_nothing_is_lost_and_nothing_comes_twice(gap_s: float):
    assert deaths(play, gap_s=gap_s, check=check) > 100


@settings(max_examples=60)
@given(st.integers(1, 120), st.integers(0, 30), st.integers(0, 30), st.sampled_from([0.0, 0.2, 0.9]))
def test_the_next_one_may_die_too_at_any_event(first: int, second: int, third: int, gap_s: float):
    check(play(first, first + 1 + second, first + 2 + second + third, gap_s=gap_s))


class Teller(Agent):
    """Has no model: says what it is asked for, a notice that is heard out between two parts."""

    def __init__(self, **options: Any) -> None:
        super().__init__(greeting="g1 g2 g3 g4 g5.", **options)

    async def inference(self, message: Message[str]) -> AsyncIterator[str]:
        number = _NUMBER.findall(message.data)[-1]
        yield f"a{number} b{number}. "
        await asyncio.sleep(0.05)
        self.dispatch_message(f"n{number} o{number} p{number}.", allow_interrupt=False)
        await asyncio.sleep(0.05)
        for letter in "cdef":
            yield f"{letter}{number} "
            await asyncio.sleep(0.01)
        if number == "9":
            self.hang_up()


class Tale(Scene):
    def make(self, voip: VoIP, stt: ToldSTT, tts: HummingTTS) -> Agent:
        return Teller(voip=voip, stt=stt, tts=tts)

    async def play(self) -> None:
        await self.call.quiet()
        self.says("tell me 1")
        await self.clock.sleep(0.6)
        self.says("and 2")  # over the notice, which is heard out
        await self.clock.sleep(0.9)
        await self.call.quiet()
        self.call.expects("tell me 3")
        await self.clock.sleep(0.1)
        self.says("tell me 3")
        await self.call.quiet()
        self.says("bye 9")
        await self.call.quiet()
        await self.clock.sleep(1)
        await self.call.over()


class UntimedTale(Tale):
    def voice(self) -> HummingTTS:
        return HummingTTS(timings=False)


def check_tale(scene: Scene) -> None:
    check_sound(scene)
    check_told(scene)


def check_told(scene: Scene) -> None:
    users = " | ".join(entries(scene, "user"))
    for text in scene.said:
        assert users.count(text) == 1, f"{text!r} in {users!r}"
    words = " ".join(entries(scene, "assistant")).replace(".", " ").split()
    twice = [word for word, count in Counter(words).items() if count > 1]
    assert not twice, f"{twice} in {words}"
    assert [word for word in words if word.startswith("g")] == ["g1", "g2", "g3", "g4", "g5"]
    for number in (2, 3, 9):
        assert f"a{number}" in words, words
    planned = any(isinstance(event, EndPlanned) for event in scene.call.journal)
    # A reply that was heard in part is not begun anew: what its code had not done yet is not done.
    assert scene.call.call.voip.end.reason == ("agent_hangup" if planned else "caller_hangup")


@pytest.mark.parametrize("gap_s", [0.0, 0.3])
@pytest.mark.parametrize("kind", [Tale, UntimedTale])
def test_an_agent_without_a_model_says_the_rest_and_ends_the_call_as_it_wished(kind: type[Scene], gap_s: float):
    def make(*kills: int, gap_s: float = 0.0) -> Scene:
        return play(*kills, gap_s=gap_s, kind=kind)

    check_tale(make())
    assert deaths(make, gap_s=gap_s, check=check_tale) > 60


class SpokenScene(Scene):
    """One model hears, thinks and speaks."""

    def make(self, voip: VoIP, stt: ToldSTT, tts: HummingTTS) -> Agent:
        return Desk(self.world, self.keys, voip=voip, s2s=CascadeS2S(stt=stt, tts=tts, llm=ScriptedLLM(answer)))


def test_a_model_that_hears_and_speaks_goes_on_in_another_process():
    def make(*kills: int, gap_s: float = 0.0) -> Scene:
        return play(*kills, gap_s=gap_s, kind=SpokenScene)

    check(make())
    assert deaths(make, gap_s=0.3, check=check) > 100


class BrokenScene(Scene):
    """The line breaks off in the greeting, in replies and in what goes on with one; each time it is back soon."""

    async def play(self) -> None:
        await self.clock.sleep(0.4)
        await self.call.breaks(0.3)
        await self.call.quiet()
        self.says("tell me 1")
        await self.clock.sleep(0.45)
        await self.call.breaks(0.3)
        await self.clock.sleep(0.2)
        await self.call.breaks(0.3)
        await self.call.quiet()
        self.says("book 2")
        await self.clock.sleep(0.6)
        await self.call.breaks(0.3)
        await self.call.quiet()
        self.says("look 5")
        await self.clock.sleep(0.7)
        await self.call.breaks(0.3)
        await self.call.quiet()
        await self.call.over()


class BrokenTale(Tale):
    async def play(self) -> None:
        await self.clock.sleep(0.4)
        await self.call.breaks(0.3)
        await self.call.quiet()
        self.says("tell me 2")
        await self.clock.sleep(0.5)
        await self.call.breaks(0.2)
        await self.clock.sleep(0.2)
        await self.call.breaks(0.3)
        await self.call.quiet()
        self.says("tell me 3")
        await self.clock.sleep(1)
        await self.call.breaks(0.3)
        await self.call.quiet()
        self.says("bye 9")
        await self.clock.sleep(0.7)
        await self.call.breaks(0.3)
        await self.call.quiet()
        await self.clock.sleep(1)
        await self.call.over()


@pytest.mark.parametrize("gap_s", [0.0, 0.4])
@pytest.mark.parametrize(("kind", "check_it"), [(BrokenScene, check_words), (BrokenTale, check_told)])
def test_the_line_may_break_off_too(kind: type[Scene], check_it: Callable[[Scene], None], gap_s: float):
    def make(*kills: int, gap_s: float = 0.0) -> Scene:
        return play(*kills, gap_s=gap_s, kind=kind)

    check_it(make())
    assert deaths(make, gap_s=gap_s, check=check_it) > 60


def test_the_fold_knows_what_the_line_broke_off():
    check_words(play(watch=compare(compared := []), kind=BrokenScene))
    assert len(compared) > 50

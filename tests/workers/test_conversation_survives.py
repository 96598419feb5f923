"""A whole conversation over the bridge whose workers die under it."""

from __future__ import annotations

import random
import re
import sys
from collections import Counter
from pathlib import Path

import pytest
from bridges import Bridge, bridge, until
from test_bridge import FAST

from dialog.llm.llm import Entry
from dialog.message import Clips
from dialog.testing.doubles import HummingTTS, ToldSTT
from dialog.testing.scripted import ScriptedLLM
from dialog.voip.voip import VoIP
from dialog.workers.hosting import HostingSettings

sys.path.insert(0, str(Path(__file__).parents[1] / "agent"))
from test_survival import Desk, answer


class Play:
    """The agents that have the call one after the other, and what they have done to the world."""

    def __init__(self, house: Bridge) -> None:
        self.house = house
        self.world: Counter[str] = Counter()
        self.keys: list[str] = []
        self.agents: list[Desk] = []
        self.stts: list[ToldSTT] = []

    async def worker(self) -> None:
        await self.house.worker(f"w{len(self.house.workers)}", self.on_voip)

    def on_voip(self, voip: VoIP) -> None:
        self.stts.append(ToldSTT())
        llm = ScriptedLLM(answer)
        agent = Desk(self.world, self.keys, voip=voip, stt=self.stts[-1], tts=HummingTTS(ms_per_char=20.0), llm=llm)
        self.agents.append(agent)
        agent.activate()

    async def hand_over(self, hosted) -> None:
        await self.worker()
        before, count = hosted.handed_over, len(self.agents)
        await self.house.kill(hosted.worker)
        await until(lambda: hosted.handed_over > before and hosted.worker and len(self.agents) > count)

    async def quiet(self) -> None:
        await until(lambda: self.agents[-1]._conversation.engine.quiet, 30)

    def said(self) -> list[tuple[str, str]]:
        items = self.agents[-1].history.items()
        return [(item.role, item.text) for item in items if isinstance(item, Entry) and item.role != "system"]


@pytest.mark.parametrize("seed", range(12))
async def test_nothing_is_said_twice_nothing_is_lost_and_no_tool_runs_again(seed):
    chance = random.Random(seed)
    async with bridge(clock=FAST, settings=HostingSettings(max_losses=10)) as house:
        play = Play(house)
        await play.worker()
        call, line, _ = await house.ring()
        hosted = house.hosted(call)
        line.pump()
        await play.quiet()  # the greeting was heard
        for number in range(1, 4):
            play.stts[-1].heard(f"book {number}" if number == 2 else f"tell {number}")
            for _ in range(chance.randint(0, 2)):
                await FAST.sleep(chance.uniform(0.0, 1.5))
                await play.hand_over(hosted)
            await play.quiet()
        said = play.said()
        assert [text for role, text in said if role == "user"] == ["tell 1", "book 2", "tell 3"]
        heard = " ".join(text for role, text in said if role == "assistant")
        for number in (1, 2, 3):
            for letter in "abcdef":
                assert len(re.findall(rf"\b{letter}{number}\b", heard)) == 1, (letter, number, heard)
        assert play.world["book 2"] == 1
        assert heard.count("g1") == 1
        line.hang_up()
        await until(lambda: not house.host.calls)


async def test_the_clips_of_the_voice_are_with_the_line():
    async with bridge(clock=FAST) as house:
        play = Play(house)
        await play.worker()
        call, line, _ = await house.ring()
        line.pump()
        hosted = house.hosted(call)
        await until(lambda: hosted._cover.clips != Clips(apology=b"", goodbye=b""))
        assert len(hosted._cover.clips.apology) > 160
        line.hang_up()
        await until(lambda: not house.host.calls)

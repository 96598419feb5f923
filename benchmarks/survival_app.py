"""The agent of ``survival.py``: a key makes it tell a long story, word by word."""

from __future__ import annotations

import re

from dialog.agent.agent import Agent
from dialog.llm.llm import Entry, LLMRequest
from dialog.testing.doubles import HummingTTS, ToldSTT
from dialog.testing.scripted import Answer, ScriptedLLM
from dialog.voip.voip import VoIP

WORDS = 2000
WORD_S = 0.25


def story(request: LLMRequest) -> Answer:
    """Of the words that the caller asks for, those that were not heard yet."""
    asked = next(item.text for item in reversed(request.items) if isinstance(item, Entry) and item.role == "user")
    number = asked.rsplit(" ", 1)[-1]
    heard = set(
        re.findall(r"\w+", " ".join(e.text for e in request.items if isinstance(e, Entry) and e.role == "assistant"))
    )
    pieces: list[str | float] = []
    for count in range(WORDS):
        word = f"s{number}w{count}"
        if word not in heard:
            pieces += [f"{word}, ", WORD_S]
    return [*pieces, "end."]


def on_voip(voip: VoIP) -> None:
    """A model that types at the pace of speech, and a voice that speaks a word in a quarter of a second."""
    stt = ToldSTT()
    told = 0

    def pressed(digit: str) -> None:
        nonlocal told
        told += 1
        stt.heard(f"tell {digit}{told}")

    agent = Agent(voip=voip, stt=stt, tts=HummingTTS(ms_per_char=35.0), llm=ScriptedLLM(story), system="Tell stories.")
    voip.on(VoIP.DTMF, pressed)
    agent.activate()

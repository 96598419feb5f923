"""A script whose process dies begins anew in the next one, with what it had learnt."""

from __future__ import annotations

import pytest
from survival import Survivor

from dialog import answers
from dialog.agent.scripts.script import Script
from dialog.testing.virtual import run_virtual

QUESTIONS = ("How was the food?", "And the service?", "Will you come again?")


class Interview(Script):
    def __init__(self, **options) -> None:
        super().__init__(**options)
        self.given: dict[str, str] = {}

    def state(self) -> object:
        return self.given

    def restore(self, state) -> None:
        self.given = state

    async def run(self, call) -> None:
        for question in QUESTIONS:
            if question not in self.given:
                self.given[question] = await call.ask(question, answers.Text())
        await call.say("Thank you.")


@pytest.mark.parametrize("kill", range(2, 40, 3))
def test_a_script_goes_on_where_it_was(kill):
    async def scenario(clock):
        call = Survivor(clock, lambda voip, stt, tts: Interview(voip=voip, stt=stt, tts=tts), kills=(kill,), gap_s=0.3)

        def asked() -> str:
            texts = [text for text in call.tts.texts.values() if text]
            return texts[-1] if texts else ""

        answered: set[tuple[int, str]] = set()
        while call.call.state != "ended":
            await clock.sleep(0.1)
            life, question = len(call.agents), asked()
            if call.life.alive and question in QUESTIONS and (life, question) not in answered:
                await clock.sleep(1.5)
                if call.life.alive and asked() == question:
                    answered.add((life, question))
                    call.says(f"answer to {question}")
        await call.over()
        return call

    call = run_virtual(scenario)
    assert call.agent.given == {question: f"answer to {question}" for question in QUESTIONS}
    assert len(call.agents) == 2
    said = [text for text in call.tts.texts.values() if text]
    assert said[-1] == "Thank you."
    assert len(said) == len(set(said)), "nobody says what the script says itself"

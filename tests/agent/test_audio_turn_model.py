"""A model that listens to the audio decides when the caller has finished."""

from __future__ import annotations

import pytest
from test_agent_on_a_line import Echo, on_a_call

from dialog.agent.agent import Agent
from dialog.agent.settings import AgentSettings
from dialog.agent.turns.settings import Endpointing, TurnSettings
from dialog.calls.events import CallerSpoke, CallEvent
from dialog.errors import StateError
from dialog.testing.doubles import HummingTTS
from dialog.voip.text import TextVoIP

SETTINGS = AgentSettings(turns=TurnSettings(endpointing=Endpointing(wait_s=0.5, unfinished_s=1.5)))


class Judging(Echo):
    """Answers when it is told that the caller has finished."""

    probability = 1.0

    def __init__(self, **options) -> None:
        super().__init__(**options)
        self.on(Agent.EVENT, self._listen)

    def _listen(self, event: CallEvent) -> None:
        if isinstance(event, CallerSpoke) and event.state == "stopped":
            self.judge_turn(self.probability)


class Doubting(Judging):
    probability = 0.0


@pytest.mark.parametrize(
    ("kind", "said", "waits"),
    [(Echo, "two", False), (Doubting, "two", True), (Echo, "my number is", True), (Judging, "my number is", False)],
)
def test_its_judgement_takes_the_place_of_what_the_words_suggest(kind: type[Agent], said: str, waits: bool) -> None:
    async def scenario(talk):
        talk.stt.speech_starts()
        talk.stt.hears(said)
        talk.stt.speech_stops()
        turn = talk.stt.heard(said)
        await talk.clock.sleep(0.5)
        assert ((turn, 0) not in talk.tts.texts) is waits
        await talk.clock.sleep(2)
        assert (turn, 0) in talk.tts.texts

    on_a_call(scenario, kind, settings=SETTINGS)


async def test_without_a_call_there_is_nothing_to_judge() -> None:
    agent = Echo(voip=TextVoIP(lambda message: None), tts=HummingTTS())
    with pytest.raises(StateError):
        agent.judge_turn(1.0)
    agent.dispose()

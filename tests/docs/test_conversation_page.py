"""The agents of the page about conversation do what the page says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import dialog
from dialog import AgentSettings
from dialog.agent.agent import Agent
from dialog.audio.g711 import mulaw_encode
from dialog.audio.tones import sine
from dialog.calls.events import (
    AgentSaid,
    CallEnded,
    IdlePrompted,
    Interrupted,
    ResumedAfterPause,
    ToolEnded,
    ToolStarted,
)
from dialog.llm.llm import Entry
from dialog.message import MULAW_8K, Message
from dialog.testing import HummingTTS, ScriptedLLM, TextSession, ToldSTT, ToolUse, run_virtual
from dialog.voip.link import TransferTo
from dialog.voip.memory import memory_call

PAGE = Path(__file__).parents[2] / "docs" / "conversation.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)


@pytest.fixture
def page() -> dict[str, Any]:
    names: dict[str, Any] = {"__name__": "page"}
    for number, source in enumerate(BLOCKS, 1):
        exec(compile(source, f"{PAGE.name}, block {number}", "exec"), names)
    return names


class Echo(Agent):
    async def inference(self, message: Message[str]):
        for word in f"You said: {message.data}".split():
            yield f"{word} "


class Talk:
    """A call in memory and in virtual time; the test holds ears and voice."""

    def __init__(self, clock: dialog.Clock, kind: type[Agent], options: dict[str, Any]) -> None:
        self.clock = clock
        self.stt, self.tts = ToldSTT(), HummingTTS()

        def on_voip(voip: dialog.VoIP) -> None:
            self.agent = kind(voip=voip, stt=self.stt, tts=self.tts, **options)
            self.agent.activate()

        self.call, self.line = memory_call(on_voip, clock=clock)

    def __call__(self, kind):
        return [event for event in self.agent.events if isinstance(event, kind)]

    def says(self) -> list[str]:
        return [event.text.strip() for event in self(AgentSaid)]

    def history(self) -> list[tuple[str, str]]:
        return [(item.role, item.text) for item in self.agent.history.items() if isinstance(item, Entry)]


def on_a_call(scenario, kind: type[Agent] = Echo, **options: Any) -> Talk:
    async def run(clock: dialog.Clock) -> Talk:
        talk = Talk(clock, kind, options)
        await scenario(talk)
        talk.line.hang_up()
        await talk.call.wait_closed()
        await talk.line.wait_closed()
        return talk

    return run_virtual(run)


def in_text(agent: type[Agent], scenario, script: list[Any], **options: Any) -> None:
    """Run a conversation in text with an agent of the page and a scripted model."""

    def on_voip(voip: dialog.VoIP) -> None:
        agent(voip=voip, tts=HummingTTS, **({"api_key": "…"} | options)).activate()

    async def run(_: dialog.Clock) -> None:
        async with TextSession(on_voip, llm=ScriptedLLM(script)) as session:
            await scenario(session)

    run_virtual(run)


def test_the_first_settings_do_what_their_comments_say(page):
    llm = ScriptedLLM([[3.0, "A long answer with many words in it, more than one breath takes."]])

    async def scenario(talk: Talk) -> None:
        talk.stt.heard("what is new?")
        await talk.clock.sleep(3.8)
        talk.stt.speech_starts()
        talk.stt.hears("uh-huh")
        talk.stt.speech_stops()
        talk.stt.heard("uh-huh")
        await talk.clock.sleep(12)
        assert [said.split()[0] for said in talk.says()] == ["One", "A", "Are"]
        assert not talk(Interrupted)
        assert ("user", "uh-huh") not in talk.history()

    on_a_call(scenario, Agent, llm=llm, settings=page["settings"])


def test_with_the_first_settings_an_answer_is_begun_before_the_final(page):
    async def scenario(talk: Talk) -> None:
        talk.stt.speech_starts()
        talk.stt.hears("two please")
        talk.stt.speech_stops()
        await talk.clock.sleep(0.5)
        assert not talk.line.heard_audio
        talk.stt.heard("two please")
        await talk.clock.sleep(3)
        assert talk.agent.metrics.speculation_saved_ms == pytest.approx(300, abs=20)

    on_a_call(scenario, settings=page["settings"])


def test_the_answer_to_a_question_is_waited_for_with_patience(page):
    async def scenario(talk: Talk) -> None:
        talk.stt.heard("I am a customer")
        await talk.clock.sleep(4)
        assert talk.says() == ["What is your customer number?"]
        talk.stt.heard("my number is")
        await talk.clock.sleep(2.5)  # the default settings wait for one second
        last = talk.stt.heard("four one five five")
        await talk.clock.sleep(6)
        assert talk.history()[2] == ("user", "my number is four one five five")
        assert (last, 0) in talk.tts.texts

    on_a_call(scenario, page["Intake"])


@pytest.mark.parametrize(("said", "waits"), [("einen tisch und", True), ("einen tisch", False), ("a table and", False)])
def test_the_german_rules_take_the_place_of_the_english_ones(page, said, waits):
    async def scenario(talk: Talk) -> None:
        turn = talk.stt.heard(said)
        await talk.clock.sleep(0.4)
        assert ((turn, 0) not in talk.tts.texts) is waits

    if said == "a table and":  # the German judge leaves it to the rules for English
        waits = True
    on_a_call(scenario, settings=page["in_german"])


@pytest.mark.parametrize(("said", "probability", "waits"), [("my number is", 1.0, False), ("two", 0.0, True)])
def test_a_model_hears_the_audio_and_has_the_last_word(page, said, probability, waits):
    heard: list[bytes] = []

    def predict(audio: bytes) -> float:
        heard.append(audio)
        return probability

    async def scenario(talk: Talk) -> None:
        talk.line.say(mulaw_encode(sine(300, 600)))
        talk.stt.speech_starts()
        talk.stt.hears(said)
        await talk.clock.sleep(0.6)
        talk.stt.speech_stops()
        await talk.clock.sleep(0.05)
        turn = talk.stt.heard(said)
        await talk.clock.sleep(0.3)
        assert ((turn, 0) not in talk.tts.texts) is waits
        await talk.clock.sleep(2)
        assert (turn, 0) in talk.tts.texts

    on_a_call(scenario, turn_model=page["EndOfTurn"](predict))
    assert [len(audio) for audio in heard] == [pytest.approx(MULAW_8K.size(600), abs=MULAW_8K.size(40))]


def test_the_gate_lets_speech_through_and_nothing_quieter(page):
    async def scenario(talk: Talk) -> None:
        talk.line.say(mulaw_encode(sine(300, 200)) + b"\x7c" * MULAW_8K.size(200))
        await talk.clock.sleep(0.6)

    talk = on_a_call(scenario, **page["hearing"])
    audio = bytes(talk.stt.audio)
    assert len(set(audio[: MULAW_8K.size(200)])) > 10
    assert set(audio[MULAW_8K.size(220) :]) == {0xFF}


def test_a_local_vad_pauses_a_reply_and_without_words_it_goes_on(page):
    async def scenario(talk: Talk) -> None:
        talk.stt.heard("tell me a long story about it please")
        # Louder than what may be an echo of the agent's own voice.
        talk.line.say(b"\xff" * MULAW_8K.size(1000) + mulaw_encode(sine(300, 300, level_dbfs=-3)))
        await talk.clock.sleep(6)
        assert len(talk(ResumedAfterPause)) == 1
        assert talk.agent.metrics.false_interruptions == 1

    on_a_call(scenario, **page["hearing"])


def test_the_ladder_of_the_page_depends_on_what_the_agent_is_doing(page):
    async def scenario(talk: Talk) -> None:
        await talk.clock.sleep(0.5)
        talk.stt.heard("wait")  # over the greeting: it ends with its sentence
        await talk.clock.sleep(6)
        first = talk(AgentSaid)[0]
        assert first.heard.strip() == "Hello and welcome."
        talk.stt.heard("say something long to me")
        await talk.clock.sleep(1)
        talk.stt.hears("oh")
        talk.stt.hears("please")  # one word only
        await talk.clock.sleep(0.1)
        cut = len(talk(Interrupted))
        talk.stt.hears("please stop")
        await talk.clock.sleep(0.1)
        assert len(talk(Interrupted)) == cut + 1

    greeting = "Hello and welcome. You can ask me about our opening hours, our menu and our prices."
    on_a_call(scenario, settings=AgentSettings(turns=page["turns"]), greeting=greeting)


def test_the_notice_of_the_bank_is_heard_out(page):
    async def scenario(talk: Talk) -> None:
        talk.stt.heard("hello")
        await talk.clock.sleep(0.5)
        talk.stt.heard("hurry up")
        await talk.clock.sleep(12)
        notices = [said for said in talk(AgentSaid) if said.text.startswith("This call")]
        assert all(said.state == "played" and said.heard == said.text for said in notices)
        assert talk.says()[-1] == "What can I do for you?"

    on_a_call(scenario, page["Bank"])


@pytest.mark.parametrize(("name", "early"), [("find_book", True), ("lend_book", False)])
def test_of_an_answer_that_is_begun_early_only_safe_tools_act(page, name, early):
    llm = ScriptedLLM([ToolUse(name, {"title": "Emma"}), "Here you are."])

    async def scenario(talk: Talk) -> None:
        talk.stt.expects("Emma, please")
        await talk.clock.sleep(0.5)
        assert bool(talk(ToolStarted)) is early
        assert not talk.line.heard_audio
        talk.stt.heard("Emma, please")
        await talk.clock.sleep(3)
        assert talk.says() == ["Here you are."]
        assert talk.agent.metrics.speculations_saved == 1
        assert talk.agent.metrics.speculation_saved_ms >= 500

    on_a_call(scenario, page["Library"], llm=llm)


def test_a_voice_is_given_the_pronunciation_and_history_the_text(page):
    async def scenario(talk: Talk) -> None:
        turn = talk.stt.heard("**SQL** costs $5")
        await talk.clock.sleep(5)
        assert talk.tts.texts[turn, 0].strip() == "You said: sequel costs five dollars"
        assert talk.history()[-1] == ("assistant", "You said: **SQL** costs $5")

    on_a_call(scenario, settings=page["pronounced"])


def test_the_kitchen_fills_cancels_and_reports_later(page):
    async def scenario(session: TextSession) -> None:
        reply = await session.run("the fish")
        assert [(said.text, said.filler) for said in reply.parts] == [
            ("Let me ask the kitchen.", True),
            ("In twenty minutes.", False),
        ]
        assert ("assistant", "Let me ask the kitchen.") not in session.heard
        reply = await session.run("and a taxi")
        reply.says("I am calling one").never_says("on its way")
        reply = await session.silence(40)
        reply.says("Your taxi is on its way.")

    script = [
        ToolUse("order", {"dish": "fish"}),
        "In twenty minutes.",
        ToolUse("call_taxi"),
        "I am calling one.",
        "Your taxi is on its way.",
    ]
    in_text(page["Kitchen"], scenario, script)


@pytest.mark.parametrize(
    ("tool", "arguments", "state"),
    [("search_menu", {"words": "fish"}, "cancelled"), ("order", {"dish": "fish"}, "done")],
)
def test_an_interruption_stops_only_the_tools_that_say_so(page, tool, arguments, state):
    llm = ScriptedLLM(
        [["Let me look for that, it takes a moment or two.", ToolUse(tool, arguments)], "Very well.", "The fish."]
    )

    async def scenario(talk: Talk) -> None:
        talk.stt.heard("what else is there?")
        await talk.clock.sleep(1)
        talk.stt.speech_starts()
        talk.stt.heard("never mind")
        await talk.clock.sleep(15)
        assert [event.state for event in talk(ToolEnded)] == [state]
        assert "Very well." in talk.says()

    on_a_call(scenario, _with_tools_of(page["Kitchen"]), llm=llm)


def test_a_sound_fills_the_wait_and_another_goes_on_under_everything(page):
    async def scenario(talk: Talk) -> None:
        await talk.clock.sleep(2)
        assert len(set(talk.line.heard_audio)) > 20

    on_a_call(scenario, settings=page["sounds"])
    settings = dialog.AgentSettings(thinking_sound=page["sounds"].thinking_sound)

    async def thinking(talk: Talk) -> None:
        talk.stt.heard("think")
        await talk.clock.sleep(0.9)
        assert not talk.line.heard_audio
        await talk.clock.sleep(1.6)
        assert len(set(talk.line.heard_audio)) > 20

    on_a_call(thinking, Agent, llm=ScriptedLLM([[3.0, "Well."]]), settings=settings)


def test_the_desk_asks_into_the_silence_and_ends_the_call(page):
    async def scenario(session: TextSession) -> None:
        reply = await session.silence(30)
        assert reply.text == "Hello? I am still here. Are you? Nobody seems to be there. Goodbye."
        reply.happened(IdlePrompted)
        reply.ends_call("idle")

    in_text(page["Desk"], scenario, [], settings=page["endings"])


def test_the_desk_announces_the_end_of_a_long_call(page):
    async def scenario(talk: Talk) -> None:
        for _ in range(110):
            talk.stt.heard("and then")
            await talk.clock.sleep(5)
        assert "We have one more minute." in talk.says()
        for _ in range(20):
            if talk(CallEnded):
                break
            talk.stt.heard("and then")
            await talk.clock.sleep(5)
        assert talk(CallEnded)[0].reason == "max_duration"

    on_a_call(scenario, settings=page["endings"])


def test_the_desk_hangs_up_and_transfers_when_it_was_heard(page):
    async def goodbye(session: TextSession) -> None:
        reply = await session.run("bye")
        reply.says("Goodbye, and take care.").ends_call("agent_hangup")

    async def transfer(session: TextSession) -> None:
        await session.run("a person, please")
        assert session.commands[-1] == TransferTo(tel="+15550101", back_within_s=20)

    in_text(page["Desk"], goodbye, [["Goodbye, and take care.", ToolUse("end_call")]])
    in_text(page["Desk"], transfer, [["One moment.", ToolUse("transfer_call", {"destination": "a person"})]])


def test_keys_are_collected_by_a_tool_or_told_to_the_model(page):
    llm = ScriptedLLM([ToolUse("ask_for_pin"), "Thank you.", "One two."])

    async def scenario(talk: Talk) -> None:
        talk.stt.heard("hello")
        await talk.clock.sleep(0.5)
        talk.line.press("4711#")
        await talk.clock.sleep(3)
        assert [event.result for event in talk(ToolEnded)] == ["correct"]
        assert talk(AgentSaid)[0].state == "cut"
        talk.line.press("12")
        await talk.clock.sleep(4)
        assert talk.says()[1:] == ["Thank you.", "One two."]
        assert ("user", "(pressed 1 2)") in talk.history()

    on_a_call(scenario, _with_tools_of(page["Pin"]), llm=llm)


def test_keys_that_do_not_come_are_a_reason_and_no_error(page):
    async def scenario(session: TextSession) -> None:
        reply = await session.run("hello")
        reply.returns("ask_for_pin", "wrong (timeout)").says("Once more?")

    in_text(page["Pin"], scenario, [ToolUse("ask_for_pin"), "Once more?"])


def test_nobody_listens_while_the_terms_are_read(page):
    llm = ScriptedLLM([ToolUse("read_terms"), "Do you agree?"])

    async def scenario(talk: Talk) -> None:
        talk.stt.heard("read them")
        talk.line.say(mulaw_encode(sine(300, 3000)))
        await talk.clock.sleep(0.5)
        heard = len(talk.stt.audio)
        await talk.clock.sleep(0.4)
        assert set(talk.stt.audio[heard:]) == {0xFF}
        heard = len(talk.stt.audio)
        await talk.clock.sleep(1.5)
        assert len(set(talk.stt.audio[heard:])) > 10
        assert talk.says() == ["These are the terms.", "Do you agree?"]

    on_a_call(scenario, _with_tools_of(page["Terms"]), llm=llm)


def _with_tools_of(kind: type[Agent]) -> type[Agent]:
    """The tools of an agent of the page, with a model that the test gives."""
    return type(kind.__name__, (Agent,), {name: value for name, value in vars(kind).items() if callable(value)})


def test_the_numbers_are_measured(page, capsys):
    async def scenario(talk: Talk) -> None:
        talk.agent.on(Agent.EVENT, page["measure"])
        for words in ("hello", "and again"):
            talk.line.say(mulaw_encode(sine(300, 300)))
            await talk.clock.sleep(0.3)
            talk.stt.heard(words)
            await talk.clock.sleep(4)

    talk = on_a_call(scenario)
    assert len(page["turns_ms"]) == 2
    assert all(0 <= latency < 500 for latency in page["turns_ms"])
    assert capsys.readouterr().out.startswith("0 0 ")
    assert talk.agent.metrics.caller_turns == 2

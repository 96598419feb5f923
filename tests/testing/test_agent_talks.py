"""Two agents talk to each other: by voice in virtual time, by text, and over the carrier's protocol."""

from __future__ import annotations

import asyncio
import io
import wave

import pytest
from aiohttp import web
from msgspec import structs
from steady import steady_clock

from dialog.agent.agent import Agent
from dialog.agent.settings import AgentSettings
from dialog.agent.toolkit import end_call_tool, transfer_call_tool
from dialog.agent.tools import tool
from dialog.calls.events import HandedOff
from dialog.errors import ConfigurationError, UserCodeError
from dialog.llm.rules import Rule, RuleLLM
from dialog.net.listening import unlisten
from dialog.s2s.cascade import CascadeS2S
from dialog.testing import ReadingSTT, ScriptedLLM, SpellingTTS, ToolUse, TwilioRestEmulator, run_virtual
from dialog.testing.agent_caller import dial_with_agent
from dialog.testing.agent_line import join_agents
from dialog.testing.persona import Answer, Persona, customer
from dialog.testing.talk import TalkLimits
from dialog.voip.twilio.gateway import TwilioGateway

GREETING = "Welcome to Luigi's, how can I help you?"
BOOKED = "Your table for two at 19:00 is booked."


class Desk(Agent):
    end_call = end_call_tool()

    @tool
    async def book_table(self, people: int, time: str) -> str:
        """Book a table."""
        await self.voip.clock.sleep(0.5)
        return f"table for {people} at {time}"


RULES = (
    Rule(
        pattern="at seven",
        tool="book_table",
        arguments={"people": 2, "time": "19:00"},
        result=f"{BOOKED} Anything else?",
    ),
    Rule(pattern="table for two", reply="Gladly. At what time?"),
    Rule(pattern="press", reply="Now press a key."),
    Rule(pattern="goodbye", reply="Goodbye.", tool="end_call"),
)


def desk(greeting=GREETING, rules=RULES, kind=Desk, **options):
    def on_voip(voip):
        made = kind(
            voip=voip, stt=ReadingSTT, tts=SpellingTTS, llm=RuleLLM(rules), greeting=greeting, system="Desk.", **options
        )
        made.activate()

    return on_voip


ADA = Persona(
    who="Ada",
    patience_s=20,
    goal="a table for two at seven",
    answers=(
        Answer(hears="help you|Hello", says="Hello, I would like a table for two."),
        Answer(hears="what time", says="At seven please."),
        Answer(hears="booked", says="Thank you, goodbye.", hangs_up=True),
    ),
)


def talked(*arguments, **options):
    async def scenario(clock):
        return await join_agents(*arguments, clock=clock, **options)

    return run_virtual(scenario)


@pytest.mark.parametrize("medium", ["voice", "text"])
def test_a_customer_gets_their_table(medium):
    lines = []
    talk = talked(desk(), customer(ADA), medium=medium, on_line=lines.append)
    assert [(line.who, line.text) for line in talk.lines] == [
        ("agent", GREETING),
        ("caller", "Hello, I would like a table for two."),
        ("agent", "Gladly. At what time?"),
        ("caller", "At seven please."),
        ("tool", "book_table(people=2, time='19:00') → table for 2 at 19:00"),
        ("agent", f"{BOOKED} Anything else?"),
        ("caller", "Thank you, goodbye."),
    ]
    assert lines == list(talk.lines)
    assert (talk.ended_by, talk.reason, talk.caller_turns) == ("caller", "agent_hangup", 3)
    assert [line.at_s for line in talk.lines] == sorted(line.at_s for line in talk.lines)
    assert [use.arguments for use in talk.tools] == [{"people": 2, "time": "19:00"}]
    assert talk.failures == ()
    assert "  caller At seven please." in talk.transcript


def test_by_voice_words_take_their_time_and_all_of_it_is_recorded():
    talk = talked(desk(), customer(ADA))
    spoken_s = sum(len(line.text) for line in talk.lines if line.who in ("agent", "caller")) * 0.06
    assert talk.duration_s > spoken_s
    assert len(talk.latencies_ms) == 2
    assert all(300 <= latency < 1200 for latency in talk.latencies_ms), talk.latencies_ms
    assert talk.dead_air_s == pytest.approx(max(talk.latencies_ms) / 1000, abs=0.01)
    with wave.open(io.BytesIO(talk.wav)) as wav:
        assert (wav.getnchannels(), wav.getframerate()) == (2, 8000)
        assert wav.getnframes() / 8000 == pytest.approx(talk.duration_s, abs=0.2)


def test_a_customer_says_what_they_want_to_an_agent_that_does_not_greet():
    talk = talked(desk(greeting=""), customer(structs.replace(ADA, patience_s=2.0)))
    assert next(line.text for line in talk.lines if line.who == "caller") == "Hello, I would like a table for two."
    assert talk.ended_by == "caller"


def test_the_agent_may_hang_up():
    rules = (Rule(pattern="table", reply="We are closed. Goodbye.", tool="end_call"),)
    talk = talked(desk(rules=rules), customer(ADA))
    assert (talk.ended_by, talk.reason) == ("agent", "agent_hangup")
    assert talk.lines[-1].text == "We are closed. Goodbye."
    by_text = talked(desk(rules=rules), customer(ADA), medium="text")
    assert by_text.said_by("agent") == talk.said_by("agent")
    assert by_text.ended_by == "agent"


def test_a_customer_who_is_not_understood_gives_up():
    talk = talked(desk(rules=(Rule(pattern="", reply="The weather is nice."),)), customer(ADA), medium="text")
    said = [line.text for line in talk.lines if line.who == "caller"]
    assert said == ["Hello, I would like a table for two.", *[ADA.otherwise] * 2, ADA.gives_up]
    assert talk.ended_by == "caller"


def test_a_model_plays_the_customer_and_is_told_who_it_is():
    llm = ScriptedLLM(
        ["A table for two, please.", [ToolUse("keep_listening")], ["Wonderful, goodbye.", ToolUse("end_call")]]
    )

    class Slow(Desk):
        async def inference(self, message):
            self.dispatch_message("One moment please.")
            await self.voip.clock.sleep(3)
            yield BOOKED

    talk = talked(desk(kind=Slow), customer(ADA, llm=lambda: llm))
    assert [(line.who, line.text) for line in talk.lines] == [
        ("agent", GREETING),
        ("caller", "A table for two, please."),
        ("agent", "One moment please."),
        ("agent", BOOKED),
        ("caller", "Wonderful, goodbye."),
    ]
    system = llm.requests[0].items[0].text
    assert "Ada" in system
    assert "a table for two at seven" in system
    assert {spec.name for spec in llm.requests[0].tools} == {"end_call", "keep_listening"}


def test_a_customer_may_talk_over_the_agent():
    class Impatient(Agent):
        async def inference(self, message):
            yield "Stop, please, just a table for two."

    def on_voip(voip):
        made = Impatient(voip=voip, stt=lambda: ReadingSTT(endpointing_ms=200), tts=SpellingTTS)
        made.activate()

    class Chatty(Desk):
        said = 0

        async def inference(self, message):
            self.said += 1
            if self.said == 1:
                yield "Well, let me think about this for a moment. "
                await self.voip.clock.sleep(3.0)
                yield "We have so many tables that I could tell you about for hours and hours and hours."
            else:
                yield "As you like."
                self.hang_up()

    talk = talked(desk(kind=Chatty), on_voip)
    (cut,) = [line for line in talk.lines if line.unheard]
    assert cut.who == "agent"
    assert cut.text.startswith("Well")
    assert cut.unheard.endswith("and hours.")
    assert talk.ended_by == "agent"


LONG = "Welcome to Luigi's, how can I help you on this fine and sunny and altogether lovely day, dear caller?"


def test_a_hasty_customer_speaks_over_the_agent():
    hasty = Persona(
        answers=(
            Answer(hears="help you", says="Just a table for two.", interrupts=True),
            *ADA.answers[1:],
        ),
        patience_s=20,
    )
    talk = talked(desk(greeting=LONG), customer(hasty))
    said = [(line.who, line.text, bool(line.unheard)) for line in talk.lines if line.who in ("agent", "caller")]
    assert said[0][0] == "agent"
    assert said[0][2], "it was cut"
    assert "help you" in said[0][1]
    assert "dear" not in said[0][1]
    assert said[1:] == [
        ("caller", "Just a table for two.", False),
        ("agent", "Gladly. At what time?", False),
        ("caller", "At seven please.", False),
        ("agent", f"{BOOKED} Anything else?", False),
        ("caller", "Thank you, goodbye.", False),
    ]


def test_an_agent_that_does_not_let_itself_be_interrupted_is_heard_out_by_nobody():
    hasty = Persona(
        answers=(Answer(hears="help you", says="Just a table for two.", interrupts=True), *ADA.answers[1:]),
        patience_s=20,
    )
    deaf = AgentSettings(greeting_interruptible=False)
    talk = talked(desk(greeting=LONG, settings=deaf), customer(hasty))
    assert [(line.who, line.text) for line in talk.lines if line.who in ("agent", "caller")] == [
        ("agent", LONG),
        ("caller", "Just a table for two."),
        ("agent", "Gladly. At what time?"),
        ("caller", "At seven please."),
        ("agent", f"{BOOKED} Anything else?"),
        ("caller", "Thank you, goodbye."),
    ]
    greeting, over = talk.lines[:2]
    assert over.at_s < greeting.at_s + 0.06 * len(LONG) - 2


LIMITS = {
    "duration": (TalkLimits(max_duration_s=10), "the call went on for 10 s"),
    "turns": (TalkLimits(max_turns=3), "more than 3 times"),
}


@pytest.mark.parametrize("which", LIMITS)
@pytest.mark.parametrize("medium", ["voice", "text"])
def test_a_talk_that_does_not_end_is_ended(which, medium):
    limits, reason = LIMITS[which]
    parrot = Persona(answers=(Answer(says="Tell me more.", times=1000),))

    class Parrot(Desk):
        async def inference(self, message):
            await self.voip.clock.sleep(0.3)
            yield "There is always more."

    talk = talked(desk(kind=Parrot), customer(parrot), medium=medium, limits=limits)
    assert talk.ended_by == "limit"
    assert reason in talk.reason


def test_silence_ends_a_talk():
    class Mute(Desk):
        async def inference(self, message):
            for text in ():
                yield text

    silent = Persona(answers=(Answer(says="Hello?"),), patience_s=1000)
    limits = TalkLimits(max_silence_s=5)
    talk = talked(desk(kind=Mute, greeting=""), customer(silent), limits=limits)
    assert (talk.ended_by, talk.reason) == ("limit", "nobody said anything for 5 s")
    by_text = talked(desk(kind=Mute, greeting=""), customer(silent), medium="text")
    assert [line.text for line in by_text.lines] == [
        "Hello?",
        "Hello? Are you still there?",
        "I can't hear you, so I will hang up. Goodbye.",
    ]
    assert (by_text.ended_by, by_text.reason) == ("caller", "idle")


def test_by_text_a_slow_agent_is_waited_for():
    class Slow(Desk):
        async def inference(self, message):
            await self.voip.clock.sleep(15)
            yield BOOKED

    talk = talked(desk(kind=Slow), customer(ADA), medium="text")
    assert [line.text for line in talk.lines if line.who == "caller"] == [
        "Hello, I would like a table for two.",
        "Thank you, goodbye.",
    ]
    assert talk.duration_s > 15


@pytest.mark.parametrize("medium", ["voice", "text"])
def test_a_transfer_ends_the_talk(medium):
    class Porter(Desk):
        transfer_call = transfer_call_tool({"a person": "+15550100"})

    rules = (
        Rule(pattern="table", reply="I connect you.", tool="transfer_call", arguments={"destination": "a person"}),
    )
    talk = talked(desk(kind=Porter, rules=rules), customer(ADA), medium=medium)
    assert (talk.ended_by, talk.reason) == ("agent", "transferred")
    assert talk.lines[-1].text in ("I connect you.", str(talk.lines[-1].tool) + " → " + talk.tools[-1].result)


@pytest.mark.parametrize("medium", ["voice", "text"])
def test_keys_that_one_presses_the_other_receives(medium):
    class Presses(Agent):
        async def inference(self, message):
            await self.voip.send_digits("12w#")
            yield "I pressed it."

    def on_voip(voip):
        Presses(voip=voip, stt=ReadingSTT, tts=SpellingTTS).activate()

    talk = talked(desk(greeting="Now press a key."), on_voip, medium=medium, limits=TalkLimits(max_turns=1))
    assert [line.text for line in talk.lines if line.who == "note"][:3] == [
        f"the caller presses {key}" for key in "12#"
    ]


def test_a_hand_over_is_in_the_transcript():
    class Sommelier(Desk):
        pass

    class Host(Desk):
        @tool
        async def to_sommelier(self) -> Agent:
            """Hand over."""
            return Sommelier(voip=self.voip, stt=self.stt, tts=self.tts, greeting="About our wine?", llm=RuleLLM(()))

    rules = (Rule(pattern="wine", tool="to_sommelier"),)
    asks = Persona(
        answers=(Answer(hears="help", says="A wine please."), Answer(hears="About", says="Bye.", hangs_up=True))
    )
    for medium in ("voice", "text"):
        talk = talked(desk(kind=Host, rules=rules), customer(asks), medium=medium)
        assert "Host hands over to Sommelier" in [line.text for line in talk.lines if line.who == "note"]
        assert "About our wine?" in talk.said_by("agent")
        assert any(isinstance(event, HandedOff) for event in talk.agent_events)
        assert talk.ended_by == "caller"


def test_a_function_that_raises_or_makes_no_agent_is_told():
    def raises(voip):
        raise KeyError("no key")

    for pair in ((raises, customer(ADA)), (desk(), raises)):
        with pytest.raises(UserCodeError, match="no key"):
            talked(*pair)
    with pytest.raises(ConfigurationError, match="no agent"):
        talked(lambda voip: None, customer(ADA), medium="text")


def test_what_cannot_be_played_is_refused():
    with pytest.raises(ConfigurationError, match="goal"):
        Persona()
    with pytest.raises(ConfigurationError, match="no answers, and no model"):
        customer(Persona(goal="a table"))
    with pytest.raises(ConfigurationError, match="has no goal"):
        customer(Persona(answers=(Answer(says="hello"),)), llm=lambda: ScriptedLLM([]))
    with pytest.raises(ConfigurationError, match="no regular expression"):
        Answer(hears="(")
    with pytest.raises(ConfigurationError, match="interrupts: it needs"):
        Answer(says="Stop!", interrupts=True)
    with pytest.raises(ConfigurationError, match="max_turns"):
        TalkLimits(max_turns=0)


def test_a_customer_whose_model_fails_is_told():
    talk = talked(desk(), customer(ADA, llm=lambda: ScriptedLLM([])), limits=TalkLimits(max_duration_s=10))
    assert any("the script has 0" in failure for failure in talk.failures)


def test_an_agent_in_realtime_mode_talks_as_well():
    def on_voip(voip):
        model = CascadeS2S(stt=ReadingSTT(), tts=SpellingTTS(), llm=RuleLLM(RULES))
        Desk(voip=voip, s2s=model, greeting=GREETING, system="Desk.").activate()

    talk = talked(on_voip, customer(ADA))
    assert talk.said_by("caller").endswith("Thank you, goodbye.")
    assert [use.arguments for use in talk.tools] == [{"people": 2, "time": "19:00"}]
    assert BOOKED in talk.said_by("agent")
    assert talk.ended_by == "caller"


async def test_an_agent_dials_a_gateway_over_the_carriers_protocol():
    clock = steady_clock(2.0)
    brief = Persona(
        answers=(
            Answer(hears="help you", says="At seven please."),
            Answer(hears="booked", says="Goodbye.", hangs_up=True),
        ),
        patience_s=20,
    )
    async with TwilioRestEmulator(auth_token="secret") as account:
        gateway = TwilioGateway(account_sid=account.account_sid, auth_token="secret", base_url=account.url, clock=clock)
        gateway.on("voip", desk())
        runner = web.AppRunner(gateway.app(), access_log=None)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            url = f"http://127.0.0.1:{runner.addresses[0][1]}/twilio"
            talk = await dial_with_agent(
                url, customer(brief), auth_token="secret", account_sid=account.account_sid, clock=clock
            )
            async with asyncio.timeout(10):
                await asyncio.gather(*(call.wait_closed() for call in gateway.calls))
        finally:
            await unlisten(runner)
    assert [(line.who, line.text) for line in talk.lines] == [
        ("agent", GREETING),
        ("caller", "At seven please."),
        ("agent", f"{BOOKED} Anything else?"),
        ("caller", "Goodbye."),
    ]
    assert talk.ended_by == "caller"
    assert talk.agent_events == ()
    assert len(talk.latencies_ms) == 1

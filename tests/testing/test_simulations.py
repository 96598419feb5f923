"""Customers ring up a user's agent in an evaluation: by voice through a real gateway, by text, and from the command line."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from aiohttp import web

from dialog.agent.agent import Agent
from dialog.agent.toolkit import end_call_tool
from dialog.agent.tools import tool
from dialog.cli.app import app
from dialog.errors import ConfigurationError
from dialog.llm.openai import OpenAILLM
from dialog.llm.rules import Rule
from dialog.presets import RuleAgent
from dialog.testing import ChatReply, HummingTTS, OpenAIEmulator, ReadingSTT, ScriptedLLM, SpellingTTS, ToldSTT, ToolUse
from dialog.testing.evaluate import Thresholds, evaluate
from dialog.testing.judge import Rules, ToolWanted
from dialog.testing.persona import Answer, Persona
from dialog.testing.simulation import Simulation, load_simulations
from dialog.testing.talk import TalkLimits
from dialog.voip.twilio.gateway import TwilioGateway


class Desk(RuleAgent):
    end_call = end_call_tool()
    rules = (
        Rule(pattern="table for two", tool="book_table", arguments={"people": 2}, result="Your table is booked."),
        Rule(pattern="goodbye", reply="Goodbye.", tool="end_call"),
    )

    @tool
    async def book_table(self, people: int) -> str:
        """Book a table."""
        return f"booked for {people}"


class Rude(Desk):
    rules = (Rule(pattern="table", reply="Are you deaf? We are full."),)


def on_voip(voip, kind=Desk):
    kind(voip=voip, stt=ToldSTT, tts=HummingTTS, greeting="Hello, how can I help?").activate()


def rude(voip):
    on_voip(voip, Rude)


ADA = Persona(
    who="Ada",
    patience_s=20,
    goal="a table for two",
    answers=(
        Answer(hears="help", says="A table for two please."),
        Answer(hears="booked|full", says="Thank you and goodbye.", hangs_up=True),
    ),
)
RULES = Rules(tools=(ToolWanted(name="book_table", arguments={"people": 2}),), dead_air_s=None)
BY_TEXT = Simulation(name="by text", persona=ADA, rules=RULES, medium="text")
BY_VOICE = Simulation(name="by voice", persona=ADA, rules=RULES)
# How fast it is, others judge: here a busy machine must not fail a call.
UNHURRIED = Thresholds(latency_p95_ms=None, dead_air_s=None)
ONLY = {"scenarios": (), "speed": 2.0, "seed": 1, "thresholds": UNHURRIED}


async def test_customers_get_what_they_want_by_voice_and_by_text():
    result = await evaluate(on_voip, simulations=(BY_TEXT, BY_VOICE), **ONLY)
    assert result.passed, result.simulations
    text, voice = (each.runs[0] for each in result.simulations)
    for run in (text, voice):
        assert [(line.who, line.text) for line in run.lines] == [
            ("agent", "Hello, how can I help?"),
            ("caller", "A table for two please."),
            ("tool", "book_table(people=2) → booked for 2"),
            ("agent", "Your table is booked."),
            ("caller", "Thank you and goodbye."),
        ]
        assert (run.ended_by, run.caller_turns) == ("caller", 2)
    assert text.latencies_ms == ()
    assert len(voice.latencies_ms) == 1
    assert result.latency_p50_ms == voice.latencies_ms[0]
    assert result.dead_air_s == voice.dead_air_s > 0
    assert json.loads(result.to_json())["simulations"][1]["runs"][0]["lines"][2]["tool"]["arguments"] == {"people": 2}


async def test_a_call_that_is_handed_over_is_judged_to_its_end():
    class Reception(RuleAgent):
        rules = (Rule(pattern="table", tool="to_desk"),)

        @tool
        async def to_desk(self) -> Agent:
            """Hand over to the desk."""
            return Desk(voip=self.voip, stt=self.stt, tts=self.tts, greeting="The desk. How can I help?")

    gateway = TwilioGateway(account_sid="AC" + "1" * 32, auth_token="theirs")
    gateway.on("voip", lambda voip: on_voip(voip, Reception))
    twice = Persona(
        answers=(
            Answer(hears="help", says="A table for two please.", times=2),
            Answer(hears="booked", says="Thank you and goodbye.", hangs_up=True),
        ),
        patience_s=20,
    )
    both = [Simulation(name=medium, persona=twice, rules=RULES, medium=medium) for medium in ("text", "voice")]
    result = await evaluate(gateway, simulations=both, **ONLY)
    assert result.passed, result.simulations
    for each in result.simulations:
        assert "Reception hands over to Desk" in [line.text for line in each.runs[0].lines]


async def test_a_rude_agent_that_does_not_book_is_convicted():
    result = await evaluate(rude, simulations=(BY_TEXT,), **ONLY)
    assert not result.passed
    (each,) = result.simulations
    assert {charge.kind for charge in each.runs[0].charges} == {"rude", "goal"}
    suite = ET.fromstring(result.to_junit())
    case = suite.find("testcase")
    assert case is not None
    assert case.get("name") == "by text"
    assert "Are you deaf" in case.findtext("system-out")
    assert "rude" in case.find("failure").text or "rude" in case.find("failure").get("message")
    assert suite.get("failures") == "1"


async def test_several_runs_may_fail_now_and_then():
    calls = []

    def moody(voip):
        calls.append(voip)
        on_voip(voip, Rude if len(calls) == 1 else Desk)

    often = Simulation(name="often", persona=ADA, rules=RULES, medium="text", runs=4, pass_rate=0.75)
    result = await evaluate(moody, simulations=(often,), **ONLY)
    assert result.passed
    assert result.simulations[0].passes == 3
    calls.clear()
    strict = Simulation(name="strict", persona=ADA, rules=RULES, medium="text", runs=4)
    result = await evaluate(moody, simulations=(strict,), **ONLY)
    assert result.simulations[0].problems[0] == "3 of 4 runs passed: less than 100%"
    assert result.simulations[0].problems[1].startswith("run 1: ")


async def test_a_model_plays_the_customer_and_another_one_judges():
    def plays(fields):
        heard = fields["messages"][-1]["content"]
        if "booked" in heard:
            return ChatReply(text="Lovely, goodbye.", tools=[ToolUse("end_call")])
        return "Hello, I would like a table for two tonight."

    def judges(holds):
        verdicts = [{"criterion": 1, "holds": holds, "reason": "It is short.", "lines": [0]}]
        return lambda: ScriptedLLM([ToolUse("give_verdict", {"verdicts": verdicts})])

    by_model = Simulation(
        name="by model",
        persona=Persona(who="Ada Byron", goal="a table for two", facts={"name": "Byron"}),
        rules=RULES,
        criteria=("The agent greets at length.",),
        medium="text",
    )
    async with OpenAIEmulator(plays) as emulator:
        made = {"customer_llm": lambda: OpenAILLM(api_key=emulator.api_key, base_url=emulator.base_url)}
        good = await evaluate(on_voip, simulations=(by_model,), judges=[judges(True)], **made, **ONLY)
        bad = await evaluate(on_voip, simulations=(by_model,), judges=[judges(False)], **made, **ONLY)
    assert good.passed, good.simulations
    assert [line.text for line in good.simulations[0].runs[0].lines if line.who == "caller"] == [
        "Hello, I would like a table for two tonight.",
        "Lovely, goodbye.",
    ]
    prompt = emulator.exchanges[0].messages[0]["content"]
    assert "Ada Byron" in prompt
    assert "name: Byron" in prompt
    assert [str(charge) for charge in bad.simulations[0].runs[0].charges] == [
        "criterion: The agent greets at length. (It is short.)"
    ]


async def test_with_the_agents_own_speech_the_customer_has_ears_and_a_voice_as_well():
    def spelling(voip):
        Desk(voip=voip, stt=ReadingSTT, tts=SpellingTTS, greeting="Hello, how can I help?").activate()

    result = await evaluate(
        spelling, simulations=(BY_VOICE,), own_speech=True, customer_stt=ReadingSTT, customer_tts=SpellingTTS, **ONLY
    )
    assert result.passed, result.simulations


async def test_an_agent_without_an_end_is_ended():
    endless = Persona(answers=(Answer(says="Tell me more.", times=1000),))
    limits = TalkLimits(max_turns=3)
    result = await evaluate(
        on_voip,
        simulations=(
            Simulation(name="voice", persona=endless, limits=limits),
            Simulation(name="text", persona=endless, limits=limits, medium="text"),
        ),
        **ONLY,
    )
    for each in result.simulations:
        assert each.runs[0].ended_by == "limit"
        assert "endless" in {charge.kind for charge in each.runs[0].charges}


async def test_what_cannot_be_played_is_refused_before_any_call():
    calls = []
    criteria = Simulation(name="criteria", persona=ADA, criteria=("The agent is kind.",))
    nobody = Simulation(name="nobody", persona=Persona(goal="a table"))
    for simulation, match, options in (
        (criteria, "name a model that judges", {}),
        (nobody, "'nobody': nobody can play", {}),
        (BY_VOICE, "needs an STT and a TTS", {"own_speech": True}),
    ):
        with pytest.raises(ConfigurationError, match=match):
            await evaluate(calls.append, simulations=(BY_TEXT, simulation), scenarios=(), **options)
    env = {"TWILIO_AUTH_TOKEN": "t"}

    def application():
        own = TwilioGateway(account_sid="AC" + "1" * 32, auth_token="t", path="/phone")
        own.on("voip", on_voip)
        host = web.Application()
        own.add_routes(host)
        return host

    with pytest.raises(ConfigurationError, match="no application"):
        await evaluate(application, simulations=(BY_TEXT,), scenarios=(), env=env)
    assert calls == []


async def test_an_agent_that_cannot_be_made_is_told_with_the_reason():
    def raises(voip):
        raise KeyError("OPENAI_API_KEY")

    with pytest.raises(ConfigurationError, match=r"on_voip raised KeyError\('OPENAI_API_KEY'\)"):
        await evaluate(raises, simulations=(BY_VOICE,), **ONLY)


FILE = """
[[simulation]]
name = "a table"
guards = "a table is booked"
medium = "text"
persona = {who = "Ada, in a hurry", goal = "a table for two", facts = {name = "Byron"}, answers = [
    {hears = "help", says = "A table for two please."},
    {hears = "booked|full", says = "Goodbye.", hangs_up = true},
]}
rules = {tools = [{name = "book_table", arguments = {people = 2}}], secrets = ["4711"], ends = "caller"}
limits = {max_turns = 6}
"""
AGENT = """
from dialog.llm.rules import Rule
from dialog.presets import RuleAgent
from dialog.agent.tools import tool
from dialog.testing import HummingTTS, ToldSTT

class Desk(RuleAgent):
    rules = (Rule(pattern="table for", tool="book_table", arguments={"people": PEOPLE}, result="It is booked."),)

    @tool
    async def book_table(self, people: int) -> str:
        '''Book a table.'''
        return "ok"

def on_voip(voip):
    Desk(voip=voip, stt=ToldSTT, tts=HummingTTS, greeting="How can I help?").activate()
"""


def test_simulations_are_read_from_files(tmp_path: Path):
    file = tmp_path / "s.toml"
    file.write_text(FILE + '\n[[scenario]]\nname = "x"\nsteps = []\n')
    (scenario,), (simulation,) = load_simulations(file)
    assert scenario.name == "x"
    assert simulation.persona.facts == {"name": "Byron"}
    assert simulation.rules.tools == (ToolWanted(name="book_table", arguments={"people": 2}),)
    assert simulation.limits == TalkLimits(max_turns=6)
    file = tmp_path / "s.json"
    persona = {"answers": [{"says": "hello"}]}
    file.write_text(json.dumps({"simulation": [{"name": "n", "persona": persona, "rules": {"ends": "agent"}}]}))
    _, (simulation,) = load_simulations(file)
    assert simulation.rules.ends == "agent"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "neither a"),
        ('[[simulation]]\nname = "x"\npersona = {}', "goal"),
        ('[[simulation]]\nname = "x"\npersona = {goal = "g"}\nrules = {says = ["("]}', "no regular expression"),
        ('[[simulation]]\nname = "x"\npersona = {goal = "g"}\nruns = 0', "runs"),
        ('[[simulation]]\nname = "x"\npersona = {goal = "g"}\npass_rate = 2', "pass_rate"),
        ('[[simulation]]\nname = "x"\npersona = {goal = "g"}\ncriteria = ["c", "c"]', "comes twice"),
        ('[[simulation]]\nname = "x"\npersona = {goal = "g", mood = "bad"}', "mood"),
        ('[[simulation]]\nname = "x"\npersona = {goal = "g"}\n[[scenario]]\nname = "x"\nsteps = []', "more than one"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(tmp_path: Path, text: str, message: str):
    (tmp_path / "s.toml").write_text(text)
    with pytest.raises(ConfigurationError, match=message):
        load_simulations(tmp_path / "s.toml")


def command(tmp_path: Path, *options: str) -> tuple[int, str]:
    from typer.testing import CliRunner

    files = [
        "--json",
        str(tmp_path / "r.json"),
        "--junit",
        str(tmp_path / "r.xml"),
        "--env-file",
        str(tmp_path / ".env"),
    ]
    arguments = ["evaluate", f"{tmp_path / 'made.py'}:on_voip", "--scenarios", str(tmp_path / "s.toml"), *files]
    result = CliRunner().invoke(app, [*arguments, "--seed", "9", *options])
    return result.exit_code, result.output


@pytest.mark.parametrize(("people", "status"), [("2", 0), ("3", 1)])
def test_the_command_plays_a_file_writes_its_results_and_exits_by_the_verdict(tmp_path: Path, people: str, status: int):
    (tmp_path / "made.py").write_text(AGENT.replace("PEOPLE", people))
    (tmp_path / "s.toml").write_text(FILE)
    code, output = command(tmp_path)
    assert code == status, output
    assert "1 calls to" in output
    assert "a table" in output
    assert ("A table for two please." in output) == bool(status), "the talk is shown when it has failed"
    report = json.loads((tmp_path / "r.json").read_bytes())
    assert report["passed"] == (not status)
    assert report["simulations"][0]["name"] == "a table"
    assert report["scenarios"] == []
    suite = ET.fromstring((tmp_path / "r.xml").read_bytes())
    assert [case.get("name") for case in suite.findall("testcase")] == ["a table", "thresholds"]
    assert bool(int(suite.get("failures"))) == bool(status)


def test_the_command_says_which_model_it_cannot_make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    (tmp_path / "made.py").write_text(AGENT.replace("PEOPLE", "2"))
    (tmp_path / "s.toml").write_text(FILE)
    code, output = command(tmp_path, "--customer", "openai/gpt-4.1")
    assert code != 0
    assert "OPENAI_API_KEY" in output
    code, output = command(tmp_path, "--judge", "nobody")
    assert code != 0
    assert "nobody" in output


@pytest.mark.parametrize("own_names", [False, True])
async def test_the_command_takes_models_from_the_environment(tmp_path: Path, own_names: bool):
    from rich.console import Console

    from dialog.cli.evaluate import EvaluatePlan, run_evaluate

    def plays(fields):
        if fields["model"] == "judge-1":
            verdict = {"criterion": 1, "holds": True, "reason": "Yes.", "lines": []}
            return ChatReply(tools=[ToolUse("give_verdict", {"verdicts": [verdict]})])
        booked = "booked" in fields["messages"][-1]["content"]
        return ChatReply(text="Goodbye.", tools=[ToolUse("end_call")]) if booked else "A table for two, please."

    (tmp_path / "made.py").write_text(AGENT.replace("PEOPLE", "2"))
    (tmp_path / "s.toml").write_text(FILE + 'criteria = ["The agent books."]\n')
    async with OpenAIEmulator(plays) as emulator:
        (tmp_path / ".env").write_text(f"OPENAI_API_KEY={emulator.api_key}\nOPENAI_BASE_URL={emulator.base_url}\n")
        plan = EvaluatePlan(
            target=f"{tmp_path / 'made.py'}:on_voip",
            scenarios=str(tmp_path / "s.toml"),
            customer="openai/customer-1" if own_names else "openai",
            judges=("openai/judge-1",),
            env_file=tmp_path / ".env",
        )
        with (tmp_path / "out.txt").open("w") as out:
            assert await run_evaluate(Console(file=out), plan) == 0, (tmp_path / "out.txt").read_text()
    models = {exchange.fields["model"] for exchange in emulator.exchanges}
    assert models == {"judge-1", "customer-1" if own_names else "gpt-4.1-mini"}


PAGE = Path(__file__).parents[2] / "docs" / "simulation.md"


def test_the_simulation_of_the_documentation_is_one(tmp_path: Path):
    (block,) = [block for block in PAGE.read_text().split("```") if block.startswith("text\n[[simulation]]")]
    file = tmp_path / "s.toml"
    file.write_text(block.removeprefix("text"))
    _, (simulation,) = load_simulations(file)
    assert simulation.rules.claims[0].tool == "book_table"
    assert (simulation.runs, simulation.pass_rate) == (3, 0.66)


async def test_the_page_of_the_documentation_does_what_it_says():
    blocks = [block for block in PAGE.read_text().split("```") if block.startswith("python\n")]
    names = {}
    for block in blocks:
        exec(compile(block.removeprefix("python"), "simulation.md", "exec"), names)
    talk = await asyncio.to_thread(
        names["run_virtual"],
        lambda clock: names["join_agents"](names["front_desk"], names["customer"](names["ada"]), clock=clock),
    )
    assert f"```text\n{talk.transcript}\n```" in PAGE.read_text()
    await asyncio.to_thread(names["test_ada_gets_her_table"])
    assert await names["charges_of"](talk) == [
        "criterion: The agent asks for the name before it books. (It books without asking for a name.)"
    ]
    await names["test_the_front_desk"]()

"""Planted bad agents are convicted, each for what is wrong with it; a good one passes."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from aiohttp import web

from dialog.agent.agent import Agent
from dialog.agent.settings import AgentSettings
from dialog.agent.turns.settings import BargeIn, TurnSettings
from dialog.calls.events import CallerSpoke
from dialog.cli.app import app
from dialog.errors import ConfigurationError
from dialog.testing import HummingTTS, ToldSTT
from dialog.testing.evaluate import EVALUATION, Evaluation, Thresholds, evaluate
from dialog.testing.evaluate_talks import together
from dialog.testing.scenario import At, Expect, Fault, HangUp, Listen, Noise, Say, Scenario, load_scenarios
from dialog.voip.twilio.gateway import TwilioGateway

MENU = "I can book a table for you, tell you the hours, or put you through to the kitchen, whatever you like best."


class Good(Agent):
    async def inference(self, message):
        if "goodbye" not in message.data:
            yield MENU
            return
        self.dispatch_message("Goodbye, and thank you for calling.")
        self.spawn(self.leave(), "leave")

    async def leave(self):
        await self.voip.clock.sleep(3.5)
        await self.voip.hangup()


class Slow(Good):
    async def inference(self, message):
        await self.voip.clock.sleep(4.5)
        yield MENU


class Mute(Good):
    """Hears nothing that it would answer."""

    async def inference(self, message):
        for text in ():
            yield text


class Eager(Good):
    """Talks as soon as the caller does."""

    def __init__(self, **options):
        super().__init__(**options)
        self.on(Agent.EVENT, self.jump_in)

    def jump_in(self, event):
        if isinstance(event, CallerSpoke) and event.state == "started":
            self.dispatch_message("Yes, yes, I hear you very well, do go on, I am listening.", allow_interrupt=False)


class Endless(Good):
    async def inference(self, message):
        while True:
            yield "And another thing that I could do for you is this. "
            await self.voip.clock.sleep(0.5)


class Clinging(Good):
    """Never ends a call."""

    async def leave(self):
        return


def made(kind, **options):
    def on_voip(voip):
        kind(voip=voip, stt=ToldSTT, tts=HummingTTS, greeting="Hello.", **options).activate()

    return on_voip


def only(*names: str) -> tuple[Scenario, ...]:
    found = tuple(scenario for scenario in EVALUATION if scenario.name in names)
    assert len(found) == len(names)
    return found


DEAF = AgentSettings(turns=TurnSettings(barge_in=BargeIn(mode="disabled")))
PLANTED = {
    "good": (made(Good), EVALUATION),
    "slow": (made(Slow), only("two questions")),
    "deaf": (made(Good, settings=DEAF), only("interruption")),
    "mute": (made(Mute), only("two questions", "pause in mid-sentence")),
    "eager": (made(Eager), only("two questions", "long utterance")),
    "endless": (made(Endless), only("pause in mid-sentence")),
    "clinging": (made(Clinging), only("goodbye")),
}


@pytest.fixture(scope="module")
def verdicts() -> dict[str, Evaluation]:
    """Of all planted agents, evaluated at the same time."""

    async def judge() -> list[Evaluation]:
        work = (evaluate(agent, scenarios=what, seed=5, speed=2.0, parallel=8) for agent, what in PLANTED.values())
        return await asyncio.gather(*work)

    return dict(zip(PLANTED, asyncio.run(judge()), strict=True))


def failed(result: Evaluation) -> set[str]:
    return {one.name for one in result.scenarios if not one.passed}


def test_a_good_agent_passes_every_scenario(verdicts):
    result = verdicts["good"]
    assert result.passed, (result.problems, [(one.name, one.problems) for one in result.scenarios])
    assert result.answered == result.asked == 8
    assert result.obeyed == result.interruptions == 3
    assert result.latency_p50_ms < 1500
    assert all(MENU[:5] in one.transcript for one in result.scenarios if one.name != "goodbye")


def test_a_slow_agent_is_convicted_of_its_latency(verdicts):
    result = verdicts["slow"]
    assert not result.passed
    assert result.answered == result.asked
    assert any("latency p95" in problem for problem in result.problems)
    assert any("dead air" in problem for problem in result.problems)


def test_an_agent_that_is_deaf_to_interruptions_is_convicted(verdicts):
    result = verdicts["deaf"]
    assert failed(result) == {"interruption"}
    assert (result.obeyed, result.interruptions) == (0, 1)
    assert any("interruptions obeyed" in problem for problem in result.problems)


def test_an_agent_that_answers_nothing_is_convicted(verdicts):
    result = verdicts["mute"]
    assert failed(result) == {"two questions", "pause in mid-sentence"}
    assert result.answered == 0
    assert any("answered" in problem for problem in result.problems)


def test_an_agent_that_talks_over_the_caller_is_convicted(verdicts):
    result = verdicts["eager"]
    assert failed(result) == {"two questions", "long utterance"}
    for one in result.scenarios:
        assert any("spoke into the caller's words" in problem for problem in one.problems)


def test_an_agent_that_never_ends_its_speech_is_convicted(verdicts):
    result = verdicts["endless"]
    assert failed(result) == {"pause in mid-sentence"}
    assert any("to speak and be silent again" in problem for problem in result.scenarios[0].problems)


def test_an_agent_that_never_ends_the_call_is_convicted(verdicts):
    result = verdicts["clinging"]
    assert failed(result) == {"goodbye"}
    assert any("the call to end" in problem for problem in result.scenarios[0].problems)


async def front_page(_):
    return web.Response(text="a host of its own")


QUICK = (Scenario(name="hello", steps=(Say(text="hello"), Listen(), HangUp()), expect=Expect(errors=None)),)


async def test_a_gateway_a_factory_and_an_application_are_as_good_as_a_function():
    gateway = TwilioGateway(account_sid="AC" + "1" * 32, auth_token="theirs")
    gateway.on("voip", made(Good))

    async def factory():
        return gateway

    def application():
        own = TwilioGateway(account_sid="AC" + "1" * 32, auth_token="theirs", path="/phone")
        own.on("voip", made(Good))
        host = web.Application()
        host.router.add_get("/", front_page)
        own.add_routes(host)
        return host

    env = {"TWILIO_AUTH_TOKEN": "theirs", "TWILIO_ACCOUNT_SID": "AC" + "1" * 32}
    targets = ((gateway, 4.0), (factory, 4.0), (application, 1.0))
    results = await asyncio.gather(
        *(evaluate(target, scenarios=QUICK, seed=1, speed=speed, env=env) for target, speed in targets)
    )
    assert [result.answered for result in results] == [1, 1, 1]
    assert [result.scenarios[0].transcript for result in results] == [MENU] * 3


async def test_what_takes_no_calls_is_refused():
    with pytest.raises(ConfigurationError, match="takes no calls"):
        await evaluate(lambda: 42, scenarios=QUICK)
    with pytest.raises(ConfigurationError, match="has no gateway"):
        await evaluate(web.Application, scenarios=QUICK, env={"TWILIO_AUTH_TOKEN": "t"})
    with pytest.raises(ConfigurationError, match="no agent"):
        await evaluate(lambda voip: None, scenarios=QUICK, speed=10.0)


async def test_an_agent_that_cannot_be_made_is_told_with_the_reason():
    def on_voip(voip):
        raise KeyError("OPENAI_API_KEY")

    with pytest.raises(ConfigurationError, match=r"on_voip raised KeyError\('OPENAI_API_KEY'\)"):
        await evaluate(on_voip, scenarios=QUICK, speed=10.0)


async def test_a_fault_of_the_users_own_model_cannot_be_played():
    scenario = Scenario(name="fault", steps=(Fault(provider="openai", refuse=500), HangUp()))
    with pytest.raises(ConfigurationError, match="not emulated"):
        await evaluate(made(Good), scenarios=(scenario,), speed=4.0)


async def test_calls_of_an_evaluation_that_is_broken_off_are_told_once_to_end():
    hung_up = []
    talks = asyncio.Event()

    async def waits_for_its_turn():
        await asyncio.Event().wait()

    async def call():
        try:
            talks.set()
            await asyncio.Event().wait()
        finally:
            for _ in range(5):  # what hanging up takes
                await asyncio.sleep(0)
            hung_up.append(True)

    running = asyncio.create_task(together([waits_for_its_turn(), call()]))
    await talks.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert hung_up == [True]


async def test_thresholds_may_be_tightened():
    result = await evaluate(made(Good), scenarios=QUICK, seed=1, speed=4.0, thresholds=Thresholds(latency_p50_ms=1.0))
    assert not result.passed
    assert "latency p50" in result.problems[0]
    assert result.scenarios[0].passed


AGENT = """
from dialog.agent.agent import Agent
from dialog.testing import HummingTTS, ToldSTT

class Agent(Agent):
    async def inference(self, message):
        await self.voip.clock.sleep(DELAY)
        yield "Hello to you, too."

def on_voip(voip):
    Agent(voip=voip, stt=ToldSTT, tts=HummingTTS).activate()
"""

SCENARIOS = """
[[scenario]]
name = "hello & goodbye"
guards = "an answer"
steps = [
    {do = "say", text = "hello [0.1] there"},
    {do = "listen", timeout_s = 10},
    {do = "hangup"},
]
expect = {heard = ["hello to you"], latency_ms = 3000, dead_air_s = 3.0}
"""


def command(tmp_path, *options: str) -> tuple[int, str]:
    from typer.testing import CliRunner

    target = f"{tmp_path / 'made.py'}:on_voip"
    files = ["--json", str(tmp_path / "out" / "r.json"), "--junit", str(tmp_path / "out" / "r.xml")]
    arguments = ["evaluate", target, "--scenarios", str(tmp_path / "s.toml"), "--speed", "4", "--seed", "9", *files]
    result = CliRunner().invoke(app, [*arguments, *options])
    return result.exit_code, result.output


@pytest.mark.parametrize(
    ("delay", "options", "status"), [("0.0", (), 0), ("4.0", (), 1), ("0.0", ("--max-latency-p50-ms", "1"), 1)]
)
def test_the_command_shows_a_table_writes_its_files_and_exits_by_the_verdict(tmp_path, delay, options, status):
    (tmp_path / "made.py").write_text(AGENT.replace("DELAY", delay))
    (tmp_path / "s.toml").write_text(SCENARIOS)
    code, output = command(tmp_path, *options)
    assert code == status, output
    assert "hello & goodbye" in output
    assert "seed 9" in output
    assert "1/1 hello & goodbye\n" in output
    report = json.loads((tmp_path / "out" / "r.json").read_bytes())
    assert (report["seed"], report["passed"]) == (9, not status)
    suite = ET.fromstring((tmp_path / "out" / "r.xml").read_bytes())
    assert [case.get("name") for case in suite.findall("testcase")] == ["hello & goodbye", "thresholds"]
    assert bool(int(suite.get("failures"))) == bool(status)
    assert (suite.find(".//failure") is not None) == bool(status)


def test_scenarios_are_read_from_toml_and_json(tmp_path):
    toml = tmp_path / "a.toml"
    toml.write_text(SCENARIOS)
    (scenario,) = load_scenarios(toml)
    assert scenario.steps[0] == Say(text="hello [0.1] there")
    assert scenario.expect.heard == ("hello to you",)
    file = tmp_path / "a.json"
    noise = {"do": "noise", "ms": [100, 300], "at": {"reply_ms": 500}}
    file.write_text(json.dumps({"scenario": [{"name": "n", "steps": [noise]}]}))
    (scenario,) = load_scenarios(file)
    assert scenario.steps == (Noise(ms=(100.0, 300.0), at=At(reply_ms=500.0)),)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.yaml", "", "toml"),
        ("a.toml", "scenario = 3", "Expected"),
        ("a.toml", '[[scenario]]\nname = "x"\nsteps = [{do = "shout"}]', "shout"),
        ("a.toml", '[[scenario]]\nname = "x"\nsteps = []\nexpect = {heard = ["("]}', "no pattern"),
        ("a.toml", '[[scenario]]\nname = "x"\nsteps = []\n[[scenario]]\nname = "x"\nsteps = []', "more than one"),
        ("a.json", "{", "a.json"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(ConfigurationError, match=message):
        load_scenarios(tmp_path / name)
    with pytest.raises(ConfigurationError, match="cannot be read"):
        load_scenarios(tmp_path / f"no-{name}".replace("yaml", "toml"))


def test_the_scenario_of_the_documentation_is_one(tmp_path):
    page = (Path(__file__).parents[2] / "docs" / "evaluate.md").read_text()
    blocks = [block for block in page.split("```") if "[[scenario]]" in block]
    assert len(blocks) == 1
    file = tmp_path / "s.toml"
    file.write_text(blocks[0].removeprefix("text"))
    (scenario,) = load_scenarios(file)
    assert scenario.steps[0] == Listen(optional=True, timeout_s=5.0)
    assert scenario.expect.tools == ("book_table",)

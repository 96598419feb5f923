"""The Python of the README and the documentation runs, and does what the page says that it does."""

from __future__ import annotations

import asyncio
import inspect
import os
import re
import socket
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

import dialog
from dialog import AgentSettings, TwilioGateway
from dialog.audio.g711 import mulaw_encode
from dialog.audio.tones import sine
from dialog.calls.events import AgentSaid
from dialog.net.listening import unlisten
from dialog.testing.caller import Caller
from dialog.testing.cartesia import CartesiaEmulator
from dialog.testing.deepgram import DeepgramEmulator
from dialog.testing.doubles import ToldSTT
from dialog.testing.openai import ChatReply, OpenAIEmulator, ToolUse
from dialog.testing.twilio_rest import TwilioRestEmulator
from dialog.testing.virtual import run_virtual
from dialog.voip.memory import memory_call

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)
WITH_CODE = [page for page in PAGES if BLOCK.search(page.read_text())]
TOKEN = "auth-token-of-the-test"
SPEECH = mulaw_encode(sine(300, 600))


def blocks(page: Path) -> list[str]:
    return BLOCK.findall(page.read_text())


def run(page: str) -> dict[str, Any]:
    """All blocks of a page one after another, as a reader would paste them; the names that they leave."""
    names: dict[str, Any] = {"__name__": "page"}
    for number, source in enumerate(blocks(ROOT / page), 1):
        # Without this module's own __future__: annotations of a page are looked up as where they are pasted.
        exec(compile(source, f"{page}, block {number}", "exec", dont_inherit=True), names)
    return names


@pytest.mark.parametrize("page", WITH_CODE, ids=lambda page: page.stem)
def test_every_block_runs(page: Path) -> None:
    names = run(str(page.relative_to(ROOT)))
    made = [
        value for value in names.values() if getattr(value, "__module__", "") == "page" or isinstance(value, dialog.STT)
    ]
    assert made


def test_no_block_hides_from_these_tests() -> None:
    for page in PAGES:
        fences = re.findall(r"^ *(?:```|~~~|:::)(.*)$", page.read_text(), re.MULTILINE)
        assert set(fences) <= {"", "python", "javascript", "sh", "text", "{eval-rst}", "{toctree}", "{warning}"}, (
            page.name
        )


class House:
    """The providers and the carrier of a page's agent, emulated; they take the places of the real ones."""

    def __init__(self, names: dict[str, Any], *, sentences=("hello there",), replies=("Fine.",)) -> None:
        self.names = names
        self.deepgram = DeepgramEmulator(sentences=list(sentences))
        self.openai = OpenAIEmulator(list(replies))
        self.cartesia = CartesiaEmulator(ms_per_char=20)
        self.twilio = TwilioRestEmulator(auth_token=TOKEN)
        self.url = ""

    def emulated(self, name: str, provider: Any, base_url: str):
        def make(*arguments: Any, **options: Any) -> Any:
            return getattr(dialog, name)(*arguments, **{**options, "api_key": provider.api_key, "base_url": base_url})

        return make

    @asynccontextmanager
    async def serving(self, gateway: TwilioGateway | None = None):
        with socket.create_server(("127.0.0.1", 0)) as sock:
            self.url = f"http://127.0.0.1:{sock.getsockname()[1]}/twilio"
            async with self.deepgram, self.openai, self.cartesia, self.twilio:
                self.names["DeepgramSTT"] = self.emulated("DeepgramSTT", self.deepgram, self.deepgram.url)
                self.names["CartesiaTTS"] = self.emulated("CartesiaTTS", self.cartesia, self.cartesia.url)
                self.names["TwilioOpenAIAgent"] = self.emulated("TwilioOpenAIAgent", self.openai, self.openai.base_url)
                gateway = gateway or self.gateway()
                runner = web.AppRunner(gateway.app())
                await runner.setup()
                await web.SockSite(runner, sock).start()
                try:
                    yield self
                    async with asyncio.timeout(20):
                        await asyncio.gather(*(call.wait_closed() for call in gateway.calls))
                finally:
                    await unlisten(runner)

    def gateway(self) -> TwilioGateway:
        gateway = TwilioGateway(
            account_sid=self.twilio.account_sid, auth_token=TOKEN, webhook_url=self.url, base_url=self.twilio.url
        )
        gateway.on("voip", self.names["on_voip"])
        return gateway

    @property
    def spoken(self) -> list[str]:
        return [text.strip() for text in self.cartesia.texts.values()]

    def on_voip(self, agent: Any, **options: Any) -> None:
        """Let ``agent``, a class of the page's, take the calls."""

        def on_voip(voip: Any) -> None:
            agent(
                voip=voip,
                stt=self.names["DeepgramSTT"](),
                tts=self.names["CartesiaTTS"](),
                api_key=self.openai.api_key,
                base_url=self.openai.base_url,
                **options,
            ).activate()

        self.names["on_voip"] = on_voip

    def dial(self, **options: Any):
        call = self.twilio.add_call()
        settings = {"auth_token": TOKEN, "account_sid": self.twilio.account_sid, "call_sid": call.sid}
        return Caller.dial(self.url, **{**settings, **options})


async def test_the_agent_of_the_readme_answers_the_phone() -> None:
    names = run("README.md")
    house = House(names)
    async with house.serving(names["gateway"]):
        public = "https://voice.example/twilio"
        async with house.dial(auth_token="…", account_sid="AC…", public_url=public) as caller:
            await caller.listen()
            await caller.say(SPEECH)
            await caller.listen()
            await caller.hang_up()
    assert house.spoken == ["Hello!", "You said: hello there"]


async def test_the_conversation_of_the_readme_is_held() -> None:
    names = run("README.md")
    await names["test_a_table_is_booked"]()


@pytest.mark.parametrize("page", ["README.md", "docs/first-agent.md"])
async def test_the_tool_of_the_page_is_called_by_the_model(page: str) -> None:
    names = run(page)
    wanted = ChatReply(tools=[ToolUse("book_table", {"people": 4, "time": "19:30"})])
    house = House(names, replies=(wanted, "See you then."))
    house.on_voip(names["FrontDesk"])
    async with house.serving(), house.dial() as caller:
        await caller.say(SPEECH)
        await caller.listen()
        await caller.hang_up()
    _, second = house.openai.exchanges
    assert second.messages[-1]["role"] == "tool"
    assert second.messages[-1]["content"] == "booked for 4 at 19:30"


async def test_the_careful_agent_lets_its_notice_be_heard_out_first() -> None:
    names = run("docs/first-agent.md")
    house = House(names, replies=("Go on.",))
    house.on_voip(names["Careful"])
    async with house.serving(), house.dial() as caller:
        await caller.say(SPEECH)
        await caller.listen(silence_ms=1500)
        await caller.hang_up()
    assert house.spoken == ["This call is recorded.", "Go on."]


async def test_the_first_agent_chats(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text("\n\n".join(blocks(ROOT / "docs" / "first-agent.md")[:2]))
    chat = await asyncio.create_subprocess_exec(
        *[sys.executable, "-m", "dialog", "chat", "main.py:on_voip"],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(30):
        out, _ = await chat.communicate(b"good morning\n")
    assert chat.returncode == 0
    assert "agent Hello!" in out.decode()
    assert "agent You said: good morning" in out.decode()


async def test_the_recording_of_the_twilio_page_is_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    house = House(run("docs/twilio.md"))
    async with house.serving():
        async with house.dial() as caller:
            await caller.say(SPEECH)
            await caller.listen()
            async with asyncio.timeout(10):
                while not (house.twilio.recordings and house.twilio.transcriptions):
                    await caller.clock.sleep(0.02)
            await caller.hang_up()
        house.twilio.end_call(caller.call_sid)
    (recording,) = (tmp_path / "recordings").iterdir()
    assert recording.read_bytes() == house.twilio.recording_wav


async def test_the_tests_of_the_testing_page_pass() -> None:
    names = run("docs/testing.md")
    tests = {name: value for name, value in names.items() if name.startswith("test_")}
    assert len(tests) == 6
    house = House({}, sentences=("what are your opening hours on sunday",), replies=("From ten to four.",))
    house.on_voip(dialog.OpenAIAgent, greeting="Good evening!", settings=AgentSettings())
    async with house.serving():
        # The page's token is "secret": so is the one of a gateway that is dialled by it.
        names["Caller"] = type("Dialler", (), {"dial": staticmethod(lambda url, auth_token: house.dial())})
        for test in tests.values():
            if inspect.iscoroutinefunction(test):
                await (test(house.url) if "gateway_url" in inspect.signature(test).parameters else test())
            else:
                await asyncio.to_thread(test)


def test_the_model_and_the_voice_of_the_provider_page_hold_a_call() -> None:
    names = run("docs/adding-a-provider.md")
    stt = ToldSTT()
    events: list[Any] = []

    def on_voip(voip: dialog.VoIP) -> None:
        agent = dialog.Agent(voip=voip, stt=stt, tts=names["Beep"](), llm=names["Parrot"]())
        agent.on(dialog.Agent.EVENT, events.append)
        agent.activate()

    async def scenario(clock: dialog.Clock) -> None:
        call, line = memory_call(on_voip, clock=clock)
        stt.heard("one two three")
        await clock.sleep(5)
        line.hang_up()
        await call.wait_closed()

    run_virtual(scenario)
    (said,) = [event for event in events if isinstance(event, AgentSaid)]
    assert said.heard.strip() == "one two three"
    assert said.state == "played"
    assert said.heard_ms == pytest.approx(40 * len("one two three"), abs=80)

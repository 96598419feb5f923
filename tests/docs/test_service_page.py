"""The services of the page about services can be served."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from aiohttp import web
from starlette.testclient import TestClient

from dialog import AgentConfig, CallMetadata, Service, ServiceConfig, SessionRequest, SessionSpec
from dialog.testing import HummingTTS, ScriptedLLM, ToldSTT
from dialog.voip.admission import Reject, Say

ROOT = Path(__file__).parents[2]
ENV = dict.fromkeys(("DEEPGRAM_API_KEY", "OPENAI_API_KEY", "CARTESIA_API_KEY"), "key") | {
    "TWILIO_ACCOUNT_SID": "AC" + "0" * 32,
    "TWILIO_AUTH_TOKEN": "token",
}


@pytest.fixture
def page() -> dict[str, Any]:
    names: dict[str, Any] = {"__name__": "app"}
    for number, source in enumerate(re.findall(r"^```python\n(.*?)^```$", text(), re.DOTALL | re.MULTILINE), 1):
        exec(compile(source, f"service.md, block {number}", "exec"), names)
    return names


def text() -> str:
    return (ROOT / "docs" / "service.md").read_text()


def desk() -> AgentConfig:
    return AgentConfig(stt=ToldSTT, tts=HummingTTS, llm=lambda: ScriptedLLM([]))


def test_the_first_service_is_one_that_the_command_beneath_it_serves(page, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, value in ENV.items():
        monkeypatch.setenv(name, value)
    config = page["config"]()
    assert isinstance(config, ServiceConfig)
    assert config.assistants["desk"].greeting == "Good evening!"
    first = text().split("```python\n")[1].split("```")[0]
    code = [line for line in first.splitlines() if line.strip() and not line.startswith("#")]
    assert len(code) <= 10


def test_the_agent_in_one_value_has_its_tool(page) -> None:
    agent = page["front_desk"](ENV)
    assert [tool.options.name for tool in agent.tools] == ["book_table"]


async def test_the_resolver_decides_as_the_page_says(page) -> None:
    async def ask(caller: str):
        wanted = SessionSpec(context={"from": caller})
        return await page["resolve"](SessionRequest(source="phone", call=CallMetadata(call_id=uuid4()), wanted=wanted))

    assert await ask("+15551239999") == Reject("busy")
    assert isinstance(await ask(""), Say)
    assert (await ask("+15550000000")).context == {"customer": 17}


def test_numbers_and_tenants_make_a_service(page) -> None:
    config = page["service"]({"desk": desk()}, ENV["TWILIO_ACCOUNT_SID"], "token")
    assert config.numbers["luigi-main"].tenant == "luigi"


async def test_it_is_served_inside_the_hosts_applications(page) -> None:
    config = page["service"]({"desk": desk()}, ENV["TWILIO_ACCOUNT_SID"], "token")
    app = web.Application()
    service = page["in_aiohttp"](config, app)
    assert isinstance(service, Service)
    assert "/call/start" not in {resource.canonical for resource in app.router.resources()}, "there are no tokens"
    assert "/twilio/voice" in {resource.canonical for resource in app.router.resources()}


def test_it_is_served_inside_starlette(page) -> None:
    config = page["service"]({"desk": desk()}, ENV["TWILIO_ACCOUNT_SID"], "token")
    with TestClient(page["in_starlette"](config)) as client:
        assert client.get("/voice/health").json() == {"status": "ok"}


def test_every_setting_of_a_service_is_on_the_page() -> None:
    rows = "".join(line for line in text().splitlines() if line.startswith("| `"))
    named = set(re.findall(r"`(\w+)`", rows))
    assert set(ServiceConfig.__struct_fields__) <= named

"""What is taken from the environment, and the table that says so."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from openai import AsyncOpenAI

import dialog
from dialog import create_agent, create_gateway, create_llm, create_sms, create_stt, create_tts
from dialog.cli import doctor
from dialog.errors import ConfigurationError
from dialog.providers import variables
from dialog.providers.builtin import BUILTIN
from dialog.providers.registry import find_class
from dialog.providers.variables import (
    VARIABLES,
    Variable,
    configured,
    fault,
    options_from,
    parameters_of,
    value_of,
    variable,
)
from dialog.testing.doubles import HummingTTS, ToldSTT
from dialog.voip.memory import memory_call

ROOT = Path(__file__).parents[2]
SID = "AC" + "0" * 32


@pytest.fixture(autouse=True)
def empty(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """No variable is set, and there is no .env file."""
    for each in VARIABLES:
        for name in (each.name, *each.aliases):
            monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_names_and_aliases_are_unique() -> None:
    names = [name for each in VARIABLES for name in (each.name, *each.aliases)]
    assert len(names) == len(set(names))
    assert all(variable(name) in VARIABLES for name in names)


def test_every_target_is_an_argument_of_a_provider() -> None:
    for each in VARIABLES:
        for target in each.configures:
            kind, name, argument = target.split(".")
            found = [its for its in configured(each) if kind in (its[0], "*") and name in (its[1], "*")]
            assert found, f"{each.name}: no provider is meant by {target}"
            takers = [its for its in found if argument in parameters(*its[:2])]
            assert takers == found if name != "*" else takers, f"{each.name}: {target}"


def parameters(kind, name) -> set[str]:
    found = set(parameters_of(find_class(kind, name)))
    return found | set(dialog.presets.AgentOptions.__annotations__) if kind == "agent" else found


def test_defaults_are_those_of_the_classes() -> None:
    checked = 0
    for each in VARIABLES:
        for kind, name, argument in configured(each):
            if each.default:
                assert parameters_of(find_class(kind, name))[argument].default == each.default
                checked += 1
    assert checked


def test_every_key_that_a_provider_needs_has_a_variable() -> None:
    covered = {its for each in VARIABLES if each.needed for its in configured(each)}
    for kind, names in BUILTIN.items():
        for name in names:
            if "api_key" in parameters_of(find_class(kind, name)) and kind not in ("gateway", "sms"):
                assert (kind, name, "api_key") in covered


def test_whatever_the_programs_read_is_in_the_table() -> None:
    read = re.compile(r"""\benv(?:\.get\(|\[)["']([A-Z_]+)["']|envvar=["']([A-Z_]+)["']|["']([A-Z_]+)["'] in env""")
    files = [
        *(ROOT / "examples").glob("*/main.py"),
        *(ROOT / "dialog" / "cli").glob("*.py"),
        *(ROOT / "dialog" / "cli" / "project").glob("*.txt"),
    ]
    names = {next(filter(None, found)) for file in files for found in read.findall(file.read_text())}
    templates = [*(ROOT / "examples").glob("*/.env.template"), *(ROOT / "dialog/cli/project").glob("env*")]
    for file in templates:
        names |= set(re.findall(r"^#?([A-Z_]+)=", file.read_text(), re.MULTILINE))
    assert {"PORT", "OPENAI_API_KEY"} <= names
    for name in names:
        assert variable(name).name == name


def test_a_provider_is_made_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEEPGRAM_API_KEY", "secret")
    monkeypatch.setenv("STT_MODEL_ID", "nova-2")
    monkeypatch.setenv("STT_LANGUAGE_CODE", "de")
    monkeypatch.setenv("DEEPGRAM_BASE_URL", "http://127.0.0.1:9")
    stt = create_stt.from_env("deepgram", interim_results=False)
    assert type(stt) is dialog.DeepgramSTT
    assert stt._headers["Authorization"] == "Token secret"
    assert (stt._query["model"], stt._query["language"]) == ("nova-2", "de")
    assert stt._query["interim_results"] is False
    assert stt._base_url == "ws://127.0.0.1:9"


def test_azures_ear_and_voice_share_a_resource() -> None:
    env = {"AZURE_SPEECH_KEY": "k", "AZURE_SPEECH_REGION": "northeurope", "AZURE_TTS_VOICE": "de-DE-KatjaNeural"}
    ear = create_stt.from_env("azure", env=env | {"STT_LANGUAGE_CODE": "de-DE"})
    voice = create_tts.from_env("azure", env=env)
    assert ear._base_url == "wss://northeurope.stt.speech.microsoft.com"
    assert ear._language == "de-DE"
    assert voice._origin.host == "northeurope.tts.speech.microsoft.com"
    assert b"de-DE-KatjaNeural" in voice._body("Hallo.")
    own = env | {"AZURE_SPEECH_BASE_URL": "https://mine.cognitiveservices.azure.com"}
    assert create_stt.from_env("azure", env=own)._base_url == "wss://mine.cognitiveservices.azure.com"
    assert create_tts.from_env("azure", env=own)._origin.host == "mine.cognitiveservices.azure.com"
    with pytest.raises(ConfigurationError, match="AZURE_SPEECH_KEY is not set"):
        create_stt.from_env("azure", env={})


def test_what_is_passed_wins_over_the_environment() -> None:
    env = {"DEEPGRAM_API_KEY": "k", "STT_MODEL_ID": "nova-2", "DEEPGRAM_BASE_URL": "nonsense"}
    stt = create_stt.from_env(env=env, model="nova-3", base_url="ws://127.0.0.1:9")
    assert stt._query["model"] == "nova-3"
    assert stt._query["language"] == "en-US"


def test_the_file_is_read_as_well(empty: Path) -> None:
    (empty / ".env").write_text("CARTESIA_API_KEY='k'\n")
    assert create_tts.from_env("cartesia")._headers["X-API-Key"] == "k"


def test_the_environment_is_read_only_where_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEEPGRAM_API_KEY", "k")
    with pytest.raises(ConfigurationError, match="api_key"):
        create_stt("deepgram")


def test_a_provider_without_settings_is_made_as_well() -> None:
    env = {"STT_MODEL_ID": "nova-2", "STT_LANGUAGE_CODE": "de"}
    assert type(create_stt.from_env("pocketsphinx", env=env, phrases=["hello"])) is dialog.PocketsphinxSTT


def test_all_that_is_missing_or_malformed_is_told_at_once() -> None:
    with pytest.raises(ConfigurationError) as told:
        create_gateway.from_env("twilio", env={"TWILIO_ACCOUNT_SID": "SK1", "WEBHOOK_URL": "voice.example"})
    text = str(told.value)
    assert "gateway 'twilio' cannot be made from the environment: TWILIO_ACCOUNT_SID does not look like one" in text
    assert "WEBHOOK_URL is no address: voice.example (write http:// or https://)" in text
    assert "TWILIO_AUTH_TOKEN is not set (auth token, on the first page of the Twilio console)" in text
    assert "python -m dialog doctor" in text


def test_no_secret_is_shown_because_it_is_malformed() -> None:
    with pytest.raises(ConfigurationError, match="DEEPGRAM_API_KEY has spaces or quotes in it") as told:
        create_stt.from_env(env={"DEEPGRAM_API_KEY": '"hush"'})
    assert "hush" not in str(told.value)


@pytest.mark.parametrize(
    ("form", "good", "bad"),
    [
        ("key", "sk-1", "sk 1"),
        ("sid", SID, "AC1"),
        ("url", "wss://x.example:1/v1", "x.example"),
        ("url", "http://[::1]:1", "http://[x"),
        ("port", "8080", "65536"),
        ("port", "0", "-1"),
    ],
)
def test_forms(form, good, bad) -> None:
    each = Variable(name="X", what="x", form=form)
    assert fault(each, good) is None
    assert fault(each, bad) is not None


def test_a_server_of_ones_own_or_a_client_needs_no_key() -> None:
    llm = create_llm.from_env("openai", env={"OPENAI_BASE_URL": "http://127.0.0.1:9/v1", "OPENAI_MODEL": "m"})
    assert llm.model == "m"
    client = AsyncOpenAI(api_key="theirs", base_url="http://127.0.0.1:9/v1")
    env = {"OPENAI_API_KEY": "k", "OPENAI_BASE_URL": "http://127.0.0.1:8/v1"}
    assert create_llm.from_env("openai", env=env, client=client)._client is client
    with pytest.raises(ConfigurationError, match="OPENAI_API_KEY is not set"):
        create_llm.from_env("openai", env={})
    with pytest.raises(ConfigurationError, match="DEEPGRAM_API_KEY is not set"):
        create_stt.from_env(env={"DEEPGRAM_BASE_URL": "http://127.0.0.1:9"})


def test_text_messages_are_sent_with_an_account_and_its_token_or_an_api_key() -> None:
    env = {"TWILIO_ACCOUNT_SID": "AC" + "0" * 32, "TWILIO_PHONE_NUMBER": "+15551230002"}
    with pytest.raises(ConfigurationError, match="TWILIO_AUTH_TOKEN is not set"):
        create_sms.from_env(env=env)
    sms = create_sms.from_env(env={**env, "TWILIO_AUTH_TOKEN": "t"})
    assert (sms._from, sms._rest._login[1]) == ("+15551230002", "t")
    assert create_sms.from_env(env={**env, "TWILIO_API_KEY": "SK1", "TWILIO_API_SECRET": "s"})._rest._login[0] == "SK1"
    with pytest.raises(ConfigurationError, match=r"TWILIO_PHONE_NUMBER is no number in E\.164"):
        create_sms.from_env(env={**env, "TWILIO_AUTH_TOKEN": "t", "TWILIO_PHONE_NUMBER": "0555 123"})


def test_a_name_wins_over_its_alias() -> None:
    each = Variable(name="A_KEY", what="x", aliases=("B_KEY",))
    assert value_of({"B_KEY": "b"}, each) == "b"
    assert value_of({"A_KEY": "", "B_KEY": "b"}, each) == "b"
    assert value_of({"A_KEY": "a", "B_KEY": "b"}, each) == "a"
    assert value_of({}, each) == ""


async def test_an_agent_is_told_what_to_say_and_how_to_be() -> None:
    made = []
    env = {"OPENAI_API_KEY": "k", "GREETING": "Good evening.", "SYSTEM_PROMPT": "You are a clock."}

    def on_voip(voip: dialog.VoIP) -> None:
        made.append(create_agent.from_env(env=env, voip=voip, stt=ToldSTT(), tts=HummingTTS()))
        made.append(create_agent.from_env("rules", env=env, voip=voip, stt=ToldSTT(), tts=HummingTTS(), greeting="Hm."))

    call, line = memory_call(on_voip)
    line.hang_up()
    await call.wait_closed()
    assert [(agent.greeting, agent.history.items()[0].text) for agent in made] == [
        ("Good evening.", "You are a clock."),
        ("Hm.", "You are a clock."),
    ]


def test_a_provider_of_another_package_reads_its_own_variables() -> None:
    class Acme:
        environment = (
            Variable(name="ACME_KEY", what="key of Acme", configures=("tts.acme.api_key",), form="key", needed=True),
        )

        def __init__(self, *, api_key: str) -> None: ...

    assert options_from({"ACME_KEY": "k"}, "tts", "acme", Acme, {}) == {"api_key": "k"}
    with pytest.raises(ConfigurationError, match="ACME_KEY is not set"):
        options_from({}, "tts", "acme", Acme, {})


# The doctor reads the same table.


def findings(env: dict[str, str]) -> dict[str, doctor.Finding]:
    return {finding.what: finding for finding in doctor.check_environment(env)}


def test_the_doctor_knows_every_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    bad = {"key": "a b", "tel": "0555", "sid": "AC1", "url": "nowhere", "port": "high"}
    for each in VARIABLES:
        if each.form in bad:
            for name in (each.name, *each.aliases):
                finding = findings({name: bad[each.form]})[each.name]
                assert (finding.state, bool(finding.fix)) == ("wrong", True)


def test_the_doctor_tells_of_a_variable_that_is_set_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    each = Variable(name="A_KEY", what="x", aliases=("B_KEY",), form="key")
    monkeypatch.setattr(doctor, "VARIABLES", (each,))
    assert findings({"A_KEY": "a", "B_KEY": "a"})["A_KEY"].state == "ok"
    assert "B_KEY, which mean the same, differ" in findings({"A_KEY": "a", "B_KEY": "b"})["A_KEY"].detail


def test_the_doctor_is_content_with_another_provider(monkeypatch: pytest.MonkeyPatch) -> None:
    names = {**BUILTIN["stt"], "acme": "acme:STT"}
    monkeypatch.setitem(variables.BUILTIN, "stt", names)
    acme = Variable(name="ACME_KEY", what="key of Acme", configures=("stt.acme.api_key",), form="key", needed=True)
    monkeypatch.setattr(doctor, "VARIABLES", (*VARIABLES, acme))
    assert findings({})["DEEPGRAM_API_KEY"].state == "wrong"
    assert "ACME_KEY" not in findings({})
    finding = findings({"ACME_KEY": "k"})["DEEPGRAM_API_KEY"]
    assert (finding.state, "ACME_KEY is" in finding.detail) == ("note", True)
    assert findings({"ACME_KEY": "k"})["CARTESIA_API_KEY"].state == "wrong"

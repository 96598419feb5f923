"""Providers made by name: Dialog's own, those of other packages, and what is told of names that are wrong."""

from __future__ import annotations

import inspect
import subprocess
import sys
import typing
from pathlib import Path

import pytest

import dialog
from dialog.errors import ConfigurationError, MissingExtra
from dialog.providers import factories, registry
from dialog.providers.builtin import BUILTIN, DEFAULTS, INTERFACES
from dialog.providers.factories import (
    Factory,
    create_agent,
    create_gateway,
    create_llm,
    create_sms,
    create_stt,
    create_tts,
    create_voip,
    provider_class,
)
from dialog.providers.registry import find_class, provider_names
from dialog.testing.doubles import HummingTTS, ToldSTT
from dialog.voip.memory import memory_call

EVERY = [(kind, name) for kind, names in BUILTIN.items() for name in names]
FACTORIES = {factory.kind: factory for factory in vars(factories).values() if isinstance(factory, Factory)}


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Put a package with entry points where Python finds packages."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(registry, "_found", {})

    def put(package: str, points: str, source: str = "") -> None:
        info = tmp_path / f"{package}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(points)
        if source:
            (tmp_path / f"{package}.py").write_text(source)
            monkeypatch.delitem(sys.modules, package, raising=False)

    return put


VOICE = """
from dialog.tts.tts import TTS

class Voice(TTS):
    def __init__(self, *, loud=False):
        super().__init__()
        self.loud = loud
    def open(self, audio_format): ...
    def post(self, message): ...
    def abort(self, uuid, *, part=None): ...

class NoVoice: ...
"""


@pytest.mark.parametrize(("kind", "name"), EVERY)
def test_every_name_is_of_a_class_of_its_kind(kind, name) -> None:
    cls = find_class(kind, name)
    assert isinstance(cls, type)
    if INTERFACES[kind]:
        assert issubclass(cls, registry._import(INTERFACES[kind]))
    assert cls.__module__ == BUILTIN[kind][name].partition(":")[0]
    assert getattr(dialog, cls.__name__) is cls


def test_every_kind_has_a_factory_a_default_and_an_interface() -> None:
    assert BUILTIN.keys() == DEFAULTS.keys() == INTERFACES.keys() == FACTORIES.keys()
    for kind, factory in FACTORIES.items():
        assert getattr(dialog, f"create_{kind}") is factory
        assert DEFAULTS[kind] in BUILTIN[kind]


def test_every_group_of_entry_points_is_written_down() -> None:
    assert registry.__doc__ is not None
    assert [kind for kind in INTERFACES if f"``dialog.{kind}``" not in registry.__doc__] == []


def test_type_checkers_know_every_name() -> None:
    """The overloads say of each name which class it is, and which is the default."""

    def named(overload, annotation: str):
        return typing.get_args(eval(annotation, vars(typing) | {"Literal": typing.Literal}))

    expected = {
        kind: {(name, target.partition(":")[2], name == DEFAULTS[kind]) for name, target in BUILTIN[kind].items()}
        for kind in BUILTIN
    }
    for kind, factory in FACTORIES.items():
        known = set()
        for overload in typing.get_overloads(type(factory).__call__):
            name = inspect.signature(overload).parameters["name"]
            if name.annotation != "str":
                (literal,) = named(overload, name.annotation)
                known.add((literal, overload.__annotations__["return"], name.default is ...))
        assert known == expected[kind]
    known = {kind: set() for kind in BUILTIN}
    for overload in typing.get_overloads(provider_class):
        name = inspect.signature(overload).parameters["name"]
        if name.annotation != "str":
            (kind,) = named(overload, overload.__annotations__["kind"])
            (literal,) = named(overload, name.annotation)
            known[kind].add((literal, overload.__annotations__["return"][len("type[") : -1], name.default is ...))
    assert known == expected


def test_a_provider_is_made_with_the_arguments_it_is_given() -> None:
    stt = create_stt("deepgram", api_key="k", model="nova-2")
    assert type(stt) is dialog.DeepgramSTT
    assert stt._query["model"] == "nova-2"
    assert type(create_tts("cartesia", api_key="k")) is dialog.CartesiaTTS
    assert create_llm("openai", api_key="k", model="m").model == "m"
    assert type(create_llm("rules", rules=[])) is dialog.RuleLLM
    gateway = create_gateway("twilio", account_sid="AC" + "0" * 32, auth_token="t")
    assert type(gateway) is dialog.TwilioGateway
    assert type(create_sms("twilio", account_sid="AC" + "0" * 32, auth_token="t")) is dialog.TwilioSMS


def test_without_a_name_the_default_is_made() -> None:
    assert type(create_stt(api_key="k")) is dialog.DeepgramSTT
    assert type(create_tts(api_key="k")) is dialog.CartesiaTTS
    assert type(create_llm(api_key="k")) is dialog.OpenAILLM
    assert provider_class("agent") is dialog.OpenAIAgent
    assert provider_class("gateway") is dialog.TwilioGateway
    assert provider_class("voip") is dialog.TwilioVoIP
    assert type(create_sms(account_sid="AC" + "0" * 32, auth_token="t")) is dialog.TwilioSMS


async def test_an_agent_and_the_side_of_its_call_are_made_by_name() -> None:
    made = []

    def on_voip(voip: dialog.VoIP) -> None:
        made.append(create_agent("rules", voip=voip, stt=ToldSTT(), tts=HummingTTS(), greeting="Hello."))
        made.append(create_voip("twilio", metadata=voip.metadata, link=voip._link))

    call, line = memory_call(on_voip)
    line.hang_up()
    await call.wait_closed()
    assert [type(each) for each in made] == [dialog.RuleAgent, dialog.TwilioVoIP]


def test_looking_a_class_up_makes_nothing_and_imports_no_other_provider() -> None:
    program = (
        "import sys; from dialog import provider_class;"
        "print(provider_class('stt', 'deepgram').__name__);"
        "print([m for m in sys.modules if m in ('dialog.tts.cartesia', 'dialog.stt.pocketsphinx', 'dialog.llm.openai',"
        " 'dialog.presets')])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout.split("\n")[:2] == ["DeepgramSTT", "[]"]


@pytest.mark.parametrize(
    ("kind", "name", "said"),
    [
        ("stt", "deepgrm", "there is no stt 'deepgrm'; did you mean 'deepgram'? There are: "),
        ("stt", "Deepgram", "did you mean 'deepgram'?"),
        ("tts", "pocketsphinx", "(it is a name of: stt) There are: "),
        ("llm", "zzz", "by an entry point of the group 'dialog.llm'"),
    ],
)
def test_an_unknown_name_says_what_there_is(kind, name, said) -> None:
    with pytest.raises(ConfigurationError) as told:
        FACTORIES[kind](name)
    assert said in str(told.value)
    for known in BUILTIN[kind]:
        assert known in str(told.value)


def test_an_unknown_kind_says_which_there_are() -> None:
    with pytest.raises(ConfigurationError, match="of the kind 'ears', only: stt, tts, s2s, llm"):
        find_class("ears", "deepgram")  # type: ignore[arg-type]


def test_a_wrong_argument_is_told_from_a_fault_inside(install) -> None:
    with pytest.raises(ConfigurationError, match=r"stt 'deepgram' \(DeepgramSTT\).*'api_key'"):
        create_stt("deepgram")
    with pytest.raises(ConfigurationError, match="is 'models' meant to be 'model'"):
        create_stt("deepgram", api_key="k", models="nova-2")
    install(
        "acme", "[dialog.tts]\nacme = acme:Broken\n", VOICE + "class Broken(Voice):\n def __init__(self): None + 1\n"
    )
    with pytest.raises(TypeError, match="unsupported operand"):
        create_tts("acme")


def test_a_package_brings_a_provider_by_an_entry_point(install) -> None:
    install("acme", "[dialog.tts]\nacme = acme:Voice\n", VOICE)
    assert provider_names("tts")[-1] == "acme"
    voice = create_tts("acme", loud=True)
    assert isinstance(voice, dialog.TTS)
    assert voice.loud  # type: ignore[attr-defined]
    assert provider_class("tts", "acme") is type(voice)


def test_a_name_of_dialogs_own_cannot_be_taken(install) -> None:
    install("acme", "[dialog.tts]\ncartesia = acme:Voice\n", VOICE)
    assert provider_class("tts", "cartesia") is dialog.CartesiaTTS
    assert provider_names("tts").count("cartesia") == 1


@pytest.mark.parametrize(
    ("points", "said"),
    [
        ("acme = acme:NoVoice", "of the package acme is acme:NoVoice, which is no subclass of TTS"),
        ("acme = acme:VOICES", "of the package acme cannot be loaded: AttributeError"),
        ("acme = acme.sub:Voice", "its module acme.sub is not there"),
        ("acme = gone:Voice", "its module gone is not there: reinstall it"),
    ],
)
def test_what_a_package_registers_wrongly_is_told(install, points, said) -> None:
    install("acme", f"[dialog.tts]\n{points}\n", VOICE)
    with pytest.raises(ConfigurationError, match=said):
        create_tts("acme")


def test_two_packages_of_one_name_are_told(install) -> None:
    install("acme", "[dialog.tts]\nvoice = acme:Voice\n", VOICE)
    install("bcme", "[dialog.tts]\nvoice = bcme:Voice\n", VOICE)
    with pytest.raises(ConfigurationError, match="registered twice, by the package acme and the package bcme"):
        create_tts("voice")


def test_what_a_package_lacks_is_told(install) -> None:
    install("acme", "[dialog.tts]\nacme = acme:Voice\n", "import a_sdk_that_is_not_there\n" + VOICE)
    with pytest.raises(ConfigurationError, match="pip install a_sdk_that_is_not_there"):
        create_tts("acme")


def test_a_missing_extra_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_found", {})
    monkeypatch.delitem(sys.modules, "dialog.voip.twilio.gateway", raising=False)
    monkeypatch.setattr(registry, "import_module", missing("twilio"))
    with pytest.raises(MissingExtra, match=r"twilio is not installed: pip install 'dialog\[twilio\]'"):
        create_gateway("twilio", account_sid="AC", auth_token="t")
    monkeypatch.setattr(registry, "import_module", missing("somewhere"))
    with pytest.raises(ModuleNotFoundError, match="somewhere"):  # a fault of ours is not dressed up
        create_gateway("twilio", account_sid="AC", auth_token="t")


def missing(package: str):
    def import_module(_: str):
        raise ModuleNotFoundError(f"No module named '{package}'", name=f"{package}.rest")

    return import_module

"""Writes what is made from the list of providers and what they declare: ``python docs/generate.py``.

The overloads of the factories, and pages of the documentation: those of the providers, that of a call's events
and that of the client protocol, with their JSON schemas. A test finds them out of date.
"""

from __future__ import annotations

import ast
import inspect
import itertools
import json
import re
import textwrap
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, get_args

import msgspec

from dialog.calls.events import CallEvent, EventBase
from dialog.message import AudioFormat
from dialog.providers.builtin import BUILTIN, DEFAULTS, INTERFACES, Kind
from dialog.providers.factories import provider_class
from dialog.providers.variables import VARIABLES, Variable, configured, parameters_of
from dialog.s2s.cascade import CascadeS2S
from dialog.s2s.s2s import S2S
from dialog.schemas import schemas_of
from dialog.server.api import types as rest_types
from dialog.server.api.openapi import document
from dialog.server.api.operations import OPERATIONS
from dialog.stt.stt import STT
from dialog.tts.tts import TTS
from dialog.voip.web.messages import CLOSE_CODES, FORMATS, SUBPROTOCOL, VERSION, ClientMessage, ServerMessage

HERE = Path(__file__).resolve().parent
FACTORIES = HERE.parent / "dialog" / "providers" / "factories.py"
NOTE = "<!-- Made by docs/generate.py from {source}; do not edit. -->\n"
YES, NO = "yes", "\N{EN DASH}"

ENVIRONMENT = """\
# Environment

The library takes values and reads no environment. These do: the factories' `from_env`, the commands of
`python -m dialog`, and the examples. What the environment has wins over a `.env` file in the working
directory (`NAME=value` lines); an empty value counts as not set. `python -m dialog doctor` checks all of it.

```python
from dialog import create_stt

env = {"DEEPGRAM_API_KEY": "…", "STT_LANGUAGE_CODE": "de"}  # by default: the environment and .env
stt = create_stt.from_env("deepgram", env=env, model="nova-3")
```

What is passed by name wins over the environment. A key that is not set, or a value that is malformed, is a
`ConfigurationError` that names all such variables.

"""

PROVIDERS = """\
# Providers

A provider is made by its class, or by its name:

```python
from dialog import create_llm, create_stt, create_tts, provider_class

stt = create_stt("deepgram", api_key="…")
tts = create_tts("cartesia", api_key="…")
llm = create_llm("openai", api_key="…")
parrot = provider_class("llm", "rules")  # the class; nothing is made
```

The name decides the type: a type checker knows that `create_stt("deepgram")` is a `DeepgramSTT`. Without a name
the default of the kind is made (in bold below). `create_agent`, `create_gateway`, `create_sms` and `create_voip` do
the same for agents and carriers. A gateway makes the `VoIP` of every call by itself: `create_voip` is for a link of
your own, and `provider_class("voip", "twilio")` looks up its class. `from_env` takes what it is not given from the
[environment](environment.md).

A package of your own adds a provider by an entry point, and it is made by its name like the others:
see `examples/custom_provider` and [Adding a provider](adding-a-provider.md). A name that there is not says which
there are; a package that is missing says how to install it.

The tables say what the classes declare. Every provider also takes `base_url`, `options`, `headers` and `query`
where it has a server: a service that changes tomorrow can be used today.

"""


MORE = """
## Fixed sentences

`CachedTTS` puts a voice behind a store of sentences that were spoken before. They are made ready while nothing
is said, or as they are said for the first time; then they are played at once, with the times of their words,
also when the provider is down. What follows one in the same reply is spoken by the voice.

```python
from dialog import AgentSettings, CachedTTS, CartesiaTTS, PhraseCache

settings = AgentSettings()
cache = PhraseCache(directory="build/phrases")  # for all calls; the directory outlives the process
tts = CachedTTS(CartesiaTTS(api_key="…"), [settings.apology, settings.failure], cache=cache)
```

With `settings.failure` among them, a caller whose agent has lost its voice hears why before the call ends.
To have the sentences before the first call, `open` one such voice where the program starts, `await` its
`prepared()` and dispose of it. A sentence with numbers has to be given as it is spoken.

## When a provider fails

`FallbackSTT([DeepgramSTT(…), ElevenLabsSTT(…)])` and `FallbackTTS([CartesiaTTS(…), ElevenLabsTTS(…)])` are an STT
and a TTS. The first member works; when it refuses, breaks down or falls silent, the next goes on in the middle of
the utterance or of the sentence. What was not understood is heard again, what was not said is said, under the same
uuid and part. Without word timings the clause that was cut may be said twice. The preferred one is tried again
after `probe_after_s`, and used when it has proven that it works. What one call has found out the others know: the
next one begins with a member that has not failed lately. Each failure is a non-fatal ERROR, each change a `TAKEOVER`;
it is fatal when all have failed.

`FallbackLLM([OpenAILLM(…), AnthropicLLM(…)])` asks the next model when one refuses, breaks off or gives nothing
for `timeout_s`: before any word in its place, after words as their continuation. `provider.switched` tells of it.
`RouterLLM({"quick": a, "clever": b}, route)` chooses per turn. When nothing helps, `AgentSettings.failure` is
said, from memory if a `CachedTTS` holds it, and the call is ended, or handed to `failure_transfer`.

## What it costs

Whatever is paid for reports what it used, in the same units: tokens, seconds that were heard and made, characters. Each
`UsageReported` of a call has it with its price, `SessionMetrics.usage` sums it up by model, and `cost_usd` is what
the call cost; it is `None` as long as a model has no price. The list prices are those of `dialog.calls.prices.PRICES`;
yours win:

```python
from dialog import AgentSettings
from dialog.calls.prices import Price

settings = AgentSettings(prices={"sonic-3.5": Price(characters=30.0), "nova-3": Price(heard_minute=0.0042)})
```

What is spoken from a `PhraseCache`, or recognised and spoken on this machine, uses nothing.

## Comparing two recognisers

`TeeSTT` lets a second recogniser hear the calls that the first one drives. The agent notices nothing of it, whatever
becomes of the second: it stalls, raises or is closed. What it hears comes as an event.

```python
from dialog import Comparison, DeepgramFluxSTT, DeepgramSTT, TeeSTT


def compare(heard: Comparison) -> None:
    print(heard.source, heard.utterance.data if heard.utterance else heard.failure)


stt = TeeSTT(DeepgramSTT(api_key="…"), DeepgramFluxSTT(api_key="…"))
stt.on(TeeSTT.COMPARISON, compare)
```
"""


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table in Markdown."""
    head = tuple(head)
    lines = [head, ("---",) * len(head), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', '&#124;') for cell in line)} |\n" for line in lines)


def default(cls: type, argument: str) -> str:
    """What an argument of the class is by default, for a cell."""
    parameter = parameters_of(cls).get(argument)
    if parameter is None:
        return NO
    value = parameter.default
    if value is inspect.Parameter.empty:
        return "must be given"
    return f"`{value}`" if value not in (None, "") else "the provider's"


def formats(of: tuple[AudioFormat, ...]) -> str:
    """Audio formats, best first."""
    return ", ".join(f"{each.encoding} {each.sample_rate // 1000 or each.sample_rate}k" for each in of)


def yes(value: object) -> str:
    """A cell that says whether."""
    return YES if value else NO


def environment() -> str:
    """The page of the environment variables."""
    return (
        ENVIRONMENT
        + NOTE.format(source="dialog/providers/variables.py")
        + "\n"
        + table(
            ("variable", "what it is", "default", "configures"),
            (
                (
                    " = ".join(f"`{name}`" for name in (each.name, *each.aliases)),
                    each.what + (" (secret)" if each.secret else ""),
                    f"`{each.default}`" if each.default else NO,
                    ", ".join(targets(each)) or NO,
                )
                for each in VARIABLES
            ),
        )
    )


def targets(variable: Variable) -> Iterator[str]:
    """The arguments that it configures: ``stt deepgram `model```."""
    anywhere = {target.partition(".")[0]: target for target in variable.configures if ".*." in target}
    for kind, target in anywhere.items():
        yield f"`{target.rpartition('.')[2]}` of every {kind} that has one"
    takers: dict[str, list[str]] = {}
    for kind, name, argument in configured(variable):
        if kind not in anywhere:
            takers.setdefault(argument, []).append(f"{kind} {name}")
    for argument, names in takers.items():
        yield f"`{argument}` of {', '.join(names)}"


def providers() -> str:
    """The page of what every provider can do."""
    pages = [PROVIDERS, NOTE.format(source="what the classes declare")]
    for kind, title, head, row in (
        ("stt", "Speech to text", STT_HEAD, stt_row),
        ("tts", "Text to speech", TTS_HEAD, tts_row),
        ("s2s", "Models that hear and speak", S2S_HEAD, s2s_row),
        ("llm", "Language models", LLM_HEAD, llm_row),
    ):
        pages.append(f"\n## {title}\n\n" + table(head, (row(name, cls) for name, cls in classes(kind))))
    others = [(kind, name, f"`{cls.__name__}`") for kind in REST for name, cls in classes(kind)]
    return "".join(pages) + "\n## Agents and carriers\n\n" + table(("kind", "name", "class"), others) + MORE


def classes(kind: Kind) -> Iterator[tuple[str, type[Any]]]:
    """Every name, the default one in bold, and its class."""
    for name in BUILTIN[kind]:
        yield (f"**{name}**" if name == DEFAULTS[kind] else name), provider_class(kind, name)


STT_HEAD = (
    "name", "class", "default model", "default language", "partials every", "word times", "speech edges",
    "ends turns", "eager end", "manual turns", "audio, best first", "regions", "limits",
)  # fmt: skip
TTS_HEAD = (
    "name", "class", "default model", "default voice", "default language", "text as it comes", "word times",
    "reads numbers", "parts at once", "audio, best first", "regions", "limits",
)  # fmt: skip
S2S_HEAD = (
    "name", "class", "default model", "default voice", "who decides on interruptions", "replies", "told what was heard",
    "says word for word", "speech edges", "manual turns", "audio in, best first", "audio out", "limits",
)  # fmt: skip
LLM_HEAD = ("name", "class", "default model", "own client", "default server")
REST: tuple[Kind, ...] = ("agent", "voip", "gateway", "sms")


def stt_row(name: str, cls: type[STT]) -> tuple[str, ...]:
    """What a recogniser declares."""
    can = cls.capabilities
    return (
        name,
        f"`{cls.__name__}`",
        default(cls, "model"),
        default(cls, "language"),
        NO if can.interim_interval_ms is None else f"{can.interim_interval_ms} ms" if can.interim_interval_ms else YES,
        yes(can.words),
        yes(can.speech_events),
        yes(can.endpointing),
        yes(can.eager),
        yes(can.manual_turns),
        formats(cls.formats),
        ", ".join(can.regions) or NO,
        can.limits or NO,
    )


def tts_row(name: str, cls: type[TTS]) -> tuple[str, ...]:
    """What a voice declares."""
    can = cls.capabilities
    return (
        name,
        f"`{cls.__name__}`",
        default(cls, "model"),
        default(cls, "voice"),
        default(cls, "language"),
        yes(can.text == "tokens"),
        yes(can.timings),
        yes(can.normalizes),
        str(can.parallel_parts),
        formats(cls.formats),
        ", ".join(can.regions) or NO,
        can.limits or NO,
    )


def s2s_row(name: str, cls: type[S2S]) -> tuple[str, ...]:
    """What a model that hears and speaks declares."""
    can = cls.capabilities
    if cls is CascadeS2S:  # what it can do, its parts decide
        return (
            name,
            f"`{cls.__name__}`",
            *["its parts'"] * 2,
            "Dialog",
            "when asked",
            YES,
            YES,
            *["its parts'"] * 4,
            NO,
        )
    return (
        name,
        f"`{cls.__name__}`",
        default(cls, "model"),
        default(cls, "voice"),
        "Dialog" if can.interruption == "ours" else "the provider",
        "when asked" if can.replies == "asked" else "by itself",
        yes(can.truncate),
        yes(can.verbatim),
        yes(can.speech_events),
        yes(can.manual_turns),
        formats(cls.formats),
        formats(cls.output_formats),
        can.limits or NO,
    )


def llm_row(name: str, cls: type[Any]) -> tuple[str, ...]:
    """What a model's constructor says."""
    return (
        name,
        f"`{cls.__name__}`",
        default(cls, "model"),
        yes("client" in parameters_of(cls)),
        f"`{cls.default_base_url}`" if hasattr(cls, "default_base_url") else NO,
    )


def overloads() -> str:
    """The module of the factories, with an overload for every provider of the list."""
    source = FACTORIES.read_text("utf-8")
    imports: dict[str, set[str]] = {}
    for target in (*(target for names in BUILTIN.values() for target in names.values()), *INTERFACES.values()):
        if target:
            module, _, cls = target.partition(":")
            imports.setdefault(module, set()).add(cls)
    lines = [f"    from {module} import {', '.join(sorted(imports[module]))}\n" for module in sorted(imports)]
    source = re.sub(r"(?<=if TYPE_CHECKING:\n)(    from .*\n)+", "".join(lines), source)
    for kind, names in BUILTIN.items():
        calls, looks = "", ""
        for name in sorted(names, key=lambda name: (name != DEFAULTS[kind], name)):
            literal = f'Literal["{name}"]{" = ..." if name == DEFAULTS[kind] else ""}'
            cls = names[name].partition(":")[2]
            calls += f"    @overload\n    def __call__(self, name: {literal}, /, **options: Any) -> {cls}: ...\n"
            looks += f'@overload\ndef provider_class(kind: Literal["{kind}"], name: {literal}) -> type[{cls}]: ...\n'
        call = r"(?:    @overload\n    def __call__\(self, name: Literal\[.*\n)+"
        source = re.sub(rf'(kind: ClassVar\[Kind\] = "{kind}"\n\n){call}', rf"\1{calls}", source)
        look = rf'(?:@overload\ndef provider_class\(kind: Literal\["{kind}"\], name: Literal\[.*\n)+'
        source = re.sub(look, looks, source)
    return source


EVENTS = """\
# Events of a call

Everything that happens in a call is one stream of typed, numbered events. The session report, metrics, the
[call log](call-log.md), [webhooks](webhooks.md) and what another process goes on from are made of it and of nothing
else. Whatever the carrier, and wherever a call's agent runs, its gateway publishes them at one place:

```python
from dialog import TwilioGateway
from dialog.calls.events import CallerSaid
from dialog.calls.publish import Notice

gateway = TwilioGateway(account_sid="AC…", auth_token="…")


def told(notice: Notice) -> None:
    if isinstance(notice.event, CallerSaid) and notice.event.final:
        print(notice.call.call_id, notice.event.seq, len(notice.event.text))


gateway.events.on(told)  # a plain function, called on the event loop


async def feed(send) -> None:  # a task, with a queue of its own: a WebSocket, a stream of server-sent events
    with gateway.events.read(limit=500) as reader:
        async for notice in reader:
            await send(notice.to_json())
```

`read(call_id)` is the stream of one call, and comes to its end with it. A reader that falls behind by more than
`limit` events gets those that wait, then a last one of the type `reader.dropped`, which tells the first that it has
missed, and then the end: it slows nobody down, and can begin anew from
`log.events(call_id, after=seq)`.

Every call is told of from a `call.started` to exactly one `call.ended`, also one that was declined, that never had an
agent, or whose worker died. Within the process of the agent there is `agent.on(Agent.EVENT, …)` besides. A caller waits
for the model and not for listeners: what was said is told right behind the request that it leads to, in its order and
with its own time.

## Redaction

What must not be stored or sent is masked at this place, before anybody gets it:

```python
from dialog import CallEvents, Redaction, TwilioGateway

redaction = Redaction(("card", "phone", "email"), patterns={"policy": r"\\bP-\\d{6}\\b"})
gateway = TwilioGateway(account_sid="AC…", auth_token="…", events=CallEvents(redaction=redaction))
print(redaction.text("It is 4111 1111 1111 1111, and the policy is P-123456."))  # It is [card], … is [policy].
```

It goes over what the caller and the agent say, arguments and results of tools (which stay JSON), and the texts of
errors. Numbers are found in figures and in English digits ("four one one …"); a card is one whose check digit is
right. The first digits of a number that is not complete, in an interim or in what was heard of a reply that was cut,
go too. The numbers of the call itself, `from` and `to`, stay. A number that is read out in pieces, over several turns,
is found only by `digits`, which masks every number of three digits or more, and the keys that the caller presses.
What `agent.on(Agent.EVENT, …)`, `Agent.REPORT` and the agent's own history hold is not masked.

## In JSON

`seq` and `at_s` are in all of them. `seq` grows within the call; a number may be missing, none comes twice. `at_s`
are seconds since an agent took the call. Ids are UUIDs in text. Fields are added in later versions, and so are types:
ignore those that you do not know. [events.json](events.json) is the JSON schema.

Where events of several calls are told (live events, webhooks) each has the `call_id` of its call; the id that a model
has given to a use of a tool is `tool_call_id` there.

"""


def events() -> str:
    """The page of a call's events."""
    pages: list[str] = [NOTE.format(source="dialog/calls/events.py"), EVENTS]
    for cls in get_args(CallEvent):
        pages += [f"### `{cls.__struct_config__.tag}`\n\n", f"`{cls.__name__}`: {prose(cls.__doc__)}\n\n"]
        rows = [
            (f"`{field.encode_name}`", kind_of(field.type), prose(notes_of(cls).get(field.name)))
            for field in msgspec.structs.fields(cls)
            if field.name not in EventBase.__struct_fields__
        ]
        pages += [table(("field", "type", ""), rows), "\n"] if rows else []
    return "".join(pages).rstrip() + "\n"


def schema() -> str:
    """The JSON schema of a call's events."""
    (ref,), components = schemas_of((CallEvent,), "#/$defs/{name}")
    whole = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "CallEvent", **ref}
    return json.dumps({**whole, "$defs": components}, indent=2, ensure_ascii=False) + "\n"


PROTOCOL = """\
# Client protocol

What a browser, an app or a script says to [`WebGateway`](browser.md), and hears from it, over one WebSocket, or over
[WebRTC](#over-webrtc). This is version {version}. [client-protocol.json](client-protocol.json) is the JSON schema of
the messages. `dialog.testing.WebCaller` is a client in Python, to use or to read, `dialog.testing.RtcCaller` the same
over WebRTC.

## Frames

Control travels in text frames: one JSON object each, with its `type`. Audio travels in binary frames and is nothing but
audio, in the format that `session.started` names, mono, whole samples, of any length; 20 to 100 ms is usual. A client
may offer the subprotocol `{subprotocol}`. Nothing is ever in the URL: the token is in the first message.

| format | `encoding` | `sample_rate` |
|---|---|---|
{formats}

## In order

1. The client connects and says `session.start`, with its token and the formats that it can play.
2. `session.started` tells which format it is. From here on the client sends audio all the time, silence too, at the
   pace of speech: the call's clock runs by it. A muted microphone is silence.
3. The server sends audio a little ahead of its time, about 0.3 s. The client plays it in order, without gaps. A `mark`
   is to be answered when all audio before it has sounded; that is how an agent knows what was heard.
4. On `clear` the client drops what has not sounded, and answers all open marks at once.
5. Either side ends it: the client by `session.end`, the server by `session.ended`; then the socket is closed.

A client whose connection breaks opens another one within `resume_within_s` and says `session.resume`, with the
`secret` of the last `session.started`; it may be another kind of connection, and end at another of several gateways.
The agent waits; what it was saying is lost. Without a secret that fits there is no session, and none for a client that
comes too late (4404): it starts anew, with a new token. A client that closes its socket with 1000 or 1001 has hung up.

## Over WebRTC

The messages are the same. They travel as text on a data channel, ordered and reliable, with the label `{subprotocol}`;
audio travels as Opus, in a track each way, and not in the format that `session.started` names. There is no `mark` in
the audio: a `mark` and a `clear` name a place in it by its RTP timestamp, `rtp`.

1. The client makes an offer of one audio track and the data channel, waits for its own candidates, and posts it to the
   WebSocket's path followed by `/webrtc`: a JSON object with `sdp` and, in `session`, the `session.start` or
   `session.resume` that would be the first message on a WebSocket.
2. The answer is a JSON object with `sdp`, which has all candidates of the server, and `started`: what the server will
   say first on the data channel. If there is no session, the status is the close code less 4000 (401, 403, 404 …, but
   400 for 1008 and 500 for 1011), and the body an `error`.
3. A `mark` is to be answered when a packet with the timestamp `rtp` or a later one sounds
   (`RTCRtpReceiver.getSynchronizationSources`). After `clear` the client is silent until a packet with `rtp` or a later
   one sounds. The server sends no packets after a second of silence.
4. Before the server closes the connection it says `close` with the code that a WebSocket would be closed with. A client
   that closes its connection has hung up; one that is not heard for 10 s is lost, and may come back.

A client that cannot connect in time (no UDP, as a rule) says `session.resume` on a WebSocket with the `secret` in
`started`, and its session goes on there. Offers come from the pages that may open the WebSocket; `OPTIONS` is answered
for those of other hosts. An offer has at most 65,536 bytes and 40 candidates.

### Why Opus only there

Over a WebSocket audio is PCM or G.711 and needs no codec on either side. `benchmarks/client_audio.py`, agent and client
speaking all the time (four calls, two cores that had other work as well):

| | bytes of audio, each way | CPU of the gateway, a call |
|---|---|---|
| WebSocket, PCM 24 kHz | 384 kbit/s | 0.6 % of a core |
| WebSocket, G.711 | 64 kbit/s | 0.6 % |
| WebRTC, Opus | 51 kbit/s, with what RTP adds | 7 % |

Nine tenths of what Opus would save over PCM is had with G.711, for nothing; the rest would cost a codec at both ends,
of which encoding alone is 0.3 ms for every 20 ms. It would not help where a network is bad: what makes a WebSocket
stutter is that it waits for packets that were lost, and that is what WebRTC is for.

## Bounds

A text or binary frame has at most 65,536 bytes. Beyond 200 messages at once and 50 a second, or 30 s of audio at once
and 1.1 times real time, the socket is closed with 4429. It is closed with 4408 when no session is started within 10 s.
Fields that are not known are ignored, in both directions; a client must ignore messages of types that it does not know.

## Close codes

{codes}
"""


def protocol() -> str:
    """The page of the client protocol."""
    page = PROTOCOL.format(
        version=VERSION,
        subprotocol=SUBPROTOCOL,
        formats="\n".join(f"| {name_of(each)} | `{each.encoding}` | {each.sample_rate} |" for each in FORMATS),
        codes=table(("code", ""), [(str(code), text) for code, text in CLOSE_CODES.items()]).rstrip(),
    )
    parts = [NOTE.format(source="dialog/voip/web/messages.py"), page]
    for title, union in (("What a client says", ClientMessage), ("What a server says", ServerMessage)):
        parts.append(f"\n## {title}\n\n")
        for cls in get_args(union):
            parts.append(f"### `{cls.__struct_config__.tag}`\n\n{prose(cls.__doc__)}\n\n")
            rows = [
                (f"`{field.encode_name}`", kind_of(field.type), prose(notes_of(cls).get(field.name)))
                for field in msgspec.structs.fields(cls)
            ]
            parts += [table(("field", "type", ""), rows), "\n"] if rows else []
    return "".join(parts).rstrip() + "\n"


def name_of(audio_format: AudioFormat) -> str:
    """A format in words."""
    names = {"s16le": "16-bit PCM, little-endian", "mulaw": "G.711 \u00b5-law", "alaw": "G.711 A-law"}
    return names[audio_format.encoding]


def protocol_schema() -> str:
    """The JSON schema of the client protocol."""
    refs, components = schemas_of((ClientMessage, ServerMessage), "#/$defs/{name}")
    whole = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"Dialog client protocol, version {VERSION}",
        "$defs": {"ClientMessage": refs[0], "ServerMessage": refs[1], **components},
    }
    return json.dumps(whole, indent=2, ensure_ascii=False) + "\n"


def notes_of(cls: type[Any]) -> dict[str, str]:
    """What stands below the fields of a class."""
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
    assert isinstance(tree, ast.ClassDef)
    notes: dict[str, str] = {}
    for field, note in itertools.pairwise(tree.body):
        if isinstance(field, ast.AnnAssign) and isinstance(note, ast.Expr) and isinstance(note.value, ast.Constant):
            notes[ast.unparse(field.target)] = str(note.value.value)
    return notes


def prose(text: str | None) -> str:
    """A docstring in Markdown, on one line."""
    text = re.sub(r":\w+:`~?([\w.]+\.)?(\w+)`", r"`\2`", " ".join((text or "").split()))
    return text.replace("``", "`")


def kind_of(annotation: Any) -> str:
    """A type, as JSON has it."""
    found = msgspec.json.schema(annotation, ref_template="{name}")
    return json_kind(found)


def json_kind(found: dict[str, Any]) -> str:
    """What a schema says, in few words."""
    if "$ref" in found:
        return f"`{found['$ref']}`"
    if "enum" in found:
        return ", ".join(f"`{each}`" for each in sorted(found["enum"]))
    if "anyOf" in found:
        return " or ".join(json_kind(each) for each in found["anyOf"])
    return found.get("format") or found.get("type", "")


REST_API = """\
# REST API

Served by a [service](service.md) that has tokens; its description in OpenAPI is [openapi.json](openapi.json), and at
`/openapi.json` of the service. Every request but those marked as open has the header `Authorization: Bearer …`.
Bodies and answers are JSON; what is wrong is told as `application/problem+json` (RFC 9457): 401 without a token, 403
without the scope, 404, 405, 409 for a call that is not in a state for that, 413, 415, 422 for a value that does not
fit, 429 with `Retry-After`, 502 when the carrier refuses.

"""


def rest() -> str:
    """The page of the REST API."""
    pages: list[str] = [NOTE.format(source="dialog/server/api"), REST_API]
    rows = [
        (
            f"`{each.method} {each.path}`",
            f"`{each.scope}`" if each.scope else "open",
            prose(each.summary),
            str(each.status),
        )
        for each in OPERATIONS
    ]
    pages += [table(("request", "scope", "what it does", "status"), rows), "\n## Types\n\n"]
    for name in rest_types.__all__:
        cls = getattr(rest_types, name)
        pages += [f"### `{name}`\n\n", f"{prose(cls.__doc__)}\n\n"]
        notes = {note: text for base in reversed(cls.__mro__[:-3]) for note, text in notes_of(base).items()}
        fields = [
            (f"`{field.encode_name}`", kind_of(field.type), NO if field.required else YES, prose(notes.get(field.name)))
            for field in msgspec.structs.fields(cls)
        ]
        pages += [table(("field", "type", "may be left out", ""), fields), "\n"]
    return "".join(pages).rstrip() + "\n"


def openapi() -> str:
    """The OpenAPI document of the REST API."""
    return json.dumps(document(), indent=2, ensure_ascii=False) + "\n"


MADE = {
    HERE / "environment.md": environment,
    HERE / "providers.md": providers,
    HERE / "events.md": events,
    HERE / "events.json": schema,
    HERE / "client-protocol.md": protocol,
    HERE / "client-protocol.json": protocol_schema,
    HERE / "rest.md": rest,
    HERE / "openapi.json": openapi,
    FACTORIES: overloads,
}
"""What is written where."""

if __name__ == "__main__":
    for path, made in MADE.items():
        path.write_text(made(), "utf-8")

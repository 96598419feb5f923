"""The commands of ``python -m dialog``."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

import typer
from rich.console import Console
from rich.markup import escape

from dialog import __version__
from dialog.cli.needs import check_demo, check_testing
from dialog.cli.options import (
    AccountSid,
    AuthToken,
    Certificate,
    DrainS,
    EnvFile,
    Key,
    LeaveS,
    LogLevel,
    MediaURL,
    OwnPorts,
    ProcessCount,
    PublicURL,
    ServedHost,
    ServedPort,
    WebhookURL,
)
from dialog.errors import DialogError
from dialog.loop import new_event_loop

__all__ = ["app"]

app = typer.Typer(
    name="dialog",
    help="Phone conversations between people and LLM agents.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(value: bool) -> None:
    if value:
        typer.echo(f"dialog {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    del version


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Where call.wav, call.json and report.html go.")] = Path("build/demo"),
    script: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="Other sentences for the caller.")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show only the outcome.")] = False,
    speed: Annotated[float, typer.Option(min=0.1, max=10.0, help="Run the call so many times as fast.")] = 1.0,
) -> None:
    """Run one whole call without any account: recognised, answered and spoken for real."""
    _need(check_demo)
    from dialog.cli.demo import run_demo

    _exit(_run(run_demo(Console(), out=out, script=script, quiet=quiet, speed=speed)))


@app.command()
def call(  # noqa: PLR0917  # options of the command line, not positions
    url: WebhookURL,
    script: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="What the caller says, a sentence a line.")
    ] = None,
    wav: Annotated[
        list[Path] | None, typer.Option(exists=True, dir_okay=False, help="Say this recording; may be repeated.")
    ] = None,
    auth_token: AuthToken = "",
    account_sid: AccountSid = "",
    public_url: PublicURL = "",
    out: Annotated[Path | None, typer.Option(help="Write the call as a stereo WAV file.")] = None,
    env_file: EnvFile = Path(".env"),
) -> None:
    """Dial a running gateway as Twilio does, speak, listen, and measure."""
    _need(check_testing)
    from dialog.cli.call import CallPlan, run_call

    plan = CallPlan(
        url=url,
        script=script,
        wavs=tuple(wav or ()),
        auth_token=auth_token,
        account_sid=account_sid,
        public_url=public_url,
        out=out,
        env_file=env_file,
    )
    _exit(_run(run_call(Console(), plan)))


@app.command()
def load(  # noqa: PLR0917  # options of the command line, not positions
    url: WebhookURL,
    calls: Annotated[int | None, typer.Option(help="So many calls; 10 without --duration-s.")] = None,
    duration_s: Annotated[float | None, typer.Option(help="Dial for so many seconds.")] = None,
    calls_per_s: Annotated[float, typer.Option(help="Calls placed in a second.")] = 5.0,
    concurrency: Annotated[int, typer.Option(help="At most so many at the same time.")] = 100,
    turns: Annotated[int, typer.Option(min=-1, help="Utterances of a call; -1: as many as --call-s allows.")] = 3,
    call_s: Annotated[float, typer.Option(help="After so many seconds a caller leaves.")] = 120.0,
    hang_up: Annotated[
        Literal["after-reply", "mid-reply", "reset", "agent"],
        typer.Option(help="after-reply, mid-reply, reset (the connection breaks), agent (has to)."),
    ] = "after-reply",
    reply_s: Annotated[float, typer.Option(help="So long a reply is waited for.")] = 15.0,
    say: Annotated[list[str] | None, typer.Option(help="An utterance, spoken by espeak; may be repeated.")] = None,
    script: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="Utterances, one a line, spoken by espeak.")
    ] = None,
    wav: Annotated[
        list[Path] | None, typer.Option(exists=True, dir_okay=False, help="An utterance as a recording.")
    ] = None,
    processes: Annotated[int, typer.Option(help="Spread the callers over so many processes.")] = 1,
    fail_if: Annotated[
        list[str] | None,
        typer.Option(help="A condition as p95_reply_ms>1500; may be repeated; failed>0 by default."),
    ] = None,
    json: Annotated[Path | None, typer.Option(help="Write all figures and calls as JSON.")] = None,
    page: Annotated[Path | None, typer.Option(help="Write the page of the load.")] = Path("build/load.html"),
    allow_host: Annotated[
        list[str] | None, typer.Option(help="A further host that TwiML may lead to; may be repeated.")
    ] = None,
    auth_token: AuthToken = "",
    account_sid: AccountSid = "",
    public_url: PublicURL = "",
    env_file: EnvFile = Path(".env"),
) -> None:
    """Dial a running gateway many times at once, and measure what the callers meet."""
    from dialog.cli.load import LoadOptions, make_plan, run_load

    try:
        plan = make_plan(
            env_file,
            auth_token=auth_token,
            account_sid=account_sid,
            public_url=public_url,
            url=url,
            allow_hosts=tuple(allow_host or ()),
            calls=calls,
            duration_s=duration_s,
            calls_per_s=calls_per_s,
            concurrency=concurrency,
            turns=None if turns < 0 else turns,
            call_s=call_s,
            hang_up=hang_up,
            reply_s=reply_s,
            processes=processes,
        )
    except DialogError as exc:
        _fail(exc)
    options = LoadOptions(
        script=script,
        say=tuple(say or ()),
        wavs=tuple(wav or ()),
        fail_if=tuple(fail_if or ()),
        json=json,
        page=page,
    )
    _exit(_run(run_load(Console(), plan, options)))


@app.command()
def evaluate(  # noqa: PLR0917  # options of the command line, not positions
    target: Annotated[
        str, typer.Argument(metavar="MODULE:NAME", help="main:on_voip, main:gateway, or a function that makes one")
    ],
    scenarios: Annotated[
        str, typer.Option(help="A .toml or .json file of scenarios and simulations, or 'builtin'.")
    ] = "builtin",
    seed: Annotated[int | None, typer.Option(help="Play the times of an earlier run again.")] = None,
    own_speech: Annotated[
        bool, typer.Option("--own-speech", help="Use the agent's own STT and TTS; the caller speaks with espeak.")
    ] = False,
    speed: Annotated[float, typer.Option(min=0.1, max=10.0, help="So many times as fast.")] = 1.0,
    max_latency_p50_ms: Annotated[float | None, typer.Option(help="Median time to an answer.")] = None,
    max_latency_p95_ms: Annotated[float, typer.Option(help="The slowest, one in twenty aside.")] = 2500.0,
    max_dead_air_s: Annotated[float, typer.Option(help="Longest silence in the agent's turn.")] = 4.0,
    json: Annotated[Path | None, typer.Option(help="Write the result as JSON.")] = None,
    junit: Annotated[Path | None, typer.Option(help="Write the result as JUnit's XML.")] = None,
    customer: Annotated[
        str, typer.Option(help="The model that plays the customers of simulations: openai, or anthropic/MODEL.")
    ] = "",
    customer_stt: Annotated[str, typer.Option(help="With --own-speech: the customers' STT, such as deepgram.")] = "",
    customer_tts: Annotated[str, typer.Option(help="With --own-speech: the customers' TTS.")] = "espeak",
    judge: Annotated[
        list[str] | None, typer.Option(help="A model that judges the criteria of simulations; may be repeated.")
    ] = None,
    env_file: EnvFile = Path(".env"),
) -> None:
    """Let simulated callers try your own agent, and judge it: answers, interruptions, latency, what customers get."""
    _need(check_testing)
    from dialog.cli.evaluate import EvaluatePlan, run_evaluate
    from dialog.testing.evaluate import Thresholds

    plan = EvaluatePlan(
        target=target,
        scenarios=scenarios,
        seed=seed,
        own_speech=own_speech,
        speed=speed,
        thresholds=Thresholds(
            latency_p50_ms=max_latency_p50_ms, latency_p95_ms=max_latency_p95_ms, dead_air_s=max_dead_air_s
        ),
        json=json,
        junit=junit,
        env_file=env_file,
        customer=customer,
        customer_stt=customer_stt,
        customer_tts=customer_tts,
        judges=tuple(judge or ()),
    )
    _exit(_run(run_evaluate(Console(), plan)))


@app.command()
def chat(
    target: Annotated[
        str, typer.Argument(metavar="MODULE:FUNCTION", help="main:on_voip, or a file: path/to/main.py:on_voip")
    ],
) -> None:
    """Talk to an agent in the terminal, by text: the same main.py, no sound."""
    from dialog.cli.chat import run_chat

    _exit(_run(run_chat(Console(), target)))


@app.command()
def talk(  # noqa: PLR0917  # options of the command line, not positions
    targets: Annotated[
        list[str] | None,
        typer.Argument(metavar="[MODULE:FUNCTION]...", help="main:on_voip; without it the demo's agents."),
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen at; who reaches it may talk.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, help="Port to listen at; 0: any free one.")] = 8080,
    console: Annotated[
        bool, typer.Option("--console", help="Serve the console, too: watch the calls, listen in, find them again.")
    ] = False,
    out: Annotated[Path, typer.Option(help="With --console: where calls and recordings are kept.")] = Path(
        "build/talk"
    ),
    log_level: LogLevel = "warning",
) -> None:
    """Talk to an agent in the browser, with your microphone: the same main.py, or the demo without any account."""
    from dialog.cli.talk import run_talk

    kept = out if console else None
    _exit(_run(run_talk(Console(), tuple(targets or ()), host=host, port=port, log_level=log_level, out=kept)))


@app.command()
def doctor(
    env_file: EnvFile = Path(".env"),
    local: Annotated[bool, typer.Option("--local", help="Only what the demo needs: no keys, no network.")] = False,
) -> None:
    """Check what a real call needs, and say how to fix what is wrong."""
    from dialog.cli.doctor import run_doctor

    _exit(_run(run_doctor(Console(), env_file=env_file, local=local)))


@app.command()
def gateway(  # noqa: PLR0917  # options of the command line, not positions
    target: Annotated[
        str,
        typer.Argument(
            metavar="[MODULE:NAME]",
            help="main:gateway: a TwilioGateway, or a function that makes one; without it one from the environment",
        ),
    ] = "",
    nats: Annotated[str, typer.Option(help="Give the calls to workers that meet here: nats://host:4222")] = "",
    host: ServedHost = "",
    port: ServedPort = None,
    processes: ProcessCount = 1,
    own_ports: OwnPorts = None,
    media_url: MediaURL = "",
    cert: Certificate = None,
    key: Key = None,
    leave_s: LeaveS = 5.0,
    drain_s: DrainS = 1800.0,
    log_level: LogLevel = "info",
    env_file: EnvFile = Path(".env"),
) -> None:
    """Serve a gateway with its probes, /health and /ready; on SIGTERM let its calls finish."""
    from dialog.cli.gateway import GatewayPlan, run_gateway

    plan = GatewayPlan(
        target=target,
        nats=nats,
        host=host,
        port=port,
        processes=processes,
        own_ports=own_ports,
        media_url=media_url,
        cert=cert,
        key=key,
        leave_s=leave_s,
        drain_s=drain_s,
        log_level=log_level,
        env_file=env_file,
    )
    _exit(_run(run_gateway(Console(), plan)))


@app.command(name="serve")
def serve_(  # noqa: PLR0917  # options of the command line, not positions
    target: Annotated[
        str,
        typer.Argument(
            metavar="[MODULE:NAME]",
            help="app:config: a ServiceConfig, a Service, or a function that makes one; else from the environment",
        ),
    ] = "",
    host: ServedHost = "",
    port: ServedPort = None,
    processes: ProcessCount = 1,
    own_ports: OwnPorts = None,
    media_url: MediaURL = "",
    reload: Annotated[
        bool, typer.Option("--reload", help="Start again when Python files or .env change; for development.")
    ] = False,
    cert: Certificate = None,
    key: Key = None,
    leave_s: LeaveS = 5.0,
    drain_s: DrainS = 1800.0,
    log_level: LogLevel = "info",
    env_file: EnvFile = Path(".env"),
) -> None:
    """Serve agents on phone numbers, with a REST API: from a configuration, or from the environment alone."""
    from dialog.cli.serve import ServePlan, run_reloading, run_serve

    if reload:
        arguments = [*filter(None, [target]), "--log-level", log_level, "--env-file", str(env_file)]
        given = {"host": host, "port": port, "cert": cert, "key": key, "processes": processes}
        for name, value in {**given, "own-ports": own_ports, "media-url": media_url}.items():
            arguments += [] if value in (None, "") else [f"--{name}", str(value)]
        _exit(_run(run_reloading(Console(), arguments)))
    plan = ServePlan(
        target=target,
        host=host,
        port=port,
        processes=processes,
        own_ports=own_ports,
        media_url=media_url,
        cert=cert,
        key=key,
        leave_s=leave_s,
        drain_s=drain_s,
        log_level=log_level,
        env_file=env_file,
    )
    _exit(_run(run_serve(Console(), plan)))


@app.command()
def worker(  # noqa: PLR0917  # options of the command line, not positions
    target: Annotated[str, typer.Argument(metavar="MODULE:FUNCTION", help="main:on_voip, as for a gateway")],
    nats: Annotated[str, typer.Option(help="Where the fleet meets; else NATS_URL.")] = "",
    processes: Annotated[int, typer.Option(min=1, help="So many processes, as a rule one for each core.")] = 1,
    calls_per_process: Annotated[int, typer.Option(min=1, help="Calls that each of them takes.")] = 200,
    labels: Annotated[str, typer.Option(help="What calls may ask for, with commas: gpu,german")] = "",
    prewarm: Annotated[str, typer.Option(help="module:function that each process runs before its first call.")] = "",
    memory_mb: Annotated[
        float | None, typer.Option(min=1.0, help="A process that takes more is replaced when its calls have ended.")
    ] = None,
    drain_s: Annotated[float, typer.Option(min=0.0, help="Calls may go on for so long after SIGTERM.")] = 1800.0,
    health_host: Annotated[str, typer.Option(help="Address of the probes.")] = "0.0.0.0",  # noqa: S104 - as above
    health_port: Annotated[int, typer.Option(help="Port of /health, /ready and /metrics; 0: none.")] = 0,
    log_level: LogLevel = "info",
    env_file: EnvFile = Path(".env"),
) -> None:
    """Run the agents of a fleet's calls on this machine; on SIGTERM let them finish."""
    from dialog.cli.worker import WorkerPlan, run_worker

    plan = WorkerPlan(
        target=target,
        nats=nats,
        processes=processes,
        calls_per_process=calls_per_process,
        labels=labels,
        prewarm=prewarm,
        memory_mb=memory_mb,
        drain_s=drain_s,
        health_host=health_host,
        health_port=health_port,
        log_level=log_level,
        env_file=env_file,
    )
    _exit(_run(run_worker(Console(), plan)))


_db = typer.Typer(help="The tables of a call log.", no_args_is_help=True)
app.add_typer(_db, name="db")
_LogURL = Annotated[str, typer.Argument(envvar="CALL_LOG_URL", help="sqlite:///calls.db, postgresql://…")]


@_db.command()
def upgrade(url: _LogURL) -> None:
    """Make the tables, or bring them up to date; a call log that is opened does that by itself."""
    from dialog.cli.db import run_upgrade

    _exit(_run(run_upgrade(Console(), url)))


@_db.command()
def revision(url: _LogURL) -> None:
    """Tell which tables there are; fails unless they are those of this version."""
    from dialog.cli.db import run_revision

    _exit(_run(run_revision(Console(), url)))


@app.command()
def dial(  # noqa: PLR0917  # options of the command line, not positions
    target: Annotated[
        str, typer.Argument(metavar="MODULE:NAME", help="main:on_voip, or main:gateway with its own settings")
    ],
    numbers: Annotated[
        Path, typer.Argument(exists=True, dir_okay=False, help="CSV with a heading; its columns are told to the agent.")
    ],
    from_: Annotated[str, typer.Option("--from", help="Number to call from; else TWILIO_PHONE_NUMBER.")] = "",
    column: Annotated[str, typer.Option(help="The column of numbers; else number, phone, to …")] = "",
    out: Annotated[Path | None, typer.Option(help="File of results; else NUMBERS.results.csv.")] = None,
    ledger: Annotated[
        Path | None, typer.Option(help="What was dialled, so that it never is again; else NUMBERS.ledger.jsonl.")
    ] = None,
    calls_per_s: Annotated[float, typer.Option(min=0.01, help="Calls placed in a second.")] = 1.0,
    concurrency: Annotated[int, typer.Option(min=1, help="Calls at the same time.")] = 10,
    ring_s: Annotated[float, typer.Option(min=5.0, max=600.0, help="It rings so long.")] = 30.0,
    machine: Annotated[
        Literal["", "hang-up", "leave-message", "go-on"],
        typer.Option(help="Let answering machines be detected: hang-up, leave-message, go-on."),
    ] = "",
    message: Annotated[str, typer.Option(help="What a machine is told.")] = "",
    attempts: Annotated[int, typer.Option(min=1, help="So many calls to a number that is busy or silent.")] = 1,
    again_after_s: Annotated[float, typer.Option(min=0.0, help="So long after the last one.")] = 900.0,
    host: Annotated[str, typer.Option(help="Address to listen at.")] = "0.0.0.0",  # noqa: S104 - to be reached
    port: Annotated[int, typer.Option(help="Port to listen at.")] = 8080,
    cert: Certificate = None,
    key: Key = None,
    log_level: LogLevel = "warning",
    env_file: EnvFile = Path(".env"),
) -> None:
    """Call every number of a list, show how it goes, write what came of it; go on where a killed run left off."""
    from dialog.cli.dial import DialOptions, run_dial

    options = DialOptions(
        target=target,
        numbers=numbers,
        from_=from_,
        column=column,
        out=out,
        ledger=ledger,
        calls_per_s=calls_per_s,
        concurrency=concurrency,
        ring_s=ring_s,
        machine=machine,
        message=message,
        attempts=attempts,
        again_after_s=again_after_s,
        host=host,
        port=port,
        cert=cert,
        key=key,
        log_level=log_level,
        env_file=env_file,
    )
    _exit(_run(run_dial(Console(), options)))


@app.command()
def new(
    directory: Annotated[Path, typer.Argument(help="A new or empty directory.")],
) -> None:
    """Start a project: an agent, its settings, a test that dials it, and a container."""
    from dialog.cli.new import make_project

    _need(lambda: make_project(Console(), directory))


def _need(check: Callable[[], object]) -> None:
    try:
        check()
    except DialogError as exc:
        _fail(exc)


def _run(work: Coroutine[Any, Any, int]) -> int:
    """Run a command on the fastest loop there is; its failures become one line."""
    try:
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            return runner.run(work)
    except DialogError as exc:
        _fail(exc)
    except KeyboardInterrupt:
        return 130


def _fail(exc: DialogError) -> NoReturn:
    Console(stderr=True).print(f"[bold red]error[/] {escape(str(exc))}", highlight=False, soft_wrap=True)
    raise typer.Exit(1) from exc


def _exit(code: int) -> None:
    raise typer.Exit(code)

"""Looks for inputs on which a parser fails, guided by coverage (atheris, which is libFuzzer): ``make fuzz``.

Each parser gets so many minutes, as many at a time as there are cores (``--jobs``). What it has learnt stays in
build/fuzz, where the next run goes on. An input that fails is put there too, and named at the end: mend the parser, and add the input to
tests/fuzz/corpus, from which the suite reads it in every run.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import os
import pkgutil
import re
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor, as_completed
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).parents[2]
CORPUS = Path(__file__).parent / "corpus"
BUILD = ROOT / "build" / "fuzz"
MAX_INPUT = 8192
"""More than there are digits in the longest number that int() takes."""
HANGS_S = 10
MEMORY_MB = 2048
START_S = 10
"""What it takes to begin, at most, on a machine that has nothing else to do."""
PARSERS = (
    "agent/toolschema.py",
    "calls/checkpoint.py",
    "calls/delivery/signature.py",
    "calls/redact.py",
    "llm/chat.py",
    "llm/decoding.py",
    "llm/messages.py",
    "llm/refusals.py",
    "llm/response_events.py",
    "llm/sse.py",
    "net/azure.py",
    "net/connections.py",
    "net/frames.py",
    "net/http1.py",
    "net/malformed.py",
    "s2s/*_protocol.py",
    "s2s/*_wire.py",
    "server/api/auth.py",
    "server/api/core.py",
    "server/api/elsewhere.py",
    "server/api/operations.py",
    "server/console/core.py",
    "server/console/viewer.py",
    "server/console/visitors.py",
    "stt/azure_wire.py",
    "stt/cartesia.py",
    "stt/deepgram.py",
    "stt/elevenlabs.py",
    "stt/flux.py",
    "stt/openai.py",
    "testing/llm_judge.py",
    "tts/azure.py",
    "tts/cartesia.py",
    "tts/deepgram.py",
    "tts/elevenlabs.py",
    "tts/http.py",
    "tts/openai.py",
    "voip/carrier/exchange.py",
    "voip/carrier/http.py",
    "voip/sip/messages.py",
    "voip/sip/rtp.py",
    "voip/sip/sdp.py",
    "voip/streams/detect.py",
    "voip/streams/dialect.py",
    "voip/streams/exotel.py",
    "voip/streams/plivo.py",
    "voip/streams/webhooks.py",
    "voip/telnyx/events.py",
    "voip/telnyx/exchange.py",
    "voip/telnyx/signature.py",
    "voip/telnyx/stream.py",
    "voip/telnyx/webhooks.py",
    "voip/twilio/exchange.py",
    "voip/twilio/forms.py",
    "voip/twilio/messages.py",
    "voip/twilio/signature.py",
    "voip/twilio/stream.py",
    "voip/twilio/webhooks.py",
    "voip/web/messages.py",
    "voip/web/session.py",
    "voip/web/rtc/reorder.py",
    "voip/web/stream.py",
    "voip/web/tokens.py",
    "workers/frames.py",
    "workers/ordered.py",
    "workers/peers.py",
    "workers/relay.py",
    "workers/sockets.py",
    "workers/stream.py",
)
"""Where the parsers are. Adapters are more than parsers: they also connect and send."""
ASIDE = ("agent", "answers", "audio", "mcp", "providers", "testing", "vad")
"""Packages that read nothing from a network, but for parsers named above: to watch their branches takes longer to begin
with than all others do."""
OF_AIORTC = ("rtcpeerconnection", "rtcrtpparameters", "sdp")
"""What of aiortc reads offers; the rest waits for packets."""
_STATE = re.compile(r"#(\d+)\s+\w+\s+cov: (\d+) ft: \d+ corp: (\d+)/")
_DONE = re.compile(r"Done (\d+) runs")


def fuzz(name: str) -> None:
    """Fuzz one parser in this process, for ever or as the arguments of libFuzzer say."""
    import atheris

    sys.path.insert(0, str(Path(__file__).parent))
    with atheris.instrument_imports(include=["dialog", "sipmessage", "aiortc"], exclude=aside()):
        import targets
    import inputs

    inputs.RUNNER = asyncio.Runner()
    atheris.Setup(sys.argv, targets.TARGETS[name])
    atheris.Fuzz()


def aside() -> list[str]:
    """The modules whose branches are not watched."""
    library = ROOT / "dialog"
    paths = (path.relative_to(library) for name in ASIDE for path in (library / name).rglob("*.py"))
    ours = [f"dialog.{'.'.join(path.with_suffix('').parts)}" for path in paths if str(path) not in PARSERS]
    places = getattr(find_spec("aiortc"), "submodule_search_locations", None)
    theirs = (each.name for each in pkgutil.iter_modules(places) if each.name not in OF_AIORTC)
    return [*ours, *(f"aiortc.{name}" for name in theirs)]


def words(name: str) -> list[str]:
    """The option for a dictionary of the names and words in the examples, of which new inputs are made."""
    data = b"\n".join(path.read_bytes() for path in (CORPUS / name).iterdir())
    found = sorted(set(re.findall(rb"[A-Za-z_][A-Za-z0-9_.:/-]{2,30}", data)))
    path = BUILD / f"{name}.dict"
    path.write_text("".join(f'"{word.decode()}"\n' for word in found[:500]))
    return [f"-dict={path}"] if found else []


def run(name: str, seconds: int) -> tuple[str, bool, str]:
    """Fuzz one parser in a process of its own; a line about it, whether it stood, and all that it has printed."""
    learnt, failed = BUILD / name, BUILD / "failed"
    for folder in (learnt, failed):
        folder.mkdir(parents=True, exist_ok=True)
    command = [
        *(sys.executable, str(Path(__file__)), "--one", name, str(learnt), str(CORPUS / name)),
        *(f"-max_total_time={seconds}", f"-max_len={MAX_INPUT}", f"-timeout={HANGS_S}", f"-rss_limit_mb={MEMORY_MB}"),
        *words(name),
        "-keep_seed=1",  # decoders in C show no branches: an example of another message would look like one more of the same
        *(f"-artifact_prefix={failed}/{name}-", "-print_final_stats=0"),
    ]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    states = _STATE.findall(done.stderr)
    runs = _DONE.findall(done.stderr)
    covered, inputs = (states[-1][1], states[-1][2]) if states else ("0", "0")
    line = f"{name:22} {runs[-1] if runs else states[-1][0] if states else 0} runs, {covered} edges, {inputs} inputs"
    interrupted = done.returncode == -signal.SIGINT or "\nKeyboardInterrupt" in done.stderr
    stood = done.returncode == 0 or interrupted
    if not stood:
        (failed / f"{name}.log").write_text(done.stdout + done.stderr)
        line += "   FAILED"
    return line, stood, done.stdout + done.stderr


def coverage() -> None:
    """Read all examples and all that was learnt, and print how much of the parsers that runs."""
    from coverage import Coverage

    sys.path.insert(0, str(Path(__file__).parent))
    measured = Coverage(branch=True, data_file=None, include=[str(ROOT / "dialog" / each) for each in PARSERS])
    measured.start()
    import inputs
    import targets

    inputs.RUNNER = asyncio.Runner()
    for name, target in targets.TARGETS.items():
        for path in (*(CORPUS / name).iterdir(), *(BUILD / name).glob("*")):
            target(path.read_bytes())
    measured.stop()
    measured.report(show_missing=False, skip_covered=False, precision=0)


def main() -> int:
    """Fuzz all parsers, or those that are named."""
    names = sorted(path.name for path in CORPUS.iterdir())
    parser = argparse.ArgumentParser(description="Fuzz the parsers of what comes from the network.")
    parser.add_argument("names", nargs="*", default=[], help="parsers; unless given, all")
    parser.add_argument("--minutes", type=float, default=10.0, help="for each parser")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="so many at a time")
    parser.add_argument(
        "--coverage", action="store_true", help="do not look for more: how much is run by what there is"
    )
    chosen = parser.parse_args()
    if chosen.coverage:
        coverage()
        return 0
    if unknown := set(chosen.names) - set(names):
        parser.error(f"there is no {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    BUILD.mkdir(parents=True, exist_ok=True)
    chosen_names = chosen.names or names
    seconds, jobs = max(1, round(60 * chosen.minutes)), max(1, chosen.jobs)
    in_all = math.ceil(len(chosen_names) / jobs) * (seconds + START_S) / 60
    print(
        f"{len(chosen_names)} parsers, {seconds} s each, {jobs} at a time: about {in_all:.0f} min. Runs are inputs that "
        "were tried, edges the branches that they reach, inputs those that are kept.",
        flush=True,
    )
    stood, broken = 0, list[tuple[str, str]]()
    with ThreadPoolExecutor(jobs) as pool:
        running = {pool.submit(run, name, seconds): name for name in chosen_names}
        try:
            for number, each in enumerate(as_completed(running), 1):
                line, fine, told = each.result()
                print(f"{number:3}/{len(running)}  {line}", flush=True)
                stood += fine
                if not fine:
                    broken.append((running[each], told))
        except KeyboardInterrupt:  # those that run have got it, too
            pool.shutdown(wait=True, cancel_futures=True)
            print("interrupted: what was learnt is kept")
    for name, told in broken:
        print(f"\n== {name}\n{told[-3000:]}")
    print(f"\n{stood} of {len(running)} parsers stood, {len(broken)} failed", end="")
    print(f"; inputs that fail: {BUILD / 'failed'}" if broken else "")
    return 1 if broken else 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        wanted = sys.argv[2]
        del sys.argv[1:3]
        fuzz(wanted)
    else:
        sys.exit(main())

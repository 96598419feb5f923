"""How well and how cheaply voices are detected: every detector on the same calls.

``python benchmarks/vad.py`` mixes 208 utterances of 14 voices with a room of talkers and with a bad line
at 20 to 5 dB, in 8 kHz mu-law, and prints for each detector when starts and ends are told, what is missed,
how often speech starts that is none, and what a call costs. ``--quick`` takes 42 utterances.
"""

import argparse
import asyncio
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from vad_corpus import NOISES, Corpus, Score, Stream, keys, score  # noqa: E402

from dialog.audio.vad import LevelVAD  # noqa: E402
from dialog.errors import MissingExtra  # noqa: E402
from dialog.message import MULAW_8K, Message  # noqa: E402
from dialog.vad.local import LocalVAD  # noqa: E402
from dialog.vad.vad import VAD  # noqa: E402

Told = list[tuple[str, float]]
HANG_MS = 400.0
TICKS = os.sysconf("SC_CLK_TCK")


def level(stream: Stream) -> Told:
    """LevelVAD, as LocalVAD and PocketsphinxSTT use it."""
    vad, told = LevelVAD(hang_ms=HANG_MS), []
    for at in range(0, len(stream.data), 160):
        told += [(edge.state, at / 8 + 20) for edge in vad.feed(stream.data[at : at + 160], at / 8)]
    return told


def silero(stream: Stream) -> Told:
    """SileroVAD's model, loudness and gate, in this process: what it tells, at the end of the chunk that told it."""
    from dialog.vad._silero_worker import CHUNK_MS, Job, work
    from dialog.vad.silero import Loudness, SileroGate

    gate, loudness, streams, told = SileroGate(HANG_MS), Loudness(MULAW_8K), {}, []
    for number, at in enumerate(range(0, len(stream.data) - 255, 256)):
        audio = stream.data[at : at + 256]
        (probability,) = work(streams, [Job(stream=1, audio_format=MULAW_8K, audio=audio)])
        audible = loudness.counts(audio, speaking=gate.speaking)
        edge = gate.feed(probability if audible else 0.0, number * CHUNK_MS)
        if edge is not None:
            told.append((edge.state, (number + 1) * CHUNK_MS))
    return told


def row(name: str, where: str, result: Score, target: str = "") -> None:
    print(
        f"| {name} | {where} | {result.quantile(0.5):.0f} / {result.quantile(0.95):.0f} ms | "
        f"{result.misses} | {result.early} | {result.false_per_min:.2f} | "
        f"{result.quantile(0.5, end=True):.0f} / {result.quantile(0.95, end=True):.0f} ms | {target} |",
        flush=True,
    )


def quality(name: str, detect: Callable[[Stream], Told], corpus: Corpus) -> None:
    row(name, "quiet line", score(quiet := corpus.quiet(), detect(quiet)))
    for kind in NOISES:
        for snr in (20, 15, 10, 5):
            stream = corpus.stream(kind, snr)
            result = score(stream, detect(stream))
            target = ""
            if snr == 10:
                target = "<= 100 ms: " + ("reached" if result.quantile(0.5) <= 100 else "MISSED")
            row(name, f"{kind}, {snr} dB", result, target)
    pressed = Stream(keys(), [])
    false = sum(1 for state, _ in detect(pressed) if state == "started")
    print(f"| {name} | 100 keys pressed, {pressed.ms / 1000:.0f} s | | | | {false} starts | | |", flush=True)


def child_cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


async def cost(vad: VAD, stream: Stream, seconds: float) -> tuple[float, float]:
    """Percent of a core that a call takes: of the event loop's process, of the detector's own."""
    vad.open(MULAW_8K)
    call, spent, count = uuid4(), 0.0, int(seconds * 50)
    process = getattr(vad, "_process", None)
    waiting = getattr(vad, "_chunks", ())
    for index in range(count):
        frame = stream.data[index * 160 : index * 160 + 160]
        started = time.process_time()
        vad.post(Message(uuid=call, data=frame, at_ms=index * 20.0))
        if index % 10 == 9 and process is not None:
            while waiting:
                await asyncio.sleep(0.0005)
        spent += time.process_time() - started
    own = child_cpu_s(process.pid) if process is not None else 0.0
    vad.dispose()
    await vad.wait_disposed()
    return 100 * spent / seconds, 100 * own / seconds


async def main(arguments: argparse.Namespace) -> None:
    corpus = Corpus(42 if arguments.quick else 208, seed=arguments.seed)
    print(f"seed {arguments.seed}, {len(corpus.utterances)} utterances, {HANG_MS:.0f} ms of silence end speech\n")
    print("| detector | audio | start p50 / p95 | missed | early | false starts a minute | end p50 / p95 | to reach |")
    print("|---|---|---:|---:|---:|---:|---:|---|")
    detectors: dict[str, tuple[Callable[[Stream], Told], Callable[[], VAD]]] = {"LevelVAD": (level, LocalVAD)}
    try:
        from dialog.vad.silero import SileroVAD

        SileroVAD().dispose()
        # For the model in this process; SileroVAD sets it for its own. Read when the library is loaded.
        os.environ |= {"OMP_THREAD_LIMIT": "1", "OMP_WAIT_POLICY": "passive"}
        detectors["SileroVAD"] = silero, SileroVAD
    except MissingExtra as exc:
        print(exc, file=sys.stderr)
    for name, (detect, _) in detectors.items():
        quality(name, detect, corpus)
    print()
    stream = corpus.stream("babble", 15)
    for name, (_, make) in detectors.items():
        loop, own = await cost(make(), stream, 60.0)
        verdict = "reached" if loop + own < 1.5 else "MISSED"
        print(f"{name}: a call takes {loop:.3f} % of a core on the loop and {own:.3f} % beside it (< 1.5 %: {verdict})")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a fifth of the utterances")
    parser.add_argument("--seed", type=int, default=1, help="of levels, pauses and noises")
    asyncio.run(main(parser.parse_args()))

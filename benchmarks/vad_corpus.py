"""Calls with known speech for voice detectors: many voices, over babble or a bad line, 8 kHz mu-law.

Everything is drawn from a seed; only the voices, which carry their oscillators' state from one
utterance to the next, are the same only for the same order of utterances in a new process.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from dialog.audio import tones
from dialog.audio.g711 import mulaw_encode
from dialog.tts.espeak import speak

RATE = 8000
VOICES = (
    "en-us", "en", "en-gb-x-rp", "en-gb-scotland", "en-us-nyc", "en-029",
    "en-us+m1", "en-us+m3", "en-us+m7", "en-us+f2", "en-us+f3", "en-gb-x-rp+f2", "en+f4", "en-us+whisper",
)  # fmt: skip
SENTENCES = (
    "hello i would like to book a table for four people", "tomorrow evening at seven thirty please",
    "my name is john miller", "yes that is correct", "goodbye and thank you for your help",
    "what are your opening hours on sunday", "i need to cancel my reservation",
    "can i move my appointment to thursday morning", "do you have vegetarian food",
    "is there parking near the restaurant", "my order number is four two seven nine", "i forgot my password",
    "the internet connection is very slow today", "could you repeat that please",
    "i want to talk to a human please", "yes", "no", "wait", "stop", "hm okay", "for six people", "sure why not",
    "fourteen main street", "she sells sea shells", "friday the thirteenth", "please hold on",
)  # fmt: skip
NOISES = ("babble", "line")


@dataclass
class Stream:
    """A call's audio and where speech is in it."""

    data: bytes
    """Mu-law."""
    speech: list[tuple[float, float]]
    """Start and end of each utterance in ms."""

    @property
    def ms(self) -> float:
        return len(self.data) / 8


def samples(pcm: bytes) -> np.ndarray:
    return np.frombuffer(pcm, "<i2").astype(np.float64)


def blocks_dbfs(audio: np.ndarray, ms: float = 10.0) -> np.ndarray:
    size = int(RATE * ms / 1000)
    whole = audio[: len(audio) // size * size].reshape(-1, size)
    return 10 * np.log10(np.mean((whole / 32768) ** 2, axis=1) + 1e-12)


def active_dbfs(audio: np.ndarray) -> float:
    """Level of the part of the audio that is speech, in the manner of ITU-T P.56: what lies within 16 dB of it."""
    levels = blocks_dbfs(audio, 20.0)
    active = levels.max() - 10
    for _ in range(5):
        inside = levels[levels > active - 16]
        active = 10 * np.log10(np.mean(10 ** (inside / 10)))
    return float(active)


def scale(audio: np.ndarray, level_dbfs: float) -> np.ndarray:
    now = 10 * np.log10(np.mean((audio / 32768) ** 2) + 1e-12)
    return audio * 10 ** ((level_dbfs - now) / 20)


def speech_span(audio: np.ndarray, active: float) -> tuple[float, float]:
    """Where the voice is, in ms: from the first to the last 10 ms within 20 dB of its active level."""
    (loud,) = np.nonzero(blocks_dbfs(audio) > active - 20)
    return float(loud[0]) * 10, float(loud[-1] + 1) * 10


class Corpus:
    """``count`` utterances and the noises to bury them in.

    Args:
        count: Utterances; voices and sentences take turns.
        seed: Of levels, pauses and noises.
    """

    def __init__(self, count: int = 200, *, seed: int = 1) -> None:
        rng = random.Random(seed)
        self.utterances: list[np.ndarray] = []
        """At an active level of -26 dBFS, give or take 4."""
        self.spans: list[tuple[float, float]] = []
        self.levels: list[float] = []
        self.pauses_ms: list[float] = []
        for index in range(count):
            text = SENTENCES[(index * 7) % len(SENTENCES)]
            audio = samples(speak(text, voice=VOICES[index % len(VOICES)], rate=rng.choice((130, 160, 190))))
            level = -26.0 + rng.uniform(-4, 4)
            audio = audio * 10 ** ((level - active_dbfs(audio)) / 20)
            self.utterances.append(audio)
            self.spans.append(speech_span(audio, level))
            self.levels.append(level)
            self.pauses_ms.append(rng.uniform(1500, 3500))
        self._babble = self._make_babble(rng)

    @staticmethod
    def _make_babble(rng: random.Random, seconds: float = 45.0, voices: int = 6) -> np.ndarray:
        """Six voices that talk without a pause: a room behind the caller."""
        total = np.zeros(int(seconds * RATE))
        for voice in rng.sample(VOICES[:-1], voices):
            pieces, have = [], 0
            while have < len(total):
                piece = samples(speak(rng.choice(SENTENCES), voice=voice, rate=rng.choice((150, 180))))
                pieces.append(scale(piece, -26))
                have += len(piece)
            total += np.roll(np.concatenate(pieces)[: len(total)], rng.randrange(len(total)))
        return scale(total, -26)

    def noise(self, kind: str, size: int, level_dbfs: float, rng: random.Random) -> np.ndarray:
        if kind == "babble":
            start = rng.randrange(len(self._babble))
            rounds = -(-(start + size) // len(self._babble))
            return scale(np.tile(self._babble, rounds)[start : start + size], level_dbfs)
        # A line: mains hum with overtones, white noise, both at the same level; a click now and then.
        at = np.arange(size) / RATE
        hum = sum(np.sin(2 * np.pi * hz * at + hz) / part for part, hz in ((1, 50), (2, 150), (3, 250)))
        draw = np.random.default_rng(rng.randrange(1 << 30))
        out = scale(scale(hum, -30) + scale(draw.normal(size=size), -30), level_dbfs)
        for _ in range(int(size / RATE / 2)):
            click = rng.randrange(max(1, size - 80))
            out[click : click + 40] += draw.normal(size=len(out[click : click + 40])) * 3000
        return out

    def stream(self, kind: str, snr_db: float, *, seed: int = 2) -> Stream:
        """All utterances in one call, each with noise ``snr_db`` under its own level."""
        rng = random.Random(f"{seed} {kind} {snr_db}")
        pieces: list[np.ndarray] = []
        speech: list[tuple[float, float]] = []
        at_ms = 0.0
        # The room does not know how loud the caller will speak: it is as loud for all of them.
        noise_dbfs = float(np.mean(self.levels)) - snr_db
        for audio, span, level, pause in zip(self.utterances, self.spans, self.levels, self.pauses_ms, strict=True):
            quiet = np.zeros(int(pause * RATE / 1000))
            voice = audio * 10 ** ((noise_dbfs + snr_db - level) / 20)
            pieces += [quiet, voice]
            at_ms += len(quiet) * 1000 / RATE
            speech.append((at_ms + span[0], at_ms + span[1]))
            at_ms += len(voice) * 1000 / RATE
        pieces.append(np.zeros(2 * RATE))
        clean = np.concatenate(pieces)
        noisy = clean + self.noise(kind, len(clean), noise_dbfs, rng)
        return Stream(mulaw_encode(np.clip(noisy, -32768, 32767).astype("<i2").tobytes()), speech)

    def quiet(self) -> Stream:
        """The same on a clean line, with a noise of -65 dBFS."""
        return self.stream("line", -65.0 * -1 + float(np.mean(self.levels)))


def keys(seed: int = 3, count: int = 100) -> bytes:
    """A line on which only keys are pressed, at many levels and lengths, as mu-law."""
    rng = random.Random(seed)
    pcm = b"".join(
        tones.dtmf(rng.choice("0123456789*#ABCD"), tone_ms=rng.uniform(45, 300), pause_ms=rng.uniform(50, 700),
                   level_dbfs=rng.uniform(-32, -6))
        for _ in range(count)
    )  # fmt: skip
    audio = samples(pcm)
    noise = np.random.default_rng(seed).normal(size=len(audio)) * 20
    return mulaw_encode(np.clip(audio + noise, -32768, 32767).astype("<i2").tobytes())


@dataclass
class Score:
    """What a detector made of a stream. Times in ms; see :func:`score`."""

    start_ms: list[float]
    end_ms: list[float]
    misses: int
    early: int
    splits: int
    false_starts: int
    noise_min: float
    utterances: int

    def quantile(self, q: float, *, end: bool = False) -> float:
        values = sorted(self.end_ms if end else self.start_ms)
        return values[min(len(values) - 1, int(q * len(values)))] if values else float("nan")

    @property
    def false_per_min(self) -> float:
        return self.false_starts / self.noise_min


def score(stream: Stream, told: list[tuple[str, float]]) -> Score:
    """Compare what was told, and when, with the truth.

    Start: told after the voice's first audible 10 ms. End: told after its last. Miss: nothing until its
    end. Early: speech had (falsely) started before, so that no latency can be told. False start: told
    more than 100 ms before an utterance and more than 200 ms after one.
    """
    starts = [at for state, at in told if state == "started"]
    spans = [(a, b) for a, b in zip(
        starts, [at for state, at in told if state == "stopped"] + [stream.ms], strict=False)]  # fmt: skip
    out = Score([], [], 0, 0, 0, 0, 0.0, len(stream.speech))
    for begin, end in stream.speech:
        inside = [at for at in starts if begin - 20 <= at <= end + 100]
        over = any(a < begin - 20 and b > begin + 60 for a, b in spans)
        if over:
            out.early += 1
        elif inside:
            out.start_ms.append(inside[0] - begin)
            out.splits += len(inside) - 1
        else:
            out.misses += 1
        last = [b for a, b in spans if a < end + 100 and b >= end]
        if last:
            out.end_ms.append(last[0] - end)
    edges = [0.0, *(at for span in stream.speech for at in span), stream.ms]
    gaps = [(a + 200 * (index > 0), b - 100) for index, (a, b) in enumerate(pairwise(edges)) if index % 2 == 0]
    out.noise_min = sum(b - a for a, b in gaps) / 60_000
    out.false_starts = sum(1 for at in starts if any(a < at < b for a, b in gaps))
    return out

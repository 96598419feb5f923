"""Whole utterances to sentences of a grammar, or to "not understood". Runs in the worker process.

pocketsphinx holds the interpreter's lock while it decodes (some 50 to 100 ms), so nothing here may
run beside an event loop.

Two recognisers judge each utterance. The first follows the grammar and forces one of its sentences
on whatever it hears. The second knows no words, only phones in any order, so it always fits at least
as well. How much better it fits, for each frame of speech, tells whether the sentence was said: it
is little for a sentence of the grammar, whatever the voice, and much for anything else.
"""

from __future__ import annotations

import importlib
import math
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec import Struct

from dialog.audio.g711 import mulaw_decode
from dialog.errors import ConfigurationError, MissingExtra
from dialog.message import AudioFormat
from dialog.stt.grammar import Grammar

__all__ = ["Recognised", "Recogniser", "missing_words", "recogniser"]

_NOISE = 45.0
"""Standard deviation of the noise that is added: digital silence ruins the cepstra."""
_SEED = 7
_MISFIT = 22.0
"""How much better the phones may fit, in steps of the engine's logarithm (base 1.0001) per frame of
speech, for the sentence still to count."""
_FRAME_MS = 10.0
_LEAST_PHONES = 4
"""Fewer phones are a cough or a knock, not words: noise of any length gave three at most."""


class Recognised(Struct, frozen=True, kw_only=True):
    """What an utterance was taken for."""

    text: str = ""
    """The sentence, or its beginning when it was not over; empty when it was not understood."""
    words: tuple[tuple[str, float, float], ...] = ()
    """Word, start and end in milliseconds from the start of the audio."""
    speech: bool = False
    """Somebody spoke, understood or not."""
    misfit: float = math.inf
    """How badly the best sentence fits; see the module."""

    @property
    def confidence(self) -> float:
        """1 for a sentence that fits like the phones themselves, 0.5 at the edge of being refused."""
        return max(0.0, min(1.0, 1.0 - 0.5 * self.misfit / _MISFIT)) if self.text else 0.0


def missing_words(grammar: Grammar) -> tuple[str, ...]:
    """The words of a grammar that neither the dictionary nor its own pronunciations have.

    Raises:
        MissingExtra: pocketsphinx is not installed.
    """
    return tuple(sorted(grammar.words - _dictionary(grammar.words)[1] - set(grammar.pronunciations)))


def _pocketsphinx() -> Any:
    """The package, which has no types."""
    try:
        return importlib.import_module("pocketsphinx")
    except ImportError as exc:
        raise MissingExtra("pocketsphinx", "local") from exc


@lru_cache(maxsize=4)
def _dictionary(words: frozenset[str]) -> tuple[str, frozenset[str]]:
    """The lines of the dictionary that these words need, and the words found."""
    get_model_path = _pocketsphinx().get_model_path
    lines: list[str] = []
    found: set[str] = set()
    with Path(get_model_path("en-us/cmudict-en-us.dict")).open(encoding="utf-8") as dictionary:
        for line in dictionary:
            word = line.split(" ", 1)[0].split("(", 1)[0]
            if word in words:
                found.add(word)
                lines.append(line)
    return "".join(lines), frozenset(found)


@lru_cache(maxsize=1)
def _phones() -> Any:
    """The recogniser of phones, the same for every grammar."""
    # Beams far narrower than the default: 45 ms instead of 130 for an utterance, and as good a judge.
    engine = _pocketsphinx()
    model = engine.get_model_path("en-us/en-us-phone.lm.bin")
    return engine.Decoder(loglevel="FATAL", lm=None, allphone=model, lw=1.0, beam=1e-5, pbeam=1e-5)


class Recogniser:
    """The recogniser of one grammar.

    Raises:
        MissingExtra: pocketsphinx is not installed.
        ConfigurationError: A word has no pronunciation, or one that does not consist of phones.
    """

    def __init__(self, grammar: Grammar) -> None:
        missing = missing_words(grammar)
        if missing:
            raise ConfigurationError(
                f"pocketsphinx: no pronunciation for {', '.join(missing)}; "
                "use other words, or give them in the grammar's pronunciations"
            )
        self._sentences = frozenset(grammar.sentences)
        with tempfile.TemporaryDirectory(prefix="dialog-") as folder:
            dictionary = Path(folder) / "words.dict"
            dictionary.write_text(_dictionary(grammar.words)[0], encoding="utf-8")
            self._decoder = _pocketsphinx().Decoder(loglevel="FATAL", lm=None, dict=str(dictionary))
        for word in sorted(grammar.words & grammar.pronunciations.keys()):
            self._pronounce(word, grammar.pronunciations[word])
        self._decoder.add_jsgf_string("sentences", grammar.jsgf())
        self._decoder.activate_search("sentences")

    def _pronounce(self, word: str, ways: tuple[str, ...]) -> None:
        for number, phones in enumerate(ways):
            # Variants have a number; these stay clear of the dictionary's own.
            name = word if self._decoder.lookup_word(word) is None else f"{word}({number + 20})"
            try:
                self._decoder.add_word(name, phones, True)
            except RuntimeError as exc:
                raise ConfigurationError(f"pocketsphinx: bad pronunciation of {word}: {phones!r}") from exc

    def hear(self, audio: bytes, audio_format: AudioFormat, *, over: bool = True) -> Recognised:
        """Judge an utterance, whole or, with ``over=False``, as far as it has come."""
        pcm = prepared(audio, audio_format)
        phones, phones_score = _decode(_phones(), pcm)
        speech = len(phones) >= _LEAST_PHONES
        words, score = _decode(self._decoder, pcm)
        frames = sum(end - start for _, start, end in words) / _FRAME_MS
        misfit = (phones_score - score) / frames if frames else math.inf
        text = " ".join(word for word, _, _ in words)
        if not over:
            # The last word may still become another.
            words = words[:-1]
            text = " ".join(word for word, _, _ in words)
        elif text not in self._sentences:
            misfit = math.inf
        if not speech or misfit > _MISFIT:
            return Recognised(speech=speech, misfit=misfit)
        return Recognised(text=text, words=words, speech=True, misfit=misfit)


def _decode(decoder: Any, pcm: bytes) -> tuple[tuple[tuple[str, float, float], ...], float]:
    """What was heard, without pauses and noises, and the logarithm of its likelihood in the engine's steps."""
    # The cepstral mean starts anew, so a result does not depend on the utterances before it.
    decoder.reinit_feat()
    decoder.start_utt()
    decoder.process_raw(pcm, full_utt=True)
    decoder.end_utt()
    hypothesis = decoder.hyp()
    if hypothesis is None or hypothesis.score <= 0:
        return (), -math.inf
    heard = tuple(
        (segment.word.split("(", 1)[0], segment.start_frame * _FRAME_MS, (segment.end_frame + 1) * _FRAME_MS)
        for segment in decoder.seg()
        if segment.word[0] not in "<[+(" and segment.word != "SIL"
    )
    return heard, math.log(hypothesis.score) / math.log(1.0001)


@lru_cache(maxsize=1)
def _doubling() -> npt.NDArray[np.float64]:
    """The filter for doubling a rate: 63 taps, half down at the old band's edge."""
    taps = np.arange(-31, 32)
    return np.sinc(taps / 2) * np.kaiser(63, 8.0)


def prepared(audio: bytes, audio_format: AudioFormat) -> bytes:
    """Audio as the recogniser wants it: s16le at 16 kHz, with a little noise, the same every time."""
    pcm = mulaw_decode(audio) if audio_format.encoding == "mulaw" else audio
    samples = np.frombuffer(pcm, "<i2").astype(np.float64)
    if audio_format.sample_rate == 8000 and len(samples):
        # Not the resampler of the live path: that one cuts at 3.7 kHz, and what lies between there
        # and 4 kHz is worth 2 % of the sentences to this model.
        doubled = np.zeros(2 * len(samples))
        doubled[::2] = samples
        samples = np.convolve(doubled, _doubling(), mode="same")
    samples += np.random.default_rng(_SEED).normal(0.0, _NOISE, len(samples))
    return np.clip(np.rint(samples), -32768, 32767).astype("<i2").tobytes()


@lru_cache(maxsize=16)
def _made(encoded: bytes) -> Recogniser:
    return Recogniser(msgspec.msgpack.decode(encoded, type=Grammar))


def recogniser(grammar: Grammar) -> Recogniser:
    """The recogniser of a grammar; the sixteen newest are kept (7 MB each)."""
    return _made(msgspec.msgpack.encode(grammar))

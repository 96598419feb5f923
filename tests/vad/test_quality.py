"""The figures of voice detection hold: a small part of benchmarks/vad.py, with room for other machines' voices."""

from __future__ import annotations

import importlib.util
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("numpy", "espeakng_loader"))), reason="needs the local extra"
)
BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def vad_corpus():
    sys.path.insert(0, str(BENCHMARKS))
    try:
        import vad_corpus
    finally:
        sys.path.remove(str(BENCHMARKS))
    return vad_corpus


def make_corpus():
    sys.path.insert(0, str(BENCHMARKS))
    import vad_corpus

    return vad_corpus.Corpus(56, seed=4)


@pytest.fixture(scope="module")
def corpus(vad_corpus):
    # In a process of its own: the voice's library remembers what it has spoken before, and the corpus would depend on
    # the tests that ran earlier.
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as fresh:
        return fresh.submit(make_corpus).result(timeout=50)


def judged(vad_corpus, stream):
    from dialog.audio.vad import LevelVAD

    vad, told = LevelVAD(hang_ms=400), []
    for at in range(0, len(stream.data), 160):
        told += [(edge.state, at / 8 + 20) for edge in vad.feed(stream.data[at : at + 160], at / 8)]
    return vad_corpus.score(stream, told)


@pytest.mark.parametrize("kind", ["babble", "line"])
def test_speech_is_told_within_100_ms_at_10_db(vad_corpus, corpus, kind: str) -> None:
    result = judged(vad_corpus, corpus.stream(kind, 10))
    print(f"{kind}: p50 {result.quantile(0.5):.0f} ms, p95 {result.quantile(0.95):.0f} ms, "
          f"{result.false_per_min:.2f} false starts a minute")  # fmt: skip
    assert result.quantile(0.5) <= 100
    assert result.quantile(0.95) <= 220
    assert result.misses <= 1
    assert result.early <= 3
    assert result.false_per_min <= 1.5
    assert result.quantile(0.5, end=True) <= 450
    assert result.quantile(0.95, end=True) <= 2500


def test_on_a_quiet_line_with_clicks_nothing_is_missed_and_little_made_up(vad_corpus, corpus) -> None:
    result = judged(vad_corpus, corpus.quiet())
    assert result.misses == 0
    assert result.early <= 2
    assert result.quantile(0.5) <= 70
    assert result.false_per_min <= 1.5
    assert result.quantile(0.95, end=True) <= 500


def test_the_score_convicts_a_deaf_and_a_nervous_detector(vad_corpus, corpus) -> None:
    stream = corpus.stream("line", 20)
    deaf = vad_corpus.score(stream, [])
    assert deaf.misses == deaf.utterances == 56
    nervous = [edge for at in range(0, int(stream.ms), 300) for edge in (("started", at), ("stopped", at + 150.0))]
    assert vad_corpus.score(stream, nervous).false_per_min > 60


def test_keys_start_nothing(vad_corpus) -> None:
    data = vad_corpus.keys()
    assert judged(vad_corpus, vad_corpus.Stream(data, [])).false_starts == 0

"""The worklets of the JavaScript client: resampling without loss, and a buffer that plays in order and forgets nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from browsers import chromium

import dialog.web.talk

WORKLETS = dialog.web.talk.client_files()["dialog-audio.js"]
assert isinstance(WORKLETS, Path)

# The names that the audio thread has, and a port whose messages can be read.
STAGE = """
var sampleRate = 48000, currentTime = 0, made = {};
class AudioWorkletProcessor { constructor() { this.port = { sent: [], postMessage(m) { this.sent.push(m); } }; } }
function registerProcessor(name, made_) { made[name] = made_; }
"""
PLAY = """
({ rate, says, quanta }) => {
  const node = new made["dialog-playback"]({ processorOptions: { rate } });
  const out = [], marks = [];
  for (let quantum = 0; quantum < quanta; quantum++) {
    for (const [when, what] of says) {
      if (when !== quantum) continue;
      node.take(Array.isArray(what) ? { audio: new Int16Array(what).buffer } : what);
    }
    const channel = new Float32Array(128);
    node.process([], [[channel, new Float32Array(128)]]);
    out.push(...channel);
    currentTime += 128 / sampleRate;
    for (const each of node.port.sent.splice(0)) for (const name of each.marks ?? []) marks.push([quantum, name]);
  }
  return { out, marks };
}
"""


@pytest.fixture
async def stage():
    async with chromium() as page:
        await page.add_script_tag(content=STAGE + WORKLETS.read_text())
        yield page


def tone(hz, rate, s):
    return np.sin(2 * np.pi * hz * np.arange(round(rate * s)) / rate)


def signal_to_noise_db(samples, hz, rate):
    """How far what is not the tone lies below it."""
    at = 2 * np.pi * hz * np.arange(len(samples)) / rate
    basis = np.stack([np.sin(at), np.cos(at)], axis=1)
    fitted = basis @ np.linalg.lstsq(basis, samples, rcond=None)[0]
    return 10 * np.log10((fitted**2).mean() / ((samples - fitted) ** 2).mean())


@pytest.mark.parametrize(("source", "target"), [(48000, 24000), (44100, 24000), (24000, 48000), (24000, 44100)])
async def test_a_tone_keeps_its_shape_and_length_in_another_rate(stage, source, target):
    samples = tone(1000, source, 0.5)
    script = """({ source, target, samples }) => {
      const resampler = new Resampler(source, target), out = [];
      for (let at = 0; at < samples.length; at += 128) out.push(...resampler.process(new Float32Array(samples.slice(at, at + 128))));
      return out;
    }"""
    out = np.array(await stage.evaluate(script, {"source": source, "target": target, "samples": samples.tolist()}))
    assert len(out) == pytest.approx(0.5 * target, abs=80)
    assert signal_to_noise_db(out[200:-200], 1000, target) > 50


async def test_what_a_lower_rate_cannot_hold_is_left_out(stage):
    script = """samples => {
      const resampler = new Resampler(48000, 24000);
      return Array.from(resampler.process(new Float32Array(samples)));
    }"""
    out = np.array(await stage.evaluate(script, tone(15000, 48000, 0.2).tolist()))
    assert np.sqrt((out[100:] ** 2).mean()) < 0.01, "it would be heard as 9 kHz"


def pcm(samples):
    return (samples * 20000).astype(int).tolist()


async def test_chunks_are_played_in_order_without_gaps_and_marks_told_in_their_place(stage):
    voice = tone(400, 48000, 0.3)
    says = [[0, pcm(voice[:4800])], [0, {"mark": "first"}], [2, pcm(voice[4800:])], [2, {"mark": "second"}]]
    heard = await stage.evaluate(PLAY, {"rate": 48000, "says": says, "quanta": 160})
    out = np.array(heard["out"])
    begin = int(np.argmax(np.abs(out) > 0.001))
    assert signal_to_noise_db(out[begin + 10 : begin + 14000], 400, 48000) > 60
    (first, one), (second, two) = heard["marks"]
    assert (one, two) == ("first", "second")
    assert first * 128 == pytest.approx(begin + 4800, abs=256)
    assert second * 128 == pytest.approx(begin + 14400, abs=256)


async def test_a_clear_is_silence_at_once_without_a_click_and_brings_all_marks_back(stage):
    says = [[0, pcm(tone(400, 48000, 1.0))], [0, {"mark": "a"}], [0, {"mark": "b"}], [100, {"clear": True}]]
    heard = await stage.evaluate(PLAY, {"rate": 48000, "says": says, "quanta": 200})
    out = np.array(heard["out"])
    assert heard["marks"] == [[100, "a"], [100, "b"]]
    assert np.abs(out[99 * 128 : 100 * 128]).max() > 0.3
    assert np.abs(out[103 * 128 :]).max() == 0.0
    assert np.abs(np.diff(out[99 * 128 :])).max() < 0.05


async def test_who_comes_late_again_and_again_gets_more_room(stage):
    says = [[at, pcm(tone(400, 48000, 0.06))] for at in range(0, 600, 30)]  # 60 ms every 80 ms
    script = PLAY.replace("return { out, marks };", "return node.start;")
    room = await stage.evaluate(script, {"rate": 48000, "says": says, "quanta": 620})
    assert 0.06 < room <= 0.3

"""A real Chromium whose microphone plays a WAV file and whose loudspeaker is recorded."""

from __future__ import annotations

import base64
import json
import os
import shutil
import wave
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest
from playwright.async_api import Page, async_playwright, expect

from dialog.audio.g711 import mulaw_decode
from dialog.testing.voice import espeak

__all__ = ["Loudspeaker", "chromium", "record_microphone", "transcript"]

expect.set_options(timeout=20_000)  # milliseconds: several browsers share the machine

_FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
)
# The page's AudioContext is given a second listener, in the thread of its audio (the page's own is late at times, and
# would miss something): all that goes to the loudspeaker is kept, in the context's rate.
_EAR = """
registerProcessor("ear", class extends AudioWorkletProcessor {
  chunk = new Float32Array(4096);
  filled = 0;
  process([input]) {
    this.chunk.set(input[0] ?? new Float32Array(128), this.filled);
    this.filled += 128;
    if (this.filled === this.chunk.length) {
      this.port.postMessage(this.chunk);
      this.chunk = new Float32Array(4096);
      this.filled = 0;
    }
    return true;
  }
});
"""
_EAVESDROP = """
const hearing = new Blob([EAR], { type: "text/javascript" });
const connect = AudioNode.prototype.connect;
const ears = new Map();
window.heard = { rate: 0, chunks: [] };
async function earOf(context) {
  await context.audioWorklet.addModule(URL.createObjectURL(hearing));
  const ear = new AudioWorkletNode(context, "ear", { numberOfOutputs: 0 });
  ear.port.onmessage = ({ data }) => window.heard.chunks.push(data);
  window.heard.rate = context.sampleRate;
  return ear;
}
AudioNode.prototype.connect = function (target, ...rest) {
  if (target instanceof AudioDestinationNode) {
    if (!ears.has(target)) ears.set(target, earOf(target.context));  // one, which hears the sum of what is connected
    ears.get(target).then(ear => connect.call(this, ear), error => console.error(`the ear of the tests: ${error}`));
  }
  return connect.call(this, target, ...rest);
};
""".replace("EAR", json.dumps(_EAR))
_TOLD = """
async () => {
  const { rate, chunks } = window.heard;
  const url = await new Promise(resolve => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.readAsDataURL(new Blob(chunks));
  });
  return [rate, url.slice(url.indexOf(",") + 1)];
}
"""


def executable() -> str:
    """Where Chromium is. Without one the tests are skipped, but not where they have to run."""
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        why = "no Chromium on this machine: apt-get install chromium"
        if os.environ.get("CI") == "true":
            pytest.fail(why)
        pytest.skip(why)
    return found


async def record_microphone(path: Path, *said: str | float) -> Path:
    """Write what the microphone is to hear: sentences, and silences in seconds."""
    voice = espeak("en-us", rate=150)
    pcm = b""
    for each in said:
        pcm += b"\0\0" * round(8000 * each) if isinstance(each, (int, float)) else mulaw_decode(await voice(each))
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(pcm)
    return path


@asynccontextmanager
async def chromium(microphone: Path | None = None, *, granted: bool = True, listens: bool = False, **context):
    """One page in a browser of its own. What it plays can be had if one ``listens``: its policy would not let one."""
    flags = [*_FLAGS]
    if microphone is not None:
        flags.append(f"--use-file-for-fake-audio-capture={microphone}%noloop")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=executable(), args=flags)
        try:
            inside = await browser.new_context(
                permissions=["microphone"] if granted else [], bypass_csp=listens, **context
            )
            if listens:
                await inside.add_init_script(_EAVESDROP)
            page = await inside.new_page()
            page.problems = []
            page.on("pageerror", lambda error: page.problems.append(str(error)))
            page.on("console", lambda told: told.type == "error" and page.problems.append(told.text))
            yield page
        finally:
            await browser.close()


async def transcript(page: Page) -> list[tuple[str, str]]:
    """Who said what: ("you", …), ("agent", …), ("event", …)."""
    script = """items => items.map(item => [item.className, (item.querySelector('.what') ?? item).textContent])"""
    found = await page.eval_on_selector_all("#transcript > li", script)
    return [(kind.replace("say", "").replace("interim", "").split()[0], text) for kind, text in found]


class Loudspeaker:
    """What a page has played."""

    def __init__(self, rate: int, samples: np.ndarray) -> None:
        self.rate = rate
        self.samples = samples

    @classmethod
    async def of(cls, page: Page) -> Loudspeaker:
        rate, samples = await page.evaluate(_TOLD)
        return cls(rate, np.frombuffer(base64.b64decode(samples), np.float32))

    @property
    def loud(self) -> np.ndarray:
        """For each 20 ms, whether something sounds."""
        size = self.rate // 50
        frames = self.samples[: len(self.samples) // size * size].reshape(-1, size)
        return np.sqrt((frames**2).mean(axis=1)) > 0.01

    @property
    def sounding_s(self) -> float:
        """How long something has sounded, pauses between words left out."""
        return float(self.loud.sum()) / 50

    @property
    def clicks(self) -> int:
        """Steps between neighbouring samples that no voice makes."""
        return int((np.abs(np.diff(self.samples)) > 0.4).sum())

"""How soon the console shows what happens, with many live calls, in a real browser.

``python benchmarks/console.py [--calls 500] [--seconds 30]``

A service on a socket, whose calls are told of as those of a busy evening are: each of them has a turn every six
seconds, of six events. Chromium has the list open, and one of the calls. Every utterance says when it was published;
the page looks at the clock in the frame after it has written the words into the list.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import resource
import shutil
import socket
import time
from datetime import UTC, datetime
from uuid import UUID, uuid4

from aiohttp import web
from playwright.async_api import Page, async_playwright

from dialog import AgentConfig, ApiSettings, ApiToken, Service, ServiceConfig, TwilioTenant
from dialog.calls import events as ev
from dialog.calls.timeline import TurnTimeline
from dialog.loop import calm_collector, new_event_loop
from dialog.message import CallMetadata
from dialog.testing.doubles import HummingTTS, ToldSTT
from dialog.testing.scripted import ScriptedLLM

ACCOUNT, SECRET = "AC" + "0" * 32, "a-token-of-the-benchmark"
TURN_S = 6.0
WATCH = """() => {
    window.shown = [];
    const look = (records) => {
        const times = [];
        for (const { target } of records) {
            const row = (target.nodeType === Node.TEXT_NODE ? target.parentElement : target);
            const found = /at ([0-9.]+)$/.exec(row.classList?.contains('words') ? row.textContent : '');
            if (found) times.push(Number(found[1]));
        }
        if (times.length) requestAnimationFrame(() => {
            const now = Date.now() / 1000;
            for (const time of times) window.shown.push((now - time) * 1000);
        });
    };
    const all = { childList: true, characterData: true, subtree: true };
    new MutationObserver(look).observe(document.getElementById('calls'), all);
    window.long = 0;
    const tasks = (list) => {
        for (const { duration } of list.getEntries()) window.long = Math.max(window.long, duration);
    };
    new PerformanceObserver(tasks).observe({ type: 'longtask' });
}"""


class Evening:
    """Calls that go on, as their events tell."""

    def __init__(self, service: Service, calls: int) -> None:
        self._publish = service.events.publish
        self.calls = [
            CallMetadata(
                call_id=uuid4(), carrier="twilio", account_id=ACCOUNT, from_=f"+1555{number:07d}", to="+15551230002"
            )
            for number in range(calls)
        ]
        self._seq: dict[UUID, int] = {}
        self.told = 0
        for call in self.calls:
            self.tell(
                call,
                ev.CallStarted,
                call_id=call.call_id,
                carrier=call.carrier,
                carrier_call_id="",
                from_=call.from_,
                to=call.to,
                direction="inbound",
                started_at=datetime.now(UTC).isoformat(),
                agent="FrontDesk",
            )
            self.tell(call, ev.StreamChanged, state="live", generation=1)

    def tell(self, call: CallMetadata, kind: type, **fields: object) -> None:
        seq = self._seq[call.call_id] = self._seq.get(call.call_id, -1) + 1
        self._publish(call, kind(seq=seq, at_s=float(seq), **fields))
        self.told += 1

    async def talk(self, call: CallMetadata) -> None:
        await asyncio.sleep(random.uniform(0, TURN_S))
        while True:
            turn = uuid4()
            self.tell(call, ev.CallerSpoke, state="started", at_ms=0.0)
            await asyncio.sleep(TURN_S / 4)
            self.tell(call, ev.CallerSaid, turn=turn, text="I would like", final=False)
            await asyncio.sleep(TURN_S / 4)
            self.tell(call, ev.CallerSpoke, state="stopped", at_ms=0.0)
            text = f"I would like a table for two at {time.time():.4f}"
            self.tell(call, ev.CallerSaid, turn=turn, text=text, final=True)
            await asyncio.sleep(TURN_S / 2)
            said = "With pleasure."
            self.tell(call, ev.AgentSaid, turn=turn, part=0, text=said, heard=said, state="played", heard_ms=900.0)
            line = TurnTimeline(
                turn=turn, end_of_speech=1.0, final=1.2, inference=1.2, first_token=1.6, first_frame=1.9
            )
            self.tell(call, ev.TurnMeasured, timeline=line)


def make_service() -> Service:
    def model() -> ScriptedLLM:
        return ScriptedLLM(lambda _: "Yes.")

    return Service(
        ServiceConfig(
            assistants={"desk": AgentConfig(stt=ToldSTT, tts=HummingTTS, llm=model)},
            tenants={"main": TwilioTenant(account_sid=ACCOUNT, auth_token="secret")},
            api=ApiSettings(tokens=(ApiToken(name="bench", token=SECRET),)),
        )
    )


async def sign_in(page: Page, origin: str) -> None:
    await page.goto(f"{origin}/console")
    await page.fill("#token", SECRET)
    await page.keyboard.press("Enter")
    await page.wait_for_selector("#calls .row")


async def measure(calls: int, seconds: float, chromium: str) -> None:
    service = make_service()
    sock = socket.create_server(("127.0.0.1", 0))
    runner = web.AppRunner(service.app(), access_log=None)
    await runner.setup()
    await web.SockSite(runner, sock).start()
    evening = Evening(service, calls)
    tasks = [asyncio.create_task(evening.talk(call)) for call in evening.calls]
    try:
        async with async_playwright() as playwright:
            browser = await playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
            page = await browser.new_page(viewport={"width": 1280, "height": 860})
            await sign_in(page, f"http://127.0.0.1:{sock.getsockname()[1]}")
            await page.click("#calls .row >> nth=3")
            await asyncio.sleep(TURN_S)
            await page.evaluate(WATCH)
            before, told, began = _cpu(), evening.told, time.monotonic()
            await asyncio.sleep(seconds)
            took = time.monotonic() - began
            used, rate = (_cpu() - before) / took, (evening.told - told) / took
            shown = sorted(await page.evaluate("window.shown"))
            longest = await page.evaluate("window.long")
            await browser.close()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        await runner.cleanup()
    at = lambda share: shown[min(len(shown) - 1, int(share * len(shown)))]  # noqa: E731
    print(f"{calls} live calls, {rate:.0f} events a second, {len(shown)} utterances seen in {took:.0f} s")
    print(f"published to shown: p50 {at(0.5):.0f} ms, p95 {at(0.95):.0f} ms (to reach: 200 ms), max {shown[-1]:.0f} ms")
    print(f"longest task of the page: {longest:.0f} ms; the server and the events use {used:.1%} of a core")


def _cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=500)
    parser.add_argument("--seconds", type=float, default=30.0)
    options = parser.parse_args()

    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        print("the console is not measured: there is no Chromium on this machine")
        return

    async def run() -> None:
        calm_collector()
        await measure(options.calls, options.seconds, chromium)

    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(run())


if __name__ == "__main__":
    main()

"""The console in a real browser: watching calls, listening in, acting, finding them again, and how it looks."""

from __future__ import annotations

import asyncio
import math
import re
import struct
import sys
import wave
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from uuid import uuid4

import pytest
from axe_playwright_python.async_playwright import Axe
from browsers import Loudspeaker, chromium
from playwright.async_api import Page, expect
from test_talk_page import serving, telling

from dialog.calls import events as ev
from dialog.cli.talk import ConsoleSite
from dialog.message import CallMetadata, Message

sys.path.insert(0, str(Path(__file__).parents[1] / "server"))
from console_line import DESK, hearing, on_a_call
from service_line import ACCOUNT, READER, SECRET, THEIRS, service_line
from twilio_phone import until

pytestmark = pytest.mark.timeout(120)

WAIT_MS = 20_000
CALM = {"reduced_motion": "reduce"}
WIDE = {"viewport": {"width": 1280, "height": 860}}


async def sign_in(page: Page, line, token=SECRET) -> None:
    await page.goto(f"{line.origin}/console")
    await page.fill("#token", token)
    await page.keyboard.press("Enter")
    await expect(page.locator("#connection")).to_have_text("Connected", timeout=WAIT_MS)


@asynccontextmanager
async def console(*, token=SECRET, view=WIDE, listens=False, **settings):
    """A service, and a browser that is signed in to its console: ``(line, page)``."""
    async with (
        service_line(**{"assistants": DESK, **settings}) as line,
        chromium(listens=listens, **view, **CALM) as page,
    ):
        await sign_in(page, line, token)
        yield line, page
        assert not page.problems


async def looks_well(page: Page, path: Path, width: int) -> None:
    """Keep pictures of the page; it needs no sideways scroll, and axe-core finds nothing serious, by day and night."""
    assert await page.evaluate("document.documentElement.scrollWidth") <= width
    for scheme in ("light", "dark"):
        await page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
        await page.screenshot(path=f"{path}-{scheme}-{width}.png", full_page=True)
        found = await Axe().run(page)
        bad = [each for each in found.response["violations"] if each["impact"] in ("serious", "critical")]
        assert not bad, found.generate_report()


AT_END = (
    "(() => { const log = document.querySelector('.log');"
    " return log.scrollHeight - log.scrollTop - log.clientHeight < 2 && log.scrollTop > 0; })()"
)
"""The transcript shows its last line, below others."""


async def comes_true(page: Page, expression: str) -> None:
    """Wait for something of the page; its policy forbids Playwright's own way."""
    async with asyncio.timeout(WAIT_MS / 1000):
        while not await page.evaluate(expression):
            await asyncio.sleep(0.05)


def said(page: Page, side: str, text: str):
    return page.locator(f"#transcript > .{side} .text", has_text=text)


async def open_call(page: Page, call_id) -> None:
    await page.click(f'#calls a[href="#/call/{call_id}"]')
    await expect(page.locator("#call")).to_be_visible()


def invent(line, number: int, *, at: datetime | None = None, **more) -> CallMetadata:
    """A call that goes on, as its events tell."""
    call = CallMetadata(
        call_id=uuid4(), carrier="twilio", account_id=ACCOUNT, from_=f"+1555{number:07d}", to="+15551230002", **more
    )
    told = [
        ev.CallStarted(
            seq=0,
            at_s=0.0,
            call_id=call.call_id,
            carrier=call.carrier,
            carrier_call_id="",
            from_=call.from_,
            to=call.to,
            direction="inbound",
            started_at=(at or datetime.now(UTC) - timedelta(seconds=97.0 * number % 4000)).isoformat(),
            agent="FrontDesk",
        ),
        ev.StreamChanged(seq=1, at_s=0.1, state="live", generation=1),
    ]
    for event in told:
        line.service.events.publish(call, event)
    return call


async def talk(line, socket) -> None:
    """A conversation: a question and its answer, whose latency is measured."""
    stt, (session,) = hearing(line), line.service.live.live
    stt.speech_starts()
    for _ in range(3):
        await socket.media(b"\x20" * 800)
    await until(lambda: stt._at_ms > 0)
    stt.speech_stops()
    stt.heard("Do you have a table for two, tomorrow at eight?")
    await until(lambda: len(session.transcript) >= 3)


# -- signing in


async def test_a_person_signs_in_with_a_token_and_out_again():
    async with service_line() as line, chromium(**WIDE, **CALM) as page:
        await page.goto(f"{line.origin}/console")
        assert await page.evaluate("document.activeElement.id") == "token"
        await page.fill("#token", "a-wrong-token-of-somebody")
        await page.keyboard.press("Enter")
        await expect(page.locator('[role="alert"]')).to_have_text("This token is not known here.")
        page.problems.clear()  # the browser tells of the 401
        await sign_in(page, line)
        assert SECRET not in page.url
        assert await page.evaluate("document.cookie") == "", "scripts cannot read it"
        await page.reload()
        await expect(page.locator("#connection")).to_have_text("Connected")
        await page.click("text=Sign out")
        await expect(page.locator("#token")).to_be_visible()
        assert not page.problems


async def test_who_is_signed_out_meanwhile_is_asked_to_sign_in():
    async with console() as (_, page):
        await page.context.clear_cookies()
        page.problems.clear()
        await page.click("#to-history")
        await expect(page.locator("#token")).to_be_visible()
        page.problems.clear()  # the browser tells of the 401


# -- calls that go on


async def test_a_call_appears_its_transcript_grows_and_it_is_hung_up():
    async with console() as (line, page):
        await expect(page.locator("#no-calls")).to_be_visible()
        call_id, socket = await on_a_call(line)
        row = page.locator("#calls .row")
        await expect(row.locator(".party")).to_have_text("+15551230001")
        await expect(row.locator(".words")).to_have_text("Good day to you.")
        await expect(page.locator("#count")).to_have_text("1")
        await open_call(page, call_id)
        await expect(said(page, "agent", "Good day to you.")).to_be_visible()
        stt = hearing(line)
        stt.speech_starts()
        await expect(page.locator("#call .state")).to_have_text("Caller speaks")
        stt.hears("do you have a")
        await expect(page.locator(".said.caller.interim .text")).to_have_text("do you have a")
        stt.heard("do you have a table")
        await expect(page.locator(".said.caller:not(.interim) .text")).to_have_text("do you have a table")
        await expect(said(page, "agent", "Yes.")).to_be_visible()
        await talk(line, socket)
        await expect(page.locator(".falls li .total")).to_contain_text("ms")
        await expect(page.locator(".fall i").first).to_be_attached()
        await expect(page.locator(".said.agent .tag", has_text="after")).to_have_count(1)
        assert (await page.inner_text("#call .clock")).startswith("0:0")
        await page.click("text=Hang up …")
        await page.click('#hang-up-dialog button[value="yes"]')
        await expect(page.locator("#call .state")).to_have_text("Hung up from outside")
        await expect(page.locator("#call .desk")).to_be_hidden()
        await expect(page.locator("#calls .row")).to_have_count(0)
        await until(lambda: line.service.session(call_id).end is not None)
        await expect(page.locator(".player")).to_have_text("There is no recording of this call.")


async def test_what_a_caller_says_is_text_whatever_it_looks_like():
    evil = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"
    async with console() as (line, page):
        call_id, _ = await on_a_call(line)
        await open_call(page, call_id)
        hearing(line).heard(evil)
        await expect(said(page, "caller", "onerror")).to_have_text(evil)
        await expect(page.locator("#calls .words")).not_to_be_empty()
        invented = invent(line, 7, carrier_call_id="x")
        told = [
            ev.ToolStarted(seq=2, at_s=1.0, turn=uuid4(), call_id="t", name=evil, arguments=evil),
            ev.AgentSaid(seq=3, at_s=2.0, turn=uuid4(), part=0, text=evil, heard=evil[:9], state="cut", heard_ms=100.0),
            ev.AgentTold(seq=4, at_s=2.5, text=evil),
            ev.ErrorRaised(seq=5, at_s=3.0, source=evil, code="x", text=evil, fatal=False),
        ]
        for event in told:
            line.service.events.publish(invented, event)
        await open_call(page, invented.call_id)
        await expect(page.locator(".note.bad")).to_have_text(f"{evil}: {evil}")
        await expect(page.locator(".unheard")).to_have_text(evil[9:])
        assert await page.locator("main img, main script").count() == 0
        assert "owned" not in await page.title()


async def test_the_agent_is_told_what_is_whispered_and_the_caller_is_transferred():
    async with console(public=True) as (line, page):
        call_id, _ = await on_a_call(line)
        call = line.rest.add_call(line.service.session(call_id).call.carrier_call_id)
        await open_call(page, call_id)
        await page.fill(".whisper input", "The caller is a member.")
        await page.keyboard.press("Enter")
        await expect(page.locator(".status")).to_have_text("The agent knows it from its next answer on.")
        await expect(page.locator(".note", has_text="Whispered")).to_contain_text("The caller is a member.")
        assert await page.input_value(".whisper input") == ""
        await page.click("text=Transfer …")
        await page.fill('[name="to"]', "0155512")
        await page.click('#transfer-dialog button[value="yes"]')
        await expect(page.locator("#transfer-dialog")).to_be_visible()  # no number
        await page.fill('[name="to"]', THEIRS)
        await page.click('#transfer-dialog button[value="yes"]')
        await expect(page.locator(".status")).to_contain_text("is being connected")
        assert THEIRS in str(call.updates[-1])


async def test_a_half_written_whisper_stays_with_its_call():
    async with console() as (line, page):
        call_id, _ = await on_a_call(line)
        other = invent(line, 7).call_id
        words = page.locator(".whisper input")
        await open_call(page, call_id)
        await words.fill("The caller is")
        await open_call(page, other)
        await expect(page.locator("#call-title")).to_have_text("+15550000007")
        await expect(words).to_have_value("")
        await words.fill("Something else")
        await open_call(page, call_id)
        await expect(words).to_have_value("The caller is")
        await page.reload()
        await expect(words).to_have_value("The caller is")
        await page.click(".whisper button")
        await expect(page.locator(".note", has_text="Whispered")).to_be_visible()
        await page.reload()
        await expect(page.locator(".note", has_text="Whispered")).to_be_visible()
        await expect(words).to_have_value("")
        await page.click("text=Sign out")
        await expect(page.locator("#token")).to_be_visible()
        assert await page.evaluate("sessionStorage.length") == 0, "nothing is left for whoever signs in next"


async def test_the_transcript_follows_what_is_said_unless_somebody_reads_further_up():
    async with console() as (line, page):
        call = invent(line, 7)
        await open_call(page, call.call_id)

        def says(first: int, last: int) -> None:
            for number in range(first, last):
                told = ev.AgentTold(seq=number + 2, at_s=float(number), text=f"{number} words " * 20)
                line.service.events.publish(call, told)

        says(0, 30)
        await expect(page.locator(".note")).to_have_count(30)
        await comes_true(page, AT_END)
        await page.set_viewport_size({"width": 500, "height": 500})  # every line becomes longer
        await comes_true(page, AT_END)
        says(30, 40)
        await expect(page.locator(".note")).to_have_count(40)
        await comes_true(page, AT_END)
        await page.evaluate("document.querySelector('.log').scrollTop = 0")
        await comes_true(page, "document.querySelector('.log').scrollTop === 0")
        says(40, 45)
        await expect(page.locator(".note")).to_have_count(45)
        await page.set_viewport_size({"width": 700, "height": 500})
        assert await page.evaluate("document.querySelector('.log').scrollTop") == 0


async def test_what_comes_in_the_moment_in_which_the_transcript_scrolls_is_no_reader():
    async with console() as (line, page):
        call = invent(line, 7)
        await open_call(page, call.call_id)
        for number in range(30):
            told = ev.AgentTold(seq=number + 2, at_s=float(number), text=f"{number} words " * 20)
            line.service.events.publish(call, told)
        await expect(page.locator(".note")).to_have_count(30)
        await comes_true(page, AT_END)
        # The page is told that it has scrolled once it is drawn, and that is higher by then.
        await page.evaluate(
            "(() => { const log = document.querySelector('.log'); log.scrollTop -= 1;"
            " for (const each of log.querySelectorAll('.note')) each.parentElement.append(each.cloneNode(true)); })()"
        )
        await comes_true(page, AT_END)


async def test_what_cannot_be_done_is_explained():
    async with console() as (line, page):
        call_id, _ = await on_a_call(line)
        await open_call(page, call_id)
        await page.click("text=Transfer …")
        await page.fill('[name="to"]', THEIRS)
        await page.select_option('[name="back"]', "25")
        await page.click('#transfer-dialog button[value="yes"]')
        await expect(page.locator(".status.bad")).to_contain_text("webhook_url")
        page.problems.clear()  # the browser tells of the 503


async def test_who_may_only_look_gets_no_buttons():
    async with console(token=READER) as (line, page):
        call_id, _ = await on_a_call(line)
        await open_call(page, call_id)
        await expect(said(page, "agent", "Good day to you.")).to_be_visible()
        await expect(page.locator("text=Listen in")).to_be_visible()
        for gone in ("text=Hang up …", "text=Transfer …", ".whisper"):
            await expect(page.locator(gone)).to_be_hidden()


async def test_the_connection_comes_back_and_nothing_is_missing():
    async with console() as (line, page):
        call_id, _ = await on_a_call(line)
        await open_call(page, call_id)
        await expect(said(page, "agent", "Good day to you.")).to_be_visible()
        await page.evaluate("""() => {
            window.states = [];
            const shown = document.getElementById('connection');
            new MutationObserver(() => window.states.push(shown.textContent)).observe(shown, { childList: true });
        }""")
        (listener,) = line.service.console.board._listeners
        listener.__self__._socket._ws._req.transport.abort()
        hearing(line).heard("are you still there")
        await until(lambda: len(line.service.session(call_id).transcript) == 3)
        await comes_true(page, "window.states.includes('Connected')")
        assert await page.evaluate("window.states[0]") == "Reconnecting …"
        await expect(said(page, "caller", "are you still there")).to_have_count(1)
        await expect(said(page, "agent", "Yes.")).to_have_count(1)
        await expect(said(page, "agent", "Good day to you.")).to_have_count(1)


# -- sound


def tone(hz: float, seconds: float, *, rate=8000, peak=9000) -> list[int]:
    return [round(peak * math.sin(2 * math.pi * hz * at / rate)) for at in range(round(rate * seconds))]


async def speak(socket, seconds: float) -> None:
    """The caller hums, in real time."""
    from dialog.audio.g711 import mulaw_encode

    audio = mulaw_encode(struct.pack(f"<{round(8000 * seconds)}h", *tone(440, seconds)))
    loop = asyncio.get_running_loop()
    begin = loop.time()
    for number, at in enumerate(range(0, len(audio), 160)):
        await socket.media(audio[at : at + 160])
        await asyncio.sleep(max(0.0, begin + 0.02 * (number + 1) - loop.time()))


@pytest.mark.alone
async def test_who_listens_in_hears_the_call():
    async with console(listens=True) as (line, page):
        call_id, socket = await on_a_call(line)
        await open_call(page, call_id)
        await page.click("text=Listen in")
        await expect(page.locator("text=Stop listening")).to_have_attribute("aria-pressed", "true")
        await until(lambda: line.service.calls[0]._taps)
        await speak(socket, 3.0)
        await expect(page.locator(".meters .caller .meter")).not_to_have_attribute("aria-valuenow", "-60")
        await page.click("text=Stop listening")
        heard = await Loudspeaker.of(page)
        assert 2.0 < heard.sounding_s < 3.5
        assert heard.clicks == 0


def stereo(left: list[int], right: list[int]) -> bytes:
    out = BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(
            struct.pack(f"<{2 * len(left)}h", *(each for pair in zip(left, right, strict=True) for each in pair))
        )
    return out.getvalue()


async def test_a_call_that_is_over_is_played_in_step_with_its_transcript(tmp_path):
    async with console(public=True) as (line, page):
        silence = [0] * 8000
        line.rest.recording_wav = stereo(silence * 2 + tone(440, 2.0), tone(660, 2.0) + silence * 2)
        call_id, socket = await on_a_call(line)
        call = line.rest.add_call(line.service.session(call_id).call.carrier_call_id)
        await line.service.get(call_id).start_recording()
        await talk(line, socket)
        await open_call(page, call_id)
        await page.click("text=Hang up …")
        await page.click('#hang-up-dialog button[value="yes"]')
        line.rest.end_call(call.sid)
        audio = page.locator(".player audio")
        await expect(audio).to_be_visible(timeout=WAIT_MS)
        await expect(page.locator(".track canvas")).to_be_visible()
        first = page.locator("#transcript .said").first
        await first.locator(".at").click()
        await expect(first).to_have_attribute("aria-current", "true")
        await comes_true(page, "document.querySelector('audio').currentTime > 0.2")
        at = float((await page.locator(".track .head").get_attribute("style")).split("--at:")[1].strip(" ;"))
        assert 0 < at < 0.7
        drawn = await page.evaluate("""() => {
            const canvas = document.querySelector('.track canvas');
            const rows = (top, left) => canvas.getContext('2d').getImageData(left, top, 200, 1).data.filter((_, i) => i % 4 === 3);
            const ink = (top, left) => rows(top, left).filter(Boolean).length;
            return [ink(15, 700), ink(95, 100), ink(15, 100), ink(95, 700)];
        }""")
        assert drawn[0] > 50, "the caller speaks at the end"
        assert drawn[1] > 50, "the agent at the beginning"
        assert drawn[2] == drawn[3] == 0
        await looks_well(page, tmp_path / "played", 1280)


async def test_a_call_from_the_talk_page_is_watched_word_by_word_and_played_afterwards(tmp_path):
    agents = []
    site = ConsoleSite({"desk": telling(agents)}, names={}, note="", out=tmp_path, token=SECRET)
    async with serving(site) as url, chromium(**WIDE, **CALM) as page:
        caller = await page.context.new_page()
        await caller.goto(url)
        await caller.click("#talk")
        await sign_in(page, SimpleNamespace(origin=url.removesuffix("/talk")))
        await expect(page.locator("#calls .party")).to_have_text("Browser", timeout=WAIT_MS)
        await page.click("#calls .row")
        await expect(said(page, "agent", "Hello. Nobody is here but a test.")).to_be_visible(timeout=WAIT_MS)
        await expect(page.locator("text=Transfer …")).to_be_hidden()
        agents[0].post(Message(uuid=uuid4(), data="it is shown while it is said, one word after the other"))
        await expect(page.locator(".said.agent .text").nth(1)).to_have_text(re.compile("^it is shown"))
        await caller.click("#talk")
        await expect(page.locator("#call .state")).to_have_text("Caller hung up")
        await expect(page.locator(".player audio")).to_be_visible(timeout=WAIT_MS)
        await page.click("#to-history")
        await expect(page.locator("#past .row")).to_have_count(1)
        assert not page.problems


# -- calls that are over


async def test_a_call_is_found_again_by_what_was_said():
    async with console() as (line, page):
        for number in range(3):
            call = invent(line, number)
            line.service.events.publish(
                call, ev.CallerSaid(seq=2, at_s=1.0, turn=uuid4(), text=f"order number {number}", final=True)
            )
            line.service.events.publish(call, ev.CallEnded(seq=3, at_s=65.0, reason="caller_hangup"))
        await page.click("#to-history")
        await expect(page.locator("#past .row")).to_have_count(3)
        await page.fill('[name="text"]', "NUMBER 1")
        await page.keyboard.press("Enter")
        await expect(page.locator("#past .row")).to_have_count(1)
        await expect(page.locator("#past .party")).to_have_text("+15550000001")
        await expect(page.locator("#past .length")).to_have_text("1:05")
        await page.reload()
        await expect(page.locator("#past .row")).to_have_count(1)
        assert await page.input_value('[name="text"]') == "NUMBER 1"
        await page.click("#past .row")
        await expect(said(page, "caller", "order number 1")).to_be_visible()
        await page.go_back()
        await expect(page.locator("#call")).to_be_hidden()
        await page.click("text=Clear")
        await expect(page.locator("#past .row")).to_have_count(3)
        await page.fill('[name="number"]', "+1 555 000-0002")
        await page.keyboard.press("Enter")
        await expect(page.locator("#past .row")).to_have_count(1)


async def test_a_long_history_comes_page_by_page_and_day_by_day(tmp_path):
    async with console(log=f"sqlite:///{tmp_path}/calls.db") as (line, page):
        today = datetime.now().astimezone().replace(hour=12, minute=0, second=0, microsecond=0)
        for number in range(60):
            when = today - timedelta(days=number % 3, minutes=number)
            call = invent(line, number, at=when)
            end = ev.CallEnded(seq=3, at_s=30.0, reason="transferred" if number == 7 else "caller_hangup")
            line.service.events.publish(call, end)
        await line.service.log.flush()
        await page.click("#to-history")
        await expect(page.locator("#past .row")).to_have_count(50)
        await expect(page.locator("#found")).to_have_text("50 and more calls.")
        await page.click("#more")
        await expect(page.locator("#past .row")).to_have_count(60)
        await expect(page.locator("#more")).to_be_hidden()
        numbers = await page.locator("#past .party").all_text_contents()
        assert len(set(numbers)) == 60
        assert numbers[0] == "+15550000000"
        await page.select_option('[name="outcome"]', "transferred")
        await page.click("text=Search")
        await expect(page.locator("#past .party")).to_have_text("+15550000007")
        yesterday = (today - timedelta(days=1)).strftime("%Y-%m-%d")
        # Whoever types at once after that finds it there when the address has changed.
        await page.evaluate(
            """since => {
                document.querySelector("#search [type=reset]").click();
                document.querySelector("[name=since]").value = since;
            }""",
            yesterday,
        )
        await page.fill('[name="until"]', yesterday)
        await page.click("text=Search")
        await expect(page.locator("#past .row")).to_have_count(20)
        await expect(page.locator("#found")).to_have_text("20 calls.")


# -- how it is used, and how it looks


async def test_it_is_used_with_the_keyboard_alone():
    async with console() as (line, page):
        call_id, _ = await on_a_call(line)
        for number in range(3):
            invent(line, number)
        await expect(page.locator("#calls .row")).to_have_count(4)
        await page.keyboard.press("Tab")
        assert await page.evaluate("document.activeElement.className") == "skip"
        await page.keyboard.press("Enter")
        await page.keyboard.press("Tab")
        assert await page.evaluate("document.activeElement.id") == "filter"
        await page.keyboard.press("Tab")
        await page.keyboard.press("ArrowDown")
        await page.keyboard.press("End")
        assert str(call_id) in await page.evaluate("document.activeElement.href")
        assert await page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
        await page.keyboard.press("Enter")
        await expect(said(page, "agent", "Good day to you.")).to_be_visible()
        assert await page.evaluate("document.activeElement.id") == "call"
        await page.focus("text=Hang up …")
        await page.keyboard.press("Enter")
        assert await page.evaluate("document.activeElement.value") == "no", "what does no harm is chosen first"
        await page.keyboard.press("Escape")
        await expect(page.locator("#hang-up-dialog")).to_be_hidden()
        assert await page.evaluate("document.activeElement.textContent") == "Hang up …"
        assert line.service.session(call_id).end is None
        await page.keyboard.press("Escape")
        await expect(page.locator("#call")).to_be_hidden()
        await expect(page.locator(f'#calls a[href="#/call/{call_id}"]')).to_be_focused()


async def test_the_list_is_filtered():
    async with console() as (line, page):
        for number in range(3):
            invent(line, number)
        await page.fill("#filter", "0000002")
        await expect(page.locator("#calls li:visible")).to_have_count(1)
        await page.fill("#filter", "nobody")
        await expect(page.locator("#no-calls")).to_have_text("No live call fits.")


@pytest.mark.parametrize("width", [360, 1280])
async def test_it_is_readable_everywhere(width, tmp_path):
    view = {"viewport": {"width": width, "height": 860}}
    async with service_line(assistants=DESK) as line, chromium(**view, **CALM) as page:
        await page.goto(f"{line.origin}/console")
        await looks_well(page, tmp_path / "sign-in", width)
        await sign_in(page, line)
        call_id, socket = await on_a_call(line)
        await talk(line, socket)
        furnish(line)
        await expect(page.locator("#calls .row")).to_have_count(9)
        await looks_well(page, tmp_path / "live", width)
        await open_call(page, call_id)
        hearing(line).heard("averyveryverylongwordwithoutanyplacetobreakit" * 3)
        await expect(said(page, "caller", "averyvery")).to_be_visible()
        await expect(page.locator(".falls li")).to_have_count(2)
        await looks_well(page, tmp_path / "call", width)
        await page.click("text=Transfer …")
        await looks_well(page, tmp_path / "transfer", width)
        await page.keyboard.press("Escape")
        await page.click("#to-history")
        await expect(page.locator("#past .row")).to_have_count(4)
        await looks_well(page, tmp_path / "history", width)
        await page.click("#past .row")
        await expect(page.locator(".player")).to_have_text("There is no recording of this call.")
        await looks_well(page, tmp_path / "past", width)
        assert not page.problems


def furnish(line) -> None:
    """Calls in all conditions."""
    spoken = ["I would like to cancel my order, please.", "No, the other one.", "", "Can I speak to somebody?"]
    publish = line.service.events.publish
    for number in range(12):
        call = invent(line, 4015550 + number)
        if words := spoken[number % 4]:
            publish(call, ev.CallerSaid(seq=2, at_s=4.0, turn=uuid4(), text=words, final=True))
        if number == 1:
            publish(call, ev.CallerSpoke(seq=3, at_s=5.0, state="started", at_ms=5000.0))
        elif number == 2:
            publish(call, ev.StreamChanged(seq=3, at_s=5.0, state="moving", generation=1))
        elif number == 3:
            publish(
                call, ev.ErrorRaised(seq=3, at_s=5.0, source="DeepgramSTT", code="provider", text="closed", fatal=False)
            )
        elif number == 4:
            publish(
                call, ev.ToolStarted(seq=3, at_s=5.0, turn=uuid4(), call_id="1", name="cancel_order", arguments="{}")
            )
        elif number >= 8:
            publish(call, ev.CallEnded(seq=9, at_s=60.0 * number, reason=["caller_hangup", "agent_hangup"][number % 2]))

"""The talk page in a real browser: a spoken conversation, interruption, restarts, refusals, and how it looks."""

from __future__ import annotations

import asyncio
import json
import re
import socket
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

import pytest
import uvicorn
from aiohttp import ClientSession, web
from axe_playwright_python.async_playwright import Axe
from browsers import Loudspeaker, chromium, record_microphone, transcript
from playwright.async_api import expect
from starlette.applications import Starlette
from starlette.routing import Mount

from dialog.agent.agent import Agent
from dialog.audio.tones import sine
from dialog.cli.talk import TalkSite, make_site
from dialog.demo.web import AGENTS, on_voip
from dialog.errors import ConfigurationError
from dialog.message import Message
from dialog.net.listening import unlisten
from dialog.testing.doubles import HummingTTS
from dialog.voip.voip import VoIP
from dialog.voip.web.gateway import WebGateway
from dialog.voip.web.rtc.settings import WebRTC
from dialog.web.talk import TalkPage, client_files

pytestmark = pytest.mark.timeout(120)

QUESTION, ANSWER = (
    "what are your opening hours on friday",
    "On Friday we are open from noon until eleven in the evening.",
)
SPEECH_MS = 40_000
CALM = {"reduced_motion": "reduce"}


@asynccontextmanager
async def serving(*sites, port=0, below=""):
    """Serve what has routes; the page's address."""
    app = web.Application()
    for each in sites:
        each.add_routes(app)
    if below:
        whole = web.Application()
        whole.add_subapp(below, app)
        app = whole
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(("127.0.0.1", port))
    try:
        await web.SockSite(runner, sock).start()
        yield f"http://127.0.0.1:{sock.getsockname()[1]}{below}/talk"
    finally:
        await unlisten(runner)


@asynccontextmanager
async def serving_asgi(app):
    """The address of an ASGI application."""
    sock = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, ws="websockets-sansio", lifespan="off"))
    serve = asyncio.create_task(server.serve(sockets=[sock]))
    try:
        await until(lambda: server.started)
        yield f"http://127.0.0.1:{sock.getsockname()[1]}"
    finally:
        server.should_exit = True
        await serve


def demo(transport="WebRTC"):
    site = make_site(dict.fromkeys(AGENTS, on_voip), names=AGENTS)
    if transport == "WebRTC":
        return site
    gateway = WebGateway(agents=tuple(AGENTS))
    gateway.on("voip", on_voip)
    return TalkSite(gateway, TalkPage(gateway, names=AGENTS))


class Teller(Agent):
    """Says what it is asked to."""

    async def inference(self, message: Message[str]):
        yield message.data


def telling(agents, *, greeting="Hello. Nobody is here but a test."):
    def take(voip: VoIP) -> None:
        agent = Teller(voip=voip, tts=HummingTTS(ms_per_char=20), greeting=greeting)
        agents.append(agent)
        agent.activate()

    return take


async def until(true, timeout_s=10.0):
    async with asyncio.timeout(timeout_s):
        while not true():
            await asyncio.sleep(0.02)


async def said(page, who, text, timeout_ms=SPEECH_MS):
    await expect(page.locator(f"#transcript > .{who} .what", has_text=text)).to_be_visible(timeout=timeout_ms)


# -- speech


@pytest.mark.alone
@pytest.mark.parametrize("transport", ["WebSocket", "WebRTC"])
async def test_a_whole_conversation_is_spoken_and_answered_aloud(tmp_path, transport):
    microphone = await record_microphone(tmp_path / "microphone.wav", 6.0, QUESTION, 8.0)
    async with serving(demo(transport)) as url, chromium(microphone, listens=True) as page:
        await page.goto(url)
        await page.click("#talk")
        await said(page, "agent", "Welcome to Luigi's. How can I help you?")
        assert await page.inner_text("#via") == transport
        await said(page, "you", QUESTION)
        await said(page, "agent", ANSWER)
        await expect(page.locator(".latency")).to_be_visible(timeout=SPEECH_MS)
        heard = await Loudspeaker.of(page)
        assert 4.0 < heard.sounding_s < 12.0, "a greeting and an answer"
        assert heard.clicks == 0
        await expect(page.locator("#median")).to_contain_text("ms")
        assert ("event", "Uses opening hours") in await transcript(page)
        await page.click("#talk")
        await expect(page.locator("#state")).to_have_text("You have hung up")
        assert not page.problems


@pytest.mark.alone
async def test_who_speaks_over_the_agent_silences_it(tmp_path):
    microphone = await record_microphone(
        tmp_path / "microphone.wav", 6.0, "what can you do for me", 2.5, "one moment i have a question", 6.0
    )
    async with serving(demo()) as url, chromium(microphone, listens=True) as page:
        await page.goto(url)
        await page.click("#talk")
        await said(page, "you", "what can you do for me")
        await expect(page.locator(".note.cut")).to_have_text("interrupted", timeout=SPEECH_MS)
        await expect(page.locator(".unheard")).not_to_be_empty()
        await said(page, "agent", "Of course. I am listening.")
        heard = await Loudspeaker.of(page)
        assert heard.clicks == 0


# -- the connection


async def test_after_the_server_has_restarted_the_call_begins_anew(tmp_path):
    agents = []
    take = telling(agents)
    async with chromium() as page:
        async with serving(make_site({"a": take}, names={})) as url:
            await page.goto(url)
            await page.click("#talk")
            await said(page, "agent", "Hello.")
        await expect(page.locator("#state")).to_have_text("Reconnecting…")
        async with serving(make_site({"a": take}, names={}), port=int(url.split(":")[2].split("/")[0])):
            await expect(page.locator("#transcript > .agent")).to_have_count(2, timeout=SPEECH_MS)
            assert len(agents) == 2
            assert await page.inner_text("#talk-label") == "Hang up"


async def test_a_connection_that_breaks_is_taken_up_again():
    agents = []
    gateway = WebGateway()
    gateway.on("voip", telling(agents))
    async with serving(gateway, TalkPage(gateway)) as url, chromium() as page:
        await page.goto(url)
        await page.click("#talk")
        await said(page, "agent", "Hello.")
        for wire in gateway._sockets.open.values():
            wire._transport.abort()
        await expect(page.locator(".event", has_text="Connected again.")).to_be_visible(timeout=SPEECH_MS)
        assert len(agents) == 1
        assert agents[0].voip.generation == 2
        agents[0].post(Message(uuid=uuid4(), data="still here"))
        await said(page, "agent", "still here")


def singing(voips, reports=None):
    """Takes a call with a long tone instead of an agent."""

    def take(voip: VoIP) -> None:
        voips.append(voip)
        if reports is not None:
            voip.on(VoIP.PLAYBACK, reports.append)
        tone = sine(300, 20_000, sample_rate=voip.audio_format.sample_rate)
        voip.post(Message(uuid=voip.metadata.call_id, data=tone, done=True))

    return take


@pytest.mark.alone
async def test_what_is_cleared_over_webrtc_is_silent_at_once_and_counted_as_heard():
    voips, reports = [], []
    async with serving(make_site({"a": singing(voips, reports)}, names={})) as url, chromium(listens=True) as page:
        await page.goto(url)
        await page.click("#talk")
        await expect(page.locator("#via")).to_have_text("WebRTC", timeout=SPEECH_MS)
        await until(lambda: reports and reports[-1].heard_ms > 1500)
        voips[0].abort(voips[0].metadata.call_id)
        await until(lambda: reports and reports[-1].state == "cut")
        await page.wait_for_timeout(1000)  # if it went on, it would be heard
        heard = await Loudspeaker.of(page)
        assert heard.sounding_s == pytest.approx(reports[-1].heard_ms / 1000, abs=0.8), "of twenty seconds"
        assert heard.clicks == 0


async def test_where_no_udp_gets_through_the_page_goes_on_over_a_websocket():
    voips = []
    async with serving(make_site({"a": singing(voips)}, names={})) as url, chromium() as page:
        # Neither side learns where the other one is: as behind a firewall.
        async def hide(route):
            def blind(sdp):
                return re.sub(r"a=candidate:.*\r\n", "", sdp)

            offer = json.loads(route.request.post_data)
            response = await route.fetch(post_data=json.dumps({**offer, "sdp": blind(offer["sdp"])}))
            answer = await response.json()
            await route.fulfill(json={**answer, "sdp": blind(answer["sdp"])})

        await page.route("**/webrtc", hide)
        await page.goto(url)
        await page.click("#talk")
        await expect(page.locator("#via")).to_have_text("WebSocket", timeout=SPEECH_MS)
        await until(lambda: voips[0].state == "live")
        assert len(voips) == 1, "the session that began over WebRTC goes on"


async def test_a_webrtc_connection_that_breaks_is_taken_up_again():
    agents = []
    site = make_site({"a": telling(agents)}, names={})
    async with serving(site) as url, chromium() as page:
        await page.goto(url)
        await page.click("#talk")
        await said(page, "agent", "Hello.")
        (wire,) = site.gateway._offers._connections.values()
        for each in wire.channel.transport.transport.transport._connection._protocols:  # SCTP, DTLS, ICE: the network
            each.datagram_received = lambda *_: None
            each.transport.sendto = lambda *_: None
        await expect(page.locator(".event", has_text="Connected again.")).to_be_visible(timeout=SPEECH_MS)
        assert len(agents) == 1
        assert agents[0].voip.generation == 2


async def test_a_page_without_a_right_to_talk_is_told_so():
    async def nobody(_):
        return None

    gateway = WebGateway()
    gateway.on("voip", telling([]))
    async with serving(gateway, TalkPage(gateway, authorize=nobody)) as url, chromium() as page:
        await page.goto(url)
        await page.click("#talk")
        await expect(page.locator("#problem")).to_have_text("You may not talk to this agent.", timeout=SPEECH_MS)
        await expect(page.locator("#talk-label")).to_have_text("Start talking")


async def test_a_token_that_is_refused_is_explained_and_ends_the_attempt(monkeypatch):
    gateway = WebGateway()
    gateway.on("voip", telling([]))
    monkeypatch.setattr(gateway, "token", lambda **_: WebGateway().token())
    async with serving(gateway, TalkPage(gateway)) as url, chromium() as page:
        await page.goto(url)
        await page.click("#talk")
        await expect(page.locator("#problem")).to_contain_text("not one of ours", timeout=SPEECH_MS)
        await expect(page.locator("#state")).to_have_text("The call has ended")
        assert not gateway.calls


async def test_an_agent_that_cannot_be_made_is_told_of_and_no_used_token_instead():
    def broken(voip):
        raise KeyError("OPENAI_API_KEY")

    async with serving(make_site({"a": broken}, names={})) as url, chromium() as page:
        await page.goto(url)
        await page.click("#talk")
        await expect(page.locator("#problem")).to_have_text(
            "an error has occurred: the server's log says which", timeout=SPEECH_MS
        )


async def test_two_tabs_are_two_calls():
    agents = []
    async with serving(make_site({"a": telling(agents)}, names={})) as url, chromium() as page:
        other = await page.context.new_page()
        for each in (page, other):
            await each.goto(url)
            await each.click("#talk")
            await said(each, "agent", "Hello.")
        agents[1].post(Message(uuid=uuid4(), data="only the second"))
        await said(other, "agent", "only the second")
        assert all("second" not in text for _, text in await transcript(page))


async def test_a_tool_of_the_page_runs_there():
    from dialog.testing.model import ToolUse
    from dialog.testing.scripted import ScriptedLLM

    agents = []

    def take(voip):
        llm = ScriptedLLM([ToolUse("paint", {"colour": "green"}), ToolUse("break_it", {}), "Done."])
        agents.append(Agent(voip=voip, tts=HummingTTS(ms_per_char=5), llm=llm))
        agents[0].activate()
        agents[0].post(Message(uuid=uuid4(), data="paint it green"))

    async with serving(make_site({"a": take}, names={})) as url, chromium() as page:
        await page.goto(url)
        await page.evaluate("""async () => {
            const { DialogClient } = await import('/talk/dialog.js');
            const token = async () => (await (await fetch('/talk/token', { method: 'POST' })).json()).token;
            const tools = {
              paint: { description: 'Paints.', run: ({ colour }) => { document.title = colour; return { colour }; } },
              break_it: { description: 'Fails.', run: async () => { throw new Error('it is broken'); } },
            };
            window.client = new DialogClient({ token, tools });
            await window.client.start();
        }""")
        async with asyncio.timeout(30):
            while len(agents[0].llm.requests) < 3:
                await asyncio.sleep(0.02)
        results = [each.content for each in agents[0].llm.requests[-1].items if hasattr(each, "content")]
        assert results == ['{"colour":"green"}', "failed: break_it: it is broken"]
        assert await page.title() == "green"
        await page.evaluate("window.client.stop()")


async def test_the_script_of_the_documentation_runs():
    page_text = (Path(__file__).parents[2] / "docs" / "browser.md").read_text()
    (script,) = re.findall(r"```javascript\n(.*?)```", page_text, re.DOTALL)
    script = f"var button = {{}}, map = {{ show() {{}} }};\n{script}\nexport {{ client }};"
    async with serving(make_site({"front-desk": telling([])}, names={})) as url, chromium() as page:
        await page.route("**/talk/docs.js", lambda route: route.fulfill(body=script, content_type="text/javascript"))
        await page.route("**/token", lambda route: route.continue_(url=f"{url}/token"))
        await page.goto(url)
        state = await page.evaluate("""async () => {
            const { client } = await import('/talk/docs.js');
            await client.start();
            return client.state;
        }""")
        assert state == "live"


# -- what is shown


async def test_what_a_caller_says_is_text_whatever_it_looks_like():
    agents = []
    evil = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"
    async with serving(make_site({"a": telling(agents)}, names={"a": "<b>Bold</b>"})) as url, chromium() as page:
        await page.goto(url)
        await page.click("#talk")
        await said(page, "agent", "Hello.")
        agents[0].post(Message(uuid=uuid4(), data=evil))
        await said(page, "you", "onerror")
        await said(page, "agent", "onerror")
        assert ("you", evil) in await transcript(page)
        assert await page.locator("#transcript img, #transcript script").count() == 0
        assert await page.title() == "Talk to an agent"
        assert await page.inner_text("#agent option") == "<b>Bold</b>"


async def test_the_page_allows_nothing_from_elsewhere_and_no_inline_script():
    async with serving(make_site({"a": telling([])}, names={})) as url, ClientSession() as http:
        async with http.get(url) as response:
            policy = dict(part.strip().split(" ", 1) for part in response.headers["Content-Security-Policy"].split(";"))
            text = await response.text()
        assert policy["default-src"] == "'none'"
        assert policy["script-src"] == policy["style-src"] == "'self'"
        assert policy["frame-ancestors"] == "'none'"
        assert "<style" not in text
        assert " on" not in text.replace(" on ", "").split("<body")[1].split("<main")[0]
        async with http.post(f"{url}/token", headers={"Origin": "https://evil.example"}) as response:
            assert response.status == 403
        async with http.post(f"{url}/token", headers={"Origin": url.removesuffix("/talk")}) as response:
            assert (response.status, response.headers["Cache-Control"]) == (200, "no-store")
        async with http.get(url, headers={"Host": "a.example; script-src *"}) as response:
            assert "script-src *" not in response.headers.get("Content-Security-Policy", "")


async def test_it_works_below_another_path_of_the_host():
    agents = []
    gateway = WebGateway()
    gateway.on("voip", telling(agents))
    async with serving(gateway, TalkPage(gateway, path="/talk"), below="/voice") as url, chromium() as page:
        await page.goto(url)
        await page.click("#talk")
        await said(page, "agent", "Hello.")


async def test_it_is_used_with_the_keyboard_alone():
    agents = []
    async with serving(make_site({"a": telling(agents), "b": telling(agents)}, names={})) as url, chromium() as page:
        await page.goto(url)
        await page.keyboard.press("Tab")
        await page.keyboard.press("ArrowDown")
        await page.keyboard.press("Tab")
        assert await page.evaluate("document.activeElement.id") == "talk"
        assert await page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
        await page.keyboard.press("Enter")
        await said(page, "agent", "Hello.")
        assert agents[0].voip.agent == "b"
        await page.keyboard.press("m")
        await expect(page.locator("#mute")).to_have_attribute("aria-pressed", "true")
        await page.keyboard.press("Tab")
        assert await page.evaluate("document.activeElement.id") == "mute"
        await page.keyboard.press("Space")
        await expect(page.locator("#mute")).to_have_attribute("aria-pressed", "false")
        await page.focus("#talk")
        await page.keyboard.press("Enter")
        await expect(page.locator("#state")).to_have_text("You have hung up")


async def test_a_window_of_another_size_still_shows_what_is_said_last():
    agents = []
    view = {"viewport": {"width": 1120, "height": 900}, **CALM}
    async with serving(make_site({"a": telling(agents)}, names={})) as url, chromium(**view) as page:
        await page.goto(url)
        await page.click("#talk")
        await said(page, "agent", "Hello.")
        for number in range(8):
            agents[0].post(Message(uuid=uuid4(), data=f"Question {number}.", done=True))
            await said(page, "you", f"Question {number}.")
        await page.set_viewport_size({"width": 360, "height": 640})
        at_end = "({ scrollHeight, scrollTop, clientHeight }) => scrollHeight - scrollTop - clientHeight < 2"
        log = await page.query_selector("#log")
        await page.wait_for_function(at_end, arg=log, timeout=5000)
        assert await log.evaluate("log => log.scrollTop > 0")
        await log.evaluate("log => { log.scrollTop = 0; }")
        await page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
        await page.set_viewport_size({"width": 360, "height": 560})
        await page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
        assert await log.evaluate("log => log.scrollTop") == 0, "who reads further up is left there"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1120])
async def test_it_is_readable_everywhere(scheme, width, tmp_path):
    agents = []
    view = {"color_scheme": scheme, "viewport": {"width": width, "height": 720}, **CALM}
    async with serving(make_site({"a": telling(agents)}, names={})) as url, chromium(**view) as page:
        await page.goto(url)
        await page.click("#talk")
        await said(page, "agent", "Hello.")
        agents[0].post(Message(uuid=uuid4(), data="averyveryverylongwordwithoutanyplacetobreakit" * 3))
        await said(page, "you", "averyvery")
        await said(page, "agent", "averyvery")
        assert await page.evaluate("document.documentElement.scrollWidth") == width
        await page.screenshot(path=tmp_path / f"talk-{scheme}-{width}.png", full_page=True)
        found = await Axe().run(page)
        bad = [each for each in found.response["violations"] if each["impact"] in ("serious", "critical")]
        assert not bad, found.generate_report()


async def test_an_asgi_server_serves_page_and_gateway_too():
    agents, asked = [], []

    async def authorize(scope):
        asked.append(dict(scope["headers"]).get(b"cookie", b"").decode())
        return asked[-1].removeprefix("user=") or None

    gateway = WebGateway(webrtc=WebRTC())
    gateway.on("voip", telling(agents))
    page_of = TalkPage(gateway)
    mounts = [Mount("/talk", page_of.asgi(authorize=authorize)), Mount("/ws/realtime", gateway.asgi())]
    async with serving_asgi(Starlette(routes=[Mount("/voice", routes=mounts)])) as origin, ClientSession() as http:
        url = f"{origin}/voice/talk"
        async with http.post(f"{url}/token", headers={"Origin": "https://evil.example"}) as response:
            assert (response.status, asked) == (403, [])
        async with http.post(f"{url}/token") as response:
            assert response.status == 401
        async with http.get(f"{url}/token") as response:
            assert response.status == 405
        async with http.get(f"{url}/nothing") as response:
            assert response.status == 404
        async with chromium() as page:
            await page.context.add_cookies([{"name": "user", "value": "ada", "url": origin}])
            await page.goto(url)
            await page.click("#talk")
            await said(page, "agent", "Hello.")
            assert agents[0].voip.user == "ada"
            assert await page.inner_text("#via") == "WebRTC"
            assert not page.problems
        await gateway.close()
    with pytest.raises(ConfigurationError, match="give asgi"):
        TalkPage(gateway, authorize=lambda request: None).asgi()


def test_the_client_can_be_served_from_elsewhere():
    assert set(client_files()) == {"dialog.js", "dialog-audio.js", "dialog-webrtc.js"}
    assert all(path.is_file() for path in client_files().values())
    with pytest.raises(ConfigurationError, match="like /talk"):
        TalkPage(WebGateway(), path="talk/")

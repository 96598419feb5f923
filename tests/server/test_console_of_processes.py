"""The console of a service in several processes: a page at any of them shows and steers the calls of all."""

from __future__ import annotations

from types import SimpleNamespace

from console_line import Visitor
from test_rest_of_processes import houses, on_a_call

SECRET = "a-token-of-the-tests"


async def visitor(client, cookie="") -> Visitor:
    """Somebody at one process, with the cookie of another one perhaps."""
    if not cookie:
        form = {"data": {"token": SECRET}, "headers": {"Origin": client.origin}, "allow_redirects": False}
        async with client.session.post(f"{client.origin}/console/sign-in", **form) as response:
            assert response.status == 303
            cookie = response.headers["Set-Cookie"].partition(";")[0]
        client.session.cookie_jar.clear()
    config = SimpleNamespace(prefix="", console="/console")
    line = SimpleNamespace(
        origin=client.origin, session=client.session, client=client, service=SimpleNamespace(config=config)
    )
    return Visitor(line, cookie)


async def test_a_page_at_one_process_shows_and_steers_the_calls_of_another(monkeypatch) -> None:
    async with houses(monkeypatch) as it:
        near = await visitor(it.at[0])
        far = await visitor(it.at[1], near.headers["Cookie"])
        async with far.page() as page, on_a_call(it) as (caller, path):
            call_id = path.rpartition("/")[2]
            told = await page.next("changes", lambda told: any(each["said"][0] for each in told["calls"]))
            assert told["calls"][0]["call_id"] == call_id
            found = (await far.ask("GET", f"/calls/{call_id}")).body
            assert (found["call"]["state"], found["call"]["tenant"]) == ("live", "first")
            await page.wish("watch", call_id=call_id, after=10_000)
            assert (await page.next("watching"))["sound"] is False
            assert (await far.ask("POST", f"/calls/{call_id}/whisper", {"text": "A member."})).status == 202
            assert (await page.event("agent.told"))["text"] == "A member."
            async with (await visitor(it.at[1], far.headers["Cookie"])).page() as later:
                await later.next("changes", lambda told: told["calls"][0]["call_id"] == call_id)
            assert (await far.ask("POST", f"/calls/{call_id}/hangup", {})).status == 204
            await caller.wait_ended()
            assert (await page.next("changes", lambda told: told["gone"]))["gone"] == [call_id]

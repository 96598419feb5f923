import asyncio
import gc
import ssl

import aiohttp

from dialog.net import shared


async def test_a_hundred_users_share_one_session_and_one_tls_context(monkeypatch):
    made = []
    create = ssl.create_default_context
    monkeypatch.setattr(ssl, "create_default_context", lambda *a, **k: made.append(1) or create(*a, **k))
    shared.ssl_context.cache_clear()
    leases = [shared.session() for _ in range(100)]
    assert len({id(lease.value) for lease in leases}) == 1
    assert len(made) == 1
    session = leases[0].value
    assert isinstance(session, aiohttp.ClientSession)
    assert session.connector.limit == 0
    for lease in leases[:-1]:
        await lease.release()
        await lease.release()  # harmless
    assert not session.closed
    await leases[-1].release()
    assert session.closed
    again = shared.session()
    assert again.value is not session
    await again.release()
    assert len(made) == 1


async def test_clients_are_told_apart_by_their_key_and_closed_by_their_last_user():
    made, closed = [], []

    async def close(client):
        closed.append(client)

    def factory():
        made.append(object())
        return made[-1]

    first = shared.client(("openai", "url", "key", ()), factory, close=close)
    second = shared.client(("openai", "url", "key", ()), factory, close=close)
    other = shared.client(("openai", "url", "another", ()), factory, close=close)
    assert first.value is second.value
    assert other.value is not first.value
    await first.release()
    assert closed == []
    await second.release()
    assert closed == [first.value]
    await other.release()
    assert len(made) == len(closed) == 2


def test_nothing_is_shared_between_loops_or_outlives_them():
    async def use():
        lease = shared.client("thing", object)
        value = lease.value
        await lease.release()
        return value

    before = len(shared._loops)
    assert asyncio.run(use()) is not asyncio.run(use())
    gc.collect()
    assert len(shared._loops) <= before

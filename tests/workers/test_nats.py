"""A fleet's connection to NATS: restarted, cut, refused, secured."""

from __future__ import annotations

import asyncio
import base64
import gc
import logging
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from itertools import pairwise
from uuid import uuid4

import nkeys
import pytest
from bridges import Bridge, bridge, hang, until
from cable import Cable, cable
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from nats.aio.client import Client
from steady import burn
from test_bridge import FAST, speech, tone

from dialog.audio.sound import Sound
from dialog.clock import SYSTEM_CLOCK
from dialog.errors import ConfigurationError
from dialog.loop import new_event_loop
from dialog.message import Message
from dialog.participant import Participant
from dialog.scope import CallScope
from dialog.testing.nats_server import NatsServer
from dialog.voip.admission import NoWorker
from dialog.voip.memory import memory_call
from dialog.voip.voip import VoIP
from dialog.workers.fleet import Fleet, nats_settings
from dialog.workers.frames import NOBODY, Frame, Heartbeat, Hello
from dialog.workers.hosting import HostingSettings
from dialog.workers.nats import NatsFabric, NatsUnavailable
from dialog.workers.worker import Worker


@pytest.fixture(autouse=True)
def _over_nats(monkeypatch):
    monkeypatch.setattr("bridges.medium", "nats")


def listen(voip: VoIP) -> list[Message[bytes]]:
    heard: list[Message[bytes]] = []
    voip.on(VoIP.MESSAGE, heard.append)
    return heard


def whole(heard: list[Message[bytes]]) -> bytes:
    for before, after in pairwise(heard):
        assert after.at_ms == pytest.approx(before.at_ms + len(before.data) / 8, abs=0.5)
    return b"".join(each.data for each in heard)


async def go_by(way: Cable, house: Bridge) -> None:
    """Let the host reach NATS by a way that can be cut."""
    await hang(house.fabric)
    house.fabric.settings = nats_settings(way.url)
    await house.fabric.connect()


async def restart(house: Bridge, away_s: float) -> None:
    """Kill the server, and start it again when every node has noticed and was away for longer than it may be."""
    assert house.nats is not None
    house.nats.kill()
    fabrics = [house.fabric, *(worker.fabric for worker in house.workers.values())]
    await until(lambda: not any(fabric.connected for fabric in fabrics))
    await asyncio.sleep(away_s)
    await house.nats.start()


async def test_a_restart_of_nats_loses_no_call_and_nothing_of_what_was_said():
    async with bridge(clock=FAST) as house:
        await house.worker("one")
        await house.worker("two")
        calls = [await house.ring() for _ in range(6)]
        heard = [listen(voip) for _, _, voip in calls]
        for _, line, _ in calls:
            line.say(tone(2000))
        await until(lambda: all(sum(len(each.data) for each in audio) > 4000 for audio in heard))
        message = speech(4000)
        calls[0][2].post(message)
        await restart(house, 1.5)  # longer than a node may be silent
        await until(lambda: all(len(whole(audio)) >= 16_000 and tone(2000) in whole(audio) for audio in heard))
        await until(lambda: calls[0][1].heard_audio == message.data)
        assert all(house.hosted(call).handed_over == 0 for call, _, _ in calls)
        assert house.fabric.reconnects == 1


async def test_what_is_posted_and_pressed_while_nats_is_away_comes_after_it():
    async with bridge(clock=FAST) as house:
        await house.worker("one")
        _, line, voip = await house.ring()
        keys: list[str] = []
        voip.on(VoIP.DTMF, keys.append)
        line.pump()
        assert house.nats is not None
        house.nats.kill()
        await until(lambda: not house.fabric.connected and not house.workers["one"].fabric.connected)
        message = speech(300)
        voip.post(message)
        line.press("17")
        await house.nats.start()
        await until(lambda: line.heard_audio == message.data)
        await until(lambda: keys == ["1", "7"])


async def test_while_nats_is_away_nothing_is_begun_that_cannot_be_taken_back():
    async with bridge(clock=FAST) as house:
        await house.worker("one")
        _, line, voip = await house.ring()
        line.pump()
        assert voip.may_act()
        assert house.nats is not None
        house.nats.kill()
        await until(lambda: not voip.may_act())
        await house.nats.start()
        await until(voip.may_act)


async def test_a_worker_that_is_cut_off_loses_its_call_and_is_not_heard_when_it_is_back():
    async with bridge(clock=FAST) as house, cable(house.nats.port) as way:
        await house.worker("cut", url=way.url)
        call, line, first = await house.ring()
        await house.worker("other")
        hosted = house.hosted(call)
        way.cut()
        first.post(speech(2000))  # on its way for ever
        await until(lambda: hosted.worker == "other")
        assert not line.heard_audio
        message = speech(300)
        house.voips[-1].post(message)
        await until(lambda: line.heard_audio == message.data)
        assert not first.may_act()
        way.mend()
        await until(lambda: first.state == "ended")
        assert first.end is not None
        assert first.end.reason == "revoked"
        assert line.heard_audio == message.data
        assert hosted.handed_over == 1
        await until(lambda: house.host.directory.get("cut"))


async def test_a_host_that_is_cut_off_blames_no_worker():
    async with bridge(clock=FAST) as house, cable(house.nats.port) as way:
        await go_by(way, house)
        await house.worker("one")
        call, line, voip = await house.ring()
        heard = listen(voip)
        way.cut()
        line.say(tone(600))
        # Whoever runs on a machine that is busy may be away a second time.
        await until(lambda: not house.fabric.connected, 30)
        way.mend()
        await until(lambda: tone(600) in whole(heard), 30)
        assert house.hosted(call).handed_over == 0
        assert house.host.directory.get("one") is not None


@pytest.mark.alone
@pytest.mark.parametrize("loop", [asyncio.new_event_loop, new_event_loop])
def test_a_server_that_is_killed_again_and_again_leaves_nothing_of_its_connections_and_no_noise(loop, caplog):
    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(killed_again_and_again())
    gc.collect()
    assert [record.message for record in caplog.records if not record.name.startswith("dialog.")] == []


async def killed_again_and_again() -> None:
    async with NatsServer() as server:
        fabrics = [
            NatsFabric(f"node-{number}", nats_settings(server.url), listens="hosts", tells="hosts") for number in "123"
        ]
        for fabric in fabrics:
            await fabric.connect()
        ours = asyncio.all_tasks()

        async def chat() -> None:
            while True:  # what is being written when the connection breaks is what nats-py stumbles over
                for fabric in fabrics:
                    fabric.announce(Frame(NOBODY, 0, 0, Heartbeat()))
                await asyncio.sleep(0)

        talking = asyncio.create_task(chat())
        for _ in range(4):
            server.kill()
            await until(lambda: not any(fabric.connected for fabric in fabrics))
            await server.start()
            await until(lambda: all(fabric.connected for fabric in fabrics))
        server.kill()
        talking.cancel()
        await asyncio.wait([talking])
        for fabric in fabrics:
            await fabric.close()
        await until(lambda: not any("nats" in str(task.get_coro()) for task in asyncio.all_tasks() - ours))


async def test_a_host_is_heard_for_as_long_as_a_call_of_its_waits_for_a_recording(monkeypatch, caplog):
    monkeypatch.setattr(NatsFabric, "host_lost_s", 1.5)

    class Waiting(Participant):
        pass

    def wait(voip: VoIP) -> None:
        scope, waiting = CallScope.current(), Waiting()
        assert scope is not None
        voip.on(VoIP.ENDED, lambda _: scope.linger(waiting, 60.0))

    async with bridge(clock=FAST) as house:
        worker = await house.worker("one", wait)
        _, line, voip = await house.ring()
        line.hang_up()
        await until(lambda: voip.end is not None and not worker.calls)
        beats = worker._beats
        await until(lambda: worker._beats > beats + 10)  # two seconds of both
        assert worker.left == 1
        assert worker.hears("host")
        assert "is gone" not in caplog.text
    assert "is lost" not in caplog.text, "a call that has ended has nothing to lose"


async def test_no_call_is_offered_to_anybody_while_nats_is_away():
    async with NatsServer() as server:
        fleet = Fleet(server.url, hosting=HostingSettings(admit_s=0.3))
        fabric = NatsFabric("one", nats_settings(server.url), listens="workers", tells="hosts")
        worker = Worker(fabric, lambda voip: None)
        await fleet.start()
        await fabric.connect()
        worker.start()
        await until(lambda: fleet.ready)
        server.kill()
        await until(lambda: not fleet.ready)
        taken = []
        call, _ = memory_call(lambda voip: taken.append(fleet.take(voip)), join=False)
        with pytest.raises(NoWorker):
            await asyncio.wait_for(taken[0], 5)
        call.end("no_worker")
        await call.wait_closed()
        await server.start()
        await until(lambda: fleet.ready and fabric.connected)
        await worker.close()
        await fabric.close()
        await until(lambda: not fleet.ready)
        await fleet.close()


async def test_what_is_longer_than_a_message_may_be_comes_in_pieces():
    async with bridge(clock=FAST) as house:
        assert house.nats is not None
        house.nats.config = "max_payload: 65536"
        await restart(house, 0)
        await house.worker("one")
        _, line, voip = await house.ring()
        sound = Sound(bytes(range(256)) * 2000)  # half a megabyte
        voip.set_background(sound, gain_db=0.0)
        await until(lambda: line.heard_audio)


async def test_two_fleets_share_a_cluster_and_know_nothing_of_each_other():
    async with NatsServer() as server:
        mine, theirs = Fleet(server.url, prefix="mine"), Fleet(server.url, prefix="their.own")
        await mine.start()
        await theirs.start()
        fabric = NatsFabric("one", nats_settings(server.url, prefix="mine"), listens="workers", tells="hosts")
        worker = Worker(fabric, lambda voip: None)
        await fabric.connect()
        worker.start()
        await until(lambda: mine.ready)
        assert not theirs.ready
        await worker.close()
        for each in (fabric, mine, theirs):
            await each.close()


async def test_what_others_publish_on_our_subjects_is_dropped_and_told(caplog):
    async with bridge(clock=FAST) as house:
        await house.worker("one")
        stranger = Client()
        assert house.nats is not None
        await stranger.connect(house.nats.url)
        with caplog.at_level(logging.ERROR):
            await stranger.publish("dialog.node.host", b"hello there", "somewhere.else")
            await stranger.publish("dialog.node.host", b"hello there", "dialog.node.x.y.z")
            await stranger.publish("dialog.node.host", b"", "")
            await stranger.flush()
            await until(lambda: "is dropped" in caplog.text)
        await stranger.close()
        await house.ring()


async def test_a_worker_of_another_release_gets_no_calls_and_is_told_of_once(caplog):
    async with bridge(clock=FAST) as house:
        fabric = NatsFabric("old", nats_settings(house.nats.url), listens="workers", tells="hosts")
        await fabric.connect()
        with caplog.at_level(logging.ERROR):
            fabric.send("host", Frame(NOBODY, 0, 0, Hello(99, 10)))
            await until(lambda: "speaks version 99" in caplog.text)
            for _ in range(3):
                fabric.announce(Frame(NOBODY, 0, 0, Heartbeat()))
            await house.worker("new")
        assert house.host.directory.get("old") is None
        assert caplog.text.count("speaks version 99") == 1
        await fabric.close()


async def test_what_is_read_too_slowly_is_told(caplog, monkeypatch):
    monkeypatch.setattr("dialog.workers.nats._SUB_MESSAGES", 3)
    async with bridge(clock=FAST) as house:
        sender = Client()
        assert house.nats is not None
        await sender.connect(house.nats.url)
        with caplog.at_level(logging.ERROR):
            for _ in range(200):
                await sender.publish("dialog.node.host", b"", "dialog.node.x")
            await sender.flush()
            await until(lambda: house.fabric.dropped)
        assert "too slowly" in caplog.text
        await sender.close()


async def test_a_call_goes_on_when_messages_of_it_are_lost(monkeypatch):
    """Every twentieth message vanishes, as it does when somebody reads too slowly."""
    count = 0
    real = NatsFabric._transmit

    def lossy(self, to, packet):
        nonlocal count
        count += 1
        if count % 20:
            real(self, to, packet)

    async with bridge(clock=FAST) as house:
        await house.worker("one")
        call, line, voip = await house.ring()
        heard = listen(voip)
        monkeypatch.setattr(NatsFabric, "_transmit", lossy)
        line.say(tone(4000))
        message = speech(4000)
        for at in range(0, len(message.data), 800):
            voip.post(
                Message(uuid=message.uuid, data=message.data[at : at + 800], at_ms=at / 8, done=at + 800 >= 32_000)
            )
        await until(lambda: tone(4000) in whole(heard), 20)
        await until(lambda: line.heard_audio == message.data, 20)
        assert house.hosted(call).handed_over == 0
        assert count > 40


# Who may connect, and how.


async def refused(**connection) -> str:
    fleet = Fleet(**connection)
    with pytest.raises(ConfigurationError, match="refuses the credentials") as told:
        await fleet.start()
    await fleet.close()
    return str(told.value)


async def accepted(**connection) -> None:
    fleet = Fleet(**connection)
    await fleet.start()
    await fleet.close()


async def test_a_user_and_a_password_are_checked_and_not_shown():
    async with NatsServer("authorization { user: ann, password: opensesame }") as server:
        await accepted(servers=server.url, user="ann", password="opensesame")
        text = await refused(servers=server.url, user="ann", password="wrongword")
        assert "wrongword" not in text
        url = server.url.replace("//", "//ann:wrongword@")
        fleet = Fleet(url)
        assert "wrongword" not in await refused(servers=url) + repr(fleet) + repr(fleet.settings)
        await accepted(servers=server.url.replace("//", "//ann:opensesame@"))


async def test_a_token_is_checked():
    async with NatsServer("authorization { token: opensesame }") as server:
        await accepted(servers=server.url, token="opensesame")
        await refused(servers=server.url, token="wrongword")
        await refused(servers=server.url)


def seed() -> tuple[bytes, str]:
    """A new nkey of a user: its seed, and its public key."""
    made = nkeys.encode_seed(uuid4().bytes + uuid4().bytes, nkeys.PREFIX_BYTE_USER)
    return bytes(made), nkeys.from_seed(bytearray(made)).public_key.decode()


async def test_an_nkey_is_checked(tmp_path):
    (good, public), (bad, _) = seed(), seed()
    (tmp_path / "good.nk").write_bytes(good)
    (tmp_path / "bad.nk").write_bytes(bad)
    async with NatsServer(f"authorization {{ users: [{{ nkey: {public} }}] }}") as server:
        await accepted(servers=server.url, nkey_seed=str(tmp_path / "good.nk"))
        await refused(servers=server.url, nkey_seed=str(tmp_path / "bad.nk"))


async def test_a_credentials_file_is_checked(tmp_path):
    operator, account, user = (
        nkeys.from_seed(bytearray(nkeys.encode_seed(uuid4().bytes + uuid4().bytes, kind)))
        for kind in (nkeys.PREFIX_BYTE_OPERATOR, nkeys.PREFIX_BYTE_ACCOUNT, nkeys.PREFIX_BYTE_USER)
    )
    user_seed = bytes(user._seed).decode()
    config = (
        f"operator: {jwt(operator, operator, 'operator')}\nresolver: MEMORY\n"
        f"resolver_preload: {{ {account.public_key.decode()}: {jwt(account, operator, 'account')} }}"
    )
    (tmp_path / "user.creds").write_text(
        f"-----BEGIN NATS USER JWT-----\n{jwt(user, account, 'user')}\n------END NATS USER JWT------\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{user_seed}\n------END USER NKEY SEED------\n"
    )
    async with NatsServer(config) as server:
        await accepted(servers=server.url, credentials=str(tmp_path / "user.creds"))
        await refused(servers=server.url)


def jwt(subject, issuer, kind: str) -> str:
    """A token as nsc writes them: Ed25519 over header and claims."""
    import hashlib
    import json

    def packed(data: bytes) -> str:
        return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

    claims = {
        "jti": "",
        "iat": int(datetime.now(UTC).timestamp()),
        "iss": issuer.public_key.decode(),
        "sub": subject.public_key.decode(),
        "name": kind,
        "nats": {"type": kind, "version": 2},
    }
    if kind == "account":
        unlimited = ("subs", "data", "payload", "imports", "exports", "conn", "leaf")
        claims["nats"]["limits"] = {**dict.fromkeys(unlimited, -1), "wildcards": True}
    if kind == "user":
        claims["nats"] |= {"subs": -1, "data": -1, "payload": -1}
    claims["jti"] = base64.b32encode(hashlib.sha256(json.dumps(claims).encode()).digest()).decode().rstrip("=")
    text = f"{packed(json.dumps({'typ': 'JWT', 'alg': 'ed25519-nkey'}).encode())}.{packed(json.dumps(claims).encode())}"
    return f"{text}.{packed(bytes(issuer.sign(text.encode())))}"


def certificate(folder, name: str, authority=None):
    """A certificate for 127.0.0.1, of itself or of an authority; its files, and what signs with it."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    issuer, signer = authority or (subject, key)
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=authority is None, path_length=None), critical=True)
        .sign(signer, hashes.SHA256())
    )
    (folder / f"{name}.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / f"{name}.key").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return str(folder / f"{name}.pem"), str(folder / f"{name}.key"), (subject, key)


@asynccontextmanager
async def secured(folder, *, verify: bool):
    ca, _, authority = certificate(folder, "authority")
    pem, key, _ = certificate(folder, "server", authority)
    config = f'tls {{ cert_file: "{pem}", key_file: "{key}", ca_file: "{ca}", verify: {str(verify).lower()} }}'
    async with NatsServer(config, scheme="tls") as server:
        yield server, ca, authority


async def test_a_server_with_a_certificate_of_our_authority_is_trusted_and_no_other(tmp_path):
    async with secured(tmp_path, verify=False) as (server, ca, _):
        await accepted(servers=server.url, ca=ca)
        fleet = Fleet(server.url)
        with pytest.raises(ConfigurationError, match="not trusted"):
            await fleet.start()
        await fleet.close()


async def test_a_server_may_ask_for_our_certificate(tmp_path):
    async with secured(tmp_path, verify=True) as (server, ca, authority):
        pem, key, _ = certificate(tmp_path, "client", authority)
        await accepted(servers=server.url, ca=ca, certificate=pem, key=key)
        fleet = Fleet(server.url, ca=ca, connect_timeout_s=0.5)
        with pytest.raises(NatsUnavailable):
            await fleet.start()
        await fleet.close()


async def test_without_a_server_the_start_says_so():
    fleet = Fleet("nats://127.0.0.1:9", connect_timeout_s=0.3)
    with pytest.raises(NatsUnavailable, match=r"127\.0\.0\.1:9"):
        await fleet.start()
    await fleet.close()


@pytest.mark.parametrize(
    ("connection", "complaint"),
    [
        ({"servers": ""}, "address of a NATS server"),
        ({"prefix": "a b"}, "no NATS subject"),
        ({"certificate": "x.pem"}, "needs its key"),
        ({"passwort": "x"}, "no such setting"),
    ],
)
def test_settings_that_cannot_be_are_named(connection, complaint):
    with pytest.raises(ConfigurationError, match=complaint):
        Fleet(**connection)


async def test_a_file_that_is_missing_is_named():
    fleet = Fleet(ca="/nowhere/ca.pem")
    with pytest.raises(ConfigurationError, match=r"ca\.pem"):
        await fleet.start()
    await fleet.close()


async def test_the_time_a_node_is_away_counts_against_nobody(monkeypatch):
    async with bridge(clock=FAST) as house:
        await house.worker("one")
        await until(lambda: house.fabric.attentive(SYSTEM_CLOCK.now()))
        monkeypatch.setattr("dialog.workers.nats._GRACE_S", 3600.0)
        await restart(house, 0)
        await until(lambda: house.fabric.connected)
        back = SYSTEM_CLOCK.now()
        await until(lambda: house.fabric._heard_at > back)
        assert not house.fabric.attentive(SYSTEM_CLOCK.now())
        monkeypatch.setattr(house.fabric, "_attentive_from", back)
        await until(lambda: house.fabric.attentive(SYSTEM_CLOCK.now()))


async def test_who_hears_nobody_is_not_attentive_however_busy_its_loop_is():
    """A loop that is held up at every beat might take its own delay for the reason of the silence."""
    async with bridge(clock=FAST) as house, cable(house.nats.port) as way:
        await go_by(way, house)
        await house.worker("one")
        _, _, voip = await house.ring()
        way.cut()
        told: list[bool] = []
        until_s = SYSTEM_CLOCK.now() + 2.0
        while SYSTEM_CLOCK.now() < until_s:
            burn(0.3)
            await asyncio.sleep(0.05)
            told.append(house.fabric.attentive(SYSTEM_CLOCK.now()))
        assert not any(told[2:])
        way.mend()
        await until(lambda: house.fabric.attentive(SYSTEM_CLOCK.now()), 30)
        assert voip.end is None

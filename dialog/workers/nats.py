"""Nodes of several machines, joined by NATS.

Every node has a subject of its own, ``<prefix>.node.<name>``, on which everything for it comes, whatever the
call; the reply subject of a message is its sender's, which costs no more than a name in front of the packet (8 µs for
a message and both sides; with a header of NATS it is 12). What is for all hosts or for all workers goes to
``<prefix>.hosts`` or ``<prefix>.workers``.

NATS forgets what nobody takes at once. Nothing here makes up for that: the streams of the calls do, and
what is not in them is said again by whoever needs it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import socket
import ssl
import time
from collections import deque
from collections.abc import Awaitable, Callable
from contextvars import Context
from importlib.util import find_spec
from typing import TYPE_CHECKING, ClassVar, Literal
from urllib.parse import urlsplit
from uuid import uuid4

from msgspec import Struct

from dialog.checks import check_several
from dialog.clock import SYSTEM_CLOCK
from dialog.errors import ConfigurationError, DialogError, MissingExtra, RemoteProtocolError
from dialog.workers.fabric import Fabric
from dialog.workers.frames import MAX_FRAME, Frame, decode, encode
from dialog.workers.natsclient import end, failures, new_client, within
from dialog.workers.ticker import BEAT_S

if TYPE_CHECKING:
    from nats.aio.client import Client
    from nats.aio.msg import Msg

__all__ = ["NatsFabric", "NatsSettings", "NatsUnavailable", "node_name"]

logger = logging.getLogger(__name__)

Group = Literal["hosts", "workers"]

_CONNECT_S = 3.0
_RETRY_S = (0.05, 0.2, 0.2, 0.5, 1.0)
_DEAF_S = 0.45
"""We send ourselves a message at every beat; when none has come back for so long, it is us who hear nobody."""
_DEAD_S = 3.0
"""… and after so long the connection is made anew."""
_GRACE_S = 5.0
"""When we are back, others may be on their way still."""
_GLITCH_S = 1.0
"""… if the connection has held, they are there."""
_MAX_WAITING = 16_000_000
"""Bytes that may wait for the connection to take them."""
_SUB_MESSAGES = 500_000
_SUB_BYTES = 128_000_000
_TELL_S = 5.0
_CLOSE_S = 1.0
_TOKEN = re.compile(r"[^A-Za-z0-9_-]+")


class NatsUnavailable(DialogError):
    """No server of the cluster could be reached."""

    code = "nats_unavailable"


class NatsSettings(Struct, frozen=True, kw_only=True):
    """How to reach a cluster. Files are named by their paths; what is empty is not used."""

    servers: tuple[str, ...] = ("nats://127.0.0.1:4222",)
    """``nats://`` or ``tls://``, perhaps with user and password."""
    prefix: str = "dialog"
    """Of all subjects: fleets with different ones share a cluster and know nothing of each other."""
    user: str = ""
    password: str = ""
    token: str = ""
    credentials: str = ""
    """File with a JWT and its seed (``.creds``)."""
    nkey_seed: str = ""
    """File with the seed of an nkey."""
    ca: str = ""
    """File with the certificates to trust, instead of the system's."""
    certificate: str = ""
    """File with our own certificate, for servers that ask for one."""
    key: str = ""
    """File with its key."""

    def __post_init__(self) -> None:
        check_several("servers of NATS", self.servers)
        if not self.servers or not all(self.servers):
            raise ConfigurationError("a fleet needs the address of a NATS server: nats://host:4222")
        if not re.fullmatch(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*", self.prefix):
            raise ConfigurationError(f"the prefix {self.prefix!r} is no NATS subject: write words with dots between")
        if self.certificate and not self.key:
            raise ConfigurationError("a certificate for NATS needs its key, too")

    def __repr__(self) -> str:
        return f"<NatsSettings {self.where} {self.prefix}>"

    @property
    def where(self) -> str:
        """The servers, without what is secret in their addresses."""
        return ", ".join(_public(server) for server in self.servers)

    def tls(self) -> ssl.SSLContext | None:
        """What connections are secured with; ``None``: with what the system trusts, if the server wants it.

        Raises:
            ConfigurationError: A file cannot be read, or is none of certificates.
        """
        if not self.ca and not self.certificate:
            return None
        try:
            context = ssl.create_default_context(cafile=self.ca or None)
            if self.certificate:
                context.load_cert_chain(self.certificate, self.key)
        except (OSError, ssl.SSLError) as exc:
            files = ", ".join(filter(None, (self.ca, self.certificate, self.key)))
            raise ConfigurationError(f"the certificates for NATS cannot be used ({files}): {exc}") from exc
        return context


def node_name(role: str) -> str:
    """A name for a node that no other has: which role, on which machine, which process."""
    machine = _TOKEN.sub("-", socket.gethostname())[:40]
    return f"{role}-{machine}-{os.getpid()}-{uuid4().hex[:6]}"


class NatsFabric(Fabric):
    """Reaches all nodes of a fleet over one connection to NATS, which it makes again whenever it is lost.

    While it is away nothing is sent and nobody is heard; :meth:`attentive` says so, and the receiver is told
    when it is back.
    """

    host_lost_s: ClassVar[float | None] = 15.0

    def __init__(self, node: str, settings: NatsSettings, *, listens: Group, tells: Group) -> None:
        """``listens``: the group that we are one of; ``tells``: the one that :meth:`announce` reaches."""
        if _TOKEN.search(node) or not node:
            raise ConfigurationError(f"{node!r} is no name for a node: letters, digits, '-' and '_'")
        super().__init__(node)
        self.settings = settings
        self.reconnects = 0
        """How often the connection had to be made again."""
        self.dropped = 0
        """Messages that the connection did not take in time, or that came faster than they were read."""
        self._nodes = f"{settings.prefix}.node."
        self._inbox = self._nodes + node
        self._listens = f"{settings.prefix}.{listens}"
        self._tells: Group = tells
        self._tls: ssl.SSLContext | None = None
        self._client: Client | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._outgoing: deque[tuple[str, bytearray]] = deque()
        self._waiting = 0
        self._wake = asyncio.Event()
        self._empty = asyncio.Event()
        """Everything was handed to the client."""
        self._heard_at = 0.0
        self._attentive_from = float("inf")
        self._grace_until = 0.0
        self._pieces: dict[str, _Pieces] = {}
        self._numbered = 0
        self._told_at = float("-inf")
        self._strangers: set[str] = set()

    @property
    def connected(self) -> bool:
        """Whether there is a connection."""
        return self._client is not None

    async def connect(self, *, within_s: float = 10.0) -> None:
        """Connect, and stay connected until :meth:`close`.

        Raises:
            ConfigurationError: The credentials are refused, or a file of the settings is of no use.
            MissingExtra: A package is not installed.
            NatsUnavailable: No server was reached ``within_s``.
        """
        _check_packages(self.settings)
        self._tls = self.settings.tls()
        first: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        # The connection belongs to no call, whoever asked for it.
        self._keeper = asyncio.get_running_loop().create_task(
            self._keep(first), name=f"NATS of {self.node}", context=Context()
        )
        try:
            async with asyncio.timeout(within_s):
                await asyncio.shield(first)
        except TimeoutError:
            await self.close()
            raise NatsUnavailable(f"NATS at {self.settings.where} was not reached within {within_s:g} s") from None
        except BaseException:
            await self.close()
            raise

    def attentive(self, now: float) -> bool:
        """See :class:`~dialog.workers.fabric.Fabric`: not without a connection, nor right after it came back."""
        return now >= self._attentive_from and now - self._heard_at <= _DEAF_S

    def send(self, to: str, frame: Frame) -> None:
        """See :class:`~dialog.workers.fabric.Fabric`; without a connection nothing is sent, or kept."""
        if self._client is not None:
            super().send(to, frame)

    def announce(self, frame: Frame) -> None:
        """See :class:`~dialog.workers.fabric.Fabric`."""
        self.tell(self._tells, frame)

    def tell(self, group: Group, frame: Frame) -> None:
        """Send ``frame`` to everybody of a group, ourselves among them if it is ours."""
        packet = bytearray()
        encode(frame, packet)
        self._queue(f"{self.settings.prefix}.{group}", packet)

    async def close(self) -> None:
        """See :class:`~dialog.workers.fabric.Fabric`."""
        self._flush()
        keeper, client = self._keeper, self._client
        self._keeper = None
        if client is not None:
            try:
                async with asyncio.timeout(_CLOSE_S):
                    await self._empty.wait()
                    await client.flush(timeout=1)
            except failures() as exc:
                logger.warning("node %s: its last messages may not have reached NATS: %r", self.node, exc)
        if keeper is not None:
            keeper.cancel()
            await asyncio.wait([keeper])

    # Out.

    def _transmit(self, to: str, packet: bytearray) -> None:
        self._queue(self._nodes + to, packet)

    def _queue(self, subject: str, packet: bytearray) -> None:
        if self._client is None:
            return
        if self._waiting > _MAX_WAITING:
            self._drop("NATS takes what this process sends too slowly")
            return
        self._outgoing.append((subject, packet))
        self._waiting += len(packet)
        self._empty.clear()
        self._wake.set()

    async def _write(self, client: Client) -> None:
        # Whoever cancels a publish of nats-py is not heard: it is the client's end that counts.
        while not client.is_closed:
            while self._outgoing:
                subject, packet = self._outgoing.popleft()
                self._waiting -= len(packet)
                limit = client.max_payload
                if len(packet) <= limit:
                    await client.publish(subject, packet, self._inbox)  # type: ignore[arg-type]  # any bytes will do
                    continue
                self._numbered += 1
                count = -(-len(packet) // limit)
                for at in range(count):
                    piece = packet[at * limit : (at + 1) * limit]
                    await client.publish(subject, piece, f"{self._inbox}.{self._numbered}.{at}.{count}")  # type: ignore[arg-type]
            self._wake.clear()
            self._empty.set()
            await self._wake.wait()

    # In.

    async def _on_message(self, message: Msg) -> None:
        self._heard_at = SYSTEM_CLOCK.now()
        data: bytes | None = message.data
        if not data or self.receiver is None:
            return  # our own, see _watch
        sender = message.reply.removeprefix(self._nodes)
        try:
            if "." in sender:
                sender, number, at, count = sender.split(".")
                data = self._piece(sender, int(number), int(at), int(count), data)
                if data is None:
                    return
            for frame in decode(data):
                self.deliver(sender, frame)
        except (RemoteProtocolError, ValueError) as exc:
            self._stranger(sender, str(exc))

    def _piece(self, sender: str, number: int, at: int, count: int, data: bytes) -> bytes | None:
        """A packet that was too long for one message, once all of it is there."""
        pieces = self._pieces.get(sender)
        if at == 0:
            pieces = self._pieces[sender] = _Pieces(number)
        if pieces is None or pieces.number != number or pieces.count != at:
            self._pieces.pop(sender, None)  # something of it was lost: it is repeated as a whole
            return None
        pieces.data += data
        pieces.count += 1
        if pieces.count == count or len(pieces.data) > 2 * MAX_FRAME:
            del self._pieces[sender]
            return bytes(pieces.data)
        return None

    def _stranger(self, sender: str, reason: str) -> None:
        if sender not in self._strangers and len(self._strangers) < 1000:
            self._strangers.add(sender)
            logger.error("node %s: what %s sends is dropped: %s", self.node, sender or "somebody", reason)

    # The connection.

    async def _keep(self, first: asyncio.Future[None]) -> None:
        attempts, away_since = 0, SYSTEM_CLOCK.now()
        while True:
            try:
                client, closed = await self._open()
            except DialogError as exc:
                if not first.done() and isinstance(exc, ConfigurationError):
                    first.set_exception(exc)
                    return
                if attempts in (0, 10):
                    logger.warning("node %s: %s; trying again", self.node, exc)
                await asyncio.sleep(_RETRY_S[min(attempts, len(_RETRY_S) - 1)])
                attempts += 1
                continue
            now = SYSTEM_CLOCK.now()
            self._client, self._heard_at, attempts = client, now, 0
            try:
                if not first.done():
                    self._attentive_from = now
                    first.set_result(None)
                else:
                    self._attentive_from = self._grace_until = now + _GRACE_S
                    self.reconnects += 1
                    logger.warning("node %s: NATS is back after %.1f s", self.node, now - away_since)
                    if self.receiver is not None:
                        self.receiver.back()
                await self._use(client, closed)
            finally:
                away_since = SYSTEM_CLOCK.now()
                self._client, self._attentive_from = None, float("inf")
                self._outgoing.clear()
                self._pieces.clear()
                self._waiting = 0
                await end(client)
            logger.warning("node %s: the connection to NATS is lost: %s", self.node, client.last_error or "closed")

    async def _open(self) -> tuple[Client, asyncio.Event]:
        """A new connection, and what is set when it is over.

        Raises:
            ConfigurationError: The credentials are refused.
            NatsUnavailable: No server is there.
        """
        settings, client, closed = self.settings, new_client(), asyncio.Event()
        last: list[Exception] = []

        async def failed(error: Exception) -> None:
            last.append(error)
            self._failed(error)

        async def over() -> None:
            closed.set()

        async def join() -> None:
            await client.connect(
                list(settings.servers),
                name=f"dialog {self.node}",
                error_cb=failed,
                closed_cb=over,
                allow_reconnect=False,  # a new client is made, whatever the old one died of
                max_reconnect_attempts=1,
                reconnect_time_wait=0,
                connect_timeout=1,
                ping_interval=1,
                max_outstanding_pings=2,
                tls=self._tls,
                user=settings.user or None,
                password=settings.password or None,
                token=settings.token or None,
                user_credentials=settings.credentials or None,
                nkeys_seed=settings.nkey_seed or None,
            )
            await self._subscribe(client, self._inbox)
            await self._subscribe(client, self._listens)
            await client.flush(timeout=1)

        try:
            await within(join(), _CONNECT_S)
        except failures() as exc:
            await end(client)
            texts = [str(each) or repr(each) for each in (*last, exc)]
            refused = next((text for text in texts if "authorization" in text.lower()), "")
            if refused:
                raise ConfigurationError(f"NATS at {settings.where} refuses the credentials: {refused}") from exc
            if any(isinstance(each, ssl.SSLCertVerificationError) for each in (*last, exc)):
                raise ConfigurationError(
                    f"the certificate of NATS at {settings.where} is not trusted: name its authority's file as ca"
                ) from exc
            raise NatsUnavailable(f"NATS at {settings.where} cannot be reached: {texts[0]}") from exc
        except BaseException:
            await end(client)
            raise
        return client, closed

    async def _subscribe(self, client: Client, subject: str) -> None:
        await client.subscribe(
            subject, cb=self._on_message, pending_msgs_limit=_SUB_MESSAGES, pending_bytes_limit=_SUB_BYTES
        )

    async def _use(self, client: Client, closed: asyncio.Event) -> None:
        """Send and watch until the connection is over."""
        self._wake.set()
        tasks = [
            asyncio.create_task(work, name=f"{name} of {self.node}")
            for name, work in (
                ("NATS writer", self._guarded(self._write, client)),
                ("NATS watch", self._guarded(self._watch, client)),
                ("NATS end", closed.wait()),
            )
        ]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await end(client)
            self._wake.set()
            await asyncio.wait(tasks)

    async def _guarded(self, work: Callable[[Client], Awaitable[None]], client: Client) -> None:
        try:
            await work(client)
        except failures() as exc:
            logger.debug("node %s: %r", self.node, exc)  # the connection is over, and its end is told

    async def _watch(self, client: Client) -> None:
        """Find out whether we hear at all: if not even what we tell ourselves comes, others' silence means nothing."""
        deaf, due = False, SYSTEM_CLOCK.now()
        while not client.is_closed:
            due = max(due + BEAT_S, SYSTEM_CLOCK.now())
            await client.publish(self._inbox, b"", self._inbox)
            await asyncio.sleep(due - SYSTEM_CLOCK.now())
            now = SYSTEM_CLOCK.now()
            late_s = now - due  # the event loop was held up, and what came meanwhile is read after this
            silent_s = now - self._heard_at - late_s
            if silent_s > _DEAD_S:
                logger.warning("node %s: NATS has not answered for %.1f s", self.node, silent_s)
                return
            if silent_s > _DEAF_S:
                deaf = True
                self._attentive_from = float("inf")
            elif deaf:
                deaf = False
                self._attentive_from = max(now + _GLITCH_S, self._grace_until)

    def _failed(self, error: Exception) -> None:
        """What nats-py tells beside the connection's end."""
        if type(error).__name__ == "SlowConsumerError":
            self._drop("this process reads what NATS brings too slowly")

    def _drop(self, reason: str) -> None:
        self.dropped += 1
        now = time.monotonic()
        if now - self._told_at >= _TELL_S:
            self._told_at = now
            logger.error(
                "node %s: %s; %d messages were dropped so far, and those of calls are repeated",
                self.node,
                reason,
                self.dropped,
            )


class _Pieces(Struct, gc=False):
    number: int
    count: int = 0
    data: bytearray = bytearray()


def _check_packages(settings: NatsSettings) -> None:
    if find_spec("nats") is None:
        raise MissingExtra("nats-py", "nats")
    if (settings.credentials or settings.nkey_seed) and find_spec("nkeys") is None:
        raise MissingExtra("nkeys", "nats")


def _public(server: str) -> str:
    parts = urlsplit(server if "://" in server else f"nats://{server}")
    return f"{parts.scheme}://{parts.hostname}:{parts.port or 4222}"

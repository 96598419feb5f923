"""The metrics of a process in Prometheus' format."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from aiohttp import web

from dialog.telemetry.callmetrics import CallMetrics
from dialog.telemetry.gauges import Gauges, Watched
from dialog.telemetry.prometheus import CollectorRegistry, Gauge, Histogram, choose_encoder
from dialog.version import __version__
from dialog.workers.ticker import Ticker

__all__ = ["Metrics"]

_LAG_S: Final = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)


class Metrics:
    """Counts and times the calls of gateways, and answers ``GET /metrics``.

    ``dialog gateway`` and :func:`dialog.server.serving.serve` have one; in an application of your own::

        metrics = Metrics()
        metrics.watch(gateway)
        metrics.add_routes(app)

    With another framework answer with :meth:`exposition`, and call :meth:`start` and :meth:`close` with the server.

    It belongs to the event loop of its gateways. What it shows has no caller in it: no numbers, no call ids; but it
    tells how much business there is, so let only your Prometheus reach it.

    Args:
        registry: Of ``prometheus_client``, with metrics of your own; the default is a new one.
    """

    def __init__(self, *, registry: CollectorRegistry | None = None) -> None:
        self.registry: CollectorRegistry = CollectorRegistry() if registry is None else registry
        self._calls = CallMetrics(self.registry)
        self._gauges = Gauges()
        self.registry.register(self._gauges)
        Gauge("dialog_info", "Which Dialog this is.", ["version"], registry=self.registry).labels(__version__).set(1)
        self._lag = Histogram(
            "dialog_loop_lag_seconds",
            "How late the event loop comes round, five times a second.",
            registry=self.registry,
            buckets=_LAG_S,
        )
        self._ticker = Ticker(lambda _: self._lag.observe(self._ticker.late_s))

    def watch(self, gateway: Watched) -> None:
        """Count the calls of ``gateway``, from now on; of several, if it is called for each."""
        gateway.events.off(self._calls.take)  # gateways may share one
        gateway.events.on(self._calls.take)
        self._gauges.gateways = [*(known for known in self._gauges.gateways if known is not gateway), gateway]

    def queue(self, name: str, depth: Callable[[], float]) -> None:
        """Show how much waits in a queue as ``dialog_queue_depth``; ``depth`` is asked at each scrape."""
        self._gauges.queues[name] = depth

    def exposition(self, accept: str = "") -> tuple[bytes, str]:
        """All metrics, and their content type, by what the request's ``Accept`` says."""
        encode, content_type = choose_encoder(accept)
        return encode(self.registry), content_type

    def add_routes(self, app: web.Application) -> None:
        """Add ``GET /metrics``, and start and close with the application."""
        app.router.add_get("/metrics", self._answer)
        app.on_startup.append(self._on_startup)
        app.on_cleanup.append(self._on_cleanup)

    def start(self) -> None:
        """Measure the lag of the event loop from now on; one that does goes on."""
        self._ticker.start()

    def close(self) -> None:
        """Stop, also listening to the gateways; calling it again is harmless."""
        self._ticker.stop()
        for gateway in self._gauges.gateways:
            gateway.events.off(self._calls.take)

    async def _answer(self, request: web.Request) -> web.Response:
        body, content_type = self.exposition(request.headers.get("Accept", ""))
        return web.Response(body=body, headers={"Content-Type": content_type})

    async def _on_startup(self, _: web.Application) -> None:
        self.start()

    async def _on_cleanup(self, _: web.Application) -> None:
        self.close()

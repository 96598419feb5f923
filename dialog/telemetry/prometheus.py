"""What is used of ``prometheus_client``, or the word for what is missing."""

from __future__ import annotations

from dialog.errors import MissingExtra

try:
    from prometheus_client import Counter, Gauge, Histogram
    from prometheus_client.exposition import choose_encoder
    from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
    from prometheus_client.registry import Collector, CollectorRegistry
except ModuleNotFoundError as exc:
    raise MissingExtra("prometheus_client", "metrics") from exc

__all__ = [
    "Collector",
    "CollectorRegistry",
    "Counter",
    "CounterMetricFamily",
    "Gauge",
    "GaugeMetricFamily",
    "Histogram",
    "Metric",
    "choose_encoder",
]

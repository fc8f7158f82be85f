"""The coordinator's figures as Prometheus reads them."""

import asyncio
from collections.abc import Callable, Iterator
from itertools import accumulate
from typing import TYPE_CHECKING

from dtf.coordinator.figures import Figures
from dtf.coordinator.meters import APPEND_BOUNDS

if TYPE_CHECKING:
    from prometheus_client.core import Metric

PREFIX = "dtf_coordinator_"
READ_SECONDS = 10.0
"""A coordinator that is busy for so long is not scraped this time."""


class CoordinatorCollector:
    """Reads the figures when it is asked for them, in the coordinator's own loop: nothing changes meanwhile."""

    def __init__(self, figures: Callable[[], Figures], loop: asyncio.AbstractEventLoop) -> None:
        self._figures = figures
        self._loop = loop

    def describe(self) -> "list[Metric]":
        """Nothing need be collected to register."""
        return []

    def collect(self) -> "Iterator[Metric]":
        """Every family of figures, with the namespace as label."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

        async def read() -> Figures:
            return self._figures()

        figures = asyncio.run_coroutine_threadsafe(read(), self._loop).result(READ_SECONDS)
        labels = [figures.namespace]
        for name, text, value in (
            ("queued_tasks", "Tasks queued.", figures.queued_tasks),
            ("leases", "Tasks leased.", figures.leases),
            ("active_runs", "Runs that have not ended.", figures.active_runs),
            ("epoch", "Number of this reign.", figures.epoch),
            ("log_sequence", "Last durable sequence of the log.", figures.log_sequence),
            ("refusing", "1 while new work is refused.", int(figures.is_refusing)),
        ):
            gauge = GaugeMetricFamily(PREFIX + name, text, labels=["namespace"])
            gauge.add_metric(labels, value)
            yield gauge
        workers = GaugeMetricFamily(PREFIX + "workers", "Workers by state.", labels=["namespace", "state"])
        for state, count in sorted(figures.workers.items()):
            workers.add_metric([*labels, state], count)
        yield workers
        meters = figures.meters
        for name, text, value in (
            ("commits", "Commits made durable.", meters.commits),
            ("events", "Events made durable.", meters.events),
            ("commit_bytes", "Size of the commits.", meters.commit_bytes),
        ):
            counter = CounterMetricFamily(PREFIX + name, text, labels=["namespace"])
            counter.add_metric(labels, value)
            yield counter
        bounds = [*map(str, APPEND_BOUNDS), "+Inf"]
        buckets = list(zip(bounds, map(float, accumulate(meters.appends)), strict=True))
        appends = HistogramMetricFamily(
            PREFIX + "append_seconds",
            "From a decision to the log's word that it is durable.",
            labels=["namespace"],
        )
        appends.add_metric(labels, buckets, meters.append_seconds)
        yield appends

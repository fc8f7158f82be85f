"""The resource manager's figures as Prometheus reads them."""

from collections.abc import Callable, Iterator, Mapping
from itertools import accumulate
from typing import TYPE_CHECKING

from dtf.resource_manager.meters import STARTUP_BOUNDS, PoolMeters

if TYPE_CHECKING:
    from prometheus_client.core import Metric

PREFIX = "dtf_pool_"
Meters = Callable[[], Mapping[str, PoolMeters]]


class PoolCollector:
    """Reads the figures when it is asked for them."""

    def __init__(self, meters: Meters, shed_lines: Callable[[], int]) -> None:
        """`shed_lines` is the number of lines that the live feed did not send."""
        self._meters = meters
        self._shed_lines = shed_lines

    def describe(self) -> "list[Metric]":
        """Nothing need be collected to register."""
        return []

    def collect(self) -> "Iterator[Metric]":
        """Every family of figures, with one series a pool or more."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

        pools = dict(self._meters())
        yield CounterMetricFamily(
            "dtf_live_feed_shed",
            "Lines that taps were not sent, because too much happened.",
            self._shed_lines(),
        )
        for name, text, read in _GAUGES:
            gauge = GaugeMetricFamily(PREFIX + name, text, labels=["pool"])
            for pool, figures in pools.items():
                gauge.add_metric([pool], read(figures))
            yield gauge
        decisions = CounterMetricFamily(
            PREFIX + "decisions", "Decisions by action.", labels=["pool", "action"]
        )
        errors = CounterMetricFamily(
            PREFIX + "provider_errors", "What the provider could not do.", labels=["pool", "operation"]
        )
        launches = CounterMetricFamily(PREFIX + "launches", "Workers asked for.", labels=["pool"])
        sick = CounterMetricFamily(PREFIX + "quarantines", "Workers found sick.", labels=["pool"])
        startups = HistogramMetricFamily(
            PREFIX + "startup_seconds", "From a launch to its registration.", labels=["pool"]
        )
        for pool, figures in pools.items():
            for action, count in list(figures.decisions.items()):
                decisions.add_metric([pool, action], count)
            for operation, count in list(figures.provider_errors.items()):
                errors.add_metric([pool, operation], count)
            launches.add_metric([pool], figures.launched)
            sick.add_metric([pool], figures.quarantines)
            bounds = [*map(str, STARTUP_BOUNDS), "+Inf"]
            buckets = list(zip(bounds, map(float, accumulate(figures.startups)), strict=True))
            startups.add_metric([pool], buckets, figures.startup_seconds)
        yield from (decisions, errors, launches, sick, startups)


_GAUGES: tuple[tuple[str, str, Callable[[PoolMeters], float]], ...] = (
    ("desired_workers", "Workers wanted after all rules.", lambda each: each.desired),
    ("requested_workers", "Workers launched that have not registered.", lambda each: each.requested),
    ("observed_workers", "Workers that take work.", lambda each: each.observed),
    ("queued_tasks", "Tasks queued that the pool can run.", lambda each: each.queued),
    ("backlog_seconds", "Expected time of all queued and leased work.", lambda each: each.backlog_seconds),
)

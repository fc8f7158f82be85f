"""What InfluxDB must have before points come: buckets, how long they keep points, and the tasks that sum up.

Everything is made if it is missing and changed in place if it differs; asking again changes nothing.
"""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import StringIO
from typing import Any

from influxdb_client.domain.bucket_retention_rules import BucketRetentionRules
from influxdb_client.domain.task_create_request import TaskCreateRequest
from influxdb_client.domain.task_update_request import TaskUpdateRequest

from dtf.adapters.influx_connection import InfluxAddress, call, make_client
from dtf.adapters.influx_queries import quoted
from dtf.adapters.influx_rollups import (
    ROLLUPS,
    Rollup,
    long_term_bucket,
    rollup_flux,
    task_flux,
    task_name,
)
from dtf.core.trend.measurements import MEASUREMENTS
from dtf.ports.clock import Clock
from dtf.ports.metric_store import StoreMismatch

_DAY_SECONDS = 86_400
_BEGINNING = "1970-01-01T00:00:00Z"


@dataclass(frozen=True, slots=True)
class Change:
    """What was done to one thing."""

    what: str
    done: str
    """made, changed, removed or unchanged."""
    detail: str = ""


@dataclass(frozen=True, slots=True)
class TaskStatus:
    """One downsampling task."""

    name: str
    is_active: bool
    is_current: bool
    """Whether its script is the one this dtf writes."""
    last_run: str
    """success, failed, canceled; empty: it has not run yet."""
    last_error: str


class InfluxAdmin:
    """Sets InfluxDB up and says how it is. Every call may raise StoreError."""

    def __init__(self, address: InfluxAddress, clock: Clock) -> None:
        self._address = address
        self._clock = clock
        self._client = make_client(address)

    async def set_up(
        self, *, keep_days: int | None, long_keep_days: int | None, may_shorten: bool
    ) -> list[Change]:
        """Make buckets and tasks. Days None: as it is, for ever where the bucket is new; 0: for ever.

        Raises StoreMismatch when a bucket would forget what it has and `may_shorten` does not allow it.
        """
        return await call(
            lambda: self._set_up(keep_days, long_keep_days, may_shorten), self._address, self._clock
        )

    async def keep_days(self) -> Mapping[str, int]:
        """Days that each bucket keeps points, 0 for ever; a bucket that is missing is not there."""
        return await call(self._keep_days, self._address, self._clock)

    async def tasks(self) -> Sequence[TaskStatus]:
        """The downsampling tasks that are there."""
        return await call(self._task_statuses, self._address, self._clock)

    async def series_counts(self) -> Mapping[str, int]:
        """Number of series of each measurement that has any, of the bucket and of nothing else."""
        return await call(self._series_counts, self._address, self._clock)

    async def downsample(self, since: str, until: str) -> None:
        """Sum up [since, until), RFC 3339, as the tasks would have; what is there is replaced."""
        for rollup in ROLLUPS:
            query = 'import "date"\n' + rollup_flux(rollup, self._address.bucket, since=since, until=until)
            await call(lambda text=query: self._ask(text), self._address, self._clock)  # type: ignore[misc]

    async def close(self) -> None:
        """Let go of the connections."""
        await call(self._client.close, self._address, self._clock)

    def _set_up(self, keep_days: int | None, long_keep_days: int | None, may_shorten: bool) -> list[Change]:
        bucket = self._address.bucket
        changes = [
            self._ensure_bucket(bucket, keep_days, may_shorten),
            self._ensure_bucket(long_term_bucket(bucket), long_keep_days, may_shorten),
        ]
        kept = self._keep_days()[bucket]
        return [*changes, *self._ensure_tasks(kept)]

    def _ensure_bucket(self, name: str, keep_days: int | None, may_shorten: bool) -> Change:
        api: Any = self._client.buckets_api()
        found = api.find_bucket_by_name(name)
        wanted = keep_days or 0
        if found is None:
            api.create_bucket(bucket_name=name, org=self._address.org, retention_rules=_rules(wanted))
            return Change(f"bucket {name}", "made", _kept(wanted))
        has = _days(found)
        if keep_days is None or has == wanted:
            return Change(f"bucket {name}", "unchanged", _kept(has))
        if wanted and (not has or wanted < has) and not may_shorten:
            raise StoreMismatch(
                f"bucket {name!r} keeps points {_kept(has)}; to keep them {_kept(wanted)} deletes what is older, "
                "and does so only with --shorten"
            )
        found.retention_rules = _rules(wanted)
        api.update_bucket(bucket=found)
        return Change(f"bucket {name}", "changed", f"{_kept(has)} before, now {_kept(wanted)}")

    def _ensure_tasks(self, keep_days: int) -> list[Change]:
        found = {task.name: task for task in self._own_tasks()}
        changes = [self._ensure_task(rollup, found, keep_days) for rollup in ROLLUPS]
        known = {task_name(rollup, self._address.bucket) for rollup in ROLLUPS}
        for name in found.keys() - known:
            self._client.tasks_api().delete_task(found[name].id)
            changes.append(Change(f"task {name}", "removed", "this dtf has no such task"))
        return changes

    def _ensure_task(self, rollup: Rollup, found: Mapping[str, Any], keep_days: int) -> Change:
        api: Any = self._client.tasks_api()
        name = task_name(rollup, self._address.bucket)
        script = task_flux(rollup, self._address.bucket, keep_days=keep_days)
        make_task: Any = TaskCreateRequest
        change_task: Any = TaskUpdateRequest
        task = found.get(name)
        if task is None:
            api.create_task(
                task_create_request=make_task(flux=script, org=self._address.org, status="active")
            )
            return Change(f"task {name}", "made", f"every {rollup.every}")
        if task.flux == script:
            return Change(f"task {name}", "unchanged", task.status)
        api.update_task_request(task.id, change_task(flux=script))
        return Change(f"task {name}", "changed", "its script is of this dtf now")

    def _own_tasks(self) -> list[Any]:
        ending = f" ({self._address.bucket})"
        tasks: list[Any] = self._client.tasks_api().find_tasks(org=self._address.org, limit=500)
        return [task for task in tasks if task.name.startswith("dtf ") and task.name.endswith(ending)]

    def _task_statuses(self) -> list[TaskStatus]:
        kept = self._keep_days().get(self._address.bucket, 0)
        bucket = self._address.bucket
        scripts = {task_name(rollup, bucket): task_flux(rollup, bucket, keep_days=kept) for rollup in ROLLUPS}
        return [
            TaskStatus(
                task.name,
                task.status == "active",
                scripts.get(task.name) == task.flux,
                task.last_run_status or "",
                task.last_run_error or "",
            )
            for task in sorted(self._own_tasks(), key=lambda task: str(task.name))
        ]

    def _keep_days(self) -> dict[str, int]:
        api: Any = self._client.buckets_api()
        names = (self._address.bucket, long_term_bucket(self._address.bucket))
        found = {name: api.find_bucket_by_name(name) for name in names}
        return {name: _days(bucket) for name, bucket in found.items() if bucket is not None}

    def _series_counts(self) -> dict[str, int]:
        counts = {}
        for name in MEASUREMENTS:
            rows = self._ask(
                f'import "influxdata/influxdb"\ninfluxdb.cardinality(bucket: {quoted(self._address.bucket)}, '
                f"start: {_BEGINNING}, predicate: (r) => r._measurement == {quoted(name)})"
            )
            if count := sum(int(row["_value"]) for row in rows):
                counts[name] = count
        return counts

    def _ask(self, flux: str) -> list[dict[str, str]]:
        response = self._client.query_api().query_raw(flux)
        text = response if isinstance(response, str) else response.data.decode()
        lines = [line for line in text.splitlines() if line and not line.startswith("#")]
        return list(csv.DictReader(StringIO("\n".join(lines))))


def _rules(days: int) -> list[Any]:
    make_rule: Any = BucketRetentionRules  # the package has no types here
    return [make_rule(type="expire", every_seconds=days * _DAY_SECONDS)]


def _days(bucket: Any) -> int:
    return sum(int(rule.every_seconds) for rule in bucket.retention_rules) // _DAY_SECONDS


def _kept(days: int) -> str:
    return f"for {days} days" if days else "for ever"

"""The metric store in a bucket of InfluxDB 2.

Points go first, the checkpoint after them, in a request of its own: a crash in between makes the
analyzer write the same points again, and the same points replace themselves. The bucket must keep
points for ever, or at least longer than the event log does.
"""

import asyncio
import contextlib
import csv
import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from io import StringIO
from itertools import groupby, islice
from typing import Any, TypeVar

from influxdb_client.client.write_api import SYNCHRONOUS
from influxdb_client.domain.dialect import Dialect
from influxdb_client.rest import ApiException

from dtf.adapters import influx_queries as queries
from dtf.adapters.influx_connection import InfluxAddress, call, make_client
from dtf.adapters.influx_lines import lines
from dtf.adapters.influx_writer import InfluxWriter
from dtf.adapters.rejected_points import RejectedPoints
from dtf.core.trend.points import Points
from dtf.core.trend.statistics import CaseHistory, CasePoint, summarize
from dtf.ports.clock import Clock
from dtf.ports.metric_store import (
    Checkpoint,
    FleetSample,
    RunSpan,
    SeriesName,
    SeriesValue,
    StoreMismatch,
    StoreReplaced,
    StoreUnavailable,
)

MOST_TEXT = 30_000
"""Characters of one piece of a checkpoint's state; a field holds 64 KiB at most."""
_HOUR_NS = 3_600 * 10**9

_T = TypeVar("_T")
Row = Mapping[str, str]


class InfluxStore:
    """The MetricStore port on InfluxDB 2."""

    def __init__(
        self, client: Any, address: InfluxAddress, clock: Clock, rejected: RejectedPoints | None = None
    ) -> None:
        self._client = client
        self._address = address
        self._clock = clock
        self._write_api = client.write_api(write_options=SYNCHRONOUS)
        self._writer = InfluxWriter(self._send, rejected)
        self._bucket = address.bucket
        """Written to by its id: one of the same name, made where it was deleted, is another."""
        self._begun: dict[str, tuple[Sequence[Points], int]] = {}
        """By stream, the points of a write that failed and how many of their lines are in: who asks to be left alone
        after the fifth request is not sent the first four again."""
        self._checkpoint_ns: dict[str, int] = {}
        """Time of each stream's newest checkpoint: the clock may be set back, and the newest counts."""
        self._reader = client.query_api()
        make_dialect: Any = Dialect  # the package has no types here
        self._dialect = make_dialect(
            header=True, delimiter=",", annotations=[], date_time_format="RFC3339Nano"
        )

    @classmethod
    async def open(
        cls, address: InfluxAddress, *, clock: Clock, rejected: RejectedPoints | None = None
    ) -> "InfluxStore":
        """Connect, and make the bucket if it is missing. Raises StoreUnavailable or StoreMismatch.

        Points that InfluxDB refuses for good go to `rejected`; None: they are only told of in the log.
        """
        client = make_client(address)
        store = cls(client, address, clock, rejected)
        try:
            store._bucket = await store._call(store._ensure_bucket)
        except BaseException:
            client.close()
            raise
        return store

    @property
    def kind(self) -> str:
        """See the port."""
        return "influxdb"

    async def write(self, points: Sequence[Points], checkpoint: Checkpoint) -> None:
        """Points first, the checkpoint after them; see the port."""
        await self._call(lambda: self._write(points, checkpoint))

    async def checkpoint(self, stream: str) -> Checkpoint | None:
        """See the port."""
        for row in await self._rows(queries.checkpoint(self._address.bucket, stream)):
            state = "".join(row[f"state_{index}"] for index in range(int(row["parts"])))
            self._checkpoint_ns[stream] = max(self._checkpoint_ns.get(stream, 0), _nanoseconds(row["_time"]))
            return Checkpoint(stream, int(row["sequence"]), json.loads(state))
        return None

    async def series_cases(self) -> Sequence[tuple[str, str]]:
        """See the port."""
        rows = await self._rows(queries.series_cases(self._address.bucket))
        return sorted({(row["suite"], row["case"]) for row in rows})

    async def case_histories(
        self, suite: str, *, after: str, limit: int, window: int, excluded_run_id: str = ""
    ) -> Sequence[CaseHistory]:
        """See the port; the newest points of the page's cases, summed up here."""
        rows = await self._rows(queries.case_names(self._address.bucket, suite))
        page = list(islice((name for name in sorted({row["case"] for row in rows}) if name > after), limit))
        if not page:
            return []
        points = await self._case_points(
            suite,
            window=window,
            until_ns=None,
            excluded_run_id=excluded_run_id,
            first_case=page[0],
            last_case=page[-1],
        )
        return [
            summarize(name, list(own)) for name, own in groupby(points, key=lambda point: point.case_name)
        ]

    async def case_points(
        self, suite: str, *, window: int, until_ns: int | None = None, excluded_run_id: str = ""
    ) -> Sequence[CasePoint]:
        """See the port."""
        return await self._case_points(
            suite, window=window, until_ns=until_ns, excluded_run_id=excluded_run_id
        )

    async def run_points(self, suite: str, run_id: str) -> Sequence[CasePoint]:
        """See the port."""
        rows = await self._rows(queries.run_points(self._address.bucket, suite, run_id))
        return [_case_point(row) for row in rows]

    async def run_span(self, run_id: str) -> RunSpan | None:
        """See the port."""
        for row in await self._rows(queries.run_span(self._address.bucket, run_id)):
            return RunSpan(row["run"], row["suite"], row.get("revision", ""), _nanoseconds(row["_time"]))
        return None

    async def count_runs(self, suite: str, *, until_ns: int | None, excluded_run_id: str) -> int:
        """See the port."""
        rows = await self._rows(queries.count_runs(self._address.bucket, suite, until_ns, excluded_run_id))
        return sum(int(row["_value"]) for row in rows)

    async def series_names(self, suite: str, *, after: SeriesName | None, limit: int) -> Sequence[SeriesName]:
        """See the port."""
        bucket = self._address.bucket
        names = {
            *(
                SeriesName(row["suite"], row["case"], row["_field"])
                for row in await self._rows(queries.case_series(bucket, suite))
            ),
            *(
                SeriesName(row["suite"], "", row["_field"])
                for row in await self._rows(queries.run_series(bucket, suite))
            ),
            *(
                SeriesName(row["suite"], row["case"], row["metric"])
                for row in await self._rows(queries.benchmark_series(bucket, suite))
            ),
        }
        keys = sorted((name.suite, name.case_name, name.metric) for name in names)
        first = (after.suite, after.case_name, after.metric) if after is not None else ("", "", "")
        return [SeriesName(*key) for key in islice((key for key in keys if key > first), limit)]

    async def series_values(
        self, name: SeriesName, *, pool: str, since_ns: int, limit: int
    ) -> Sequence[SeriesValue]:
        """See the port."""
        query = queries.series_values(self._address.bucket, name, pool=pool, since_ns=since_ns, limit=limit)
        if not query:
            return []
        column = queries.value_column(name)
        return [
            SeriesValue(
                time_ns=_nanoseconds(row["_time"]),
                value=float(row[column]),
                run_id=row["run"],
                revision=row.get("revision", ""),
                worker_id=row.get("worker", ""),
                verdict=row.get("verdict", ""),
            )
            for row in await self._rows(query)
        ]

    async def fleet(self, *, since_ns: int, until_ns: int) -> Sequence[FleetSample]:
        """See the port."""
        rows = await self._rows(queries.fleet(self._address.bucket, since_ns, until_ns))
        return [
            FleetSample(
                _nanoseconds(row["_time"]), int(row["workers"]), int(row["queued"]), int(row["leased"])
            )
            for row in rows
        ]

    async def close(self) -> None:
        """Let go of the connections."""
        await asyncio.to_thread(self._client.close)

    async def query(self, flux: str) -> list[Row]:
        """Rows of any query whose result is one table, for people and tests."""
        return await self._rows(flux)

    async def write_lines(self, points: Sequence[str]) -> None:
        """Write points in line protocol as `write` does: what is refused for good is set aside."""
        await self._call(lambda: self._writer.write(points))

    async def _case_points(self, suite: str, **conditions: Any) -> list[CasePoint]:
        rows = await self._rows(queries.case_points(self._address.bucket, suite, **conditions))
        return [_case_point(row) for row in rows]

    async def _rows(self, flux: str) -> list[Row]:
        return await self._call(lambda: self._ask(flux))

    def _ask(self, flux: str) -> list[Row]:
        response = self._reader.query_raw(flux, dialect=self._dialect)
        text = response if isinstance(response, str) else response.data.decode()
        rows: list[Row] = list(csv.DictReader(StringIO(text)))
        if rows and "error" in rows[0] and "reference" in rows[0]:
            raise StoreUnavailable(f"InfluxDB could not finish a query: {rows[0]['error']}")
        return rows

    def _write(self, points: Sequence[Points], checkpoint: Checkpoint) -> None:
        known, count = self._begun.pop(checkpoint.stream, (points, 0))
        count = count if known is points else 0
        every = (line for each in points for line in lines(each))
        try:
            for more in self._writer.write_by_chunk(islice(every, count, None)):
                count += more
            self._send(self._checkpoint_line(checkpoint).encode())
        except Exception as error:
            self._begun[checkpoint.stream] = (points, count)
            if isinstance(error, ApiException) and error.status == 404:
                self._miss_bucket()
            raise

    def _miss_bucket(self) -> None:
        """The bucket was deleted. Raises StoreReplaced where there is another of its name now, or could be made."""
        with contextlib.suppress(StoreMismatch):
            if self._ensure_bucket() != self._bucket:
                raise StoreReplaced(
                    f"bucket {self._address.bucket!r} of InfluxDB at {self._address.url} was deleted, and there is a "
                    "new one; start again, and it is filled from the beginning of the streams"
                )

    def _send(self, body: bytes) -> None:
        self._write_api.write(bucket=self._bucket, org=self._address.org, record=body)

    def _checkpoint_line(self, checkpoint: Checkpoint) -> str:
        """Its time is the hour, so that a year of checkpoints is 8,766 points and not a hundred million."""
        state = json.dumps(checkpoint.state)
        pieces = [state[start : start + MOST_TEXT] for start in range(0, len(state), MOST_TEXT)]
        escaped = (piece.replace("\\", "\\\\").replace('"', '\\"') for piece in pieces)
        fields = [f'state_{index}="{piece}"' for index, piece in enumerate(escaped)]
        fields += [f"sequence={checkpoint.sequence}i", f"parts={len(pieces)}i"]
        hour = self._clock.now_ns() // _HOUR_NS * _HOUR_NS
        hour = self._checkpoint_ns[checkpoint.stream] = max(
            hour, self._checkpoint_ns.get(checkpoint.stream, 0)
        )
        return f"checkpoints,stream={checkpoint.stream} {','.join(fields)} {hour}"

    def _ensure_bucket(self) -> str:
        """The bucket's id; it is made if it is missing."""
        api: Any = self._client.buckets_api()
        name = self._address.bucket
        known = api.find_bucket_by_name(name)
        if known is not None:
            return str(known.id)
        try:
            return str(api.create_bucket(bucket_name=name, org=self._address.org).id)
        except ApiException as error:
            if error.status in (401, 403, 404):
                raise StoreMismatch(
                    f"InfluxDB at {self._address.url} has no bucket {name!r} that this token can see, and the token "
                    f"may not make one ({error.message}); make it with infinite retention, or set INFLUXDB_V2_BUCKET"
                ) from error
            raise

    async def _call(self, work: Callable[[], _T]) -> _T:
        return await call(work, self._address, self._clock)


def _nanoseconds(text: str) -> int:
    """An RFC 3339 time with up to nine digits behind the second."""
    whole, _, rest = text.removesuffix("Z").partition(".")
    moment = datetime.fromisoformat(whole).replace(tzinfo=UTC)
    return round(moment.timestamp()) * 10**9 + int(rest.ljust(9, "0") or 0)


def _case_point(row: Row) -> CasePoint:
    duration = row.get("duration_seconds")
    return CasePoint(
        case_name=row["case"],
        time_ns=_nanoseconds(row["_time"]),
        run_id=row["run"],
        revision=row.get("revision", ""),
        worker_id=row.get("worker", ""),
        verdict=row["verdict"],
        duration_seconds=float(duration) if duration else None,
    )

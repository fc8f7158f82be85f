"""The event log as points: a fold that depends on the commits alone.

Times. A result's point lies at its commit's time; times rise strictly, by one nanosecond an item,
so that no two items meet and writing twice is writing once. Counts of the fleet lie at the whole
second: the last commit of a second says how it stood, and says it again, the same, when the log is
read again.

State. What a restart must know is small: the time reached, the workers, and from where to read the
log again so that the runs still open are known (`FoldState`). `LogFold.restored` takes it up.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from dtf.api.v1 import common_pb2, events_pb2
from dtf.core.trend import measurements
from dtf.core.trend.fleet_count import FleetCount
from dtf.core.trend.judging import CaseJudge, Origin
from dtf.core.trend.names import NameBook, SeriesRule
from dtf.core.trend.open_run import VERDICT_NAMES, OpenRun
from dtf.core.trend.points import PointBuffer, Points, Value

_SECOND_NS = 1_000_000_000

OUTCOME_NAMES = {
    common_pb2.OUTCOME_COMPLETED: "completed",
    common_pb2.OUTCOME_TIMED_OUT: "timed_out",
    common_pb2.OUTCOME_LOST: "lost",
    common_pb2.OUTCOME_CRASHED: "crashed",
    common_pb2.OUTCOME_CANCELLED: "cancelled",
}


class LogFold:
    """Commits in, points out. `state` and `restored` carry it over a restart."""

    def __init__(self, names: NameBook) -> None:
        self.runs: dict[str, OpenRun] = {}
        self.sequence = 0
        """Last commit folded."""
        self._buffer = PointBuffer()
        self._fleet = FleetCount()
        self._names = names
        self._judge = CaseJudge(names, self._buffer)
        self._second = 0
        self._is_counted = True
        self._ended: dict[str, OpenRun] = {}
        """Runs that the last commit ended."""

    def __len__(self) -> int:
        return len(self._buffer)

    def apply(self, commit: events_pb2.Commit, sequence: int) -> None:
        """Fold one commit. Commits at or before `sequence` were folded already and change nothing."""
        if sequence <= self.sequence:
            return
        self.sequence = sequence
        second = commit.now_unix_nanos // _SECOND_NS
        if second != self._second:
            self._count()
            self._second = second
        self._judge.advance(commit.now_unix_nanos)
        self._buffer.mark()
        self._ended = {}
        for event in commit.events:
            self._apply_event(event, commit.now_unix_nanos)
        self._is_counted = False

    def newest(self, measurement: measurements.Measurement) -> Iterator[tuple[int, tuple[Value, ...]]]:
        """(time, values) of each point of a measurement that the last commit folded brought."""
        return self._buffer.since_mark(measurement)

    def is_confirmation(self, run_id: str) -> bool:
        """Whether a run that is open, or that the last commit ended, repeats a part of another."""
        run = self.runs.get(run_id) or self._ended.get(run_id)
        return run is not None and run.is_confirmation

    @property
    def newest_benchmark_tasks(self) -> Sequence[int]:
        """The task of each point of BENCHMARKS that the last commit folded brought."""
        return self._judge.benchmark_tasks

    def take(self) -> list[Points]:
        """The points of every commit folded since the last call."""
        self._count()
        return self._buffer.take()

    def state(self) -> dict[str, Any]:
        """What `restored` takes, as JSON values; holds for exactly the commits folded so far."""
        return {
            "sequence": self.sequence,
            "replay_after": min((run.first_sequence for run in self.runs.values()), default=self.sequence + 1)
            - 1,
            "next_time_ns": self._judge.next_time_ns,
            "second": self._second,
            "fleet": self._fleet.to_json(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from `state`, after the commits from its `replay_after` to its `sequence` were folded."""
        self._buffer.take()
        self.sequence = state["sequence"]
        self._judge.next_time_ns = state["next_time_ns"]
        self._second = state["second"]
        self._is_counted = True
        self._fleet = FleetCount.from_json(state["fleet"])

    def _apply_event(self, event: events_pb2.Event, now_ns: int) -> None:
        match event.WhichOneof("event"):
            case "run_created":
                self._create_run(event.run_created, now_ns)
            case "tasks_submitted":
                if (run := self.runs.get(event.tasks_submitted.run_id)) is not None:
                    run.add_tasks(event.tasks_submitted)
            case "leases_granted":
                self._grant(event.leases_granted)
            case "results_accepted":
                self._accept(event.results_accepted)
            case "attempts_ended":
                self._end_attempts(event.attempts_ended)
            case "leases_released":
                self._release(event.leases_released)
            case "tasks_abandoned":
                self._abandon(event.tasks_abandoned)
            case "run_cancel_requested":
                if (run := self.runs.get(event.run_cancel_requested.run_id)) is not None:
                    run.cancel()
            case "run_finished":
                self._finish_run(event.run_finished, now_ns)
            case _:
                self._apply_fleet_event(event)

    def _apply_fleet_event(self, event: events_pb2.Event) -> None:
        match event.WhichOneof("event"):
            case "worker_registered":
                self._fleet.register(event.worker_registered)
            case "worker_drain_requested":
                self._fleet.set_taking(event.worker_drain_requested.worker_id, False)
            case "worker_quarantined":
                self._fleet.set_taking(event.worker_quarantined.worker_id, False)
            case "worker_released":
                self._fleet.set_taking(event.worker_released.worker_id, True)
            case "worker_lost":
                self._fleet.remove(event.worker_lost.worker_id, event.worker_lost.incarnation)
            case "worker_left":
                self._fleet.remove(event.worker_left.worker_id, event.worker_left.incarnation)
            case _:
                pass  # nothing is measured in the others, nor in events this version does not know

    def _create_run(self, event: events_pb2.RunCreated, now_ns: int) -> None:
        self.runs[event.run_id] = OpenRun(
            run_id=event.run_id,
            suite=self._names.suite_of(event.suite),
            revision=event.revision,
            owner=event.owner,
            created_ns=now_ns,
            first_sequence=self.sequence,
            rules=list(map(SeriesRule.of, event.templates)),
            is_confirmation=event.HasField("confirmation"),
        )

    def _grant(self, event: events_pb2.LeasesGranted) -> None:
        count = len(event.tasks)
        self._fleet.move(event.worker_id, count)
        run = self.runs.get(event.run_id)
        if run is None:
            return
        run.move(queued=-count, leased=count)
        for task, attempt in zip(event.tasks, event.attempts, strict=False):
            if attempt > 1:
                run.later_attempts[task] = attempt

    def _accept(self, event: events_pb2.ResultsAccepted) -> None:
        completed = len(event.tasks) if event.all_completed else len(event.completed)
        self._fleet.move(event.worker_id, -completed)
        run = self.runs.get(event.run_id)
        if run is None:
            return
        run.move(queued=len(event.requeued), leased=-completed)
        run.busy_seconds += sum(event.durations_seconds)
        run.cpu_seconds += sum(event.cpu_seconds)
        self._judge.accept(event, self._origin(run, event.worker_id))

    def _end_attempts(self, event: events_pb2.AttemptsEnded) -> None:
        count = len(event.tasks)
        self._fleet.move(event.worker_id, -count)
        run = self.runs.get(event.run_id)
        if run is None:
            return
        run.move(queued=sum(event.requeued), leased=-count)
        origin = self._origin(run, event.worker_id)
        for index in range(count):
            self._end_attempt(run, event, index, origin)

    def _end_attempt(self, run: OpenRun, event: events_pb2.AttemptsEnded, index: int, origin: Origin) -> None:
        task = event.tasks[index]
        running = event.running_cases[index] - 1 if index < len(event.running_cases) else -1
        number = run.case_at(task, running) if running >= 0 else -1
        is_requeued = index < len(event.requeued) and event.requeued[index]
        self._buffer.of(measurements.ATTEMPTS).add(
            self._judge.stamp(),
            {
                "suite": run.suite,
                "pool": origin.pool,
                "run": run.run_id,
                "revision": run.revision,
                "worker": origin.worker_id,
                "task": task,
                "outcome": OUTCOME_NAMES.get(event.outcomes[index], "unknown"),
                "running_case": run.case_names[number] if number >= 0 else "",
                "reason": event.reasons[index] if index < len(event.reasons) else "",
                "is_requeued": is_requeued,
            },
        )
        verdict = event.verdicts[index] if index < len(event.verdicts) else 0
        duration = event.durations_seconds[index] if index < len(event.durations_seconds) else 0.0
        run.busy_seconds += duration
        if verdict and running >= 0:
            self._judge.judge_unmeasured(task, running, verdict, origin, duration or None)
        remaining = event.remaining_verdicts[index] if index < len(event.remaining_verdicts) else 0
        if remaining and not is_requeued:
            for case in run.unjudged_cases(task):
                self._judge.judge_unmeasured(task, case, remaining, origin)

    def _release(self, event: events_pb2.LeasesReleased) -> None:
        count = len(event.tasks)
        self._fleet.move(event.worker_id, -count)
        if (run := self.runs.get(event.run_id)) is not None:
            run.move(queued=count, leased=-count)

    def _abandon(self, event: events_pb2.TasksAbandoned) -> None:
        run = self.runs.get(event.run_id)
        if run is None:
            return
        run.move(queued=-len(event.tasks), leased=0)
        origin = self._origin(run, "")
        for task in event.tasks:
            for case in run.unjudged_cases(task):
                self._judge.judge_unmeasured(task, case, common_pb2.VERDICT_ERROR, origin)

    def _finish_run(self, event: events_pb2.RunFinished, now_ns: int) -> None:
        run = self.runs.pop(event.run_id, None)
        if run is None:
            return
        self._ended[run.run_id] = run
        self._write_groups(run)
        counts = event.counts
        self._buffer.of(measurements.RUNS).add(
            self._judge.stamp(),
            {
                "suite": run.suite,
                "run": run.run_id,
                "revision": run.revision,
                "owner": run.owner,
                "state": "cancelled" if event.state == common_pb2.RUN_STATE_CANCELLED else "finished",
                "duration_seconds": (now_ns - run.created_ns) / _SECOND_NS,
                "busy_seconds": run.busy_seconds,
                "cpu_seconds": run.cpu_seconds,
                "task_count": run.task_count,
                "case_count": len(run.case_names),
                **{name: getattr(counts, name) for name in VERDICT_NAMES.values()},
                "unjudged": event.unjudged,
                "infrastructure_failures": event.infrastructure_failures,
                "first_sequence": run.first_sequence,
                "last_sequence": self.sequence,
            },
        )

    def _write_groups(self, run: OpenRun) -> None:
        for name, group in sorted(run.groups.items()):
            self._buffer.of(measurements.CASE_GROUPS).add(
                self._judge.stamp(),
                {
                    "suite": run.suite,
                    "group": name,
                    "run": run.run_id,
                    "revision": run.revision,
                    "count": group.count,
                    "total_seconds": group.total_seconds,
                    "longest_seconds": group.longest_seconds,
                    **group.verdicts,
                },
            )

    def _origin(self, run: OpenRun, worker_id: str) -> Origin:
        return Origin(run, worker_id, self._fleet.pool_of(worker_id))

    def _count(self) -> None:
        """Write how the fleet stood at the end of the present second, once a change."""
        if self._is_counted:
            return
        self._is_counted = True
        pools = self._fleet.by_pool()
        time_ns = self._second * _SECOND_NS
        self._buffer.of(measurements.FLEET).add(
            time_ns,
            {
                "workers": sum(pool.workers for pool in pools.values()),
                "slots": sum(pool.slots for pool in pools.values()),
                "queued": sum(run.queued for run in self.runs.values()),
                "leased": sum(run.leased for run in self.runs.values()),
                "open_runs": len(self.runs),
            },
        )
        for name, pool in pools.items():
            self._buffer.of(measurements.POOLS).add(
                time_ns,
                {
                    "pool": name,
                    "workers": pool.workers,
                    "draining": pool.draining,
                    "slots": pool.slots,
                    "leased": pool.leased,
                },
            )

"""A recorded scenario: its streams, and what a replay of them must come to.

`golden.json` beside the streams says it; `python -m tests.streams.record_scenarios --golden` writes
it anew where a rule changed on purpose.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from dtf.adapters.stream_file import StreamFile
from dtf.api.v1 import events_pb2, scaling_pb2, worker_service_pb2
from dtf.core.chain import ChainReader
from dtf.core.events import type_of
from dtf.core.run.evolve import evolve
from dtf.core.run.outlook import verdict_counts
from dtf.core.run.rederive import Rederivation
from dtf.core.run.state import State
from dtf.core.run.state_hash import state_hash
from dtf.core.scaling.policy import ScalingPolicy
from dtf.core.trend.log_fold import LogFold
from dtf.core.trend.names import NameBook
from dtf.core.trend.points import Points
from dtf.core.trend.record_folds import ScalingFold, TelemetryFold
from dtf.ports.event_log import StoredCommit
from dtf.resource_manager.process import resolve_policy
from dtf.settings.loader import load_settings

DIRECTORY = Path(__file__).parent
KINDS = ("events", "scaling", "telemetry")
COUNTS = ("passed", "failed", "error", "skipped", "flaky")


@dataclass(frozen=True)
class Scenario:
    """One directory of recordings."""

    name: str

    @property
    def directory(self) -> Path:
        """Where its files are."""
        return DIRECTORY / self.name

    def file(self, kind: str) -> Path:
        """The file of one stream."""
        return self.directory / f"{kind}.dtfstream"

    @cached_property
    def log(self) -> list[StoredCommit]:
        """The event log."""
        return read_stream(self.file("events"))

    @cached_property
    def commits(self) -> list[tuple[int, str, events_pb2.Commit]]:
        """Sequence, id and commit of every message of the log, its chain checked."""
        return read_commits(self.log)

    @cached_property
    def decisions(self) -> list[scaling_pb2.ScalingDecision]:
        """What the resource manager decided."""
        return [scaling_pb2.ScalingDecision.FromString(m.payload) for m in read_stream(self.file("scaling"))]

    @property
    def policy(self) -> ScalingPolicy:
        """What the resource manager decided by."""
        settings = load_settings(self.directory, environ={}).settings
        return resolve_policy(settings.pool, settings.pool.max_workers)

    @property
    def golden(self) -> dict[str, Any]:
        """What a replay must come to."""
        document: dict[str, Any] = json.loads((self.directory / "golden.json").read_text())
        return document

    def write_golden(self) -> None:
        """Say what a replay comes to now."""
        document = {"coordinator": coordinator_summary(self.log), "trend_analyzer": analyzer_summary(self)}
        text = json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False)
        (self.directory / "golden.json").write_text(text + "\n")


def scenarios() -> list[Scenario]:
    """Every scenario that is recorded."""
    return [Scenario(path.parent.name) for path in sorted(DIRECTORY.glob("*/golden.json"))]


def read_stream(path: Path) -> list[StoredCommit]:
    """The messages of a stream file."""
    with StreamFile(path) as stream:
        return list(stream)


def read_commits(log: Sequence[StoredCommit]) -> list[tuple[int, str, events_pb2.Commit]]:
    """The commits of a log that is one chain and holds nothing else. Raises ValueError."""
    chain, commits = ChainReader(), []
    for stored in log:
        commit = chain.accept(stored.sequence, stored.payload, stored.message_id)
        if commit is None:
            raise ValueError(f"message {stored.sequence} does not continue the chain")
        commits.append((stored.sequence, stored.message_id, commit))
    return commits


def coordinator_summary(log: Sequence[StoredCommit]) -> dict[str, Any]:
    """What the coordinator makes of a log: state, chain, runs. Raises ValueError for a log that is not whole."""
    state, again, kinds = State(), Rederivation(), Counter[str]()
    hashes = hashlib.sha256()
    commits = read_commits(log)
    for sequence, _, commit in commits:
        if again.follow(commit, sequence):
            raise ValueError(f"commit {sequence} is not what its commands lead to")
        for event in commit.events:
            evolve(state, event, commit.now_unix_nanos, sequence)
            kinds[type_of(event)] += 1
        hashes.update(state_hash(state).encode())
    return {
        "last_sequence": commits[-1][0],
        "last_message_id": commits[-1][1],
        "state_hash": state_hash(state),
        "hash_of_all_state_hashes": hashes.hexdigest(),
        "decisions": again.input_count,
        "events": dict(kinds),
        "runs": {
            run.run_id: {
                "suite": run.created.suite,
                "tasks": run.task_count,
                "cases": run.case_count,
                "lost_or_crashed": run.infrastructure_failures,
                **{name: getattr(verdict_counts(run.counts), name) for name in COUNTS},
            }
            for run in state.runs.values()
        },
    }


def fold_everything(scenario: Scenario) -> list[Points]:
    """The points of all three streams, each folded in one go."""
    log, telemetry, scaling = LogFold(NameBook(())), TelemetryFold(), ScalingFold()
    for sequence, _, commit in scenario.commits:
        log.apply(commit, sequence)
    for stored in read_stream(scenario.file("telemetry")):
        sample = worker_service_pb2.TelemetrySample.FromString(stored.payload)
        telemetry.apply(sample, stored.sequence)
    for number, decision in enumerate(scenario.decisions, 1):
        scaling.apply(decision, number)
    return [*log.take(), *telemetry.take(), *scaling.take()]


def analyzer_summary(scenario: Scenario) -> dict[str, Any]:
    """What the analyzer makes of a scenario: how many points, their digests, and one of each to read."""
    points = {each.measurement.name: each.as_dicts() for each in fold_everything(scenario)}
    return {
        name: {"count": len(rows), "sha256": _digest(rows), "last": rows[-1]} for name, rows in points.items()
    }


def _digest(rows: Sequence[dict[str, Any]]) -> str:
    return hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()

"""Keeps what the present version writes and what it comes to: python -m tests.streams.release VERSION

Writes tests/streams/releases/VERSION/: the tour (tour.py: every type of event), and a summary of each
stream there. Where streams were put there before, as recorded from a real stack, they take the tour's place.
"""

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from dtf.adapters.stream_file import StreamFile, StreamFileHeader, writing
from dtf.api.v1 import common_pb2, events_pb2
from dtf.core.chain import ChainReader
from dtf.core.events import type_of
from dtf.core.run.evolve import evolve
from dtf.core.run.outline import message_of, newest_first
from dtf.core.run.state import State
from dtf.core.run.summary_fold import fold_run, iterate_commit
from tests.streams.tour import tour

RELEASES = Path(__file__).parent / "releases"
SUMMARIES = "summaries.json"


def releases() -> list[Path]:
    """The directories of the released versions."""
    return sorted(path for path in RELEASES.iterdir() if path.is_dir())


def streams(release: Path) -> list[Path]:
    """The streams of one version."""
    return sorted(release.glob("*.dtfstream"))


def read(path: Path) -> list[tuple[int, events_pb2.Commit]]:
    """The commits of a stream, in the present schema. Raises ChainBroken."""
    chain = ChainReader()
    commits: list[tuple[int, events_pb2.Commit]] = []
    with StreamFile(path) as stream:
        for stored in stream:
            commit = chain.accept(stored.sequence, stored.payload, stored.message_id)
            if commit is not None:
                commits.append((stored.sequence, commit))
    return commits


def summary(path: Path) -> dict[str, Any]:
    """What a stream comes to, in figures that do not depend on how the state is kept."""
    state, types, causes = State(), Counter[str](), Counter[str]()
    commits = read(path)
    for sequence, commit in commits:
        for event in commit.events:
            evolve(state, event, commit.now_unix_nanos, sequence)
            types[type_of(event)] += 1
            if event.HasField("worker_lost"):
                causes[events_pb2.LossCause.Name(event.worker_lost.cause)] += 1
    return {
        "commits": len(commits),
        "events": dict(sorted(types.items())),
        "losses": dict(sorted(causes.items())),
        "runs": {run_id: _told_run(commits, run_id) for run_id in _runs(commits)},
        "at_hand": {run.run_id: _run(message_of(run)) for run in newest_first(state)},
        "workers": {
            worker.worker_id: f"{common_pb2.WorkerState.Name(worker.state)} {worker.incarnation}"
            for worker in state.workers.values()
        },
        "next_fence": state.next_fence,
        "epoch": state.epoch,
    }


def _runs(commits: list[tuple[int, events_pb2.Commit]]) -> list[str]:
    created = (event.run_created for _, commit in commits for event in commit.events)
    return sorted({one.run_id for one in created if one.run_id})


def _told_run(commits: list[tuple[int, events_pb2.Commit]], run_id: str) -> list[str]:
    """A run as a report tells it: a line a case, and one for all that passed at once."""
    events = (item for sequence, commit in commits for item in iterate_commit(sequence, commit, run_id))
    lines, quiet = [], 0
    for case in fold_run(events).cases:
        if case.verdict == common_pb2.VERDICT_PASSED and not case.tries:
            quiet += 1
            continue
        verdict = common_pb2.Verdict.Name(case.verdict).removeprefix("VERDICT_")
        lines.append(f"{case.name}: {verdict} after {len(case.tries)} tries, the last by {case.worker_id!r}")
    return [*lines, f"{quiet} passed at once"]


def _run(run: Any) -> str:
    counts = run.counts
    return (
        f"{common_pb2.RunState.Name(run.state)}, {run.task_count} tasks, {run.case_count} cases: "
        f"{counts.passed} passed, {counts.failed} failed, {counts.error} error, {counts.skipped} skipped, "
        f"{counts.flaky} flaky; commits {run.first_sequence} to {run.last_sequence}"
    )


def main(version: str) -> None:
    """Write the directory of a version. A version is kept once."""
    directory = RELEASES / version
    if (directory / SUMMARIES).exists():
        sys.exit(f"error: {version} is kept already; what a released version wrote is never recorded anew")
    directory.mkdir(parents=True, exist_ok=True)
    if not streams(directory):
        with writing(
            directory / "tour.dtfstream", StreamFileHeader("events", "default", version, 0)
        ) as writer:
            for message in tour(version):
                writer.write(message)
    summaries = {path.stem: summary(path) for path in streams(directory)}
    (directory / SUMMARIES).write_text(json.dumps(summaries, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])

"""Which workers are sick, by their telemetry and by what became of the work they had.

Three judges, any of which suffices:

- *Deviation*: a worker whose metric is far from its pool's median, in units of the median absolute
  deviation (a robust standard score; Iglewicz and Hoaglin 1993), in the direction that is bad. A pool
  of at least 5 is needed, and the fewer there are the farther it must be. A floor for each metric's
  spread keeps a pool of equals from calling noise a deviation.
- *Isolation forest* (Liu, Ting and Zhou 2008; scikit-learn, seeded) over the whole vector, in pools of
  16 and more: finds what is odd in combination. It only accuses workers that deviate in some metric
  as well, so that the reason can be named.
- *Blame*: failures that follow the worker rather than the test (`blame`).

What is known of a worker begins anew when it is released after its probation.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median

from dtf.api.v1 import events_pb2, worker_service_pb2
from dtf.core.scaling.blame import LIMIT, BlameBook
from dtf.core.scaling.durations import SAMPLES_PER_EVENT, SuiteDurations, suite_durations

SAMPLES_NEEDED = 10
MEMORY_RATIO = 0.8
"""What each sample leaves of the mean before it: about the last five count."""
LEAST_POOL = 5
FOREST_POOL = 16
FAR = 6.0
FAR_IN_SMALL_POOL = 10.0
SMALL_POOL = 8
ODD = 3.5
"""Deviation at which Iglewicz and Hoaglin call a value an outlier; enough beside the forest's word."""
FOREST_FAR = 5.0
SHORTEST_SECONDS = 0.01
"""Cases shorter than this measure the machine's noise."""
NORMAL_MAD = 1.4826
"""Standard deviation over median absolute deviation, of a normal distribution."""


@dataclass(frozen=True, slots=True)
class Metric:
    """How a metric is judged."""

    name: str
    floor: float
    """Spread below which workers count as equal."""
    is_high_bad: bool
    words: str
    """For the reason; takes the value and the pool's median."""


METRICS = (
    Metric("slowness", 0.2, True, "its cases take {value:.2f} times what they do elsewhere in the pool"),
    Metric("memory", 0.05, True, "its memory is {value:.0%} in use, the pool's {middle:.0%}"),
    Metric("disk", 0.5, False, "it has {value:.1f} GiB of disk left, the pool's workers {middle:.1f}"),
    Metric("load", 1.0, True, "its load is {value:.1f}, the pool's {middle:.1f}"),
    Metric("cpu", 0.15, True, "its processors are {value:.0%} busy, the pool's {middle:.0%}"),
)


@dataclass(frozen=True, slots=True)
class Verdict:
    """A worker that is taken for sick."""

    worker_id: str
    reason: str
    score: float
    """How far beyond the limit, 1 and more; comparable between workers."""


@dataclass(slots=True)
class Vitals:
    """What is known of one worker."""

    pool: str
    means: dict[str, float] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    def add(self, metric: str, value: float) -> None:
        """A sample."""
        if not math.isfinite(value):
            return
        count = self.counts.get(metric, 0)
        keep = MEMORY_RATIO if count else 0.0
        self.means[metric] = self.means.get(metric, 0.0) * keep + value * (1.0 - keep)
        self.counts[metric] = count + 1


@dataclass(slots=True)
class HealthBook:
    """Everything known of the workers' health; log and telemetry are folded into it."""

    vitals: dict[str, Vitals] = field(default_factory=dict)
    blame: BlameBook = field(default_factory=BlameBook)
    suites: dict[str, SuiteDurations] = field(default_factory=dict)
    """Durations of cases, for the comparison of workers."""
    quarantined: dict[str, int] = field(default_factory=dict)
    """When each quarantined worker was."""

    def apply(self, commit: events_pb2.Commit) -> None:
        """Fold one commit of the log."""
        for event in commit.events:
            self._apply_event(commit.now_unix_nanos, event)
            self.blame.apply(event)

    def heard(self, sample: worker_service_pb2.TelemetrySample) -> None:
        """Fold one sample of telemetry."""
        vitals = self.vitals.get(sample.worker_id)
        if vitals is None:
            return
        said = sample.telemetry
        if said.memory_total_bytes:
            vitals.add("memory", said.memory_used_bytes / said.memory_total_bytes)
        if said.disk_free_bytes:
            vitals.add("disk", math.log2(said.disk_free_bytes / 2**30 + 1e-3))
        if said.running:
            # an idle worker's machine says nothing of one at work
            vitals.add("load", said.load / said.running)
            vitals.add("cpu", said.cpu_ratio)

    def verdicts(self, pool: str, now_ns: int) -> list[Verdict]:
        """The sick workers of a pool, those already in quarantine aside, the worst first."""
        members = {
            worker_id: vitals
            for worker_id, vitals in self.vitals.items()
            if vitals.pool == pool and worker_id not in self.quarantined
        }
        found: dict[str, Verdict] = {}
        scores = _deviations(members)
        for worker_id, deviations in scores.items():
            limit = _limit(members)
            metric, score = max(deviations.items(), key=lambda pair: pair[1], default=("", 0.0))
            if score > limit:
                found[worker_id] = Verdict(worker_id, self._say(worker_id, metric, members), score / limit)
        if len(members) >= FOREST_POOL:
            for worker_id, score in _isolated(members, scores).items():
                metric = max(scores[worker_id].items(), key=lambda pair: pair[1])[0]
                reason = f"odd in combination: {self._say(worker_id, metric, members)}"
                found.setdefault(worker_id, Verdict(worker_id, reason, score / FOREST_FAR))
        for worker_id in members:
            if reason := self.blame.verdict(worker_id):
                score = self.blame.workers[worker_id].score / LIMIT
                if worker_id not in found or found[worker_id].score < score:
                    found[worker_id] = Verdict(worker_id, reason, score)
        return sorted(found.values(), key=lambda verdict: (-verdict.score, verdict.worker_id))

    def flaw_scores(self, pool: str) -> dict[str, float]:
        """How suspect the workers of a pool are, 0 to about 1, where a verdict begins: the more flawed goes first.

        A deviation that is no outlier counts nothing, so that noise does not choose who goes.
        """
        members = {worker_id: vitals for worker_id, vitals in self.vitals.items() if vitals.pool == pool}
        limit = _limit(members)
        found: dict[str, float] = {}
        for worker_id, deviations in _deviations(members).items():
            worst = max(deviations.values(), default=0.0)
            blamed = self.blame.workers.get(worker_id)
            found[worker_id] = max(
                worst / limit if worst >= ODD else 0.0, blamed.score / LIMIT if blamed is not None else 0.0
            )
        return found

    def _apply_event(self, now_ns: int, event: events_pb2.Event) -> None:
        match event.WhichOneof("event"):
            case "worker_registered":
                registered = event.worker_registered
                self.vitals[registered.worker_id] = Vitals(registered.pool)
                self.quarantined.pop(registered.worker_id, None)
            case "worker_quarantined":
                self.quarantined[event.worker_quarantined.worker_id] = now_ns
            case "worker_released":
                self._released(event.worker_released.worker_id)
            case "worker_lost":
                self._gone(event.worker_lost.worker_id)
            case "worker_left":
                self._gone(event.worker_left.worker_id)
            case "results_accepted":
                self._results(event.results_accepted)
            case _:
                pass  # says nothing of a worker's health

    def _released(self, worker_id: str) -> None:
        self.quarantined.pop(worker_id, None)
        if vitals := self.vitals.get(worker_id):
            self.vitals[worker_id] = Vitals(vitals.pool)

    def _gone(self, worker_id: str) -> None:
        self.vitals.pop(worker_id, None)
        self.quarantined.pop(worker_id, None)

    def _results(self, event: events_pb2.ResultsAccepted) -> None:
        """How long cases took here, over what the same ones took before."""
        vitals = self.vitals.get(event.worker_id)
        run = self.blame.runs.get(event.run_id)
        if vitals is None or run is None or not event.durations_seconds:
            return
        suite = suite_durations(self.suites, run.suite)
        step = max(1, len(event.tasks) // SAMPLES_PER_EVENT)
        for position in range(0, len(event.durations_seconds), step):
            task, seconds = event.tasks[position], event.durations_seconds[position]
            name = self.blame.name_of(event.run_id, task, event.cases[position] if event.cases else 0)
            if not name or seconds < SHORTEST_SECONDS:
                continue
            usual = suite.of_name(name)
            if usual > 0:
                vitals.add("slowness", math.log(seconds / usual))
            suite.learn_name(name, seconds)

    def _say(self, worker_id: str, metric: str, members: dict[str, Vitals]) -> str:
        judged = next(item for item in METRICS if item.name == metric)
        value = members[worker_id].means[metric]
        middle = median(vitals.means[metric] for vitals in members.values() if metric in vitals.means)
        if metric == "slowness":
            value, middle = math.exp(value - middle), 1.0
        elif metric == "disk":
            value, middle = 2.0**value, 2.0**middle
        return judged.words.format(value=value, middle=middle)


def _limit(members: dict[str, Vitals]) -> float:
    """The deviation at which a verdict begins."""
    return FAR if len(members) >= SMALL_POOL else FAR_IN_SMALL_POOL


def _deviations(members: dict[str, Vitals]) -> dict[str, dict[str, float]]:
    """Robust standard scores by worker and metric, in the bad direction."""
    scores: dict[str, dict[str, float]] = {worker_id: {} for worker_id in members}
    if len(members) < LEAST_POOL:
        return scores
    for metric in METRICS:
        values = {
            worker_id: vitals.means[metric.name]
            for worker_id, vitals in members.items()
            if vitals.counts.get(metric.name, 0) >= SAMPLES_NEEDED
        }
        if len(values) < LEAST_POOL:
            continue
        middle = median(values.values())
        spread = max(metric.floor, NORMAL_MAD * median(abs(value - middle) for value in values.values()))
        for worker_id, value in values.items():
            signed = (value - middle) / spread
            scores[worker_id][metric.name] = signed if metric.is_high_bad else -signed
    return scores


def _isolated(members: dict[str, Vitals], scores: dict[str, dict[str, float]]) -> dict[str, float]:
    """Workers that the forest isolates and that deviate in some metric, with how far they are from the others."""
    known = [worker_id for worker_id in sorted(members) if len(scores[worker_id]) == _most(scores)]
    if len(known) < FOREST_POOL or not _most(scores):
        return {}
    from sklearn.ensemble import IsolationForest  # lazily: half a second that small pools need not wait for

    names = sorted(scores[known[0]])
    rows = [[scores[worker_id].get(name, 0.0) for name in names] for worker_id in known]
    forest = IsolationForest(n_estimators=100, random_state=0)  # type: ignore[no-untyped-call]  # not typed
    normality: Sequence[float] = forest.fit(rows).score_samples(rows).tolist()
    middle = median(normality)
    spread = max(0.02, NORMAL_MAD * median(abs(value - middle) for value in normality))
    found = {}
    for worker_id, value in zip(known, normality, strict=True):
        distance = (middle - value) / spread
        if distance > FOREST_FAR and max(scores[worker_id].values()) > ODD:
            found[worker_id] = distance
    return found


def _most(scores: dict[str, dict[str, float]]) -> int:
    return max((len(known) for known in scores.values()), default=0)

"""What the resource manager did and what became of it: the launches of one pool.

    asked ──registered──▶ registered ──exit 0, or left──▶ gone
      │                      │  └──────lost──▶ is_lost ──comes back──▶ registered
      └──died, or never came─┴──▶ a death, to be replaced

The ledger is kept on disk before anything is asked of the provider, so that a restart knows each
launch by its identity. It changes by the pool's own decisions (`record`), by what the log says of
the workers (`sync`), and by what is heard from the provider and the coordinator (`observe`), which
the next decision carries: so the log and the decisions lead to the same ledger again.
"""

from dataclasses import dataclass, field
from statistics import median

from dtf.api.v1 import scaling_pb2
from dtf.core.scaling.choices import DEFAULT_STARTUP_SECONDS
from dtf.core.scaling.demand import DemandProjection, Departure, WorkerView
from dtf.core.scaling.policy import ScalingPolicy
from dtf.core.scaling.rates import NANOS

STABLE_SECONDS = 10.0
"""A launch that dies younger than this says that the next may die too."""
FIRST_BACKOFF_SECONDS = 1.0
LONGEST_BACKOFF_SECONDS = 60.0
QUOTA_BACKOFF_SECONDS = 60.0
MOVES_KEPT = 1024
RECOMMENDATIONS_KEPT = 256
STARTUPS_KEPT = 8
DRAIN_ANSWER_SECONDS = 5.0
"""A drain that was asked for and of which the log says nothing by then is asked again."""


@dataclass(slots=True)
class Launch:
    """One launch that was asked of the provider and has not exited."""

    launch_id: str
    requested_at_ns: int
    worker_id: str = ""
    is_registered: bool = False
    is_lost: bool = False
    is_stopping: bool = False
    is_quarantined: bool = False

    @property
    def is_awaited(self) -> bool:
        """Whether its worker is on its way."""
        return not (self.is_registered or self.is_stopping or self.is_lost)


@dataclass(slots=True)
class PoolLedger:
    """The launches of one pool and the pace of its decisions."""

    pool: str
    next_decision: int = 1
    next_launch: int = 1
    launches: dict[str, Launch] = field(default_factory=dict)
    deaths: list[str] = field(default_factory=list)
    """How each launch died that has not been replaced, in words."""
    drains_asked: dict[str, int] = field(default_factory=dict)
    """When each worker was asked to drain of whose drain the log has not told."""
    startups: list[float] = field(default_factory=list)
    last_scale_out_ns: int = 0
    last_scale_in_ns: int = 0
    failures_in_a_row: int = 0
    retry_at_ns: int = 0
    last_failure: str = ""
    hold_kind: str = ""
    last_hold_ns: int = 0
    decided_sequence: int = 0
    """Last sequence of the log that a decision has taken into account."""
    launched: list[int] = field(default_factory=list)
    """When the newest launches were asked for, one entry each."""
    drained: list[int] = field(default_factory=list)
    recommendations: list[tuple[int, int]] = field(default_factory=list)
    """Instant and workers of the newest recommendations that differ from the one before."""

    @property
    def startup_seconds(self) -> float:
        """Launch-to-registration delay: the median of the newest."""
        return median(self.startups) if self.startups else DEFAULT_STARTUP_SECONDS

    def employs(self, worker: WorkerView) -> bool:
        """Whether it takes work and its process, if we launched it, is alive.

        One started by hand has no launch: the log's word is all there is.
        """
        if worker.pool != self.pool or not worker.takes_work or worker.worker_id in self.drains_asked:
            return False
        launch = self.launches.get(worker.launch_id)
        return not worker.launch_id or (launch is not None and not launch.is_stopping)

    def decision_id(self) -> str:
        """Identity of the next decision."""
        return f"{self.pool}/{self.next_decision}"

    def launch_ids(self, count: int) -> list[str]:
        """Identities of the next `count` launches."""
        return [f"{self.pool}-{self.next_launch + step}" for step in range(count)]

    def record(self, decision: scaling_pb2.ScalingDecision, hold_kind: str = "") -> None:
        """A decision was made."""
        now_ns = decision.now_unix_nanos
        self.next_decision += 1
        self.hold_kind = hold_kind
        self.decided_sequence = max(self.decided_sequence, decision.log_sequence)
        match decision.action:
            case scaling_pb2.SCALING_ACTION_SCALE_OUT | scaling_pb2.SCALING_ACTION_REPLACE:
                self._recommended(now_ns, decision.recommended)
                self.next_launch += len(decision.launch_ids)
                self.launched = [*self.launched, *[now_ns] * len(decision.launch_ids)][-MOVES_KEPT:]
                for launch_id in decision.launch_ids:
                    self.launches[launch_id] = Launch(launch_id, now_ns)
                self.deaths.clear()
                if decision.recommended >= decision.desired:
                    # Launches that a bound or a death asked for need no time to show their effect on the backlog.
                    self.last_scale_out_ns = now_ns
            case scaling_pb2.SCALING_ACTION_SCALE_IN:
                self._recommended(now_ns, decision.recommended)
                self.drained = [*self.drained, *[now_ns] * len(decision.worker_ids)][-MOVES_KEPT:]
                self.drains_asked.update(dict.fromkeys(decision.worker_ids, now_ns))
                self.last_scale_in_ns = now_ns
            case scaling_pb2.SCALING_ACTION_TERMINATE:
                for launch_id in decision.launch_ids:
                    if launch := self.launches.get(launch_id):
                        launch.is_stopping = True
            case _:
                self._recommended(now_ns, decision.recommended)
                self.last_hold_ns = now_ns

    def must_note(self, policy: ScalingPolicy, recommended: int) -> bool:
        """Whether a recommendation is news that a window will ask for."""
        if not (policy.scale_in_window_seconds or policy.scale_out_window_seconds):
            return False
        return not self.recommendations or self.recommendations[-1][1] != recommended

    def recommended_lately(
        self, policy: ScalingPolicy, now_ns: int, recommended: int
    ) -> tuple[int | None, int | None]:
        """The lowest recommendation of the window for growing, the highest of that for shrinking, this one included."""
        lowest = highest = None
        if policy.scale_out_window_seconds:
            lowest = min(recommended, *self._within(now_ns, policy.scale_out_window_seconds, recommended))
        if policy.scale_in_window_seconds:
            highest = max(recommended, *self._within(now_ns, policy.scale_in_window_seconds, recommended))
        return lowest, highest

    def windows_end(self, policy: ScalingPolicy) -> list[int]:
        """When recommendations leave their windows."""
        if not (policy.scale_in_window_seconds or policy.scale_out_window_seconds):
            return []
        windows = [policy.scale_out_window_seconds, policy.scale_in_window_seconds]
        return [
            at_ns + int(seconds * NANOS)
            for at_ns, _ in self.recommendations
            for seconds in windows
            if seconds
        ]

    def _within(self, now_ns: int, seconds: float, recommended: int) -> list[int]:
        """Recommendations in force within the last `seconds`; each is until the next."""
        since_ns = now_ns - int(seconds * NANOS)
        found = [recommended]
        for at_ns, workers in reversed(self.recommendations):
            found.append(workers)
            if at_ns <= since_ns:
                break
        return found

    def _recommended(self, now_ns: int, workers: int) -> None:
        if not self.recommendations or self.recommendations[-1][1] != workers:
            self.recommendations = [*self.recommendations, (now_ns, workers)][-RECOMMENDATIONS_KEPT:]

    def observe(self, seen: scaling_pb2.Observation) -> None:
        """Something was heard."""
        match seen.WhichOneof("observation"):
            case "exited":
                exited = seen.exited
                self.exited(
                    exited.launch_id,
                    exited.reason,
                    seen.now_unix_nanos,
                    is_clean=exited.is_clean,
                    is_dismissed=exited.is_dismissed,
                )
            case "failed":
                failed = seen.failed
                self.launch_failed(
                    failed.launch_id, failed.reason, seen.now_unix_nanos, is_quota=failed.is_quota
                )
            case "adopted":
                self.adopt(seen.adopted.launch_id, seen.adopted.launched_unix_nanos)
            case "interrupted":
                self.deaths.append(
                    f"{seen.interrupted.launch_id} will be taken away: {seen.interrupted.reason}"
                )
            case "drain_refused_worker_id":
                self.drains_asked.pop(seen.drain_refused_worker_id, None)
            case _:
                pass  # heard by a later version

    def adopt(self, launch_id: str, requested_at_ns: int) -> None:
        """The provider runs a launch that the ledger does not know."""
        self.launches.setdefault(launch_id, Launch(launch_id, requested_at_ns))
        number = launch_id.removeprefix(f"{self.pool}-")
        if number.isdecimal():
            self.next_launch = max(self.next_launch, int(number) + 1)

    def exited(
        self, launch_id: str, reason: str, now_ns: int, *, is_clean: bool, is_dismissed: bool = False
    ) -> None:
        """The provider says that a launch ended; `is_clean`: by itself, as it should.

        `is_dismissed`: because everything was stopped, however young it was; that is no failure.
        """
        launch = self.launches.pop(launch_id, None)
        if launch is None:
            return
        if is_dismissed or (launch.is_stopping and launch.is_registered):
            return
        if is_clean and launch.is_registered:
            self.failures_in_a_row = 0
            return
        if not launch.is_lost:
            self.deaths.append(f"{launch_id} {reason}")
        # one that never registered died young, however long it tried
        began_ns = launch.requested_at_ns if launch.is_registered else now_ns
        self._count_failure(f"{launch_id} {reason}", began_ns, now_ns)

    def launch_failed(self, launch_id: str, reason: str, now_ns: int, *, is_quota: bool = False) -> None:
        """The provider could not launch; `is_quota`: it has no room, and asking again soon is no use."""
        self.launches.pop(launch_id, None)
        self._count_failure(f"{launch_id}: {reason}", now_ns, now_ns)
        self.failures_in_a_row = max(2, self.failures_in_a_row)
        backoff = QUOTA_BACKOFF_SECONDS if is_quota else FIRST_BACKOFF_SECONDS
        self.retry_at_ns = max(self.retry_at_ns, now_ns + int(backoff * NANOS))

    def _count_failure(self, what: str, requested_at_ns: int, now_ns: int) -> None:
        is_young = now_ns - requested_at_ns < STABLE_SECONDS * NANOS
        self.failures_in_a_row = self.failures_in_a_row + 1 if is_young else 1
        self.last_failure = what
        if self.failures_in_a_row > 1:
            doublings = min(self.failures_in_a_row - 2, 16)
            delay = min(LONGEST_BACKOFF_SECONDS, FIRST_BACKOFF_SECONDS * 2**doublings)
            self.retry_at_ns = now_ns + int(delay * NANOS)

    def sync(self, projection: DemandProjection, now_ns: int) -> None:
        """Take from the log what became of the workers."""
        for worker in projection.workers.values():
            if launch := self.launches.get(worker.launch_id):
                self._registered(launch, worker.worker_id, worker.registered_at_ns)
                self._quarantined(launch, worker)
        for launch in self.launches.values():
            gone = projection.gone.get(launch.launch_id)
            if gone is not None and gone.departure is Departure.LOST and not launch.is_lost:
                launch.is_lost = True
                self.deaths.append(f"{launch.launch_id} was lost: {gone.reason}")
        self._forget_answered_drains(projection, now_ns)

    def _registered(self, launch: Launch, worker_id: str, at_ns: int) -> None:
        launch.is_lost = False
        if launch.is_registered:
            return
        launch.is_registered, launch.worker_id = True, worker_id
        delay = (at_ns - launch.requested_at_ns) / NANOS
        if delay >= 0:
            self.startups = [*self.startups, delay][-STARTUPS_KEPT:]

    def _quarantined(self, launch: Launch, worker: WorkerView) -> None:
        """A worker that is kept from work is replaced like one that died; it may come back."""
        if worker.is_quarantined and not launch.is_quarantined:
            self.deaths.append(f"{worker.worker_id} was quarantined: {worker.quarantine_reason}")
        launch.is_quarantined = worker.is_quarantined

    def _forget_answered_drains(self, projection: DemandProjection, now_ns: int) -> None:
        limit = now_ns - DRAIN_ANSWER_SECONDS * NANOS
        for worker_id, asked_at_ns in list(self.drains_asked.items()):
            worker = projection.workers.get(worker_id)
            if worker is None or worker.is_draining or asked_at_ns < limit:
                del self.drains_asked[worker_id]

"""The Kubernetes HorizontalPodAutoscaler, autoscaling/v2, by its documented defaults.

Sources: kubernetes.io, "Horizontal Pod Autoscaling" (algorithm details, configurable scaling behavior);
kubernetes/pkg/controller/podautoscaler (horizontal.go, replica_calculator.go); the ReplicaSet
controller's order of deletion (pkg/controller/controller_utils.go, ActivePodsWithRanks).

What is modelled, and what had to be chosen:

- Metric: CPU utilization with a target of 80 %, which autoscaling/v2 takes when no metric is given. A
  busy slot uses all of its request, an idle one nothing; the value is the mean since the sync before
  (metrics-server samples every 15 s). The queue as an external metric is what KEDA adds: see `keda`.
- desired = ceil(ready x utilization / target), within a tolerance of .1 of the ratio none. While pods
  start they count as using nothing when that would scale out, and not at all when it would scale in.
- Scale out: the larger of +100 % and +4 pods in 15 s, no stabilization. Scale in: the highest
  recommendation of the last 300 s, then as many as 100 % in 15 s.
- It cannot go to zero (HPAScaleToZero is alpha and off, and CPU says nothing of an empty pool): a
  minimum of 0 is 1 here, and that worker is paid for.
- Which pods go is the ReplicaSet's choice, not the HPA's: those that start first, then the youngest,
  busy or not. A pod has terminationGracePeriodSeconds, 30 s, to finish what it runs; the workers are
  taken to handle SIGTERM as well as can be: they take nothing new and finish what they can. What is
  still running then is killed and runs anew.
"""

from collections import deque
from math import ceil

from dtf.core.simulation.scaling.listener import Listener
from dtf.core.simulation.scaling.outcome import PoolShape
from dtf.core.simulation.scaling.simulator import SimulatedPool

SYNC_SECONDS = 15.0
"""--horizontal-pod-autoscaler-sync-period."""
TOLERANCE = 0.1
"""--horizontal-pod-autoscaler-tolerance."""
STABILIZATION_SECONDS = 300.0
"""behavior.scaleDown.stabilizationWindowSeconds."""
PERIOD_SECONDS = 15.0
"""periodSeconds of the default policies of scaleUp and scaleDown."""
SCALE_OUT_PODS = 4
TARGET_UTILIZATION = 0.8
"""metrics: "If not set, the default metric will be set to 80% average CPU utilization"."""
GRACE_SECONDS = 30.0
"""terminationGracePeriodSeconds."""


class Stabilizer:
    """`behavior` by its defaults: the highest recommendation of five minutes, and how fast a pool may grow."""

    def __init__(self) -> None:
        self._recommended: deque[tuple[float, int]] = deque()
        self._grown: deque[tuple[float, int]] = deque()

    def limit(self, now: float, current: int, desired: int, least: int, most: int) -> int:
        """The replicas to have."""
        recommended = self._recommended
        while recommended and recommended[0][0] < now - STABILIZATION_SECONDS:
            recommended.popleft()
        while recommended and recommended[-1][1] <= desired:
            recommended.pop()
        recommended.append((now, desired))
        if desired < current:
            desired = min(current, recommended[0][1])
        elif desired > current:
            desired = min(desired, self._ceiling(now, current))
        return min(max(desired, least), most)

    def grew(self, now: float, count: int) -> None:
        """Pods were added."""
        self._grown.append((now, count))

    def _ceiling(self, now: float, current: int) -> int:
        while self._grown and self._grown[0][0] <= now - PERIOD_SECONDS:
            self._grown.popleft()
        before = current - sum(count for _, count in self._grown)
        return max(before + SCALE_OUT_PODS, before * 2)


def resize(pool: SimulatedPool, stabilizer: Stabilizer, wanted: int) -> None:
    """What the Deployment and its ReplicaSet make of a new number of replicas."""
    current = len(pool.workers)
    if wanted > current:
        pool.launch(wanted - current)
        stabilizer.grew(pool.now, wanted - current)
    elif wanted < current:
        # not ready before ready; then the younger first
        order = sorted(pool.workers.values(), key=lambda worker: (worker.is_ready, -worker.number))
        pool.stop([worker.number for worker in order[: current - wanted]], GRACE_SECONDS)


class HorizontalPodAutoscaler(Listener):
    """`hpa`."""

    name = "hpa"

    def __init__(self) -> None:
        self._stabilizer = Stabilizer()
        self._busy_seconds = self._ready_seconds = 0.0

    def least(self, shape: PoolShape) -> int:
        """minReplicas; at least 1."""
        return max(1, shape.min_workers)

    def decide(self, pool: SimulatedPool) -> float:
        """One sync."""
        utilization = self._utilization(pool)
        current = len(pool.workers)
        desired = self._desired(pool, utilization, current)
        least, most = self.least(pool.shape), pool.shape.max_workers
        resize(pool, self._stabilizer, self._stabilizer.limit(pool.now, current, desired, least, most))
        return pool.now + SYNC_SECONDS

    def _utilization(self, pool: SimulatedPool) -> float:
        pool.integrate()
        busy, ready = pool.busy_seconds - self._busy_seconds, pool.ready_seconds - self._ready_seconds
        self._busy_seconds, self._ready_seconds = pool.busy_seconds, pool.ready_seconds
        return busy / ready if ready > 0 else 0.0

    def _desired(self, pool: SimulatedPool, utilization: float, current: int) -> int:
        """replica_calculator.go, GetResourceReplicas."""
        ready, unready = pool.ready_count, pool.starting_count
        if not ready:
            return current
        ratio = utilization / TARGET_UTILIZATION
        if not unready or ratio <= 1.0:
            return current if abs(1.0 - ratio) <= TOLERANCE else ceil(ratio * ready - 1e-9)
        ratio *= ready / (ready + unready)
        if ratio <= 1.0 + TOLERANCE:
            return current
        return max(current, ceil(ratio * (ready + unready) - 1e-9))

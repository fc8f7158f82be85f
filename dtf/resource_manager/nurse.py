"""Looks after the sick of one pool: has them quarantined, released, or ended (see `ward`), and notes who is
flawed short of that, for who goes first when fewer are wanted."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from dtf.core.scaling import snapshot
from dtf.core.scaling.health import FOREST_POOL, HealthBook, Verdict
from dtf.ports.clock import Clock
from dtf.resource_manager.fleet import Fleet
from dtf.resource_manager.meters import PoolMeters
from dtf.resource_manager.state_file import ManagerState
from dtf.resource_manager.ward import Patient, Ward, choose

HEALTH_SECONDS = 5.0
"""How often it is asked who is sick."""

_log = logging.getLogger("dtf.resource_manager")


class Nurse:
    """`serve` runs until it is cancelled."""

    def __init__(
        self,
        pool: str,
        quarantine_ratio: float,
        probation_seconds: float,
        *,
        state: ManagerState,
        fleet: Fleet,
        clock: Clock,
        save: Callable[[], Awaitable[None]],
        meters: PoolMeters,
        end: Callable[[str, str, str], Awaitable[None]],
    ) -> None:
        """`end` has a launch ended, with its worker and the reason."""
        self._pool = pool
        self._ratio = quarantine_ratio
        self._probation_ns = int(probation_seconds * 1e9)
        self._state = state
        self._fleet = fleet
        self._clock = clock
        self._save = save
        self._meters = meters
        self._end = end
        self._warning = ""

    @property
    def _ward(self) -> Ward:
        return self._state.pools[self._pool].ward

    async def serve(self) -> None:
        """Make rounds."""
        while True:
            await self._clock.sleep(HEALTH_SECONDS)
            await self.make_round()

    async def make_round(self) -> None:
        """Release or end those whose probation is over, and quarantine who is sick."""
        now_ns = self._clock.now_ns()
        self._ward.prune(self._state.projection, self._probation_ns, now_ns)
        for patient in self._ward.due(self._state.projection, self._probation_ns, now_ns):
            await self._discharge(patient, now_ns)
        workers = [worker for worker in self._state.projection.workers.values() if worker.pool == self._pool]
        flaws = self._state.health.flaw_scores(self._pool)
        for worker in workers:
            worker.flaw_score = flaws.get(worker.worker_id, 0.0)
        active = {worker.worker_id for worker in workers if worker.takes_work}
        found = await self._verdicts(len(workers), now_ns) if active else []
        verdicts = [verdict for verdict in found if verdict.worker_id in active]
        sick, warning = choose(verdicts, workers, self._ratio)
        if warning and warning != self._warning:
            _log.warning("pool %s: %s", self._pool, warning)
        self._warning = warning
        for verdict in sick:
            _log.warning("%s is quarantined: %s", verdict.worker_id, verdict.reason)
            self._ward.admit(verdict, now_ns)
            self._meters.quarantines += 1
            await self._save()
            if not await self._fleet.quarantine(verdict.worker_id, verdict.reason):
                _log.warning("the coordinator did not quarantine %s", verdict.worker_id)

    async def _verdicts(self, size: int, now_ns: int) -> list[Verdict]:
        """Who is sick; a large pool is judged on a copy, in a thread, for it takes a third of a second."""
        if size < FOREST_POOL:
            return self._state.health.verdicts(self._pool, now_ns)
        copied = snapshot.encode(self._state.health)

        def judge() -> list[Verdict]:
            book = snapshot.decode(copied, HealthBook)
            return [] if book is None else book.verdicts(self._pool, now_ns)

        return await asyncio.to_thread(judge)

    async def _discharge(self, patient: Patient, now_ns: int) -> None:
        """It may work again; the second time it is ended."""
        worker = self._state.projection.workers.get(patient.worker_id)
        if worker is None:
            return
        if patient.stays > 1 and worker.launch_id:
            reason = f"{patient.worker_id} was quarantined {patient.stays} times: {patient.reason}"
            await self._end(worker.launch_id, patient.worker_id, reason)
        elif await self._fleet.release(patient.worker_id):
            _log.info("%s may work again: its probation is over", patient.worker_id)
            patient.is_released, patient.since_ns = True, now_ns
            await self._save()

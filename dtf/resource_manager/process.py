"""The process: follows the log once, and keeps every pool by it.

    log ──▶ LogReader ──▶ projection ──▶ PoolKeeper of each pool ──▶ provider · coordinator · decisions

Workers are the resource manager's: when it is stopped in good order it ends them (unless told
otherwise), when it is killed they go on and are taken up again.
"""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from dtf.api.v1 import scaling_pb2, worker_service_pb2
from dtf.core.scaling.adaptive import PoolTelemetry
from dtf.core.scaling.allocation import Allocation, allocate
from dtf.core.scaling.choices import ScalingChoices, Strategy
from dtf.core.scaling.ledger import PoolLedger
from dtf.core.scaling.policy import REGISTRATION_SECONDS, ScalingPolicy, wished_policy
from dtf.ports.clock import Clock
from dtf.ports.event_log import EventLog, RecordStream
from dtf.resource_manager.announcer import Announcer
from dtf.resource_manager.fleet import Fleet
from dtf.resource_manager.log_reader import LogReader
from dtf.resource_manager.managed_pool import ManagedPool, Office
from dtf.resource_manager.meters import PoolMeters
from dtf.resource_manager.numbers import recover_numbers
from dtf.resource_manager.pool import PoolKeeper
from dtf.resource_manager.rehearsal import DRY_RUN, Rehearsal
from dtf.resource_manager.state_file import ManagerState, PoolState, StateFile
from dtf.resource_manager.telemetry_book import TelemetryBook
from dtf.settings.model import PoolSettings

SAVE_AFTER_COMMITS = 2000
"""The projection is saved at least this often; a restart folds what came since in some 20 ms."""
PUBLISH_TIMEOUT_SECONDS = 2.0
MEASURE_SECONDS = 1.0
MACHINE_REGISTRATION_SECONDS = 900.0
"""Where a machine has to be found or made first; as long as the join token of a launch lives."""

_log = logging.getLogger("dtf.resource_manager")


def resolve_policy(settings: PoolSettings, processors: int) -> ScalingPolicy:
    """The settings with every default filled in."""
    most = settings.max_workers or max(2, processors)
    local = settings.provider in ("process", "ssh")
    patience = REGISTRATION_SECONDS if local else MACHINE_REGISTRATION_SECONDS
    chosen: dict[str, Any] = {each.name: getattr(settings, each.name) for each in fields(ScalingChoices)}
    return ScalingPolicy(
        pool=settings.name,
        min_workers=settings.min_workers,
        max_workers=max(most, settings.min_workers),
        slots=settings.slots,
        strategy=Strategy(settings.strategy),
        registration_seconds=settings.registration_seconds or patience,
        **chosen,
    )


@dataclass(frozen=True, slots=True)
class Shadow:
    """A candidate policy that follows the stream of its pool without authority."""

    name: str
    policy: ScalingPolicy


class ResourceManager:
    """Keeps pools. `run` serves until `stop` is called.

    In a dry run nobody is asked for anything and nothing is kept: what would be done is published, marked
    as such, beside whatever a resource manager with authority does.
    """

    def __init__(
        self,
        pools: Sequence[ManagedPool],
        *,
        namespace: str,
        log: EventLog,
        scaling: RecordStream,
        fleet: Fleet,
        clock: Clock,
        state_dir: Path,
        state_name: str = "pools",
        max_workers: int = 0,
        leaves_workers: bool = False,
        telemetry: RecordStream | None = None,
        telemetry_after: int = 0,
        is_dry_run: bool = False,
        shadow: Shadow | None = None,
    ) -> None:
        self._pools = {pool.policy.pool: pool for pool in pools}
        self._namespace = namespace
        self._scaling = scaling
        self._event_log = log
        self._fleet = fleet
        self._clock = clock
        self._file = StateFile(state_dir, state_name)
        self._max_workers = max_workers
        self._leaves_workers = leaves_workers
        self._is_dry_run = is_dry_run
        self._shadow = shadow
        self._rehearsals: list[Rehearsal] = []
        self._telemetry = None
        if telemetry is not None:
            self._telemetry = TelemetryBook(telemetry, clock, self._heard, telemetry_after)
        self._stopping = asyncio.Event()
        self._unsaved_commits = 0
        self._must_save = asyncio.Event()
        self._state = ManagerState()
        self._keepers: dict[str, PoolKeeper] = {}
        self.ready = asyncio.Event()
        """Set once every pool is looked after, or its provider has been found not to answer."""

    def stop(self) -> None:
        """Let `run` return in good order."""
        self._stopping.set()

    @property
    def meters(self) -> Mapping[str, PoolMeters]:
        """Figures by pool."""
        return {name: keeper.meters for name, keeper in self._keepers.items()}

    async def measure_forever(self) -> None:
        """Keep the figures up to date, for whoever publishes them."""
        while True:
            for keeper in self._keepers.values():
                keeper.measure()
            await self._clock.sleep(MEASURE_SECONDS)

    async def run(self) -> None:
        """Look after the pools. Raises ChainBroken when the log is not one chain any more."""
        if not self._is_dry_run:
            await self._load()
        self._announcer = Announcer(self._scaling, self._namespace, self._state, self._clock)
        async with asyncio.TaskGroup() as tasks:
            if not self._is_dry_run:
                self._hire(tasks)
            self._rehearse()
            serving = tasks.create_task(self._serve())
            await self._stopping.wait()
            serving.cancel()
        await self._shut_down()

    async def _load(self) -> None:
        saved = await asyncio.to_thread(self._file.load)
        if saved is not None:
            self._state = saved
        new = {name: PoolState(PoolLedger(name)) for name in self._pools if name not in self._state.pools}
        await recover_numbers({name: pool.ledger for name, pool in new.items()}, self._scaling)
        self._state.pools |= new

    def _hire(self, tasks: asyncio.TaskGroup) -> None:
        office = Office(
            state=self._state,
            fleet=self._fleet,
            clock=self._clock,
            announce=self._announce,
            save=self._save,
            allocate=self._allocate,
            telemetry=self._pool_telemetry,
            wake_all=self._wake_all,
            tasks=tasks,
        )
        self._keepers = {name: PoolKeeper(pool, office) for name, pool in self._pools.items()}

    def _rehearse(self) -> None:
        """Whoever decides without authority."""

        def rehearsal(name: str, policy: ScalingPolicy, *, is_shadow: bool) -> Rehearsal:
            return Rehearsal(
                name,
                policy,
                state=self._state,
                announcer=self._announcer,
                clock=self._clock,
                ledger=(lambda: self._state.pools[policy.pool].ledger) if is_shadow else None,
            )

        if self._is_dry_run:
            self._rehearsals = [
                rehearsal(DRY_RUN, pool.policy, is_shadow=False) for pool in self._pools.values()
            ]
        elif self._shadow is not None:
            self._rehearsals = [rehearsal(self._shadow.name, self._shadow.policy, is_shadow=True)]

    async def _serve(self) -> None:
        also = [rehearsal.take for rehearsal in self._rehearsals]
        reader = LogReader(self._event_log, self._state, self._clock, also)
        await reader.catch_up()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(reader.follow(self._folded))
            tasks.create_task(self._announcer.run())
            tasks.create_task(self._save_now_and_then())
            tasks.create_task(self._tell_ready())
            if self._telemetry is not None:
                tasks.create_task(self._telemetry.run())
            for keeper in self._keepers.values():
                tasks.create_task(keeper.serve())
            for rehearsal in self._rehearsals:
                tasks.create_task(rehearsal.serve())

    def _announce(self, decision: scaling_pb2.ScalingDecision) -> None:
        self._announcer.announce(decision)
        for rehearsal in self._rehearsals:
            rehearsal.carried_out(decision)

    def _heard(self, sample: worker_service_pb2.TelemetrySample) -> None:
        self._state.health.heard(sample)

    def _pool_telemetry(self, pool: str, now_ns: int) -> PoolTelemetry | None:
        return None if self._telemetry is None else self._telemetry.of_pool(pool, now_ns)

    async def _tell_ready(self) -> None:
        for keeper in self._keepers.values():
            await keeper.ready.wait()
        self.ready.set()

    def _folded(self, count: int) -> None:
        self._unsaved_commits += count
        if self._unsaved_commits >= SAVE_AFTER_COMMITS:
            self._must_save.set()
        self._wake_all()

    def _wake_all(self) -> None:
        for keeper in self._keepers.values():
            keeper.wake()

    async def _save_now_and_then(self) -> None:
        while True:
            await self._must_save.wait()
            await self._save()

    def _allocate(self, pool: str, now_ns: int) -> Allocation | None:
        """What a pool is to do, where others could do it too or all together have a bound."""
        if len(self._pools) == 1 and not self._max_workers:
            return None
        projection = self._state.projection
        policies = {
            name: wished_policy(each.policy, projection.wishes.get(name))
            for name, each in self._pools.items()
        }
        ledgers = {name: self._state.pools[name].ledger for name in self._pools}
        return allocate(projection, ledgers, policies, now_ns, self._max_workers)[pool]

    async def _save(self) -> None:
        if self._is_dry_run:
            return
        self._unsaved_commits = 0
        self._must_save.clear()
        await self._file.save(self._state)

    async def _shut_down(self) -> None:
        if not self._leaves_workers:
            async with asyncio.TaskGroup() as tasks:
                for keeper in self._keepers.values():
                    tasks.create_task(keeper.end())
        for rehearsal in self._rehearsals:
            await rehearsal.look_back()
        await self._announcer.publish_rest(PUBLISH_TIMEOUT_SECONDS)
        await self._save()

"""The coordinator at one moment, in plain values."""

from dataclasses import dataclass

from dtf.coordinator.desk import Desk
from dtf.coordinator.meters import Meters
from dtf.core.run.queries import worker_counts


@dataclass(frozen=True, slots=True)
class Figures:
    """The coordinator at one moment."""

    namespace: str
    epoch: int
    log_sequence: int
    is_refusing: bool
    queued_tasks: int
    leases: int
    active_runs: int
    workers: dict[str, int]
    """By state, in lower case."""
    meters: Meters


def figures_of(desk: Desk, meters: Meters) -> Figures:
    """As they are now. Call it in the coordinator's own loop."""
    return Figures(
        namespace=desk.settings.namespace,
        epoch=desk.writer.epoch,
        log_sequence=desk.writer.durable_sequence,
        is_refusing=desk.writer.refusing is not None,
        queued_tasks=desk.state.queued_count,
        leases=desk.state.leased_count,
        active_runs=len(desk.state.active_runs),
        workers=dict(worker_counts(desk.state)),
        meters=meters,
    )

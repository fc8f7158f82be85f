"""Sick workers: quarantined, replaced by the pool's next decision, tried again after a probation, or ended.

    at work ──verdict──▶ quarantined ──probation over──▶ released ──well for as long──▶ forgotten
                              ▲                             │
                              └──────verdict again──────────┘  the second time it is ended at the end

Only whom we quarantined is released again; whom an operator quarantined is the operator's. What is
wrong with more workers at once than the pool may spare is no matter of single workers: it is said,
and nothing is done.
"""

import logging
from collections.abc import Iterable
from dataclasses import dataclass, field

from dtf.core.scaling.demand import DemandProjection, WorkerView
from dtf.core.scaling.health import Verdict

ANSWER_SECONDS = 30.0
"""A quarantine that was asked for and of which the log says nothing by then is not going to be."""

_log = logging.getLogger("dtf.resource_manager")


@dataclass(slots=True)
class Patient:
    """A worker that we had quarantined."""

    worker_id: str
    reason: str
    since_ns: int
    """When it was last quarantined or released."""
    is_released: bool = False
    stays: int = 1
    """How often it was quarantined."""


@dataclass(slots=True)
class Ward:
    """The patients of one pool; part of what is kept over a restart."""

    patients: dict[str, Patient] = field(default_factory=dict)

    def admit(self, verdict: Verdict, now_ns: int) -> Patient:
        """A worker is going to be quarantined."""
        before = self.patients.get(verdict.worker_id)
        stays = before.stays + 1 if before is not None else 1
        patient = Patient(verdict.worker_id, verdict.reason, now_ns, stays=stays)
        self.patients[verdict.worker_id] = patient
        return patient

    def prune(self, projection: DemandProjection, probation_ns: int, now_ns: int) -> None:
        """Forget who is gone, who was taken out of our hands, and who has been well for long enough."""
        for worker_id, patient in list(self.patients.items()):
            worker = projection.workers.get(worker_id)
            age_ns = now_ns - patient.since_ns
            is_over = (
                worker is None
                or (patient.is_released and age_ns >= probation_ns)
                or (not patient.is_released and not worker.is_quarantined and age_ns >= ANSWER_SECONDS * 1e9)
                or (patient.is_released and worker.is_quarantined and age_ns >= ANSWER_SECONDS * 1e9)
            )
            if is_over:
                del self.patients[worker_id]

    def due(self, projection: DemandProjection, probation_ns: int, now_ns: int) -> list[Patient]:
        """Whose probation is over."""
        return [
            patient
            for patient in self.patients.values()
            if not patient.is_released
            and now_ns - patient.since_ns >= probation_ns
            and projection.workers[patient.worker_id].is_quarantined
        ]


def choose(
    verdicts: Iterable[Verdict], workers: Iterable[WorkerView], ratio: float
) -> tuple[list[Verdict], str]:
    """Whom to quarantine now, the worst first; and what is to be said of those who are too many."""
    members = list(workers)
    most = max(1, int(len(members) * ratio)) if ratio > 0 else 0
    free = most - sum(worker.is_quarantined for worker in members)
    sick = list(verdicts)
    if len(sick) > max(most, 1) and len(sick) * 2 > len(members):
        return [], (
            f"{len(sick)} of {len(members)} workers look sick at once, as {sick[0].worker_id}: {sick[0].reason}; "
            "that is no matter of single workers"
        )
    return sick[: max(0, free)], ""

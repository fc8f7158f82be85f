"""What workers and the coordinator tell each other."""

from dataclasses import dataclass, field

from dtf.api.v1 import worker_service_pb2


@dataclass(slots=True)
class Report:
    """A message of a worker; kept until it is acknowledged."""

    number: int
    incarnation: int
    results: list[worker_service_pb2.CaseResults] = field(default_factory=list)
    ends: list[worker_service_pb2.AttemptEnd] = field(default_factory=list)
    released: list[int] = field(default_factory=list)

    @property
    def fences(self) -> list[int]:
        """Fences of the leases that it tells of."""
        told = [fence for entry in self.results for fence in entry.fences]
        return [*told, *(end.fence for end in self.ends), *self.released]


@dataclass(frozen=True, slots=True)
class Assigned:
    """A lease that a worker is told of."""

    run_id: str
    task: int
    fence: int
    cases: tuple[int, ...]
    """Cases of the task without a verdict."""

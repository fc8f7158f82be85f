"""Tasks of one message, turned from rows into columns: read once, checked and written by the column."""

from collections.abc import Sequence
from dataclasses import dataclass

from dtf.api.v1 import common_pb2, events_pb2, run_service_pb2
from dtf.core.run import limits

_SHORT_BYTES = 125
"""Of a name: with its tag and length it makes a TaskSpec of up to 127 bytes, whose own length is one byte."""
_SPEC_OVERHEAD_BYTES = 4
"""A tag and a length for the name, and for the TaskSpec around it."""


@dataclass(slots=True)
class TaskColumns:
    """The tasks of one message. Reading a field of a message costs more than all that is done with it."""

    specs: list[common_pb2.TaskSpec]
    names: list[str]
    payloads: list[str]
    templates: list[int]
    expected_seconds: list[float]
    priorities: list[int]
    has_cases: bool

    @classmethod
    def read(cls, specs: list[common_pb2.TaskSpec]) -> "TaskColumns":
        """The columns of `specs`."""
        return cls(
            specs=specs,
            names=[spec.name for spec in specs],
            payloads=[spec.payload for spec in specs],
            templates=[spec.template for spec in specs],
            expected_seconds=[spec.expected_seconds for spec in specs],
            priorities=[spec.priority for spec in specs],
            has_cases=any([spec.cases for spec in specs]),  # noqa: C419  # a generator costs twice as much
        )

    @classmethod
    def of_request(cls, request: run_service_pb2.SubmitTasksRequest) -> "TaskColumns":
        """The columns of its tasks. Of tasks that have a name and nothing else only the names are read."""
        specs = list(request.tasks)
        names = [spec.name for spec in specs]
        if not _has_names_only(request, names):
            return cls.read(specs)
        count = len(names)
        return cls(specs, names, [""] * count, [0] * count, [0.0] * count, [0] * count, has_cases=False)

    def are_plain(self, template_count: int) -> bool:
        """Whether nothing in them needs a closer look: no fault, and nothing that might be one."""
        return (
            not self.has_cases
            and len(self.names) <= limits.MAX_TASKS_PER_MESSAGE
            and all(self.names)
            and max(map(len, self.names)) <= limits.MAX_NAME_LENGTH
            and max(map(len, self.payloads)) <= limits.MAX_PAYLOAD_BYTES // 4
            and max(self.templates) < template_count
            and limits.are_durations(self.expected_seconds)
            and not any(self.priorities)
        )

    def write(self, submitted: events_pb2.TasksSubmitted, run_priority: int) -> int:
        """Write the columns that differ from their defaults; return the number of cases."""
        submitted.names.extend(self.names)
        if any(self.payloads):
            submitted.payloads.extend(self.payloads)
        if any(self.templates):
            submitted.templates.extend(self.templates)
        if any(self.expected_seconds):
            submitted.expected_seconds.extend(self.expected_seconds)
        if any(self.priorities):
            submitted.priorities.extend([run_priority + priority for priority in self.priorities])
        return self._write_cases(submitted) if self.has_cases else len(self.names)

    def _write_cases(self, submitted: events_pb2.TasksSubmitted) -> int:
        # The column cannot say "unknown" for one case, so it is there for all of an event or for none.
        has_positions = all(spec.positions for spec in self.specs)
        for spec in self.specs:
            names: Sequence[str] = spec.cases or (spec.name,)
            submitted.case_counts.append(len(names))
            submitted.case_names.extend(names)
            if has_positions:
                submitted.case_positions.extend(spec.positions)
        return len(submitted.case_names)


def _has_names_only(request: run_service_pb2.SubmitTasksRequest, names: list[str]) -> bool:
    """Whether a request is exactly as large as its names make it, so that its tasks can have nothing else.

    Anything else set would add bytes. Said only of names of which each is there and short.
    """
    if not names or not all(names) or max(map(len, names)) > _SHORT_BYTES:
        return False
    text = "".join(names)
    if not text.isascii():
        return False
    rest = run_service_pb2.SubmitTasksRequest(run_id=request.run_id, batch=request.batch, seal=request.seal)
    return request.ByteSize() == rest.ByteSize() + len(text) + _SPEC_OVERHEAD_BYTES * len(names)

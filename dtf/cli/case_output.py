"""What the cases of a run said in their results: pytest's captured output and tracebacks.

Output of commands is not here; it is streamed as it appears (TailLogs). A report that is too large
for the log is fetched from the blob store.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass

from google.protobuf.message import DecodeError

from dtf.api.v1 import events_pb2
from dtf.client.client import Client
from dtf.client.run import RunHandle
from dtf.report.output import OutputPart, output_parts

_EVENTS = ("tasks_submitted", "results_accepted", "attempts_ended")


@dataclass(frozen=True, slots=True)
class CaseOutput:
    """The output of one try of one case."""

    task: int
    case: int
    name: str
    worker_id: str
    parts: list[OutputPart]


class CaseOutputs:
    """Follows a run for the output that its results carry."""

    def __init__(self, client: Client, run: RunHandle) -> None:
        self._client = client
        self._run = run
        self._names: dict[int, list[str]] = {}

    async def follow(self, until_sequence: int | None) -> AsyncIterator[CaseOutput]:
        """Output in the order of acceptance, up to a sequence of the log, or (None) to the run's end."""
        async for watched in self._run.watch(event_types=_EVENTS):
            if until_sequence is not None and watched.sequence > until_sequence:
                return
            if watched.event is not None:
                async for output in self._outputs_of(watched.event):
                    yield output
            if until_sequence is not None and watched.sequence == until_sequence:
                return

    async def _outputs_of(self, event: events_pb2.Event) -> AsyncIterator[CaseOutput]:
        match event.WhichOneof("event"):
            case "tasks_submitted":
                self._submitted(event.tasks_submitted)
            case "results_accepted":
                accepted = event.results_accepted
                for position, detail in enumerate(accepted.details):
                    case = accepted.cases[position] if accepted.cases else 0
                    output = await self._output(accepted.tasks[position], case, accepted.worker_id, detail)
                    if output is not None:
                        yield output
            case "attempts_ended":
                ended = event.attempts_ended
                for position, detail in enumerate(ended.details):
                    case = max(0, ended.running_cases[position] - 1) if ended.running_cases else 0
                    output = await self._output(ended.tasks[position], case, ended.worker_id, detail)
                    if output is not None:
                        yield output
            case _:
                pass

    def _submitted(self, event: events_pb2.TasksSubmitted) -> None:
        position = 0
        for offset, name in enumerate(event.names):
            names = [name]
            if event.case_counts:
                names = list(event.case_names[position : position + event.case_counts[offset]])
                position += event.case_counts[offset]
            self._names[event.first_task + offset] = names

    async def _output(self, task: int, case: int, worker_id: str, encoded: bytes) -> CaseOutput | None:
        if not encoded:
            return None
        try:
            detail = events_pb2.CaseDetail.FromString(encoded)
        except DecodeError:
            return None
        reports = detail.reports_json
        if not reports and detail.reports_blob.digest:
            reports = await self._client.fetch_blob(detail.reports_blob.digest)
        parts = output_parts(detail, reports) if reports else []
        names = self._names.get(task, [])
        name = names[case] if case < len(names) else f"case {case}"
        return CaseOutput(task, case, name, worker_id, parts) if parts else None

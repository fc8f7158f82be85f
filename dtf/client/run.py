"""One run, as a client holds it: submit, seal, watch, cancel, wait for the end."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dtf.api.v1 import common_pb2, events_pb2, run_service_pb2, scaling_pb2
from dtf.client.submission import Submission

if TYPE_CHECKING:
    from dtf.client.client import Client


@dataclass(frozen=True, slots=True)
class WatchedEvent:
    """One event of a run, or one scaling decision made meanwhile; exactly one of the two is set."""

    sequence: int
    """Sequence of the commit; 0 for a scaling decision, which is not in the log."""
    now_unix_nanos: int
    event: events_pb2.Event | None
    scaling: scaling_pb2.ScalingDecision | None = None


class RunHandle:
    """A run. Made by Client.start_run, Client.create_run or Client.attach."""

    def __init__(self, client: "Client", run: run_service_pb2.Run) -> None:
        self._client = client
        self._submission: Submission | None = None
        self.run_id = run.run_id
        self.run = run
        """The run as it was last seen."""

    async def submit(self, task: common_pb2.TaskSpec) -> int:
        """Submit one task; its index, once it is durable. Concurrent calls share batches."""
        return await self._stream().submit(task)

    async def submit_many(self, tasks: Sequence[common_pb2.TaskSpec]) -> None:
        """Submit many tasks; returns when all are durable."""
        await self._stream().submit_many(tasks)

    async def seal(self) -> None:
        """Say that no more tasks will come; the run ends when those it has do."""
        await self._stream().seal()

    def _stream(self) -> Submission:
        if self._submission is None:
            self._submission = self._client.open_submission(self.run_id)
        return self._submission

    async def watch(
        self,
        *,
        after_sequence: int = 0,
        event_types: Sequence[str] = (),
        omit_details: bool = False,
        include_scaling: bool = False,
    ) -> AsyncIterator[WatchedEvent]:
        """The run's events after `after_sequence`, until RunFinished; survives reconnects.

        `event_types` are field names of Event, as "results_accepted"; none: all. RunFinished
        comes in any case.
        """
        request = run_service_pb2.WatchRunRequest(
            run_id=self.run_id,
            after_sequence=after_sequence,
            event_types=[*event_types, "run_finished"] if event_types else [],
            omit_details=omit_details,
            include_scaling=include_scaling,
        )
        async for watched in self._client.watch(request):
            yield watched
            if watched.event is not None and watched.event.HasField("run_finished"):
                return

    async def result(self) -> run_service_pb2.Run:
        """The run once it has ended."""
        async for _ in self.watch(event_types=["run_finished"], omit_details=True):
            pass
        return await self.refresh()

    async def refresh(self) -> run_service_pb2.Run:
        """The run as it stands."""
        self.run = await self._client.get_run(self.run_id)
        return self.run

    async def cancel(self, reason: str = "") -> run_service_pb2.Run:
        """Stop the run."""
        self.run = await self._client.cancel_run(self.run_id, reason)
        return self.run

"""What TailLogs sends: output of a run's attempts as far as it is stored, and as it grows."""

from collections.abc import AsyncIterator

from dtf.api.v1 import run_service_pb2
from dtf.coordinator.desk import Desk

Offsets = dict[tuple[int, int], int]


async def tail_logs(
    desk: Desk, run_id: str, task: int | None, follow: bool
) -> AsyncIterator[run_service_pb2.TailLogsResponse]:
    """Output of the run (or of one task), in pieces; with `follow` until the run has ended."""
    offsets: Offsets = {}
    while True:
        rung = desk.output_bell.next()
        is_last = not follow or run_id not in desk.state.active_runs
        async for response in _news(desk, run_id, task, offsets):
            yield response
        if is_last:
            return
        await desk.output_bell.wait(rung)


async def _news(
    desk: Desk, run_id: str, task: int | None, offsets: Offsets
) -> AsyncIterator[run_service_pb2.TailLogsResponse]:
    for found in await desk.blobs.list_outputs(run_id):
        if task is not None and found[0] != task:
            continue
        async for piece in desk.blobs.read_output(run_id, *found, offsets.get(found, 0)):
            offsets[found] = offsets.get(found, 0) + len(piece)
            yield run_service_pb2.TailLogsResponse(task=found[0], attempt=found[1], data=piece)

"""How long tasks take while the system is half busy: arrivals that do not wait for answers.

Arrivals are Poisson with a seed, at a rate that is kept whatever the system does (an open loop: a
closed one would stop asking exactly when it is slow). Latencies count from the moment a task was
due, not from when the client got round to it:

    dispatch    until its first instruction runs in a worker's process (its lease is durable by then)
    verdict     until the client holds its verdict, which is durable
"""

import asyncio
import random
import time
from dataclasses import dataclass, field

from dtf.api.v1 import common_pb2, events_pb2
from dtf.client.run import RunHandle

SECONDS = 8.0
WARM_SECONDS = 5.0
"""Left out of the figures: each worker takes a warm process for this run and, two seconds later, starts the
next spare one, which takes half a second of a processor."""
BATCH = 64
"""Tasks of one arrival in batches."""
SEED = 20_26
PATIENCE_SECONDS = 60.0


@dataclass(slots=True)
class Load:
    """What was measured at one rate; latencies in seconds."""

    rate: float
    """Tasks a second that were asked for."""
    batch: int
    achieved: float = 0.0
    """Verdicts a second between the first and the last arrival."""
    task_count: int = 0
    dispatch: list[float] = field(default_factory=list)
    verdict: list[float] = field(default_factory=list)
    wakeups: list[float] = field(default_factory=list)
    """By how much a process that only sleeps was woken too late meanwhile."""
    own_processors: float = 0.0
    """Processors used by all parts, the client and the spare processes' start included."""
    other_processors: float = 0.0
    """Processors used by what is not ours."""


def arrivals(rate: float, batch: int, seconds: float) -> list[float]:
    """When each batch is due, in seconds from the start."""
    random_numbers = random.Random(SEED)
    due, at = [], 0.0
    while (at := at + random_numbers.expovariate(rate / batch)) < seconds:
        due.append(at)
    return due


async def under_load(run: RunHandle, rate: float, batch: int, seconds: float = SECONDS) -> Load:
    """Submit at `rate`, each arrival `batch` tasks at once, and time every one."""
    due = arrivals(rate, batch, WARM_SECONDS + seconds)
    begun_at = time.time() + 0.1  # noqa: TID251  # compared with what workers say of their own clock
    due_at = [begun_at + offset for offset in due]
    load = Load(rate, batch, task_count=len(due) * batch)
    async with asyncio.timeout(WARM_SECONDS + seconds + PATIENCE_SECONDS), asyncio.TaskGroup() as group:
        hearing = group.create_task(_hear(run, load, due_at, batch))
        async with asyncio.TaskGroup() as senders:
            await _send(run, senders, due_at, batch)
        await run.seal()
        last_at = await hearing
    measured = len(load.verdict)
    load.achieved = measured / (last_at - (begun_at + WARM_SECONDS))
    return load


async def _send(run: RunHandle, group: asyncio.TaskGroup, due_at: list[float], batch: int) -> None:
    """Start a submission whenever one is due."""
    for number, at in enumerate(due_at):
        left = at - time.time()  # noqa: TID251
        if left > 0:
            await asyncio.sleep(left)  # noqa: TID251  # arrivals follow the clock, that is what is measured
        if batch == 1:
            group.create_task(run.submit(common_pb2.TaskSpec(name=f"nothing[{number}]")))
        else:
            tasks = [common_pb2.TaskSpec(name=f"nothing[{number}.{index}]") for index in range(batch)]
            group.create_task(run.submit_many(tasks))


async def _hear(run: RunHandle, load: Load, due_at: list[float], batch: int) -> float:
    """Take in verdicts until the run ends; when the last one came."""
    first_measured_at = due_at[0] + WARM_SECONDS
    last_at = 0.0
    async for watched in run.watch(event_types=["results_accepted"]):
        now = time.time()  # noqa: TID251
        if watched.event is None or not watched.event.HasField("results_accepted"):
            continue
        last_at = now
        _take(load, watched.event.results_accepted, due_at, batch, now, first_measured_at)
    return last_at


def _take(
    load: Load,
    accepted: events_pb2.ResultsAccepted,
    due_at: list[float],
    batch: int,
    now: float,
    first_measured_at: float,
) -> None:
    for task, started_at in zip(accepted.tasks, accepted.started_at, strict=True):
        at = due_at[task // batch]
        if at >= first_measured_at:
            load.dispatch.append(started_at - at)
            load.verdict.append(now - at)

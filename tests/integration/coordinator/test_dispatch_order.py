"""Who is dealt to among equals: under light load a few workers do all the work, so that the others may go."""

from dtf.client.client import Client
from tests.coordinators import create_request, tasks
from tests.integration.coordinator.rig import Crew
from tests.scripted_worker import results

TASKS = 6


async def test_the_worker_that_became_free_last_gets_the_next_task(client: Client, workers: Crew) -> None:
    crew = {worker.worker_id: worker for worker in [await workers.hire(credits=1) for _ in range(3)]}
    run = await client.create_run(create_request("light"))
    holders = []
    watch = run.watch(event_types=["leases_granted", "results_accepted"])
    for task in tasks(TASKS):
        await run.submit(task)
        async for watched in watch:
            assert watched.event is not None
            if watched.event.HasField("results_accepted"):
                break
            worker = crew[watched.event.leases_granted.worker_id]
            holders.append(worker.worker_id)
            while not worker.held:
                await worker.hear()
            await worker.say(results=[results(list(worker.held.values()))], credits=1)
    assert len(holders) == TASKS
    assert len(set(holders)) == 1

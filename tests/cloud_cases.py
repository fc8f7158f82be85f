"""What holds on every cloud whose machines are found by their names, step by step; the clouds' own tests add what
is to be seen behind it."""

from dataclasses import replace

from dtf.ports.capacity import Instance, LaunchRequest
from tests.cloud_bench import OWNER, CloudBench

REQUEST = LaunchRequest("Local_1.a", "local", slots=2)


async def next_exit(bench: CloudBench) -> Instance:
    """The next machine that ended."""
    return await anext(aiter(bench.provider.exits()))


async def finds_what_another_process_made(bench: CloudBench) -> None:
    """A launch that another provider made is not made again."""
    second = bench.new_provider()
    made = await second.launch(REQUEST)
    assert await bench.provider.launch(REQUEST) == made
    await second.close()


async def leaves_other_pools_alone(bench: CloudBench) -> None:
    """Two of other pools, the names of which are alike, and one of ours: ours is listed."""
    for other in (replace(OWNER, pool="other"), replace(OWNER, cluster="tests-1")):
        provider = bench.new_provider(other)
        await provider.launch(REQUEST)
        await provider.close()
    ours = await bench.provider.launch(REQUEST)
    assert await bench.provider.list_instances() == [ours]


async def ends_clean_what_it_ends(bench: CloudBench) -> None:
    """A machine that was ended as asked ended without an error, and is forgotten for good."""
    await bench.provider.launch(REQUEST)
    await bench.provider.terminate(REQUEST.launch_id, grace_seconds=1)
    exited = await next_exit(bench)
    assert (exited.reason, exited.is_clean) == ("was ended as asked", True)
    await bench.provider.forget(REQUEST.launch_id)
    assert await bench.provider.list_instances() == []

"""The pool of warm processes: who is told to go goes, however young."""

import asyncio
from typing import Any, cast

import pytest

from dtf.adapters.system_clock import SystemClock
from dtf.worker.runner_pool import RunnerPool
from dtf.worker.warm_process import Listener
from tests.integration.test_launcher import PATIENCE_SECONDS, launcher

pytestmark = pytest.mark.worker


class NobodyListens:
    """A listener that lets every process say what it likes."""

    def __getattr__(self, name: str) -> Any:
        return lambda *_: None


async def test_a_process_that_is_sent_home_while_it_is_being_started_goes_at_once() -> None:
    async with launcher() as client, asyncio.timeout(PATIENCE_SECONDS), asyncio.TaskGroup() as tasks:
        pool = RunnerPool(client, tasks, SystemClock(), 1)
        pool.tick(SystemClock().monotonic(), cast(Listener, NobodyListens()))
        assert not pool.nobody_left.is_set()
        await pool.close(patience_seconds=10 * PATIENCE_SECONDS)
        assert pool.nobody_left.is_set()

"""Lets ended runs and gone workers leave memory, now and then."""

from dtf.coordinator.desk import Desk
from dtf.core.run.commands import ForgetWorkers, RetireRuns

PERIOD_SECONDS = 5.0


class Retirement:
    """A clock for RetireRuns and ForgetWorkers."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def run(self) -> None:
        """Let go for ever."""
        while True:
            await self._desk.clock.sleep(PERIOD_SECONDS)
            self._desk.history.let_go()
            self._ask()

    def _ask(self) -> None:
        """Whether anything is to go, the commands decide; they are not posted when nothing can be."""
        settings, state, writer = self._desk.settings, self._desk.state, self._desk.writer
        if writer.is_stalled:
            return
        if len(state.runs) > len(state.active_runs):
            writer.post(RetireRuns(settings.kept_runs, settings.kept_tasks, settings.run_grace_seconds))
        if len(state.workers) > settings.kept_gone_workers or len(state.session_requests) > len(
            state.workers
        ):
            writer.post(ForgetWorkers(settings.kept_gone_workers, settings.worker_grace_seconds))

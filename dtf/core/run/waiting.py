"""Why a task is where it is now: what it waits for, or who has it."""

from dtf.core.run.placement import describe_needs, fits
from dtf.core.run.portrait import task_state
from dtf.core.run.queries import leases_of_run
from dtf.core.run.state import Run, State
from dtf.core.run.story import plural


def why_now(state: State, run: Run, task: int) -> str:
    """In a sentence; "" for a task that has ended."""
    match task_state(run.task_states[task]):
        case "queued":
            return _why_queued(state, run, task)
        case "leased":
            lease = leases_of_run(state, run.run_id).get(task)
            if lease is None:
                return ""
            return f"now: leased to {lease.worker_id} (fence {lease.fence}), attempt {run.attempts[task]}"
        case _:
            return ""


def _why_queued(state: State, run: Run, task: int) -> str:
    template = run.template_of(task)
    if template.is_waiting:
        return f"now: {template.waiting_reason}"
    working = [worker for worker in state.workers.values() if worker.takes_work]
    able = [worker for worker in working if fits(worker, template)]
    if not able:
        others = f"; {plural(len(working), 'worker')} cannot run it" if working else ""
        return f"now: queued, and no worker that takes work can run it; needed: {describe_needs(template)}{others}"
    slots = sum(worker.slots for worker in able)
    held = sum(worker.lease_count for worker in able)
    return (
        f"now: queued behind {plural(_tasks_before(state, run, task), 'task')}; {plural(len(able), 'worker')} "
        f"with {plural(slots, 'slot')} can run it and hold {plural(held, 'lease')}"
    )


def _tasks_before(state: State, run: Run, task: int) -> int:
    """Queued tasks that are served before it: those of higher priority, and of its own run those in front."""
    priority = run.priority_of(task)
    before = 0
    for other in state.active_runs.values():
        for of_priority, by_template in other.queues.items():
            if of_priority > priority:
                before += sum(len(queue) for queue in by_template.values())
    for queue in run.queues.get(priority, {}).values():
        for queued in queue.tasks():
            if queued == task:
                break
            before += queued < task
    return before

"""Who is offered work: grants for the credits at hand, and leases asked back for idle workers."""

from dtf.coordinator.announcer import outbox_of
from dtf.coordinator.commits import Step
from dtf.coordinator.sessions import Sessions
from dtf.coordinator.stealing import Seat, revocations
from dtf.core.run.commands import Command, GrantLeases
from dtf.core.run.placement import fits


class Dispatcher:
    """Turns credits into GrantLeases, and the tail of full workers into revocations."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions
        self._state = sessions.state

    def grant(self) -> Command | None:
        """The command that hands out what is queued; None when there is nothing to hand out or nobody to take it."""
        if not self._state.queued_count:
            return None
        credits = {seat.worker_id: seat.credits for seat in self._seats() if seat.credits}
        return GrantLeases(credits) if credits else None

    def granted(self, step: Step) -> None:
        """Take granted leases off the credits at once: the next commit may be cut before this one lands."""
        for event in step.events:
            session = self._sessions.get(event.leases_granted.worker_id)
            if session is not None:
                session.credits = max(0, session.credits - len(event.leases_granted.tasks))

    def steal(self) -> None:
        """Ask leases back for idle workers; called when everything decided is durable."""
        seats = self._seats()
        if len(seats) < 2 or not any(seat.idle_slots for seat in seats):
            return
        for worker_id, fences in revocations(seats, self._waiting, self._fits).items():
            session = self._sessions.get(worker_id)
            if session is not None:
                session.revoked.update(fences)
                outbox_of(session).revoked.extend(fences)
                outbox_of(session).wake.set()

    def _seats(self) -> list[Seat]:
        """Attached workers that take work."""
        seats = []
        for session in self._sessions:
            worker = self._sessions.worker(session)
            if session.is_serving and worker.takes_work:
                credits = self._sessions.credits_of(session)
                seats.append(Seat(session.worker_id, max(1, worker.slots), worker.lease_count, credits))
        return seats

    def _waiting(self, worker_id: str) -> list[int]:
        """Leases behind a worker's slots, oldest first, that were not asked back yet."""
        worker = self._state.workers[worker_id]
        session = self._sessions.get(worker_id)
        revoked = session.revoked if session is not None else set()
        fences = sorted(fence for leases in worker.leases.values() for fence in leases)
        return [fence for fence in fences[worker.slots :] if fence not in revoked]

    def _fits(self, fence: int, holder_id: str, worker_id: str) -> bool:
        """Whether a worker could run the lease that another holds."""
        for run_id, leases in self._state.workers[holder_id].leases.items():
            if fence in leases:
                run = self._state.runs[run_id]
                template = run.template_of(leases[fence])
                return not run.is_cancelling and fits(self._state.workers[worker_id], template)
        return False

"""Who is offered work: grants for the credits at hand, and leases asked back for idle workers."""

from collections.abc import Mapping

from dtf.coordinator.announcer import outbox_of
from dtf.coordinator.commits import Step
from dtf.coordinator.sessions import Sessions
from dtf.coordinator.stealing import Seat, revocations
from dtf.core.run.commands import Command, GrantLeases
from dtf.core.run.placement import fits

FEW_OFFERS = 256
MOST_OFFERS = 2048
"""Workers whose credits one command weighs, as many as there are tasks within these bounds: a command is
recorded in its commit with all it weighed, and a large idle fleet would fill the log with its credits."""


class Dispatcher:
    """Turns credits into GrantLeases, and the tail of full workers into revocations."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions
        self._state = sessions.state
        self._in_vain = 0
        """Workers that were offered what is queued, one after the other, and could take none of it."""

    def grant(self) -> Command | None:
        """The command that hands out what is queued; None when there is nothing to hand out or nobody to take it."""
        if not self._state.queued_count:
            return None
        credits = self._offers()
        return GrantLeases(credits) if credits else None

    def granted(self, step: Step) -> bool:
        """Take granted leases off the credits at once: the next commit may be cut before this one lands.

        Whether there are workers beyond those of this command to be asked now.
        """
        for event in step.events:
            session = self._sessions.get(event.leases_granted.worker_id)
            if session is not None:
                session.credits = max(0, session.credits - len(event.leases_granted.tasks))
                self._sessions.weigh(session)
        assert isinstance(step.command, GrantLeases)
        return self._asks_on(step.command.credits, bool(step.events))

    def _asks_on(self, offered: Mapping[str, int], is_taken: bool) -> bool:
        hungry = len(self._sessions.hungry)
        if hungry > FEW_OFFERS:
            self._sessions.move_back(offered)
        self._in_vain = 0 if is_taken else self._in_vain + len(offered)
        if self._state.queued_count and len(offered) < hungry and self._in_vain < hungry:
            return True
        self._in_vain = 0
        return False

    def steal(self) -> None:
        """Ask leases back for idle workers; called when everything decided is durable."""
        if not self._state.leased_count or not self._has_idle():
            return
        seats = self._seats()
        if len(seats) < 2 or not any(seat.idle_slots for seat in seats):
            return
        for worker_id, fences in revocations(seats, self._waiting, self._fits).items():
            session = self._sessions.get(worker_id)
            if session is not None:
                session.revoked.update(fences)
                outbox_of(session).revoked.extend(fences)
                outbox_of(session).wake.set()

    def _offers(self) -> dict[str, int]:
        """Credits of workers that can take leases; equals among them are dealt to in this order.

        Of those that hold nothing the one that became free last comes first: under light load a few
        do all the work, and the others are idle for long enough to be let go. Those that hold leases
        follow, the one that waits longest first. Of a hungry fleet above FEW_OFFERS a part is asked at
        a time, and in that part the same holds.
        """
        most = min(MOST_OFFERS, max(FEW_OFFERS, self._state.queued_count))
        empty: list[tuple[str, int]] = []
        busy: list[tuple[str, int]] = []
        for worker_id, session in self._sessions.hungry.items():
            if len(empty) + len(busy) == most:
                break
            credits = self._sessions.credits_of(session)
            worker = self._sessions.worker(session)
            if credits and worker.takes_work:
                (busy if worker.lease_count else empty).append((worker_id, credits))
        return dict([*reversed(empty), *busy])

    def _has_idle(self) -> bool:
        """Whether a worker that can take leases has a slot with nothing to run."""
        for session in self._sessions.hungry.values():
            worker = self._sessions.worker(session)
            if worker.lease_count < max(1, worker.slots) and worker.takes_work:
                return True
        return False

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

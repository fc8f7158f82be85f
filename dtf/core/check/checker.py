"""The history checker: follows a log from its first message and says what does not hold.

    checker = HistoryChecker()
    for stored in log:
        checker.take(stored.sequence, stored.payload, stored.message_id)
    report = checker.finish()

It takes linear time, and memory for what is open: runs that ended are dropped but for their names.
After a violation it believes the log and goes on, so that one fault is told once.
"""

from collections.abc import Iterable, Iterator
from itertools import islice

from dtf.api.v1 import events_pb2, scaling_pb2
from dtf.core.check import ends, fleet, grants, results, runs, tokens
from dtf.core.check.books import Books, Presence
from dtf.core.check.chain import ChainBook
from dtf.core.check.journal import Journal
from dtf.core.check.properties import Property
from dtf.core.check.report import CheckReport, Findings, Violation
from dtf.core.check.witnesses import CLOCK_SKEW_SECONDS, JournalCheck, ScalingCheck, sources_of


class HistoryChecker:
    """Checks one history. `take` is for messages as they are stored, `follow` for commits already read.

    `journal` is used up: what is found in the log is taken out of it. `scaling` are the decisions of
    the resource manager in any order. None: there is nothing to hold against the log.
    """

    def __init__(
        self,
        journal: Journal | None = None,
        scaling: Iterable[scaling_pb2.ScalingDecision] | None = None,
        *,
        clock_skew_seconds: float = CLOCK_SKEW_SECONDS,
    ) -> None:
        self._sources = sources_of(journal, scaling)
        self._journal = (
            JournalCheck(journal, round(clock_skew_seconds * 1e9)) if journal is not None else None
        )
        self._scaling = ScalingCheck(scaling) if scaling is not None else None
        self._books = Books()
        self._findings = Findings()
        self._chain = ChainBook()
        self._event_count = 0
        self._continues = False
        self._touched: set[str] = set()
        """Workers whose work was taken away by the decision being read."""
        self._cut_short: set[str] = set()
        """The same, of decisions whose reign ended in the middle of them."""

    def take(self, sequence: int, payload: bytes, message_id: str) -> None:
        """The next message of the stream."""
        self._findings.sequence = sequence
        commit = self._chain.take(self._findings, sequence, payload, message_id)
        if commit is not None:
            self.follow(commit, sequence)

    def follow(self, commit: events_pb2.Commit, sequence: int) -> None:
        """The next commit of the chain."""
        if self._scaling is not None:
            self._scaling.reach(self._findings, self._books.workers, sequence - 1)
        self._findings.sequence = sequence
        self._check_commit(commit)
        for decision in self._decisions(commit):
            for event in decision:
                self._read(event, sequence, commit.now_unix_nanos)
            if not self._continues:
                self._settle()
        self._books.now_ns = max(self._books.now_ns, commit.now_unix_nanos)

    @property
    def violations_so_far(self) -> list[Violation]:
        """What did not hold up to here; what needs the whole history is left to `finish`."""
        return [violation for kept in self._findings.kept.values() for violation in kept]

    def finish(self) -> CheckReport:
        """What it came to; the history ends here."""
        if not self._continues:
            for run in self._books.runs.values():
                runs.check_open(run, self._findings)
        self._check_orphans(sorted(self._cut_short))
        last_sequence = self._findings.sequence
        if self._journal is not None:
            self._journal.finish(self._findings)
        if self._scaling is not None:
            self._scaling.reach(self._findings, self._books.workers, last_sequence)
            self._scaling.finish(self._findings, last_sequence)
        return CheckReport(
            properties=tuple(self._findings.reports(self._sources)),
            commit_count=self._chain.commit_count,
            event_count=self._event_count,
            stranger_count=self._chain.stranger_count,
            last_sequence=last_sequence,
            runs_open=len(self._books.runs),
            runs_ended=self._books.ended_count,
            accepted_losses=self._books.accepted_losses,
        )

    # -- commits and decisions

    def _check_commit(self, commit: events_pb2.Commit) -> None:
        books, findings = self._books, self._findings
        before, now_ns = books.now_ns, commit.now_unix_nanos
        findings.expect(Property.TIME, now_ns >= before, f"the commit's time is {now_ns}, after {before}")
        if commit.events[0].WhichOneof("event") == "leader_elected" and self._continues:
            # What a decision of the reign before had left to say is in no log: the new one makes up for it.
            self._continues = False
            self._cut_short |= self._touched
            self._touched.clear()
            self._books.cut_decision = self._books.decision
        nonce, counter = commit.commit_id[:8], int.from_bytes(commit.commit_id[8:], "big")
        if commit.epoch == books.epoch:
            holds = nonce == books.nonce and counter > books.counter
            what = f"epoch {commit.epoch} has a second writer, or commit {counter} follows {books.counter}"
            findings.expect(Property.EPOCHS, holds, what)
        else:
            elected = commit.events[0].leader_elected
            least = self._accept_loss(elected) if elected.HasField("accepted_loss") else books.epoch + 1
            is_next = commit.epoch == least or (commit.epoch > least and elected.HasField("accepted_loss"))
            what = f"epoch {commit.epoch} follows {books.epoch}, and its first event elects epoch {elected.epoch}"
            findings.expect(Property.EPOCHS, is_next and elected.epoch == commit.epoch, what)
        if commit.epoch != books.epoch:
            counter = 0  # an election's id says in its upper half how often it was tried
        books.epoch, books.nonce, books.counter = commit.epoch, nonce, counter

    def _accept_loss(self, elected: events_pb2.LeaderElected) -> int:
        """An operator let the log go on without its tail: fences and epochs go on above the lost ones."""
        loss = elected.accepted_loss
        self._books.accepted_losses += 1
        self._books.last_fence = max(self._books.last_fence, loss.next_fence - 1)
        return max(self._books.epoch, loss.lost_epoch) + 1

    def _decisions(self, commit: events_pb2.Commit) -> Iterator[list[events_pb2.Event]]:
        """The commit's events by the command that led to them; all at once where it does not say."""
        events = iter(commit.events)
        for source in commit.inputs:
            self._begin_decision()
            self._continues = source.continues
            yield list(islice(events, source.event_count))
        rest = list(events)
        what = f"{len(rest)} events are of no command"
        self._findings.expect(Property.KNOWN, not rest or not commit.inputs, what)
        if rest:
            self._begin_decision()
            self._continues = False
            yield rest

    def _begin_decision(self) -> None:
        if not self._continues:
            self._books.decision += 1

    def _settle(self) -> None:
        """A decision is whole."""
        self._check_orphans(self._touched - self._cut_short)
        self._touched.clear()

    def _check_orphans(self, worker_ids: Iterable[str]) -> None:
        for worker_id in worker_ids:
            worker = self._books.workers.get(worker_id)
            if worker is not None:
                fleet.check_orphans(worker, self._findings)

    # -- events

    def _read(self, event: events_pb2.Event, sequence: int, now_ns: int) -> None:
        kind = event.WhichOneof("event")
        self._event_count += 1
        self._findings.checked[Property.KNOWN] += 1
        if self._journal is not None and kind is not None:
            self._journal.read(self._findings, event, kind, now_ns)
        match kind:
            case "leader_elected":
                elected, books = event.leader_elected.epoch, self._books
                holds = elected == books.epoch and elected > books.elected_epoch
                what = f"epoch {elected} is elected in epoch {books.epoch}, after {books.elected_epoch}"
                self._findings.expect(Property.EPOCHS, holds, what)
                books.elected_epoch = max(books.elected_epoch, elected)
            case "run_created":
                runs.created(self._books, self._findings, event.run_created, sequence)
            case "results_refused" | "pool_scaled" | "pool_paused" | "pool_resumed":
                pass  # nothing that tasks or workers must answer for
            case "token_issued":
                tokens.issued(self._books, self._findings, event.token_issued)
            case "token_revoked":
                tokens.revoked(self._books, self._findings, event.token_revoked)
            case "runs_retired":
                runs.retired(self._books, self._findings, event.runs_retired)
            case "workers_forgotten":
                fleet.forgotten(self._books, self._findings, event.workers_forgotten)
            case None:
                self._findings.note(Property.KNOWN, "an event is of a type that this version does not know")
            case _ if hasattr(getattr(event, kind), "run_id"):
                self._read_of_run(event, kind)
            case _:
                self._read_of_worker(event, kind, now_ns)

    def _read_of_run(self, event: events_pb2.Event, kind: str) -> None:
        books, findings = self._books, self._findings
        run = runs.find(books, findings, getattr(event, kind).run_id, kind)
        if run is None:
            return
        match kind:
            case "leases_granted":
                grants.granted(books, run, findings, event.leases_granted)
            case "results_accepted":
                results.accepted(books, run, findings, event.results_accepted)
            case "attempts_ended":
                ends.ended(books, run, findings, event.attempts_ended)
            case "leases_released":
                ends.released(books, run, findings, event.leases_released)
            case "tasks_submitted":
                runs.submitted(books, run, findings, event.tasks_submitted)
            case "submission_sealed":
                runs.sealed(run, findings, event.submission_sealed)
            case "placement_changed":
                runs.placement_changed(run, findings, event.placement_changed)
            case "tasks_abandoned":
                ends.abandoned(run, findings, event.tasks_abandoned)
            case "run_cancel_requested":
                runs.cancel_requested(run, findings)
            case "run_finished":
                runs.finished(books, run, findings, event.run_finished)
            case _:
                self._unread(kind)

    def _read_of_worker(self, event: events_pb2.Event, kind: str, now_ns: int) -> None:
        books, findings = self._books, self._findings
        if kind == "worker_registered":
            said = event.worker_registered
            before = books.workers.get(said.worker_id)
            came_with = before.join_token_id if before is not None else ""
            tokens.admitted(books, findings, said, came_with, now_ns)
            fleet.registered(books, findings, said)
            return
        worker = fleet.find(books, findings, getattr(event, kind).worker_id, kind)
        if worker is None:
            return
        self._touched.add(worker.worker_id)
        match kind:
            case "worker_drain_requested":
                fleet.drain_requested(worker, findings, event.worker_drain_requested)
            case "worker_quarantined":
                fleet.quarantined(worker, findings)
            case "worker_released":
                fleet.released(worker, findings)
            case "worker_lost":
                fleet.gone(worker, findings, event.worker_lost.incarnation, Presence.LOST)
            case "worker_left":
                fleet.gone(worker, findings, event.worker_left.incarnation, Presence.LEFT)
            case _:
                self._unread(kind)

    def _unread(self, kind: str) -> None:
        self._findings.note(Property.KNOWN, f"{kind} is of a type that the checker does not read")

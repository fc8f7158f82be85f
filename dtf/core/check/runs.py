"""What is checked of runs: how they begin, what joins them, how they end, when they are forgotten."""

from dtf.api.v1 import common_pb2, events_pb2
from dtf.core.check.books import LEASED, QUEUED, Books, Needs, RunBook
from dtf.core.check.properties import Property
from dtf.core.check.report import Findings

_COUNTS = (
    ("passed", common_pb2.VERDICT_PASSED),
    ("failed", common_pb2.VERDICT_FAILED),
    ("error", common_pb2.VERDICT_ERROR),
    ("skipped", common_pb2.VERDICT_SKIPPED),
    ("flaky", common_pb2.VERDICT_FLAKY),
)


def find(books: Books, findings: Findings, run_id: str, kind: str) -> RunBook | None:
    """The open run; what tells of another is at fault."""
    run = books.runs.get(run_id)
    if run is None and run_id in books.ended_runs:
        findings.note(Property.COMPLETENESS, f"{kind} in run {run_id}, which has ended")
    elif run is None and run_id in books.retired_runs:
        findings.note(Property.RETIREMENT, f"{kind} in run {run_id}, which is retired")
    elif run is None:
        findings.note(Property.KNOWN, f"{kind} in run {run_id}, which was never created or is forgotten")
    return run


def created(books: Books, findings: Findings, said: events_pb2.RunCreated, sequence: int) -> None:
    """A run begins."""
    is_new = not any(said.run_id in known for known in (books.runs, books.ended_runs, books.retired_runs))
    findings.expect(Property.SUBMISSIONS, is_new, f"run {said.run_id} is created again")
    if said.request_id:
        other = books.requests.get(said.request_id)
        findings.expect(
            Property.SUBMISSIONS,
            other is None,
            f"request {said.request_id} created run {other}, and creates {said.run_id}",
        )
        books.requests[said.request_id] = said.run_id
    needs = [Needs.of(template) for template in said.templates] or [Needs.of(common_pb2.TaskTemplate())]
    books.runs[said.run_id] = RunBook(said.run_id, said.request_id, sequence, needs)


def submitted(books: Books, run: RunBook, findings: Findings, said: events_pb2.TasksSubmitted) -> None:
    """Tasks join a run."""
    where = f"batch {said.batch} of run {run.run_id}"
    submissions = Property.SUBMISSIONS
    findings.expect(submissions, not run.is_sealed, f"{where} comes after the run was sealed")
    findings.expect(submissions, not run.is_cancelling, f"{where} comes after the run was cancelled")
    holds = said.first_task == len(run.tasks)
    findings.expect(
        submissions, holds, f"{where} begins at task {said.first_task}; the run has {len(run.tasks)}"
    )
    _check_batch(books, run, findings, said)
    cases, names = list(said.case_counts), len(said.names)
    is_whole = len(cases) in (0, names) and sum(cases) == len(said.case_names) and 0 not in cases
    is_placed = len(said.templates) in (0, names) and max(said.templates, default=0) < len(run.needs)
    if findings.expect(
        Property.KNOWN, is_whole and is_placed, f"the columns of {where} do not fit each other"
    ):
        run.add(names, list(said.templates), cases)


def _check_batch(books: Books, run: RunBook, findings: Findings, said: events_pb2.TasksSubmitted) -> None:
    if not said.batch:
        return
    is_next = said.batch == run.last_batch + 1
    # One decision may bring a batch in several events; where its reign ended in between, the client
    # sends the batch again and another decision brings the rest.
    is_more = said.batch == run.last_batch and run.batch_decision in (books.decision, books.cut_decision)
    what = f"batch {said.batch} of run {run.run_id} comes after batch {run.last_batch}"
    findings.expect(Property.SUBMISSIONS, is_next or is_more, what)
    if is_more:
        run.batch_sizes[-1] += len(said.names)
    else:
        run.batch_sizes.append(len(said.names))
    run.last_batch, run.batch_decision = said.batch, books.decision


def sealed(run: RunBook, findings: Findings, said: events_pb2.SubmissionSealed) -> None:
    """No more will come."""
    findings.expect(Property.SUBMISSIONS, not run.is_sealed, f"run {run.run_id} is sealed twice")
    holds = said.task_count == len(run.tasks)
    what = f"run {run.run_id} is sealed with {said.task_count} tasks; it has {len(run.tasks)}"
    findings.expect(Property.SUBMISSIONS, holds, what)
    run.is_sealed = True


def cancel_requested(run: RunBook, findings: Findings) -> None:
    """A run is to stop."""
    findings.expect(Property.COMPLETENESS, not run.is_cancelling, f"run {run.run_id} is cancelled twice")
    run.cancel()


def placement_changed(run: RunBook, findings: Findings, said: events_pb2.PlacementChanged) -> None:
    """Tasks of a template wait for a worker, or no longer."""
    holds = said.template < len(run.needs)
    if findings.expect(Property.KNOWN, holds, f"run {run.run_id} has no template {said.template}"):
        (run.waiting.add if said.waiting else run.waiting.discard)(said.template)


def finished(books: Books, run: RunBook, findings: Findings, said: events_pb2.RunFinished) -> None:
    """A run ended: everything that the event says of it is compared."""
    run_id = run.run_id
    is_cancelled = said.state == common_pb2.RUN_STATE_CANCELLED
    complete = Property.COMPLETENESS
    leased, queued = run.tasks.count(LEASED), run.tasks.count(QUEUED)
    findings.expect(complete, not leased, f"run {run_id} ends with {leased} tasks leased")
    findings.expect(complete, not queued, f"run {run_id} ends with {queued} tasks queued")
    unjudged = run.verdicts.count(0)
    if is_cancelled:
        findings.expect(complete, run.is_cancelling, f"run {run_id} ends cancelled, and nobody asked for it")
    else:
        is_finished = said.state == common_pb2.RUN_STATE_FINISHED
        findings.expect(complete, is_finished, f"run {run_id} ends in state {said.state}")
        findings.expect(complete, run.is_sealed, f"run {run_id} ends before its submission was sealed")
        findings.expect(complete, not unjudged, f"run {run_id} ends with {unjudged} cases unjudged")
        findings.expect(complete, not run.is_cancelling, f"run {run_id} was cancelled and ends finished")
    totals = [(name, getattr(said.counts, name), run.verdicts.count(verdict)) for name, verdict in _COUNTS]
    totals.append(("unjudged", said.unjudged, unjudged))
    totals.append(("infrastructure failures", said.infrastructure_failures, run.infrastructure_failures))
    totals.append(("first sequence", said.first_sequence, run.first_sequence))
    for name, told, counted in totals:
        findings.expect(
            complete, told == counted, f"run {run_id} ends with {name} {told}; counted: {counted}"
        )
    _close(books, run, findings)


def _close(books: Books, run: RunBook, findings: Findings) -> None:
    orphans = [] if not run.leased else [f for f, lease in books.leases.items() if lease.run_id == run.run_id]
    for fence in orphans:
        books.release(fence)
    del books.runs[run.run_id]
    books.ended_runs[run.run_id] = run.request_id
    books.ended_count += 1


def retired(books: Books, findings: Findings, said: events_pb2.RunsRetired) -> None:
    """Ended runs leave the coordinator's memory."""
    for run_id in said.run_ids:
        holds = run_id in books.ended_runs
        findings.expect(Property.RETIREMENT, holds, f"run {run_id} is retired, and had not ended")
        books.retired_runs[run_id] = books.ended_runs.pop(run_id, "")
        run = books.runs.pop(run_id, None)
        if run is not None:
            books.retired_runs[run_id] = run.request_id
    for run_id in said.forgotten_run_ids:
        holds = run_id in books.retired_runs
        findings.expect(Property.RETIREMENT, holds, f"run {run_id} is forgotten, and was not retired")
        books.requests.pop(books.retired_runs.pop(run_id, ""), None)


def check_open(run: RunBook, findings: Findings) -> None:
    """At the end of the history, a run with nothing left to do must have ended."""
    what = f"run {run.run_id} has nothing left to do, and has not ended"
    findings.expect(Property.COMPLETENESS, not run.is_over, what)

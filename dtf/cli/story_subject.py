"""Whom a story is about: a run, task, case or worker, by the names that people use."""

from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass

from dtf.cli.errors import CommandError
from dtf.cli.exit_codes import ExitCode
from dtf.cli.log_source import LogSource
from dtf.core.run.evolve import evolve
from dtf.core.run.state import Run, State
from dtf.core.upcast import read_commit
from dtf.ports.event_log import StoredCommit
from dtf.ports.subjects import RUNS_HEADER

_SHOWN = 8
SEARCHED_RUNS = 50
"""A name is looked for in the newest runs: each that left the state is read from the log for it."""


@dataclass(frozen=True, slots=True)
class RunSpan:
    """A run and where in the log it is."""

    run_id: str
    first_sequence: int
    last_sequence: int
    """The log's end for a run that goes on."""
    is_over: bool


@dataclass(frozen=True, slots=True)
class Place:
    """A task of a run, or a case of it."""

    span: RunSpan
    run: Run
    task: int
    case: int | None = None


def find_span(state: State, text: str) -> RunSpan | None:
    """The run of this id or the only one that begins so. Raises CommandError where several do."""
    spans = {span.run_id: span for span in all_spans(state)}
    if text in spans:
        return spans[text]
    matching = [span for run_id, span in spans.items() if text and run_id.startswith(text)]
    if len(matching) > 1:
        names = ", ".join(span.run_id for span in matching[-_SHOWN:])
        raise CommandError(f"{text} begins {len(matching)} runs: {names}", exit_code=ExitCode.USAGE)
    return matching[0] if matching else None


def all_spans(state: State) -> Iterator[RunSpan]:
    """Every run the state knows of, retired ones too, the oldest first."""
    for retired in state.retired_runs.values():
        yield RunSpan(retired.run_id, retired.first_sequence, retired.last_sequence, is_over=True)
    for run in state.runs.values():
        last = run.last_sequence or state.last_sequence
        yield RunSpan(run.run_id, run.first_sequence, last, is_over=run.is_terminal)


async def messages_about(source: LogSource, span: RunSpan) -> AsyncIterator[StoredCommit]:
    """The messages of the run's span, without those whose headers name other runs only."""
    async for batch in source.read(span.first_sequence - 1, span.last_sequence):
        for message in batch:
            runs = message.headers.get(RUNS_HEADER)
            if runs is None or span.run_id in runs.split(","):
                yield message


async def run_of(source: LogSource, state: State, span: RunSpan) -> Run:
    """The run with its columns: the state's own, or for one that was retired folded from its span."""
    if span.run_id in state.runs:
        return state.runs[span.run_id]
    folded = State()
    async for message in messages_about(source, span):
        commit = read_commit(message.payload)
        for event in commit.events:
            if event.WhichOneof("event") != "runs_retired":
                evolve(folded, event, commit.now_unix_nanos, message.sequence)
    if span.run_id not in folded.runs:
        raise CommandError(f"{source.name} no longer has the beginning of run {span.run_id}")
    return folded.runs[span.run_id]


async def find_place(
    source: LogSource, state: State, text: str, spans: Sequence[RunSpan], *, is_case: bool
) -> Place | None:
    """The task or case of this name (or index, "7f3k/4") in the newest of the runs that has it.

    Names are looked for in the newest SEARCHED_RUNS of them.
    """
    head, separator, tail = text.rpartition("/")
    named = find_span(state, head) if separator and tail.isdecimal() else None
    if named is not None:
        return _at_index(named, await run_of(source, state, named), int(tail))
    for span in reversed(spans[-SEARCHED_RUNS:]):
        run = await run_of(source, state, span)
        if text.isdecimal() and len(spans) == 1 and not is_case:
            return _at_index(span, run, int(text))
        found = _named_case(span, run, text) if is_case else _named_task(span, run, text)
        if found is not None:
            return found
    return None


def _at_index(span: RunSpan, run: Run, task: int) -> Place:
    if task >= run.task_count:
        raise CommandError(
            f"run {run.run_id} has {run.task_count} tasks, counted from 0; not {task}",
            exit_code=ExitCode.USAGE,
        )
    return Place(span, run, task)


def _named_task(span: RunSpan, run: Run, name: str) -> Place | None:
    return Place(span, run, run.names.index(name)) if name in run.names else None


def _named_case(span: RunSpan, run: Run, name: str) -> Place | None:
    if run.case_names is None or run.case_offsets is None:
        return Place(span, run, run.names.index(name), 0) if name in run.names else None
    if name not in run.case_names:
        return None
    index = run.case_names.index(name)
    task = next(task for task in range(run.task_count) if index in run.case_range(task))
    return Place(span, run, task, index - run.case_range(task).start)

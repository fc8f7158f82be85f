"""`dtf explain`: the story of a run, task, case or worker, from the log, with causes; or of a scaling decision."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import click

from dtf.adapters.event_lines import format_time
from dtf.cli.errors import CommandError
from dtf.cli.exit_codes import ExitCode
from dtf.cli.explain_scaling import explain_scaling
from dtf.cli.invocation import Invocation
from dtf.cli.log_fold import Fold, fold_to, nearest_fold, progress
from dtf.cli.log_source import LogSource, source_options, with_log_source
from dtf.cli.story_subject import (
    SEARCHED_RUNS,
    Place,
    RunSpan,
    all_spans,
    find_place,
    find_span,
    messages_about,
)
from dtf.core.events import parse_commit
from dtf.core.run.outline import message_of, newest_first
from dtf.core.run.run_story import RunStory
from dtf.core.run.state import State
from dtf.core.run.story import StoryLine, TaskStory, Teller
from dtf.core.run.waiting import why_now
from dtf.core.run.worker_story import WorkerStory
from dtf.report.output import plain_line

_KINDS = ("run", "task", "case", "worker")
SCALING = "scaling"


@dataclass(slots=True)
class _Story:
    subject: str
    kind: str
    lines: list[StoryLine]
    now: str = ""
    """Why it is where it is at the end of the log."""
    hints: list[str] = field(default_factory=list)


@click.command()
@click.argument("words", nargs=-1, required=True, metavar="[run|task|case|worker|scaling] NAME")
@source_options
@click.option("--run", "run_id", default="", metavar="ID", help="The run of a task or case; else the newest.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.pass_obj
def command(
    invocation: Invocation,
    words: tuple[str, ...],
    source: Path | None,
    namespace: str | None,
    run_id: str,
    as_json: bool,
) -> None:
    """Tell the story of a run, task, case or worker from the log, with causes; or why a pool was scaled.

    NAME is a run's id or the beginning of it, a worker's id, a task as RUN/INDEX or by its name, a case
    by its name. Say which kind it is where a name could be several. `scaling` takes the id of a decision, a
    sequence of the log, or an instant, and tells the decision made by then; alone, the newest that moved a pool.

    \b
    Example:
        dtf explain 7f3k
        dtf explain 7f3k/4
        dtf explain case test_io.py::test_rename
        dtf explain worker local-2 --from log.dtfstream
        dtf explain scaling -5m
    """
    if words[0] == SCALING and len(words) <= 2:
        explain_scaling(invocation, "".join(words[1:]), source, as_json=as_json)
        return
    kind, name = _subject(words)

    async def tell(opened: LogSource) -> _Story:
        head = await opened.head()
        fold = await fold_to(opened, await nearest_fold(opened, head.last_sequence), head.last_sequence)
        return await _tell(opened, fold, kind, name, run_id)

    story = with_log_source(invocation, source, namespace, tell)
    click.echo(json.dumps(_document(story)) if as_json else "\n".join(_text(story)))


def _subject(words: tuple[str, ...]) -> tuple[str, str]:
    if len(words) == 2 and words[0] in _KINDS:
        return words[0], words[1]
    if len(words) != 1:
        raise CommandError(
            f"{' '.join(words)!r} names no one thing",
            f"one name, or one of {', '.join(_KINDS)} and a name",
            exit_code=ExitCode.USAGE,
        )
    return "", words[0]


async def _tell(source: LogSource, fold: Fold, kind: str, name: str, run_id: str) -> _Story:
    state = fold.state
    spans = list(all_spans(state))
    if run_id:
        span = find_span(state, run_id)
        spans = [span] if span is not None else []
        if not spans:
            raise _unknown("run", run_id, state)
    if kind in ("", "run"):
        found = find_span(state, name)
        if found is not None:
            return await _run_story(source, state, found)
    if kind == "worker" or (not kind and name in state.workers):
        return await _worker_story(source, state, name)
    for is_case in {"": (False, True), "task": (False,), "case": (True,)}.get(kind, ()):
        place = await find_place(source, state, name, spans, is_case=is_case)
        if place is not None:
            return await _task_story(source, state, place)
    raise _unknown(kind or "run, worker, task or case", name, state)


def _unknown(kind: str, name: str, state: State) -> CommandError:
    runs = ", ".join(span.run_id for span in list(all_spans(state))[-8:]) or "none"
    workers = ", ".join(list(state.workers)[-8:]) or "none"
    advice = [f"the newest runs: {runs}", f"the newest workers: {workers}"]
    if len(list(all_spans(state))) > SEARCHED_RUNS:
        advice.append(
            f"tasks and cases were looked for in the newest {SEARCHED_RUNS} runs; --run names another"
        )
    return CommandError(f"the log knows no {kind} {name!r}", *advice)


async def _read(source: LogSource, span: RunSpan, teller: Teller) -> None:
    with progress(span.last_sequence - span.first_sequence + 1, "reading the run") as bar:
        async for message in messages_about(source, span):
            commit = parse_commit(message.payload, message.message_id)
            if commit is not None:
                teller.take(message.sequence, commit)
            bar.advance(1)


async def _run_story(source: LogSource, state: State, span: RunSpan) -> _Story:
    story = RunStory(span.run_id)
    await _read(source, span, story)
    story.lines += _confirmations(state, span.run_id)
    now = "" if span.is_over else "now: it goes on"
    hints = [f"`dtf state --at {span.last_sequence} --run {span.run_id}` shows it at its end"]
    return _Story(f"run {span.run_id}", "run", story.lines, now, hints if span.is_over else [])


def _confirmations(state: State, run_id: str) -> Iterator[StoryLine]:
    """The runs that repeat a part of this one; they begin when it is over, as a rule."""
    for run in map(message_of, newest_first(state)):
        if run.confirmation.run_id == run_id:
            what = f"finding {run.confirmation.finding_id} ({run.confirmation.number})"
            text = f"run {run.run_id} repeats a part of it to confirm {what}; its verdicts are its own"
            yield StoryLine(run.first_sequence, round(run.created_at * 1e9), text)


async def _task_story(source: LogSource, state: State, place: Place) -> _Story:
    run, task = place.run, place.task
    names = run.cases_named(task)
    story = TaskStory(run.run_id, task, place.case, names)
    await _read(source, place.span, story)
    if place.case is None:
        kind, subject = "task", f"task {run.run_id}/{task} {run.names[task]}"
    else:
        kind, subject = "case", f"case {names[place.case]} (task {run.run_id}/{task})"
    now = why_now(state, run, task) if run.run_id in state.runs else ""
    return _Story(subject, kind, story.lines, now, [f"`dtf logs {run.run_id} --task {task}` has its output"])


async def _worker_story(source: LogSource, state: State, worker_id: str) -> _Story:
    head = await source.head()
    story = WorkerStory(worker_id)
    with progress(head.last_sequence - head.first_sequence + 1, "reading the log") as bar:
        async for batch in source.read(head.first_sequence - 1):
            for message in batch:
                commit = parse_commit(message.payload, message.message_id)
                if commit is not None:
                    story.take(message.sequence, commit)
            bar.advance(len(batch))
    story.finish()
    if not story.lines:
        raise _unknown("worker", worker_id, state)
    known = state.workers.get(worker_id)
    now = ""
    if known is not None and known.is_present:
        word = "takes work" if known.takes_work else "takes nothing new"
        now = f"now: present, {word}, holds {known.lease_count} leases, {known.completed_count} cases done"
    return _Story(f"worker {worker_id}", "worker", story.lines, now)


def _in_order(lines: list[StoryLine]) -> list[StoryLine]:
    return sorted(lines, key=lambda line: (line.at_ns, line.sequence))


def _document(story: _Story) -> dict[str, object]:
    return {
        "subject": story.subject,
        "kind": story.kind,
        "lines": [
            {
                "sequence": line.sequence,
                "at": format_time(line.at_ns),
                "now_unix_nanos": line.at_ns,
                "text": line.text,
            }
            for line in _in_order(story.lines)
        ],
        "now": story.now,
    }


def _text(story: _Story) -> list[str]:
    lines = _in_order(story.lines)
    if not lines:
        return [plain_line(f"{story.subject}: the log tells nothing of it"), *story.hints]
    begin = lines[0].at_ns
    width = len(str(lines[-1].sequence))
    told = [plain_line(f"{story.subject}, from {format_time(begin)}")]
    told.extend(
        f"{(line.at_ns - begin) / 1e9:+10.3f} s  seq {line.sequence:>{width}}  {plain_line(line.text)}"
        for line in lines
    )
    told.extend([plain_line(story.now)] if story.now else [])
    return [*told, *story.hints]

"""`dtf fork`: continue a recorded log in virtual time, with a fault, and compare."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

import click

from dtf.adapters.stream_file import StreamFileHeader, writing
from dtf.cli.errors import CommandError
from dtf.cli.exit_codes import ExitCode
from dtf.cli.invocation import Invocation
from dtf.cli.log_source import LogSource, source_options, with_log_source
from dtf.coordinator.commits import headers_of
from dtf.coordinator.inputs import arguments
from dtf.core.chain import ChainReader
from dtf.core.check.checker import HistoryChecker
from dtf.core.check.report import CheckReport
from dtf.core.run.rederive import NotDerivable
from dtf.core.simulation.compare import LogAccount, RunAccount, account_of, differences
from dtf.core.simulation.faults import KINDS, Fault, FaultError, parse
from dtf.core.simulation.fork import Forked, Options, fork
from dtf.core.simulation.recording import Recorded, Recording
from dtf.ports.event_log import StoredCommit
from dtf.report.output import plain_line
from dtf.settings.code_version import code_version


def _read_faults(_ctx: click.Context, _parameter: click.Parameter, texts: Sequence[str]) -> list[Fault]:
    try:
        return [parse(text) for text in texts]
    except FaultError as error:
        raise click.BadParameter(f"{error}; `dtf fork --list` says what each does") from error


def _list_faults(ctx: click.Context, _parameter: click.Parameter, is_asked: bool) -> None:
    if is_asked:
        for name, kind in KINDS.items():
            click.echo(f"{name + kind.arguments:<40} {kind.says}")
        click.echo("\nWORKER is the one with the most leases unless said; KIND@SECONDS strikes later.")
        ctx.exit()


@click.command()
@source_options
@click.option(
    "--at", type=click.IntRange(min=1), required=True, metavar="SEQ", help="Fork after this sequence."
)
@click.option(
    "--fault",
    "faults",
    multiple=True,
    callback=_read_faults,
    metavar="KIND[:ARGS][@SECONDS]",
    help="What goes wrong; repeatable.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Decides everything that is random.")
@click.option(
    "--export",
    "target",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write the forked log, for `dtf check`, `dtf replay` and the others.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.option(
    "--list", is_flag=True, is_eager=True, expose_value=False, callback=_list_faults, help="List the faults."
)
@click.pass_obj
def command(
    invocation: Invocation,
    source: Path | None,
    namespace: str | None,
    at: int,
    faults: list[Fault],
    seed: int,
    target: Path | None,
    as_json: bool,
) -> int:
    """Continue a recorded log in virtual time, with a fault, and compare with what was recorded.

    The coordinator's rules are the real ones; workers, time and the log are simulated. Cases take as
    long, and end, as they did in the recording. The same seed gives the same bytes. Exit code 1 if
    the forked log breaks a property of `dtf check`, or a run does not end.

    \b
    Example:
        dtf fork --at 23 --fault worker-lost
        dtf fork --at 23 --fault slow-worker:x5 --fault coordinator-restart@2 --from log.dtfstream
    """

    async def read(opened: LogSource) -> tuple[Recording, list[StoredCommit]]:
        head = await opened.head()
        if head.first_sequence > 1 or at > head.last_sequence:
            raise CommandError(
                f"{opened.name} holds messages {head.first_sequence} to {head.last_sequence}; "
                f"it cannot be forked at {at}",
                "a fork needs the log from its first message",
                exit_code=ExitCode.USAGE,
            )
        chain, commits, strangers = ChainReader(), [], []
        async for batch in opened.read(0, head.last_sequence):
            for stored in batch:
                commit = chain.accept(stored.sequence, stored.payload, stored.message_id)
                if commit is None:
                    strangers.append(stored)
                else:
                    commits.append(Recorded(stored.sequence, stored.payload, stored.message_id, commit))
        return Recording(commits), strangers

    recording, strangers = with_log_source(invocation, source, namespace, read)
    options = Options(seed=seed, code_version=code_version())
    try:
        plain = fork(recording, at, (), arguments, options)
        forked = fork(recording, at, faults, arguments, options) if faults else plain
    except (FaultError, NotDerivable) as error:
        raise CommandError(str(error), exit_code=ExitCode.USAGE) from error
    outcome = _Outcome(recording, plain, forked, [fault.text for fault in faults], seed, strangers)
    if target is not None:
        outcome.export(target, namespace or "fork")
    if as_json:
        click.echo(json.dumps(outcome.as_dict(), ensure_ascii=False))
    else:
        click.echo("\n".join(outcome.lines()))
    return ExitCode.OK if outcome.is_good else ExitCode.FAILED


class _Outcome:
    """A fork, told beside the recording and beside what the simulation makes of it without a fault."""

    def __init__(
        self,
        recording: Recording,
        plain: Forked,
        forked: Forked,
        faults: Sequence[str],
        seed: int,
        strangers: Sequence[StoredCommit],
    ) -> None:
        self._forked = forked
        self._faults = faults
        self._seed = seed
        self._strangers = [each for each in strangers if each.sequence <= forked.forked_at]
        self._report = self._check()
        self._accounts = {
            "recorded": account_of(recording.commits),
            "fork": account_of(plain.commits),
            "with fault": account_of(forked.commits),
        }
        if not faults:
            del self._accounts["with fault"]
        last = list(self._accounts.values())[-1]
        self._differences, self._difference_count = differences(self._accounts["recorded"], last)

    @property
    def is_good(self) -> bool:
        """Whether the forked log is clean and its runs ended."""
        return self._report.is_clean and self._forked.is_over

    def _messages(self) -> list[StoredCommit]:
        """The forked log as a stream would hold it."""
        commits = [
            StoredCommit(each.sequence, each.payload, each.message_id, headers_of(list(each.commit.events)))
            for each in self._forked.commits
        ]
        return sorted([*self._strangers, *commits], key=lambda message: message.sequence)

    def _check(self) -> CheckReport:
        checker = HistoryChecker()
        for message in self._messages():
            checker.take(message.sequence, message.payload, message.message_id)
        return checker.finish()

    def export(self, target: Path, namespace: str) -> None:
        """Write the forked log."""
        header = StreamFileHeader("events", namespace, code_version(), self._forked.end_ns)
        with writing(target, header) as writer:
            for message in self._messages():
                writer.write(message)

    def as_dict(self) -> dict[str, object]:
        """In plain data."""
        return {
            "forked_at": self._forked.forked_at,
            "faults": list(self._faults),
            "missed": list(self._forked.missed),
            "seed": self._seed,
            "last_message_id": self._forked.commits[-1].message_id,
            "ended": self._forked.is_over,
            "logs": {name: _account_as_dict(account) for name, account in self._accounts.items()},
            "different_verdicts": self._difference_count,
            "differences": [asdict(each) for each in self._differences],
            "check": self._report.as_dict(),
        }

    def lines(self) -> Iterator[str]:
        """As a table a run."""
        faults = ", ".join(self._faults) or "no fault"
        yield f"forked after sequence {self._forked.forked_at}: {faults}; seed {self._seed}"
        for missed in self._forked.missed:
            yield f"struck nothing: {plain_line(missed)}"
        for run_id, run in self._accounts["recorded"].runs.items():
            yield ""
            yield f"{f'run {run_id} ({plain_line(run.suite)})':<28}" + "".join(
                f"{name:>14}" for name in self._accounts
            )
            yield from _run_lines([account.runs.get(run_id) for account in self._accounts.values()])
        yield ""
        yield _row("workers lost", [str(account.workers_lost) for account in self._accounts.values()])
        yield _row("results refused", [str(account.refused) for account in self._accounts.values()])
        yield _row("reigns", [str(account.reigns) for account in self._accounts.values()])
        yield ""
        yield f"verdicts that differ from the recording: {self._difference_count}"
        for each in self._differences:
            yield f"  {plain_line(each.case)}: {each.recorded} became {each.forked}"
        if not self._forked.is_over:
            yield "the fork was given up: a run does not end"
        yield f"the forked log: {len(self._forked.commits)} commits, " + (
            "clean" if self._report.is_clean else "NOT clean"
        )
        for violation in self._report.violations:
            yield f"  {violation.property.title}, message {violation.sequence}: {plain_line(violation.what)}"


def _account_as_dict(account: LogAccount) -> dict[str, object]:
    return {
        "runs": {run_id: run.as_dict() for run_id, run in account.runs.items()},
        "results_refused": account.refused,
        "workers_lost": account.workers_lost,
        "reigns": account.reigns,
    }


def _run_lines(runs: Sequence[RunAccount | None]) -> Iterator[str]:
    def row(title: str, tell: Callable[[RunAccount], str]) -> str:
        return _row(title, [tell(run) if run is not None else "-" for run in runs])

    yield row("makespan", lambda run: _seconds(run.makespan_seconds))
    yield row("attempts", lambda run: str(run.attempts))
    yield row("lost or crashed", lambda run: str(run.lost_or_crashed))
    yield row("time of accepted results", lambda run: _seconds(run.busy_seconds))
    yield row("time wasted", lambda run: _seconds(run.wasted_seconds))
    for verdict in sorted({name for run in runs if run is not None for name in run.counts}):
        yield row(verdict, partial(_count, verdict))
    yield row("unjudged", lambda run: str(sum(map(len, run.names)) - len(run.verdicts)))


def _count(verdict: str, run: RunAccount) -> str:
    return str(run.counts.get(verdict, 0))


def _row(title: str, values: Sequence[str]) -> str:
    return f"  {title:<26}" + "".join(f"{value:>14}" for value in values)


def _seconds(seconds: float | None) -> str:
    return "not ended" if seconds is None else f"{seconds:.2f} s"

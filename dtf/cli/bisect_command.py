"""`dtf bisect`: the first commit after which a named invariant no longer holds."""

import importlib
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import click

from dtf.adapters.event_lines import ListedEvent, format_time
from dtf.cli.bisection import WINDOWS, Bisection, Breach, Check
from dtf.cli.errors import CommandError
from dtf.cli.exit_codes import ExitCode
from dtf.cli.invocation import Invocation
from dtf.cli.log_fold import earliest_fold, progress
from dtf.cli.log_source import LogSource, source_options, with_log_source
from dtf.core.run.invariants import INVARIANTS, WISHES, check
from dtf.core.run.portrait import differences
from dtf.core.run.state import State
from dtf.report.output import plain_line

_SHOWN_CHANGES = 30
_ALL = "all"


@click.command()
@click.argument("invariant", required=False)
@source_options
@click.option("--to-seq", "until", type=click.IntRange(min=1), metavar="N", help="Look up to this sequence.")
@click.option(
    "--every-commit", is_flag=True, help="Check after each commit: slow, and finds what heals again too."
)
@click.option("--list", "lists", is_flag=True, help="Show the invariants there are.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.pass_obj
def command(
    invocation: Invocation,
    invariant: str | None,
    source: Path | None,
    namespace: str | None,
    until: int | None,
    every_commit: bool,
    lists: bool,
    as_json: bool,
) -> ExitCode:
    """Find the first commit after which INVARIANT no longer holds.

    INVARIANT is a name of `dtf bisect --list`, "all" for everything that must hold of every state, or
    module:function of your own: it is given the state (dtf.core.run.state.State) and returns a list of
    what does not hold. Exits with 1 if a commit breaks it, with 0 if none does.

    \b
    Example:
        dtf bisect all
        dtf bisect no-failed-case --from log.dtfstream
        dtf bisect checks:queue_below_100
    """
    if lists or invariant is None:
        click.echo("\n".join(_listing(as_json)))
        if invariant is None and not lists:
            raise CommandError("name an invariant", exit_code=ExitCode.USAGE)
        return ExitCode.OK
    wanted = find_check(invariant, invocation.project_dir)

    async def search(opened: LogSource) -> tuple[Breach | None, int, int]:
        end = (await opened.head()).last_sequence
        end = end if until is None else min(until, end)
        fold = await earliest_fold(opened)
        begin = fold.chain.sequence
        found = wanted(fold.state)
        if found:
            raise CommandError(
                f"it does not hold of the earliest state there is, at sequence {begin}",
                *found[:_SHOWN_CHANGES],
            )
        with progress(end - begin, "searching") as bar:
            bisection = Bisection(opened.read, wanted, bar.advance)
            breach = await bisection.first_breach(
                fold.state, fold.chain, end, windows=0 if every_commit else WINDOWS
            )
        return breach, bisection.checks, end

    breach, checks, end = with_log_source(invocation, source, namespace, search)
    if as_json:
        click.echo(json.dumps(_document(invariant, breach, checks, end)))
    else:
        click.echo("\n".join(_text(invariant, breach, checks, end)))
    return ExitCode.OK if breach is None else ExitCode.FAILED


def find_check(name: str, project_dir: Path) -> Check:
    """The check of this name, or the user's own. Raises CommandError."""
    if name == _ALL:
        return check
    known = INVARIANTS.get(name) or WISHES.get(name)
    if known is not None:
        find = known.find
        return lambda state: list(find(state))
    module_name, separator, function_name = name.partition(":")
    if not separator:
        raise CommandError(
            f"no invariant {name!r}",
            f"there are {', '.join([_ALL, *INVARIANTS, *WISHES])}; or module:function of your own",
            exit_code=ExitCode.USAGE,
        )
    return _own_check(module_name, function_name, project_dir)


def _own_check(module_name: str, function_name: str, project_dir: Path) -> Check:
    sys.path.insert(0, str(project_dir))
    try:
        function = getattr(importlib.import_module(module_name), function_name)
    except (ImportError, AttributeError) as error:
        raise CommandError(
            f"{module_name}:{function_name} cannot be had: {error}",
            f"modules are looked for in {project_dir}",
            exit_code=ExitCode.USAGE,
        ) from error
    finally:
        sys.path.remove(str(project_dir))

    def run(state: State) -> Sequence[str]:
        found = function(state)
        if isinstance(found, str) or not isinstance(found, Iterable):
            raise CommandError(
                f"{module_name}:{function_name} returned {type(found).__name__}, expected a list of texts",
                exit_code=ExitCode.USAGE,
            )
        return [str(fault) for fault in found]

    return run


def _listing(as_json: bool) -> list[str]:
    groups = (("must hold of every state", INVARIANTS), ("hold of a good day", WISHES))
    if as_json:
        return [
            json.dumps({"name": item.name, "description": item.description, "group": title})
            for title, group in groups
            for item in group.values()
        ]
    lines: list[str] = []
    for title, group in groups:
        lines.append(f"{title}:")
        lines.extend(f"  {item.name:<22}  {item.description}" for item in group.values())
    return lines


def _document(invariant: str, breach: Breach | None, checks: int, end: int) -> dict[str, object]:
    document: dict[str, object] = {
        "invariant": invariant,
        "until": end,
        "checks": checks,
        "holds": breach is None,
    }
    if breach is not None:
        document |= {
            "sequence": breach.sequence,
            "at": format_time(breach.commit.now_unix_nanos),
            "epoch": breach.commit.epoch,
            "code_version": breach.commit.code_version,
            "commands": [source.kind for source in breach.commit.inputs],
            "faults": list(breach.faults),
            "events": [listed.as_dict() for listed in _events(breach)],
            "changes": [
                {"path": path, "before": before, "after": after}
                for path, before, after in differences(breach.before, breach.after)
            ],
        }
    return document


def _text(invariant: str, breach: Breach | None, checks: int, end: int) -> list[str]:
    if breach is None:
        return [f"{invariant} holds up to sequence {end:,} ({checks:,} states checked)"]
    commit = breach.commit
    lines = [
        f"{invariant} is broken by commit {breach.sequence:,} ({checks:,} states checked)",
        f"  {format_time(commit.now_unix_nanos)}  epoch {commit.epoch}  dtf {plain_line(commit.code_version)}  "
        f"{', '.join(plain_line(source.kind) for source in commit.inputs)}",
    ]
    lines.extend(f"  broken   {plain_line(fault)}" for fault in breach.faults[:_SHOWN_CHANGES])
    lines.extend(f"  event  {plain_line(listed.as_text(200))}" for listed in _events(breach))
    changes = list(differences(breach.before, breach.after))
    lines.extend(
        f"  changed  {plain_line(f'{path}: {_value(before)} → {_value(after)}')}"
        for path, before, after in changes[:_SHOWN_CHANGES]
    )
    if len(changes) > _SHOWN_CHANGES:
        lines.append(f"  … {len(changes) - _SHOWN_CHANGES} more changes (--json has them all)")
    before = breach.sequence - 1
    return [*lines, f"  `dtf state --at {before}` and `--at {breach.sequence}` show the whole of both"]


def _value(value: object) -> str:
    return "nothing" if value is None else json.dumps(value, ensure_ascii=False)


def _events(breach: Breach) -> list[ListedEvent]:
    at = breach.commit.now_unix_nanos
    return [ListedEvent(breach.sequence, at, event) for event in breach.commit.events]

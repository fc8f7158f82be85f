"""`dtf run`: run a suite and wait. pytest by default; commands, one command or a function by option."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TextIO

import click

from dtf.cli.errors import CommandError
from dtf.cli.exit_codes import ExitCode
from dtf.cli.invocation import Invocation
from dtf.settings.loader import LoadedSettings


def _pairs(ctx: click.Context, parameter: click.Parameter, values: Sequence[str]) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for value in values:
        key, separator, text = value.partition("=")
        if not separator and parameter.name == "environment" and key in os.environ:
            text = os.environ[key]
        elif not separator or not key:
            raise click.BadParameter(f"{value!r} is not KEY=VALUE")
        pairs[key] = text
    return pairs


@dataclass(frozen=True, slots=True)
class RunOptions:
    """The options of `dtf run`."""

    each_file: TextIO | None
    is_exec: bool
    function: str | None
    suite: str | None
    workers: int | None
    retries: int | None
    timeout_seconds: float | None
    wait_seconds: float
    priority: int
    requirements: dict[str, str]
    environment: dict[str, str]
    labels: dict[str, str]
    workspace: str | None
    junit_xml: str
    benchmark_json: str
    benchmark_format: str
    as_json: bool
    words: tuple[str, ...]

    def load(self, invocation: Invocation) -> LoadedSettings:
        """The settings with these options on top."""
        return invocation.load(
            run__suite=self.suite,
            run__test_retries=self.retries,
            run__timeout_seconds=self.timeout_seconds,
            run__workspace=self.workspace,
            pool__min_workers=self.workers,
            pool__max_workers=self.workers,
        )


@click.command(context_settings={"ignore_unknown_options": True})
@click.option(
    "--each",
    "each_file",
    type=click.File("r"),
    metavar="FILE",
    help="Run each line of FILE (- for standard input) as a command.",
)
@click.option("--exec", "is_exec", is_flag=True, help="Run ARGS as one command.")
@click.option(
    "--callable",
    "function",
    metavar="MODULE:FUNCTION",
    help="Call a function; with --each, once for each line of JSON arguments.",
)
@click.option("--suite", help="Name of the suite; the project's directory unless given.")
@click.option(
    "--workers", type=click.IntRange(min=1), metavar="N", help="Have N workers, where this starts the stack."
)
@click.option(
    "--retries",
    type=click.IntRange(min=0),
    metavar="N",
    help="Tries more for a case that failed; a pass makes it flaky.",
)
@click.option(
    "--timeout", "timeout_seconds", type=float, metavar="SECONDS", help="Longest time of one case or command."
)
@click.option(
    "--wait",
    "wait_seconds",
    type=float,
    default=300.0,
    show_default=True,
    metavar="SECONDS",
    help="Longest wait for a worker that can run a task; 0: for ever.",
)
@click.option("--priority", type=int, default=0, help="Higher runs earlier.")
@click.option(
    "--require",
    "requirements",
    multiple=True,
    callback=_pairs,
    metavar="KEY=VALUE",
    help="What a worker must have: cpus, memory_bytes, gpus, pool or a label.",
)
@click.option(
    "--env",
    "environment",
    multiple=True,
    callback=_pairs,
    metavar="NAME[=VALUE]",
    help="Environment variable of the commands.",
)
@click.option(
    "--label",
    "labels",
    multiple=True,
    callback=_pairs,
    metavar="KEY=VALUE",
    help="Label of the run, for the record.",
)
@click.option(
    "--workspace",
    type=click.Choice(("auto", "pack", "shared", "image", "tree")),
    help="How workers get the code: pack: the working tree travels; shared and image: they have it; tree: in "
    "place; auto: pack where they may be elsewhere.",
)
@click.option(
    "--junit", "junit_xml", default="", metavar="FILE", help="JUnit XML that the --exec command writes."
)
@click.option(
    "--benchmark-json", default="", metavar="FILE", help="Benchmark results that the --exec command writes."
)
@click.option(
    "--benchmark-format",
    default="",
    type=click.Choice(["", "pytest-benchmark", "google-benchmark", "hyperfine"]),
    help="Format of --benchmark-json.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="[--] [ARGS]...")
@click.pass_obj
def command(invocation: Invocation, /, **options: Any) -> int:
    """Run a suite and wait for its end.

    \b
    Example:
        dtf run tests/ -k parse                    pytest over the pool
        dtf run --each commands.txt                one command a line
        dtf run --exec --junit out.xml -- ctest --output-junit out.xml
        dtf run --callable bench.cases:parse --each sizes.jsonl

    Exit codes: 0 all passed, 1 some failed, 2 cancelled, 5 nothing to run (`dtf --help` has all).
    """
    asked = RunOptions(**options)
    if sum((asked.is_exec, bool(asked.function), bool(asked.each_file) and not asked.function)) > 1:
        raise CommandError(
            "--exec, --callable and --each say different things to run",
            "--each goes with --callable, where its lines are arguments, or alone, where they are commands",
            exit_code=ExitCode.USAGE,
        )
    if asked.is_exec or asked.function or asked.each_file:
        from dtf.cli.run_work import run_work

        return run_work(invocation, asked)
    from dtf.cli.run_pytest import run_pytest

    return run_pytest(invocation, asked)

"""`dtf run --each`, `--exec` and `--callable`: from options to an exit code."""

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path

from dtf.adapters.system_clock import SystemClock
from dtf.api.v1 import run_service_pb2
from dtf.cli.errors import CommandError
from dtf.cli.exit_codes import ExitCode
from dtf.cli.invocation import Invocation
from dtf.cli.progress_display import ProgressDisplay, standard_stream
from dtf.cli.run_command import RunOptions
from dtf.cli.run_follow import Showing, StackLost, drive_run
from dtf.cli.run_result import exit_code_of, show_result
from dtf.cli.run_tasks import (
    Work,
    WorkOptions,
    callable_work,
    command_work,
    commands_work,
    read_lines,
)
from dtf.cli.workspace import attach_workspace
from dtf.client.stack import join_stack
from dtf.settings.loader import LoadedSettings
from dtf.settings.project import revision_of


def run_work(invocation: Invocation, asked: RunOptions) -> int:
    """Run what the options describe and return the exit code. Raises CommandError."""
    loaded = asked.load(invocation)
    work = describe_work(asked, loaded)
    if not work.tasks:
        raise CommandError(
            "there is nothing to run", "every line is blank or a comment", exit_code=ExitCode.EMPTY
        )
    request = _request(asked, loaded, work)
    lost = StackLost()
    say = progress_line(is_quiet=asked.as_json)
    with join_stack(
        loaded.project_dir, loaded.settings, on_progress=say, on_note=say, on_lost=lost.report
    ) as membership:
        attach_workspace(request.templates[0], loaded, membership.addresses, say)
        showing = _showing(asked)
        ended = asyncio.run(drive_run(request, work, membership, lost, showing, loaded.project_dir))
    show_result(ended.run, ended.progress, ended.report, as_json=asked.as_json)
    return exit_code_of(ended.run)


def describe_work(asked: RunOptions, loaded: LoadedSettings) -> Work:
    """The tasks that the options describe. Raises CommandError."""
    run = loaded.settings.run
    options = WorkOptions(
        working_dir=str(Path.cwd()),
        environment=asked.environment,
        requirements=asked.requirements,
        timeout_seconds=run.timeout_seconds,
        test_retries=run.test_retries,
        infrastructure_retries=run.infrastructure_retries,
    )
    lines = read_lines(asked.each_file) if asked.each_file is not None else None
    if asked.function:
        return callable_work(asked.function, lines, options, [str(Path.cwd())])
    if lines is not None:
        if asked.words:
            raise CommandError(
                f"--each takes its commands from its file; {asked.words[0]!r} is one too many",
                exit_code=ExitCode.USAGE,
            )
        return commands_work(lines, options)
    if not asked.words:
        raise CommandError("--exec needs a command", "dtf run --exec -- ctest", exit_code=ExitCode.USAGE)
    return command_work(
        asked.words,
        options,
        junit_xml=asked.junit_xml,
        benchmark_json=asked.benchmark_json,
        benchmark_format=asked.benchmark_format,
    )


def _request(asked: RunOptions, loaded: LoadedSettings, work: Work) -> run_service_pb2.CreateRunRequest:
    return run_service_pb2.CreateRunRequest(
        suite=loaded.settings.run.suite or loaded.project_dir.name or "suite",
        revision=revision_of(Path.cwd()),
        priority=asked.priority,
        templates=[work.template],
        labels={**loaded.settings.run.labels, **asked.labels},
        placement_timeout_seconds=asked.wait_seconds,
    )


def _showing(asked: RunOptions) -> Showing:
    relays_output = asked.is_exec and not asked.as_json
    stream = standard_stream(is_quiet=asked.as_json)

    def make_display(run_id: str, suite: str) -> ProgressDisplay:
        return ProgressDisplay(run_id, suite, stream, SystemClock(), as_lines=relays_output)

    return Showing(make_display, relays_output)


def progress_line(*, is_quiet: bool) -> Callable[[str], None]:
    """What tells how the stack comes up, and what becomes of its parts."""

    def say(text: str) -> None:
        if not is_quiet:
            sys.stderr.write(f"dtf: {text}\n")
            sys.stderr.flush()

    return say

"""The `dtf` command: a table of subcommands, each imported only when it is used.

`dtf --help` imports neither gRPC nor NATS. A command lives in `dtf/cli/<name>_command.py` as a click
command named `command`; it takes an `Invocation` by `@click.pass_obj` and raises `CommandError`.
"""

import difflib
import importlib
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import click

from dtf.cli.errors import CommandError, explain, print_error
from dtf.cli.exit_codes import ExitCode
from dtf.cli.invocation import make_invocation


class Entry(NamedTuple):
    """Where a command lives and what it does, in a line."""

    module: str
    summary: str


COMMANDS: Mapping[str, Entry] = {
    "run": Entry("dtf.cli.run_command", "Run a suite and wait."),
    "up": Entry("dtf.cli.up_command", "Start this project's stack and keep it running."),
    "down": Entry("dtf.cli.down_command", "Stop this project's stack."),
    "status": Entry("dtf.cli.status_command", "What runs here, and where it listens."),
    "runs": Entry("dtf.cli.runs_command", "List runs; `runs show ID`."),
    "workers": Entry("dtf.cli.workers_command", "List workers; `workers drain|quarantine|release ID`."),
    "pools": Entry("dtf.cli.pools_command", "List pools; `pools scale|pause|resume NAME`."),
    "token": Entry("dtf.cli.token_command", "Join tokens, for workers elsewhere; `token create|revoke`."),
    "certificates": Entry(
        "dtf.cli.certificates_command", "Certificates of this project's servers; `rotate`."
    ),
    "cancel": Entry("dtf.cli.cancel_command", "Stop a run."),
    "logs": Entry("dtf.cli.logs_command", "Output of a run, task or case."),
    "events": Entry("dtf.cli.events_command", "Follow, export or import the event log."),
    "replay": Entry("dtf.cli.replay_command", "Prove a log: its chain, its state, every decision."),
    "state": Entry("dtf.cli.state_command", "What was true at a sequence or a time."),
    "bisect": Entry("dtf.cli.bisect_command", "Find the first commit that breaks an invariant."),
    "explain": Entry(
        "dtf.cli.explain_command", "The story of a run, task, case, worker or scale action, with causes."
    ),
    "check": Entry("dtf.cli.check_command", "Hold a log against what every history must have."),
    "fork": Entry("dtf.cli.fork_command", "Continue a recorded log in virtual time, with a fault."),
    "capsule": Entry("dtf.cli.capsule_command", "A run in one file, to be replayed on another machine."),
    "log": Entry("dtf.cli.log_command", "Status, snapshots, repair and archive of the event log."),
    "scaling": Entry(
        "dtf.cli.scaling_command", "Replay demand against scaling policies: `scaling backtest`."
    ),
    "store": Entry("dtf.cli.store_command", "InfluxDB as metric store: `store setup|status|rejected`."),
    "grafana": Entry("dtf.cli.grafana_command", "Grafana's dashboards: `grafana export DIR`."),
    "report": Entry("dtf.cli.report_command", "What happened in a run, as page or text."),
    "trends": Entry(
        "dtf.cli.trends_command", "What became slower or faster; `trends accept|reject|mute ID`."
    ),
    "gate": Entry(
        "dtf.cli.gate_command", "Exit non-zero on a regression, and say what it would take to pass."
    ),
    "doctor": Entry("dtf.cli.doctor_command", "Check this machine and say what to mend."),
    "config": Entry("dtf.cli.config_command", "Show each setting, its value and where it came from."),
    "demo": Entry("dtf.cli.demo_command", "Run the example suite and watch the pool."),
    "coordinator": Entry("dtf.cli.coordinator_command", "Serve as coordinator."),
    "worker": Entry("dtf.cli.worker_command", "Serve as worker."),
    "resource-manager": Entry("dtf.cli.resource_manager_command", "Serve as resource manager."),
    "trend-analyzer": Entry("dtf.cli.trend_analyzer_command", "Serve as trend analyzer."),
}

PROCESSES = ("coordinator", "worker", "resource-manager", "trend-analyzer")
"""Commands that serve until they are told to stop; listed apart in the help."""


class _ReaderGone(Exception):
    """Whoever read our output went away. click makes exit code 1 of a BrokenPipeError; this passes it by."""


class CommandTable(click.Group):
    """Commands by name, imported when they are asked for."""

    def invoke(self, ctx: click.Context) -> object:
        """Run the command; a closed pipe at the end of our output is told apart from a failure."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            raise _ReaderGone from error

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """The same for what is printed before there is a command: the help, the version."""
        try:
            return super().parse_args(ctx, args)
        except BrokenPipeError as error:
            raise _ReaderGone from error

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names, in the order of the help."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, imported now; None if there is none of that name."""
        entry = COMMANDS.get(cmd_name)
        if entry is None:
            return None
        command: Any = importlib.import_module(entry.module).command
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command named first in `args`; a usage error names the nearest one."""
        name = args[0]
        if name not in COMMANDS:
            near = difflib.get_close_matches(name, COMMANDS, n=1, cutoff=0.5)
            hint = f"did you mean `dtf {near[0]}`? " if near else ""
            raise CommandError(
                f"no command {name!r}", f"{hint}`dtf --help` lists them", exit_code=ExitCode.USAGE
            )
        return name, self.get_command(ctx, name), args[1:]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The help's lists, from the table alone."""
        people = [(name, entry.summary) for name, entry in COMMANDS.items() if name not in PROCESSES]
        with formatter.section("Commands"):
            formatter.write_dl(people)
        with formatter.section("Processes, as they are deployed"):
            formatter.write_dl([(name, COMMANDS[name].summary) for name in PROCESSES])


def _assignments(ctx: click.Context, parameter: click.Parameter, values: Sequence[str]) -> dict[str, str]:
    assignments: dict[str, str] = {}
    for value in values:
        path, separator, text = value.partition("=")
        if not separator:
            raise click.BadParameter(f"{value!r} is not table.name=value, as pool.max_workers=4")
        assignments[path.strip()] = text
    return assignments


@click.command(
    cls=CommandTable,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 done, 1 failed, 2 cancelled, 3 fault of dtf, 4 usage or settings, "
    "5 nothing to run, 6 nothing reachable, 8 doctor found something, "
    "9 the log lost what it had acknowledged, 10 a regression beyond the limits (gate), 11 too little history to say so (gate).",
)
@click.option(
    "--project", type=click.Path(path_type=Path, file_okay=False, exists=True), help="Project directory."
)
@click.option("--settings", "settings_file", type=click.Path(path_type=Path), hidden=True)
@click.option(
    "--set",
    "assignments",
    multiple=True,
    callback=_assignments,
    metavar="TABLE.NAME=VALUE",
    help="Override a setting.",
)
@click.option("--namespace", help="Namespace to work in, if not the settings' (coordinator.namespace).")
@click.version_option(package_name="dtf", message="dtf %(version)s")
@click.pass_context
def cli(
    ctx: click.Context,
    project: Path | None,
    settings_file: Path | None,
    assignments: dict[str, str],
    namespace: str | None,
) -> None:
    """Run test and benchmark suites over an elastic pool of workers.

    \b
    Example:
        dtf run tests/                 pytest over the pool; starts the stack if none runs
        dtf run --each commands.txt    one command a line
    """
    if namespace is not None:
        assignments = {**assignments, "coordinator.namespace": namespace}
    ctx.obj = make_invocation(project, settings_file, assignments)


def run_cli(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; errors are printed."""
    try:
        outcome = cli.main(args=arguments, prog_name="dtf", standalone_mode=False)
    except click.UsageError as error:
        usage = error.ctx.command_path if error.ctx else "dtf"
        print_error(CommandError(error.format_message(), f"`{usage} --help` shows an example"))
        return ExitCode.USAGE
    except (click.Abort, KeyboardInterrupt):
        return ExitCode.CANCELLED
    except (_ReaderGone, BrokenPipeError):
        return _close_standard_output()
    except Exception as error:
        known = explain(error)
        if known is None:
            raise
        print_error(known)
        return known.exit_code
    return int(outcome) if isinstance(outcome, int) else ExitCode.OK


def _close_standard_output() -> int:
    """The reader of our output went away (as `head` does): nothing more can be said, nothing is wrong."""
    sys.stdout = None  # keeps the interpreter from flushing into the broken pipe
    return ExitCode.OK


def main() -> None:
    """Entry point of the `dtf` script: a fault of dtf itself has its traceback, and an exit code of its own."""
    try:
        code = run_cli()
    except Exception:
        sys.excepthook(*sys.exc_info())
        code = ExitCode.INTERNAL
    sys.exit(code)


if __name__ == "__main__":
    main()

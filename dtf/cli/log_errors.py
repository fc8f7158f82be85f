"""Faults of the log as commands report them: one place for what they mean and their exit codes."""

from dtf.cli.errors import CommandError
from dtf.cli.exit_codes import ExitCode
from dtf.coordinator.recovery import HistoryLost
from dtf.ports.event_log import LogFull, LogUnavailable


def log_error(error: Exception) -> CommandError:
    """What went wrong with the log, its snapshots or its spool."""
    match error:
        case HistoryLost():
            return CommandError(error.what, *error.advice, exit_code=ExitCode.LOG_LOST)
        case LogUnavailable() | LogFull():
            return CommandError(str(error), "`dtf doctor` checks the broker", exit_code=ExitCode.UNAVAILABLE)
        case _:
            return CommandError(str(error))

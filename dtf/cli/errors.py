"""How a command fails: one line of what happened, lines of what to do, an exit code.

Exceptions of the layers below become a CommandError in one place, `explain`. gRPC is asked only if
it has been imported: to import it would cost every `dtf --help` a tenth of a second.
"""

import errno
import sys
from collections.abc import Sequence
from typing import Any

from dtf.cli.exit_codes import ExitCode
from dtf.client.stack import StackError
from dtf.ports.event_log import LogError
from dtf.settings.loader import SettingsError

_OF_THE_MACHINE = {
    errno.ENOSPC: "make room: dtf writes below .dtf of the project and in the temporary directory",
    errno.EDQUOT: "make room: dtf writes below .dtf of the project and in the temporary directory",
    errno.EROFS: "dtf writes below .dtf of the project; --project names another directory",
    errno.EACCES: "let this user read and write it; dtf writes below .dtf of the project",
    errno.EPERM: "let this user read and write it; dtf writes below .dtf of the project",
    errno.EMFILE: "raise the number of open files (ulimit -n)",
}
"""What the machine refuses, and what helps; other errors of the system are faults of dtf itself until they are known."""


class CommandError(Exception):
    """A command that cannot go on. `advice` has one line for each thing that can be done."""

    def __init__(self, what: str, *advice: str, exit_code: ExitCode = ExitCode.FAILED) -> None:
        super().__init__(what)
        self.what = what
        self.advice: Sequence[str] = advice
        self.exit_code = exit_code


def print_error(error: CommandError) -> None:
    """Write the error to standard error as every command does."""
    lines = error.what.splitlines() or ["failed"]
    print(f"error: {_shown(lines[0])}", file=sys.stderr)  # noqa: T201 - the one place that prints errors
    for line in (*lines[1:], *error.advice):
        print(f"  {_shown(line)}", file=sys.stderr)  # noqa: T201


def _shown(line: str) -> str:
    """The line as a terminal may have it: messages quote names and cells of other people's files."""
    if line.isprintable():
        return line
    from dtf.report.output import plain_line

    return plain_line(line)


def explain(error: BaseException) -> CommandError | None:
    """What `error` means to a person; None if it is a fault of dtf itself."""
    if isinstance(error, CommandError):
        return error
    if isinstance(error, SettingsError):
        return CommandError(
            error.faults[0],
            *error.faults[1:],
            "`dtf config` shows each setting, its value and its source",
            exit_code=ExitCode.USAGE,
        )
    if isinstance(error, StackError):
        return CommandError(error.what, *error.advice, exit_code=ExitCode.UNAVAILABLE)
    if isinstance(error, LogError):
        return CommandError(
            str(error), "`dtf doctor` checks the broker and its settings", exit_code=ExitCode.UNAVAILABLE
        )
    if _is_rpc_error(error):
        return _explain_rpc(error)
    if isinstance(error, OSError) and error.errno in _OF_THE_MACHINE:
        where = f"{error.filename}: " if error.filename else ""
        return CommandError(f"{where}{error.strerror}", _OF_THE_MACHINE[error.errno])
    if isinstance(error, BaseExceptionGroup):
        return _explain_group(error)
    return None


def _explain_group(group: BaseExceptionGroup[BaseException]) -> CommandError | None:
    """What went wrong first; a CommandError among several says most. None if one of them is ours."""
    found = [explain(error) for error in group.exceptions]
    own = [
        known for known, error in zip(found, group.exceptions, strict=True) if isinstance(error, CommandError)
    ]
    if own:
        return own[0]
    return found[0] if all(found) else None


def _is_rpc_error(error: BaseException) -> bool:
    grpc: Any = sys.modules.get("grpc")
    return grpc is not None and isinstance(error, grpc.RpcError)


def _explain_rpc(error: Any) -> CommandError:
    from dtf.rpc.errors import describe, parse

    code = parse(error).code.name
    match code:
        case "UNAVAILABLE" | "DEADLINE_EXCEEDED":
            return CommandError(
                f"the coordinator does not answer: {describe(error)}",
                "`dtf status` says whether it runs; DTF_SERVER names another one",
                exit_code=ExitCode.UNAVAILABLE,
            )
        case "UNAUTHENTICATED":
            return CommandError(
                describe(error),
                "DTF_TOKEN_FILE names the file with the token that the coordinator was given",
                exit_code=ExitCode.USAGE,
            )
        case "INVALID_ARGUMENT":
            return CommandError(describe(error), exit_code=ExitCode.USAGE)
        case _:
            return CommandError(describe(error))

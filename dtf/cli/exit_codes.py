"""What the exit code of every `dtf` command means. The first six agree with pytest's."""

from enum import IntEnum


class ExitCode(IntEnum):
    """Exit codes of `dtf`."""

    OK = 0
    """Done; for a run: every case passed, was skipped, or passed when tried again."""
    FAILED = 1
    """The run ended and some case failed or could not be judged; or the thing asked for was refused."""
    CANCELLED = 2
    """The run was cancelled, by Ctrl-C or by someone else."""
    INTERNAL = 3
    """A fault of dtf itself."""
    USAGE = 4
    """The command line or the settings are at fault."""
    EMPTY = 5
    """There was nothing to run."""
    UNAVAILABLE = 6
    """No stack, coordinator, broker or store could be reached or started."""
    DEPOSED = 7
    """A coordinator found that another one leads; restarting it is of no use."""
    UNHEALTHY = 8
    """`dtf doctor` found something to mend."""
    LOG_LOST = 9
    """The event log lacks what it had acknowledged: nothing starts on it until it is repaired (`dtf log repair`)."""
    REGRESSED = 10
    """`dtf gate` found a regression beyond the limits."""
    UNPROVEN = 11
    """`dtf gate --require-history`: too many series have too few points for a regression to be found."""

"""`dtf resource-manager` that kills itself with signal 9 at a step: python -m tests.integration.mortal_manager STEP DTF-ARGUMENTS…

STEP is "before launch", "after drain", …; what is counted are calls of the provider, the coordinator, the
stream of decisions and the state file.
"""

import os
import signal
import sys
from collections.abc import Awaitable, Callable
from typing import Any

from dtf.adapters.process_provider import ProcessProvider
from dtf.adapters.records import JetStreamRecords
from dtf.cli.main import main
from dtf.resource_manager.fleet import GrpcFleet
from dtf.resource_manager.state_file import StateFile

STEPS: dict[str, tuple[type[Any], str]] = {
    "launch": (ProcessProvider, "launch"),
    "terminate": (ProcessProvider, "terminate"),
    "forget": (ProcessProvider, "forget"),
    "save": (StateFile, "save"),
    "publish": (JetStreamRecords, "publish"),
    "drain": (GrpcFleet, "drain_idle"),
}


def make_mortal(step: str) -> None:
    """Have the process die at the first such step."""
    moment, _, what = step.partition(" ")
    owner, method = STEPS[what]
    whole: Callable[..., Awaitable[object]] = getattr(owner, method)

    async def fatal(*arguments: object, **named: object) -> object:
        if moment == "after":
            await whole(*arguments, **named)
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("nobody survives signal 9")

    setattr(owner, method, fatal)


if __name__ == "__main__":
    make_mortal(sys.argv[1])
    sys.argv[1:2] = []
    main()

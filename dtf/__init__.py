"""dtf runs test and benchmark suites over an elastic pool of workers, on a durable event log.

`dtf.connect()` is the asyncio client, `dtf.trends` finds what changed in series of measurements; both
are imported when they are first used, so that `import dtf` costs nothing.

PYTEST_DONT_REWRITE: a worker's pytest finds dtf imported already, and would warn that it cannot
rewrite its assertions.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dtf import trends
    from dtf.client.connect import connect

__all__ = ["connect", "trends"]


def __getattr__(name: str) -> Any:
    if name == "connect":
        from dtf.client.connect import connect

        return connect
    if name == "trends":
        return importlib.import_module("dtf.trends")
    raise AttributeError(f"module 'dtf' has no attribute {name!r}")

"""dtf runs test and benchmark suites over an elastic pool of workers, on a durable event log.

`dtf.connect()` is the asyncio client; it is imported when it is first used, so that `import dtf`
costs nothing.

PYTEST_DONT_REWRITE: a worker's pytest finds dtf imported already, and would warn that it cannot
rewrite its assertions.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dtf.client.connect import connect

__all__ = ["connect"]


def __getattr__(name: str) -> Any:
    if name == "connect":
        from dtf.client.connect import connect

        return connect
    raise AttributeError(f"module 'dtf' has no attribute {name!r}")

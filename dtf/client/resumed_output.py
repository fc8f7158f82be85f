"""Output that is told again from its start after each break, and passed on once."""

from dtf.api.v1 import run_service_pb2

Place = tuple[int, int]
"""Task and attempt."""


class ResumedOutput:
    """How much of each attempt's output was passed on."""

    def __init__(self) -> None:
        self._seen: dict[Place, int] = {}
        self._offsets: dict[Place, int] = {}

    def begin(self) -> None:
        """A stream begins, and with it every output at its start."""
        self._offsets = {}

    def is_news(self, response: run_service_pb2.TailLogsResponse) -> bool:
        """Whether a piece of output has anything beyond what was passed on; what was is cut off it."""
        key = (response.task, response.attempt)
        start = self._offsets.get(key, 0)
        self._offsets[key] = end = start + len(response.data)
        known = self._seen.get(key, 0)
        if end <= known:
            return False
        if start < known:
            response.data = response.data[known - start :]
        self._seen[key] = end
        return True

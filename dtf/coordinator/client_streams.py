"""How many streams clients hold open: watches, submissions, tails of output and uploads, all together."""

from collections.abc import Iterator
from contextlib import contextmanager

from dtf.rpc.errors import TooManyStreams


class ClientStreams:
    """The open streams of one coordinator's clients. Each costs it memory, whether anything passes or not."""

    def __init__(self, most: int) -> None:
        self._most = most
        self.count = 0
        self.refused_count = 0

    @contextmanager
    def one_more(self) -> Iterator[None]:
        """Hold one. Raises TooManyStreams where there are as many as there may be."""
        if self.count >= self._most:
            self.refused_count += 1
            raise TooManyStreams(
                f"clients have {self.count} streams open, and {self._most} are allowed; "
                "end some watches, submissions, tails or uploads, share one client where there are many, "
                "or raise [coordinator] max_client_streams"
            )
        self.count += 1
        try:
            yield
        finally:
            self.count -= 1

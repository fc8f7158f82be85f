"""What the throughput benchmark runs."""


def nothing() -> None:
    """Return at once."""

"""Change points of a series, as its values arrive: `stream.ChangeStream`."""

from dtf.core.trend.changes.stream import ChangeStream

__all__ = ["ChangeStream"]

"""What an import gives: points by what they measure, and series of them."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field


class ImportFault(ValueError):
    """A file cannot be read as history; the message has its name, what was seen and what was expected."""


@dataclass(frozen=True, slots=True)
class ImportedPoint:
    """One value of one metric."""

    case: str
    metric: str
    value: float
    unit: str = ""
    is_lower_better: bool | None = None
    time: float | None = None
    """Seconds since 1970-01-01 UTC; None: the file does not say."""
    revision: str = ""
    weight: float = 1.0
    """Measurements behind it."""


@dataclass(frozen=True, slots=True)
class ImportedSeries:
    """The values of one metric of one case, oldest first; the tuples that are not empty are equally long."""

    case: str
    metric: str
    values: tuple[float, ...]
    unit: str = ""
    is_lower_better: bool | None = None
    times: tuple[float, ...] = ()
    """Seconds since 1970-01-01 UTC, rising; empty: the file has none."""
    weights: tuple[float, ...] = ()
    """Empty: all 1."""
    revisions: tuple[str, ...] = ()
    """Empty: not known."""
    has_dates: bool = True
    """Whether times are dates, rather than numbers of whatever."""

    @property
    def name(self) -> str:
        """What it is called where series are listed."""
        return " ".join(filter(None, (self.case, self.metric)))


@dataclass(slots=True)
class _Column:
    points: list[ImportedPoint] = field(default_factory=list)


def gather(points: Iterable[ImportedPoint], *, has_dates: bool = True) -> list[ImportedSeries]:
    """Series of points, in the order in which they were first seen; each sorted by time if all of it has times."""
    columns: dict[tuple[str, str], _Column] = {}
    for point in points:
        columns.setdefault((point.case, point.metric), _Column()).points.append(point)
    return [_series(column.points, has_dates) for column in columns.values()]


def _series(points: list[ImportedPoint], has_dates: bool) -> ImportedSeries:
    times = [point.time for point in points if point.time is not None]
    has_times = len(times) == len(points)
    if has_times:
        points = sorted(points, key=lambda point: point.time or 0.0)
        times.sort()
    weights = tuple(point.weight for point in points)
    revisions = tuple(_encodable(point.revision) for point in points)
    first = points[0]
    return ImportedSeries(
        case=_encodable(first.case),
        metric=_encodable(first.metric),
        values=tuple(point.value if math.isfinite(point.value) else math.nan for point in points),
        unit=_encodable(next((point.unit for point in points if point.unit), "")),
        is_lower_better=first.is_lower_better,
        times=tuple(times) if has_times else (),
        weights=weights if any(weight != 1.0 for weight in weights) else (),
        revisions=revisions if any(revisions) else (),
        has_dates=has_dates,
    )


def _encodable(text: str) -> str:
    """The text, with ? for the halves of characters that JSON may hold and UTF-8 may not."""
    return text.encode("utf-8", "replace").decode("utf-8")

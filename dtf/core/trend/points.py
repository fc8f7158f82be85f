"""Points on their way to the store: tuples in the order of their measurement's tags and fields."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from dtf.core.trend.measurements import Measurement

Value = str | float | int | bool | None
"""A tag's or field's value; None: not measured."""


class Unusable(ValueError):
    """A message that nothing can be made of; the text says why. The fold is as it would be without it."""


@dataclass(slots=True)
class Points:
    """Points of one measurement; the n-th of `times_ns` and of `values` belong together.

    No two points of one `Points` have the same tags and time.
    """

    measurement: Measurement
    times_ns: list[int] = field(default_factory=list)
    """Nanoseconds since 1970-01-01 UTC."""
    values: list[tuple[Value, ...]] = field(default_factory=list)
    """A value for each of `names`."""

    @property
    def names(self) -> tuple[str, ...]:
        """Tags, then fields."""
        return (*self.measurement.tags, *self.measurement.fields)

    def __len__(self) -> int:
        return len(self.times_ns)

    def add(self, time_ns: int, values: Mapping[str, Value]) -> None:
        """Add one point; a tag not named is empty, a field not named was not measured."""
        tags = [values.get(name, "") for name in self.measurement.tags]
        self.add_row(time_ns, (*tags, *(values.get(name) for name in self.measurement.fields)))

    def add_row(self, time_ns: int, values: tuple[Value, ...]) -> None:
        """Add one point, its values in the order of `names`."""
        self.times_ns.append(time_ns)
        self.values.append(values)

    def columns(self) -> dict[str, Sequence[Value]]:
        """The values by name."""
        return dict(zip(self.names, zip(*self.values, strict=True), strict=True))

    def as_dicts(self) -> list[dict[str, Value]]:
        """The points one by one, each with its `time_ns`."""
        return [
            {"time_ns": time, **dict(zip(self.names, row, strict=True))}
            for time, row in zip(self.times_ns, self.values, strict=True)
        ]


class PointBuffer:
    """Points of any measurement that wait to be written."""

    def __init__(self) -> None:
        self._by_name: dict[str, Points] = {}
        self._marks: dict[str, int] = {}

    def __len__(self) -> int:
        return sum(map(len, self._by_name.values()))

    def of(self, measurement: Measurement) -> Points:
        """The points of one measurement, to add to."""
        points = self._by_name.get(measurement.name)
        if points is None:
            points = self._by_name[measurement.name] = Points(measurement)
        return points

    def mark(self) -> None:
        """What is added from now on is what `since_mark` gives."""
        self._marks = {name: len(points) for name, points in self._by_name.items()}

    def since_mark(self, measurement: Measurement) -> Iterator[tuple[int, tuple[Value, ...]]]:
        """(time, values) of each point of a measurement added since the last mark, in order."""
        points = self._by_name.get(measurement.name)
        if points is not None:
            for index in range(self._marks.get(measurement.name, 0), len(points)):
                yield points.times_ns[index], points.values[index]

    def take(self) -> list[Points]:
        """Everything, leaving nothing."""
        self._marks = {}
        taken = [points for points in self._by_name.values() if points.times_ns]
        self._by_name = {}
        return taken

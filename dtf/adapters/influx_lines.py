"""Points as InfluxDB's line protocol.

What the protocol cannot write in a name, as line breaks and a backslash at its end, the folds have
taken out (dtf.core.trend.names); a name that has it all the same, which only a stranger's message can,
is written without. A number that is none is left out, an integer that is too large is the largest.
"""

import math
from collections.abc import Callable, Iterator, Mapping

from dtf.core.trend.measurements import LARGEST_WHOLE, FieldKind
from dtf.core.trend.names import series_name
from dtf.core.trend.points import Points, Value

_TAG_ESCAPES = str.maketrans({",": "\\,", "=": "\\=", " ": "\\ "})
_TEXT_ESCAPES = str.maketrans({"\\": "\\\\", '"': '\\"'})


def lines(points: Points) -> Iterator[str]:
    """One line a point."""
    measurement = points.measurement
    tag_names = sorted(measurement.tags)  # sorted tags are what the server would make of them
    tag_positions = [points.names.index(name) for name in tag_names]
    fields = [
        (points.names.index(name), f"{name}=", _WRITERS[field.kind])
        for name, field in measurement.fields.items()
    ]
    heads: dict[tuple[Value, ...], str] = {}
    for time_ns, row in zip(points.times_ns, points.values, strict=True):
        tags = tuple(row[position] for position in tag_positions)
        head = heads.get(tags)
        if head is None:
            head = heads[tags] = _head(measurement.name, tag_names, tags)
        written = ((label, writer(row[position])) for position, label, writer in fields)
        body = ",".join(label + text for label, text in written if text)
        if body:
            yield f"{head} {body} {time_ns}"


def _head(name: str, tag_names: list[str], tags: tuple[Value, ...]) -> str:
    parts = [name]
    parts += [
        f"{tag}={series_name(str(value)).translate(_TAG_ESCAPES)}"
        for tag, value in zip(tag_names, tags, strict=True)
        if value not in ("", None)
    ]
    return ",".join(parts)


def _text(value: Value) -> str:
    return "" if value is None else f'"{str(value).translate(_TEXT_ESCAPES)}"'


def _real(value: Value) -> str:
    return repr(float(value)) if isinstance(value, int | float) and math.isfinite(value) else ""


def _whole(value: Value) -> str:
    return f"{min(int(value), LARGEST_WHOLE)}i" if isinstance(value, int) else ""


def _truth(value: Value) -> str:
    return "" if value is None else str(bool(value)).lower()


_WRITERS: Mapping[FieldKind, Callable[[Value], str]] = {
    FieldKind.TEXT: _text,
    FieldKind.REAL: _real,
    FieldKind.WHOLE: _whole,
    FieldKind.TRUTH: _truth,
}

"""What Grafana makes of a dashboard's Flux, asked of a real influxd.

Variables are filled in as Grafana's template service does it, `v.…` as its InfluxDB back end does
(pkg/tsdb/influxdb/flux/macros.go), and the answer becomes frames by the rules of its frame builder
(flux/builder.go): a table with `_value` and a time is a series whose other columns must be text.
"""

import csv
import json
import re
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from io import StringIO
from typing import Any

from dtf.grafana.files import BOARDS, dashboard_json
from dtf.grafana.panels import DATA_SOURCE_UID
from tests.influxd import Influxd

DIALECT = {"header": True, "annotations": ["datatype", "group", "default"], "dateTimeFormat": "RFC3339"}
SPAN = ("2020-01-01T00:00:00Z", "2030-01-01T00:00:00Z")


@dataclass(slots=True)
class Frame:
    """A series (labels, times and values) or rows (columns by name)."""

    labels: dict[str, str] = field(default_factory=dict)
    rows: list[dict[str, str]] = field(default_factory=list)
    is_series: bool = False

    @property
    def values(self) -> list[float]:
        """Of a series."""
        assert self.is_series
        return [float(row["_value"]) for row in self.rows]


@dataclass(frozen=True, slots=True)
class Question:
    """One query of a dashboard."""

    board: str
    kind: str
    """variable, annotation, or the panel's type."""
    title: str
    flux: str

    @property
    def name(self) -> str:
        """For messages and ids of tests."""
        return f"{self.board}: {self.title}"


def questions() -> Iterator[Question]:
    """Every query of every dashboard."""
    for name, make in BOARDS.items():
        board = json.loads(dashboard_json(make(DATA_SOURCE_UID).build()))
        for variable in board["templating"].get("list", []):
            yield Question(name, "variable", f"${variable['name']}", variable["query"])
        for annotation in board["annotations"].get("list", []):
            yield Question(name, "annotation", annotation["name"], annotation["target"]["query"])
        for panel in board["panels"]:
            for target in panel["targets"]:
                yield Question(name, panel["type"], panel["title"], target["query"])


def regex_escaped(text: str) -> str:
    """Grafana's format `regex`."""
    return re.sub(r"[\\^$*+?.()|\[\]{}/]", lambda found: "\\" + found.group(), text)


def filled(
    flux: str, bucket: str, chosen: Mapping[str, str], span: Sequence[str] = SPAN, window: str = "1m0s"
) -> str:
    """The query with everything filled in; `chosen` ".*" stands for All."""
    for name, value in chosen.items():
        text = value if value == ".*" else regex_escaped(value)
        flux = flux.replace(f"${{{name}:regex}}", text)
    assert "${" not in flux, f"a variable that is not filled in: {flux}"
    macros = {"timeRangeStart": span[0], "timeRangeStop": span[1], "windowPeriod": window}
    macros["defaultBucket"] = f'"{bucket}"'
    for name, value in macros.items():
        flux = flux.replace(f"v.{name}", value)
    return flux


def ask(influxd: Influxd, flux: str) -> list[Frame]:
    """The frames that Grafana would make of the answer. Raises AssertionError where Grafana would refuse it."""
    request = urllib.request.Request(
        f"{influxd.url}/api/v2/query?org={influxd.org}",
        json.dumps({"query": flux, "dialect": DIALECT}).encode(),
        {"Authorization": f"Token {influxd.token}", "Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            text = response.read().decode()
    except urllib.error.HTTPError as error:
        raise AssertionError(f"{error.code}: {error.read().decode()}\n{flux}") from error
    return [frame for block in re.split(r"\r?\n\r?\n", text.strip()) if block for frame in _frames(block)]


def _frames(block: str) -> list[Frame]:
    lines: list[list[str]] = list(csv.reader(StringIO(block)))
    assert len(lines) >= 4, f"not an annotated table: {block[:500]}"
    types = dict(zip(lines[3], lines[0], strict=True))
    assert not {"error", "reference"} <= types.keys(), block
    times = [name for name, kind in types.items() if kind.startswith("dateTime")]
    is_series = "_value" in types and bool(times)
    labels = [name for name in types if name and name not in ("result", "table", *times) and name[0] != "_"]
    if is_series:
        assert "_time" in times, f"a series without _time: {types}"
        assert all(types[name] == "string" for name in labels), f"labels are text: {types}"
    frames: dict[str, Frame] = {}
    for values in lines[4:]:
        row = dict(zip(lines[3], values, strict=True))
        default = Frame({name: row[name] for name in labels} if is_series else {}, is_series=is_series)
        frames.setdefault(row["table"], default).rows.append(
            {name: value for name, value in row.items() if name not in ("", "result", "table")}
        )
    return list(frames.values())


def text_of(frame: Frame) -> dict[str, list[str]]:
    """Columns of rows."""
    return {name: [row[name] for row in frame.rows] for name in frame.rows[0]}


def variable_values(frames: Sequence[Frame]) -> list[str]:
    """What a variable offers: the first column of text."""
    return sorted(row["_value"] for frame in frames for row in frame.rows)


def panels_without_data(influxd: Influxd, bucket: str, chosen: Mapping[str, str], **more: Any) -> list[str]:
    """Names of the panels that show nothing."""
    return [
        question.name
        for question in questions()
        if not any(frame.rows for frame in ask(influxd, filled(question.flux, bucket, chosen, **more)))
    ]

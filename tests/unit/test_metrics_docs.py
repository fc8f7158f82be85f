"""docs/metrics.md says what the schema says; `python -m tests.unit.test_metrics_docs` writes its tables anew."""

import re
from pathlib import Path

import pytest

from dtf.core.trend.measurements import MEASUREMENTS, FieldKind, Measurement

pytestmark = pytest.mark.trend_analyzer

PAGE = Path(__file__).parent.parent.parent / "docs" / "metrics.md"
_BEGIN, _END = "<!-- tables: begin -->\n", "<!-- tables: end -->"
_KINDS = {
    FieldKind.TEXT: "text",
    FieldKind.REAL: "real",
    FieldKind.WHOLE: "whole",
    FieldKind.TRUTH: "true or false",
}


def table(measurement: Measurement) -> str:
    """One measurement as a section of the page."""
    lines = [
        f"### {measurement.name}",
        "",
        measurement.meaning,
        "",
        "| column | kind | unit | meaning |",
        "|---|---|---|---|",
    ]
    lines += [f"| `{name}` | tag | | {meaning} |" for name, meaning in measurement.tags.items()]
    lines += [
        f"| `{name}` | {_KINDS[field.kind]} | {field.unit} | {field.meaning} |"
        for name, field in measurement.fields.items()
    ]
    return "\n".join(lines) + "\n"


def tables() -> str:
    """All of them."""
    return "\n".join(map(table, MEASUREMENTS.values())) + "\n"


def test_the_page_has_every_measurement_tag_field_and_unit_as_they_are() -> None:
    page = PAGE.read_text(encoding="utf-8")
    written = page.split(_BEGIN)[1].split(_END)[0]
    assert written == tables(), "run `python -m tests.unit.test_metrics_docs`"


def test_fields_named_for_a_unit_have_it() -> None:
    for measurement in MEASUREMENTS.values():
        for name, field in measurement.fields.items():
            for ending, unit in (("_seconds", "s"), ("_bytes", "bytes"), ("_ratio", "0 to 1")):
                assert not name.endswith(ending) or field.unit == unit, f"{measurement.name}.{name}"


def test_no_name_is_both_tag_and_field() -> None:
    for measurement in MEASUREMENTS.values():
        assert not set(measurement.tags) & set(measurement.fields)
        assert all(re.fullmatch("[a-z_]+", name) for name in (*measurement.tags, *measurement.fields))


if __name__ == "__main__":
    before, rest = PAGE.read_text(encoding="utf-8").split(_BEGIN)
    PAGE.write_text(before + _BEGIN + tables() + _END + rest.split(_END)[1], encoding="utf-8")

"""Tables as spreadsheets, data frames, git and people write them; and what is told of a cell that cannot be read."""

import math
from pathlib import Path

import pytest

from dtf.core.trend.imports.cells import iso_moment, moment
from dtf.core.trend.imports.series import ImportFault
from dtf.core.trend.imports.tables import read_table
from dtf.trends.files import load


def test_a_cell_that_is_no_number_is_named_by_line_column_and_text() -> None:
    """The line is the file's: comments, blank lines and cells of several lines count."""
    text = '# made by hand\nname,duration\n\n"a\nb",1\n# half\na,2\na,fast\na,n/a\n'
    with pytest.raises(
        ImportFault, match=r"^t\.csv: line 8, column duration: 'fast' is not a number; mend it, or leave it"
    ):
        read_table(text, "t.csv")


def test_a_bad_cell_among_the_first_lines_does_not_make_names_of_a_column() -> None:
    text = "time,duration\n1,oops\n2,1\n3,2\n"
    with pytest.raises(ImportFault, match="line 2, column duration: 'oops'"):
        read_table(text, "t.csv")


@pytest.mark.parametrize("cell", ["", "nan", "NaN", "NA", "n/a", "null", "None", "-", "<NA>", "NaT", "inf"])
def test_what_says_that_nothing_was_measured_is_a_missing_value(cell: str) -> None:
    (series,) = read_table(f"time,v\n1,5\n2,{cell}\n3,6\n", "t.csv")
    assert [math.isnan(value) for value in series.values] == [False, True, False]


def test_decimal_commas_are_read_where_semicolons_or_tabs_part_the_cells() -> None:
    for mark in (";", "\t"):
        lines = ("Zeit;Dauer;n", "2026-01-01;1.234,5;3", "2026-01-02;-0,25;4", "2026-01-03;7;5")
        dauer, n = read_table("\r\n".join(lines).replace(";", mark), "t.csv")
        assert (dauer.values, n.values) == ((1234.5, -0.25, 7.0), (3.0, 4.0, 5.0))
        assert len(dauer.times) == 3
    (series,) = read_table("1,5;\n2,5;\n", "t.csv")
    assert (series.name, series.values) == ("column 1", (1.5, 2.5))


def test_a_decimal_point_among_decimal_commas_is_not_guessed_at() -> None:
    with pytest.raises(ImportFault, match=r"line 4, column v: '1\.500' is not a number with a decimal comma"):
        read_table("v;w\n1,5;1\n1,6;1\n1.500;1\n", "t.csv")
    with pytest.raises(ImportFault, match="decimal commas need semicolons"):
        read_table("v,w\n1,5,2\n", "t.csv")


@pytest.mark.parametrize("data", [b"\xef\xbb\xbftime,v\r\n1,2\r\n", "time\tv\r\n1\t2\r\n".encode("utf-16")])
def test_files_of_spreadsheets_are_read(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "t.csv").write_bytes(data)
    (series,) = load(tmp_path / "t.csv")
    assert (series.name, series.values, series.times) == ("v", (2.0,), (1.0,))


def test_excels_word_for_the_mark_between_cells_is_heeded() -> None:
    (series,) = read_table("sep=;\nname;v\na, b;1\n", "t.csv")
    assert (series.name, series.values) == ("a, b v", (1.0,))


def test_another_encoding_is_told_with_the_line(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes("time,v\n1,größe\n".encode("latin-1"))
    with pytest.raises(ValueError, match=r"t\.csv is no text in UTF-8 \(line 2\): save it as CSV or JSON in"):
        load(tmp_path / "t.csv")


def test_the_row_numbers_of_a_data_frame_are_no_series() -> None:
    assert [each.name for each in read_table(",v\n0,1.5\n1,1.6\n2,1.7\n", "t.csv")] == ["v"]
    assert [each.name for each in read_table("n,v\n0,1.5\n1,1.6\n", "t.csv")] == ["n", "v"]


def test_columns_of_one_name_are_two_series() -> None:
    first, second = read_table("v,v\n1,3\n2,4\n", "t.csv")
    assert (first.name, first.values, second.name, second.values) == ("v", (1, 2), "v (2)", (3, 4))


def test_a_column_that_begins_late_is_a_series() -> None:
    rows = "".join(f"{at},{at},{'' if at < 250 else 7}\n" for at in range(300))
    v, late = read_table("time,v,late\n" + rows, "t.csv")
    assert (v.name, late.name, late.values[250]) == ("v", "late", 7.0)


def test_a_line_separator_inside_a_name_is_no_end_of_a_line() -> None:
    (series,) = read_table("name,v\na\u2028b,1\na\u2028b,2\n", "t.csv")
    assert series.values == (1.0, 2.0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("time,v\n", r"has a header and no line below it"),
        (
            "date,v\n01.05.2026,1\n02.05.2026,2\n",
            "line 2, column date: '01.05.2026' is no time: expected a date",
        ),
        ("time,v\n2026-05-01,1\n,2\n", "line 3, column time: '' is no time"),
    ],
)
def test_what_is_wrong_with_a_table_is_told(text: str, message: str) -> None:
    with pytest.raises(ImportFault, match=message):
        read_table(text, "t.csv")


NOON = 1777636800.0
"""2026-05-01T12:00 UTC."""


@pytest.mark.parametrize(
    "text",
    [
        "2026-05-01T12:00",
        "2026-05-01 12:00:00Z",
        "2026-05-01 14:00:00 +0200",
        "2026-05-01T14:00+02:00",
        "2026/05/01 12:00",
        "2026-05-01 12:00:00 UTC",
        "1777636800",
        "1777636800000",
        "1777636800000000",
        "1777636800000000000",
    ],
)
def test_times_are_read_as_tools_write_them(text: str) -> None:
    assert moment(text) == NOON


@pytest.mark.parametrize("text", ["", "12:00", "01.05.2026", "1 May 2026", "nan", "2026-13-01", "today"])
def test_what_says_no_date_is_no_time(text: str) -> None:
    assert (moment(text), iso_moment(text)) == (None, None)

"""Histories that other tools wrote (real files of each, in tests/histories) and tables, as series."""

import math
from pathlib import Path

import pytest

from dtf.core.trend.imports.series import ImportedSeries, ImportFault
from dtf.core.trend.imports.tables import read_table
from dtf.trends.files import load

HISTORIES = Path(__file__).parents[1] / "histories"


def by_name(series: list[ImportedSeries]) -> dict[str, ImportedSeries]:
    """Series by what they are called."""
    return {each.name: each for each in series}


def test_a_storage_folder_of_pytest_benchmark_is_a_history() -> None:
    found = by_name(load(HISTORIES / "pytest_benchmark"))
    assert set(found) == {
        f"test_parse.py::test_{case} {metric}"
        for case in ("parse", "sorted")
        for metric in ("median", "min", "mean")
    }
    series = found["test_parse.py::test_parse median"]
    assert series.values == (4.618003003997728e-06, 4.604000423569232e-06, 4.760997398989275e-06)
    assert (series.unit, series.is_lower_better, series.weights) == ("s", True, ())
    assert [each[:7] for each in series.revisions] == ["0b85729", "f282611", "55c95c3"]
    assert series.times[0] == pytest.approx(1795411198.522563)


def test_repetitions_of_google_benchmark_are_one_point_at_their_median() -> None:
    found = by_name(load(HISTORIES / "google_benchmark" / "repetitions.json"))
    series = found["BM_Copy/64 real_time"]
    assert list(series.values) == pytest.approx([4.257011072371367e-07])
    assert (series.unit, series.is_lower_better, series.weights) == ("s", True, (3.0,))
    assert found["BM_Copy/4096 bytes_per_second"].is_lower_better is False
    assert not any("BM_Broken" in name for name in found)


def test_aggregates_of_google_benchmark_give_their_median() -> None:
    both = by_name(load(HISTORIES / "google_benchmark"))
    assert list(both["BM_Copy/64 real_time"].values) == pytest.approx(
        [4.257011072371367e-07, 6.465681800163628e-07]
    )
    assert both["BM_Copy/64 real_time"].times == (1795411227.0, 1795411228.0)


def test_files_of_hyperfine_are_taken_in_the_order_people_count_in() -> None:
    found = by_name(load(HISTORIES / "hyperfine"))
    series = found["true median"]
    assert series.values == (0.009879251, 0.014173690000000001)
    assert (series.times, series.weights) == ((), (5.0, 5.0))


def test_a_results_folder_of_asv_is_a_history_with_units_and_parameters() -> None:
    found = by_name(load(HISTORIES / "asv"))
    series = found["bench.Sort.time_sorted(10, 'up') time"]
    assert series.values == (6.176238457555883e-07, 4.895253368886188e-07)
    assert (series.unit, series.is_lower_better) == ("s", True)
    assert [each[:7] for each in series.revisions] == ["1eabf12", "45dd9e5"]
    assert found["bench.peakmem_list peakmem"].unit == "bytes"
    assert found["bench.track_answer track"].unit == "answers"
    skipped = found["bench.Sort.time_sorted(100, 'down') time"]
    assert all(math.isnan(value) for value in skipped.values)


def test_results_of_two_machines_are_two_series(tmp_path: Path) -> None:
    for machine in ("box", "tower"):
        (tmp_path / machine).mkdir()
        for file in (HISTORIES / "asv" / "box").glob("*-virtualenv*.json"):
            text = file.read_text().replace('"machine": "box"', f'"machine": "{machine}"')
            (tmp_path / machine / file.name).write_text(text)
    found = by_name(load(tmp_path))
    assert {name for name in found if "track" in name} == {
        "bench.track_answer (box, virtualenv-py3.11) track",
        "bench.track_answer (tower, virtualenv-py3.11) track",
    }


def test_a_wide_table_has_a_series_a_column() -> None:
    text = "date,commit,parse,render\n2026-05-01,aaa,1.5,10\n2026-05-02,bbb,,11\n"
    parse, render = read_table(text, "t.csv")
    assert (parse.name, parse.revisions, parse.times) == (
        "parse",
        ("aaa", "bbb"),
        (1777593600.0, 1777680000.0),
    )
    assert parse.values[0] == 1.5
    assert math.isnan(parse.values[1])
    assert render.values == (10.0, 11.0)
    assert render.has_dates


def test_a_long_table_has_a_series_for_each_text() -> None:
    text = "test;time;value\na;2;20\nb;1;5\na;1;10\n"
    first, second = read_table(text, "t.csv")
    assert (first.name, first.values, first.times) == ("a value", (10.0, 20.0), (1.0, 2.0))
    assert (second.name, second.values) == ("b value", (5.0,))
    assert not first.has_dates


def test_a_column_of_numbers_alone_is_a_series_without_times() -> None:
    (series,) = read_table("1\n2\n3.5\n", "t.csv")
    assert (series.values, series.times) == ((1.0, 2.0, 3.5), ())


def test_columns_can_be_named_and_must_exist() -> None:
    text = "when,build_no,ms,other\n5,b1,1,8\n6,b2,2,9\n"
    (series,) = read_table(text, "t.csv", time_column="when", revision_column="build_no", columns=("ms",))
    assert (series.name, series.times, series.revisions) == ("ms", (5.0, 6.0), ("b1", "b2"))
    with pytest.raises(
        ImportFault, match=r"t\.csv has no column 'at': its columns are when, build_no, ms, other"
    ):
        read_table(text, "t.csv", time_column="at")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"t\.csv is empty"),
        ("time,value\nyesterday,1\n2026-01-01,2\n", r"t\.csv: line 2, column time: 'yesterday' is no time"),
        ("name\na\nb\n", "has no column of numbers"),
        ("a,b\n1,2\n1,2,3\n", "line 3 has 3 cells, the first line 2; decimal commas need semicolons"),
        ("a\n" + "1\n" * 300 + "x\n", "line 302, column a: 'x' is not a number; mend it, or leave it empty"),
    ],
)
def test_what_is_no_table_is_refused_in_one_line(text: str, message: str) -> None:
    with pytest.raises(ImportFault, match=message):
        read_table(text, "t.csv")


def test_a_file_of_no_known_format_is_refused_and_left_out_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "other.json").write_text('{"some": "thing"}')
    with pytest.raises(
        ValueError, match=r"other\.json is of no known format: expected JSON of pytest-benchmark"
    ):
        load(tmp_path / "other.json")
    with pytest.raises(ValueError, match="nothing to read"):
        load(tmp_path)
    (tmp_path / "values.csv").write_text("value\n1\n2\n")
    assert [each.values for each in load(tmp_path)] == [(1.0, 2.0)]


def test_a_file_that_lost_its_shape_is_refused(tmp_path: Path) -> None:
    (tmp_path / "broken.json").write_text('{"machine_info": {}, "benchmarks": [{"name": "a"}]}')
    with pytest.raises(
        ValueError, match=r"broken\.json has not the shape of its format: KeyError\('stats'\)"
    ):
        load(tmp_path / "broken.json")


def test_tables_of_several_files_are_told_apart_by_their_names(tmp_path: Path) -> None:
    for name in ("arm", "x86"):
        (tmp_path / f"{name}.csv").write_text("time,ms\n1,2\n2,3\n")
    assert [each.name for each in load(tmp_path / "arm.csv", tmp_path / "x86.csv")] == ["arm ms", "x86 ms"]

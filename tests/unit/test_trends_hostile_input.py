"""What comes from outside to break the readers and the interface: each gets one line, and nothing is drawn or kept wrong."""

import errno
import json
import warnings
from pathlib import Path
from time import process_time
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

import dtf.trends
from dtf.cli.errors import CommandError
from dtf.cli.exit_codes import ExitCode
from dtf.cli.main import run_cli
from dtf.cli.trends_import_command import as_record
from dtf.cli.trends_picture import write_picture
from dtf.core.trend.changes import ChangeStream
from dtf.core.trend.imports.series import ImportedSeries
from dtf.trends.files import load
from dtf.trends.plotting import Picture, draw_png, draw_svg, plot_lines


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("open.json", "[" * 100_000, "nested too deeply"),
        ("deep.json", '{"a":' * 50_000 + "1" + "}" * 50_000, "nested too deeply"),
        (
            "huge.json",
            json.dumps(
                {
                    "machine_info": {},
                    "benchmarks": [{"name": "t", "stats": {"median": 10**400}}],
                    "version": "4",
                }
            ),
            "has not the shape of its format",
        ),
        ("value.csv", "v\n1e308\n-1e308\n", "beyond 1e+100 nothing is analysed"),
        ("time.csv", f"time,v\n{10**30},1\n", "is no time: expected a date"),
        ("escape.csv", "a,\x1b[31mred\x1b]0;title\x07\nx,y\n", "its columns are a,red\n"),
        ("override.csv", "a\u202eb,c\nx,y\n", "its columns are a\\u202eb, c\n"),
    ],
)
def test_a_hostile_file_is_refused_in_one_line(
    tmp_path: Path, name: str, text: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    assert run_cli(["trends", "analyze", str(path)]) == ExitCode.USAGE
    said = capsys.readouterr().err
    assert message in said
    assert "Traceback" not in said


def test_a_table_of_many_columns_of_one_name_takes_a_moment(tmp_path: Path) -> None:
    """Ten thousand of them once took as many squares of steps."""
    path = tmp_path / "wide.csv"
    path.write_text(",".join(["a"] * 10_000) + "\n" + ",".join(["1"] * 10_000) + "\n", encoding="utf-8")
    started = process_time()
    names = [each.name for each in load(path)]
    assert process_time() - started < 2.0
    assert names[:3] == ["a", "a (2)", "a (3)"]
    assert len(set(names)) == 10_000


def test_a_folder_without_files_of_history_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_cli(["trends", "analyze", str(tmp_path)]) == ExitCode.USAGE
    assert f"nothing to read in {tmp_path}: expected files" in capsys.readouterr().err


def test_what_has_no_size_is_read_to_the_bound_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dtf.trends.files.LARGEST_BYTES", 2**20)
    with pytest.raises(ValueError, match="/dev/zero gives more than 1 MiB"):
        load("/dev/zero")


def test_a_hostile_name_is_drawn_as_text(tmp_path: Path) -> None:
    """Characters that XML forbids made the picture unreadable; what matplotlib took for a formula was none."""
    name = "\x1b[31m $x_{ \\frac{ <b> \x00\u202e"
    picture = Picture(name, np.arange(20.0), np.arange(20.0), has_dates=False, changes=(), unit="$_{\x07")
    title = ElementTree.fromstring(draw_svg(picture)).find("{*}title")
    assert title is not None
    assert title.text == "\ufffd[31m $x_{ \\frac{ <b> \ufffd\ufffd"
    assert draw_png(picture).startswith(b"\x89PNG")


def test_a_picture_without_room_leaves_the_one_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.svg"
    path.write_text("the one before", encoding="utf-8")
    picture = Picture("x", np.arange(20.0), np.arange(20.0), has_dates=False, changes=())

    def full(_path: Path, _data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as disk:
        disk.setattr(Path, "write_bytes", full)
        with pytest.raises(CommandError, match=r"x.svg cannot be written: No space left on device"):
            write_picture(path, picture)
    assert [(each.name, each.read_text()) for each in tmp_path.iterdir()] == [("x.svg", "the one before")]
    write_picture(path, picture)
    assert path.read_text().startswith("<svg")


def test_parameters_of_asv_are_not_multiplied_out(tmp_path: Path) -> None:
    """Four lists of two thousand have sixteen million million combinations; there are two results."""
    document = {
        "commit_hash": "abc",
        "date": 1_700_000_000_000,
        "result_columns": ["result", "params"],
        "results": {"time_x": [[1.0, 2.0], [[str(each) for each in range(2_000)]] * 4]},
    }
    (tmp_path / "abc.json").write_text(json.dumps(document), encoding="utf-8")
    assert [each.case for each in load(tmp_path)] == ["time_x(0, 0, 0, 0)", "time_x(0, 0, 0, 1)"]


def test_a_name_that_is_no_utf_8_is_read_as_one(tmp_path: Path) -> None:
    path = tmp_path / "h.json"
    entry = {"command": "\ud800x", "median": 1.0}
    path.write_text(json.dumps({"results": [entry]}), encoding="utf-8")
    assert [each.case for each in load(path)] == ["?x"]


def test_a_time_that_the_log_cannot_hold_is_refused() -> None:
    series = ImportedSeries("case", "time", (1.0, 2.0), times=(0.0, 1e300))
    with pytest.raises(Exception, match="outside the years 1678 to 2261"):
        as_record(series, "suite", "imported", None, "file.json")


@pytest.mark.parametrize(
    ("values", "weights", "message"),
    [
        ([1.0, 1e308], None, r"value 1 is 1e\+308: beyond 1e\+100"),
        ([10**400], None, "value 0 is a whole number larger"),
        ([1.0, 2.0], [1.0, 1e308], r"weight 1 is 1e\+308: .* at most 1e\+09"),
    ],
)
def test_what_is_too_large_is_refused(values: Any, weights: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dtf.trends.analyze(values, weights=weights)
    stream = dtf.trends.Stream()
    with pytest.raises(ValueError, match=r"beyond|larger|at most"):
        for time, value in enumerate(values):
            stream.append(time, value, 1.0 if weights is None else weights[time])


@pytest.mark.parametrize("horizon", [0, -1, 10**9, 1.5, "3"])
def test_a_horizon_is_a_number_of_values(horizon: Any) -> None:
    with pytest.raises(ValueError, match="how many values to forecast"):
        dtf.trends.analyze([1.0, 2.0, 3.0]).forecast(horizon)


def test_values_and_weights_of_any_size_leave_a_series_of_the_service_usable() -> None:
    """The service must live with whatever was recorded: no warning, no fault, finite findings."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        stream = ChangeStream()
        values = [1e308, 1.7e308] * 30 + [-1e308] * 30
        found = stream.extend(range(90), values, [1e308, 1e-320] * 45)
        found += stream.change_points
    assert all(np.isfinite(each.effect.absolute) for each in found)


def test_values_of_any_size_are_drawn() -> None:
    values = np.asarray([1e308, -1e308] * 10)
    picture = Picture("<b>", values, np.arange(20.0), False, ())
    assert plot_lines(picture)
    svg = draw_svg(picture)
    assert "<b>" not in svg
    assert "nan" not in svg

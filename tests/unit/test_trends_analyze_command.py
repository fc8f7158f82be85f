"""`dtf trends analyze`: files in, lines, JSON and pictures out, without any server."""

import io
import json
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from dtf.api.v1 import findings_pb2
from dtf.cli.errors import CommandError
from dtf.cli.exit_codes import ExitCode
from dtf.cli.main import run_cli
from dtf.cli.trends_import_command import as_record, requests, rising
from dtf.core.trend.imports.series import ImportedSeries

HISTORIES = Path(__file__).parents[1] / "histories"


def write_history(path: Path, size: float = 5.0) -> Path:
    """A CSV of 100 days: latency rises by `size` at day 60, throughput does not move."""
    random = np.random.default_rng(7)
    latency, throughput = 100 + random.standard_normal(100), 500 + random.standard_normal(100)
    latency[60:] += size
    days = np.arange("2026-01-01", "2026-04-11", dtype="datetime64[D]")
    rows = [
        f"{day},c{number:04},{slow:.4f},{fast:.4f}"
        for number, (day, slow, fast) in enumerate(zip(days, latency, throughput, strict=True))
    ]
    path.write_text("\n".join(["date,commit,latency,throughput", *rows]) + "\n")
    return path


def test_one_series_is_shown_with_its_plot_its_changes_and_its_trend(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_history(tmp_path / "h.csv")
    arguments = [
        "trends",
        "analyze",
        str(path),
        "--column",
        "latency",
        "--lower-is-better",
        "--forecast",
        "3",
    ]
    assert run_cli(arguments) == ExitCode.OK
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("latency: 100 values, median ")
    assert any("▲" in line for line in lines)
    head = next(number for number, line in enumerate(lines) if line.startswith("at "))
    assert lines[head].split() == ["at", "time", "revision", "what", "change", "level", "confidence", "state"]
    for word in ("60", "2026-03-02", "c0060", "step, regression", "+5.", "confirmed"):
        assert word in lines[head + 1]
    assert any(line.startswith("trend    stable") for line in lines)
    assert sum(line.startswith("         ") and " to " in line for line in lines) == 3


def test_a_change_of_the_spread_says_by_how_much_and_from_what_to_what(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    noise = np.random.default_rng(7).standard_normal(120)
    noise[60:] *= 4.0
    path = tmp_path / "spread.csv"
    path.write_text("\n".join(["duration", *(f"{100 + each:.4f}" for each in noise)]) + "\n")
    assert run_cli(["trends", "analyze", str(path)]) == ExitCode.OK
    (line,) = [each for each in capsys.readouterr().out.splitlines() if "  spread  " in each]
    sizes, levels = line.split("± ")
    assert " +2" in sizes or " +3" in sizes, "three times as much more, and the interval of that"
    before, after = levels.split()[0], levels.split()[2]
    assert 0.7 < float(before) < 1.3 and 3.0 < float(after) < 5.0


def test_of_several_series_each_has_a_line_and_regressions_come_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_history(tmp_path / "h.csv")
    assert run_cli(["trends", "analyze", str(path), "--lower-is-better"]) == ExitCode.OK
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["series", "values", "median", "changes", "newest", "change", "trend"]
    assert lines[1].startswith("latency")
    assert "step +5." in lines[1]
    assert "regression" in lines[1]
    assert lines[2].split()[:4] == ["throughput", "100", lines[2].split()[2], "0"]
    assert lines[-1] == "1 of 2 series changed; name one with --column to see all of it"


def test_json_has_everything_and_is_one_object(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_history(tmp_path / "h.csv")
    assert run_cli(["trends", "analyze", str(path), "--json", "--forecast", "2"]) == ExitCode.OK
    latency, throughput = json.loads(capsys.readouterr().out)["series"]
    (change,) = latency["change_points"]
    assert (change["index"], change["revision"], change["kind"]) == (60, "c0060", "step")
    assert (throughput["change_points"], len(throughput["forecast"]["values"])) == ([], 2)


@pytest.mark.parametrize(
    ("direction", "expected"), [("--lower-is-better", ExitCode.FAILED), ("--higher-is-better", ExitCode.OK)]
)
def test_a_confirmed_regression_can_fail_the_command(
    tmp_path: Path, direction: str, expected: ExitCode, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_history(tmp_path / "h.csv")
    assert run_cli(["trends", "analyze", str(path), direction, "--fail-on-regression"]) == expected
    capsys.readouterr()


def test_a_picture_shows_the_change_with_its_size(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, picture = write_history(tmp_path / "h.csv"), tmp_path / "out.svg"
    arguments = ["trends", "analyze", str(path), "--column", "latency", "--plot", str(picture)]
    assert run_cli(arguments) == ExitCode.OK
    assert f"drawn: {picture}" in capsys.readouterr().err
    root = ElementTree.fromstring(picture.read_text())
    texts = ["".join(each.itertext()) for each in root.iter("{http://www.w3.org/2000/svg}text")]
    assert "latency" in texts
    assert any(text.startswith("+5.") for text in texts)
    assert len(list(root.iter("{http://www.w3.org/2000/svg}circle"))) >= 100


def test_several_series_are_several_pictures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_history(tmp_path / "h.csv")
    assert run_cli(["trends", "analyze", str(path), "--plot", str(tmp_path / "out.svg")]) == ExitCode.OK
    assert sorted(each.name for each in tmp_path.glob("*.svg")) == ["out-1.svg", "out-2.svg"]
    capsys.readouterr()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--column", "memory"], ExitCode.USAGE, "no series 'memory'"),
        (["--time-column", "when"], ExitCode.USAGE, "has no column 'when'"),
        (["--plot", "out.bmp"], ExitCode.USAGE, "expected a name that ends in .svg or .png"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_line(
    tmp_path: Path,
    arguments: list[str],
    code: ExitCode,
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = write_history(tmp_path / "h.csv")
    assert run_cli(["trends", "analyze", str(path), *arguments]) == code
    assert message in capsys.readouterr().err


def test_a_file_of_missing_values_alone_is_nothing_to_analyse(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "no.csv").write_text("what\nthe\n")
    assert run_cli(["trends", "analyze", str(tmp_path / "no.csv")]) == ExitCode.USAGE
    assert "no column of numbers" in capsys.readouterr().err
    (tmp_path / "no.csv").write_text("time,v\n2026-01-01,n/a\n2026-01-02,\n")
    assert run_cli(["trends", "analyze", str(tmp_path / "no.csv")]) == ExitCode.EMPTY
    assert "there are no values" in capsys.readouterr().err


def test_folders_of_other_tools_are_analysed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(["trends", "analyze", str(HISTORIES / "asv"), str(HISTORIES / "hyperfine")]) == ExitCode.OK
    out = capsys.readouterr().out
    assert "bench.Sort.time_sorted(10, 'up') time" in out
    assert "0 of 16 series changed" in out


def test_what_is_sent_is_cut_into_calls_that_keep_each_series_in_order() -> None:
    records = [
        findings_pb2.PointsImported(
            series=findings_pb2.FindingSeries(suite="s", case_name=name),
            times_unix_nanos=range(count),
            values=[float(each) for each in range(count)],
            revisions=[str(each) for each in range(count)],
        )
        for name, count in (("a", 15_000), ("b", 10_000), ("c", 45_000))
    ]
    calls = [
        [(part.series.case_name, len(part.values)) for part in call.series] for call in requests(records)
    ]
    assert calls == [[("a", 15_000)], [("b", 10_000)], [("c", 20_000)], [("c", 20_000)], [("c", 5_000)]]
    assert [part.values[0] for call in requests(records) for part in call.series] == [0, 0, 0, 20_000, 40_000]


def test_equal_times_are_sent_a_nanosecond_apart() -> None:
    assert rising([5, 5, 5, 6, 20]) == [5, 6, 7, 8, 20]


def test_a_png_is_drawn_by_matplotlib(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    path, picture = write_history(tmp_path / "h.csv"), tmp_path / "out.png"
    assert (
        run_cli(["trends", "analyze", str(path), "--column", "latency", "--plot", str(picture)])
        == ExitCode.OK
    )
    data = picture.read_bytes()
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    assert len(data) > 10_000
    capsys.readouterr()


def test_a_series_is_sent_without_its_missing_values_and_with_all_that_is_known() -> None:
    series = ImportedSeries(
        case="parse",
        metric="median",
        values=(1.0, float("nan"), 3.0),
        unit="s",
        is_lower_better=True,
        times=(10.0, 11.0, 12.5),
        weights=(2.0, 3.0, 4.0),
        revisions=("a", "b", "c"),
    )
    sent = as_record(series, "suite", "", None, "file.json")
    assert (sent.series.suite, sent.series.case_name, sent.series.metric) == ("suite", "parse", "median")
    assert list(sent.times_unix_nanos) == [10_000_000_000, 12_500_000_000]
    assert (list(sent.values), list(sent.weights), list(sent.revisions)) == (
        [1.0, 3.0],
        [2.0, 4.0],
        ["a", "c"],
    )
    assert (sent.unit, sent.is_lower_better, sent.source) == ("s", True, "file.json")
    assert as_record(series, "suite", "", False, "").is_lower_better is False


def test_a_column_is_a_case_by_itself_and_must_have_dates() -> None:
    sent = as_record(ImportedSeries("", "latency", (1.0,), times=(5e8,)), "suite", "lab", None, "")
    assert (sent.series.case_name, sent.series.metric, sent.series.pool) == ("latency", "value", "lab")
    assert not sent.HasField("is_lower_better")
    with pytest.raises(CommandError, match="latency has no dates, and a history needs them"):
        as_record(ImportedSeries("", "latency", (1.0,)), "suite", "", None, "")


class Terminal(io.StringIO):
    """Standard error of somebody who looks at it."""

    def isatty(self) -> bool:
        """It is one."""
        return True


def test_how_far_it_is_is_shown_on_a_terminal_alone_and_not_where_quiet_was_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_history(tmp_path / "h.csv")
    shown = {}
    for kind, options in (("seen", []), ("quiet", ["--quiet"])):
        with monkeypatch.context() as context:
            context.setattr("sys.stderr", terminal := Terminal())
            context.setenv("TERM", "xterm")
            assert run_cli(["trends", "analyze", str(path), *options]) == ExitCode.OK
        shown[kind] = terminal.getvalue()
    assert "unusual values" in shown["seen"] or "changes in 200 values of 2 series" in shown["seen"]
    assert "\x1b[2K" in shown["seen"], "and it is gone when it is done"
    assert shown["quiet"] == ""
    assert run_cli(["trends", "analyze", str(path)]) == ExitCode.OK
    assert capsys.readouterr().err == ""


def test_series_in_which_nothing_could_be_found_are_told_apart(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "h.csv").write_text("a,b\n" + "1,2\n" * 11)
    assert run_cli(["trends", "analyze", str(tmp_path / "h.csv"), "--column", "a"]) == ExitCode.OK
    assert "changes  none could be found in fewer than 12 values" in capsys.readouterr().out
    assert run_cli(["trends", "analyze", str(tmp_path / "h.csv")]) == ExitCode.OK
    assert capsys.readouterr().out.splitlines()[-1] == (
        "all 2 series have fewer than 12 points; nothing could have been found in them"
    )
    assert run_cli(["trends", "analyze", str(tmp_path / "h.csv"), "--json"]) == ExitCode.OK
    assert [each["is_too_short"] for each in json.loads(capsys.readouterr().out)["series"]] == [True, True]

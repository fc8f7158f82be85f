"""`make bench NAME=accuracy` on small folders in both public formats, made here; without peers."""

import json
from pathlib import Path

import numpy as np
import pytest

from bench import accuracy_bench
from bench.accuracy_alarms import find_step, summary, watch
from bench.accuracy_families import FAMILIES, noise
from bench.accuracy_folders import FolderError, read_annotated, read_labelled
from bench.accuracy_marks import find_changes, merged
from dtf.core.trend.changes import ChangeStream


def change_point_folder(folder: Path) -> Path:
    """Two series with a clear step at 60, one of them of two dimensions, and one without any."""
    random = np.random.default_rng(1)
    marks = {"one": [60], "both": [60], "none": []}
    for name, found in marks.items():
        columns = [10 + random.standard_normal(120) for _ in range(2 if name == "both" else 1)]
        for column in columns:
            column[60:] += 6.0 if found else 0.0
        document = {
            "name": name,
            "n_obs": 120,
            "n_dim": len(columns),
            "series": [{"label": "V", "type": "float", "raw": column.tolist()} for column in columns],
        }
        (folder / f"{name}.json").write_text(json.dumps(document))
    annotations = {name: {"6": found, "7": found} for name, found in marks.items()}
    (folder / "annotations.json").write_text(json.dumps(annotations))
    return folder


def anomaly_folder(folder: Path) -> Path:
    """A file with a spike no one can miss at 700 of 1,000, and its window."""
    (folder / "data" / "made").mkdir(parents=True)
    (folder / "labels").mkdir()
    values = 10 + np.random.default_rng(2).standard_normal(1000)
    values[700:703] += 60.0
    start = np.datetime64("2026-05-01T00:00:00")
    times = [str(start + np.timedelta64(5 * number, "m")).replace("T", " ") for number in range(1000)]
    rows = "".join(f"{time},{value}\n" for time, value in zip(times, values, strict=True))
    (folder / "data" / "made" / "spike.csv").write_text("timestamp,value\n" + rows)
    windows = {"made/spike.csv": [[f"{times[690]}.000000", f"{times[720]}.000000"]]}
    (folder / "labels" / "combined_windows.json").write_text(json.dumps(windows))
    return folder


def test_folders_of_users_are_scored(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tcpd").mkdir()
    (tmp_path / "nab").mkdir()
    arguments = [
        "--tcpd",
        str(change_point_folder(tmp_path / "tcpd")),
        "--nab",
        str(anomaly_folder(tmp_path / "nab")),
    ]
    monkeypatch.setattr("sys.argv", ["accuracy", "--part", "tcpd,nab", "--peers", "", "--json", *arguments])
    assert accuracy_bench.main() == 0
    out = capsys.readouterr().out
    assert "Change points beside human marks: 3 series, margin 5" in out
    assert "Anomalies, NAB standard profile: 1 files, 1,000 points" in out
    figures = json.loads(out.splitlines()[-1])
    ours, none = (figures["tcpd"]["scores"][name] for name in ("ours", "none"))
    assert ours["f1"] == 1.0
    assert ours["cover"] > 0.98
    assert none["f1"] == pytest.approx((2 / 3 + 2 / 3 + 1) / 3)
    each = figures["nab"]["each"]["made/spike.csv"]
    assert (each["windows"], each["found"]) == (1, 1)
    assert figures["nab"]["score"] > 60.0


def test_a_folder_in_another_format_is_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["accuracy", "--part", "tcpd", "--peers", "", "--tcpd", str(tmp_path)])
    assert accuracy_bench.main() == 2
    assert "error: no annotations.json in" in capsys.readouterr().err


@pytest.mark.parametrize("family", FAMILIES)
def test_what_the_bench_counts_is_what_append_says_point_by_point(family: str) -> None:
    values = noise(family, 200, 1)
    whole, single = ChangeStream(), ChangeStream()
    said = whole.extend(np.arange(200.0), values)
    assert said == [
        each for at, value in enumerate(values.tolist()) for each in single.append(float(at), value)
    ]
    assert watch(family, 200, 1).is_alarm_at_end == bool(
        [each for each in single.change_points if not (family == FAMILIES[5] and each.kind == "drift")]
    )


def test_a_step_of_5_sigma_is_found_near_its_place() -> None:
    found = [find_step(5.0, number) for number in range(6)]
    assert summary(found)["found"] == 1.0
    assert all(0 < each.delay <= 8 and each.last_error <= 2 for each in found)


def test_change_points_of_several_dimensions_near_each_other_are_one() -> None:
    assert merged([10, 12, 17, 40, 100, 103]) == [12, 40, 103]


TCPD_FAULTS = {
    "annotations.json": [
        ("{", r"annotations\.json is no JSON: "),
        ("{}", "has no annotations: expected"),
        ('{"one": {"6": ["60"]}}', r"annotator '6' of 'one' has \['60'\]"),
        ('{"one": {"6": [120]}}', "one.json has 120 values, and a mark is at 120, counted from 0"),
        ('{"two": {"6": []}}', "none of the 3 other JSON files in .* has a name that .* knows, as 'two'"),
    ],
    "one.json": [
        ("[1, 2", r"one\.json is no JSON: "),
        ('{"name": "one", "series": []}', '"series" has no dimension'),
        ('{"name": "one", "series": [{"raw": []}]}', "dimension 0 has no values"),
        (
            '{"name": "one", "series": [{"raw": [1, "x"]}]}',
            "value 1 of dimension 0 is 'x': expected a number, or",
        ),
        ('{"name": "one", "series": [{"raw": [1]}, {"raw": [1, 2]}]}', "its dimensions have 1, 2 values"),
    ],
}


@pytest.mark.parametrize(
    ("name", "text", "message"), [(name, *each) for name, faults in TCPD_FAULTS.items() for each in faults]
)
def test_what_is_wrong_in_a_folder_of_change_points_is_told(
    tmp_path: Path, name: str, text: str, message: str
) -> None:
    (change_point_folder(tmp_path) / name).write_text(text)
    with pytest.raises(FolderError, match=message):
        read_annotated(tmp_path)


def test_values_that_are_missing_are_passed_over(tmp_path: Path) -> None:
    path = change_point_folder(tmp_path) / "one.json"
    document = json.loads(path.read_text())
    document["series"][0]["raw"][10:14] = [None, None, float("nan"), 11]
    path.write_text(json.dumps(document))
    (one,) = (each for each in read_annotated(tmp_path) if each.name == "one")
    assert np.isnan(one.values[10:14, 0]).tolist() == [True, True, True, False]
    assert abs(find_changes(one.values)[0] - 60) <= 2


NAB_FAULTS = {
    "labels/combined_windows.json": [
        ("nothing", r"combined_windows\.json is no JSON: "),
        ("[]", "has no windows: expected"),
        ('{"made/other.csv": []}', "names made/other.csv, which is not below"),
        (
            '{"made/spike.csv": [["2026-05-01 00:00:00", "2027-01-01 00:00:00"]]}',
            "made/spike.csv has the window",
        ),
    ],
    "data/made/spike.csv": [
        ("time,value\n1,2\n", r"has the columns \['time', 'value'\]: expected timestamp,value"),
        ("timestamp,value\n2026-05-01,x\n", "line 2: could not convert string to float: 'x'"),
        ("timestamp,value\n1 May,1\n", "line 2: Invalid isoformat string: '1 May'"),
        ("timestamp,value\n2026-05-01,nan\n", "line 2: no value"),
        ("timestamp,value\n", "has a header and no values"),
    ],
}


@pytest.mark.parametrize(
    ("name", "text", "message"), [(name, *each) for name, faults in NAB_FAULTS.items() for each in faults]
)
def test_what_is_wrong_in_a_folder_of_anomalies_is_told(
    tmp_path: Path, name: str, text: str, message: str
) -> None:
    (anomaly_folder(tmp_path) / name).write_text(text)
    with pytest.raises(FolderError, match=message):
        read_labelled(tmp_path)


def test_a_folder_that_is_not_the_one_is_told_before_anything_is_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tcpd" / "datasets").mkdir(parents=True)
    change_point_folder(tmp_path / "tcpd")
    anomaly_folder(tmp_path)
    for option, folder, message in (
        ("--tcpd", tmp_path / "nowhere", "nowhere is no folder, there is nothing"),
        ("--tcpd", tmp_path / "tcpd" / "datasets", f"there is one in {tmp_path / 'tcpd'}: name that folder"),
        ("--nab", tmp_path / "data", f"there is one for {tmp_path}: name that folder"),
    ):
        monkeypatch.setattr("sys.argv", ["accuracy", "--peers", "", option, str(folder)])
        assert accuracy_bench.main() == 2
        told = capsys.readouterr()
        assert message in told.err
        assert told.out == ""

"""`make bench NAME=accuracy` on small folders in both public formats, made here; without peers."""

import json
from pathlib import Path

import numpy as np
import pytest

from bench import accuracy_bench
from bench.accuracy_alarms import find_step, summary, watch
from bench.accuracy_families import FAMILIES, noise
from bench.accuracy_marks import merged
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

"""The scores of `make bench NAME=accuracy`, held against published examples; its readers, on folders made here."""

import json
from pathlib import Path

import numpy as np
import pytest

from bench.accuracy_baselines import BASELINES
from bench.accuracy_families import FAMILIES, STEP_AT, noise, with_step
from bench.accuracy_folders import FolderError, LabelledSeries, read_annotated, read_labelled
from bench.accuracy_lookalikes import FIRST, Hand, write_folder
from bench.accuracy_lookalikes_again import AGAIN
from bench.accuracy_lookalikes_third import THIRD
from bench.accuracy_scores import (
    NabFile,
    NabProfile,
    covering,
    f1,
    nab_raw,
    nab_reward,
    nab_score,
    probation,
    segments,
    wilson,
)
from bench.accuracy_watched import watched, write_watched
from bench.accuracy_watched_kinds import KINDS as WATCHED_KINDS


@pytest.mark.parametrize(
    ("annotations", "found", "expected"),
    [
        ({"1": [10, 20], "2": [11, 20], "3": [10], "4": [0, 5]}, [10, 20], 1.0),
        ({"1": [], "2": [10], "3": [50]}, [10], 0.9090909090909091),
        ({"1": [], "2": [10], "3": [50]}, [], 0.8),
    ],
)
def test_f1_is_that_of_the_turing_benchmark(
    annotations: dict[str, list[int]], found: list[int], expected: float
) -> None:
    assert f1(annotations, found) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("annotations", "found", "expected"),
    [
        ({"1": [10, 20], "2": [10], "3": [0, 5]}, [10, 20], 0.7962962962962963),
        ({"1": [], "2": [10], "3": [40]}, [10], 0.7954144620811286),
        ({"1": [], "2": [10], "3": [40]}, [], 0.8189300411522634),
    ],
)
def test_covering_is_that_of_the_turing_benchmark(
    annotations: dict[str, list[int]], found: list[int], expected: float
) -> None:
    assert covering(annotations, found, 45) == pytest.approx(expected)


def test_one_finding_serves_one_mark_only() -> None:
    assert f1({"1": [10, 12]}, [11]) == pytest.approx(2 * 1.0 * (2 / 3) / (1 + 2 / 3))


def test_a_finding_more_than_five_positions_away_is_false() -> None:
    assert f1({"1": [50]}, [55]) == 1.0
    assert f1({"1": [50]}, [56]) == pytest.approx(0.5)


def test_segments_are_half_open_and_ignore_edges() -> None:
    assert segments([0, 5, 5, 8], 8) == [(0, 5), (5, 8)]


def test_the_reward_of_a_detection_is_that_of_nabs_paper() -> None:
    assert nab_reward(-1.0) == pytest.approx(0.98661, abs=1e-5)
    assert nab_reward(-0.5) == pytest.approx(0.84828, abs=1e-5)
    assert nab_reward(0.0) == 0.0
    assert nab_reward(1.0) == pytest.approx(-0.98661, abs=1e-5)
    assert nab_reward(3.0) == -1.0


def test_a_found_a_missed_and_a_false_one_score_as_in_nabs_own_test() -> None:
    """NAB's testScoringAllMetrics: every weight 1, detections at a window's first two positions and three behind it."""
    scores = np.zeros(100)
    scores[[20, 21, 27]] = 1.0
    file = NabFile(scores, ((20, 24), (60, 64)))
    assert nab_raw(file, 0.5, NabProfile(1.0, 1.0, 1.0)) == pytest.approx(-0.9540, abs=1e-4)


@pytest.mark.parametrize(("length", "expected"), [(100, 15), (1000, 150), (5000, 750), (22_000, 750)])
def test_probation_is_15_percent_of_at_most_5000_points(length: int, expected: int) -> None:
    assert probation(length) == expected


def test_nothing_counts_during_probation() -> None:
    scores = np.zeros(1000)
    scores[:150] = 1.0
    assert nab_raw(NabFile(scores, ()), 0.5) == 0.0
    scores[150] = 1.0
    assert nab_raw(NabFile(scores, ()), 0.5) == pytest.approx(-0.11)


def test_silence_is_0_and_the_first_position_of_each_window_100() -> None:
    silent, perfect = np.zeros(1000), np.zeros(1000)
    windows = ((300, 349), (700, 749))
    perfect[[300, 700]] = 1.0
    assert nab_score([NabFile(silent, windows)], [0.5]) == [0.0]
    assert nab_score([NabFile(perfect, windows)], [0.5]) == [pytest.approx(100.0)]


def test_a_false_detection_costs_nearly_nothing_right_behind_a_window_and_all_before_it() -> None:
    scores = np.zeros(1000)
    scores[[300, 351]] = 1.0
    behind = nab_raw(NabFile(scores, ((300, 349),)), 0.5)
    scores[[200, 351]] = [1.0, 0.0]
    before = nab_raw(NabFile(scores, ((300, 349),)), 0.5)
    assert behind > 0.98
    assert before == pytest.approx(1.0 - 0.11)


def test_the_share_of_no_event_in_400_may_be_1_percent() -> None:
    low, high = wilson(0, 400)
    assert low == 0.0
    assert high == pytest.approx(0.0095, abs=1e-4)
    assert list(wilson(20, 400)) == pytest.approx([0.0326, 0.0760], abs=1e-4)


def annotated_folder(folder: Path) -> Path:
    """Two series in the format of the Turing Change Point Dataset, one of two dimensions with a gap."""
    both: dict[str, list[list[float | None]]] = {"flat": [[1.0, 1.5, 1.0]], "two": [[1, 2, 9], [4, None, 6]]}
    for name, columns in both.items():
        (folder / "datasets" / name).mkdir(parents=True)
        document = {
            "name": name,
            "longname": name,
            "n_obs": 3,
            "n_dim": len(columns),
            "time": {"type": "string", "format": "%Y", "index": [0, 1, 2], "raw": ["2001", "2002", "2003"]},
            "series": [{"label": "V", "type": "float", "raw": column} for column in columns],
        }
        (folder / "datasets" / name / f"{name}.json").write_text(json.dumps(document))
    marks = {"flat": {"6": [], "8": []}, "two": {"6": [2], "7": [1, 2]}, "not here": {"6": []}}
    (folder / "annotations.json").write_text(json.dumps(marks))
    return folder


def test_a_folder_in_turings_format_is_read(tmp_path: Path) -> None:
    flat, two = read_annotated(annotated_folder(tmp_path))
    assert (flat.name, flat.values.shape, flat.annotations) == ("flat", (3, 1), {"6": [], "8": []})
    assert (two.name, two.values.shape, two.annotations) == ("two", (3, 2), {"6": [2], "7": [1, 2]})
    assert np.isnan(two.values[1, 1])


def test_a_folder_without_annotations_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FolderError, match=r"no annotations\.json"):
        read_annotated(tmp_path)


def labelled_folder(folder: Path) -> Path:
    """A file in NAB's format; its clock is set back once, so that a time comes twice."""
    (folder / "data" / "made").mkdir(parents=True)
    (folder / "labels").mkdir()
    times = [f"2026-05-01 00:{minute:02}:00" for minute in (0, 5, 10, 15, 20, 10, 25)]
    rows = "".join(f"{time},{number}\n" for number, time in enumerate(times))
    (folder / "data" / "made" / "one.csv").write_text("timestamp,value\n" + rows)
    windows = {"made/one.csv": [["2026-05-01 00:10:00.000000", "2026-05-01 00:20:00.000000"]]}
    (folder / "labels" / "combined_windows.json").write_text(json.dumps(windows))
    return folder


def test_a_folder_in_nabs_format_is_read(tmp_path: Path) -> None:
    (series,) = read_labelled(labelled_folder(tmp_path))
    assert series.name == "made/one.csv"
    assert series.values.tolist() == [0, 1, 2, 3, 4, 5, 6]
    assert series.windows == ((2, 4),)


def test_a_window_that_is_no_time_of_its_file_is_refused(tmp_path: Path) -> None:
    folder = labelled_folder(tmp_path)
    windows = {"made/one.csv": [["2026-05-01 00:11:00", "2026-05-01 00:20:00"]]}
    (folder / "labels" / "combined_windows.json").write_text(json.dumps(windows))
    with pytest.raises(FolderError, match="times that are in the file"):
        read_labelled(folder)


@pytest.mark.parametrize("collection", [FIRST, AGAIN, THIRD], ids=["first", "again", "third"])
def test_lookalikes_are_a_folder_in_the_format_of_the_turing_benchmark(
    collection: Hand, tmp_path: Path
) -> None:
    write_folder(tmp_path, collection, range(1))
    series = {each.name: each for each in read_annotated(tmp_path)}
    assert set(series) == {f"{kind}_0" for kind in collection.names}
    known, nothing = [], []
    for kind in collection.names:
        truth, marks = collection.made(kind, 0)
        assert series[f"{kind}_0"].values.tolist() == truth.values.tolist()
        assert series[f"{kind}_0"].annotations == marks
        assert len(marks) == 5
        known.append(f1(marks, truth.places))
        nothing.append(f1(marks, []))
    assert sum(known) > 0.9 * len(known)
    assert sum(nothing) < 0.8 * len(nothing)


def test_the_third_hands_annotators_agree_as_people_do() -> None:
    agreements = []
    for kind in THIRD.names:
        _, marks = THIRD.made(kind, 0)
        for annotator, own in marks.items():
            agreements.append(f1({each: marks[each] for each in marks if each != annotator}, own))
    assert sum(agreements) / len(agreements) == pytest.approx(0.83, abs=0.03)


@pytest.mark.parametrize("kind", ["working_days_3", "cost", "speed", "keys_0"])
def test_metrics_made_here_are_read_back_with_their_windows(kind: str, tmp_path: Path) -> None:
    series = watched(kind, 7, 0)
    write_watched(tmp_path, [series])
    (read,) = read_labelled(tmp_path)
    assert read.values.tolist() == series.values.tolist()
    assert read.times.tolist() == series.times.tolist()
    assert read.name == series.name
    assert len(read.windows) == len(series.windows) > 0
    share = sum(last - first + 1 for first, last in series.windows) / len(series.values)
    assert share == pytest.approx(0.1, abs=0.01)
    assert not np.array_equal(watched(kind, 8, 0).values[:99], series.values[:99])


def test_a_corpus_has_as_many_files_as_the_one_it_is_like() -> None:
    assert sum(count for _, count, _ in WATCHED_KINDS.values()) == 58


@pytest.mark.parametrize("name", BASELINES)
def test_each_published_detector_sees_the_plainest_anomaly(name: str) -> None:
    values = 50.0 + np.random.default_rng(98_700).standard_normal(1200)
    values[900:930] += 40.0
    scores = BASELINES[name][0](LabelledSeries("one", np.arange(1200.0), values, ((880, 940),)))
    assert scores.min() >= 0.0 and scores.max() <= 1.0
    assert scores[900:930].max() == scores[200:].max() > scores[200:900].min()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_series_of_noise_is_the_same_each_time_and_others_are_others(family: str) -> None:
    assert np.array_equal(noise(family, 200, 3), noise(family, 200, 3))
    assert not np.array_equal(noise(family, 200, 3), noise(family, 200, 4))


def test_families_have_the_spread_they_are_named_for() -> None:
    for family in ("iid", "AR(1) .5"):
        values = np.concatenate([noise(family, 1000, number) for number in range(20)])
        assert values.std() == pytest.approx(1.0, abs=0.03)
    rises = np.asarray([with_step(3.0, number) for number in range(1, 400, 2)])
    assert rises[:, STEP_AT:].mean() - rises[:, :STEP_AT].mean() == pytest.approx(3.0, abs=0.05)

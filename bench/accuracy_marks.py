"""Findings beside marks of humans: F1 and covering of change points, NAB's score of anomalies."""

from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np

from bench.accuracy_baselines import BASELINES
from bench.accuracy_environment import Peer, ask, say
from bench.accuracy_folders import (
    AnnotatedSeries,
    LabelledSeries,
    as_json_values,
    read_annotated,
    read_labelled,
)
from bench.accuracy_scores import MARGIN, STANDARD, Floats, NabFile, covering, f1, nab_score, probation
from dtf.core.trend.anomalies import ALARM_SCORE, AnomalyDetector
from dtf.core.trend.changes import ChangeStream

F1_AIM, COVER_AIM = 0.80, 0.72
NAB_AIMS = (60.0, 70.0)


def measure_annotated(folder: Path, peers: Sequence[Peer], pool: ProcessPoolExecutor) -> dict[str, Any]:
    """F1 and covering of each, averaged over series; `none` is who finds nothing."""
    series = read_annotated(folder)
    say(f"{len(series)} annotated series in {folder}")
    found = {"ours": list(pool.map(find_changes, [each.values for each in series]))}
    for peer in peers:
        answer = ask(peer, {"series": [as_json_values(each.values) for each in series]})
        if answer is not None:
            found[peer.name] = answer.answers
    found["none"] = [[] for _ in series]
    return {
        "series": len(series),
        "scores": {name: scored(series, findings) for name, findings in found.items()},
        "each": {
            each.name: {
                **{name: findings[number] for name, findings in found.items()},
                "annotations": each.annotations,
                "f1": f1(each.annotations, found["ours"][number]),
                "cover": covering(each.annotations, found["ours"][number], len(each.values)),
                "none_f1": f1(each.annotations, []),
                "none_cover": covering(each.annotations, [], len(each.values)),
            }
            for number, each in enumerate(series)
        },
    }


def scored(series: Sequence[AnnotatedSeries], found: Sequence[Sequence[int]]) -> dict[str, float]:
    """Means over the series, also over those of one dimension alone."""
    pairs = list(zip(series, found, strict=True))
    flat = [(each, findings) for each, findings in pairs if each.values.shape[1] == 1]
    return {
        "f1": mean(f1(each.annotations, findings) for each, findings in pairs),
        "cover": mean(covering(each.annotations, findings, len(each.values)) for each, findings in pairs),
        "f1_one_dimension": mean(f1(each.annotations, findings) for each, findings in flat) if flat else 0.0,
        "cover_one_dimension": mean(
            covering(each.annotations, findings, len(each.values)) for each, findings in flat
        )
        if flat
        else 0.0,
    }


def find_changes(values: Floats) -> list[int]:
    """Change points of a finished series of shape (n, d): each dimension by itself, near ones being one."""
    found: list[int] = []
    for column in values.T:
        stream = ChangeStream()
        stream.extend(np.arange(len(column), dtype=np.float64), column)
        found += [each.index for each in stream.change_points]
    return merged(found)


def merged(found: Sequence[int], margin: int = MARGIN) -> list[int]:
    """Positions with those at most `margin` from the one before taken together, at their median."""
    groups: list[list[int]] = []
    for index in sorted(found):
        if groups and index - groups[-1][-1] <= margin:
            groups[-1].append(index)
        else:
            groups.append([index])
    return [group[len(group) // 2] for group in groups]


def measure_labelled(folder: Path, pool: ProcessPoolExecutor) -> dict[str, Any]:
    """NAB's standard profile with one fixed threshold, and with the threshold that suits the files best."""
    series = read_labelled(folder)
    say(f"{len(series)} labelled series in {folder}")
    ours = _files(series, pool.map(anomaly_scores, series))
    baselines = {
        name: best_score(_files(series, pool.map(detector, series)))[0]
        for name, (detector, _) in BASELINES.items()
    }
    best, threshold = best_score(ours)
    return {
        "files": len(series),
        "points": sum(len(each.values) for each in series),
        "threshold": ALARM_SCORE,
        "score": nab_score(ours, [ALARM_SCORE])[0],
        "best_threshold": threshold,
        "best_score": best,
        "baselines": baselines,
        "by_folder": {
            name: nab_score(files, [ALARM_SCORE])[0] for name, files in _by_folder(series, ours).items()
        },
        "each": {each.name: file_summary(file) for each, file in zip(series, ours, strict=True)},
    }


def file_summary(file: NabFile) -> dict[str, Any]:
    """How many windows were found and how many alarms there were outside of them."""
    alarms = np.flatnonzero(file.scores >= ALARM_SCORE)
    alarms = alarms[alarms >= probation(len(file.scores))]
    inside = [bool(np.any((alarms >= first) & (alarms <= last))) for first, last in file.windows]
    outside = [int(each) for each in alarms if not any(a <= each <= b for a, b in file.windows)]
    return {"windows": len(inside), "found": sum(inside), "false": len(outside)}


def _files(series: Sequence[LabelledSeries], scores: Any) -> list[NabFile]:
    return [NabFile(each, item.windows) for item, each in zip(series, scores, strict=True)]


def _by_folder(series: Sequence[LabelledSeries], files: Sequence[NabFile]) -> dict[str, list[NabFile]]:
    folders: dict[str, list[NabFile]] = {}
    for each, file in zip(series, files, strict=True):
        folders.setdefault(each.name.rpartition("/")[0], []).append(file)
    return folders


def best_score(files: Sequence[NabFile], profile: Any = STANDARD) -> tuple[float, float]:
    """The corpus' best score over one threshold for all, as NAB reports it, and that threshold."""
    scores = np.unique(np.concatenate([each.scores for each in files]))
    ranks = 1.0 - np.geomspace(0.5 / len(scores), 0.5, 400)
    thresholds = np.unique(np.append(np.quantile(scores, ranks, method="higher"), ALARM_SCORE))
    totals = nab_score(files, thresholds.tolist(), profile)
    best = int(np.argmax(totals))
    return totals[best], float(thresholds[best])


def anomaly_scores(series: LabelledSeries) -> Floats:
    """Our score of each point as it comes; the range of the values is told, as NAB tells it to every detector."""
    detector = AnomalyDetector(minimum=float(series.values.min()), maximum=float(series.values.max()))
    update: Callable[[float, float], float] = detector.update
    pairs = zip(series.times.tolist(), series.values.tolist(), strict=True)
    return np.asarray([update(time, value) for time, value in pairs])

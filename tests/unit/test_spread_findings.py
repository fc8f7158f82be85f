"""A change of the spread on its way through the service: a change, in its own words, and no regression."""

import pytest

from dtf.adapters.memory_vault import MemoryVault
from dtf.api.v1 import analysis_service_pb2 as pb
from dtf.api.v1 import findings_pb2
from dtf.core.trend.comparing import compare_series
from dtf.core.trend.finding_text import finding_sentence
from dtf.core.trend.finding_track import FindingTrack, Place
from dtf.core.trend.findings import ChangeKind, ChangePoint, ChangeState, Effect, Impact, Interval
from dtf.core.trend.gating import GateRule, judge
from dtf.trend_analyzer.answers import series_difference
from tests.trend_histories import LATENCY, bench_history, noise, search

AT = 60


def change(kind: ChangeKind, index: int) -> ChangePoint:
    """A change of that kind at that place."""
    effect = Effect(1.0, 1.0, Interval(0.9, 1.1), Interval(0.9, 1.1))
    return ChangePoint(
        index=index,
        time=float(index),
        kind=kind,
        state=ChangeState.PROVISIONAL,
        confidence=0.9999,
        effect=effect,
        first_index=index - 2,
        last_index=index + 2,
        level_before=1.0,
        level_after=2.0,
        impact=Impact.CHANGE,
    )


@pytest.fixture(name="latencies")
def made_latencies() -> list[float]:
    """A level whose spread grows fivefold."""
    return [*noise(1, AT, 0.1, 0.001), *noise(2, AT + 20, 0.1, 0.005)]


def test_a_spread_is_a_change_in_its_own_words(latencies: list[float]) -> None:
    book, findings = search(bench_history(latencies), MemoryVault())
    own = [each for each in findings if each.series.metric == LATENCY.metric]
    found = [each for each in own if each.kind == findings_pb2.FINDING_KIND_VARIANCE][-1]
    assert found.state == findings_pb2.FINDING_STATE_CONFIRMED
    assert found.impact == findings_pb2.FINDING_IMPACT_CHANGE
    assert abs(found.index - AT) <= 5
    assert 3.0 < found.level_after / found.level_before < 8.0
    sentence = finding_sentence(found)
    assert sentence.startswith("confirmed variance: load latency (local) spread +")
    assert sentence.split(" since ")[0].endswith("(standard deviation)")

    series = book.get(LATENCY)
    assert series is not None
    compared = compare_series(series, "rev0010", "rev0059", lambda _: True)
    assert compared is not None
    tracked = [pb.TrackedFinding(finding=found, is_raised=True)]
    assert compared.impact is Impact.CHANGE
    message = series_difference(compared, tracked)
    verdict = judge([message], GateRule(0.0, {}, fails_on_provisional=True))
    assert verdict.is_passed


def test_a_step_does_not_become_a_spread() -> None:
    track = FindingTrack(LATENCY)

    def place(_: ChangePoint) -> Place:
        return Place(0, "", "", "", "")

    (step,) = track.update([change(ChangeKind.STEP, 30)], 1, place)
    gone, spread = track.update([change(ChangeKind.VARIANCE, 30)], 1, place)
    assert (gone.finding_id, gone.change.state, gone.is_moved) == (
        step.finding_id,
        ChangeState.WENT_AWAY,
        False,
    )
    assert spread.finding_id != step.finding_id
    (moved,) = track.update([change(ChangeKind.VARIANCE, 32)], 2, place)
    assert moved.finding_id == spread.finding_id

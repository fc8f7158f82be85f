"""Series and their findings: what a log says, whenever it was saved and whatever was in memory."""

import math
import random

import pytest

from dtf.adapters.memory_vault import MemoryVault
from dtf.api.v1 import findings_pb2 as pb
from dtf.core.trend.finding_track import FindingTrack, Place
from dtf.core.trend.findings import ChangeKind, ChangePoint, ChangeState, Effect, Interval
from dtf.core.trend.names import NameBook
from dtf.core.trend.series_book import SeriesBook, pack_series, unpack_series
from dtf.core.trend.series_points import AnalyzedLogFold, SeriesKey, SeriesPoint
from dtf.core.trend.together import RowValue
from dtf.ports.series_vault import VaultCheckpoint
from dtf.trend_analyzer.findings_keeper import MOST_IN_BLOCK, blocks
from tests.trend_events import PASSED, accepted, commit, finished, granted, run_created, shard_submitted
from tests.trend_histories import LATENCY, THROUGHPUT, bench_history, noise, search, stepped

pytestmark = pytest.mark.trend_analyzer

LATENCIES = stepped(noise(1, 80, 0.1, 0.002), 40, 0.02)


def point(number: int, value: float, case: str = "c", size: int = 0) -> SeriesPoint:
    """The point of run `number`."""
    key = SeriesKey("s", case, "duration_seconds", "local")
    return SeriesPoint(key, "s", True, number * 10**9, value, 1.0, f"r{number}", f"v{number}", number, size)


def points_of(*commits: object) -> list[SeriesPoint]:
    """The series' points of a log."""
    fold = AnalyzedLogFold(NameBook())
    for sequence, each in enumerate(commits, start=1):
        fold.apply(each, sequence)  # type: ignore[arg-type]  # commits
    return fold.take_series_points()


def test_a_step_is_a_finding_with_its_series_place_revisions_and_cause() -> None:
    _, found = search(bench_history(LATENCIES), MemoryVault())
    assert {finding.series.metric for finding in found} == {"latency"}
    first, last = found[0], found[-1]
    assert (first.state, last.state) == (pb.FINDING_STATE_PROVISIONAL, pb.FINDING_STATE_CONFIRMED)
    assert last.impact == pb.FINDING_IMPACT_REGRESSION
    assert (last.series.suite, last.series.case_name, last.series.pool) == ("bench", "load", "local")
    assert abs(last.index - 40) <= 1
    assert (last.revision_before, last.revision_last) == ("rev0019", "rev0020")
    assert last.relative_low < 0.2 < last.relative_high
    assert first.log_sequence in (1 + 4 * 41, 1 + 4 * 42, 1 + 4 * 43)
    assert {finding.finding_id for finding in found if finding.kind == last.kind} == {last.finding_id}


def test_better_throughput_is_an_improvement() -> None:
    _, found = search(
        bench_history(noise(2, 80, 0.1, 0.002), stepped(noise(3, 80, 500, 10), 40, 100)), MemoryVault()
    )
    assert {(each.series.metric, each.impact) for each in found} == {
        ("throughput", pb.FINDING_IMPACT_IMPROVEMENT)
    }


def test_saving_and_leaving_memory_at_any_point_changes_nothing() -> None:
    commits = bench_history(LATENCIES)
    _, straight = search(commits, MemoryVault())
    fold, found = AnalyzedLogFold(NameBook()), []
    vault = _SavedVault()
    book = SeriesBook(vault, most_in_memory=1)
    for sequence, each in enumerate(commits, start=1):
        fold.apply(each, sequence)
        for each_point in fold.take_series_points():
            found += book.append(each_point)
        if sequence % 7 == 0:
            vault.put(book.take())
            book = SeriesBook(vault, most_in_memory=1)
    assert found == straight
    assert {pack_series(unpack_series(data)) == data for data in vault.series.values()} == {True}


@pytest.mark.parametrize("seed", [1, 2])
def test_points_taken_up_at_once_are_searched_as_one_by_one(seed: int) -> None:
    chance = random.Random(seed)
    values = stepped(stepped(noise(seed, 700, 100.0, 1.0), 150, 6.0), 420, -9.0)
    values[300], values[301], values[610] = 180.0, math.nan, 20.0
    points = [point(number, value) for number, value in enumerate(values, start=1)]
    points[50] = points[50]._replace(time_ns=points[20].time_ns)  # was read before
    points[60] = points[60]._replace(is_replicate=True)
    points[70] = points[70]._replace(size=10)
    points[71] = points[71]._replace(size=3)
    one, many = SeriesBook(MemoryVault()), SeriesBook(MemoryVault())
    singly = [finding for each in points for finding in one.append(each)]
    together: list[pb.Finding] = []
    rest = points
    while rest:
        size = chance.choice([1, 2, 7, 64, 300])
        together += many.extend(rest[:size])
        rest = rest[size:]
    assert {finding.kind for finding in singly} >= {pb.FINDING_KIND_STEP, pb.FINDING_KIND_POINT}
    assert together == singly
    assert many.take() == one.take()


def test_points_of_one_series_that_follow_each_other_are_a_block() -> None:
    row = (RowValue("duration_seconds", "s", 1.0),)
    points = [
        *(point(number, 1.0) for number in range(70)),
        *(point(number, 1.0, "d") for number in range(2)),
        point(80, 1.0)._replace(row=row),
        point(81, 1.0),
    ]
    found = list(blocks(points))
    assert [len(block) for block in found] == [MOST_IN_BLOCK, 70 - MOST_IN_BLOCK, 2, 1, 1]
    assert [each for block in found for each in block] == points
    assert list(blocks([])) == []


class _SavedVault(MemoryVault):
    """A vault that is filled at once."""

    def __init__(self) -> None:
        super().__init__()
        self.series = self._series

    def put(self, taken: object) -> None:
        """Save without a loop."""
        self._series.update(taken)  # type: ignore[call-overload]  # a mapping


async def test_a_saved_vault_gives_back_what_it_was_given() -> None:
    vault = MemoryVault()
    await vault.save({LATENCY: b"1"}, VaultCheckpoint(7, "{}", 3, 1))
    assert (vault.load(LATENCY), vault.load(THROUGHPUT), vault.keys("bench")) == (b"1", None, [LATENCY])
    assert await vault.checkpoint() == VaultCheckpoint(7, "{}", 3, 1)


def test_a_case_that_failed_is_no_point_and_replicates_are_one_with_their_weight() -> None:
    from dtf.api.v1 import common_pb2, events_pb2

    detail = events_pb2.CaseDetail(
        measurements=[
            events_pb2.Measurement(metric="latency", value=value, unit="s", is_lower_better=True)
            for value in (1.0, 9.0, 2.0)
        ]
    ).SerializeToString()
    points = points_of(
        commit(0, run_created(), shard_submitted("a", "b")),
        commit(1, granted(0)),
        commit(
            2,
            accepted(
                (0, 0, PASSED, 0.5),
                (0, 1, common_pb2.VERDICT_FAILED, 0.25),
                completed=[1],
                details=[detail, b""],
            ),
        ),
        commit(3, finished(passed=1, failed=1)),
    )
    assert [(each.key.case, each.key.metric, each.value, each.weight) for each in points] == [
        ("a", "duration_seconds", 0.5, 1.0),
        ("a", "latency", 2.0, 3.0),
    ]


def test_runs_of_a_part_of_the_suite_are_no_points_of_the_suite() -> None:
    book = SeriesBook(MemoryVault())
    for number, size in enumerate((100, 100, 3, 95), start=1):
        book.append(point(number, size / 10, case="", size=size))
    series = book.get(point(1, 0, case="").key)
    assert series is not None
    assert [position.value for position in series.positions] == [10.0, 10.0, 9.5]


def test_a_point_read_again_changes_nothing() -> None:
    book = SeriesBook(MemoryVault())
    for number in (1, 2, 2, 1, 3):
        book.append(point(number, 1.0))
    series = book.get(point(1, 0).key)
    assert series is not None
    assert series.count == 3


def _change(index: int, first: int, last: int, state: ChangeState = ChangeState.PROVISIONAL) -> ChangePoint:
    effect = Effect(1.0, float("nan"), Interval(0.5, 1.5), Interval(float("nan"), float("nan")))
    return ChangePoint(index, float(index), ChangeKind.STEP, state, 0.99, effect, first, last, 0.0, 1.0)


def _here(change: ChangePoint) -> Place:
    return Place(change.index, "", "", "", "")


def test_a_finding_keeps_its_identity_while_its_place_moves_and_says_so_when_it_is_gone() -> None:
    track = FindingTrack(("s", "c", "m", "p"))
    (born,) = track.update([_change(10, 9, 11)], 5, _here)
    assert track.update([_change(10, 9, 11)], 6, _here) == []
    (moved,) = track.update([_change(12, 10, 13)], 7, _here)
    assert (moved.finding_id, moved.version) == (born.finding_id, 2)
    (confirmed,) = track.update([_change(12, 12, 12, ChangeState.CONFIRMED)], 8, _here)
    gone, other = track.update([_change(30, 29, 31)], 9, _here)
    assert (gone.finding_id, gone.version, gone.change.state, gone.is_moved) == (
        born.finding_id,
        confirmed.version + 1,
        ChangeState.WENT_AWAY,
        False,
    )
    assert other.finding_id != born.finding_id
    assert [each.change.index for each in track.standing] == [30]

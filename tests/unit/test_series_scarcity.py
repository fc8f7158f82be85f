"""Series too short for anything to be found in them: how short that is, and who says so."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dtf.adapters.memory_vault import MemoryVault
from dtf.adapters.system_clock import SystemClock
from dtf.api.v1 import analysis_service_pb2 as pb
from dtf.api.v1 import findings_pb2
from dtf.cli.exit_codes import ExitCode
from dtf.cli.main import run_cli
from dtf.core.trend.changes import ChangeStream
from dtf.core.trend.scarcity import LEAST_POINTS, scarcity_text
from dtf.core.trend.series_book import SeriesBook
from dtf.core.trend.series_points import SeriesKey, SeriesPoint
from dtf.ports.series_vault import VaultCheckpoint
from dtf.trend_analyzer.census import SeriesCensus

pytestmark = pytest.mark.trend_analyzer


def test_fewer_points_than_that_never_have_a_change_and_as_many_may() -> None:
    found = set()
    for before in range(1, LEAST_POINTS):
        for seed in range(12):
            values = np.random.default_rng(seed).standard_normal(LEAST_POINTS)
            values[before:] += 1000.0
            stream = ChangeStream(lower_is_better=True)
            for position, value in enumerate(values.tolist()):
                if stream.append(float(position), value):
                    found.add(position + 1)
    assert found == {LEAST_POINTS}


@pytest.mark.parametrize(
    ("short", "count", "said"),
    [
        (0, 7, ""),
        (1, 1, "the only series has fewer than 12 points; nothing could have been found in it"),
        (1, 7, "1 of 7 series has fewer than 12 points; nothing could have been found in it"),
        (2, 7, "2 of 7 series have fewer than 12 points; nothing could have been found in them"),
        (7, 7, "all 7 series have fewer than 12 points; nothing could have been found in them"),
    ],
)
def test_it_is_said_in_a_sentence(short: int, count: int, said: str) -> None:
    assert scarcity_text(short, count, 12) == said


def append(book: SeriesBook, key: SeriesKey, numbers: range) -> None:
    """A point for each number."""
    for number in numbers:
        book.append(SeriesPoint(key, "s", True, number + 1, 1.0, 1.0, f"r{number}", "", number + 1))


async def test_series_in_memory_and_in_the_vault_are_counted_once_as_they_grow() -> None:
    vault = MemoryVault()
    book = SeriesBook(vault, most_in_memory=1)
    keys = [SeriesKey("s", "a", "m", "p"), SeriesKey("s", "b", "m", "p"), SeriesKey("t", "a", "m", "p")]
    for key, count in zip(keys, (LEAST_POINTS, LEAST_POINTS - 1, 1), strict=True):
        append(book, key, range(count))
        await vault.save(book.take(), VaultCheckpoint())
    census = SeriesCensus(book, vault, SystemClock())

    async def counted(**asked: str) -> tuple[int, int]:
        answer = await census.count(pb.CountSeriesRequest(**asked))
        assert answer.least_point_count == LEAST_POINTS
        return answer.series_count, answer.short_count

    assert await counted() == (3, 2)
    assert await counted(suite="s") == (2, 1)
    assert await counted(case_name="a") == (2, 1)
    append(book, keys[1], range(LEAST_POINTS - 1, LEAST_POINTS))
    assert await counted(suite="s") == (2, 0)
    assert await counted(suite="nothing") == (0, 0)


class Analyzer:
    """Answers with series that did not change, of so many points."""

    call: Mapping[str, Any] = {}

    def __init__(self, *counts: int, only_head: int = 0, together_limit: int = 0) -> None:
        self.stub = self
        self._together_limit = together_limit
        self._counts = counts
        self._only_head = only_head
        self._short = sum(count < LEAST_POINTS for count in counts)

    async def settle(self) -> None:
        """Everything was searched."""

    async def ListFindings(self, _request: pb.ListFindingsRequest) -> pb.ListFindingsResponse:
        """None."""
        return pb.ListFindingsResponse()

    async def CountSeries(self, _request: pb.CountSeriesRequest) -> pb.CountSeriesResponse:
        """As they are."""
        return pb.CountSeriesResponse(
            series_count=len(self._counts),
            short_count=self._short,
            least_point_count=LEAST_POINTS,
            together_limit=self._together_limit,
        )

    async def CompareRevisions(self, _request: pb.CompareRevisionsRequest) -> pb.CompareRevisionsResponse:
        """No series changed."""
        names = [
            findings_pb2.FindingSeries(suite="s", case_name=f"c{count}", metric="m") for count in self._counts
        ]
        return pb.CompareRevisionsResponse(
            series=[
                pb.SeriesComparison(series=name, point_count=count)
                for name, count in zip(names, self._counts, strict=True)
            ],
            short_count=self._short,
            least_point_count=LEAST_POINTS,
            only_head_count=self._only_head,
        )

    def ask(self, _invocation: object, ask: Callable[["Analyzer"], Awaitable[Any]]) -> Any:
        """In the place of `ask_analyzer`."""

        async def answered() -> Any:
            return await ask(self)

        return asyncio.run(answered())


Said = Callable[..., str]


@pytest.fixture
def said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Said:
    """What a command prints before such an analyzer."""

    def run(analyzer: Analyzer, *arguments: str, code: int = ExitCode.OK) -> str:
        for command in ("trends_list_command", "gate_command", "report_comparison"):
            monkeypatch.setattr(f"dtf.cli.{command}.ask_analyzer", analyzer.ask)
        assert run_cli(["--project", str(tmp_path), *arguments]) == code
        return capsys.readouterr().out

    return run


def test_trends_tells_nothing_found_from_nothing_to_be_found(said: Said) -> None:
    analyzer = Analyzer(40, 3, 11)
    assert said(analyzer, "trends").splitlines() == [
        "nothing became slower or faster in 3 series; --all shows what was set aside",
        "too short   2 of 3 series have fewer than 12 points; nothing could have been found in them",
    ]
    assert "too short" not in said(Analyzer(40, 12), "trends")
    assert said(Analyzer(), "trends", "--suite", "new") == (
        "no series of new yet: the first run that passes begins them\n"
    )
    assert said(Analyzer(40, together_limit=200), "trends").splitlines()[1:] == [
        "not all     the first 200 sets of metrics of the log are looked at together for runs that are unusual only "
        "taken together; there are more, each of whose metrics is searched by itself"
    ]
    assert "not all" not in said(Analyzer(40, together_limit=200), "trends", "--suite", "s")
    history = json.loads(said(analyzer, "trends", "--json"))["history"]
    assert (history["series"], history["short"], history["least_points"]) == (3, 2, 12)


def test_options_of_the_list_follow_trends_at_once_and_a_name_is_told_where_it_belongs(
    said: Said, capsys: pytest.CaptureFixture[str]
) -> None:
    assert said(Analyzer(40), "trends", "--suite", "s", "--all", "--limit", "3") == (
        "nothing became slower or faster in 1 series\n"
    )
    assert run_cli(["trends", "test_big"]) == ExitCode.USAGE
    assert "of a series: `dtf trends show test_big`" in capsys.readouterr().err
    assert "Without a command it is `list`" in " ".join(said(Analyzer(), "trends", "--help").split())


def test_the_gate_passes_short_series_and_says_so_unless_history_is_required(said: Said) -> None:
    analyzer = Analyzer(40, 3, 11, 50, only_head=1)
    short, aside, verdict = said(analyzer, "gate").splitlines()
    assert (
        short == "too short    2 of 4 series have fewer than 12 points; nothing could have been found in them"
    )
    assert aside == "left out     1 series only at the head: nothing to compare with"
    assert verdict == "gate passed: 0 regressions beyond the limit (+5.0 %) in 4 series over 30 days"
    said(analyzer, "gate", "--require-history", "0.5")
    failed = said(analyzer, "gate", "--require-history", "0.9", "--github", code=ExitCode.UNPROVEN)
    assert "gate failed: 0 regressions" in failed
    assert "; 50 % of the series are long enough, 90 % have to be" in failed
    assert "::error title=too little history::2 of 4 series have" in failed
    assert "::notice title=too little history::" in said(analyzer, "gate", "--github")
    document = json.loads(said(analyzer, "gate", "--require-history", "1", "--json", code=ExitCode.UNPROVEN))
    assert not document["is_passed"]
    assert document["history"]["short_series"] == ["c3 m", "c11 m"]
    assert document["history"]["share"] == 0.5


def test_a_comparison_tells_series_without_a_change_from_those_that_could_have_none(
    said: Said, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    analyzer = Analyzer(40, 3)
    sentence = "1 of 2 series has fewer than 12 points; nothing could have been found in it"
    compare = ("report", "--compare", "..")
    assert said(analyzer, *compare).splitlines()[1] == f"too short  {sentence}"
    for kind in ("md", "html"):
        assert f"Too short: {sentence}." in said(analyzer, *compare, "--format", kind)
    assert json.loads(said(analyzer, *compare, "--format", "json"))["short_count"] == 1
    assert "oo short" not in said(Analyzer(40, 30), *compare, "--format", "html")
    (tmp_path / "file").write_text("")
    assert run_cli(["--project", str(tmp_path), *compare, "--html", str(tmp_path / "file" / "x.html")]) == 1
    assert "x.html cannot be written: " in capsys.readouterr().err


def test_the_gate_on_nothing_at_all_says_that(said: Said) -> None:
    empty = Analyzer(only_head=2)
    assert "no series has points at both ends; nothing could have been found" in said(empty, "gate")
    said(empty, "gate", "--require-history", "0.1", code=ExitCode.UNPROVEN)

"""AnalysisService: reads of the metric store over gRPC."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from itertools import groupby
from typing import Any, TypeVar

import grpc

from dtf.api.v1 import analysis_service_pb2 as pb
from dtf.api.v1 import analysis_service_pb2_grpc
from dtf.core.run.commands import FieldViolation, InvalidRequest, NotFound, Rejection
from dtf.core.trend.open_run import OpenRun
from dtf.core.trend.statistics import CaseComparison, CasePoint, compare
from dtf.ports.clock import Clock
from dtf.ports.metric_store import MetricStore, SeriesName, StoreError
from dtf.rpc.errors import StoreUnavailableRefusal, refuse
from dtf.trend_analyzer import answers
from dtf.trend_analyzer.findings_desk import FindingsDesk
from dtf.trend_analyzer.gate import CheckpointGate
from dtf.trend_analyzer.paging import MOST_PAGE_BYTES, make_token, page_size, read_token

NAME = "dtf.api.v1.AnalysisService"
WINDOW = 30
"""Newest runs of a case that its statistics count, unless the caller says otherwise."""
MOST_WINDOW = 1_000
LONGEST_WAIT_SECONDS = 60.0
"""How long a caller without a deadline of its own waits for a sequence."""

_NS = 1e9
_A = TypeVar("_A")


class AnalysisService(analysis_service_pb2_grpc.AnalysisServiceServicer):
    """Answers from the store; what it refuses it refuses as every service of dtf does."""

    def __init__(
        self,
        store: MetricStore,
        gate: CheckpointGate,
        open_runs: Mapping[str, OpenRun],
        clock: Clock,
        desk: FindingsDesk,
        searched: CheckpointGate,
    ) -> None:
        """`gate`: how far the store has come; `searched`: how far the search for findings has."""
        self._store = store
        self._gate = gate
        self._open_runs = open_runs
        self._clock = clock
        self._desk = desk
        self._searched = searched

    async def GetCheckpoint(self, request: pb.GetCheckpointRequest, context: Any) -> pb.GetCheckpointResponse:
        """How far the store has come; waits for a sequence."""
        if request.wait_for_sequence > self._gate.sequence:
            await self._wait(self._gate, request.wait_for_sequence, "the store has come", context)
        if request.wait_for_findings > self._searched.sequence:
            said = "the search for findings has come"
            await self._wait(self._searched, request.wait_for_findings, said, context)
        if request.wait_for_imports:
            said = "the search of imported points has come"
            await self._wait(self._desk.import_gate, self._desk.import_sequence, said, context)
        return pb.GetCheckpointResponse(
            log_sequence=self._gate.sequence,
            store=self._store.kind,
            findings_sequence=self._searched.sequence,
            is_importing=self._desk.import_gate.sequence < self._desk.import_sequence,
            waiting_point_count=self._desk.waiting_point_count,
        )

    async def ListCaseStatistics(
        self, request: pb.ListCaseStatisticsRequest, context: Any
    ) -> pb.ListCaseStatisticsResponse:
        """Durations to expect, by case."""
        return await _answer(self._list_case_statistics(request), context)

    async def QuerySeries(self, request: pb.QuerySeriesRequest, context: Any) -> pb.QuerySeriesResponse:
        """Points of one series."""
        return await _answer(self._query_series(request), context)

    async def ListSeries(self, request: pb.ListSeriesRequest, context: Any) -> pb.ListSeriesResponse:
        """Series there are."""
        return await _answer(self._list_series(request), context)

    async def CompareRun(self, request: pb.CompareRunRequest, context: Any) -> pb.CompareRunResponse:
        """A run beside the history of its suite."""
        return await _answer(self._compare_run(request), context)

    async def QueryFleet(self, request: pb.QueryFleetRequest, context: Any) -> pb.QueryFleetResponse:
        """The fleet over a span of time."""
        return await _answer(self._query_fleet(request), context)

    async def ListFindings(self, request: pb.ListFindingsRequest, context: Any) -> pb.ListFindingsResponse:
        """What became slower or faster."""
        return await _answer(_at_once(lambda: self._desk.list(request)), context)

    async def GetFinding(self, request: pb.GetFindingRequest, context: Any) -> pb.GetFindingResponse:
        """One finding."""
        found = await _answer(_at_once(lambda: self._desk.get(request.finding_id)), context)
        return pb.GetFindingResponse(finding=found)

    async def TriageFinding(self, request: pb.TriageFindingRequest, context: Any) -> pb.TriageFindingResponse:
        """A person's judgement of a finding."""
        return pb.TriageFindingResponse(finding=await _answer(self._desk.triage(request), context))

    async def ListRules(self, request: pb.ListRulesRequest, context: Any) -> pb.ListRulesResponse:
        """How the rules do."""
        return self._desk.rules()

    async def CompareRevisions(
        self, request: pb.CompareRevisionsRequest, context: Any
    ) -> pb.CompareRevisionsResponse:
        """The series of a suite at two revisions."""
        return await _answer(self._desk.compare(request), context)

    async def ImportPoints(self, request: pb.ImportPointsRequest, context: Any) -> pb.ImportPointsResponse:
        """History from elsewhere."""
        return await _answer(self._desk.take_in(request), context)

    async def CountSeries(self, request: pb.CountSeriesRequest, context: Any) -> pb.CountSeriesResponse:
        """How many series there are."""
        return await _answer(self._desk.count(request), context)

    async def _wait(self, gate: CheckpointGate, sequence: int, said: str, context: Any) -> None:
        remaining = context.time_remaining()
        limit = LONGEST_WAIT_SECONDS if remaining is None else min(remaining, LONGEST_WAIT_SECONDS)
        try:
            async with asyncio.timeout(limit):
                await gate.wait(sequence)
        except TimeoutError:
            await context.abort(
                grpc.StatusCode.DEADLINE_EXCEEDED,
                f"{said} to sequence {gate.sequence}, not yet to {sequence}; ask again",
            )

    async def _list_case_statistics(
        self, request: pb.ListCaseStatisticsRequest
    ) -> pb.ListCaseStatisticsResponse:
        _require(request.suite, "suite")
        size = page_size(request.page_size, default=1_000, most=100_000)
        window = page_size(request.window, default=WINDOW, most=MOST_WINDOW, field="window")
        (after,) = read_token(request.page_token, 1)
        histories = await self._store.case_histories(
            request.suite,
            after=after,
            limit=size + 1,
            window=window,
            excluded_run_id=request.excluded_run_id,
        )
        response = pb.ListCaseStatisticsResponse()
        bytes_left = MOST_PAGE_BYTES
        for history in histories:
            case = answers.statistics(history)
            bytes_left -= case.ByteSize()
            if len(response.cases) == size or bytes_left < 0:
                response.next_page_token = make_token((response.cases[-1].case_name,))
                break
            response.cases.append(case)
        return response

    async def _query_series(self, request: pb.QuerySeriesRequest) -> pb.QuerySeriesResponse:
        key = request.series
        _require(key.suite, "series.suite")
        _require(key.metric, "series.metric")
        limit = page_size(request.limit, default=1_000, most=100_000, field="limit")
        values = await self._store.series_values(
            SeriesName(key.suite, key.case_name, key.metric),
            pool=key.pool,
            since_ns=_nanoseconds(request.since_at, "since_at"),
            limit=limit,
        )
        measured = self._desk.measured(key)
        return pb.QuerySeriesResponse(
            points=map(answers.series_point, values),
            unit=measured.unit,
            is_lower_better=measured.is_lower_better,
        )

    async def _list_series(self, request: pb.ListSeriesRequest) -> pb.ListSeriesResponse:
        size = page_size(request.page_size, default=1_000, most=10_000)
        after = SeriesName(*read_token(request.page_token, 3)) if request.page_token else None
        names = await self._store.series_names(request.suite, after=after, limit=size + 1)
        response = pb.ListSeriesResponse(series=map(answers.series_key, names[:size]))
        if len(names) > size:
            last = names[size - 1]
            response.next_page_token = make_token((last.suite, last.case_name, last.metric))
        return response

    async def _compare_run(self, request: pb.CompareRunRequest) -> pb.CompareRunResponse:
        _require(request.run_id, "run_id")
        span = await self._store.run_span(request.run_id)
        if span is not None:
            suite, until_ns = span.suite, span.ended_ns
        elif (run := self._open_runs.get(request.run_id)) is not None:
            suite, until_ns = run.suite, None
        else:
            raise NotFound(
                f"no run {request.run_id!r} is recorded; `dtf runs` lists runs", run_id=request.run_id
            )
        own = await self._store.run_points(suite, request.run_id)
        earlier = await self._store.case_points(
            suite, window=WINDOW, until_ns=until_ns, excluded_run_id=request.run_id
        )
        run_count = await self._store.count_runs(suite, until_ns=until_ns, excluded_run_id=request.run_id)
        return answers.comparison(await asyncio.to_thread(_compare_all, own, earlier), run_count)

    async def _query_fleet(self, request: pb.QueryFleetRequest) -> pb.QueryFleetResponse:
        until_ns = _nanoseconds(request.until_at, "until_at") if request.until_at else self._clock.now_ns()
        samples = await self._store.fleet(
            since_ns=_nanoseconds(request.since_at, "since_at"), until_ns=until_ns
        )
        return pb.QueryFleetResponse(points=map(answers.fleet_point, samples))


def _compare_all(own: Sequence[CasePoint], earlier: Sequence[CasePoint]) -> list[CaseComparison]:
    histories = {name: list(points) for name, points in groupby(earlier, key=lambda point: point.case_name)}
    return [compare(point, histories.get(point.case_name, [])) for point in own]


def _require(value: str, field: str) -> None:
    if not value:
        raise InvalidRequest(
            f"{field} is empty, expected a name", violations=[FieldViolation(field, "must not be empty")]
        )


def _nanoseconds(instant: float, field: str) -> int:
    if not 0 <= instant < 9e9:
        fault = FieldViolation(field, f"{instant!r} is not an instant in seconds since 1970")
        raise InvalidRequest(f"{field} is {instant!r}, expected seconds since 1970", violations=[fault])
    return round(instant * _NS)


async def _at_once(work: Callable[[], _A]) -> _A:
    return work()


async def _answer(work: Awaitable[_A], context: Any) -> _A:
    """The answer, or the refusal that the work raised."""
    try:
        return await work
    except Rejection as rejection:
        refusal = rejection
    except StoreError as error:
        refusal = StoreUnavailableRefusal(str(error))
    await refuse(context, refusal)
    raise refusal  # not reached: refuse always raises

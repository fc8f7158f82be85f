"""What AnalysisService says of findings, and how people's judgements and imported history come in."""

import asyncio
import math
from bisect import bisect_right
from collections.abc import Iterable, Sequence

from dtf.api.v1 import analysis_service_pb2 as pb
from dtf.api.v1 import findings_pb2
from dtf.core.run.commands import FieldViolation, InvalidRequest, NotFound
from dtf.core.trend.comparing import Difference, compare_series, compare_since, revisions_of
from dtf.core.trend.finding_track import Tracked
from dtf.core.trend.finding_words import KIND_NAMES
from dtf.core.trend.findings import ChangeState
from dtf.core.trend.findings_book import FindingsBook
from dtf.core.trend.findings_kept import Known
from dtf.core.trend.imported import fault_of
from dtf.core.trend.names import series_name
from dtf.core.trend.scarcity import LEAST_POINTS
from dtf.core.trend.series import IMPACTS, RULE_VERSION
from dtf.core.trend.series_book import Measured
from dtf.core.trend.series_points import SeriesKey
from dtf.core.trend.succession import is_orphaned
from dtf.ports.clock import Clock
from dtf.ports.event_log import RecordStream
from dtf.ports.series_vault import SeriesVault
from dtf.trend_analyzer.answers import series_difference
from dtf.trend_analyzer.census import SeriesCensus
from dtf.trend_analyzer.findings_keeper import FindingsKeeper, publish
from dtf.trend_analyzer.gate import CheckpointGate
from dtf.trend_analyzer.paging import MOST_PAGE_BYTES, make_token, page_size, read_token

SETTLE_SECONDS = 10.0
"""How long a caller waits until what it asked for is in the store too; it is on the stream by then."""
SERIES_FOR_REVISIONS = 500
"""Series of a suite that are asked for its revisions, the suite's own first."""
SERIES_A_TURN = 8
MOST_IMPORTED_POINTS = 20_000
"""Points of one import event: a quarter of a message's 1 MiB at most."""
MOST_ORPHANS = 100
"""Judged findings without a successor that an answer names."""
MOST_UNCHANGED = 10_000
"""Series without a change that a comparison names."""
IMPORTED_POOL = "imported"


class FindingsDesk:
    """Answers about findings; what it refuses it raises as Rejections."""

    def __init__(
        self,
        findings: FindingsBook,
        stored: CheckpointGate,
        keeper: FindingsKeeper,
        vault: SeriesVault,
        stream: RecordStream,
        namespace: str,
        clock: Clock,
    ) -> None:
        self._findings = findings
        self._stored = stored
        self._keeper = keeper
        self._vault = vault
        self._stream = stream
        self._namespace = namespace
        self._clock = clock
        self._census = SeriesCensus(keeper.book, vault, clock)

    @property
    def import_gate(self) -> CheckpointGate:
        """How far into the analysis stream imported points have been searched."""
        return self._keeper.import_gate

    @property
    def import_sequence(self) -> int:
        """Of the newest imported points that are known."""
        return self._findings.import_sequence

    @property
    def waiting_point_count(self) -> int:
        """Points of series that are still to be searched."""
        return self._keeper.waiting_point_count + sum(len(each.values) for _, each in self._findings.imports)

    def list(self, request: pb.ListFindingsRequest) -> pb.ListFindingsResponse:
        """A page of findings, the newest first."""
        size = page_size(request.page_size, default=100, most=10_000)
        after_time, after_id = read_token(request.page_token, 2)
        after = (-int(after_time), after_id) if after_time else None
        required = self._findings.required_confidences()
        response = pb.ListFindingsResponse()
        bytes_left = MOST_PAGE_BYTES
        for known in self._findings.newest_first():
            place = (-known.finding.time_unix_nanos, known.finding.finding_id)
            if (after is not None and place <= after) or not _is_asked_for(known, request):
                continue
            is_raised = self._findings.is_raised(known, required)
            if not is_raised and not request.include_all:
                continue
            tracked = self._tracked(known, is_raised)
            bytes_left -= tracked.ByteSize()
            if len(response.findings) == size or bytes_left < 0:
                last = response.findings[-1].finding
                response.next_page_token = make_token((str(last.time_unix_nanos), last.finding_id))
                break
            response.findings.append(tracked)
        return response

    def get(self, beginning: str) -> pb.TrackedFinding:
        """The finding whose identity begins so."""
        known = self._find(beginning)
        return self._tracked(known, self._findings.is_raised(known, self._findings.required_confidences()))

    async def triage(self, request: pb.TriageFindingRequest) -> pb.TrackedFinding:
        """Put a judgement on the stream, and answer when it is known."""
        known = self._findings.followed(self._find(request.finding_id))
        if request.verdict not in findings_pb2.TriageVerdict.values():
            fault = FieldViolation("verdict", f"{request.verdict} is no judgement")
            raise InvalidRequest(f"verdict is {request.verdict}, expected one of 0 to 3", violations=[fault])
        event = findings_pb2.AnalysisEvent(
            finding_triaged=findings_pb2.FindingTriaged(
                finding_id=known.finding.finding_id,
                verdict=request.verdict,
                reason=request.reason,
                triaged_by=request.requested_by,
                now_unix_nanos=self._clock.now_ns(),
            )
        )
        await self._record("triage", event)
        return self.get(known.finding.finding_id)

    def measured(self, key: pb.SeriesKey) -> Measured:
        """Unit and better direction of a series; of one on several pools as far as they agree."""
        series = self._keeper.book
        keys = {each.key for each in series if each.key.suite == key.suite} | set(self._vault.keys(key.suite))
        name = key.case_name, key.metric
        own = [each for each in keys if (each.case, each.metric) == name and key.pool in ("", each.pool)]
        found = [measured for each in own if (measured := series.measured(each)) is not None]
        units = {each.unit for each in found}
        directions = {each.is_lower_better for each in found}
        return Measured(
            units.pop() if len(units) == 1 else "", directions.pop() if len(directions) == 1 else None
        )

    def rules(self) -> pb.ListRulesResponse:
        """Every rule with its record, and the judgements whose findings the rules of now do not find."""
        orphans = self._orphans()
        newest = sorted(orphans, key=lambda known: -known.finding.time_unix_nanos)[:MOST_ORPHANS]
        response = pb.ListRulesResponse(
            orphans=[self._tracked(known, is_raised=False) for known in newest], orphan_count=len(orphans)
        )
        for number in KIND_NAMES:
            record = self._findings.record_of(number)
            low, high = record.precision_interval
            response.rules.append(
                pb.RuleRecord(
                    kind=findings_pb2.FindingKind.ValueType(number),
                    standing=record.standing,
                    gone=record.gone,
                    accepted=record.accepted,
                    rejected=record.rejected,
                    precision=record.precision,
                    precision_low=low,
                    precision_high=high,
                    required_confidence=record.required_confidence,
                )
            )
        return response

    async def compare(self, request: pb.CompareRevisionsRequest) -> pb.CompareRevisionsResponse:
        """The series of a suite at two revisions, those that changed first."""
        keys = self._keys(request.suite)
        since_ns = round(request.since_at * 1e9)
        base, head = ("", "") if since_ns else self._revisions(request, keys)
        response = pb.CompareRevisionsResponse(base=base, head=head, least_point_count=LEAST_POINTS)
        changed: list[Difference] = []
        unchanged: list[Difference] = []
        for number, key in enumerate(keys):
            if number % SERIES_A_TURN == 0:
                await self._clock.sleep(0)
            series = self._keeper.book.peek(key)
            if series is None:
                continue
            if since_ns:
                found = compare_since(series, since_ns, self._is_raised)
            else:
                found = compare_series(series, base, head, self._is_raised)
            if found is None:
                continue
            if not found.head_values:
                response.only_base_count += 1
            elif not found.base_values:
                response.only_head_count += 1
            elif found.changes:
                changed.append(found)
            elif len(unchanged) < MOST_UNCHANGED:
                unchanged.append(found)
            else:
                response.omitted_count += 1
            if found.head_values and found.base_values:
                response.short_count += found.point_count < LEAST_POINTS
        for found in (*sorted(changed, key=_worst_first), *unchanged):
            findings = [self.get(each.finding_id) for each in found.changes]
            response.series.append(series_difference(found, findings))
        return response

    async def count(self, request: pb.CountSeriesRequest) -> pb.CountSeriesResponse:
        """How many series there are, and what is not looked for in them."""
        response = await self._census.count(request)
        response.together_limit = self._keeper.together_limit
        response.orphan_count = len(self._orphans())
        return response

    async def take_in(self, request: pb.ImportPointsRequest) -> pb.ImportPointsResponse:
        """Put imported points on the stream; those that their series has already are left."""
        response = pb.ImportPointsResponse()
        for imported in request.series:
            _refuse_unusable(imported)
            imported.series.pool = (
                series_name(imported.series.pool) if imported.series.pool else IMPORTED_POOL
            )
            for name in ("suite", "case_name", "metric"):
                setattr(imported.series, name, series_name(getattr(imported.series, name)))
            for part in _parts(self._newer(imported, response)):
                await self._record("import", findings_pb2.AnalysisEvent(points_imported=part))
                response.taken_count += len(part.values)
        return response

    def _tracked(self, known: Known, is_raised: bool) -> pb.TrackedFinding:
        return pb.TrackedFinding(
            finding=known.finding,
            triage=known.triage,
            is_raised=is_raised,
            confirmations=self._findings.confirmations.of(known.finding.finding_id),
            successor_id=known.successor_id,
            is_orphaned=self._keeper.is_settled and is_orphaned(known, RULE_VERSION),
        )

    def _orphans(self) -> Sequence[Known]:
        return self._findings.orphans() if self._keeper.is_settled else ()

    def _find(self, beginning: str) -> Known:
        if not beginning:
            fault = FieldViolation("finding_id", "must not be empty")
            raise InvalidRequest("finding_id is empty", violations=[fault])
        found = self._findings.named(beginning)
        if not found:
            raise NotFound(f"no finding {beginning!r}; `dtf trends --all` lists them")
        if len(found) > 1:
            raise InvalidRequest(
                f"{len(found)} findings begin with {beginning!r}: "
                + ", ".join(known.finding.finding_id for known in found[:5]),
                violations=[FieldViolation("finding_id", "names more than one finding")],
            )
        return found[0]

    async def _record(self, kind: str, event: findings_pb2.AnalysisEvent) -> None:
        identity = f"{kind}-{self._clock.new_id()}"
        sequence = await publish(self._stream, self._namespace, kind, event, identity, self._clock)
        try:
            async with asyncio.timeout(SETTLE_SECONDS):
                await self._stored.wait(sequence)
        except TimeoutError:
            return  # the store is away; the event is on the stream and nothing of it is lost

    def _keys(self, suite: str) -> Sequence[SeriesKey]:
        if not suite:
            raise InvalidRequest("suite is empty", violations=[FieldViolation("suite", "must not be empty")])
        unsaved = {series.key for series in self._keeper.book if series.key.suite == suite}
        keys = sorted(unsaved | set(self._vault.keys(suite)))
        if not keys:
            raise NotFound(f"no series of a suite {suite!r}; `dtf runs` shows the suites")
        return keys

    def _revisions(self, request: pb.CompareRevisionsRequest, keys: Sequence[SeriesKey]) -> tuple[str, str]:
        asked = [self._keeper.book.peek(key) for key in keys[:SERIES_FOR_REVISIONS]]
        known = list(revisions_of(series for series in asked if series is not None))
        head = _full(known, request.head, "head") if request.head else (known[-1] if known else "")
        earlier = known[: known.index(head)] if head in known else known
        base = _full(known, request.base, "base") if request.base else (earlier[-1] if earlier else "")
        if not base or not head:
            raise NotFound(f"suite {request.suite!r} has {len(known)} revisions, expected two to compare")
        if base != head and known.index(base) > known.index(head):
            fault = FieldViolation("base", f"is newer than {head}")
            raise InvalidRequest(f"base {base} is newer than head {head}: swap them", violations=[fault])
        return base, head

    def _is_raised(self, tracked: Tracked) -> bool:
        known = self._findings.findings.get(tracked.finding_id)
        if known is None or tracked.change.state is ChangeState.WENT_AWAY:
            return False
        return self._findings.is_raised(known, self._findings.required_confidences())

    def _newer(
        self, imported: findings_pb2.PointsImported, response: pb.ImportPointsResponse
    ) -> findings_pb2.PointsImported:
        series = imported.series
        key = SeriesKey(series.suite, series.case_name, series.metric, series.pool)
        newest = max(self._findings.newest_import(key), self._keeper.book.newest_ns(key))
        first = bisect_right(imported.times_unix_nanos, newest)
        response.known_count += first
        return _slice(imported, first, len(imported.values))


def _is_asked_for(known: Known, request: pb.ListFindingsRequest) -> bool:
    series = known.finding.series
    wanted = (
        (request.suite, series.suite),
        (request.case_name, series.case_name),
        (request.metric, series.metric),
        (request.pool, series.pool),
    )
    is_late_enough = known.finding.time_unix_nanos >= request.since_at * 1e9
    return is_late_enough and all(not asked or asked == own for asked, own in wanted)


def _worst_first(found: Difference) -> tuple[bool, float, SeriesKey]:
    impact = found.impact
    is_worse = impact is not None and IMPACTS[impact] == findings_pb2.FINDING_IMPACT_REGRESSION
    size = abs(found.relative)
    return (not is_worse, 0.0 if math.isnan(size) else -size, found.series.key)


def _full(known: Sequence[str], asked: str, field: str) -> str:
    found = [asked] if asked in known else [each for each in known if each.startswith(asked)]
    if len(found) == 1:
        return found[0]
    if not found:
        newest = ", ".join(known[-3:]) or "none"
        raise NotFound(f"{field} {asked!r} is no revision that the analyzer knows; the newest are {newest}")
    fault = FieldViolation(field, "names more than one revision")
    raise InvalidRequest(f"{field} {asked!r} names {len(found)} revisions", violations=[fault])


def _refuse_unusable(imported: findings_pb2.PointsImported) -> None:
    fault = fault_of(imported)
    if fault is not None:
        field, what = fault
        raise InvalidRequest(f"{field}: {what}", violations=[FieldViolation(field, what)])


def _parts(imported: findings_pb2.PointsImported) -> Iterable[findings_pb2.PointsImported]:
    for first in range(0, len(imported.values), MOST_IMPORTED_POINTS):
        yield _slice(imported, first, first + MOST_IMPORTED_POINTS)


def _slice(imported: findings_pb2.PointsImported, first: int, end: int) -> findings_pb2.PointsImported:
    part = findings_pb2.PointsImported(
        series=imported.series,
        unit=imported.unit,
        times_unix_nanos=imported.times_unix_nanos[first:end],
        values=imported.values[first:end],
        weights=imported.weights[first:end],
        revisions=imported.revisions[first:end],
        source=imported.source,
    )
    if imported.HasField("is_lower_better"):
        part.is_lower_better = imported.is_lower_better
    return part

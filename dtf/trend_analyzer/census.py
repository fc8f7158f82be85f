"""How many series there are, and how many of them are too short for anything to be found in them."""

from dtf.api.v1 import analysis_service_pb2 as pb
from dtf.core.trend.scarcity import LEAST_POINTS
from dtf.core.trend.series_book import SeriesBook
from dtf.core.trend.series_points import SeriesKey
from dtf.ports.clock import Clock
from dtf.ports.series_vault import SeriesVault

SERIES_A_TURN = 64


class SeriesCensus:
    """Counts series. One that was long enough once is so for good, and is not looked at again."""

    def __init__(self, book: SeriesBook, vault: SeriesVault, clock: Clock) -> None:
        self._book = book
        self._vault = vault
        self._clock = clock
        self._long: set[SeriesKey] = set()

    async def count(self, request: pb.CountSeriesRequest) -> pb.CountSeriesResponse:
        """Of the series asked for: all, and those with too few points."""
        response = pb.CountSeriesResponse(least_point_count=LEAST_POINTS)
        looked_at = 0
        for key in self._keys(request):
            response.series_count += 1
            if key in self._long:
                continue
            looked_at += 1
            if looked_at % SERIES_A_TURN == 0:
                await self._clock.sleep(0)
            if self._book.count(key) < LEAST_POINTS:
                response.short_count += 1
            else:
                self._long.add(key)
        return response

    def _keys(self, request: pb.CountSeriesRequest) -> set[SeriesKey]:
        known = {series.key for series in self._book} | set(self._vault.keys(request.suite))
        asked = (request.suite, request.case_name, request.metric, request.pool)
        return {
            key for key in known if all(not want or want == own for want, own in zip(asked, key, strict=True))
        }

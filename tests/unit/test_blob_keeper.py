"""What of the blobs and the output goes: given what is stored, since when it is unused, and what lives."""

import pytest

from dtf.api.v1 import common_pb2, events_pb2
from dtf.coordinator.blob_keeper import BlobKeeper
from dtf.core.run.state import Run, State
from dtf.ports.blob_store import BlobStore, Stored
from dtf.rpc.errors import StoreRefusal
from dtf.settings.blobs import BlobSettings
from tests.fakes import FakeClock

pytestmark = pytest.mark.coordinator
HOUR_NS = 3600 * 10**9
DAY_NS = 24 * HOUR_NS


class Shelf:
    """A store that is told what it holds."""

    def __init__(self, clock: FakeClock) -> None:
        self.now_ns = clock.now_ns()
        self.stored: list[Stored] = []
        self.looks = 0

    def blob(self, digest: str, age_ns: int, size: int = 10) -> None:
        """A blob that was last used so long ago."""
        self.stored.append(Stored(size, self.now_ns - age_ns, digest=digest))

    def output(self, run_id: str, age_ns: int, size: int = 10) -> None:
        """A run's output that last grew so long ago."""
        self.stored.append(Stored(size, self.now_ns - age_ns, run_id=run_id))

    async def list_stored(self) -> list[Stored]:
        """Everything."""
        self.looks += 1
        return list(self.stored)

    async def remove(self, stored: Stored) -> bool:
        """It goes."""
        self.stored.remove(stored)
        return True

    @property
    def names(self) -> set[str]:
        """What is left."""
        return {each.digest or each.run_id for each in self.stored}


class Scene:
    """A keeper of a shelf, and a state with one live run."""

    def __init__(self, clock: FakeClock, max_bytes: int = 0, max_age_days: float = 0.0) -> None:
        self.clock = clock
        self.shelf = Shelf(clock)
        self.state = State()
        rules = BlobSettings(max_bytes, max_age_days)
        self.keeper = BlobKeeper(self._store(), self.state, clock, rules)

    def _store(self) -> BlobStore:
        return self.shelf  # type: ignore[return-value]  # as much of one as the keeper asks

    def run(self, run_id: str, age_ns: int, archive: str = "") -> None:
        """A live run that was created so long ago."""
        template = common_pb2.TaskTemplate()
        if archive:
            template.workspace.archive.digest = archive
        created = events_pb2.RunCreated(run_id=run_id, templates=[template])
        run = Run(run_id, created, [], created_at_ns=self.clock.now_ns() - age_ns)
        self.state.runs[run_id] = self.state.active_runs[run_id] = run

    async def look(self) -> set[str]:
        """What is left after a look."""
        await self.keeper.look()
        return self.shelf.names


async def test_what_is_unused_for_too_long_goes_and_the_rest_stays(clock: FakeClock) -> None:
    scene = Scene(clock, max_age_days=2.0)
    scene.shelf.blob("old", 3 * DAY_NS)
    scene.shelf.blob("young", DAY_NS)
    scene.shelf.output("old run", 3 * DAY_NS)
    scene.shelf.output("young run", DAY_NS)
    assert await scene.look() == {"young", "young run"}
    assert (scene.keeper.used_bytes, scene.keeper.removed_count) == (20, 2)


async def test_without_limits_everything_stays(clock: FakeClock) -> None:
    scene = Scene(clock)
    scene.shelf.blob("old", 1000 * DAY_NS, size=10**15)
    assert await scene.look() == {"old"}
    await scene.keeper.make_room(10**15)


async def test_a_live_run_keeps_its_workspace_its_output_and_what_was_used_since_it_began(
    clock: FakeClock,
) -> None:
    scene = Scene(clock, max_bytes=1, max_age_days=1.0)
    scene.run("live", 5 * DAY_NS, archive="its code")
    scene.shelf.blob("its code", 9 * DAY_NS)
    scene.shelf.output("live", 4 * DAY_NS)
    scene.shelf.blob("a result", 4 * DAY_NS)
    scene.shelf.blob("of another time", 6 * DAY_NS)
    scene.shelf.output("ended", 4 * DAY_NS)
    assert await scene.look() == {"its code", "live", "a result"}
    scene.state.active_runs.clear()
    assert await scene.look() == set()


async def test_what_was_just_used_stays_though_no_run_names_it_yet(clock: FakeClock) -> None:
    scene = Scene(clock, max_bytes=1)
    scene.shelf.blob("for a run to come", HOUR_NS // 2)
    scene.shelf.output("just ended", HOUR_NS // 2)
    scene.shelf.blob("of long ago", 2 * HOUR_NS)
    assert await scene.look() == {"for a run to come", "just ended"}


async def test_too_much_is_brought_down_by_what_is_unused_for_longest(clock: FakeClock) -> None:
    scene = Scene(clock, max_bytes=100)
    for days in range(1, 13):
        scene.shelf.blob(f"{days} days", days * DAY_NS)
    assert await scene.look() == {f"{days} days" for days in range(1, 10)}


async def test_what_has_no_room_is_refused_in_one_line_and_let_in_once_there_is(clock: FakeClock) -> None:
    scene = Scene(clock, max_bytes=100)
    scene.shelf.blob("needed", HOUR_NS // 2, size=90)
    await scene.look()
    await scene.keeper.make_room(10)
    scene.shelf.blob("came", 0, size=10)
    for _ in range(3):
        with pytest.raises(
            StoreRefusal, match=r"full: 100 of 100 bytes .* raise \[blobs\] max_bytes"
        ) as refused:
            await scene.keeper.make_room(1)
        assert "\n" not in refused.value.message
    assert scene.shelf.looks == 1  # not one for each that is refused
    await clock.advance(2 * HOUR_NS / 1e9)
    await scene.keeper.make_room(1)
    assert scene.shelf.names == {"came"}

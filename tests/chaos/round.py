"""A round: one system takes many faults, then everything it ever said is checked."""

import asyncio
import json
import random
import signal
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

import psutil

from dtf.adapters.jetstream_log import JetStreamLog
from dtf.adapters.records import JetStreamRecords
from dtf.adapters.stream_file import StreamFileHeader, writing
from dtf.api.v1 import scaling_pb2
from dtf.core.check.checker import HistoryChecker
from dtf.core.check.journal import Journal
from dtf.ports.clock import Clock
from dtf.ports.event_log import LogError, StoredCommit
from dtf.ports.subjects import RecordKind
from tests.chaos.books import Finding, LogBook, Loss, check_executions, check_journal, check_verdicts
from tests.chaos.faults import HARM, KINDS, Scene
from tests.chaos.load import Load
from tests.chaos.schedule import Planned
from tests.chaos.system import Means, System
from tests.chaos.table import Struck
from tests.chaos.tail import RepairFailed
from tests.chaos.watch import LogWatch
from tests.processes import wait_until_gone

IN_FLIGHT_SECONDS = 60.0
RECOVERY_SECONDS = 120.0
FINISH_SECONDS = 90.0
READ_SECONDS = 120.0
QUIET_SECONDS = 0.25
"""Commits are being made while the log has moved within this."""
CLOCK_SKEW_SECONDS = 1e9
"""The clocks are made to jump: what was when cannot be told from them."""
CALLABLE = "tests.chaos.workload:work"
CLIENTS: Mapping[str, str] = {"commands-1": "", "commands-2": "", "callables": CALLABLE}


@dataclass(slots=True)
class Outcome:
    """What a round came to."""

    struck: list[Struck] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    commits: int = 0
    events: int = 0
    epochs: int = 0
    verdicts: int = 0
    runs: int = 0

    def by_kind(self) -> Iterator[tuple[str, str, str]]:
        """(kind, column, what) of each finding, charged to the fault that struck last before it."""
        for finding in self.findings:
            column = "violations" if finding.loss is Loss.OTHER else finding.loss.value
            yield self._cause(finding), column, finding.what

    def _cause(self, finding: Finding) -> str:
        before = [
            each
            for each in self.struck
            if (finding.sequence and each.sequence < finding.sequence)
            or (finding.at and each.at < finding.at)
        ]
        if before:
            return before[-1].kind
        return self.struck[-1].kind if self.struck else "no fault"


class Round:
    """One system, its load, its faults."""

    def __init__(self, directory: Path, means: Means, clock: Clock, *, stack: int, seed: int) -> None:
        self.outcome = Outcome()
        self._directory = directory
        self._clock = clock
        self._stack = stack
        self._system = System(directory, means, clock)
        self._watch = LogWatch(clock)
        self._seed = seed
        self._kinds = {kind.name: kind for kind in (*KINDS, HARM)}
        self._messages: list[StoredCommit] = []
        self._is_whole = False
        """Everything that was submitted had the time to finish."""

    async def run(self, plan: Sequence[Planned], tell: Callable[[Struck], None]) -> Outcome:
        """Strike with every fault, let everything finish, check. Raises nothing for what it finds."""
        async with self._system.running():
            await self._strike_all(plan, tell)
            await self._silence()
            try:
                await self._read_log()
            except (LogError, TimeoutError) as error:
                self.outcome.findings.append(Finding(Loss.OTHER, f"the log cannot be read: {error}"))
        left = await asyncio.to_thread(wait_until_gone, self._directory)
        self.outcome.findings += [Finding(Loss.OTHER, f"a process was left behind: {each}") for each in left]
        return self.outcome

    async def _strike_all(self, plan: Sequence[Planned], tell: Callable[[Struck], None]) -> None:
        async with self._loaded() as load:
            for planned in plan:
                struck = await self._strike(planned, load)
                self.outcome.struck.append(struck)
                tell(struck)
                if wrong := self._look_after(struck):
                    self.outcome.findings.append(Finding(Loss.OTHER, wrong, at=self._clock.monotonic()))
                    return
            self._is_whole = await self._finish(load)

    @asynccontextmanager
    async def _loaded(self) -> AsyncIterator[Load]:
        async with AsyncExitStack() as stack:
            client = await stack.enter_async_context(self._system.client())
            load = self._load = Load(client, self._directory, self._clock, self._seed)
            group = await stack.enter_async_context(asyncio.TaskGroup())
            watching = group.create_task(self._watch.run(self._system.nats))
            self._streams = [
                group.create_task(load.stream(name, function)) for name, function in CLIENTS.items()
            ]
            try:
                yield load
            finally:
                for task in (watching, *self._streams):
                    task.cancel()

    # -- one fault

    async def _strike(self, planned: Planned, load: Load) -> Struck:
        draw = random.Random(planned.seed)
        await self._until_in_flight(load, draw)
        at, sequence = self._clock.monotonic(), self._watch.sequence
        leases, waiting = len(self._watch.fences), load.waiting
        through = 0.0

        async def probe() -> None:
            nonlocal through
            await load.probe(f"probe-{planned.number}")
            through = self._clock.monotonic()

        scene = Scene(self._system, self._watch, load, draw)
        lifted, recovery, detail = at, -1.0, ""
        async with asyncio.TaskGroup() as group:
            striking = self._kinds[planned.kind].strike(scene)
            probing = group.create_task(probe())
            try:
                detail = await asyncio.wait_for(striking, 2 * RECOVERY_SECONDS)
                lifted = self._clock.monotonic()
                async with asyncio.timeout(RECOVERY_SECONDS):
                    await asyncio.wait([probing])
                    await self._system.settled()
                recovery = max(0.0, through - lifted)
            except (TimeoutError, RepairFailed) as error:
                detail = f"{detail} {error}; it did not come back"
            finally:
                probing.cancel()
        return Struck(
            self._stack,
            planned.number,
            planned.kind,
            detail,
            at,
            sequence,
            leases,
            waiting,
            lifted - at,
            recovery,
        )

    async def _until_in_flight(self, load: Load, draw: random.Random) -> None:
        """Return at a moment when leases are out and commits are being made; in vain after a while."""
        try:
            async with asyncio.timeout(IN_FLIGHT_SECONDS):
                while True:
                    await load.sending.wait()
                    await self._clock.sleep(draw.uniform(0, 0.006))
                    if self._watch.fences and load.waiting and self._watch.quiet_seconds < QUIET_SECONDS:
                        return
                    await self._clock.sleep(0.01)
        except TimeoutError:
            return  # the table says so

    def _look_after(self, struck: Struck) -> str:
        """What is wrong after a fault, as far as can be said by now; "" if nothing is."""
        after = f"after {struck.kind} ({struck.detail})"
        for violation in self._watch.live_checker.violations_so_far:
            return f"{after}, message {violation.sequence}: {violation.property.title}: {violation.what}"
        if struck.recovery_seconds < 0:
            return f"{after} no run came through in {RECOVERY_SECONDS:.0f} s"
        return ""

    # -- the end

    async def _finish(self, load: Load) -> bool:
        """Let what was submitted finish; whether it did."""
        load.stop()
        try:
            async with asyncio.timeout(FINISH_SECONDS):
                await asyncio.wait(self._streams)
                return True
        except TimeoutError:
            open_runs = [each.run_id for each in load.journal.values() if not each.is_finished]
            self.outcome.findings.append(
                Finding(Loss.OTHER, f"runs that never ended: {', '.join(open_runs)[:300]}")
            )
            return False

    async def _silence(self) -> None:
        """End everybody who writes to the log or to a journal, so that both are of one moment."""
        workers = self._system.worker_pids()
        for member in self._system.members.values():
            member.hold()
            member.send(signal.SIGKILL)
        for member in self._system.members.values():
            await member.down.wait()
        for pid in {*workers, *self._system.worker_pids()}:
            with suppress(psutil.Error):
                psutil.Process(pid).kill()

    async def _read_log(self) -> None:
        async with asyncio.timeout(READ_SECONDS):
            log = await JetStreamLog.attach(self._system.nats, "default", self._clock)
            try:
                self._messages = [message async for batch in log.read(0) for message in batch]
            finally:
                await log.close()
            decisions = await self._decisions()
        self._check(decisions)

    async def _decisions(self) -> list[scaling_pb2.ScalingDecision]:
        records = await JetStreamRecords.open(self._system.nats, RecordKind.SCALING, "default", self._clock)
        try:
            return [
                scaling_pb2.ScalingDecision.FromString(message.payload)
                async for batch in records.read(0)
                for message in batch
            ]
        finally:
            await records.close()

    def _check(self, decisions: Sequence[scaling_pb2.ScalingDecision]) -> None:
        journal = Journal()
        for path in sorted(self._system.journals.glob("*.jsonl")):
            with path.open(encoding="utf-8", newline="\n") as lines:
                journal.read(lines, path.name)
        checker = HistoryChecker(journal, decisions, clock_skew_seconds=CLOCK_SKEW_SECONDS)
        book = LogBook()
        for message in self._messages:
            checker.take(message.sequence, message.payload, message.message_id)
            book.read(message)
        report, load, outcome = checker.finish(), self._load, self.outcome
        outcome.findings += [
            Finding(Loss.OTHER, f"{each.property.title}: {each.what}", each.sequence)
            for each in report.violations
        ]
        outcome.findings += book.findings
        outcome.findings += check_journal(book, load.journal)
        outcome.findings += check_verdicts(book, is_whole=self._is_whole)
        outcome.findings += check_executions(book, list(load.journal), load.executions)
        outcome.commits, outcome.events = report.commit_count, report.event_count
        outcome.epochs = self._watch.epoch
        outcome.verdicts = sum(run.judged.total() for run in book.runs.values())
        outcome.runs = len(book.runs)

    def keep(self, directory: Path) -> None:
        """Write down what somebody needs who looks for the cause."""
        header = StreamFileHeader("events", "default", "chaos", self._clock.now_ns())
        with writing(directory / "log.dtfstream", header) as file:
            for message in self._messages:
                file.write(message)
        document = {
            "struck": [asdict(each) for each in self.outcome.struck],
            "findings": [
                f"{each.loss.value}: message {each.sequence}: {each.what}" for each in self.outcome.findings
            ],
            "troubles": dict(self._load.troubles),
        }
        (directory / "outcome.json").write_text(json.dumps(document, indent=1))

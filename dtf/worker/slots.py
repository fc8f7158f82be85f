"""Who runs what: slots, the warm processes in them, spare ones beside them, and commands.

A slot runs one attempt at a time: a command, or the attempts of one run that its warm process has
been given. Rules, in the order they are applied:

1. A free slot takes the kind of work (a run and a template) whose lease waits longest, unless
   slots that are getting ready for it will take every lease of it that waits.
2. A warm process is given one attempt, of short cases what takes about 50 ms; pytest is given a
   second before its first ends, so that it knows the successor of each case. What a process has
   not been given another worker can still have.
3. A slot whose process has nothing left, and nothing of its kind waits, gives it up as soon as
   other work waits, when its run ends, or after 30 s.
4. A slot that served one kind for 5 s gives it nothing more while older work of another kind
   waits and has no slot.

A process that dies takes along only the attempt that ran (casualties.py); the others wait again,
in front, under the same fences. What a slot takes next is asked of slot_rules.py; which process
waits for a successor in vain is known by successors.py.
"""

import logging
from collections.abc import Callable, Iterable, Sequence

from dtf.api.v1 import common_pb2, worker_service_pb2
from dtf.ports.clock import Clock
from dtf.runner.channel import ResultItem
from dtf.worker.casualties import sort_out
from dtf.worker.command_attempt import Commands
from dtf.worker.hopeless_work import Failure, HopelessWork
from dtf.worker.leases import Key, Lease, LeaseBook
from dtf.worker.pace import Pace, smoothed, window_of
from dtf.worker.process_watch import ProcessWatch
from dtf.worker.reporter import Reporter
from dtf.worker.runner_pool import RunnerPool
from dtf.worker.slot import Slot
from dtf.worker.slot_rules import SlotRules
from dtf.worker.successors import Successors
from dtf.worker.warm_process import Death, State, WarmProcess
from dtf.worker.workspace_paths import bring_home, placed_template, prepare_message
from dtf.worker.workspaces import Workspaces

_log = logging.getLogger(__name__)
DEFAULT_TIMEOUT_SECONDS = 3600.0
IDLE_SECONDS = 30.0


class SlotBoard:
    """Every slot of the worker; hears its processes (warm_process.Listener)."""

    def __init__(
        self,
        *,
        slot_count: int,
        worker_id: str,
        book: LeaseBook,
        reporter: Reporter,
        runners: RunnerPool,
        commands: Commands,
        workspaces: Workspaces,
        clock: Clock,
    ) -> None:
        self.slots = [Slot() for _ in range(slot_count)]
        self._worker_id = worker_id
        self._book = book
        self._reporter = reporter
        self._runners = runners
        self._commands = commands
        self._workspaces = workspaces
        self._clock = clock
        self._contexts: dict[str, worker_service_pb2.RunContext] = {}
        self._hopeless = HopelessWork(book, reporter)
        self._rules = SlotRules(self.slots, book, clock, workspaces.can_start)
        self._successors = Successors(self.slots, self._rules)
        self._pace = Pace()
        self._watch = ProcessWatch(runners)
        self.is_warm = False
        """Whether a process was ever ready: until then another worker would be sooner."""
        self._gives_back = False

    # What the coordinator says.

    def add_context(self, context: worker_service_pb2.RunContext) -> None:
        """Learn of a run. One of pytest may come before its leases: free slots get ready for it."""
        is_new = context.run_id not in self._contexts
        self._contexts[context.run_id] = context
        for number, template in enumerate(context.templates):
            if template.HasField("workspace"):
                self._workspaces.want((context.run_id, number), template.workspace, self)
        if is_new:
            self._get_ready_for(context)

    def _get_ready_for(self, context: worker_service_pb2.RunContext) -> None:
        """Let free slots take a run of pytest that nothing waits of yet, if nothing else waits either."""
        key = (context.run_id, 0)
        if len(context.templates) != 1 or not context.templates[0].HasField("pytest"):
            return
        if (
            self._successors.is_draining
            or self._rules.next_key() is not None
            or not self._workspaces.can_start(key)
        ):
            return
        for slot in self.slots:
            if slot.is_free:
                self._seat(slot, key)

    def assign(
        self,
        batches: Iterable[worker_service_pb2.Assignments],
        is_over: Callable[[int], bool] = lambda fence: False,
    ) -> None:
        """Leases came; those that are over, though the coordinator may not know, are passed by."""
        for batch in batches:
            self._successors.more_came(batch.run_id)
            for lease in self._book.add(batch, is_over):
                self._hopeless.fail_waiting(lease.key)
        if self._gives_back:
            self._reporter.release(self._book.take_all_waiting())
        self.fill()

    def cancel(self, fences: Sequence[int]) -> None:
        """Stop attempts at once, run or waiting."""
        for lease in self._book.take_waiting(fences):
            self._reporter.end(lease, common_pb2.OUTCOME_CANCELLED, "cancelled before it began")
        for fence in fences:
            lease_held = self._book.get(fence)
            if lease_held is not None:
                lease_held.is_cancelled = True
        for slot in self.slots:
            if slot.command is not None and slot.command.lease.fence in fences:
                slot.command.cancel()
            if slot.process is not None:
                self._drop(slot.process, fences)
                self._watch.stop_if_cancelled(slot.process)
        self.fill()

    def revoke(self, fences: Sequence[int]) -> None:
        """Give back what has not begun, and what is not held at all."""
        self._reporter.disown(fences)
        self._reporter.release(self._book.take_waiting(fences))
        for slot in self.slots:
            if slot.process is not None:
                self._drop(slot.process, fences)

    def run_exhausted(self, run_ids: Iterable[str]) -> None:
        """Nothing of these runs is queued now."""
        self._successors.run_exhausted(run_ids, self._clock.monotonic())

    def runs_ended(self, run_ids: Iterable[str]) -> None:
        """These runs are over: their processes can go."""
        ended = set(run_ids)
        for slot in self.slots:
            process = slot.process
            if (
                process is not None
                and not process.leases
                and process.key is not None
                and process.key[0] in ended
            ):
                self._give_up(slot)
        for run_id in ended:
            self._contexts.pop(run_id, None)
            self._successors.more_came(run_id)
            self._book.forget_run(run_id)
        self._hopeless.forget_runs(ended)
        self._workspaces.forget_runs(ended)
        self.fill()

    def drain(self) -> None:
        """Nothing new will come: hold no case back for its successor."""
        self._successors.drain(self._clock.monotonic())

    def undo_drain(self) -> None:
        """Work may come again."""
        self._successors.is_draining = False

    def give_back(self) -> None:
        """Finish what has begun; what has not, another worker may have."""
        self._gives_back = True
        self._reporter.release(self._book.take_all_waiting())
        for slot in self.slots:
            if slot.process is not None:
                self._drop(slot.process, list(slot.process.leases))
        self.drain()

    # Handing out.

    def fill(self) -> None:
        """Give every slot what it can take."""
        for slot in self.slots:
            if slot.is_free:
                self._bind(slot)
            elif slot.process is not None:
                self._feed(slot, slot.process)

    def _bind(self, slot: Slot) -> None:
        key = self._rules.next_key()
        if key is None:
            return
        slot.bound_at = self._clock.monotonic()
        template = self._template(key)
        if template.WhichOneof("spec") == "command":
            lease = self._book.take(key)
            template = placed_template(template, self._workspaces.place_of(key))
            slot.command = self._commands.start(lease, template, self.timeout_of(key))
            slot.command.on_end = lambda: self._command_ended(slot)
            return
        self._seat(slot, key)

    def _seat(self, slot: Slot, key: Key) -> None:
        """Give a slot a warm process for a kind of work."""
        slot.bound_at = self._clock.monotonic()
        slot.process = self._runners.take(self)
        slot.process.key = key
        slot.process.given_at = slot.bound_at
        if slot.process.state is State.WARM:
            self.on_ready(slot.process)

    def _feed(self, slot: Slot, process: WarmProcess) -> None:
        key = process.key
        if key is None or process.state is not State.SERVING or process.stop_reason is not None:
            return
        must_yield = self._rules.must_yield(slot, key)
        if not must_yield and self._book.waiting_count(key):
            self._give(process, key)
        if not process.leases and (must_yield or self._rules.next_key() not in (None, key)):
            self._give_up(slot)
            self._bind(slot)

    def _give(self, process: WarmProcess, key: Key) -> None:
        given: list[Lease] = []
        outstanding = process.outstanding
        window = window_of(process.average_seconds)
        most, at_hand = self._rules.most_to_give(process, key)
        for n in range(most):
            if n >= at_hand and outstanding >= window:
                break
            lease = self._book.take(key)
            outstanding += lease.case_count
            given.append(lease)
        if given:
            process.give(given, self.timeout_of(key), self._clock.monotonic())
            self._successors.flush_if_due(process, self._clock.monotonic())

    def _give_up(self, slot: Slot) -> None:
        assert slot.process is not None
        self._runners.retire(slot.process)
        slot.process = None

    def _template(self, key: Key) -> common_pb2.TaskTemplate:
        return self._contexts[key[0]].templates[key[1]]

    def timeout_of(self, key: Key) -> float:
        """Longest time a case (pytest) or an attempt (others) of `key` may run."""
        return self._template(key).timeout_seconds or DEFAULT_TIMEOUT_SECONDS

    def _drop(self, process: WarmProcess, fences: Sequence[int]) -> None:
        given = [fence for fence in fences if fence in process.leases]
        if given:
            process.drop(given)

    def _command_ended(self, slot: Slot) -> None:
        slot.command = None
        self.fill()

    # What processes say.

    def on_ready(self, process: WarmProcess) -> None:
        """A process that a slot waits for takes its run."""
        self.is_warm = True
        if process.key is None or process.state is not State.WARM:
            return
        context = self._contexts.get(process.key[0])
        if context is None:
            self._abandon(process)
            return
        message = prepare_message(
            context, process.key, self._worker_id, self._workspaces.place_of(process.key)
        )
        process.given_at = self._clock.monotonic()
        process.needs_successor = message.executor == "pytest"
        process.prepare(message, process.key)

    def _abandon(self, process: WarmProcess) -> None:
        for slot in self.slots:
            if slot.process is process:
                self._give_up(slot)

    def on_prepared(self, process: WarmProcess) -> None:
        """A process can take cases."""
        self.fill()

    def on_prepare_failed(self, process: WarmProcess, message: str, output: str) -> None:
        """The run cannot be served here: each of its cases says so."""
        assert process.key is not None
        key = process.key
        self._abandon(process)
        self._fail(key, Failure(message, output))

    def on_results(self, process: WarmProcess, items: Sequence[ResultItem]) -> None:
        """Cases ended."""
        place = self._workspaces.place_of(process.key) if process.key is not None else None
        taken = completed = 0
        seconds = 0.0
        for item in items:
            lease = process.leases.get(item.fence)
            if lease is None or not lease.has_case(item.case):
                continue  # told before, by the journal
            taken += 1
            seconds += item.duration_seconds
            if place is not None and item.detail is not None:
                bring_home(item.detail, place)
            if self._reporter.case(lease, item):
                del process.leases[item.fence]
                completed += 1
        self._pace.note(completed, seconds)
        if taken:
            process.outstanding -= taken
            process.average_seconds = smoothed(process.average_seconds, seconds / taken)
            if process.key is not None:
                self._hopeless.ran(process.key)
            self.fill()

    def on_dropped(self, process: WarmProcess, fences: Sequence[int]) -> None:
        """Attempts will not start."""
        released = []
        for fence in fences:
            lease = process.leases.pop(fence, None)
            if lease is None:
                continue
            process.outstanding -= lease.case_count
            if lease.is_cancelled:
                self._reporter.end(lease, common_pb2.OUTCOME_CANCELLED, "cancelled before it began")
            else:
                released.append(lease)
        if released:
            self._reporter.release(released)
        self._successors.flush_if_due(process, self._clock.monotonic())
        self.fill()

    def on_garbled(self, process: WarmProcess, why: str) -> None:
        """It said something that is no message."""
        self._watch.stop_garbled(process, why)

    def on_death(self, process: WarmProcess, death: Death) -> None:
        """It is gone: charge the attempt that ran, let the others wait again."""
        for slot in self.slots:
            if slot.process is process:
                slot.process = None
        self._runners.forget(process, death)
        had_work = bool(process.leases) or death.state is State.PREPARING
        is_charged = sort_out(process, death, self._book, self._reporter)
        is_fruitless = had_work and not is_charged and not process.was_told_to_go
        if is_fruitless and process.key is not None and self._hopeless.count_death(process.key):
            words = f"the process {death.reason} before it ran a case"
            self._fail(process.key, Failure(words, death.output))
        self.fill()

    def _fail(self, key: Key, failure: Failure) -> None:
        """No case of `key` can be run on this worker."""
        _log.warning("a run cannot be served run=%s template=%s: %s", key[0], key[1], failure.message)
        self._hopeless.give_up(key, failure)
        self.fill()

    # What workspaces come to.

    def workspace_ready(self, key: Key) -> None:
        """Work of this kind can begin."""
        self._get_ready_for(self._contexts[key[0]])
        self.fill()

    def workspace_failed(self, key: Key, failure: Failure) -> None:
        """Work of this kind cannot be run on this machine."""
        self._fail(key, failure)

    # Time.

    def tick(self, now: float) -> None:
        """Look at what runs: too long, cancelled, held back, idle."""
        self._runners.tick(now, self)
        self._workspaces.tick(now)
        for slot in self.slots:
            if slot.command is not None:
                slot.command.tick(now)
            if slot.process is not None:
                self._watch.look(slot.process, now)
                self._give_up_if_idle(slot, slot.process, now)
        self._successors.flush_held_back(now)
        self.fill()  # who yields to whom changes with time

    def _give_up_if_idle(self, slot: Slot, process: WarmProcess, now: float) -> None:
        is_idle = process.state is State.SERVING and not process.leases
        if is_idle and now - process.given_at > IDLE_SECONDS:
            self._give_up(slot)

    # State.

    def wanted_leases(self, least: int, most: int) -> int:
        """How many leases should be held."""
        return self._pace.wanted(len(self.slots), least, most)

    @property
    def known_runs(self) -> list[str]:
        """Runs whose end is to be heard of: their warm processes stay until then."""
        return list(self._contexts)

    @property
    def running_count(self) -> int:
        """Attempts that run."""
        return sum(
            slot.command is not None or bool(slot.process and slot.process.leases) for slot in self.slots
        )

"""What is learned of one class of tasks from the log: how they come, how many at once, how long they take.

Everything here follows events, never the clock, so that a replay of the log learns the same. Three
things are kept, each in constant space:

- the newest arrivals, for the rate at which tasks come now (`rate_per_second`);
- by level (n tasks at once, queued or running): how long the class has been below it, and how long it
  stayed below it the last few times. A level that comes back every 200 s is known to. The share of
  arrivals that found each level says which levels matter (`level_for`);
- time spent running and runs ended, whose quotient is the mean duration. It counts what still runs,
  so that long jobs are known to be long before the first of them ends (the maximum-likelihood
  estimate of an exponential's mean under censoring).
"""

from bisect import bisect_right
from dataclasses import dataclass, field

from dtf.core.scaling.rates import NANOS

ARRIVALS_KEPT = 256
RATE_WINDOWS = ((64, 1.51), (16, 2.28))
"""A rate over the newest 64 or 16 arrivals that differs from the one over more of them by such a factor is
another rate: 3.3 standard errors of that many exponential intervals. It is looked at with each arrival, so
that at two and a half a steady flow would seem to change several times an hour."""
FALL_RATIO = 3.0
"""A lower rate counts once it has lasted for so many times what is looked ahead: whom a mistake lets go is
launched again and waited for, whom it keeps costs those seconds."""
AHEAD_RATIO = 0.5
"""The middle of what is looked ahead."""
BATCH_MEMORY = 0.98
"""What each new batch leaves of the older ones' weight in the mean size: about 50 count."""
SILENCE_LIMIT = 10.0
"""A silence of ten mean intervals has a chance of one in 22,000: the arrivals have stopped."""
LONG_SILENCE = (5.0, 10.0)
"""One of five has a chance of one in 150: it is enough once it has lasted for ten times what is looked ahead, which
is longer than idle workers are worth keeping."""
NEW_FLOW_SILENCE = 20.0
"""After a silence of so many what comes is another flow: nothing of the old one says how it comes."""
NEW_FLOW_RATIO = 0.5
"""What another flow leaves of the service level that the one before has taught."""
BURST_RATIO = 1 / 6
"""What has come for less than this share of the time that is looked ahead is a burst: the queue, not a rate, says
what it needs."""
WAITING_AIM = 0.033
"""Share of tasks that may find no free slot: with what comes in clusters, 95 % wait for nothing."""
CONTROL_GAIN = 0.06
"""A task that waits weighs as much as 29 that do not; 16 more that wait than should make the ratio 2.6 times
stricter."""
CAUTION = 0.3
"""The logarithm of how much stricter it is to begin with: little is known, and those have waited who came first."""
STREAK_COUNTED = 16
"""Of tasks in a row that find no free slot so many count."""
STRICTNESS_LIMIT = 1.5
ARRIVALS_NEEDED = 5
"""Before so many came nothing is said of their rate."""
SAME_BATCH_NANOS = NANOS // 50
GAPS_KEPT = 6
GROWTH = 1.003
"""Newer arrivals weigh more: 230 arrivals later, half."""
GROWTH_LIMIT = 1e12
HISTORY_BIN_SECONDS = 300
HISTORY_BINS_KEPT = 4032
"""Two weeks."""
MEMORY_RUNS = 256.0
"""Runs over which the mean duration is taken."""


def _levels() -> tuple[int, ...]:
    found = list(range(1, 65))
    while found[-1] < 1 << 20:
        found.append(found[-1] * 17 // 16)
    return tuple(found)


LEVELS = _levels()
"""1 to 64 one by one, then in steps of a sixteenth."""


@dataclass(slots=True)
class Level:
    """How long the class stays below a number of tasks."""

    below_since_ns: int = 0
    """When it fell below; 0: it has not been at the level yet, or is at it now."""
    gaps: list[float] = field(default_factory=list)
    """Seconds spent below it before it came back, newest last."""
    shortest: float = 0.0
    longest: float = 0.0
    arrivals: float = 0.0
    """Weight of the tasks that, when they came, made it reach this level."""

    def came_back(self, now_ns: int) -> None:
        """The level is reached."""
        if self.below_since_ns:
            self.gaps = [*self.gaps[-GAPS_KEPT + 1 :], (now_ns - self.below_since_ns) / NANOS]
            self.shortest, self.longest = min(self.gaps), max(self.gaps)
            self.below_since_ns = 0


@dataclass(slots=True)
class Traffic:
    """One class of tasks."""

    tasks: int = 0
    """Queued or running."""
    running: int = 0
    last_ns: int = 0
    instants: list[int] = field(default_factory=list)
    """When the newest batches came, newest last; tasks that come together are one batch."""
    last_size: int = 0
    """Tasks of the newest."""
    batch_tasks: float = 0.0
    batch_squares: float = 0.0
    """Sums over the ones before, older ones weighing less."""
    intervals: float = 0.0
    interval_sum: float = 0.0
    interval_squares: float = 0.0
    """Number, sum and squares of the seconds between batches, older ones weighing less."""
    levels: list[Level] = field(default_factory=list)
    """Of LEVELS, as far up as the class has been."""
    reached: int = 0
    """Levels at or below `tasks`."""
    streak: int = 0
    """Tasks in a row that found no free slot."""
    strictness: float = CAUTION
    """How much more (or, negative, less) than by the forecast alone has to be there for as few tasks to wait as
    should: the logarithm of a factor."""
    weight: float = 1.0
    total: float = 0.0
    running_seconds: float = 0.0
    runs: float = 0.0
    last_bin: int = 0
    """The present bin of the history, in bins since 1970."""
    history: list[int] = field(default_factory=list)
    """Tasks that came in each bin of five minutes, newest last."""

    def arrived(self, now_ns: int, tasks: int, free: int | None = None) -> None:
        """Tasks were submitted; `free`: slots that nobody had taken or waited for, None: not known."""
        if tasks <= 0:
            return
        if free is not None:
            self._control(tasks, max(0, tasks - max(0, free)))
        self._advance(now_ns)
        if self.instants and now_ns - self.instants[-1] < SAME_BATCH_NANOS:
            self.last_size += tasks
        else:
            self._new_batch(now_ns, tasks)
        self._remember(now_ns, tasks)
        self._weigh(tasks)
        self.tasks += tasks
        self._rise(now_ns)

    def _control(self, tasks: int, waiting: int) -> None:
        """Integral control of the service level; of a crowd nobody could have served only the first count."""
        self.streak = self.streak + waiting if waiting == tasks else waiting
        passed_over = max(0, min(waiting, self.streak - STREAK_COUNTED))
        change = CONTROL_GAIN * (waiting - passed_over - WAITING_AIM * (tasks - passed_over))
        self.strictness = min(max(self.strictness + change, -STRICTNESS_LIMIT), STRICTNESS_LIMIT)

    def _new_batch(self, now_ns: int, tasks: int) -> None:
        self.batch_tasks = (self.batch_tasks + self.last_size) * BATCH_MEMORY
        self.batch_squares = (self.batch_squares + self.last_size * self.last_size) * BATCH_MEMORY
        if self.instants and self._has_stopped(now_ns, NEW_FLOW_SILENCE):
            self.instants.clear()
            self.batch_tasks = self.batch_squares = 0.0
            self.intervals = self.interval_sum = self.interval_squares = 0.0
            self.strictness *= NEW_FLOW_RATIO
        if self.instants:
            interval = (now_ns - self.instants[-1]) / NANOS
            self.intervals = self.intervals * BATCH_MEMORY + 1.0
            self.interval_sum = self.interval_sum * BATCH_MEMORY + interval
            self.interval_squares = self.interval_squares * BATCH_MEMORY + interval * interval
        self.last_size = tasks
        self.instants.append(now_ns)
        if len(self.instants) > 2 * ARRIVALS_KEPT:
            del self.instants[:ARRIVALS_KEPT]

    def started(self, now_ns: int, tasks: int, slots: int) -> None:
        """Tasks were handed to workers; `slots`: those of all workers, more do not run at once."""
        self._advance(now_ns)
        self.running = min(self.running + tasks, max(slots, 1))

    def stopped(self, now_ns: int, tasks: int) -> None:
        """Tasks came back unfinished and wait again."""
        self._advance(now_ns)
        self.running = max(0, min(self.running - tasks, self.tasks))

    def ended(self, now_ns: int, tasks: int, was_running: bool = True) -> None:
        """Tasks are done for good."""
        self._advance(now_ns)
        self.tasks = max(0, self.tasks - tasks)
        if was_running:
            self.running = max(0, self.running - tasks)
            self.runs += tasks
            if self.runs > 2 * MEMORY_RUNS:
                share = MEMORY_RUNS / self.runs
                self.runs, self.running_seconds = MEMORY_RUNS, self.running_seconds * share
        self.running = min(self.running, self.tasks)
        self._fall(now_ns)

    def mean_seconds(self, now_ns: int, assumed: float) -> float:
        """What a task takes; `assumed` counts like one run."""
        under_way = self.running * max(0, now_ns - self.last_ns) / NANOS
        return (self.running_seconds + under_way + assumed) / (self.runs + 1.0)

    def batch_size(self) -> float:
        """Tasks that come at once, weighed by tasks: what a task sees arriving with it."""
        size = self.last_size
        tasks, squares = self.batch_tasks + size, self.batch_squares + size * size
        return squares / tasks if tasks else 0.0

    def dispersion(self) -> float:
        """Variance over mean of the tasks that come in a long time: 1 for single tasks that come at random.

        Batches raise it, a regular beat lowers it: of a renewal process it is the squared coefficient of
        variation of its intervals (Cox 1962).
        """
        if self.interval_sum <= 0 or not self.batch_tasks:
            return self.batch_size()
        mean = self.interval_sum / self.intervals
        irregularity = max(0.0, self.interval_squares / self.intervals / (mean * mean) - 1.0)
        plain_size = self.batch_tasks / (self.intervals or 1.0)
        return max(0.0, self.batch_size() - plain_size * (1.0 - irregularity))

    def rate_per_second(self, now_ns: int, ahead: float) -> float:
        """Batches expected to come a second over the next `ahead` seconds.

        It is the rate over the newest 256, moved towards that over fewer where they differ. What has
        lasted for t is expected to last for as long again (Gott 1993): that it lasts until the middle
        of what is looked ahead has a chance of t / (t + ahead / 2), and so much it counts.
        0 when too few have come to say, and when they have stopped coming.
        """
        instants = self.instants
        count = len(instants)
        if count < ARRIVALS_NEEDED:
            return 0.0
        if self._has_stopped(now_ns, SILENCE_LIMIT):
            return 0.0
        intervals, times = LONG_SILENCE
        if now_ns - instants[-1] > times * ahead * NANOS and self._has_stopped(now_ns, intervals):
            return 0.0
        base, lasted = _rate(instants, min(count, ARRIVALS_KEPT), now_ns)
        if lasted < ahead * BURST_RATIO:
            return 0.0
        middle = ahead * AHEAD_RATIO
        rate = base * lasted / (lasted + middle)
        for window, factor in RATE_WINDOWS:
            if count > window:
                newer, lasted = _rate(instants, window, now_ns)
                has_risen = newer > base * factor and lasted >= ahead * BURST_RATIO
                has_fallen = newer * factor < base and lasted >= ahead * FALL_RATIO
                if has_risen or has_fallen:
                    rate += (newer - rate) * lasted / (lasted + middle)
                    base = newer
        return rate

    def _has_stopped(self, now_ns: int, limit: float) -> bool:
        """Whether it has been silent for `limit` times as long as it is between the newest arrivals."""
        instants = self.instants
        silence = (now_ns - instants[-1]) / NANOS
        return silence * _rate(instants, min(len(instants), 16), instants[-1])[0] > limit

    def arrivals_counted(self) -> float:
        """Tasks that the levels' shares rest on, older ones weighing less."""
        return self.total / self.weight

    def level_for(self, missed_ratio: float) -> int:
        """The fewest tasks at once that all but `missed_ratio` of the arrivals stayed within."""
        allowed = missed_ratio * self.total
        for index in range(len(self.levels) - 1, -1, -1):
            allowed -= self.levels[index].arrivals
            if allowed < 0:
                return LEVELS[index]
        return 0

    def _advance(self, now_ns: int) -> None:
        if self.running and now_ns > self.last_ns:
            self.running_seconds += self.running * (now_ns - self.last_ns) / NANOS
        self.last_ns = max(now_ns, self.last_ns)

    def _remember(self, now_ns: int, tasks: int) -> None:
        this = now_ns // (HISTORY_BIN_SECONDS * NANOS)
        if not self.history:
            self.last_bin, self.history = this, [0]
        if this > self.last_bin:
            self.history.extend([0] * min(this - self.last_bin, HISTORY_BINS_KEPT))
            self.last_bin = this
            del self.history[:-HISTORY_BINS_KEPT]
        self.history[-1] += tasks

    def _weigh(self, tasks: int) -> None:
        """Each task counts at the level it makes."""
        low, high = self.tasks, min(self.tasks + tasks, LEVELS[-1])
        index = bisect_right(LEVELS, low)
        while low < high:
            if index == len(self.levels):
                self.levels.append(Level())
            top = min(LEVELS[index], high)
            self.levels[index].arrivals += (top - low) * self.weight
            low, index = top, index + 1
        self.total += tasks * self.weight
        self.weight *= GROWTH if tasks == 1 else GROWTH ** min(tasks, 1000)
        if self.weight > GROWTH_LIMIT:
            self._shrink()

    def _shrink(self) -> None:
        for level in self.levels:
            level.arrivals /= self.weight
        self.total /= self.weight
        self.weight = 1.0

    def _rise(self, now_ns: int) -> None:
        while self.reached < len(self.levels) and LEVELS[self.reached] <= self.tasks:
            self.levels[self.reached].came_back(now_ns)
            self.reached += 1

    def _fall(self, now_ns: int) -> None:
        while self.reached and LEVELS[self.reached - 1] > self.tasks:
            self.reached -= 1
            self.levels[self.reached].below_since_ns = now_ns


def _rate(instants: list[int], count: int, now_ns: int) -> tuple[float, float]:
    """Of the newest `count` arrivals, and over how long; the first only opens the interval."""
    seconds = (now_ns - instants[-count]) / NANOS
    return ((count - 1) / seconds if seconds > 0 else 0.0), seconds

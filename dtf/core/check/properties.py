"""The properties that a history must have, each with the question it answers."""

from enum import Enum


class Source(Enum):
    """What a property is checked against."""

    LOG = "the log alone"
    CLIENT_JOURNAL = "client journals"
    WORKER_JOURNAL = "worker journals"
    SCALING = "scaling decisions"


class Property(Enum):
    """A property: its name, what it says, and what is needed to check it."""

    def __init__(self, title: str, says: str, source: Source = Source.LOG) -> None:
        self.title = title
        self.says = says
        self.source = source

    CHAIN = ("chain", "each commit carries the hash of the one before; no message is missing")
    TIME = ("time", "a commit's time is never before that of the commit before it")
    EPOCHS = ("epochs", "epochs rise by one, begin with LeaderElected, and have one writer each")
    KNOWN = ("known-events", "every event is of a type and a shape that this version reads")
    SUBMISSIONS = ("submissions", "batches have no gap, tasks no hole; nothing joins a run after its end")
    ONE_LEASE = ("one-lease", "a task has at most one lease at a time")
    FENCES = ("fences", "each lease gets a fence higher than every one before")
    QUEUE = ("queue", "only queued tasks are granted or abandoned")
    GRANTS = ("grants", "leases go to present workers that take work, fit the task and have room for it")
    ATTEMPTS = ("attempts", "attempts are counted without a gap, and complete when each case is reported")
    STALE = ("stale-fence", "nothing is accepted, ended or released but under a fence that is held")
    HOLDER = ("holder", "results, ends and releases come from the worker and incarnation that hold the lease")
    ONE_VERDICT = ("one-verdict", "a case gets one final verdict")
    RETRIES = ("retries", "retries, FLAKY and ERROR follow from what happened before and what is allowed")
    COMPLETENESS = ("completeness", "a run that ended has ended tasks, its verdicts and true totals")
    INCARNATIONS = (
        "incarnations",
        "a worker's incarnations rise; sessions end once, and none speaks after its end",
    )
    ADMISSION = (
        "admission",
        "join tokens admit workers of their pool, until they expire, are revoked or are spent",
    )
    ORPHANS = ("orphans", "a worker that is lost, replaced, gone or quarantined holds no lease")
    RETIREMENT = ("retirement", "only ended runs and absent workers are forgotten")
    BUSY = ("busy-not-terminated", "the resource manager drains and ends only workers that hold no lease")
    ACKNOWLEDGED = (
        "acknowledged-submissions",
        "each submission that a client was told is durable is in the log",
        Source.CLIENT_JOURNAL,
    )
    GRANTED = (
        "commit-before-grant",
        "each lease that a worker got was granted to it by a commit decided before",
        Source.WORKER_JOURNAL,
    )
    RESULTS = (
        "acknowledged-results",
        "each result that a worker was told is durable is in the log, accepted or refused",
        Source.WORKER_JOURNAL,
    )
    DECISIONS = (
        "scaling-decisions",
        "each worker that a decision drains or terminates held no lease at the sequence it rests on",
        Source.SCALING,
    )

"""Figures and words as reports write them: units on numbers, no more digits than help."""

from dtf.api.v1 import common_pb2
from dtf.core.run.summary import RunSummary, Verdict

VERDICT_WORDS: dict[int, str] = {
    common_pb2.VERDICT_PASSED: "passed",
    common_pb2.VERDICT_FAILED: "failed",
    common_pb2.VERDICT_ERROR: "error",
    common_pb2.VERDICT_FLAKY: "flaky",
    common_pb2.VERDICT_SKIPPED: "skipped",
}
_COUNT_ORDER = ("passed", "failed", "error", "flaky", "skipped")


def verdict_word(verdict: Verdict) -> str:
    """ "passed", …; "unjudged" for none."""
    return VERDICT_WORDS.get(verdict, "unjudged")


def outcome_word(outcome: "common_pb2.Outcome.ValueType") -> str:
    """ "timed out", …"""
    name = common_pb2.Outcome.Name(outcome).removeprefix("OUTCOME_").lower().replace("_", " ")
    return "never started" if name == "unspecified" else name


def seconds_text(seconds: float) -> str:
    """ "0.4 ms", "12 ms", "0.35 s", "6.2 s", "19.8 s", "4.1 min", "2.5 h"."""
    if seconds < 0.0095:
        return f"{seconds * 1000:.1f} ms"
    if seconds < 0.0995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 0.995:
        return f"{seconds:.2f} s"
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def bytes_text(size: float) -> str:
    """ "512 B", "3.2 MiB", …"""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024 or unit == "GiB":
            return f"{size:.0f} {unit}" if unit == "B" or size >= 100 else f"{size:.1f} {unit}"
        size /= 1024
    raise AssertionError("the loop returns at its last unit")


def counted(count: int, noun: str, plural: str = "") -> str:
    """ "1 worker", "2 workers"."""
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"


def percent_text(ratio: float) -> str:
    """ "87 %"."""
    return f"{ratio * 100:.0f} %"


def change_text(ratio: float) -> str:
    """How a value compares with its usual one, from their ratio: "+23 %", "−40 %", "3.1 times"."""
    if ratio >= 2:
        return f"{ratio:.1f} times"
    return f"{'+' if ratio >= 1 else '−'}{abs(ratio - 1) * 100:.0f} %"


def counts_text(run: RunSummary) -> str:
    """ "226 passed, 3 failed, 1 flaky, 2 skipped"; what was cancelled is counted as not run."""
    counted_words = [(getattr(run.counts, name), name) for name in _COUNT_ORDER]
    words = [
        counted(count, name, "errors" if name == "error" else name) for count, name in counted_words if count
    ]
    if run.unjudged:
        words.append(f"{run.unjudged:,} not run (cancelled)")
    return ", ".join(words) or "nothing ran"

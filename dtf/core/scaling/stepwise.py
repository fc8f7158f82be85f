"""Stepwise: so many workers more or fewer while a measurement is beyond a threshold.

A step is a condition and a change: `"queue >= 20" = "+2"`, `"utilization < 0.3" = "-1"`,
`"backlog >= 600" = "+50%"`, `"queue == 0" = "=2"`. Of the steps whose condition holds the largest
growth counts; only where none asks for growth, the largest reduction does. Growth counts from the
workers that are there, so that those on their way are not asked for again at every decision.
"""

import math
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache

from dtf.core.scaling.measure import Measured
from dtf.core.scaling.policy import ScalingPolicy
from dtf.core.scaling.recommendation import Recommendation

DEFAULT_STEPS = {"queue >= 1": "+1", "queue >= 10": "+4", "utilization < 0.25": "-1"}

_CONDITION = re.compile(r"(queue|backlog|utilization|idle)\s*(>=|<=|==|>|<)\s*([0-9.]+)")
_CHANGE = re.compile(r"([+=-])([0-9]+)(%?)")
_OPERATORS: Mapping[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    "==": operator.eq,
    ">": operator.gt,
    "<": operator.lt,
}


class BadStep(ValueError):
    """A step that cannot be read; the message says which and what was expected."""


@dataclass(frozen=True, slots=True)
class Step:
    """One condition and what it changes."""

    text: str
    metric: str
    compare: str
    threshold: float
    sign: str
    amount: int
    is_percent: bool

    def holds(self, figures: Mapping[str, float]) -> bool:
        """Whether the condition is met."""
        return _OPERATORS[self.compare](figures[self.metric], self.threshold)

    def apply(self, staff: int) -> int:
        """The workers it asks for."""
        amount = math.ceil(staff * self.amount / 100) if self.is_percent else self.amount
        match self.sign:
            case "+":
                return staff + amount
            case "-":
                return max(0, staff - amount)
            case _:
                return amount


@lru_cache(maxsize=64)
def parse_steps(written: tuple[tuple[str, str], ...]) -> tuple[Step, ...]:
    """The steps of a pool's settings. Raises BadStep."""
    steps = []
    for condition, change in written:
        found, made = _CONDITION.fullmatch(condition.strip()), _CHANGE.fullmatch(change.strip())
        if found is None or made is None:
            raise BadStep(
                f'the step "{condition}" = "{change}" cannot be read: write "queue >= 20" = "+2" with queue, '
                "backlog (seconds), utilization (0 to 1) or idle (workers), and +N, -N, +N%, -N% or =N"
            )
        metric, compare, threshold = found.groups()
        sign, amount, percent = made.groups()
        text = f"{metric} {compare} {threshold}"
        steps.append(Step(text, metric, compare, float(threshold), sign, int(amount), bool(percent)))
    return tuple(steps)


def recommend_stepwise(measured: Measured, policy: ScalingPolicy) -> Recommendation:
    """The largest growth that a step asks for, or the largest reduction."""
    figures = {
        "queue": float(measured.queued),
        "backlog": measured.backlog_seconds,
        "utilization": measured.utilization_ratio,
        "idle": float(len(measured.idle)),
    }
    steps = parse_steps(tuple((policy.steps or DEFAULT_STEPS).items()))
    chosen: Step | None = None
    workers = measured.effective
    held = [(step.apply(measured.staff), step) for step in steps if step.holds(figures)]
    growing = [(to, step) for to, step in held if to > measured.staff]
    if growing:
        to, chosen = max(growing, key=lambda pair: pair[0])
        workers = max(to, measured.effective)
    elif held and not measured.awaited:
        workers, chosen = min(held, key=lambda pair: pair[0])

    def explain() -> str:
        if chosen is None:
            return "no step applies"
        return f"{chosen.metric} is {figures[chosen.metric]:g}: the step {chosen.text} asks for {workers}"

    parts = [(step.text, to, f"{step.metric} is {figures[step.metric]:g}") for to, step in held]
    return Recommendation(workers, explain, lambda: parts)

"""A series watched as it grows."""

import math
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Self

from dtf.core.trend import anomalies as engine
from dtf.core.trend.anomalies.contexts import LENGTH
from dtf.core.trend.changes import ChangeStream
from dtf.core.trend.findings import Anomaly, AnomalyKind, ChangePoint, Finding, Interval
from dtf.trends.inputs import LARGEST, LARGEST_WEIGHT, is_absent, is_number
from dtf.trends.moments import seconds


class _Clock:
    """Times as seconds, in order."""

    def __init__(self, last: float | None = None) -> None:
        self.last = last

    def read(self, time: Any) -> float:
        """A time, not before the last one. Raises ValueError."""
        moment = seconds(time)
        if self.last is not None and moment < self.last:
            raise ValueError(f"time {time} is before the last one: give values in order of time")
        self.last = moment
        return moment

    def read_newest(self, time: Any) -> float:
        """The same, but a time before the last one stands for the last one. Raises ValueError for what is none."""
        moment = seconds(time)
        self.last = moment if self.last is None else max(moment, self.last)
        return self.last

    @classmethod
    def restore(cls, last: Any) -> Self:
        """The clock that stood at `last`. Raises TypeError or ValueError for what is no time."""
        return cls(None if last is None else float(last))


class AnomalyDetector:
    """How unusual each new value is, as it comes.

    `minimum` and `maximum` are the range that values can have, if it is known.
    """

    def __init__(self, minimum: float | None = None, maximum: float | None = None) -> None:
        for name, bound in (("minimum", minimum), ("maximum", maximum)):
            if bound is not None and not (is_number(bound) and bound == bound):
                raise ValueError(f"{name} is {bound!r}: wanted a number, or None where it is not known")
        if minimum is not None and maximum is not None and not minimum <= maximum:
            raise ValueError(f"minimum {minimum} is above maximum {maximum}")
        self._engine = engine.AnomalyDetector(minimum=minimum, maximum=maximum)
        self._clock = _Clock()

    def update(self, time: Any, value: float | None) -> float:
        """A score in [0, 1]: on normal data 1 - p or more comes at no more than a share p of the values.

        `time` is a datetime, seconds since 1970 or ISO text. Values count in the order in which they come:
        one whose clock was set back is the newest. None and NaN are a missing value, whose score is 0.
        Raises ValueError for a time that is none.
        """
        return self._engine.update(self._clock.read_newest(time), _number(value))

    def state(self) -> dict[str, Any]:
        """What it has learnt, for JSON; of bounded size."""
        from dtf.trends.states import seal

        return seal(last=self._clock.last, detector=self._engine.state())

    @classmethod
    def restore(cls, state: Mapping[str, Any]) -> Self:
        """The detector that gave `state`. Raises ValueError for one of another version, and for one changed or cut since."""
        from dtf.trends.states import DetectorState, open_sealed

        opened = open_sealed(state, DetectorState)
        made = cls()
        with _damage_told():
            made._engine = engine.AnomalyDetector.restore(opened.detector)
            made._clock = _Clock.restore(opened.last)
        return made


class _Anomalies:
    """The detector of a stream, whose alarms become findings as they do in `find_anomalies`."""

    def __init__(self, detector: engine.AnomalyDetector, count: int = 0) -> None:
        self._detector = detector
        self._count = count
        self._times: deque[float] = deque(maxlen=LENGTH)

    def append(self, moment: float, value: float) -> list[Finding]:
        """The anomaly that this value is, or that ends with it."""
        index = self._count
        self._count += 1
        self._times.append(moment)
        reach = self._detector.usual_error
        score = self._detector.update(moment, value)
        if not math.isfinite(value) or score < engine.FINDING_SCORE:
            return []
        expected = Interval(self._detector.expected - reach, self._detector.expected + reach)
        kind = self._detector.kind
        length = 1 if kind is AnomalyKind.POINT else len(self._times)
        return [Anomaly(index + 1 - length, index + 1, self._times[-length], kind, score, value, expected)]

    def state(self) -> dict[str, Any]:
        """For JSON; of bounded size."""
        return {"detector": self._detector.state(), "count": self._count, "times": list(self._times)}

    @classmethod
    def restore(cls, state: Mapping[str, Any]) -> Self:
        """What gave `state`."""
        made = cls(engine.AnomalyDetector.restore(state["detector"]), state["count"])
        made._times.extend(map(float, state["times"]))
        return made


class Stream:
    """Values in, findings out; after the last value it has found what `analyze` finds in the whole series.

    With `anomalies=True` unusual values are findings too, once each; a spike is not a change. A value
    costs the same however long the series is, and `state()` has a bounded size.
    """

    def __init__(self, *, lower_is_better: bool | None = None, anomalies: bool = False) -> None:
        self._changes = ChangeStream(lower_is_better=lower_is_better)
        self._anomalies = _Anomalies(engine.AnomalyDetector()) if anomalies else None
        self._clock = _Clock()

    def append(self, time: Any, value: float | None, weight: float = 1.0) -> list[Finding]:
        """The findings that are new, or have another state, kind or place, because of this value.

        `time` is a datetime, seconds since 1970 or ISO text, not before the last one's; None and NaN are
        a missing value; `weight`, above 0, says how many measurements the value sums up. Raises
        ValueError for a time that is none or is before the last, and for such a weight.
        """
        if not is_number(weight) or not 0 < weight <= LARGEST_WEIGHT:
            raise ValueError(
                f"weight is {weight!r:.60}: it is above 0 (how many measurements the value is), at most {LARGEST_WEIGHT:g}"
            )
        number = _number(value)
        moment = self._clock.read(time)
        found: list[Finding] = list(self._changes.append(moment, number, weight))
        if self._anomalies is not None:
            found += self._anomalies.append(moment, number)
        return found

    @property
    def change_points(self) -> tuple[ChangePoint, ...]:
        """Those that have not gone away, in order."""
        return tuple(self._changes.change_points)

    def state(self) -> dict[str, Any]:
        """What it knows, for JSON; of bounded size."""
        from dtf.trends.states import seal

        return seal(
            last=self._clock.last,
            changes=self._changes.state(),
            anomalies=None if self._anomalies is None else self._anomalies.state(),
        )

    @classmethod
    def restore(cls, state: Mapping[str, Any]) -> Self:
        """The stream that gave `state`, which goes on as if nothing had been.

        Raises ValueError for a state of another version, and for one that was changed or cut since; it says what is wrong.
        """
        from dtf.trends.states import StreamState, open_sealed

        opened = open_sealed(state, StreamState)
        made = cls()
        with _damage_told():
            made._changes = ChangeStream.restore(opened.changes)
            if opened.anomalies is not None:
                made._anomalies = _Anomalies.restore(opened.anomalies)
            made._clock = _Clock.restore(opened.last)
        return made


def _number(value: Any) -> float:
    if is_absent(value):
        return math.nan
    try:
        number = float(value)
    except OverflowError:
        raise ValueError(f"the value is a whole number larger than {LARGEST:g}") from None
    except (TypeError, ValueError):
        raise ValueError(f"the value is {value!r}, which is no number") from None
    if math.isfinite(number) and abs(number) > LARGEST:
        raise ValueError(f"the value is {number:g}: beyond {LARGEST:g} nothing is analysed")
    return number


@contextmanager
def _damage_told() -> Iterator[None]:
    """What an engine cannot go on from becomes a ValueError of one line."""
    try:
        yield
    except ValueError:
        raise  # of an engine of another version, in its own words
    except (LookupError, TypeError, AttributeError, ArithmeticError, MemoryError) as error:
        raise ValueError(f"the state is none of this engine ({error!r:.100}): start anew") from error

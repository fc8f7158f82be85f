"""States of streams and detectors: plain JSON that may travel; what was changed or cut on the way is refused in one line."""

import copy
import json
import math
import random
from collections.abc import Iterator
from typing import Any

import pytest

import dtf.trends
from dtf.trends.states import DetectorState, StreamState, open_sealed, seal

Kind = type[dtf.trends.Stream] | type[dtf.trends.AnomalyDetector]

STRANGE: tuple[Any, ...] = (
    *(None, -1, 0, 7, 2**40, 2**70, 1.5, math.nan, math.inf, 1e308, True, "x", ""),
    *([], {}, [[]], [None] * 3, [1e9] * 5, {"a": 1}),
)


def states(count: int) -> list[tuple[Kind, dict[str, Any]]]:
    """A stream's and a detector's state after so many values with a step."""
    stream = dtf.trends.Stream(lower_is_better=True, anomalies=True)
    detector = dtf.trends.AnomalyDetector(minimum=0.0, maximum=100.0)
    chance = random.Random(count)
    for time in range(count):
        value = chance.gauss(50.0, 1.0) + 5.0 * (time > count // 2)
        stream.append(time, value)
        detector.update(time, value)
    return [(dtf.trends.Stream, stream.state()), (dtf.trends.AnomalyDetector, detector.state())]


def places(part: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to each part of a state; of long lists to some."""
    if above:
        yield above
    if isinstance(part, dict):
        for name, inner in part.items():
            yield from places(inner, (*above, name))
    elif isinstance(part, list):
        for number in {0, len(part) // 2, len(part) - 1} if part else ():
            yield from places(part[number], (*above, number))


def damage(state: dict[str, Any], chance: random.Random) -> None:
    """Take something out, cut a list, say it twice, or put something else in its place."""
    *way, last = chance.choice(list(places(state)))
    part: Any = state
    for step in way:
        part = part[step]
    match chance.randrange(4), part[last]:
        case 0, _:
            del part[last]
        case 1, [*_, _] as cut:
            cut.pop()
        case 2, [*_, _] as longer:
            longer.append(longer[0])
        case _:
            part[last] = chance.choice(STRANGE)


@pytest.mark.parametrize("count", [0, 5, 45])
def test_what_was_changed_or_cut_is_refused_in_one_line(count: int) -> None:
    chance = random.Random(20_261_123 + count)
    for kind, whole in states(count):
        intact = json.dumps(whole, allow_nan=False)
        for _ in range(60):
            state = json.loads(intact)
            damage(state, chance)
            if state == whole:
                kind.restore(state)
                continue
            with pytest.raises(ValueError, match=r"^the state (is damaged|has version)") as told:
                kind.restore(state)
            assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"version": 1}, "version 1, this code reads 2"),
        ({"version": True}, "version True, this code reads 2"),
        ({"last": 3.0}, "not as state.. gave it: 'last'"),
        ({"changes": None}, r"Expected `object`, got `null` - at `\$.changes`"),
        ({"more": 1}, "unknown field `more`"),
        ({"anomalies": {"count": math.nan}}, "anomalies.count: nan is no number of JSON"),
        ({"anomalies": {"detector": {1: 2}}}, "anomalies.detector: 1 is no name of a part"),
        ({"anomalies": {"detector": object()}}, "anomalies.detector: object is no part of a state"),
    ],
)
def test_it_is_said_what_is_wrong(change: dict[str, Any], said: str) -> None:
    state = dtf.trends.Stream(anomalies=True).state()
    with pytest.raises(ValueError, match=said):
        dtf.trends.Stream.restore(state | change)


@pytest.mark.parametrize("state", [None, [], {}, "x", dtf.trends.AnomalyDetector().state()])
def test_what_is_no_state_of_a_stream_is_refused(state: Any) -> None:
    with pytest.raises(ValueError, match="state"):
        dtf.trends.Stream.restore(state)


def test_a_part_that_is_nested_without_end_is_refused() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    state = dtf.trends.Stream(anomalies=True).state()
    state["anomalies"]["times"] = deep
    with pytest.raises(ValueError, match=r"anomalies.times: list is no part of a state"):
        dtf.trends.Stream.restore(state)


def test_an_engine_of_another_version_and_one_that_is_forged_are_told() -> None:
    state = open_sealed(dtf.trends.Stream(anomalies=True).state(), StreamState)
    older = copy.deepcopy(state.changes) | {"version": 0}
    with pytest.raises(ValueError, match="append the series' values anew"):
        dtf.trends.Stream.restore(seal(last=None, changes=older, anomalies=None))
    forged = {"detector": {**(state.anomalies or {})["detector"], "rest": [2**70]}}
    with pytest.raises(ValueError, match="the state is none of this engine"):
        dtf.trends.Stream.restore(
            seal(last=None, changes=state.changes, anomalies={**forged, "count": 0, "times": []})
        )


def test_a_state_may_pass_through_json_that_knows_one_kind_of_number() -> None:
    for kind, state in states(45):
        ways = (_whole_where_it_can(state), _doubles(state), dict(reversed(state.items())))
        for travelled in ways:
            assert kind.restore(travelled).state() == state


def test_what_is_not_finite_comes_back_as_it_was() -> None:
    state = seal(last=None, detector={"expected": math.nan, "range": [math.inf, -math.inf]})
    opened = open_sealed(json.loads(json.dumps(state, allow_nan=False)), DetectorState)
    assert repr(opened.detector) == "{'expected': nan, 'range': [inf, -inf]}"


def _whole_where_it_can(part: Any) -> Any:
    """As JavaScript writes it."""
    return _each(part, lambda number: int(number) if float(number).is_integer() else number)


def _doubles(part: Any) -> Any:
    """As a store keeps it that has doubles alone; the version is one, too."""
    return _each(part, float)


def _each(part: Any, change: Any) -> Any:
    match part:
        case bool():
            return part
        case int() | float():
            return change(part)
        case list():
            return [_each(inner, change) for inner in part]
        case dict():
            return {name: _each(inner, change) for name, inner in part.items()}
        case _:
            return part

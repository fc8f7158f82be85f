"""Faults that a fork can be given: `parse` reads one as people write it, KIND[:argument,argument][@SECONDS]."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from dtf.core.simulation.agenda import SECOND


class FaultError(ValueError):
    """No such fault, or an argument that it does not take; the message says which there are."""


class Stage(Protocol):
    """What a fault can do to a fork."""

    def busiest(self, name: str) -> str:
        """The worker of this name, or, without one, the one with the most leases. Raises FaultError."""
        ...

    def kill(self, name: str) -> None:
        """A worker's process dies; another starts in its place."""
        ...

    def kill_all(self) -> None:
        """Every worker's process dies; others start in their places."""
        ...

    def slow(self, name: str, factor: float) -> None:
        """A worker's cases take longer."""
        ...

    def repeat_messages(self) -> None:
        """Each message of each worker comes twice."""
        ...

    def delay_messages(self, name: str, delay_ns: int) -> None:
        """A worker's messages come later."""
        ...

    def cut_off(self, name: str, duration_ns: int) -> None:
        """Nothing comes from or to a worker for some time; it works on."""
        ...

    def restart_coordinator(self, down_ns: int) -> None:
        """The coordinator dies with commits in flight, and is elected anew."""
        ...

    def doom_coordinator(self, chance: float) -> None:
        """The coordinator dies after each commit with this chance, before it is durable or not."""
        ...

    def crash_case(self, times: int) -> None:
        """A case that has yet to run kills its process, some times."""
        ...

    def cancel(self, run_id: str) -> None:
        """A run (empty: each that is active) is cancelled."""
        ...

    def add_workers(self, count: int) -> None:
        """More workers like those there are."""
        ...

    def drain(self, name: str) -> None:
        """An operator drains a worker; another starts in its place."""
        ...

    def quarantine(self, name: str) -> None:
        """An operator quarantines a worker; another starts in its place."""
        ...

    def give_back(self, name: str) -> None:
        """A worker gives back every lease that it has not begun."""
        ...


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault, its argument read."""

    text: str
    """As people write it."""
    apply: Callable[[Stage], None]
    delay_ns: int = 0
    """How long after the fork it strikes."""


@dataclass(frozen=True, slots=True)
class _Kind:
    arguments: str
    says: str
    read: Callable[[list[str]], Callable[[Stage], None]]


def parse(text: str) -> Fault:
    """The fault that `text` names. Raises FaultError."""
    body, at, delay = text.partition("@")
    name, _, rest = body.partition(":")
    kind = KINDS.get(name)
    if kind is None:
        raise FaultError(f"there is no fault {name!r}; there are: {', '.join(KINDS)}")
    try:
        delay_ns = _seconds([delay], 0, 0.0) if at else 0
        return Fault(text, kind.read(rest.split(",") if rest else []), delay_ns)
    except (ValueError, IndexError) as error:
        raise FaultError(
            f"{text!r} cannot be read; it is {name}{kind.arguments}[@SECONDS] ({error})"
        ) from error


def _text(given: list[str], index: int) -> str:
    if len(given) > index + 1 and index == len(given) - 1:
        raise ValueError("too many arguments")
    return given[index] if len(given) > index else ""


def _number(given: list[str], index: int, default: float, least: float = 0.0) -> float:
    text = _text(given, index)
    number = float(text.removeprefix("x").removesuffix("s")) if text else default
    if not least <= number <= 1e6:
        raise ValueError(f"{text} is not in [{least:g}, 1e6]")
    return number


def _seconds(given: list[str], index: int, default: float) -> int:
    return round(_number(given, index, default) * SECOND)


def _none(given: list[str]) -> Callable[[Stage], None]:
    if given:
        raise ValueError("it takes no argument")
    return lambda stage: None


def _worker_lost(given: list[str]) -> Callable[[Stage], None]:
    name = _text(given, 0)
    return lambda stage: stage.kill(stage.busiest(name))


def _all_workers_lost(given: list[str]) -> Callable[[Stage], None]:
    _none(given)
    return lambda stage: stage.kill_all()


def _slow_worker(given: list[str]) -> Callable[[Stage], None]:
    factor, name = _number(given, 0, 3.0, 0.01), _text(given, 1)
    return lambda stage: stage.slow(stage.busiest(name), factor)


def _duplicated(given: list[str]) -> Callable[[Stage], None]:
    _none(given)
    return lambda stage: stage.repeat_messages()


def _delayed(given: list[str]) -> Callable[[Stage], None]:
    delay_ns, name = _seconds(given, 0, 2.0), _text(given, 1)
    return lambda stage: stage.delay_messages(stage.busiest(name), delay_ns)


def _cut_off(given: list[str]) -> Callable[[Stage], None]:
    duration_ns, name = _seconds(given, 0, 30.0), _text(given, 1)
    return lambda stage: stage.cut_off(stage.busiest(name), duration_ns)


def _restart(given: list[str]) -> Callable[[Stage], None]:
    down_ns = _seconds(given, 0, 1.0)
    return lambda stage: stage.restart_coordinator(down_ns)


def _doom(given: list[str]) -> Callable[[Stage], None]:
    chance = _number(given, 0, 0.05)
    return lambda stage: stage.doom_coordinator(chance)


def _crash_case(given: list[str]) -> Callable[[Stage], None]:
    times = int(_number(given, 0, 1, 1))
    return lambda stage: stage.crash_case(times)


def _cancel(given: list[str]) -> Callable[[Stage], None]:
    run_id = _text(given, 0)
    return lambda stage: stage.cancel(run_id)


def _more_workers(given: list[str]) -> Callable[[Stage], None]:
    count = int(_number(given, 0, 1, 1))
    return lambda stage: stage.add_workers(count)


def _drain(given: list[str]) -> Callable[[Stage], None]:
    name = _text(given, 0)
    return lambda stage: stage.drain(stage.busiest(name))


def _quarantine(given: list[str]) -> Callable[[Stage], None]:
    name = _text(given, 0)
    return lambda stage: stage.quarantine(stage.busiest(name))


def _give_back(given: list[str]) -> Callable[[Stage], None]:
    name = _text(given, 0)
    return lambda stage: stage.give_back(stage.busiest(name))


KINDS: Mapping[str, _Kind] = {
    "none": _Kind("", "nothing happens: what the simulation makes of the recording", _none),
    "worker-lost": _Kind("[:WORKER]", "a worker is killed; noticed when its lease lapses", _worker_lost),
    "all-workers-lost": _Kind("", "every worker is killed at once", _all_workers_lost),
    "slow-worker": _Kind("[:xFACTOR[,WORKER]]", "a worker takes 3 (FACTOR) times as long", _slow_worker),
    "cut-off": _Kind("[:SECONDS[,WORKER]]", "a worker cannot be reached for 30 s, and works on", _cut_off),
    "results-delayed": _Kind("[:SECONDS[,WORKER]]", "what a worker says comes 2 s later", _delayed),
    "results-duplicated": _Kind("", "what workers say comes twice", _duplicated),
    "coordinator-restart": _Kind("[:SECONDS]", "the coordinator dies, back after 1 s", _restart),
    "coordinator-dying": _Kind(
        "[:CHANCE]", "it dies after one commit in 20 (CHANCE), ten times at most", _doom
    ),
    "crash-of-case": _Kind("[:TIMES]", "a case that has yet to run kills its process", _crash_case),
    "cancel": _Kind("[:RUN]", "someone cancels a run (or all)", _cancel),
    "more-workers": _Kind("[:COUNT]", "workers join", _more_workers),
    "drain": _Kind("[:WORKER]", "someone drains a worker", _drain),
    "quarantine": _Kind("[:WORKER]", "someone quarantines a worker", _quarantine),
    "give-back": _Kind("[:WORKER]", "a worker gives back what it has not begun", _give_back),
}
"""Every fault by its name. WORKER is the one with the most leases unless said."""

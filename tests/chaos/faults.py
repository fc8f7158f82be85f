"""The kinds of faults. Each strikes, lasts as long as it is meant to, is lifted, and says what it did.

A fault draws what it varies (durations, victims, offsets) from the generator it is given, and from
nothing else, so that a seed gives the same schedule again.
"""

import asyncio
import contextlib
import random
import signal
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import psutil

from tests.chaos.forger import forge_results
from tests.chaos.load import Load
from tests.chaos.members import AnyMember, Member
from tests.chaos.proxies import Proxies
from tests.chaos.stranger import say_again, send_twice
from tests.chaos.system import COORDINATORS, LEASE_SECONDS, Means, System
from tests.chaos.tail import lose_tail
from tests.chaos.watch import LogWatch

CALLABLES_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Scene:
    """What a fault acts on."""

    system: System
    watch: LogWatch
    load: Load
    draw: random.Random

    @property
    def leader(self) -> Member:
        """The coordinator that the log says leads; any, if none of ours does now."""
        found = self.system.coordinator_with(self.watch.leader_pid)
        return found or self.system.members[COORDINATORS[0]]

    @property
    def standby(self) -> Member:
        """The other one."""
        leader = self.leader
        return next(self.system.members[name] for name in COORDINATORS if name != leader.name)

    async def sleep(self, seconds: float) -> None:
        """Let it last."""
        await self.system.clock.sleep(seconds)


Strike = Callable[[Scene], Awaitable[str]]


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of fault."""

    name: str
    says: str
    strike: Strike
    why_not: Callable[[Means], str]
    """Why this machine cannot do it; "" if it can."""


# -- processes


def _kill(number: signal.Signals, victim: Callable[[Scene], AnyMember]) -> Strike:
    async def strike(scene: Scene) -> str:
        member = victim(scene)
        pid = member.pid
        scene.system.must_end(member)
        member.send(number)
        return f"{number.name} to {member.name}, process {pid}"

    return strike


def _member(name: str) -> Callable[[Scene], AnyMember]:
    return lambda scene: scene.system.members[name]


def _freeze(shortest: float, longest: float, victim: Callable[[Scene], AnyMember]) -> Strike:
    async def strike(scene: Scene) -> str:
        member = victim(scene)
        return await _stand_still(scene, member.pid, member.name, scene.draw.uniform(shortest, longest))

    return strike


def _freeze_worker(shortest: float, longest: float) -> Strike:
    async def strike(scene: Scene) -> str:
        pid = _worker(scene)
        return await _stand_still(scene, pid, f"worker {pid}", scene.draw.uniform(shortest, longest))

    return strike


async def _stand_still(scene: Scene, pid: int, name: str, seconds: float) -> str:
    _signal(pid, signal.SIGSTOP)
    try:
        await scene.sleep(seconds)
    finally:
        _signal(pid, signal.SIGCONT)
    return f"{name} stood still for {seconds:.2f} s"


async def _kill_coordinators(scene: Scene) -> str:
    for name in COORDINATORS:
        scene.system.must_end(scene.system.members[name])
        scene.system.members[name].send(signal.SIGKILL)
    return "SIGKILL to both coordinators"


async def _kill_leader_and_broker(scene: Scene) -> str:
    scene.system.must_end(scene.system.broker)
    scene.system.broker.send(signal.SIGKILL)
    await scene.sleep(scene.draw.uniform(0, 0.3))
    scene.system.must_end(scene.leader)
    scene.leader.send(signal.SIGKILL)
    return f"SIGKILL to nats-server, then to {scene.leader.name}"


async def _kill_worker(scene: Scene) -> str:
    pid = _worker(scene)
    _signal(pid, signal.SIGKILL)
    return f"SIGKILL to worker {pid}"


async def _kill_launcher(scene: Scene) -> str:
    children = _children(_worker(scene), "dtf.runner.launcher")
    pid = children[0].pid if children else 0
    _signal(pid, signal.SIGKILL)
    return f"SIGKILL to launcher {pid}"


async def _kill_worker_and_launcher(scene: Scene) -> str:
    worker = _worker(scene)
    pids = [worker, *(process.pid for process in _children(worker, "dtf.runner.launcher"))]
    for pid in pids:
        _signal(pid, signal.SIGKILL)
    return f"SIGKILL to worker and launcher, processes {', '.join(map(str, pids))}"


async def _kill_runner(scene: Scene) -> str:
    """A process that runs callables, of whichever worker has one, while there are callables to run."""
    scene.load.want_callables()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(CALLABLES_SECONDS):
            while not scene.load.callables_run:
                await scene.sleep(0.02)
    workers = scene.system.worker_pids()
    runners = sorted({process.pid for pid in workers for process in _children(pid, "dtf.runner.main")})
    if not runners:
        return "no process ran callables: a worker's launcher instead; " + await _kill_launcher(scene)
    pid = scene.draw.choice(runners)
    _signal(pid, signal.SIGKILL)
    return f"SIGKILL to the process {pid} that runs callables"


def _worker(scene: Scene) -> int:
    pids = [pid for pid in scene.system.worker_pids() if psutil.pid_exists(pid)]
    return scene.draw.choice(pids) if pids else 0


def _children(pid: int, module: str) -> list[psutil.Process]:
    try:
        below = psutil.Process(pid).children(recursive=True)
    except psutil.Error:
        return []
    found: list[psutil.Process] = []
    for process in below:
        try:
            if module in " ".join(process.cmdline()):
                found.append(process)
        except psutil.Error:
            continue
    return found


def _signal(pid: int, number: signal.Signals) -> None:
    if pid:
        with contextlib.suppress(psutil.Error):  # it ended by itself meanwhile
            psutil.Process(pid).send_signal(number)


# -- connections


def _links(kind: str, scene: Scene) -> tuple[Proxies, list[str]]:
    assert scene.system.proxies is not None
    return scene.system.proxies, scene.system.links(kind)


def _cut(kind: str) -> Strike:
    async def strike(scene: Scene) -> str:
        (proxies, names), seconds = _links(kind, scene), scene.draw.uniform(0.05, 1.0)
        await proxies.cut(names)
        try:
            await scene.sleep(seconds)
        finally:
            await proxies.restore(names)
        return f"{', '.join(names)} cut for {seconds:.2f} s"

    return strike


def _mute(kind: str) -> Strike:
    async def strike(scene: Scene) -> str:
        (proxies, names), seconds = _links(kind, scene), scene.draw.uniform(0.2, 2.5)
        await proxies.mute(names)
        try:
            await scene.sleep(seconds)
        finally:
            await proxies.lift(names, "mute")
        return f"what was sent over {', '.join(names)} was lost for {seconds:.2f} s"

    return strike


def _delay(kind: str) -> Strike:
    async def strike(scene: Scene) -> str:
        proxies, names = _links(kind, scene)
        milliseconds, seconds = scene.draw.choice((50, 200, 600)), scene.draw.uniform(0.5, 1.5)
        await proxies.delay(names, milliseconds)
        try:
            await scene.sleep(seconds)
        finally:
            await proxies.lift(names, "delay")
        return f"{', '.join(names)} {milliseconds} ms late each way for {seconds:.2f} s"

    return strike


# -- disk


async def _slow_disk(scene: Scene) -> str:
    assert scene.system.disk is not None
    seconds = scene.draw.uniform(0.3, 2.5)
    thawing = scene.system.disk.freeze(seconds)
    while thawing.poll() is None:
        await scene.sleep(0.05)
    return f"no write went through for {seconds:.2f} s"


async def _full_disk(scene: Scene) -> str:
    assert scene.system.disk is not None
    seconds = scene.draw.uniform(0.3, 1.5)
    scene.system.disk.fill()
    try:
        await scene.sleep(seconds)
    finally:
        scene.system.disk.make_room()
    return f"full for {seconds:.2f} s"


# -- time


def _jump(group: str) -> Strike:
    async def strike(scene: Scene) -> str:
        clock = scene.system.clocks[group]
        before = clock.offset_seconds
        others = [offset for offset in (-86_400, -30, -2, 0, 2, 30, 3_600) if offset != before]
        clock.set(scene.draw.choice(others))
        await scene.sleep(0.5)
        return f"the clock of the {group} jumped from {before:+d} s to {clock.offset_seconds:+d} s"

    return strike


# -- messages


async def _strangers(scene: Scene) -> str:
    return await say_again(scene.system, scene.watch, scene.draw)


async def _twice(scene: Scene) -> str:
    return await send_twice(scene.system, scene.draw)


async def _forged(scene: Scene) -> str:
    return await forge_results(scene.system.peer(scene.leader.name), scene.watch, scene.draw)


async def _lost_tail(scene: Scene) -> str:
    return await lose_tail(scene.system, scene.watch)


async def _accepted_loss(scene: Scene) -> str:
    return await lose_tail(scene.system, scene.watch, accept=True)


# -- the table


def _always(_means: Means) -> str:
    return ""


def _with_toxiproxy(means: Means) -> str:
    return "" if means.toxiproxy else "needs toxiproxy (`make toxiproxy`)"


def _with_clocks(means: Means) -> str:
    return "" if means.compiler else "needs a C compiler (cc)"


def _with_disk(means: Means) -> str:
    return means.no_disk


def _leader(scene: Scene) -> AnyMember:
    return scene.leader


def _standby(scene: Scene) -> AnyMember:
    return scene.standby


def _broker(scene: Scene) -> AnyMember:
    return scene.system.broker


KILL, TERM = signal.SIGKILL, signal.SIGTERM
BELOW_LEASE, ABOVE_LEASE = (0.2, 0.9), (LEASE_SECONDS * 1.3, LEASE_SECONDS * 1.8)

KINDS: Sequence[Kind] = (
    Kind("kill-leader", "kill -9 of the coordinator that leads", _kill(KILL, _leader), _always),
    Kind("kill-standby", "kill -9 of the one that stands by", _kill(KILL, _standby), _always),
    Kind("kill-coordinators", "… of both at once: nobody has the state", _kill_coordinators, _always),
    Kind(
        "kill-leader-broker",
        "… of nats-server and, while it is away, the leader",
        _kill_leader_and_broker,
        _always,
    ),
    Kind("kill-worker", "kill -9 of a worker", _kill_worker, _always),
    Kind("kill-launcher", "kill -9 of the process that starts a worker's commands", _kill_launcher, _always),
    Kind(
        "kill-worker-launcher", "… of a worker and that process at once", _kill_worker_and_launcher, _always
    ),
    Kind("kill-runner", "kill -9 of a process that runs callables", _kill_runner, _always),
    Kind(
        "kill-manager", "kill -9 of the resource manager", _kill(KILL, _member("resource-manager")), _always
    ),
    Kind("kill-analyzer", "kill -9 of the trend analyzer", _kill(KILL, _member("trend-analyzer")), _always),
    Kind("kill-broker", "kill -9 of nats-server", _kill(KILL, _broker), _always),
    Kind("stop-leader", "SIGTERM to the coordinator that leads", _kill(TERM, _leader), _always),
    Kind("restart-broker", "SIGTERM to nats-server", _kill(TERM, _broker), _always),
    Kind("freeze-leader", "SIGSTOP, shorter than its lease", _freeze(*BELOW_LEASE, _leader), _always),
    Kind(
        "freeze-leader-long",
        "SIGSTOP, longer: it wakes up deposed",
        _freeze(*ABOVE_LEASE, _leader),
        _always,
    ),
    Kind("freeze-worker", "SIGSTOP, shorter than its leases", _freeze_worker(*BELOW_LEASE), _always),
    Kind("freeze-worker-long", "SIGSTOP, longer: it wakes up lost", _freeze_worker(*ABOVE_LEASE), _always),
    Kind("freeze-broker", "SIGSTOP, up to a second", _freeze(*BELOW_LEASE, _broker), _always),
    Kind("freeze-broker-long", "SIGSTOP, for seconds", _freeze(*ABOVE_LEASE, _broker), _always),
    Kind("cut-broker", "coordinators cut off the broker", _cut("broker"), _with_toxiproxy),
    Kind("mute-broker", "… with nothing closed", _mute("broker"), _with_toxiproxy),
    Kind("delay-broker", "… or late", _delay("broker"), _with_toxiproxy),
    Kind("cut-workers", "workers and pool cut off the coordinators", _cut("worker"), _with_toxiproxy),
    Kind("mute-workers", "… with nothing closed", _mute("worker"), _with_toxiproxy),
    Kind("delay-workers", "… or late", _delay("worker"), _with_toxiproxy),
    Kind("cut-clients", "clients cut off the coordinators", _cut("client"), _with_toxiproxy),
    Kind("slow-disk", "the disk of broker and leader's state takes no writes", _slow_disk, _with_disk),
    Kind("full-disk", "… or has no room", _full_disk, _with_disk),
    Kind("lost-tail", "the broker forgets its newest messages; an operator repairs", _lost_tail, _always),
    Kind("jump-coordinators", "their wall clock jumps", _jump("coordinators"), _with_clocks),
    Kind("jump-workers", "the workers' wall clock jumps", _jump("workers"), _with_clocks),
    Kind("strangers", "old commits said again on the log's subject", _strangers, _always),
    Kind("forged", "a worker reports results of leases that are others', or over", _forged, _always),
    Kind("twice", "clients' requests sent twice", _twice, _always),
)
HARM = Kind("accepted-loss", "… and the operator goes on without them", _accepted_loss, _always)
"""Loses acknowledged submissions: shows that the harness would see it. Struck only where it is named."""
KIND_NAMES = tuple(kind.name for kind in KINDS)

"""The first commit after which something no longer holds of the state.

Theory. A check costs as much as the state is large, and a log has many commits; so the log is checked
at WINDOWS points, and only the window before the first bad one is cut further, down to one commit.
That finds a breach that stays. One that heals before the next point is found only where every commit
is checked (`windows=0`).

    fold ── check ── fold ── check ── fold ── check: bad
                              └─ begin here again, with smaller steps ─┘
"""

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass

from dtf.api.v1 import events_pb2
from dtf.core.chain import ChainReader
from dtf.core.run.evolve import evolve
from dtf.core.run.portrait import Document, portrait
from dtf.core.run.state import State
from dtf.core.run.state_codec import decode_state, encode_state
from dtf.ports.event_log import StoredCommit

Check = Callable[[State], Sequence[str]]
Read = Callable[[int, int], AsyncIterator[Sequence[StoredCommit]]]
"""Batches with first < sequence <= second."""

WINDOWS = 128
_CUTS = 16
_CHECKS_A_POINT = 8
"""To save a state costs about as much as to check it."""


@dataclass(frozen=True, slots=True)
class Breach:
    """The commit that broke it, and what it broke."""

    sequence: int
    commit: events_pb2.Commit
    faults: Sequence[str]
    before: Document
    after: Document


@dataclass(slots=True)
class _Point:
    """A state that holds, as it was saved."""

    state: bytes
    sequence: int
    last_hash: bytes
    epoch: int
    now_ns: int

    def restore(self) -> tuple[State, ChainReader]:
        """The state and its chain. Strangers before are of no matter to the commits after."""
        chain = ChainReader(
            sequence=self.sequence, last_hash=self.last_hash, epoch=self.epoch, now_ns=self.now_ns
        )
        return decode_state(self.state), chain


@dataclass(slots=True)
class Bisection:
    """Searches one log. `checks` says how often the state was checked."""

    read: Read
    check: Check
    on_progress: Callable[[int], object] = lambda _count: None
    checks: int = 0

    async def first_breach(
        self, state: State, chain: ChainReader, until: int, windows: int = WINDOWS
    ) -> Breach | None:
        """The first commit after the chain's position that breaks it; None: none does up to `until`.

        Raises ChainBroken. The state given must hold, or be empty.
        """
        point = _saved(state, chain)
        step = max((until - chain.sequence) // windows, 1) if windows else 1
        found = await self._scan(state, chain, point, until, step)
        while found is not None and step > 1:
            point, bad = found
            step = max((bad - point.sequence) // _CUTS, 1)
            state, chain = point.restore()
            found = await self._scan(state, chain, point, bad, step)
            if found is None:
                raise RuntimeError("a state that broke the invariant did not when it was folded anew")
        return None if found is None else await self._breach(*found)

    async def _scan(
        self, state: State, chain: ChainReader, point: _Point, until: int, step: int
    ) -> tuple[_Point, int] | None:
        """The last point that holds, and the first checked sequence that does not; None: all hold."""
        due, unsaved = chain.sequence + step, 0
        async for batch in self.read(chain.sequence, until):
            for message in batch:
                _fold(state, chain, message)
                if message.sequence < due and message.sequence < until:
                    continue
                self.checks += 1
                if self.check(state):
                    return point, message.sequence
                due, unsaved = message.sequence + step, unsaved + 1
                if unsaved >= _CHECKS_A_POINT and step > 1:
                    point, unsaved = _saved(state, chain), 0
            self.on_progress(len(batch))
            if step == 1 and unsaved:
                point, unsaved = _saved(state, chain), 0
        return None

    async def _breach(self, point: _Point, bad: int) -> Breach | None:
        """The commit itself, folded from the point before it."""
        state, chain = point.restore()
        async for batch in self.read(chain.sequence, bad):
            for message in batch:
                before = portrait(state) if message.sequence == bad else {}
                commit = _fold(state, chain, message)
                if message.sequence == bad and commit is not None:
                    return Breach(bad, commit, self.check(state), before, portrait(state))
        return None


def _fold(state: State, chain: ChainReader, message: StoredCommit) -> events_pb2.Commit | None:
    commit = chain.accept(message.sequence, message.payload, message.message_id)
    if commit is not None:
        for event in commit.events:
            evolve(state, event, commit.now_unix_nanos, message.sequence)
    return commit


def _saved(state: State, chain: ChainReader) -> _Point:
    return _Point(encode_state(state), chain.sequence, chain.last_hash, chain.epoch, chain.now_ns)

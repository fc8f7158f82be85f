"""The logs that `make bench NAME=recovery` builds are what the rules would have written."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest

from bench.recovery_log import REPEATED_RUNS, DecidedLog, LogBuilder
from dtf.coordinator.recovery import Fold, fold
from dtf.core.chain import ChainReader
from dtf.core.run.invariants import check
from dtf.core.run.rederive import Rederivation
from dtf.core.run.state_hash import state_hash
from dtf.ports.event_log import StoredCommit

RUN_TASKS = 40


@dataclass(slots=True)
class KeptMessages:
    """Takes what a builder writes."""

    messages: list[StoredCommit] = field(default_factory=list)

    async def write(self, payload: bytes, message_id: str, previous: str, headers: Mapping[str, str]) -> None:
        """Keep one; `previous` must be the one before."""
        assert previous == (self.messages[-1].message_id if self.messages else "")
        self.messages.append(StoredCommit(len(self.messages) + 1, payload, message_id, headers))

    async def finish(self) -> None:
        """There is nothing to wait for."""


async def built(*, is_mixed: bool) -> tuple[DecidedLog, list[StoredCommit]]:
    """A log in which what is repeated came twice more, and the end of it once."""
    decided = DecidedLog(is_mixed, RUN_TASKS)
    decided.decide()
    once = sum(len(commit.events) for commit in decided.commits)
    again = sum(len(commit.events) for commit in decided.commits[decided.repeated_from :])
    kept = KeptMessages()
    await LogBuilder(decided, kept, lambda count: None).build(once + 2 * again)
    return decided, kept.messages


@pytest.mark.parametrize("is_mixed", [True, False], ids=["mixed", "singles"])
async def test_repeated_commits_are_what_the_rules_decide_again(is_mixed: bool) -> None:
    decided, messages = await built(is_mixed=is_mixed)
    chain, derived = ChainReader(), Rederivation()
    for stored in messages:
        commit = chain.accept(stored.sequence, stored.payload, stored.message_id)
        assert commit is not None
        assert derived.follow(commit, stored.sequence) == []
    assert derived.is_settled
    assert check(derived.state) == []
    runs = len(derived.state.runs) + len(derived.state.retired_runs)
    assert runs == len(decided.state.runs) + len(decided.state.retired_runs) + 2 * REPEATED_RUNS
    assert derived.state.next_fence == 1 + RUN_TASKS * runs


async def test_a_fold_of_whole_commits_is_the_fold_of_their_events() -> None:
    _, messages = await built(is_mixed=True)
    folded, derived = Fold(), Rederivation()
    for stored in messages:
        fold(folded.state, folded.chain, stored)
        chain_before = derived.state.last_sequence
        assert chain_before == stored.sequence - 1
        commit = ChainReader(stored.sequence - 1, bytes.fromhex(_previous(messages, stored))).accept(
            stored.sequence, stored.payload, stored.message_id
        )
        assert commit is not None
        derived.fold(commit, stored.sequence)
    assert state_hash(folded.state) == state_hash(derived.state)


def _previous(messages: list[StoredCommit], stored: StoredCommit) -> str:
    return messages[stored.sequence - 2].message_id if stored.sequence > 1 else ""

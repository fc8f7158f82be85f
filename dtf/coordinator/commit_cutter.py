"""Commands made into commits: decided, evolved into state, chained to the commit before, sent."""

import logging
from dataclasses import dataclass, field

from dtf.api.v1 import events_pb2
from dtf.coordinator.commits import PendingCommit, Settle, Step, headers_of, serialize
from dtf.coordinator.pipeline import CommitPipeline
from dtf.core.chain import ChainReader
from dtf.core.run.commands import Command, Rejection
from dtf.core.run.decide import decide
from dtf.core.run.evolve import evolve
from dtf.core.run.state import State

log = logging.getLogger(__name__)

MAX_COMMIT_BYTES = 960 * 1024
"""Of events: what fits, with inputs and headers, into nats-server's largest message of 1 MiB."""


@dataclass(slots=True)
class CommitDraft:
    """A commit that is being made."""

    now_ns: int
    steps: list[Step] = field(default_factory=list)
    size: int = 0
    """Of its events."""


class CommitCutter:
    """Where the reign's commits are made. State is evolved here, ahead of its durability."""

    def __init__(
        self,
        pipeline: CommitPipeline,
        state: State,
        chain: ChainReader,
        *,
        nonce: bytes,
        code_version: str,
    ) -> None:
        self.state = state
        self.epoch = chain.epoch
        self._pipeline = pipeline
        self._hash = chain.last_hash
        self._sequence = chain.sequence
        self._nonce = nonce
        self._counter = 0
        self._code_version = code_version

    def decide(self, command: Command, settle: Settle | None, now_ns: int) -> Step:
        """What a command comes to in the state of now; a rejection is part of the step."""
        try:
            return Step(command, decide(self.state, command, now_ns), settle)
        except Rejection as rejection:
            return Step(command, (), settle, rejection)
        except Exception as error:  # decide is pure: the state is as it was, and one command is lost
            log.exception("a command could not be decided", extra={"command": type(command).__name__})
            return Step(command, (), settle, error)

    def add(self, draft: CommitDraft, step: Step) -> CommitDraft:
        """Evolve a step into the draft; the draft that is open now.

        A step that would make the draft too large for the broker begins the next one. Only a step
        that is too large by itself is spread over several: its outcome is told with its last part.
        """
        sizes = [event.ByteSize() for event in step.events]
        if draft.size and draft.size + sum(sizes) > MAX_COMMIT_BYTES:
            draft = self._next_after(draft)
        taken: list[events_pb2.Event] = []
        for event, size in zip(step.events, sizes, strict=True):
            if draft.size and draft.size + size > MAX_COMMIT_BYTES:
                draft.steps.append(Step(step.command, taken, None, continues=True))
                draft, taken = self._next_after(draft), []
            evolve(self.state, event, draft.now_ns, self._sequence + 1)
            taken.append(event)
            draft.size += size
        draft.steps.append(Step(step.command, taken, step.settle, step.error))
        return draft

    def _next_after(self, draft: CommitDraft) -> CommitDraft:
        self.send(draft)
        return CommitDraft(draft.now_ns)

    def send(self, draft: CommitDraft) -> None:
        """Chain a draft to the commit before it, and give it to the pipeline."""
        self._counter += 1
        events = [event for step in draft.steps for event in step.events]
        payload, message_id = serialize(
            commit_id=self._nonce + self._counter.to_bytes(8, "big"),
            epoch=self.epoch,
            previous_hash=self._hash,
            now_ns=draft.now_ns,
            code_version=self._code_version,
            steps=draft.steps,
            events=events,
        )
        commit = PendingCommit(
            sequence=self._sequence + 1,
            now_ns=draft.now_ns,
            payload=payload,
            message_id=message_id,
            previous_message_id=self._hash.hex(),
            expected_last_sequence=None if self._pipeline.in_flight else self._sequence,
            headers=headers_of(events),
            events=events,
            steps=draft.steps,
        )
        self._sequence = commit.sequence
        self._hash = bytes.fromhex(message_id)
        self._pipeline.send(commit)

"""A long replay on two processors: another process parses and checks the chain, this one folds.

    read ─▶ parts of a batch ─▶ send ─▶ (chain, parse, upcast: dtf/core/preparation.py) ─▶ receive ─▶ fold
                    └─ kept until the answer is folded; folded from here where there is none ──────────▶ fold

The state and the chain are those of a replay without: what comes back prepared is folded by the same
functions, and whatever is not plainly a run of commits of the chain is read here, by the ChainReader
that reads it without. Should the other process fail in any way, the parts that it still had and
the rest of the log are folded here.
"""

import logging
from collections import deque
from collections.abc import Callable, Sequence

from dtf.core.chain import ChainReader
from dtf.core.preparation import (
    PreparationError,
    Prepared,
    encode_messages,
    encode_opening,
    read_answer,
)
from dtf.core.run.evolve import evolve_prepared
from dtf.core.run.state import State
from dtf.ports.event_log import StoredCommit
from dtf.ports.preparation import PreparationFailed, PreparationProcess

log = logging.getLogger(__name__)

WORTHWHILE_MESSAGES = 20_000
"""To read, from which on the other process is started: it takes a quarter of a second to begin."""
PART_MESSAGES = 256
"""Of one request: 2 to 10 ms of folding, after which the loop gets its turn."""
PARTS_AHEAD = 12
"""Sent and not folded: enough for the other process to go on while this one folds and reads."""

FoldOne = Callable[[State, ChainReader, StoredCommit], None]


class PreparedReplay:
    """Folds batches in their order, with the help of another process as soon as and as long as there is one."""

    def __init__(
        self, state: State, chain: ChainReader, fold_one: FoldOne, process: PreparationProcess
    ) -> None:
        """`fold_one` folds one message without help. Raises what it raises."""
        self._state = state
        self._chain = chain
        self._fold_one = fold_one
        self._process = process
        self._is_awaited = False
        self._is_helped = False
        self._sent: deque[Sequence[StoredCommit]] = deque()
        self.prepared_count = 0
        """Messages that came back prepared and were folded."""

    async def __aenter__(self) -> "PreparedReplay":
        try:
            await self._process.start()
            self._is_awaited = True
        except PreparationFailed as error:
            self._do_without(error)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._process.close()

    async def fold(self, batch: Sequence[StoredCommit]) -> None:
        """Fold what comes next, at once or some batches later. Raises ChainBroken."""
        for start in range(0, len(batch), PART_MESSAGES):
            part = batch[start : start + PART_MESSAGES]
            self._consider_help()
            if not self._send(part):
                self._fold_all(part)
            while self._sent and (len(self._sent) > PARTS_AHEAD or self._process.has_answer):
                await self._fold_oldest()

    async def finish(self) -> None:
        """Fold what was sent. Raises ChainBroken."""
        while self._sent:
            await self._fold_oldest()

    def _consider_help(self) -> None:
        """Begin to send once the other process has begun: the chain stands where everything is folded."""
        if not self._is_awaited or not self._process.is_ready:
            return
        self._is_awaited = False
        try:
            self._process.send(encode_opening(self._chain))
            self._is_helped = True
        except PreparationFailed as error:
            self._do_without(error)

    def _send(self, part: Sequence[StoredCommit]) -> bool:
        """Whether it was sent, after all that came before; if not, all that came before is folded."""
        if not self._is_helped:
            return False
        try:
            self._process.send(
                encode_messages(
                    [stored.sequence for stored in part],
                    [stored.payload for stored in part],
                    [stored.message_id for stored in part],
                )
            )
        except PreparationFailed as error:
            self._do_without(error)
            return False
        self._sent.append(part)
        return True

    async def _fold_oldest(self) -> None:
        try:
            answer = read_answer(await self._process.receive())
            part = self._sent[0]
            if isinstance(answer, Prepared):
                self._fold_prepared(part, answer)
            else:
                self._fold_all(part)
            self._sent.popleft()
        except (PreparationFailed, PreparationError) as error:
            self._do_without(error)

    def _fold_prepared(self, part: Sequence[StoredCommit], answer: Prepared) -> None:
        """Fold an answer that is about this part. Raises PreparationError."""
        chain, last = self._chain, part[-1]
        is_next = part[0].sequence == chain.sequence + 1
        if not is_next or len(answer.commits) != len(part) or answer.last_hash.hex() != last.message_id:
            raise PreparationError(
                f"an answer is about {len(answer.commits)} commits up to {answer.last_hash.hex()[:12]}, "
                f"expected {len(part)} up to {last.message_id[:12]}"
            )
        evolve_prepared(self._state, answer.commits, chain.sequence + 1)
        chain.follow(len(part), answer.last_hash, answer.epoch, answer.commits[-1].now_ns)
        self.prepared_count += len(part)

    def _fold_all(self, part: Sequence[StoredCommit]) -> None:
        for stored in part:
            self._fold_one(self._state, self._chain, stored)

    def _do_without(self, error: Exception) -> None:
        """Fold here what the other process still had; what comes is folded here as well."""
        log.warning("a replay goes on without its second process", extra={"cause": str(error)})
        self._is_helped = False
        while self._sent:
            self._fold_all(self._sent.popleft())

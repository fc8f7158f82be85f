"""The part of a replay that can be done elsewhere: chain, parsing, upcasting. Bytes in, bytes out.

    replay:     Opening ─▶ Messages ─▶ Messages ─▶ …            where its chain stands, then what it read
    preparer:              Prepared ◀─ Declined ◀─ …            an answer to each Messages, in order

Both hold a ChainReader, and both end up with the same one. What is a commit of the chain comes back
prepared (dtf/core/run/prepared.py). Messages with anything else among them, a stranger's or one
that breaks the chain, are declined as a whole: the replay then reads them itself, with its own
ChainReader, and what it finds is found, counted and said in one place.
"""

from typing import assert_never

import msgspec

from dtf.core.chain import ChainBroken, ChainReader
from dtf.core.run.prepared import PreparedCommit, prepare


class Opening(msgspec.Struct, array_like=True, tag=0):
    """Where the replay's chain stands (the attributes of ChainReader)."""

    sequence: int
    last_hash: bytes
    epoch: int
    now_ns: int
    strangers: dict[bytes, int]


class Messages(msgspec.Struct, array_like=True, tag=1):
    """Messages of the log in order, in columns."""

    sequences: list[int]
    payloads: list[bytes]
    message_ids: list[str]


class Prepared(msgspec.Struct, array_like=True, tag=0):
    """All of the messages are commits of the chain."""

    commits: list[PreparedCommit]
    last_hash: bytes
    """SHA-256 of the last one, as it was computed."""
    epoch: int
    """Of the last one."""


class Declined(msgspec.Struct, array_like=True, tag=1):
    """They are not; whoever asked reads them."""


_ENCODER = msgspec.msgpack.Encoder()
_Request = Opening | Messages
_Answer = Prepared | Declined
_REQUESTS: msgspec.msgpack.Decoder[_Request] = msgspec.msgpack.Decoder(_Request)
_ANSWERS: msgspec.msgpack.Decoder[_Answer] = msgspec.msgpack.Decoder(_Answer)


class PreparationError(ValueError):
    """Bytes that are no request, or no answer."""


def encode_opening(chain: ChainReader) -> bytes:
    """The first request: what comes continues `chain`."""
    opening = Opening(chain.sequence, chain.last_hash, chain.epoch, chain.now_ns, dict(chain.strangers))
    return _ENCODER.encode(opening)


def encode_messages(sequences: list[int], payloads: list[bytes], message_ids: list[str]) -> bytes:
    """A request for the messages of these columns."""
    return _ENCODER.encode(Messages(sequences, payloads, message_ids))


def read_answer(data: bytes) -> Prepared | Declined:
    """An answer. Raises PreparationError."""
    try:
        return _ANSWERS.decode(data)
    except msgspec.DecodeError as error:
        raise PreparationError(f"an answer cannot be read: {error}") from error


class Preparer:
    """Answers requests one after the other."""

    def __init__(self) -> None:
        self._chain: ChainReader | None = None
        self._is_broken = False

    def answer(self, request: bytes) -> bytes:
        """What to send back; b"" for an opening. Raises PreparationError."""
        try:
            asked = _REQUESTS.decode(request)
        except msgspec.DecodeError as error:
            raise PreparationError(f"a request cannot be read: {error}") from error
        match asked:
            case Opening():
                self._chain = ChainReader.resume(
                    asked.sequence, asked.last_hash, asked.epoch, asked.now_ns, asked.strangers
                )
                self._is_broken = False
                return b""
            case Messages():
                if self._chain is None:
                    raise PreparationError("messages came before an opening")
                return _ENCODER.encode(self._prepare(self._chain, asked))
            case _:
                assert_never(asked)

    def _prepare(self, chain: ChainReader, asked: Messages) -> Prepared | Declined:
        if self._is_broken:
            return Declined()
        try:
            commits = _accept(chain, asked)
        except ChainBroken:
            self._is_broken = True
            return Declined()
        return Declined() if commits is None else Prepared(commits, chain.last_hash, chain.epoch)


def _accept(chain: ChainReader, asked: Messages) -> list[PreparedCommit] | None:
    """The messages accepted by `chain`; None if a stranger's is among them. Raises ChainBroken."""
    commits: list[PreparedCommit] = []
    accept, add, is_clean = chain.accept, commits.append, True
    for sequence, payload, message_id in zip(asked.sequences, asked.payloads, asked.message_ids, strict=True):
        commit = accept(sequence, payload, message_id)
        if commit is None:
            is_clean = False
        elif is_clean:
            add(prepare(commit))
    return commits if is_clean else None

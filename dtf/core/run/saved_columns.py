"""Columns as a snapshot keeps them: texts joined, numbers as they lie in memory, small maps as pairs."""

from array import array
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate, chain, pairwise
from typing import Any

from dtf.api.v1 import state_pb2
from dtf.core.run.columns import column_bytes, column_of

_SEPARATOR = "\0"


class StateUndecodable(ValueError):
    """The bytes are no saved state, or one that does not hang together; the message says where."""


def demand(holds: bool, what: str) -> None:
    """Raises StateUndecodable unless it holds."""
    if not holds:
        raise StateUndecodable(f"the saved state is damaged: {what}")


def save_texts(texts: Sequence[str]) -> state_pb2.SavedTexts:
    """Texts joined by NUL; where one of them holds a NUL, joined by nothing and with their lengths."""
    joined = _SEPARATOR.join(texts)
    saved = state_pb2.SavedTexts(count=len(texts))
    if joined.count(_SEPARATOR) == max(len(texts) - 1, 0):
        saved.text = joined.encode()
    else:
        saved.text = "".join(texts).encode()
        saved.lengths = column_bytes(array("I", map(len, texts)))
    return saved


def load_texts(saved: state_pb2.SavedTexts, count: int, name: str) -> list[str]:
    """The texts, of which there must be `count`."""
    text = saved.text.decode()
    if saved.lengths:
        lengths = column_of("I", saved.lengths)
        demand(sum(lengths) == len(text), f"{name} has {len(text)} characters, not {sum(lengths)}")
        texts = [text[start:stop] for start, stop in pairwise(accumulate(lengths, initial=0))]
    else:
        texts = text.split(_SEPARATOR) if saved.count else []
        demand(bool(saved.count) or not text, f"{name} has text and no entries")
    demand(len(texts) == saved.count == count, f"{name} has {len(texts)} entries, not {count}")
    return texts


def load_array(typecode: str, data: bytes, count: int, name: str) -> "array[Any]":
    """The column, which must have `count` entries."""
    column = column_of(typecode, data)
    demand(len(column) == count, f"{name} has {len(column)} entries, not {count}")
    return column


def save_pairs(counts: Mapping[int, int]) -> Iterable[int]:
    """Index, number, index, number … by rising index."""
    return chain.from_iterable(sorted(counts.items()))


def load_pairs(saved: Sequence[int], below: int, name: str) -> dict[int, int]:
    """The map, whose indexes must be below `below`."""
    demand(len(saved) % 2 == 0, f"{name} has an index without a number")
    pairs = dict(zip(saved[::2], saved[1::2], strict=True))
    demand(not pairs or max(pairs) < below, f"{name} has an index beyond {below}")
    return pairs

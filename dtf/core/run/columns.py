"""Arrays as bytes that are the same on every machine: little-endian."""

import sys
from array import array

_IS_BIG_ENDIAN = sys.byteorder == "big"


def column_bytes(column: "array[int] | array[float]") -> bytes:
    """The entries one after the other, little-endian."""
    if _IS_BIG_ENDIAN:
        column = column[:]
        column.byteswap()
    return column.tobytes()


def column_of(typecode: str, data: bytes) -> "array[int]":
    """The array whose `column_bytes` are `data`. Raises ValueError when it is not a whole number of entries."""
    column: array[int] = array(typecode)
    column.frombytes(data)
    if _IS_BIG_ENDIAN:
        column.byteswap()
    return column

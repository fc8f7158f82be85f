"""Whether the compiled kernels are used: `pip install 'dtf[fast]'` brings numba. Findings are the same without it."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType

WORTH_AFTER = 100
"""Looks from which on a process loads the kernels: numba takes .2 seconds to import and the kernels .4 to load, and a
look gets by some 2 ms faster. One series of 10,000 values alone is not worth it."""


class _Kernels:
    """The module once it is loaded, and the looks until then."""

    def __init__(self) -> None:
        self.looks = 0
        self.is_tried = False
        self.module: ModuleType | None = None


_KERNELS = _Kernels()


def kernels() -> ModuleType | None:
    """`dtf.core.trend.kernels`, or None where there is no numba or not yet enough work for it; a look asks once."""
    if not _KERNELS.is_tried:
        _KERNELS.looks += 1
        if _KERNELS.looks > WORTH_AFTER:
            load_kernels()
    return _KERNELS.module


def loaded_kernels() -> ModuleType | None:
    """The same, where they are loaded already."""
    return _KERNELS.module


def load_kernels() -> bool:
    """Loads them now; says whether they are there. The very first time on a machine, numba compiles for seconds."""
    if not _KERNELS.is_tried:
        _KERNELS.is_tried = True
        try:
            _KERNELS.module = import_module("dtf.core.trend.kernels")
        except ImportError:  # no numba, or one that does not go with this numpy
            _KERNELS.module = None
    return _KERNELS.module is not None


@contextmanager
def without_kernels() -> Iterator[None]:
    """What is looked at meanwhile is looked at with numpy alone."""
    before = _KERNELS.is_tried, _KERNELS.module
    _KERNELS.is_tried, _KERNELS.module = True, None
    try:
        yield
    finally:
        _KERNELS.is_tried, _KERNELS.module = before

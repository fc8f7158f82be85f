"""Compiling a kernel; numba is imported here, and this by kernels alone."""

from collections.abc import Callable
from typing import TypeVar, cast

import numba

Function = TypeVar("Function", bound=Callable[..., object])


def compiled(function: Function) -> Function:
    """Compiled at its first call; kept beside its file, in the user's cache where that is read-only, or not at all."""
    try:
        return cast(Function, numba.njit(cache=True, error_model="numpy")(function))
    except RuntimeError:  # neither folder can be written to
        return cast(Function, numba.njit(error_model="numpy")(function))

"""How loops are compiled: by what the compiler may do with the order of floating-point operations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba

Function = Callable[..., Any]


def exact(function: Function) -> Function:
    """As it is written."""
    compiled: Function = numba.njit(nogil=True, cache=True, error_model="numpy")(function)
    return compiled


def steady(function: Function) -> Function:
    """Several elements at once, products and sums in one operation; but no sum in another order."""
    compiled: Function = numba.njit(nogil=True, cache=True, error_model="numpy", fastmath={"contract", "nnan", "ninf", "nsz"})(function)
    return compiled


def loose(function: Function) -> Function:
    """The terms of a sum may also change places."""
    compiled: Function = numba.njit(nogil=True, cache=True, error_model="numpy", fastmath=True)(function)
    return compiled


def inline(function: Function) -> Function:
    """As a part of whatever calls it."""
    compiled: Function = numba.njit(nogil=True, inline="always", error_model="numpy")(function)
    return compiled

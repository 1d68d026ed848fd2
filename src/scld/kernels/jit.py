"""How functions are compiled: `numba.njit` without the GIL, cached on disk where possible."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import numba

FMA = {"contract", "nnan", "ninf", "nsz"}  # fast math that keeps the order of sums

_log = logging.getLogger(__name__)
_cache_reported = False


def njit(*, fastmath: bool | set[str] = False, inline: bool = False) -> Callable[..., Any]:
    """Compile a function; the machine code is cached unless no folder for it can be written.

    Parameters
    ----------
    fastmath
        False: as written. `FMA`: vectorised, but sums keep their order. True: sums may be
        reordered too.
    inline
        Whether the function becomes part of its callers.
    """
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": fastmath}
    options |= {"inline": "always"} if inline else {}

    def compiled(function: Callable[..., Any]) -> Any:
        dispatcher = numba.njit(**options)(function)
        if not inline:
            _enable_cache(dispatcher)
        return dispatcher

    return compiled


def _enable_cache(dispatcher: Any) -> None:
    """Cache on disk; in read-only environments numba raises RuntimeError, and nothing is cached."""
    global _cache_reported
    try:
        dispatcher.enable_caching()
    except RuntimeError as error:
        if not _cache_reported:
            _log.debug("compiled code is not cached: %s", error)
        _cache_reported = True

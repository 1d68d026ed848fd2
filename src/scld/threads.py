"""Compiled work on the cells or genes of a batch, side by side, by as many threads as torch was told to use."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import torch

PARTS = 4  # fixed, so that sums over a part do not depend on the number of threads


def takes(part: torch.Tensor) -> bool:
    """Whether compiled loops can go through it: in single precision, on a processor; anything else is left to torch."""
    return part.device.type == "cpu" and part.dtype == torch.float32


def side_by_side(work: Callable[[int, tuple[int, int]], object], number: int) -> None:
    """Do ``work(part, (first, one after the last))`` for the parts of so many cells or genes; the work must not come back here."""
    spans = list(itertools.pairwise(number * part // PARTS for part in range(PARTS + 1)))
    if torch.get_num_threads() == 1:
        for part, span in enumerate(spans):
            work(part, span)
        return
    list(_pool(torch.get_num_threads()).map(work, range(PARTS), spans))


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)  # a fork has none of its parent's threads

"""Work on the cells or genes of a batch side by side, by as many threads as torch was told to use."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import torch

PARTS = 4  # fixed, so that sums over a part do not depend on the number of threads


def side_by_side(work: Callable[[int, tuple[int, int]], object], number: int) -> None:
    """Do ``work(part, (first, one after the last))`` for the parts of so many cells or genes."""
    spans = list(itertools.pairwise(number * part // PARTS for part in range(PARTS + 1)))
    if torch.get_num_threads() == 1:
        for part, span in enumerate(spans):
            work(part, span)
        return
    list(_pool(torch.get_num_threads()).map(work, range(PARTS), spans))


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads)

"""Threads: parallel_for for compiled code, and torch with one thread beside it.

Compiled code runs on threads of its own. torch's OpenMP threads wait for work by spinning, which
takes the cores from them, the more so on a busy machine. So torch computes with one thread wherever
compiled code runs, in a fit and in sampling.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import cache
from threading import Barrier, BrokenBarrierError, local

import torch

PARTS = 4  # fixed, so that sums over a part do not depend on the number of threads
_here = local()  # threads: the number for compiled code, where torch itself has one


def is_compiled_case(tensor: torch.Tensor) -> bool:
    """Whether compiled code takes this tensor: float32 on a CPU; torch does the rest."""
    return tensor.device.type == "cpu" and tensor.dtype == torch.float32


def thread_count() -> int:
    """Threads for compiled code: as many as torch was told to use (``OMP_NUM_THREADS``)."""
    return getattr(_here, "threads", None) or torch.get_num_threads()


def parallel_for(work: Callable[[int, int, int], object], number: int) -> None:
    """Call ``work(part, first, stop)`` for each part of so many cells.

    ``work`` must release the GIL to run in parallel, and must not call `parallel_for`.
    """
    bounds = [number * part // PARTS for part in range(PARTS + 1)]
    spans = list(itertools.pairwise(bounds))
    threads = thread_count()
    if threads == 1:
        for part, (first, stop) in enumerate(spans):
            work(part, first, stop)
        return
    firsts, stops = zip(*spans, strict=True)
    list(_pool(threads, os.getpid()).map(work, range(PARTS), firsts, stops))


@cache
def _pool(threads: int, process: int) -> ThreadPoolExecutor:
    """Threads are not inherited by a forked process: each has a pool of its own."""
    return ThreadPoolExecutor(threads)


@contextmanager
def single_threaded_torch() -> Iterator[None]:
    """Let torch use one thread, and compiled code as many as torch had."""
    number, before = torch.get_num_threads(), getattr(_here, "threads", None)
    _here.threads = thread_count()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(number)
        _here.threads = before


@contextmanager
def single_threaded_pool(threads: int) -> Iterator[Executor]:
    """A pool of threads in each of which torch uses one thread.

    torch keeps the number of new threads in one place for the whole process. So all threads of the
    pool are started, and that number is restored, before anything else runs.
    """
    number, ready = torch.get_num_threads(), Barrier(threads + 1)

    def start() -> None:
        torch.get_num_threads()  # else torch would reset this thread's number at first use
        torch.set_num_threads(1)
        with suppress(BrokenBarrierError):
            ready.wait()

    pool = ThreadPoolExecutor(threads, initializer=start)
    try:
        try:
            for _ in range(threads):
                pool.submit(int)
            ready.wait()
        finally:
            ready.abort()  # if interrupted: no thread waits for ever for those that did not start
            torch.set_num_threads(number)
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)

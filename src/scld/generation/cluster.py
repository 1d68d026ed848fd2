"""Shards made in this process, on a local Dask cluster, or on one that is already running."""

from __future__ import annotations

import logging
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Unpack

import torch

from scld.errors import RequestError, SCLDError, check_int, one_line
from scld.generation.design import Design
from scld.generation.fitted import FittedModel, torch_device
from scld.generation.options import SamplingKeywords
from scld.generation.request import part_of_cells
from scld.generation.shards import SHARD_CELLS, generate_shard, shard_request
from scld.io.shards import Plain, ShardStore, is_sharded, manifest_of
from scld.machine import memory_left, size_text
from scld.progress import note, progress_bars

_ADDRESS = re.compile(r"(tcp|tls|ws|wss|ucx)://[^/\s]+:\d+")
_ANSWER = 20  # seconds in which a scheduler must answer
_PROCESS_BYTES = 700_000_000  # of a worker, before it holds any cell
_COUNT_BYTES = 40  # per non-zero count of a shard: the counts, their parts, and what is compressed
_TRIAL = 4096  # cells of a trial
_FEW = 256  # cells that are generated to know how many counts a cell has
Digests = Iterator[tuple[int, str]]  # (shard, digest), in the order in which they are made


def generate_shards(
    checkpoint: str | Path,
    output: str | Path,
    n: int,
    *,
    where: Mapping[str, object] | None = None,
    unseen: bool = False,
    shard_cells: int = SHARD_CELLS,
    workers: int | None = None,
    scheduler: str | None = None,
    device: str = "auto",
    overwrite: bool = False,
    **options: Unpack[SamplingKeywords],
) -> Path:
    """Generate any number of cells, in shards, by several processes.

    The cells are those of `Synthesizer.sample` with the same seed. What was stopped is finished by
    the same call: shards that are there and whole are kept.

    Parameters
    ----------
    checkpoint
        Path of a fitted model. All workers must be able to read it.
    output
        Folder to write, ending in ``.zarr``. All workers must be able to write there.
    n, where, unseen
        As in `Synthesizer.sample`.
    shard_cells
        Cells of a shard: a multiple of 2,048. A worker holds one shard in memory.
    workers
        Number of processes, of a Dask cluster that is started for this call. None: this process
        alone, without Dask.
    scheduler
        Address of a running Dask scheduler, such as ``"tcp://10.0.0.1:8786"``.
    device
        ``"auto"``, ``"cpu"`` or ``"cuda"``; the same for all workers.
    overwrite
        Whether shards of another request may be replaced.
    **options
        guidance, guidance_interval, post, steps, seed, progress: as in `Synthesizer.sample`.

    Returns
    -------
    Path
        The folder. `scld.data.open_shards` opens it without reading the counts; `scld.evaluate` and
        ``fit`` take it as they take a file.

    Raises
    ------
    RequestError
        A value out of range, a scheduler that does not answer, workers that would need more memory
        than is left, shards of another request in ``output``.
    SCLDError
        Workers died again and again.

    Examples
    --------
    >>> import scld, tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> synth = scld.Synthesizer("cell_type", config=scld.Config.preset("quick"))
    >>> synth.fit(scld.datasets.pbmc(), checkpoint=folder / "model.scld", progress=False)
    Synthesizer(labels=['cell_type'], fitted on 2,501 cells x 2,000 genes)
    >>> path = scld.generate_shards(
    ...     folder / "model.scld", folder / "cells.zarr", 3_000, shard_cells=2_048, progress=False
    ... )
    >>> scld.data.read(path).n_obs
    3000
    """
    checkpoint = Path(checkpoint).expanduser()
    model = FittedModel.load(checkpoint, torch_device(device))
    target = (Path(output).expanduser(), overwrite)
    plan = Plan.of(model, checkpoint, *target, n, where, unseen, shard_cells, options)
    return plan.run(workers, scheduler, bool(options.get("progress", True)))


@dataclass(frozen=True)
class Plan:
    """A request in shards, checked: what is made, where, and what a worker needs.

    Parameters
    ----------
    checkpoint, output
        Paths.
    request
        From `shard_request`.
    non_zeros
        Counts above zero of a cell, on average over a few.
    overwrite
        Whether shards of another request may be replaced.
    """

    checkpoint: Path
    output: Path
    request: Plain
    non_zeros: float
    overwrite: bool

    @classmethod
    def of(
        cls,
        model: FittedModel,
        checkpoint: Path,
        output: Path,
        overwrite: bool,
        n: Any,
        where: Mapping[str, object] | None,
        unseen: bool,
        shard_cells: Any,
        options: Mapping[str, Any],
    ) -> Plan:
        """Check all that can be checked before the work starts."""
        if output.suffix != ".zarr":
            raise RequestError(f"{output}: shards need a path that ends in .zarr; change its name")
        if options.get("seed") is None and is_sharded(output) and not overwrite:
            options = {**options, "seed": manifest_of(output)["request"]["seed"]}  # the same call
        checked = model.options(options)
        request = shard_request(model, checkpoint, n, where, unseen, shard_cells, checked)
        ShardStore.check(output, request, overwrite)
        few = part_of_cells(0, _FEW, where or {}, model.schema, checked.seed, unseen)
        counts = model.sample(Design(few), replace(checked, progress=False)).X
        return cls(checkpoint, output, request, counts.nnz / counts.shape[0], overwrite)

    def expected(self, workers: int) -> str:
        """What it would take, from one small shard that is made and thrown away."""
        with tempfile.TemporaryDirectory() as folder, _one_thread():
            cells = min(_TRIAL, self.request["cells"], self.request["shard_cells"])
            store = ShardStore(Path(folder), {**self.request, "cells": cells})
            make = partial(generate_shard, str(self.checkpoint), folder, store.request)
            make(0)  # loads the model
            started = time.perf_counter()
            make(0)
            seconds = (time.perf_counter() - started) / cells
            size = sum(file.stat().st_size for file in Path(folder).rglob("*")) / cells
        total = self.request["cells"]
        workers = min(check_int("workers", workers, 1), self.shards)
        days, rest = divmod(round(seconds * total / workers), 86_400)
        duration = f"{days} d " * (days > 0) + time.strftime("%H:%M:%S", time.gmtime(rest))
        rate = f"{1 / seconds:,.0f} cells/s each"
        return (
            f"{total:,} cells in {self.shards:,} shards of {self.request['shard_cells']:,}\n"
            f"disk: {size_text(size * total)}\n"
            f"memory: {size_text(self.worker_bytes)} for each worker\n"
            f"time: {duration} with workers of one thread: {workers}, {rate}"
        )

    @property
    def shards(self) -> int:
        """Number of shards."""
        return ShardStore(self.output, self.request).number

    @property
    def worker_bytes(self) -> int:
        """About what one worker holds."""
        cells = int(min(self.request["shard_cells"], self.request["cells"]))
        return _PROCESS_BYTES + round(_COUNT_BYTES * self.non_zeros * cells)

    def run(self, workers: int | None, scheduler: str | None, progress: bool) -> Path:
        """Make the shards that are missing."""
        if workers is not None:
            if scheduler is not None:
                raise RequestError("workers: got scheduler as well; pass one of them")
            check_int("workers", workers, 1)
        former = ShardStore(self.output, self.request)
        digests = {shard: former.digest(shard) for shard in range(former.number)}
        missing = [shard for shard, digest in digests.items() if digest is None]
        there = former.number - len(missing)
        if there and progress:
            note(f"{self.output}: {there:,} of {former.number:,} shards are there already")
        if workers is not None:
            workers = min(workers, len(missing))
            self._check_memory(workers)
        with _executor(workers, scheduler, len(missing)) as execute:
            store = ShardStore.begin(self.output, self.request, self.overwrite)
            paths = (str(self.checkpoint.absolute()), str(self.output.absolute()))
            work = partial(generate_shard, *paths, self.request)
            with progress_bars(progress) as bar:
                update = bar("shards", store.number)
                for done, (shard, digest) in enumerate(execute(work, missing), 1):
                    digests[shard] = digest
                    update(there + done, "")
                update(store.number, "")
        store.finish([str(digest) for digest in digests.values()])
        return self.output

    def _check_memory(self, workers: int) -> None:
        left = memory_left()
        if left is not None and workers * self.worker_bytes > left:
            needed = size_text(workers * self.worker_bytes)
            seen = f"{workers} need about {needed} of memory, and {size_text(left)} are left"
            most = max(1, left // self.worker_bytes)
            advice = f"use at most {most}, or smaller shards (shard_cells)"
            raise RequestError(f"workers: {seen}; {advice}")


@contextmanager
def _one_thread() -> Iterator[None]:
    """As a worker has."""
    number = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(number)


Execute = Callable[[Callable[[int], str], Sequence[int]], Digests]


@contextmanager
def _executor(workers: int | None, scheduler: str | None, shards: int) -> Iterator[Execute]:
    """What runs the work for each shard: this process, or the workers of a Dask cluster."""
    if shards == 0 or (workers is None and scheduler is None):
        yield lambda work, shards: ((shard, work(shard)) for shard in shards)
        return
    try:
        import distributed
    except ImportError as error:
        advice = "install it with pip install 'scld[cluster]', or leave workers out"
        raise RequestError(f"workers: Dask's distributed is not installed; {advice}") from error
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    with _cluster(distributed, workers) as local, _client(distributed, local, scheduler) as client:
        yield partial(_on_workers, distributed, client)


@contextmanager
def _cluster(distributed: Any, workers: int | None) -> Iterator[Any]:
    """A local cluster of processes with one thread each, or None."""
    if workers is None:
        yield None
        return
    settings = {"n_workers": workers, "threads_per_worker": 1, "memory_limit": 0}
    with distributed.LocalCluster(**settings, dashboard_address=None) as cluster:
        yield cluster


@contextmanager
def _client(distributed: Any, cluster: Any, scheduler: str | None) -> Iterator[Any]:
    if scheduler is not None and not _ADDRESS.fullmatch(scheduler):
        allowed = "allowed are addresses such as tcp://10.0.0.1:8786"
        raise RequestError(f"scheduler: got {scheduler!r}; {allowed}")
    try:
        client = distributed.Client(scheduler or cluster, timeout=_ANSWER, set_as_default=False)
    except (OSError, TimeoutError) as error:
        seen = f"{scheduler!r} does not answer within {_ANSWER} s ({one_line(error)})"
        advice = "check the address, or use workers= (--workers) to start a cluster here"
        raise RequestError(f"scheduler: {seen}; {advice}") from error
    with client:
        yield client


def _on_workers(
    distributed: Any, client: Any, work: Callable[[int], str], shards: Sequence[int]
) -> Digests:
    futures = {client.submit(work, shard, pure=False): shard for shard in shards}
    for future in distributed.as_completed(list(futures), loop=client.loop):
        try:
            yield futures[future], future.result()
        except distributed.KilledWorker as error:
            advice = "they may lack memory: use fewer workers or smaller shards, and run it again"
            raise SCLDError(f"workers: they died again and again; {advice}") from error
        except (distributed.CancelledError, distributed.comm.CommClosedError, OSError) as error:
            advice = "run the same command again to finish"
            seen = f"the cluster is gone ({one_line(error)})"
            raise SCLDError(f"scheduler: {seen}; {advice}") from error

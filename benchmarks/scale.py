"""More cells than fit in memory: shards by several workers, and a fit from what they made.

    OMP_NUM_THREADS=1 python benchmarks/scale.py [--cells 1000000] [--genes 10000] [--workers 2]
        [--folder FOLDER] [--results FOLDER]

A model is fitted with a short training to the cells that ship with scld, with --genes genes. Part
`generate`: one worker makes a tenth of the cells, then all workers make all of them; rates, and the
largest memory of a process. Part `fit`: one epoch of each network on 50,000 of these cells in
memory, the same from disk, and all of them from disk, each in a process of its own: rates of
training, and peak memory. Beside them, the rate at which the copy of the counts is read in order.
The shards and the copies lie in --folder, on the disk that is measured. With --results, the numbers
are written to scale.json.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from common import (
    LABEL,
    SHIPPED,
    arguments,
    begin,
    in_own_process,
    load_cells,
    long_records,
    peak_memory,
    resized,
    settings,
    write_results,
)

import scld
from scld.generation.shards import SHARD_CELLS
from scld.io.disk import row_blocks
from scld.io.pieces import Pieces

FEW = 50_000  # cells of the fits that are compared
EPOCH = {"epochs": 1, "steps": 1, "intervals": 1, "validation_repeats": 1}
KEYS = ["dataset", "method"]


@contextmanager
def largest_child() -> Iterator[list[float]]:
    """The largest memory of a child process, in MB, asked five times a second."""
    import psutil

    found, stop = [0.0], threading.Event()

    def ask() -> None:
        while not stop.wait(0.2):
            for child in psutil.Process().children(recursive=True):
                try:
                    found[0] = max(found[0], child.memory_info().rss / 1e6)
                except psutil.NoSuchProcess:
                    continue

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield found
    finally:
        stop.set()
        thread.join()


def generated(model: Path, output: Path, cells: int, workers: int, shard: int) -> dict[str, float]:
    """Make so many cells; rate and memory. The time to start the cluster counts."""
    started = time.perf_counter()
    with largest_child() as memory:
        options = {"workers": workers, "shard_cells": shard, "seed": 0, "progress": False}
        scld.generate_shards(model, output, cells, **options)
    seconds = time.perf_counter() - started
    size = sum(file.stat().st_size for file in output.rglob("*") if file.is_file())
    return {
        "cells": cells,
        "seconds": seconds,
        "cells/s": cells / seconds,
        "largest process, MB": memory[0],
        "disk, MB": size / 1e6,
    }


def fitted_once(shards: Path, folder: Path, cells: int | None, stream: bool) -> dict[str, float]:
    """One epoch of each network on some cells of the shards, or on all."""
    source: Any = shards if cells is None else scld.data.read(shards, at_most=cells)
    if cells is not None and stream:
        source.write_h5ad(folder / "some.h5ad")
        source = folder / "some.h5ad"
    config = scld.Config.from_dict({"autoencoder_training": EPOCH, "denoiser_training": EPOCH})
    synth = scld.Synthesizer(LABEL, config=config)
    started = time.perf_counter()
    synth.fit(source, stream=stream, checkpoint=folder / "fit.scld", overwrite=True, progress=False)
    found: dict[str, float] = {"cells": synth.summary["cells"]}
    found["seconds"] = time.perf_counter() - started
    for network in ("autoencoder", "denoiser"):
        history = synth.summary[network]
        batch = getattr(config, f"{network}_training").batch
        found[f"{network}, cells/s"] = history["steps"] * batch / history["seconds"]
    return found | {"peak memory, MB": peak_memory() / 1e6}


def read_in_order(shards: Path, folder: Path) -> dict[str, float]:
    """Cells/s of one pass over the shards, with all checks, and of one over the copy of them."""
    pieces = Pieces.of(shards, None, "same")
    started = time.perf_counter()
    counts = pieces.on_disk(folder, lambda done, text: None)
    copied = time.perf_counter()
    for _ in row_blocks(counts):
        pass
    seconds = time.perf_counter() - copied
    return {
        "cells": pieces.cells,
        "copying, cells/s": pieces.cells / (copied - started),
        "reading, cells/s": pieces.cells / seconds,
        "reading, MB/s": 8 * counts.nnz / seconds / 1e6,
    }


def measured(folder: Path, given: argparse.Namespace) -> list[dict[str, Any]]:
    """One row per measurement."""
    model, whole, shard = folder / "model.scld", folder / "whole.zarr", given.shard_cells
    real = resized(load_cells(SHIPPED, given), given.genes)
    scld.Synthesizer(LABEL, config=settings(given)).fit(real, progress=False).save(model)
    rows = []

    def add(method: str, **found: float) -> None:
        rows.append({"method": method, "genes": real.n_vars, **found})
        texts = ", ".join(f"{name} {value:,.0f}" for name, value in found.items())
        print(f"{method}: {texts}", flush=True)

    one = generated(model, folder / "tenth.zarr", max(given.cells // 10, shard), 1, shard)
    add("generate, 1 worker", **one)
    many = generated(model, whole, given.cells, given.workers, shard)
    ratio = many["cells/s"] / one["cells/s"] / given.workers
    add(f"generate, {given.workers} workers", **many, **{"of one worker's rate, %": 100 * ratio})
    few = min(FEW, given.cells // 2)
    for title, cells, stream in (
        (f"fit, {few:,} cells from memory", few, False),
        (f"fit, {few:,} cells from disk", few, True),
        ("fit, all cells from disk", None, True),
    ):
        with tempfile.TemporaryDirectory(dir=folder) as own:
            add(title, **in_own_process(fitted_once, whole, Path(own), cells, stream))
    with tempfile.TemporaryDirectory(dir=folder) as own:
        add("read", **read_in_order(whole, Path(own)))
    return rows


def main() -> None:
    parser = arguments(__doc__, [SHIPPED], seeds=[0])
    parser.add_argument("--cells", type=int, default=1_000_000)
    parser.add_argument("--genes", type=int, default=10_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--shard-cells", type=int, default=SHARD_CELLS)
    parser.add_argument("--folder", type=Path, help="of shards and copies; a temporary one if none")
    given = begin(parser)
    if given.quick:
        given.cells, given.genes, given.shard_cells = 20_480, 500, SHARD_CELLS // 5
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        rows = measured(Path(folder), given)
    table = pd.DataFrame(rows)
    print(f"\nscale\n{table.round(0).fillna('–').to_string(index=False)}\n", flush=True)
    about = {"dataset": SHIPPED, "seed": given.seeds[0], "whole": given.cells}
    records = long_records(table.assign(**about), [*about, "method"])
    records = records.assign(value=records["value"].astype(np.float64))
    write_results("scale", records, given, ("dataset", "seed", "whole"))


if __name__ == "__main__":
    main()

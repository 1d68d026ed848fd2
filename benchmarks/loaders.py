"""Random batches from disk: the copy that a fit makes, anndata, scDataset, annbatch.

    OMP_NUM_THREADS=1 python benchmarks/loaders.py [--cells 100000] [--genes 10000] [--batches 200]
        [--folder FOLDER] [--results FOLDER]

The cells that ship with scld, each repeated, with copies of their genes, are written to one .h5ad
file, compressed with gzip as many public files are, and once more without compression. From each
file, random batches of 128 cells are read by each loader that is installed: cells per second, and
how many cells lie side by side in the file (block). scld reads single cells from its copy; making
it takes one pass over the file, whose rate is a row of its own. The order of scDataset and annbatch
is shuffled by blocks. Files are in the cache of the operating system while it has room.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp
from common import SHIPPED, arguments, begin, load_cells, long_records, resized, write_results

from scld.io.disk import DiskCounts
from scld.io.pieces import Pieces

BATCH = 128
BLOCKS = (1, 16, 256)  # of scDataset
FETCH = 64  # batches that scDataset fetches at a time
Batches = Iterator[Any]


def written(path: Path, given: argparse.Namespace, compression: str | None) -> Path:
    """The file that is read."""
    cells = resized(load_cells(SHIPPED, given), given.genes)
    rows = np.random.default_rng(0).integers(0, cells.n_obs, given.cells)
    counts = sp.csr_matrix(cells.X)[np.sort(rows)].astype(np.float32)
    obs = pd.DataFrame(index=[f"cell_{i}" for i in range(given.cells)])
    many = ad.AnnData(counts, obs=obs, var=pd.DataFrame(index=cells.var_names))
    many.write_h5ad(path, compression=compression)
    return path


def of_copy(counts: DiskCounts, order: np.ndarray) -> Batches:
    """scld: single cells from the copy."""
    for start in range(0, len(order), BATCH):
        yield counts[order[start : start + BATCH]]


def of_anndata(path: Path, order: np.ndarray) -> Batches:
    """anndata, backed: the cells of a batch, in the order of the file."""
    backed = ad.read_h5ad(path, backed="r")
    for start in range(0, len(order), BATCH):
        yield backed.X[np.sort(order[start : start + BATCH])]


def of_scdataset(path: Path, block: int) -> Batches:
    """scDataset, shuffled blocks of so many cells."""
    from scdataset import BlockShuffling, scDataset

    backed = ad.read_h5ad(path, backed="r")
    options: dict[str, Any] = {"batch_size": BATCH, "fetch_factor": FETCH, "seed": 0}
    options["fetch_callback"] = _rows_of
    return iter(scDataset(backed, BlockShuffling(block_size=block), **options))


def _rows_of(backed: ad.AnnData, rows: np.ndarray) -> sp.csr_matrix:
    return backed.X[rows]


def rate(batches: Batches, most: int) -> float:
    """Cells per second of the first batches."""
    started, cells = time.perf_counter(), 0
    for number, batch in enumerate(batches, 1):
        cells += batch.shape[0]
        if number == most:
            break
    return cells / (time.perf_counter() - started)


def copied(path: Path, folder: Path) -> tuple[DiskCounts, float]:
    """The copy that a fit makes, and the cells per second that it takes."""
    started = time.perf_counter()
    pieces = Pieces.of(path, None, "same")
    counts = pieces.on_disk(folder, lambda done, text: None)
    return counts, pieces.cells / (time.perf_counter() - started)


def measured(name: str, path: Path, folder: Path, batches: int) -> Iterator[dict[str, Any]]:
    """One row per loader."""
    counts, copying = copied(path, folder)
    yield {"file": name, "method": "scld, making the copy", "cells/s": copying}
    order = np.random.default_rng(1).permutation(counts.shape[0])
    loaders: dict[str, Callable[[], Batches]] = {
        "scld, from the copy": partial(of_copy, counts, order),
        "anndata, backed": partial(of_anndata, path, order),
    }
    if find_spec("scdataset") is None:
        print("scDataset is not installed: left out", flush=True)
    else:
        for block in BLOCKS:
            loaders[f"scDataset, block {block}"] = partial(of_scdataset, path, block)
    if find_spec("annbatch") is None:
        print("annbatch is not installed (it needs Python 3.12): left out", flush=True)
    for method, loader in loaders.items():
        found = rate(loader(), batches)
        print(f"{name}, {method}: {found:,.0f} cells/s", flush=True)
        yield {"file": name, "method": method, "cells/s": found}


def main() -> None:
    parser = arguments(__doc__, [SHIPPED], seeds=[0])
    parser.add_argument("--cells", type=int, default=100_000)
    parser.add_argument("--genes", type=int, default=10_000)
    parser.add_argument("--batches", type=int, default=200, help="batches of each loader")
    parser.add_argument("--folder", type=Path, help="of the files; a temporary one if none")
    given = begin(parser)
    if given.quick:
        given.cells, given.genes, given.batches = 2_000, 500, 5
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(dir=given.folder) as name:
        folder = Path(name)
        for title, compression in (("gzip", "gzip"), ("uncompressed", None)):
            path = written(folder / f"{title}.h5ad", given, compression)
            with tempfile.TemporaryDirectory(dir=folder) as own:
                rows += measured(title, path, Path(own), given.batches)
    table = pd.DataFrame(rows)
    print(f"\nloaders\n{table.to_string(index=False)}\n", flush=True)
    about = {"dataset": SHIPPED, "seed": given.seeds[0]}
    records = long_records(table.assign(**about), ["dataset", "seed", "file", "method"])
    write_results("loaders", records, given)


if __name__ == "__main__":
    main()

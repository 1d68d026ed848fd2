"""What does an evaluation cost? Seconds and peak memory of `scld.evaluate`, from files on disk.

    python benchmarks/evaluation_cost.py [--data-dir DIR] [--datasets NAME] [--cells 4000 100000]

2,000 cells are compared with 2,000, with every negative control and three replicates, as by
default. The synthetic dataset consists of training cells whose counts were shuffled, as many as
requested. Each measurement runs in a process of its own, because peak memory is that of a process.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import anndata as ad
import numpy as np
import scipy.sparse as sp
from common import (
    LABEL,
    arguments,
    begin,
    evaluation_options,
    in_own_process,
    load_cells,
    long_records,
    peak_memory,
    write_results,
)

import scld

TEST_CELLS = 4000  # so that half of them are 2,000


def write_cells(name: str, given: argparse.Namespace, folder: Path, cells: int) -> None:
    """Write training, test and synthetic cells."""
    real = load_cells(name, given)
    test_share = min(0.5, TEST_CELLS / real.n_obs)
    train, test = scld.split(real, LABEL, test=test_share)
    rng = np.random.default_rng(0)
    rows = rng.integers(train.n_obs, size=cells)
    counts = sp.csr_matrix(train.X)[rows]
    counts.data = rng.permutation(counts.data)
    obs = train.obs.iloc[rows].set_index(np.arange(cells).astype(str))
    synthetic = ad.AnnData(counts, obs=obs, var=train.var)
    for part, adata in {"train": train, "test": test, "synthetic": synthetic}.items():
        adata.write_h5ad(folder / f"{part}.h5ad")


def measure(folder: Path, given: argparse.Namespace) -> dict[str, float]:
    """Evaluate from disk and write the HTML report; what that cost."""
    paths = [folder / f"{part}.h5ad" for part in ("train", "test", "synthetic")]
    started = time.perf_counter()
    report = scld.evaluate(*paths, LABEL, **evaluation_options(given))
    report.to_html(folder / "report.html")
    seconds, size = time.perf_counter() - started, (folder / "report.html").stat().st_size
    return {"seconds": seconds, "peak memory, MB": peak_memory() / 1e6, "report, MB": size / 1e6}


def main() -> None:
    parser = arguments(__doc__, ["teaseq_pbmc"], seeds=[0])
    parser.add_argument("--cells", type=int, nargs="+", default=[4000, 100_000])
    given = begin(parser)
    sizes = [300] if given.quick else given.cells
    for name in given.datasets:
        for cells in sizes:
            with tempfile.TemporaryDirectory() as folder:
                in_own_process(write_cells, name, given, Path(folder), cells)
                cost = in_own_process(measure, Path(folder), given)
            texts = ", ".join(f"{key} {value:,.1f}" for key, value in cost.items())
            print(f"{name}, {cells:,} synthetic cells: {texts}", flush=True)
            row = {"dataset": name, "cells": cells, **cost}
            records = long_records([row], ["dataset", "cells"])
            write_results("evaluation_cost", records, given, ("dataset", "cells"))


if __name__ == "__main__":
    main()

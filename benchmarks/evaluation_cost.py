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
    peak_memory,
)

import scld

TEST_CELLS = 4000  # so that half of them are 2,000


def write_cells(name: str, given: argparse.Namespace, folder: Path, cells: int) -> None:
    """Write training, test and synthetic cells."""
    real = load_cells(name, given)
    test_share = min(0.5, TEST_CELLS / real.n_obs)
    train, test = scld.data.split(real, LABEL, test_share=test_share)
    rng = np.random.default_rng(0)
    rows = rng.integers(train.n_obs, size=cells)
    counts = sp.csr_matrix(train.X)[rows]
    counts.data = rng.permutation(counts.data)
    obs = train.obs.iloc[rows].set_index(np.arange(cells).astype(str))
    synthetic = ad.AnnData(counts, obs=obs, var=train.var)
    for part, adata in {"train": train, "test": test, "synthetic": synthetic}.items():
        adata.write_h5ad(folder / f"{part}.h5ad")


def measure(folder: Path, given: argparse.Namespace) -> str:
    """Evaluate from disk and write the HTML report; what that cost."""
    paths = [folder / f"{part}.h5ad" for part in ("train", "test", "synthetic")]
    started = time.perf_counter()
    report = scld.evaluate(*paths, LABEL, **evaluation_options(given))
    report.to_html(folder / "report.html")
    seconds, size = time.perf_counter() - started, (folder / "report.html").stat().st_size
    memory = peak_memory() / 1e6
    return f"{seconds:.0f} s, peak memory {memory:,.0f} MB, HTML report {size / 1e6:.1f} MB"


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
            print(f"{name}, {cells:,} synthetic cells: {cost}", flush=True)


if __name__ == "__main__":
    main()

"""What does an evaluation cost? Seconds and peak memory of `scld.evaluate`, for 2,000 x 2,000 cells, and for a large set on disk.

    python benchmarks/judge.py --data DIR/teaseq_pbmc.h5ad [--cells 100000]

The synthetic set is made of per-type shuffled training cells, as many as asked for, and written to a temporary file. Each measurement is
a process of its own, since peak memory is a process's.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import scipy.sparse as sp

import scld

LABEL = "cell_type"


def make(data: Path, folder: Path, cells: int) -> None:
    """Write train, test (4,000 cells, so that a half has 2,000) and synthetic cells."""
    import anndata as ad

    whole = scld.data.read(data)
    train, test = scld.data.split(whole, LABEL, test_share=4000 / whole.n_obs)
    rng = np.random.default_rng(0)
    rows = rng.integers(train.n_obs, size=cells)
    counts = sp.csr_matrix(train.X)[rows]
    counts.data = rng.permutation(counts.data)
    train.write_h5ad(folder / "train.h5ad")
    test.write_h5ad(folder / "test.h5ad")
    obs = train.obs.iloc[rows].set_index(np.arange(cells).astype(str))
    ad.AnnData(counts, obs=obs, var=train.var).write_h5ad(folder / "synthetic.h5ad")


def measure(folder: Path) -> None:
    """Evaluate from disk, and say what it took."""
    started = time.perf_counter()
    scld.evaluate(folder / "train.h5ad", folder / "test.h5ad", folder / "synthetic.h5ad", LABEL).to_html(folder / "report.html")
    seconds, peak = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    size = (folder / "report.html").stat().st_size / 1e6
    print(f"evaluated and written in {seconds:.0f} s, peak memory {peak:,.0f} MB, page {size:.1f} MB", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--cells", type=int, nargs="+", default=[4000, 100_000])
    arguments = parser.parse_args()
    for cells in arguments.cells:
        with tempfile.TemporaryDirectory() as name:
            for step, given in ((make, (arguments.data, Path(name), cells)), (measure, (Path(name),))):
                process = multiprocessing.get_context("spawn").Process(target=step, args=given)
                print(f"{cells:,} synthetic cells:" if step is measure else "making the cells", flush=True)
                process.start()
                process.join()


if __name__ == "__main__":
    main()

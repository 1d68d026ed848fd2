"""How do time and memory grow? Fits and samples of growing size, and the time to start.

    OMP_NUM_THREADS=1 python benchmarks/growth.py [--data-dir DIR] [--parts growth starts]
        [--models MODELS] [--cells 1000 10000 ...] [--genes 2000 10000 ...] [--plot growth.png]

The datasets are cells sampled from a model that is fitted to the first of --datasets. Fewer genes
are evenly picked ones; more are copies of the genes, taken from other cells of the type. The number
of cells grows at the first of --genes, the number of genes at --at cells. Each fit is at default
settings; each sample writes as many cells as were fitted to an .h5ad.

Every measurement has a process of its own, since the peak memory of a process never falls. Times
leave out the imports, peak memory includes them. Medians over repetitions; an exponent is the slope
of the logarithm on the logarithm of the size. Part "starts": seconds from starting Python to its
end, from the second run on, when compiled code is cached on disk.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from common import (
    LABEL,
    arguments,
    begin,
    fitted,
    in_own_process,
    long_records,
    peak_memory,
    resized,
    settings,
    split_cells,
    write_results,
)

import scld
from scld.evaluation import plots
from scld.io.write import write

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MEASURED = ["fit, s", "fit, peak MB", "sample, s", "sample, peak MB"]
SAMPLE_COUNTS = """
import numpy as np
from scld.kernels.sampling import sample_counts
sample_counts(np.ones((1, 1)), np.ones(1), 0)
"""
STARTS = {
    "python alone": "",
    "import scld": "import scld",
    "scld --help": "from scld.cli import main; main(['--help'])",
    "import scld.kernels.sampling": "import scld.kernels.sampling",
    "the same, and a first sample": SAMPLE_COUNTS,
}


def prepare(given: argparse.Namespace, folder: Path) -> None:
    """Fit and save the model that the datasets are sampled from."""
    name, seed = given.datasets[0], given.seeds[0]
    train, _ = split_cells(name, seed, given)
    fitted(train, [LABEL], seed, given, name).save(folder / "source.scld")


def sample_dataset(folder: Path, cells: int, genes: int) -> None:
    """Write a dataset of this size."""
    batches = scld.load(folder / "source.scld").stream(cells, post="off", seed=0, progress=False)
    path = folder / "dataset.h5ad"
    write((resized(batch, genes) for batch in batches), path, overwrite=True)


def fit(folder: Path, given: argparse.Namespace) -> tuple[float, float]:
    """Seconds and peak megabytes of a fit, from a file to a checkpoint."""
    synth = scld.Synthesizer(LABEL, config=settings(given))
    started = time.perf_counter()
    synth.fit(folder / "dataset.h5ad", progress=False)
    synth.save(folder / "fitted.scld", overwrite=True)
    return time.perf_counter() - started, peak_memory() / 1e6


def sample(folder: Path, cells: int) -> tuple[float, float]:
    """Seconds and peak megabytes of a sample, from a loaded model to a file."""
    synth = scld.load(folder / "fitted.scld")
    started = time.perf_counter()
    batches = synth.stream(cells, seed=0, progress=False)
    write(batches, folder / "sample.h5ad", overwrite=True)
    return time.perf_counter() - started, peak_memory() / 1e6


def measured(cells: int, genes: int, folder: Path, given: argparse.Namespace) -> dict[str, float]:
    """The medians at one size."""
    in_own_process(sample_dataset, folder, cells, genes)
    repeated = [
        (*in_own_process(fit, folder, given), *in_own_process(sample, folder, cells))
        for _ in range(given.repeats)
    ]
    medians = dict(zip(MEASURED, np.median(repeated, axis=0), strict=True))
    texts = [f"{name} {value:,.1f}" for name, value in medians.items()]
    print(f"{cells:,} cells x {genes:,} genes: {', '.join(texts)}", flush=True)
    return medians


def growth(given: argparse.Namespace) -> pd.DataFrame:
    """One row per axis and size."""
    sizes = [("cells", cells, given.genes[0]) for cells in given.cells]
    sizes += [("genes", given.at, genes) for genes in given.genes]
    medians: dict[tuple[int, int], dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        in_own_process(prepare, given, Path(folder))
        for _, *size in sizes:
            if tuple(size) not in medians:
                medians[tuple(size)] = measured(*size, Path(folder), given)
    return pd.DataFrame(
        [
            {"growing": axis, "cells": cells, "genes": genes, **medians[cells, genes]}
            for axis, cells, genes in sizes
        ]
    )


def exponents(table: pd.DataFrame) -> pd.DataFrame:
    """Slopes of the logarithms, one row per axis that has several sizes."""
    slopes = {}
    for axis, part in table.groupby("growing", sort=False):
        if part[axis].nunique() > 1:
            size, values = np.log(part[axis]), np.log(part[MEASURED])
            slopes[axis] = {name: np.polyfit(size, values[name], 1)[0] for name in MEASURED}
    return pd.DataFrame(slopes, index=MEASURED).T.rename_axis("exponent, growing")


def plot(table: pd.DataFrame, path: Path) -> None:
    """Time and memory against size, on logarithmic axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 6.5), layout="constrained")
    grid = figure.subplots(2, 2, sharex="col", sharey="row")
    names = {", s": "seconds", ", peak MB": "peak memory, MB"}
    for column, (axis, part) in zip(grid.T, table.groupby("growing", sort=False), strict=True):
        for axes, unit in zip(column, names, strict=True):
            _draw(axes, part, axis, unit)
        fixed = "genes" if axis == "cells" else "cells"
        column[0].set_title(f"{part[fixed].iloc[0]:,} {fixed}")
        column[1].set_xlabel(f"{axis} (log scale)")
    for axes, name in zip(grid[:, 0], names.values(), strict=True):
        axes.set_ylabel(f"{name} (log scale)")
    handles = grid[0, 0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside upper center", ncols=2)
    figure.savefig(path, dpi=170, facecolor="white")


def _draw(axes: Axes, part: pd.DataFrame, axis: str, unit: str) -> None:
    from matplotlib.ticker import LogLocator

    for work, colour in {"fit": plots.REAL, "sample": plots.SYNTHETIC}.items():
        axes.loglog(part[axis], part[work + unit], marker="o", color=colour, label=work)
    lowest, highest = axes.get_ylim()
    subs = (1, 2, 5) if highest > 10 * lowest else (1, 1.5, 2, 3, 4, 5, 7)
    axes.minorticks_off()
    axes.set_xticks(part[axis], [f"{size:,}" for size in part[axis]])
    axes.yaxis.set_major_locator(LogLocator(subs=subs))
    axes.yaxis.set_major_formatter("{x:,g}")


def starts(repeats: int) -> pd.DataFrame:
    """Median seconds of each start, from the second run on."""
    runs = [
        {name: start_seconds(code) for name, code in STARTS.items()} for _ in range(repeats + 1)
    ]
    medians = pd.DataFrame(runs[1:]).median()
    return medians.rename("seconds").rename_axis("start").reset_index()


def start_seconds(code: str) -> float:
    """Seconds of a Python process that runs some code."""
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def main() -> None:
    parser = arguments(__doc__, ["teaseq_pbmc"], seeds=[0])
    both = ["growth", "starts"]
    parser.add_argument("--parts", nargs="+", choices=both, default=both)
    parser.add_argument("--cells", nargs="+", type=int, default=[1000, 10_000, 100_000])
    parser.add_argument("--genes", nargs="+", type=int, default=[2000, 10_000, 20_000, 40_000])
    parser.add_argument("--at", type=int, default=2000, help="cells while the genes grow")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--plot", type=Path, help="write time and memory against size as a PNG")
    given = begin(parser)
    if given.quick:
        given.cells, given.genes, given.at, given.repeats = [200, 400], [400], 200, 1
    about, unit = {"dataset": given.datasets[0]}, ("part", "dataset")
    if "growth" in given.parts:
        table = growth(given)
        records = long_records(table, ["growing", "cells", "genes"]).assign(part="growth", **about)
        write_results("growth", records, given, unit)
        print(f"\n{table.round(1).to_string(index=False)}\n")
        print(f"{exponents(table).round(2).to_string()}\n", flush=True)
        if given.plot:
            plot(table, given.plot)
    if "starts" in given.parts:
        table = starts(given.repeats)
        records = long_records(table, ["start"]).assign(part="starts", **about)
        write_results("growth", records, given, unit)
        print(table.round(2).to_string(index=False))


if __name__ == "__main__":
    main()

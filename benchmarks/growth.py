"""How do time and memory grow? Fits and samples of sets of growing size; and what a second run costs before it does anything.

    OMP_NUM_THREADS=1 python benchmarks/growth.py --data-dir DIR [--parts growth starts] [--models MODELS] [--cells 1000 10000 ...] [--plot growth.png]

The sets are cells sampled from a model that is fitted to the first of --sets. Fewer genes are evenly picked ones; more are further blocks of the same genes,
counted in other cells of the same type. The number of cells grows at the first of --genes, the number of genes at --at cells. Each fit is at default settings;
each sampling writes as many cells as were fitted to an .h5ad. Every measurement is a process of its own, since peak memory is a process's; times leave
out what it imports, peak memory does not. Figures are medians over repetitions; the exponent is the slope of log time on log size.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from common import LABEL, arguments, begin, fitted, resized, settings

import scld
from scld import output

FIGURES = ["fit, s", "fit, peak MB", "sample, s", "sample, peak MB"]
STARTS = {
    "python alone": "",
    "import scld": "import scld",
    "scld --help": "from scld.cli import main; main(['--help'])",
    "import scld.counts": "import scld.counts",
    "the same, and a first draw": "import numpy as np, scld.counts; scld.counts.draw(np.ones((1, 1)), np.ones(1), 0)",
}


def alone(work: Callable[..., Any], *given: Any) -> Any:
    """The outcome of some work in a process of its own; this one must stay small, for its memory counts as the least of any that it starts."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(work, *given).result()


def prepare(given: argparse.Namespace, folder: Path) -> None:
    """Keep the model that the sets come from."""
    train = scld.data.split(scld.data.read(given.data_dir / f"{given.sets[0]}.h5ad"), LABEL, seed=given.seeds[0])[0]
    fitted(train, [LABEL], given.seeds[0], given, given.sets[0]).save(folder / "source.scld")


def make(folder: Path, cells: int, genes: int) -> None:
    """Write a set."""
    pieces = scld.load(folder / "source.scld").stream(cells, post="off", progress=False)
    output.write((resized(piece, genes) for piece in pieces), folder / "set.h5ad", overwrite=True)


def fit(folder: Path, given: argparse.Namespace) -> tuple[float, float]:
    """Seconds and peak megabytes of a fit, from a file to a checkpoint."""
    synth = scld.Synthesizer(LABEL, config=settings(given))
    started = time.perf_counter()
    synth.fit(folder / "set.h5ad", progress=False).save(folder / "fitted.scld", overwrite=True)
    return time.perf_counter() - started, peak()


def sample(folder: Path, cells: int) -> tuple[float, float]:
    """Seconds and peak megabytes of a sampling, from a loaded model to a file."""
    synth = scld.load(folder / "fitted.scld")
    started = time.perf_counter()
    output.write(synth.stream(cells, progress=False), folder / "made.h5ad", overwrite=True)
    return time.perf_counter() - started, peak()


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measured(axis: str, cells: int, genes: int, folder: Path, given: argparse.Namespace) -> dict[str, Any]:
    """One row: the medians of one size."""
    alone(make, folder, cells, genes)
    turns = [(*alone(fit, folder, given), *alone(sample, folder, cells)) for _ in range(given.repeats)]
    row = {"growing": axis, "cells": cells, "genes": genes} | dict(zip(FIGURES, np.median(turns, axis=0), strict=True))
    print(", ".join(f"{name} {value if isinstance(value, str) else f'{value:,.0f}'}" for name, value in row.items()), flush=True)
    return row


def growth(given: argparse.Namespace) -> pd.DataFrame:
    """One row a size."""
    sizes = [("cells", cells, given.genes[0]) for cells in given.cells] + [("genes", given.at, genes) for genes in given.genes]
    with tempfile.TemporaryDirectory() as name:
        alone(prepare, given, Path(name))
        return pd.DataFrame([measured(*size, Path(name), given) for size in sizes])


def exponents(table: pd.DataFrame) -> pd.DataFrame:
    """Slopes of the logarithms, one row a way to grow."""
    ways = table.groupby("growing", sort=False)
    slopes = {axis: {name: np.polyfit(np.log(part[axis]), np.log(part[name]), 1)[0] for name in FIGURES} for axis, part in ways}
    return pd.DataFrame(slopes).T.rename_axis("exponent, growing")


def picture(table: pd.DataFrame, path: Path) -> None:
    """Time and memory against size, on logarithmic axes."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator

    figure = Figure(figsize=(9, 7), layout="constrained")
    grid = figure.subplots(2, 2, sharey="row")
    for column, (axis, part) in zip(grid.T, table.groupby("growing", sort=False), strict=True):
        for axes, unit in zip(column, (", s", ", peak MB"), strict=True):
            for work in ("fit", "sample"):
                axes.loglog(part[axis], part[work + unit], marker="o", label=work)
            axes.set(xlabel=axis, ylabel=unit[2:])
            axes.minorticks_off()
            axes.set_xticks(part[axis], [f"{size:,}" for size in part[axis]])
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.yaxis.set_major_formatter("{x:,g}")
            axes.legend()
    figure.savefig(path, dpi=150)


def starts(repeats: int) -> pd.DataFrame:
    """Seconds from starting Python to its end, at the second run and after; numba's cache is on disk by then."""

    def run(code: str) -> float:
        started = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
        return time.perf_counter() - started

    turns = [{name: run(code) for name, code in STARTS.items()} for _ in range(repeats + 1)][1:]
    return pd.DataFrame(turns).median().rename("seconds").rename_axis("start").reset_index()


def main() -> None:
    parser = arguments(__doc__, ["teaseq_pbmc"], seeds=[0])
    parser.add_argument("--parts", nargs="+", choices=["growth", "starts"], default=["growth", "starts"])
    parser.add_argument("--cells", nargs="+", type=int, default=[1000, 10_000, 100_000])
    parser.add_argument("--genes", nargs="+", type=int, default=[2000, 10_000, 20_000, 40_000])
    parser.add_argument("--at", type=int, default=2000, help="cells while the genes grow")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--plot", type=Path, default=Path("growth.png"))
    given = begin(parser)
    if "growth" in given.parts:
        table = growth(given)
        print(f"\n{table.round(1).to_string(index=False)}\n\n{exponents(table).round(2).to_string()}\n", flush=True)
        picture(table, given.plot)
    if "starts" in given.parts:
        print(starts(given.repeats).round(2).to_string(index=False))


if __name__ == "__main__":
    main()

"""What the benchmarks share: arguments, cells, a fit, and mean ± sd over seeds."""

from __future__ import annotations

import argparse
import multiprocessing
import platform
import resource
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData

import scld
from scld.evaluation.cells import Cells
from scld.preprocessing import log_normalise

LABEL = "cell_type"
LABELS = {"kang_ifnb_small": [LABEL, "condition"]}  # to fit on; else the cell type alone
SHIPPED = "pbmc"  # the cells that ship with scld
MADE_UP = {"condition": ("ctrl", "stim"), "donor": ("A", "B", "C")}  # labels that these lack
QUICK_CELLS, QUICK_GENES = 80, 500  # cells of each type, and genes, with --quick
_WIDTH = {"display.width": 250, "display.max_columns": 40, "display.max_colwidth": 60}


def arguments(
    doc: str | None, datasets: Sequence[str], seeds: Sequence[int] = (0, 1, 2)
) -> argparse.ArgumentParser:
    """The arguments that every benchmark takes."""
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=doc, formatter_class=layout)
    parser.add_argument(
        "--data-dir",
        type=Path,
        help="folder of .h5ad files of raw counts; the cells that ship with scld if left out",
    )
    parser.add_argument("--datasets", nargs="+", help=f"default: {' '.join(datasets)}")
    parser.add_argument(
        "--seeds",
        nargs="+",
        type=int,
        default=list(seeds),
        help="one split, one fit and one sample each",
    )
    parser.add_argument("--models", type=Path, help="folder to save fitted models in and reuse")
    parser.add_argument(
        "--quick",
        action="store_true",
        help="few cells and genes, a short training, one seed: only shows that the script runs",
    )
    parser.set_defaults(known_datasets=list(datasets))
    return parser


def begin(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Parse the arguments, and print what runs with which versions."""
    for option, value in {**_WIDTH, "display.max_rows": 500}.items():
        pd.set_option(option, value)
    given = parser.parse_args()
    if given.datasets is None:
        given.datasets = given.known_datasets if given.data_dir else [SHIPPED]
    if given.data_dir is None and given.datasets != [SHIPPED]:
        parser.error(f"--datasets: without --data-dir the only dataset is {SHIPPED}")
    if given.quick:
        given.seeds = given.seeds[:1]
    if given.models:
        given.models.mkdir(parents=True, exist_ok=True)
    _print_versions(given)
    return given


def _print_versions(given: argparse.Namespace) -> None:
    packages = ("anndata", "numpy", "scipy", "scikit-learn", "torch")
    versions = ", ".join(f"{name} {version(name)}" for name in packages)
    print(f"python {' '.join(sys.argv)}")
    print(f"scld {scld.__version__}, Python {platform.python_version()}, {versions}", flush=True)
    if given.quick:
        print("--quick: the numbers below mean nothing; they only show that the script runs")
    print(flush=True)


def load_cells(name: str, given: argparse.Namespace, labels: Sequence[str] = ()) -> AnnData:
    """The cells of a dataset; of the cells that ship with scld also labels that are made up."""
    if name == SHIPPED:
        cells = with_made_up_labels(scld.datasets.pbmc(), labels)
    else:
        cells = scld.data.read(given.data_dir / f"{name}.h5ad")
    return few_cells(cells) if given.quick else cells


def split_cells(
    name: str, seed: int, given: argparse.Namespace, labels: Sequence[str] = ()
) -> tuple[AnnData, AnnData]:
    """Training and test cells of a dataset, 70/30 within type."""
    return scld.data.split(load_cells(name, given, labels), LABEL, seed=seed)


def with_made_up_labels(cells: AnnData, labels: Sequence[str]) -> AnnData:
    """The cells with a random category, always the same, for each label that they lack."""
    for label in labels:
        if label not in cells.obs:
            rng = np.random.default_rng(0)
            cells.obs[label] = pd.Categorical(rng.choice(MADE_UP[label], cells.n_obs))
            print(f"{label}: made up at random, so the results below mean nothing", flush=True)
    return cells


def few_cells(cells: AnnData, seed: int = 0) -> AnnData:
    """Some cells of each type, and some genes."""
    genes = np.linspace(0, cells.n_vars - 1, min(QUICK_GENES, cells.n_vars)).astype(int)
    counts = sp.csr_matrix(cells.X)[:, genes]
    not_empty = np.flatnonzero(np.diff(counts.indptr))
    shuffled = np.random.default_rng(seed).permutation(not_empty)
    place = cells.obs.iloc[shuffled].groupby(LABEL, observed=True).cumcount()
    rows = np.sort(shuffled[(place < QUICK_CELLS).to_numpy()])
    some: AnnData = cells[rows, genes].copy()
    return some


def settings(given: argparse.Namespace) -> scld.Config:
    """The settings of a fit: the defaults, or with ``--quick`` a short training."""
    return scld.Config.preset("quick" if given.quick else "default")


def evaluation_options(given: argparse.Namespace) -> dict[str, Any]:
    """Options of `scld.evaluate`: its defaults, or with ``--quick`` few cells, once."""
    quick = {"max_cells": 200, "replicates": 1}
    return {"progress": False} | (quick if given.quick else {})


def fitted(
    train: AnnData, labels: Sequence[str], seed: int, given: argparse.Namespace, name: str
) -> scld.Synthesizer:
    """A model of some cells: fitted now, or loaded from ``--models``."""
    file = f"{name}-{seed}{'-quick' if given.quick else ''}.scld"
    path = given.models / file if given.models else None
    if path and (path / "manifest.json").exists():
        print(f"{name}, seed {seed}: model loaded from {path}", flush=True)
        return scld.load(path)
    synth, started = scld.Synthesizer(labels, config=settings(given), seed=seed), time.monotonic()
    synth.fit(train, checkpoint=path, progress=False)
    size = f"{train.n_obs:,} training cells x {train.n_vars:,} genes"
    seconds = time.monotonic() - started
    print(f"{name}, seed {seed}: {size}, labels {', '.join(labels)}, fitted in {seconds:.0f} s")
    sys.stdout.flush()
    return synth


def resized(adata: AnnData, genes: int, label: str = LABEL) -> AnnData:
    """The same cells with another number of genes.

    Fewer: evenly picked ones. More: all of them, then copies, each copy taken from other cells of
    the type, with numbered names.
    """
    counts, names = scld.data.count_matrix(adata), adata.var_names.to_numpy()
    if genes <= len(names):
        picked: AnnData = adata[:, np.linspace(0, len(names) - 1, genes).astype(int)].copy()
        return picked
    types, rng = pd.Categorical(adata.obs[label]).codes, np.random.default_rng(0)
    by_type = np.argsort(types, kind="stable")
    copies, copied_names = [counts], [names]
    for number in range(1, -(-genes // len(names))):
        others = np.empty(len(types), int)
        others[by_type] = np.lexsort((rng.random(len(types)), types))
        copies.append(counts[others])
        copied_names.append(np.array([f"{name} ({number})" for name in names]))
    matrix = sp.csr_matrix(sp.hstack(copies, format="csr")[:, :genes])
    var = pd.DataFrame(index=np.concatenate(copied_names)[:genes])
    return AnnData(matrix, obs=adata.obs, var=var)


def log_counts(adata: AnnData) -> sp.csr_matrix:
    """Log-normalised values ``[cells, genes]``."""
    return log_normalise(scld.data.count_matrix(adata))


def as_cells(adata: AnnData, types: Sequence[str], label: str = LABEL) -> Cells:
    """Cells as the evaluation takes them; codes are positions in ``types``."""
    codes = pd.Categorical(adata.obs[label], categories=list(types)).codes.astype(np.int64)
    return Cells.of_counts(scld.data.count_matrix(adata), codes)


def spread(
    rows: Sequence[dict[str, Any]] | pd.DataFrame, by: Sequence[str], digits: int = 3
) -> pd.DataFrame:
    """Mean ± sd over seeds of every score, one row per group, in the order of the rows."""
    groups = pd.DataFrame(rows).drop(columns="seed").groupby(list(by), sort=False)
    mean, sd = groups.mean(), groups.std()
    columns = {
        name: [shown(*pair, digits) for pair in zip(mean[name], sd[name], strict=True)]
        for name in mean
    }
    return pd.DataFrame(columns, index=mean.index)


def shown(mean: float, sd: float, digits: int = 3) -> str:
    """A mean with its sd; without for a single value, a dash where there is none."""
    if np.isnan(mean):
        return "–"
    return f"{mean:.{digits}f}" + ("" if np.isnan(sd) else f" ± {sd:.{digits}f}")


def in_own_process(work: Callable[..., Any], *given: Any) -> Any:
    """The result of some work in a process of its own, for its `peak_memory`.

    This process must stay small: a new one starts with its peak.
    """
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(work, *given).result()


def peak_memory() -> int:
    """Bytes of this process at its peak."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit

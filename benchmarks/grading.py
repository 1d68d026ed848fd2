"""Do the metrics respond in the right direction? Real cells, corrupted step by step.

    python benchmarks/grading.py [--data-dir DIR] [--datasets NAME ...] [--seeds 0]

The cells are split in three: training cells, test cells, and cells in the place of a synthetic
dataset. A growing share of the latter is corrupted in four ways: replaced by per-type Poisson
cells; labels swapped; counts thinned; replaced by copies of training cells. The table has one row
per metric and one column per corruption: how much worse the metric is at each share, in standard
deviations over the replicates of the uncorrupted cells (in its own units where it is computed
once). `worse` marks a metric that gets worse at every step.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData
from common import LABEL, arguments, begin, evaluation_options, load_cells

import scld
from scld.evaluation import controls
from scld.evaluation.cells import OVERALL
from scld.evaluation.table import badness

SHARES = (0.1, 0.3, 0.6)
NONE = "none"  # the name of the uncorrupted cells
Corruption = Callable[[AnnData, AnnData, float, np.random.Generator], AnnData]


def poisson(cells: AnnData, train: AnnData, share: float, rng: np.random.Generator) -> AnnData:
    """Replace a share of the cells by per-type Poisson cells."""
    labels, known = cells.obs[LABEL].to_numpy(), train.obs[LABEL].to_numpy()
    counts, order = sp.csr_matrix(train.X), np.argsort(labels, kind="stable")
    made = [
        controls.poisson(counts[known == label], int((labels == label).sum()), rng)
        for label in np.unique(labels)
    ]
    in_place = sp.csr_matrix(sp.vstack(made, format="csr"))[np.argsort(order)]
    return replaced(cells, in_place, rng.random(cells.n_obs) < share)


def swapped(cells: AnnData, train: AnnData, share: float, rng: np.random.Generator) -> AnnData:
    """Swap labels among a share of the cells."""
    rows = np.flatnonzero(rng.random(cells.n_obs) < share)
    labels = cells.obs[LABEL].to_numpy().copy()
    labels[rows] = labels[rng.permutation(rows)]
    return AnnData(cells.X, obs=cells.obs.assign(**{LABEL: labels}), var=cells.var)


def thinned(cells: AnnData, train: AnnData, share: float, rng: np.random.Generator) -> AnnData:
    """Remove a share of the counts."""
    counts = sp.csr_matrix(cells.X, copy=True)
    counts.data = rng.binomial(counts.data.astype(int), 1 - share).astype(np.float32)
    counts.eliminate_zeros()
    return AnnData(counts, obs=cells.obs, var=cells.var)


def copied(cells: AnnData, train: AnnData, share: float, rng: np.random.Generator) -> AnnData:
    """Replace a share of the cells by training cells of the same type."""
    labels, known = cells.obs[LABEL].to_numpy(), train.obs[LABEL].to_numpy()
    rows = [rng.choice(np.flatnonzero(known == label)) for label in labels]
    return replaced(cells, sp.csr_matrix(train.X)[rows], rng.random(cells.n_obs) < share)


CORRUPTIONS: dict[str, Corruption] = {
    "poisson": poisson,
    "labels swapped": swapped,
    "thinned": thinned,
    "copies": copied,
}


def replaced(cells: AnnData, others: sp.csr_matrix, chosen: np.ndarray) -> AnnData:
    """The cells with the chosen ones taken from the others."""
    keep = sp.diags_array((~chosen).astype(np.float32)) @ sp.csr_matrix(cells.X)
    take = sp.diags_array(chosen.astype(np.float32)) @ others
    return AnnData(sp.csr_matrix(keep + take), obs=cells.obs, var=cells.var)


def corrupted(train: AnnData, cells: AnnData) -> dict[str, AnnData]:
    """The cells, and every corruption of them at every share."""
    return {NONE: cells} | {
        f"{name} {share}": corrupt(cells, train, share, np.random.default_rng(0))
        for name, corrupt in CORRUPTIONS.items()
        for share in SHARES
    }


def graded(table: pd.DataFrame) -> pd.DataFrame:
    """One row per metric, one column per corruption."""
    table = table[(table["group"] == OVERALL) & table["baseline"].notna()]
    bad = table.assign(bad=badness(table["value"], table["better"], table["ideal"]))
    wide = bad.pivot(index="metric", columns="dataset", values="bad")
    wide = wide.reindex(table["metric"].unique())
    uncorrupted = table[table["dataset"] == NONE].set_index("metric")
    sd = uncorrupted["sd"].fillna(1.0).clip(lower=1e-6)
    return pd.DataFrame({name: column_of(wide, sd, name) for name in CORRUPTIONS}, wide.index)


def column_of(wide: pd.DataFrame, sd: pd.Series, name: str) -> list[str]:
    """How much worse each metric is at each share."""
    steps = wide[[NONE, *(f"{name} {share}" for share in SHARES)]]
    difference = steps.sub(steps[NONE], axis=0).div(sd, axis=0).iloc[:, 1:].to_numpy()
    always = (steps.diff(axis=1).iloc[:, 1:] > 0).all(axis=1)
    return [
        " ".join(f"{value:+.1f}" for value in row) + (" worse" if worse else "")
        for row, worse in zip(difference, always, strict=True)
    ]


def benchmark(name: str, seed: int, given: argparse.Namespace) -> pd.DataFrame:
    """Split a dataset, corrupt a part of it, and score that."""
    cells = load_cells(name, given)
    train, rest = scld.split(cells, LABEL, test=2 / 3, seed=seed)
    test, fresh = scld.split(rest, LABEL, test=1 / 2, seed=seed)
    options = evaluation_options(given) | {"controls": False, "seed": seed}
    report = scld.evaluate(train, test, corrupted(train, fresh), LABEL, **options)
    compared = sum(report.sizes.values())
    shares = ", ".join(map(str, SHARES))
    print(f"{name}, seed {seed}: shares {shares}; {compared:,} cells of each dataset", flush=True)
    return graded(report.table)


def main() -> None:
    given = begin(arguments(__doc__, ["teaseq_pbmc"], seeds=[0], results=False))
    for name in given.datasets:
        for seed in given.seeds:
            print(benchmark(name, seed, given).to_string(), "\n", flush=True)


if __name__ == "__main__":
    main()

"""Do the judge's figures move the right way? Real cells, spoilt little by little.

    python benchmarks/grading.py --data DIR/teaseq_pbmc.h5ad

The cells are split in three: training, test, and fresh cells that play the synthetic set. The fresh ones are spoilt four ways, in a growing share: replaced by
per-type Poisson cells; given another cell's label; their counts thinned; replaced by copies of training cells. The table has one row a figure and one
column a way: how much worse the figure is at each share, in units of its spread between halvings at none (as it is, where
it is measured once); `up` marks a figure that never turns back.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData

import scld
from scld import metrics

LABEL = "cell_type"
SHARES = (0.1, 0.3, 0.6)
Spoil = Callable[[AnnData, AnnData, float, np.random.Generator], AnnData]


def poisson(cells: AnnData, train: AnnData, share: float, rng: np.random.Generator) -> AnnData:
    """Replace a share of the cells by per-type Poisson ones."""
    labels, known, counts = cells.obs[LABEL].to_numpy(), train.obs[LABEL].to_numpy(), sp.csr_matrix(train.X)
    order = np.argsort(labels, kind="stable")
    fakes = sp.vstack([metrics.poisson(counts[known == label], int((labels == label).sum()), rng) for label in np.unique(labels)], format="csr")
    fakes = fakes[np.argsort(order)]
    return _replaced(cells, fakes, rng.random(cells.n_obs) < share)


def swapped(cells: AnnData, train: AnnData, share: float, rng: np.random.Generator) -> AnnData:
    """Give a share of the cells the labels of others among them."""
    rows = np.flatnonzero(rng.random(cells.n_obs) < share)
    labels = cells.obs[LABEL].to_numpy().copy()
    labels[rows] = labels[rng.permutation(rows)]
    return AnnData(cells.X, obs=cells.obs.assign(**{LABEL: labels}), var=cells.var)


def thinned(cells: AnnData, train: AnnData, share: float, rng: np.random.Generator) -> AnnData:
    """Lose a share of the counts."""
    counts = sp.csr_matrix(cells.X, copy=True)
    counts.data = rng.binomial(counts.data.astype(int), 1 - share).astype(np.float32)
    counts.eliminate_zeros()
    return AnnData(counts, obs=cells.obs, var=cells.var)


def copied(cells: AnnData, train: AnnData, share: float, rng: np.random.Generator) -> AnnData:
    """Replace a share of the cells by training cells of the same type."""
    labels, known = cells.obs[LABEL].to_numpy(), train.obs[LABEL].to_numpy()
    rows = [rng.choice(np.flatnonzero(known == label)) for label in labels]
    return _replaced(cells, sp.csr_matrix(train.X)[rows], rng.random(cells.n_obs) < share)


def _replaced(cells: AnnData, others: sp.csr_matrix, chosen: np.ndarray) -> AnnData:
    keep = sp.diags_array((~chosen).astype(np.float32)) @ sp.csr_matrix(cells.X)
    take = sp.diags_array(chosen.astype(np.float32)) @ others
    return AnnData(sp.csr_matrix(keep + take), obs=cells.obs, var=cells.var)


def badness(rows: pd.DataFrame) -> pd.Series:
    """How far a figure lies on its bad side: the larger, the worse."""
    from_aim = (rows["value"] - rows["ideal"].fillna(rows["floor"])).abs()
    return from_aim.where(rows["better"] == "target", rows["value"].where(rows["better"] == "lower", -rows["value"]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    arguments = parser.parse_args()
    train, rest = scld.data.split(scld.data.read(arguments.data), LABEL, test_share=2 / 3)
    test, fresh = scld.data.split(rest, LABEL, test_share=1 / 2)
    spoils: dict[str, Spoil] = {"poisson": poisson, "labels swapped": swapped, "thinned": thinned, "copies": copied}
    sets = {"none": fresh} | {f"{name} {share}": spoil(fresh, train, share, np.random.default_rng(0)) for name, spoil in spoils.items() for share in SHARES}
    table = scld.evaluate(train, test, sets, LABEL, baselines=False).table
    table = table[(table["scope"] == "overall") & table["floor"].notna()].assign(bad=badness)
    bad = table.pivot(index="figure", columns="set", values="bad").reindex(table["figure"].unique())
    spread = table[table["set"] == "none"].set_index("figure")["sd"].fillna(1.0).clip(lower=1e-6)
    shown = pd.DataFrame(index=bad.index)
    for name in spoils:
        steps = bad[["none", *(f"{name} {share}" for share in SHARES)]]
        worse = steps.sub(steps["none"], axis=0).div(spread, axis=0).iloc[:, 1:]
        rises = (steps.diff(axis=1).iloc[:, 1:] > 0).all(axis=1)
        shown[name] = [" ".join(f"{value:+.1f}" for value in row) + (" up" if up else "") for row, up in zip(worse.to_numpy(), rises, strict=True)]
    print(f"share spoilt: {', '.join(map(str, SHARES))}; {test.n_obs // 2} cells a side")
    print(shown.to_string())


if __name__ == "__main__":
    main()

"""Which C2ST AUC can an ideal generator reach that knows a training set and nothing else?

    python benchmarks/finite.py [--data-dir DIR] [--datasets NAME ...] [--seeds 0 1 2]

A generator of independent cells has to estimate the distribution of each gene from the training
cells. Every synthetic cell carries the error of that estimate, and a classifier with thousands of
genes adds these small errors up. To measure their sum, real test cells are compared with training
cells where genes are independent: all genes of both are shuffled within type.

    without replacement   each training value once: as independent of the test cells as real cells
    with replacement      what a generator samples that learned each distribution exactly

The second row is a limit for generators that learn the genes of each type separately; a lower AUC
needs information that is shared between genes and types.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
import scipy.sparse as sp
from common import LABEL, arguments, as_cells, begin, split_cells, spread

from scld.evaluation.cells import Cells, Reference, View
from scld.evaluation.comparison import Comparison
from scld.evaluation.controls import make_control
from scld.evaluation.registry import BY_NAME
from scld.evaluation.subsets import Sizes, common_sizes, split_halves

METRICS = ("c2st_forest", "c2st_linear")  # boosting uses components fitted to the training cells
MOST_CELLS = 2000


def with_replacement(train: Cells, sizes: Sizes, rng: np.random.Generator) -> Cells:
    """Each gene of each type sampled with replacement from the training cells of that type."""
    assert train.counts is not None
    parts = []
    for code, n in sizes.items():
        known = train.counts[train.codes == code].tocsc()
        columns = [
            known[:, gene].toarray().ravel()[rng.integers(0, known.shape[0], n)]
            for gene in range(known.shape[1])
        ]
        parts.append(sp.csr_matrix(np.stack(columns, axis=1)))
    codes = np.repeat(list(sizes), list(sizes.values()))
    return Cells.of_counts(sp.csr_matrix(sp.vstack(parts, format="csr")), codes)


def scores(reference: Reference, real: View, cells: Cells) -> dict[str, float | None]:
    """The two-sample test of cells against shuffled test cells."""
    compared = Comparison(reference, real, reference.view(cells), seed=reference.seed)
    return {name: BY_NAME[name].value(compared) for name in METRICS}


def benchmark(name: str, seed: int, given: argparse.Namespace) -> list[dict[str, Any]]:
    """One row per way of sampling."""
    train, test = split_cells(name, seed, given)
    types, rng = sorted(set(train.obs[LABEL])), np.random.default_rng(seed)
    known, held_out = as_cells(train, types), as_cells(test, types)
    reference, number = Reference.of(known, seed=seed), len(types)
    sizes = common_sizes([held_out.sizes(number) // 2, known.sizes(number)], MOST_CELLS)
    half = held_out[split_halves(held_out.codes, sizes, rng)[0]]
    real = reference.view(make_control("shuffle", half, sizes, rng))
    samples = {
        "without replacement": make_control("shuffle", known, sizes, rng),
        "with replacement": with_replacement(known, sizes, rng),
    }
    about = {"seed": seed, "dataset": name, "training cells": str(len(known))}
    return [
        {**about, "training values": how, **scores(reference, real, cells)}
        for how, cells in samples.items()
    ]


def main() -> None:
    known = ["teaseq_pbmc", "pbmc3k", "mouse_endocrinogenesis", "mouse_ens"]
    given = begin(arguments(__doc__, known))
    for name in given.datasets:
        rows = [row for seed in given.seeds for row in benchmark(name, seed, given)]
        print(spread(rows, ["dataset", "training cells", "training values"]).to_string(), "\n")


if __name__ == "__main__":
    main()

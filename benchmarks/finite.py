"""Which C2ST AUC can an ideal generator reach that knows a training set and nothing else?

    python benchmarks/finite.py [--data-dir DIR] [--datasets NAME ...] [--seeds 0 1 2]

A generator of independent cells has to estimate the distribution of each gene from the training
cells. Every synthetic cell carries the error of that estimate, and a classifier with thousands of
genes adds these small errors up. To measure their sum, real test cells are compared with training
cells where genes are independent: all genes of both are shuffled between cells of the same type and
of about the same library size. Over all cells of a type, the shuffling would equalise the library
sizes, and the small difference of their means would distinguish the cells.

    without replacement   each training value once: as independent of the test cells as real cells
    with replacement      what a generator samples that learned each distribution exactly

Each is given for all cells, and for each type that has enough of them. The second row is a limit
for generators that learn the genes of each type separately; a lower AUC needs information that is
shared between genes and types.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
from common import (
    LABEL,
    arguments,
    as_cells,
    begin,
    long_records,
    split_cells,
    spread,
    write_results,
)
from quality import DATASETS

from scld.evaluation.cells import OVERALL, Cells, Reference, View
from scld.evaluation.comparison import Comparison
from scld.evaluation.controls import make_control
from scld.evaluation.registry import BY_NAME
from scld.evaluation.subsets import Sizes, common_sizes, split_halves

METRICS = ("c2st_forest", "c2st_linear")  # boosting uses components fitted to the training cells
MOST_CELLS = 2000
DEPTH_GROUPS = 10  # groups of cells of a type, by library size, that genes are shuffled within


def by_depth(cells: Cells) -> Cells:
    """The cells; in place of their type, the code of their type and library size."""
    rows = pd.DataFrame({"type": cells.codes, "library": cells.library})
    rank = rows.groupby("type")["library"].rank(method="first", pct=True).to_numpy()
    groups = np.ceil(rank * DEPTH_GROUPS).astype(int) - 1
    return replace(cells, codes=cells.codes * DEPTH_GROUPS + groups)


def by_type(cells: Cells) -> Cells:
    """The inverse of `by_depth`."""
    return replace(cells, codes=cells.codes // DEPTH_GROUPS)


def with_replacement(train: Cells, sizes: Sizes, rng: np.random.Generator) -> Cells:
    """Each gene of each group sampled with replacement from the training cells of that group."""
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


def scores(
    reference: Reference, real: View, cells: Cells, types: Sequence[str]
) -> Iterator[dict[str, Any]]:
    """The two-sample test of cells against shuffled test cells: of all, and of each type."""
    compared = Comparison(reference, real, reference.view(cells), seed=reference.seed)
    least = max(BY_NAME[name].min_type_cells for name in METRICS)
    groups = {OVERALL: compared}
    groups |= {name: compared.of_type(code) for code, name in enumerate(types)}
    for group, part in groups.items():
        if group == OVERALL or len(part.real) >= least:
            yield {"group": group} | {name: BY_NAME[name].value(part) for name in METRICS}


def benchmark(name: str, seed: int, given: argparse.Namespace) -> list[dict[str, Any]]:
    """One row per way of sampling and group of cells."""
    train, test = split_cells(name, seed, given)
    types, rng = sorted(set(train.obs[LABEL])), np.random.default_rng(seed)
    reference = Reference.of(as_cells(train, types), seed=seed)
    known, held_out = (by_depth(as_cells(part, types)) for part in (train, test))
    number = len(types) * DEPTH_GROUPS
    sizes = common_sizes([held_out.sizes(number) // 2, known.sizes(number)], MOST_CELLS)
    half = held_out[split_halves(held_out.codes, sizes, rng)[0]]
    real = reference.view(by_type(make_control("shuffle", half, sizes, rng)))
    samples = {
        "without replacement": make_control("shuffle", known, sizes, rng),
        "with replacement": with_replacement(known, sizes, rng),
    }
    return [
        {"seed": seed, "dataset": name, "training values": how, **row}
        for how, cells in samples.items()
        for row in scores(reference, real, by_type(cells), types)
    ]


def main() -> None:
    given = begin(arguments(__doc__, DATASETS))
    for name in given.datasets:
        rows: list[dict[str, Any]] = []
        for seed in given.seeds:
            found = benchmark(name, seed, given)
            rows += found
            records = long_records(found, ["dataset", "seed", "training values", "group"])
            write_results("finite", records.rename(columns={"training values": "method"}), given)
        print(spread(rows, ["dataset", "group", "training values"]).to_string(), "\n", flush=True)


if __name__ == "__main__":
    main()

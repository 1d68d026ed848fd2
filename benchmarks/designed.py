"""Designed cells beside real ones: effects, donors and doublets as a method developer sees them.

    python benchmarks/designed.py [--data-dir DIR] [--datasets NAME ...] [--seeds 0]
        [--parts effects null donors doublets power] [--splits 6]
        [--models DIR]

Genes with counts in 2 % of all cells are used, and in each type those are tested that 10 % of its
cells have, the same ones in real and synthetic cells (600 of them, evenly picked, in null and
power; 1,250 in effects). Tests: Wilcoxon's rank-sum test over cells on log-normalised counts, and
PyDESeq2 on pseudobulk. Means over types, groups of donors and seeds.

    effects   real cells are halved within type, donor and condition (no dataset has 3 donors in
              each condition). Half A: log2 ratios of mean counts per 10,000 between conditions,
              each shrunk to its expectation under a normal prior fitted to all tested genes. Those
              of the significant genes (Wilcoxon, BH 5 %), or of all tested genes, are planted
              (scld.Effect, fixed_depth) in as many cells as half B has, from a model fitted on the
              control cells of half B. These, half A, and synthetic cells without effects (negative
              control) are compared with real half B
    null      n against n donors (half of them each), several splits: p-values without an effect, of
              real donors, of cells with permuted donors (negative control), of synthetic cells of
              the fitted donors, and of new donors with the same numbers of cells
    donors    variance between donors of the mean log-normalised counts of each gene, less that from
              sampling cells: half of the real cells of each donor against the other half; fitted
              and new donors against all real cells. And the log shares of types (donor_table)
    doublets  8 % of the cells have another cell added: real cells, held out for this; or
              scld.Artefacts. AUC of a score like Scrublet's (the share of simulated doublets among
              nearest neighbours, on 30 components), and of total counts alone
    power     genes of real cells of half of the donors are thinned (so the truth is exact), and the
              same fold changes planted in new donors of a model of all cells: power and share of
              false discoveries at BH 5 %, n against n donors

It needs PyDESeq2. Without --data-dir, donors and condition are made up: the results then
mean nothing, and only show that the script runs.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd
from anndata import AnnData
from common import arguments, begin, long_records, spread, write_results
from designed_cells import CONDITION, CONTROLS, DONOR, load
from designed_parts import KEYS, PARTS, averaged

DATASETS = ["kang_ifnb_small", "kang_5donors", "covid_pbmc_6donors"]
LEAST_DONORS = 4  # two against two


def possible(part: str, cells: AnnData) -> bool:
    """Whether a dataset has what a part needs."""
    if part == "effects":
        return CONDITION in cells.obs and bool(cells.obs[CONDITION].isin(CONTROLS).any())
    return cells.obs[DONOR].nunique() >= LEAST_DONORS


def benchmark(
    part: str, name: str, cells: AnnData, seed: int, given: argparse.Namespace
) -> pd.DataFrame:
    """Run a part, keep its results, and return its table."""
    started = time.monotonic()
    table = averaged(part, PARTS[part](name, cells.copy(), seed, given)).assign(seed=seed)
    records = long_records(table, ["seed", *KEYS[part]]).assign(part=part, dataset=name)
    write_results("designed", records, given, unit=("part", "dataset", "seed"))
    seconds = time.monotonic() - started
    print(f"{name}, {part}, seed {seed}: {seconds:.0f} s", flush=True)
    return table


def main() -> None:
    choices = [part for part in PARTS if part != "composition"]
    parser = arguments(__doc__, DATASETS, seeds=(0,))
    parser.add_argument("--parts", nargs="+", choices=choices, default=choices)
    groups = "groups of donors in null and power, at most; few make their means uncertain"
    parser.add_argument("--splits", type=int, default=6, help=f"{groups} (default: 6)")
    given = begin(parser)
    with TemporaryDirectory() as folder:  # parts share models
        given.models = given.models or Path(folder)
        run(given)


def run(given: argparse.Namespace) -> None:
    """Run the parts on every dataset, and print a table of each."""
    cells = {name: load(name, given) for name in given.datasets}
    for part in PARTS:
        if part.replace("composition", "donors") not in given.parts:
            continue
        for name in (name for name in given.datasets if possible(part, cells[name])):
            tables = [benchmark(part, name, cells[name], seed, given) for seed in given.seeds]
            shown = spread(pd.concat(tables), KEYS[part])
            print(f"\n{name}, {part}, seeds {given.seeds}\n{shown.to_string()}\n", flush=True)


if __name__ == "__main__":
    main()

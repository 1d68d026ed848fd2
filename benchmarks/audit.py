"""Which donors was a generator fitted on: attacks on synthetic cells, and what lowers their AUC.

    python benchmarks/audit.py [--data-dir DIR] [--datasets NAME ...] [--seeds 0]
        [--variants NAME ...] [--replicates 4] [--results FOLDER]

Each dataset is reduced to a number of cells of each donor and to its 2,000 most variable genes (log
scale) before it is split, so that a fit takes a minute. `scld.audit` then splits the donors
(--replicates) into training, held out and auxiliary, and attacks the cells of a model of the
training donors and of real cells in their place. Other variants than the default, one change of the
settings or of the cells at a time, are audited on the first dataset alone.

Without --data-dir donors are made up: the results then mean nothing, and only show that the script
runs.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
from ablation import DEFAULT, Changes, changed_settings
from anndata import AnnData
from common import LABEL, arguments, begin, load_cells, log_counts, write_results

import scld

DONOR = "donor"
CELLS = {"kang_5donors": 400, "covid_pbmc_6donors": 400, "pbmc_pool": 250}  # of each donor, at most
GENES = 2000
FEW_CELLS = 100  # of each training donor, in a variant
QUICK_DONORS = 6


@dataclass(frozen=True)
class Variant:
    """What differs from the default."""

    changes: Changes = field(default_factory=dict)
    cells: int | None = None  # of each training donor, at most
    released: float = 1.0  # generated cells per training cell
    permuted: bool = False  # donors are: cells of each are random ones
    means: bool = False  # in place of a model: Poisson counts around the mean of each type


SHORT = {"steps": 300, "epochs": 1}
VARIANTS: dict[str, Variant] = {
    DEFAULT: Variant(),
    "donors permuted": Variant(permuted=True),
    "Poisson counts at type means": Variant(means=True),
    "the same, donors permuted": Variant(means=True, permuted=True),
    "weight priors / 3": Variant({"autoencoder": {"decoder_sd": 0.003, "linear_sd": 0.01}}),
    f"{FEW_CELLS} cells of each training donor": Variant(cells=FEW_CELLS),
    "noisier latents (kl_weight x 4)": Variant({"autoencoder": {"kl_weight": 2.0}}),
    "stopped after 300 steps": Variant({"autoencoder_training": SHORT, "denoiser_training": SHORT}),
    "a quarter of the cells released": Variant(released=0.25),
}


def load(name: str, given: argparse.Namespace) -> AnnData:
    """Some cells of each donor, and variable genes."""
    cells = load_cells(name, given)
    if DONOR not in cells.obs:
        cells.obs[DONOR] = [f"donor_{i % QUICK_DONORS}" for i in range(cells.n_obs)]
        print("donor: made up, so the results below mean nothing", flush=True)
    cells = at_most(cells, CELLS.get(name, 400), seed=0)
    log = log_counts(cells)
    variance = np.asarray(log.multiply(log).mean(axis=0)).ravel()
    variance -= np.asarray(log.mean(axis=0)).ravel() ** 2
    genes = np.sort(np.argsort(-variance, kind="stable")[:GENES])
    kept: AnnData = cells[np.asarray(cells.X[:, genes].sum(axis=1)).ravel() > 0, genes].copy()
    return kept


def at_most(cells: AnnData, number: int, seed: int) -> AnnData:
    """At most so many random cells of each donor."""
    shuffled = np.random.default_rng(seed).permutation(cells.n_obs)
    place = cells.obs.iloc[shuffled].groupby(DONOR, observed=True).cumcount()
    some: AnnData = cells[np.sort(shuffled[(place < number).to_numpy()])].copy()
    return some


def generator(
    variant: Variant, seed: int, given: argparse.Namespace
) -> Callable[[AnnData], AnnData]:
    """Cells of the training donors -> synthetic ones, by a model of a variant."""
    config = changed_settings(variant.changes, given)

    def generate(training: AnnData) -> AnnData:
        some = training if variant.cells is None else at_most(training, variant.cells, seed)
        synth = scld.Synthesizer([LABEL], config=config, seed=seed).fit(some, progress=False)
        number = round(variant.released * training.n_obs)
        return synth.sample(number, seed=seed, progress=False)

    return generate


def poisson_cells(training: AnnData) -> AnnData:
    """Cells that hold nothing but the mean of each type, and library sizes."""
    rng, types = np.random.default_rng(0), training.obs[LABEL].to_numpy(str)
    counts = training.X.toarray()
    library, drawn = counts.sum(axis=1), np.zeros_like(counts)
    for kind in np.unique(types):
        rows = types == kind
        proportions = counts[rows].sum(axis=0) / counts[rows].sum()
        drawn[rows] = rng.poisson(np.outer(rng.permutation(library[rows]), proportions))
    drawn[drawn.sum(axis=1) == 0, 0] = 1  # no real cell is empty
    return AnnData(sp.csr_matrix(drawn), obs=training.obs, var=training.var)


def options_of(name: str, seed: int, given: argparse.Namespace) -> dict[str, Any]:
    """The keywords of `scld.audit` for a variant: settings alone, or a generator."""
    variant = VARIANTS[name]
    if variant.means:
        return {"generate": poisson_cells}
    if replace(variant, changes={}, permuted=False) == Variant():
        return {"config": changed_settings(variant.changes, given)}
    return {"generate": generator(variant, seed, given)}


def benchmark(
    name: str, cells: AnnData, variant: str, seed: int, given: argparse.Namespace
) -> None:
    """Audit one variant, print it and keep the results."""
    started = time.monotonic()
    if VARIANTS[variant].permuted:
        cells = cells.copy()
        cells.obs[DONOR] = scld.data.permuted(cells.obs, DONOR, seed=seed)
    options = {"replicates": given.replicates, "seed": seed, "progress": False}
    found = scld.audit(cells, DONOR, LABEL, **options, **options_of(variant, seed, given))
    seconds = time.monotonic() - started
    size = f"{found.donors} donors, {cells.n_obs:,} cells x {cells.n_vars:,} genes"
    print(f"\n{name}, seed {seed}, {variant}: {size}, {seconds:.0f} s\n{found}\n", flush=True)
    about = {"dataset": name, "seed": seed, "method": variant}
    records = found.table.assign(**about, donors=found.donors, cells=cells.n_obs)
    write_results("audit", pd.DataFrame(records), given, unit=("dataset", "method", "seed"))


def main() -> None:
    parser = arguments(__doc__, list(CELLS), seeds=(0,))
    parser.add_argument("--variants", nargs="+", choices=list(VARIANTS), default=list(VARIANTS))
    text = "splits of the donors, each with a fit (default: 4)"
    parser.add_argument("--replicates", type=int, default=4, help=text)
    given = begin(parser)
    if given.quick:
        given.variants, given.replicates = [DEFAULT, given.variants[-1]], 1
    datasets = {name: load(name, given) for name in given.datasets}
    for seed in given.seeds:
        if DEFAULT in given.variants:
            for name, cells in datasets.items():
                benchmark(name, cells, DEFAULT, seed, given)
        first = given.datasets[0]
        for variant in (variant for variant in given.variants if variant != DEFAULT):
            benchmark(first, datasets[first], variant, seed, given)


if __name__ == "__main__":
    main()

"""Two labels at once: are cells of the type and of the donor asked for, do open labels follow training, and can a missing combination be made?

    python benchmarks/donors.py --data-dir DIR [--sets kang_5donors] [--seeds 0 1 2] [--parts fixed open left_out]

Five donors, labels cell_type and donor, split 70/30 within type. Mean ± sd over seeds, each a split and a fit of its own.

    fixed       both labels fixed as in the test cells: how many cells get the right type, the right donor, and both from a classifier taught on the
                training cells (logistic regression, 2,000 standardised genes); beside real test cells and the trivial fakes, which are made for each
                combination from the very cells that the classifier was taught on
    open        one label fixed: chi-square of the other's frequencies against those in training given the first; beside real test cells
    left_out    all cells of one donor's type left out of training, then asked for: distance to half of them (W2 in 30 components; root mean square
                error of the means of the type's 50 markers, and of all genes), in equal numbers; beside the other half, the same type of the other
                donors, and Poisson cells made from these
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData
from common import LABEL, arguments, begin, fitted, judged, log_counts, spread

import scld
from scld import metrics
from scld.judge import BASELINES

DONOR = "donor"
LABELS = [LABEL, DONOR]
ASKED = 2000  # cells with one label open
MISSING = ("NK cells:p1256", "CD14+ Monocytes:p1016")
Call = Callable[[AnnData], dict[str, np.ndarray]]


def witness(train: AnnData, seed: int) -> Call:
    """A classifier of each label, taught on real cells."""
    log = log_counts(train)
    space = metrics.Space.fit(log, seed=seed)
    shown = space.standardise(space.dense(log))
    taught = {label: metrics.linear(seed).fit(shown, train.obs[label].astype(str)) for label in LABELS}
    return lambda cells: {label: one.predict(space.standardise(space.dense(log_counts(cells)))) for label, one in taught.items()}


def fakes(train: AnnData, wanted: pd.DataFrame, seed: int) -> Iterator[tuple[str, AnnData]]:
    """The trivial fakes, each combination of labels made from its own training cells."""
    counts, known = sp.csr_matrix(train.X), train.obs[LABELS].astype(str).agg("|".join, axis=1).to_numpy()
    groups = wanted.groupby(wanted[LABELS].astype(str).agg("|".join, axis=1))
    for name, fake in BASELINES.items():
        rng = np.random.default_rng(seed)
        made = sp.vstack([fake(sp.csr_matrix(counts[known == combination]), len(rows), rng) for combination, rows in groups], format="csr")
        yield name, AnnData(made, obs=pd.concat([rows for _, rows in groups]), var=train.var)


def fixed(train: AnnData, test: AnnData, synth: scld.Synthesizer, seed: int) -> Iterator[dict[str, Any]]:
    """One row a set of cells: how many are called right."""
    call = witness(train, seed)
    made = synth.sample(obs=test.obs[LABELS], seed=seed, progress=False)
    for name, cells in [("real test cells", test), ("SCLD", made), *fakes(train, test.obs[LABELS], seed)]:
        right = {label: answers == cells.obs[label].astype(str).to_numpy() for label, answers in call(cells).items()}
        yield {"seed": seed, "cells": name, "right type": right[LABEL].mean(), "right donor": right[DONOR].mean(), "both": (right[LABEL] & right[DONOR]).mean()}


def open_label(train: AnnData, test: AnnData, synth: scld.Synthesizer, seed: int) -> Iterator[dict[str, Any]]:
    """One row a category fixed: how the other label's frequencies compare with training."""
    for label, other in (LABELS, LABELS[::-1]):
        for number, category in enumerate(sorted(set(train.obs[label]))):
            made = synth.sample(ASKED, where={label: category}, seed=100 * seed + number, progress=False)  # one seed would draw alike for all
            shares = train.obs[other][train.obs[label] == category].astype(str).value_counts(normalize=True).sort_index()
            real = test.obs[other][test.obs[label] == category]
            yield {"seed": seed, "fixed": category, "open": other, **versus(made.obs[other], shares, "SCLD"), **versus(real, shares, "real test cells")}


def versus(found: pd.Series, shares: pd.Series, who: str) -> dict[str, float]:
    """Total variation distance to shares, and the chi-square test's p."""
    from scipy.stats import chisquare

    counts = found.astype(str).value_counts().reindex(shares.index, fill_value=0)
    p = chisquare(counts, shares * len(found)).pvalue
    return {f"{who}, distance": metrics.composition_distance(shares.to_numpy(), counts.to_numpy()), f"{who}, p": float(p)}


def left_out(name: str, combination: str, seed: int, given: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """One row a set of cells: how far from half of the real ones."""
    kind, donor = combination.split(":")
    cells = scld.data.read(given.data_dir / f"{name}.h5ad")
    of_type, missing = (cells.obs[LABEL] == kind).to_numpy(), ((cells.obs[LABEL] == kind) & (cells.obs[DONOR] == donor)).to_numpy()
    train, rng = cells[~missing].copy(), np.random.default_rng(seed)
    donors = cells.obs[DONOR].astype(str).to_numpy()
    others = {other: cells[of_type & (donors == other)] for other in np.unique(donors[of_type & ~missing])}
    n = min(int(missing.sum()) // 2, *(part.n_obs for part in others.values()))
    real = rng.permutation(np.flatnonzero(missing))
    synth = fitted(train, LABELS, seed, given, f"{name}-without-{kind.replace(' ', '-')}-{donor}")
    made = synth.sample(n, where={LABEL: kind, DONOR: donor}, unseen=True, seed=seed, progress=False)
    pooled = cells[of_type & ~missing]
    sets = {"real floor": cells[real[n : 2 * n]], "SCLD": made, "other donors, pooled": some(pooled, n, rng)}
    sets |= {f"donor {other}": some(part, n, rng) for other, part in others.items()}
    sets["poisson of other donors"] = AnnData(metrics.poisson(sp.csr_matrix(pooled.X), n, rng), var=cells.var)
    score = distances(train, kind, cells[real[:n]], seed)
    for who, found in sets.items():
        yield {"seed": seed, "missing": f"{kind}, {donor}", "cells": who, **score(found)}


def some(cells: AnnData, n: int, rng: np.random.Generator) -> AnnData:
    return cells[rng.choice(cells.n_obs, n, replace=False)]


def distances(train: AnnData, kind: str, real: AnnData, seed: int) -> Callable[[AnnData], dict[str, float]]:
    """How far cells are from some real ones."""
    types = sorted(set(train.obs[LABEL]))
    known = judged(train, types)
    space = metrics.Space.fit(known.log, seed=seed)
    markers = metrics.top_markers(metrics.t_statistics(known.log, known.codes, np.array([types.index(kind)])))[0]
    log = log_counts(real)
    place, means = space.project(space.dense(log)), metrics.gene_moments(log)["mean"]

    def score(cells: AnnData) -> dict[str, float]:
        log = log_counts(cells)
        found = metrics.gene_moments(log)["mean"]
        w2 = metrics.wasserstein(place, space.project(space.dense(log)))
        return {"W2": w2, "marker means": metrics.rmse(means[markers], found[markers]), "gene means": metrics.rmse(means, found)}

    return score


def main() -> None:
    parser = arguments(__doc__, ["kang_5donors"])
    parser.add_argument("--parts", nargs="+", choices=["fixed", "open", "left_out"], default=["fixed", "open", "left_out"])
    parser.add_argument("--missing", nargs="+", default=MISSING, help="combinations to leave out, TYPE:DONOR")
    given = begin(parser)
    for name in given.sets:
        rows: dict[str, list[dict[str, Any]]] = {part: [] for part in given.parts}
        for seed in given.seeds:
            if set(given.parts) & {"fixed", "open"}:
                train, test = scld.data.split(scld.data.read(given.data_dir / f"{name}.h5ad"), LABEL, seed=seed)
                synth = fitted(train, LABELS, seed, given, name)
            for part, run in (("fixed", fixed), ("open", open_label)):
                if part in rows:
                    rows[part] += run(train, test, synth, seed)
            if "left_out" in rows:
                rows["left_out"] += [row for missing in given.missing for row in left_out(name, missing, seed, given)]
        by = {"fixed": ["cells"], "open": ["fixed", "open"], "left_out": ["missing", "cells"]}
        for part, found in rows.items():
            print(f"\n{name}, {part}, seeds {given.seeds}\n{spread(found, by[part]).to_string()}", flush=True)


if __name__ == "__main__":
    main()

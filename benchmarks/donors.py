"""Two labels at once: are cells of the type and of the donor that were asked for?

    python benchmarks/donors.py [--data-dir DIR] [--datasets NAME ...] [--seeds 0 1 2]
        [--parts fixed unspecified left_out]

Five donors, labels cell_type and donor, split 70/30 within type. Mean ± sd over seeds; each seed
has its own split and its own fit. Parts:

    fixed        both labels fixed as in the test cells: share of cells with the right type, donor,
                 and both, by classifiers trained on the training cells (logistic regression, 2,000
                 standardised genes). Beside them test cells and the negative controls, which are
                 made for each combination of labels from the cells that trained the classifiers
    unspecified  one label fixed: frequencies of the other one, against those in training given the
                 first (total variation distance, p of a chi-square test); beside real test cells
    left_out     all cells of one type of one donor left out of training, then generated: distance
                 to half of them (W2 on 30 components; root mean square error of the means of 50
                 markers of the type, and of all genes), in equal numbers. Beside them the other
                 half, the type in the other donors, and Poisson cells made from these

Without --data-dir the donors are made up at random: the results then mean nothing, and only show
that the script runs.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData
from common import (
    LABEL,
    SHIPPED,
    arguments,
    as_cells,
    begin,
    fitted,
    load_cells,
    log_counts,
    long_records,
    split_cells,
    spread,
    write_results,
)

import scld
from scld.evaluation import metrics
from scld.evaluation.cells import OVERALL
from scld.evaluation.controls import BASELINE, CONTROLS, poisson

DONOR = "donor"
LABELS = [LABEL, DONOR]
SCLD, TEST = "SCLD", "real test cells"
SAMPLED = 2000  # cells with one label unspecified
LEFT_OUT = {  # dataset -> combinations that are left out, one after another
    "kang_5donors": ["NK cells:p1256", "CD14+ Monocytes:p1016"],
    SHIPPED: ["naive B cell:A"],
}
Rows = Iterator[dict[str, Any]]
Predict = Callable[[AnnData], dict[str, np.ndarray]]  # cells -> label -> predicted categories


def label_classifiers(train: AnnData, seed: int) -> Predict:
    """One classifier per label, trained on real cells."""
    space = metrics.Space.fit(log_counts(train), seed=seed)

    def features(cells: AnnData) -> np.ndarray:
        return space.standardise(space.dense(log_counts(cells)))

    of_train = features(train)
    models = {
        label: metrics.linear(seed).fit(of_train, train.obs[label].astype(str)) for label in LABELS
    }
    return lambda cells: {label: model.predict(features(cells)) for label, model in models.items()}


def combined(obs: pd.DataFrame) -> pd.Series:
    """Both labels of each cell as one text."""
    return obs[LABEL].astype(str) + "|" + obs[DONOR].astype(str)


def negative_controls(
    train: AnnData, obs: pd.DataFrame, seed: int
) -> Iterator[tuple[str, AnnData]]:
    """The negative controls, each combination of labels made from its own training cells."""
    counts, combinations = sp.csr_matrix(train.X), combined(train.obs).to_numpy()
    groups = {key: rows for key, rows in obs.groupby(combined(obs)) if key in combinations}
    for name, control in CONTROLS.items():
        rng = np.random.default_rng(seed)
        parts = [
            control(sp.csr_matrix(counts[combinations == key]), len(rows), rng)
            for key, rows in groups.items()
        ]
        table = pd.concat(list(groups.values()))
        yield name, AnnData(sp.vstack(parts, format="csr"), obs=table, var=train.var)


def fixed(train: AnnData, test: AnnData, synth: scld.Synthesizer, seed: int) -> Rows:
    """One row per dataset: shares of cells with the right labels."""
    predict, wanted = label_classifiers(train, seed), test.obs[LABELS]
    synthetic = synth.sample(obs=wanted, seed=seed, progress=False)
    datasets = {TEST: test, SCLD: synthetic, **dict(negative_controls(train, wanted, seed))}
    for name, cells in datasets.items():
        predicted = predict(cells)
        right = {label: predicted[label] == cells.obs[label].to_numpy(str) for label in LABELS}
        yield {
            "seed": seed,
            "dataset": name,
            "right type": right[LABEL].mean(),
            "right donor": right[DONOR].mean(),
            "both": (right[LABEL] & right[DONOR]).mean(),
        }


def unspecified(train: AnnData, test: AnnData, synth: scld.Synthesizer, seed: int) -> Rows:
    """One row per fixed category: the frequencies of the other label beside those in training."""
    for label, other in (LABELS, LABELS[::-1]):
        for number, category in enumerate(sorted(set(train.obs[label]))):
            own_seed = 100 * seed + number  # with one seed all would have the same random numbers
            where = {label: category}
            cells = synth.sample(SAMPLED, where=where, seed=own_seed, progress=False)
            training = train.obs[other][train.obs[label] == category]
            real = test.obs[other][test.obs[label] == category]
            yield {
                "seed": seed,
                "fixed": category,
                "unspecified": other,
                **against_training(cells.obs[other], training, SCLD),
                **against_training(real, training, TEST),
            }


def against_training(found: pd.Series, training: pd.Series, name: str) -> dict[str, float]:
    """Total variation distance to the frequencies in training, and p of a chi-square test."""
    from scipy.stats import chisquare

    frequencies = training.astype(str).value_counts(normalize=True).sort_index()
    cells = found.astype(str).value_counts().reindex(frequencies.index, fill_value=0)
    p = chisquare(cells, frequencies * cells.sum()).pvalue
    distance = metrics.composition_distance(frequencies.to_numpy(), cells.to_numpy())
    return {f"{name}, distance": distance, f"{name}, p": float(p)}


def left_out(name: str, combination: str, seed: int, given: argparse.Namespace) -> Rows:
    """One row per dataset: distances to half of the real cells that were left out."""
    kind, donor = combination.split(":")
    cells, rng = load_cells(name, given, [DONOR]), np.random.default_rng(seed)
    of_type = (cells.obs[LABEL] == kind).to_numpy()
    donors = cells.obs[DONOR].to_numpy(str)
    missing = of_type & (donors == donor)
    train, pooled = cells[~missing].copy(), cells[of_type & ~missing]
    by_donor = {
        f"donor {other}": cells[of_type & (donors == other)]
        for other in np.unique(donors[of_type & ~missing])
    }
    n = min(int(missing.sum()) // 2, *(part.n_obs for part in by_donor.values()))
    real = rng.permutation(np.flatnonzero(missing))
    file = f"{name}-without-{kind.replace(' ', '-')}-{donor}"
    synth = fitted(train, LABELS, seed, given, file)
    where, options = {LABEL: kind, DONOR: donor}, {"seed": seed, "progress": False}
    datasets = {
        BASELINE: cells[real[n : 2 * n]],
        SCLD: synth.sample(n, where=where, unseen=True, **options),
        "other donors, pooled": sampled(pooled, n, rng),
    }
    datasets |= {key: sampled(part, n, rng) for key, part in by_donor.items()}
    of_pooled = poisson(sp.csr_matrix(pooled.X), n, rng)
    datasets["poisson of other donors"] = AnnData(of_pooled, var=cells.var)
    score = distances(train, kind, cells[real[:n]], seed)
    for key, dataset in datasets.items():
        yield {"seed": seed, "left out": f"{kind}, {donor}", "dataset": key, **score(dataset)}


def sampled(cells: AnnData, n: int, rng: np.random.Generator) -> AnnData:
    """Some of the cells."""
    some: AnnData = cells[rng.choice(cells.n_obs, n, replace=False)]
    return some


def distances(
    train: AnnData, kind: str, real: AnnData, seed: int
) -> Callable[[AnnData], dict[str, float]]:
    """A function that scores cells of a type by their distances to real ones."""
    types = sorted(set(train.obs[LABEL]))
    known = as_cells(train, types)
    space = metrics.Space.fit(known.log, seed=seed)
    t = metrics.t_statistics(known.log, known.codes, np.array([types.index(kind)]))
    markers, log = metrics.top_markers(t)[0], log_counts(real)
    components, means = space.project(space.dense(log)), metrics.gene_moments(log)["mean"]

    def score(cells: AnnData) -> dict[str, float]:
        log = log_counts(cells)
        own_means = metrics.gene_moments(log)["mean"]
        return {
            "W2": metrics.wasserstein(components, space.project(space.dense(log))),
            "marker means": metrics.rmse(means[markers], own_means[markers]),
            "gene means": metrics.rmse(means, own_means),
        }

    return score


PARTS = {  # name -> columns that are no scores
    "fixed": ["dataset"],
    "unspecified": ["fixed", "unspecified"],
    "left_out": ["left out", "dataset"],
}


def benchmark(
    name: str, seed: int, combinations: Sequence[str], given: argparse.Namespace
) -> dict[str, list[dict[str, Any]]]:
    """Part -> its rows, of one seed."""
    rows: dict[str, list[dict[str, Any]]] = {}
    if {"fixed", "unspecified"} & set(given.parts):
        train, test = split_cells(name, seed, given, [DONOR])
        synth = fitted(train, LABELS, seed, given, f"{name}-donors")
    if "fixed" in given.parts:
        rows["fixed"] = list(fixed(train, test, synth, seed))
    if "unspecified" in given.parts:
        rows["unspecified"] = list(unspecified(train, test, synth, seed))
    if "left_out" in given.parts:
        found = [left_out(name, combination, seed, given) for combination in combinations]
        rows["left_out"] = [row for part in found for row in part]
    return rows


def records(part: str, rows: list[dict[str, Any]], name: str) -> pd.DataFrame:
    """The rows of a part in long format; what is fixed or left out is the group."""
    long = long_records(rows, ["seed", *PARTS[part]])
    if part == "unspecified":
        long = long.assign(dataset=SCLD)
        real = long["metric"].str.startswith(TEST)
        long.loc[real, "dataset"] = TEST
        long["metric"] = long["metric"].str.rsplit(", ", n=1).str[1]
    columns = {"dataset": "method", "fixed": "group", "left out": "group"}
    long = long.rename(columns=columns).assign(part=part, dataset=name)
    return long if "group" in long else long.assign(group=OVERALL)


def main() -> None:
    parser = arguments(__doc__, ["kang_5donors"])
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--combinations", nargs="+", help="left out one by one, as TYPE:DONOR")
    given = begin(parser)
    for name in given.datasets:
        combinations = given.combinations or LEFT_OUT.get(name)
        if not combinations:
            parser.error(f"--combinations: name the combinations of {name} to leave out")
        by_seed = []
        for seed in given.seeds:
            by_seed.append(benchmark(name, seed, combinations, given))
            for part, rows in by_seed[-1].items():
                unit = ("part", "dataset", "seed")
                write_results("donors", records(part, rows, name), given, unit)
        for part in given.parts:
            rows = [row for of_seed in by_seed for row in of_seed[part]]
            table = spread(rows, PARTS[part])
            print(f"\n{name}, {part}, seeds {given.seeds}\n{table.to_string()}", flush=True)


if __name__ == "__main__":
    main()

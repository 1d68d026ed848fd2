"""Do synthetic cells help to find rare types? Recall after oversampling types with few cells.

    python benchmarks/rare.py [--data-dir DIR] [--datasets NAME ...] [--left 10 25 50] [--to 200]
        [--seeds 0 1 2]

For each seed a dataset is split 70/30 within type. Of some types, each similar to another one,
only so many training cells are left. Then every type with fewer than `--to` cells is oversampled to
that number: by copies (random oversampling), by SMOTE on the features of the classifier, by Poisson
cells of each type, and by `Synthesizer.augment`, fitted on what is left. Beside these: no
oversampling, class weights, and as an upper limit all training cells.

The classifiers are logistic regression on 2,000 standardised log-normalised genes and a random
forest on 30 components of these. Genes and components are fitted on what is left; both classifiers
are tested on the real test cells. (A forest on the genes themselves hardly finds these types even
when trained on all training cells.) Precision and F1 are given beside recall, since predicting a
rare type everywhere has a recall of 1. Mean ± sd over seeds. Needs imbalanced-learn
(`pip install -c constraints.txt '.[bench]'`).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData
from common import (
    LABEL,
    SHIPPED,
    arguments,
    begin,
    fitted,
    log_counts,
    long_records,
    split_cells,
    spread,
    write_results,
)

from scld.evaluation import metrics
from scld.evaluation.controls import poisson

TYPES = {  # dataset -> types of which few cells are left
    "teaseq_pbmc": ["T.CD8.Naive", "NK", "B.Activated"],
    "pbmc3k": ["CD8 T", "FCGR3A+ Mono"],
    SHIPPED: ["naive CD8 T cell", "activated B cell"],
}
SCORES = ("recall", "precision", "f1")
CLASS_WEIGHTS = "class weights"
Features = Callable[[AnnData], np.ndarray]  # cells -> [cells, features]


class Training(NamedTuple):
    """What a classifier is trained on."""

    features: np.ndarray  # [cells, features]
    types: np.ndarray  # [cells]

    @classmethod
    def of(cls, cells: AnnData, features: Features) -> Training:
        """The features and types of some cells."""
        return cls(features(cells), cells.obs[LABEL].to_numpy(str))


def logistic(seed: int, weights: str | None) -> Any:
    """Logistic regression, for standardised genes."""
    from sklearn.linear_model import LogisticRegression

    options = {"C": 0.01, "max_iter": 300, "tol": 1e-3}
    return LogisticRegression(class_weight=weights, random_state=seed, **options)


def forest(seed: int, weights: str | None) -> Any:
    """A random forest, for components."""
    from sklearn.ensemble import RandomForestClassifier

    return RandomForestClassifier(200, n_jobs=-1, class_weight=weights, random_state=seed)


def reduced(train: AnnData, types: Sequence[str], cells: int, seed: int) -> AnnData:
    """Training cells with only so many of each of some types."""
    rng, labels = np.random.default_rng(seed), train.obs[LABEL].to_numpy(str)
    dropped = [rng.permutation(np.flatnonzero(labels == kind))[cells:] for kind in types]
    kept = np.setdiff1d(np.arange(train.n_obs), np.concatenate(dropped))
    return train[kept].copy()


def oversampled(
    real: Training, cells: AnnData, features: Features, to: int, seed: int
) -> Iterator[tuple[str, Training]]:
    """Every type oversampled to at least ``to`` cells, by methods other than SCLD."""
    from imblearn.over_sampling import SMOTE, RandomOverSampler

    types, sizes = np.unique(real.types, return_counts=True)
    wanted = {str(kind): max(int(n), to) for kind, n in zip(types, sizes, strict=True)}
    options = {"sampling_strategy": wanted, "random_state": seed}
    copies, neighbours = RandomOverSampler(**options), min(5, int(sizes.min()) - 1)
    smote = SMOTE(k_neighbors=neighbours, **options)
    yield "oversampling", Training(*copies.fit_resample(*real))
    yield "SMOTE", Training(*smote.fit_resample(*real))
    rng, counts = np.random.default_rng(seed), sp.csr_matrix(cells.X)
    missing = {k: wanted[k] - n for k, n in zip(types, sizes, strict=True) if n < wanted[k]}
    parts = [poisson(counts[real.types == kind], n, rng) for kind, n in missing.items()]
    added = features(AnnData(sp.vstack(parts, format="csr"), var=cells.var))
    added_types = np.repeat(list(missing), list(missing.values()))
    all_features = np.concatenate([real.features, added])
    yield "poisson", Training(all_features, np.concatenate([real.types, added_types]))


def training_sets(
    left: AnnData, augmented: AnnData, train: AnnData, features: Features, to: int, seed: int
) -> Iterator[tuple[str, Training]]:
    """What the classifiers are trained on, by method."""
    real = Training.of(left, features)
    yield "real only", real
    yield CLASS_WEIGHTS, real
    yield from oversampled(real, left, features, to, seed)
    yield "augment", Training.of(augmented, features)
    yield "all real cells", Training.of(train, features)


def scores(
    truth: np.ndarray, predicted: np.ndarray, types: Sequence[str]
) -> Iterator[dict[str, Any]]:
    """Scores of each rare type, their means, and the means over all types."""
    from sklearn.metrics import precision_recall_fscore_support

    groups = {kind: [kind] for kind in types}
    groups |= {"mean of these": list(types), "mean of all types": sorted(set(truth))}
    for name, labels in groups.items():
        precision, recall, f1, _ = precision_recall_fscore_support(
            truth, predicted, labels=labels, average="macro", zero_division=0
        )
        yield {"type": name, "recall": recall, "precision": precision, "f1": f1}


def benchmark(
    name: str, number: int, seed: int, types: Sequence[str], given: argparse.Namespace
) -> Iterator[dict[str, Any]]:
    """One row per type, classifier and method."""
    train, test = split_cells(name, seed, given)
    left = reduced(train, types, number, seed)
    space = metrics.Space.fit(log_counts(left), seed=seed)

    def genes(cells: AnnData) -> np.ndarray:
        return space.standardise(space.dense(log_counts(cells)))

    def components(cells: AnnData) -> np.ndarray:
        return space.project(space.dense(log_counts(cells)))

    synth = fitted(left, [LABEL], seed, given, f"{name}-{number}-left")
    augmented = synth.augment(left, LABEL, to=given.to, seed=seed, progress=False)
    truth = test.obs[LABEL].to_numpy(str)
    for classifier, features in ((logistic, genes), (forest, components)):
        of_test = features(test)
        sets = training_sets(left, augmented, train, features, given.to, seed)
        for method, training in sets:
            model = classifier(seed, "balanced" if method == CLASS_WEIGHTS else None)
            predicted = model.fit(*training).predict(of_test)
            about = {"seed": seed, "left": number, "classifier": classifier.__name__}
            for row in scores(truth, predicted, types):
                yield about | {"method": method, **row}


def print_tables(name: str, rows: pd.DataFrame, given: argparse.Namespace) -> None:
    """One table per score, with one column per method."""
    by = ["classifier", "type", "left"]
    table, methods = spread(rows, [*by, "method"]), list(rows["method"].unique())
    for score in SCORES:
        wide = table[score].unstack("method")[methods].sort_index(level=by)
        print(f"\n{name}, {score}, oversampled to {given.to}, seeds {given.seeds}")
        print(wide.to_string(), flush=True)


def main() -> None:
    parser = arguments(__doc__, ["teaseq_pbmc", "pbmc3k"])
    parser.add_argument("--types", nargs="+", help="of which few cells are left, all at once")
    parser.add_argument("--left", nargs="+", type=int, default=[10, 25, 50])
    parser.add_argument("--to", type=int, default=200)
    given = begin(parser)
    if given.quick:
        given.left, given.to = given.left[:1], 60
    for name in given.datasets:
        types = given.types or TYPES.get(name)
        if not types:
            parser.error(f"--types: name the types of {name} of which few cells are left")
        rows: list[dict[str, Any]] = []
        for number in given.left:
            for seed in given.seeds:
                found = list(benchmark(name, number, seed, types, given))
                rows += found
                records = long_records(found, ["left", "seed", "classifier", "method", "type"])
                records = records.rename(columns={"type": "group"}).assign(dataset=name)
                write_results("rare", records, given, ("dataset", "left", "seed"))
        print_tables(name, pd.DataFrame(rows), given)


if __name__ == "__main__":
    main()

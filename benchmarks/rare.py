"""Do synthetic cells help to find rare types? Recall of types of which few cells are left, by classifiers taught on topped-up training cells.

    python benchmarks/rare.py --data-dir DIR [--sets teaseq_pbmc pbmc3k] [--left 10 25 50] [--to 200] [--seeds 0 1 2]

For each seed a set is split 70/30 within type; of some types, each with near neighbours, so many training cells are left. Then every type with
fewer than `--to` cells is topped up to that number: by copies (random oversampling), by SMOTE on the classifiers' features, by per-type Poisson cells,
and by `Synthesizer.augment`, fitted on what is left. Beside these: nothing done, class weights, and as the ceiling all training cells. The
classifiers are logistic regression on 2,000 standardised log-normalised genes and a random forest on 30 components of these, both chosen on what
is left; they are tested on the real test cells. (A forest on the genes themselves hardly finds these types even when it is taught on all training cells.)
Precision and F1 stand beside recall, since calling everything rare has a recall of 1. Mean ± sd over seeds.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData
from common import LABEL, arguments, begin, fitted, log_counts, spread

import scld
from scld import metrics

TYPES = {"teaseq_pbmc": ["T.CD8.Naive", "NK", "B.Activated"], "pbmc3k": ["CD8 T", "FCGR3A+ Mono"]}
FIGURES = ("recall", "precision", "f1")
Features = Callable[[AnnData], np.ndarray]  # cells -> [cells, genes]
Lesson = tuple[np.ndarray, np.ndarray]  # features, types [cells]


def logistic(seed: int, weights: str | None) -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=0.01, max_iter=300, tol=1e-3, class_weight=weights, random_state=seed)


def forest(seed: int, weights: str | None) -> Any:
    from sklearn.ensemble import RandomForestClassifier

    return RandomForestClassifier(200, n_jobs=-1, class_weight=weights, random_state=seed)


def leave(train: AnnData, types: list[str], cells: int, seed: int) -> AnnData:
    """Training cells with only so many left of each of some types."""
    rng, labels = np.random.default_rng(seed), train.obs[LABEL].to_numpy()
    dropped = [rng.permutation(np.flatnonzero(labels == kind))[cells:] for kind in types]
    return train[np.setdiff1d(np.arange(train.n_obs), np.concatenate(dropped))].copy()


def topped_up(lesson: Lesson, left: AnnData, features: Features, to: int, seed: int) -> Iterator[tuple[str, Lesson]]:
    """The features with each type brought up to ``to`` cells by what does not know SCLD."""
    from imblearn.over_sampling import SMOTE, RandomOverSampler

    kinds, sizes = np.unique(lesson[1], return_counts=True)
    wanted = {str(kind): max(int(n), to) for kind, n in zip(kinds, sizes, strict=True)}
    yield "oversampling", RandomOverSampler(sampling_strategy=wanted, random_state=seed).fit_resample(*lesson)
    yield "SMOTE", SMOTE(sampling_strategy=wanted, k_neighbors=min(5, int(sizes.min()) - 1), random_state=seed).fit_resample(*lesson)
    rng, counts = np.random.default_rng(seed), sp.csr_matrix(left.X)
    missing = {kind: wanted[kind] - int(n) for kind, n in zip(kinds, sizes, strict=True) if wanted[kind] > n}
    made = sp.vstack([metrics.poisson(counts[lesson[1] == kind], n, rng) for kind, n in missing.items()], format="csr")
    extra = features(AnnData(made, var=left.var))
    yield "poisson", (np.concatenate([lesson[0], extra]), np.concatenate([lesson[1], np.repeat(list(missing), list(missing.values()))]))


def lessons(left: AnnData, augmented: AnnData, train: AnnData, features: Features, to: int, seed: int) -> Iterator[tuple[str, Lesson]]:
    """What a classifier is taught on."""

    def lesson(cells: AnnData) -> Lesson:
        return features(cells), cells.obs[LABEL].astype(str).to_numpy()

    real = lesson(left)
    yield "real only", real
    yield "class weights", real
    yield from topped_up(real, left, features, to, seed)
    yield "augment", lesson(augmented)
    yield "all real cells", lesson(train)


def scores(truth: np.ndarray, answers: np.ndarray, types: list[str]) -> Iterator[dict[str, Any]]:
    """Recall, precision and F1 of each rare type, their means, and those over all types."""
    from sklearn.metrics import precision_recall_fscore_support

    for kind, among in {**{kind: [kind] for kind in types}, "mean of these": types, "mean of all types": sorted(set(truth))}.items():
        precision, recall, f1, _ = precision_recall_fscore_support(truth, answers, labels=among, average="macro", zero_division=0)
        yield {"type": kind, "recall": recall, "precision": precision, "f1": f1}


def benchmark(name: str, left: int, seed: int, given: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """One row a type, classifier and way of teaching."""
    train, test = scld.data.split(scld.data.read(given.data_dir / f"{name}.h5ad"), LABEL, seed=seed)
    types = given.types or TYPES[name]
    rest = leave(train, types, left, seed)
    space = metrics.Space.fit(log_counts(rest), seed=seed)

    def genes(cells: AnnData) -> np.ndarray:
        return space.standardise(space.dense(log_counts(cells)))

    def components(cells: AnnData) -> np.ndarray:
        return space.project(space.dense(log_counts(cells)))

    truth = test.obs[LABEL].astype(str).to_numpy()
    augmented = fitted(rest, [LABEL], seed, given, f"{name}-{left}-left").augment(rest, LABEL, to=given.to, seed=seed, progress=False)
    for classifier, features in ((logistic, genes), (forest, components)):
        for way, lesson in lessons(rest, augmented, train, features, given.to, seed):
            answers = classifier(seed, "balanced" if way == "class weights" else None).fit(*lesson).predict(features(test))
            for row in scores(truth, answers, types):
                yield {"seed": seed, "left": left, "classifier": classifier.__name__, "taught on": way, **row}


def main() -> None:
    parser = arguments(__doc__, list(TYPES))
    parser.add_argument("--types", nargs="+", help="of which few cells are left, all at once; as in TYPES of this script if not given")
    parser.add_argument("--left", nargs="+", type=int, default=[10, 25, 50])
    parser.add_argument("--to", type=int, default=200)
    given = begin(parser)
    for name in given.sets:
        rows = pd.DataFrame([row for left in given.left for seed in given.seeds for row in benchmark(name, left, seed, given)])
        table = spread(rows, ["classifier", "type", "left", "taught on"])
        ways = list(rows["taught on"].unique())
        for figure in FIGURES:
            wide = table[figure].unstack("taught on")[ways].sort_index(level=["classifier", "type", "left"])
            print(f"\n{name}, {figure}, topped up to {given.to}, seeds {given.seeds}\n{wide.to_string()}", flush=True)


if __name__ == "__main__":
    main()

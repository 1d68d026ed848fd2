"""The classifier two-sample test: how well a classifier tells real cells from synthetic ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

Classifier = Callable[[int], Any]  # seed -> a scikit-learn classifier


def forest(seed: int) -> Any:
    """A random forest, for variable genes (Breiman 2001, Machine Learning 45:5)."""
    from sklearn.ensemble import RandomForestClassifier

    return RandomForestClassifier(50, min_samples_leaf=5, n_jobs=-1, random_state=seed)


def linear(seed: int) -> Any:
    """Logistic regression, for standardised genes: strongly regularised, since genes are about as many as cells."""
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=1e-3, max_iter=300, tol=1e-3, random_state=seed)


def boosting(seed: int) -> Any:
    """Gradient-boosted trees, for principal components plus log depth and log genes detected."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    return HistGradientBoostingClassifier(max_iter=60, max_leaf_nodes=15, early_stopping=False, random_state=seed)


def auc(positive: np.ndarray, negative: np.ndarray) -> float:
    """Area under the ROC curve: the chance that a positive scores above a negative, ties counted half.

    Examples
    --------
    >>> auc(np.array([2.0, 3.0]), np.array([1.0, 2.0]))
    0.875
    """
    from scipy.stats import rankdata

    n, m = len(positive), len(negative)
    ranks = rankdata(np.concatenate([positive, negative]))[:n]
    return float((ranks.sum() - n * (n + 1) / 2) / (n * m))


def c2st(real: np.ndarray, fake: np.ndarray, classifier: Classifier, seed: int = 0) -> float:
    """AUC of a classifier that is asked which cells are synthetic, out of fold.

    .5: it cannot tell (the best there is). 1: it always can. Values below .5 happen by chance in few cells and count as
    they are. (Lopez-Paz and Oquab, "Revisiting classifier two-sample tests", ICLR 2017; arXiv:1610.06545.)

    Parameters
    ----------
    real, fake
        ``[cells, features]``, equally many cells of the same composition for a fair reading.
    classifier
        `forest`, `linear`, `boosting`, or any function of a seed that returns a scikit-learn classifier.

    Returns
    -------
    float
        In 0..1; lower is better.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> c2st(rng.normal(0, 1, (200, 2)), rng.normal(9, 1, (200, 2)), linear)
    1.0
    """
    of_real, of_fake = out_of_fold(real, fake, classifier, seed)
    return auc(of_fake, of_real)


def out_of_fold(real: np.ndarray, fake: np.ndarray, classifier: Classifier, seed: int = 0, folds: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """Each distinct cell's odds of being synthetic, from a classifier that saw neither it nor a copy of it: of real cells, of synthetic ones."""
    from sklearn.model_selection import StratifiedKFold
    from threadpoolctl import threadpool_limits

    real, fake = distinct(real), distinct(fake)
    features, is_fake = np.concatenate([real, fake]), np.repeat([0, 1], [len(real), len(fake)])
    scores = np.zeros(len(features))
    with threadpool_limits(1):  # a few thousand cells: OpenMP's threads cost more than they bring, many times more on a busy machine
        for shown, held_out in StratifiedKFold(folds, shuffle=True, random_state=seed).split(features, is_fake):
            scores[held_out] = classifier(seed).fit(features[shown], is_fake[shown]).predict_proba(features[held_out])[:, 1]
    return scores[: len(real)], scores[len(real) :]


def distinct(cells: np.ndarray) -> np.ndarray:
    """Each cell once, in order: a copy in another fold would be recognised, not judged.

    Where fewer than a tenth are distinct, all are kept: the repetition itself gives such a set away, and what is left
    without it would be too little to learn from.
    """
    first = list({cell.tobytes(): row for row, cell in reversed(list(enumerate(np.ascontiguousarray(cells))))}.values())
    return cells if len(first) < len(cells) / 10 else cells[np.sort(first)]

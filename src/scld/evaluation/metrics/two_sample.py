"""The classifier two-sample test: how well a classifier distinguishes real from synthetic cells."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

Classifier = Callable[[int], Any]  # seed -> a scikit-learn classifier


def forest(seed: int) -> Any:
    """A random forest, for variable genes (Breiman 2001, Machine Learning 45:5)."""
    from sklearn.ensemble import RandomForestClassifier

    return RandomForestClassifier(50, min_samples_leaf=5, n_jobs=-1, random_state=seed)


def linear(seed: int) -> Any:
    """Logistic regression, for standardised genes; strongly regularised: genes outnumber cells."""
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=1e-3, max_iter=300, tol=1e-3, random_state=seed)


def boosting(seed: int) -> Any:
    """Gradient-boosted trees, for principal components, log depth and log genes detected."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    return HistGradientBoostingClassifier(
        max_iter=60, max_leaf_nodes=15, early_stopping=False, random_state=seed
    )


CLASSIFIERS: dict[str, Classifier] = {"forest": forest, "linear": linear, "boosting": boosting}


def auc(positive: np.ndarray, negative: np.ndarray) -> float:
    """Area under the ROC curve: how often a positive scores above a negative, ties counted half.

    Examples
    --------
    >>> auc(np.array([2.0, 3.0]), np.array([1.0, 2.0]))
    0.875
    """
    from scipy.stats import rankdata

    n, m = len(positive), len(negative)
    ranks = rankdata(np.concatenate([positive, negative]))[:n]
    return float((ranks.sum() - n * (n + 1) / 2) / (n * m))


def largest_auc(*pairs: tuple[np.ndarray, np.ndarray]) -> float:
    """The largest `auc` of several classifiers, each given as scores of positives and negatives.

    Examples
    --------
    >>> high, low = np.array([2.0, 3.0]), np.array([0.0, 1.0])
    >>> largest_auc((high, low), (low, high))
    1.0
    """
    return max(auc(positive, negative) for positive, negative in pairs)


def c2st(real: np.ndarray, synthetic: np.ndarray, classifier: Classifier, seed: int = 0) -> float:
    """AUC of a classifier that predicts, for cells it was not trained on, which are synthetic.

    0.5: it cannot distinguish them, the best value. 1: it always can. Values below 0.5 occur by
    chance with few cells and are reported as they are. (Lopez-Paz and Oquab, "Revisiting
    classifier two-sample tests", ICLR 2017; arXiv:1610.06545.)

    Parameters
    ----------
    real, synthetic
        ``[cells, features]``; compare equally many cells of the same composition.
    classifier
        `forest`, `linear`, `boosting`, or any function of a seed that returns a scikit-learn
        classifier.

    Returns
    -------
    float
        From 0 to 1; lower is better.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> c2st(rng.normal(0, 1, (200, 2)), rng.normal(9, 1, (200, 2)), linear)
    1.0
    """
    of_real, of_synthetic = out_of_fold(real, synthetic, classifier, seed)
    return auc(of_synthetic, of_real)


def out_of_fold(
    real: np.ndarray,
    synthetic: np.ndarray,
    classifier: Classifier,
    seed: int = 0,
    folds: int = 5,
) -> tuple[np.ndarray, np.ndarray]:
    """Predicted probability that each distinct cell is synthetic, by cross-validation.

    No classifier was trained on the cell that it scores, or on a copy of it.

    Returns
    -------
    tuple of numpy.ndarray
        Scores of the real cells and of the synthetic ones.
    """
    from sklearn.model_selection import StratifiedKFold
    from threadpoolctl import threadpool_limits

    real, synthetic = distinct(real), distinct(synthetic)
    features = np.concatenate([real, synthetic])
    is_synthetic = np.repeat([0, 1], [len(real), len(synthetic)])
    splits = StratifiedKFold(folds, shuffle=True, random_state=seed).split(features, is_synthetic)
    scores = np.zeros(len(features))
    with threadpool_limits(1):  # OpenMP threads cost more than they gain on a few thousand cells
        for trained_on, scored in splits:
            with warnings.catch_warnings():  # scikit-learn's threads can leave no filter behind
                fitted = classifier(seed).fit(features[trained_on], is_synthetic[trained_on])
            with warnings.catch_warnings():
                scores[scored] = fitted.predict_proba(features[scored])[:, 1]
    return scores[: len(real)], scores[len(real) :]


def distinct(cells: np.ndarray) -> np.ndarray:
    """Each cell once, in order: a classifier would remember a copy in another fold.

    Where fewer than a tenth are distinct, all are kept: the repetition itself distinguishes such a
    set, and too few cells would be left to train on.
    """
    rows = reversed(list(enumerate(np.ascontiguousarray(cells))))
    first = list({cell.tobytes(): row for row, cell in rows}.values())
    return cells if len(first) < len(cells) / 10 else cells[np.sort(first)]
